//! Forming a cluster, and every data command with its edges, as any language would drive them: through
//! `ppdb shell -o jsonl`, and a few through the command line with its exit codes.

use crate::harness::{Cluster, Shape, Shell};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ppdb::types::limits;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_formed_once_and_carries_out_every_command() {
    let cluster = Cluster::unformed(Shape::default());
    cluster.wait_up().await;
    nothing_is_served_before_a_cluster_is_formed(&cluster);
    forming_is_repeatable_and_never_makes_a_second_cluster(&cluster);
    cluster.wait_ready().await;

    let mut shell = cluster.shell(&[]);
    strings(&mut shell);
    conditions(&mut shell);
    numbers(&mut shell);
    compare_and_set(&mut shell);
    time_to_live(&mut shell);
    batches(&mut shell);
    bytes_that_are_no_text(&mut shell);
    limits_are_refused_early(&mut shell);
    bad_lines_are_answers_too(&mut shell);
    questions_about_the_cluster(&mut shell);
    assert_eq!(shell.finish(), Some(0));

    read_levels(&cluster);
    exit_codes(&cluster);
}

fn nothing_is_served_before_a_cluster_is_formed(cluster: &Cluster) {
    let mut shell = cluster.shell(&["--timeout", "2s"]);
    assert_eq!(shell.code("get a"), "NotFormed");
    assert_eq!(shell.code("set a 1"), "NotFormed");
    assert_eq!(shell.code("status"), "NotFormed");
    shell.finish();
}

fn forming_is_repeatable_and_never_makes_a_second_cluster(cluster: &Cluster) {
    let formed = cluster.init().expect(0).json();
    assert_eq!(formed["value"]["created"], true, "{formed}");
    let again = cluster.init().expect(0).json();
    assert_eq!(again["value"]["created"], false, "{again}");
    assert_eq!(again["value"]["epoch"], formed["value"]["epoch"]);

    let mut other_shards = cluster.init_words();
    other_shards[3] = "24".into();
    let refused = cluster.ppdb(&other_shards).expect(5).json();
    assert_eq!(refused["code"], "AlreadyFormed", "{refused}");
    // The last member left out: a subset of the same nodes is another cluster.
    let words = cluster.init_words();
    let refused = cluster.ppdb(&words[..words.len() - 2]).expect(5).json();
    assert_eq!(refused["code"], "AlreadyFormed", "{refused}");
}

