//! The log of one group: changes go through the queue, reads come from memory or from the segments.

use super::body::Change;
use super::lock::Mutex;
use super::queue::Queue;
use super::read::read;
use super::state::{At, Slot, State};
use super::{Done, Error, Handle};
use crate::types::GroupId;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A group as queue and writer see it.
pub(super) struct Group {
    pub id: GroupId,
    pub state: Mutex<State>,
}

impl Group {
    pub fn new(id: GroupId, state: State) -> Self {
        Self { id, state: Mutex::new(state) }
    }
}

/// What one group has in the log after recovery, and from then on. Clones share it.
///
/// Changes take effect in memory, and thereby in everything that can be read here, when the call returns;
/// they become durable in the order of the calls. All methods that change something block while the queue
/// is full, and only then. Callbacks run on the log's writer thread (or at once, on the caller's, if the
/// log has stopped), so they must be short; those on the writer thread may call back into the log.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) handle: Arc<Handle>,
    pub(super) group: Arc<Group>,
}

impl GroupLog {
    fn queue(&self) -> &Queue {
        &self.handle.shared.queue
    }

    /// Records that the group has a copy here; `body` says which. `done` as for `append`.
    pub fn create(&self, body: Bytes, done: Done) {
        self.queue().submit(&self.group, body.len(), Some(done), |state, _| {
            state.created = Some(body.clone());
            Ok(Some(Change::Create(body)))
        });
    }

    /// Records that the copy is gone for ever: its records are dead. The group can be created again.
    pub fn remove(&self, done: Done) {
        self.queue().submit(&self.group, 0, Some(done), |state, serial| {
            state.remove(serial);
            Ok(Some(Change::Remove))
        });
    }

    /// Appends consecutive entries: `first_index` continues the log, or overwrites its end. They are
    /// readable when this returns; `done` runs when they, and everything submitted before, are durable.
    /// Entries that would leave a hole, or that were purged, are refused through `done` with
    /// `Error::Hole`.
    ///
    /// The newest bodies stay in memory as they were given: an entry that is a slice of a larger buffer
    /// keeps that buffer.
    pub fn append(&self, first_index: u64, entries: Vec<Bytes>, done: Done) {
        let chunk_bytes_max = self.handle.shared.limits.record_bytes_max;
        let mut chunks = chunks(entries, chunk_bytes_max).peekable();
        let (mut first, mut done) = (first_index, Some(done));
        while let Some(entries) = chunks.next() {
            let count = entries.len() as u64;
            let last = if chunks.peek().is_none() { done.take() } else { None };
            if !self.append_chunk(first, entries, last) {
                break;
            }
            first += count;
        }
        if let Some(done) = done {
            done(Err(Error::Hole { first_index, end: self.range().end }));
        }
    }

    /// False if the chunk does not fit the log.
    fn append_chunk(&self, first: u64, entries: Vec<Bytes>, done: Option<Done>) -> bool {
        let mut fits = true;
        let bytes = entries.iter().map(|entry| entry.len() + 4).sum();
        let cache_bytes_max = self.handle.shared.limits.cache_bytes_per_group;
        self.queue().submit(&self.group, bytes, done, |state, serial| {
            let slot = |entry: &Bytes| Slot {
                serial,
                bytes: entry.len() as u32,
                at: At::default(),
                body: Some(entry.clone()),
            };
            if let Err(hole) = state.append(first, entries.iter().map(slot)) {
                fits = false;
                return Err(Error::Hole { first_index: first, end: hole.end });
            }
            state.trim_cache(cache_bytes_max);
            Ok(Some(Change::Append { first, entries }))
        });
        fits
    }

    /// Forgets the entries from `from_index` on.
    pub fn truncate(&self, from_index: u64) {
        self.queue().submit(&self.group, 8, None, |state, _| {
            state.truncate(from_index);
            Ok(Some(Change::Truncate { from: from_index }))
        });
    }

