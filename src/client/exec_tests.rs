//! Stories of calls over the scripted network: which node is asked, what is sent again, what is reported.

use super::*;
use crate::client::testing::{Fake, Step, get, map, name, results, set};
use crate::types::Class;
use crate::wire::client::Strategy;

fn client(strategy: Strategy, steps: impl IntoIterator<Item = Step>) -> Inner<Fake> {
    let inner = Inner::new(Fake::new(steps));
    *inner.net.map.lock() = map(1, strategy);
    inner.adopt(map(1, strategy)).unwrap();
    inner
}

/// A key of shard 0, owned by n1, and one of shard 1, owned by n2 (2 shards).
const KEY_0: &str = "b";
const KEY_1: &str = "a";

fn put() -> Vec<Op> {
    vec![set(KEY_0, "v")]
}

async fn one(inner: &Inner<Fake>, ops: Vec<Op>, options: &CallOptions) -> Result<OpAnswer> {
    let answers = inner.call(ops, options).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(inner.net.steps_left(), 0, "the whole story was told");
    assert!(inner.net.passed() <= options.timeout, "{:?}", inner.net.passed());
    answers.into_iter().next().unwrap()
}

fn options() -> CallOptions {
    CallOptions::default()
}

#[test]
fn the_keys_of_these_tests_are_where_they_are_thought_to_be() {
    use crate::types::slots::shard_of;
    assert_eq!(shard_of(KEY_0.as_bytes(), 2), ShardId(0));
    assert_eq!(shard_of(KEY_1.as_bytes(), 2), ShardId(1));
}

#[tokio::test]
async fn a_write_goes_to_the_owner_once_and_says_who_answered() {
    let inner = client(Strategy::Sharded, [Step::done("n1")]);
    let answer = one(&inner, put(), &options()).await.unwrap();
    assert_eq!((answer.result, answer.served_by), (OpResult::Done, name("n1")));
    assert!(inner.net.sent_kv()[0].dedup.is_some());
}

#[tokio::test]
async fn every_repeat_of_a_write_carries_the_same_session_and_sequence() {
    // In every order of two mishaps, with the answer in the end.
    let mishaps = [
        Step::lost("*"),
        Step::timed_out("*"),
        Step::not_sent("*"),
        Step::refused("*", Code::NotLeader, Some("n2")),
        Step::refused("*", Code::NotLeader, None),
        Step::refused("*", Code::Moved, None),
        Step::refused("*", Code::NotReady, None),
        Step::refused("*", Code::Overloaded, None),
        Step::refused("*", Code::NoSpace, None),
        Step::refused("*", Code::DeadlineExceeded, None),
        Step::refused("*", Code::Unknown, None),
    ];
    for first in &mishaps {
        for second in &mishaps {
            let steps = [first.clone(), second.clone(), Step::done("*")];
            let inner = client(Strategy::Full, steps);
            let answer = one(&inner, put(), &options()).await;
            assert!(answer.is_ok(), "{first:?}, {second:?}: {answer:?}");
            let names: Vec<_> = inner.net.sent_kv().into_iter().map(|kv| kv.dedup).collect();
            assert_eq!(names.len(), 3);
            assert!(names[0].is_some() && names.iter().all(|n| *n == names[0]), "{names:?}");
        }
    }
}

#[tokio::test]
async fn different_writes_never_share_a_sequence() {
    let mut inner = client(Strategy::Sharded, []);
    inner.net.always = Some(Step::done("*"));
    for _ in 0..20 {
        one(&inner, put(), &options()).await.unwrap();
    }
    let mut names: Vec<_> = inner.net.sent_kv().into_iter().map(|kv| kv.dedup.unwrap()).collect();
    names.sort_by_key(|n| n.sequence);
    names.dedup();
    assert_eq!(names.len(), 20);
    let opened = inner.net.count(|b| matches!(b, RequestBody::OpenSession { .. }));
    assert_eq!(opened, 1, "one session serves them all");
}

