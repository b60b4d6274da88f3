//! A cluster that is asked for four times what it can bear goes on bearing that: it refuses the rest at once, and
//! keeps its leaders, its memory and its answers to operators.
//!
//! Its capacity is lowered by a setting and by slow disks, so that the load and not the machine is what it cannot bear.

use crate::harness::{Cluster, Shape, anonymous_kib, get, one, set, wait_until, within};
use ppdb::client::{CallOptions, Client, Level, ScanOptions};
use ppdb::types::{Code, NodeName};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command, Info};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
/// Requests that a node works on at a time, and how much longer its fdatasyncs take.
const CONCURRENT: u64 = 4;
const SLOW_MS: &str = "2";
/// A node looks for planted faults once in a while.
const FAULT_SEEN_AFTER: Duration = Duration::from_secs(1);
/// How long the load lasts, and each of those by which it is found what is borne.
const SPAN: Duration = Duration::from_secs(6);
const PEAK_SPAN: Duration = Duration::from_secs(3);
/// The load, as a multiple of what is borne.
const TIMES: f64 = 4.0;
/// Requests on their way at most; beyond that the load waits, which the test would notice.
const ON_THEIR_WAY_MAX: usize = 4_000;
/// A node may grow by so much.
const GROWTH_KIB_MAX: u64 = 64 << 10;

/// What became of a load.
#[derive(Debug, Default)]
struct Outcome {
    sent: usize,
    done: usize,
    /// How long it took to be refused, in milliseconds.
    refused_ms: Vec<u64>,
    others: Vec<String>,
}

impl Outcome {
    fn note(&mut self, took: Duration, result: Result<(), ppdb::types::Error>) {
        self.sent += 1;
        match result {
            Ok(()) => self.done += 1,
            Err(error) if error.code == Code::Overloaded => {
                self.refused_ms.push(took.as_millis() as u64);
            }
            Err(error) => self.others.push(error.to_string()),
        }
    }
}

/// One attempt, without a retry.
async fn attempt(client: Client, number: usize) -> (Duration, Result<(), ppdb::types::Error>) {
    let options =
        CallOptions { retry: false, timeout: Duration::from_secs(5), ..CallOptions::default() };
    let began = Instant::now();
    let done =
        one(&client, set(format!("key:{}", number % 5_000), "x".repeat(100)), &options).await;
    (began.elapsed(), done.map(drop))
}

/// The most that is carried out each second, by clients each of which sends its next request at once: as many as the
/// nodes together work on, and more, because they do not spread evenly.
async fn peak(client: &Client, nodes: u64) -> f64 {
    let mut peak: f64 = 0.0;
    for times in [1, 2, 4] {
        peak = peak.max(sustained(client, CONCURRENT * nodes * times).await);
    }
    peak
}

async fn sustained(client: &Client, clients: u64) -> f64 {
    let (stop, mut tasks) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for of in 0..clients as usize {
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut done, mut number) = (0_u64, of * 7_919);
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                match attempt(client.clone(), number).await.1 {
                    Ok(()) => done += 1,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            done
        });
    }
    tokio::time::sleep(PEAK_SPAN).await;
    stop.store(true, Ordering::Relaxed);
    tasks.join_all().await.iter().sum::<u64>() as f64 / PEAK_SPAN.as_secs_f64()
}

/// So many requests a second by schedule, whatever becomes of them.
async fn paced(client: &Client, rate: f64) -> (Outcome, Duration) {
    let (began, mut outcome, mut tasks) = (Instant::now(), Outcome::default(), JoinSet::new());
    for number in 0..(rate * SPAN.as_secs_f64()) as usize {
        let due = began + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due.into()).await;
        while tasks.len() >= ON_THEIR_WAY_MAX {
            let (took, result) = tasks.join_next().await.expect("a task").expect("no panic");
            outcome.note(took, result);
        }
        tasks.spawn(attempt(client.clone(), number));
    }
    let sent_in = began.elapsed();
    for (took, result) in tasks.join_all().await {
        outcome.note(took, result);
    }
    (outcome, sent_in)
}

