//! What may go wrong in the middle of a switch, planted where it hurts: the owner dies between the commit
//! point and its demotion, both targets stop before they are promoted, a copy that arrived has lost a key or
//! has a byte that flipped, a leader is cut off from its majority.

use crate::durability::{Load, verify};
use crate::harness::{Cluster, Shape, get, one, set, wait_until, within};
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::{Code, NodeName, OpResult, ShardId, slots};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command, CopyLag};
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Deadline of each request of the load.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long is looked at what must not change.
const WATCHED: Duration = Duration::from_secs(3);

/// Begins a switch and holds it right after its commit point: no shard has other voters yet.
async fn commit_and_hold(cluster: &Cluster, client: &Client, to: Strategy) {
    cluster.nodes.iter().for_each(|node| node.plant("hold-voters", ""));
    cluster.order(client, StrategyOrder::switch(to)).await.expect("the switch begins");
    let view = cluster.wait_phase(client, &[Phase::Committing], MINUTE).await;
    assert_eq!(view.strategy, to, "the commit point is behind us");
}

fn release(cluster: &Cluster) {
    cluster.nodes.iter().for_each(|node| node.mend("hold-voters"));
}

/// Shards that a node owns.
async fn owned(client: &Client, node: &str) -> Vec<ShardId> {
    let map = client.refresh().await.expect("a map");
    let own = map.shards.iter().filter(|shard| shard.owner.as_str() == node);
    own.map(|shard| shard.id).collect()
}

/// What is still pending.
async fn pending(client: &Client) -> Option<Vec<ShardId>> {
    match client.command(Command::StrategyShow, None, Duration::from_secs(2)).await {
        Ok((Answer::StrategyView(view), _)) => {
            let phase = view.operation.as_ref().map(|op| op.phase);
            assert_eq!(phase, Some(Phase::Committing), "it completed without them");
            view.progress.map(|progress| progress.pending)
        }
        _ => None,
    }
}

/// How many copies of a shard vote, as its leader says.
async fn voters(client: &Client, nodes: &[&str], shard: ShardId) -> usize {
    let mut told: Vec<CopyLag> = vec![];
    for node in nodes {
        let node = NodeName::new(node).expect("a name");
        let asked = client.command(Command::ReplicaLag, Some(&node), Duration::from_secs(2)).await;
        if let Ok((Answer::ReplicaLag(lag), _)) = asked {
            told.extend(lag.into_iter().filter(|copy| copy.shard == shard));
        }
    }
    let votes = told.iter().filter(|copy| copy.state != "learner").map(|copy| &copy.node);
    votes.collect::<std::collections::BTreeSet<_>>().len()
}

/// The owner of some shards dies after the commit point of the way back, before it was their one voter. They
/// keep three voters, and are served, until it is there again: with its disk, and without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_dies_before_its_demotion_is_waited_for() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    for with_disk in [true, false] {
        let what = if with_disk { "with its disk" } else { "without its disk" };
        cluster.switch(&client, Strategy::Full, MINUTE).await;
        let load = Load::patient(&client, what, LOAD_DEADLINE);
        load.until(100).await;
        commit_and_hold(&cluster, &client, Strategy::Sharded).await;
        let waiting = owned(&client, "n2").await;
        assert_eq!(waiting.len(), 4);
        cluster.node("n2").kill();
        release(&cluster);
        // They stay as they are, and every key is written and read meanwhile. So do the shards of the others
        // that it votes in: nobody becomes the one voter behind the back of a silent one.
        let since = Instant::now();
        let mut looks = 0;
        while since.elapsed() < WATCHED {
            load.until(100).await;
            if let Some(pending) = pending(&client).await {
                let all = waiting.iter().all(|shard| pending.contains(shard));
                assert!(all, "{what}: of {waiting:?} only {pending:?} are pending");
                looks += 1;
            }
        }
        assert!(looks > 0, "{what}: nobody could say what is pending");
        for shard in &waiting {
            assert_eq!(voters(&client, &["n1", "n3", "r1"], *shard).await, 3, "{what}: {shard}");
        }
        if !with_disk {
            let data = cluster.node("n2").data_dir();
            std::fs::remove_dir_all(data).expect("the disk is gone");
        }
        cluster.node("n2").start();
        let view = cluster.wait_phase(&client, &[Phase::Soaking], MINUTE).await;
        assert_eq!(view.strategy, Strategy::Sharded);
        cluster.wait_ready().await;
        load.until(100).await;
        let ledger = load.end().await;
        assert!(ledger.failed.is_empty(), "{what}: {} writes failed", ledger.failed.len());
        verify(&client, &ledger, &within(MINUTE), what).await;
        assert_eq!(owned(&client, "n2").await, waiting, "{what}: it owns what it owned");
        cluster.assert_copies_equal(&client).await;
    }
}

