//! What each command answers in each of the four formats.
//!
//! A question is asked in all of them, one after the other. An order is given once, in the format whose turn it is, so
//! that orders of one kind go through all of them.

use super::lines::{self, Line};
use clap::Parser;
use ppdb::cli::args::Cli;
use ppdb::cli::care;
use serde_json::Value;
use std::collections::BTreeMap;

/// Formats for whoever reads text, and the other one for programs.
const OTHERS: [&str; 3] = ["table", "plain", "jsonl"];
/// Commands whose text is not columns: a report, code, sentences, what was told on the way.
const NOT_COLUMNS: [&str; 8] = [
    "bench",
    "man",
    "completions",
    "explain",
    "run",
    "metrics show",
    "metrics rules",
    "strategy watch",
];

/// Commands whose rows are what was found or done, and there may be none beside the rest of the answer.
const MAY_HAVE_NO_ROWS: [&str; 2] = ["check", "runs show"];
/// Questions that measure or follow something: asked in every format once, and as JSON after that.
const LASTING: [&str; 4] = ["strategy plan", "strategy watch", "keys big", "shard verify"];
/// What is no question to the cluster, or takes its time to be answered.
const IN_TURN: [&str; 10] = [
    "context",
    "connect",
    "cert",
    "run",
    "bench",
    "man",
    "completions",
    "latency",
    "monitor",
    "del",
];

/// Whose turn it is, by command.
#[derive(Default)]
pub struct Turns {
    given: BTreeMap<String, usize>,
}

impl Turns {
    /// The formats in which a line is run, one after the other; none if the line itself says which.
    pub fn of(&mut self, line: &Line) -> Vec<Option<&'static str>> {
        if line.text.contains(" -o ") {
            return vec![None];
        }
        let name = lines::name(&line.text);
        let turn = self.given.entry(name.clone()).or_default();
        *turn += 1;
        let all = || [Some("json")].into_iter().chain(OTHERS.map(Some)).collect();
        match is_question(&line.text) {
            true if LASTING.contains(&name.as_str()) && *turn > 1 => vec![Some("json")],
            true => all(),
            false => vec![Some(["json", "table", "plain", "jsonl"][(*turn - 1) % 4])],
        }
    }
}

/// Whether a line may be given four times and leads to the same.
fn is_question(text: &str) -> bool {
    let Ok(cli) = Cli::try_parse_from(shlex::split(text).unwrap_or_default()) else { return false };
    let name = lines::name(text);
    let first = name.split(' ').next().unwrap_or_default();
    !IN_TURN.contains(&first) && !care::changes(&cli.verb)
}

/// The answer in what a program gets: the whole, or the last line behind what was told on the way.
pub fn answer(out: &str, in_lines: bool) -> Option<Value> {
    if !in_lines {
        return serde_json::from_str(out).ok();
    }
    let lines: Result<Vec<Value>, _> = out.lines().map(serde_json::from_str).collect();
    let lines = lines.ok().filter(|lines| lines.iter().all(|line| line["v"] == 1))?;
    lines.into_iter().next_back()
}

/// What is wrong with a text answer. `is_empty`: as JSON, it holds nothing.
pub fn wrong(name: &str, format: &str, out: &str, is_empty: bool) -> Option<String> {
    if format.starts_with("json") {
        return None;
    }
    if serde_json::from_str::<Value>(out).is_ok_and(|answer| answer.get("v").is_some()) {
        return Some("JSON".to_owned());
    }
    let no_rows = format == "plain" && MAY_HAVE_NO_ROWS.contains(&name);
    if out.trim().is_empty() && !is_empty && !no_rows {
        return Some("nothing".to_owned());
    }
    // The exact bytes of a value.
    let odd = out.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    if let Some(odd) = odd.filter(|_| name != "get") {
        return Some(format!("{odd:?} in what a pipe gets"));
    }
    if NOT_COLUMNS.contains(&name) || format != "plain" {
        return None;
    }
    let columns: Vec<usize> = out.lines().map(|line| line.split('\t').count()).collect();
    let differ = columns.windows(2).any(|pair| pair[0] != pair[1]);
    differ.then(|| format!("rows of {columns:?} columns"))
}

/// Whether an answer holds nothing that a person could be shown.
pub fn is_empty(answer: &Value) -> bool {
    match &answer["value"] {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(|field| match field {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        }),
        _ => false,
    }
}

#[test]
fn questions_are_told_from_orders() {
    for question in ["ppdb status", "ppdb config get", "ppdb strategy history", "ppdb keys hot"] {
        assert!(is_question(question), "{question}");
    }
    for order in ["ppdb set a 1", "ppdb strategy commit", "ppdb config set a b", "ppdb nothing"] {
        assert!(!is_question(order), "{order}");
    }
    assert!(wrong("status", "plain", "a\tb\nc\n", false).is_some());
    assert!(wrong("status", "table", "\u{1b}[1m", false).is_some());
    assert!(wrong("status", "table", "{\"v\":1}\n", false).is_some());
    assert!(wrong("status", "plain", "\n", false).is_some());
    assert!(wrong("status", "plain", "\n", true).is_none());
    assert!(wrong("status", "plain", "a\tb\nc\t\n", false).is_none());
    assert_eq!(answer("{\"v\":1,\"a\":1}\n{\"v\":1,\"a\":2}\n", true).expect("lines")["a"], 2);
    assert!(answer("{\"a\":1}\n{\"v\":1}\n", true).is_none());
    for (value, nothing) in [(r#"{"lines":[],"dropped":{}}"#, true), (r#"{"lines":[1]}"#, false)] {
        let answer = serde_json::from_str(&format!("{{\"value\":{value}}}")).expect("JSON");
        assert_eq!(is_empty(&answer), nothing, "{value}");
    }
}
