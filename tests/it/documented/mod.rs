//! Every command that help or README shows is run, and the JSON of every command keeps its shape.
//!
//! `story.txt` is the order in which the documented lines make sense, each with its exit code, or the test that runs
//! it instead. `answers.txt` is the shape of each command's JSON: which paths there are, and of which types. Whoever
//! adds a command or a field sees this test fail until it is written down here, which
//! `PPDB_TEST_WRITE_ANSWERS=1 cargo test --test it documented` does for the shapes. A path that is gone, or a type
//! that changed, is a break of the contract.

mod formats;
mod lines;
mod shapes;

use crate::harness::{Cluster, Shape, command, wait};
use formats::Turns;
use lines::{Line, Run};
use ppdb::cli::args::Cli;
use serde_json::Value;
use shapes::Shapes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// The longest that a line of the story may take.
const LINE_WITHIN: Duration = Duration::from_secs(60);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the lines of the story say in place of what only a run knows.
struct Names {
    fixed: Vec<(String, String)>,
    /// `P-17` and the like, as the last answer that had one named it.
    seen: BTreeMap<&'static str, String>,
}

impl Names {
    /// Members of the documented clusters stand for those of this one.
    fn of(cluster: &Cluster) -> Self {
        let mut fixed = Vec::new();
        for (node, host) in cluster.nodes.iter().zip(["1", "2", "3", "4"]) {
            for documented in [format!("10.0.0.{host}:7101"), format!("127.0.0.1:710{host}")] {
                fixed.push((documented, node.addr.to_string()));
            }
        }
        let certs = cluster.certs.dir().display().to_string();
        fixed.push(("/etc/ppdb/certs".to_owned(), certs));
        Self { fixed, seen: BTreeMap::new() }
    }

    fn note(&mut self, name: &str, answer: &Value) {
        let value = &answer["value"];
        let found = match name {
            "strategy plan" => ("P-17", value["plan"].as_str()),
            "scan" => ("CURSOR", value["cursor"].as_str()),
            "op list" => ("3fa9c1", value[0]["id"].as_str().and_then(|id| id.get(..6))),
            "runs list" => ("RUN-12", value[0]["run"].as_str()),
            _ => return,
        };
        if let (placeholder, Some(real)) = found {
            self.seen.insert(placeholder, real.to_owned());
        }
    }

    fn filled_in(&self, line: &str) -> String {
        let seen = self.seen.iter().map(|(name, real)| (*name, real.as_str()));
        let fixed = self.fixed.iter().map(|(name, real)| (name.as_str(), real.as_str()));
        fixed.chain(seen).fold(line.to_owned(), |line, (name, real)| line.replace(name, real))
    }
}

/// Where the lines are run.
struct Place {
    dir: PathBuf,
    certs: PathBuf,
    endpoints: String,
}

impl Place {
    fn of(cluster: &Cluster) -> Self {
        let dir = cluster.dir().join("documented");
        std::fs::create_dir_all(&dir).expect("a folder");
        std::os::unix::fs::symlink(repository().join("scripts"), dir.join("scripts"))
            .expect("link");
        std::os::unix::fs::symlink(cluster.certs.dir(), dir.join("certs")).expect("link");
        std::fs::write(dir.join("photo.jpg"), [0xff, 0xd8, 0x00, 0x80]).expect("a file");
        std::fs::write(dir.join("requests"), "get user:1\n[\"status\"]\n").expect("a file");
        std::fs::write(dir.join("ppdb.toml"), "role = \"primary\"\nname = \"n1\"\n")
            .expect("a file");
        for user in ["admin", "alice"] {
            cluster.certs.user(user);
        }
        let certs = cluster.certs.dir().to_owned();
        Self { dir, certs, endpoints: cluster.endpoints().join(",") }
    }

