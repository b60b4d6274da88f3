//! Every failure in every state of a request.

use super::*;
use crate::types::NodeName;

fn start() -> Instant {
    Instant::now()
}

fn core(kind: Kind, retry: bool, now: Instant) -> Core {
    Core::new(kind, retry, now + Duration::from_secs(5))
}

fn refused(code: Code) -> Failure {
    Failure::Refused(Error::new(code, "told so"))
}

fn failures() -> Vec<Failure> {
    let mut all: Vec<Failure> = Code::ALL.iter().map(|code| refused(*code)).collect();
    all.push(Failure::Lost("cut".into()));
    all.push(Failure::TimedOut);
    all.push(Failure::NotSent(Error::new(Code::Unreachable, "nobody there")));
    all.push(Failure::NotSent(Error::new(Code::Overloaded, "too many in flight")));
    all.push(Failure::NotSent(Error::new(Code::BadCertificate, "another CA")));
    all
}

/// Failures after which the node may have applied the request.
fn may_have_applied(failure: &Failure) -> bool {
    match failure {
        Failure::Lost(_) | Failure::TimedOut => true,
        Failure::Refused(error) => error.code == Code::Unknown,
        Failure::NotSent(_) => false,
    }
}

#[test]
fn a_write_that_may_have_been_applied_is_never_reported_as_failed_nor_renumbered() {
    for first in failures() {
        for second in failures() {
            for third in failures() {
                let now = start();
                let mut core = core(Kind::Write, true, now);
                let mut uncertain = false;
                for failure in [&first, &second, &third] {
                    uncertain |= may_have_applied(failure);
                    let next = core.on(failure.clone(), now, 0.5);
                    let story = format!("{first:?}, {second:?}, {third:?} -> {next:?}");
                    match next {
                        Next::Again(_) => continue,
                        Next::Reopen => assert!(!uncertain, "{story}"),
                        Next::Report(error) if uncertain => {
                            assert_eq!(error.class(), Class::Uncertain, "{story}")
                        }
                        // Certainly nothing happened; only the session's own codes keep their class.
                        Next::Report(error) => {
                            assert_ne!(error.class(), Class::Uncertain, "{story}")
                        }
                    }
                    break;
                }
            }
        }
    }
}

#[test]
fn at_the_deadline_a_write_is_unknown_exactly_if_it_may_have_been_applied() {
    for failure in failures() {
        let now = start();
        let mut core = core(Kind::Write, true, now);
        if !matches!(core.on(failure.clone(), now, 0.5), Next::Again(_)) {
            continue;
        }
        let error = core.expire();
        let uncertain = error.class() == Class::Uncertain;
        assert_eq!(uncertain, may_have_applied(&failure), "{failure:?} -> {error}");
    }
}

#[test]
fn without_retry_the_first_failure_is_the_answer() {
    for kind in [Kind::Read, Kind::PinnedRead, Kind::Write] {
        for failure in failures() {
            let now = start();
            let next = core(kind, false, now).on(failure.clone(), now, 0.5);
            let Next::Report(error) = next else { panic!("{kind:?} {failure:?}: {next:?}") };
            if kind == Kind::Write && may_have_applied(&failure) {
                assert_eq!(error.code, Code::Unknown);
            }
            if let Failure::NotSent(told) = failure {
                assert_eq!(error, told);
            }
        }
    }
}

#[test]
fn reads_are_never_uncertain_because_of_a_lost_answer() {
    for retry in [true, false] {
        let now = start();
        let mut core = core(Kind::Read, retry, now);
        let _ = core.on(Failure::Lost("cut".into()), now, 0.5);
        assert_eq!(core.expire().class(), Class::Retry);
    }
}

#[test]
fn a_session_that_expired_is_replaced_only_if_nothing_was_sent_under_it() {
    let now = start();
    for code in [Code::SessionExpired, Code::SequenceTooOld] {
        assert_eq!(core(Kind::Write, true, now).on(refused(code), now, 0.5), Next::Reopen);

        // Refusals leave no doubt, so they do not stand in the way.
        let mut refused_before = core(Kind::Write, true, now);
        let _ = refused_before.on(refused(Code::NotLeader), now, 0.5);
        assert_eq!(refused_before.on(refused(code), now, 0.5), Next::Reopen);

        let mut lost_before = core(Kind::Write, true, now);
        let _ = lost_before.on(Failure::Lost("cut".into()), now, 0.5);
        let _ = lost_before.on(refused(Code::NotLeader), now, 0.5);
        let Next::Report(error) = lost_before.on(refused(code), now, 0.5) else { panic!() };
        assert_eq!(error.code, code);
    }
}

