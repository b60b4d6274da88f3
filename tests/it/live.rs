//! Live views of a real cluster: what is watched is what was done, and a node that is away holds nobody up.

use crate::harness::{
    Cluster, Ran, Shape, Terminal, get, one, program, set, wait, wait_until, within,
};
use ppdb::client::Client;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// `monitor` under way; made once every node is watched.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
}

impl Watching {
    fn start(cluster: &Cluster, words: &[&str]) -> Self {
        let mut command = program();
        command.arg("monitor").args(words).args(cluster.flags());
        let mut child = command.spawn().expect("the program");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let mut err = BufReader::new(child.stderr.take().expect("its talk"));
        let mut line = String::new();
        err.read_line(&mut line).expect("a line");
        assert!(line.starts_with("watching n1 n2 n3, one in "), "{line}");
        Self { child, out, err }
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    }

    /// What it printed, and the exit code.
    fn end(mut self) -> (String, Option<i32>) {
        // A full pipe would keep it from ending.
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            self.out.read_to_string(&mut text).map(|_| text)
        });
        let code = wait(&mut self.child, SOON).expect("it ends");
        let mut talk = String::new();
        self.err.read_to_string(&mut talk).expect("its talk");
        assert_eq!(talk, "", "it says nothing else");
        (out.join().expect("a thread").expect("its output"), code)
    }

    /// The summary, of more lines than are worth keeping.
    fn read(mut self) -> Value {
        let mut last = String::new();
        let mut line = String::new();
        while self.out.read_line(&mut line).expect("a line") > 0 {
            last = std::mem::take(&mut line);
        }
        let answer: Value = serde_json::from_str(&last).unwrap_or_else(|e| panic!("{e}: {last}"));
        let _ = self.child.wait();
        answer["value"]["summary"].clone()
    }

    /// The operations and the summary of `-o jsonl`.
    fn operations(self) -> (Vec<Value>, Value, Option<i32>) {
        let (out, code) = self.end();
        let mut lines: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        let last = lines.pop().expect("a summary");
        let operations = lines.into_iter().map(|line| line["operation"].clone()).collect();
        (operations, last["value"]["summary"].clone(), code)
    }
}

