//! The guard of a switch, on real processes: a disk that becomes slow before the commit point ends the switch by
//! itself; after it there is an alarm, and a way back only if the operator asked for one. And what an operator has
//! in hand meanwhile: the rate of the copying, and orders that mean one operation.

use crate::durability::{Ledger, Load, verify};
use crate::harness::{Cluster, Shape, one, program, set, show, wait, wait_until, within};
use ppdb::client::Client;
use ppdb::types::Result;
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::guard::Stage;
use ppdb::wire::operation::{Operation, Phase, StrategyOrder, StrategyView};
use ppdb::wire::terms::Terms;
use serde_json::Value;
use std::io::Read;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
/// Deadline of each request of the load.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// Until what nodes report of their service covers the load.
const BASELINE_AFTER: Duration = Duration::from_secs(7);
/// How much longer an fdatasync takes on a target's disk that has become slow, in milliseconds.
const SLOW_MS: &str = "200";

/// Enough writers that a node with a slow disk still answers enough requests in a window to be judged.
struct TwoLoads([Load; 2]);

impl TwoLoads {
    fn start(client: &Client, round: &str) -> Self {
        let load = |part: &str| Load::patient(client, &format!("{round}-{part}"), LOAD_DEADLINE);
        Self([load("a"), load("b")])
    }

    async fn end(self) -> Ledger {
        let [a, b] = self.0;
        let mut ledger = a.end().await;
        ledger.add(b.end().await);
        ledger
    }
}

/// Writers that rest between two writes: a percentile that is far from what slow disks make of it, and still enough
/// requests on each node to be judged then.
const CALM_WRITERS: (u64, Duration) = (64, Duration::from_millis(100));

fn three() -> Shape {
    Shape { primaries: 3, replicas: 0, shards: 3, ..Shape::default() }
}

/// 40 MiB in one shard: more than its log keeps, so that it is sent as a table.
async fn fill_one_shard(client: &Client) {
    for i in 0..80 {
        let value = vec![i as u8; 512 << 10];
        one(client, set(format!("{{a}}:{i}"), value), &within(MINUTE)).await.expect("a write");
    }
}

/// Waits until the operation is as wanted.
async fn wait_operation(
    client: &Client,
    what: &str,
    timeout: Duration,
    ready: impl Fn(&Operation) -> bool,
) -> Operation {
    let ask = async || show(client).await;
    let is_ready = |view: &Result<StrategyView>| {
        view.as_ref().is_ok_and(|view| view.operation.as_ref().is_some_and(&ready))
    };
    let view = wait_until(what, timeout, ask, is_ready).await.expect("just checked");
    view.operation.expect("just checked")
}

async fn messages(client: &Client) -> Vec<String> {
    match client.command(Command::Status, None, Duration::from_secs(5)).await {
        Ok((Answer::Status(status), _)) => status.messages,
        other => panic!("{other:?}"),
    }
}

/// The target's disk becomes slow while it is copied to: first the rate is halved, then nothing is copied, then
/// the operation ends, with what was bad as its reason. No write fails, and the strategy is what it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_becomes_slow_before_the_commit_point_ends_in_an_abort() {
    let cluster = Cluster::start(three()).await;
    let client = cluster.client().await;
    fill_one_shard(&client).await;
    cluster.set_live(&client, "copy.bytes_per_s", "256KiB").await;
    let load = TwoLoads::start(&client, "slow");
    tokio::time::sleep(BASELINE_AFTER).await;
    // So slow a copy would not be planned beside this load.
    let terms = Terms { skipped: vec!["copy_rate".to_owned()], ..Terms::default() };
    let order = StrategyOrder::Switch { to: Strategy::Full, terms };
    cluster.order(&client, order).await.expect("it begins");
    let view = cluster.wait_phase(&client, &[Phase::Copying], MINUTE).await;
    let baseline = view.operation.expect("an operation").guard.baseline.expect("at the checkpoint");
    assert!(baseline.write_p99_us.is_some(), "the load was measured: {baseline:?}");

    let owner = cluster.owner(&client, b"{a}").await;
    let target = cluster.nodes.iter().find(|node| node.name != owner).expect("another");
    target.plant("fsync.slow", SLOW_MS);
    let since = Instant::now();
    let at = |stage| move |op: &Operation| op.guard.stage == stage;
    let slowed = wait_operation(&client, "slower copy", MINUTE, at(Stage::Slowed)).await;
    let rate = slowed.copy_bytes_per_s.expect("a rate of its own");
    assert!((64 << 10..=128 << 10).contains(&rate), "half of what it was: {rate}");
    let failure = slowed.last_failure.expect("a reason").what;
    assert!(
        failure.contains("p99 of writes is") && failure.contains("before the switch"),
        "{failure}"
    );
    wait_operation(&client, "held copy", MINUTE, at(Stage::Held)).await;
    let ended = wait_operation(&client, "end", MINUTE, |op| op.phase == Phase::Aborted).await;
    println!("ended {:?} after the disk became slow: {:?}", since.elapsed(), ended.reason);
    let reason = ended.reason.expect("a reason");
    assert!(reason.starts_with("the guard gave it up: p99 of writes is"), "{reason}");
    assert_eq!(ended.last_failure.map(|failure| failure.what), Some(reason.clone()));
    target.mend("fsync.slow");

    let history = cluster.ppdb(&["strategy", "history"]).expect(0).json();
    assert_eq!(history["value"][0]["last_failure"]["what"], reason.as_str());
    assert_eq!(show(&client).await.expect("a view").strategy, Strategy::Sharded);
    let ledger = load.end().await;
    assert!(ledger.failed.is_empty(), "{} writes failed", ledger.failed.len());
    verify(&client, &ledger, &within(MINUTE), "after the abort").await;
    crate::switch::wait_tidy(&cluster, &client).await;
}

