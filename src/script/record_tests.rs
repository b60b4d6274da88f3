//! Steps and their record: what is written down, what a resumed run does again, what stops a run, and what is done
//! after a failure.

use super::run::run;
use super::tests::{Paper, Played, book, play, play_again, play_on, trouble_of, with};
use crate::cli::runbook::Runbook;
use crate::cli::testing::{Mishap, Twin};
use crate::types::{Code, Error};
use crate::wire::operation::Phase;
use crate::wire::runs::Run;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

fn record(played: &Played, run: u64) -> Run {
    played.twin.0.lock().records.runs.get(run).unwrap().clone()
}

fn resumed(source: &str) -> Runbook {
    Runbook { resume: Some(1), ..book(source) }
}

#[tokio::test]
async fn what_changes_something_belongs_into_a_step() {
    for source in [
        "strategy.prepare(\"full\")",
        "strategy.abort(\"x\")",
        "cluster.configure(\"reads.default\", \"local\")",
        "kv.set(\"k\", 1)",
        "kv.del(\"k\")",
        "fn f() { kv.incr(\"k\", 1) } f()",
    ] {
        let played = play(source).await;
        let trouble = played.trouble();
        assert_eq!(
            (trouble.code.as_str(), trouble.exit),
            ("NotInStep", 2),
            "{source}: {trouble:?}"
        );
        assert!(trouble.at.is_some() && trouble.message.contains("`step("), "{trouble:?}");
        let state = played.twin.0.lock();
        assert!(state.orders.is_empty() && state.keys.is_empty(), "{source}");
    }
    assert_eq!(trouble_of("step(\"a\", || step(\"b\", || 1))").await.code, "BadRequest");
}

#[tokio::test]
async fn a_run_is_on_record_with_its_steps_notes_and_end() {
    let source = "let p = params(#{ n: 1 });\nlet a = step(\"one\", || p.n + 1);\nnote(`a is ${a}`);\n\
                  step(\"two\", || strategy.prepare(\"full\").id)";
    let played = play_on(Twin::new(), with(source, &[("n", "4")])).await;
    assert_eq!((played.result(), played.ended.run), (json!(1), Some(1)));
    let run = record(&played, 1);
    let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let end = run.steps[0].end.as_ref().unwrap();
    assert_eq!((end.result.as_deref(), run.steps[0].line), (Some("5"), 2));
    assert_eq!(run.steps[1].end.as_ref().unwrap().operations, [1]);
    assert_eq!(run.notes[0].text, "a is 5");
    assert_eq!(run.book.params, [("n".to_owned(), "4".to_owned())]);
    assert_eq!(run.book.sha256, super::record::sha256(source));
    assert_eq!(run.end.map(|end| end.failure), Some(None));
    let failed = play_again(played.twin.clone(), book("step(\"s\", || fail(\"no room\"))")).await;
    let run = record(&failed, 2);
    let why = Some(("ScriptFailed".to_owned(), "no room".to_owned()));
    assert_eq!(run.steps[0].end.as_ref().unwrap().failure, why);
    assert_eq!(run.end.unwrap().failure, why);
}