#[tokio::test]
async fn a_chain_of_hints_is_followed_and_remembered() {
    let steps = [
        Step::refused("n1", Code::NotLeader, Some("n2")),
        Step::refused("n2", Code::NotLeader, Some("n3")),
        Step::done("n3"),
        Step::done("n3"),
    ];
    let inner = client(Strategy::Full, steps);
    assert!(inner.call(put(), &options()).await[0].is_ok());
    assert_eq!(inner.net.passed(), Duration::ZERO, "hints cost no pause");
    assert!(one(&inner, put(), &options()).await.is_ok());
}

#[tokio::test]
async fn a_leader_that_was_restarted_is_asked_as_soon_as_others_name_it() {
    // n3 was down and is suspected for 3 s. It is back and leads, n1 is gone, and the connection is still the old one.
    let steps = [
        Step::timed_out("n1"),
        Step::refused("n2", Code::NotLeader, Some("n3")),
        Step::lost("n3"),
        Step::refused("r1", Code::NotLeader, Some("n3")),
        Step::done("n3"),
    ];
    let inner = client(Strategy::Full, steps);
    let n3 = inner.view().node(&name("n3")).unwrap().clone();
    (0..9).for_each(|_| n3.health.failed(inner.net.now()));
    inner.net.sleep_until(inner.net.now() + Duration::from_millis(500)).await;
    let answer = one(&inner, put(), &options()).await.unwrap();
    assert_eq!(answer.served_by, name("n3"));
    let passed = inner.net.passed();
    assert!(passed < Duration::from_millis(1_800), "{passed:?}");
}

#[tokio::test]
async fn a_leader_found_without_a_hint_is_remembered() {
    let steps = [Step::refused("n1", Code::NotLeader, None), Step::done("n2"), Step::done("n2")];
    let inner = client(Strategy::Full, steps);
    assert!(inner.call(put(), &options()).await[0].is_ok());
    assert!(one(&inner, put(), &options()).await.is_ok());
}

#[tokio::test]
async fn a_node_that_is_not_in_the_map_is_looked_for_in_a_newer_one() {
    let pinned = CallOptions { level: Some(Level::Session), node: Some(name("n4")), ..options() };
    let inner = client(Strategy::Sharded, [Step::done("n4")]);
    let mut grown = map(2, Strategy::Sharded);
    grown.nodes[2].name = name("n4");
    *inner.net.map.lock() = grown;
    assert!(one(&inner, vec![get(KEY_0)], &pinned).await.is_ok());
    assert_eq!(inner.net.count(|body| *body == RequestBody::Map), 1);
}

#[tokio::test]
async fn nodes_that_point_at_each_other_are_asked_a_bounded_number_of_times() {
    let mut inner = client(Strategy::Sharded, []);
    inner.net.always = Some(Step::refused("*", Code::NotLeader, Some("n1")));
    let error = one(&inner, put(), &options()).await.unwrap_err();
    assert_eq!(error.code, Code::NotLeader, "certainly not applied");
    let asked = inner.net.sent_kv().len();
    assert!((10..400).contains(&asked), "{asked} attempts in 5 s");
}

#[tokio::test]
async fn a_lost_answer_is_unknown_at_the_deadline_and_never_anything_else() {
    for after in [
        Step::not_sent("*"),
        Step::lost("*"),
        Step::refused("*", Code::NotLeader, None),
        Step::refused("*", Code::Overloaded, None),
        Step::refused("*", Code::NotReady, None),
    ] {
        let mut inner = client(Strategy::Sharded, [Step::lost("n1")]);
        inner.net.always = Some(after.clone());
        let error = one(&inner, put(), &options()).await.unwrap_err();
        assert_eq!((error.code, error.outcome()), (Code::Unknown, "unknown"), "{after:?}");
        assert!(inner.net.passed() > Duration::from_secs(4), "tried until the deadline");
    }
}

#[tokio::test]
async fn a_write_that_was_never_sent_fails_for_certain() {
    let mut inner = client(Strategy::Sharded, []);
    inner.net.always = Some(Step::not_sent("*"));
    let error = one(&inner, put(), &options()).await.unwrap_err();
    assert_eq!((error.code, error.outcome()), (Code::Unreachable, "fail"));
}

