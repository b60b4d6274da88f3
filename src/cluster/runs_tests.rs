//! Records of runs: events in order, one runner at a time, and every bound.

use super::super::core::tests::record as formation;
use super::super::{MetaCommand, MetaReply};
use super::*;

fn formed() -> ClusterState {
    let mut state = ClusterState::default();
    state.apply(&MetaCommand::Form(formation(3, 1, 12)));
    state
}

fn book(script: &str) -> Book {
    let params = vec![("ask".to_owned(), "true".to_owned())];
    Book { script: script.into(), sha256: "ab".repeat(32), params, host: "h".into() }
}

/// Tells an event twice: the second time changes nothing.
fn tell(
    state: &mut ClusterState,
    runner: u64,
    run: u64,
    sequence: u64,
    event: RunEvent,
) -> Result<(), Error> {
    let order = RunOrder { runner, run, sequence, event };
    let (by, from) = ("user ann".to_owned(), "10.0.0.9:5000".to_owned());
    let command =
        MetaCommand::Run(Box::new(RunEntry { order, by, from, now_ms: 1_000 + sequence }));
    let reply = state.apply(&command);
    state.check().unwrap();
    match reply {
        MetaReply::Done { .. } => {
            let once = state.clone();
            assert!(matches!(state.apply(&command), MetaReply::Done { .. }));
            assert_eq!(*state, once, "telling it twice changes nothing");
            Ok(())
        }
        MetaReply::Refused(error) => Err(error),
    }
}

fn began(index: u32, name: &str) -> RunEvent {
    RunEvent::StepBegan { index, name: name.into(), line: 7 }
}

fn ended(index: u32, result: Option<String>) -> RunEvent {
    RunEvent::StepEnded { index, result, failure: None, operations: vec![9] }
}

fn failure() -> Option<(String, String)> {
    Some(("Interrupted".into(), "the script was interrupted".into()))
}

#[test]
fn a_run_is_begun_its_steps_follow_and_it_ends() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    assert_eq!(state.runs.of_runner(5).unwrap().number, 1);
    tell(&mut state, 5, 1, 1, began(0, "one")).unwrap();
    tell(&mut state, 5, 1, 2, ended(0, Some("7".into()))).unwrap();
    tell(&mut state, 5, 1, 3, RunEvent::Note("half".into())).unwrap();
    tell(&mut state, 5, 1, 4, began(1, "two")).unwrap();
    let head = state.runs.latest(9)[0].clone();
    assert_eq!((head.number, head.steps, head.end), (1, (2, 1), None));
    tell(&mut state, 5, 1, 5, RunEvent::End(None)).unwrap();
    let run = state.runs.get(1).unwrap();
    assert_eq!((run.by.as_str(), run.notes[0].text.as_str()), ("user ann", "half"));
    let end = run.steps[0].end.as_ref().unwrap();
    assert_eq!((end.result.as_deref(), end.operations.as_slice()), (Some("7"), &[9][..]));
    assert_eq!(run.end, Some(RunEnd { at_ms: 1_005, failure: None }));
    let late = tell(&mut state, 5, 1, 6, RunEvent::Note("late".into())).unwrap_err();
    assert_eq!(late.code, Code::BadRequest);
    assert_eq!(state.epoch, 1, "the map has not changed");
}

#[test]
fn events_come_in_order() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    assert_eq!(tell(&mut state, 5, 1, 2, began(0, "one")).unwrap_err().code, Code::BadRequest);
    assert_eq!(tell(&mut state, 5, 1, 1, began(3, "one")).unwrap_err().code, Code::BadRequest);
    assert_eq!(tell(&mut state, 5, 1, 1, ended(0, None)).unwrap_err().code, Code::BadRequest);
    assert_eq!(tell(&mut state, 5, 9, 1, began(0, "one")).unwrap_err().code, Code::NotFound);
}

#[test]
fn whoever_takes_up_a_run_locks_the_one_before_out() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    tell(&mut state, 5, 1, 1, began(0, "one")).unwrap();
    let changed = Book { sha256: "cd".repeat(32), ..book("a.rhai") };
    tell(&mut state, 6, 1, 0, RunEvent::Resume(changed)).unwrap();
    let locked_out = tell(&mut state, 5, 1, 2, ended(0, None)).unwrap_err();
    assert_eq!(locked_out.code, Code::Superseded);
    // What was begun and did not end is begun once more.
    tell(&mut state, 6, 1, 1, began(0, "one")).unwrap();
    tell(&mut state, 6, 1, 2, ended(0, Some("1".into()))).unwrap();
    let run = state.runs.get(1).unwrap();
    assert_eq!((run.steps[0].tries, run.resumed.len()), (2, 1));
    assert!(run.book.sha256.starts_with("cd"));
    assert!(tell(&mut state, 6, 1, 3, began(0, "other")).is_err(), "another step");
    tell(&mut state, 6, 1, 3, RunEvent::End(failure())).unwrap();
    tell(&mut state, 7, 1, 0, RunEvent::Resume(book("a.rhai"))).unwrap();
    tell(&mut state, 7, 1, 1, RunEvent::End(None)).unwrap();
    let over = tell(&mut state, 8, 1, 0, RunEvent::Resume(book("a.rhai"))).unwrap_err();
    assert_eq!(over.code, Code::OperationConflict);
}

