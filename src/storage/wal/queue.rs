//! The one queue between all groups and the writer: it fixes the order of everything.
//!
//! Bounded by bytes; a submission waits only while it is full. It does not write, and it calls no
//! callback while it is locked. Lock order: a group's state, then the queue.

use super::body::Change;
use super::group::Group;
use super::lock::{Condvar, Mutex};
use super::state::State;
use super::{Done, Error};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;

/// One record that waits to be written.
pub(super) struct Op {
    pub group: Arc<Group>,
    /// Position in the order of all submissions.
    pub serial: u64,
    pub change: Change,
    /// Bytes of its record.
    pub bytes: usize,
    pub done: Option<Done>,
}

/// What the writer gets.
pub(super) enum Taken {
    /// Records for one batch, in order; never none.
    Ops(Vec<Op>),
    /// The first record has this many bytes and does not fit.
    NoRoom(usize),
    /// Nothing waits.
    Nothing,
    /// Nothing waits, and nothing will come.
    Closed,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    freed: Condvar,
    bytes_max: usize,
    /// The thread that must not wait for itself.
    writer: OnceLock<ThreadId>,
}

#[derive(Default)]
struct Inner {
    ops: VecDeque<Op>,
    /// Bytes of what waits, of the batch being written, and of submissions under way.
    bytes: usize,
    /// The last serial given out.
    serial: u64,
    /// By group: what goes out with a later batch, and the submission it must not overtake. Recovery
    /// must never find "committed up to 9" in a log that ends at 8.
    lazy: BTreeMap<u64, (Arc<Group>, Bytes, u64)>,
    /// The writer waits until something comes, and nobody has called it yet.
    waited_for: bool,
    closed: bool,
    stopped: Option<Error>,
}

impl Queue {
    pub fn new(bytes_max: usize) -> Self {
        let (filled, freed) = (Condvar::default(), Condvar::default());
        Self { inner: Mutex::default(), filled, freed, bytes_max, writer: OnceLock::new() }
    }

    /// The calling thread is the writer: its own submissions, and those of callbacks, never wait.
    pub fn this_is_the_writer(&self) {
        let _ = self.writer.set(std::thread::current().id());
    }

    /// True on the writer's thread.
    pub fn is_writer(&self) -> bool {
        self.writer.get() == Some(&std::thread::current().id())
    }

    /// How much of the room is taken, in percent.
    pub fn percent(&self) -> u32 {
        let bytes = self.inner.lock().bytes;
        (bytes.min(self.bytes_max) * 100 / self.bytes_max.max(1)) as u32
    }

    /// Queues a change of `group`. `edit` makes it visible in the group's state and returns the record,
    /// or none if there is nothing to write; it runs under both locks, so that the order on disk is the
    /// order in memory. `bytes` is about what the record takes. `done` runs here if the change was not
    /// queued.
    pub fn submit(
        &self,
        group: &Arc<Group>,
        bytes: usize,
        mut done: Option<Done>,
        edit: impl FnOnce(&mut State, u64) -> Result<Option<Change>, Error>,
    ) {
        let result = self.enter(bytes).and_then(|()| self.push(group, bytes, &mut done, edit));
        if let Some(done) = done {
            done(result);
        }
    }

    /// Waits until `bytes` more fit, or nothing else is there, and takes the room.
    fn enter(&self, bytes: usize) -> Result<(), Error> {
        let mut inner = self.inner.lock();
        while inner.bytes > 0 && inner.bytes + bytes > self.bytes_max && !self.is_writer() {
            if let Some(error) = &inner.stopped {
                return Err(error.clone());
            }
            inner = self.freed.wait(inner);
        }
        inner.bytes += bytes;
        Ok(())
    }

    fn push(
        &self,
        group: &Arc<Group>,
        entered: usize,
        done: &mut Option<Done>,
        edit: impl FnOnce(&mut State, u64) -> Result<Option<Change>, Error>,
    ) -> Result<(), Error> {
        let mut state = group.state.lock();
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(entered);
        if let Some(error) = &inner.stopped {
            return Err(error.clone());
        }
        let serial = inner.serial + 1;
        let Some(change) = edit(&mut state, serial)? else { return Ok(()) };
        if matches!(change, Change::Remove) {
            inner.lazy.remove(&group.id.0);
        }
        let bytes = change.record_bytes();
        inner.serial = serial;
        inner.bytes += bytes;
        inner.ops.push_back(Op { group: group.clone(), serial, change, bytes, done: done.take() });
        // Called with the locks free: it asks for one of them first.
        let calls = std::mem::take(&mut inner.waited_for);
        drop((inner, state));
        if calls {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Remembers what is committed in the group, to be written with a later batch.
    pub fn remember(&self, group: &Arc<Group>, committed: Bytes) {
        let mut state = group.state.lock();
        let mut inner = self.inner.lock();
        state.committed = Some(committed.clone());
        let after = inner.serial;
        inner.lazy.insert(group.id.0, (group.clone(), committed, after));
    }

    /// Takes records for one batch: at most `room` bytes, and `batch_bytes_max` unless the first alone is
    /// larger. With `wait` it returns only when there is something or the queue is closed.
    pub fn take(&self, room: usize, batch_bytes_max: usize, wait: bool) -> Taken {
        let mut inner = self.inner.lock();
        while inner.ops.is_empty() {
            if inner.closed && inner.stopped.is_none() {
                let last = inner.take_lazy(u64::MAX, room);
                return if last.is_empty() { Taken::Closed } else { Taken::Ops(last) };
            }
            if !wait || inner.stopped.is_some() {
                return Taken::Nothing;
            }
            inner.waited_for = true;
            inner = self.filled.wait(inner);
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        while let Some(op) = inner.ops.front() {
            let fits = bytes + op.bytes <= room.min(batch_bytes_max);
            match (ops.is_empty(), fits) {
                (true, false) if op.bytes > room => return Taken::NoRoom(op.bytes),
                (false, false) => break,
                _ => bytes += op.bytes,
            }
            ops.extend(inner.ops.pop_front());
        }
        let last = ops.last().map_or(0, |op| op.serial);
        ops.extend(inner.take_lazy(last, room - bytes));
        Taken::Ops(ops)
    }

    /// A batch is through: its bytes make room.
    pub fn release(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        self.freed.notify_all();
    }

    /// No more submissions come; the writer finishes what waits.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_all();
    }

    /// Refuses everything from here on with `error`; returns the callbacks of what waits.
    pub fn stop(&self, error: &Error) -> Vec<Done> {
        let mut inner = self.inner.lock();
        inner.stopped.get_or_insert_with(|| error.clone());
        inner.bytes = 0;
        inner.lazy.clear();
        let dones = inner.ops.drain(..).filter_map(|op| op.done).collect();
        self.freed.notify_all();
        self.filled.notify_all();
        dones
    }
}

impl Inner {
    /// What may be written after submission `last` and fits the room.
    fn take_lazy(&mut self, last: u64, mut room: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        self.lazy.retain(|_, (group, body, after)| {
            let change = Change::Committed(body.clone());
            let bytes = change.record_bytes();
            if *after > last || bytes > room {
                return true;
            }
            room -= bytes;
            ops.push(Op { group: group.clone(), serial: *after, change, bytes, done: None });
            false
        });
        self.bytes += ops.iter().map(|op| op.bytes).sum::<usize>();
        ops
    }
}
