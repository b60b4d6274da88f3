//! What a node tells anybody about its load: rates of the last seconds, and the keys that it is asked for most. Read-only.

use super::Admin;
use crate::admission::Class;
use crate::hot::ONE_IN;
use crate::wire::command::CopyLag;
use crate::wire::load::{Counts, HOT_KEYS_MAX, HotKeys, NodeStats};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the last seconds are.
const WINDOW: Duration = Duration::from_secs(5);
/// Samples kept, one a second: those of the window, one before it, and one that comes late.
const SAMPLES_MAX: usize = 7;

/// Counters of the last seconds.
#[derive(Default)]
pub struct Rates {
    /// The oldest first.
    samples: Mutex<VecDeque<(Instant, Counts)>>,
}

impl Rates {
    /// Notes what was counted since the start.
    pub fn note(&self, now: Instant, counts: Counts) {
        let mut samples = self.samples.lock();
        samples.push_back((now, counts));
        while samples.len() > SAMPLES_MAX {
            samples.pop_front();
        }
    }

    /// What came in the last seconds, by what is counted now.
    fn last(&self, now: Instant, counts: Counts) -> Counts {
        let samples = self.samples.lock();
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let begin = samples.iter().find(|(at, _)| age(at) <= WINDOW);
        match begin.map(|(at, earlier)| (age(at).as_millis() as u64, earlier)) {
            Some((window_ms, earlier)) if window_ms > 0 => counts.since(earlier, window_ms),
            _ => Counts::default(),
        }
    }
}

impl Admin {
    pub(super) fn stats(&self) -> NodeStats {
        let now = Instant::now();
        NodeStats {
            node: self.name.clone(),
            counts: self.rates.last(now, self.counts()),
            service: self.served.level.level(now),
            load: self.load(),
            load_percent: self.budget.load_percent(),
            requests: self.budget.requests() as u64,
            lag_entries: furthest_behind(&self.replica_lag().unwrap_or_default()),
        }
    }

    /// What was counted since the start.
    pub(super) fn counts(&self) -> Counts {
        let served = &self.served;
        Counts {
            window_ms: 0,
            reads: served.reads.load(Ordering::Relaxed),
            writes: served.writes.load(Ordering::Relaxed),
            errors: served.level.errors(),
            write_bytes: served.write_bytes.load(Ordering::Relaxed),
            refused_bulk: self.budget.refused(Class::Bulk),
            refused_writes: self.budget.refused(Class::Write),
            refused_reads: self.budget.refused(Class::Read),
        }
    }

    pub(super) fn hot_keys(&self, limit: u32) -> HotKeys {
        let limit = (limit as usize).min(HOT_KEYS_MAX);
        let sampled = self.served.hot.hottest(limit, Instant::now());
        HotKeys {
            node: self.name.clone(),
            window_ms: sampled.span.as_millis() as u64,
            one_in: ONE_IN,
            sampled: sampled.count,
            keys: sampled.keys,
        }
    }
}

/// Of all copies of which it is known how far they are.
fn furthest_behind(copies: &[CopyLag]) -> Option<u64> {
    let others = copies.iter().filter(|copy| copy.state != "leader");
    others.filter_map(|copy| Some(copy.leader_index.saturating_sub(copy.matched?))).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, ShardId};

    fn counts(reads: u64, refused_bulk: u64) -> Counts {
        Counts { reads, refused_bulk, ..Counts::default() }
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let (rates, start) = (Rates::default(), Instant::now());
        let s = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.last(s(0), counts(9, 0)), Counts::default(), "nothing to compare with");
        for second in 0..=20 {
            rates.note(s(second), counts(second * 100, 3));
        }
        assert!(rates.samples.lock().len() <= SAMPLES_MAX);
        let last = rates.last(s(20) + Duration::from_millis(500), counts(2_300, 4));
        // Since the sample of second 16.
        assert_eq!(last, Counts { window_ms: 4_500, ..counts(700, 1) });
        assert_eq!(rates.last(s(60), counts(2_300, 4)), Counts::default(), "nobody sampled");
    }

    #[test]
    fn the_copy_that_is_furthest_behind_counts_and_an_unknown_one_does_not() {
        let copy = |state: &str, matched| CopyLag {
            shard: ShardId(1),
            node: NodeName::new("n1").unwrap(),
            state: state.into(),
            leader_index: 90,
            matched,
        };
        assert_eq!(furthest_behind(&[]), None);
        assert_eq!(furthest_behind(&[copy("leader", Some(90)), copy("learner", None)]), None);
        let told = [copy("voter", Some(90)), copy("learner", Some(78)), copy("voter", Some(89))];
        assert_eq!(furthest_behind(&told), Some(12));
    }
}
