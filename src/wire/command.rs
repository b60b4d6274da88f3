//! The `Command` value: what every door (command line, shell, scripts) builds and sends.
//!
//! Data commands (`get`, `set`, ...) become `Kv` and `Scan` requests in the client library, because it
//! routes them; the commands here are carried out by the node that is asked, and need no routing.

use super::alarm::Alarm;
use super::breaker::{BreakerOrder, PeerBreaker};
use super::client::{Map, Role, Strategy};
use super::load::{HotKeys, NodeStats};
use super::logs::{LogPage, LogQuestion};
use super::monitor::{MonitorPage, MonitorQuestion};
use super::operation::{
    NodeReport, Operation, SettingView, ShardOrder, StrategyOrder, StrategyView,
};
use super::oplog;
use super::plan::{PlanHead, Precheck, ProbeOrder, ProbeReport};
use super::runs::{Run, RunHead, RunOrder};
use super::slowlog::SlowRequest;
use super::tally::Tally;
use crate::types::{CopyId, DiskId, Incarnation, NodeId, NodeName, ShardId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A command for one node. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Forms a cluster; only the first primary by name takes it. Repeating the same one is harmless.
    ClusterInit(Formation),
    /// One document about the whole cluster, from this node's view.
    Status,
    /// About the node asked.
    Info,
    /// How far each copy of each shard held or led by the node asked has got.
    ReplicaLag,
    /// Digest of this node's copy of a shard, computed from its own stored bytes. Without `at` the leader
    /// proposes a digest entry and answers for it, or says at which index it is if the digest takes long; with
    /// `at` any copy answers for the entry at that index.
    Digest { shard: ShardId, at: Option<u64> },
    /// Whether a change of strategy may start now, and what it will cost. Changes nothing but the list of
    /// plans. Any node passes it to the coordinator.
    Precheck { to: Strategy },
    /// An order about the strategy; answered when it is journaled, not when it is done. Any node passes it
    /// to the coordinator.
    Strategy(StrategyOrder),
    /// The latest operation and how far it is. Any node passes it to the coordinator.
    StrategyShow,
    /// All operations that the journal remembers, oldest first.
    StrategyHistory,
    /// The live settings.
    Settings,
    /// Sets a live setting. Any node passes it to the coordinator.
    Set { name: String, value: String },
    /// What the node asked knows of itself; only nodes may ask.
    Report,
    /// An order to the leader of a shard; only nodes may give it.
    Shard(ShardOrder),
    /// Measure the own disk and the way to every peer, within bounds; only nodes may ask.
    Probe(ProbeOrder),
    /// Take these bytes and say so; only nodes may ask.
    Echo(Bytes),
    /// As `Strategy`, but refused unless the latest operation is the one that is meant.
    StrategyOf { operation: u64, order: StrategyOrder },
    /// What the node asked sees that an operator should see to.
    Alarms,
    /// The metrics of the node asked.
    Metrics,
    /// The latest records of the operation log, newest first, at most so many.
    OperationLog { limit: u32 },
    /// Keep this record in the operation log; only nodes may ask, and only the coordinator can.
    Record(Box<oplog::Record>),
    /// Log lines of the node asked.
    Logs(LogQuestion),
    /// The breakers of the node asked, one for each peer and class.
    Breakers,
    /// Forces some of them for a time.
    Breaker(BreakerOrder),
    /// How the node asked does at this moment.
    Stats,
    /// The keys that the node asked is asked for most, so many at most.
    HotKeys { limit: u32 },
    /// The last slow requests of the node asked, newest first, at most so many.
    SlowLog { limit: u32 },
    /// Operations of the node asked, as they come.
    Monitor(MonitorQuestion),
    /// Nothing but an answer: how long is the way?
    Ping,
    /// An event of a run of a runbook, for its record. Any node passes it to the coordinator.
    Run(Box<RunOrder>),
    /// The latest runs, newest first, at most so many.
    Runs { limit: u32 },
    /// The record of one run.
    RunShow { run: u64 },
    /// The plans that are kept, oldest first.
    Plans,
}

/// Who shall form a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Formation {
    /// Cluster name, as in the certificates.
    pub cluster: String,
    /// Number of shards, fixed for ever.
    pub shards: u16,
    /// Members with their addresses.
    pub members: Vec<(NodeName, Role, String)>,
}

