//! Commands about the strategy against the twin: what they answer, and with which exit code.

use super::super::args::strategy::Asked;
use super::super::args::{Admin, Cli, Globals, Verb as TopVerb};
use super::super::exit;
use super::super::talk::Talk;
use super::super::testing::{Twin, operation};
use super::super::value::{Done, Value, envelope};
use super::*;
use serde_json::Value as Json;
use std::ffi::OsString;
use std::time::Instant;

async fn run_line(twin: &Twin, line: &str, ms: u64) -> (Json, u8) {
    let words = shlex::split(&format!("strategy {line}")).unwrap();
    let cli = Cli::from_words(words.into_iter().map(OsString::from)).unwrap();
    let TopVerb::Admin(Admin::Strategy(verb)) = cli.verb else { panic!("{line}") };
    let call = Call {
        globals: Globals::default(),
        typed: Globals::default(),
        deadline: Instant::now() + Duration::from_millis(ms),
        talk: Talk::default(),
    };
    let done: Done = run(twin, verb, &call).await.map_err(Into::into);
    if let Ok(answered) = &done {
        assert!(matches!(answered.value, Value::Doc(_)), "{line}");
    }
    (envelope(&done, 1.0), exit::of(&done))
}

#[tokio::test]
async fn a_switch_there_and_back_as_typed() {
    let twin = Twin::new();
    let value = async |line: &str| {
        let (json, code) = run_line(&twin, line, 20_000).await;
        assert_eq!((code, &json["v"]), (0, &Json::from(1)), "{line}: {json}");
        json["value"].clone()
    };
    assert_eq!(value("show").await["operation"], Json::Null);
    assert_eq!(value("plan full").await["verdict"], "go");
    assert_eq!(value("prepare full").await["phase"], "prepared");
    assert_eq!(value("commit").await["phase"], "soaking");
    assert_eq!(value("revert --reason 'p99'").await["phase"], "reverted");
    assert_eq!(value("switch full").await["phase"], "soaking");
    assert_eq!(value("watch").await["phase"], "soaking");
    assert_eq!(value("finalize").await["phase"], "finalized");
    assert_eq!(value("prepare sharded --no-wait").await["phase"], "planned");
    assert_eq!(value("abort --reason 'not today'").await["reason"], "not today");
    let history = value("history").await;
    let phases: Vec<&str> =
        history.as_array().unwrap().iter().map(|op| op["phase"].as_str().unwrap()).collect();
    assert_eq!(phases, ["reverted", "finalized", "aborted"]);
    assert_eq!(value("show").await["strategy"], "full");
}

#[tokio::test]
async fn exit_codes_tell_how_it_ended() {
    let (json, code) =
        run_line(&Twin::with(|s| s.verdict = Verdict::Warn), "plan full", 5_000).await;
    assert_eq!((code, &json["ok"]), (0, &Json::Bool(true)), "a warning is a go");
    let no_go = || Twin::with(|state| state.verdict = Verdict::NoGo);
    let (json, code) = run_line(&no_go(), "plan full", 5_000).await;
    assert_eq!((code, &json["value"]["may_start"]), (1, &Json::Bool(false)));
    let (json, code) = run_line(&no_go(), "switch full", 5_000).await;
    assert_eq!((code, &json["code"]), (5, &Json::from("PrecheckFailed")));
    let (json, code) = run_line(&Twin::new(), "commit", 5_000).await;
    assert_eq!((code, &json["code"]), (5, &Json::from("OperationConflict")));
    let gives_up = Twin::with(|state| state.gives_up_in = Some(Phase::Copying));
    let (json, code) = run_line(&gives_up, "prepare full", 20_000).await;
    assert_eq!((code, &json["code"]), (6, &Json::from("Undone")));
    let stuck = Twin::with(|state| state.stuck_in = Some(Phase::Copying));
    let (json, code) = run_line(&stuck, "switch full", 1_200).await;
    assert_eq!((code, &json["outcome"]), (124, &Json::from("unknown")));
    let (_, code) = run_line(&Twin::new(), "watch", 5_000).await;
    assert_eq!(code, 1, "there is nothing to watch");
    let ended = Twin::with(|state| state.operations.push(operation(1, Phase::Aborted)));
    let (json, code) = run_line(&ended, "watch", 5_000).await;
    assert_eq!((code, &json["ok"]), (1, &Json::Bool(true)));
}

#[test]
fn what_waits_has_patience() {
    let to = super::super::args::strategy::To::Full;
    assert_eq!(patience(&Verb::Watch), Some(WATCH_DEFAULT));
    let prepare = |no_wait| {
        let (terms, wait) = (Asked::default(), Wait { no_wait });
        Verb::Prepare { to, terms, wait, consent: Default::default() }
    };
    assert_eq!(patience(&prepare(false)), Some(WAIT_DEFAULT));
    assert_eq!(patience(&prepare(true)), None);
    assert_eq!(patience(&Verb::Plan { to }), Some(PLAN_DEFAULT));
    assert_eq!(patience(&Verb::Show), None);
}