#[test]
fn hints_are_followed_at_once_but_not_for_ever() {
    let now = start();
    let mut core = core(Kind::Write, true, now);
    let hint = NodeName::new("n2").unwrap();
    let told = Failure::Refused(Error::new(Code::NotLeader, "").hint(Some(hint.clone())));
    let mut at_once = 0;
    loop {
        let Next::Again(again) = core.on(told.clone(), now, 0.5) else { panic!() };
        assert_eq!(again.to.as_ref(), Some(&hint));
        if !again.wait.is_zero() {
            assert!(again.refresh, "after a circle the map is asked for");
            break;
        }
        at_once += 1;
        assert!(at_once <= HOPS_MAX);
    }
    assert_eq!(at_once, HOPS_MAX);
}

#[test]
fn moved_asks_for_the_map() {
    let now = start();
    let next = core(Kind::Read, true, now).on(refused(Code::Moved), now, 0.5);
    assert_eq!(next, Next::Again(Again { refresh: true, ..Again::default() }));
}

#[test]
fn a_pinned_read_that_is_too_stale_is_reported_and_not_taken_elsewhere() {
    let now = start();
    for code in [Code::TooStale, Code::NotYet] {
        let next = core(Kind::PinnedRead, true, now).on(refused(code), now, 0.5);
        assert!(matches!(next, Next::Report(error) if error.code == code));
        let next = core(Kind::Read, true, now).on(refused(code), now, 0.5);
        assert!(matches!(next, Next::Again(again) if again.wait.is_zero()));
    }
}

#[test]
fn the_pause_a_node_asks_for_is_kept_and_ends_the_request_if_it_is_too_long() {
    let now = start();
    let busy = |ms| Failure::Refused(Error::new(Code::Overloaded, "full").retry_after(ms));
    let Next::Again(again) = core(Kind::Write, true, now).on(busy(300), now, 0.0) else { panic!() };
    assert!(again.wait >= Duration::from_millis(300));
    let next = core(Kind::Write, true, now).on(busy(5_000), now, 0.0);
    assert!(matches!(next, Next::Report(error) if error.code == Code::Overloaded));
}

#[test]
fn pauses_grow_are_bounded_and_leave_time_for_a_last_attempt() {
    assert_eq!(back_off(0, 1.0), BACKOFF_MIN);
    assert_eq!(back_off(1, 1.0), BACKOFF_MIN * 2);
    assert_eq!(back_off(u32::MAX, 1.0), BACKOFF_MAX);
    assert_eq!(back_off(u32::MAX, 0.0), BACKOFF_MAX / 2);

    let mut now = start();
    let deadline = now + Duration::from_secs(1);
    let mut core = Core::new(Kind::Read, true, deadline);
    let error = loop {
        match core.on(refused(Code::Overloaded), now, 1.0) {
            Next::Again(again) => {
                assert!(!again.wait.is_zero() && again.wait <= BACKOFF_MAX);
                now += again.wait;
            }
            Next::Report(error) => break error,
            Next::Reopen => panic!(),
        }
    };
    assert_eq!(error.code, Code::Overloaded);
    assert!(now < deadline && deadline - now < Duration::from_millis(5));
}

#[test]
fn attempts_give_up_early_only_where_another_attempt_may_follow() {
    let now = start();
    let deadline = now + Duration::from_secs(30);
    let mut write = Core::new(Kind::Write, true, deadline);
    assert_eq!(write.attempt(None, now), now + ATTEMPT_MIN);
    let _ = write.on(Failure::TimedOut, now, 0.5);
    assert_eq!(write.attempt(None, now), now + ATTEMPT_MIN * 2);
    assert_eq!(write.attempt(None, deadline), deadline);
    assert_eq!(Core::new(Kind::PinnedRead, true, deadline).attempt(None, now), deadline);
    assert_eq!(Core::new(Kind::Write, false, deadline).attempt(None, now), deadline);
}

#[test]
fn patience_with_the_only_node_that_can_answer_grows_with_its_own_silence() {
    let now = start();
    let [first, second] = ["n1", "n2"].map(|name| NodeName::new(name).unwrap());
    let silences = [
        Failure::TimedOut,
        Failure::Lost("cut".into()),
        refused(Code::Unknown),
        refused(Code::DeadlineExceeded),
    ];
    for silence in silences {
        let mut core = Core::new(Kind::Write, true, now + Duration::from_secs(30));
        assert_eq!(core.attempt(Some(&first), now), now + ATTEMPT_MIN);
        let _ = core.on(silence.clone(), now, 0.5);
        assert_eq!(core.attempt(Some(&second), now), now + ATTEMPT_MIN, "{silence:?}");
        let _ = core.on(refused(Code::NotLeader), now, 0.5);
        assert_eq!(core.attempt(Some(&second), now), now + ATTEMPT_MIN, "it answered");
        assert_eq!(core.attempt(Some(&first), now), now + ATTEMPT_MIN * 2, "{silence:?}");
    }
}
