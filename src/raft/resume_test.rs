//! Stories of large snapshots: cut off half way on either side, damaged, one at a time, slowed down; and not
//! sent again to who has one.

use super::testing::*;
use super::*;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const VALUE_BYTES: usize = 64 << 10;
const VALUES: u64 = 320;
/// What may be under way when a stream is cut.
const SLACK_BYTES: u64 = 3 * MIB;

/// Node 1 alone, with 20 MiB in its table and a log that does not reach back; copies of the others exist.
async fn world(nodes: u64) -> Cluster {
    let options = Options { log_keep_bytes: 0, flush_ms: 100, ..quick() };
    let cluster = Cluster::new(nodes, options).await;
    let all: Vec<u64> = (1..=nodes).collect();
    cluster.form(&all, &[1]).await;
    cluster.leader(&[1]).await;
    let group = cluster.group(1);
    for i in 0..VALUES {
        let mut payload = format!("key-{i}=").into_bytes();
        payload.resize(VALUE_BYTES, i as u8);
        group.propose(payload.into()).await.unwrap();
    }
    let log = cluster.host(1).wal().group(GROUP);
    eventually("the log is purged", || log.range().start > VALUES / 2).await;
    cluster
}

async fn add(cluster: &Cluster, node: u64) {
    let group = cluster.group(1);
    group.add_learner(group.membership().pos, copy(node), NodeId(node)).await.unwrap();
}

async fn caught_up(cluster: &Cluster, node: u64) {
    let group = cluster.group(1);
    eventually("the learner matches", || {
        let state = group.state();
        state.matched.get(&copy(node)).copied().flatten() == state.last_index
    })
    .await;
    let index = group.state().applied.unwrap().index;
    let soon = Instant::now() + Duration::from_secs(10);
    assert!(cluster.group(node).wait_applied(index, soon).await);
    assert_eq!(count(cluster.group(node).store()), count(group.store()));
}

/// Files of that way in the staging folder of a node's copy, with their sizes.
fn staged(cluster: &Cluster, node: u64, prefix: &str) -> Vec<(PathBuf, u64)> {
    let folder = cluster.copy_dir(node, copy(node)).join("transfer");
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let data = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix) && !name.contains('.')
    };
    let sized = |path: PathBuf| Some((path.clone(), fs::metadata(&path).ok()?.len()));
    entries.filter_map(|e| Some(e.ok()?.path())).filter(data).filter_map(sized).collect()
}

fn arrived_bytes(cluster: &Cluster, node: u64) -> u64 {
    staged(cluster, node, "in-").iter().map(|(_, bytes)| bytes).sum()
}

/// Begins to send to node 2 at a rate of 8 MiB a second, and waits for the half; returns file and size.
async fn half_way(cluster: &Cluster) -> (PathBuf, u64) {
    cluster.host(1).set_copy_rate(8 * MIB);
    add(cluster, 2).await;
    eventually("half of it is there", || arrived_bytes(cluster, 2) > 11 * MIB).await;
    let out = staged(cluster, 1, "out-");
    assert_eq!(out.len(), 1);
    assert!(out[0].1 > 20 * MIB, "{out:?}");
    out[0].clone()
}

