//! What monitors see: metrics over the endpoint, alarms with their thresholds, the check, the rules, and the four
//! figures of the journal, which survive every restart.

use crate::harness::{Cluster, Ran, Shape, Wrap, command, one, ppdb, set, wait, within};
use ppdb::client::CallOptions;
use ppdb::telemetry::metrics::METRICS;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Longest wait for something to be seen: alarms are judged once a second and asked for every two.
const SEEN_WITHIN: Duration = Duration::from_secs(30);
const RUN_WITHIN: Duration = Duration::from_secs(20);

/// Every node with its endpoint for metrics, at a port that the system chooses.
fn watched(tls: &str) -> Shape {
    let env = [("PPDB_METRICS_LISTEN", "127.0.0.1:0"), ("PPDB_METRICS_TLS", tls)];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Shape { shards: 3, wrap: Wrap { env, ..Wrap::default() }, ..Shape::default() }
}

/// Where a node's metrics are, as its log says.
fn address(cluster: &Cluster, node: usize) -> String {
    let log = cluster.nodes[node].log();
    let line = log.lines().rev().find(|line| line.contains("metrics at "));
    let url = line.unwrap_or_else(|| panic!("no endpoint in {log}")).split("metrics at ").nth(1);
    let address = url.and_then(|url| url.split('/').nth(2));
    address.expect("an address").to_owned()
}

/// Runs a program of the system with some input.
fn run(name: &str, args: &[&str], input: &str) -> Ran {
    let began = Instant::now();
    let mut program = command(name);
    program.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = program.spawn();
    let mut child =
        spawned.unwrap_or_else(|e| panic!("{name}: {e}; .ci/run installs what is needed"));
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let text = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            std::io::read_to_string(stream.expect("output")).unwrap_or_default()
        })
    };
    let out = text(child.stdout.take().map(|s| Box::new(s) as _));
    let err = text(child.stderr.take().map(|s| Box::new(s) as _));
    let code = wait(&mut child, RUN_WITHIN).unwrap_or_else(|| panic!("{name} {args:?} hangs"));
    let _ = writer.join();
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    Ran { code, out, err, took: began.elapsed() }
}

/// Names of the families in a text.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

