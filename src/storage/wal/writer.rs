//! The writer: one batch after the other, each with one write and one fdatasync.
//!
//! Batch N+1 is written only after the fdatasync of batch N returned; recovery rests on that. The first
//! error ends everything: what reached the disk is then unknown, and asking again would not tell.

use super::body::{self, Change};
use super::fs::{WalFile, WalFs};
use super::group::Group;
use super::holds::{Holds, Move};
use super::keeper::{Doomed, Keeper};
use super::queue::{Op, Queue, Taken};
use super::record::{self, BATCH_BYTES, Place};
use super::segment::{BLOCK_BYTES, Header};
use super::state::{At, State};
use super::{Done, Error, Limits, Measured};
use crate::faults::{self, Point};
use crate::types::GroupId;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// What the handles, the writer and the keeper share.
pub(super) struct Shared {
    pub fs: Arc<dyn WalFs>,
    pub queue: Queue,
    pub keeper: Keeper,
    pub groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    /// Segments with records.
    pub segments: Mutex<BTreeMap<u64, Arc<dyn WalFile>>>,
    pub failed: watch::Sender<Option<Error>>,
    pub syncs: AtomicU64,
    pub measured: Measured,
    /// When the batch that is being written was begun, if one is.
    pub writing_since: Mutex<Option<Instant>>,
    pub sealed: AtomicU64,
    pub pinning: Mutex<Option<GroupId>>,
    pub limits: Limits,
}

impl Shared {
    /// Stops the log for ever; the first error counts.
    pub fn fail(&self, error: Error) {
        let mut error = error;
        self.failed.send_if_modified(|failed| match failed {
            Some(first) => {
                error = first.clone();
                false
            }
            None => {
                *failed = Some(error.clone());
                true
            }
        });
        for done in self.queue.stop(&error) {
            call(done, Err(error.clone()));
        }
    }

    /// The group, made if it is not known yet.
    pub fn group(&self, id: GroupId) -> Arc<Group> {
        let new = || Arc::new(Group::new(id, State::default()));
        self.groups.lock().entry(id).or_insert_with(new).clone()
    }
}

/// The segment that is written.
pub(super) struct Active {
    pub header: Header,
    pub file: Arc<dyn WalFile>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Where the next batch goes.
    pub offset: u64,
}

impl Active {
    /// Bytes of records that still fit, behind a batch header.
    fn room(&self) -> usize {
        self.bytes.saturating_sub(self.offset + BATCH_BYTES as u64) as usize
    }
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Worked,
    Idle,
    Ended,
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub active: Active,
    /// Full segments that still exist, oldest first, with their bytes.
    pub sealed: VecDeque<(u64, u64)>,
    pub holds: Holds,
    /// Last record written.
    pub sequence: u64,
    /// Last batch written.
    pub batch: u64,
    /// The segment whose live content is on its way forward.
    pub carried: u64,
    /// Nothing follows the last batch yet, and it holds records.
    pub open_batch: bool,
    pub buffer: Vec<u8>,
}

/// A record in the batch being written: the change, and where its entries are.
struct Placed {
    op: Op,
    places: Vec<At>,
}

impl Writer {
    /// The thread's loop.
    pub fn run(mut self) {
        self.shared.queue.this_is_the_writer();
        while self.step(true) != Step::Ended {}
    }

    /// Writes one batch, or turns to the next segment. With `wait` it waits until there is something to
    /// do.
    pub fn step(&mut self, wait: bool) -> Step {
        // Not in the condition: the borrow would last through the body, where it is written.
        let failed = self.shared.failed.borrow().clone();
        if let Some(error) = failed {
            self.shared.fail(error);
            return Step::Ended;
        }
        let limits = self.shared.limits;
        let result = match self.shared.queue.take(self.active.room(), limits.batch_bytes_max, wait)
        {
            Taken::Ops(ops) => self.write(ops),
            Taken::NoRoom(bytes) => self.rotate(bytes),
            Taken::Nothing => return Step::Idle,
            Taken::Closed => {
                self.finish();
                return Step::Ended;
            }
        };
        match result.and_then(|()| self.tidy()) {
            Ok(()) => Step::Worked,
            Err(error) => {
                tracing::error!(%error, "the log has stopped");
                self.shared.fail(error);
                Step::Ended
            }
        }
    }

