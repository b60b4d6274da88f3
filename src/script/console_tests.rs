//! The console line by line, the table of functions, and texts that lack their end.

use super::console::{Console, is_unfinished, methods, names};
use super::run::run;
use super::table::{FUNCTIONS, definitions};
use super::tests::{Paper, book};
use crate::cli::runbook::{Ended, Runbook};
use crate::cli::testing::Twin;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

async fn say(console: &Console<Twin>, text: &str) -> (Ended, Vec<String>) {
    let (_stop, stopped) = watch::channel(false);
    console.eval(text, Some(Duration::from_secs(20)), stopped).await
}

#[tokio::test]
async fn variables_and_functions_stay_and_nothing_needs_a_step() {
    let twin = Arc::new(Twin::new());
    let paper = Arc::new(Paper::default());
    let console = Console::new(twin.clone(), paper.clone(), Duration::from_secs(1)).unwrap();
    let result = async |text| say(&console, text).await.0.result;
    assert_eq!(result("let a = 40;").await, Ok(json!(null)));
    assert_eq!(result("fn twice(n) {\n    n * 2\n}").await, Ok(json!(null)));
    assert_eq!(result("a += 2; twice(a)").await, Ok(json!(84)));
    assert_eq!(result("kv.set(\"k\", a); kv.get(\"k\")").await, Ok(json!("42")));
    assert_eq!(
        result("let op = strategy.prepare(\"full\"); op.wait().phase").await,
        Ok(json!("prepared"))
    );
    assert_eq!(result("print(op.id)").await, Ok(json!(null)));
    assert_eq!(*paper.lines.lock(), ["1"]);
    assert!(twin.0.lock().records.runs.latest(1).is_empty(), "no record of a run");
    let (bad, variables) = say(&console, "let b = nothing;").await;
    assert_eq!(bad.result.unwrap_err().at, Some((1, 9)));
    assert_eq!(variables, ["a", "op"]);
    assert_eq!(result("a").await, Ok(json!(42)), "a line that failed does not end it");
    assert_eq!(say(&console, "loop {}").await.0.result.unwrap_err().code, "ScriptLimit");
    assert_eq!(result("a").await, Ok(json!(42)));
}

#[tokio::test]
async fn a_line_is_stopped_and_the_next_one_goes_on() {
    let console =
        Console::new(Arc::new(Twin::new()), Arc::new(Paper::default()), Duration::from_secs(1))
            .unwrap();
    let (stop, stopped) = watch::channel(false);
    let started = Instant::now();
    let raise = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send_replace(true);
    };
    let ((ended, _), ()) = tokio::join!(console.eval("sleep(\"1h\")", None, stopped), raise);
    assert_eq!(ended.result.unwrap_err().code, "Interrupted");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(say(&console, "1 + 1").await.0.result, Ok(json!(2)));
}

#[test]
fn a_text_that_lacks_its_end_is_told_from_a_wrong_one() {
    for open in [
        "fn f() {",
        "for i in 0..3 {\n  print(i);",
        "let a = [1,\n",
        "let a =",
        "print(\"x\"",
        "if true",
        "step(\"a\", || {\n kv.set(\"k\", 1);\n",
    ] {
        assert!(is_unfinished(open), "{open}");
    }
    for closed in [
        "",
        "1 + 1",
        "let a = ;",
        "let a = 1 2",
        "}",
        "status()",
        "fn f() { 1 }",
        "let a = \"x",
        "let a = `x`",
    ] {
        assert!(!is_unfinished(closed), "{closed}");
    }
}

#[test]
fn names_are_those_of_the_table() {
    let all = names();
    for name in ["cluster", "strategy", "step", "params", "print", "let"] {
        assert!(all.contains(&name), "{name}");
    }
    assert!(methods("strategy").contains(&"switch_to") && methods("kv").contains(&"scan"));
    assert!(methods("nothing").is_empty());
    let text = definitions();
    assert!(text.starts_with("module static;"));
    assert!(text.contains("fn switch_to(strategy: Strategy, to: String|Map) -> Map;"), "{text}");
    assert_eq!(text.matches("\nfn ").count(), FUNCTIONS.len());
}

/// Whatever the table names can be called, and what it says to change something is refused outside of a step.
#[tokio::test]
async fn every_function_of_the_table_is_there() {
    for function in FUNCTIONS {
        let name = function.name;
        let source = match function.changes {
            true => format!("step(\"s\", || {{ {} }})", function.example),
            false => function.example.to_owned(),
        };
        let dry = Runbook { dry_run: true, ..book(&source) };
        let (_stop, stopped) = watch::channel(false);
        let ended = run(
            Arc::new(Twin::new()),
            dry,
            Arc::new(Paper { answer: true, ..Paper::default() }),
            stopped,
        )
        .await;
        if let Err(trouble) = ended.result {
            assert_eq!(trouble.code, "OperationConflict", "{name}: {trouble:?}");
        }
        let (_stop, stopped) = watch::channel(false);
        let paper = Arc::new(Paper { answer: true, ..Paper::default() });
        let outside = run(Arc::new(Twin::new()), book(function.example), paper, stopped).await;
        let refused = outside.result.is_err_and(|trouble| trouble.code == "NotInStep");
        assert_eq!(refused, function.changes, "{name}");
    }
}
