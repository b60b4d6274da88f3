//! When the newest entries of a group became durable on this node, and when they were committed and taken up for
//! being applied: for telling where the time of a slow write went.
//!
//! One note for each batch of entries, and a short memory. What is not remembered any more is not guessed.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Instant;

/// Batches remembered. A write asks as soon as it is applied, so few are needed.
const BATCHES_MAX: usize = 64;

/// When an entry got how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It was durable on this node.
    pub durable: Option<Instant>,
    /// It was committed, and its turn to be applied.
    pub committed: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Stages {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// (last index, when), ascending.
    durable: VecDeque<(u64, Instant)>,
    /// (first index, when), ascending.
    applying: VecDeque<(u64, Instant)>,
}

impl Stages {
    /// Everything up to this index is durable.
    pub fn durable(&self, last: u64, now: Instant) {
        note(&mut self.inner.lock().durable, last, now);
    }

    /// Everything from this index on, as far as it is committed, is applied next.
    pub fn applying(&self, first: u64, now: Instant) {
        note(&mut self.inner.lock().applying, first, now);
    }

    /// How far an entry got that was applied a moment ago.
    pub fn of(&self, index: u64) -> Times {
        let inner = self.inner.lock();
        let oldest_known = inner.durable.front().is_some_and(|(first, _)| *first < index);
        let durable = inner.durable.iter().find(|(last, _)| *last >= index);
        let committed = inner.applying.iter().rfind(|(first, _)| *first <= index);
        Times {
            // The batch at the front may have hidden an earlier one with this entry.
            durable: durable.filter(|found| oldest_known || found.0 == index).map(|(_, at)| *at),
            committed: committed.map(|(_, at)| *at),
        }
    }
}

/// Entries that a new leader replaces come again, under indexes that were there before.
fn note(batches: &mut VecDeque<(u64, Instant)>, index: u64, now: Instant) {
    while batches.back().is_some_and(|(known, _)| *known >= index) {
        batches.pop_back();
    }
    batches.push_back((index, now));
    if batches.len() > BATCHES_MAX {
        batches.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_entry_has_the_times_of_its_batches() {
        let (stages, start) = (Stages::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        stages.durable(4, at(1));
        stages.durable(7, at(2));
        stages.durable(9, at(3));
        stages.applying(4, at(11));
        stages.applying(8, at(12));
        let times = |index| (stages.of(index).durable, stages.of(index).committed);
        assert_eq!(times(5), (Some(at(2)), Some(at(11))));
        assert_eq!(times(7), (Some(at(2)), Some(at(11))));
        assert_eq!(times(8), (Some(at(3)), Some(at(12))));
        assert_eq!(times(10), (None, Some(at(12))), "not durable yet");
        assert_eq!(times(4).0, Some(at(1)));
        assert_eq!(times(3), (None, None), "too long ago");
    }

    #[test]
    fn entries_that_are_replaced_are_durable_again() {
        let (stages, start) = (Stages::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        for (index, ms) in [(1, 1), (5, 2), (9, 3), (6, 4)] {
            stages.durable(index, at(ms));
        }
        assert_eq!(stages.of(6).durable, Some(at(4)));
        assert_eq!(stages.of(5).durable, Some(at(2)));
        assert_eq!(stages.of(7).durable, None);
    }

    #[test]
    fn the_memory_is_short() {
        let (stages, now) = (Stages::default(), Instant::now());
        for index in 0..1_000 {
            stages.durable(index, now);
            stages.applying(index, now);
        }
        assert_eq!(stages.inner.lock().durable.len(), BATCHES_MAX);
        assert_eq!(stages.inner.lock().applying.len(), BATCHES_MAX);
        assert_eq!(stages.of(100).durable, None);
        assert!(stages.of(999).durable.is_some());
    }
}
