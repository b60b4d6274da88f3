//! Consensus, fenced in: the only module that names the library. It turns a group log, a store and a
//! piece of deterministic logic into a replicated state machine.
//!
//! It does not know what entries mean, where nodes are, or who may ask.

mod background;
mod compact;
mod digests;
mod encoding;
mod flush;
mod group;
mod holds;
mod host;
mod inbound;
mod incoming;
mod log_store;
mod lone;
mod machine;
mod network;
mod outgoing;
mod peers;
mod purge;
mod read;
mod receiving;
mod rpc;
mod sending;
mod shared;
mod snapshot;
mod stages;
mod staging;
mod state;
mod tail;
mod types;

#[cfg(test)]
mod change_test;
#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod resume_test;
#[cfg(test)]
pub(crate) mod testing;

pub use digests::NoDigest;
pub use group::Group;
pub use host::Host;
pub use stages::Times;
pub use state::State;

use crate::storage::{self, OVERLAY_BYTES_FLUSH, View, Writer};
use crate::types::{Code, GroupId, LogPos, NodeId};
use crate::wire::peer::PeerMessage;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;

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

fn failure(error: &types::Fatal) -> Error {
    Error::Stopped(error.to_string())
}

/// Timing and bounds of the groups of a host.
#[derive(Clone, Debug)]
pub struct Options {
    /// Between heartbeats.
    pub heartbeat_ms: u64,
    /// Shortest wait for an election, once the lease of the silent leader is over. The library's lease lasts
    /// `election_max_ms`, so a leader is given up after a silence of `election_max_ms` + `election_min_ms` to
    /// twice `election_max_ms`.
    pub election_min_ms: u64,
    /// Longest wait for an election, and the lease of a leader.
    pub election_max_ms: u64,
    /// Bytes applied but not flushed at which a copy is flushed.
    pub flush_bytes: usize,
    /// Age at which anything applied is flushed.
    pub flush_ms: u64,
    /// Bytes of log kept for followers that are behind, for each group; beyond it they get a snapshot.
    pub log_keep_bytes: u64,
    /// How long the next request to a voter is waited with after one with entries, unless there are more entries.
    /// By then it is known that they are committed, and under load that is told along with the next ones: it would
    /// take as many requests again, and each costs both sides as much as a small entry does. Nobody has to wait for
    /// it: see `Group::wait_applied`.
    pub commit_gather_ms: u64,
    /// Entries for a learner that are few leave once in this time, at least 1. Nobody waits for a learner, so it pays
    /// to send it less often; it lags by up to this much more.
    pub learner_tick_ms: u64,
    /// The same, at least 1, while clients are served, for learners beside several voters: what one of those lacks,
    /// others have.
    pub further_tick_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat_ms: 250,
            election_min_ms: 500,
            election_max_ms: 700,
            flush_bytes: OVERLAY_BYTES_FLUSH,
            flush_ms: 10_000,
            log_keep_bytes: 32 << 20,
            commit_gather_ms: 25,
            learner_tick_ms: 20,
            further_tick_ms: 100,
        }
    }
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

/// A digest asked for by an entry.
pub type DigestResult = Result<storage::Digest, Code>;