/// Every disk becomes slow after the commit point, so that the percentile is more than doubled: there is an alarm with
/// the order that goes back, and it goes when it is well again. Nobody goes back by itself, until an operator has
/// asked for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_commit_point_there_is_an_alarm_and_a_revert_only_if_it_was_asked_for() {
    let cluster = Cluster::start(three()).await;
    let client = cluster.client().await;
    cluster.set_live(&client, "switch.cool_down", "0s").await;
    // From full, so that what the switch itself does to the percentile is an improvement.
    cluster.switch(&client, Strategy::Full, MINUTE).await;
    cluster.order(&client, StrategyOrder::Finalize).await.expect("it is taken");
    cluster.wait_phase(&client, &[Phase::Finalized], MINUTE).await;
    let load = Load::paced(&client, "alarm", LOAD_DEADLINE, CALM_WRITERS);
    let slow = |ms: u64| cluster.nodes.iter().for_each(|n| n.plant("fsync.slow", &ms.to_string()));
    let mend = || cluster.nodes.iter().for_each(|node| node.mend("fsync.slow"));
    tokio::time::sleep(BASELINE_AFTER).await;
    cluster.order(&client, StrategyOrder::switch(Strategy::Sharded)).await.expect("it begins");
    let view = cluster.wait_phase(&client, &[Phase::Soaking], MINUTE).await;
    let baseline = view.operation.expect("an operation").guard.baseline.expect("measured");
    let before_ms = baseline.write_p99_us.expect("the load was measured") / 1_000;
    println!("p99 of writes before: {before_ms} ms");
    let slow_ms = (before_ms * 2).max(200);
    slow(slow_ms);
    let bad = wait_operation(&client, "alarm", MINUTE, |op| op.guard.alarm.is_some()).await;
    assert_eq!(bad.phase, Phase::Soaking);
    let told = messages(&client).await;
    let way_back = format!("`ppdb strategy revert --operation {}` goes back", bad.id);
    assert!(told.iter().any(|m| m.contains("p99 of") && m.contains(&way_back)), "{told:?}");
    let shown = cluster.ppdb(&["strategy", "show"]).expect(0).json();
    let alarm = shown["value"]["operation"]["guard"]["alarm"].as_str().unwrap_or_default();
    assert!(alarm.contains("before the switch"), "{shown}");
    // As long again as it took to be noticed: it is still only spoken about.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(show(&client).await.expect("a view").operation.expect("one").phase, Phase::Soaking);
    mend();
    wait_operation(&client, "calm", MINUTE, |op| op.guard.alarm.is_none()).await;
    assert!(messages(&client).await.iter().all(|m| !m.contains(&way_back)));

    // An order means one operation.
    let wrong = format!("{}", bad.id + 1);
    for words in [
        ["strategy", "revert", "--operation", &wrong],
        ["strategy", "finalize", "--operation", &wrong],
    ] {
        let refused = cluster.ppdb(&words).expect(5).json();
        assert_eq!(refused["code"], "OperationConflict", "{refused}");
    }
    let right = bad.id.to_string();
    let back = cluster.ppdb(&["strategy", "revert", "--operation", &right]).expect(0).json();
    assert_eq!(back["value"]["phase"], "reverted", "{back}");

    // The same, and the operator wants it to go back by itself.
    tokio::time::sleep(BASELINE_AFTER).await;
    let terms = Terms { auto_revert_within_ms: Some(600_000), ..Terms::default() };
    let order = StrategyOrder::Switch { to: Strategy::Sharded, terms };
    cluster.order(&client, order).await.expect("it begins");
    cluster.wait_phase(&client, &[Phase::Soaking], MINUTE).await;
    slow(slow_ms);
    let ended = wait_operation(&client, "way back", MINUTE, |op| op.phase == Phase::Reverted).await;
    mend();
    let reason = ended.reason.expect("a reason");
    assert!(reason.starts_with("the guard took it back: p99 of"), "{reason}");
    assert_eq!(ended.last_failure.map(|failure| failure.what), Some(reason));
    assert_eq!(show(&client).await.expect("a view").strategy, Strategy::Full);
    let ledger = load.end().await;
    assert!(ledger.failed.is_empty(), "{} writes failed", ledger.failed.len());
    verify(&client, &ledger, &within(MINUTE), "after the way back").await;
}