    fn start(&self, line: &str) -> Child {
        let program = Path::new(env!("CARGO_BIN_EXE_ppdb"));
        let folder = program.parent().expect("a folder").display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = command("bash");
        // A single command in place of the shell, so that it gets the Ctrl-C.
        let exec = if line.contains(['|', '&']) { "" } else { "exec " };
        bash.args(["-c", &format!("{exec}{line}")]).current_dir(&self.dir);
        bash.env("PATH", format!("{folder}:{path}"))
            .env("HOME", &self.dir)
            .env("PPDB_CONTEXTS", self.dir.join("contexts.toml"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("PPDB_ENDPOINTS", &self.endpoints)
            .env("PPDB_CERTS", &self.certs);
        bash.spawn().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs a line to its end, or interrupts it: exit code, standard output and error.
    fn run(&self, line: &str, interrupt: Option<Duration>) -> (Option<i32>, String, String) {
        let mut child = self.start(line);
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let read = |from: &mut dyn Read| {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let out = std::thread::spawn(move || out.as_mut().map(|out| read(out)).unwrap_or_default());
        let err = std::thread::spawn(move || err.as_mut().map(|err| read(err)).unwrap_or_default());
        if let Some(after) = interrupt {
            std::thread::sleep(after);
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        }
        let code = wait(&mut child, LINE_WITHIN);
        let (out, err) = (out.join().expect("output"), err.join().expect("output"));
        let code = code.unwrap_or_else(|| panic!("`{line}` did not end\n{out}\n{err}"));
        (code, out, err)
    }
}

#[test]
fn every_documented_line_is_in_the_story_and_every_command_has_one() {
    let story = lines::story();
    let told: BTreeSet<&str> = story.iter().map(|line| line.text.as_str()).collect();
    let documented = lines::documented(repository());
    let missing: Vec<&String> =
        documented.iter().filter(|line| !told.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "not in tests/it/documented/story.txt: {missing:#?}");
    let elsewhere = story.iter().filter(|line| matches!(line.run, Run::Elsewhere(_)));
    let gone: Vec<&Line> = elsewhere.filter(|line| !documented.contains(&line.text)).collect();
    assert!(gone.is_empty(), "nobody documents: {gone:#?}");
    let shown: BTreeSet<String> = story.iter().flat_map(|line| lines::names(&line.text)).collect();
    let silent: Vec<String> =
        lines::commands().into_iter().filter(|name| !shown.contains(name)).collect();
    assert!(silent.is_empty(), "commands without a line: {silent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_line_does_what_it_says() {
    let mut cluster = Cluster::start(Shape::default()).await;
    let (place, mut names) = (Place::of(&cluster), Names::of(&cluster));
    let (mut shapes, mut turns, mut wrong) = (Shapes::default(), Turns::default(), Vec::new());
    for line in lines::story() {
        let (code, interrupt) = match line.run {
            Run::Elsewhere(_) => continue,
            Run::Until(code) => (code, None),
            Run::Interrupted(after) => (130, Some(after)),
            Run::Kill => {
                cluster.node(&line.text).kill();
                continue;
            }
            Run::Start => {
                cluster.node(&line.text).start();
                cluster.wait_ready().await;
                continue;
            }
        };
        let name = lines::name(&line.text);
        let asked = match line.is_plain_command() && interrupt.is_none() {
            true => turns.of(&line),
            false => vec![None],
        };
        // What was not asked for as JSON before may hold nothing.
        let mut is_empty = true;
        for format in asked {
            let mut text = names.filled_in(&line.text);
            text.extend(format.iter().flat_map(|format| [" -o ", *format]));
            let (ended, out, err) = place.run(&text, interrupt);
            if ended != Some(code) {
                wrong.push(format!("`{text}` ended with {ended:?}, not {code}\n{out}{err}"));
                continue;
            }
            let is_json = format.is_some_and(|format| format.starts_with("json"));
            if is_json || text.ends_with(" -o json") {
                let Some(answer) = formats::answer(&out, format == Some("jsonl")) else {
                    wrong.push(format!("`{text}` answers no JSON: {out}{err}"));
                    continue;
                };
                assert_eq!(answer["v"], 1, "`{text}`: {answer}");
                names.note(&name, &answer);
                is_empty = formats::is_empty(&answer);
                if code == 0 {
                    shapes.add(&name, &answer);
                }
            }
            if let Some(what) =
                format.and_then(|format| formats::wrong(&name, format, &out, is_empty || code != 0))
            {
                wrong.push(format!("`{text}` answers {what}\n{out}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
    shapes.hold(&repository().join("tests/it/documented/answers.txt"));
}

/// What the script for bash completes, asked as bash does.
#[test]
fn bash_completes_commands_flags_and_their_values() {
    for (words, expected) in [
        (vec!["ppdb", "strat"], "strategy"),
        (vec!["ppdb", "strategy", "pre"], "prepare"),
        (vec!["ppdb", "get", "k", "--max"], "--max-staleness"),
        (vec!["ppdb", "--output", "jsonl"], "jsonl"),
    ] {
        let script = format!(
            "source <({} completions bash); COMP_WORDS=({}); COMP_CWORD={}; \
             _ppdb ppdb {} {}; echo \"${{COMPREPLY[@]}}\"",
            env!("CARGO_BIN_EXE_ppdb"),
            words.join(" "),
            words.len() - 1,
            words[words.len() - 1],
            words[words.len() - 2],
        );
        let ran = command("bash").args(["-c", &script]).output().expect("bash");
        let completed = String::from_utf8_lossy(&ran.stdout);
        assert!(completed.split_whitespace().any(|word| word == expected), "{words:?}: {ran:?}");
    }
}

/// The tree that everything here is held against.
fn tree() -> clap::Command {
    use clap::CommandFactory;
    let mut tree = Cli::command();
    tree.build();
    tree
}