#[tokio::test]
async fn a_resumed_run_does_not_do_again_what_is_done() {
    let source = r#"
        let a = step("one", || { kv.set("one", 1); #{ a: [1, 2.5, "x", ()] } });
        for i in 0..3 { step("round", || { kv.incr("rounds", 1); if kv.get("stop") == `${i}` { fail("stop"); } i }); }
        a.a.push(step("last", || "end"));
        a
    "#;
    let twin = Twin::with(|state| drop(state.keys.insert("stop".into(), "1".into())));
    let first = play_on(twin, book(source)).await;
    assert_eq!(first.trouble().message, "stop");
    first.twin.0.lock().keys.clear();
    let second = play_again(first.twin.clone(), resumed(source)).await;
    assert_eq!(second.result(), json!({ "a": [1, 2.5, "x", null, "end"] }));
    let replayed: Vec<bool> = second.ended.steps.iter().map(|step| step.replayed).collect();
    assert_eq!(replayed, [true, true, false, false, false]);
    assert!(!second.twin.0.lock().keys.contains_key(&b"one"[..]), "not written again");
    let run = record(&second, 1);
    let tries: Vec<u32> = run.steps.iter().map(|step| step.tries).collect();
    assert_eq!((tries, run.resumed.len()), (vec![1, 1, 2, 1, 1], 1));
    let over = play_again(second.twin.clone(), resumed(source)).await;
    assert_eq!(over.trouble().code, "OperationConflict");
}

#[tokio::test]
async fn a_step_that_was_begun_finds_its_order_taken() {
    let source =
        "step(\"s\", || { strategy.prepare(\"full\").wait(); strategy.commit().wait().phase })";
    let twin = Arc::new(Twin::with(|state| state.stuck_in = Some(Phase::Copying)));
    let (stop, stopped) = watch::channel(false);
    let running =
        tokio::spawn(run(twin.clone(), book(source), Arc::new(Paper::default()), stopped));
    while twin.phase() != Some(Phase::Copying) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send_replace(true);
    assert_eq!(running.await.unwrap().result.unwrap_err().code, "Interrupted");
    let open = twin.0.lock().records.runs.get(1).unwrap().steps[0].clone();
    assert_eq!(open.end, None, "it has not ended");
    twin.0.lock().stuck_in = None;
    let second = play_again(twin, resumed(source)).await;
    assert_eq!(second.result(), json!("soaking"));
    assert_eq!(second.twin.0.lock().operations.len(), 1, "no second operation");
    assert!(second.said().contains("taken before: operation 1"), "{}", second.said());
}

#[tokio::test]
async fn a_run_whose_record_cannot_be_written_stops_loudly() {
    let denied = || Some(Mishap::Refused(Error::new(Code::Denied, "not for you")));
    // The first event is its beginning; nothing of the script is run then.
    let twin = Twin::with(|state| state.record_mishaps = [denied()].into());
    let played = play_on(twin, book("print(1)")).await;
    assert_eq!((played.trouble().code.as_str(), played.said().as_str()), ("Denied", ""));
    // Refused for good: neither the step nor what cleans up is run, because neither would be on record.
    let twin = Arc::new(Twin::new());
    let (_stop, stopped) = watch::channel(false);
    let source = "on_failure(|e| kv.set(\"cleaned\", 1)); print(\"on\"); sleep(\"100ms\"); \
                  try { step(\"s\", || kv.set(\"k\", 1)); } catch { } kv.get(\"k\")";
    let paper = Arc::new(Paper::default());
    let running = tokio::spawn(run(twin.clone(), book(source), paper.clone(), stopped));
    while paper.lines.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    twin.0.lock().records_refused = Some(Error::new(Code::Denied, "not for you"));
    let trouble = running.await.unwrap().result.unwrap_err();
    assert_eq!((trouble.code.as_str(), trouble.exit), ("Denied", 4), "{trouble:?}");
    assert!(trouble.message.contains("the record of this run cannot be kept"), "{trouble:?}");
    assert!(twin.0.lock().keys.is_empty(), "a step that is not on record is not run");
}

const CLEANED: &str =
    "on_failure(|e| { kv.set(\"cleaned\", e.code); print(`cleaned after ${e.code}`); });";

#[tokio::test]
async fn an_event_that_is_refused_for_good_holds_up_neither_what_cleans_up_nor_the_end() {
    for (rest, limit) in [
        ("for i in 0..300 { step(\"s\", || i); }", "256 steps"),
        ("for i in 0..300 { note(\"\"); }", "256 notes"),
        ("let long = \"\"; long.pad(2000, 'x'); for i in 0..300 { note(long); }", "65536 bytes"),
        (
            "let long = \"\"; long.pad(250, 'x'); for i in 0..300 { step(long, || i); }",
            "65536 bytes",
        ),
    ] {
        let played = play(&format!("{CLEANED} {rest}")).await;
        let trouble = played.trouble();
        assert_eq!((trouble.code.as_str(), trouble.exit), ("ScriptLimit", 2), "{trouble:?}");
        assert!(trouble.message.contains(limit), "{trouble:?}");
        assert_eq!(played.twin.0.lock().keys[&b"cleaned"[..]], "ScriptLimit".as_bytes());
        let run = record(&played, 1);
        assert_eq!(run.end.and_then(|end| end.failure).unwrap().0, "ScriptLimit");
        let last = run.steps.last().unwrap();
        assert_eq!(last.name, "on failure");
        assert!(last.end.as_ref().is_some_and(|end| end.failure.is_none()), "{last:?}");
    }
    // What cleans up does the rest although its remarks do not fit.
    let source =
        "on_failure(|e| { note(\"gave up\"); kv.set(\"cleaned\", 1); }); loop { note(\"\"); }";
    let played = play(source).await;
    assert!(played.twin.0.lock().keys.contains_key(&b"cleaned"[..]), "{}", played.said());
    assert!(played.said().contains("that note is not on record"), "{}", played.said());
}

#[tokio::test]
async fn notes_and_steps_are_calls_to_the_cluster() {
    for calls in ["note(\"x\")", "step(\"s\", || 1)"] {
        let source = format!("for i in 0..400 {{ kv.get(\"k\"); }} for i in 0..250 {{ {calls}; }}");
        let trouble = trouble_of(&source).await;
        assert_eq!(trouble.code, "ScriptLimit", "{trouble:?}");
        assert!(trouble.message.contains("asks too often"), "{trouble:?}");
    }
}

#[tokio::test]
async fn every_failure_of_a_run_is_cleaned_up_after() {
    let source = format!("{CLEANED} step(\"a\", || 1); step(\"s\", || fail(\"no\"))");
    let first = play(&source).await;
    let mut twin = first.twin;
    for tries in 1..4 {
        let cleaned = twin.0.lock().keys.remove(&b"cleaned"[..]);
        assert!(cleaned.is_some(), "the failure of try {tries}");
        let next = play_again(twin, resumed(&source)).await;
        assert_eq!(next.trouble().message, "no");
        assert_eq!(next.said().matches("cleaned after").count(), 1, "{}", next.said());
        let run = record(&next, 1);
        let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["a", "s", "on failure"]);
        assert_eq!(run.steps[2].tries, tries + 1);
        twin = next.twin;
    }
}

#[tokio::test]
async fn a_name_of_a_step_is_its_own_and_is_kept_whole() {
    for source in ["step(\"on failure\", || 1)", "let n = \"\"; n.pad(257, 'x'); step(n, || 1)"] {
        let played = play(source).await;
        assert_eq!(played.trouble().code, "BadRequest", "{source}");
        assert!(record(&played, 1).steps.is_empty());
    }
}

#[tokio::test]
async fn whoever_stops_a_script_does_not_wait_for_its_record() {
    // The record is out of reach when the script is stopped, or its time is up, and there again afterwards.
    for (by_flag, event, told) in [
        (true, "note(\"n\")", ["on failure"].as_slice()),
        (false, "note(\"n\")", &["on failure"]),
        (true, "step(\"s\", || 1)", &["s", "on failure"]),
    ] {
        let twin = Arc::new(Twin::new());
        let (stop, stopped) = watch::channel(false);
        let source =
            format!("{CLEANED} print(\"on\"); sleep(\"100ms\"); {event}; kv.set(\"k\", 1)");
        let timeout = Duration::from_secs(if by_flag { 60 } else { 1 });
        let book = Runbook { timeout, ..book(&source) };
        let paper = Arc::new(Paper::default());
        let running = tokio::spawn(run(twin.clone(), book, paper.clone(), stopped));
        while paper.lines.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        twin.0.lock().records_refused = Some(Error::new(Code::Unknown, "the answer was lost"));
        tokio::time::sleep(Duration::from_millis(300)).await;
        let started = Instant::now();
        stop.send_replace(by_flag);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        twin.0.lock().records_refused = None;
        let ended = running.await.unwrap();
        let code = if by_flag { "Interrupted" } else { "ScriptTimeout" };
        assert_eq!(ended.result.unwrap_err().code, code);
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
        let state = twin.0.lock();
        assert_eq!(state.keys[&b"cleaned"[..]], code.as_bytes());
        let run = state.records.runs.get(1).unwrap();
        let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, told, "what was in doubt is told first");
        assert_eq!(run.notes.len(), 2 - told.len());
        assert_eq!(run.end.as_ref().unwrap().failure.as_ref().unwrap().0, code);
    }
}

