//! What is kept in memory of a group's log: its newest entries, decoded, by bytes; its two ends; and
//! how many bytes lie behind which index. Pure state, no I/O.

use super::types::{Entry, LogId};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes between two marks. An answer of `keep_from` is exact to this.
const MARK_BYTES: u64 = 256 << 10;

/// See the module.
pub struct Tail {
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    bytes_max: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    /// (index, bytes appended before it), ascending.
    marks: VecDeque<(u64, u64)>,
    appended: u64,
}

impl Tail {
    /// Starts with nothing decoded: the log holds `stored_bytes` and ends before `end`.
    pub fn new(
        bytes_max: usize,
        end: u64,
        last: Option<LogId>,
        purged: Option<LogId>,
        stored_bytes: u64,
    ) -> Self {
        let start = purged.map_or(0, |id| id.index + 1);
        let marks = VecDeque::from([(start, 0), (end, stored_bytes)]);
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max,
            last,
            purged,
            marks,
            appended: stored_bytes,
        }
    }

    /// The newest entry, or the base.
    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    /// The base.
    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    /// Adds entries with their stored sizes.
    pub fn append(&mut self, entries: impl Iterator<Item = (Entry, usize)>) {
        for (entry, size) in entries {
            self.last = Some(entry.log_id);
            self.appended += size as u64;
            self.bytes += size;
            let marked = self.marks.back().map_or(0, |(_, bytes)| *bytes);
            if self.appended - marked >= MARK_BYTES {
                self.marks.push_back((entry.log_id.index + 1, self.appended));
            }
            self.entries.push_back((entry, size));
        }
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, size)) = self.entries.pop_front() {
            self.bytes -= size;
        }
    }

    /// Forgets what stands after `last`.
    pub fn truncate(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |id| id.index + 1);
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= end) {
            if let Some((_, size)) = self.entries.pop_back() {
                self.bytes -= size;
            }
        }
        self.last = last;
        while self.marks.back().is_some_and(|(index, _)| *index > end) {
            self.marks.pop_back();
        }
        self.marks.push_back((end, self.appended));
    }

    /// Forgets what stands up to `upto`; if that is everything, the log goes on after it.
    pub fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.forget_oldest();
        }
        self.purged = Some(upto);
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        let start = upto.index + 1;
        // The mark at or below the new start stays: bytes behind it bound those behind the start.
        while self.marks.get(1).is_some_and(|(index, _)| *index <= start) {
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            self.marks.push_back((start, self.appended));
        }
    }

    /// Entries of the range, if its start is here: at most `bytes_max`, at least one.
    pub fn read(&self, range: &Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.0.log_id.index;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let count = usize::try_from(range.end - range.start).ok()?;
        let (mut taken, mut found) = (0, vec![]);
        for (entry, size) in self.entries.iter().skip(skip).take(count) {
            taken += size;
            if taken > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        (!found.is_empty()).then_some(found)
    }

    /// First index such that at most `keep_bytes` (rounded to marks) stand from it on.
    pub fn keep_from(&self, keep_bytes: u64) -> u64 {
        let fits = |mark: &&(u64, u64)| self.appended - mark.1 <= keep_bytes;
        let end = self.last.map_or(0, |id| id.index + 1);
        self.marks.iter().find(fits).map_or(end, |(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Payload, log_id};
    use super::*;
    use crate::types::LogPos;
    use openraft::EntryPayload;

    fn id(index: u64) -> LogId {
        log_id(LogPos { term: 1, leader: 1, index })
    }

    fn entries(range: Range<u64>, size: usize) -> impl Iterator<Item = (Entry, usize)> {
        let payload = || EntryPayload::Normal(Payload(bytes::Bytes::new()));
        range.map(move |index| (Entry { log_id: id(index), payload: payload() }, size))
    }

    fn indexes(found: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        found.map(|all| all.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn keeps_the_newest_by_bytes_and_reads_only_from_there() {
        let mut tail = Tail::new(100, 0, None, None, 0);
        tail.append(entries(0..20, 10));
        assert_eq!(tail.last(), Some(id(19)));
        assert_eq!(indexes(tail.read(&(9..12), usize::MAX)), None);
        assert_eq!(indexes(tail.read(&(10..13), usize::MAX)), Some(vec![10, 11, 12]));
        assert_eq!(indexes(tail.read(&(10..20), 25)), Some(vec![10, 11]));
        assert_eq!(indexes(tail.read(&(10..20), 1)), Some(vec![10]));
        assert_eq!(indexes(tail.read(&(20..21), 1)), None);
    }

    #[test]
    fn truncating_and_purging_move_the_ends() {
        let mut tail = Tail::new(1000, 0, None, None, 0);
        tail.append(entries(0..10, 10));
        tail.truncate(Some(id(6)));
        assert_eq!(tail.last(), Some(id(6)));
        tail.append(entries(7..9, 10));
        assert_eq!(indexes(tail.read(&(5..9), usize::MAX)), Some(vec![5, 6, 7, 8]));
        tail.purge(id(5));
        assert_eq!((tail.purged(), tail.last()), (Some(id(5)), Some(id(8))));
        assert_eq!(indexes(tail.read(&(5..9), usize::MAX)), None);
        tail.purge(id(40));
        assert_eq!((tail.purged(), tail.last()), (Some(id(40)), Some(id(40))));
        tail.truncate(None);
        assert_eq!(tail.last(), None);
    }

    #[test]
    fn tells_where_the_bytes_to_keep_begin() {
        let step = MARK_BYTES as usize;
        let mut tail = Tail::new(usize::MAX, 50, Some(id(49)), None, 4 * MARK_BYTES);
        assert_eq!(tail.keep_from(u64::MAX), 0);
        assert_eq!(tail.keep_from(3 * MARK_BYTES), 50);
        tail.append(entries(50..60, step));
        assert_eq!(tail.keep_from(0), 60);
        assert_eq!(tail.keep_from(3 * MARK_BYTES), 57);
        assert_eq!(tail.keep_from(10 * MARK_BYTES), 50);
        assert_eq!(tail.keep_from(14 * MARK_BYTES), 0);
        tail.purge(id(54));
        assert_eq!(tail.keep_from(u64::MAX), 55);
        tail.truncate(Some(id(56)));
        assert_eq!(tail.keep_from(0), 57);
    }
}
