//! Keeps empty segments ready, away from the writer's path: dead ones that are used again, or new ones.
//!
//! A segment that is used again costs two sectors and not a file of zeros, and no blocks are given back to the file
//! system to be taken again at once. The others are deleted. It has a thread of its own; until that runs (`inline`)
//! its callers do the work themselves.
//! It decides nothing: the writer says which segments are dead.

use super::Error;
use super::fs::{WalFile, WalFs};
use super::record::HEAD_BYTES;
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

/// Segments beyond the reserve that are kept to be used again: how many the log needs rises and falls by some.
pub(super) const RECYCLED_MAX: usize = 4;
/// A segment is filled at leisure: after each part comes a rest of so many times as long as that took. Else the log,
/// which wants the disk a thousand times a second, waits behind a file of zeros.
const REST_TIMES: u32 = 8;
/// And of so many if it would not be whole by the time the log needs it.
const LATE_REST_TIMES: u32 = 1;
/// It is to be whole when this share of the room in the segments before it is used, in percent.
const USED_PERCENT: u64 = 80;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(200);

/// A segment file that holds zeros only, or a mark and leftovers.
pub(super) struct Empty {
    pub id: u64,
    pub file: Arc<dyn WalFile>,
    pub bytes: u64,
    /// What the mark says; none without one.
    pub random: Option<u64>,
}

/// A segment that nobody needs.
pub(super) struct Doomed {
    pub id: u64,
    pub bytes: u64,
    /// Whoever began to read from it before still has it.
    pub file: Option<Arc<dyn WalFile>>,
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
    /// Bytes that are free in the segment in use; 0 while the writer waits for the next one.
    pub(super) room_bytes: AtomicU64,
}

