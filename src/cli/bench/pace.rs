//! When a request is meant to start: as soon as its lane is free, or by a fixed schedule.
//!
//! With a schedule, latency counts from the intended start. A lane that is late because the requests
//! before it were slow thus shows that slowness, which a closed loop would hide.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by all lanes of a run.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    /// Requests for each second; none: as fast as answers come.
    rate: Option<u64>,
    next: AtomicU64,
}

impl Pace {
    /// A pace that starts now.
    pub fn new(start: Instant, rate: Option<u64>) -> Self {
        Self { start, rate, next: AtomicU64::new(0) }
    }

    /// The start of the next request of any lane, in the past if the lanes are late.
    fn draw(&self, now: Instant) -> Instant {
        match self.rate {
            None => now,
            Some(rate) => scheduled(self.start, rate, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Waits for the start of a request whose place in the schedule is given, and returns that start.
    pub async fn wait_for(start: Instant, rate: Option<u64>, number: u64) -> Instant {
        let Some(rate) = rate else { return Instant::now() };
        let intended = scheduled(start, rate, number);
        tokio::time::sleep_until(intended.into()).await;
        intended
    }

    /// Waits for the next start and returns it; none if it lies at or after the end.
    pub async fn next(&self, end: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        let intended = self.draw(now);
        if end.is_some_and(|end| intended >= end || now >= end) {
            return None;
        }
        if intended > now {
            tokio::time::sleep_until(intended.into()).await;
        }
        Some(intended)
    }
}

fn scheduled(start: Instant, rate: u64, number: u64) -> Instant {
    let ns = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
    start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_spaces_starts_evenly_and_does_not_wait_for_the_late() {
        let start = Instant::now();
        let pace = Pace::new(start, Some(1_000));
        let much_later = start + Duration::from_secs(60);
        let starts: Vec<u128> =
            (0..4).map(|_| (pace.draw(much_later) - start).as_micros()).collect();
        assert_eq!(starts, [0, 1_000, 2_000, 3_000]);
        assert_eq!(Pace::new(start, None).draw(much_later), much_later);
    }

    #[tokio::test]
    async fn nothing_starts_at_or_after_the_end() {
        let start = Instant::now();
        let pace = Pace::new(start, Some(200));
        let end = Some(start + Duration::from_millis(20));
        let mut started = 0;
        while let Some(intended) = pace.next(end).await {
            assert!(Instant::now() >= intended);
            started += 1;
        }
        // 0, 5, 10, 15 ms; fewer if this machine was too busy to start them in time.
        assert!((1..=4).contains(&started), "{started}");
    }
}
