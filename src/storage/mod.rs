//! Durable state of one node: the write-ahead log, and one `Store` for each copy.
//!
//! A `Store` is an ordered overlay in memory over a `Table` (LMDB, or its in-memory twin). Nothing here
//! knows what the keys mean, what Raft is, or who asks.

pub mod wal;

use crate::types::LogPos;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;

/// Separate key spaces of a store; each is ordered by key bytes. Stored, so append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Space {
    /// Users' keys.
    Data = 0,
    /// Expiry index of the users' keys.
    Expiry = 1,
    /// Sessions and their remembered results.
    Sessions = 2,
    /// Single records: the shard clock, the cluster state.
    Meta = 3,
}

/// How far a store has got: written in the same transaction as the data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The last log entry that the state reflects.
    pub pos: Option<LogPos>,
    /// The membership in force there, encoded by `raft`; empty before the first.
    pub membership: Bytes,
}

/// Why stored state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record, page or file is not what was written. Never retried, never served.
    #[error("corrupt {what}: {detail}")]
    Corrupt { what: String, detail: String },
    /// The disk or the map is full.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The operating system said no.
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    /// Any other refusal of LMDB.
    #[error("LMDB: {0}")]
    Lmdb(String),
}

/// Read access to the spaces of a store at one instant.
pub trait View {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits keys that start with `prefix` and lie after `after` (exclusive), in order, until `visit` breaks.
    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error>;
}

/// A copy's state machine storage. A cheap handle; clones share the state.
#[derive(Clone)]
pub struct Store {}

/// Content of a store at one log index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// What the table held when it was scanned.
    pub pos: Option<LogPos>,
    /// Records in `Space::Data`.
    pub keys: u64,
    /// SHA-256 over (space, key, value) of every record in order.
    pub sha256: [u8; 32],
}

impl Store {
    /// Opens or creates the LMDB environment in `dir` (created if missing).
    pub fn open(_dir: &Path, _options: Options) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The in-memory twin, for unit tests and simulation.
    pub fn in_memory(_options: Options) -> Self {
        unimplemented!()
    }

    /// What is applied and visible, overlay included.
    pub fn applied(&self) -> Applied {
        unimplemented!()
    }

    /// What the table holds durably.
    pub fn flushed(&self) -> Option<LogPos> {
        unimplemented!()
    }

    /// Bytes held in the overlays (active and frozen).
    pub fn overlay_bytes(&self) -> usize {
        unimplemented!()
    }

    /// Bytes of the table on disk.
    pub fn table_bytes(&self) -> u64 {
        unimplemented!()
    }

    /// Runs `f` over the state at one instant. `f` must be short (a page of a scan): it delays applying.
    pub fn read<R>(&self, _f: impl FnOnce(&dyn View) -> R) -> Result<R, Error> {
        unimplemented!()
    }

    /// Starts the writes of one log entry. There is one writer at a time (the applier).
    pub fn write(&self) -> Writer<'_> {
        unimplemented!()
    }

    /// Makes the active overlay the frozen one, at exactly what is applied; waits until an earlier
    /// frozen overlay is flushed. Returns the position frozen, or none if there is nothing to flush.
    /// Blocks: not for async threads.
    pub fn freeze(&self) -> Option<LogPos> {
        unimplemented!()
    }

    /// Writes the frozen overlay, sorted, in one transaction, and drops it. The caller has made sure that
    /// the log is durable to the frozen position. Blocks. A no-op without a frozen overlay.
    pub fn flush_frozen(&self) -> Result<Option<LogPos>, Error> {
        unimplemented!()
    }

    /// Scans the table (not the overlay) in one read transaction, `slice_keys` at a time with a call of
    /// `pause` between slices. Blocks.
    pub fn digest(&self, _pause: &mut dyn FnMut()) -> Result<Digest, Error> {
        unimplemented!()
    }

    /// Copies the table to `file` and fsyncs file and folder. What the copy reflects is read from the copy.
    /// Blocks.
    pub fn copy_to(&self, _file: &Path) -> Result<Applied, Error> {
        unimplemented!()
    }

    /// Replaces everything by the table in `file` (moved into place, crash-safe: after a crash the old or
    /// the new table is opened, never a mixture). Blocks.
    pub fn install(&self, _file: &Path) -> Result<Applied, Error> {
        unimplemented!()
    }
}

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address space reserved for the LMDB map, in bytes.
    pub map_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { map_bytes: 64 << 30 }
    }
}

/// Writes of one log entry; reads see them at once, other readers after `commit`.
pub struct Writer<'a> {
    _store: &'a Store,
}

impl Writer<'_> {
    /// Stores a value.
    pub fn put(&mut self, _space: Space, _key: &[u8], _value: Bytes) {
        unimplemented!()
    }

    /// Removes a key.
    pub fn delete(&mut self, _space: Space, _key: &[u8]) {
        unimplemented!()
    }

    /// Makes the writes visible together with how far the store has got. Dropping without it discards them.
    pub fn commit(self, _applied: Applied) {
        unimplemented!()
    }
}

impl View for Writer<'_> {
    fn get(&self, _space: Space, _key: &[u8]) -> Result<Option<Bytes>, Error> {
        unimplemented!()
    }

    fn scan(
        &self,
        _space: Space,
        _prefix: &[u8],
        _after: Option<&[u8]>,
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        unimplemented!()
    }
}
