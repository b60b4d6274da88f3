//! The write-ahead log: one for each node, shared by all groups, one writer thread.
//!
//! It stores opaque records and knows neither Raft's types nor what an entry means.

use crate::types::GroupId;
use bytes::Bytes;
use std::path::Path;

/// A handle to the log; clones share it.
#[derive(Clone)]
pub struct Wal {}

/// Called once, in order, after the record and everything before it is durable; or with the error that
/// stopped the log.
pub type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// Why the log cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no; the log has stopped and the node must stop.
    #[error("log {what}: {detail}")]
    Io { what: String, detail: String },
    /// A bad record stands before a later batch, or the log ends before what is proven.
    #[error("log damage: {0}")]
    Damage(String),
    /// The log was stopped earlier.
    #[error("the log has stopped")]
    Stopped,
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of one segment file, allocated ahead.
    pub segment_bytes: u64,
    /// Segments kept ready.
    pub segments_reserved: usize,
    /// Bytes written with one fdatasync at most.
    pub batch_bytes_max: usize,
    /// Bytes that may wait for the writer; `submit` blocks beyond.
    pub queue_bytes_max: usize,
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// fdatasync calls.
    pub syncs: u64,
    /// Bytes of segment files on disk.
    pub disk_bytes: u64,
}

/// What one group has in the log after recovery, and from then on.
#[derive(Clone)]
pub struct GroupLog {}

impl Wal {
    /// Recovers the log in `dir` and starts its writer thread.
    pub fn open(_dir: &Path, _options: Options) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The log of a group, empty if it was never created. There is one `GroupLog` for each group.
    pub fn group(&self, _group: GroupId) -> GroupLog {
        unimplemented!()
    }

    /// Groups that were created and not removed, with the body given to `create`.
    pub fn groups(&self) -> Vec<(GroupId, Bytes)> {
        unimplemented!()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }

    /// Resolves with the error that stopped the log, if that ever happens.
    pub async fn failed(&self) -> Error {
        unimplemented!()
    }
}

impl GroupLog {
    /// Records that the group has a copy here; `body` says which. `done` as for `append`.
    pub fn create(&self, _body: Bytes, _done: Done) {
        unimplemented!()
    }

    /// Records that the copy is gone for ever: its records are dead.
    pub fn remove(&self, _done: Done) {
        unimplemented!()
    }

    /// Appends consecutive entries: `first_index` continues the log. They are readable when this returns;
    /// `done` runs when they, and everything submitted before, are durable.
    pub fn append(&self, _first_index: u64, _entries: Vec<Bytes>, _done: Done) {
        unimplemented!()
    }

    /// Forgets the entries from `from_index` on.
    pub fn truncate(&self, _from_index: u64) {
        unimplemented!()
    }

    /// Forgets the entries up to `upto_index` (inclusive); `purged` describes the last of them and is
    /// returned by `purged()`, also after a restart. If the log ends before `upto_index` it continues
    /// after it (a snapshot was installed).
    pub fn purge(&self, _upto_index: u64, _purged: Bytes) {
        unimplemented!()
    }

    /// Stores the vote; `done` as for `append`.
    pub fn save_vote(&self, _vote: Bytes, _done: Done) {
        unimplemented!()
    }

    /// Remembers what is committed; written with the next batch, never waited for.
    pub fn save_committed(&self, _committed: Bytes) {
        unimplemented!()
    }

    /// The vote saved last.
    pub fn vote(&self) -> Option<Bytes> {
        unimplemented!()
    }

    /// What was committed when last written.
    pub fn committed(&self) -> Option<Bytes> {
        unimplemented!()
    }

    /// The body given to the last purge.
    pub fn purged(&self) -> Option<Bytes> {
        unimplemented!()
    }

    /// First index that can be read, and the index after the last one.
    pub fn range(&self) -> std::ops::Range<u64> {
        unimplemented!()
    }

    /// Entries of the range that are in the log, at most `bytes_max` bytes but at least one if there is one.
    pub fn entries(
        &self,
        _range: std::ops::Range<u64>,
        _bytes_max: usize,
    ) -> Result<Vec<Bytes>, Error> {
        unimplemented!()
    }

    /// Index after the last entry that is durable here.
    pub fn durable_end(&self) -> u64 {
        unimplemented!()
    }

    /// Bytes of entries that are not purged.
    pub fn live_bytes(&self) -> u64 {
        unimplemented!()
    }
}
