//! The switch as an operator gives it: commands with their exit codes, the runbooks that are shipped, a shell
//! that notices, and whoever leaves changes nothing.

use crate::harness::{Cluster, Shape, program, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn script(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    path.to_str().expect("a plain path").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_by_commands_and_by_runbooks() {
    let cluster = Cluster::start(Shape::default()).await;
    let mut shell = cluster.shell(&[]);
    for i in 0..30 {
        shell.value(&format!("set doors:{i} {i}"));
    }
    let value = |words: &[&str]| cluster.ppdb(words).expect(0).json()["value"].clone();

    // By hand, one order after the other.
    assert_eq!(value(&["strategy", "show"])["operation"], Value::Null);
    assert_eq!(value(&["strategy", "plan", "full"])["verdict"], "go");
    let refused = cluster.ppdb(&["strategy", "commit"]).expect(5).json();
    assert_eq!(refused["code"], "OperationConflict");
    let refused = cluster.ppdb(&["strategy", "switch", "sharded"]).expect(5).json();
    assert_eq!(refused["class"], "fix", "{refused}");
    assert_eq!(value(&["strategy", "prepare", "full"])["phase"], "prepared");
    assert_eq!(value(&["strategy", "abort", "--reason", "not yet"])["phase"], "aborted");
    assert_eq!(cluster.ppdb(&["strategy", "watch"]).expect(1).json()["value"]["reason"], "not yet");

    // By runbook; a rehearsal first, which orders nothing.
    let presale = script("presale.rhai");
    let rehearsal = cluster.ppdb(&["run", &presale, "--dry-run"]).expect(0).json();
    assert_eq!(rehearsal["result"]["strategy"], "full");
    assert_eq!(value(&["strategy", "history"]).as_array().map(Vec::len), Some(1));
    let there = cluster.ppdb(&["run", &presale]).expect(0).json();
    assert_eq!((&there["ok"], &there["result"]["equal"]), (&json!(true), &json!(true)), "{there}");
    assert_eq!(value(&["strategy", "show"])["strategy"], "full");
    let again = cluster.ppdb(&["run", &presale]).expect(0).json();
    assert_eq!(again["calls"].as_array().map(Vec::len), Some(1), "only compared: {again}");

    // The shell has been there all the time, and is told by nobody.
    let served_by = |shell: &mut crate::harness::Shell, count: usize| -> BTreeSet<String> {
        let ask = |i| shell.ask(&format!("get doors:{}", i % 30))["served_by"].to_string();
        (0..count).map(ask).collect()
    };
    let everywhere = BTreeSet::from(["\"n1\"", "\"n2\"", "\"n3\""].map(str::to_owned));
    let (mut one_key, started) = (BTreeSet::new(), Instant::now());
    while one_key != everywhere {
        one_key.insert(shell.ask("get doors:1")["served_by"].to_string());
        assert!(started.elapsed() < Duration::from_secs(20), "one key is read at {one_key:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(value(&["config", "set", "reads.default", "local"])["value"], "local");
    let started = Instant::now();
    while !served_by(&mut shell, 30).contains("\"r1\"") {
        assert!(started.elapsed() < Duration::from_secs(20), "no read goes to the replica");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!shell.ask("get doors:1 --level linearizable")["served_by"].to_string().contains("r1"));
    cluster.ppdb(&["config", "set", "reads.default", "often"]).expect(2);

    let back = cluster.ppdb(&["run", &script("postsale.rhai")]).expect(0).json();
    assert_eq!(
        (&back["ok"], &back["result"]["strategy"]),
        (&json!(true), &json!("sharded")),
        "{back}"
    );
    let history = value(&["strategy", "history"]);
    assert_eq!(history[1]["phase"], "reverted");
    assert_eq!(value(&["shard", "verify"])["equal"], true);
    assert_eq!(shell.finish(), Some(0));
}

/// Ctrl-C ends a script and nothing else: what it prepared stays, and the last line says what to do about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_changes_nothing() {
    let cluster = Cluster::start(Shape::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wait.rhai");
    std::fs::write(&path, "step(\"s\", || strategy.prepare(\"full\").wait());\nsleep(\"1h\");\n")
        .expect("a script");
    let mut command = program();
    command.arg("run").arg(&path).args(["-o", "json"]).args(cluster.flags());
    let mut child = command.spawn().expect("the program");
    let phase = || {
        let shown = cluster.ppdb(&["strategy", "show"]).expect(0).json();
        shown["value"]["operation"]["phase"].as_str().unwrap_or_default().to_owned()
    };
    let started = Instant::now();
    while phase() != "prepared" {
        assert!(started.elapsed() < Duration::from_secs(40), "it was never prepared");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(wait(&mut child, Duration::from_secs(10)), Some(Some(130)));
    let mut out = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    let summary: Value = serde_json::from_str(&out).expect("one object");
    assert_eq!((&summary["ok"], &summary["code"]), (&json!(false), &json!("Interrupted")));
    let left = summary["left_running"].as_str().unwrap_or_default();
    assert!(left.contains("strategy show") && left.contains("strategy abort"), "{summary}");
    assert_eq!(phase(), "prepared", "the operation is the cluster's");
    assert_eq!(cluster.ppdb(&["strategy", "abort"]).expect(0).json()["value"]["phase"], "aborted");
}