    fn write(&mut self, ops: Vec<Op>) -> Result<(), Error> {
        let bytes = ops.iter().map(|op| op.bytes).sum();
        let mut placed = self.encode(ops);
        *self.shared.writing_since.lock() = Some(Instant::now());
        let flushed = self.flush(&mut placed);
        *self.shared.writing_since.lock() = None;
        match flushed {
            Ok(()) => {
                self.settle(&placed);
                self.shared.keeper.has_room(self.active.room() as u64);
                self.shared.queue.release(bytes);
                run_callbacks(&mut placed, &Ok(()))
            }
            Err(error) => {
                // In order: these come before what still waits in the queue.
                run_callbacks(&mut placed, &Err(error.clone())).and(Err(error))
            }
        }
    }

    /// Joins the records into one batch.
    fn encode(&mut self, ops: Vec<Op>) -> Vec<Placed> {
        let batch_bytes = BATCH_BYTES + ops.iter().map(|op| op.bytes).sum::<usize>();
        self.batch += 1;
        let salt = self.active.header.salt();
        let place = Place { salt, base: self.active.offset, batch: self.batch };
        self.buffer.clear();
        let count = ops.len() as u32;
        record::write_batch(&mut self.buffer, place, self.sequence, batch_bytes as u64, count);
        let encode = |op: Op| {
            self.sequence += 1;
            let start = place.base + self.buffer.len() as u64;
            op.change.write(&mut self.buffer, place, self.sequence, op.group.id);
            let places = match &op.change {
                Change::Append { entries, .. } => places(salt.segment, start, entries),
                _ => Vec::new(),
            };
            Placed { op, places }
        };
        ops.into_iter().map(encode).collect()
    }

    fn flush(&mut self, placed: &mut [Placed]) -> Result<(), Error> {
        let active = &self.active;
        let segment = active.header.segment;
        let struck = |injected| Error::io("failpoint", &std::io::Error::from(injected));
        faults::pass(Point::WalWrite).map_err(struck)?;
        active
            .file
            .write_at(active.offset, &self.buffer)
            .map_err(|error| Error::io(&format!("write segment {segment}"), &error))?;
        #[cfg(debug_assertions)]
        if self.shared.limits.ack_before_fsync {
            run_callbacks(placed, &Ok(()))?;
        }
        faults::pass(Point::WalWritten).map_err(struck)?;
        let asked = Instant::now();
        active
            .file
            .sync()
            .map_err(|error| Error::io(&format!("fdatasync segment {segment}"), &error))?;
        let measured = &self.shared.measured;
        measured.sync_us.observe(asked.elapsed().as_micros() as u64);
        measured.batch_bytes.observe(self.buffer.len() as u64);
        measured.batch_records.observe(placed.len() as u64);
        faults::pass(Point::WalSynced).map_err(struck)?;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.active.offset += self.buffer.len() as u64;
        self.open_batch = true;
        // One oversized batch must not keep its memory for ever.
        self.buffer.shrink_to(self.shared.limits.batch_bytes_max);
        Ok(())
    }

    /// The batch is durable: says so in the groups and in the holds.
    fn settle(&mut self, placed: &[Placed]) {
        let segment = self.active.header.segment;
        for Placed { op, places } in placed {
            let change = match &op.change {
                Change::Append { first, entries } => {
                    let mut state = op.group.state.lock();
                    state.locate(op.serial, *first, places);
                    state.advance(op.serial);
                    state.trim_cache(self.shared.limits.cache_bytes_per_group);
                    Move::Append { first: *first, end: first + entries.len() as u64 }
                }
                Change::Truncate { from } => Move::Truncate { from: *from },
                Change::Purge { upto, .. } => {
                    op.group.state.lock().purge_durable(op.serial, *upto);
                    Move::Purge { upto: *upto }
                }
                Change::Remove => Move::Remove,
                small => Move::Small(small.kind()),
            };
            self.holds.apply(op.group.id.0, change, segment);
        }
    }

