//! `local` reads with a bound: while the owner stands still, the replica refuses them as soon as the bound
//! has passed, and goes on answering reads without one.

use crate::harness::{Cluster, Shape, get, one, set, wait_until, within};
use ppdb::client::{CallOptions, Level};
use ppdb::types::{Code, NodeName, OpResult};
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_refuses_what_it_cannot_prove_fresh() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let key = "stale:1";
    one(&client, set(key, "before"), &within(Duration::from_secs(10))).await.expect("a write");
    let owner = cluster.owner(&client, key.as_bytes()).await;

    let replica = NodeName::new("r1").expect("a name");
    let at_replica = |level| CallOptions {
        level: Some(level),
        node: Some(replica.clone()),
        timeout: Duration::from_secs(2),
        retry: false,
        ..CallOptions::default()
    };
    let bounded = at_replica(Level::Local { max_staleness_ms: Some(BOUND.as_millis() as u32) });
    let unbounded = at_replica(Level::Local { max_staleness_ms: None });
    let value = |answer: ppdb::types::Result<ppdb::client::OpAnswer>| {
        answer.map(|a| (a.result, a.served_by))
    };
    let before = (OpResult::Value("before".into()), replica.clone());
    let read = async |options: &CallOptions| value(one(&client, get(key), options).await);
    let is_before = |r: &Result<(OpResult, NodeName), _>| *r == Ok(before.clone());
    let bounded_read = async || read(&bounded).await;
    let _ = wait_until("bounded read", Duration::from_secs(10), bounded_read, is_before).await;

    // Reads go on all the time, so freshness is asked for all the time; each notes when it began.
    cluster.node(owner.as_str()).pause();
    let paused = Instant::now();
    let (mut answered, mut refused) = (0, 0);
    while paused.elapsed() < BOUND * 5 {
        let began = paused.elapsed();
        match one(&client, get(key), &bounded).await {
            Ok(answer) => {
                // The copy was as new as the owner was when it stopped, so its age is at least the time
                // since then; a read that began later than the bound allows cannot be answered.
                assert!(began <= BOUND, "answered {began:?} after the owner stopped: {answer:?}");
                assert!(
                    answer.age_ms.is_some_and(|age| u128::from(age) <= BOUND.as_millis()),
                    "{answer:?}"
                );
                answered += 1;
            }
            Err(error) => {
                assert_eq!(error.code, Code::TooStale, "{error}");
                let took = paused.elapsed() - began;
                assert!(took < BOUND * 2, "refused after {took:?}");
                refused += 1;
                let unbounded = read(&unbounded).await;
                assert_eq!(unbounded, Ok(before.clone()), "without a bound the replica answers");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused >= 3, "{answered} answered, {refused} refused");

    cluster.node(owner.as_str()).resume();
    let _ =
        wait_until("bounded read again", Duration::from_secs(20), bounded_read, is_before).await;
    one(&client, set(key, "after"), &within(Duration::from_secs(10))).await.expect("a write");
    let after = OpResult::Value("after".into());
    let fresh =
        |r: &Result<(OpResult, NodeName), _>| r.as_ref().is_ok_and(|(value, _)| *value == after);
    let _ = wait_until("new value", Duration::from_secs(5), bounded_read, fresh).await;
}
