//! `stats`: how each node does at this moment, and all of them together; once, or again and again.
//!
//! A node that does not answer is shown as such. What is bad is not judged here.

use super::admin::status;
use super::args::load::Stats;
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::value::{Answered, Doc, Failure};
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::guard::ServiceLevel;
use crate::wire::load::NodeStats;
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long a node may take to answer; one that is slower has no row of numbers this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `--watch` goes on unless told otherwise.
pub const WATCH_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// Numbers of one node, or of all of them.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    reads_per_s: f64,
    writes_per_s: f64,
    errors_per_s: f64,
    service: ServiceLevel,
    cpu_percent: u32,
    load_percent: u32,
    requests: u64,
    /// Scans and batches, writes, reads.
    refused_per_s: [f64; 3],
    write_bytes_per_s: f64,
    lag_entries: Option<u64>,
}

impl Row {
    fn of(stats: &NodeStats) -> Self {
        let counts = &stats.counts;
        let per_s = |count: u64| count as f64 * 1_000.0 / counts.window_ms.max(1) as f64;
        Self {
            reads_per_s: per_s(counts.reads),
            writes_per_s: per_s(counts.writes),
            errors_per_s: per_s(counts.errors),
            service: stats.service,
            cpu_percent: stats.load.cpu_percent,
            load_percent: stats.load_percent,
            requests: stats.requests,
            refused_per_s: [counts.refused_bulk, counts.refused_writes, counts.refused_reads]
                .map(per_s),
            write_bytes_per_s: per_s(counts.write_bytes),
            lag_entries: stats.lag_entries,
        }
    }

    /// Rates and requests added up, and of everything else what is worst.
    fn total<'a>(rows: impl Iterator<Item = &'a Self>) -> Self {
        rows.fold(Self::default(), |a, b| Self {
            reads_per_s: a.reads_per_s + b.reads_per_s,
            writes_per_s: a.writes_per_s + b.writes_per_s,
            errors_per_s: a.errors_per_s + b.errors_per_s,
            service: ServiceLevel::worst([&a.service, &b.service]),
            cpu_percent: a.cpu_percent.max(b.cpu_percent),
            load_percent: a.load_percent.max(b.load_percent),
            requests: a.requests + b.requests,
            refused_per_s: [0, 1, 2].map(|i| a.refused_per_s[i] + b.refused_per_s[i]),
            write_bytes_per_s: a.write_bytes_per_s + b.write_bytes_per_s,
            lag_entries: a.lag_entries.max(b.lag_entries),
        })
    }

    fn json(&self) -> Json {
        let ms = |us: Option<u64>| us.map(|us| us as f64 / 1_000.0);
        let [bulk, write, read] = self.refused_per_s.map(tenths);
        json!({
            "reads_per_s": tenths(self.reads_per_s), "writes_per_s": tenths(self.writes_per_s),
            "errors_per_s": tenths(self.errors_per_s),
            "read_p99_ms": ms(self.service.read_p99_us),
            "write_p99_ms": ms(self.service.write_p99_us),
            "write_gap_ms": self.service.write_gap_ms, "cpu_percent": self.cpu_percent,
            "load_percent": self.load_percent, "requests": self.requests,
            "refused_per_s": { "bulk": bulk, "write": write, "read": read },
            "write_bytes_per_s": self.write_bytes_per_s.round(), "lag_entries": self.lag_entries,
        })
    }

    fn cells(&self) -> Vec<String> {
        let ms =
            |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{:.1}", us as f64 / 1e3));
        let refused = self.refused_per_s.map(|rate| format!("{rate:.0}")).join("/");
        vec![
            format!("{:.0}", self.reads_per_s),
            format!("{:.0}", self.writes_per_s),
            format!("{:.1}", self.errors_per_s),
            ms(self.service.read_p99_us),
            ms(self.service.write_p99_us),
            self.service.write_gap_ms.to_string(),
            self.cpu_percent.to_string(),
            self.load_percent.to_string(),
            self.requests.to_string(),
            refused,
            format!("{:.1}", self.write_bytes_per_s / f64::from(1 << 10)),
            self.lag_entries.map_or("-".to_owned(), |lag| lag.to_string()),
        ]
    }
}

const HEADER: [&str; 13] = [
    "NODE",
    "READS/S",
    "WRITES/S",
    "ERRORS/S",
    "READ P99 MS",
    "WRITE P99 MS",
    "GAP MS",
    "CPU %",
    "LOAD %",
    "IN FLIGHT",
    "REFUSED/S B/W/R",
    "WRITTEN KIB/S",
    "LAG",
];

