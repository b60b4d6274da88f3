//! What `demo --exit` does: load, one node killed and back, all nodes killed and back, a sale (`sale`), and
//! then every acknowledged write read from everywhere.

use super::ledger::Entry;
use super::load::Load;
use super::nodes::{Node, Nodes};
use super::sale::{self, Sale};
use super::verify::{self, Findings};
use super::{say, wait_ready};
use crate::cli::runbook::ScriptDoor;
use crate::client::Client;
use crate::types::{Code, Error, Result};
use serde_json::{Value as Json, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Load between the events.
const BETWEEN: Duration = Duration::from_secs(1);
/// Load while a node is down.
const DOWN: Duration = Duration::from_millis(300);
/// How long the first writing of all keys may take.
const FILL: Duration = Duration::from_secs(8);
/// How long nodes may take to come back.
const RESTART: Duration = Duration::from_secs(20);
/// How long the comparison of all copies may take.
const DIGESTS: Duration = Duration::from_secs(15);

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Keys that were written.
    pub keys: u64,
    /// Writes that were acknowledged.
    pub writes_acked: u64,
    /// Writes that failed and never took effect.
    pub errors: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// From the start of the killed node until it served again.
    pub restart_one_ms: u64,
    /// From the start of all nodes until everything was served again.
    pub restart_ms: u64,
    /// The switch to full replication and back.
    pub sale: Sale,
    /// What reading back has shown.
    pub findings: Findings,
    /// Whether all copies store the same, or why that cannot be told.
    pub digests: Option<Result<bool, String>>,
    /// Why the story ended early, if it did.
    pub failure: Option<Error>,
}

impl Summary {
    /// True if everything held.
    pub fn ok(&self) -> bool {
        self.failure.is_none()
            && self.writes_acked > 0
            && self.keys > 0
            && self.sale.ok()
            && self.findings.reads > 0
            && self.findings.held()
            && self.digests == Some(Ok(true))
    }

    /// The object of the contract.
    pub fn json(&self, seconds: f64) -> Json {
        let mut messages = self.findings.examples.clone();
        messages.extend(self.failure.as_ref().map(ToString::to_string));
        messages.extend(self.digests.clone().and_then(Result::err));
        json!({
            "v": 1,
            "ok": self.ok(),
            "keys": self.keys,
            "writes_acked": self.writes_acked,
            "errors": self.errors,
            "unknown": self.unknown,
            "reads": self.findings.reads,
            "lost": self.findings.lost,
            "phantoms": self.findings.phantoms,
            "unreadable": self.findings.unreadable,
            "digests_equal": self.digests == Some(Ok(true)),
            "restart_ms": self.restart_ms,
            "restart_one_ms": self.restart_one_ms,
            "switches": self.sale.switches,
            "switch_to_full_ms": self.sale.to_full_ms,
            "switch_to_sharded_ms": self.sale.to_sharded_ms,
            "write_gap_ms_max": self.sale.write_gap_ms_max,
            "failover_ms": self.sale.failover_ms,
            "reads_by_node": self.sale.reads_by_node,
            "seconds": (seconds * 10.0).round() / 10.0,
            "messages": messages,
        })
    }
}

/// Runs the story. What goes wrong is in the summary.
pub async fn run(client: &Client, nodes: &mut Nodes, keys: u32, script: ScriptDoor) -> Summary {
    let mut summary = Summary::default();
    let load = Load::start(client, keys);
    let counters = load.counters.clone();
    let mut told = kills(client, nodes, &load, &mut summary).await;
    if told.is_ok() {
        told = sale::run(client, nodes, &load, script, &mut summary.sale).await;
    }
    let entries = load.stop().await;
    summary.keys = entries.len() as u64;
    summary.writes_acked = counters.acked.load(Ordering::Relaxed);
    summary.errors = counters.errors.load(Ordering::Relaxed);
    summary.unknown = counters.unknown.load(Ordering::Relaxed);
    let ended = match told {
        Ok(()) => read_back(client, nodes, &entries, &mut summary).await,
        Err(error) => Err(error),
    };
    summary.failure = ended.err();
    summary
}