#[tokio::test]
async fn without_retry_a_write_is_sent_once_unnamed_and_told_as_it_is() {
    let once = CallOptions { retry: false, ..options() };
    for (step, code) in [
        (Step::lost("n1"), Code::Unknown),
        (Step::timed_out("n1"), Code::Unknown),
        (Step::not_sent("n1"), Code::Unreachable),
        (Step::refused("n1", Code::NotLeader, Some("n2")), Code::NotLeader),
        (Step::refused("n1", Code::Unknown, None), Code::Unknown),
        (Step::refused("n1", Code::Overloaded, None), Code::Overloaded),
    ] {
        let inner = client(Strategy::Sharded, [step]);
        assert_eq!(one(&inner, put(), &once).await.unwrap_err().code, code);
        assert_eq!(inner.net.sent_kv().len(), 1);
        assert_eq!(inner.net.sent_kv()[0].dedup, None);
    }
}

#[tokio::test]
async fn an_expired_session_is_replaced_if_nothing_was_sent_under_it() {
    let steps =
        [Step::done("n1"), Step::refused("n1", Code::SessionExpired, None), Step::done("n1")];
    let inner = client(Strategy::Sharded, steps);
    assert!(inner.call(put(), &options()).await[0].is_ok());
    assert!(one(&inner, put(), &options()).await.is_ok());
    let sessions: Vec<u64> =
        inner.net.sent_kv().iter().map(|kv| kv.dedup.unwrap().session.index).collect();
    assert_eq!(sessions, [1, 1, 2]);
}

#[tokio::test]
async fn a_shard_that_forgets_every_session_is_not_asked_for_ever() {
    let mut inner = client(Strategy::Sharded, []);
    inner.net.always = Some(Step::refused("n1", Code::SessionExpired, None));
    let error = one(&inner, put(), &options()).await.unwrap_err();
    assert_eq!((error.code, error.outcome()), (Code::NotReady, "fail"));
    assert_eq!(inner.net.sent_kv().len(), 9);
}

#[tokio::test]
async fn an_expired_session_after_a_lost_answer_is_reported() {
    let steps = [Step::lost("n1"), Step::refused("*", Code::SessionExpired, None)];
    let inner = client(Strategy::Sharded, steps);
    let error = one(&inner, put(), &options()).await.unwrap_err();
    assert_eq!((error.code, error.class()), (Code::SessionExpired, Class::Uncertain));
}

#[tokio::test]
async fn a_refusal_for_good_after_a_lost_answer_is_still_unknown() {
    let steps = [Step::lost("n1"), Step::refused("*", Code::Denied, None)];
    let inner = client(Strategy::Sharded, steps);
    assert_eq!(one(&inner, put(), &options()).await.unwrap_err().code, Code::Unknown);
    let inner = client(Strategy::Sharded, [Step::refused("n1", Code::Denied, None)]);
    assert_eq!(one(&inner, put(), &options()).await.unwrap_err().code, Code::Denied);
}

#[tokio::test]
async fn a_dead_leader_is_replaced_by_whoever_the_others_name() {
    let steps =
        [Step::timed_out("n1"), Step::refused("*", Code::NotLeader, Some("n3")), Step::done("n3")];
    let inner = client(Strategy::Full, steps);
    assert!(one(&inner, put(), &options()).await.is_ok());
    assert!(inner.net.passed() < Duration::from_millis(1_500), "{:?}", inner.net.passed());
}

#[tokio::test]
async fn one_silent_node_does_not_make_a_write_wait_longer_for_another() {
    let silent_twice = [Step::timed_out("n1"), Step::timed_out("*"), Step::done("*")];
    let inner = client(Strategy::Full, silent_twice.clone());
    assert!(one(&inner, put(), &options()).await.is_ok());
    assert_eq!(inner.net.passed(), Duration::from_secs(2));

    // Any node may answer a read: if the first one is slow because all are, the second gets more time.
    let inner = client(Strategy::Full, silent_twice.map(Step::anywhere));
    assert!(one(&inner, vec![get(KEY_0)], &options()).await.is_ok());
    assert_eq!(inner.net.passed(), Duration::from_secs(3));
}

#[tokio::test]
async fn moved_brings_the_new_map_and_then_the_new_owner() {
    let inner =
        client(Strategy::Sharded, [Step::refused("n1", Code::Moved, None), Step::done("n2")]);
    let mut moved = map(2, Strategy::Sharded);
    moved.shards[0].owner = name("n2");
    moved.shards[0].copies = vec![name("n2"), name("r1")];
    *inner.net.map.lock() = moved;
    assert!(one(&inner, put(), &options()).await.is_ok());
    assert_eq!(inner.view().map.epoch, 2);
}

