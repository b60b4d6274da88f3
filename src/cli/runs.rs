//! `runs list` and `runs show`: the records of runs as any node knows them.

use super::args::runs::Runs;
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::strategy::document::time;
use super::value::{Answered, Doc};
use crate::types::{NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::runs::{Run, RunEnd, RunHead, RunStep};
use serde_json::{Value as Json, json};
use std::time::Duration;

/// Carries out one question.
pub async fn run<C: Caller>(caller: &C, question: Runs, call: &Call) -> Result<Answered> {
    let node = call.globals.node.as_ref();
    match question {
        Runs::List { limit } => {
            let command = Command::Runs { limit };
            let (answer, by) = caller.command(command, node, call.left()).await?;
            let Answer::Runs(runs) = answer else { return Err(other_answer()) };
            Ok(Answered::doc(list(&runs), Some(by)))
        }
        Runs::Show { run } => {
            let found = one(caller, run, node, call.left()).await?;
            Ok(Answered::doc(show(&found), None))
        }
    }
}

/// The record of a run.
pub async fn one<C: Caller>(
    caller: &C,
    run: u64,
    node: Option<&NodeName>,
    timeout: Duration,
) -> Result<Run> {
    match caller.command(Command::RunShow { run }, node, timeout).await? {
        (Answer::Run(run), _) => Ok(*run),
        _ => Err(other_answer()),
    }
}

/// What a run is called: `RUN-12`.
pub fn name(number: u64) -> String {
    format!("RUN-{number}")
}

/// `running` also where the runner is gone: nobody can tell the two apart.
fn outcome(end: Option<&RunEnd>) -> &'static str {
    match end {
        None => "running",
        Some(RunEnd { failure: None, .. }) => "ok",
        Some(RunEnd { failure: Some(_), .. }) => "fail",
    }
}

fn failure(end: Option<&RunEnd>) -> (Option<&str>, Option<&str>) {
    let failure = end.and_then(|end| end.failure.as_ref());
    failure.map_or((None, None), |(code, message)| (Some(code), Some(message)))
}

fn head_json(head: &RunHead) -> Json {
    let (code, message) = failure(head.end.as_ref());
    let took_ms = head.end.as_ref().map(|end| end.at_ms.saturating_sub(head.began_ms));
    json!({
        "run": name(head.number), "began_ms": head.began_ms, "by": head.by, "script": head.script,
        "steps": head.steps.0, "steps_done": head.steps.1, "outcome": outcome(head.end.as_ref()),
        "code": code, "message": message, "took_ms": took_ms,
    })
}