/// Both targets of a shard stop after the commit point, before they are promoted: the shard stays with its one
/// voter and goes on writing, and completes when they are back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_whose_targets_stop_before_their_promotion_stays_alone_and_writable() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let load = Load::patient(&client, "targets", LOAD_DEADLINE);
    load.until(100).await;
    commit_and_hold(&cluster, &client, Strategy::Full).await;
    let ledger = load.end().await;
    let mine = owned(&client, "n1").await;
    cluster.node("n2").pause();
    cluster.node("n3").pause();
    release(&cluster);
    let keys: Vec<String> = (0..)
        .map(|i| format!("alone:{i}"))
        .filter(|key| mine.contains(&slots::shard_of(key.as_bytes(), 12)))
        .take(40)
        .collect();
    let since = Instant::now();
    while since.elapsed() < WATCHED {
        for key in &keys {
            let done = one(&client, set(key.as_str(), "x"), &within(Duration::from_secs(5))).await;
            done.unwrap_or_else(|error| panic!("{key} is not written: {error}"));
        }
    }
    for shard in &mine {
        assert_eq!(voters(&client, &["n1"], *shard).await, 1, "{shard} is not alone");
    }
    cluster.node("n2").resume();
    cluster.node("n3").resume();
    let view = cluster.wait_phase(&client, &[Phase::Soaking], MINUTE).await;
    assert_eq!(view.strategy, Strategy::Full);
    verify(&client, &ledger, &within(MINUTE), "after the targets came back").await;
    for key in &keys {
        let read = one(&client, get(key.as_str()), &within(MINUTE)).await.expect("a read");
        assert_eq!(read.result, OpResult::Value("x".into()));
    }
    cluster.assert_copies_equal(&client).await;
}

/// A copy that arrived as a snapshot and is not what the owner has never counts: the operation ends with the
/// reason, and nothing was switched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_a_lost_key_or_a_flipped_byte_is_never_promoted() {
    let shape = Shape { primaries: 2, replicas: 0, shards: 2, ..Shape::default() };
    let cluster = Cluster::start(shape).await;
    let client = cluster.client().await;
    // More than the log keeps, so that it takes a snapshot.
    for i in 0..80 {
        let value = vec![i as u8; 512 << 10];
        let op = set(format!("{{a}}:{i}"), value);
        one(&client, op, &within(MINUTE)).await.expect("a write");
    }
    let owner = cluster.owner(&client, b"{a}").await;
    let target = cluster.nodes.iter().find(|node| node.name != owner).expect("another");
    for (fault, told) in [("lose", "differs"), ("flip", "damaged")] {
        target.plant("installed-table", fault);
        let prepare = StrategyOrder::prepare(Strategy::Full);
        cluster.order(&client, prepare).await.expect("it begins");
        let ended = [Phase::Aborted, Phase::Prepared];
        let view = cluster.wait_phase(&client, &ended, MINUTE).await;
        let operation = view.operation.expect("an operation");
        assert_eq!(operation.phase, Phase::Aborted, "{fault}: {operation:?}");
        let reason = operation.reason.expect("a reason");
        assert!(reason.contains(told) && reason.contains(target.name.as_str()), "{reason}");
        assert_eq!(view.strategy, Strategy::Sharded);
        target.mend("installed-table");
        crate::switch::wait_tidy(&cluster, &client).await;
    }
    // Without the fault the same copy is made, compared, and counts.
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    let view = cluster.switch(&client, Strategy::Full, MINUTE).await;
    assert_eq!(view.strategy, Strategy::Full);
    cluster.assert_copies_equal(&client).await;
}