#[tokio::test]
async fn an_older_map_and_one_of_another_shape_are_not_taken_over() {
    let inner = client(Strategy::Sharded, []);
    inner.adopt(map(3, Strategy::Full)).unwrap();
    inner.adopt(map(2, Strategy::Sharded)).unwrap();
    assert_eq!(inner.view().map.epoch, 3);
    let mut fewer = map(9, Strategy::Sharded);
    fewer.shards.pop();
    assert_eq!(inner.adopt(fewer).unwrap_err().code, Code::Internal);
    let mut unordered = map(9, Strategy::Sharded);
    unordered.shards.swap(0, 1);
    assert_eq!(inner.adopt(unordered).unwrap_err().code, Code::Internal);
    assert_eq!(inner.view().map.epoch, 3);
}

#[tokio::test]
async fn reads_go_where_their_level_allows() {
    let session = CallOptions { level: Some(Level::Session), ..options() };
    let pinned = CallOptions { node: Some(name("r1")), ..session.clone() };
    for (strategy, options, allowed) in [
        (Strategy::Sharded, options(), &["n1"][..]),
        (Strategy::Full, options(), &["n1", "n2", "n3"]),
        (Strategy::Sharded, session.clone(), &["n1", "r1"]),
        (Strategy::Full, session, &["n1", "n2", "n3", "r1"]),
        (Strategy::Full, pinned, &["r1"]),
    ] {
        let mut inner = client(strategy, []);
        inner.net.always = Some(Step::done("*"));
        for _ in 0..60 {
            one(&inner, vec![get(KEY_0)], &options).await.unwrap();
        }
        let mut asked = inner.net.asked_nodes();
        asked.sort();
        asked.dedup();
        assert_eq!(asked, allowed);
    }
}

#[tokio::test]
async fn a_read_without_a_level_goes_by_the_setting_of_the_cluster_and_a_level_wins() {
    use crate::wire::client::ReadDefault;
    let sent = async |default, options: CallOptions| {
        let mut inner = Inner::new(Fake::new([]));
        inner.net.always = Some(Step::done("*"));
        inner.adopt(Map { read_default: default, ..map(1, Strategy::Sharded) }).unwrap();
        // What this client has seen is what a session read has to have reached.
        one(&inner, vec![set(KEY_0, "1")], &options).await.unwrap();
        one(&inner, vec![get(KEY_0)], &options).await.unwrap();
        inner.net.sent_kv().pop().unwrap().level
    };
    let seen = ReadLevel::Session { incarnation: Default::default(), index: 1 };
    let local = ReadLevel::Local { max_staleness_ms: None };
    let named = |level| CallOptions { level: Some(level), ..options() };
    for (default, options, expected) in [
        (ReadDefault::Linearizable, options(), ReadLevel::Linearizable),
        (ReadDefault::Session, options(), seen),
        (ReadDefault::Local, options(), local),
        (ReadDefault::Local, named(Level::Linearizable), ReadLevel::Linearizable),
        (ReadDefault::Linearizable, named(Level::Session), seen),
    ] {
        assert_eq!(sent(default, options).await, expected);
    }
    let token = Token { shard: ShardId(0), incarnation: Default::default(), index: 7 };
    let after = CallOptions { after: Some(token), ..options() };
    let expected = ReadLevel::Session { incarnation: Default::default(), index: 7 };
    assert_eq!(sent(ReadDefault::Local, after).await, expected, "a token asks for a session");
}

#[tokio::test]
async fn an_old_map_is_asked_for_again_by_one_of_many() {
    let inner = Inner::new(Fake::new([]));
    assert!(!inner.map_is_due(), "there is none to grow old");
    inner.adopt(map(1, Strategy::Sharded)).unwrap();
    assert!(!inner.map_is_due());
    let later = inner.net.now() + Duration::from_secs(3);
    inner.net.sleep_until(later).await;
    assert!(inner.map_is_due());
    assert!(!inner.map_is_due(), "somebody asks already");
    *inner.net.map.lock() = map(2, Strategy::Full);
    inner.refresh(inner.deadline(Duration::from_secs(1))).await.unwrap();
    assert_eq!(inner.view().map.strategy, Strategy::Full);
}

