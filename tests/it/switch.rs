//! From `sharded` to `full` and back, under load: nothing is lost, nobody waits for long, every primary
//! answers, one may die, and what the way back needed is gone afterwards.

use crate::durability::{Ledger, Load, verify};
use crate::harness::{Cluster, Shape, get, info, one, wait_until, within};
use crate::switch_kills::fill;
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::{Code, NodeName};
use ppdb::wire::client::Strategy;
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn at(node: &str, level: Level) -> CallOptions {
    let node = NodeName::new(node).expect("a name");
    CallOptions { level: Some(level), node: Some(node), ..within(MINUTE) }
}

/// Each of these nodes answers for everything from its own copies.
async fn verify_at(client: &Client, ledger: &Ledger, nodes: &[&str]) {
    for node in nodes {
        verify(client, ledger, &at(node, Level::Session), node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_full_and_back_under_load() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let load = Load::start(&client, "switch");
    load.until(300).await;
    let view = cluster.switch(&client, Strategy::Full, MINUTE).await;
    assert_eq!(view.strategy, Strategy::Full);
    load.until(300).await;
    let mut ledger = load.end().await;
    assert!(ledger.failed.is_empty(), "{} writes failed during the switch", ledger.failed.len());
    client.refresh().await.expect("a map");
    verify_at(&client, &ledger, &["n1", "n2", "n3", "r1"]).await;

    // One primary dies: its shards get other leaders, and writes go on everywhere.
    let load = Load::start(&client, "one-dead");
    load.until(100).await;
    cluster.node("n2").kill();
    load.until(1_000).await;
    cluster.node("n2").start();
    cluster.wait_ready().await;
    load.until(100).await;
    ledger.add(load.end().await);
    verify(&client, &ledger, &within(MINUTE), "after one died").await;

    let load = Load::start(&client, "revert");
    load.until(100).await;
    let reason = "the sale is over".to_owned();
    cluster.order(&client, StrategyOrder::Revert { reason }).await.expect("the way back is open");
    let view = cluster.wait_phase(&client, &[Phase::Reverted], MINUTE).await;
    assert_eq!(view.strategy, Strategy::Sharded);
    load.until(200).await;
    let part = load.end().await;
    assert!(part.failed.is_empty(), "{} writes failed on the way back", part.failed.len());
    ledger.add(part);
    verify(&client, &ledger, &within(MINUTE), "after the way back").await;
    verify_at(&client, &ledger, &["r1"]).await;
    cluster.assert_copies_equal(&client).await;
    wait_tidy(&cluster, &client).await;
}

/// Between `prepare` and `commit` nothing changes for clients, and `abort` leaves nothing behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_can_be_aborted_and_prepared_again() {
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let load = Load::start(&client, "prepare");
    load.until(100).await;
    for _ in 0..2 {
        let prepare = StrategyOrder::prepare(Strategy::Full);
        cluster.order(&client, prepare.clone()).await.expect("it begins");
        let second = cluster.order(&client, prepare).await.expect_err("one at a time");
        assert_eq!(second.code, Code::OperationConflict, "{second}");
        let view = cluster.wait_phase(&client, &[Phase::Prepared], MINUTE).await;
        assert_eq!(view.strategy, Strategy::Sharded);
        // The copies that are held warm answer nobody yet.
        let owner = cluster.owner(&client, b"x").await;
        let other = ["n1", "n2"].into_iter().find(|n| *n != owner.as_str()).expect("another");
        let local = CallOptions {
            timeout: Duration::from_secs(2),
            ..at(other, Level::Local { max_staleness_ms: None })
        };
        assert!(one(&client, get("x"), &local).await.is_err(), "{other} answered for {owner}");
        let abort = StrategyOrder::Abort { reason: "not today".into() };
        cluster.order(&client, abort).await.expect("it can be aborted");
        let view = cluster.wait_phase(&client, &[Phase::Aborted], MINUTE).await;
        let operation = view.operation.expect("an operation");
        assert_eq!(operation.reason.as_deref(), Some("not today"));
        wait_tidy(&cluster, &client).await;
    }
    let late = StrategyOrder::Revert { reason: String::new() };
    let late = cluster.order(&client, late).await.expect_err("there is nothing to revert");
    assert_eq!(late.code, Code::OperationConflict, "{late}");
    let ledger = load.end().await;
    assert!(ledger.failed.is_empty());
    verify(&client, &ledger, &within(MINUTE), "after two aborts").await;
}

/// The way back takes seconds in both directions, however much there is: nothing is copied for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "8 GiB of disk and some minutes: run it with `cargo test --test it -- --ignored a_gibibyte_is_reverted`"]
async fn a_gibibyte_is_reverted_in_seconds() {
    const BACK_WITHIN: Duration = Duration::from_secs(5);
    let minutes = MINUTE * 10;
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    fill(&client, 1 << 30, 256 << 10).await;
    for (to, origin) in [(Strategy::Full, Strategy::Sharded), (Strategy::Sharded, Strategy::Full)] {
        if origin == Strategy::Full {
            cluster.switch(&client, Strategy::Full, minutes).await;
            cluster.order(&client, StrategyOrder::Finalize).await.expect("it can be finalized");
            cluster.wait_phase(&client, &[Phase::Finalized], minutes).await;
        }
        cluster.switch(&client, to, minutes).await;
        let load = Load::patient(&client, &format!("back from {to:?}"), Duration::from_secs(30));
        load.until(500).await;
        let began = Instant::now();
        let reason = "measured".to_owned();
        cluster.order(&client, StrategyOrder::Revert { reason }).await.expect("it is open");
        let view = cluster.wait_phase(&client, &[Phase::Reverted], MINUTE).await;
        let took = began.elapsed();
        println!("back from {to:?} with 1 GiB: {took:?}");
        assert_eq!(view.strategy, origin);
        assert!(took < BACK_WITHIN, "back from {to:?} took {took:?}");
        load.until(500).await;
        let ledger = load.end().await;
        assert!(ledger.failed.is_empty(), "{} requests failed", ledger.failed.len());
        verify(&client, &ledger, &within(MINUTE), "after the way back").await;
    }
    cluster.assert_copies_equal(&client).await;
}

/// Waits until every node holds what `sharded` gives it, in memory and on the disk, and nothing more.
pub async fn wait_tidy(cluster: &Cluster, client: &Client) {
    let map = client.refresh().await.expect("a map");
    for node in &cluster.nodes {
        let held = map.shards.iter().filter(|shard| shard.copies.contains(&node.name)).count();
        let count = async || {
            let folders = std::fs::read_dir(node.data_dir().join("copies")).expect("a folder");
            let info = info(client, &node.name).await.map(|info| info.copies.len()).unwrap_or(0);
            (folders.count(), info)
        };
        wait_until("tidy node", MINUTE, count, |found| *found == (held, held)).await;
    }
}
