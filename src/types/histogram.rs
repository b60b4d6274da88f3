//! A histogram with fixed bounds: counted without a lock on hot paths, read as cumulative counts.
//!
//! It has no name and no unit; whoever shows it knows both. Values that arrive while it is read may be in some of
//! the figures and not in others.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds for latencies, in microseconds: 100 us to 10 s.
pub const LATENCY_BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds for sizes in bytes: 256 B to 4 MiB.
pub const BYTES_BOUNDS: &[u64] =
    &[1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22];
/// Upper bounds for counts: 1 to 1024.
pub const COUNT_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// Counts values by fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and one for what is larger than all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Empty; `bounds` are inclusive and rise.
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted since the start.
    pub fn counted(&self) -> Counted {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Counted { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Inclusive upper bounds, rising.
    pub bounds: &'static [u64],
    /// Values in each bucket, not cumulative; the last one has no upper bound.
    pub counts: Vec<u64>,
    /// Of all values.
    pub sum: u64,
}

impl Counted {
    /// Number of values.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came after `earlier`, which was read from the same histogram.
    pub fn since(&self, earlier: &Counted) -> Counted {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        Counted {
            bounds: self.bounds,
            counts: self
                .counts
                .iter()
                .zip(before)
                .map(|(now, then)| now.saturating_sub(then))
                .collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// The bound below which so many of 100 values lie; above the last bound twice that one. None of no values.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let total = self.total();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        let last = self.bounds.last().copied().unwrap_or_default();
        let bound = |bucket: usize| self.bounds.get(bucket).copied().unwrap_or(last * 2);
        bucket.filter(|_| total > 0).map(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_below_their_bound_and_percentiles_are_bounds() {
        let histogram = Histogram::new(COUNT_BOUNDS);
        assert_eq!(histogram.counted().percentile(99), None);
        for value in [0, 1, 2, 3, 4, 5_000] {
            histogram.observe(value);
        }
        let counted = histogram.counted();
        assert_eq!(
            (&counted.counts[..3], counted.total(), counted.sum),
            (&[2, 1, 2][..], 6, 5_010)
        );
        assert_eq!(counted.counts.last(), Some(&1));
        let percentiles = [33, 50, 83, 84].map(|percent| counted.percentile(percent));
        assert_eq!(percentiles, [Some(1), Some(2), Some(4), Some(2_048)]);
    }

    #[test]
    fn what_came_since_is_told_apart() {
        let histogram = Histogram::new(LATENCY_BOUNDS_US);
        (0..100).for_each(|_| histogram.observe(90));
        let before = histogram.counted();
        (0..3).for_each(|_| histogram.observe(300_000));
        let since = histogram.counted().since(&before);
        assert_eq!((since.total(), since.sum, since.percentile(99)), (3, 900_000, Some(500_000)));
        assert_eq!(histogram.counted().since(&Counted::default()).total(), 103);
    }
}
