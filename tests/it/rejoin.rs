//! A node comes back with an empty disk: it rejoins by itself under fresh ids, what others still have is
//! filled in again, what nobody else has waits, and the old disk is not let in any more.

use crate::durability::{Load, verify};
use crate::harness::{Cluster, Shape, get, one, set, wait_until, within};
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::{Class, NodeId, NodeName, OpResult, Result, ShardId, slots};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command, Info, Status};
use ppdb::wire::plan::{Precheck, Verdict};
use std::path::PathBuf;
use std::time::Duration;

/// The old disk has to be silent for 10 s first; the rest is for the copies and a busy machine.
const REJOINED_WITHIN: Duration = Duration::from_secs(60);
const KEYS: usize = 240;
const SHARDS: u16 = 12;

fn name(name: &str) -> NodeName {
    NodeName::new(name).expect("a node name")
}

fn key(i: usize) -> String {
    format!("rejoin:{i}")
}

async fn info(client: &Client, node: &str) -> Result<Info> {
    let node = name(node);
    match client.command(Command::Info, Some(&node), Duration::from_secs(2)).await? {
        (Answer::Info(info), _) => Ok(info),
        (other, _) => panic!("another answer: {other:?}"),
    }
}

async fn status(client: &Client, node: &str) -> Result<Status> {
    let node = name(node);
    match client.command(Command::Status, Some(&node), Duration::from_secs(2)).await? {
        (Answer::Status(status), _) => Ok(status),
        (other, _) => panic!("another answer: {other:?}"),
    }
}

async fn precheck(client: &Client) -> Precheck {
    let ask = async || {
        let command = Command::Precheck { to: Strategy::Full };
        client.command(command, None, Duration::from_secs(10)).await
    };
    match wait_until("precheck", REJOINED_WITHIN, ask, |found| found.is_ok()).await {
        Ok((Answer::Precheck(found), _)) => found,
        other => panic!("another answer: {other:?}"),
    }
}

/// Writes every key whose shard is not among `but`.
async fn write(client: &Client, value: &str, but: &[ShardId]) {
    let options = within(Duration::from_secs(20));
    for i in 0..KEYS {
        if !but.contains(&slots::shard_of(key(i).as_bytes(), SHARDS)) {
            let done = one(client, set(key(i), value), &options).await;
            done.unwrap_or_else(|error| panic!("{} is not written: {error}", key(i)));
        }
    }
}

/// Shards that a node owns.
async fn owned(client: &Client, node: &str) -> Vec<ShardId> {
    let map = client.refresh().await.expect("a map");
    map.shards.iter().filter(|s| s.owner == name(node)).map(|s| s.id).collect()
}

/// Waits until a node runs as that member.
async fn joined(client: &Client, node: &str, id: u64) -> Info {
    let ask = async || info(client, node).await;
    let is = |i: &Result<Info>| i.as_ref().is_ok_and(|i| i.node_id == Some(NodeId(id)));
    wait_until("rejoined node", REJOINED_WITHIN, ask, is).await.expect("just checked")
}

/// Waits until a node answers from that many copies.
async fn ready(client: &Client, node: &str, copies: usize) -> Info {
    let ask = async || info(client, node).await;
    let is = |i: &Result<Info>| i.as_ref().is_ok_and(|i| i.ready && i.copies.len() == copies);
    wait_until("ready node", REJOINED_WITHIN, ask, is).await.expect("just checked")
}

/// Waits until some node has logged a line with all these words.
async fn logged(cluster: &Cluster, words: &[&str]) {
    let found = async || {
        let logs: Vec<String> = cluster.nodes.iter().map(|node| node.log()).collect();
        let mut lines = logs.iter().flat_map(|log| log.lines());
        lines.any(|line| words.iter().all(|word| line.contains(word)))
    };
    let what = format!("log line with {words:?}");
    wait_until(&what, REJOINED_WITHIN, found, |found| *found).await;
}

