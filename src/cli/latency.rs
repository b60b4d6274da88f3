//! `latency`: how long the way to each node and back takes, as this client sees it.
//!
//! The smallest question there is, on the connection that other requests share; a node answers it without work.

use super::args::live::LatencyArgs;
use super::caller::{Caller, other_answer};
use super::everywhere;
use super::live::{self, Round};
use super::logs::time;
use super::session::Call;
use super::value::{Answered, Doc};
use crate::cluster::heard::clock_ms;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest way told apart, in microseconds; longer ones count as this.
const LATENCY_US_MAX: u64 = 60_000_000;
/// What a line of `--watch` is about.
const WINDOW: Duration = Duration::from_secs(1);

/// What became of questions to one node.
#[derive(Debug)]
struct Ways {
    took_us: Histogram<u64>,
    failed: u64,
    error: Option<Error>,
}

impl Ways {
    fn new() -> Result<Self> {
        let took_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        let took_us = took_us.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        Ok(Self { took_us, failed: 0, error: None })
    }

    fn note(&mut self, round: &Round) {
        match &round.answer {
            Ok(Answer::Pong) => {
                self.took_us.saturating_record((round.took.as_micros() as u64).max(1));
            }
            Ok(_) => self.failed_with(other_answer()),
            Err(error) => self.failed_with(error.clone()),
        }
    }

    fn failed_with(&mut self, error: Error) {
        self.failed += 1;
        self.error = Some(error);
    }

    fn reset(&mut self) {
        self.took_us.reset();
        self.failed = 0;
    }

    fn is_empty(&self) -> bool {
        self.took_us.is_empty() && self.failed == 0
    }

    /// Least, half, 99 of 100, most, in milliseconds; none if nothing was answered.
    fn ms(&self) -> [Option<f64>; 4] {
        let values = [
            self.took_us.min(),
            self.took_us.value_at_quantile(0.5),
            self.took_us.value_at_quantile(0.99),
            self.took_us.max(),
        ];
        values.map(|us| (!self.took_us.is_empty()).then_some(us as f64 / 1_000.0))
    }

    fn cells(&self) -> Vec<String> {
        let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.3}"));
        let counts = [self.took_us.len(), self.failed].map(|count| count.to_string());
        counts.into_iter().chain(self.ms().map(ms)).collect()
    }

    fn json(&self, node: &NodeName) -> Json {
        let [min, p50, p99, max] = self.ms();
        json!({
            "node": node.as_str(), "answered": self.took_us.len(), "failed": self.failed,
            "min_ms": min, "p50_ms": p50, "p99_ms": p99, "max_ms": max,
        })
    }
}

/// Measures until the time is up, or Ctrl-C.
pub async fn run<C: Caller>(caller: &C, args: &LatencyArgs, call: &Call) -> Result<Answered> {
    if args.watch && !call.talk.prints_lines() {
        let message = "--watch prints a line for each node again and again, which -o json and a program that gets \
                       one answer have no place for; leave it out, or use -o jsonl";
        return Err(Error::new(Code::BadRequest, message));
    }
    let nodes = everywhere::nodes(caller, call).await?;
    let mut measured = Measured::new(&nodes, Instant::now())?;
    let rounds = live::rounds(caller, &nodes, args.interval, |_| Command::Ping);
    let end = live::watch(rounds, live::end(call, Some(args.time)), |round| {
        measured.note(&round);
        call.talk.progress(&measured.said());
        let lines = if args.watch { measured.window(Instant::now()) } else { Vec::new() };
        let print = |line: &Line| line.json.clone();
        call.talk.lines(&lines, |line| line.row.clone(), print)
    })
    .await;
    call.talk.ended();
    match measured.failure() {
        Some(error) => Err(error),
        None => Ok(end.of(Answered::doc(measured.doc(), None))),
    }
}

/// A line of `--watch`.
struct Line {
    row: Vec<String>,
    json: Json,
}

struct Measured {
    all: BTreeMap<NodeName, Ways>,
    window: BTreeMap<NodeName, Ways>,
    window_began: Instant,
}

impl Measured {
    fn new(nodes: &[NodeName], now: Instant) -> Result<Self> {
        let of_node = |node: &NodeName| Ways::new().map(|ways| (node.clone(), ways));
        let of_nodes = || nodes.iter().map(of_node).collect::<Result<_>>();
        Ok(Self { all: of_nodes()?, window: of_nodes()?, window_began: now })
    }

    fn note(&mut self, round: &Round) {
        for ways in [&mut self.all, &mut self.window] {
            if let Some(ways) = ways.get_mut(&round.node) {
                ways.note(round);
            }
        }
    }

