//! `logs`: the last lines of every node, or of one, in the order of their times; and those that come.

use super::args::logs::LogsArgs;
use super::caller::{Caller, other_answer};
use super::everywhere;
use super::output::escape;
use super::session::Call;
use super::value::{Answered, Doc};
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::logs::{LogLevel, LogLine, LogPage, LogPosition, LogQuestion};
use serde_json::{Map as JsonMap, Value as Json, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// How long `logs --follow` follows unless told otherwise.
pub const FOLLOW_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// Between two questions to a node that is followed.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);
/// Carries out one question.
pub async fn run<C: Caller>(caller: &C, args: LogsArgs, call: &Call) -> Result<Answered> {
    if args.follow && !call.talk.prints_lines() {
        let message = "--follow prints a line for each line that comes, which -o json and a program that gets one \
                       answer have no place for; ask again with --since, or use -o jsonl";
        return Err(Error::new(Code::BadRequest, message));
    }
    let mut reading = Reading::new(args, call.typed.log_level()?);
    let nodes = everywhere::nodes(caller, call).await?;
    let lines = reading.ask(caller, &nodes, call).await;
    if let Some(error) = reading.failure.take() {
        return Err(error);
    }
    let newest = lines.len().saturating_sub(reading.args.limit as usize);
    if !reading.args.follow {
        return Ok(Answered::doc(doc(&lines[newest..], &reading), None));
    }
    let mut is_read = say(&lines[newest..], call);
    while is_read && Instant::now() + FOLLOW_EVERY < call.deadline {
        tokio::time::sleep(FOLLOW_EVERY).await;
        let lines = reading.ask(caller, &nodes, call).await;
        is_read = say(&lines, call);
    }
    Ok(Answered::doc(doc(&[], &reading), None))
}

/// A line and the node that said it.
type Said = (NodeName, LogLine);

/// How far the lines of each node were read.
struct Reading {
    args: LogsArgs,
    /// Lines that matter so much at least.
    level: LogLevel,
    positions: BTreeMap<NodeName, LogPosition>,
    dropped: BTreeMap<NodeName, u64>,
    /// Nodes that did not answer the last question.
    silent: Vec<NodeName>,
    /// Why nobody has.
    failure: Option<Error>,
}

impl Reading {
    fn new(args: LogsArgs, level: LogLevel) -> Self {
        let (positions, dropped) = (BTreeMap::new(), BTreeMap::new());
        Self { args, level, positions, dropped, silent: Vec::new(), failure: None }
    }

    /// What all nodes have said since the last question, in the order of their times.
    async fn ask<C: Caller>(&mut self, caller: &C, nodes: &[NodeName], call: &Call) -> Vec<Said> {
        let question = |node: &NodeName| Command::Logs(self.question(node));
        let answers = everywhere::ask(caller, nodes, call, question).await;
        self.failure = answers.failure().cloned();
        self.silent = answers.silent;
        let mut lines = Vec::new();
        for (node, answer) in answers.given {
            match answer {
                Answer::Logs(page) => lines.extend(self.take(&node, page)),
                _ => self.failure = Some(other_answer()),
            }
        }
        lines.sort_by(|(a, one), (b, other)| {
            (one.at_ms, a, one.sequence).cmp(&(other.at_ms, b, other.sequence))
        });
        lines
    }

    fn question(&self, node: &NodeName) -> LogQuestion {
        let since = self.args.since.map(|since| since.as_millis() as u64);
        let after = self.positions.get(node).copied();
        LogQuestion {
            after,
            level: self.level,
            // What comes is never too old.
            since_ms: since.filter(|_| after.is_none()),
            limit: if after.is_none() { self.args.limit } else { u32::MAX },
        }
    }

    fn take(&mut self, node: &NodeName, page: LogPage) -> Vec<Said> {
        let is_first = self.positions.insert(node.clone(), page.position).is_none();
        // What was dropped before anybody followed is no gap in what is followed.
        if !(is_first && self.args.follow) {
            *self.dropped.entry(node.clone()).or_default() += page.dropped;
        }
        page.lines.into_iter().map(|line| (node.clone(), line)).collect()
    }
}

/// Prints lines that have come; false once nobody reads them.
fn say(lines: &[Said], call: &Call) -> bool {
    let print =
        |said: &Said| call.talk.line(&row(said), || json!({ "v": 1, "log": json_of(said) }));
    lines.iter().all(print)
}

fn doc(lines: &[Said], reading: &Reading) -> Doc {
    let silent: Vec<&str> = reading.silent.iter().map(NodeName::as_str).collect();
    let dropped = reading.dropped.iter().filter(|(_, dropped)| **dropped > 0);
    let mut notes: Vec<String> = dropped
        .clone()
        .map(|(node, dropped)| format!("{node} does not keep {dropped} older lines any more"))
        .collect();
    if !silent.is_empty() {
        notes.push(format!("no answer from {}", silent.join(", ")));
    }
    let dropped: JsonMap<String, Json> =
        dropped.map(|(node, dropped)| (node.to_string(), json!(dropped))).collect();
    Doc {
        json: json!({
            "lines": lines.iter().map(json_of).collect::<Vec<_>>(), "dropped": dropped,
            "no_answer": silent,
        }),
        header: vec!["TIME", "NODE", "LEVEL", "FROM", "LINE"],
        rows: lines.iter().map(row).collect(),
        notes,
    }
}

fn json_of((node, line): &Said) -> Json {
    let fields: JsonMap<String, Json> =
        line.fields.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "at_ms": line.at_ms, "node": node.as_str(), "level": line.level.name(),
        "target": line.target, "message": line.message, "fields": fields,
        "sequence": line.sequence,
    })
}

