//! How the end of a script looks, as text and as the object of the contract.

use super::summary::{explained, printed, summary};
use super::terminal::shown;
use super::*;
use serde_json::json;

fn book(source: &str) -> Runbook {
    Runbook { request_timeout: Duration::from_secs(1), ..Runbook::of("x.rhai", source) }
}

fn trouble() -> Box<Trouble> {
    Box::new(Trouble {
        code: "PrecheckFailed".into(),
        class: "fix".into(),
        message: "n2 is short".into(),
        at: Some((2, 5)),
        inside: vec!["go".into()],
        exit: 5,
    })
}

fn ended(result: Result<Json, Box<Trouble>>) -> Ended {
    let call = Called { call: "prepare(\"full\")".into(), line: 2, code: None, ms: 12.34 };
    let step = Step { name: "one".into(), line: 1, code: None, replayed: true, ms: 13.0 };
    let (run, steps, calls) = (Some(12), vec![step], vec![call]);
    Ended { run, steps, calls, ms: 20.0, ..Ended::of(result) }
}

#[test]
fn an_error_shows_the_line_of_the_script_with_a_mark_under_the_place() {
    let text = explained(&book("let a = 1;\n\tfn go() {}\n"), &trouble());
    let expected = "error[PrecheckFailed]: n2 is short\n  --> x.rhai:2:5\n  |\n2 | \tfn go() {}\n  | \t   ^\n  in `go`\n  more: `ppdb explain PrecheckFailed`\n";
    assert_eq!(text, expected);
    let nowhere = Trouble { at: Some((99, 1)), ..*trouble() };
    assert!(explained(&book("a"), &nowhere).contains("x.rhai:99:1"), "no line, no panic");
    let hostile = Trouble { message: "\x1b[31m".into(), at: None, ..*trouble() };
    assert!(!explained(&book(""), &hostile).contains('\x1b'));
}

#[test]
fn the_summary_has_the_fields_of_the_contract() {
    let good = summary(&book(""), &ended(Ok(json!({ "equal": true }))));
    assert_eq!(
        (&good["v"], &good["ok"], &good["outcome"]),
        (&json!(1), &json!(true), &json!("ok"))
    );
    assert_eq!(good["result"]["equal"], true);
    assert_eq!(
        good["steps"][0],
        json!({"name": "one", "line": 1, "ok": true, "code": null, "replayed": true, "ms": 13.0})
    );
    assert_eq!(good["run"], "RUN-12");
    assert_eq!(
        good["calls"][0],
        json!({"call": "prepare(\"full\")", "line": 2, "ok": true, "code": null, "ms": 12.3})
    );
    assert!(good["ms"].is_number() && good.get("code").is_none());
    let bad = summary(&book(""), &ended(Err(trouble())));
    assert_eq!((&bad["ok"], &bad["outcome"]), (&json!(false), &json!("fail")));
    assert_eq!(
        (&bad["code"], &bad["line"], &bad["column"]),
        (&json!("PrecheckFailed"), &json!(2), &json!(5))
    );
    let lost = Box::new(Trouble { class: "uncertain".into(), ..*trouble() });
    assert_eq!(summary(&book(""), &ended(Err(lost)))["outcome"], "unknown");
}

#[test]
fn standard_output_is_one_object_with_json_and_empty_with_tables() {
    let going_on =
        Ended { left_running: Some("operation 7 goes on".into()), ..ended(Err(trouble())) };
    let json = printed(&book(""), &going_on, Format::Json);
    let object: Json = serde_json::from_slice(&json.out).unwrap();
    assert_eq!(object["left_running"], "operation 7 goes on");
    assert!(json.err.contains("operation 7 goes on"));
    assert!(printed(&book(""), &going_on, Format::Jsonl).err.is_empty());
    let table = printed(&book(""), &going_on, Format::Table);
    assert!(table.out.is_empty() && table.err.contains("error[PrecheckFailed]"));
    assert!(table.err.contains("`ppdb run --resume RUN-12`"), "{}", table.err);
}

#[test]
fn a_terminal_does_not_obey_a_script() {
    assert_eq!(shown("a\tb\nc\x1b[2J"), "a\tb\nc\\x1b[2J");
}

#[test]
fn a_script_that_cannot_be_read_is_named() {
    let error = read(Path::new("/nowhere/x.rhai")).unwrap_err();
    assert_eq!(error.code, Code::BadRequest);
    assert!(error.message.starts_with("/nowhere/x.rhai: "), "{error}");
}