/// The rate of a copy that runs is changed at once, for this operation only; who follows sees it, and leaves
/// without changing anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_throttled_while_it_runs_and_the_next_one_is_not() {
    let shape = Shape { primaries: 2, ..three() };
    let cluster = Cluster::start(shape).await;
    let client = cluster.client().await;
    fill_one_shard(&client).await;
    let value = |words: &[&str]| cluster.ppdb(words).expect(0).json()["value"].clone();
    let refused = cluster.ppdb(&["strategy", "throttle", "1MiB"]).expect(5).json();
    assert_eq!(refused["code"], "OperationConflict", "there is nothing to throttle: {refused}");
    value(&["config", "set", "copy.bytes_per_s", "1MiB"]);
    // What was just written counts as load, and would forbid a copy as slow as this.
    let prepare = ["strategy", "prepare", "full", "--no-wait", "--skip", "copy_rate"];
    value(&prepare);
    let copied = || {
        let shown = value(&["strategy", "show"]);
        let progress = &shown["progress"];
        assert_eq!(shown["operation"]["phase"], "copying", "{shown}");
        (progress["bytes_done"].as_u64().expect("a number"), progress.clone())
    };
    cluster.wait_phase(&client, &[Phase::Copying], MINUTE).await;
    // Over one connection: a process for each look would be more than a node accepts.
    let begun = async || {
        let progress = show(&client).await.ok().and_then(|view| view.progress);
        progress.map_or(0, |progress| progress.bytes_done)
    };
    wait_until("some bytes", MINUTE, begun, |bytes| *bytes > 2 << 20).await;
    let (_, progress) = copied();
    assert_eq!(progress["limit_bytes_per_s"], 1 << 20);
    assert!(progress["eta_s"].as_u64().is_some_and(|s| (5..300).contains(&s)), "{progress}");
    let nodes = progress["nodes"].as_array().expect("nodes");
    let on_its_way = |n: &Value| n["bytes_total"].as_u64() > n["bytes_done"].as_u64();
    assert!(!nodes.is_empty() && nodes.iter().any(on_its_way), "{progress}");

    // Whoever follows it leaves, and it goes on.
    let mut command = program();
    command.args(["strategy", "watch", "-o", "jsonl"]).args(cluster.flags());
    command.stderr(std::process::Stdio::piped());
    let mut watcher = command.spawn().expect("the program");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pid = rustix::process::Pid::from_child(&watcher);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(wait(&mut watcher, Duration::from_secs(10)), Some(Some(130)));
    let (mut out, mut err) = (String::new(), String::new());
    watcher.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    watcher.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    let first: Value = serde_json::from_str(out.lines().next().expect("a line")).expect("json");
    assert_eq!(first["change"]["phase"], "copying", "{out}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "it is no terminal: {out}{err}");
    assert!(format!("{out}{err}").contains("goes on"), "{out}{err}");

    let throttled = value(&["strategy", "throttle", "64KiB"]);
    assert_eq!(throttled["copy_bytes_per_s"], 64 << 10);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, progress) = copied();
    assert_eq!(progress["limit_bytes_per_s"], 64 << 10);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (after, _) = copied();
    // A chunk may have been on its way.
    assert!(after - before <= 5 * (64 << 10) + (2 << 20), "{} bytes in 5 s", after - before);
    value(&["strategy", "throttle", "0"]);
    let since = Instant::now();
    cluster.wait_phase(&client, &[Phase::Prepared], MINUTE).await;
    println!("unlimited: prepared {:?} later", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(25), "the rest took {:?}", since.elapsed());
    assert_eq!(value(&["strategy", "abort"])["phase"], "aborted");

    // The setting was never touched.
    value(&prepare);
    cluster.wait_phase(&client, &[Phase::Copying], MINUTE).await;
    assert_eq!(copied().1["limit_bytes_per_s"], 1 << 20);
    assert_eq!(value(&["strategy", "abort"])["phase"], "aborted");
}
