//! Proof that a copy is fresh enough: pings to the leader, only while somebody asks for a bound.
//!
//! The group knows when the copy was last proven fresh (`fresh_as_of`); here is decided when to prove it
//! again. A read refuses rather than guess.

use super::reads::Replica;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long after the last bounded read the pings go on.
const DEMAND: Duration = Duration::from_secs(10);
/// Pings come at most this often.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Longest wait for one ping.
const PING_WAIT_MAX: Duration = Duration::from_secs(1);

/// Who asks for bounds, and the pings that are due for them.
#[derive(Default)]
pub struct Freshness {
    demand: Mutex<Demand>,
    wanted: Notify,
    /// Reads that find the copy too old share one ping.
    pinging: tokio::sync::Mutex<()>,
}

/// The tightest bound asked for lately.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    asked_at: Option<Instant>,
    tightest: Option<(Duration, Instant)>,
}

impl Demand {
    /// Notes a bounded read.
    fn ask(&mut self, bound: Duration, now: Instant) {
        self.asked_at = Some(now);
        let keep = self
            .tightest
            .filter(|(tightest, at)| *tightest < bound && now.duration_since(*at) < DEMAND);
        self.tightest = keep.or(Some((bound, now)));
    }

    /// Time between pings; none if nobody has asked for a while.
    fn interval(&self, now: Instant) -> Option<Duration> {
        let is_wanted = self.asked_at.is_some_and(|at| now.duration_since(at) < DEMAND);
        let (bound, _) = self.tightest.filter(|_| is_wanted)?;
        Some(INTERVAL_MIN.max(bound / 3))
    }
}

impl Freshness {
    /// Notes a bounded read and starts the pings if there are none.
    pub fn ask(&self, bound: Duration, now: Instant) {
        let was_idle = {
            let mut demand = self.demand.lock();
            let was_idle = demand.interval(now).is_none();
            demand.ask(bound, now);
            was_idle
        };
        if was_idle {
            self.wanted.notify_one();
        }
    }

    /// Pings the leader unless another read's ping has made the copy fresh enough meanwhile. Comes back by
    /// `until` whatever the leader does; whether it helped is told by `fresh_as_of` alone.
    pub async fn refresh(&self, replica: &impl Replica, bound: Duration, until: Instant) {
        let ping = async {
            let _pinging = self.pinging.lock().await;
            if replica.fresh_as_of().is_none_or(|at| at.elapsed() > bound) {
                let deadline = until.min(Instant::now() + PING_WAIT_MAX);
                if let Err(error) = replica.refresh(deadline).await {
                    tracing::debug!(%error, "freshness ping");
                }
            }
        };
        let _ = tokio::time::timeout_at(until.into(), ping).await;
    }

    /// The background pings; runs until it is aborted.
    pub async fn run(self: Arc<Self>, replica: impl Replica) {
        loop {
            let started = Instant::now();
            let interval = self.demand.lock().interval(started);
            let Some(interval) = interval else {
                self.wanted.notified().await;
                continue;
            };
            let deadline = started + PING_WAIT_MAX;
            let _ = tokio::time::timeout_at(deadline.into(), replica.refresh(deadline)).await;
            tokio::time::sleep_until((started + interval).into()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn nobody_pings_for_nobody() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        assert_eq!(demand.interval(start), None);
        demand.ask(MS(900), start);
        assert_eq!(demand.interval(start), Some(MS(300)));
        assert_eq!(demand.interval(start + MS(9_999)), Some(MS(300)));
        assert_eq!(demand.interval(start + MS(10_000)), None);
    }

    #[test]
    fn the_tightest_bound_sets_the_pace_as_long_as_it_is_asked_for() {
        let (mut demand, start) = (Demand::default(), Instant::now());
        demand.ask(MS(3_000), start);
        demand.ask(MS(300), start + MS(1_000));
        assert_eq!(demand.interval(start + MS(1_000)), Some(MS(100)));
        demand.ask(MS(3_000), start + MS(5_000));
        assert_eq!(demand.interval(start + MS(5_000)), Some(MS(100)));
        demand.ask(MS(3_000), start + MS(11_000));
        assert_eq!(demand.interval(start + MS(11_000)), Some(MS(1_000)));
        demand.ask(MS(1), start + MS(11_000));
        assert_eq!(demand.interval(start + MS(11_000)), Some(MS(50)));
    }
}
