//! A person at a terminal: the shell of a demo in a real terminal, typed into and looked at.
//!
//! What is asserted is on the screen. Nothing is waited for by the clock alone: every wait is for something to appear.

use crate::harness::{Cluster, Shape, Terminal, free_demo_offset, turn};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::Duration;

/// For what needs no node.
const SOON: Duration = Duration::from_secs(5);
/// For what the cluster has to find out or to do.
const LATER: Duration = Duration::from_secs(20);

/// A switch that a busy machine is no reason against.
const SWITCH: &str = "strategy switch full --skip replica_lag --skip load";

/// The prompt of the demo, in that state.
fn at_prompt(lines: &[String], state: &str) -> bool {
    let last = lines.last().map_or("", String::as_str);
    last.starts_with("ppdb:demo ") && last.contains(state) && last.ends_with('>')
}

fn wait_prompt(terminal: &Terminal, state: &str) -> Vec<String> {
    let what = format!("prompt with `{state}`");
    terminal.wait(&what, LATER, |lines| lines.len() > 1 && at_prompt(lines, state))
}

/// Drops what stands in the line.
fn drop_line(terminal: &Terminal) {
    terminal.mark();
    terminal.keys(&["C-c"]);
    terminal.wait("fresh prompt", SOON, |lines| lines.len() > 1 && at_prompt(lines, "["));
}

#[test]
fn a_person_works_with_a_cluster_at_a_terminal() {
    let _turn = turn();
    let dir = tempfile::tempdir().expect("a folder");
    let history = dir.path().join("history");
    let offset = free_demo_offset().to_string();
    let env = [
        ("PPDB_HISTFILE", history.to_str().expect("a plain path")),
        ("PPDB_CONTEXTS", "/nowhere/contexts.toml"),
        ("TERM", "screen-256color"),
        // What the demo leaves behind if this test fails goes with the folder.
        ("TMPDIR", dir.path().to_str().expect("a plain path")),
    ];
    let terminal = Terminal::start(dir.path(), &env, &["demo", "--port-offset", &offset]);
    terminal.see("3 primaries and 1 replica serve", LATER);
    wait_prompt(&terminal, "[sharded e1");
    let colored = terminal.colored();
    assert!(colored.contains("\x1b[32m") || colored.contains("\x1b[31m"), "{colored:?}");

    completion(&terminal);
    typo(&terminal);
    help(&terminal);
    switch(&terminal);
    death_of_a_node(&terminal);
    rhai(&terminal);
    detached(&terminal);
    all_gone_and_back(&terminal);

    terminal.mark();
    terminal.keys(&["C-d"]);
    terminal.see("data and certificates are deleted", LATER);
    let kept = std::fs::read_to_string(&history).expect("a history");
    assert!(kept.contains(SWITCH), "{kept}");
    for private in ["hunter2", "mset", "swich", "exists blank", "rhai", "let total", "only_here"] {
        assert!(!kept.contains(private), "{private} was written down: {kept}");
    }
}

/// TAB completes a command, a node and a key, and a grey hint says what is missing.
fn completion(terminal: &Terminal) {
    terminal.mark();
    terminal.text("strat");
    terminal.keys(&["Tab"]);
    terminal.see("> strategy ", SOON);
    terminal.text("sw");
    terminal.keys(&["Tab"]);
    terminal.see("> strategy switch full|sharded", SOON);
    assert!(terminal.colored().contains("\x1b[90mfull|sharded"), "the hint is grey");
    drop_line(terminal);

    terminal.text("info r");
    terminal.keys(&["Tab"]);
    terminal.see("> info r1", SOON);
    terminal.mark();
    terminal.keys(&["Enter"]);
    terminal.see("node r1  version", SOON);
    wait_prompt(terminal, "[sharded");

    terminal.line("mset user:17 hunter2 user:18 b cart:9 c");
    wait_prompt(terminal, "[sharded");
    // Typed here, and so known without a question.
    terminal.text("get car");
    terminal.keys(&["Tab"]);
    terminal.see("> get cart:9", SOON);
    terminal.mark();
    terminal.keys(&["Enter"]);
    terminal.wait("the value", SOON, |lines| lines.iter().any(|line| line == "c"));
    wait_prompt(terminal, "[sharded");
    // Several: what they have in common, and then the list.
    terminal.mark();
    terminal.text("get us");
    terminal.keys(&["Tab"]);
    terminal.wait("both keys", SOON, |lines| {
        lines.iter().any(|line| line.contains("user:17") && line.contains("user:18"))
            && at_line(lines, "> get user:1")
    });
    drop_line(terminal);
    terminal.line(" exists blank");
    wait_prompt(terminal, "[sharded");
}

/// The last line ends so, whatever hint follows.
fn at_line(lines: &[String], end: &str) -> bool {
    lines.last().is_some_and(|line| line.contains(end))
}

fn typo(terminal: &Terminal) {
    terminal.line("strategy swich full");
    terminal.see("error[UnknownCommand]: there is no command `swich`; did you mean `switch`", SOON);
    wait_prompt(terminal, "[sharded");
}