fn strings(shell: &mut Shell) {
    assert_eq!(shell.value("get s:none"), Value::Null);
    assert_eq!(shell.value("set s:a 'one two'"), true);
    assert_eq!(shell.value("get s:a"), "one two");
    assert_eq!(shell.value("set s:empty ''"), true);
    assert_eq!(shell.value("get s:empty"), "", "an empty value is a value");
    assert_eq!(shell.value("exists s:a s:none s:empty"), 2);
    assert_eq!(shell.value("append s:a !"), 8);
    assert_eq!(shell.value("append s:new abc"), 3);
    assert_eq!(shell.value("get s:a"), "one two!");
    assert_eq!(shell.value("del s:a s:none"), 1);
    assert_eq!(shell.value("get s:a"), Value::Null);
    assert_eq!(shell.value("del s:a"), 0);
    assert_eq!(shell.value(r#"["set","s:argv","line\nbreak ; get"]"#), true);
    assert_eq!(shell.value(r#"{"argv":["get","s:argv"]}"#), "line\nbreak ; get");
}

fn conditions(shell: &mut Shell) {
    assert_eq!(shell.value("set c:a 1 --xx"), false);
    assert_eq!(shell.value("get c:a"), Value::Null);
    assert_eq!(shell.value("set c:a 1 --nx"), true);
    assert_eq!(shell.value("set c:a 2 --nx"), false);
    assert_eq!(shell.value("set c:a 3 --xx"), true);
    assert_eq!(shell.value("get c:a"), "3");
}

fn numbers(shell: &mut Shell) {
    assert_eq!(shell.value("incr n:a"), 1);
    assert_eq!(shell.value("incr n:a 41"), 42);
    assert_eq!(shell.value("incr n:a -50"), -8);
    assert_eq!(shell.value("get n:a"), "-8");
    shell.value("set n:text abc");
    assert_eq!(shell.code("incr n:text"), "NotAnInteger");
    assert_eq!(shell.value("get n:text"), "abc");
    shell.value(&format!("set n:max {}", i64::MAX));
    assert_eq!(shell.code("incr n:max"), "IntegerOverflow");
    assert_eq!(shell.value("get n:max"), i64::MAX.to_string());
    shell.value(&format!("set n:min {}", i64::MIN));
    assert_eq!(shell.code("incr n:min -1"), "IntegerOverflow");
    assert_eq!(shell.value("incr n:min 1"), json!(i64::MIN + 1));
}

fn compare_and_set(shell: &mut Shell) {
    assert_eq!(shell.value("cas x:a old new"), false, "an absent key equals no value");
    assert_eq!(shell.value("cas x:a --absent first"), true);
    assert_eq!(shell.value("cas x:a --absent second"), false);
    assert_eq!(shell.value("cas x:a other second"), false);
    assert_eq!(shell.value("cas x:a first second"), true);
    assert_eq!(shell.value("get x:a"), "second");
    assert_eq!(shell.value("cas x:a second ''"), true);
    assert_eq!(shell.value("cas x:a '' third"), true, "an empty value can be expected");
}

fn time_to_live(shell: &mut Shell) {
    assert_eq!(shell.value("ttl t:none"), Value::Null);
    shell.value("set t:a 1");
    assert_eq!(shell.value("ttl t:a"), -1);
    assert_eq!(shell.value("expire t:a 1h"), true);
    assert_eq!(shell.value("expire t:none 1h"), false);
    let left = shell.value("ttl t:a").as_i64().expect("a number");
    assert!((3_590_000..=3_600_000).contains(&left), "{left} ms of an hour");
    shell.value("append t:a 2");
    assert!(shell.value("ttl t:a").as_i64() > Some(0), "append keeps the time to live");
    shell.value("set t:a 2 --keep-ttl");
    assert!(shell.value("ttl t:a").as_i64() > Some(0));
    assert_eq!(shell.value("persist t:a"), true);
    assert_eq!(shell.value("persist t:a"), false);
    assert_eq!(shell.value("ttl t:a"), -1);
    shell.value("set t:a 3 --ttl 1h");
    shell.value("set t:a 4");
    assert_eq!(shell.value("ttl t:a"), -1, "a plain set drops the time to live");

    // Visible at most one second late, and then gone for every command.
    let ttl = Duration::from_millis(700);
    shell.value("set t:soon 1 --ttl 700ms");
    let set = Instant::now();
    assert_eq!(shell.value("get t:soon"), "1");
    while shell.value("get t:soon") != Value::Null {
        assert!(set.elapsed() < ttl + Duration::from_millis(1_500), "still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(set.elapsed() >= ttl - Duration::from_millis(50), "gone after {:?}", set.elapsed());
    assert_eq!(shell.value("exists t:soon"), 0);
    assert_eq!(shell.value("set t:soon 2 --nx"), true);
    assert_eq!(shell.value("ttl t:soon"), -1);
}

fn batches(shell: &mut Shell) {
    assert_eq!(shell.value("mset b:1 one b:2 two b:3 three"), true);
    assert_eq!(shell.value("mget b:3 b:none b:1"), json!(["three", null, "one"]));
    assert_eq!(shell.value("mset {b}1 x {b}2 y --atomic"), true);
    assert_eq!(shell.value("mget {b}1 {b}2 --atomic"), json!(["x", "y"]));
    assert_eq!(shell.value("del {b}1 {b}2 --atomic"), 2);
    // CRC16("b:1") and CRC16("b:2") lie in different shards of twelve.
    assert_eq!(shell.code("mset b:1 lost b:2 lost --atomic"), "CrossShard");
    assert_eq!(shell.value("mget b:1 b:2"), json!(["one", "two"]), "refused means untouched");
    let many: Vec<String> = (0..1_000).map(|i| format!("b:many:{i}")).collect();
    let pairs: Vec<&str> = many.iter().flat_map(|key| [key.as_str(), "v"]).collect();
    assert_eq!(shell.value(&format!("mset {}", pairs.join(" "))), true);
    assert_eq!(shell.value(&format!("exists {}", many.join(" "))), 1_000);
    assert_eq!(shell.value(&format!("del {}", many.join(" "))), 1_000);
    shell.value("set b:text abc");
    assert_eq!(shell.value("incr b:number"), 1);
    let too_many = "k ".repeat(limits::REQUEST_OPS_MAX + 1);
    assert_eq!(shell.code(&format!("mget {too_many}")), "BatchTooLarge");
}

fn bytes_that_are_no_text(shell: &mut Shell) {
    let (key, value) = (BASE64.encode([0u8, 0xff, b'k']), BASE64.encode([0xfeu8, 0, 10, 13]));
    let set = json!({ "argv": ["set", "KEY", "VALUE"], "key_b64": key, "value_b64": value });
    assert_eq!(shell.value(&set.to_string()), true);
    let got = shell.ask(&json!({ "argv": ["get", "KEY"], "key_b64": key }).to_string());
    assert_eq!((&got["ok"], &got["value_b64"]), (&true.into(), &value.into()), "{got}");
    assert!(got.get("value").is_none(), "{got}");
}

fn limits_are_refused_early(shell: &mut Shell) {
    let longest = "k".repeat(limits::KEY_BYTES_MAX);
    assert_eq!(shell.value(&format!("set {longest} 1")), true);
    assert_eq!(shell.value(&format!("get {longest}")), "1");
    let answer = shell.ask(&format!("set {longest}k 1"));
    assert_eq!(answer["code"], "KeyTooLong");
    assert!(answer["message"].as_str().is_some_and(|m| m.contains("480")), "{answer}");
    assert_eq!(shell.code("set '' 1"), "KeyTooLong");

    let with_value = |bytes: usize| {
        let value = BASE64.encode(vec![b'v'; bytes]);
        json!({ "argv": ["set", "l:big", "VALUE"], "value_b64": value }).to_string()
    };
    assert_eq!(shell.value(&with_value(limits::VALUE_BYTES_MAX)), true);
    let big = shell.value("get l:big");
    assert_eq!(big.as_str().map(str::len), Some(limits::VALUE_BYTES_MAX));
    let answer = shell.ask(&with_value(limits::VALUE_BYTES_MAX + 1));
    assert_eq!(answer["code"], "ValueTooLong");
    assert!(answer["message"].as_str().is_some_and(|m| m.contains("1048576")), "{answer}");
    // Two refused values that would be fine alone: an append may not outgrow the limit either.
    assert_eq!(shell.code("append l:big x"), "ValueTooLong");
    assert_eq!(shell.value("del l:big"), 1);
}

fn bad_lines_are_answers_too(shell: &mut Shell) {
    for line in [
        "get",
        "frobnicate",
        "set a",
        "get 'unbalanced",
        "[\"get\"",
        "{\"argv\":3}",
        "[]",
        "incr a x",
    ] {
        let answer = shell.ask(line);
        assert_eq!(
            (&answer["ok"], &answer["outcome"]),
            (&false.into(), &"fail".into()),
            "{line}: {answer}"
        );
        assert_eq!(answer["class"], "fix", "{line}: {answer}");
    }
    assert_eq!(shell.value("get s:empty"), "", "and the session goes on");
}

fn questions_about_the_cluster(shell: &mut Shell) {
    let status = shell.value("status");
    assert_eq!((&status["cluster"], &status["strategy"]), (&"it".into(), &"sharded".into()));
    assert_eq!(status["shards_leaderless"], json!([]));
    let nodes = shell.value("cluster nodes");
    let names: Vec<&str> =
        nodes.as_array().into_iter().flatten().filter_map(|n| n["name"].as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3", "r1"]);
    let owned: Vec<i64> =
        nodes.as_array().into_iter().flatten().filter_map(|n| n["shards_owned"].as_i64()).collect();
    assert_eq!(owned, [4, 4, 4, 0], "twelve shards over three primaries");
    assert_eq!(shell.value("info n2")["ready"], true);
    assert_eq!(shell.value("shard map")["shards"].as_array().map(Vec::len), Some(12));
    assert_eq!(shell.value("replica lag")["copies"].as_array().map(Vec::len), Some(24));
    assert_eq!(shell.value("strategy show")["strategy"], "sharded");
}

fn read_levels(cluster: &Cluster) {
    let mut shell = cluster.shell(&["--node", "r1"]);
    let written = shell.ask("set r:a 1");
    let token = written["token"].as_str().expect("a token").to_owned();
    assert_ne!(written["served_by"], "r1", "a replica takes no writes");
    // Read your writes at the replica, first by the session's own token, then by one brought along.
    let read = shell.ask("get r:a --level session");
    assert_eq!((&read["value"], &read["served_by"]), (&"1".into(), &"r1".into()), "{read}");
    let read = shell.ask(&format!("get r:a --after {token}"));
    assert_eq!((&read["value"], &read["served_by"]), (&"1".into(), &"r1".into()), "{read}");
    let local = shell.ask("get r:a --max-staleness 5s");
    assert_eq!((&local["value"], &local["served_by"]), (&"1".into(), &"r1".into()), "{local}");
    assert!(local["age_ms"].as_i64().is_some_and(|age| (0..=5_000).contains(&age)), "{local}");
    // A linearizable read ignores the pin: the replica cannot answer it.
    assert_ne!(shell.ask("get r:a")["served_by"], "r1");
    // A token that this lineage has not reached is waited for, then refused.
    let (shard, rest) = token.split_once('.').expect("shard and the rest");
    let incarnation = rest.split('.').next().expect("an incarnation");
    let ahead = format!("get r:a --after {shard}.{incarnation}.999999999 --timeout 500ms");
    let answer = shell.ask(&ahead);
    assert_eq!(answer["ok"], false, "{answer}");
    let lost = shell.ask(&format!("get r:a --after {shard}.{}.1 --timeout 1s", 77));
    assert_eq!(lost["code"], "TokenLost", "{lost}");
    shell.finish();
}

fn exit_codes(cluster: &Cluster) {
    cluster.ppdb(&["set", "e:a", "1"]).expect(0);
    assert_eq!(cluster.ppdb(&["get", "e:a"]).expect(0).json()["value"], "1");
    assert_eq!(cluster.ppdb(&["get", "e:none"]).expect(1).json()["value"], Value::Null);
    cluster.ppdb(&["set", "e:a", "2", "--nx"]).expect(1);
    cluster.ppdb(&["get"]).expect(2);
    cluster.ppdb(&["incr", "e:text", "x"]).expect(2);
    let raw = crate::harness::ppdb(
        ["get", "e:a", "-o", "plain"].into_iter().map(str::to_owned).chain(cluster.flags()),
    );
    assert_eq!(raw.expect(0).out, "1\n");
}
