//! The writers of `demo --exit`: each owns some keys, writes them one after the other, and remembers what
//! was acknowledged.

use super::ledger::{self, Entry};
use crate::client::{CallOptions, Client};
use crate::types::{Class, Condition, Expiry, Op};
use rand::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Writers at a time.
const WRITERS: u32 = 32;
/// Keys that a writer puts into one call while it fills.
const BATCH: usize = 8;
/// The whole time of one call: longer than a restart takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(12);
/// Pause after a failure.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);
/// Pause between writes once every key is there, so that a restart has some processor to itself.
const STEADY_PAUSE: Duration = Duration::from_millis(4);

/// What the writers count, and the switches they look at.
#[derive(Debug, Default)]
pub struct Counters {
    /// Writes that were acknowledged.
    pub acked: AtomicU64,
    /// Writes that failed and never took effect.
    pub errors: AtomicU64,
    /// Writes of unknown outcome.
    pub unknown: AtomicU64,
    /// Keys written at least once.
    pub filled: AtomicU64,
    stop_filling: AtomicBool,
    stop: AtomicBool,
    gaps: Gaps,
}

/// How long writers went without an acknowledgement.
#[derive(Debug)]
struct Gaps {
    since: Instant,
    /// When each writer was acknowledged last, in microseconds.
    last_us: Vec<AtomicU64>,
    longest_us: AtomicU64,
}

impl Default for Gaps {
    fn default() -> Self {
        let last_us = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        Self { since: Instant::now(), last_us, longest_us: AtomicU64::new(0) }
    }
}

impl Gaps {
    fn now_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }

    fn acked(&self, writer: usize, now_us: u64) {
        let before_us = self.last_us[writer].swap(now_us, Ordering::Relaxed);
        self.longest_us.fetch_max(now_us.saturating_sub(before_us), Ordering::Relaxed);
    }

    /// Forgets what was; a gap that is open goes on from now.
    fn restart(&self, now_us: u64) {
        for last in &self.last_us {
            last.fetch_max(now_us, Ordering::Relaxed);
        }
        self.longest_us.store(0, Ordering::Relaxed);
    }

    /// The longest one, those included that are open.
    fn longest(&self, now_us: u64) -> Duration {
        let open = self.last_us.iter().map(|last| last.load(Ordering::Relaxed)).min();
        let open_us = open.map_or(0, |last| now_us.saturating_sub(last));
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed).max(open_us))
    }
}

/// Writers at work.
pub struct Load {
    /// What they count.
    pub counters: Arc<Counters>,
    writers: JoinSet<Vec<(u32, Entry)>>,
    keys: u32,
}

impl Load {
    /// Starts the writers; they fill all keys once and then overwrite keys at random until stopped.
    pub fn start(client: &Client, keys: u32) -> Self {
        let counters = Arc::new(Counters::default());
        let mut writers = JoinSet::new();
        for first in 0..WRITERS.min(keys) {
            let own = (first..keys).step_by(WRITERS as usize).map(|key| (key, Entry::default()));
            let (client, counters) = (client.clone(), counters.clone());
            let writer = Writer { number: first as usize, client, counters };
            writers.spawn(writer.run(own.collect()));
        }
        Self { counters, writers, keys }
    }

    /// Waits until every key was written, for so long; then the writers go over to overwriting.
    pub async fn filled(&self, within: Duration) {
        let until = Instant::now() + within;
        while self.counters.filled.load(Ordering::Relaxed) < u64::from(self.keys)
            && Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.counters.stop_filling.store(true, Ordering::Relaxed);
    }

    /// Acknowledged writes so far.
    pub fn acked(&self) -> u64 {
        self.counters.acked.load(Ordering::Relaxed)
    }

    /// Begins to look for the longest gap anew.
    pub fn watch_gaps(&self) {
        self.counters.gaps.restart(self.counters.gaps.now_us());
    }

    /// The longest time that a writer has waited for an acknowledgement since then, its own pauses included.
    pub fn longest_gap(&self) -> Duration {
        self.counters.gaps.longest(self.counters.gaps.now_us())
    }

    /// Stops the writers and answers what is known of each key that was written.
    pub async fn stop(mut self) -> Vec<(u32, Entry)> {
        self.counters.stop.store(true, Ordering::Relaxed);
        self.counters.stop_filling.store(true, Ordering::Relaxed);
        let mut all = Vec::with_capacity(self.keys as usize);
        while let Some(entries) = self.writers.join_next().await {
            all.extend(entries.into_iter().flatten());
        }
        all
    }
}

struct Writer {
    number: usize,
    client: Client,
    counters: Arc<Counters>,
}

impl Writer {
    async fn run(self, mut own: Vec<(u32, Entry)>) -> Vec<(u32, Entry)> {
        let mut written = 0;
        while written < own.len() && !self.counters.stop_filling.load(Ordering::Relaxed) {
            let until = (written + BATCH).min(own.len());
            self.write(&mut own[written..until]).await;
            self.counters.filled.fetch_add((until - written) as u64, Ordering::Relaxed);
            written = until;
        }
        own.truncate(written);
        while !own.is_empty() && !self.counters.stop.load(Ordering::Relaxed) {
            let at = rand::rng().random_range(0..own.len());
            self.write(&mut own[at..=at]).await;
            tokio::time::sleep(STEADY_PAUSE).await;
        }
        own
    }

    async fn write(&self, keys: &mut [(u32, Entry)]) {
        let options = CallOptions { timeout: CALL_TIMEOUT, ..CallOptions::default() };
        let numbers: Vec<u64> = keys.iter_mut().map(|(_, entry)| entry.next()).collect();
        let ops = keys.iter().zip(&numbers).map(|((key, _), number)| Op::Set {
            key: ledger::key(*key).into(),
            value: ledger::value(*key, *number).into(),
            condition: Condition::Always,
            expiry: Expiry::Never,
        });
        let answers = self.client.call(ops.collect(), &options).await;
        let mut failed = false;
        for (((_, entry), number), answer) in keys.iter_mut().zip(numbers).zip(answers) {
            let counter = match answer {
                Ok(_) => {
                    entry.acked(number);
                    self.counters.gaps.acked(self.number, self.counters.gaps.now_us());
                    &self.counters.acked
                }
                Err(error) if error.class() == Class::Uncertain => {
                    entry.unknown(number);
                    &self.counters.unknown
                }
                Err(_) => {
                    failed = true;
                    &self.counters.errors
                }
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if failed {
            tokio::time::sleep(FAILURE_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_what_is_open_and_forgets_what_was() {
        let gaps = Gaps { last_us: (0..2).map(|_| AtomicU64::new(0)).collect(), ..Gaps::default() };
        gaps.acked(0, 300);
        gaps.acked(1, 400);
        gaps.acked(0, 450);
        assert_eq!(gaps.longest(460), Duration::from_micros(400));
        gaps.restart(500);
        assert_eq!(gaps.longest(500), Duration::ZERO);
        gaps.acked(0, 530);
        assert_eq!(gaps.longest(540), Duration::from_micros(40), "the second writer still waits");
        gaps.acked(1, 610);
        assert_eq!(gaps.longest(620), Duration::from_micros(110));
    }
}
