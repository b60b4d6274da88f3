//! What one group has in the log: its small records, and where each entry is.
//!
//! Used twice, so that both agree: recovery replays records into it, and the running log keeps it ahead
//! of the disk. Pure memory; it neither reads nor writes files and knows no locks.

use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;

/// Where an entry's bytes are; segment 0 stands for "not written yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub segment: u64,
    pub offset: u64,
    pub crc: u32,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The submission that brought it; 0 from recovery.
    pub serial: u64,
    pub bytes: u32,
    pub at: At,
    /// Present while it is among the newest, and always while it is not written yet.
    pub body: Option<Bytes>,
}

/// The state of one group.
#[derive(Debug, Default)]
pub(super) struct State {
    pub created: Option<Bytes>,
    pub vote: Option<Bytes>,
    pub committed: Option<Bytes>,
    pub purged: Option<Bytes>,
    /// First index that is not purged.
    base: u64,
    /// Index of the first slot. Differs from `base` only while recovery has not yet met the records that
    /// were carried forward out of deleted segments.
    start: u64,
    slots: VecDeque<Slot>,
    live_bytes: u64,
    cached_bytes: u64,
    /// First index whose body may be cached.
    cached_from: u64,
    durable_end: u64,
    /// Submission that removed the group last: what completes from before it is of no concern.
    born: u64,
}

/// An append that neither continues the log nor overwrites its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub end: u64,
}

impl State {
    /// First index that can be read, and the index after the last.
    pub fn range(&self) -> Range<u64> {
        self.base..self.end()
    }

    fn end(&self) -> u64 {
        self.start + self.slots.len() as u64
    }

    /// Index after the last durable entry.
    pub fn durable_end(&self) -> u64 {
        self.durable_end
    }

    /// Bytes of all entries.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of the small records.
    pub fn small_bytes(&self) -> u64 {
        [&self.created, &self.vote, &self.committed, &self.purged]
            .into_iter()
            .flatten()
            .map(|body| body.len() as u64 + 64)
            .sum()
    }

    /// True if every entry is durable and nothing can be in the queue that changes where entries are.
    pub fn is_settled(&self) -> bool {
        self.durable_end == self.end()
    }

