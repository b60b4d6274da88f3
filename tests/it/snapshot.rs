//! A replica that was away for longer than the log reaches back gets the whole shard, and neither side
//! pays for it in memory: the table goes from a file to a file in bounded chunks.

use crate::harness::{Cluster, Node, Shape, anonymous_kib, one, set, wait_until, within};
use rand::{RngCore, SeedableRng, rngs::StdRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a transfer may cost either side, however large the shard is.
const MEMORY_MAX_KIB: u64 = 64 << 10;
const VALUE_BYTES: usize = 512 << 10;
const WRITERS: usize = 4;

/// The highest anonymous memory of a process, looked at all the time.
struct Watch {
    peak_kib: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    before_kib: u64,
}

impl Watch {
    /// Watches a process that has needed `before_kib` without a transfer.
    fn start(node: &Node, before_kib: u64) -> Self {
        let pid = node.pid().expect("a running node");
        let (peak_kib, over) = (Arc::new(AtomicU64::new(before_kib)), Arc::default());
        let (peak, ended) = (Arc::clone(&peak_kib), Arc::<AtomicBool>::clone(&over));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_kib(pid).unwrap_or_default(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { peak_kib, over, before_kib }
    }

    fn grown_kib(&self) -> u64 {
        self.peak_kib.load(Ordering::Relaxed) - self.before_kib
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Sends a shard of that many values to a replica that missed all of them.
async fn transfer(values: usize) {
    let shape = Shape { primaries: 1, replicas: 1, shards: 1, ..Shape::default() };
    let mut cluster = Cluster::start(shape).await;
    let idle = |node: &Node| anonymous_kib(node.pid().expect("it runs")).expect("the kernel tells");
    let receiver_kib = idle(cluster.node("r1"));
    cluster.node("r1").kill();
    let client = cluster.client().await;
    let writing = (0..WRITERS).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut rng = StdRng::seed_from_u64(writer as u64);
            for i in (writer..values).step_by(WRITERS) {
                let mut value = vec![0; VALUE_BYTES];
                rng.fill_bytes(&mut value);
                let op = set(format!("large:{i}"), value);
                one(&client, op, &within(Duration::from_secs(60))).await.expect("a write");
            }
        })
    });
    for writer in writing.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let sender_kib = idle(cluster.node("n1"));
    let sender = Watch::start(cluster.node("n1"), sender_kib);
    cluster.node("r1").start();
    let receiver = Watch::start(cluster.node("r1"), receiver_kib);
    let log = async || cluster.nodes[1].log();
    let installed = |log: &String| log.contains("snapshot installed");
    wait_until("snapshot", Duration::from_secs(300), log, installed).await;
    let grown = [("sender", sender.grown_kib()), ("receiver", receiver.grown_kib())];
    println!("{} MiB sent; KiB of memory: {grown:?}", (values * VALUE_BYTES) >> 20);
    for (side, kib) in grown {
        assert!(kib < MEMORY_MAX_KIB, "the {side} grew by {kib} KiB");
    }
    assert_eq!(cluster.assert_copies_equal(&client).await, values as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_sent_in_bounded_memory() {
    transfer(400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "2 GiB of disk and some minutes: run it with `cargo test --test it -- --ignored a_gibibyte_is_sent`"]
async fn a_gibibyte_is_sent_in_bounded_memory() {
    transfer(2_048).await;
}