/// In full replication a leader and the replica are cut off from the majority, which goes on writing: both
/// refuse bounded reads as soon as the bound has passed, and neither answers a linearizable one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_answers_no_bounded_read() {
    const BOUND: Duration = Duration::from_millis(500);
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    let mine = owned(&client, "n1").await;
    let mut keys = (0..).map(|i| format!("cut:{i}"));
    let key = keys.find(|key| mine.contains(&slots::shard_of(key.as_bytes(), 12)));
    let key = key.expect("a key of n1");
    one(&client, set(key.as_str(), "before"), &within(MINUTE)).await.expect("a write");

    let at = |node: &str, level| CallOptions {
        level: Some(level),
        node: Some(NodeName::new(node).expect("a name")),
        timeout: Duration::from_secs(2),
        retry: false,
        ..CallOptions::default()
    };
    let bounded = Level::Local { max_staleness_ms: Some(BOUND.as_millis() as u32) };
    for node in ["n1", "r1"] {
        let ask = async || one(&client, get(key.as_str()), &at(node, bounded)).await.is_ok();
        wait_until("bounded read", MINUTE, ask, |answered| *answered).await;
    }
    for node in &cluster.nodes {
        let other_side = if ["n1", "r1"].contains(&node.name.as_str()) { "n2 n3" } else { "n1 r1" };
        node.plant("peer.drop", other_side);
    }
    let cut = Instant::now();
    // Another client, so that the reads above are not held up by this write.
    let writer = cluster.client().await;
    let wanted = key.clone();
    let written = tokio::spawn(async move {
        let began = Instant::now();
        while began.elapsed() < MINUTE {
            let options = within(Duration::from_secs(5));
            if one(&writer, set(wanted.as_str(), "after"), &options).await.is_ok() {
                return Some(cut.elapsed());
            }
        }
        None
    });
    let mut refused = [0, 0];
    while !written.is_finished() || cut.elapsed() < BOUND * 10 {
        for (node, refused) in ["n1", "r1"].into_iter().zip(&mut refused) {
            let began = cut.elapsed();
            match one(&client, get(key.as_str()), &at(node, bounded)).await {
                Ok(answer) => {
                    assert!(began <= BOUND, "{node} answered {began:?} after the cut: {answer:?}");
                }
                Err(error) => {
                    assert_eq!(error.code, Code::TooStale, "{node}: {error}");
                    *refused += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused.iter().all(|refused| *refused >= 3), "{refused:?} reads refused");
    let took = written.await.expect("the writer").expect("the majority writes");
    println!("the majority wrote {took:?} after the cut");
    let linearizable = one(&client, get(key.as_str()), &at("n1", Level::Linearizable)).await;
    let fresh = OpResult::Value("after".into());
    // Whoever answers it in the end, it is the new value.
    assert!(linearizable.is_err() || linearizable.is_ok_and(|read| read.result == fresh));
    cluster.nodes.iter().for_each(|node| node.mend("peer.drop"));
    for node in ["n1", "r1"] {
        let ask = async || one(&client, get(key.as_str()), &at(node, bounded)).await;
        let is_fresh = |read: &ppdb::types::Result<ppdb::client::OpAnswer>| {
            read.as_ref().is_ok_and(|read| read.result == fresh)
        };
        wait_until("fresh bounded read", MINUTE, ask, is_fresh).await.expect("just checked");
    }
}
