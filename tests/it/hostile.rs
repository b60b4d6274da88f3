//! Scripts that mean harm, or are written without care: each is stopped with an error that says why, before it has used
//! much of anything, and the node that it asks serves others meanwhile.

use crate::harness::{Cluster, Shape, drain, get, one, program, set, within};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Processor time that one may use, the start of the program and its connection included.
const CPU_MAX: Duration = Duration::from_secs(1);
/// Memory that one may use, the program included.
const MEMORY_KIB_MAX: u64 = 64 << 10;
/// How many run at a time.
const AT_A_TIME: usize = 4;
/// Fewer would not be a test.
const SCRIPTS_MIN: usize = 100;
/// Codes that say why.
const CODES: &[&str] = &[
    "ScriptLimit",
    "ScriptSyntax",
    "ScriptError",
    "ScriptTimeout",
    "ScriptFailed",
    "BadRequest",
    "DeadlineExceeded",
];

/// What one did use, and how it ended.
#[derive(Debug)]
struct Used {
    name: String,
    cpu: Duration,
    memory_kib: u64,
    exit: Option<i32>,
    out: String,
    err: String,
}

/// A text that is long.
const LONG: &str = "let s = \"x\"; for i in 0..17 { s += s; }";

/// Endless in one way or another.
fn endless() -> Vec<String> {
    let loops = [
        "loop {}",
        "while true {}",
        "do { 1 } while true",
        "for i in 0..9223372036854775807 {}",
        "for i in range(0, 9223372036854775807, 1) { let a = i; }",
        "for a in 0..1000000 { for b in 0..1000000 { a + b; } }",
        "let i = 0; while i >= 0 { i += 1; i -= 1; }",
        "let f = 1.0; loop { f = f.sin().exp(); }",
        "loop { \"a\".to_upper(); }",
        "loop { let t = timestamp(); t.elapsed; }",
        "fn f() { loop {} } f()",
        "let f = || { loop {} }; f.call()",
        "[1].map(|x| { loop {} })",
        "[1, 2].sort(|a, b| { loop {} })",
        "[1, 2].filter(|a| { while true {} true })",
        "[1, 2].reduce(|sum, x| { loop {} })",
        "#{ a: 1 }.map(|k, v| { loop {} })",
        "loop { try { throw 1; } catch { } }",
        "loop { try { loop {} } catch { } }",
        "try { loop {} } catch (e) { loop {} }",
        "step(\"s\", || { loop {} })",
        "on_failure(|e| { loop {} }); loop {}",
        "on_failure(|e| { loop {} }); fail(\"now\")",
        "wait_until(\"never\", \"1h\", || { loop {} })",
        "let p = params(#{ a: 1 }); loop {}",
        "let a = []; a.pad(5000, 1); loop { a.sort(); a.reverse(); }",
        "let a = []; a.pad(2000, 1); loop { a == a; }",
        "let a = []; a.pad(300, 1); for x in a { for y in a { for z in a { x + y + z; } } }",
        "let m = #{}; for i in 0..500 { m[`k${i}`] = i; } loop { m.keys(); m.values(); }",
        "switch 1 { 1 => loop {}, _ => 2 }",
        "if true { loop { continue; } }",
    ];
    let long = [
        "loop { s.index_of(\"xxxxxxxxxxxy\"); }",
        "loop { s.contains(\"y\"); }",
        "loop { let t = s.to_upper(); }",
        "loop { s.split(\"y\"); }",
        "loop { let t = s; t.replace(\"y\", \"z\"); }",
        "loop { s == s; }",
        "for c in s { for d in s { if c != d { print(1); } } }",
    ];
    loops.map(str::to_owned).into_iter().chain(long.map(|text| format!("{LONG} {text}"))).collect()
}

