//! A circuit breaker: whether calls to a peer are worth making, by what became of the last ones.
//!
//! Plain code with `now` as an argument; it sends nothing and knows no peers. One for each (peer, class of calls):
//! slow writes say nothing about reads.
//!
//! Calls of the last ten seconds are counted. With twenty or more it opens if half of them failed or four fifths were
//! slow, for five seconds; then ten calls may try (half-open): if all do well it is closed, else it opens for twice as
//! long, a minute at most. These are the numbers of a client; `Options` has them, and nodes have others. What a peer
//! refuses for a reason (a planned pause, not found, a condition that did not hold, overload) is no call at all here: it
//! says nothing about whether the next one would be answered.
//!
//! An operator may force it open or closed for a time. It ends by itself, and then the breaker is what it was.
//!
//! After resilience4j, with a window for the pace of a key-value store.

use crate::wire::breaker::{BreakerSeen, BreakerState};
use std::time::{Duration, Instant};

/// Seconds that are looked back.
const WINDOW_S: u64 = 10;
const BUCKETS: usize = WINDOW_S as usize;
/// Shares of the calls, in percent, from which on it opens.
const ERROR_PERCENT: u64 = 50;
const SLOW_PERCENT: u64 = 80;
/// A call is slow if it takes `Options::slow_min`, and this many times what calls usually take.
const SLOW_TIMES: u32 = 5;
/// Weight of one call in what calls usually take.
const USUAL_WEIGHT: f64 = 0.02;

/// When it opens and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Fewer calls in ten seconds say nothing.
    pub calls_min: u64,
    /// It also opens if so many calls failed in a row; `u32::MAX` if that says nothing.
    pub failed_row: u32,
    /// A quicker call is never slow.
    pub slow_min: Duration,
    /// How long it is open at first; twice as long each time a call tries it in vain.
    pub open_min: Duration,
    /// How long it is open at most.
    pub open_max: Duration,
    /// Calls that try a half-open one; all have to do well.
    pub probes: u32,
}

impl Default for Options {
    /// What suits a client, which makes many calls and can ask another node.
    fn default() -> Self {
        Self {
            calls_min: 20,
            failed_row: u32::MAX,
            slow_min: Duration::from_millis(100),
            open_min: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            probes: 10,
        }
    }
}

/// Whether calls are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// All of them.
    #[default]
    Closed,
    /// None, where others can be asked.
    Open,
    /// Some, to see how it is now.
    HalfOpen,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered after that time.
    Answered(Duration),
    /// It was answered after work that takes its time: how long it took says nothing.
    Worked,
    /// No answer, no connection, or a fault of the peer.
    Failed,
}

/// What can be seen of a breaker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Whether calls are made.
    pub state: State,
    /// No calls are made where others can be asked: `state` is `Open`.
    pub is_open: bool,
    /// Calls of the last ten seconds that were counted.
    pub calls: u64,
    /// Those of them that failed.
    pub error_count: u64,
    /// Those of them that were slow.
    pub slow_request_count: u64,
    /// How long ago the last one failed.
    pub last_failure: Option<Duration>,
    /// How often it was opened.
    pub opened_total: u64,
    /// Why it was opened last, or who forced it, for as long as that lasts.
    pub reason: Option<String>,
    /// How long it stays forced; none if it is not.
    pub forced_for: Option<Duration>,
}

impl Seen {
    /// The same as it travels and is shown, by a clock in milliseconds since 1970.
    pub fn at(&self, clock_ms: u64) -> BreakerSeen {
        let ms = |time: Duration| time.as_millis() as u64;
        BreakerSeen {
            state: match self.state {
                State::Closed => BreakerState::Closed,
                State::Open => BreakerState::Open,
                State::HalfOpen => BreakerState::HalfOpen,
            },
            is_open: self.is_open,
            calls: self.calls,
            error_count: self.error_count,
            slow_request_count: self.slow_request_count,
            last_failure_time: self.last_failure.map(|ago| clock_ms.saturating_sub(ms(ago))),
            opened_total: self.opened_total,
            reason: self.reason.clone(),
            forced_until: self.forced_for.map(|left| clock_ms.saturating_add(ms(left))),
        }
    }
}