#[tokio::test]
async fn a_script_is_stopped_before_its_record_has_begun() {
    let lost = Error::new(Code::Unknown, "the answer was lost");
    let twin = Arc::new(Twin::with(|state| state.records_refused = Some(lost)));
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(run(twin, book("print(1)"), Arc::new(Paper::default()), stopped));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    stop.send_replace(true);
    let ended = running.await.unwrap();
    assert_eq!((ended.result.unwrap_err().code.as_str(), ended.run), ("Interrupted", None));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_event_whose_answer_is_lost_is_kept_once() {
    let lost = || Some(Mishap::AnswerLost);
    let twin = Twin::with(|state| {
        state.record_mishaps = [lost(), None, lost(), None, lost(), None, lost()].into()
    });
    let played = play_on(twin, book("step(\"a\", || 1); note(\"n\"); step(\"b\", || 2)")).await;
    assert_eq!(played.result(), json!(2));
    let run = record(&played, 1);
    assert_eq!((run.steps.len(), run.notes.len(), run.steps[0].tries), (2, 1, 1));
}

#[tokio::test]
async fn whoever_was_locked_out_stops() {
    let twin = Arc::new(Twin::new());
    let (_stop, stopped) = watch::channel(false);
    let source = "step(\"a\", || 1); sleep(\"600ms\"); step(\"b\", || kv.set(\"late\", 1))";
    let first = tokio::spawn(run(twin.clone(), book(source), Arc::new(Paper::default()), stopped));
    while twin.0.lock().records.runs.latest(1).first().is_none_or(|head| head.steps.1 == 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let second = play_again(twin.clone(), resumed("step(\"a\", || 1); sleep(\"2s\")"));
    let (first, _second) = tokio::join!(first, second);
    let trouble = first.unwrap().result.unwrap_err();
    assert_eq!(trouble.code, "Superseded", "{trouble:?}");
    assert!(!twin.0.lock().keys.contains_key(&b"late"[..]));
}

#[tokio::test]
async fn a_result_that_is_too_long_is_told_and_its_step_is_run_again() {
    let source = "let long = \"\"; long.pad(20000, 'x'); let n = step(\"s\", || { kv.set(\"k\", 1); long }).len; \
                  if kv.exists(\"stop\") { fail(\"stop\"); } n";
    let twin = Twin::with(|state| drop(state.keys.insert("stop".into(), "1".into())));
    let first = play_on(twin, book(source)).await;
    assert!(first.said().contains("too long to be kept"), "{}", first.said());
    first.twin.0.lock().keys.clear();
    let second = play_again(first.twin.clone(), resumed(source)).await;
    assert_eq!(second.result(), json!(20_000));
    assert!(second.twin.0.lock().keys.contains_key(&b"k"[..]), "run again");
    // Short enough each, and not all of them together.
    let source = "let long = \"\"; long.pad(9000, 'x'); for i in 0..7 { step(`s${i}`, || long); }";
    let played = play(source).await;
    let dropped: Vec<usize> =
        (0..7).filter(|i| played.said().contains(&format!("step s{i}: its result"))).collect();
    let run = record(&played, 1);
    let missing = |i: &usize| run.steps[*i].end.as_ref().unwrap().result.is_none();
    assert_eq!(dropped, (0..7).filter(missing).collect::<Vec<_>>());
    assert_eq!(dropped, [6]);
}

#[tokio::test]
async fn on_failure_is_called_once_also_when_stopped_or_out_of_time() {
    let handler =
        "on_failure(|e| { kv.set(\"cleaned\", e.code); print(`cleaned after ${e.code}`); });";
    for (rest, code) in [
        ("fail(\"no\")", "ScriptFailed"),
        ("loop { sleep(\"1h\") }", "ScriptTimeout"),
        ("loop {}", "ScriptLimit"),
        ("step(\"s\", || fail(\"no\"))", "ScriptFailed"),
    ] {
        let book =
            Runbook { timeout: Duration::from_secs(3), ..book(&format!("{handler} {rest}")) };
        let played = play_on(Twin::new(), book).await;
        assert_eq!(played.trouble().code, code, "{rest}: {:?}", played.trouble());
        assert_eq!(played.twin.0.lock().keys[&b"cleaned"[..]], code.as_bytes(), "{rest}");
        assert_eq!(played.said().matches("cleaned after").count(), 1, "{}", played.said());
        let steps = record(&played, 1).steps;
        assert_eq!(steps.last().map(|step| step.name.as_str()), Some("on failure"));
    }
    let twin = Arc::new(Twin::new());
    let (stop, stopped) = watch::channel(false);
    let source = format!("{handler} print(\"on\"); loop {{ sleep(\"1h\") }}");
    let paper = Arc::new(Paper::default());
    let running = tokio::spawn(run(twin.clone(), book(&source), paper.clone(), stopped));
    while paper.lines.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    stop.send_replace(true);
    assert_eq!(running.await.unwrap().result.unwrap_err().code, "Interrupted");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(twin.0.lock().keys[&b"cleaned"[..]], "Interrupted".as_bytes());
    // A script that comes to its end, and a handler that fails itself.
    let fine = play(&format!("{handler} 1")).await;
    assert!(fine.twin.0.lock().keys.is_empty());
    let odd = play("on_failure(|e| fail(\"odd\")); fail(\"first\")").await;
    assert_eq!(odd.trouble().message, "first");
    assert!(odd.said().contains("on_failure failed itself: odd"), "{}", odd.said());
}

#[tokio::test]
async fn a_guard_ends_a_script_with_its_own_code() {
    let trouble = trouble_of("guard(\"fine\", true); guard(\"not in peak\", 1 > 2);").await;
    assert_eq!((trouble.code.as_str(), trouble.exit), ("GuardFailed", 5));
    assert!(trouble.message.contains("not in peak"), "{trouble:?}");
    let late = trouble_of("wait_until(\"never\", \"300ms\", || false)").await;
    assert_eq!((late.code.as_str(), late.exit), ("DeadlineExceeded", 124));
}

#[tokio::test]
async fn parameters_are_declared_typed_and_come_first() {
    let source =
        "let p = params(#{ hours: 24, node: required(\"string\"), share: 1.5 }); [p.hours, p.node]";
    let played = play_on(Twin::new(), with(source, &[("hours", "48"), ("node", "n1")])).await;
    assert_eq!(played.result(), json!([48, "n1"]));
    let checked = super::run::check(&book(source)).unwrap();
    let names: Vec<(&str, &str)> = checked.iter().map(|p| (p.name.as_str(), p.kind)).collect();
    assert_eq!(names, [("hours", "int"), ("node", "string"), ("share", "float")]);
    let trouble = super::run::check(&with(source, &[("hours", "x")])).unwrap_err();
    assert!(trouble.message.contains("whole number") && trouble.at.is_some(), "{trouble:?}");
    let trouble = super::run::check(&with("status()", &[("a", "1")])).unwrap_err();
    assert!(trouble.message.contains("declares none"), "{trouble:?}");
    assert_eq!(trouble_of("params(#{}); params(#{})").await.code, "BadRequest");
    // By its processor time or by its operations, whichever comes first; and by what the engine alone counts.
    for source in ["loop {}", "let s = \"x\"; loop { s += s; }"] {
        assert_eq!(super::run::check(&book(source)).unwrap_err().code, "ScriptLimit", "{source}");
    }
}
