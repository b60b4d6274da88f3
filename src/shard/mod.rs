//! One replicated shard: what its entries mean, batching of writes, reads at every level, expiry,
//! sessions, digests.
//!
//! Knows its group and store. Does not know the map, other shards or how requests arrive.

use crate::raft;
use crate::types::{Code, Incarnation, ReadLevel, Result, SessionId, SessionSeq, ShardId, Token};
use crate::wire::client::{KvReply, ScanReply};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

/// Where the stamps of entries come from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970: min(own clock, median of the clocks heard + 500 ms), or the own clock if
    /// fewer than three are heard.
    fn stamp_ms(&self) -> u64;
}

/// The logic of a shard's group, to open it with.
pub fn logic(_shard: ShardId, _incarnation: Incarnation) -> Box<dyn raft::Logic> {
    unimplemented!()
}

/// A copy of a shard on this node; a cheap handle.
#[derive(Clone)]
pub struct Shard {}

impl Shard {
    /// Wraps an open group and starts its batcher and ticker.
    pub fn start(
        _shard: ShardId,
        _incarnation: Incarnation,
        _group: raft::Group,
        _clock: Arc<dyn Clock>,
    ) -> Self {
        unimplemented!()
    }

    /// The group below.
    pub fn group(&self) -> &raft::Group {
        unimplemented!()
    }

    /// Writes (and reads among them) through the log; `ops` is `encode_ops`, already checked.
    pub async fn write(
        &self,
        _ops: Bytes,
        _dedup: Option<SessionSeq>,
        _deadline: Instant,
    ) -> Result<(Bytes, Token)> {
        unimplemented!()
    }

    /// Opens a session.
    pub async fn open_session(&self, _deadline: Instant) -> Result<SessionId> {
        unimplemented!()
    }

    /// Reads at a level; `ops` are reads only.
    pub async fn read(
        &self,
        _ops: Vec<crate::types::Op>,
        _level: ReadLevel,
        _deadline: Instant,
    ) -> Result<KvReply> {
        unimplemented!()
    }

    /// A page of keys.
    pub async fn scan(
        &self,
        _scan: crate::wire::client::Scan,
        _deadline: Instant,
    ) -> Result<ScanReply> {
        unimplemented!()
    }

    /// Proposes a digest entry (leader only); returns its index.
    pub async fn propose_digest(&self, _deadline: Instant) -> Result<u64> {
        unimplemented!()
    }

    /// Keys that have not expired, counted from the store's own records.
    pub fn keys(&self) -> Result<u64, Code> {
        unimplemented!()
    }
}
