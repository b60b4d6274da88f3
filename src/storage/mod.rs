//! Durable state of one node: the write-ahead log, and one `Store` for each copy.
//!
//! A `Store` is an ordered overlay in memory over a `Table` (LMDB, or its in-memory twin). Nothing here
//! knows what the keys mean, what Raft is, or who asks.

mod digest;
mod lmdb;
mod memory;
mod overlay;
mod reclaim;
mod record;
mod store;
mod table;
pub mod wal;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod model;
#[cfg(test)]
mod stress;

pub use digest::{Digest, DigestReader};
pub use lmdb::{remove_store, sweep_removed};
pub use reclaim::wait_idle as wait_reclaimed;
pub use store::{Store, Writer};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

use crate::types::LogPos;

/// Longest key that can be stored, in bytes; LMDB takes no longer ones. The empty key is no key.
pub const STORED_KEY_BYTES_MAX: usize = 511;
/// Largest size a table may grow to: address space, not memory.
pub const TABLE_BYTES_MAX: u64 = 64 << 30;
/// Bytes in the active overlay at which a flush is due.
pub const OVERLAY_BYTES_FLUSH: usize = 2 << 20;
/// Records in the active overlay at which a flush is due. A record may dirty a page of its own in LMDB,
/// which keeps the memory of its dirty pages until it is closed: 16,384 pages are 64 MiB.
pub const OVERLAY_RECORDS_FLUSH: usize = 16_384;
/// What an overlay in which a flush is due has of the size for that; see `Store::flush_share`.
pub const FLUSH_SHARE_DUE: usize = 256;
/// Bytes in both overlays at which the applier has to wait for a flush.
pub const OVERLAY_BYTES_MAX: usize = 32 << 20;
/// Records in both overlays at which the applier has to wait for a flush: half of the 131,071 dirty pages
/// that one LMDB transaction may hold, so that a flush never has to be split.
pub const OVERLAY_RECORDS_MAX: usize = 65_536;

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

impl Space {
    /// Every space, in stored order.
    pub const ALL: [Space; 4] = [Space::Data, Space::Expiry, Space::Sessions, Space::Meta];
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

impl From<crate::faults::Injected> for Error {
    fn from(injected: crate::faults::Injected) -> Self {
        Error::Io { what: "failpoint".into(), error: injected.into() }
    }
}

impl Error {
    fn corrupt(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Corrupt { what: what.into(), detail: detail.into() }
    }

    /// A refusal of the operating system, told apart before it becomes text: a full disk is `NoSpace`.
    fn io(what: impl Into<String>, error: std::io::Error) -> Self {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let what = what.into();
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => {
                Error::NoSpace(format!("{what}: {error}"))
            }
            _ => Error::Io { what, error },
        }
    }
}

/// Read access to the spaces of a store at one instant.
pub trait View {
    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits keys that start with `prefix` and lie after `after` (exclusive), in order, until `visit` breaks.
    /// After an error the keys visited so far are true, but not all.
    #[allow(clippy::type_complexity)]
    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error>;
}

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address space reserved for the LMDB map, in bytes; rounded up to 64 KiB. It bounds the size of the
    /// table (`NoSpace` beyond) and costs neither memory nor disk.
    pub map_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { map_bytes: TABLE_BYTES_MAX as usize }
    }
}
