//! What nodes say, asked for from anywhere, and how much they say, set while they run.

use crate::harness::{Cluster, Shape, program, wait, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn lines(cluster: &Cluster, words: &[&str]) -> Vec<Value> {
    let answer = cluster.ppdb(&[&["logs"], words].concat()).expect(0).json();
    assert_eq!(answer["value"]["no_answer"], serde_json::json!([]), "{answer}");
    answer["value"]["lines"].as_array().expect("an array").clone()
}

fn from(lines: &[Value], node: &str) -> usize {
    lines.iter().filter(|line| line["node"] == node).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_all_nodes_in_one_place_and_as_loud_as_is_wanted() {
    let mut cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let all = lines(&cluster, &["--limit", "1000"]);
    for node in ["n1", "n2", "n3"] {
        let serving = |l: &Value| l["node"] == node && l["message"] == "serving";
        let line = all.iter().find(|line| serving(line)).unwrap_or_else(|| panic!("{node}"));
        assert_eq!((&line["level"], &line["fields"]["node"]), (&"info".into(), &node.into()));
    }
    let times: Vec<u64> = all.iter().filter_map(|line| line["at_ms"].as_u64()).collect();
    assert!(times.is_sorted() && times.len() == all.len());
    let of_one = lines(&cluster, &["--node", "n2", "--limit", "2"]);
    assert_eq!((of_one.len(), from(&of_one, "n2")), (2, 2), "{of_one:?}");
    assert!(lines(&cluster, &["--level", "error"]).len() < all.len());
    assert!(lines(&cluster, &["--since", "0s"]).is_empty());

    the_level_is_set_while_they_run(&cluster).await;
    what_comes_is_followed(&cluster);

    // A node that is down is named, and the others answer.
    cluster.node("n3").kill();
    let answer = cluster.ppdb(&["logs", "--limit", "1000"]).expect(0).json();
    assert_eq!(answer["value"]["no_answer"], serde_json::json!(["n3"]));
    cluster.ppdb(&["logs", "--follow"]).expect(2);
    cluster.ppdb(&["logs", "--level", "loud"]).expect(2);
}

async fn the_level_is_set_while_they_run(cluster: &Cluster) {
    let debug = || {
        let found = lines(cluster, &["--limit", "1000", "--since", "1s"]);
        ["n1", "n2", "n3"].map(|node| {
            let is_debug = |line: &&Value| line["node"] == node && line["level"] == "debug";
            found.iter().filter(is_debug).count()
        })
    };
    assert_eq!(debug(), [0, 0, 0]);
    let refused = cluster.ppdb(&["config", "set", "log.level", "loud"]).expect(2).json();
    assert_eq!(refused["code"], "BadConfig", "{refused}");
    cluster.ppdb(&["config", "set", "log.level", "debug,ppdb::raft=info"]).expect(0);
    // Each question is a connection, whose end is worth a line at this level.
    let loud = |counts: &[usize; 3]| counts.iter().any(|count| *count > 0);
    let _ = wait_until("debug lines", SOON, async || debug(), loud).await;
    cluster.ppdb(&["config", "set", "log.level", ""]).expect(0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = lines(cluster, &["--limit", "1000"]);
    let after = lines(cluster, &["--limit", "1000"]);
    let is_debug = |line: &&Value| line["level"] == "debug";
    let count = |lines: &[Value]| lines.iter().filter(is_debug).count();
    assert_eq!(count(&before), count(&after), "they say as much as before");
}

/// Each line is printed as soon as it is there; Ctrl-C ends it.
fn what_comes_is_followed(cluster: &Cluster) {
    let mut command = program();
    command.args(["logs", "--follow", "--limit", "1", "-o", "jsonl"]).args(cluster.flags());
    let mut child = command.spawn().expect("the program");
    let mut output = BufReader::new(child.stdout.take().expect("its output"));
    let mut next = || {
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        serde_json::from_str::<Value>(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let first = next();
    assert!(first["log"]["sequence"].is_u64(), "{first}");
    cluster.ppdb(&["config", "set", "reads.default", "session"]).expect(0);
    let mut line = first;
    while line["log"]["message"] != "setting" {
        line = next();
    }
    assert_eq!(line["log"]["fields"]["value"], "session", "{line}");
    assert_eq!(line["log"]["fields"]["by"], "user tester", "{line}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(wait(&mut child, SOON), Some(Some(130)));
}
