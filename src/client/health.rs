//! What the client has seen of a node: latency, requests in flight, recent failures, a breaker for each class of
//! calls. And the choice between nodes that may all answer: pick of two.

use crate::breaker::{Breaker, Call, Outcome, Seen as BreakerSeen};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Weight of one measurement in the moving average.
const EWMA_WEIGHT: f64 = 0.1;
/// A latency that was not measured for this long counts half, so that a node that was slow once is
/// tried again.
const HALF_LIFE: Duration = Duration::from_secs(5);
/// How long a node that did not answer is asked only if nobody else can be; doubles with each failure.
const SUSPECT_MIN: Duration = Duration::from_secs(1);
/// Longest suspicion.
const SUSPECT_MAX: Duration = Duration::from_secs(3);
/// How long others may go on naming a node as the leader that does not answer: about one election. Who names it later
/// has heard of it since.
const NAMED_IN_VAIN: Duration = Duration::from_millis(1_500);
/// How long a node is suspected whose connection ended. Where it was restarted, a new one is made at once.
const LOST: Duration = Duration::from_millis(100);

/// What is asked of a node: how it does one says little about the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallClass {
    /// Keys are read.
    Read,
    /// Keys are changed, or a session is opened for that.
    Write,
}

impl CallClass {
    /// Both.
    pub const ALL: [CallClass; 2] = [CallClass::Read, CallClass::Write];

    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            CallClass::Read => "read",
            CallClass::Write => "write",
        }
    }
}

/// Measured by requests, read by the choice of a node.
#[derive(Debug, Default)]
pub(crate) struct Health {
    in_flight: AtomicU32,
    seen: Mutex<Seen>,
    breakers: [Mutex<Breaker>; CallClass::ALL.len()],
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    ewma_us: f64,
    measured: Option<Instant>,
    failures: u32,
    failed: Option<Instant>,
    suspect_until: Option<Instant>,
}

impl Health {
    /// Counts a request in flight until the guard is dropped. `ended` says what became of it.
    pub(crate) fn begin(&self, class: CallClass, now: Instant) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let call = self.breakers[class as usize].lock().begin(now);
        InFlight { health: self, class, call, ended: (now, None) }
    }

    /// Whether calls of that class are worth making while others may answer as well.
    pub(crate) fn admits(&self, class: CallClass, now: Instant) -> bool {
        self.breakers[class as usize].lock().admits(now)
    }

    /// What can be seen of a breaker.
    pub(crate) fn breaker(&self, class: CallClass, now: Instant) -> BreakerSeen {
        self.breakers[class as usize].lock().seen(now)
    }

    /// A node answered. Only reads bring a latency: a write waits for a disk, wherever it goes.
    pub(crate) fn answered(&self, now: Instant, latency: Option<Duration>) {
        let mut seen = self.seen.lock();
        seen.failures = 0;
        seen.failed = None;
        seen.suspect_until = None;
        if let Some(latency) = latency {
            seen.ewma_us = average(seen.ewma_us, seen.measured, latency);
            seen.measured = Some(now);
        }
    }

    /// A node did not answer, or could not be reached.
    pub(crate) fn failed(&self, now: Instant) {
        let mut seen = self.seen.lock();
        let wait = SUSPECT_MIN.saturating_mul(1 << seen.failures.min(8)).min(SUSPECT_MAX);
        seen.failures = seen.failures.saturating_add(1);
        seen.failed = Some(now);
        seen.suspect_until = Some(now + wait);
    }

    /// The connection to a node ended. Whether it can be reached, the next one will tell.
    pub(crate) fn lost(&self, now: Instant) {
        let mut seen = self.seen.lock();
        seen.suspect_until = seen.suspect_until.max(Some(now + LOST));
    }

    /// Whether a node that another one names as the leader is worth asking.
    pub(crate) fn may_lead(&self, now: Instant) -> bool {
        let seen = *self.seen.lock();
        let named_in_vain = |at: Instant| now.saturating_duration_since(at) < NAMED_IN_VAIN;
        match seen.failed {
            Some(at) => !named_in_vain(at),
            None => seen.suspect_until.is_none_or(|until| until <= now),
        }
    }

    /// True while others are to be asked first.
    pub(crate) fn suspect(&self, now: Instant) -> bool {
        self.seen.lock().suspect_until.is_some_and(|until| now < until)
    }

    /// The lower the better.
    pub(crate) fn score(&self, now: Instant) -> f64 {
        let seen = *self.seen.lock();
        let idle = seen.measured.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        score(seen.ewma_us, idle, self.in_flight.load(Ordering::Relaxed))
    }
}

/// One request in flight.
pub(crate) struct InFlight<'a> {
    health: &'a Health,
    class: CallClass,
    call: Call,
    /// When, and with what outcome: none if its caller went away.
    ended: (Instant, Option<Outcome>),
}

impl InFlight<'_> {
    /// What became of it; none if that says nothing about the node.
    pub(crate) fn ended(mut self, now: Instant, outcome: Option<Outcome>) {
        self.ended = (now, outcome);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::Relaxed);
        let (now, outcome) = self.ended;
        self.health.breakers[self.class as usize].lock().end(now, self.call, outcome);
    }
}

