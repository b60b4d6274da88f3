//! Hot keys: which keys this node is asked for most, by a sample of one in 64 operations.
//!
//! What is not sampled costs a subtraction in a thread's own memory. The sample is kept in two windows, each a
//! "space-saving" sketch: A. Metwally, D. Agrawal, A. El Abbadi, "Efficient Computation of Frequent and Top-k Elements in
//! Data Streams", ICDT 2005. With k places and n samples a count is never too low, too high by its `error` at most, which
//! is at most n / k, and every key with more than n / k samples has a place.
//!
//! In memory only: after a restart it begins anew. It does not say who asks, and scans are not in it.

use crate::types::{Op, ShardId};
use crate::wire::load::{HOT_KEYS_MAX, HotKey};
use bytes::Bytes;
use parking_lot::Mutex;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// On average one of so many operations is sampled.
pub const ONE_IN: u32 = 64;
/// Places of a sketch.
const PLACES: usize = HOT_KEYS_MAX;
/// Length of a window. One that is over is kept for as long again.
const WINDOW: Duration = Duration::from_secs(10);
/// A rate of less time would be a guess.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// The keys that a node is asked for.
#[derive(Debug, Default)]
pub struct Hot {
    windows: Mutex<Windows>,
}

/// What was sampled in the last windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// How long ago that began; zero if nothing was.
    pub span: Duration,
    /// Operations sampled.
    pub count: u64,
    /// The most frequent first.
    pub keys: Vec<HotKey>,
}

impl Hot {
    /// Operations on keys of a shard are worked on.
    pub fn note(&self, shard: ShardId, ops: &[Op]) {
        let Some(first) = pass(ops.len()) else { return };
        let mut windows = self.windows.lock();
        let sketch = windows.current(Instant::now());
        let mut at = first;
        while let Some(op) = ops.get(at) {
            sketch.add(op.key(), shard, op.is_write());
            match next(at, ops.len()) {
                Some(after) => at = after,
                None => break,
            }
        }
    }

    /// The keys that were sampled most, so many at most.
    pub fn hottest(&self, limit: usize, now: Instant) -> Sampled {
        self.windows.lock().hottest(limit, now)
    }
}

thread_local! {
    /// Operations that this thread passes by before the next one it samples, and its random numbers.
    static SAMPLER: Cell<Sampler> = const { Cell::new(Sampler { skip: 0, random: 0 }) };
}

#[derive(Clone, Copy)]
struct Sampler {
    skip: u32,
    random: u32,
}

impl Sampler {
    /// Draws how many to pass by: at random, or what repeats every 64 operations would be sampled always or never.
    fn draw(&mut self) {
        if self.random == 0 {
            self.random = rand::random::<u32>() | 1;
            self.draw();
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.skip = self.random % (2 * ONE_IN - 1);
    }

    /// The first of so many operations that is sampled, if any is.
    fn pass(&mut self, count: usize) -> Option<usize> {
        if self.random == 0 {
            self.draw();
        }
        let at = self.skip as usize;
        match at < count {
            true => Some(at),
            false => {
                self.skip -= count as u32;
                None
            }
        }
    }

    /// The next one after that.
    fn next(&mut self, at: usize, count: usize) -> Option<usize> {
        self.draw();
        self.pass(count - at - 1).map(|after| at + 1 + after)
    }
}

fn pass(count: usize) -> Option<usize> {
    let mut sampler = SAMPLER.get();
    let at = sampler.pass(count);
    SAMPLER.set(sampler);
    at
}

fn next(at: usize, count: usize) -> Option<usize> {
    let mut sampler = SAMPLER.get();
    let at = sampler.next(at, count);
    SAMPLER.set(sampler);
    at
}

/// A sketch since that moment.
#[derive(Debug)]
struct Window {
    began: Instant,
    sketch: Sketch,
}

/// The window under way, which begins with its first sample, and the one before it.
#[derive(Debug, Default)]
struct Windows {
    current: Option<Window>,
    before: Option<Window>,
}

impl Windows {
    /// Lets go of what is over.
    fn turn(&mut self, now: Instant) {
        let age = |window: &Window| now.saturating_duration_since(window.began);
        if let Some(over) = self.current.take_if(|window| age(window) >= WINDOW) {
            self.before = Some(over);
        }
        if self.current.is_none() {
            self.before.take_if(|window| age(window) >= 2 * WINDOW);
        }
    }

    fn current(&mut self, now: Instant) -> &mut Sketch {
        self.turn(now);
        let new = || Window { began: now, sketch: Sketch::default() };
        &mut self.current.get_or_insert_with(new).sketch
    }