    pub fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(index.checked_sub(self.start)? as usize)
    }

    /// Adds entries at `first`; what stands there and behind is overwritten.
    pub fn append(&mut self, first: u64, slots: impl Iterator<Item = Slot>) -> Result<(), Hole> {
        if first < self.base || first > self.end() {
            return Err(Hole { end: self.end() });
        }
        self.truncate(first);
        self.extend(slots);
        Ok(())
    }

    /// As `append`, for recovery: records before these may have been deleted after their live content was
    /// carried forward, so a group that holds nothing takes any first index. `misses_entries` tells at
    /// the end whether all came back.
    pub fn replay(&mut self, first: u64, slots: impl Iterator<Item = Slot>) -> Result<(), Hole> {
        if first < self.base || (first > self.end() && !self.slots.is_empty()) {
            return Err(Hole { end: self.end() });
        }
        self.truncate(first);
        if self.slots.is_empty() {
            self.start = first;
        }
        self.extend(slots);
        if self.slots.is_empty() {
            self.start = self.base;
        }
        Ok(())
    }

    /// True if entries between what is purged and the first one are not there.
    pub fn misses_entries(&self) -> bool {
        !self.slots.is_empty() && self.start != self.base
    }

    /// Declares everything durable, after recovery.
    pub fn settle(&mut self) {
        self.durable_end = self.end();
        self.cached_from = self.end();
    }

    fn extend(&mut self, slots: impl Iterator<Item = Slot>) {
        for slot in slots {
            self.live_bytes += slot.bytes as u64;
            self.cached_bytes += slot.body.as_ref().map_or(0, |body| body.len() as u64);
            self.slots.push_back(slot);
        }
    }

    fn forget(&mut self, slot: Option<Slot>) {
        let Some(slot) = slot else { return };
        self.live_bytes -= slot.bytes as u64;
        self.cached_bytes -= slot.body.as_ref().map_or(0, |body| body.len() as u64);
    }

    /// Forgets the entries from `from` on.
    pub fn truncate(&mut self, from: u64) {
        while self.end() > from && !self.slots.is_empty() {
            let slot = self.slots.pop_back();
            self.forget(slot);
        }
        if self.slots.is_empty() {
            self.start = self.base;
        }
        self.durable_end = self.durable_end.min(from.max(self.base));
        self.cached_from = self.cached_from.min(self.end());
    }

    /// Forgets the entries up to `upto`; false if more was purged already.
    pub fn purge(&mut self, upto: u64, body: Bytes) -> bool {
        let base = upto.saturating_add(1);
        if base < self.base {
            return false;
        }
        while self.start < base && !self.slots.is_empty() {
            let slot = self.slots.pop_front();
            self.start += 1;
            self.forget(slot);
        }
        self.base = base;
        if self.slots.is_empty() {
            self.start = base;
        }
        self.cached_from = self.cached_from.max(self.start);
        self.purged = Some(body);
        true
    }

    /// Forgets everything; `serial` is the submission that did.
    pub fn remove(&mut self, serial: u64) {
        *self = State { born: serial, ..State::default() };
    }

    /// Submission `serial` wrote the entries from `first` on to these places. What was overwritten since
    /// has a later serial and is left alone.
    pub fn locate(&mut self, serial: u64, first: u64, places: &[At]) {
        for (index, place) in (first..).zip(places) {
            let Some(at) = index.checked_sub(self.start) else { continue };
            if let Some(slot) = self.slots.get_mut(at as usize).filter(|slot| slot.serial <= serial)
            {
                slot.at = *place;
            }
        }
    }

    /// Everything up to submission `serial` is durable.
    pub fn advance(&mut self, serial: u64) {
        while self.slot(self.durable_end).is_some_and(|slot| slot.serial <= serial) {
            self.durable_end += 1;
        }
    }

    /// The purge up to `upto`, which was submission `serial`, is durable.
    pub fn purge_durable(&mut self, serial: u64, upto: u64) {
        if serial > self.born {
            self.durable_end = self.durable_end.max(upto.saturating_add(1));
            // Entries behind it may have been durable before; the purged ones stood in the way.
            self.advance(serial);
        }
    }

    /// Drops the oldest cached bodies beyond `bytes_max`, as far as they are written.
    pub fn trim_cache(&mut self, bytes_max: u64) {
        while self.cached_bytes > bytes_max {
            let Some(at) = self.cached_from.checked_sub(self.start) else { return };
            let Some(slot) = self.slots.get_mut(at as usize) else { return };
            if slot.at.segment == 0 {
                return;
            }
            if let Some(body) = slot.body.take() {
                self.cached_bytes -= body.len() as u64;
            }
            self.cached_from += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(serial: u64, count: usize) -> impl Iterator<Item = Slot> {
        let body = Some(Bytes::from_static(b"12345"));
        let at = At::default();
        std::iter::repeat_n(Slot { serial, bytes: 5, at, body }, count)
    }

    fn places(segment: u64, count: usize) -> Vec<At> {
        (0..count as u64).map(|i| At { segment, offset: 100 * i, crc: 0 }).collect()
    }

    #[test]
    fn appends_continue_or_overwrite_but_leave_no_hole() {
        let mut state = State::default();
        assert_eq!(state.append(1, slots(1, 1)), Err(Hole { end: 0 }));
        state.append(0, slots(1, 5)).unwrap();
        assert_eq!(state.append(6, slots(2, 1)), Err(Hole { end: 5 }));
        state.append(3, slots(2, 1)).unwrap();
        assert_eq!((state.range(), state.live_bytes()), (0..4, 20));
        state.purge(1, Bytes::new());
        assert_eq!(state.append(1, slots(3, 1)), Err(Hole { end: 4 }));
        assert_eq!((state.range(), state.live_bytes()), (2..4, 10));
    }

    #[test]
    fn a_purge_beyond_the_end_moves_the_log() {
        let mut state = State::default();
        state.append(0, slots(1, 3)).unwrap();
        assert!(state.purge(9, Bytes::from_static(b"nine")));
        assert_eq!((state.range(), state.live_bytes()), (10..10, 0));
        assert!(!state.purge(5, Bytes::new()), "an older purge changes nothing");
        assert_eq!(state.purged.as_deref(), Some(&b"nine"[..]));
        state.append(10, slots(3, 1)).unwrap();
        // The purge is submission 2 and decides when the log is durable up to where it now begins.
        state.advance(1);
        assert_eq!(state.durable_end(), 0);
        state.purge_durable(2, 9);
        assert_eq!(state.durable_end(), 10);
        state.advance(3);
        assert_eq!(state.durable_end(), 11);
        state.purge(u64::MAX, Bytes::new());
        assert_eq!(state.range(), u64::MAX..u64::MAX);
    }

    #[test]
    fn overwritten_entries_do_not_count_as_durable() {
        let mut state = State::default();
        state.append(0, slots(1, 4)).unwrap();
        state.truncate(2);
        state.append(2, slots(3, 4)).unwrap();
        state.locate(1, 0, &places(7, 4));
        state.advance(1);
        assert_eq!(state.durable_end(), 2);
        assert_eq!(state.slot(1).unwrap().at.segment, 7);
        assert_eq!(state.slot(2).unwrap().at.segment, 0);
        state.advance(3);
        assert_eq!(state.durable_end(), 6);
        state.truncate(3);
        assert_eq!(state.durable_end(), 3);
    }

    #[test]
    fn a_purge_of_what_is_being_written_does_not_hide_the_rest() {
        let mut state = State::default();
        state.append(0, slots(1, 4)).unwrap();
        state.purge(1, Bytes::new());
        state.advance(1);
        state.purge_durable(2, 1);
        assert_eq!(state.durable_end(), 4);
        assert!(state.is_settled());
    }

    #[test]
    fn what_completes_after_a_removal_belongs_to_the_life_before() {
        let mut state = State::default();
        state.purge(9, Bytes::new());
        state.remove(5);
        state.append(0, slots(6, 1)).unwrap();
        state.purge_durable(4, 9);
        state.locate(3, 0, &places(7, 1));
        state.advance(5);
        assert_eq!((state.durable_end(), state.slot(0).unwrap().at.segment), (0, 0));
    }

    #[test]
    fn only_written_bodies_leave_the_cache() {
        let mut state = State::default();
        state.append(0, slots(1, 4)).unwrap();
        state.trim_cache(7);
        assert!(state.slot(0).unwrap().body.is_some());
        state.locate(1, 0, &places(7, 2));
        state.trim_cache(7);
        let cached: Vec<bool> = state.slots.iter().map(|slot| slot.body.is_some()).collect();
        assert_eq!(cached, [false, false, true, true]);
        state.locate(1, 0, &places(7, 4));
        state.trim_cache(7);
        assert!(state.slot(3).unwrap().body.is_some(), "the newest stays");
        state.truncate(0);
        assert_eq!(state.cached_bytes, 0);
    }

    #[test]
    fn replay_takes_a_later_start_and_notices_what_did_not_come_back() {
        let mut state = State::default();
        state.replay(5, slots(0, 0)).unwrap();
        assert_eq!(state.range(), 0..0, "an empty append is no start");
        state.replay(6, slots(0, 2)).unwrap();
        assert!(state.misses_entries());
        assert_eq!(state.replay(9, slots(0, 1)), Err(Hole { end: 8 }));
        state.replay(0, slots(0, 8)).unwrap();
        assert!(!state.misses_entries());
        state.settle();
        assert_eq!((state.range(), state.durable_end()), (0..8, 8));
    }
}