/// One help, however it is asked for.
fn help(terminal: &Terminal) {
    let mut seen = Vec::new();
    for line in ["help shard", "? shard", "shard --help"] {
        terminal.line(line);
        let lines = wait_prompt(terminal, "[sharded");
        assert!(lines.iter().any(|line| line.contains("Where the data is")), "{lines:#?}");
        seen.push(lines[1..lines.len() - 1].to_vec());
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "{seen:#?}");
}

/// A switch is watched to its end: the bar, what came of it, and the prompt that follows.
fn switch(terminal: &Terminal) {
    terminal.line(SWITCH);
    let lines = wait_prompt(terminal, "[full e2");
    let text = lines.join("\n");
    assert!(
        lines.iter().any(|line| line.starts_with("[#") || line.starts_with("[-")),
        "no bar: {text}"
    );
    assert!(text.contains("next: `strategy revert` goes back"), "{text}");
    assert!(!text.contains("* operation"), "it is not told twice: {text}");
}

/// Nobody asks, and it is told above the line that is being typed; the next prompt shows it.
fn death_of_a_node(terminal: &Terminal) {
    terminal.line("node kill n3");
    terminal.see("n3 was killed", LATER);
    terminal.text("get cart:9");
    terminal.wait("notice above the line", LATER, |lines| {
        lines.iter().any(|line| line == "* n3 is down") && at_line(lines, "> get cart:9")
    });
    terminal.mark();
    terminal.keys(&["Enter"]);
    let lines = wait_prompt(terminal, "degraded:n3");
    assert!(lines.iter().any(|line| line == "c"), "it serves: {lines:#?}");
    terminal.line("node start n3");
    terminal.see("* n3 is back", LATER);
    wait_prompt(terminal, "[");
    terminal.line("");
    terminal.wait("a healthy prompt", LATER, |lines| {
        at_prompt(lines, "[full e2") && {
            !lines.last().is_some_and(|line| line.contains("degraded"))
        }
    });
}

/// Lines are put together until they are a script; what they leave behind stays.
fn rhai(terminal: &Terminal) {
    terminal.line("rhai");
    terminal.wait("the mode", LATER, |lines| at_line(lines, "rhai>"));
    terminal.line("let total = 0;");
    terminal.wait("the next line", LATER, |lines| lines.len() > 1 && at_line(lines, "rhai>"));
    terminal.line("for i in 1..=4 {");
    terminal.wait("the rest", SOON, |lines| lines.len() > 1 && at_line(lines, "....>"));
    terminal.line("  total += i * 100;");
    terminal.line("}");
    terminal.wait("its end", LATER, |lines| lines.len() > 1 && at_line(lines, "rhai>"));
    // A question that is left leaves nobody behind who would read the next line.
    terminal.line("confirm(\"sure?\")");
    terminal.see("sure? [y/N]", LATER);
    terminal.mark();
    terminal.keys(&["C-c"]);
    terminal.see("error[Interrupted]", LATER);
    terminal.wait("its end", SOON, |lines| at_line(lines, "rhai>"));
    terminal.line("total + 7");
    terminal.see("1007", LATER);
    // A command elsewhere, and no text of this language.
    terminal.line("exists only_here");
    terminal.see("error[ScriptSyntax]", LATER);
    terminal.wait("its end", SOON, |lines| at_line(lines, "rhai>"));
    // Functions of the engine itself are completed.
    terminal.mark();
    terminal.text("strat");
    terminal.keys(&["Tab"]);
    terminal.see("rhai> strategy", SOON);
    terminal.text(".swi");
    terminal.keys(&["Tab"]);
    terminal.see("rhai> strategy.switch_to", SOON);
    terminal.keys(&["C-c"]);
    terminal.line("nowhere(1)");
    terminal.see("nowhere", LATER);
    terminal.line("exit");
    wait_prompt(terminal, "[full e2");
    terminal.line("rhai `total is ${total}`");
    terminal.see("total is 1000", LATER);
    wait_prompt(terminal, "[full e2");
}

/// Ctrl-C leaves a switch that runs; it goes on, the prompt shows it, and its end is told.
fn detached(terminal: &Terminal) {
    terminal.line("strategy revert");
    wait_prompt(terminal, "[sharded e3");
    // Each setting is another epoch, which the prompt may or may not have heard of yet.
    terminal.line("config set switch.cool_down 0s");
    wait_prompt(terminal, "[sharded e");
    // So slow that it runs for as long as it is looked at.
    terminal.line("config set copy.bytes_per_s 64KiB");
    wait_prompt(terminal, "[sharded e");
    terminal.line(SWITCH);
    terminal.see("copying", LATER);
    terminal.mark();
    terminal.keys(&["C-c"]);
    terminal.see("(sharded -> full) is copying and goes on", SOON);
    terminal.see("`ppdb strategy watch` follows it", SOON);
    wait_prompt(terminal, "[sharded->full e");
    // What the message names is understood as it stands there.
    terminal.line("ppdb strategy throttle 0");
    wait_prompt(terminal, "[");
    terminal.see("(sharded -> full) is settled", LATER);
    terminal.line("");
    wait_prompt(terminal, "[full e");
}