struct Inner {
    ready: VecDeque<Empty>,
    next_id: u64,
    /// Oldest first.
    doomed: VecDeque<Doomed>,
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
    Delete(Doomed),
    /// Of this number and file a segment of the other number.
    Recycle(u64, Arc<dyn WalFile>, u64),
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
        let (changed, disk_bytes, room_bytes) =
            (Condvar::new(), AtomicU64::new(0), AtomicU64::new(0));
        let inline = AtomicBool::new(true);
        Self { fs, segment_bytes, reserved, inline, inner, changed, disk_bytes, room_bytes }
    }

    /// So many bytes are free in the segment in use.
    pub fn has_room(&self, bytes: u64) {
        self.room_bytes.store(bytes, Ordering::Relaxed);
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
            self.has_room(0);
            self.changed.notify_all();
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
    pub fn doom(&self, dead: impl Iterator<Item = Doomed>) {
        self.inner.lock().doomed.extend(dead);
        self.changed.notify_all();
    }

    /// Does one job; false if there was none.
    pub fn work(&self) -> Result<bool, Trouble> {
        let job = {
            let mut inner = self.inner.lock();
            let wanted = inner.ready.len() < self.reserved.max(1) + RECYCLED_MAX;
            match inner.doomed.pop_front() {
                Some(doomed) => self.judge(doomed, wanted, inner.next_id),
                None if inner.ready.len() < self.reserved.max(1) => Job::Create(inner.next_id),
                None => return Ok(false),
            }
        };
        let result = match job {
            Job::Delete(doomed) => self.delete(&doomed),
            Job::Recycle(dead, file, id) => self.recycle(dead, file, id),
            Job::Create(id) => self.create(id),
        };
        let mut inner = self.inner.lock();
        inner.full = result.as_ref().err().filter(|t| t.full).map(|t| t.error.clone());
        self.changed.notify_all();
        result.map(|()| true)
    }

    /// A file that somebody still reads must not change, and one of another length would not fit.
    fn judge(&self, doomed: Doomed, wanted: bool, next_id: u64) -> Job {
        let Doomed { id, bytes, file } = doomed;
        match file {
            Some(file)
                if wanted && bytes == self.segment_bytes && Arc::strong_count(&file) == 1 =>
            {
                Job::Recycle(id, file, next_id)
            }
            file => Job::Delete(Doomed { id, bytes, file }),
        }
    }

    /// In steps that are each durable before the next: the dead segment is gone, the file is empty, the new segment
    /// is there.
    fn recycle(&self, dead: u64, file: Arc<dyn WalFile>, id: u64) -> Result<(), Trouble> {
        let (old, new) = (segment::name(dead), segment::name(id));
        let random = self.fs.random();
        let failed = |error: io::Error| Trouble::new(&format!("make {new} of {old}"), &error);
        self.fs.rename(&old, segment::SPARE).map_err(failed)?;
        self.fs.sync_dir().map_err(failed)?;
        let empty = || {
            let end = [0; HEAD_BYTES];
            file.write_at(self.segment_bytes - end.len() as u64, &end)?;
            file.write_at(0, &segment::mark(id, random))?;
            file.sync()?;
            self.fs.rename(segment::SPARE, &new)?;
            self.fs.sync_dir()
        };
        empty().map_err(failed).inspect_err(|trouble| {
            // A file system that writes elsewhere may find no room even for this. Anything else stops the log.
            if trouble.full && self.fs.remove(segment::SPARE).is_ok() {
                self.disk_bytes.fetch_sub(self.segment_bytes, Ordering::Relaxed);
            }
        })?;
        self.is_ready(Empty { id, file, bytes: self.segment_bytes, random: Some(random) });
        Ok(())
    }

    fn is_ready(&self, empty: Empty) {
        let mut inner = self.inner.lock();
        inner.next_id = empty.id + 1;
        inner.ready.push_back(empty);
    }

    /// One at a time and oldest first, each durable before the next: what a crash leaves is always
    /// without gaps.
    fn delete(&self, doomed: &Doomed) -> Result<(), Trouble> {
        let name = segment::name(doomed.id);
        self.fs.remove(&name).map_err(|error| Trouble::new(&format!("delete {name}"), &error))?;
        self.fs.sync_dir().map_err(|error| Trouble::new("sync the folder", &error))?;
        self.disk_bytes.fetch_sub(doomed.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Under another name until it is whole: what a crash leaves behind is no segment.
    fn create(&self, id: u64) -> Result<(), Trouble> {
        let name = segment::name(id);
        let failed = |error: io::Error| Trouble::new(&format!("create {name}"), &error);
        let rest = |took, left| self.rest(took, left);
        let file = self.fs.create(segment::SPARE, self.segment_bytes, &rest).map_err(failed)?;
        self.fs.rename(segment::SPARE, &name).map_err(failed)?;
        self.fs.sync_dir().map_err(failed)?;
        self.disk_bytes.fetch_add(self.segment_bytes, Ordering::Relaxed);
        self.is_ready(Empty { id, file, bytes: self.segment_bytes, random: None });
        Ok(())
    }

    /// Bytes that the log can take before it needs another segment.
    fn room(&self, inner: &Inner) -> u64 {
        let empty_bytes: u64 = inner.ready.iter().map(|empty| empty.bytes).sum();
        self.room_bytes.load(Ordering::Relaxed) + empty_bytes
    }

    /// Until the rest is over, or somebody waits for a segment. An error once nobody will.
    fn rest(&self, took: Duration, left_bytes: u64) -> io::Result<()> {
        if self.inline.load(Ordering::Relaxed) {
            return Ok(());
        }
        let began = Instant::now();
        let mut inner = self.inner.lock();
        // There is room again.
        inner.full = None;
        while !inner.closed {
            let until = began + rest_for(took, left_bytes, self.room(&inner));
            if self.changed.wait_until(&mut inner, until).timed_out() {
                break;
            }
        }
        match inner.closed {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
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

/// How long to rest after a part that took so long, while the log has that much room before it needs the segment.
fn rest_for(took: Duration, left_bytes: u64, room_bytes: u64) -> Duration {
    let times = match room_bytes {
        // It is waited for.
        0 => 0,
        room if left_bytes > room / 100 * USED_PERCENT => LATE_REST_TIMES,
        _ => REST_TIMES,
    };
    (took * times).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimFs;
    use super::*;

    fn keeper(ready: u64) -> Keeper {
        let fs = Arc::new(SimFs::new(1));
        let empty = |id: u64| {
            let file = fs.create(&segment::name(id), 4_096, &|_, _| Ok(())).unwrap();
            Empty { id, file, bytes: 4_096, random: None }
        };
        let ready_now = (1..=ready).map(empty).collect();
        let keeper = Keeper::new(fs.clone(), 4_096, 2, ready_now, ready + 1);
        keeper.has_thread();
        keeper
    }

    #[test]
    fn a_segment_is_filled_as_fast_as_the_log_needs_it() {
        let (took, mib) = (Duration::from_millis(2), 1 << 20);
        assert_eq!(rest_for(took, 8 * mib, 0), Duration::ZERO, "the log stands still");
        assert_eq!(rest_for(took, 8 * mib, 9 * mib), took);
        assert_eq!(rest_for(took, 8 * mib, 11 * mib), took * 8);
        assert_eq!(rest_for(Duration::from_secs(60), 8 * mib, 11 * mib), REST_MAX);
    }

    #[test]
    fn a_rest_goes_by_what_is_empty_and_what_is_free_in_the_segment_in_use() {
        let keeper = keeper(2);
        keeper.has_room(1_000);
        assert_eq!(keeper.room(&keeper.inner.lock()), 2 * 4_096 + 1_000);
        let (took, began) = (Duration::from_millis(2), Instant::now());
        keeper.rest(took, 7_000).unwrap();
        assert!(began.elapsed() >= took * REST_TIMES);
    }

    #[test]
    fn a_rest_ends_when_the_log_waits_for_a_segment_or_is_closed() {
        let keeper = Arc::new(keeper(1));
        keeper.has_room(4_096);
        let resting = keeper.clone();
        // As long as it takes: one wait for each act, none for the time.
        let rest = std::thread::spawn(move || {
            while resting.room_bytes.load(Ordering::Relaxed) > 0 {
                resting.rest(Duration::from_secs(3_600), 1)?;
            }
            Ok::<_, io::Error>(())
        });
        let taking = keeper.clone();
        let writer = std::thread::spawn(move || [(); 2].map(|()| taking.take().unwrap().id));
        rest.join().unwrap().unwrap();
        assert!(keeper.work().unwrap());
        assert_eq!(writer.join().unwrap(), [1, 2]);

        keeper.has_room(4_096);
        let resting = keeper.clone();
        let rest = std::thread::spawn(move || {
            loop {
                resting.rest(Duration::from_secs(3_600), 1)?;
            }
        });
        keeper.close();
        let closed: io::Result<()> = rest.join().unwrap();
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