    fn hottest(&mut self, limit: usize, now: Instant) -> Sampled {
        self.turn(now);
        let windows = || self.before.iter().chain(&self.current);
        let Some(began) = windows().map(|window| window.began).min() else {
            return Sampled::default();
        };
        let mut keys: Vec<HotKey> = Vec::new();
        for place in windows().flat_map(|window| &window.sketch.places) {
            match keys.iter_mut().find(|known| known.key == place.key) {
                Some(known) => {
                    known.count += place.count;
                    known.error += place.error;
                    known.writes += place.writes;
                }
                None => keys.push(place.clone()),
            }
        }
        keys.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        keys.truncate(limit);
        let span = now.saturating_duration_since(began).max(SPAN_MIN);
        Sampled { span, count: windows().map(|window| window.sketch.count).sum(), keys }
    }
}

/// Counts of the most frequent keys of a stream.
#[derive(Debug, Default)]
struct Sketch {
    count: u64,
    places: Vec<HotKey>,
}

impl Sketch {
    fn add(&mut self, key: &[u8], shard: ShardId, is_write: bool) {
        self.count += 1;
        let writes = u64::from(is_write);
        if let Some(place) = self.places.iter_mut().find(|place| place.key == key) {
            place.count += 1;
            place.writes += writes;
            return;
        }
        // Copied: a slice of the request would keep all of it in memory.
        let key = Bytes::copy_from_slice(key);
        let is_full = self.places.len() >= PLACES;
        match self.places.iter_mut().min_by_key(|place| place.count).filter(|_| is_full) {
            Some(least) => {
                let error = least.count;
                *least = HotKey { key, shard, count: error + 1, error, writes };
            }
            None => self.places.push(HotKey { key, shard, count: 1, error: 0, writes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn get(key: &str) -> Op {
        Op::Get { key: Bytes::copy_from_slice(key.as_bytes()) }
    }

    /// Keys of which the one with rank r is drawn about 1/r times as often as the first.
    fn skewed(count: usize) -> Vec<String> {
        let mut random = Sampler { skip: 0, random: 7 };
        let draw = |_| {
            random.draw();
            let share = f64::from(random.random) / f64::from(u32::MAX);
            format!("key:{}", (2_000f64.powf(share)) as u64)
        };
        (0..count).map(draw).collect()
    }

    #[test]
    fn a_count_is_never_too_low_and_its_error_is_bounded() {
        let (mut sketch, mut truth) = (Sketch::default(), BTreeMap::<String, u64>::new());
        let keys = skewed(50_000);
        for (number, key) in keys.iter().enumerate() {
            sketch.add(key.as_bytes(), ShardId(1), false);
            *truth.entry(key.clone()).or_default() += 1;
            if number % 5_000 != 4_999 {
                continue;
            }
            let bound = sketch.count / PLACES as u64;
            assert_eq!(sketch.places.len(), PLACES);
            assert_eq!(sketch.places.iter().map(|place| place.count).sum::<u64>(), sketch.count);
            for place in &sketch.places {
                let true_count = truth[std::str::from_utf8(&place.key).unwrap()];
                assert!(place.error <= bound, "{place:?}: more than {bound}");
                assert!(place.count - place.error <= true_count && true_count <= place.count);
            }
            for (key, _) in truth.iter().filter(|(_, count)| **count > bound) {
                assert!(sketch.places.iter().any(|place| place.key == key), "{key} has no place");
            }
        }
        assert!(truth.len() > PLACES * 5, "{} keys", truth.len());
    }

    #[test]
    fn one_in_so_many_is_sampled_whatever_the_size_of_requests_and_however_it_repeats() {
        let mut sampler = Sampler { skip: 0, random: 1 };
        for size in [1, 3, 64, 1_000] {
            let (mut sampled, mut of_slot) = (0, [0u32; 64]);
            for request in 0..1_000_000 / size {
                let mut at = sampler.pass(size);
                while let Some(found) = at {
                    assert!(found < size);
                    sampled += 1;
                    of_slot[(request * size + found) % 64] += 1;
                    at = sampler.next(found, size);
                }
            }
            assert!((15_000..=16_300).contains(&sampled), "{sampled} of a million, {size} each");
            assert!(of_slot.iter().all(|n| (150..=350).contains(n)), "{of_slot:?}");
        }
    }

    #[test]
    fn what_was_hot_a_while_ago_is_forgotten() {
        let (mut windows, start) = (Windows::default(), Instant::now());
        let s = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(windows.hottest(10, s(0)), Sampled::default());
        for _ in 0..3 {
            windows.current(s(100)).add(b"a", ShardId(1), true);
        }
        windows.current(s(101)).add(b"b", ShardId(1), false);
        let sampled = windows.hottest(1, s(104));
        assert_eq!((sampled.span, sampled.count), (Duration::from_secs(4), 4));
        let expected = HotKey { key: "a".into(), shard: ShardId(1), count: 3, error: 0, writes: 3 };
        assert_eq!(sampled.keys, [expected]);
        assert_eq!(windows.hottest(1, s(100)).span, SPAN_MIN);
        // In the next window, with the one before it.
        for _ in 0..5 {
            windows.current(s(111)).add(b"b", ShardId(1), false);
        }
        let sampled = windows.hottest(10, s(112));
        assert_eq!((sampled.span, sampled.count), (Duration::from_secs(12), 9));
        assert_eq!((sampled.keys[0].key.as_ref(), sampled.keys[0].count), (&b"b"[..], 6));
        // Then without it.
        windows.current(s(121)).add(b"b", ShardId(1), false);
        assert_eq!(windows.hottest(10, s(122)).keys.len(), 1);
        assert_eq!(windows.hottest(10, s(122)).count, 6);
        assert_eq!(windows.hottest(10, s(141)), Sampled::default());
    }

    #[test]
    fn operations_of_requests_are_sampled_with_their_kind() {
        let hot = Hot::default();
        let write = Op::Del { key: "w".into() };
        let batch: Vec<Op> = (0..50).flat_map(|_| [get("r"), write.clone()]).collect();
        (0..400).for_each(|_| hot.note(ShardId(3), &batch));
        (0..40_000).for_each(|_| hot.note(ShardId(4), &[get("one")]));
        let sampled = hot.hottest(10, Instant::now());
        assert!((900..=1_600).contains(&sampled.count), "{} of 80,000", sampled.count);
        assert_eq!(sampled.keys.len(), 3);
        for key in &sampled.keys {
            let writes = if key.key == "w" { key.count } else { 0 };
            assert_eq!((key.writes, key.error), (writes, 0), "{key:?}");
            assert_eq!(key.shard, ShardId(if key.key == "one" { 4 } else { 3 }));
        }
    }
}
