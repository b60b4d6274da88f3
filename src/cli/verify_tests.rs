//! What a comparison of copies answers: equal, different, and not known are three things.

use super::super::testing::{Twin, name};
use super::*;

async fn compared(twin: &Twin, only: Option<ShardId>) -> Answered {
    compared_within(twin, only, Duration::from_millis(300)).await
}

async fn compared_within(twin: &Twin, only: Option<ShardId>, within: Duration) -> Answered {
    let until = Instant::now() + within;
    answered(&verify(twin, only, until).await.unwrap())
}

fn json(answered: &Answered) -> &Json {
    match &answered.value {
        super::super::value::Value::Doc(doc) => &doc.json,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_copy_is_compared_with_its_leader() {
    let all = compared(&Twin::new(), None).await;
    assert!(all.yes);
    let told = json(&all);
    assert_eq!((&told["equal"], &told["copies"]), (&json!(true), &json!(6)));
    assert_eq!(told["shards"][1]["copies"][0]["node"], "n2", "the leader, by its hint");
    let one = compared(&Twin::new(), Some(ShardId(1))).await;
    assert_eq!(json(&one)["shards"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn one_different_copy_is_found_and_named() {
    let odd = Twin::with(|state| state.odd_digests.push((name("n3"), ShardId(1))));
    let answer = compared(&odd, None).await;
    assert!(!answer.yes);
    let told = json(&answer);
    assert_eq!((&told["differing"], &told["silent"]), (&json!(1), &json!(0)));
    assert_eq!(told["shards"][0]["equal"], true);
    let copies = told["shards"][1]["copies"].as_array().unwrap();
    let odd: Vec<&Json> = copies.iter().filter(|copy| copy["state"] == "differs").collect();
    assert_eq!((odd.len(), &odd[0]["node"]), (1, &json!("n3")));
}

#[tokio::test]
async fn a_copy_that_cannot_be_asked_is_not_equal() {
    let answer = compared(&Twin::with(|state| state.down = Some(name("n3"))), None).await;
    assert!(!answer.yes);
    assert_eq!((&json(&answer)["differing"], &json(&answer)["silent"]), (&json!(0), &json!(2)));
    let leaderless = compared(&Twin::with(|state| state.down = Some(name("n2"))), None).await;
    assert!(!leaderless.yes);
    assert_eq!(json(&leaderless)["silent"], 2);
}

#[tokio::test]
async fn a_shard_that_does_not_exist_is_refused() {
    let until = Instant::now() + Duration::from_secs(1);
    let error = verify(&Twin::new(), Some(ShardId(99)), until).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

#[tokio::test]
async fn a_copy_that_missed_an_entry_is_asked_at_another_one() {
    let restarted = Twin::with(|state| state.missed_digests = 2);
    let long = Duration::from_secs(20);
    let answer = compared_within(&restarted, Some(ShardId(1)), long).await;
    assert!(answer.yes, "{:?}", json(&answer));
    let for_ever = Twin::with(|state| state.missed_digests = usize::MAX);
    let answer = compared_within(&for_ever, Some(ShardId(1)), long).await;
    assert_eq!((answer.yes, &json(&answer)["silent"]), (false, &json!(2)));
}

#[tokio::test]
async fn a_digest_that_takes_long_is_waited_for() {
    let twin = Twin::with(|state| state.digests_take_long = true);
    let answer = compared_within(&twin, Some(ShardId(1)), Duration::from_secs(20)).await;
    assert!(answer.yes, "{:?}", json(&answer));
}

#[test]
fn digests_are_compared_at_one_point_of_one_lineage() {
    let digest = CopyDigest {
        node: name("n1"),
        shard: ShardId(1),
        incarnation: crate::types::Incarnation(1),
        index: 9,
        keys: 2,
        sha256: "aa".into(),
    };
    let other = CopyDigest { node: name("r1"), ..digest.clone() };
    assert!(same(&digest, &other));
    assert!(!same(&digest, &CopyDigest { sha256: "ab".into(), ..other.clone() }));
    assert!(!same(&digest, &CopyDigest { index: 8, ..other.clone() }));
    let incarnation = crate::types::Incarnation(2);
    assert!(!same(&digest, &CopyDigest { incarnation, ..other }));
}

#[tokio::test]
async fn whoever_waits_is_told_how_many_shards_are_compared() {
    let told = parking_lot::Mutex::new(Vec::new());
    let until = Instant::now() + Duration::from_secs(5);
    let tell = |done, total| told.lock().push((done, total));
    verify_telling(&Twin::new(), None, until, tell).await.unwrap();
    assert_eq!(*told.lock(), [(0, 2), (1, 2), (2, 2)]);
}
