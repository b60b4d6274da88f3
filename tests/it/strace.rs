//! An acknowledged write is on disk: with 300 ms added to the end of every `fdatasync` of the real program,
//! no write is acknowledged sooner than that.
//!
//! The same test against a node that is told to acknowledge early (`PPDB_TEST_ACK_BEFORE_FSYNC`, in debug
//! builds only) shows that it would notice.

use crate::harness::{Cluster, Shape, Wrap, one, set, within};
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(300);
const WRITES: usize = 5;
/// Pause before each write, so that the log is idle: a batch also waits for the `fdatasync` of the one before.
const IDLE: Duration = Duration::from_millis(1_000);

/// How long each of a few writes, one after the other, took on a single primary under `strace`.
async fn latencies(env: &[(&str, &str)]) -> Vec<Duration> {
    let inject = format!("inject=fdatasync:delay_exit={}", DELAY.as_micros());
    // -D keeps the node our direct child; only fdatasync stops it, so everything else runs at full speed.
    let under = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-o",
        "/dev/null",
        "-e",
        "trace=fdatasync",
        "-e",
        &inject,
        "--",
    ];
    let wrap = Wrap {
        under: under.map(str::to_owned).into(),
        env: env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    let cluster = Cluster::start(Shape { primaries: 1, replicas: 0, shards: 1, wrap }).await;
    let client = cluster.client().await;
    let options = within(Duration::from_secs(20));
    // The first write also opens a session, which is a write of its own.
    one(&client, set("strace:first", "1"), &options).await.expect("a write");
    let mut latencies = Vec::new();
    for i in 0..WRITES {
        tokio::time::sleep(IDLE).await;
        let began = Instant::now();
        one(&client, set(format!("strace:{i}"), "1"), &options).await.expect("a write");
        latencies.push(began.elapsed());
    }
    latencies
}

/// Says which write was acknowledged before its `fdatasync` can have returned.
fn check(latencies: &[Duration]) -> Result<(), String> {
    match latencies.iter().enumerate().find(|(_, took)| **took < DELAY) {
        None => Ok(()),
        Some((i, took)) => {
            Err(format!("write {i} was acknowledged after {took:?}, before {DELAY:?}"))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_acknowledged_before_its_fdatasync() {
    let latencies = latencies(&[]).await;
    check(&latencies).unwrap_or_else(|error| panic!("{error}: {latencies:?}"));
    // The delay is there once or twice a write, not so often that the test would pass for another reason.
    assert!(latencies.iter().all(|took| *took < DELAY * 10), "{latencies:?}");
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_acknowledges_early_is_noticed() {
    let latencies = latencies(&[("PPDB_TEST_ACK_BEFORE_FSYNC", "1")]).await;
    assert!(check(&latencies).is_err(), "nothing was noticed: {latencies:?}");
}
