//! What was found and what follows from it, for a person and for a program. Pure.

use crate::demands::verdicts;
use crate::findings::{Cost, Findings, Run, Step};
use crate::stats::{median, range};
use crate::text::{number, table};
use crate::window::Window;
use serde_json::{Value as Json, json};

/// For a person.
pub fn text(findings: &Findings) -> String {
    let demands = verdicts(findings).into_iter().map(|verdict| {
        let met = verdict.met.map_or("-", |met| if met { "yes" } else { "NO" });
        let limit = verdict.limit.unwrap_or("-".into());
        vec![verdict.demand.to_owned(), verdict.found, limit, met.to_owned()]
    });
    let mut out = table(&["DEMAND", "FOUND", "LIMIT", "MET"], &demands.collect::<Vec<_>>(), 2);
    out += &format!("\n{}", steps(&findings.runs));
    out += "Medians of the runs; the longest gap and wait of all. Times and bytes by the plan and by the journal.\n";
    let unloaded = findings.unloaded;
    out += &format!(
        "{} keys, {} MB of values. At most {} requests/s sharded, {} in full; the load: {}/s, four sets to a get.\n\
         without load: {} MB in {:.2} s, copied by hand and fsynced in {:.2} s; {}\n",
        number(findings.keys as f64),
        number(findings.bytes as f64 / 1e6),
        number(findings.sharded_rate),
        number(findings.full_rate),
        number(findings.rate),
        number(unloaded.bytes as f64 / 1e6),
        unloaded.switch_s,
        unloaded.copy_s,
        by_plan(&unloaded.cost),
    );
    for failure in findings.runs.iter().filter_map(|run| run.failure.as_ref()) {
        out += &format!("failed: {failure}\n");
    }
    out
}

fn by_plan(cost: &Cost) -> String {
    format!(
        "planned {} MB and {:.2} s, by the journal {} MB and {:.2} s",
        number(cost.predicted_bytes as f64 / 1e6),
        cost.predicted_ms as f64 / 1e3,
        number(cost.actual_bytes as f64 / 1e6),
        cost.actual_ms as f64 / 1e3,
    )
}

/// A line for the baseline, and one for each step.
fn steps(runs: &[Run]) -> String {
    let header = [
        "STEP",
        "S",
        "ANSWERED",
        "P99 MS",
        "WRITES P99",
        "GAP MS",
        "WAIT MS",
        "FAILED",
        "MB",
        "PLANNED",
        "S",
        "PLANNED",
        "HELD S",
    ];
    let bases: Vec<&Window> = runs.iter().map(|run| &run.base).collect();
    let mut lines = vec![line("before", "-".into(), &bases, &[])];
    let names = runs.first().map_or(&[][..], |run| &run.steps).iter().map(|step| step.name);
    for (i, name) in names.enumerate() {
        let same: Vec<&Step> = runs.iter().filter_map(|run| run.steps.get(i)).collect();
        let took = format!("{:.2}", middle(&same, |step| step.took_s));
        let windows: Vec<&Window> = same.iter().map(|step| &step.window).collect();
        let costs: Vec<Cost> = same.iter().filter_map(|step| step.cost).collect();
        lines.push(line(name, took, &windows, &costs));
    }
    table(&header, &lines, 1)
}

fn line(name: &str, took: String, windows: &[&Window], costs: &[Cost]) -> Vec<String> {
    let longest = |of: fn(&Window) -> f64| {
        let all: Vec<f64> = windows.iter().map(|window| of(window)).collect();
        format!("{:.0}", range(&all).unwrap_or_default().1)
    };
    let mut cells = vec![
        name.to_owned(),
        took,
        number(middle(windows, |window| window.answered as f64)),
        format!("{:.1}", middle(windows, |window| window.p99_ms)),
        format!("{:.1}", middle(windows, |window| window.write_p99_ms)),
        longest(|window| window.gap_ms),
        longest(|window| window.wait_ms),
        windows.iter().map(|window| window.failed).sum::<usize>().to_string(),
    ];
    let of_costs = |of: fn(&Cost) -> f64| match costs {
        [] => "-".to_owned(),
        costs => number(middle(costs, of)),
    };
    cells.extend([
        of_costs(|cost| cost.actual_bytes as f64 / 1e6),
        of_costs(|cost| cost.predicted_bytes as f64 / 1e6),
        of_costs(|cost| cost.actual_ms as f64 / 1e3),
        of_costs(|cost| cost.predicted_ms as f64 / 1e3),
        of_costs(|cost| cost.held_ms as f64 / 1e3),
    ]);
    cells
}

fn middle<T>(all: &[T], of: impl Fn(&T) -> f64) -> f64 {
    median(&all.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
}

/// For a program.
pub fn json(findings: &Findings) -> Json {
    let demands = verdicts(findings).into_iter().map(|verdict| {
        json!({
            "demand": verdict.demand, "found": verdict.found, "figure": verdict.figure,
            "limit": verdict.limit, "met": verdict.met,
        })
    });
    let unloaded = findings.unloaded;
    json!({
        "v": 1,
        "demands": demands.collect::<Vec<_>>(),
        "keys": findings.keys, "value_bytes": findings.bytes,
        "sharded_rate": findings.sharded_rate, "full_rate": findings.full_rate,
        "rate": findings.rate,
        "unloaded": {
            "bytes": unloaded.bytes, "switch_s": unloaded.switch_s, "copy_s": unloaded.copy_s,
            "cost": cost(&unloaded.cost),
        },
        "runs": findings.runs.iter().map(run).collect::<Vec<_>>(),
        "failed": findings.failed(),
    })
}

fn run(run: &Run) -> Json {
    let steps = run.steps.iter().map(|step| {
        json!({
            "step": step.name, "took_s": step.took_s, "seen": window(&step.window),
            "cost": step.cost.as_ref().map(cost),
        })
    });
    json!({
        "before": window(&run.base), "during": window(&run.whole),
        "steps": steps.collect::<Vec<_>>(), "failed": run.failed, "failure": run.failure,
    })
}

fn window(window: &Window) -> Json {
    json!({
        "answered": window.answered, "p99_ms": window.p99_ms, "write_p99_ms": window.write_p99_ms,
        "write_gap_ms": window.gap_ms, "write_wait_ms": window.wait_ms, "failed": window.failed,
    })
}

fn cost(cost: &Cost) -> Json {
    json!({
        "predicted_bytes": cost.predicted_bytes, "actual_bytes": cost.actual_bytes,
        "predicted_ms": cost.predicted_ms, "actual_ms": cost.actual_ms, "held_ms": cost.held_ms,
    })
}
