//! What nodes say of their load, on real processes under a load of which half goes to one key: rates that are those of
//! the clients, the hot key on top, and a node that is down shown as such.

use crate::harness::{Cluster, Shape, get, one, program, set, wait, within};
use ppdb::client::Client;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const MINUTE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 8;
/// Enough for some hundred samples.
const SPAN: Duration = Duration::from_secs(4);
const HOT: &str = "hot:key";
/// Every second operation is on the hot key; of its operations every fourth is a write.
const WRITE_EVERY: usize = 4;

#[derive(Default)]
struct Done {
    hot: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
}

struct Load {
    began: Instant,
    stop: Arc<AtomicBool>,
    done: Arc<Done>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(Done::default()));
        let mut clients = JoinSet::new();
        for of in 0..CLIENTS {
            let (client, stop, done) = (client.clone(), stop.clone(), done.clone());
            clients.spawn(async move { ask(&client, of, &stop, &done).await });
        }
        Self { began: Instant::now(), stop, done, clients }
    }

    /// Operations a second so far.
    fn rate(&self, of: fn(&Done) -> &AtomicU64) -> f64 {
        of(&self.done).load(Ordering::Relaxed) as f64 / self.began.elapsed().as_secs_f64()
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
    }
}

async fn ask(client: &Client, of: usize, stop: &AtomicBool, done: &Done) {
    for number in of.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let is_hot = number % 2 == 0;
        let key = if is_hot { HOT.to_owned() } else { format!("cold:{}", number % 3_001) };
        let is_write = is_hot && number / 2 % WRITE_EVERY == 0;
        let op = if is_write { set(key, "value") } else { get(key) };
        one(client, op, &within(MINUTE)).await.expect("an answer");
        done.hot.fetch_add(u64::from(is_hot), Ordering::Relaxed);
        let kind = if is_write { &done.writes } else { &done.reads };
        kind.fetch_add(1, Ordering::Relaxed);
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Within a factor of two.
fn assert_near(what: &str, told: f64, truth: f64) {
    println!("{what}: told {told:.0}, true {truth:.0}");
    assert!(told > truth / 2.0 && told < truth * 2.0, "{what}: told {told:.0}, true {truth:.0}");
}

/// Two objects of `stats --watch`, and its end by Ctrl-C.
fn watched(cluster: &Cluster) {
    let mut command = program();
    command.args(["stats", "--watch", "--every", "200ms", "-o", "jsonl"]).args(cluster.flags());
    let mut child = command.stderr(Stdio::null()).spawn().expect("the program");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    for line in lines.take(2) {
        let told: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        assert_eq!((&told["v"], &told["ok"]), (&json!(1), &json!(true)), "{told}");
        assert_eq!(told["value"]["nodes"].as_array().map(Vec::len), Some(3), "{told}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    assert_eq!(wait(&mut child, Duration::from_secs(10)), Some(Some(130)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_and_the_rates_of_nodes_are_told_as_they_are() {
    let mut cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    let owner = cluster.owner(&client, HOT.as_bytes()).await;
    let load = Load::start(&client);
    tokio::time::sleep(SPAN).await;

    let hot = cluster.ppdb(&["keys", "hot", "--limit", "3"]).expect(0).json();
    let true_hot = load.rate(|done| &done.hot);
    let stats = cluster.ppdb(&["stats"]).expect(0).json();
    let (true_reads, true_writes) = (load.rate(|done| &done.reads), load.rate(|done| &done.writes));
    watched(&cluster);
    load.end().await;

    let keys = hot["value"]["keys"].as_array().expect("an array");
    assert_eq!(keys.len(), 3, "{hot}");
    assert_eq!(keys[0]["key"], HOT, "{hot}");
    assert_near("operations on the hot key", number(&keys[0]["ops_per_s"]), true_hot);
    assert_near("its share in percent", number(&keys[0]["share"]) * 100.0, 50.0);
    assert_eq!(
        (&keys[0]["nodes"], &keys[0]["mostly"]),
        (&json!([owner.as_str()]), &json!("reads"))
    );
    assert!(number(&keys[0]["writes_per_s"]) > 0.0, "{hot}");
    assert!(number(&keys[1]["ops_per_s"]) < true_hot / 4.0, "the others are cold: {hot}");

    let total = &stats["value"]["total"];
    assert_near("reads", number(&total["reads_per_s"]), true_reads);
    assert_near("writes", number(&total["writes_per_s"]), true_writes);
    assert!(number(&total["read_p99_ms"]) > 0.0 && number(&total["write_bytes_per_s"]) > 0.0);
    assert_eq!(
        (&total["errors_per_s"], &total["refused_per_s"]["read"]),
        (&json!(0.0), &json!(0.0))
    );
    let nodes = stats["value"]["nodes"].as_array().expect("an array");
    assert!(nodes.iter().all(|node| node["answered"] == true), "{stats}");

    // A shell that is driven gets one answer for each line.
    let mut shell = cluster.shell(&[]);
    assert_eq!(shell.code("stats --watch"), "BadRequest");
    assert_eq!(shell.value("keys hot --limit 1")["keys"][0]["key"], HOT);
    assert_eq!(shell.finish(), Some(0));

    cluster.node("n3").kill();
    let stats = cluster.ppdb(&["stats"]).expect(0).json();
    let nodes = stats["value"]["nodes"].as_array().expect("an array");
    let answered: Vec<&Value> = nodes.iter().map(|node| &node["answered"]).collect();
    assert_eq!(answered, [true, true, false], "{stats}");
}
