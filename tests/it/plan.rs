//! The plan of a switch, on real processes: what it measures and predicts, each reason for a no with its node,
//! what a plan is bound to, what may be skipped, and the checks that hold a commit.

use crate::harness::{Cluster, Shape};
use bytes::Bytes;
use ppdb::types::Code;
use ppdb::wire::command::Command;
use ppdb::wire::plan::ProbeOrder;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A node looks for planted faults once in a while.
const FAULT_SEEN_AFTER: Duration = Duration::from_secs(1);
/// How long a probe that says yes serves.
const PROBE_SERVES_FOR: Duration = Duration::from_secs(30);
/// Longest time for a plan: five seconds of measuring, and the program around it.
const PLAN_WITHIN: Duration = Duration::from_secs(8);
/// Longest wait for a phase.
const PHASE_WITHIN: Duration = Duration::from_secs(40);
/// How long is looked at what must not change.
const WATCHED: Duration = Duration::from_secs(2);

fn value(cluster: &Cluster, words: &[&str]) -> Value {
    cluster.ppdb(words).expect(0).json()["value"].clone()
}

/// Has a node report other values than it knows.
fn misreport(cluster: &Cluster, node: &str, what: &str) {
    let nodes = cluster.nodes.iter().filter(|n| n.name.as_str() == node || node == "all");
    nodes.for_each(|node| node.plant("report", what));
}

fn report_the_truth(cluster: &Cluster, node: &str) {
    let nodes = cluster.nodes.iter().filter(|n| n.name.as_str() == node || node == "all");
    nodes.for_each(|node| node.mend("report"));
}

