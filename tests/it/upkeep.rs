//! What a switch took of the disks is given back, and so is what deletes leave behind in a table.

use crate::harness::{Cluster, Node, Shape, get, one, set, wait_until, within};
use crate::switch::wait_tidy;
use crate::switch_kills::fill;
use ppdb::client::Client;
use ppdb::types::{Op, OpResult};
use ppdb::wire::client::Strategy;
use ppdb::wire::operation::{Phase, StrategyOrder};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// Bytes that a folder takes on the disk.
fn taken(path: &Path) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return 0 };
    let inside = std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| entry.ok());
    meta.blocks() * 512 + inside.map(|entry| taken(&entry.path())).sum::<u64>()
}

fn copies(node: &Node) -> u64 {
    taken(&node.data_dir().join("copies"))
}

/// After an abort, and after the way back from a switch and its end, every node's disk holds what it held before,
/// to within a twentieth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_switch_took_of_the_disks_is_given_back() {
    let cluster = Cluster::start(Shape { replicas: 0, ..Shape::default() }).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    fill(&client, 60 << 20, 64 << 10).await;
    // Everything is written to the tables, at one index for each shard.
    cluster.assert_copies_equal(&client).await;
    let before: Vec<u64> = cluster.nodes.iter().map(copies).collect();
    let check = |what: &str| {
        for (node, before) in cluster.nodes.iter().zip(&before) {
            let now = copies(node);
            println!("{what}: {} has {now} bytes of copies, {before} before", node.name);
            assert!(now.abs_diff(*before) <= before / 20, "{what}: {}: {before}, {now}", node.name);
        }
    };
    cluster.order(&client, StrategyOrder::prepare(Strategy::Full)).await.expect("it begins");
    cluster.wait_phase(&client, &[Phase::Prepared], MINUTE).await;
    let doubled = cluster.nodes.iter().zip(&before).filter(|(n, before)| copies(n) > **before * 2);
    assert_eq!(doubled.count(), 3, "every node held three times as much");
    let reason = "measured".to_owned();
    cluster.order(&client, StrategyOrder::Abort { reason }).await.expect("it ends");
    cluster.wait_phase(&client, &[Phase::Aborted], MINUTE).await;
    wait_tidy(&cluster, &client).await;
    check("after an abort");

    cluster.switch(&client, Strategy::Full, MINUTE).await;
    cluster.order(&client, StrategyOrder::Finalize).await.expect("it is closed");
    cluster.wait_phase(&client, &[Phase::Finalized], MINUTE).await;
    cluster.switch(&client, Strategy::Sharded, MINUTE).await;
    cluster.order(&client, StrategyOrder::Finalize).await.expect("it is closed");
    cluster.wait_phase(&client, &[Phase::Finalized], MINUTE).await;
    wait_tidy(&cluster, &client).await;
    check("after there and back");
}

/// Most of a table is deleted: its file becomes smaller while the shard is written and read, and a crash right
/// after that loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_mostly_empty_is_compacted_while_its_shard_goes_on() {
    const KEYS: usize = 60;
    const LEFT: usize = 5;
    let shape = Shape { primaries: 1, replicas: 0, shards: 1, ..Shape::default() };
    let mut cluster = Cluster::start(shape).await;
    let client = cluster.client().await;
    let write =
        async |client: &Client, op: Op| one(client, op, &within(MINUTE)).await.expect("a write");
    for i in 0..KEYS {
        write(&client, set(format!("big:{i}"), vec![i as u8; 512 << 10])).await;
    }
    cluster.assert_copies_equal(&client).await;
    let full_bytes = copies(&cluster.nodes[0]);
    assert!(full_bytes > 30 << 20, "{full_bytes}");
    for i in LEFT..KEYS {
        write(&client, Op::Del { key: format!("big:{i}").into() }).await;
    }
    cluster.assert_copies_equal(&client).await;
    let mut written = 0;
    let smaller = async || {
        // The shard is not stopped for it.
        write(&client, set(format!("small:{written}"), "x")).await;
        written += 1;
        copies(&cluster.nodes[0])
    };
    let found = wait_until("smaller table", MINUTE, smaller, |bytes| *bytes < full_bytes / 4).await;
    println!("{full_bytes} bytes became {found}, {written} writes meanwhile");
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_ready().await;
    for i in 0..KEYS {
        let read = one(&client, get(format!("big:{i}")), &within(MINUTE)).await.expect("a read");
        let expected = match i < LEFT {
            true => OpResult::Value(vec![i as u8; 512 << 10].into()),
            false => OpResult::Nil,
        };
        assert_eq!(read.result, expected, "big:{i}");
    }
    for i in 0..written {
        let read = one(&client, get(format!("small:{i}")), &within(MINUTE)).await.expect("a read");
        assert_eq!(read.result, OpResult::Value("x".into()), "small:{i}");
    }
}
