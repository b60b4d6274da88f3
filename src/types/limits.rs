//! Every bound that more than one module has to agree on, with what happens when it is reached.
//!
//! A bound used by a single module lives in that module's `Options`.

use std::time::Duration;

/// Bytes in a key; longer keys are refused (`KeyTooLong`). LMDB takes 511 at most.
pub const KEY_BYTES_MAX: usize = 480;
/// Bytes in a value; longer values are refused (`ValueTooLong`).
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest time to live: a hundred years.
pub const TTL_MS_MAX: u64 = 100 * 366 * 24 * 3600 * 1000;
/// Operations in one request; more are refused (`BatchTooLarge`).
pub const REQUEST_OPS_MAX: usize = 1_024;
/// Bytes of keys and values in one request; more are refused (`BatchTooLarge`).
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Operations that share one log entry; the batcher starts another entry.
pub const ENTRY_OPS_MAX: usize = 256;
/// Bytes that share one log entry (a single larger request has an entry of its own).
pub const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Keys in one page of a scan.
pub const SCAN_PAGE_MAX: usize = 1_000;
/// Bytes of keys and values in one page of a scan; the page ends early.
pub const SCAN_PAGE_BYTES_MAX: usize = 2 << 20;

/// A client frame, header included; a longer one closes the stream before anything is allocated.
pub const CLIENT_FRAME_BYTES_MAX: usize = 8 << 20;
/// A frame between peers; the same.
pub const PEER_FRAME_BYTES_MAX: usize = 16 << 20;
/// Messages of all groups that share one peer frame.
pub const PEER_FRAME_MESSAGES_MAX: usize = 1_024;
/// One chunk of a snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;

/// Requests a node works on at a time; more are refused (`Overloaded`).
pub const CONCURRENT_REQUESTS_MAX: usize = 4_096;
/// Requests that wait for one shard's batcher; more are refused (`Overloaded`).
pub const SHARD_QUEUE_MAX: usize = 4_096;
/// Longest deadline a request may carry; longer ones are shortened.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);
/// Deadline of a request that carries none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// From so many requests a second on, clients are being served, and long work makes way for them.
pub const SERVING_OPS_PER_S: u64 = 100;

/// Results remembered in a session (`SequenceTooOld` below).
pub const SESSION_WINDOW: u64 = 1_024;
/// Shard time after which an unused session is forgotten.
pub const SESSION_EXPIRY_MS: u64 = 10 * 60 * 1000;
/// Sessions in one shard; the least recently used one is forgotten for a new one.
pub const SESSIONS_MAX: usize = 65_536;
/// Bytes of a remembered result.
pub const SESSION_RESULT_BYTES_MAX: usize = 64;

/// Shards in a cluster.
pub const SHARDS_MAX: u16 = 1_024;
/// Shards in a cluster unless `cluster init --shards` says otherwise.
pub const SHARDS_DEFAULT: u16 = 12;
/// Primaries in a cluster.
pub const PRIMARIES_MAX: usize = 5;
/// Replicas in a cluster.
pub const REPLICAS_MAX: usize = 2;
