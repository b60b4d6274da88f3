//! How well this node serves: latencies, errors and the longest write gap of the last seconds.
//!
//! `Meter::note` is called once for each request: it reads the clock and does a few relaxed additions, allocates
//! nothing and waits for nobody. `Meter::level` adds up what is there. Neither judges: `strategy::guard` does.
//!
//! The figures are estimates with known errors: a percentile is up to an eighth too high (the width of a bucket),
//! and of the requests that end in the microseconds in which a second turns some may be lost. `Totals` is what metrics
//! are made of: exact counts since the start.

mod totals;

pub use totals::{ClassCounted, RequestClass, Totals};

use crate::types::{Code, Error};
use crate::wire::guard::ServiceLevel;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whole seconds that are looked back; the second that is under way is added.
pub const WINDOW_S: u64 = 5;
/// Seconds kept; more than are looked at, so that the one being cleared is not.
const SLOTS: usize = 8;
/// A percentile of fewer requests is their maximum in disguise, and is not told.
const SAMPLES_MIN: u64 = 100;
/// Buckets for each doubling of the latency.
const PER_DOUBLING: usize = 8;
const SUB_BITS: u32 = PER_DOUBLING.trailing_zeros();
/// Latencies of 2^27 us (134 s) and more share the last bucket; deadlines end long before.
const EXPONENT_MAX: u32 = 26;
const BUCKETS: usize = (EXPONENT_MAX - SUB_BITS + 2) as usize * PER_DOUBLING;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It reads keys by name.
    Read,
    /// It changes at least one key.
    Write,
}

/// One second.
struct Slot {
    /// The second since the start, from 1; 0 was never used.
    second: AtomicU64,
    reads: [AtomicU32; BUCKETS],
    writes: [AtomicU32; BUCKETS],
    errors: AtomicU32,
    gap_us: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            second: AtomicU64::new(0),
            reads: [const { AtomicU32::new(0) }; BUCKETS],
            writes: [const { AtomicU32::new(0) }; BUCKETS],
            errors: AtomicU32::new(0),
            gap_us: AtomicU64::new(0),
        }
    }

    fn clear(&self) {
        self.reads.iter().chain(&self.writes).for_each(|bucket| bucket.store(0, Ordering::Relaxed));
        self.errors.store(0, Ordering::Relaxed);
        self.gap_us.store(0, Ordering::Relaxed);
    }
}

/// Counts requests of the last seconds.
pub struct Meter {
    started: Instant,
    slots: Box<[Slot]>,
    errors: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::starting(Instant::now())
    }
}

impl Meter {
    /// Nothing was served yet.
    pub fn starting(now: Instant) -> Self {
        let slots = (0..SLOTS).map(|_| Slot::new()).collect();
        Self { started: now, slots, errors: AtomicU64::new(0) }
    }

    /// A request that arrived then has just been answered. Says how long that took.
    pub fn note(&self, kind: Kind, arrived: Instant, error: Option<&Error>) -> Duration {
        let now = Instant::now();
        self.note_at(kind, arrived, error.map(|error| error.code), now);
        now.saturating_duration_since(arrived)
    }