fn average(ewma_us: f64, measured: Option<Instant>, latency: Duration) -> f64 {
    let latency_us = latency.as_secs_f64() * 1e6;
    match measured {
        None => latency_us,
        Some(_) => ewma_us + EWMA_WEIGHT * (latency_us - ewma_us),
    }
}

/// Expected wait: what a request takes there, times the requests in front, counting this one.
fn score(ewma_us: f64, idle: Duration, in_flight: u32) -> f64 {
    let faded = ewma_us * 0.5f64.powf(idle.as_secs_f64() / HALF_LIFE.as_secs_f64());
    (faded + 1.0) * (f64::from(in_flight) + 1.0)
}

/// Takes two of `scores` at random (`a`, `b`: any random numbers) and returns the position of the
/// better one. Choosing the best of all would send everybody to the same node at once.
pub(crate) fn pick_of_two(scores: &[f64], a: u32, b: u32) -> Option<usize> {
    let count = scores.len();
    if count < 2 {
        return count.checked_sub(1);
    }
    let first = a as usize % count;
    let second = (first + 1 + b as usize % (count - 1)) % count;
    Some(if scores[second] < scores[first] { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_different_nodes_are_compared_and_the_better_one_wins() {
        assert_eq!(pick_of_two(&[], 3, 4), None);
        assert_eq!(pick_of_two(&[9.0], 3, 4), Some(0));
        let scores = [3.0, 1.0, 2.0];
        let mut wins = [0; 3];
        for a in 0..3 {
            for b in 0..2 {
                wins[pick_of_two(&scores, a, b).unwrap()] += 1;
            }
        }
        // Each pair is drawn twice: the best wins both of its pairs, the worst none.
        assert_eq!(wins, [0, 4, 2]);
    }

    #[test]
    fn slow_busy_and_silent_nodes_score_worse() {
        let zero = Duration::ZERO;
        assert!(score(100.0, zero, 0) < score(200.0, zero, 0));
        assert!(score(100.0, zero, 0) < score(100.0, zero, 3));
        assert!(score(200.0, HALF_LIFE * 2, 0) < score(100.0, zero, 0), "old slowness fades");
    }

    #[test]
    fn suspicion_grows_ends_and_is_lifted_by_an_answer() {
        let (health, now) = (Health::default(), Instant::now());
        assert!(!health.suspect(now));
        health.failed(now);
        assert!(health.suspect(now) && !health.suspect(now + SUSPECT_MIN));
        health.failed(now);
        assert!(health.suspect(now + SUSPECT_MIN));
        for _ in 0..50 {
            health.failed(now);
        }
        assert!(!health.suspect(now + SUSPECT_MAX));
        health.answered(now, None);
        assert!(!health.suspect(now));
    }

    #[test]
    fn who_is_named_long_after_it_failed_or_was_lost_a_moment_ago_may_lead() {
        let (health, now) = (Health::default(), Instant::now());
        (0..50).for_each(|_| health.failed(now));
        let later = now + NAMED_IN_VAIN;
        assert!(!health.may_lead(later - LOST));
        assert!(health.may_lead(later) && health.suspect(later), "it was heard of since");
        // A connection that ends shortens no suspicion, and is none that lasts.
        health.lost(now);
        assert!(health.suspect(later));
        health.answered(now, None);
        health.lost(now);
        assert!(health.suspect(now) && !health.may_lead(now));
        assert!(!health.suspect(now + LOST) && health.may_lead(now + LOST));
    }

    #[test]
    fn a_breaker_is_about_one_class_and_a_caller_that_leaves_says_nothing() {
        let (health, now) = (Health::default(), Instant::now());
        let end = |class, outcome| health.begin(class, now).ended(now, outcome);
        for _ in 0..100 {
            end(CallClass::Write, None);
            drop(health.begin(CallClass::Write, now));
        }
        assert_eq!(health.breaker(CallClass::Write, now).calls, 0);
        (0..100).for_each(|_| end(CallClass::Write, Some(Outcome::Failed)));
        assert!(!health.admits(CallClass::Write, now) && health.admits(CallClass::Read, now));
        // Ten may try, and whoever leaves makes room for another.
        let later = now + Duration::from_secs(5);
        for _ in 0..100 {
            drop(health.begin(CallClass::Write, later));
        }
        assert!(health.admits(CallClass::Write, later));
        assert_eq!(health.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_average_follows_slowly_and_in_flight_is_counted() {
        let (health, now) = (Health::default(), Instant::now());
        health.answered(now, Some(Duration::from_micros(1_000)));
        health.answered(now, Some(Duration::from_micros(2_000)));
        assert!((health.score(now) - 1_101.0).abs() < 1e-6);
        let guard = health.begin(CallClass::Read, now);
        assert!((health.score(now) - 2_202.0).abs() < 1e-6);
        drop(guard);
        assert!((health.score(now) - 1_101.0).abs() < 1e-6);
    }
}