/// Recursion and nesting.
fn deep() -> Vec<String> {
    let around = |open: &str, inside: &str, close: &str, times: usize| {
        format!("{}{inside}{}", open.repeat(times), close.repeat(times))
    };
    let mut all: Vec<String> = [
        "fn f(n) { f(n + 1) } f(0)",
        "fn f(n) { g(n) } fn g(n) { f(n) } f(0)",
        "fn f(n) { let a = [n]; a.map(|x| f(x)); } f(0)",
        "fn f(n) { try { f(n + 1) } catch { f(n + 1) } } f(0)",
        "let f = Fn(\"g\"); fn g(f) { f.call(f) } f.call(f)",
        "fn f(n) { step(`s${n}`, || f(n + 1)) } f(0)",
        "let a = []; loop { a = [a]; }",
        "let m = #{}; loop { m = #{ m: m }; }",
        "let a = [1]; loop { a = [a, a]; }",
        "let m = #{ a: 1 }; loop { m = #{ a: m, b: m }; }",
        "let m = #{}; let f = || m; m.f = f; loop { m.f = || m; }",
    ]
    .map(str::to_owned)
    .into();
    all.extend([
        around("(", "1", ")", 5_000),
        around("[", "1", "]", 5_000),
        around("{", "1", "}", 5_000),
        around("#{a:", "1", "}", 5_000),
        around("if true {", "1", "}", 3_000),
        around("loop {", "break;", "}", 3_000),
        around("(|| ", "1", ")", 3_000),
        around("try {", "1", "} catch {}", 2_000),
        around("`${", "1", "}`", 3_000),
        around("!", "true", "", 20_000),
        around("-", "1", "", 20_000),
        around("/*", "", "*/", 10_000) + "loop {}",
        format!("let a = {};", vec!["1"; 30_000].join("+")) + "loop {}",
        format!("let a = {};", vec!["true"; 10_000].join("&&")) + "loop {}",
        format!("let a = [1]; a{}", "[0]".repeat(10_000)),
        format!("let a = #{{}}; a{}", ".b".repeat(10_000)),
        format!("let a = 1; a{}", ".to_string()".repeat(4_000)) + "; loop {}",
        format!("if 1 == 2 {{}} {} loop {{}}", "else if 1 == 2 {} ".repeat(3_000)),
        format!(
            "switch 1 {{ {} _ => 1 }} loop {{}}",
            (2..4_000).map(|i| format!("{i} => {i},")).collect::<String>()
        ),
        (0..1_000).map(|i| format!("fn f{i}() {{}}\n")).collect(),
        (0..1_000).map(|i| format!("let v{i} = 1;\n")).collect(),
        format!(
            "fn f({}) {{}} f()",
            (0..5_000).map(|i| format!("a{i}")).collect::<Vec<_>>().join(",")
        ),
        format!("let {} = 1; loop {{}}", "a".repeat(60_000)),
        format!("// {}\nloop {{}}", "x".repeat(60_000)),
        "x".repeat(70_000),
    ]);
    all
}

/// Values that grow.
fn growing() -> Vec<String> {
    let short = [
        "let s = \"x\"; loop { s += s; }",
        "let s = \"x\"; loop { s = s + s; }",
        "let s = \"x\"; loop { s = `${s}${s}`; }",
        "let s = \"\"; s.pad(1000000000, 'x');",
        "let s = \"\"; s.pad(1000000000, \"xyz\");",
        "let s = \"\"; loop { s += 'x'; }",
        "let a = []; loop { a.push(1); }",
        "let a = []; a.pad(1000000000, 1);",
        "let a = [1]; loop { a += a; }",
        "let a = [1]; loop { a.append(a); }",
        "let a = [1]; loop { a.insert(0, a); }",
        "let a = [1]; loop { a.splice(0, 0, a); }",
        "let a = [1]; loop { a = a.map(|x| [x, x]); }",
        "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }",
        "let m = #{}; let i = 0; loop { m += #{ a: m }; }",
        "let m = #{}; for i in 0..1000000 { m[`${i}`] = [i, i, i]; }",
        "fn f(n) { let s = \"x\"; for i in 0..17 { s += s; } if n < 30 { f(n + 1) } else { loop {} } } f(0)",
        "let all = []; loop { all.push(|| all); }",
        "let all = []; for i in 0..100000 { let s = `text ${i}`; all.push(|x| s + x); }",
    ];
    let long = [
        "let t = s; t.replace(\"x\", s);",
        "let t = s; t.replace('x', s);",
        "let t = s; loop { t.replace(\"x\", \"xx\"); }",
        "let a = []; loop { a.push(s); }",
        "let a = []; loop { a.push(s + a.len); }",
        "let m = #{}; let i = 0; loop { m[s + i] = i; i += 1; }",
        "let m = #{}; loop { m[`k${m.len()}`] = s + m.len(); }",
        "let a = []; a.pad(20000, s);",
        "let t = []; for i in 0..100 { t.push(s.split(\"\")); }",
        "let t = []; for i in 0..100 { t.push(s.to_chars()); }",
        "let t = []; for i in 0..100 { t.push(s.to_blob()); }",
        "let f = []; loop { let t = s + f.len; f.push(|| t); }",
        "let t = `${s}${s}${s}${s}${s}${s}${s}${s}${s}`;",
        "loop { print(s); }",
        "loop { log(s); }",
        "loop { debug(s); }",
        "loop { throw s + s + s; }",
    ];
    let many: String = (0..250).map(|i| format!("let v{i} = s + s;\n")).collect();
    let maps: String = (0..250)
        .map(|i| format!("let m{i} = #{{}}; for i in 0..20000 {{ m{i}[`${{i}}`] = i; }}\n"))
        .collect();
    let short = short.map(str::to_owned).into_iter();
    short
        .chain(long.map(|text| format!("{LONG} {text}")))
        .chain([format!("{LONG} {many}"), maps])
        .collect()
}