    fn note_at(&self, kind: Kind, arrived: Instant, error: Option<Code>, now: Instant) {
        if error.is_some_and(|code| !is_failure(code)) {
            return;
        }
        let Some(slot) = self.slot(self.second(now)) else { return };
        let took_us = now.saturating_duration_since(arrived).as_micros() as u64;
        if kind == Kind::Write && error.is_none_or(waited) {
            slot.gap_us.fetch_max(took_us, Ordering::Relaxed);
        }
        if error.is_some() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        let counter = match (error, kind) {
            (Some(_), _) => &slot.errors,
            (None, Kind::Read) => &slot.reads[bucket(took_us)],
            (None, Kind::Write) => &slot.writes[bucket(took_us)],
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that failed since the start, as `ServiceLevel::errors` counts them.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_secs() + 1
    }

    /// The slot of a second, emptied by whoever comes first; none for a second that is long past.
    fn slot(&self, second: u64) -> Option<&Slot> {
        let slot = &self.slots[second as usize % SLOTS];
        let found = slot.second.load(Ordering::Relaxed);
        if found < second {
            let (ours, order) = (Ordering::AcqRel, Ordering::Relaxed);
            if slot.second.compare_exchange(found, second, ours, order).is_ok() {
                slot.clear();
            }
        }
        (found <= second).then_some(slot)
    }

    /// What the last seconds were like.
    pub fn level(&self, now: Instant) -> ServiceLevel {
        let last = self.second(now);
        let first = last.saturating_sub(WINDOW_S).max(1);
        let is_recent =
            |slot: &&Slot| (first..=last).contains(&slot.second.load(Ordering::Relaxed));
        let recent: Vec<&Slot> = self.slots.iter().filter(is_recent).collect();
        let counts = |of: fn(&Slot) -> &[AtomicU32; BUCKETS]| {
            let mut sum = [0; BUCKETS];
            for slot in &recent {
                let counted =
                    of(slot).iter().map(|bucket| u64::from(bucket.load(Ordering::Relaxed)));
                sum.iter_mut().zip(counted).for_each(|(sum, more)| *sum += more);
            }
            sum
        };
        let (reads, writes) = (counts(|slot| &slot.reads), counts(|slot| &slot.writes));
        let gap_us = recent.iter().map(|slot| slot.gap_us.load(Ordering::Relaxed)).max();
        ServiceLevel {
            reads: reads.iter().sum(),
            writes: writes.iter().sum(),
            errors: recent.iter().map(|slot| u64::from(slot.errors.load(Ordering::Relaxed))).sum(),
            read_p99_us: p99_us(&reads),
            write_p99_us: p99_us(&writes),
            write_gap_ms: gap_us.unwrap_or_default().div_ceil(1_000),
        }
    }
}

/// Whether a refusal counts as an error of the service. Not counted at all is what the request itself is to blame
/// for, and what a client takes to another node or asks again as a matter of course: routing, fences, freshness.
fn is_failure(code: Code) -> bool {
    Code::SERVICE_FAILURES.contains(&code)
}

/// Failures that come after waiting in vain.
fn waited(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::Unknown)
}

/// Below `PER_DOUBLING` one bucket for each microsecond, from there `PER_DOUBLING` for each doubling.
fn bucket(us: u64) -> usize {
    if us < PER_DOUBLING as u64 {
        return us as usize;
    }
    let exponent = us.ilog2();
    if exponent > EXPONENT_MAX {
        return BUCKETS - 1;
    }
    let within = (us >> (exponent - SUB_BITS)) as usize % PER_DOUBLING;
    (exponent - SUB_BITS + 1) as usize * PER_DOUBLING + within
}

/// The longest latency that falls into a bucket.
fn longest_us(bucket: usize) -> u64 {
    let (doubling, within) = ((bucket / PER_DOUBLING) as u32, (bucket % PER_DOUBLING) as u64);
    match doubling {
        0 => within,
        _ => ((PER_DOUBLING as u64 + within + 1) << (doubling - 1)) - 1,
    }
}

fn p99_us(counts: &[u64; BUCKETS]) -> Option<u64> {
    let total: u64 = counts.iter().sum();
    let mut above = total / 100;
    for (bucket, count) in counts.iter().enumerate().rev() {
        if *count > above {
            return (total >= SAMPLES_MIN).then(|| longest_us(bucket));
        }
        above -= count;
    }
    None
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").finish_non_exhaustive()
    }
}