fn nothing_staged(cluster: &Cluster, nodes: &[u64]) -> bool {
    let left = |node: &u64| {
        let folder = cluster.copy_dir(*node, copy(*node)).join("transfer");
        fs::read_dir(folder).map_or(0, Iterator::count)
    };
    nodes.iter().map(left).sum::<usize>() == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_was_killed_goes_on_and_gets_nothing_a_second_time() {
    let mut cluster = world(2).await;
    assert_eq!(cluster.group(2).installed_index(), 0);
    let (_, bytes) = half_way(&cluster).await;
    cluster.kill(2).await;
    cluster.host(1).set_copy_rate(0);
    cluster.start(2).await;
    caught_up(&cluster, 2).await;
    let sent = cluster.host(1).copied_bytes();
    assert!(sent >= bytes && sent < bytes + SLACK_BYTES, "{sent} of {bytes}");
    assert!(nothing_staged(&cluster, &[1, 2]));
    let installed = cluster.group(2).installed_index();
    assert!(installed > VALUES / 2);
    assert_eq!(cluster.group(1).installed_index(), 0);

    // Who has it gets the log from there, whoever restarts.
    for node in [2, 1] {
        cluster.kill(node).await;
        cluster.group_put_after_start(node).await;
        caught_up(&cluster, 2).await;
        assert_eq!(cluster.group(2).installed_index(), installed);
    }
    assert_eq!(cluster.host(1).copied_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_digest_hears_that_a_table_came_in_its_place() {
    let cluster = world(2).await;
    half_way(&cluster).await;
    let (group, time) = (cluster.group(2), Duration::from_secs(60));
    let waiting = tokio::spawn(async move { group.digest(5, time).await });
    cluster.host(1).set_copy_rate(0);
    caught_up(&cluster, 2).await;
    assert!(matches!(waiting.await.unwrap(), Err(NoDigest::Ever)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sender_that_was_killed_offers_the_same_file_again() {
    let mut cluster = world(2).await;
    let (path, bytes) = half_way(&cluster).await;
    cluster.kill(1).await;
    assert!(path.exists());
    cluster.group_put_after_start(1).await;
    caught_up(&cluster, 2).await;
    let sent = cluster.host(1).copied_bytes();
    assert!(sent < bytes - 11 * MIB + SLACK_BYTES, "{sent} of {bytes}");
    assert!(nothing_staged(&cluster, &[1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_staged_file_that_was_damaged_is_dropped_on_both_sides_and_made_anew() {
    let mut cluster = world(2).await;
    let (path, bytes) = half_way(&cluster).await;
    cluster.kill(1).await;
    let mut data = fs::read(&path).unwrap();
    let at = data.len() - MIB as usize;
    data[at] ^= 1;
    fs::write(&path, data).unwrap();
    cluster.group_put_after_start(1).await;
    caught_up(&cluster, 2).await;
    // The rest of the damaged file, and then all of another one.
    let sent = cluster.host(1).copied_bytes();
    assert!(sent > bytes, "{sent} of {bytes}");
    assert!(!path.exists());
    assert!(nothing_staged(&cluster, &[1, 2]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_copy_is_sent_at_a_time_from_one_file_at_a_rate_that_holds_at_once() {
    let cluster = world(4).await;
    cluster.host(1).set_copy_rate(MIB);
    for node in 2..=4 {
        add(&cluster, node).await;
    }
    eventually("one of them receives", || (2..=4).any(|n| arrived_bytes(&cluster, n) > 0)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((2..=4).map(|n| arrived_bytes(&cluster, n)).sum::<u64>() < 5 * MIB);
    // A copy that has nothing proves nothing: it may not answer from its emptiness.
    let soon = || Instant::now() + Duration::from_millis(300);
    for node in 2..=4 {
        assert!(cluster.group(node).read_barrier(soon()).await.is_err());
    }
    let began = Instant::now();
    cluster.host(1).set_copy_rate(16 * MIB);
    let whole_bytes = staged(&cluster, 1, "out-")[0].1;
    let mut files = std::collections::BTreeSet::new();
    let done = || (2..=4).all(|node| cluster.group(node).installed_index() > 0);
    while !done() {
        // What is whole is installed while the next one is sent.
        let arrived = (2..=4).map(|node| arrived_bytes(&cluster, node));
        let receiving = arrived.filter(|bytes| (1..whole_bytes).contains(bytes)).count();
        assert!(receiving <= 1, "{receiving} at a time");
        files.extend(staged(&cluster, 1, "out-").into_iter().map(|(path, _)| path));
        // At the first rate it takes a minute.
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert_eq!(files.len(), 1, "the table was copied more than once: {files:?}");
    for node in 2..=4 {
        caught_up(&cluster, node).await;
        cluster.group(node).read_barrier(soon()).await.unwrap();
    }
    eventually("nothing stays", || nothing_staged(&cluster, &[1, 2, 3, 4])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_that_is_closed_for_ever_stops_receiving_at_once() {
    let cluster = world(2).await;
    half_way(&cluster).await;
    let began = Instant::now();
    assert!(cluster.host(2).discard(GROUP).await);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let held = arrived_bytes(&cluster, 2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(arrived_bytes(&cluster, 2), held, "somebody still writes");
    assert!(cluster.host(2).discard(GROUP).await, "repeating it is harmless");
}

impl Cluster {
    /// Starts a node and writes something once node 1 leads.
    async fn group_put_after_start(&mut self, node: u64) {
        self.start(node).await;
        self.leader(&[1]).await;
        self.group(1).propose(format!("started-{node}=x").into()).await.unwrap();
    }
}
