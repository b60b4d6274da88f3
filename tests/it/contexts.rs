//! Contexts as an operator has them: protected ones refuse until they are told otherwise, by every door; much is deleted
//! only with consent; an error can be looked up.

use crate::harness::{Cluster, Ran, Shape, Shell, drain, program, set, wait, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SMALL: fn() -> Shape = || Shape { primaries: 1, replicas: 1, shards: 3, ..Shape::default() };

/// For what is typed at a terminal, and for a script that was interrupted.
const AT_A_TERMINAL: Duration = Duration::from_secs(30);

/// For what is left at once.
const LEFT: Duration = Duration::from_secs(5);

/// A user with contexts of their own.
struct User {
    file: PathBuf,
}

impl User {
    fn command(&self) -> Command {
        let mut command = program();
        command.env("PPDB_CONTEXTS", &self.file);
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        let started = Instant::now();
        let output = self.command().args(words).output().expect("ppdb runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err, took) = (text(output.stdout), text(output.stderr), started.elapsed());
        Ran { code: output.status.code(), out, err, took }
    }

    /// With `-o json`, held to an exit code.
    fn json(&self, words: &[&str], code: i32) -> Value {
        self.run(&[words, &["-o", "json"]].concat()).expect(code).json()
    }

    /// Refused, because the context is protected, with the way to lift that.
    fn read_only(&self, words: &[&str]) {
        let answer = self.json(words, 5);
        let message = answer["message"].as_str().unwrap_or_default();
        assert_eq!(
            (&answer["code"], &answer["outcome"]),
            (&json!("ReadOnly"), &json!("fail")),
            "{words:?}: {answer}"
        );
        assert!(
            message.contains("--writes") && message.contains("`writes on`"),
            "{words:?}: {answer}"
        );
    }

    /// What is typed at a terminal, and everything that it shows.
    fn at_a_terminal(&self, line: &str, typed: &str) -> (Option<i32>, String) {
        let mut command = self.command();
        let ppdb = command.get_program().to_str().expect("a plain path").to_owned();
        let terminal = "script";
        let envs: Vec<_> =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
        command = Command::new(terminal);
        for (name, value) in envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(["-qec", &format!("{ppdb} {line}"), "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a terminal");
        let mut input = child.stdin.take().expect("its input");
        // The terminal keeps what is typed until it is read.
        input.write_all(typed.as_bytes()).expect("it is typed");
        let shown = drain(child.stdout.take());
        let code = wait(&mut child, AT_A_TERMINAL);
        drop(input);
        let shown = shown.join().expect("a thread");
        (code.unwrap_or_else(|| panic!("`{line}` does not end: {shown}")), shown)
    }
}

fn user(cluster: &Cluster) -> User {
    User { file: cluster.dir().join("config/contexts.toml") }
}

/// `context add NAME` for this cluster.
fn add(user: &User, cluster: &Cluster, name: &str, more: &[&str]) {
    let flags = cluster.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    user.run(&[&["context", "add", name], &flags[..], more].concat()).expect(0);
}

fn script(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a script");
    path.to_str().expect("a plain path").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protected_context_is_read_only_by_every_door_until_that_is_lifted() {
    let cluster = Cluster::start(SMALL()).await;
    let user = user(&cluster);
    add(&user, &cluster, "prod", &["--protected", "--color", "red"]);
    add(&user, &cluster, "test", &[]);
    assert_eq!(
        user.json(&["context", "add", "prod", "--endpoint", "h:1"], 2)["code"],
        "BadRequest"
    );
    user.run(&["context", "use", "prod"]).expect(0);
    let list = user.json(&["context", "list"], 0)["value"].clone();
    assert_eq!((&list[0]["name"], &list[0]["current"]), (&json!("prod"), &json!(true)), "{list}");
    assert_eq!((&list[0]["protected"], &list[0]["color"]), (&json!(true), &json!("red")), "{list}");
    assert_eq!(user.json(&["context", "validate"], 0)["value"][1]["ok"], true);
    let file = user.file.to_str().expect("a plain path");

    // By a command: the current context, and one that is named.
    user.read_only(&["set", "a", "1"]);
    assert_eq!(user.json(&["get", "a"], 1)["value"], Value::Null);
    user.run(&["set", "a", "1", "--writes"]).expect(0);
    assert_eq!(user.json(&["get", "a"], 0)["value"], "1");
    user.run(&["--context", "test", "set", "a", "2"]).expect(0);
    for words in [
        &["mset", "a", "1"][..],
        &["del", "--prefix", "a", "--yes"],
        &["config", "set", "reads.default", "local"],
        &["strategy", "switch", "full"],
        &["strategy", "abort"],
        &["breaker", "open", "r1", "--for", "1s"],
        &["cluster", "init", "--member", "n1=primary@127.0.0.1:1"],
        &["bench", "--duration", "1s"],
        &["--context", "prod", "incr", "a"],
    ] {
        user.read_only(words);
    }
    for words in [
        &["status"][..],
        &["strategy", "show"],
        &["op", "list"],
        &["del", "--prefix", "a", "--dry-run"],
    ] {
        user.json(words, 0);
    }
    assert_eq!(user.json(&["get", "a"], 0)["value"], "2");
    // Flags that say everything are no context; the environment lies between.
    let flags = cluster.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    user.run(&[&["set", "a", "3"], &flags[..]].concat()).expect(0);
    let by_env = user.command().env("PPDB_CONTEXT", "test").args(["set", "a", "4"]).status();
    assert!(by_env.expect("ppdb runs").success());

    // By a runbook: a question may be asked, an order may not be given.
    let orders = "let a = kv.get(\"a\"); step(\"s\", || kv.set(\"a\", `${a}!`)); a";
    let orders = script(cluster.dir(), "orders.rhai", orders);
    let refused = user.json(&["run", &orders], 5);
    assert_eq!((&refused["code"], &refused["line"]), (&json!("ReadOnly"), &json!(1)), "{refused}");
    // Its record is kept all the same, and is taken up by nobody who may only look: that stops whoever runs it.
    let run = refused["run"].as_str().expect("a record");
    let taken_up = user.json(&["run", "--resume", run], 5);
    assert_eq!(taken_up["code"], "ReadOnly", "{taken_up}");
    assert_eq!(user.json(&["runs", "show", run], 0)["value"]["resumed"], json!([]));
    assert_eq!(user.json(&["run", &orders, "--dry-run"], 0)["result"], "4");
    assert_eq!(user.json(&["get", "a"], 0)["value"], "4");
    assert_eq!(user.json(&["run", &orders, "--writes"], 0)["result"], "4");
    assert_eq!(user.json(&["get", "a"], 0)["value"], "4!");

    // By a shell.
    let mut shell = Shell::start_as(&[("PPDB_CONTEXTS", file)], [] as [&str; 0]);
    assert_eq!(shell.code("set a 5"), "ReadOnly");
    assert_eq!(shell.value("writes on")["writes"], true);
    shell.value("set a 5");
    assert_eq!(shell.value("writes off")["writes"], false);
    assert_eq!(shell.code("set a 6"), "ReadOnly");
    shell.value("set a 6 --writes");
    assert_eq!(shell.code("set a 7"), "ReadOnly", "it was for one line");
    shell.value("writes on --for 5m");
    shell.value("set a 7");
    shell.value("writes on --for 1s");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(shell.code("set a 8"), "ReadOnly", "it was for a second");
    // Whatever was allowed is allowed there only.
    shell.value("writes on");
    shell.value("connect test");
    shell.value("set a 8");
    assert_eq!(shell.code("set a 9 --context prod"), "ReadOnly");
    shell.value("connect prod");
    assert_eq!(shell.code("set a 9"), "ReadOnly");
    assert_eq!(shell.code("connect prdo"), "NotFound");
    assert_eq!(shell.value("get a"), "8");
    assert_eq!(shell.finish(), Some(0));
    let ran = user.run(&["shell", "-e", "set a 9; set b 1"]).expect(5);
    assert!(ran.err.starts_with("error[ReadOnly]: context `prod` is protected"), "{}", ran.err);
    user.run(&["shell", "-e", "writes on; set a 9"]).expect(0);

    // What does not work any more is told, and what is wrong with a name.
    let unknown = user.json(&["--context", "prdo", "get", "a"], 1);
    assert!(
        unknown["message"].as_str().is_some_and(|m| m.contains("did you mean `prod`?")),
        "{unknown}"
    );
    user.run(&["context", "add", "gone", "--endpoint", "127.0.0.1:1", "--certs", "/nowhere"])
        .expect(0);
    let checks = user.json(&["context", "validate", "gone"], 1)["value"][0]["checks"].clone();
    assert_eq!(
        (&checks[0]["check"], &checks[0]["ok"]),
        (&json!("files"), &json!(false)),
        "{checks}"
    );
    // One that is written by hand may leave out what has a default; nothing of the current one takes its place.
    let folder = cluster.dir().join("half");
    std::fs::create_dir(&folder).expect("a folder");
    let certs = cluster.certs.dir();
    for (from, to) in [
        ("ca.crt", "ca.crt"),
        ("user-tester.crt", "user-admin.crt"),
        ("user-tester.key", "user-admin.key"),
    ] {
        std::fs::copy(certs.join(from), folder.join(to)).expect("a copy");
    }
    let mut written = std::fs::read_to_string(&user.file).expect("the contexts");
    let endpoint = &cluster.endpoints()[0];
    written += &format!(
        "\n[contexts.half]\nendpoints = [\"{endpoint}\"]\ncerts = \"{}\"\n",
        folder.display()
    );
    std::fs::write(&user.file, written).expect("it is written");
    let half = user.json(&["context", "validate", "half"], 0)["value"][0].clone();
    assert_eq!((&half["ok"], half["checks"][2]["check"].as_str()), (&json!(true), Some("node")));
    user.run(&["--context", "half", "get", "a"]).expect(0);
    user.json(&["context", "remove", "prod"], 0);
    assert_eq!(user.json(&["context", "list"], 0)["value"][0]["current"], false);
}

async fn fill(cluster: &Cluster, prefix: &str, count: usize) {
    let client = cluster.client().await;
    let ops = (0..count).map(|i| set(format!("{prefix}{i:05}"), "x")).collect();
    for answer in client.call(ops, &within(Duration::from_secs(30))).await {
        answer.expect("a write");
    }
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_is_deleted_only_with_consent_and_what_was_deleted_is_counted() {
    let cluster = Cluster::start(SMALL()).await;
    let user = user(&cluster);
    add(&user, &cluster, "here", &[]);
    user.run(&["context", "use", "here"]).expect(0);
    fill(&cluster, "cart:", 2_500).await;
    fill(&cluster, "user:", 30).await;
    let count = |prefix: &str| {
        let ran = user.run(&["del", "--prefix", prefix, "--dry-run", "-o", "json"]);
        ran.json()["value"]["keys"].as_u64().expect("a number")
    };

    let counted = user.json(&["del", "--prefix", "cart:", "--dry-run"], 0)["value"].clone();
    assert_eq!((&counted["keys"], &counted["deleted"]), (&json!(2_500), &json!(0)), "{counted}");
    assert_eq!(counted["samples"][2], json!({ "key": "cart:00002" }), "{counted}");
    // Nobody is there to be asked.
    let refused = user.json(&["del", "--prefix", "cart:"], 2);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("--yes")), "{refused}");
    user.run(&["shell", "-e", "del --prefix cart:"]).expect(2);
    assert_eq!(count("cart:"), 2_500);
    // A cluster that takes few at a time, so that batches become smaller.
    user.run(&["config", "set", "safety.max_batch_size", "40"]).expect(0);
    let deleted = user.json(&["del", "--prefix", "cart:", "--yes"], 0)["value"].clone();
    assert_eq!(deleted, json!({ "prefix": "cart:", "deleted": 2_500, "dry_run": false }));
    assert_eq!((count("cart:"), count("user:")), (0, 30), "and nothing else");
    user.run(&["del", "--prefix", "cart:", "--yes"]).expect(1);

    // A program may name the prefix by its bytes, and is held to what they are.
    let file = user.file.to_str().expect("a plain path");
    let mut shell = Shell::start_as(&[("PPDB_CONTEXTS", file)], [] as [&str; 0]);
    for line in [
        r#"{"argv":["del","--yes","--prefix"],"value_b64":""}"#,
        r#"{"argv":["del","--yes","--prefix",""],"key_b64":""}"#,
        r#"{"argv":["del","--prefix",""],"key_b64":"dXNlcjo="}"#,
    ] {
        assert_eq!(shell.code(line), "BadRequest", "{line}");
    }
    assert_eq!(count(""), 30);
    shell.value(r#"{"argv":["set"],"key_b64":"/wA=","value_b64":"MQ=="}"#);
    let gone = shell.value(r#"{"argv":["del","--yes","--prefix",""],"key_b64":"/w=="}"#);
    assert_eq!((&gone["deleted"], &gone["prefix_b64"]), (&json!(1), &json!("/w==")), "{gone}");
    assert_eq!(shell.finish(), Some(0));

    // A person is shown what it is about.
    let (code, shown) = user.at_a_terminal("del --prefix user:", "n\n");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("30 keys with the prefix `user:`, such as `user:00000`"), "{shown}");
    assert!(shown.contains("delete all of them? [y/N]"), "{shown}");
    assert_eq!(count("user:"), 30);
    let (code, shown) = user.at_a_terminal("del --prefix user:0000", "y\n");
    assert_eq!((code, count("user:")), (Some(0), 20), "{shown}");
    let (code, shown) = user.at_a_terminal("del --prefix nothing:", "");
    assert_eq!((code, shown.contains("[y/N]")), (Some(1), false), "{shown}");
    // Every key: a yes is not enough.
    user.run(&["del", "--prefix", "", "--yes"]).expect(2);
    user.run(&["del", "--prefix", "", "--confirm", "another"]).expect(2);
    let (code, shown) = user.at_a_terminal("del --prefix ''", "y\n");
    assert_eq!((code, count("")), (Some(1), 20), "{shown}");
    assert!(shown.contains("type the name of the cluster, it:"), "{shown}");
    user.run(&["set", "other", "1"]).expect(0);
    assert_eq!(user.json(&["del", "--prefix", "", "--confirm", "it"], 0)["value"]["deleted"], 21);

    // Orders about the strategy ask as well, and only a person.
    let (code, shown) = user.at_a_terminal("strategy switch full", "n\n");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("to full: ") && shown.contains("go to full by "), "{shown}");
    assert_eq!(user.json(&["strategy", "show"], 0)["value"]["operation"], Value::Null);
    let (code, shown) = user.at_a_terminal("breaker open r --for 1s", "n\n");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("hold back calls to r1?"), "the whole name is shown: {shown}");
    // A runbook asks by the same rules.
    let asks =
        script(cluster.dir(), "asks.rhai", "confirm(\"go on?\"); print(\"it \" + \"went on\")");
    for (typed, exit) in [("YES\n", 0), ("ye\n", 1), ("\n", 1)] {
        let (code, shown) = user.at_a_terminal(&format!("run {asks}"), typed);
        assert!(shown.contains("go on? [y/N]"), "{typed}: {shown}");
        assert_eq!((code, shown.contains("it went on")), (Some(exit), exit == 0), "{shown}");
    }
    let refused = user.json(&["run", &asks], 2);
    assert!(
        refused["message"].as_str().is_some_and(|m| m.contains("nobody is there")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_short_and_errors_can_be_looked_up() {
    let cluster = Cluster::start(SMALL()).await;
    let value = |words: &[&str]| cluster.ppdb(words).expect(0).json()["value"].clone();
    assert_eq!(value(&["info", "r"])["node"], "r1");
    assert_eq!(value(&["info", "n1"])["node"], "n1");
    assert_eq!(
        cluster.ppdb(&["get", "a", "--node", "r", "--level", "local"]).expect(1).json()["served_by"],
        "r1"
    );
    let unknown = cluster.ppdb(&["info", "n11"]).expect(1).json();
    assert_eq!(unknown["code"], "NotFound");
    assert!(
        unknown["message"].as_str().is_some_and(|m| m.contains("did you mean `n1`?")),
        "{unknown}"
    );
    assert_eq!(value(&["shard", "verify", "2"])["shards"].as_array().map(Vec::len), Some(1));

    let unknown = cluster.ppdb(&["config", "set", "reads.defualt", "local"]).expect(2).json();
    assert!(
        unknown["message"].as_str().is_some_and(|m| m.contains("did you mean `reads.default`?")),
        "{unknown}"
    );

    // Each kind of end, and where its code is explained.
    let flags = cluster.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let here = |words: &[&str]| crate::harness::ppdb([words, &flags[..]].concat());
    let fails = script(cluster.dir(), "fails.rhai", "fail(\"no\")");
    let misspelt = script(cluster.dir(), "misspelt.rhai", "swich()");
    let broken = script(cluster.dir(), "broken.rhai", "let a = ;");
    let endless = script(cluster.dir(), "endless.rhai", "loop { }");
    let guarded = script(cluster.dir(), "guarded.rhai", "guard(\"it is full\", false)");
    let stepless = script(cluster.dir(), "stepless.rhai", "kv.set(\"a\", \"1\")");
    for (words, exit, code) in [
        (&["info", "zzz"][..], 1, "NotFound"),
        (&["config", "set", "reads.defualt", "local"], 2, "BadConfig"),
        (&["get", ""], 5, "KeyTooLong"),
        (&["strategy", "commit"], 5, "OperationConflict"),
        (&["run", &fails], 1, "ScriptFailed"),
        (&["run", &misspelt], 2, "ScriptError"),
        (&["run", &broken], 2, "ScriptSyntax"),
        (&["run", &guarded], 5, "GuardFailed"),
        (&["run", &stepless], 2, "NotInStep"),
        (&["run", &endless], 2, "ScriptLimit"),
        (&["run", &endless, "--timeout", "10ms"], 124, "ScriptTimeout"),
    ] {
        let ran = here(words).expect(exit);
        assert!(ran.err.contains(&format!("error[{code}]")), "{words:?}: {}", ran.err);
        if words[0] == "run" {
            let more = format!("  more: `ppdb explain {code}`\n");
            assert!(ran.err.ends_with(&more), "{words:?}: {}", ran.err);
        }
        let told = crate::harness::ppdb(["explain", code, "-o", "json"]).expect(0).json();
        assert_eq!(told["value"]["exit"], exit, "{code}: {told}");
        assert!(!told["value"]["cures"][0].as_str().unwrap_or_default().is_empty(), "{told}");
    }
    let ran = crate::harness::ppdb(["get", "a", "--certs", "/nowhere"]).expect(4);
    assert!(ran.err.starts_with("error[BadCertificate]"), "{}", ran.err);
    let certs = cluster.certs.dir().to_str().expect("a plain path");
    let nobody = [
        "get",
        "a",
        "--certs",
        certs,
        "--user",
        "tester",
        "--endpoint",
        "127.0.0.1:1",
        "--timeout",
        "1s",
    ];
    assert!(crate::harness::ppdb(nobody).expect(3).err.contains("error[Unreachable]"));
    let no_hint = here(&["get", ""]).expect(5);
    assert!(no_hint.err.ends_with("  more: `ppdb explain KeyTooLong`\n"), "{}", no_hint.err);

    let all = crate::harness::ppdb(["explain", "-o", "json"]).expect(0).json();
    let names: Vec<&str> = all["value"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|code| code["code"].as_str())
        .collect();
    assert!(ppdb::types::Code::ALL.iter().all(|code| names.contains(&code.name())), "{names:?}");
    let wrong = crate::harness::ppdb(["explain", "PrecheckFialed"]).expect(1);
    assert!(wrong.err.contains("did you mean `PrecheckFailed`?"), "{}", wrong.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_long_tells_a_person_how_far_it_is_and_a_pipe_nothing() {
    let cluster = Cluster::start(SMALL()).await;
    let user = user(&cluster);
    add(&user, &cluster, "here", &[]);
    user.run(&["context", "use", "here"]).expect(0);
    let fill = || {
        let pairs: Vec<String> = (0..30).flat_map(|i| [format!("doors:{i}"), "1".into()]).collect();
        let words: Vec<&str> =
            ["mset"].into_iter().chain(pairs.iter().map(String::as_str)).collect();
        user.run(&words).expect(0);
    };
    let init = cluster.init_words().join(" ");
    for (line, told) in [
        (init.as_str(), "n1 is asked to form a cluster of 2"),
        ("strategy plan full", "the cluster is measured"),
        ("shard verify", "3 of 3 shards compared"),
        ("bench --clients 2 --keys 50 --duration 1s --warmup 0s", "requests, "),
        ("latency --interval 10ms --for 1s", " ms  r1 "),
        ("keys big", "keys looked at"),
        ("del --prefix doors: --yes", "keys deleted"),
    ] {
        let words = shlex::split(line).expect("words");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        fill();
        // A cluster of one primary gets no plan, and is measured all the same.
        let piped = user.run(&words);
        assert!(!piped.err.contains(told) && !piped.err.contains('\r'), "{line}: {}", piped.err);
        fill();
        let (code, shown) = user.at_a_terminal(line, "");
        assert_eq!(code, piped.code, "{line}: {shown}");
        assert!(shown.contains(told) && shown.contains("\r\x1b[K"), "{line}: {shown:?}");
    }
}

/// Commands that are piped to a shell or given with `-e`, and are interrupted once it has said something.
struct Interrupted {
    code: Option<i32>,
    err: String,
    /// From the last signal to the end.
    took: Duration,
}

impl Interrupted {
    fn of(user: &User, words: &[&str], piped: &str, said: &str) -> Self {
        Self::by(Signal::INT, user, words, piped, said)
    }

    fn by(signal: Signal, user: &User, words: &[&str], piped: &str, said: &str) -> Self {
        Self::by_each(user, &[&["shell"], words].concat(), piped, &[(said, signal)])
    }

    /// By a signal after each of what it says.
    fn by_each(user: &User, words: &[&str], piped: &str, signals: &[(&str, Signal)]) -> Self {
        let mut command = user.command();
        command.args(words).stdin(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(piped.as_bytes()).expect("it is typed");
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let pid = rustix::process::Pid::from_child(&child);
        let out = BufReader::new(out.expect("its output"));
        let mut err = BufReader::new(err.expect("its talk"));
        let (tell, told) = std::sync::mpsc::channel();
        let also = tell.clone();
        let reading = std::thread::spawn(move || {
            out.lines().map_while(Result::ok).for_each(|line| drop(also.send(line)));
        });
        let talking = std::thread::spawn(move || {
            let (mut all, mut line) = (String::new(), String::new());
            while err.read_line(&mut line).is_ok_and(|read| read > 0) {
                let _ = tell.send(line.clone());
                all += &std::mem::take(&mut line);
            }
            all
        });
        for (said, signal) in signals {
            let line = || told.recv_timeout(AT_A_TERMINAL).unwrap_or_else(|_| panic!("no {said}"));
            while !line().contains(said) {}
            // What follows is begun by then.
            std::thread::sleep(Duration::from_millis(500));
            rustix::process::kill_process(pid, *signal).expect("a signal");
        }
        let since = Instant::now();
        let code = wait(&mut child, AT_A_TERMINAL).expect("a signal ends it");
        let took = since.elapsed();
        drop((input, reading.join()));
        Self { code, err: talking.join().expect("a thread"), took }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_a_script_wherever_it_is_heard() {
    let cluster = Cluster::start(SMALL()).await;
    let user = user(&cluster);
    add(&user, &cluster, "here", &[]);
    user.run(&["context", "use", "here"]).expect(0);
    // In a view, which has an answer.
    let ended = Interrupted::of(&user, &["-e", "monitor; set after 1"], "", "watching n1");
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    let ended = Interrupted::of(&user, &[], "monitor\nset after 1\n", "watching n1");
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    // In another command, and while the next line is waited for, also behind a view.
    let view = "latency --for 300ms; get nothing; logs --follow --timeout 10m; set after 1";
    let ended = Interrupted::of(&user, &["-e", view], "", "(absent)");
    assert_eq!((ended.code, ended.err.contains("interrupted")), (Some(130), true), "{}", ended.err);
    let ended = Interrupted::of(&user, &[], "latency --for 300ms\nget nothing\n", "(absent)");
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    // The same for a program that drives it, and for SIGTERM.
    let view = "latency --for 300ms\nget nothing\n";
    let ended = Interrupted::of(&user, &["-o", "jsonl"], view, "\"value\":null");
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    let term = Signal::TERM;
    let follow = "get nothing; logs --follow --timeout 10m; set after 1";
    let ended = Interrupted::by(term, &user, &["-e", follow], "", "(absent)");
    assert_eq!(ended.code, Some(143), "{}", ended.err);
    let ended = Interrupted::by(term, &user, &["-o", "jsonl"], view, "\"value\":null");
    assert_eq!(ended.code, Some(143), "{}", ended.err);
    // Views do not hear that, and nobody waits for an answer of theirs.
    let ended = Interrupted::by(term, &user, &["-e", "monitor; set after 1"], "", "watching n1");
    assert_eq!(ended.code, Some(143), "{}", ended.err);
    assert!(ended.took < Duration::from_secs(2), "{:?}", ended.took);
    a_runbook_hears_what_ends_its_shell(&cluster, &user);
    user.run(&["get", "after"]).expect(1);
}

/// It cleans up, and what follows it is not begun; nobody has to wait for that.
fn a_runbook_hears_what_ends_its_shell(cluster: &Cluster, user: &User) {
    let text =
        "on_failure(|e| { log(\"cleans up\"); sleep(PAUSE); }); log(\"has begun\"); sleep(\"10m\")";
    let run = |name: &str, pause: &str| {
        format!("run {}", script(cluster.dir(), name, &text.replace("PAUSE", pause)))
    };
    let (quick, slow) = (run("quick.rhai", "\"1ms\""), run("slow.rhai", "\"50s\""));
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (line, piped) = (format!("{quick}; set after 1"), format!("{quick}\nset after 1\n"));
        for (words, piped) in [(&["-e", &line][..], ""), (&[], piped.as_str())] {
            let ended = Interrupted::by(signal, user, words, piped, "has begun");
            assert_eq!(ended.code, Some(code), "{}", ended.err);
            assert!(ended.err.contains("cleans up"), "{}", ended.err);
        }
        // The second one does not wait for that, in a shell and elsewhere.
        let twice = [("has begun", Signal::INT), ("cleans up", signal)];
        let ended = Interrupted::by_each(user, &["shell", "-e", &slow], "", &twice);
        assert_eq!((ended.code, ended.took < LEFT), (Some(130), true), "{}", ended.err);
        assert!(ended.err.contains("interrupted twice"), "{}", ended.err);
        // While it connects: to somebody who accepts, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = silent.local_addr().expect("an address");
        let line = format!("get nothing; {quick} --endpoint {addr} --timeout 20s; set after 1");
        let ended = Interrupted::by(signal, user, &["-e", &line], "", "(absent)");
        assert_eq!((ended.code, ended.took < LEFT), (Some(code), true), "{}", ended.err);
        assert!(ended.err.contains("interrupted before it began"), "{}", ended.err);
    }
    let slow: Vec<&str> = slow.split(' ').collect();
    let twice = [("has begun", Signal::INT), ("cleans up", Signal::INT)];
    let ended = Interrupted::by_each(user, &slow, "", &twice);
    assert_eq!((ended.code, ended.took < LEFT), (Some(130), true), "{}", ended.err);
}
