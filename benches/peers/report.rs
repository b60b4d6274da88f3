//! What was measured, brought together: medians over the rounds, ratios, verdicts; as a table and as JSON.
//!
//! Pure: from samples to text.

use crate::events::Loaded;
use crate::load::Measured;
use crate::rows::{Found, Peer, Row};
use crate::stats::{median, range};
use crate::text::{number, table};
use serde_json::{Value as Json, json};

/// What a sample says about its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// PPDB, as the row demands it.
    Own,
    /// PPDB in another way, for information.
    Aside,
    /// The peer. The best of the ways in which it was driven is the reference.
    Reference,
}

/// One round of one row, driven in one way.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The row.
    pub row: Row,
    /// Who was driven, and how.
    pub way: &'static str,
    /// What for.
    pub counts: Counts,
    /// What it came to.
    pub measured: Measured,
    /// CPU of all processes of the system for each answer, in microseconds.
    pub server_cpu_us: f64,
}

/// Everything that a run found.
#[derive(Default)]
pub struct Report {
    /// Rounds of requests.
    pub samples: Vec<Sample>,
    /// CPU in percent of a core and anonymous memory in MiB of an idle cluster.
    pub idle: Option<(f64, f64)>,
    /// Bytes to be copied by a switch, seconds of the switch, seconds of a copy with fsync by hand.
    pub switch: Option<(u64, f64, f64)>,
    /// A switch under load.
    pub loaded: Option<Loaded>,
    /// Seconds of each failover.
    pub failovers_s: Vec<f64>,
    /// Rows that were not measured, and why.
    pub left_out: Vec<(Row, String)>,
}

/// A way of driving a row, over its rounds.
struct Line {
    row: Row,
    way: &'static str,
    counts: Counts,
    rate: f64,
    rate_range: (f64, f64),
    p50_ms: f64,
    p99_ms: f64,
    server_cpu_us: f64,
    rounds: usize,
    failed: u64,
    failure: Option<String>,
}

/// A row with its verdict.
struct Verdict {
    row: Row,
    own: f64,
    /// Figure and name.
    reference: Option<(f64, String)>,
    found: Found,
}