async fn small() -> Cluster {
    Cluster::start(Shape { replicas: 0, shards: 6, ..Shape::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_watched_is_what_was_done() {
    let cluster = small().await;
    let client = cluster.client().await;
    let options = within(Duration::from_secs(5));
    for key in ["cart:0", "user:0"] {
        one(&client, set(key, "secret"), &options).await.expect("it is stored");
    }
    let flags = ["--sample", "100%", "--match", "cart:*", "--op", "set,get", "-o", "jsonl"];
    let watching = Watching::start(&cluster, &flags);
    let scans = ["--sample", "100%", "--op", "scan,incr", "-o", "jsonl"];
    let of_scans = Watching::start(&cluster, &scans);
    for number in 0..200 {
        let key = format!("cart:{number}");
        one(&client, set(key.clone(), "secret"), &options).await.expect("it is stored");
        one(&client, set(format!("user:{number}"), "secret"), &options)
            .await
            .expect("it is stored");
        one(&client, get(key), &options).await.expect("it is read");
    }
    one(&client, get("cart:absent"), &options).await.expect("it is read");
    cluster.ppdb(&["incr", "cart:count"]).expect(0);
    cluster.ppdb(&["scan", "user:", "--limit", "1"]).expect(0);
    cluster.ppdb(&["incr", "user:0"]).expect(5);
    of_scans.interrupt();
    let (told, summary, _) = of_scans.operations();
    let of = |op: &str, key: &str| {
        let found = told.iter().find(|told| told["op"] == op && told["key"] == key);
        found.unwrap_or_else(|| panic!("{op} {key}: {told:?}"))["outcome"].clone()
    };
    assert_eq!((of("scan", "user:"), of("incr", "cart:count")), (json!("ok"), json!("ok")));
    assert_eq!(of("incr", "user:0"), "NotAnInteger");
    assert!(summary["node_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{summary}");
    watching.interrupt();
    let (operations, summary, code) = watching.operations();
    assert_eq!(code, Some(130));
    for number in 0..200 {
        let of_key = |op: &&Value| op["key"] == format!("cart:{number}");
        let names: Vec<_> = operations.iter().filter(of_key).map(|op| op["op"].clone()).collect();
        assert_eq!(names, ["set", "get"], "cart:{number}");
    }
    assert_eq!(operations.len(), 401, "{summary}");
    let absent = operations.iter().find(|op| op["key"] == "cart:absent").expect("it is told");
    assert_eq!((&absent["outcome"], &absent["by"]), (&json!("absent"), &json!("user tester")));
    assert!(absent["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{absent}");
    let owner = cluster.owner(&client, b"cart:absent").await;
    assert_eq!(absent["node"], owner.as_str());
    assert_eq!((&summary["shown"], &summary["matched"]), (&json!(401), &json!(401)), "{summary}");
    assert_eq!((&summary["dropped"], &summary["one_in"]), (&json!(0), &json!(1)));
    assert!(summary["sampled"].as_u64() >= Some(602), "{summary}");
    let kinds: Vec<_> = summary["kinds"].as_array().into_iter().flatten().collect();
    let counts: Vec<_> = kinds.iter().map(|kind| (&kind["op"], &kind["shown"])).collect();
    assert_eq!(counts, [(&json!("get"), &json!(201)), (&json!("set"), &json!(200))]);
    assert!(!format!("{operations:?}").contains("secret"), "a value is shown");

    some_of_it_for_a_while(&cluster).await;
    whoever_is_too_slow_hears_how_much_was_dropped(&cluster).await;
}

/// One in ten, at one node, until there were so many lines or the time is up.
async fn some_of_it_for_a_while(cluster: &Cluster) {
    let mut load = bench(cluster, "5s");
    let words = ["monitor", "--sample", "1/10", "--node", "n1", "--limit", "25"];
    let ended = cluster.ppdb(&words).expect(0).json();
    let (operations, summary) = (&ended["value"]["operations"], &ended["value"]["summary"]);
    assert_eq!(operations.as_array().map(Vec::len), Some(25), "{summary}");
    assert!(operations.as_array().into_iter().flatten().all(|op| op["node"] == "n1"));
    let text = ppdb_text(cluster, &["monitor", "--sample", "1/10", "--for", "2s", "-o", "table"]);
    assert!(text.contains("by operation: get ") && text.contains("user tester"), "{text}");
    let mut plain = program();
    plain.args(["monitor", "--sample", "1/10", "--for", "1s", "-o", "plain"]).args(cluster.flags());
    let ran = plain.output().expect("the program");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(out.lines().count() > 0 && out.lines().all(|line| line.split('\t').count() == 7));
    assert!(err.contains("by operation: get "), "the summary is talk there: {err}");
    assert_eq!(wait(&mut load, SOON), Some(Some(0)));
    cluster.ppdb(&["monitor"]).expect(2);
}

/// A process that stands still asks for nothing: its queues fill, and the rest is dropped and counted.
async fn whoever_is_too_slow_hears_how_much_was_dropped(cluster: &Cluster) {
    let mut load = bench(cluster, "5s");
    let watching = Watching::start(cluster, &["--sample", "100%", "-o", "jsonl"]);
    let pid = rustix::process::Pid::from_child(&watching.child);
    let signal = |signal| rustix::process::kill_process(pid, signal).expect("a signal");
    signal(rustix::process::Signal::STOP);
    tokio::time::sleep(Duration::from_secs(2)).await;
    signal(rustix::process::Signal::CONT);
    watching.interrupt();
    let (operations, summary, _) = watching.operations();
    let count = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{summary}"));
    assert!(count("dropped") > 0 && count("begun_anew") == 0, "{summary}");
    assert_eq!(count("matched"), count("dropped") + operations.len() as u64, "{summary}");
    assert_eq!(wait(&mut load, SOON), Some(Some(0)), "nothing failed meanwhile");
}

/// A load that goes on meanwhile.
fn bench(cluster: &Cluster, time: &str) -> Child {
    let mut command = program();
    let load = ["--clients", "8", "--pipeline", "4", "--mix", "get=80,set=20", "--keys", "500"];
    command.arg("bench").args(load).args(["--duration", time]).args(cluster.flags());
    command.spawn().expect("the program")
}

fn ppdb_text(cluster: &Cluster, words: &[&str]) -> String {
    let mut command = program();
    let ran = command.args(words).args(cluster.flags()).output().expect("the program");
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ways_and_large_values_are_measured_and_a_node_that_is_away_holds_nobody_up() {
    let mut cluster = small().await;
    let client = cluster.client().await;
    let options = within(Duration::from_secs(5));
    for number in 0..300usize {
        let value = vec![b'v'; 10 + number];
        one(&client, set(format!("item:{number:03}"), value), &options).await.expect("stored");
    }
    for (key, bytes) in [("photo:1", 70_000), ("photo:2", 90_000), ("plain", 80_000)] {
        one(&client, set(key, vec![b'v'; bytes]), &options).await.expect("stored");
    }
    large_values_are_found(&cluster);

    let ways = |cluster: &Cluster, words: &[&str]| {
        let latency = ["latency", "--for", "1s", "--interval", "20ms"];
        cluster.ppdb(&[&latency, words].concat()).expect(0).json()["value"].clone()
    };
    let all = ways(&cluster, &[]);
    for node in all["nodes"].as_array().expect("nodes") {
        let ms = |name: &str| node[name].as_f64().unwrap_or_else(|| panic!("{node}"));
        assert!(node["answered"].as_u64() >= Some(10), "{node}");
        let order = [0.0, ms("min_ms"), ms("p50_ms"), ms("p99_ms"), ms("max_ms")];
        assert!(order.is_sorted() && ms("min_ms") < 500.0, "{node}");
    }
    assert_eq!(all["nodes"].as_array().map(Vec::len), Some(3));
    let words = ["latency", "--for", "4s", "--watch", "--node", "n2", "-o", "jsonl"];
    let text = ppdb_text(&cluster, &words);
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert!(lines.len() >= 3, "{text}");
    assert!(lines.iter().rev().skip(1).all(|line| line["latency"]["node"] == "n2"), "{text}");
    cluster.ppdb(&["latency", "--watch"]).expect(2);

    what_is_wrong_has_a_code(&mut cluster, &client).await;
    let began = Instant::now();
    let two = ways(&cluster, &[]);
    assert_eq!(two["no_answer"], json!(["n3"]));
    assert!(two["nodes"][0]["answered"].as_u64() >= Some(10), "{two}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let watched = cluster.ppdb(&["monitor", "--for", "1s"]).expect(0).json();
    assert_eq!(watched["value"]["summary"]["no_answer"], json!(["n3"]));
}

/// A cluster that is well, and one of which a node is gone.
async fn what_is_wrong_has_a_code(cluster: &mut Cluster, client: &Client) {
    // The disk of this machine is none of its business.
    cluster.set_live(client, "alarm.disk", "100").await;
    let findings =
        |ran: &Ran| ran.json()["value"]["findings"].as_array().cloned().unwrap_or_default();
    let bad = |ran: &Ran| -> Vec<String> {
        let bad = findings(ran).into_iter().filter(|finding| finding["state"] == "bad");
        bad.map(|finding| finding["code"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let look = async || cluster.ppdb(&["doctor"]);
    let well = wait_until("a cluster that is well", SOON, look, |ran| bad(ran).is_empty()).await;
    let all = findings(&well.expect(0));
    let list = cluster.ppdb(&["doctor", "--list"]).expect(0).json();
    for check in list["value"]["checks"].as_array().expect("checks") {
        assert!(all.iter().any(|finding| finding["code"] == check["code"]), "{check}");
    }
    let settings = all.iter().find(|finding| finding["code"] == "D-08").expect("settings");
    assert_eq!(settings["seen"], "set: alarm.disk=100", "{settings}");
    let disks = all.iter().find(|finding| finding["code"] == "D-14").expect("disks");
    assert!(disks["seen"].as_str().is_some_and(|seen| seen.contains(" % of the disk")), "{disks}");

    cluster.node("n3").kill();
    let ran = cluster.ppdb(&["doctor"]).expect(1);
    assert!(bad(&ran).contains(&"D-01".to_owned()), "{ran:?}");
    let gone = &findings(&ran)[0];
    let addr = cluster.node("n3").addr;
    let fix = format!("ppdb serve --primary --name n3 --listen {addr} --data-dir DIR");
    assert_eq!((&gone["code"], &gone["fix"]), (&json!("D-01"), &json!(fix)), "{gone}");
}

fn large_values_are_found(cluster: &Cluster) {
    let words = ["keys", "big", "--limit", "3", "--page", "50"];
    let found = cluster.ppdb(&words).expect(0).json()["value"].clone();
    let largest = json!([
        { "key": "photo:2", "bytes": 90_000 }, { "key": "plain", "bytes": 80_000 },
        { "key": "photo:1", "bytes": 70_000 },
    ]);
    assert_eq!(found["keys"], largest, "{found}");
    assert_eq!((&found["looked_at"], &found["stopped_by"]), (&json!(303), &json!("all")));
    let items: usize = (0..300).map(|number| 10 + number).sum();
    let item = json!({ "prefix": "item:", "keys": 300, "bytes": items });
    assert!(found["prefixes"].as_array().is_some_and(|all| all.contains(&item)), "{found}");
    let of_prefix = cluster.ppdb(&["keys", "big", "--prefix", "item:", "--max-keys", "100"]);
    let found = of_prefix.expect(0).json()["value"].clone();
    assert_eq!((&found["looked_at"], &found["stopped_by"]), (&json!(100), &json!("max_keys")));
    assert_eq!(found["keys"][0], json!({ "key": "item:099", "bytes": 109 }), "{found}");
    let cursor = found["cursor"].as_str().expect("a cursor");
    let words = ["keys", "big", "--prefix", "item:", "--cursor", cursor];
    assert_eq!(cluster.ppdb(&words).expect(0).json()["value"]["looked_at"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_screen_shows_the_cluster_and_gives_the_terminal_back() {
    let mut cluster = small().await;
    let refused = cluster.ppdb(&["top"]).expect(2).json();
    assert!(refused["message"].as_str().is_some_and(|why| why.contains("stats --watch")));

    let cluster_dir = cluster.dir().to_owned();
    let terminal = Terminal::with("sh", &cluster_dir, &[], &[]);
    terminal.line("PS1=ready\\>");
    // The whole screen each time: it is drawn over, and no line follows another.
    let shows = async |texts: &[&str]| {
        let look = async || terminal.screen().join("\n");
        let is_there = |screen: &String| texts.iter().all(|text| screen.contains(text));
        wait_until(&format!("{texts:?}"), SOON, look, is_there).await
    };
    // The shell writes its number down, and becomes the program.
    let (program, flags) = (env!("CARGO_BIN_EXE_ppdb"), cluster.flags().join(" "));
    let becomes = |words: &str| format!("sh -c 'echo $$ > pid; exec {program} {words} {flags}'");
    let terminate = || {
        let pid = std::fs::read_to_string(cluster_dir.join("pid")).expect("its number");
        let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a number"), rustix::process::Signal::TERM)
            .expect("a signal");
    };
    let line = becomes("top --interval 300ms");
    let top = async || {
        terminal.text(&line);
        terminal.keys(&["Enter"]);
        shows(&["1 nodes", "READS/S", "n1", "3 of 3 up", "q ends"]).await
    };
    top().await;
    terminal.keys(&["Tab"]);
    let shards = shows(&["OWNER", "FURTHEST", "s5"]).await;
    assert!(!shards.contains("READS/S"), "{shards}");
    terminal.keys(&["4"]);
    shows(&["4 alarms"]).await;
    terminal.keys(&["1"]);
    cluster.node("n3").kill();
    shows(&["2 of 3 up", "DOWN"]).await;
    cluster.node("n3").start();
    shows(&["3 of 3 up"]).await;
    terminal.keys(&["q"]);
    is_given_back(&terminal);

    top().await;
    terminal.keys(&["C-c"]);
    is_given_back(&terminal);

    top().await;
    terminate();
    is_given_back(&terminal);

    // A shell in which it was drawn still ends when it is told to.
    terminal.line(&becomes("shell --no-history"));
    terminal.see("ppdb:it ", SOON);
    terminal.line("top --interval 300ms");
    shows(&["READS/S", "3 of 3 up"]).await;
    terminal.keys(&["q"]);
    terminal.wait("a prompt", SOON, |lines| {
        lines.last().is_some_and(|line| line.starts_with("ppdb:it ") && line.ends_with('>'))
    });
    terminate();
    is_given_back(&terminal);
}

/// What was on the screen before is there again, and the terminal takes lines, and shows them.
fn is_given_back(terminal: &Terminal) {
    terminal.wait("a prompt", SOON, |lines| lines.last().is_some_and(|line| line == "ready>"));
    terminal.line("echo \"ended $?\" $(stty -a | grep -o -e '-*icanon' -e '-*echo ')");
    let lines = terminal.see("ended 0 icanon echo", SOON);
    assert!(!lines.iter().any(|line| line.contains("READS/S")), "{lines:?}");
}

/// What a process has spent on processors so far.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name before that may hold blanks.
    let numbers = stat.rsplit_once(')').expect("a name").1;
    let ticks = numbers.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 1_000 / rustix::param::clock_ticks_per_second())
}

/// Prints what watching costs at full load, and holds it against its bound: the processor time of `monitor` itself and
/// the timed path in the nodes together are under 3 % of what the nodes spend. Needs an optimized build, and a machine
/// that does nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half a minute: run it with `cargo test --test it -- --ignored --nocapture what_watching_costs`"]
async fn what_watching_costs_at_full_load() {
    let cluster = small().await;
    let pids: Vec<u32> = cluster.nodes.iter().filter_map(|node| node.pid()).collect();
    let nodes_cpu = || pids.iter().map(|pid| cpu(*pid)).sum::<Duration>();
    let load = |seconds: &str| {
        let shape = ["--clients", "64", "--mix", "get=90,set=10", "--keys", "20000"];
        let before = nodes_cpu();
        let ran = cluster.ppdb(&[&["bench"], &shape[..], &["--duration", seconds]].concat());
        let report = ran.expect(0).json();
        (nodes_cpu() - before, report["rate"].as_f64().unwrap_or_default())
    };
    load("3s");
    println!(
        "sample   nodes' cpu ms   monitor's cpu ms   nodes' watching ms   share   requests/s   shown   dropped"
    );
    for sample in ["none", "1%", "none", "1%", "none", "100%"] {
        if sample == "none" {
            let (nodes, rate) = load("5s");
            println!(
                "{sample:6}   {:13}   {:16}   {:18}   {:>5}   {rate:.0}",
                nodes.as_millis(),
                0,
                0,
                "-"
            );
            continue;
        }
        let watching = Watching::start(&cluster, &["--sample", sample, "-o", "jsonl"]);
        let out = watching.child.id();
        let began = cpu(out);
        let reading = std::thread::spawn(move || watching.read());
        let (nodes, rate) = load("5s");
        let own = cpu(out) - began;
        let pid = rustix::process::Pid::from_raw(out as i32).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
        let summary = reading.join().expect("a summary");
        let watched_ms = summary["node_ms"].as_f64().unwrap_or_default();
        let share = (own.as_secs_f64() + watched_ms / 1_000.0) / nodes.as_secs_f64();
        println!(
            "{sample:6}   {:13}   {:16}   {watched_ms:18.1}   {:4.1}%   {rate:.0}   {}   {}",
            nodes.as_millis(),
            own.as_millis(),
            share * 100.0,
            summary["shown"],
            summary["dropped"]
        );
        assert!(sample != "1%" || share < 0.03, "{share}: {summary}");
    }
}
