//! Keeps empty segments ready and deletes dead ones, away from the writer's path.
//!
//! It has a thread of its own; until that runs (`inline`) its callers do the work themselves.
//! It decides nothing: the writer says which segments are dead.

use super::Error;
use super::fs::{WalFile, WalFs};
use super::segment;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time the writer waits for an empty segment before the log stops: long enough for a slow disk
/// to fill one and for a full disk to get space back.
const READY_WAIT_MAX: Duration = Duration::from_secs(20);
/// Time between two attempts to create a segment on a full disk.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A segment file that holds zeros only.
pub(super) struct Empty {
    pub id: u64,
    pub file: Arc<dyn WalFile>,
    pub bytes: u64,
}

pub(super) struct Keeper {
    fs: Arc<dyn WalFs>,
    segment_bytes: u64,
    reserved: usize,
    /// There is no thread: while a log is opened, and in tests that must be repeatable.
    inline: AtomicBool,
    inner: Mutex<Inner>,
    changed: Condvar,
    disk_bytes: AtomicU64,
}

struct Inner {
    ready: VecDeque<Empty>,
    next_id: u64,
    /// Dead segments with their bytes, oldest first.
    doomed: VecDeque<(u64, u64)>,
    /// The disk was full at the last attempt.
    full: Option<Error>,
    closed: bool,
}

/// Why a job failed.
#[derive(Debug)]
pub(super) struct Trouble {
    pub error: Error,
    /// Space may come back. Anything else stops the log: after a failed sync nothing is known, and a
    /// second one that succeeds would prove nothing.
    pub full: bool,
}

impl Trouble {
    fn new(what: &str, error: &io::Error) -> Self {
        let full =
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        Self { error: Error::io(what, error), full }
    }
}

enum Job {
    Delete(u64, u64),
    Create(u64),
}

impl Keeper {
    /// `ready` are empty segments found on disk; `next_id` follows the last of them.
    pub fn new(
        fs: Arc<dyn WalFs>,
        segment_bytes: u64,
        reserved: usize,
        ready: VecDeque<Empty>,
        next_id: u64,
    ) -> Self {
        let doomed = VecDeque::new();
        let inner = Mutex::new(Inner { ready, next_id, doomed, full: None, closed: false });
        let (changed, disk_bytes) = (Condvar::new(), AtomicU64::new(0));
        let inline = AtomicBool::new(true);
        Self { fs, segment_bytes, reserved, inline, inner, changed, disk_bytes }
    }

    /// A thread runs `run` from here on, so callers need not do the work.
    pub fn has_thread(&self) {
        self.inline.store(false, Ordering::Relaxed);
    }

    /// Bytes of all segment files.
    pub fn disk_bytes(&self) -> &AtomicU64 {
        &self.disk_bytes
    }

    /// Empty segments at hand, and whether the disk was too full to create another.
    pub fn ready(&self) -> (usize, bool) {
        let inner = self.inner.lock();
        (inner.ready.len(), inner.full.is_some())
    }

    /// The next empty segment. Waits for it, not for ever.
    pub fn take(&self) -> Result<Empty, Error> {
        let deadline = Instant::now() + READY_WAIT_MAX;
        loop {
            let mut inner = self.inner.lock();
            if let Some(empty) = inner.ready.pop_front() {
                self.changed.notify_all();
                return Ok(empty);
            }
            if self.inline.load(Ordering::Relaxed) {
                drop(inner);
                self.work().map_err(|trouble| trouble.error)?;
            } else if self.changed.wait_until(&mut inner, deadline).timed_out() {
                let late = || Error::Io {
                    what: "create a segment".into(),
                    detail: format!("not done after {READY_WAIT_MAX:?}"),
                };
                return Err(inner.full.clone().unwrap_or_else(late));
            }
        }
    }

    /// Segments that nobody needs, oldest first.
    pub fn doom(&self, dead: Vec<(u64, u64)>) {
        self.inner.lock().doomed.extend(dead);
        self.changed.notify_all();
    }

    /// Does one job; false if there was none.
    pub fn work(&self) -> Result<bool, Trouble> {
        let job = {
            let mut inner = self.inner.lock();
            match inner.doomed.pop_front() {
                Some((id, bytes)) => Job::Delete(id, bytes),
                None if inner.ready.len() < self.reserved.max(1) => Job::Create(inner.next_id),
                None => return Ok(false),
            }
        };
        let result = match job {
            Job::Delete(id, bytes) => self.delete(id, bytes),
            Job::Create(id) => self.create(id),
        };
        let mut inner = self.inner.lock();
        inner.full = result.as_ref().err().filter(|t| t.full).map(|t| t.error.clone());
        self.changed.notify_all();
        result.map(|()| true)
    }

    /// One at a time and oldest first, each durable before the next: what a crash leaves is always
    /// without gaps.
    fn delete(&self, id: u64, bytes: u64) -> Result<(), Trouble> {
        let name = segment::name(id);
        self.fs.remove(&name).map_err(|error| Trouble::new(&format!("delete {name}"), &error))?;
        self.fs.sync_dir().map_err(|error| Trouble::new("sync the folder", &error))?;
        self.disk_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn create(&self, id: u64) -> Result<(), Trouble> {
        let name = segment::name(id);
        let file = self
            .fs
            .create(&name, self.segment_bytes)
            .map_err(|error| Trouble::new(&format!("create {name}"), &error))?;
        self.fs.sync_dir().map_err(|error| Trouble::new("sync the folder", &error))?;
        self.disk_bytes.fetch_add(self.segment_bytes, Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.ready.push_back(Empty { id, file, bytes: self.segment_bytes });
        inner.next_id = id + 1;
        Ok(())
    }

    /// Without a thread: does all there is to do. A full disk is no error here either.
    pub fn work_inline(&self) -> Result<(), Error> {
        while self.inline.load(Ordering::Relaxed) {
            match self.work() {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) if trouble.full => break,
                Err(trouble) => return Err(trouble.error),
            }
        }
        Ok(())
    }

    /// The thread's loop; returns what must stop the log. A full disk is not the end: space may come
    /// back, and the writer stops the log when it goes without a segment for too long.
    pub fn run(&self) -> Result<(), Error> {
        loop {
            let worked = self.work();
            let mut inner = self.inner.lock();
            match worked {
                _ if inner.closed => return Ok(()),
                Ok(true) => {}
                Ok(false)
                    if inner.doomed.is_empty() && inner.ready.len() >= self.reserved.max(1) =>
                {
                    self.changed.wait(&mut inner);
                }
                Ok(false) => {}
                Err(trouble) if trouble.full => {
                    tracing::warn!(error = %trouble.error, "no space for the next log segment");
                    self.changed.wait_for(&mut inner, RETRY_AFTER);
                }
                Err(trouble) => return Err(trouble.error),
            }
        }
    }

    /// Ends the thread.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }
}