    /// Turns to the next segment, whose records may take `bytes`.
    fn rotate(&mut self, bytes: usize) -> Result<(), Error> {
        let end_before = self.active.offset;
        let next = activate(&self.shared, end_before, self.sequence, self.batch, bytes)?;
        let full = std::mem::replace(&mut self.active, next);
        self.sealed.push_back((full.header.segment, full.bytes));
        // The header of this segment proves everything before it.
        self.open_batch = false;
        Ok(())
    }

    /// Lets go of segments that nobody needs, and sees to the oldest that somebody does.
    pub fn tidy(&mut self) -> Result<(), Error> {
        let needed = self.holds.oldest().unwrap_or(u64::MAX);
        let dead = self.sealed.iter().take_while(|(id, _)| *id < needed).count();
        // What made them dead may stand in the last batch, where rot would be taken for a tear: it must
        // not be deleted before another batch follows. Without room for one, the next segment will do.
        if dead > 0 && self.close_batch()? {
            let mut segments = self.shared.segments.lock();
            let doomed = self.sealed.drain(..dead);
            let doomed = doomed.map(|(id, bytes)| Doomed { id, bytes, file: segments.remove(&id) });
            self.shared.keeper.doom(doomed);
        }
        self.shared.sealed.store(self.sealed.len() as u64, Ordering::Relaxed);
        self.see_to_the_oldest();
        self.shared.keeper.work_inline()
    }

    /// Makes sure that the last batch is an empty one, which proves the one before; false if it does not
    /// fit.
    fn close_batch(&mut self) -> Result<bool, Error> {
        if !self.open_batch {
            return Ok(true);
        }
        if self.active.bytes - self.active.offset < BATCH_BYTES as u64 {
            return Ok(false);
        }
        self.write(Vec::new())?;
        self.open_batch = false;
        Ok(true)
    }

    /// The last batch is closed, so that damage to it is not taken for a tear.
    fn finish(&mut self) {
        if let Err(error) = self.close_batch() {
            self.shared.fail(error);
        }
    }
}

/// Where the entries of a record that starts at `start` lie.
fn places(segment: u64, start: u64, entries: &[Bytes]) -> Vec<At> {
    let mut offset = start + body::entries_offset(entries.len()) as u64;
    let place = |entry: &Bytes| {
        let at = At { segment, offset, crc: crc32c::crc32c(entry) };
        offset += entry.len() as u64;
        at
    };
    entries.iter().map(place).collect()
}

/// Runs all callbacks, in order; an error if one of them panicked: whoever waits for it would wait for
/// ever, so the log stops where everybody can see it.
fn run_callbacks(placed: &mut [Placed], result: &Result<(), Error>) -> Result<(), Error> {
    let mut sound = true;
    for done in placed.iter_mut().filter_map(|placed| placed.op.done.take()) {
        sound &= call(done, result.clone());
    }
    sound.then_some(()).ok_or(Error::Stopped)
}

/// Runs a callback; false if it panicked.
fn call(done: Done, result: Result<(), Error>) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| done(result))).is_ok()
}

/// Takes an empty segment into use: its header is durable on return. `bytes` of records must fit.
pub(super) fn activate(
    shared: &Shared,
    end_before: u64,
    sequence_before: u64,
    batch_before: u64,
    bytes: usize,
) -> Result<Active, Error> {
    let mut empty = shared.keeper.take()?;
    let io = |what: &str| {
        let what = format!("{what} segment {}", empty.id);
        move |error: std::io::Error| Error::io(&what, &error)
    };
    let needed = (BLOCK_BYTES + BATCH_BYTES + bytes) as u64;
    if empty.bytes < needed {
        empty.file.grow(needed).map_err(io("grow"))?;
        shared.keeper.disk_bytes().fetch_add(needed - empty.bytes, Ordering::Relaxed);
        empty.bytes = needed;
    }
    let random = empty.random.unwrap_or_else(|| shared.fs.random());
    let header = Header { segment: empty.id, random, end_before, sequence_before, batch_before };
    empty.file.write_at(0, &header.block()).map_err(io("begin"))?;
    empty.file.sync().map_err(io("fdatasync"))?;
    shared.syncs.fetch_add(1, Ordering::Relaxed);
    shared.segments.lock().insert(empty.id, empty.file.clone());
    shared.keeper.has_room(empty.bytes);
    Ok(Active { header, file: empty.file, bytes: empty.bytes, offset: BLOCK_BYTES as u64 })
}
