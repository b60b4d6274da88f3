//! Nothing acknowledged is missing: after `kill -9` of all nodes at once, of each alone, and after clean
//! stops, all under write load. And nothing that was reported as failed ever shows up.

use crate::harness::{Cluster, Shape, get, one, set, within};
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::{Class, NodeName, Op, OpResult};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Tasks that write at the same time.
const WRITERS: u64 = 16;
/// How often everything is killed.
const KILLS_OF_ALL: u32 = 10;

/// What writers know of their keys. Each key is written once, by one writer, so an outcome is about a key.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged.
    pub acked: BTreeMap<String, String>,
    /// Reported as failed: must not be there, ever.
    pub failed: BTreeSet<String>,
    /// Highest value of each counter that was acknowledged, and that was tried.
    pub counters: BTreeMap<String, (u64, u64)>,
}

impl Ledger {
    /// Takes over what another ledger knows.
    pub fn add(&mut self, other: Ledger) {
        self.acked.extend(other.acked);
        self.failed.extend(other.failed);
        for (key, (acked, tried)) in other.counters {
            let known = self.counters.entry(key).or_default();
            *known = (known.0.max(acked), known.1.max(tried));
        }
    }
}

/// Write load from `WRITERS` tasks, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    writers: JoinSet<Ledger>,
}

impl Load {
    /// Starts the writers; `round` keeps their keys apart from those of other loads.
    pub fn start(client: &Client, round: &str) -> Self {
        Self::patient(client, round, Duration::from_millis(1_500))
    }

    /// The same with a deadline for each write.
    pub fn patient(client: &Client, round: &str, timeout: Duration) -> Self {
        Self::paced(client, round, timeout, (WRITERS, Duration::ZERO))
    }

    /// The same with so many writers, each of which rests between two writes.
    pub fn paced(
        client: &Client,
        round: &str,
        timeout: Duration,
        (writers_max, rest): (u64, Duration),
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acked = Arc::new(AtomicU64::new(0));
        let mut writers = JoinSet::new();
        for writer in 0..writers_max {
            let (client, stop, acked) = (client.clone(), stop.clone(), acked.clone());
            let calls = (client, timeout, rest);
            writers.spawn(write(calls, round.to_owned(), writer, stop, acked));
        }
        Self { stop, acked, writers }
    }

    fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Lets `more` writes be acknowledged.
    pub async fn until(&self, more: u64) {
        let (target, end) = (self.acked() + more, Instant::now() + Duration::from_secs(30));
        while self.acked() < target {
            assert!(Instant::now() < end, "only {} of {target} writes went through", self.acked());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Stops the writers; what they know.
    pub async fn end(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        let mut ledger = Ledger::default();
        self.writers.join_all().await.into_iter().for_each(|part| ledger.add(part));
        ledger
    }
}

/// One writer: keys of its own, and one counter that only grows.
async fn write(
    (client, timeout, rest): (Client, Duration, Duration),
    round: String,
    writer: u64,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
) -> Ledger {
    let options = within(timeout);
    let mut ledger = Ledger::default();
    for i in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = (format!("d:{round}:{writer}:{i}"), format!("{round}.{writer}.{i}"));
        match one(&client, set(key.clone(), value.clone()), &options).await {
            Ok(_) => {
                ledger.acked.insert(key, value);
                acked.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.class() == Class::Uncertain => {}
            Err(_) => {
                ledger.failed.insert(key);
            }
        }
        if i % 4 == 0 {
            let key = format!("counter:{round}:{writer}");
            let done = one(&client, set(key.clone(), i.to_string()), &options).await.is_ok();
            let known = ledger.counters.entry(key).or_default();
            *known = (if done { i } else { known.0 }, i);
        }
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
    ledger
}

/// Reads everything back and compares.
pub async fn verify(client: &Client, ledger: &Ledger, options: &CallOptions, what: &str) {
    let keys: Vec<&String> =
        ledger.acked.keys().chain(&ledger.failed).chain(ledger.counters.keys()).collect();
    for keys in keys.chunks(500) {
        let ops: Vec<Op> = keys.iter().map(|key| get(key.as_bytes())).collect();
        let answers = client.call(ops, options).await;
        assert_eq!(answers.len(), keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            let found = match answer.unwrap_or_else(|e| panic!("{what}: {key}: {e}")).result {
                OpResult::Nil => None,
                OpResult::Value(value) => Some(String::from_utf8_lossy(&value).into_owned()),
                other => panic!("{what}: {key}: {other:?}"),
            };
            if let Some(value) = ledger.acked.get(*key) {
                assert_eq!(found.as_ref(), Some(value), "{what}: {key} was acknowledged");
            } else if let Some((acked, tried)) = ledger.counters.get(*key) {
                let found: u64 = found.map_or(0, |text| text.parse().expect("a number"));
                assert!(
                    (*acked..=*tried).contains(&found),
                    "{what}: {key}: {acked} <= {found} <= {tried}"
                );
            } else {
                assert_eq!(found, None, "{what}: {key} was reported as failed");
            }
        }
    }
}

/// Through the owners, then at the replica as new as the client's tokens, then by digest.
async fn verify_every_copy(cluster: &Cluster, client: &Client, ledger: &Ledger) {
    let minute = within(Duration::from_secs(60));
    verify(client, ledger, &minute, "owners").await;
    let replica = NodeName::new("r1").expect("a name");
    let at_replica = CallOptions { level: Some(Level::Session), node: Some(replica), ..minute };
    verify(client, ledger, &at_replica, "replica").await;
    let keys = cluster.assert_copies_equal(client).await;
    assert!(keys >= ledger.acked.len() as u64, "{keys} keys in the digests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_all_nodes_under_load_loses_nothing() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let mut ledger = Ledger::default();
    for round in 1..=KILLS_OF_ALL {
        let load = Load::start(&client, &format!("all{round}"));
        load.until(300).await;
        let pause_ms = rand::rng().random_range(0..200);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        cluster.kill_all();
        let part = load.end().await;
        cluster.start_all();
        cluster.wait_ready().await;
        verify(&client, &part, &within(Duration::from_secs(30)), &format!("kill {round}")).await;
        ledger.add(part);
    }
    verify_every_copy(&cluster, &client, &ledger).await;
    println!(
        "{} acknowledged writes survived {KILLS_OF_ALL} kills of all nodes",
        ledger.acked.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_alone_can_be_killed_or_stopped_under_load() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let mut ledger = Ledger::default();
    for name in ["n1", "n2", "n3", "r1"] {
        let load = Load::start(&client, &format!("kill-{name}"));
        load.until(300).await;
        cluster.node(name).kill();
        // Everything else serves: a down primary takes only its own shards with it.
        load.until(50).await;
        cluster.node(name).start();
        cluster.wait_ready().await;
        load.until(100).await;
        let part = load.end().await;
        verify(&client, &part, &within(Duration::from_secs(30)), &format!("kill of {name}")).await;
        ledger.add(part);
    }
    for name in ["n1", "n2", "n3", "r1"] {
        let load = Load::start(&client, &format!("stop-{name}"));
        load.until(200).await;
        let (code, took) =
            cluster.node(name).stop(Duration::from_secs(20)).expect("ends on SIGTERM");
        assert_eq!(code, Some(0), "{name}: exit code after SIGTERM");
        assert!(took < Duration::from_secs(8), "{name} took {took:?} to stop");
        cluster.node(name).start();
        cluster.wait_ready().await;
        let part = load.end().await;
        verify(&client, &part, &within(Duration::from_secs(30)), &format!("stop of {name}")).await;
        ledger.add(part);
    }
    verify_every_copy(&cluster, &client, &ledger).await;
}
