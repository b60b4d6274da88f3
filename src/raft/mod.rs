//! Consensus, fenced in: the only module that names the library. It turns a group log, a store and a
//! piece of deterministic logic into a replicated state machine.
//!
//! It does not know what entries mean, where nodes are, or who may ask.

use crate::storage::{self, Store, View, Writer};
use crate::types::{Code, GroupId, LogPos, NodeId};
use crate::wire::peer::PeerMessage;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What entries of a group mean. Deterministic: the same entries give the same state and replies on
/// every copy; no clock, no randomness, no I/O but through `writer`.
pub trait Logic: Send + 'static {
    /// Rebuilds what is cached, after opening the store or installing a snapshot.
    fn load(&mut self, view: &dyn View) -> Result<(), storage::Error>;

    /// Applies one entry.
    fn apply(
        &mut self,
        pos: LogPos,
        payload: &Bytes,
        writer: &mut Writer<'_>,
    ) -> Result<Effect, storage::Error>;
}

/// What applying an entry led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// One reply for each request that shared the entry, in order.
    pub replies: Vec<Bytes>,
    /// Every copy flushes exactly here and computes its digest.
    pub digest: bool,
}

/// Why a call on a group failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This copy does not lead; the leader is on that node, if one is known. Nothing was proposed.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// The entry was proposed and its fate is not known.
    #[error("outcome unknown")]
    Uncertain,
    /// No quorum confirmed in time. Nothing was proposed.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// Another change is under way, or the membership is not the one expected.
    #[error("membership change refused: {0}")]
    Conflict(String),
    /// The group has stopped here: its log or store failed.
    #[error("group stopped: {0}")]
    Stopped(String),
}

/// Timing of a group, in milliseconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest wait before an election.
    pub election_min_ms: u64,
    /// Longest wait before an election.
    pub election_max_ms: u64,
    /// Bytes applied but not flushed at which a copy is flushed.
    pub flush_bytes: usize,
    /// Age at which anything applied is flushed.
    pub flush_ms: u64,
    /// Bytes of log kept for followers that are behind, for each group; beyond it they get a snapshot.
    pub log_keep_bytes: u64,
    /// Bytes a second at which snapshots are sent; 0 is unlimited.
    pub snapshot_bytes_per_s: u64,
}

/// How messages reach other nodes. May drop, delay or reorder; never blocks.
pub trait Links: Send + Sync + 'static {
    /// Queues a small, urgent message (votes, heartbeats, read-index and their answers).
    fn send_urgent(&self, to: NodeId, message: PeerMessage);
    /// Queues a message with log entries, or its answer.
    fn send_append(&self, to: NodeId, message: PeerMessage);
    /// Opens a stream for one snapshot.
    fn open_snapshot(
        &self,
        to: NodeId,
    ) -> futures_util::future::BoxFuture<
        'static,
        Result<(crate::transport::FrameSender, crate::transport::FrameReceiver), String>,
    >;
}

/// All groups of a node. Its tasks run on the runtime it was created in.
#[derive(Clone)]
pub struct Host {}

/// What is needed to open a copy's group.
pub struct GroupSpec {
    /// The group.
    pub group: GroupId,
    /// Raft id of this copy.
    pub raft_id: u64,
    /// Folder of the copy's table and staged snapshots.
    pub dir: PathBuf,
    /// What entries mean.
    pub logic: Box<dyn Logic>,
}

impl Host {
    /// A host without groups. `wal` is shared by all of them.
    pub fn new(_wal: storage::wal::Wal, _links: Arc<dyn Links>, _options: Options) -> Self {
        unimplemented!()
    }

    /// Opens a group whose copy exists: recovers log and store, starts following.
    pub async fn open(&self, _spec: GroupSpec) -> Result<Group, Error> {
        unimplemented!()
    }

    /// The group, if it is open here.
    pub fn group(&self, _group: GroupId) -> Option<Group> {
        unimplemented!()
    }

    /// Hands over a message that arrived from a node (never blocks for long; work is spawned).
    pub fn deliver(&self, _from: NodeId, _message: PeerMessage) {
        unimplemented!()
    }

    /// Serves one incoming snapshot stream.
    pub async fn deliver_snapshot(
        &self,
        _from: NodeId,
        _sender: crate::transport::FrameSender,
        _receiver: crate::transport::FrameReceiver,
    ) {
        unimplemented!()
    }

