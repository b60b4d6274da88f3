//! What counts against a peer and what does not, by values.

use super::*;
use crate::cluster::core::tests::record;
use crate::cluster::{ClusterState, MetaCommand};
use crate::wire::breaker::BreakerState;
use bytes::Bytes;
use tokio::sync::watch;

const N2: NodeId = NodeId(2);
const MS: Duration = Duration::from_millis(1);
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);

struct Test {
    breakers: PeerBreakers,
    heard: Heard,
}

impl Test {
    /// Of node 1 of three.
    fn new() -> Self {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 0, 3)));
        let (view, heard) = (StateView::default(), Heard::default());
        view.set_state(watch::channel(Arc::new(state)).1);
        let me = NodeName::new("n1").unwrap();
        Self { breakers: PeerBreakers::new(me, view, heard.clone()), heard }
    }

    /// A call that was begun so long ago and got as far as is said.
    fn begun(&self, what: Asked, ago: Duration, is_sent: bool) -> Begun {
        let begun = self.breakers.begin(N2, what, REPORT_TIMEOUT, Instant::now() - ago).unwrap();
        if is_sent {
            begun.sent();
        }
        begun
    }

    fn seen(&self, class: PeerClass) -> PeerBreaker {
        let mut all = self.breakers.all(Instant::now()).into_iter();
        all.find(|b| b.peer.as_str() == "n2" && b.class == class).unwrap()
    }

    fn state(&self) -> BreakerState {
        self.seen(PeerClass::Control).seen.state
    }
}

fn unreachable() -> Result<NodeAnswer> {
    Err(Error::new(Code::Unreachable, "nobody is there"))
}

fn refused(code: Code) -> Result<NodeAnswer> {
    Ok(NodeAnswer::Refused(Error::new(code, "for a reason")))
}

#[test]
fn what_a_peer_refuses_for_a_reason_never_counts() {
    let test = Test::new();
    for code in Code::ALL.iter().filter(|code| !is_fault(**code)) {
        for _ in 0..20 {
            test.begun(Asked::Work, MS, true).ended(&refused(*code));
        }
    }
    // A connection that ended under a call, and callers that went away.
    for _ in 0..20 {
        let lost = Err(Error::new(Code::Unknown, "the node is stopping"));
        test.begun(Asked::Question, MS, true).ended(&lost);
        drop(test.begun(Asked::Question, 700 * MS, true));
    }
    let seen = test.seen(PeerClass::Control).seen;
    assert_eq!((seen.calls, seen.last_failure_time), (0, None));
    for _ in 0..5 {
        test.begun(Asked::Work, MS, true).ended(&refused(Code::Internal));
    }
    assert_eq!(test.state(), BreakerState::Open);
}

#[test]
fn a_question_that_is_not_answered_counts_and_work_that_takes_long_does_not() {
    let test = Test::new();
    for _ in 0..20 {
        // A digest, at which the peer may still be.
        drop(test.begun(Asked::Work, REPORT_TIMEOUT, true));
        test.begun(Asked::Work, 600 * MS, true).ended(&Ok(NodeAnswer::Joined));
    }
    let seen = test.seen(PeerClass::Control).seen;
    assert_eq!((seen.calls, seen.error_count, seen.slow_request_count), (20, 0, 0));

    let test = Test::new();
    (0..5).for_each(|_| drop(test.begun(Asked::Question, REPORT_TIMEOUT, true)));
    assert_eq!(test.state(), BreakerState::Open);
    let test = Test::new();
    (0..5).for_each(|_| drop(test.begun(Asked::Work, REPORT_TIMEOUT, false)));
    assert_eq!(test.state(), BreakerState::Open, "it was not even reached");
}