impl Report {
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for sample in &self.samples {
            if lines.iter().any(|line| line.row == sample.row && line.way == sample.way) {
                continue;
            }
            let same = |s: &&Sample| s.row == sample.row && s.way == sample.way;
            let of = |f: fn(&Sample) -> f64| {
                self.samples.iter().filter(same).map(f).collect::<Vec<f64>>()
            };
            let middle = |f: fn(&Sample) -> f64| median(&of(f)).unwrap_or_default();
            let rates = of(|s| s.measured.rate);
            let failures = self.samples.iter().filter(same);
            lines.push(Line {
                row: sample.row,
                way: sample.way,
                counts: sample.counts,
                rate: median(&rates).unwrap_or_default(),
                rate_range: range(&rates).unwrap_or_default(),
                p50_ms: middle(|s| s.measured.p50_ms),
                p99_ms: middle(|s| s.measured.p99_ms),
                server_cpu_us: middle(|s| s.server_cpu_us),
                rounds: rates.len(),
                failed: failures.clone().map(|s| s.measured.failed).sum(),
                failure: failures.clone().find_map(|s| s.measured.failure.clone()),
            });
        }
        lines
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let lines = self.lines();
        let of_requests = |row: Row| {
            let own = lines.iter().find(|line| line.row == row && line.counts == Counts::Own)?;
            let reference = lines
                .iter()
                .filter(|line| line.row == row && line.counts == Counts::Reference)
                .max_by(|a, b| a.rate.total_cmp(&b.rate))?;
            let found = Found {
                ratio: Some(own.rate / reference.rate),
                p99_ms: Some(own.p99_ms),
                ..Found::default()
            };
            let reference = Some((reference.rate, reference.way.to_owned()));
            Some(Verdict { row, own: own.rate, reference, found })
        };
        let verdict = |row: Row| match row.peer() {
            Peer::Redis | Peer::Etcd => of_requests(row),
            Peer::Itself => self.loaded.map(|loaded| {
                let gap = loaded.gap_ms - loaded.base_gap_ms;
                let found = Found {
                    p99_ms: Some(loaded.p99_ms),
                    p99_growth: Some(loaded.p99_ms / loaded.base_p99_ms),
                    gap_growth_ms: Some(gap).filter(|_| loaded.failed == 0),
                    ..Found::default()
                };
                let reference = Some((loaded.base_p99_ms, "itself before".to_owned()));
                Verdict { row, own: loaded.p99_ms, reference, found }
            }),
            Peer::Nobody if row == Row::Failover => median(&self.failovers_s).map(|median_s| {
                let longest_s = range(&self.failovers_s).map(|(_, longest)| longest);
                let found = Found { median_s: Some(median_s), longest_s, ..Found::default() };
                Verdict { row, own: median_s, reference: None, found }
            }),
            Peer::Nobody => self.idle.map(|(cpu, mib)| {
                let found =
                    Found { cpu_percent: Some(cpu), anon_mib: Some(mib), ..Found::default() };
                Verdict { row, own: cpu, reference: None, found }
            }),
            Peer::Files => self.switch.map(|(bytes, switch_s, copy_s)| {
                let rate = |seconds: f64| bytes as f64 / 1e6 / seconds;
                let found = Found { ratio: Some(copy_s / switch_s), ..Found::default() };
                let reference = Some((rate(copy_s), "copy + fsync".to_owned()));
                Verdict { row, own: rate(switch_s), reference, found }
            }),
        };
        Row::ALL.into_iter().filter_map(verdict).collect()
    }

    /// Requests that failed, in all.
    pub fn failed(&self) -> u64 {
        let loaded = self.loaded.map_or(0, |loaded| loaded.failed);
        loaded + self.samples.iter().map(|sample| sample.measured.failed).sum::<u64>()
    }

    /// For a person.
    pub fn text(&self) -> String {
        let yes = |met: bool| if met { "yes" } else { "NO" }.to_owned();
        let rows = self.verdicts().into_iter().map(|v| {
            let (gate, goal) = (v.row.gate(), v.row.goal());
            let (figure, by) = v.reference.unwrap_or((0.0, "-".into()));
            vec![
                v.row.work().to_owned(),
                by.clone(),
                format!("{} {}", number(v.own), v.row.unit()),
                if by == "-" { by } else { format!("{} {}", number(figure), v.row.unit()) },
                v.found.ratio.map_or("-".into(), |ratio| format!("{ratio:.2}x")),
                v.found.p99_ms.map_or("-".into(), |ms| format!("{ms:.1}")),
                v.found.anon_mib.map_or("-".into(), |mib| format!("{mib:.0}")),
                gate.text(),
                yes(gate.is_met(&v.found)),
                goal.text(),
                yes(goal.is_met(&v.found)),
            ]
        });
        let header = [
            "ROW",
            "REFERENCE",
            "PPDB",
            "REFERENCE",
            "RATIO",
            "P99 MS",
            "MIB",
            "GATE",
            "MET",
            "GOAL",
            "MET",
        ];
        let mut out = table(&header, &rows.collect::<Vec<_>>(), 2);
        let lines = self.lines().into_iter().map(|line| {
            vec![
                line.row.name().to_owned(),
                line.way.to_owned(),
                number(line.rate),
                format!("{} - {}", number(line.rate_range.0), number(line.rate_range.1)),
                format!("{:.2}", line.p50_ms),
                format!("{:.2}", line.p99_ms),
                number(line.server_cpu_us),
                line.failed.to_string(),
            ]
        });
        let lines: Vec<_> = lines.collect();
        if !lines.is_empty() {
            let header = [
                "MEASURED",
                "DRIVEN BY",
                "/S",
                "LEAST - MOST",
                "P50 MS",
                "P99 MS",
                "CPU US",
                "FAILED",
            ];
            out += &format!("\n{}", table(&header, &lines, 2));
            out += "Medians of the rounds. CPU US: of all server processes, for each answer.\n";
        }
        for line in self.lines() {
            if let Some(failure) = line.failure {
                out += &format!("failed in {}, {}: {failure}\n", line.row.name(), line.way);
            }
        }
        if let Some((bytes, switch_s, copy_s)) = self.switch {
            let mb = number(bytes as f64 / 1e6);
            out += &format!(
                "the switch: {mb} MB in {switch_s:.2} s; copied by hand and fsynced in {copy_s:.2} s\n"
            );
        }
        if let Some(l) = self.loaded {
            out += &format!(
                "a switch under load: {:.2} s; p99 {:.1} ms, before {:.1} ms; longest wait for a write {:.0} ms, \
                 before {:.0} ms; {} failed\n",
                l.switch_s, l.p99_ms, l.base_p99_ms, l.gap_ms, l.base_gap_ms, l.failed
            );
        }
        if let (Some(middle), Some((least, most))) =
            (median(&self.failovers_s), range(&self.failovers_s))
        {
            let times = self.failovers_s.len();
            out += &format!("{times} failovers: {least:.2} to {most:.2} s, median {middle:.2} s\n");
        }
        for (row, why) in &self.left_out {
            out += &format!("left out: {} ({why})\n", row.work());
        }
        out
    }

    /// For a program.
    pub fn json(&self) -> Json {
        let rows = self.verdicts().into_iter().map(|v| {
            let (gate, goal) = (v.row.gate(), v.row.goal());
            json!({
                "row": v.row.name(), "work": v.row.work(), "unit": v.row.unit(), "ppdb": v.own,
                "reference": v.reference.as_ref().map(|(figure, _)| figure),
                "reference_by": v.reference.as_ref().map(|(_, by)| by),
                "ratio": v.found.ratio, "p99_ms": v.found.p99_ms,
                "cpu_percent": v.found.cpu_percent, "anon_mib": v.found.anon_mib,
                "gate": gate.text(), "gate_met": gate.is_met(&v.found),
                "goal": goal.text(), "goal_met": goal.is_met(&v.found),
            })
        });
        let measured = self.lines().into_iter().map(|line| {
            json!({
                "row": line.row.name(), "way": line.way, "rounds": line.rounds, "rate": line.rate,
                "rate_least": line.rate_range.0, "rate_most": line.rate_range.1,
                "p50_ms": line.p50_ms, "p99_ms": line.p99_ms,
                "server_cpu_us": line.server_cpu_us, "failed": line.failed,
                "failure": line.failure,
            })
        });
        let left_out =
            self.left_out.iter().map(|(row, why)| json!({ "row": row.name(), "why": why }));
        let switch = self.switch.map(|(bytes, switch_s, copy_s)| {
            json!({ "bytes": bytes, "switch_s": switch_s, "copy_s": copy_s })
        });
        json!({
            "v": 1,
            "rows": rows.collect::<Vec<_>>(),
            "measured": measured.collect::<Vec<_>>(),
            "switch": switch,
            "switch_loaded": self.loaded.map(|l| json!({
                "base_p99_ms": l.base_p99_ms, "p99_ms": l.p99_ms, "base_gap_ms": l.base_gap_ms,
                "gap_ms": l.gap_ms, "switch_s": l.switch_s, "failed": l.failed,
            })),
            "failovers_s": self.failovers_s,
            "left_out": left_out.collect::<Vec<_>>(),
        })
    }
}