#[test]
fn a_run_is_not_resumed_for_ever() {
    let mut state = formed();
    tell(&mut state, 1, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    for runner in 2..2 + RESUMED_MAX as u64 {
        tell(&mut state, runner, 1, 0, RunEvent::Resume(book("a.rhai"))).unwrap();
    }
    assert!(tell(&mut state, 99, 1, 0, RunEvent::Resume(book("a.rhai"))).is_err());
}

#[test]
fn the_oldest_run_makes_room_and_numbers_follow_each_other() {
    let mut state = formed();
    for runner in 1..=RUNS_MAX as u64 + 3 {
        tell(&mut state, runner, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    }
    let all = state.runs.latest(usize::MAX);
    assert_eq!((all.len(), all[0].number, all[RUNS_MAX - 1].number), (RUNS_MAX, 67, 4));
    assert_eq!(tell(&mut state, 1, 1, 1, began(0, "one")).unwrap_err().code, Code::NotFound);
    let mut found: Vec<Run> = (4..=67).map(|n| state.runs.get(n).unwrap().clone()).collect();
    found.rotate_left(9);
    assert_eq!(Runs::of(found), state.runs);
}

#[test]
fn a_record_is_short_whatever_its_runner_tells() {
    let mut state = formed();
    let long = Book { script: "ü".repeat(5_000), ..book("") };
    tell(&mut state, 5, 0, 0, RunEvent::Begin(long)).unwrap();
    // Results are left out before anything is refused.
    let (mut index, mut sequence) = (0, 0);
    let refused = loop {
        sequence += 1;
        if let Err(error) = tell(&mut state, 5, 1, sequence, began(index, &"n".repeat(999))) {
            break error;
        }
        sequence += 1;
        let huge = if index == 0 { RESULT_BYTES_MAX + 1 } else { 9_000 };
        tell(&mut state, 5, 1, sequence, ended(index, Some("x".repeat(huge)))).unwrap();
        index += 1;
    };
    assert!(refused.message.contains("at most"), "{refused}");
    let run = state.runs.get(1).unwrap();
    let result = |at: usize| run.steps[at].end.as_ref().unwrap().result.clone();
    assert!(result(0).is_none() && result(1).is_some() && result(run.steps.len() - 1).is_none());
    assert!(run.steps.len() > 9, "{}", run.steps.len());
    tell(&mut state, 5, 1, sequence, RunEvent::End(failure())).unwrap();
}

#[test]
fn steps_notes_and_parameters_have_an_end() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    for index in 0..STEPS_MAX as u32 {
        tell(&mut state, 5, 1, u64::from(index) + 1, began(index, "s")).unwrap();
    }
    let next = STEPS_MAX as u64 + 1;
    let refused = tell(&mut state, 5, 1, next, began(STEPS_MAX as u32, "s")).unwrap_err();
    assert!(refused.message.contains("256 steps"), "{refused}");
    let note = |sequence| (sequence, RunEvent::Note("z".repeat(2_000)));
    let mut sequence = next;
    while let Ok(()) = {
        let (sequence, event) = note(sequence);
        tell(&mut state, 5, 1, sequence, event)
    } {
        sequence += 1;
    }
    assert!(sequence - next > 30 && sequence - next < 64, "{}", sequence - next);
    let params = (0..33).map(|n| (format!("p{n}"), String::new())).collect();
    let many = Book { params, ..book("a.rhai") };
    assert!(tell(&mut state, 6, 0, 0, RunEvent::Begin(many)).is_err());
}

#[test]
fn nothing_is_kept_where_there_is_no_cluster() {
    let mut state = ClusterState::default();
    let refused = {
        let order = RunOrder { runner: 1, run: 0, sequence: 0, event: RunEvent::Begin(book("a")) };
        let (by, from) = ("b".to_owned(), String::new());
        state.apply(&MetaCommand::Run(Box::new(RunEntry { order, by, from, now_ms: 1 })))
    };
    assert!(matches!(refused, MetaReply::Refused(error) if error.code == Code::NotFormed));
    assert_eq!(state, ClusterState::default());
}