fn list(runs: &[RunHead]) -> Doc {
    let row = |head: &RunHead| {
        let outcome = match failure(head.end.as_ref()).0 {
            Some(code) => format!("fail: {code}"),
            None => outcome(head.end.as_ref()).to_owned(),
        };
        vec![
            name(head.number),
            time(head.began_ms).unwrap_or_else(|| "-".into()),
            head.by.clone(),
            outcome,
            format!("{}/{}", head.steps.1, head.steps.0),
            head.script.clone(),
        ]
    };
    Doc {
        json: runs.iter().map(head_json).collect(),
        header: vec!["RUN", "BEGAN", "BY", "OUTCOME", "STEPS", "SCRIPT"],
        rows: runs.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn step_outcome(step: &RunStep) -> &'static str {
    match &step.end {
        None => "begun",
        Some(end) if end.failure.is_some() => "fail",
        Some(_) => "ok",
    }
}

fn step_json(step: &RunStep) -> Json {
    let end = step.end.as_ref();
    let failure = end.and_then(|end| end.failure.as_ref());
    let text = end.and_then(|end| end.result.as_deref());
    let result: Option<Json> = text.and_then(|text| serde_json::from_str(text).ok());
    json!({
        "name": step.name, "line": step.line, "began_ms": step.began_ms, "tries": step.tries,
        "outcome": step_outcome(step), "ended_ms": end.map(|end| end.at_ms), "result": result,
        "result_kept": text.is_some(), "code": failure.map(|(code, _)| code),
        "message": failure.map(|(_, message)| message),
        "operations": end.map_or(&[][..], |end| &end.operations),
    })
}

fn show(run: &Run) -> Doc {
    let head = run.head();
    let mut json = head_json(&head);
    let params: serde_json::Map<String, Json> =
        run.book.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json["from"] = json!(run.from);
    json["host"] = json!(run.book.host);
    json["sha256"] = json!(run.book.sha256);
    json["params"] = Json::Object(params);
    json["steps"] = run.steps.iter().map(step_json).collect();
    json["notes"] = run.notes.iter().map(|n| json!({ "at_ms": n.at_ms, "text": n.text })).collect();
    let resumed = run
        .resumed
        .iter()
        .map(|r| json!({ "at_ms": r.at_ms, "by": r.by, "from": r.from, "host": r.host }));
    json["resumed"] = resumed.collect();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let row = |step: &RunStep| {
        let end = step.end.as_ref();
        let failure = end.and_then(|end| end.failure.as_ref());
        let (outcome, took) =
            (step_outcome(step), end.map(|e| e.at_ms.saturating_sub(step.began_ms)));
        let operations: Vec<String> =
            end.map_or_else(Vec::new, |e| e.operations.iter().map(u64::to_string).collect());
        vec![
            step.name.clone(),
            step.line.to_string(),
            or_dash(time(step.began_ms)),
            failure.map_or_else(|| outcome.to_owned(), |(code, _)| format!("fail: {code}")),
            or_dash(took.map(|ms| ms.to_string())),
            step.tries.to_string(),
            or_dash((!operations.is_empty()).then(|| operations.join(" "))),
        ]
    };
    Doc {
        json,
        header: vec!["STEP", "LINE", "BEGAN", "OUTCOME", "MS", "TRIES", "OPERATIONS"],
        rows: run.steps.iter().map(row).collect(),
        notes: words(run),
    }
}

/// What stands above the steps.
fn words(run: &Run) -> Vec<String> {
    let at = |ms| time(ms).unwrap_or_default();
    let end = match failure(run.end.as_ref()) {
        (Some(code), Some(message)) => format!("fail: {code}: {message}"),
        _ => outcome(run.end.as_ref()).to_owned(),
    };
    let mut notes = vec![
        format!("{}  {end}", name(run.number)),
        format!("{}  sha256 {}", run.book.script, run.book.sha256),
        format!("began {} by {} from {} on {}", at(run.began_ms), run.by, run.from, run.book.host),
    ];
    let params: Vec<String> =
        run.book.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !params.is_empty() {
        notes.push(format!("with {}", params.join(" ")));
    }
    notes.extend(
        run.resumed.iter().map(|r| format!("resumed {} by {} on {}", at(r.at_ms), r.by, r.host)),
    );
    notes.extend(run.notes.iter().map(|note| format!("note {}: {}", at(note.at_ms), note.text)));
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::runs::{Book, RunNote, StepEnd};

    fn run(end: Option<RunEnd>) -> Run {
        let step = |name: &str, end| {
            let name = name.to_owned();
            RunStep { name, line: 3, began_ms: 1_700_000_000_100, tries: 1, end }
        };
        let done = StepEnd {
            at_ms: 1_700_000_000_350,
            result: Some("{\"equal\":true}".into()),
            failure: None,
            operations: vec![7, 8],
        };
        Run {
            number: 12,
            runner: 1,
            by: "user ann".into(),
            from: "10.0.0.9:5000".into(),
            book: Book {
                script: "presale.rhai".into(),
                sha256: "ab".repeat(32),
                params: vec![("ask".into(), "true".into())],
                host: "ops1".into(),
            },
            began_ms: 1_700_000_000_000,
            steps: vec![step("prepare", Some(done)), step("commit", None)],
            notes: vec![RunNote { at_ms: 1_700_000_000_200, text: "half way".into() }],
            resumed: vec![],
            end,
            events: 5,
        }
    }

    #[test]
    fn a_run_is_shown_with_its_steps_and_how_it_ended() {
        let lost = show(&run(None));
        assert_eq!(
            (&lost.json["run"], &lost.json["outcome"]),
            (&json!("RUN-12"), &json!("running"))
        );
        assert_eq!(lost.json["steps"][0]["result"], json!({ "equal": true }));
        assert_eq!(lost.json["steps"][0]["operations"], json!([7, 8]));
        assert_eq!(lost.json["steps"][1]["outcome"], "begun");
        assert_eq!(
            (&lost.json["params"]["ask"], &lost.json["host"]),
            (&json!("true"), &json!("ops1"))
        );
        assert_eq!(lost.rows[0][3..], ["ok", "250", "1", "7 8"]);
        assert!(lost.rows.iter().all(|row| row.len() == lost.header.len()));
        let text = lost.notes.join("\n");
        assert!(
            text.contains("by user ann") && text.contains("half way") && text.contains("ask=true")
        );
        let failure = Some(("Interrupted".to_owned(), "by Ctrl-C".to_owned()));
        let failed = run(Some(RunEnd { at_ms: 1_700_000_009_000, failure }));
        let listed = list(&[failed.head()]);
        assert_eq!(listed.rows[0][3], "fail: Interrupted");
        assert_eq!(listed.rows[0][4], "1/2");
        assert_eq!(
            (&listed.json[0]["took_ms"], &listed.json[0]["steps_done"]),
            (&json!(9_000), &json!(1))
        );
        let good = run(Some(RunEnd { at_ms: 1_700_000_009_000, failure: None }));
        assert_eq!(show(&good).json["outcome"], "ok");
    }
}