/// The window has to fit, with the second under way and one that is being cleared.
const _: () = assert!(WINDOW_S as usize + 2 <= SLOTS);

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct World {
        meter: Meter,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            let start = Instant::now();
            Self { meter: Meter::starting(start), start }
        }

        /// A request that ended so long after the start and took so long.
        fn at(&self, end: Duration, kind: Kind, took: Duration, error: Option<Code>) {
            let end = self.start + Duration::from_secs(100) + end;
            self.meter.note_at(kind, end - took, error, end);
        }

        fn level(&self, at: Duration) -> ServiceLevel {
            self.meter.level(self.start + Duration::from_secs(100) + at)
        }
    }

    #[test]
    fn buckets_are_in_order_without_gaps_and_an_eighth_wide_at_most() {
        let mut last = 0;
        for us in (0..5_000).chain((13..27).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + 1])) {
            let found = bucket(us);
            assert!(found >= last && found <= last + 1 || us >= 5_000, "{us} us: {last}, {found}");
            let longest = longest_us(found);
            assert!(longest >= us && longest <= us + us / 8, "{us} us: up to {longest}");
            assert!(found == 0 || longest_us(found - 1) < us, "{us} us");
            last = found;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket((1 << 27) - 1), BUCKETS - 1);
    }

    #[test]
    fn one_in_a_hundred_is_slower_than_the_percentile() {
        let world = World::new();
        for i in 0..200 {
            let took = if i < 3 { 80 * MS } else { MS };
            world.at(Duration::ZERO, Kind::Read, took, None);
        }
        let level = world.level(Duration::ZERO);
        let p99 = level.read_p99_us.unwrap();
        assert!(
            (80_000..=90_000).contains(&p99),
            "{p99}: three of 200 are more than one in a hundred"
        );
        assert_eq!((level.reads, level.writes, level.write_p99_us), (200, 0, None));
        let world = World::new();
        for i in 0..200 {
            world.at(Duration::ZERO, Kind::Read, if i < 2 { 80 * MS } else { MS }, None);
        }
        assert!(world.level(Duration::ZERO).read_p99_us.unwrap() < 1_200);
    }

    #[test]
    fn a_percentile_of_a_few_is_not_told() {
        let world = World::new();
        (0..SAMPLES_MIN - 1).for_each(|_| world.at(MS, Kind::Write, MS, None));
        assert_eq!(world.level(MS).write_p99_us, None);
        world.at(MS, Kind::Write, MS, None);
        assert!(world.level(MS).write_p99_us.is_some());
    }

    #[test]
    fn what_is_longer_ago_than_the_window_is_forgotten() {
        let world = World::new();
        (0..300).for_each(|_| world.at(Duration::ZERO, Kind::Write, 200 * MS, None));
        world.at(7_000 * MS, Kind::Write, MS, None);
        assert_eq!(world.level(5_900 * MS).writes, 300);
        let later = world.level(7_000 * MS);
        assert_eq!((later.writes, later.write_gap_ms), (1, 1));
        // The slot is used again after eight seconds, and begins empty.
        world.at(8_000 * MS, Kind::Write, 3 * MS, None);
        assert_eq!((world.level(8_000 * MS).writes, world.level(8_000 * MS).write_gap_ms), (2, 3));
        // Who was asleep for so long is not counted for a second that is gone.
        world.at(Duration::ZERO, Kind::Write, 900 * MS, None);
        assert_eq!(world.level(8_000 * MS).write_gap_ms, 3);
        assert_eq!(world.level(60_000 * MS), ServiceLevel::default());
    }

    #[test]
    fn only_failures_of_the_service_are_errors_and_only_waiting_is_a_gap() {
        let world = World::new();
        for code in [Code::NotLeader, Code::Moved, Code::BadRequest, Code::TooStale, Code::NotReady]
        {
            world.at(MS, Kind::Write, 900 * MS, Some(code));
        }
        assert_eq!(world.level(MS), ServiceLevel::default());
        world.at(MS, Kind::Write, 700 * MS, Some(Code::Overloaded));
        let level = world.level(MS);
        assert_eq!((level.errors, level.write_gap_ms), (1, 0));
        world.at(MS, Kind::Write, 400 * MS, Some(Code::Unknown));
        world.at(MS, Kind::Read, 600 * MS, Some(Code::DeadlineExceeded));
        let level = world.level(MS);
        assert_eq!((level.errors, level.write_gap_ms, level.writes, level.reads), (3, 400, 0, 0));
        assert_eq!(world.meter.errors(), 3);
    }

    #[test]
    fn many_threads_lose_nothing_within_a_second() {
        let world = World::new();
        world.at(MS, Kind::Write, MS, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| world.at(MS, Kind::Write, MS, None)));
            }
        });
        assert_eq!(world.level(MS).writes, 40_001);
    }
}