    /// The lines of a window that is over; the next one begins.
    fn window(&mut self, now: Instant) -> Vec<Line> {
        if now.saturating_duration_since(self.window_began) < WINDOW {
            return Vec::new();
        }
        self.window_began = now;
        let mut lines = Vec::new();
        for (node, ways) in self.window.iter_mut().filter(|(_, ways)| !ways.is_empty()) {
            let at_ms = clock_ms();
            let row = [vec![time(at_ms), node.to_string()], ways.cells()].concat();
            let mut json = ways.json(node);
            json["at_ms"] = json!(at_ms);
            lines.push(Line { row, json: json!({ "v": 1, "latency": json }) });
            ways.reset();
        }
        lines
    }

    /// How far it is.
    fn said(&self) -> String {
        let of_node = |(node, ways): (&NodeName, &Ways)| match ways.ms()[1] {
            Some(ms) => format!("{node} {ms:.1} ms"),
            None => format!("{node} -"),
        };
        self.all.iter().map(of_node).collect::<Vec<_>>().join("  ")
    }

    /// Why nobody has answered; none if somebody has.
    fn failure(&self) -> Option<Error> {
        let is_answered = self.all.values().any(|ways| !ways.took_us.is_empty());
        let error = self.all.values().find_map(|ways| ways.error.clone());
        error.filter(|_| !is_answered)
    }

    fn doc(&self) -> Doc {
        let row =
            |(node, ways): (&NodeName, &Ways)| [vec![node.to_string()], ways.cells()].concat();
        let silent = self.all.iter().filter(|(_, ways)| ways.took_us.is_empty());
        let silent: Vec<&str> = silent.map(|(node, _)| node.as_str()).collect();
        let notes = match silent.is_empty() {
            true => Vec::new(),
            false => vec![format!("no answer from {}", silent.join(", "))],
        };
        let nodes: Vec<Json> = self.all.iter().map(|(node, ways)| ways.json(node)).collect();
        Doc {
            json: json!({ "nodes": nodes, "no_answer": silent }),
            header: vec!["NODE", "ANSWERED", "FAILED", "MIN MS", "P50 MS", "P99 MS", "MAX MS"],
            rows: self.all.iter().map(row).collect(),
            notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::name;
    use super::*;

    fn round(node: &str, ms: u64) -> Round {
        Round { node: name(node), answer: Ok(Answer::Pong), took: Duration::from_millis(ms) }
    }

    fn lost(node: &str) -> Round {
        let error = Error::new(Code::Unreachable, format!("{node} is down"));
        Round { node: name(node), answer: Err(error), took: Duration::from_secs(2) }
    }

    #[test]
    fn ways_are_measured_and_what_is_lost_is_counted_and_not_timed() {
        let start = Instant::now();
        let mut measured = Measured::new(&[name("n1"), name("n2")], start).unwrap();
        (1..=100).for_each(|ms| measured.note(&round("n1", ms)));
        measured.note(&lost("n1"));
        measured.note(&lost("n2"));
        assert_eq!(measured.failure(), None);
        assert_eq!(measured.said(), "n1 50.0 ms  n2 -");
        let doc = measured.doc();
        let n1 = &doc.json["nodes"][0];
        assert_eq!((&n1["answered"], &n1["failed"]), (&json!(100), &json!(1)));
        let near = |name: &str, expected: f64| {
            let ms = n1[name].as_f64().unwrap();
            assert!((ms - expected).abs() / expected < 0.01, "{name}: {ms}");
        };
        near("min_ms", 1.0);
        near("p50_ms", 50.0);
        near("p99_ms", 99.0);
        near("max_ms", 100.0);
        assert_eq!(doc.rows[1], ["n2", "0", "1", "-", "-", "-", "-"]);
        assert_eq!(doc.json["nodes"][1]["p99_ms"], Json::Null);
        assert_eq!((&doc.json["no_answer"], doc.notes.len()), (&json!(["n2"]), 1));
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }

    #[test]
    fn each_window_has_its_own_numbers() {
        let start = Instant::now();
        let mut measured = Measured::new(&[name("n1"), name("n2")], start).unwrap();
        measured.note(&round("n1", 8));
        assert!(measured.window(start + WINDOW / 2).is_empty());
        let lines = measured.window(start + WINDOW);
        assert_eq!(lines.len(), 1, "nothing is told of n2");
        assert_eq!((&lines[0].row[1][..], &lines[0].row[2][..]), ("n1", "1"));
        measured.note(&round("n1", 2));
        measured.note(&lost("n2"));
        let lines = measured.window(start + 2 * WINDOW);
        assert_eq!(lines.len(), 2);
        let max = lines[0].json["latency"]["max_ms"].as_f64().unwrap();
        assert!(max < 3.0, "{max}");
        assert_eq!(measured.doc().json["nodes"][0]["answered"], 2);
    }

    #[test]
    fn nobody_who_answers_is_an_error() {
        let mut measured = Measured::new(&[name("n1")], Instant::now()).unwrap();
        measured.note(&lost("n1"));
        assert_eq!(measured.failure().unwrap().code, Code::Unreachable);
    }
}
