//! The write-ahead log: one for each node, shared by all groups, one writer thread.
//!
//! It stores opaque records and knows neither Raft's types nor what an entry means.
//!
//! The way of a change: [`GroupLog`] makes it visible in memory and queues it (`queue`), the writer joins
//! what waits into one batch, writes it with one `write` and one fdatasync (`writer`), then says so in
//! the groups' state (`state`) and runs the callbacks in order. The way back: `open` reads the segments
//! (`segment`, `record`, `body`), `recovery` decides what they amount to. `keeper` has empty segments
//! ready and takes dead ones for that; `holds` knows which are dead, and `carry` writes again what would keep an
//! old one alive. The disk is reached through [`WalFs`] only.
//!
//! # Disk use
//! Segments are used again, or deleted, from the oldest on, when no group needs a durable record in them. What an idle
//! group needs does not pin one: its small records (create, vote, committed, purge), and its entries if
//! they are few (a 64th of a segment), are written again at the end of the log. A group with more entries
//! than that in the oldest segment has to be flushed and purged by its owner: `Wal::oldest_pinning_group`
//! names it.

mod body;
mod carry;
mod fs;
mod group;
mod holds;
mod keeper;
mod lock;
mod open;
mod queue;
mod read;
mod record;
mod recovery;
mod segment;
mod sim;
mod state;
mod writer;

#[cfg(test)]
mod tests;

pub use fs::{DiskFs, WalFile, WalFs};
pub use group::GroupLog;
pub use recovery::{Summary, recover_bytes};
#[doc(hidden)]
pub use sim::{Cut, Fault, SimFs};

use crate::types::{GroupId, Histogram, histogram};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use writer::Shared;

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
    /// The entries were not appended: they would leave a hole, or were purged. The log goes on.
    #[error("entries from {first_index} do not continue a log that ends before {end}")]
    Hole { first_index: u64, end: u64 },
    /// The log was stopped earlier.
    #[error("the log has stopped")]
    Stopped,
}

impl Error {
    fn io(what: &str, error: &std::io::Error) -> Self {
        Error::Io { what: what.to_owned(), detail: error.to_string() }
    }
}

/// Settings of the log.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of one segment file, allocated ahead; at least 16 KiB. A larger record gets a larger file.
    pub segment_bytes: u64,
    /// Segments kept ready; at least one.
    pub segments_reserved: usize,
    /// Bytes written with one fdatasync at most (a single larger record excepted).
    pub batch_bytes_max: usize,
    /// Bytes that may wait for the writer; what submits blocks beyond.
    pub queue_bytes_max: usize,
    /// Bytes of the newest entries of each group that are kept in memory; older ones are read from disk.
    pub cache_bytes_per_group: usize,
    /// Planted fault: callbacks run before the fdatasync. Also set by `PPDB_TEST_ACK_BEFORE_FSYNC=1`.
    #[cfg(debug_assertions)]
    pub ack_before_fsync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_reserved: 2,
            batch_bytes_max: 8 << 20,
            queue_bytes_max: 64 << 20,
            cache_bytes_per_group: 4 << 20,
            #[cfg(debug_assertions)]
            ack_before_fsync: false,
        }
    }
}

/// What the options come to.
#[derive(Clone, Copy, Debug)]
struct Limits {
    segment_bytes: u64,
    segments_reserved: usize,
    batch_bytes_max: usize,
    cache_bytes_per_group: u64,
    /// Entries that share one record.
    record_bytes_max: usize,
    carry: holds::Limits,
    #[cfg(debug_assertions)]
    ack_before_fsync: bool,
}

/// A segment this small still has room for some records behind its block.
const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Larger records would leave more of a segment unused.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// Full segments beyond which the entries of idle groups are carried forward.
const SEALED_BEFORE_CARRYING: usize = 2;

impl Limits {
    fn of(options: &Options) -> Self {
        let segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        Self {
            segment_bytes,
            segments_reserved: options.segments_reserved.max(1),
            batch_bytes_max: options.batch_bytes_max.max(1),
            cache_bytes_per_group: options.cache_bytes_per_group as u64,
            record_bytes_max: RECORD_BYTES_MAX.min((segment_bytes / 8) as usize),
            carry: holds::Limits {
                sealed_min: SEALED_BEFORE_CARRYING,
                group_bytes_max: segment_bytes / 64,
                total_bytes_max: segment_bytes / 4,
            },
            #[cfg(debug_assertions)]
            ack_before_fsync: options.ack_before_fsync || acks_before_fsync(),
        }
    }
}

#[cfg(debug_assertions)]
fn acks_before_fsync() -> bool {
    static PLANTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *PLANTED
        .get_or_init(|| std::env::var_os("PPDB_TEST_ACK_BEFORE_FSYNC").is_some_and(|v| v == "1"))
}

/// Counters since start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// fdatasync calls.
    pub syncs: u64,
    /// Bytes of segment files on disk.
    pub disk_bytes: u64,
    /// The same without the empty ones.
    pub used_bytes: u64,
    /// Full segments that are still needed.
    pub segments_sealed: u64,
    /// Empty segments at hand.
    pub segments_ready: u64,
    /// The disk was too full to prepare another segment; what is ready is the reserve.
    pub no_space: bool,
}