/// A state by order of an operator.
#[derive(Clone, Debug)]
struct Forced {
    is_open: bool,
    until: Instant,
    reason: String,
}

/// A call that was begun; `Breaker::end` takes it back.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// How often the breaker had been opened by then.
    opened: u64,
    /// It tries a half-open one.
    is_probe: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// The second since the first call, from 1; 0 was never used.
    second: u64,
    calls: u64,
    errors: u64,
    slow: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Breaker {
    options: Options,
    first: Option<Instant>,
    buckets: [Bucket; BUCKETS],
    /// What calls usually take, in seconds.
    usual_s: Option<f64>,
    opened_at: Option<Instant>,
    open_until: Option<Instant>,
    /// How often it was opened since it was closed.
    times: u32,
    /// Calls that failed since one did well.
    failed_row: u32,
    /// Calls that may still try, and those that have done well.
    probes_left: u32,
    probes_good: u32,
    last_failure: Option<Instant>,
    opened_total: u64,
    reason: Option<String>,
    forced: Option<Forced>,
}

impl Breaker {
    /// A closed one that has seen no call.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Whether calls are made now.
    pub fn state(&self, now: Instant) -> State {
        match (self.forced(now), self.open_until) {
            (Some(Forced { is_open: true, .. }), _) => State::Open,
            (Some(_), _) | (None, None) => State::Closed,
            (None, Some(until)) if now < until => State::Open,
            (None, Some(_)) => State::HalfOpen,
        }
    }

    /// Open or closed for so long, whatever becomes of calls; `reason` says by whose order. Takes the place of an
    /// order before.
    pub fn force(&mut self, now: Instant, is_open: bool, time: Duration, reason: String) {
        self.forced = Some(Forced { is_open, until: now + time, reason });
    }

    fn forced(&self, now: Instant) -> Option<&Forced> {
        self.forced.as_ref().filter(|forced| now < forced.until)
    }

    /// The peer has said something at that moment. If that was after it was opened, calls may try it from then on.
    pub fn heard(&mut self, at: Instant) {
        if self.opened_at.is_some_and(|opened| at > opened) {
            self.open_until = self.open_until.map(|until| until.min(at));
        }
    }

    /// Whether a call may be made now. Whoever makes it says `begin`.
    pub fn admits(&self, now: Instant) -> bool {
        match self.state(now) {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => self.probes_left > 0,
        }
    }

    /// A call is made.
    pub fn begin(&mut self, now: Instant) -> Call {
        let is_probe = self.state(now) == State::HalfOpen && self.probes_left > 0;
        self.probes_left -= u32::from(is_probe);
        Call { opened: self.opened_total, is_probe }
    }

    /// What became of a call; none if that says nothing about the peer. A call from before the breaker was opened or
    /// closed last, and one that was made although it is open, says nothing about how the peer is now.
    pub fn end(&mut self, now: Instant, call: Call, outcome: Option<Outcome>) {
        if outcome == Some(Outcome::Failed) {
            self.last_failure = Some(now);
        }
        let is_closed = self.open_until.is_none();
        if call.opened != self.opened_total || call.is_probe == is_closed {
            return;
        }
        let Some(outcome) = outcome else {
            // Another one may try in its place.
            self.probes_left += u32::from(call.is_probe);
            return;
        };
        let is_slow = matches!(outcome, Outcome::Answered(took) if self.is_slow(took));
        if is_closed {
            self.count(now, outcome, is_slow);
            if self.forced(now).is_none() {
                self.judge(now);
            }
        } else if is_slow || outcome == Outcome::Failed {
            let what = if is_slow { "was slow" } else { "failed" };
            self.open(now, format!("a call that tried it {what}"));
        } else {
            self.probes_good += 1;
            if self.probes_good >= self.options.probes {
                self.close();
            }
        }
    }

