//! What must hold after a run, whatever was struck: one strategy, the voters that it says, nothing left behind, the
//! same true journal everywhere.

use super::course::history;
use crate::harness::{Cluster, wait_until};
use ppdb::client::Client;
use ppdb::types::{NodeName, ShardId};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::operation::{Operation, Phase};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How long the state that was reached may take to be everywhere.
const EVERYWHERE_WITHIN: Duration = Duration::from_secs(10);
/// Operations that the journal remembers.
const REMEMBERED: usize = 64;

/// An operation as the campaign knows it to have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub id: u64,
    /// Where it began.
    pub from: Strategy,
    /// Where it went.
    pub to: Strategy,
    /// How it ended.
    pub phase: Phase,
}

impl Known {
    fn of(op: &Operation) -> Self {
        Self { id: op.id, from: op.from, to: op.to, phase: op.phase }
    }
}

/// Voters of each shard that one of these nodes leads, as that node says.
pub async fn voters(client: &Client, nodes: &[NodeName]) -> BTreeMap<ShardId, BTreeSet<NodeName>> {
    let ask = async |node: &NodeName| {
        let asked = client.command(Command::ReplicaLag, Some(node), Duration::from_secs(2)).await;
        match asked {
            Ok((Answer::ReplicaLag(lag), _)) => lag,
            _ => vec![],
        }
    };
    let said = futures_util::future::join_all(nodes.iter().map(ask)).await;
    let mut voters: BTreeMap<ShardId, BTreeSet<NodeName>> = BTreeMap::new();
    for copy in said.into_iter().flatten() {
        let of_shard = voters.entry(copy.shard).or_default();
        if copy.state != "learner" {
            of_shard.insert(copy.node);
        }
    }
    voters
}

/// How many copies vote in each shard.
pub const fn voters_of(strategy: Strategy) -> usize {
    match strategy {
        Strategy::Sharded => 1,
        Strategy::Full => 3,
    }
}

/// Every shard has the voters of the strategy.
pub async fn groups_follow(cluster: &Cluster, client: &Client, strategy: Strategy) {
    let names: Vec<NodeName> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let ask = async || voters(client, &names).await;
    let all = |found: &BTreeMap<ShardId, BTreeSet<NodeName>>| {
        found.len() == 12 && found.values().all(|voters| voters.len() == voters_of(strategy))
    };
    wait_until("group as the strategy says", EVERYWHERE_WITHIN, ask, all).await;
}

/// The journal is the same on every node, and says what happened.
pub async fn history_is_true(cluster: &Cluster, client: &Client, known: &[Known]) {
    for node in &cluster.nodes {
        let ask = async || history(client, Some(&node.name)).await;
        let is_true = |found: &Option<Vec<Operation>>| {
            let Some(found) = found else { return false };
            let remembered = known.len().min(REMEMBERED);
            found.len() >= remembered
                && found[found.len() - remembered..]
                    .iter()
                    .map(Known::of)
                    .eq(known[known.len() - remembered..].iter().cloned())
        };
        let found = wait_until("true history", EVERYWHERE_WITHIN, ask, is_true).await;
        for op in found.iter().flatten() {
            let times = &op.times;
            let steps = [times.prepared_ms, times.committed_ms, times.soaking_ms, times.ended_ms];
            let reached: Vec<u64> = steps.into_iter().flatten().collect();
            assert!(reached.is_sorted(), "operation {} went back in time: {times:?}", op.id);
            let committed = times.committed_ms.is_some();
            assert_eq!(committed, op.phase != Phase::Aborted, "operation {}: {op:?}", op.id);
            let told = matches!(op.phase, Phase::Aborted | Phase::Reverted);
            assert_eq!(told, op.reason.is_some(), "operation {} has a reason: {op:?}", op.id);
        }
    }
}

/// Names in the folders of copies that are of use only while something is under way.
fn staged(copies: &Path) -> Vec<String> {
    let names = |dir: &Path| -> Vec<(String, std::path::PathBuf)> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect()
    };
    let mut found = vec![];
    for (copy, dir) in names(copies) {
        if copy.ends_with(".removed") {
            found.push(copy.clone());
        }
        let fresh = ["staging", "CURRENT.new", "install.base-new"];
        let left =
            names(&dir).into_iter().filter(|(name, _)| fresh.iter().any(|f| name.starts_with(f)));
        let moving = names(&dir.join("transfer"));
        found.extend(left.chain(moving).map(|(name, _)| format!("{copy}/{name}")));
    }
    found
}

/// No node keeps anything that only a transfer needed.
pub async fn nothing_staged(cluster: &Cluster) {
    for node in &cluster.nodes {
        let copies = node.data_dir().join("copies");
        let ask = async || staged(&copies);
        wait_until("end of what was staged", EVERYWHERE_WITHIN, ask, Vec::is_empty).await;
    }
}
