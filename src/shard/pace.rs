//! How far a leader's log had got a second ago, so that it can tell who is near.
//!
//! Plain values with `now` as an argument; who samples, and when, is the caller's matter. Fewer samples
//! only make the answer stricter, never more lenient.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A copy is near if it has everything that was written longer ago than this.
pub const WINDOW: Duration = Duration::from_secs(1);
/// Samples come at most this often, which bounds how many are kept: one more than `WINDOW / SPACING`.
const SPACING: Duration = Duration::from_millis(100);

/// Last log indexes of the last second, the oldest first.
#[derive(Debug, Default)]
pub struct Pace {
    samples: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Notes the last log index of this leader.
    pub fn note(&mut self, now: Instant, last_index: u64) {
        let is_old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        while self.samples.front().is_some_and(|(at, _)| is_old(*at)) {
            self.samples.pop_front();
        }
        let since_last = self.samples.back().map(|(at, _)| now.saturating_duration_since(*at));
        if since_last.is_none_or(|since| since >= SPACING) {
            self.samples.push_back((now, last_index));
        }
    }

    /// The copy leads no longer: what it sampled says nothing about the log of another leader.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// The log index that a copy must have to be near, given the leader's last one. It is the oldest sample
    /// of the last second: at least what the log had a second ago. Without one it is the last index itself.
    pub fn near_index(&self, now: Instant, last_index: u64) -> u64 {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= WINDOW;
        let oldest = self.samples.iter().find(|(at, _)| is_recent(*at));
        oldest.map_or(last_index, |(_, index)| last_index.min(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn near_is_what_was_written_a_second_ago() {
        let start = Instant::now();
        let mut pace = Pace::default();
        // Ten entries a millisecond, sampled every 200 ms.
        for ms in (0..=3_000).step_by(200) {
            pace.note(start + MS(ms), ms * 10);
        }
        assert_eq!(pace.near_index(start + MS(3_000), 30_000), 20_000);
        // Between two samples the later one holds: never less than what was there a second ago.
        assert_eq!(pace.near_index(start + MS(3_001), 30_010), 22_000);
        assert_eq!(pace.near_index(start + MS(3_199), 31_990), 22_000);
    }

    #[test]
    fn without_a_recent_sample_only_the_last_index_is_near() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.near_index(start, 70), 70);
        pace.note(start, 70);
        assert_eq!(pace.near_index(start + MS(900), 500), 70);
        // Nobody sampled for longer than the window: an old sample must not make a straggler near.
        assert_eq!(pace.near_index(start + MS(1_001), 500), 500);
        pace.note(start + MS(5_000), 900);
        assert_eq!(pace.near_index(start + MS(5_000), 900), 900);
        pace.clear();
        assert_eq!(pace.near_index(start + MS(5_001), 901), 901);
    }

    #[test]
    fn who_has_everything_is_near_whatever_was_sampled() {
        let start = Instant::now();
        let mut pace = Pace::default();
        // Entries that another leader's log never had, and that are gone.
        pace.note(start, 90);
        assert_eq!(pace.near_index(start + MS(10), 80), 80);
    }

    #[test]
    fn samples_are_few_however_often_they_come() {
        let start = Instant::now();
        let mut pace = Pace::default();
        for ms in 0..10_000 {
            pace.note(start + MS(ms), ms);
            assert!(pace.samples.len() <= 11, "{} samples", pace.samples.len());
        }
        assert_eq!(pace.near_index(start + MS(9_999), 9_999), 9_000);
        // A clock that seems to go back, as two threads may see it, changes nothing.
        pace.note(start, 1);
        assert!(pace.samples.len() <= 11);
    }
}
