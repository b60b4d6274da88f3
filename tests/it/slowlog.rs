//! The slow log says where the time of a request went: a slow disk shows in its `wal` phase, and nowhere else.

use crate::harness::{Cluster, Shape, get, one, set, wait_until, within};
use serde_json::{Value, json};
use std::time::Duration;

/// How much longer each fdatasync takes, and how long until a node sees that.
const SLOW_MS: u64 = 60;
const FAULT_SEEN_AFTER: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

fn slow(cluster: &Cluster, words: &[&str]) -> Vec<Value> {
    let answer = cluster.ppdb(&[&["slowlog"], words].concat()).expect(0).json();
    assert_eq!(answer["value"]["no_answer"], json!([]), "{answer}");
    answer["value"]["requests"].as_array().expect("an array").clone()
}

fn of_key<'a>(all: &'a [Value], key: &str) -> Option<&'a Value> {
    all.iter().find(|request| request["key"] == key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_shows_in_the_phase_of_the_log() {
    let cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    let options = within(Duration::from_secs(5));
    one(&client, set("before", "x"), &options).await.expect("it is stored");
    cluster.nodes.iter().for_each(|node| node.plant("fsync.slow", &SLOW_MS.to_string()));
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    one(&client, set("slow:\n1", "secret"), &options).await.expect("it is stored");
    cluster.nodes.iter().for_each(|node| node.mend("fsync.slow"));
    tokio::time::sleep(FAULT_SEEN_AFTER).await;
    one(&client, get("quick"), &options).await.expect("it is read");

    let all = slow(&cluster, &[]);
    let found = of_key(&all, "slow:\\n1").unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!((&found["kind"], &found["operations"]), (&json!("write"), &json!(1)), "{found}");
    assert_eq!((&found["by"], &found["code"]), (&json!("user tester"), &Value::Null), "{found}");
    let ms = |of: &Value| of.as_f64().unwrap_or_else(|| panic!("{found}"));
    let (total, phases) = (ms(&found["total_ms"]), &found["phases"]);
    assert!(ms(&phases["wal_ms"]) >= SLOW_MS as f64, "{found}");
    for other in ["queue_ms", "commit_ms", "apply_ms"] {
        assert!(ms(&phases[other]) < SLOW_MS as f64 / 2.0, "{other}: {found}");
    }
    let names = ["queue_ms", "wal_ms", "commit_ms", "apply_ms"];
    let sum: f64 = names.iter().map(|name| ms(&phases[*name])).sum();
    assert!((total - sum).abs() < 2.0, "the phases are the whole: {found}");
    assert!(!format!("{all:?}").contains("secret"), "a value is shown");
    assert!(of_key(&all, "quick").is_none(), "{all:?}");
    let node = found["node"].as_str().expect("a node");
    assert!(of_key(&slow(&cluster, &["--node", node, "--limit", "128"]), "slow:\\n1").is_some());

    // The threshold is a live setting; zero keeps everything.
    cluster.set_live(&client, "slow_log.threshold", "0s").await;
    let kept = async || {
        one(&client, get("quick"), &options).await.expect("it is read");
        of_key(&slow(&cluster, &["--limit", "128"]), "quick").cloned()
    };
    let read = wait_until("a read", SOON, kept, Option::is_some).await.expect("just checked");
    assert_eq!(read["kind"], "read", "{read}");
    assert!(read["phases"]["read_ms"].is_number() && read["phases"]["wait_ms"].is_number());
    cluster.ppdb(&["scan", "slow:"]).expect(0);
    let scans = slow(&cluster, &["--limit", "128"]);
    let scan = scans.iter().find(|request| request["kind"] == "scan");
    assert_eq!(scan.expect("a scan")["key"], "slow:", "{scans:?}");
    let refused = cluster.ppdb(&["config", "set", "slow_log.threshold", "61s"]).expect(2).json();
    assert_eq!(refused["code"], "BadConfig", "{refused}");
}