/// The shell outlives its cluster, and finds it again with the next command.
fn all_gone_and_back(terminal: &Terminal) {
    for node in ["n1", "n2", "n3", "r1"] {
        terminal.line(&format!("node kill {node}"));
        terminal.see(&format!("{node} was killed"), LATER);
    }
    terminal.see("* no node answers", LATER);
    terminal.line("");
    let lines = wait_prompt(terminal, "-- [not connected]");
    assert!(lines.len() > 1, "{lines:#?}");
    for node in ["n1", "n2", "n3", "r1"] {
        terminal.line(&format!("node start {node}"));
        terminal.see(&format!("{node} starts"), LATER);
        wait_prompt(terminal, "[");
    }
    terminal.anywhere("* the cluster answers again", LATER);
    terminal.line("get cart:9 --timeout 20s");
    terminal.wait("the value", LATER, |lines| lines.iter().any(|line| line == "c"));
    wait_prompt(terminal, "[full e");
}

/// A terminal with `sh` in it, and one program at a time whose number is written down.
struct Inside<'a> {
    terminal: Terminal,
    dir: &'a Path,
}

impl<'a> Inside<'a> {
    fn new(dir: &'a Path) -> Self {
        let env = [("TMPDIR", dir.to_str().expect("a plain path"))];
        let terminal = Terminal::with("sh", dir, &env, &[]);
        terminal.line("PS1=ready\\>");
        terminal.wait("a prompt", SOON, |lines| lines.last().is_some_and(|line| line == "ready>"));
        Self { terminal, dir }
    }

    fn start(&self, words: &str) {
        let program = env!("CARGO_BIN_EXE_ppdb");
        self.terminal.line(&format!("sh -c 'echo $$ > pid; exec {program} {words}'"));
    }

    /// SIGTERM to the program: it ends, and the terminal takes lines, and shows them.
    fn ends(&self, code: u8) {
        self.terminal.mark();
        let pid = std::fs::read_to_string(self.dir.join("pid")).expect("its number");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
        kill_process(pid, Signal::TERM).expect("a signal");
        let ready = |lines: &[String]| lines.last().is_some_and(|line| line == "ready>");
        self.terminal.wait("a prompt", SOON, ready);
        self.terminal
            .line("echo \"ended $?\" $(stty -a | grep -o -e '-*icanon' -e '-*echo ' -e '-*isig')");
        self.terminal.see(&format!("ended {code} isig icanon echo"), SOON);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_that_is_told_to_end_leaves_what_it_waits_for() {
    let cluster = Cluster::start(Shape { replicas: 0, shards: 3, ..Shape::default() }).await;
    let inside = Inside::new(cluster.dir());
    let terminal = &inside.terminal;
    let book = "on_failure(|e| log(\"cleans up\")); log(\"has begun\"); sleep(\"10m\")";
    std::fs::write(cluster.dir().join("book.rhai"), book).expect("a script");
    let flags = cluster.flags().join(" ");
    let open = || {
        inside.start(&format!("shell --no-history {flags}"));
        terminal.wait("a prompt", LATER, |lines| {
            lines.last().is_some_and(|line| line.starts_with("ppdb:it ") && line.ends_with('>'))
        });
    };
    // At the prompt, a question, a command that waits, a runbook, and a line of Rhai, with and without a question.
    open();
    inside.ends(0);
    for (line, seen, left) in [
        ("strategy switch full --skip load", "[y/N]", "interrupted"),
        ("logs --follow --timeout 10m", "logs --follow", "interrupted"),
        ("run book.rhai", "has begun", "cleans up"),
        ("rhai log(\"has begun\"); sleep(\"10m\")", "has begun", "error[Interrupted]"),
        ("rhai confirm(\"sure?\")", "sure? [y/N]", "error[Interrupted]"),
    ] {
        open();
        terminal.line(line);
        terminal.see(seen, LATER);
        if seen == "logs --follow" {
            // It says nothing that could be waited for.
            std::thread::sleep(Duration::from_millis(500));
        }
        inside.ends(143);
        terminal.anywhere(left, SOON);
    }
    // While it connects: to somebody who accepts, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let certs = cluster.certs.dir().display();
    let addr = silent.local_addr().expect("an address");
    let flags = format!("--certs {certs} --user tester --endpoint {addr} --timeout 1m");
    inside.start(&format!("shell --no-history {flags}"));
    terminal.see("`help` lists the commands", LATER);
    inside.ends(0);
}

#[test]
fn a_demo_that_is_told_to_end_says_so() {
    let _turn = turn();
    let dir = tempfile::tempdir().expect("a folder");
    let inside = Inside::new(dir.path());
    inside.start(&format!("demo --port-offset {}", free_demo_offset()));
    inside.terminal.wait("a prompt", LATER, |lines| at_prompt(lines, "[sharded e1"));
    inside.ends(143);
    inside.terminal.anywhere("data and certificates are deleted", SOON);
}
