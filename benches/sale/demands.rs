//! What is demanded of a sale, and whether what was found meets it. Pure.
//!
//! A run is judged by itself, against its own baseline, and the worst run counts; medians are shown beside it.

use crate::findings::{Cost, Findings, Run};
use crate::stats::median;
use crate::text::number;

/// A write gap may be so much longer than before.
pub const GAP_GROWTH_MS_MAX: f64 = 200.0;
/// The 99th percentile may be so many times what it was before.
pub const P99_GROWTH_MAX: f64 = 2.0;
/// Bytes may be off the plan by this share.
pub const BYTES_ERROR_MAX: f64 = 0.1;
/// Time may be off the plan by this factor, either way.
pub const TIME_FACTOR_MAX: f64 = 2.0;
/// Rate of a switch without load, by that of a copy with fsync: what has to be met, and what is aimed at.
pub const COPY_RATIO_GATE: f64 = 0.4;
/// What is aimed at.
pub const COPY_RATIO_GOAL: f64 = 0.7;

/// One demand, with its verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What is demanded.
    pub demand: &'static str,
    /// What was found, for a person.
    pub found: String,
    /// For a program; none if nothing was.
    pub figure: Option<f64>,
    /// What it may come to; none of what is shown only.
    pub limit: Option<String>,
    /// Whether it holds. What was demanded and not found does not.
    pub met: Option<bool>,
}

/// Every demand.
pub fn verdicts(findings: &Findings) -> Vec<Verdict> {
    let mut all = vec![failed(findings)];
    all.push(growth(findings, "longest write gap", |run| (run.base.gap_ms, run.whole.gap_ms)));
    let wait = |run: &Run| (run.base.wait_ms, run.whole.wait_ms);
    all.push(growth(findings, "longest wait for a write", wait));
    all.push(p99(findings));
    let costs: Vec<Cost> = findings.runs.iter().flat_map(Run::costs).collect();
    all.extend(bytes(&costs));
    all.extend(time(&costs));
    all.extend(copy_rate(findings));
    all
}

fn failed(findings: &Findings) -> Verdict {
    let failed = findings.failed();
    Verdict {
        demand: "failed requests",
        found: failed.to_string(),
        figure: Some(failed as f64),
        limit: Some("0".into()),
        met: Some(failed == 0 && !findings.runs.is_empty()),
    }
}

/// Milliseconds that something grew by.
fn growth(findings: &Findings, demand: &'static str, of: fn(&Run) -> (f64, f64)) -> Verdict {
    let grown = |run: &Run| of(run).1 - of(run).0;
    let worst = findings.runs.iter().max_by(|a, b| grown(a).total_cmp(&grown(b)));
    let middle = middle(findings, grown);
    let found = worst.map_or_else(nothing, |run| {
        let (before, during) = of(run);
        let (by, before, during) = (grown(run), number(before), number(during));
        format!("{by:+.0} ms ({before} to {during} ms), median {middle:+.0} ms")
    });
    Verdict {
        demand,
        found,
        figure: worst.map(grown),
        limit: Some(format!("+{GAP_GROWTH_MS_MAX} ms")),
        met: Some(worst.is_some_and(|run| grown(run) <= GAP_GROWTH_MS_MAX)),
    }
}

fn p99(findings: &Findings) -> Verdict {
    let grown = |run: &Run| run.whole.p99_ms / run.base.p99_ms;
    let worst = findings.runs.iter().max_by(|a, b| grown(a).total_cmp(&grown(b)));
    let middle = middle(findings, grown);
    let found = worst.map_or_else(nothing, |run| {
        let (before, during) = (number(run.base.p99_ms), number(run.whole.p99_ms));
        format!("{:.2}x ({before} to {during} ms), median {middle:.2}x", grown(run))
    });
    Verdict {
        demand: "p99 of all requests",
        found,
        figure: worst.map(grown),
        limit: Some(format!("{P99_GROWTH_MAX}x")),
        met: Some(worst.is_some_and(|run| grown(run) <= P99_GROWTH_MAX)),
    }
}

fn bytes(costs: &[Cost]) -> [Verdict; 2] {
    // A switch that copies nothing, and was to copy nothing, would only make the median look better.
    let ratios: Vec<f64> = costs.iter().filter_map(Cost::bytes_ratio).collect();
    let worst = worst(&ratios);
    let off = |cost: &Cost| cost.actual_bytes.abs_diff(cost.predicted_bytes) as f64;
    let fits = |cost: &Cost| off(cost) <= cost.predicted_bytes as f64 * BYTES_ERROR_MAX;
    let met = !ratios.is_empty() && costs.iter().all(fits);
    let percent = BYTES_ERROR_MAX * 100.0;
    let limit = format!("within {percent:.0} %");
    [
        of_plan("bytes by the plan, each switch", worst, limit, met),
        error("bytes, median error", &ratios),
    ]
}

fn time(costs: &[Cost]) -> [Verdict; 2] {
    let ratios: Vec<f64> = costs.iter().map(Cost::time_ratio).collect();
    let worst = worst(&ratios);
    let fits = 1.0 / TIME_FACTOR_MAX..=TIME_FACTOR_MAX;
    let met = worst.is_some_and(|ratio| fits.contains(&ratio));
    let limit = format!("{} to {TIME_FACTOR_MAX}x", 1.0 / TIME_FACTOR_MAX);
    [
        of_plan("time by the plan, each switch", worst, limit, met),
        error("time, median error", &ratios),
    ]
}

fn copy_rate(findings: &Findings) -> [Verdict; 2] {
    let unloaded = findings.unloaded;
    let rate = |seconds: f64| number(unloaded.bytes as f64 / 1e6 / seconds);
    let ratio = unloaded.copy_s / unloaded.switch_s;
    let (own, by_hand) = (rate(unloaded.switch_s), rate(unloaded.copy_s));
    let verdict = |demand, limit: f64| Verdict {
        demand,
        found: format!("{ratio:.2}x ({own} MB/s by {by_hand} MB/s)"),
        figure: Some(ratio).filter(|ratio| ratio.is_finite()),
        limit: Some(format!("{limit}x")),
        met: Some(ratio >= limit),
    };
    [
        verdict("switch without load by copy + fsync, gate", COPY_RATIO_GATE),
        verdict("the same, goal", COPY_RATIO_GOAL),
    ]
}

fn of_plan(demand: &'static str, worst: Option<f64>, limit: String, met: bool) -> Verdict {
    let found = worst.map_or_else(nothing, |ratio| format!("{ratio:.2}x the plan at worst"));
    Verdict { demand, found, figure: worst, limit: Some(limit), met: Some(met) }
}

/// The median distance from what was predicted, as a share of that.
fn error(demand: &'static str, ratios: &[f64]) -> Verdict {
    let errors: Vec<f64> = ratios.iter().map(|ratio| (ratio - 1.0).abs()).collect();
    let figure = median(&errors);
    let count = errors.len();
    let found = figure.map_or_else(nothing, |error| format!("{:.1} % of {count}", error * 100.0));
    Verdict { demand, found, figure, limit: None, met: None }
}

/// The ratio that is furthest from one, by its factor: half is as far as double.
fn worst(ratios: &[f64]) -> Option<f64> {
    ratios.iter().copied().max_by(|a, b| a.ln().abs().total_cmp(&b.ln().abs()))
}

fn middle(findings: &Findings, of: impl Fn(&Run) -> f64) -> f64 {
    median(&findings.runs.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
}

fn nothing() -> String {
    "nothing was found".to_owned()
}
