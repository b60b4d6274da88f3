//! What a node tells anybody about its load: rates of the last seconds, and the keys that it is asked for most. Data only,
//! as counted; whoever shows it makes rates of it.

use super::guard::ServiceLevel;
use super::plan::LoadReport;
use crate::types::{NodeName, ShardId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// How a node does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStats {
    /// Its name.
    pub node: NodeName,
    /// What it did in the last seconds.
    pub counts: Counts,
    /// How well it served, in about the same time.
    pub service: ServiceLevel,
    /// How busy it is.
    pub load: LoadReport,
    /// The largest share of what can run out that is taken at this moment, in percent.
    pub load_percent: u32,
    /// Requests worked on at this moment.
    pub requests: u64,
    /// Log entries by which the copy that is furthest behind misses those that this node leads; none if it leads none
    /// with another copy.
    pub lag_entries: Option<u64>,
}

/// What a node did since it started, or in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Length of the window in milliseconds; 0 is since the start.
    pub window_ms: u64,
    /// Keys read, those of scans included.
    pub reads: u64,
    /// Operations that change a key.
    pub writes: u64,
    /// Requests that failed for no fault of their own.
    pub errors: u64,
    /// Bytes of the requests that change keys.
    pub write_bytes: u64,
    /// Scans and batches refused.
    pub refused_bulk: u64,
    /// Writes refused.
    pub refused_writes: u64,
    /// Reads refused.
    pub refused_reads: u64,
}

impl Counts {
    /// What came since others, which were `window_ms` ago.
    pub fn since(&self, earlier: &Self, window_ms: u64) -> Self {
        Self {
            window_ms,
            reads: self.reads.saturating_sub(earlier.reads),
            writes: self.writes.saturating_sub(earlier.writes),
            errors: self.errors.saturating_sub(earlier.errors),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            refused_bulk: self.refused_bulk.saturating_sub(earlier.refused_bulk),
            refused_writes: self.refused_writes.saturating_sub(earlier.refused_writes),
            refused_reads: self.refused_reads.saturating_sub(earlier.refused_reads),
        }
    }
}

/// Keys that a node may be asked for at a time.
pub const HOT_KEYS_MAX: usize = 128;

/// The keys that a node was asked for most in the last ten to thirty seconds, by a sample of its operations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HotKeys {
    /// The node.
    pub node: NodeName,
    /// Milliseconds that the sample is from; 0 if nothing was sampled.
    pub window_ms: u64,
    /// On average one of so many operations is in the sample.
    pub one_in: u32,
    /// Operations in the sample.
    pub sampled: u64,
    /// The most frequent first.
    pub keys: Vec<HotKey>,
}

/// One of them. All numbers are of the sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotKey {
    /// The key.
    pub key: Bytes,
    /// Its shard.
    pub shard: ShardId,
    /// Operations on it, at most.
    pub count: u64,
    /// By so much `count` may be too high.
    pub error: u64,
    /// Writes among those that are known to be on it, which are `count - error`.
    pub writes: u64,
}