/// Answers once; with `--watch` shows an answer again and again, until the time of the command is up.
pub async fn run<C: Caller>(caller: &C, args: &Stats, call: &Call) -> Result<Answered> {
    if !args.watch {
        return once(caller, call).await;
    }
    if !call.talk.shows_pages() {
        let message =
            "`stats --watch` shows one answer after the other; ask for `stats` again instead";
        return Err(Error::new(Code::BadRequest, message));
    }
    loop {
        let answer = once(caller, call).await;
        if call.left() <= args.every {
            return answer;
        }
        // Nobody answers for a moment, perhaps; whoever watches wants to see when that ends.
        call.talk.page(&answer.map_err(Failure::from));
        tokio::time::sleep(args.every).await;
    }
}

async fn once<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    let (status, by) = status(caller, None, call.left()).await?;
    let timeout = call.left().min(ANSWER_TIMEOUT);
    let asked = call.globals.node.as_ref();
    let nodes = status.nodes.iter().filter(|node| asked.is_none_or(|name| *name == node.name));
    let answers = join_all(nodes.map(async |node| {
        let ask = async || caller.command(Command::Stats, Some(&node.name), timeout).await;
        let stats = match node.up {
            true => match ask().await {
                Ok((Answer::Stats(stats), _)) => Some(Row::of(&stats)),
                Ok(_) => return Err(other_answer()),
                Err(_) => None,
            },
            false => None,
        };
        Ok((node.name.clone(), stats))
    }));
    let rows = answers.await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Answered::doc(doc(&rows), Some(by)))
}

fn doc(nodes: &[(NodeName, Option<Row>)]) -> Doc {
    let named = |name: &str, row: Option<&Row>| {
        let mut json = row.map_or_else(|| json!({}), Row::json);
        json["node"] = json!(name);
        json["answered"] = json!(row.is_some());
        json
    };
    let cells = |name: &str, row: Option<&Row>| {
        let numbers = row.map_or_else(|| vec!["no answer".to_owned()], Row::cells);
        let mut cells = vec![name.to_owned()];
        cells.extend(numbers);
        cells.resize(HEADER.len(), "-".to_owned());
        cells
    };
    let total = Row::total(nodes.iter().filter_map(|(_, row)| row.as_ref()));
    let json: Vec<Json> =
        nodes.iter().map(|(name, row)| named(name.as_str(), row.as_ref())).collect();
    let mut rows: Vec<Vec<String>> =
        nodes.iter().map(|(name, row)| cells(name.as_str(), row.as_ref())).collect();
    rows.push(cells("all", Some(&total)));
    Doc {
        json: json!({ "nodes": json, "total": total.json() }),
        header: HEADER.to_vec(),
        rows,
        notes: Vec::new(),
    }
}

fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::load::Counts;
    use crate::wire::plan::LoadReport;

    fn stats(writes: u64, write_p99_us: u64, lag_entries: Option<u64>) -> Row {
        Row::of(&NodeStats {
            node: NodeName::new("n1").unwrap(),
            counts: Counts { window_ms: 4_000, writes, refused_writes: 2, ..Counts::default() },
            service: ServiceLevel { write_p99_us: Some(write_p99_us), ..ServiceLevel::default() },
            load: LoadReport { cpu_percent: 40, ..LoadReport::default() },
            load_percent: 10,
            requests: 3,
            lag_entries,
        })
    }

    #[test]
    fn rates_add_up_and_the_worst_node_counts() {
        let nodes = [
            (NodeName::new("n1").unwrap(), Some(stats(400, 2_500, Some(7)))),
            (NodeName::new("n2").unwrap(), None),
            (NodeName::new("n3").unwrap(), Some(stats(10, 9_000, None))),
        ];
        let doc = doc(&nodes);
        let total = &doc.json["total"];
        assert_eq!((&total["writes_per_s"], &total["write_p99_ms"]), (&json!(102.5), &json!(9.0)));
        assert_eq!(
            (&total["refused_per_s"]["write"], &total["requests"]),
            (&json!(1.0), &json!(6))
        );
        assert_eq!((&total["cpu_percent"], &total["lag_entries"]), (&json!(40), &json!(7)));
        assert_eq!(doc.json["nodes"][0]["writes_per_s"], 100.0);
        assert_eq!(doc.json["nodes"][1], json!({ "node": "n2", "answered": false }));
        assert_eq!(doc.rows[1][..2], ["n2", "no answer"]);
        assert_eq!((doc.rows[3][0].as_str(), doc.rows[3][2].as_str()), ("all", "102"));
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }

    #[test]
    fn a_node_that_has_just_started_has_no_rates_yet() {
        let row = Row::of(&NodeStats {
            node: NodeName::new("n1").unwrap(),
            counts: Counts::default(),
            service: ServiceLevel::default(),
            load: LoadReport::default(),
            load_percent: 0,
            requests: 0,
            lag_entries: None,
        });
        assert_eq!(row, Row::default());
        assert_eq!(row.json()["read_p99_ms"], Json::Null);
    }
}