async fn info(client: &Client, node: &NodeName) -> Info {
    let asked = client.command(Command::Info, Some(node), Duration::from_secs(2)).await;
    match asked.expect("an operator is answered").0 {
        Answer::Info(info) => info,
        other => panic!("{other:?}"),
    }
}

/// The terms of every group on every node: an election raises one.
async fn terms(client: &Client, nodes: &[NodeName]) -> Vec<u64> {
    let mut terms = Vec::new();
    for node in nodes {
        let info = info(client, node).await;
        terms.extend(info.metadata_term);
        terms.extend(info.copies.iter().map(|copy| copy.term));
    }
    terms
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_times_what_is_borne_is_refused_at_once_and_the_rest_goes_on() {
    let cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    cluster.set_live(&client, "safety.max_concurrent_ops", &CONCURRENT.to_string()).await;
    cluster.nodes.iter().for_each(|node| node.plant("fsync.slow", SLOW_MS));
    let names: Vec<NodeName> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let pids: Vec<u32> = cluster.nodes.iter().filter_map(|node| node.pid()).collect();
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    for name in &names {
        assert_eq!(info(&client, name).await.safety.max_concurrent_ops, CONCURRENT);
    }

    let peak = peak(&client, names.len() as u64).await;
    let terms_before = terms(&client, &names).await;
    let memory = || pids.iter().filter_map(|pid| anonymous_kib(*pid)).collect::<Vec<u64>>();
    let memory_before = memory();

    let (asker, asked) = (client.clone(), names.clone());
    let operator = tokio::spawn(async move {
        let mut worst = Duration::ZERO;
        for turn in 0.. {
            let began = Instant::now();
            let seen = info(&asker, &asked[turn % asked.len()]).await;
            worst = worst.max(began.elapsed());
            assert!(seen.safety.requests <= CONCURRENT * 2, "{:?}", seen.safety);
            if turn as u64 >= SPAN.as_secs() * 4 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        worst
    });
    let (mut over, sent_in) = paced(&client, peak * TIMES).await;
    let goodput = over.done as f64 / sent_in.as_secs_f64();
    let asked_in = operator.await.expect("every question is answered");
    over.refused_ms.sort_unstable();
    let refused = over.refused_ms.len();
    let at = |share: f64| over.refused_ms[((refused - 1) as f64 * share) as usize];
    let (p50, p99, last) = (at(0.5), at(0.99), at(1.0));
    println!(
        "borne {peak:.0}/s; sent {} in {sent_in:.1?}: done {:.0}/s, refused {refused} in {p50} ms (p99 {p99}, at \
         most {last}), others {}; an operator waited {asked_in:.0?} at most; memory {memory_before:?} to {:?} KiB",
        over.sent,
        goodput,
        over.others.len(),
        memory()
    );
    assert!(sent_in < SPAN * 5 / 4, "the load was not sent as it should: {sent_in:?}");
    assert!(over.others.is_empty(), "{:?}", over.others.first());
    assert!(refused > over.sent / 2, "{refused} of {}", over.sent);
    assert!(goodput >= peak * 0.8, "{goodput:.0} of {peak:.0}");
    assert!(p99 <= 100, "refused after {p99} ms");
    assert_eq!(terms(&client, &names).await, terms_before, "there was an election");
    for (now, before) in memory().iter().zip(&memory_before) {
        assert!(*now < before + GROWTH_KIB_MAX, "{before} to {now} KiB");
    }
    let mut counted = 0;
    for name in &names {
        counted += info(&client, name).await.safety.refused_writes;
    }
    assert!(counted >= refused as u64, "{counted} of {refused}");
}

/// Longer than all that is done beside the writes that wait for it.
const STUCK_MS: &str = "3000";

/// On one node, which holds all keys: what is set holds, and what matters least is refused first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_bounds_requests_and_scans_are_refused_before_writes_and_reads() {
    let shape = Shape { primaries: 1, replicas: 0, shards: 1, ..Shape::default() };
    let cluster = Cluster::start(shape).await;
    let client = cluster.client().await;
    let (node, name) = (&cluster.nodes[0], cluster.nodes[0].name.clone());
    let once = CallOptions { retry: false, ..within(MINUTE) };
    let put = async |key: &str| one(&client, set(key, "v"), &once).await;
    let holds = async |what: &str, is: fn(&Info) -> bool| {
        wait_until(what, MINUTE, || info(&client, &name), is).await;
    };
    put("a").await.expect("a write");

    cluster.set_live(&client, "safety.max_batch_size", "2").await;
    cluster.set_live(&client, "safety.max_batch_bytes", "1KiB").await;
    // The one that was set last: nodes hear of one after the other.
    holds("bound of a batch", |info| info.safety.max_batch_bytes == 1_024).await;
    for (ops, fits) in [
        (vec![set("a", "v"), set("b", "v")], true),
        (vec![set("a", "v"), set("b", "v"), set("c", "v")], false),
        (vec![set("a", vec![b'v'; 2_000])], false),
    ] {
        let answers = client.call(ops, &once).await;
        let refused = |answer: &Result<_, ppdb::types::Error>| {
            answer.as_ref().is_err_and(|error| error.code == Code::BatchTooLarge)
        };
        assert!(answers.iter().all(|answer| refused(answer) != fits), "{answers:?}");
    }

    // Of ten requests six are the load from which on scans are refused, and eight the one for writes.
    cluster.set_live(&client, "safety.load_threshold", "0.10").await;
    cluster.set_live(&client, "safety.max_concurrent_ops", "10").await;
    cluster.set_live(&client, "safety.timeout_ms", "60000").await;
    holds("bound of requests", |info| info.safety.timeout_ms == 60_000).await;
    node.plant("fsync.slow", STUCK_MS);
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    let mut stuck = JoinSet::new();
    let mut add = async |count: u64| {
        for i in 0..count {
            let (client, once) = (client.clone(), once.clone());
            stuck.spawn(async move { one(&client, set(format!("s:{i}"), "v"), &once).await });
        }
    };
    // Of what is there, so that they do not wait for the disk.
    let level = Some(Level::Local { max_staleness_ms: None });
    let local = CallOptions { level, ..once.clone() };
    let scan = async || client.scan(&ScanOptions::default(), &local).await.map(drop);
    let read = async || one(&client, get("a"), &local).await.map(drop);
    let is_refused = |result: Result<(), ppdb::types::Error>| match result {
        Ok(()) => false,
        Err(error) if error.code == Code::Overloaded => true,
        Err(error) => panic!("{error}"),
    };
    add(4).await;
    holds("four writes", |info| info.safety.requests >= 4).await;
    assert!(!is_refused(scan().await));
    add(2).await;
    holds("six writes", |info| info.safety.requests >= 6).await;
    assert!(is_refused(scan().await));
    assert!(!is_refused(read().await));
    add(2).await;
    holds("eight writes", |info| info.safety.requests >= 8).await;
    assert!(is_refused(put("b").await.map(drop)));
    assert!(is_refused(scan().await));
    assert!(!is_refused(read().await));
    node.mend("fsync.slow");
    let written = stuck.join_all().await;
    assert!(written.iter().all(Result::is_ok), "{written:?}");
    let safety = info(&client, &name).await.safety;
    assert_eq!((safety.refused_bulk, safety.refused_writes, safety.refused_reads), (2, 1, 0));

    // A request is worked on no longer than is set, whatever time it names.
    cluster.set_live(&client, "safety.timeout_ms", "100").await;
    holds("bound of time", |info| info.safety.timeout_ms == 100).await;
    node.plant("fsync.slow", STUCK_MS);
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    let error = put("late").await.expect_err("it waits for the disk");
    assert!(error.class() == ppdb::types::Class::Uncertain, "{error}");
    // What comes while the disk makes everything wait would be given up as well: it is refused, with a certain outcome.
    let refused = wait_until(
        "writes refused for the disk",
        MINUTE,
        || async { put("later").await.expect_err("the disk is stuck") },
        |error| error.code == Code::Overloaded,
    );
    let refused = refused.await;
    assert!(refused.message.contains("fsync_wait"), "{refused}");
    assert!(!is_refused(read().await));
    node.mend("fsync.slow");
    // Whoever may take longer asks again under the same number.
    one(&client, set("late", "again"), &within(MINUTE)).await.expect("a write");
}
