//! The lines that are documented, and the story that runs them.

use super::tree;
use clap::Command;
use std::path::Path;
use std::time::Duration;

/// How a line of the story is run.
#[derive(Clone, Debug, PartialEq)]
pub enum Run {
    /// To its end, with that exit code.
    Until(i32),
    /// Until Ctrl-C after a time.
    Interrupted(Duration),
    /// By another test; the reason.
    Elsewhere(String),
    /// Not a line: the node of that name is killed.
    Kill,
    /// Not a line: it is started again.
    Start,
}

/// A line of the story.
#[derive(Clone, Debug)]
pub struct Line {
    pub run: Run,
    pub text: String,
}

impl Line {
    /// True if it is one call of the program, whose answer is on standard output.
    pub fn is_plain_command(&self) -> bool {
        let own = ["ppdb shell", "ppdb demo", "ppdb serve"];
        self.text.starts_with("ppdb ")
            && !own.iter().any(|own| self.text.starts_with(own))
            && !self.text.contains(['|', '>', '&'])
            && !self.text.contains("--format")
    }
}

/// The story: `CODE LINE`, `^SECONDS LINE` for Ctrl-C, `- LINE  # who runs it`, `kill NODE`, `start NODE`.
pub fn story() -> Vec<Line> {
    let lines = include_str!("story.txt").lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse).collect()
}

fn parse(line: &str) -> Line {
    let (how, text) = line.split_once(' ').unwrap_or_else(|| panic!("half a line: {line}"));
    let (text, reason) = match text.trim().rsplit_once("  # ") {
        Some((text, reason)) => (text.trim(), reason),
        None => (text.trim(), ""),
    };
    let run = match how {
        "kill" => Run::Kill,
        "start" => Run::Start,
        "-" => {
            assert!(!reason.is_empty(), "who runs `{text}`?");
            Run::Elsewhere(reason.to_owned())
        }
        _ => match how.strip_prefix('^') {
            Some(seconds) => {
                Run::Interrupted(Duration::from_secs_f64(seconds.parse().expect("seconds")))
            }
            None => Run::Until(how.parse().unwrap_or_else(|_| panic!("no exit code: {line}"))),
        },
    };
    Line { run, text: text.to_owned() }
}

/// Every line that help and the READMEs show, as it is typed.
pub fn documented(repository: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    examples(&tree(), &mut lines);
    for file in ["README.md", "README.zh.md", "scripts/README.md"] {
        let Ok(text) = std::fs::read_to_string(repository.join(file)) else { continue };
        lines.extend(blocks(&text));
    }
    lines.sort();
    lines.dedup();
    lines
}

/// Examples of a command and all below it.
fn examples(command: &Command, lines: &mut Vec<String>) {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let shown = after.lines().filter(|line| line.starts_with("  ppdb "));
    lines.extend(shown.map(|line| without_remark(line).to_owned()));
    command.get_subcommands().for_each(|sub| examples(sub, lines));
}

/// Lines of the blocks for a shell, and for our own (` ```text `), which are lines without the program's name.
fn blocks(text: &str) -> Vec<String> {
    let (mut found, mut language, mut open) = (Vec::new(), None::<&str>, String::new());
    for line in text.lines() {
        if let Some(fence) = line.strip_prefix("```") {
            language = if language.is_some() { None } else { Some(fence) };
            continue;
        }
        let prefix = match language {
            Some("sh") => "",
            Some("text") => "ppdb ",
            _ => continue,
        };
        if let Some(part) = line.trim().strip_suffix('\\') {
            open.push_str(part.trim());
            open.push(' ');
            continue;
        }
        let line = format!("{}{}", std::mem::take(&mut open), without_remark(line));
        if !line.is_empty() {
            found.push(format!("{prefix}{line}"));
        }
    }
    found
}

/// A line without the remark behind it: `  # …` in a README, three blanks and more in help.
fn without_remark(line: &str) -> &str {
    let line = line.trim();
    let line = if line.starts_with('#') { "" } else { line };
    let line = line.split("  #").next().unwrap_or(line).trim();
    line.split("   ").next().unwrap_or(line).trim()
}

/// The command that a line is about: `strategy plan`.
pub fn name(line: &str) -> String {
    let root = tree();
    let (mut command, mut path) = (&root, Vec::new());
    for word in line.split_whitespace().skip(1) {
        if let Some(sub) = command.find_subcommand(word) {
            path.push(sub.get_name().to_owned());
            command = sub;
        } else if !word.starts_with('-') {
            break;
        }
    }
    path.join(" ")
}

/// The commands that a line is about: its own, and those that it hands to a shell.
pub fn names(line: &str) -> Vec<String> {
    let handed = line.split_once("shell -e ").map(|(_, lines)| lines.trim_matches(['\'', '"']));
    let handed = handed.into_iter().flat_map(|lines| lines.split(';'));
    let handed = handed.map(|line| name(&format!("ppdb {line}")));
    handed.chain([name(line)]).collect()
}

/// The names of all commands that do something by themselves.
pub fn commands() -> Vec<String> {
    fn walk(command: &Command, path: &str, names: &mut Vec<String>) {
        let below: Vec<&Command> =
            command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if below.is_empty() {
            names.push(path.to_owned());
        }
        for sub in below {
            walk(sub, format!("{path} {}", sub.get_name()).trim(), names);
        }
    }
    let mut names = Vec::new();
    walk(&tree(), "", &mut names);
    names
}

#[test]
fn lines_are_found_where_they_are_documented() {
    let text = "x\n```sh\nppdb get a   # why\n# only a remark\nppdb init \\\n  --b 1\n```\n```text\nget b\n```\n```yaml\nno\n```";
    assert_eq!(blocks(text), ["ppdb get a", "ppdb init --b 1", "ppdb get b"]);
    assert_eq!(name("ppdb strategy plan full --x"), "strategy plan");
    assert_eq!(name("ppdb -o json get strategy"), "");
    assert!(commands().contains(&"cert issue node".to_owned()));
}
