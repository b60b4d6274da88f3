//! How the end of a script looks: an object of the contract, or words with the line of the script. Pure.

use super::super::args::Format;
use super::super::output::{self, Printed};
use super::super::runs::name;
use super::super::value::VERSION;
use super::{Ended, Runbook, Trouble};
use serde_json::{Value as Json, json};

/// How it ended, on paper.
pub fn printed(book: &Runbook, ended: &Ended, format: Format) -> Printed {
    let mut printed = match format {
        Format::Json | Format::Jsonl => output::compact(&summary(book, ended)),
        Format::Table | Format::Plain => Printed { err: told(book, ended), ..Printed::default() },
    };
    if let (Err(trouble), true) = (&ended.result, format != Format::Jsonl) {
        printed.err.push_str(&explained(book, trouble));
    }
    if let (Some(text), true) = (&ended.left_running, format != Format::Jsonl) {
        printed.err.push_str(&format!("  {}\n", output::escape(text.as_bytes())));
    }
    printed
}

/// The object of the contract.
pub fn summary(book: &Runbook, ended: &Ended) -> Json {
    let steps: Vec<Json> = ended
        .steps
        .iter()
        .map(|step| {
            let (ok, ms) = (step.code.is_none(), (step.ms * 10.0).round() / 10.0);
            json!({
                "name": step.name, "line": step.line, "ok": ok, "code": step.code,
                "replayed": step.replayed, "ms": ms,
            })
        })
        .collect();
    let calls: Vec<Json> = ended
        .calls
        .iter()
        .map(|call| {
            let (ok, ms) = (call.code.is_none(), (call.ms * 10.0).round() / 10.0);
            json!({ "call": call.call, "line": call.line, "ok": ok, "code": call.code, "ms": ms })
        })
        .collect();
    let mut json = json!({
        "v": VERSION, "ok": ended.result.is_ok(), "outcome": "ok", "script": book.name,
        "run": ended.run.map(name), "dry_run": book.dry_run, "result": ended.result.as_ref().ok(),
        "steps": steps, "calls": calls, "calls_left_out": ended.calls_left_out,
        "left_running": ended.left_running,
    });
    if let Err(trouble) = &ended.result {
        let outcome = if trouble.class == "uncertain" { "unknown" } else { "fail" };
        json["outcome"] = json!(outcome);
        json["code"] = json!(trouble.code);
        json["class"] = json!(trouble.class);
        json["message"] = json!(trouble.message);
        json["line"] = json!(trouble.at.map(|(line, _)| line));
        json["column"] = json!(trouble.at.map(|(_, column)| column));
    }
    json["ms"] = json!((ended.ms * 10.0).round() / 10.0);
    json
}

fn told(book: &Runbook, ended: &Ended) -> String {
    let (steps, calls) = (ended.steps.len(), ended.calls.len() as u64 + ended.calls_left_out);
    let took = format!("{steps} steps and {calls} calls in {:.1} s", ended.ms / 1000.0);
    let rehearsal = if book.dry_run { ", no order was given and no record is kept" } else { "" };
    let record = ended.run.map_or(String::new(), |run| format!(", on record as {}", name(run)));
    match ended.result {
        Ok(_) => format!("{}: done, {took}{rehearsal}{record}\n", book.name),
        Err(_) => format!("{}: ended early, {took}{record}\n{}", book.name, way_on(ended)),
    }
}

/// How to go on with a run that ended early.
fn way_on(ended: &Ended) -> String {
    let way = ended.run.map(|run| format!("  `ppdb run --resume {}` goes on with it\n", name(run)));
    way.unwrap_or_default()
}

/// What went wrong, and where, with the line of the script.
pub fn explained(book: &Runbook, trouble: &Trouble) -> String {
    let escaped = |text: &str| output::escape(text.as_bytes());
    let mut text = format!("error[{}]: {}\n", trouble.code, escaped(&trouble.message));
    if let Some((line, column)) = trouble.at {
        text.push_str(&format!("  --> {}:{line}:{column}\n", book.name));
        if let Some(source) = book.source.lines().nth(line - 1) {
            let (gutter, number) = (" ".repeat(line.to_string().len()), line);
            let until: String = source.chars().take(column.saturating_sub(1)).collect();
            // Tabs stay tabs, so that the mark stands under what it marks.
            let blank = |c: char| if c == '\t' { '\t' } else { ' ' };
            let mark: String = until.chars().map(blank).collect();
            let source = source.replace(|c: char| c.is_control() && c != '\t', " ");
            text.push_str(&format!("{gutter} |\n{number} | {source}\n{gutter} | {mark}^\n"));
        }
    }
    for name in &trouble.inside {
        text.push_str(&format!("  in `{}`\n", escaped(name)));
    }
    text.push_str(&format!("  more: `ppdb explain {}`\n", escaped(&trouble.code)));
    text
}
