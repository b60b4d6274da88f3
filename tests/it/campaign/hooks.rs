//! Surroundings that are not what they should be: a clock that is an hour ahead, an fdatasync that is slow or
//! fails, a disk that is full.

use crate::durability::{Load, verify};
use crate::harness::{Cluster, Shape, get, one, set, wait_until, within};
use ppdb::client::Client;
use ppdb::types::{Code, Expiry, Op, OpResult};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::operation::{Phase, StrategyOrder};
use ppdb::wire::terms::Terms;
use std::time::{Duration, Instant};

const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// How long a node may take to see what was planted.
const SEEN_WITHIN: Duration = Duration::from_millis(200);
const HOUR_MS: u64 = 3_600_000;
const SLOW_MS: u64 = 300;

/// A key of a shard that this node owns.
async fn key_of(client: &Client, node: &str) -> String {
    let map = client.refresh().await.expect("a map");
    let owns = |key: &String| {
        let shard = ppdb::types::slots::shard_of(key.as_bytes(), map.shards.len() as u16);
        map.shards[shard.0 as usize].owner.as_str() == node
    };
    (0..).map(|i| format!("hook:{i}")).find(owns).expect("a key")
}

async fn coordinator(client: &Client) -> String {
    let ask = async || match client.command(Command::Status, None, Duration::from_secs(2)).await {
        Ok((Answer::Status(status), _)) => status.metadata_leader,
        _ => None,
    };
    let leader = wait_until("coordinator", HALF_A_MINUTE, ask, Option::is_some).await;
    leader.expect("just checked").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_starts_no_switch_and_expires_nothing() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let first = coordinator(&client).await;
    let key = key_of(&client, &first).await;
    let lasting = Op::Set {
        key: key.clone().into(),
        value: "ten minutes".into(),
        condition: Default::default(),
        expiry: Expiry::AfterMs(600_000),
    };
    one(&client, lasting, &within(HALF_A_MINUTE)).await.expect("a write");
    cluster.node(&first).plant("clock.offset", &HOUR_MS.to_string());
    tokio::time::sleep(SEEN_WITHIN).await;
    let prepare = StrategyOrder::Prepare { to: Strategy::Full, terms: Terms::default() };
    let ordered = client.command(Command::Strategy(prepare), None, HALF_A_MINUTE).await;
    let refused = ordered.expect_err("no switch starts while a clock is off");
    assert_eq!(refused.code, Code::PrecheckFailed, "{refused}");
    assert!(refused.message.contains("clocks"), "{refused}");
    let read = one(&client, get(key.as_str()), &within(HALF_A_MINUTE)).await.expect("a read");
    assert_eq!(read.result, OpResult::Value("ten minutes".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute or two: run it with `cargo test --test it -- --ignored bad_disks_lose_nothing`"]
async fn bad_disks_lose_nothing() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let load = Load::paced(&client, "hooks", HALF_A_MINUTE, (4, Duration::from_millis(4)));
    let first = coordinator(&client).await;

    // A slow disk delays its own shards.
    cluster.node("n1").plant("fsync.slow", &SLOW_MS.to_string());
    tokio::time::sleep(SEEN_WITHIN).await;
    let key = key_of(&client, "n1").await;
    let began = Instant::now();
    one(&client, set(key, "slow"), &within(HALF_A_MINUTE)).await.expect("a write");
    assert!(began.elapsed() >= Duration::from_millis(SLOW_MS), "{:?}", began.elapsed());
    cluster.node("n1").mend("fsync.slow");

    // A full disk holds up the copy, not the cluster; once there is room it goes on.
    let target = ["n1", "n2"].into_iter().find(|name| *name != first).expect("another");
    cluster.node(target).plant("disk.full", "");
    tokio::time::sleep(SEEN_WITHIN).await;
    let switch = StrategyOrder::Switch { to: Strategy::Full, terms: Terms::default() };
    cluster.order(&client, switch).await.expect("it begins");
    load.until(100).await;
    let early =
        cluster.wait_phase(&client, &[Phase::Copying, Phase::CaughtUp], HALF_A_MINUTE).await;
    assert_eq!(early.strategy, Strategy::Sharded);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = cluster.wait_phase(&client, &[Phase::Copying, Phase::CaughtUp], HALF_A_MINUTE).await;
    assert_eq!(held.strategy, Strategy::Sharded, "no copy is verified that cannot be flushed");
    cluster.node(target).mend("disk.full");
    cluster.wait_phase(&client, &[Phase::Soaking], Duration::from_secs(90)).await;

    // An fdatasync that fails ends the node at once, and nothing that was acknowledged depended on it.
    cluster.node(target).plant("fsync.eio", "");
    let node = cluster.node(target);
    let end = Instant::now() + Duration::from_secs(10);
    let log = loop {
        if let Some(log) = node.ended_with_log() {
            break log;
        }
        assert!(Instant::now() < end, "{target} goes on with a disk that fails");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(log.contains("fdatasync"), "{log}");
    node.mend("fsync.eio");
    node.kill();
    node.start();
    cluster.wait_ready().await;
    load.until(100).await;
    let ledger = load.end().await;
    assert!(ledger.failed.is_empty(), "{} writes failed", ledger.failed.len());
    verify(&client, &ledger, &within(HALF_A_MINUTE), "after all of it").await;
    cluster.assert_copies_equal(&client).await;
}