    /// Stops every group after flushing what is applied.
    pub async fn shutdown(&self) {
        unimplemented!()
    }
}

/// One copy's group.
#[derive(Clone)]
pub struct Group {}

/// Members of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Where in the log it stands; the condition for the next change.
    pub pos: Option<LogPos>,
    /// True while joint (two configurations).
    pub joint: bool,
    /// Voters by raft id, with their nodes.
    pub voters: BTreeMap<u64, NodeId>,
    /// Learners by raft id, with their nodes.
    pub learners: BTreeMap<u64, NodeId>,
}

/// What a copy knows of its group.
#[derive(Clone, Debug)]
pub struct State {
    /// Raft id of the leader known, with its node.
    pub leader: Option<(u64, NodeId)>,
    /// True if that is this copy.
    pub is_leader: bool,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: &'static str,
    /// Term.
    pub term: u64,
    /// Last entry in the log.
    pub last_index: Option<u64>,
    /// Last entry applied.
    pub applied: Option<LogPos>,
    /// On the leader: what each member acknowledged, by raft id.
    pub matched: BTreeMap<u64, Option<u64>>,
    /// On the leader: milliseconds since a quorum acknowledged it.
    pub quorum_ack_ms: Option<u64>,
}

/// A digest asked for by an entry.
pub type DigestResult = Result<storage::Digest, Code>;

impl Group {
    /// Starts the group with these voters. Only on a copy whose log is pristine; on any other an error
    /// that says so (repeating it is harmless).
    pub async fn initialize(&self, _voters: BTreeMap<u64, NodeId>) -> Result<(), Error> {
        unimplemented!()
    }

    /// Proposes an entry; resolves when it is committed and applied here.
    pub async fn propose(&self, _payload: Bytes) -> Result<(LogPos, Vec<Bytes>), Error> {
        unimplemented!()
    }

    /// Resolves when a linearizable read may be answered from this copy: leader by a read-index round
    /// shared with others, follower by asking the leader. Returns the index reached.
    pub async fn read_barrier(&self, _deadline: Instant) -> Result<u64, Error> {
        unimplemented!()
    }

    /// Waits until an index is applied here; false at the deadline.
    pub async fn wait_applied(&self, _index: u64, _deadline: Instant) -> bool {
        unimplemented!()
    }

    /// When this copy was last proven to reflect everything committed: the moment a freshness ping was
    /// sent that was answered by a leader with a confirmed quorum and an index that is applied here.
    pub fn fresh_as_of(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Pings the leader (or, on it, confirms the quorum) and updates `fresh_as_of`.
    pub async fn refresh(&self, _deadline: Instant) -> Result<(), Error> {
        unimplemented!()
    }

    /// Current membership as this copy knows it.
    pub fn membership(&self) -> Membership {
        unimplemented!()
    }

    /// What this copy knows now.
    pub fn state(&self) -> State {
        unimplemented!()
    }

    /// Adds a learner, if the membership is still the one at `expected`.
    pub async fn add_learner(
        &self,
        _expected: Option<LogPos>,
        _raft_id: u64,
        _node: NodeId,
    ) -> Result<(), Error> {
        unimplemented!()
    }

    /// Makes exactly these learners and voters the voters, if the membership is still the one at
    /// `expected`. Demoted voters stay as learners.
    pub async fn change_voters(
        &self,
        _expected: Option<LogPos>,
        _voters: BTreeSet<u64>,
    ) -> Result<(), Error> {
        unimplemented!()
    }

    /// Removes learners, if the membership is still the one at `expected`.
    pub async fn remove_learners(
        &self,
        _expected: Option<LogPos>,
        _learners: BTreeSet<u64>,
    ) -> Result<(), Error> {
        unimplemented!()
    }

    /// Asks a voter to take over.
    pub async fn transfer_leader(&self, _to: u64) -> Result<(), Error> {
        unimplemented!()
    }

    /// The copy's store, for reads.
    pub fn store(&self) -> &Store {
        unimplemented!()
    }

    /// The digest computed for the entry at `index`, once it is there (bounded memory: the last 8).
    pub async fn digest(&self, _index: u64, _timeout: Duration) -> Option<DigestResult> {
        unimplemented!()
    }
}