/// What is not there, and what waits.
fn elsewhere() -> Vec<String> {
    [
        "import \"x\" as x;",
        "import \"/etc/passwd\" as p;",
        "export let a = 1;",
        "eval(\"loop {}\")",
        "let f = Fn(\"eval\"); f.call(\"loop {}\")",
        "open_file(\"/etc/passwd\")",
        "system(\"sh\")",
        "exec(\"sh\", [\"-c\", \"true\"])",
        "sleep(1000000000)",
        "sleep(1000000000.0)",
        "sleep(\"100000h\")",
        "try { sleep(\"1h\") } catch { sleep(\"1h\") }",
        "sleep(-1)",
        "loop { sleep(0); }",
        "loop { sleep(\"1us\"); }",
        "step(\"s\", || sleep(\"1h\"))",
        "wait_until(\"never\", \"1h\", || false)",
        "wait_until(\"never\", \"1h\", || { sleep(\"1h\"); true })",
    ]
    .map(str::to_owned)
    .into()
}

/// Calls of the cluster without end.
fn storms() -> Vec<String> {
    [
        "loop { kv.get(\"k\"); }",
        "loop { try { kv.get(\"k\"); } catch { } }",
        "loop { kv.exists(\"k\"); }",
        "loop { kv.scan(\"\", 1000); }",
        "step(\"s\", || { loop { kv.set(\"storm\", \"x\"); } })",
        "step(\"s\", || { let i = 0; loop { kv.set(`storm:${i}`, i); i += 1; } })",
        "step(\"s\", || { loop { kv.incr(\"n\", 1); } })",
        "step(\"s\", || { loop { kv.del(\"k\"); } })",
        "loop { cluster.status(); }",
        "loop { cluster.alarms(); }",
        "loop { cluster.setting(\"reads.default\"); }",
        "loop { nodes.info(\"n1\"); }",
        "loop { nodes.is_up(\"n1\"); }",
        "loop { shards.map(); }",
        "loop { shards.verify(); }",
        "loop { replicas.lag(); }",
        "loop { replicas.verify(#{ sample: 1000 }); }",
        "loop { strategy.operation(); }",
        "loop { strategy.history(); }",
        "loop { strategy.plan(\"full\"); }",
        "step(\"s\", || { loop { try { strategy.commit(); } catch { } } })",
        "let i = 0; loop { step(`s${i}`, || 1); i += 1; }",
        "loop { step(\"same\", || 1); }",
        "loop { note(\"x\"); }",
        "loop { note(\"\"); }",
        "let s = \"x\"; for i in 0..17 { s += s; } loop { note(s); }",
        "on_failure(|e| { loop { note(\"x\"); } }); loop { note(\"x\"); }",
        "loop { print(\"x\"); }",
        "loop { guard(\"x\", true); }",
        "[1, 2, 3].map(|x| { loop { kv.get(\"k\"); } })",
        "wait_until(\"x\", \"1h\", || { loop { kv.get(\"k\"); } })",
        "on_failure(|e| { loop { kv.get(\"k\"); } }); loop { kv.get(\"k\"); }",
        "loop { on_failure(|e| 1); }",
    ]
    .map(str::to_owned)
    .into()
}

/// Processor time of a child that has ended and was not waited for yet.
fn cpu_of_ended(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is still there");
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let mut ticks = fields.split(' ').skip(11).map(|field| field.parse::<u64>().expect("a number"));
    let ticks = ticks.next().expect("utime") + ticks.next().expect("stime");
    Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
}

/// The most that a run of the program has had so far; none once it has ended. Nor before it has begun: for some
/// microseconds after `spawn` a child has this process's memory and name, and what these tests use is not its own.
fn peak_kib(pid: u32) -> Option<u64> {
    peak_kib_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The same, from the text of `/proc/PID/status`.
fn peak_kib_in(status: &str) -> Option<u64> {
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()
    };
    if of("Name:")? != "ppdb" { None } else { of("VmHWM:")?.parse().ok() }
}

#[test]
fn memory_counts_once_the_program_has_begun() {
    let status = |name| format!("Name:\t{name}\nUmask:\t0022\nVmHWM:\t  630624 kB\n");
    assert_eq!(peak_kib_in(&status("ppdb")), Some(630_624));
    assert_eq!(peak_kib_in(&status("it-2c0b")), None);
    assert_eq!(peak_kib_in("Name:\tppdb\nState:\tZ (zombie)\n"), None);
}