/// What the writer measures of each batch, since the start.
#[derive(Debug)]
pub struct Measured {
    /// How long its fdatasync took, in microseconds.
    pub sync_us: Histogram,
    /// Its bytes.
    pub batch_bytes: Histogram,
    /// Its records: entries of any number of groups, votes and marks.
    pub batch_records: Histogram,
}

impl Default for Measured {
    fn default() -> Self {
        Self {
            sync_us: Histogram::new(histogram::LATENCY_BOUNDS_US),
            batch_bytes: Histogram::new(histogram::BYTES_BOUNDS),
            batch_records: Histogram::new(histogram::COUNT_BOUNDS),
        }
    }
}

/// A handle to the log; clones share it. When the last handle (this or a [`GroupLog`]) is dropped, what
/// was submitted is written and the writer ends; dropping waits for that.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.keeper.close();
        // A callback may hold the last handle, and a thread cannot wait for itself.
        if !self.shared.queue.is_writer() {
            self.threads.lock().drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

impl Wal {
    /// Recovers the log in `dir` and starts its writer thread. Blocks while it reads.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        let fs = DiskFs::open(dir).map_err(|error| Error::io(&format!("open {dir:?}"), &error))?;
        Self::open_with(Arc::new(fs), options)
    }

    /// As `open`, on any file layer.
    pub fn open_with(fs: Arc<dyn WalFs>, options: Options) -> Result<Self, Error> {
        let writer = open::open(fs, Limits::of(&options), options.queue_bytes_max, false)?;
        let shared = writer.shared.clone();
        let handle = Arc::new(Handle { shared: shared.clone(), threads: Mutex::default() });
        let keeping = shared.clone();
        let keeper = start("wal-keeper", shared.clone(), move || {
            if let Err(error) = keeping.keeper.run() {
                keeping.fail(error);
            }
        })?;
        handle.threads.lock().push(keeper);
        let writer = start("wal-writer", shared, move || writer.run())?;
        handle.threads.lock().push(writer);
        Ok(Self { handle })
    }

    /// A log without threads, whose writer the caller drives: what happens depends on nothing else.
    #[cfg(test)]
    fn open_driven(fs: Arc<dyn WalFs>, options: Options) -> Result<(Self, writer::Writer), Error> {
        let writer = open::open(fs, Limits::of(&options), options.queue_bytes_max, true)?;
        let shared = writer.shared.clone();
        shared.queue.this_is_the_writer();
        Ok((Self { handle: Arc::new(Handle { shared, threads: Mutex::default() }) }, writer))
    }

    /// The log of a group, empty if it was never created. There is one `GroupLog` for each group.
    pub fn group(&self, group: GroupId) -> GroupLog {
        GroupLog { handle: self.handle.clone(), group: self.handle.shared.group(group) }
    }

    /// Groups that were created and not removed, with the body given to `create`.
    pub fn groups(&self) -> Vec<(GroupId, Bytes)> {
        let groups: Vec<_> = self.handle.shared.groups.lock().values().cloned().collect();
        let created = |group: &Arc<group::Group>| group.state.lock().created.clone();
        groups.iter().filter_map(|group| Some((group.id, created(group)?))).collect()
    }

    /// How much of the room for what waits to be written is taken, in percent.
    pub fn queue_percent(&self) -> u32 {
        self.handle.shared.queue.percent()
    }

    /// How long the batch that is being written has been waited for: its write and its fdatasync. Zero between two.
    pub fn writing_for(&self) -> Duration {
        let since = *self.handle.shared.writing_since.lock();
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let shared = &self.handle.shared;
        let (ready, no_space) = shared.keeper.ready();
        let disk_bytes = shared.keeper.disk_bytes().load(Ordering::Relaxed);
        let empty_bytes = shared.limits.segment_bytes * ready as u64;
        Stats {
            syncs: shared.syncs.load(Ordering::Relaxed),
            disk_bytes,
            used_bytes: disk_bytes.saturating_sub(empty_bytes),
            segments_sealed: shared.sealed.load(Ordering::Relaxed),
            segments_ready: ready as u64,
            no_space,
        }
    }

    /// What was measured.
    pub fn measured(&self) -> &Measured {
        &self.handle.shared.measured
    }

    /// The group whose entries keep the oldest full segment from being deleted, if that is what keeps it.
    /// Its owner should flush its store and purge its log, at the latest when `segments_sealed` or
    /// `disk_bytes` in `stats` are more than it likes. None if no segment is full.
    pub fn oldest_pinning_group(&self) -> Option<GroupId> {
        *self.handle.shared.pinning.lock()
    }

    /// Resolves with the error that stopped the log, if that ever happens.
    pub async fn failed(&self) -> Error {
        let mut failed = self.handle.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or(Error::Stopped),
            Err(_) => Error::Stopped,
        }
    }
}

/// Starts a thread of the log. A panic in it stops the log instead of leaving everybody waiting.
fn start(
    name: &str,
    shared: Arc<Shared>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            shared.fail(Error::Stopped);
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(|error| Error::io("start a thread", &error))
}
