//! The runbooks that are shipped, on a real cluster: each to its end, once more with a fault in its middle, and as a
//! rehearsal that changes nothing.

use crate::harness::{Cluster, Ran, Shape, one, ppdb, program, set, wait, wait_until, within};
use ppdb::client::Client;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::runs::Run;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A machine whose disk is nearly full is no reason to fail.
const WARNED: &[&str] = &["--param", "accept_warn=true"];

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name);
    path.to_str().expect("a plain path").to_owned()
}

/// What a rehearsal must not change: every key with its value, that all copies are equal, the epoch, the journal, the
/// records of runs. The digests themselves are of one index of the log, and comparing is an entry of it.
fn fingerprint(cluster: &Cluster) -> Value {
    let value = |words: &[&str]| cluster.ppdb(words).json()["value"].clone();
    let keys = value(&["scan", "--limit", "1000"]);
    assert!(keys["entries"].as_array().is_some_and(|all| all.len() >= 60), "{keys}");
    json!({
        "keys": keys,
        "equal": value(&["shard", "verify"])["equal"],
        "epoch": value(&["status"])["epoch"],
        "history": value(&["strategy", "history"]),
        "runs": value(&["runs", "list"]),
    })
}

fn rehearse(cluster: &Cluster, name: &str, more: &[&str]) -> Ran {
    let before = fingerprint(cluster);
    let script = script(name);
    let words: Vec<&str> =
        ["run", &script, "--dry-run"].into_iter().chain(more.iter().copied()).collect();
    let ran = cluster.ppdb(&words);
    assert_eq!(fingerprint(cluster), before, "{name}: {ran:#?}");
    assert_eq!(ran.json()["run"], Value::Null);
    ran
}

/// A runbook that is under way.
struct Runner {
    child: Child,
}

impl Runner {
    fn start(cluster: &Cluster, words: &[&str]) -> Self {
        let mut command = program();
        command.arg("run").args(words).args(cluster.flags()).args([
            "-o",
            "json",
            "--timeout",
            "120s",
        ]);
        Self { child: command.spawn().expect("the program") }
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("a child");
    }

    fn end(mut self) -> Value {
        let (mut out, mut err) = (String::new(), String::new());
        let code = wait(&mut self.child, Duration::from_secs(120));
        self.child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
        assert_eq!(code, Some(Some(0)), "{out}\n{err}");
        serde_json::from_str(&out).expect("one object")
    }
}

async fn latest(client: &Client) -> Option<Run> {
    let heads = client.command(Command::Runs { limit: 1 }, None, ANSWER_WITHIN).await;
    let Ok((Answer::Runs(heads), _)) = heads else { return None };
    let run = heads.first()?.number;
    match client.command(Command::RunShow { run }, None, ANSWER_WITHIN).await {
        Ok((Answer::Run(run), _)) => {
            assert_eq!(run.runner, 0, "what its runner proves itself by is shown to nobody");
            Some(*run)
        }
        _ => None,
    }
}

/// Waits until a run after `before` is in the middle of a step.
async fn until_step(client: &Client, before: u64, step: &str) -> u64 {
    let ask = async || latest(client).await;
    let is_there = |run: &Option<Run>| {
        let run = run.as_ref().filter(|run| run.number > before);
        let last = run.and_then(|run| run.steps.last());
        last.is_some_and(|last| last.name == step && last.end.is_none())
    };
    wait_until(step, SOON, ask, is_there).await.map_or(0, |run| run.number)
}