#[tokio::test]
async fn a_lost_read_is_asked_again_elsewhere() {
    let local = Level::Local { max_staleness_ms: Some(100) };
    let local = CallOptions { level: Some(local), ..options() };
    for mishap in [
        Step::lost("*"),
        Step::timed_out("*"),
        Step::not_sent("*"),
        Step::refused("*", Code::TooStale, None),
        Step::refused("*", Code::NotReady, None),
    ] {
        let inner = client(Strategy::Sharded, [mishap, Step::done("*")]);
        assert!(one(&inner, vec![get(KEY_0)], &local).await.is_ok());
        let asked = inner.net.asked_nodes();
        assert_ne!(asked[0], asked[1]);
    }
}

#[tokio::test]
async fn a_pinned_read_stays_with_its_node() {
    let pinned = CallOptions {
        level: Some(Level::Local { max_staleness_ms: Some(100) }),
        node: Some(name("r1")),
        ..options()
    };
    for code in [Code::TooStale, Code::NotYet] {
        let inner = client(Strategy::Sharded, [Step::refused("r1", code, None)]);
        let error = one(&inner, vec![get(KEY_0)], &pinned).await.unwrap_err();
        assert_eq!((error.code, inner.net.passed()), (code, Duration::ZERO));
    }
    let inner = client(Strategy::Sharded, [Step::timed_out("r1")]);
    let error = one(&inner, vec![get(KEY_0)], &pinned).await.unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
    let inner = client(Strategy::Sharded, [Step::not_sent("r1"), Step::done("r1")]);
    assert!(one(&inner, vec![get(KEY_0)], &pinned).await.is_ok());
    let absent = CallOptions { node: Some(name("n9")), ..pinned };
    let inner = client(Strategy::Sharded, []);
    let error = one(&inner, vec![get(KEY_0)], &absent).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn session_reads_carry_the_highest_token_seen() {
    let session = CallOptions { level: Some(Level::Session), ..options() };
    let steps = [
        Step::reply("*", results(0, 40, &[OpResult::Done])),
        Step::reply("*", results(0, 40, &[OpResult::Nil])),
        Step::reply("*", results(0, 90, &[OpResult::Nil])),
    ];
    let inner = client(Strategy::Sharded, steps);
    assert!(inner.call(put(), &options()).await[0].is_ok());
    assert!(inner.call(vec![get(KEY_0)], &session).await[0].is_ok());
    let after = Token { shard: ShardId(0), incarnation: Default::default(), index: 90 };
    let brought = CallOptions { after: Some(after), ..session };
    assert!(one(&inner, vec![get(KEY_0)], &brought).await.is_ok());
    let level = |index| ReadLevel::Session { incarnation: Default::default(), index };
    let sent: Vec<ReadLevel> = inner.net.sent_kv().iter().skip(1).map(|kv| kv.level).collect();
    assert_eq!(sent, [level(40), level(90)]);
}

#[tokio::test]
async fn a_lost_lineage_is_reported_once_and_reads_go_on() {
    let session = CallOptions { level: Some(Level::Session), ..options() };
    let steps = [
        Step::reply("*", results(0, 40, &[OpResult::Done])),
        Step::refused("*", Code::TokenLost, None),
        Step::reply("*", results(0, 3, &[OpResult::Nil])),
    ];
    let inner = client(Strategy::Sharded, steps);
    assert!(inner.call(put(), &options()).await[0].is_ok());
    let mut promoted = map(2, Strategy::Sharded);
    promoted.shards[0].incarnation = crate::types::Incarnation(1);
    *inner.net.map.lock() = promoted;
    let error = inner.call(vec![get(KEY_0)], &session).await.remove(0).unwrap_err();
    assert_eq!(error.code, Code::TokenLost);
    assert!(one(&inner, vec![get(KEY_0)], &session).await.is_ok());
    let last = inner.net.sent_kv().pop().unwrap().level;
    let expected = ReadLevel::Session { incarnation: crate::types::Incarnation(1), index: 0 };
    assert_eq!(last, expected);
}

#[tokio::test]
async fn answers_come_back_in_the_order_of_the_operations() {
    let steps = [
        Step::reply("n1", results(0, 5, &[OpResult::Int(10), OpResult::Failed(Code::Corrupt)])),
        Step::reply("n2", results(1, 7, &[OpResult::Int(20)])),
    ];
    let inner = client(Strategy::Sharded, steps);
    let too_long = "x".repeat(crate::types::limits::KEY_BYTES_MAX + 1);
    let ops = vec![get(KEY_0), get(&too_long), get(KEY_1), get(KEY_0)];
    let answers = inner.call(ops, &options()).await;
    assert_eq!(answers[0].as_ref().unwrap().result, OpResult::Int(10));
    assert_eq!(answers[1].as_ref().unwrap_err().code, Code::KeyTooLong);
    let second = answers[2].as_ref().unwrap();
    assert_eq!((&second.result, second.token.index), (&OpResult::Int(20), 7));
    assert_eq!(answers[3].as_ref().unwrap_err().code, Code::Corrupt);
}

#[tokio::test]
async fn an_atomic_batch_over_shards_or_with_a_bad_part_is_refused_before_anything_is_sent() {
    let atomic = CallOptions { atomic: true, ..options() };
    let inner = client(Strategy::Sharded, []);
    let answers = inner.call(vec![set(KEY_0, "v"), set(KEY_1, "v")], &atomic).await;
    assert!(answers.iter().all(|a| a.as_ref().unwrap_err().code == Code::CrossShard));
    let answers = inner.call(vec![set(KEY_0, "v"), get("")], &atomic).await;
    assert!(answers.iter().all(|a| a.as_ref().unwrap_err().code == Code::KeyTooLong));
    assert!(inner.net.sent().is_empty());
}

#[tokio::test]
async fn reads_whose_values_do_not_fit_a_frame_are_asked_for_in_halves() {
    let steps = [
        Step::refused("n1", Code::BatchTooLarge, None),
        Step::reply("n1", results(0, 1, &[OpResult::Int(0)])),
        Step::reply("n1", results(0, 1, &[OpResult::Int(1), OpResult::Int(2)])),
    ];
    let inner = client(Strategy::Sharded, steps);
    let answers = inner.call(vec![get(KEY_0); 3], &options()).await;
    let got: Vec<_> = answers.into_iter().map(|a| a.unwrap().result).collect();
    assert_eq!(got, [OpResult::Int(0), OpResult::Int(1), OpResult::Int(2)]);

    let inner = client(Strategy::Sharded, [Step::refused("n1", Code::BatchTooLarge, None)]);
    let answers = inner.call(vec![set(KEY_0, "v"); 2], &options()).await;
    assert!(answers.iter().all(|a| a.as_ref().unwrap_err().code == Code::BatchTooLarge));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_leaves_a_write_unknown() {
    for body in [ReplyBody::Map(map(1, Strategy::Sharded)), results(0, 1, &[])] {
        let inner = client(Strategy::Sharded, [Step::reply("n1", body.clone())]);
        assert_eq!(one(&inner, put(), &options()).await.unwrap_err().code, Code::Unknown);
        let inner = client(Strategy::Sharded, [Step::reply("n1", body)]);
        let error = one(&inner, vec![get(KEY_0)], &options()).await.unwrap_err();
        assert_eq!(error.code, Code::Internal);
    }
}

#[tokio::test]
async fn a_closed_client_refuses_for_certain() {
    let inner = client(Strategy::Sharded, []);
    inner.close();
    let error = one(&inner, vec![get(KEY_0)], &options()).await.unwrap_err();
    assert_eq!(error.code, Code::Unreachable);
}

#[tokio::test]
async fn without_a_map_it_is_asked_for_and_a_cluster_not_formed_is_said_at_once() {
    let inner = Inner::new(Fake::new([Step::done("n1")]));
    assert!(one(&inner, vec![get(KEY_0)], &options()).await.is_ok());
    let inner = Inner::new(Fake::new([]));
    *inner.net.map.lock() = Map::default();
    let error = one(&inner, vec![get(KEY_0)], &options()).await.unwrap_err();
    assert_eq!(error.code, Code::NotFormed);
}
