//! How far a run is, for a person who looks on. The report has figures of its own: what is counted here holds the
//! keys that are stored first and the warm-up, too.

use super::super::talk::Talk;
use super::Caller;
use crate::client::{CallOptions, OpAnswer};
use crate::types::{Op, Result};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often a person is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Counts what goes through it.
pub struct Counted<C> {
    caller: C,
    requests: AtomicU64,
    failed: AtomicU64,
}

impl<C> Counted<C> {
    /// Nothing went through yet.
    pub fn new(caller: C) -> Self {
        Self { caller, requests: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// Tells a person how far it is until the run is over.
    pub async fn tell<T>(&self, talk: &Talk, running: impl Future<Output = T>) -> T {
        if !talk.is_redrawn() {
            return running.await;
        }
        let mut running = std::pin::pin!(running);
        let started = Instant::now();
        let (mut before, mut at) = (0, started);
        let ended = loop {
            let (total, now) = tokio::select! {
                ended = &mut running => break ended,
                () = tokio::time::sleep(TELL_EVERY) => (self.requests.load(Relaxed), Instant::now()),
            };
            let rate = (total - before) as f64 / (now - at).as_secs_f64();
            (before, at) = (total, now);
            let failed = self.failed.load(Relaxed);
            talk.progress(&line(now - started, total, rate, failed));
        };
        talk.close_line();
        ended
    }
}

fn line(elapsed: Duration, requests: u64, rate: f64, failed: u64) -> String {
    let seconds = elapsed.as_secs();
    format!("{seconds} s: {requests} requests, {rate:.0}/s now, {failed} failed")
}

impl<C: Caller> Caller for Counted<C> {
    async fn call(&self, ops: Vec<Op>, options: &CallOptions) -> Vec<Result<OpAnswer>> {
        let answers = self.caller.call(ops, options).await;
        self.requests.fetch_add(1, Relaxed);
        if answers.iter().any(Result::is_err) {
            self.failed.fetch_add(1, Relaxed);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fault, Memory};
    use super::*;
    use crate::types::{Condition, Expiry};

    #[tokio::test]
    async fn requests_are_counted_and_those_that_failed() {
        let op = || Op::Set {
            key: "k".into(),
            value: "v".into(),
            condition: Condition::Always,
            expiry: Expiry::Never,
        };
        for (fault, failed) in [(Fault::None, 0), (Fault::Refuses, 2)] {
            let counted = Counted::new(Memory::new(fault));
            for _ in 0..2 {
                counted.call(vec![op(), op()], &CallOptions::default()).await;
            }
            let counts = (counted.requests.load(Relaxed), counted.failed.load(Relaxed));
            assert_eq!(counts, (2, failed), "{fault:?}");
        }
        let shown = line(Duration::from_millis(2_500), 30, 11.6, 1);
        assert_eq!(shown, "2 s: 30 requests, 12/s now, 1 failed");
    }
}