#[test]
fn slow_answers_to_questions_open_it() {
    let test = Test::new();
    let answer = |ago| test.begun(Asked::Question, ago, true).ended(&Ok(NodeAnswer::Joined));
    answer(2 * MS);
    (0..3).for_each(|_| answer(510 * MS));
    assert_eq!(test.state(), BreakerState::Closed);
    answer(510 * MS);
    let seen = test.seen(PeerClass::Control).seen;
    assert_eq!((seen.is_open, seen.slow_request_count, seen.opened_total), (true, 4, 1));
    assert_eq!(seen.error_count, 0);
}

#[test]
fn an_open_one_refuses_at_once_until_the_peer_is_heard() {
    let test = Test::new();
    (0..5).for_each(|_| test.begun(Asked::Question, MS, false).ended(&unreachable()));
    let begin = |what| test.breakers.begin(N2, what, REPORT_TIMEOUT, Instant::now());
    let refused = begin(Asked::Question).err().unwrap();
    assert_eq!((refused.code, refused.retry_after_ms), (Code::Unreachable, Some(500)));
    assert!(refused.message.contains("n2 is not asked"), "{refused}");
    assert!(begin(Asked::Copy).is_ok(), "copies have a breaker of their own");
    let seen = test.seen(PeerClass::Control).seen;
    assert!(seen.last_failure_time.is_some_and(|at| clock_ms() - at < 60_000));

    test.heard.note(N2, clock_ms());
    assert_eq!(test.state(), BreakerState::HalfOpen);
    for _ in 0..3 {
        begin(Asked::Question).unwrap().ended(&Ok(NodeAnswer::Joined));
    }
    assert_eq!(test.state(), BreakerState::Closed);
}

#[test]
fn three_copies_that_cannot_begin_open_the_breaker_of_copies() {
    let test = Test::new();
    (0..3).for_each(|_| test.begun(Asked::Copy, MS, false).opened(false));
    let copy = test.seen(PeerClass::Copy).seen;
    assert_eq!((copy.is_open, test.state()), (true, BreakerState::Closed));
}

#[test]
fn an_order_is_about_a_peer_of_this_cluster_and_has_an_end() {
    let test = Test::new();
    let order = |peer: &str, for_ms, class| {
        let peer = NodeName::new(peer).unwrap();
        let order = BreakerOrder { peer, class, open: true, for_ms };
        test.breakers.force("user ann", &order, Instant::now())
    };
    for (peer, for_ms, code) in [
        ("n1", 60_000, Code::BadRequest),
        ("n9", 60_000, Code::NotFound),
        ("n2", 0, Code::BadRequest),
        ("n2", 24 * 3_600_000 + 1, Code::BadRequest),
    ] {
        assert_eq!(order(peer, for_ms, None).unwrap_err().code, code, "{peer} {for_ms}");
    }
    let forced = order("n2", 60_000, Some(PeerClass::Copy)).unwrap();
    assert_eq!(forced.len(), 1);
    assert_eq!(forced[0].seen.reason.as_deref(), Some("forced open by user ann"));
    assert_eq!(test.state(), BreakerState::Closed, "of the other class");
    assert_eq!(order("n2", 1_000, None).unwrap().len(), 2);
    assert_eq!(test.breakers.all(Instant::now()).len(), 4, "two classes of two peers");
    let later = test.breakers.all(Instant::now() + Duration::from_secs(2));
    assert!(later.iter().all(|b| !b.seen.is_open), "{later:?}");
}

#[test]
fn questions_are_told_from_work() {
    let asked = |command| {
        Asked::of(&NodeCall::Command { by: "coordinator".into(), command, deadline_ms: 800 })
    };
    assert_eq!(asked(Command::Report), Asked::Question);
    assert_eq!(asked(Command::Echo(Bytes::new())), Asked::Question);
    assert_eq!(asked(Command::Echo(Bytes::from_static(b"much"))), Asked::Work);
    let digest = Command::Digest { shard: crate::types::ShardId(1), at: None };
    assert_eq!(asked(digest), Asked::Work);
}