fn row((node, line): &Said) -> Vec<String> {
    let mut text = line.message.clone();
    for (name, value) in &line.fields {
        text.push_str(&format!(" {name}={value}"));
    }
    // A line may quote what a stranger sent.
    let (target, text) = (escape(line.target.as_bytes()), escape(text.as_bytes()));
    let (level, node) = (line.level.name().to_owned(), node.to_string());
    vec![time(line.at_ms), node, level, target, text]
}

/// A time to the millisecond; a dash for years that no clock of ours has.
pub fn time(ms: u64) -> String {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    match at.filter(|_| ms < 253_402_300_800_000) {
        Some(at) => humantime::format_rfc3339_millis(at).to_string(),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::name;
    use super::*;

    fn args(follow: bool) -> LogsArgs {
        let since = Some(Duration::from_secs(60));
        LogsArgs { since, limit: 5, follow }
    }

    fn line(sequence: u64, at_ms: u64) -> LogLine {
        LogLine {
            sequence,
            at_ms,
            level: LogLevel::Warn,
            target: "ppdb::node".into(),
            message: "it\u{1b}[31m happened".into(),
            fields: vec![("who".into(), "a\nb".into())],
        }
    }

    fn page(sequence: u64, dropped: u64) -> LogPage {
        let position = LogPosition { started_ms: 1, sequence };
        LogPage { lines: vec![line(sequence, 1_700_000_000_123)], position, dropped }
    }

    #[test]
    fn the_first_question_is_for_the_newest_and_the_next_for_what_came_since() {
        let mut reading = Reading::new(args(true), LogLevel::Warn);
        let first = reading.question(&name("n1"));
        assert_eq!((first.after, first.since_ms, first.limit), (None, Some(60_000), 5));
        reading.take(&name("n1"), page(9, 3));
        let next = reading.question(&name("n1"));
        assert_eq!(next.after, Some(LogPosition { started_ms: 1, sequence: 9 }));
        assert_eq!((next.since_ms, next.limit), (None, u32::MAX));
        assert!(reading.dropped.is_empty(), "nothing was missed yet");
        reading.take(&name("n1"), page(12, 2));
        assert_eq!(reading.dropped[&name("n1")], 2);
    }

    #[test]
    fn lines_obey_no_terminal_and_gaps_are_told() {
        let mut reading = Reading::new(args(false), LogLevel::Warn);
        let said = reading.take(&name("n1"), page(9, 3));
        reading.silent.push(name("n2"));
        let doc = doc(&said, &reading);
        let row = [
            "2023-11-14T22:13:20.123Z",
            "n1",
            "warn",
            "ppdb::node",
            "it\\x1b[31m happened who=a\\nb",
        ];
        assert_eq!(doc.rows[0], row);
        assert_eq!(doc.json["lines"][0]["fields"]["who"], "a\nb");
        assert_eq!(
            (&doc.json["dropped"]["n1"], &doc.json["no_answer"][0]),
            (&json!(3), &json!("n2"))
        );
        assert_eq!(doc.notes.len(), 2);
    }
}