/// The value of the first series that begins so.
fn sample(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn value(cluster: &Cluster, words: &[&str]) -> Value {
    cluster.ppdb(words).expect(0).json()["value"].clone()
}

fn metrics(cluster: &Cluster, node: &str) -> String {
    value(cluster, &["metrics", "show", "--node", node]).as_str().expect("text").to_owned()
}

/// Looks until it holds.
fn until<T>(what: &str, mut look: impl FnMut() -> (T, bool)) -> T {
    let began = Instant::now();
    loop {
        let (seen, holds) = look();
        if holds {
            return seen;
        }
        assert!(began.elapsed() < SEEN_WITHIN, "not within {SEEN_WITHIN:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Looks at `status` of a node until an alarm is there, or is not.
fn alarm(cluster: &Cluster, node: &str, name: &str, wanted: bool) -> Value {
    until(&format!("alarm {name}: {wanted}"), || {
        let status = value(cluster, &["status", "--node", node]);
        let all = status["alarms"].as_array().cloned().unwrap_or_default();
        let found = all.into_iter().find(|alarm| alarm["name"] == name);
        let holds = found.is_some() == wanted;
        (found.unwrap_or_default(), holds)
    })
}

fn set_live(cluster: &Cluster, name: &str, value: &str) {
    cluster.ppdb(&["config", "set", name, value]).expect(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_scraped_with_a_certificate_and_each_name_is_documented() {
    let cluster = Cluster::start(watched("on")).await;
    let client = cluster.client().await;
    one(&client, set("a", "1"), &within(RUN_WITHIN)).await.expect("a write");
    let (cert, key) = cluster.certs.pair("user-tester");
    let text = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let (ca, cert, key) = (text(&cluster.certs.ca()), text(&cert), text(&key));
    let at = address(&cluster, 0);
    let port = at.rsplit(':').next().expect("a port");
    let url = format!("https://n1.it.ppdb.internal:{port}/metrics");
    let way = format!("::127.0.0.1:{port}");
    let known = ["-sS", "--fail", "--cacert", &ca, "--connect-to", &way];
    let scraped = run("curl", &[&known[..], &["--cert", &cert, "--key", &key, &url]].concat(), "");
    let scraped = scraped.expect(0).out;
    let stranger = run("curl", &[&known[..], &[&url]].concat(), "");
    assert_ne!(stranger.code, Some(0), "without a certificate: {stranger:?}");
    let other = format!("https://n1.it.ppdb.internal:{port}/");
    let other = run("curl", &[&known[..], &["--cert", &cert, "--key", &key, &other]].concat(), "");
    assert_eq!(other.code, Some(22), "only /metrics: {other:?}");
    // What is scraped is what is documented, and what a node says by itself.
    let documented: BTreeSet<String> = METRICS.iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(&families(&scraped) - &documented, BTreeSet::new());
    assert_eq!(families(&scraped), families(&metrics(&cluster, "n1")));
    let listed = value(&cluster, &["metrics", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(METRICS.len()));
    // What only an operation, an alarm or the coordinator has is not there yet.
    let absent: Vec<String> = (&documented - &families(&scraped)).into_iter().collect();
    let later = |name: &String| {
        ["ppdb_alarm_active", "ppdb_switch_", "ppdb_last_switch_", "ppdb_copy_age_seconds"]
            .iter()
            .any(|begin| name.starts_with(begin))
    };
    assert!(absent.iter().all(later), "{absent:?}");
    assert!(
        scraped
            .lines()
            .any(|line| line.starts_with("ppdb_requests_total{class=\"write\",code=\"ok\"}")
                || line.starts_with("ppdb_requests_total{class=\"session\",code=\"ok\"}"))
    );
    // Prometheus' own tool has nothing to say against it, nor against the rules.
    let checked = run("promtool", &["check", "metrics"], &scraped);
    assert_eq!((checked.code, checked.text().trim()), (Some(0), ""), "{checked:?}");
    let rules = value(&cluster, &["metrics", "rules"]).as_str().expect("text").to_owned();
    let file = cluster.dir().join("rules.yml");
    std::fs::write(&file, rules).expect("a file");
    let checked = run("promtool", &["check", "rules", &text(&file)], "").expect(0);
    assert!(checked.out.contains("11 rules found"), "{checked:?}");
    client.close().await;
}

/// A request that waits for that disk takes longer than a node works on it.
const TOO_SLOW_MS: &str = "300";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_fail_a_full_table_and_a_switch_that_stands_still_are_alarms() {
    let mut cluster = Cluster::start(Shape { shards: 3, ..Shape::default() }).await;
    let client = cluster.client().await;
    set_live(&cluster, "alarm.switch_stuck", "10s");
    set_live(&cluster, "safety.timeout_ms", "100");
    cluster.node("n1").plant("report", "map_bytes_max=1000");
    cluster.node("n1").plant("fsync.slow", TOO_SLOW_MS);
    let load = tokio::spawn(async move {
        let once = CallOptions { retry: false, ..within(RUN_WITHIN) };
        for number in 0.. {
            let ops = (0..20).map(|i| set(format!("k{}", number * 20 + i), "v"));
            let asked = ops.map(|op| one(&client, op, &once));
            futures_util::future::join_all(asked).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(alarm(&cluster, "n2", "map", true)["subject"], "n1");
    let failing = alarm(&cluster, "n2", "error_rate", true);
    assert_eq!(failing["subject"], "n1", "{failing}");
    load.abort();
    cluster.node("n1").mend("report");
    cluster.node("n1").mend("fsync.slow");
    set_live(&cluster, "safety.timeout_ms", "5000");
    alarm(&cluster, "n2", "error_rate", false);
    alarm(&cluster, "n2", "map", false);

    // Nothing moves while a target stands still.
    let begun = value(&cluster, &["strategy", "prepare", "full", "--no-wait"]);
    cluster.node("n3").pause();
    let stuck = alarm(&cluster, "n1", "switch_stuck", true);
    let id = begun["id"].to_string();
    assert!(stuck["subject"].as_str().is_some_and(|subject| subject.contains(&id)), "{stuck}");
    cluster.node("n3").resume();
    alarm(&cluster, "n1", "switch_stuck", false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_come_with_their_thresholds_and_go_with_their_causes() {
    let mut cluster = Cluster::start(watched("off")).await;
    let check = |cluster: &Cluster, args: &[&str]| cluster.ppdb(&[&["check"], args].concat());
    let calm = check(&cluster, &[]).expect(0).json()["value"].clone();
    assert_eq!((&calm["state"], &calm["figures"]["nodes_up"]), (&"OK".into(), &4.into()), "{calm}");
    // Over plain HTTP on this machine, because that was chosen.
    let url = format!("http://{}/metrics", address(&cluster, 3));
    let scraped = run("curl", &["-sS", "--fail", &url], "").expect(0).out;
    assert_eq!(sample(&scraped, "ppdb_cluster_healthy"), Some(1.0));

    // What is seen by one node is shown by every other, too.
    set_live(&cluster, "alarm.certificate", "90d");
    let seen = alarm(&cluster, "n1", "certificate", true);
    assert_eq!(seen["severity"], "warning", "{seen}");
    assert!(!seen["fix"].as_str().unwrap_or_default().is_empty());
    until("the alarm of r1 on n2", || {
        let status = value(&cluster, &["status", "--node", "n2"]);
        let all = status["alarms"].as_array().cloned().unwrap_or_default();
        ((), all.iter().any(|alarm| alarm["subject"] == "r1"))
    });
    let warned = check(&cluster, &["--format", "nagios"]).expect(1).json()["value"].clone();
    let line = warned.as_str().unwrap_or_default().to_owned();
    assert!(line.starts_with("PPDB WARNING - the certificate of "), "{line}");
    assert!(line.contains(" | nodes_up=4;;;0;4 "), "{line}");
    set_live(&cluster, "alarm.certificate", "14d");
    alarm(&cluster, "n1", "certificate", false);

    // A slow disk, a wrong clock and a node that is gone at the same time.
    set_live(&cluster, "alarm.fsync_p99", "100ms");
    set_live(&cluster, "alarm.node_down", "2s");
    set_live(&cluster, "alarm.lag", "1s");
    set_live(&cluster, "alarm.disk", "1");
    set_live(&cluster, "alarm.breaker_open", "1s");
    cluster.ppdb(&["breaker", "open", "n3", "--class", "copy", "--for", "30s"]).expect(0);
    cluster.node("n2").plant("clock.offset", "-5000");
    cluster.node("n3").plant("fsync.slow", "120");
    cluster.node("r1").kill();
    let client = cluster.client().await;
    let load = tokio::spawn(async move {
        for number in 0..400 {
            let _ = one(&client, set(format!("k{number}"), "v"), &within(RUN_WITHIN)).await;
        }
    });
    let down = alarm(&cluster, "n1", "node_down", true);
    assert_eq!((&down["subject"], &down["severity"]), (&"r1".into(), &"critical".into()));
    assert_eq!(alarm(&cluster, "n1", "clock", true)["subject"], "n2");
    assert_eq!(alarm(&cluster, "n1", "fsync_p99", true)["subject"], "n3");
    let late = alarm(&cluster, "n1", "lag", true)["subject"].clone();
    assert!(late.as_str().is_some_and(|late| late.ends_with(" on r1")), "{late}");
    alarm(&cluster, "n2", "disk", true);
    let held = alarm(&cluster, "n1", "breaker_open", true)["subject"].clone();
    assert!(held.as_str().is_some_and(|held| held.ends_with(" to n3, copy")), "{held}");
    let text = metrics(&cluster, "n1");
    assert_eq!(sample(&text, "ppdb_node_up{node=\"r1\"}"), Some(0.0));
    assert_eq!(sample(&text, "ppdb_cluster_healthy"), Some(0.0));
    assert_eq!(sample(&text, "ppdb_cluster_available"), Some(1.0));
    let series = "ppdb_alarm_active{alarm=\"node_down\",subject=\"r1\",severity=\"critical\"}";
    assert_eq!(sample(&text, series), Some(1.0), "{text}");
    let offset = sample(&metrics(&cluster, "n2"), "ppdb_clock_offset_seconds");
    assert!(offset.is_some_and(|offset| (-6.0..=-4.0).contains(&offset)), "{offset:?}");
    let critical = check(&cluster, &["--format", "nagios"]).expect(2);
    let line = critical.json()["value"].as_str().unwrap_or_default().to_owned();
    assert!(line.contains("CRITICAL: r1 is not heard; start it with `ppdb serve`"), "{line}");
    load.abort();
    cluster.node("n2").mend("clock.offset");
    cluster.node("n3").mend("fsync.slow");
    cluster.node("r1").start();
    alarm(&cluster, "n1", "node_down", false);
    alarm(&cluster, "n1", "clock", false);
    // Who reads the log only is told, too.
    let log = cluster.node("n1").log();
    assert!(log.contains("alarm: r1 is not heard") && log.contains("alarm over"), "{log}");

    // Nobody is left to be asked.
    cluster.kill_all();
    let gone = check(&cluster, &["--format", "nagios"]).expect(2);
    assert!(gone.json()["value"].as_str().unwrap_or_default().starts_with("PPDB CRITICAL - "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_figures_of_the_journal_agree_with_the_history_through_restarts() {
    // Copies are sent as tables, even of little data.
    let env = vec![("PPDB_TEST_LOG_KEEP_BYTES".to_owned(), "16384".to_owned())];
    let wrap = Wrap { env, ..Wrap::default() };
    let mut cluster = Cluster::start(Shape { shards: 3, wrap, ..Shape::default() }).await;
    set_live(&cluster, "switch.cool_down", "0s");
    let order = |words: &[&str]| drop(cluster.ppdb(words).expect(0));
    order(&["strategy", "switch", "full"]);
    order(&["strategy", "revert"]);
    every_metric_has_a_value_at_some_time(&cluster).await;
    order(&["strategy", "abort"]);
    set_live(&cluster, "copy.bytes_per_s", "0");
    order(&["strategy", "switch", "full"]);
    let agrees = |cluster: &Cluster, node: &str| {
        let history = value(cluster, &["strategy", "history"]);
        let all = history.as_array().cloned().unwrap_or_default();
        let text = metrics(cluster, node);
        let count = |phase: &str| all.iter().filter(|op| op["phase"] == phase).count() as f64;
        let settled: Vec<u64> =
            all.iter().filter_map(|op| op["actual"]["took_ms"].as_u64()).collect();
        let switches = "ppdb_strategy_switches_total{from=\"sharded\",to=\"full\",result=";
        let of = |result: &str| sample(&text, &format!("{switches}\"{result}\"}}"));
        assert_eq!(all.len(), 3, "{history}");
        assert_eq!(of("settled"), Some(settled.len() as f64), "{text}");
        assert_eq!(of("aborted"), Some(count("aborted")));
        assert_eq!(of("reverted"), Some(count("reverted")));
        assert_eq!(sample(&text, "ppdb_failed_operations_total"), Some(1.0));
        let avg_s = settled.iter().sum::<u64>() as f64 / settled.len() as f64 / 1e3;
        let shown = sample(&text, "ppdb_switch_duration_avg_seconds").expect("a mean");
        assert!((shown - avg_s).abs() < 0.001, "{shown} and {avg_s} of {history}");
        let last = all.last().expect("the latest");
        let last_s = |field: &str| last[field].as_u64().map(|ms| ms as f64 / 1e3);
        let at = sample(&text, "ppdb_last_switch_timestamp_seconds");
        assert_eq!(at, last_s("soaking_ms"), "{last}");
        // The same four, under the names that they always had.
        let four = value(cluster, &["status", "--node", node])["switches"].clone();
        assert_eq!(
            (&four["strategy_switches"], &four["failed_operations"]),
            (&2.into(), &1.into())
        );
        assert_eq!(four["last_switch_time"], last["soaking_ms"], "{four}");
        assert_eq!(four["avg_switch_time"], settled.iter().sum::<u64>() / 2, "{four}");
        (of("settled"), avg_s, at)
    };
    let before = agrees(&cluster, "n1");
    assert_eq!(before.0, Some(2.0));
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_ready().await;
    assert_eq!(agrees(&cluster, "n2"), before);
    assert_eq!(agrees(&cluster, "r1"), before);
    let text = metrics(&cluster, "n1");
    assert_eq!(sample(&text, "ppdb_switch_phase{phase=\"soaking\"}"), Some(1.0));
    let ratio = sample(&text, "ppdb_switch_estimate_ratio{term=\"bytes\"}");
    assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{text}");
}

/// Leaves a switch under way whose copies take long, because only then there is something to tell of it.
async fn every_metric_has_a_value_at_some_time(cluster: &Cluster) {
    let client = cluster.client().await;
    for number in 0..300 {
        let fill = set(format!("fill:{number}"), "x".repeat(10_000));
        one(&client, fill, &within(RUN_WITHIN)).await.expect("a write");
    }
    // Every copy is flushed for its digest, after which the log may go.
    cluster.assert_copies_equal(&client).await;
    client.close().await;
    let bounded = ["get", "fill:1", "--level", "local", "--max-staleness", "5s", "--node", "r1"];
    cluster.ppdb(&bounded).expect(0);
    set_live(cluster, "copy.bytes_per_s", "64KiB");
    set_live(cluster, "alarm.disk", "1");
    let documented: BTreeSet<String> = METRICS.iter().map(|m| m.name.to_owned()).collect();
    // What the switch before has cost is told until the next one begins.
    let mut met = families(&metrics(cluster, "n1"));
    let prepare = ["strategy", "prepare", "full", "--no-wait", "--skip", "copy_rate"];
    cluster.ppdb(&prepare).expect(0);
    until("a value of every metric", || {
        for node in ["n1", "n2", "n3", "r1"] {
            met.extend(families(&metrics(cluster, node)));
        }
        ((), documented.is_subset(&met))
    });
}

/// Whoever may reach the endpoint from elsewhere has a certificate, or the node does not start.
#[test]
fn metrics_without_tls_stay_on_this_machine() {
    let dir = tempfile::tempdir().expect("a folder");
    let certs = dir.path().to_str().expect("a plain path");
    ppdb(["cert", "init", "--cluster", "it", "--certs", certs]).expect(0);
    ppdb(["cert", "issue", "node", "n1", "--certs", certs]).expect(0);
    let check = |listen: &str, tls: &str| {
        ppdb([
            "config",
            "check",
            "--primary",
            "--name",
            "n1",
            "--certs",
            certs,
            "--metrics-listen",
            listen,
            "--metrics-tls",
            tls,
        ])
    };
    check("127.0.0.1:9101", "off").expect(0);
    check("[::1]:9101", "off").expect(0);
    check("0.0.0.0:9101", "on").expect(0);
    let refused = check("0.0.0.0:9101", "off").expect(2).text();
    assert!(refused.contains("turn TLS on or listen on a loopback address"), "{refused}");
    check("9101", "on").expect(2);
}