/// The plan says no by that check of that node, with a way out; no switch begins, for the same reason.
fn says_no(cluster: &Cluster, check: &str, node: &str) {
    let plan = cluster.ppdb(&["strategy", "plan", "full"]).expect(1).json()["value"].clone();
    assert_eq!((&plan["verdict"], &plan["plan"]), (&json!("no_go"), &Value::Null), "{plan}");
    let checks = plan["checks"].as_array().expect("checks");
    let found = checks.iter().find(|c| c["name"] == check && c["node"] == node);
    let found = found.unwrap_or_else(|| panic!("no {check} of {node} in {plan}"));
    assert_eq!(found["verdict"], "no_go", "{found}");
    for field in ["value", "limit", "message", "field"] {
        assert!(found[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {found}");
    }
    let refused = cluster.ppdb(&["strategy", "switch", "full"]).expect(5).json();
    assert_eq!(refused["code"], "PrecheckFailed", "{refused}");
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains(&format!("{check} on {node}")), "{message}");
}

fn operation(cluster: &Cluster) -> (Value, Value) {
    let shown = value(cluster, &["strategy", "show"]);
    (shown["operation"].clone(), shown["progress"]["blocker"].clone())
}

/// Looks until an operation is in a phase.
fn wait_phase(cluster: &Cluster, phase: &str) -> Value {
    let until = Instant::now() + PHASE_WITHIN;
    loop {
        let (op, blocker) = operation(cluster);
        if op["phase"] == phase {
            return op;
        }
        assert!(Instant::now() < until, "it is not {phase}: {op}, {blocker}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What was measured of a disk that was slow for a moment serves no plan for half a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_quick_again_is_measured_again() {
    let shape = Shape { primaries: 2, replicas: 0, shards: 2, ..Shape::default() };
    let cluster = Cluster::start(shape).await;
    let slow = &cluster.nodes[1];
    slow.plant("fsync.slow", "400");
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    says_no(&cluster, "disk_speed", slow.name.as_str());
    slow.mend("fsync.slow");
    let mended = Instant::now();
    loop {
        let plan = cluster.ppdb(&["strategy", "plan", "full"]).json()["value"].clone();
        if plan["may_start"] == true {
            break;
        }
        assert!(mended.elapsed() < PROBE_SERVES_FOR / 2, "the disk is quick again: {plan}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("a plan is made {:?} after the disk is quick again", mended.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_measures_predicts_and_says_no_with_node_and_reason() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    crate::switch_kills::fill(&client, 8 << 20, 64 << 10).await;

    let began = Instant::now();
    let plan = value(&cluster, &["strategy", "plan", "full"]);
    println!("a plan took {:?}", began.elapsed());
    assert!(began.elapsed() < PLAN_WITHIN, "it took {:?}", began.elapsed());
    assert_eq!((&plan["verdict"], &plan["plan"]), (&json!("go"), &json!("P-1")), "{plan}");
    assert_eq!(plan["fields"]["network_stable"], true);
    assert!(plan["fields"]["estimated_impact"].as_f64().is_some_and(|impact| impact < 0.8));
    let predicted = &plan["predicted"];
    assert!(predicted["copy_bytes"].as_u64().is_some_and(|bytes| bytes > 16 << 20), "{predicted}");
    assert!(predicted["took_ms"].as_u64().is_some_and(|ms| ms > 0 && ms < 60_000), "{predicted}");
    assert_eq!(predicted["nodes"].as_array().map(Vec::len), Some(4));
    let probed = |name: &str| {
        let checks = plan["checks"].as_array().expect("checks").iter();
        checks.filter(|check| check["name"] == name && check["verdict"] == "go").count()
    };
    assert_eq!((probed("network"), probed("disk_speed")), (4, 4), "{plan}");

    let next = value(&cluster, &["strategy", "plan", "full"]);
    let mut checks = next["checks"].as_array().expect("checks").iter();
    let network = checks.find(|check| check["name"] == "network").expect("a check");
    assert!(network["age_ms"].as_u64() > Some(0), "a fresh probe serves the next plan: {network}");

    for (what, check, node) in [
        ("disk_free_bytes=1000000", "disk", "n2"),
        ("map_bytes_max=1000", "map_space", "n1"),
        ("certificate_ms=3600000", "certificates", "n3"),
        ("cpu_percent=95", "load", "n2"),
        ("clock_ahead_ms=5000", "clocks", "r1"),
        ("version=9.9.9", "versions", "n3"),
    ] {
        misreport(&cluster, node, what);
        says_no(&cluster, check, node);
        report_the_truth(&cluster, node);
    }
    misreport(&cluster, "all", "behind=r1");
    says_no(&cluster, "replica_lag", "r1");
    report_the_truth(&cluster, "all");

    cluster.node("n3").kill();
    says_no(&cluster, "members", "n3");
    cluster.node("n3").start();
    cluster.wait_ready().await;
    assert_eq!(value(&cluster, &["strategy", "history"]), json!([]), "nothing ever began");

    for command in [
        Command::Probe(ProbeOrder { disk_bytes: 1, peer_bytes: 1 }),
        Command::Echo(Bytes::from_static(b"a user")),
    ] {
        let refused = client.command(command, None, Duration::from_secs(5)).await;
        assert_eq!(refused.expect_err("only nodes may").code, Code::Denied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_binds_a_switch_and_its_commit_is_checked_again() {
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    crate::switch_kills::fill(&client, 8 << 20, 64 << 10).await;
    let plan = || {
        let plan = value(&cluster, &["strategy", "plan", "full"])["plan"].clone();
        plan.as_str().expect("a plan").to_owned()
    };
    let refused = |words: &[&str], code: i32, name: &str| {
        let refused = cluster.ppdb(words).expect(code).json();
        assert_eq!(refused["code"], name, "{refused}");
        refused["message"].as_str().unwrap_or_default().to_owned()
    };

    // The world moves between the plan and the switch.
    let before = plan();
    value(&cluster, &["config", "set", "switch.cool_down", "0s"]);
    let switch = ["strategy", "switch", "full", "--plan", before.as_str()];
    let why = refused(&switch, 5, "PlanOutdated");
    assert!(why.contains(&before) && why.contains("epoch was"), "{why}");
    let why = refused(&["strategy", "prepare", "full", "--plan", "P-999"], 5, "PlanOutdated");
    assert!(why.contains("P-999 was never made"), "{why}");
    let held = plan();
    misreport(&cluster, "n3", "version=9.9.9");
    let switch = ["strategy", "switch", "full", "--plan", held.as_str()];
    let why = refused(&switch, 5, "PlanOutdated");
    assert!(why.contains("n3 ran") && why.contains("9.9.9"), "{why}");
    report_the_truth(&cluster, "n3");
    refused(&["strategy", "switch", "sharded", "--plan", held.as_str()], 5, "OperationConflict");

    // Under the plan that still holds, with a check that is skipped by name.
    misreport(&cluster, "n1", "queue_percent=95");
    let prepare = ["strategy", "prepare", "full", "--plan", held.as_str()];
    assert!(refused(&prepare, 5, "PrecheckFailed").contains("load on n1"));
    let skip = |name: &'static str| [&prepare[..], &["--skip", name]].concat();
    assert!(refused(&skip("members"), 2, "BadRequest").contains("never skipped"));
    assert!(refused(&skip("lod"), 2, "BadRequest").contains("there is no check `lod`"));
    let prepared = value(&cluster, &skip("load"));
    assert_eq!((&prepared["phase"], &prepared["plan"]), (&json!("prepared"), &json!(held)));
    let (op, _) = operation(&cluster);
    assert_eq!((&op["skipped"], &op["by"]), (&json!(["load"]), &json!("user tester")), "{op}");
    assert!(op["predicted"]["copy_bytes"].as_u64() > Some(0), "{op}");

    // The commit is held while a check that was not skipped says no, and nothing is thrown away.
    misreport(&cluster, "n2", "disk_free_bytes=1000000");
    value(&cluster, &["strategy", "commit", "--no-wait"]);
    let since = Instant::now();
    let mut told = 0;
    while since.elapsed() < WATCHED {
        let (op, blocker) = operation(&cluster);
        assert_eq!((&op["phase"], &op["commit_asked"]), (&json!("prepared"), &json!(true)));
        assert_eq!(op["copies_verified"], prepared["copies_verified"]);
        told += u32::from(blocker.as_str().is_some_and(|why| why.starts_with("disk on n2")));
    }
    assert!(told > 0, "nobody said what it waits for");
    report_the_truth(&cluster, "n2");
    let op = wait_phase(&cluster, "soaking");
    report_the_truth(&cluster, "n1");

    // What it cost stands beside what was predicted.
    println!("predicted {}, actual {}, ratio {}", op["predicted"], op["actual"], op["ratio"]);
    let copied = op["actual"]["copy_bytes"].as_u64().expect("copied bytes");
    assert!(copied > 16 << 20, "{op}");
    let ratio = op["ratio"]["copy_bytes"].as_f64().expect("a ratio");
    assert!((0.5..2.0).contains(&ratio), "{op}");
    assert!(op["actual"]["took_ms"].as_u64() > Some(0) && op["ratio"]["took"].is_number(), "{op}");
    let history = value(&cluster, &["strategy", "history"]);
    assert_eq!((&history[0]["ratio"], &history[0]["skipped"]), (&op["ratio"], &json!(["load"])));
    let used =
        refused(&["strategy", "switch", "sharded", "--plan", held.as_str()], 5, "PlanOutdated");
    assert!(used.contains("was used already"), "{used}");
}

/// A switch without a plan makes its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_primary_has_nothing_to_replicate_to_and_two_are_enough_for_a_plan() {
    let shape = |primaries| Shape { primaries, replicas: 0, shards: 2, ..Shape::default() };
    let alone = Cluster::start(shape(1)).await;
    let plan = alone.ppdb(&["strategy", "plan", "full"]).expect(1).json()["value"].clone();
    let checks = plan["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == "redundancy").expect("a check");
    assert_eq!(found["verdict"], "no_go", "{found}");
    let refused = alone.ppdb(&["strategy", "switch", "full"]).expect(5).json();
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("second primary")));
    drop(alone);

    let two = Cluster::start(shape(2)).await;
    let switched = value(&two, &["strategy", "switch", "full"]);
    assert_eq!((&switched["phase"], &switched["plan"]), (&json!("soaking"), &json!("P-1")));
    assert!(switched["predicted"]["took_ms"].as_u64() > Some(0), "{switched}");
}
