//! The breaker by values: what became of calls, and what is done next.

use super::*;

const QUICK: Outcome = Outcome::Answered(Duration::from_millis(2));
const SLOW: Outcome = Outcome::Answered(Duration::from_millis(150));
const CALLS_MIN: u64 = 20;
const OPEN_MIN: Duration = Duration::from_secs(5);
const OPEN_MAX: Duration = Duration::from_secs(60);
const PROBES: u32 = 10;

struct Test {
    breaker: Breaker,
    now: Instant,
}

impl Test {
    fn new() -> Self {
        Self { breaker: Breaker::default(), now: Instant::now() }
    }

    fn call(&mut self, outcome: Outcome) {
        let call = self.breaker.begin(self.now);
        self.breaker.end(self.now, call, Some(outcome));
    }

    fn calls(&mut self, count: u32, outcome: Outcome) {
        (0..count).for_each(|_| self.call(outcome));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn state(&self) -> State {
        self.breaker.state(self.now)
    }

    /// Opens it.
    fn opened() -> Self {
        let mut test = Self::new();
        test.call(QUICK);
        test.calls(CALLS_MIN as u32, Outcome::Failed);
        assert_eq!(test.state(), State::Open);
        test
    }
}

#[test]
fn half_of_the_calls_failing_opens_it() {
    let mut test = Test::new();
    test.calls(11, QUICK);
    test.calls(10, Outcome::Failed);
    assert_eq!(test.state(), State::Closed, "10 of 21");
    test.call(Outcome::Failed);
    assert_eq!((test.state(), test.breaker.admits(test.now)), (State::Open, false));
    let seen = test.breaker.seen(test.now);
    assert_eq!((seen.is_open, seen.error_count, seen.calls), (true, 11, 22));
    assert_eq!((seen.last_failure, seen.opened_total), (Some(Duration::ZERO), 1));
    assert_eq!(seen.reason.as_deref(), Some("11 of 22 calls failed"));
}

#[test]
fn slow_calls_open_it_and_what_is_usual_is_not_slow() {
    let mut test = Test::new();
    test.calls(20, QUICK);
    test.calls(79, SLOW);
    assert_eq!(test.state(), State::Closed, "79 of 99");
    test.call(SLOW);
    assert_eq!(test.state(), State::Open);
    assert_eq!(test.breaker.seen(test.now).slow_request_count, 80);

    let mut usual = Test::new();
    usual.calls(500, Outcome::Answered(Duration::from_millis(90)));
    usual.calls(500, Outcome::Answered(Duration::from_millis(400)));
    assert_eq!(usual.state(), State::Closed, "less than five times what is usual");
    usual.pass(Duration::from_secs(WINDOW_S));
    usual.calls(CALLS_MIN as u32, Outcome::Answered(Duration::from_secs(3)));
    assert_eq!(usual.state(), State::Open);
}

#[test]
fn few_calls_and_old_ones_say_nothing() {
    let mut test = Test::new();
    test.calls(CALLS_MIN as u32 - 1, Outcome::Failed);
    assert_eq!(test.state(), State::Closed);
    test.pass(Duration::from_secs(WINDOW_S + 1));
    test.call(Outcome::Failed);
    assert_eq!((test.state(), test.breaker.seen(test.now).calls), (State::Closed, 1));
}

#[test]
fn ten_good_calls_close_it_again() {
    let mut test = Test::new();
    let before = test.breaker.begin(test.now);
    test.calls(CALLS_MIN as u32, Outcome::Failed);
    test.pass(OPEN_MIN - Duration::from_millis(1));
    assert!(!test.breaker.admits(test.now));
    // Nobody else can answer, so it is asked although it is open.
    let forced = test.breaker.begin(test.now);
    test.pass(Duration::from_millis(1));
    assert_eq!(test.state(), State::HalfOpen);
    let mut tries: Vec<Call> = (0..PROBES).map(|_| test.breaker.begin(test.now)).collect();
    assert!(!test.breaker.admits(test.now), "ten are under way");
    let beyond = test.breaker.begin(test.now);
    for call in [before, forced, beyond] {
        test.breaker.end(test.now, call, Some(Outcome::Failed));
        test.breaker.end(test.now, call, None);
    }
    assert_eq!((test.state(), test.breaker.admits(test.now)), (State::HalfOpen, false));
    let left = tries.pop().unwrap();
    for call in tries {
        test.breaker.end(test.now, call, Some(QUICK));
    }
    // One came to nothing that counts, and another one tries in its place.
    test.breaker.end(test.now, left, None);
    assert!(test.breaker.admits(test.now));
    test.call(QUICK);
    assert_eq!((test.state(), test.breaker.seen(test.now).calls), (State::Closed, 0));
    // What was begun before it was opened is late, and says nothing.
    test.breaker.end(test.now, before, Some(Outcome::Failed));
    test.call(QUICK);
    assert_eq!(test.breaker.seen(test.now).calls, 1);
}

#[test]
fn what_always_took_long_is_not_slow() {
    let mut test = Test::new();
    test.calls(100, SLOW);
    assert_eq!(test.state(), State::Closed);
    // A first call that took long, as a handshake does, is soon forgotten.
    let mut test = Test::new();
    test.call(Outcome::Answered(Duration::from_millis(300)));
    test.calls(150, QUICK);
    test.pass(Duration::from_secs(WINDOW_S));
    test.calls(CALLS_MIN as u32, SLOW);
    assert_eq!(test.state(), State::Open);
}

#[test]
fn a_call_that_tries_in_vain_opens_it_for_longer_up_to_a_minute() {
    let mut test = Test::opened();
    let mut open = OPEN_MIN;
    for outcome in [Outcome::Failed, SLOW, Outcome::Failed, SLOW, Outcome::Failed, SLOW] {
        test.pass(open);
        assert_eq!(test.state(), State::HalfOpen, "after {open:?}");
        test.call(outcome);
        open = (open * 2).min(OPEN_MAX);
        test.pass(open - Duration::from_millis(1));
        assert_eq!(test.state(), State::Open, "before {open:?}");
        test.pass(Duration::from_millis(1));
        test.now -= open;
    }
    assert_eq!(open, OPEN_MAX);
    // Once it was closed it begins with the shortest time.
    test.pass(open);
    test.calls(PROBES, QUICK);
    test.calls(CALLS_MIN as u32, Outcome::Failed);
    test.pass(OPEN_MIN);
    assert_eq!(test.state(), State::HalfOpen);
}

#[test]
fn calls_that_fail_in_a_row_open_it_where_that_is_asked_for() {
    let options = Options { failed_row: 3, ..Options::default() };
    let mut test = Test { breaker: Breaker::new(options), ..Test::new() };
    test.calls(200, QUICK);
    for _ in 0..5 {
        test.calls(2, Outcome::Failed);
        test.call(Outcome::Worked);
    }
    assert_eq!(test.state(), State::Closed);
    test.calls(3, Outcome::Failed);
    assert_eq!(test.state(), State::Open);
    let seen = test.breaker.seen(test.now);
    assert_eq!(seen.reason.as_deref(), Some("the last 3 calls failed"));
    // The count begins anew with each call that tries it.
    test.pass(OPEN_MIN);
    test.calls(PROBES, QUICK);
    test.calls(2, Outcome::Failed);
    assert_eq!(test.state(), State::Closed);
    let mut client = Test::new();
    client.calls(200, QUICK);
    client.calls(100, Outcome::Failed);
    assert_eq!(client.state(), State::Closed);
}

#[test]
fn work_that_takes_its_time_is_a_call_and_never_slow() {
    let mut test = Test::new();
    test.calls(CALLS_MIN as u32, Outcome::Worked);
    test.calls(CALLS_MIN as u32 - 1, Outcome::Failed);
    assert_eq!(test.state(), State::Closed, "19 of 39");
    let seen = test.breaker.seen(test.now);
    assert_eq!((seen.calls, seen.slow_request_count), (39, 0));
    // And it says nothing about what is usual.
    let mut test = Test::new();
    test.call(Outcome::Worked);
    test.call(QUICK);
    test.calls(CALLS_MIN as u32 * 4, SLOW);
    assert_eq!(test.state(), State::Open);
}

#[test]
fn a_peer_that_is_heard_after_it_was_opened_may_be_tried_at_once() {
    let mut test = Test::new();
    let before = test.now;
    test.pass(Duration::from_millis(1));
    test.calls(CALLS_MIN as u32, Outcome::Failed);
    let opened = test.now;
    test.pass(Duration::from_secs(1));
    for early in [before, opened] {
        test.breaker.heard(early);
        assert_eq!(test.state(), State::Open, "it was heard before");
    }
    test.breaker.heard(test.now);
    assert_eq!(test.state(), State::HalfOpen);
    // In vain: it has to be heard again.
    test.call(Outcome::Failed);
    test.breaker.heard(test.now);
    assert_eq!(test.state(), State::Open);
    test.pass(Duration::from_secs(1));
    test.breaker.heard(test.now);
    test.calls(PROBES, QUICK);
    assert_eq!(test.state(), State::Closed);
    test.breaker.heard(test.now + OPEN_MAX);
    assert_eq!(test.state(), State::Closed);
}

#[test]
fn what_is_forced_ends_by_itself_and_leaves_what_was() {
    let minute = Duration::from_secs(60);
    let mut test = Test::new();
    test.breaker.force(test.now, true, minute, "by order of ann".into());
    assert!(!test.breaker.admits(test.now));
    test.breaker.heard(test.now + Duration::from_secs(1));
    let seen = test.breaker.seen(test.now + Duration::from_secs(20));
    assert_eq!((seen.is_open, seen.opened_total), (true, 0));
    assert_eq!(seen.forced_for, Some(Duration::from_secs(40)));
    assert_eq!(seen.reason.as_deref(), Some("by order of ann"));
    let shown = seen.at(1_000_000);
    assert_eq!((shown.state, shown.forced_until), (BreakerState::Open, Some(1_040_000)));
    test.pass(minute);
    assert_eq!((test.state(), test.breaker.seen(test.now).forced_for), (State::Closed, None));

    // Closed by order: calls are made and counted, and open nothing.
    test.breaker.force(test.now, false, minute, "by order of ann".into());
    test.calls(CALLS_MIN as u32 * 2, Outcome::Failed);
    assert_eq!((test.state(), test.breaker.seen(test.now).opened_total), (State::Closed, 0));
    test.pass(minute);
    assert_eq!(test.state(), State::Closed);

    // One that was open is half-open afterwards.
    let mut test = Test::opened();
    test.breaker.force(test.now, false, minute, "by order of ann".into());
    assert!(test.breaker.admits(test.now));
    test.call(QUICK);
    test.pass(minute);
    assert_eq!(test.state(), State::HalfOpen);
    assert_eq!(test.breaker.seen(test.now).at(9_000).last_failure_time, Some(0));
}
