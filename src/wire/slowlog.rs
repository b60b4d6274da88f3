//! What a node remembers of requests that took long, as it is asked for and answered. Data only.

use crate::types::{Code, ShardId};
use serde::{Deserialize, Serialize};

/// What a request did. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlowKind {
    /// It read keys by name.
    Read,
    /// It changed at least one key.
    Write,
    /// It read a page of keys.
    Scan,
}

impl SlowKind {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            SlowKind::Read => "read",
            SlowKind::Write => "write",
            SlowKind::Scan => "scan",
        }
    }
}

/// Where the time went, in microseconds. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phases {
    /// Of a write: `queue` from its arrival until its entry was proposed, `wal` until that was durable on this node,
    /// `commit` until it was durable on a majority and its turn to be applied, `apply` until it was answered.
    Write { queue_us: u64, wal_us: u64, commit_us: u64, apply_us: u64 },
    /// Of a read: `wait` until this copy might answer (a quorum, a log index), `read` the rest.
    Read { wait_us: u64, read_us: u64 },
    /// It failed on its way.
    Unknown,
}

impl Phases {
    /// The phases by name, in their order.
    pub fn named(self) -> Vec<(&'static str, u64)> {
        match self {
            Phases::Write { queue_us, wal_us, commit_us, apply_us } => vec![
                ("queue", queue_us),
                ("wal", wal_us),
                ("commit", commit_us),
                ("apply", apply_us),
            ],
            Phases::Read { wait_us, read_us } => vec![("wait", wait_us), ("read", read_us)],
            Phases::Unknown => vec![],
        }
    }
}

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowRequest {
    /// Rising without gaps since the process started, from 1.
    pub number: u64,
    /// When it was answered, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// What it did.
    pub kind: SlowKind,
    /// Operations in it; of a scan the keys of its page.
    pub operations: u32,
    /// Its first key, or the prefix of a scan, printable, and cut off where it is long. Never a value.
    pub key: String,
    /// Who asked: `user ann`.
    pub by: String,
    /// The shard.
    pub shard: ShardId,
    /// From its arrival until its answer was ready, in microseconds.
    pub total_us: u64,
    /// Where that went.
    pub phases: Phases,
    /// Why it failed, if it did.
    pub code: Option<Code>,
}