/// Runs one to its end, and looks at what it uses all the while.
fn used(name: &str, script: &Path, flags: &[String]) -> Used {
    let mut command = program();
    command.arg("run").arg(script).args(["-o", "json", "--yes", "--timeout", "2s"]).args(flags);
    let mut child: Child = command.spawn().expect("the program");
    let pid = child.id();
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let (mut memory_kib, started) = (0, Instant::now());
    let id = WaitId::Pid(Pid::from_child(&child));
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(id.clone(), look).expect("a child").is_none() {
        memory_kib = peak_kib(pid).unwrap_or(0).max(memory_kib);
        if started.elapsed() > Duration::from_secs(90) {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let cpu = cpu_of_ended(pid);
    let exit = child.wait().expect("a child").code();
    let text = |from: std::thread::JoinHandle<String>| from.join().unwrap_or_default();
    Used { name: name.to_owned(), cpu, memory_kib, exit, out: text(out), err: text(err) }
}

/// What is wrong with how one ended, if anything.
fn complaint(used: &Used) -> Option<String> {
    let tail = |text: &str| text.chars().take(600).collect::<String>();
    let told: Value = serde_json::from_str(&used.out).unwrap_or_default();
    let (code, message) =
        (told["code"].as_str().unwrap_or(""), told["message"].as_str().unwrap_or(""));
    let why = if !matches!(used.exit, Some(1..=124)) {
        format!("exit {:?}", used.exit)
    } else if !CODES.contains(&code) || message.is_empty() {
        format!("`{code}`: `{message}` is no clear error")
    } else if code == "BadRequest" && used.name.starts_with("storm") {
        format!("`{code}`: `{message}` is not the limit that it has reached")
    } else if used.cpu > CPU_MAX {
        format!("{:?} of processor time", used.cpu)
    } else if used.memory_kib > MEMORY_KIB_MAX {
        format!("{} KiB", used.memory_kib)
    } else {
        return None;
    };
    Some(format!("{}: {why}\n{}\n{}", used.name, tail(&used.out), tail(&used.err)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_hostile_scripts_are_stopped_early_and_the_node_does_not_notice() {
    let cluster =
        Cluster::start(Shape { primaries: 1, replicas: 0, shards: 2, ..Shape::default() }).await;
    let client = cluster.client().await;
    one(&client, set("k", "v"), &within(Duration::from_secs(10))).await.expect("a write");
    let kinds = [
        ("endless", endless()),
        ("deep", deep()),
        ("growing", growing()),
        ("elsewhere", elsewhere()),
        ("storm", storms()),
    ];
    let mut scripts = Vec::new();
    for (kind, sources) in kinds {
        for (number, source) in sources.into_iter().enumerate() {
            let name = format!("{kind}-{number}");
            let path = cluster.dir().join(format!("{name}.rhai"));
            std::fs::write(&path, &source).expect("a script");
            let start: String = source.chars().take(90).collect();
            scripts.push((format!("{name}: {start}"), path));
        }
    }
    assert!(scripts.len() >= SCRIPTS_MIN, "{} scripts", scripts.len());
    let (flags, left, done) = (cluster.flags(), Mutex::new(scripts), Mutex::new(Vec::new()));
    let over = AtomicBool::new(false);

    // Meanwhile somebody else reads, and is answered.
    let handle = &tokio::runtime::Handle::current();
    let (slowest, reads) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME)
            .map(|_| {
                scope.spawn(|| {
                    while let Some((name, path)) = { left.lock().expect("no panic").pop() } {
                        let used = used(&name, &path, &flags);
                        done.lock().expect("no panic").push(used);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let (mut slowest, mut reads) = (Duration::ZERO, 0);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let options = within(Duration::from_secs(5));
                handle.block_on(one(&client, get("k"), &options)).expect("the node answers");
                (slowest, reads) = (slowest.max(asked.elapsed()), reads + 1);
                std::thread::sleep(Duration::from_millis(20));
            }
            (slowest, reads)
        });
        workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        over.store(true, Ordering::Relaxed);
        reader.join().expect("every read was answered")
    });
    let done = done.into_inner().expect("no panic");
    let complaints: Vec<String> = done.iter().filter_map(complaint).collect();
    let most = |of: fn(&Used) -> u128| done.iter().map(of).max().unwrap_or(0);
    println!(
        "{} scripts: at most {} ms of processor time and {} KiB; the slowest of {reads} reads took {slowest:?}",
        done.len(),
        most(|used| used.cpu.as_millis()),
        most(|used| used.memory_kib.into()),
    );
    assert!(
        complaints.is_empty(),
        "{} of {}:\n{}",
        complaints.len(),
        done.len(),
        complaints.join("\n\n")
    );
    assert!(
        reads > 50 && slowest < Duration::from_secs(2),
        "{reads} reads, the slowest took {slowest:?}"
    );
    let refused =
        cluster.ppdb(&["info", "n1"]).expect(0).json()["value"]["safety"]["refused"].clone();
    assert_eq!((&refused["read"], &refused["write"]), (&json!(0), &json!(0)), "{refused}");
    client.close().await;
}