/// Kills a node and takes its data folder away; returns where it is.
fn lose_disk(cluster: &mut Cluster, node: &str) -> PathBuf {
    let node = cluster.node(node);
    node.kill();
    let kept = node.data_dir().with_extension("lost");
    std::fs::rename(node.data_dir(), &kept).expect("moved");
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_disk_is_filled_again() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    write(&client, "before", &[]).await;
    let before = info(&client, "r1").await.expect("it runs");
    lose_disk(&mut cluster, "r1");
    cluster.node("r1").start();
    write(&client, "after", &[]).await;
    joined(&client, "r1", 5).await;
    let after = ready(&client, "r1", SHARDS as usize).await;
    assert_ne!(after.disk, before.disk);
    let highest = before.copies.iter().map(|c| c.copy).max().expect("it had copies");
    assert!(after.copies.iter().all(|c| c.copy > highest), "ids are fresh: {after:?}");
    // From the moment a copy answers it has what was there: nothing is denied meanwhile.
    let local = CallOptions {
        level: Some(Level::Local { max_staleness_ms: None }),
        node: Some(name("r1")),
        ..within(Duration::from_secs(20))
    };
    for i in 0..KEYS {
        let found = one(&client, get(key(i)), &local).await.expect("readable at the replica");
        assert_eq!(found.result, OpResult::Value("after".into()), "{}", key(i));
    }
    assert_eq!(cluster.assert_copies_equal(&client).await, KEYS as u64);
    logged(&cluster, &["metadata group changed", "Remove({4})"]).await;
    // It is a member like any other.
    cluster.node("r1").kill();
    cluster.node("r1").start();
    assert_eq!(ready(&client, "r1", SHARDS as usize).await.node_id, Some(NodeId(5)));
    cluster.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_lost_its_disk_votes_again_and_what_only_it_had_waits() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    write(&client, "before", &[]).await;
    let (of_n1, of_n3) = (owned(&client, "n1").await, owned(&client, "n3").await);
    let kept = lose_disk(&mut cluster, "n3");
    cluster.node("n3").start();
    write(&client, "meanwhile", &of_n3).await;
    joined(&client, "n3", 5).await;
    logged(&cluster, &["metadata group changed", "Voters({1, 2, 5})"]).await;
    logged(&cluster, &["metadata group changed", "Remove({3})"]).await;
    // What only the lost disk had the right to change waits, and is told; the replica has it to read.
    let told = status(&client, "n1").await.expect("it runs");
    assert_eq!(told.shards_leaderless, of_n3, "{told:?}");
    assert!(told.messages.iter().any(|m| m.contains("n3 lost disk")), "{told:?}");
    let waiting =
        (0..KEYS).map(key).find(|k| of_n3.contains(&slots::shard_of(k.as_bytes(), SHARDS)));
    let waiting = waiting.expect("a key of each shard");
    let options = within(Duration::from_millis(1_500));
    let refused = one(&client, set(waiting.clone(), "x"), &options).await.expect_err("it waits");
    assert_eq!(refused.class(), Class::Retry, "{refused}");
    let local = CallOptions {
        level: Some(Level::Local { max_staleness_ms: None }),
        node: Some(name("r1")),
        ..within(Duration::from_secs(20))
    };
    let found = one(&client, get(waiting), &local).await.expect("readable at the replica");
    assert_eq!(found.result, OpResult::Value("before".into()));
    // The fresh voter counts: without n2 there is a quorum only with it, and only a quorum lets r1 serve.
    cluster.node("n2").kill();
    cluster.node("r1").kill();
    cluster.node("r1").start();
    ready(&client, "r1", SHARDS as usize).await;
    cluster.node("n2").start();
    ready(&client, "n2", 4).await;

    // The node that founded the cluster does not found it again.
    lose_disk(&mut cluster, "n1");
    cluster.node("n1").start();
    joined(&client, "n1", 6).await;
    logged(&cluster, &["metadata group changed", "Voters({2, 5, 6})"]).await;
    let both: Vec<ShardId> = of_n1.iter().chain(&of_n3).copied().collect();
    write(&client, "later", &both).await;
    ready(&client, "n1", 0).await;

    // The old disk is found again: it is known to be out, says so and serves nothing.
    let node = cluster.node("n3");
    node.kill();
    let fresh = node.data_dir().with_extension("fresh");
    std::fs::rename(node.data_dir(), &fresh).expect("moved");
    std::fs::rename(&kept, node.data_dir()).expect("moved back");
    node.start();
    logged(&cluster, &["this data folder was replaced", "member m5"]).await;
    write(&client, "latest", &both).await;
    let old = joined(&client, "n3", 3).await;
    assert!(!old.ready && old.copies.len() == of_n3.len(), "{old:?}");
    // It leads the shards that only it votes in, and its word on them counts for nothing.
    let found = precheck(&client).await;
    let leaders = found.checks.iter().find(|check| check.name == "leaders").expect("a check");
    let missing = format!("{} without a leader", both.len());
    assert_eq!((leaders.verdict, leaders.value.clone()), (Verdict::NoGo, missing), "{found:?}");
    let told = status(&client, "n2").await.expect("it runs");
    assert!(told.nodes.iter().any(|n| n.name == name("n3") && !n.up), "{told:?}");
    let node = cluster.node("n3");
    node.kill();
    std::fs::rename(node.data_dir(), &kept).expect("moved away");
    std::fs::rename(&fresh, node.data_dir()).expect("moved back");
    node.start();
    let heard = async || status(&client, "n2").await;
    let up = |s: &Result<Status>| s.as_ref().is_ok_and(|s| s.nodes.iter().all(|n| n.up));
    let _ = wait_until("all nodes up", REJOINED_WITHIN, heard, up).await;
    joined(&client, "n3", 5).await;
}

/// In `full` replication nothing waits: the copies are made again, vote again, and bear the next loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_full_replication_redundancy_comes_back_by_itself() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let load = Load::start(&client, "full");
    load.until(200).await;
    cluster.switch(&client, Strategy::Full, REJOINED_WITHIN).await;
    let before = info(&client, "n3").await.expect("it runs");
    let of_n3 = owned(&client, "n3").await;
    lose_disk(&mut cluster, "n3");
    cluster.node("n3").start();
    load.until(500).await;
    joined(&client, "n3", 5).await;
    let after = ready(&client, "n3", SHARDS as usize).await;
    let highest = before.copies.iter().map(|c| c.copy).max().expect("it had copies");
    assert!(after.copies.iter().all(|c| c.copy > highest), "ids are fresh: {after:?}");
    // Voters again, every one of them.
    let ask = async || info(&client, "n3").await;
    let votes =
        |i: &Result<Info>| i.as_ref().is_ok_and(|i| i.copies.iter().all(|c| c.state != "learner"));
    wait_until("voting copies", REJOINED_WITHIN, ask, votes).await.expect("just checked");
    assert_eq!(owned(&client, "n3").await, of_n3, "it owns what it owned");
    logged(&cluster, &["metadata group changed", "Remove({3})"]).await;
    load.until(100).await;
    // With another primary gone, every shard has its quorum only with a fresh copy.
    cluster.node("n1").kill();
    load.until(500).await;
    cluster.node("n1").start();
    cluster.wait_ready().await;
    let ledger = load.end().await;
    verify(&client, &ledger, &within(REJOINED_WITHIN), "after the loss").await;
    cluster.assert_copies_equal(&client).await;
}