async fn kills(
    client: &Client,
    nodes: &mut Nodes,
    load: &Load,
    summary: &mut Summary,
) -> Result<()> {
    load.filled(FILL).await;
    nodes.check()?;
    say(&format!("{} keys written", load.counters.filled.load(Ordering::Relaxed)));
    tokio::time::sleep(BETWEEN).await;
    let is_second = |node: &Node| node.name.as_str() == "n2";
    summary.restart_one_ms = restart(client, nodes, is_second).await?;
    say(&format!(
        "n2 killed with -9 under load; it serves again {} ms after its start",
        summary.restart_one_ms
    ));
    tokio::time::sleep(BETWEEN).await;
    summary.restart_ms = restart(client, nodes, |_| true).await?;
    say(&format!(
        "all nodes killed with -9 under load; all serve again after {} ms",
        summary.restart_ms
    ));
    // Load has to go on after all that, or reading back would prove little.
    let before = load.acked();
    let until = Instant::now() + RESTART;
    tokio::time::sleep(BETWEEN).await;
    while load.acked() == before {
        if Instant::now() >= until {
            return Err(Error::new(Code::NotReady, "no write was acknowledged after the restart"));
        }
        tokio::time::sleep(DOWN).await;
    }
    Ok(())
}

async fn restart(client: &Client, nodes: &mut Nodes, which: impl Fn(&Node) -> bool) -> Result<u64> {
    nodes.kill(which);
    tokio::time::sleep(DOWN).await;
    let started = Instant::now();
    nodes.start()?;
    wait_ready(client, nodes, RESTART).await?;
    Ok(started.elapsed().as_millis() as u64)
}

async fn read_back(
    client: &Client,
    nodes: &mut Nodes,
    entries: &[(u32, Entry)],
    summary: &mut Summary,
) -> Result<()> {
    nodes.check()?;
    let map = client.refresh().await?;
    if map.shards.is_empty() {
        return Err(Error::new(Code::Internal, "the map names no shard"));
    }
    summary.findings = verify::linearizable(client, entries).await;
    summary.findings.add(verify::copies(client, entries, &map).await);
    say(&format!(
        "{} reads from leaders and copies: {} lost, {} unreadable",
        summary.findings.reads, summary.findings.lost, summary.findings.unreadable
    ));
    summary.digests = Some(verify::digests_equal(client, DIGESTS).await);
    nodes.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        let name = |name| crate::types::NodeName::new(name).unwrap();
        let sale = Sale {
            switches: 2,
            failover_ms: 1,
            reads_by_node: ["n1", "n2", "n3"].map(|n| (name(n), 5)).into(),
            ..Sale::default()
        };
        Summary {
            sale,
            keys: 10,
            writes_acked: 20,
            findings: Findings { reads: 30, ..Findings::default() },
            digests: Some(Ok(true)),
            ..Summary::default()
        }
    }

    #[test]
    fn only_a_story_in_which_everything_held_is_ok() {
        assert!(good().ok());
        let bad = [
            Summary { writes_acked: 0, ..good() },
            Summary { keys: 0, ..good() },
            Summary { digests: Some(Ok(false)), ..good() },
            Summary { digests: Some(Err("no answer".into())), ..good() },
            Summary { digests: None, ..good() },
            Summary { failure: Some(Error::new(Code::Internal, "x")), ..good() },
            Summary { findings: Findings { reads: 30, lost: 1, ..Findings::default() }, ..good() },
            Summary {
                findings: Findings { reads: 30, phantoms: 1, ..Findings::default() },
                ..good()
            },
            Summary {
                findings: Findings { reads: 30, unreadable: 1, ..Findings::default() },
                ..good()
            },
            Summary { findings: Findings::default(), ..good() },
            Summary { sale: Sale::default(), ..good() },
            Summary::default(),
        ];
        for summary in bad {
            assert!(!summary.ok(), "{summary:?}");
            assert_eq!(summary.json(1.0)["ok"], false);
        }
    }

    #[test]
    fn the_summary_has_the_fields_of_the_contract() {
        let json = good().json(12.34);
        for field in [
            "ok",
            "keys",
            "writes_acked",
            "errors",
            "lost",
            "digests_equal",
            "restart_ms",
            "unknown",
            "switches",
            "write_gap_ms_max",
            "failover_ms",
        ] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json["reads_by_node"], json!({ "n1": 5, "n2": 5, "n3": 5 }));
        assert_eq!((&json["v"], &json["seconds"]), (&json!(1), &json!(12.3)));
        let told = Summary { digests: Some(Err("s3 on r1: late".into())), ..good() };
        assert_eq!(told.json(1.0)["messages"], json!(["s3 on r1: late"]));
    }
}
