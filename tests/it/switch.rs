//! From `sharded` to `full` and back, under load: nothing is lost, nobody waits for long, every primary
//! answers, one may die, and what the way back needed is gone afterwards.

use crate::durability::{Ledger, Load, verify};
use crate::harness::{Cluster, Shape, within};
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::NodeName;
use ppdb::wire::client::Strategy;
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

fn at(node: &str, level: Level) -> CallOptions {
    let node = NodeName::new(node).expect("a name");
    CallOptions { level, node: Some(node), ..within(MINUTE) }
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
}
