//! Copies of one shard on several nodes in one process: real logs and tables, links that can be cut, and a
//! coordinator's patience.

use super::*;
use crate::raft::testing::{Cluster, GROUP, copy};
use crate::raft::{self, Membership};
use crate::shard::{Clock, Error, Shard, logic};
use crate::types::{CopyId, GroupId, NodeId};
use crate::wire::operation::{MemberReport, ShardChange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SHARD: ShardId = ShardId(0);
const FIRST: Incarnation = Incarnation(0);

struct Stopped;

impl Clock for Stopped {
    fn stamp_ms(&self) -> u64 {
        1_000
    }
}

/// Nodes with copies of one shard.
pub struct Shards {
    pub cluster: Cluster,
    pub shards: BTreeMap<u64, Shard>,
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub fn voters(nodes: &[u64]) -> ShardChange {
    ShardChange::Voters(nodes.iter().map(|node| CopyId(copy(*node))).collect())
}

pub fn code(result: Result<(), Error>) -> Code {
    match result {
        Err(Error::Public(error)) => error.code,
        other => panic!("not an error with a code: {other:?}"),
    }
}

impl Shards {
    /// Copies on nodes 1 to `nodes`, of which these vote; the others are outside of the group.
    pub async fn new(nodes: u64, voters: &[u64], options: raft::Options) -> Self {
        assert_eq!(GroupId::of(SHARD, FIRST), GROUP);
        let cluster = Cluster::with_logic(nodes, options, || logic(SHARD, FIRST)).await;
        cluster.form(voters, voters).await;
        let shards = voters.iter().map(|node| (*node, start(&cluster, *node))).collect();
        Self { cluster, shards }
    }

    /// Adds the copy on a node as a learner.
    pub async fn learn(&mut self, leader: u64, node: u64) {
        let wal = self.cluster.host(node).wal();
        self.cluster.create(node, copy(node), &wal).await;
        self.shards.insert(node, start(&self.cluster, node));
        let group = self.cluster.group(leader);
        retry(|| async {
            let expected = group.membership().pos;
            group.add_learner(expected, copy(node), NodeId(node)).await.map_err(|e| e.to_string())
        })
        .await;
    }

    /// The node that leads.
    pub async fn leader(&self) -> u64 {
        let among: Vec<u64> = self.shards.keys().copied().collect();
        self.cluster.leader(&among).await
    }

    pub async fn order(
        &self,
        node: u64,
        fence: (u64, u64),
        change: ShardChange,
    ) -> Result<(), Error> {
        self.shards[&node].order(fence, change, soon()).await
    }

    /// Repeats an order until it is carried out, as the coordinator does.
    pub async fn insist(&self, node: u64, fence: (u64, u64), change: ShardChange) {
        retry(|| async {
            let done = self.order(node, fence, change.clone()).await;
            done.map_err(|error| error.to_string())
        })
        .await;
    }

    pub fn membership(&self, node: u64) -> Membership {
        self.cluster.group(node).membership()
    }

    pub fn member(&self, leader: u64, node: u64) -> MemberReport {
        let lead = self.shards[&leader].lead().expect("a leader");
        lead.members.into_iter().find(|m| m.copy == CopyId(copy(node))).expect("a member")
    }
}

fn start(cluster: &Cluster, node: u64) -> Shard {
    Shard::start(SHARD, FIRST, cluster.group(node), Arc::new(Stopped))
}

pub async fn retry<F: Future<Output = Result<(), String>>>(mut attempt: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = attempt().await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Counts up from 16 tasks until it is told to stop; every write must succeed. Returns how many.
pub async fn count_up(shard: &Shard, stop: &AtomicBool) -> u64 {
    let lanes = (0..16).map(|_| async {
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            shard.write(encode_ops(&[incr("n", 1)]), None, soon()).await.unwrap();
            done += 1;
        }
        done
    });
    futures_util::future::join_all(lanes).await.into_iter().sum()
}