    /// What can be seen.
    pub fn seen(&self, now: Instant) -> Seen {
        let state = self.state(now);
        let Bucket { calls, errors, slow, .. } = self.sum(now);
        Seen {
            state,
            is_open: state == State::Open,
            calls,
            error_count: errors,
            slow_request_count: slow,
            last_failure: self.last_failure.map(|at| now.saturating_duration_since(at)),
            opened_total: self.opened_total,
            reason: match self.forced(now) {
                Some(forced) => Some(forced.reason.clone()),
                None => self.reason.clone(),
            },
            forced_for: self.forced(now).map(|f| f.until.saturating_duration_since(now)),
        }
    }

    /// The first call is what is usual until others have shown otherwise: a peer that is far away is not slow.
    fn is_slow(&self, took: Duration) -> bool {
        let usual = self.usual_s.map(Duration::from_secs_f64);
        let slow_min = self.options.slow_min;
        usual.is_some_and(|usual| took >= slow_min.max(usual.saturating_mul(SLOW_TIMES)))
    }

    fn second(&self, now: Instant) -> u64 {
        self.first.map_or(0, |first| now.saturating_duration_since(first).as_secs()) + 1
    }

    fn count(&mut self, now: Instant, outcome: Outcome, is_slow: bool) {
        self.first.get_or_insert(now);
        let second = self.second(now);
        let bucket = &mut self.buckets[second as usize % BUCKETS];
        if bucket.second != second {
            *bucket = Bucket { second, ..Bucket::default() };
        }
        bucket.calls += 1;
        bucket.slow += u64::from(is_slow);
        bucket.errors += u64::from(outcome == Outcome::Failed);
        self.failed_row = match outcome {
            Outcome::Failed => self.failed_row.saturating_add(1),
            Outcome::Answered(_) | Outcome::Worked => 0,
        };
        // What is slow is not what is usual, or nothing would be slow for long.
        if let (Outcome::Answered(took), false) = (outcome, is_slow) {
            let took_s = took.as_secs_f64();
            let usual_s = self.usual_s.get_or_insert(took_s);
            *usual_s += USUAL_WEIGHT * (took_s - *usual_s);
        }
    }

    fn sum(&self, now: Instant) -> Bucket {
        let last = self.second(now);
        let recent = |bucket: &&Bucket| bucket.second > 0 && bucket.second + WINDOW_S > last;
        self.buckets.iter().filter(recent).fold(Bucket::default(), |sum, bucket| Bucket {
            second: 0,
            calls: sum.calls + bucket.calls,
            errors: sum.errors + bucket.errors,
            slow: sum.slow + bucket.slow,
        })
    }

    fn judge(&mut self, now: Instant) {
        let Bucket { calls, errors, slow, .. } = self.sum(now);
        if self.failed_row >= self.options.failed_row {
            self.open(now, format!("the last {} calls failed", self.failed_row));
        } else if calls < self.options.calls_min {
            // Too few to say anything.
        } else if errors * 100 >= calls * ERROR_PERCENT {
            self.open(now, format!("{errors} of {calls} calls failed"));
        } else if slow * 100 >= calls * SLOW_PERCENT {
            self.open(now, format!("{slow} of {calls} calls were slow"));
        }
    }

    fn open(&mut self, now: Instant, reason: String) {
        let Options { open_min, open_max, probes, .. } = self.options;
        let open = open_min.saturating_mul(1 << self.times.min(8)).min(open_max);
        self.times = self.times.saturating_add(1);
        (self.opened_at, self.open_until) = (Some(now), Some(now + open));
        (self.probes_left, self.probes_good) = (probes, 0);
        self.failed_row = 0;
        self.opened_total += 1;
        self.reason = Some(reason);
    }

    fn close(&mut self) {
        (self.opened_at, self.open_until, self.times) = (None, None, 0);
        // What was before it opened is over.
        self.buckets = Default::default();
    }
}

#[cfg(test)]
mod tests;