    /// Forgets the entries up to `upto_index` (inclusive); `purged` describes the last of them and is
    /// returned by `purged()`, also after a restart. If the log ends before `upto_index` it continues
    /// after it (a snapshot was installed). Does nothing if more was purged already.
    pub fn purge(&self, upto_index: u64, purged: Bytes) {
        self.queue().submit(&self.group, purged.len() + 8, None, |state, _| {
            let news = state.purge(upto_index, purged.clone());
            Ok(news.then_some(Change::Purge { upto: upto_index, body: purged }))
        });
    }

    /// Stores the vote; `done` as for `append`.
    pub fn save_vote(&self, vote: Bytes, done: Done) {
        self.queue().submit(&self.group, vote.len(), Some(done), |state, _| {
            state.vote = Some(vote.clone());
            Ok(Some(Change::Vote(vote)))
        });
    }

    /// Calls `done` once everything submitted so far is durable: writes once more what the vote is at that
    /// moment, and the queue is first in, first out. A group without a vote has nothing that could matter;
    /// `done` then runs at once.
    pub fn barrier(&self, done: Done) {
        let bytes = self.vote().map_or(0, |vote| vote.len());
        // The vote is read where it is queued: in between, another one could be saved, and undone by this.
        self.queue().submit(&self.group, bytes, Some(done), |state, _| {
            Ok(state.vote.clone().map(Change::Vote))
        });
    }

    /// Remembers what is committed; written with the next batch, never waited for. A batch never
    /// holds it without the entries that were appended before this call.
    pub fn save_committed(&self, committed: Bytes) {
        self.queue().remember(&self.group, committed);
    }

    /// The vote saved last.
    pub fn vote(&self) -> Option<Bytes> {
        self.group.state.lock().vote.clone()
    }

    /// What was committed when last saved; after a restart, when last written.
    pub fn committed(&self) -> Option<Bytes> {
        self.group.state.lock().committed.clone()
    }

    /// The body given to the last purge.
    pub fn purged(&self) -> Option<Bytes> {
        self.group.state.lock().purged.clone()
    }

    /// The body given to `create`, if the group was created and not removed.
    pub fn created(&self) -> Option<Bytes> {
        self.group.state.lock().created.clone()
    }

    /// First index that can be read, and the index after the last one.
    pub fn range(&self) -> Range<u64> {
        self.group.state.lock().range()
    }

    /// Entries of the range that are in the log, at most `bytes_max` bytes but at least one if there is
    /// one. `Error::Damage` if an entry that was read back from a segment fails its checksum.
    pub fn entries(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Bytes>, Error> {
        read(&self.handle.shared, &self.group, range, bytes_max)
    }

    /// Index after the last entry that is durable here. After a purge beyond the end this is the
    /// new start of the log as soon as the purge itself is durable.
    pub fn durable_end(&self) -> u64 {
        self.group.state.lock().durable_end()
    }

    /// Bytes of entries that are not purged.
    pub fn live_bytes(&self) -> u64 {
        self.group.state.lock().live_bytes()
    }

    /// Checks that the log holds what is proven to have been durable here: `last_index` is an index that
    /// the group's store, or a peer that counted this node's acknowledgement, is known to have got from
    /// this log. `Error::Damage` if the log ends before it; a log that was purged, or based by a
    /// snapshot, at or beyond it is sound.
    pub fn require(&self, last_index: u64) -> Result<(), Error> {
        let end = self.range().end;
        if end > last_index {
            return Ok(());
        }
        let group = self.group.id;
        Err(Error::Damage(format!(
            "the log of {group} ends before {end}, but {last_index} was durable"
        )))
    }
}

/// Splits entries into records of about `bytes_max`; an entry is never split. At least one chunk.
fn chunks(entries: Vec<Bytes>, bytes_max: usize) -> impl Iterator<Item = Vec<Bytes>> {
    let mut entries = entries.into_iter().peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while let Some(entry) =
            entries.next_if(|entry| bytes == 0 || bytes + entry.len() + 4 <= bytes_max)
        {
            bytes += entry.len() + 4;
            chunk.push(entry);
        }
        let more = first || !chunk.is_empty();
        first = false;
        more.then_some(chunk)
    })
}