fn names(summary: &Value, replayed: bool) -> Vec<String> {
    let steps = summary["steps"].as_array().expect("steps").iter();
    let wanted = steps.filter(|step| step["replayed"] == replayed);
    wanted.map(|step| step["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_runbook_runs_to_its_end_and_once_more_with_a_fault_in_its_middle() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    for i in 0..60 {
        one(&client, set(format!("doors:{i}"), "x".repeat(200)), &within(SOON))
            .await
            .expect("a write");
    }
    rehearse(&cluster, "verify.rhai", &[]).expect(0);
    assert_eq!(
        rehearse(&cluster, "presale.rhai", WARNED).expect(0).json()["result"]["strategy"],
        "full"
    );
    let early = rehearse(&cluster, "drill.rhai", &["--param", "node=n2"]).expect(5).json();
    assert_eq!(early["code"], "GuardFailed", "{early}");

    // presale: its runner is killed while the cluster prepares, and another one goes on.
    let presale = script("presale.rhai");
    let runner = Runner::start(&cluster, &[&[presale.as_str()][..], WARNED].concat());
    let run = until_step(&client, 0, "prepare").await;
    runner.kill();
    resumes_what_was_begun(&cluster, &presale, run);
    assert_eq!(
        cluster.ppdb(&["strategy", "history"]).json()["value"].as_array().map(Vec::len),
        Some(1)
    );
    assert!(cluster.ppdb(&["run", &presale]).expect(0).json()["result"]["equal"] == true, "again");

    rehearse(&cluster, "postsale.rhai", &[]).expect(0);
    let told = rehearse(&cluster, "drill.rhai", &["--param", "node=n2"]).expect(0);
    assert!(told.err.contains("NOT SIMULATED: n2 is down"), "{}", told.err);

    drills(&mut cluster, &client).await;
    verifies(&mut cluster).await;

    // postsale: a primary is killed in its middle, and comes back.
    let before = latest(&client).await.map_or(0, |run| run.number);
    let runner = Runner::start(&cluster, &[&script("postsale.rhai")]);
    until_step(&client, before, "revert").await;
    cluster.node("n3").kill();
    cluster.node("n3").start();
    let back = runner.end();
    assert_eq!(
        (&back["result"]["strategy"], &back["result"]["equal"]),
        (&json!("sharded"), &json!(true))
    );
    let again = cluster
        .ppdb(&["run", &script("postsale.rhai"), "--param", "finalize=true"])
        .expect(0)
        .json();
    assert_eq!(names(&again, false), ["verify"], "{again}");
    client.close().await;
}

fn resumes_what_was_begun(cluster: &Cluster, presale: &str, run: u64) {
    let name = format!("RUN-{run}");
    let open = cluster.ppdb(&["runs", "show", &name]).expect(0).json()["value"].clone();
    assert_eq!(
        (&open["outcome"], &open["by"]),
        (&json!("running"), &json!("user tester")),
        "{open}"
    );
    assert_eq!(open["steps"][0]["outcome"], "begun", "{open}");
    // Another script is not the one that was begun.
    let other = cluster.dir().join("other.rhai");
    std::fs::write(&other, "step(\"prepare\", || 1)").expect("a script");
    let refused =
        cluster.ppdb(&["run", other.to_str().expect("a path"), "--resume", &name]).expect(5).json();
    assert_eq!(refused["code"], "PlanOutdated", "{refused}");
    let ended = cluster.ppdb(&["run", "--resume", &name]).expect(0).json();
    assert_eq!((&ended["run"], &ended["script"]), (&json!(name), &json!(presale)), "{ended}");
    assert_eq!(names(&ended, false), ["prepare", "commit", "settle", "verify"], "{ended}");
    let shown =
        cluster.ppdb(&["runs", "show", &name, "--node", "r1"]).expect(0).json()["value"].clone();
    assert_eq!(
        (&shown["outcome"], &shown["steps"][0]["tries"]),
        (&json!("ok"), &json!(2)),
        "{shown}"
    );
    assert_eq!(shown["steps"][0]["operations"], json!([1]), "{shown}");
    assert_eq!(shown["resumed"].as_array().map(Vec::len), Some(1), "{shown}");
    let over = cluster.ppdb(&["run", "--resume", &name]).expect(5).json();
    assert_eq!(over["code"], "OperationConflict", "{over}");
}

/// The loss of a primary, rehearsed; and once more, by a runner that is killed while it waits for that.
async fn drills(cluster: &mut Cluster, client: &Client) {
    let drill = script("drill.rhai");
    let before = latest(client).await.map_or(0, |run| run.number);
    let runner = Runner::start(cluster, &[&drill, "--param", "node=n2"]);
    until_step(client, before, "down").await;
    cluster.node("n2").kill();
    until_step(client, before, "back").await;
    cluster.node("n2").start();
    let ended = runner.end();
    assert_eq!(
        (&ended["result"]["node"], &ended["result"]["equal"]),
        (&json!("n2"), &json!(true)),
        "{ended}"
    );

    let before = latest(client).await.map_or(0, |run| run.number);
    let runner = Runner::start(cluster, &[&drill, "--param", "node=n3"]);
    let run = until_step(client, before, "down").await;
    runner.kill();
    let runner = Runner::start(cluster, &["--resume", &format!("RUN-{run}")]);
    let taken_up = async || latest(client).await.is_some_and(|run| run.resumed.len() == 1);
    wait_until("runner", SOON, taken_up, |taken_up| *taken_up).await;
    cluster.node("n3").kill();
    until_step(client, before, "back").await;
    cluster.node("n3").start();
    let ended = runner.end();
    assert_eq!(names(&ended, true), ["check", "write before"], "{ended}");
    let left = cluster.ppdb(&["scan", "ppdb-drill:"]).expect(0).json();
    assert_eq!(left["value"]["entries"], json!([]), "the keys of the drill are gone");
}

/// Every copy is heard and equal; one that is not heard is named, and the run goes on when it is back.
async fn verifies(cluster: &mut Cluster) {
    let verify = script("verify.rhai");
    let fine = cluster
        .ppdb(&["run", &verify, "--param", "sample=50", "--param", "prefix=doors:"])
        .expect(0)
        .json();
    assert_eq!(
        (&fine["result"]["keys"], &fine["result"]["copies"]),
        (&json!(50), &json!(48)),
        "{fine}"
    );
    cluster.node("r1").kill();
    let short = ["run", &verify, "-o", "json", "--timeout", "10s"].map(str::to_owned);
    let missing = ppdb(short.into_iter().chain(cluster.flags())).expect(5);
    assert!(missing.err.contains("on r1 silent"), "{}", missing.err);
    let run = missing.json()["run"].as_str().expect("a record").to_owned();
    cluster.node("r1").start();
    cluster.wait_ready().await;
    let fine = cluster.ppdb(&["run", "--resume", &run]).expect(0).json();
    assert_eq!(fine["result"]["equal"], true, "{fine}");
}