/// Answer to a `Command`. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To `ClusterInit`: the map, and whether it was formed just now.
    Formed { map: Map, created: bool },
    /// To `Status`.
    Status(Status),
    /// To `Info`.
    Info(Info),
    /// To `ReplicaLag`.
    ReplicaLag(Vec<CopyLag>),
    /// To `Digest`.
    Digest(CopyDigest),
    /// To `Precheck`.
    Precheck(Precheck),
    /// To `Strategy`: the operation, as journaled.
    Operation(Box<Operation>),
    /// To `StrategyShow`.
    StrategyView(Box<StrategyView>),
    /// To `StrategyHistory`.
    History(Vec<Operation>),
    /// To `Settings` and `Set`.
    Settings(Vec<SettingView>),
    /// To `Report`.
    Report(NodeReport),
    /// To `Shard`, `Record` and most of `Run`: it was carried out.
    Ordered,
    /// To `Probe`.
    Probed(ProbeReport),
    /// To `Echo`: all of it arrived.
    Echoed,
    /// To `Digest` without `at`: the entry is at this index, and its digest will be there later.
    DigestBegun { node: NodeName, index: u64 },
    /// To `Alarms`.
    Alarms(Vec<Alarm>),
    /// To `Metrics`: as Prometheus reads them.
    Metrics(String),
    /// To `OperationLog`.
    OperationLog(Vec<oplog::Record>),
    /// To `Logs`.
    Logs(LogPage),
    /// To `Breakers` all of them, to `Breaker` those that it was about.
    Breakers(Vec<PeerBreaker>),
    /// To `Stats`.
    Stats(Box<NodeStats>),
    /// To `HotKeys`.
    HotKeys(HotKeys),
    /// To `SlowLog`.
    SlowLog(Vec<SlowRequest>),
    /// To `Monitor`.
    Monitor(MonitorPage),
    /// To `Ping`.
    Pong,
    /// To `RunShow`, and to a `Run` that begins or resumes one.
    Run(Box<Run>),
    /// To `Runs`.
    Runs(Vec<RunHead>),
    /// To `Plans`.
    Plans(Vec<PlanHead>),
    /// To a `Run` that ends a step: whether its result is on record.
    StepKept { result: bool },
}

/// The whole cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Cluster name.
    pub cluster: String,
    /// Version of the map.
    pub epoch: u64,
    /// Placement of the data.
    pub strategy: Strategy,
    /// The node that answered.
    pub answered_by: NodeName,
    /// The metadata leader, if one is known.
    pub metadata_leader: Option<NodeName>,
    /// Members.
    pub nodes: Vec<NodeStatus>,
    /// Shards without a known leader.
    pub shards_leaderless: Vec<ShardId>,
    /// How many more primaries may fail without loss of acknowledged data.
    pub may_fail_without_loss: u16,
    /// What a person should know, most important first.
    pub messages: Vec<String>,
    /// What an operator should see to, as all nodes see it that were heard lately; the worst first.
    pub alarms: Vec<Alarm>,
    /// What became of changes of strategy since the cluster was formed.
    pub switches: Tally,
}

/// A member in `Status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Its address.
    pub addr: String,
    /// Heard from within the last two seconds.
    pub up: bool,
    /// Shards it owns.
    pub shards_owned: u16,
    /// Copies it holds.
    pub copies: u16,
}

/// About one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub node: NodeName,
    /// Its metadata id, once the cluster is formed.
    pub node_id: Option<NodeId>,
    /// Its disk.
    pub disk: DiskId,
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// False until the boot fence has passed: nothing is served.
    pub ready: bool,
    /// Bytes of the write-ahead log on disk.
    pub wal_bytes: u64,
    /// fdatasync calls on the log since start.
    pub wal_syncs: u64,
    /// Bytes on disk of all copies.
    pub copies_bytes: u64,
    /// Copies held.
    pub copies: Vec<CopyInfo>,
    /// Keys read here since the start, those of scans included.
    pub reads: u64,
    /// Operations that change a key, carried out here since the start.
    pub writes: u64,
    /// What it takes on.
    pub safety: SafetyInfo,
    /// The term of its copy of the metadata; none before it belongs to a cluster.
    pub metadata_term: Option<u64>,
}

/// What a node takes on, and what it has refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SafetyInfo {
    /// The largest share of what can run out that is taken at this moment, in percent.
    pub load_percent: u32,
    /// Requests worked on at this moment.
    pub requests: u64,
    /// How many that may be.
    pub max_concurrent_ops: u64,
    /// Operations in one request.
    pub max_batch_size: u64,
    /// Bytes of keys and values in one request.
    pub max_batch_bytes: u64,
    /// Milliseconds that it works on a request for keys.
    pub timeout_ms: u64,
    /// Load from which on copying makes way, in percent.
    pub load_threshold_percent: u32,
    /// Scans and batches refused since the start.
    pub refused_bulk: u64,
    /// Writes refused since the start.
    pub refused_writes: u64,
    /// Reads refused since the start.
    pub refused_reads: u64,
}

/// About one copy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyInfo {
    /// The shard.
    pub shard: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// This copy.
    pub copy: CopyId,
    /// `leader`, `follower`, `learner` or `candidate`.
    pub state: String,
    /// Its term, which rises with each election.
    pub term: u64,
    /// Last log index applied.
    pub applied: u64,
    /// Last log index that the copy's own storage holds durably.
    pub flushed: u64,
    /// Keys, where known.
    pub keys: u64,
}

/// How far a copy is behind its leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyLag {
    /// The shard.
    pub shard: ShardId,
    /// The node that holds the copy.
    pub node: NodeName,
    /// `leader`, `voter` or `learner`.
    pub state: String,
    /// Last log index of the leader.
    pub leader_index: u64,
    /// Log index acknowledged by this copy.
    pub matched: Option<u64>,
}

/// What a copy stores, in one number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyDigest {
    /// The node that computed it.
    pub node: NodeName,
    /// The shard.
    pub shard: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// The log index it describes.
    pub index: u64,
    /// Keys that have not expired at that index.
    pub keys: u64,
    /// SHA-256 over every stored record, in hexadecimal.
    pub sha256: String,
}
