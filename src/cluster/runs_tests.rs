//! Records of runs: events in order, one runner at a time, and every bound.

use super::super::core::tests::record as formation;
use super::super::{MetaCommand, MetaReply};
use super::bounds::TEXT_BYTES_MAX;
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

const ANN: &str = "user ann";

/// Tells an event twice: the second time changes nothing.
fn tell(
    state: &mut ClusterState,
    runner: u64,
    run: u64,
    sequence: u64,
    event: RunEvent,
) -> Result<(), Error> {
    tell_at(state, (ANN, 1_000 + sequence), RunOrder { runner, run, sequence, event })
}

/// The same by whoever, at that time.
fn tell_at(state: &mut ClusterState, told: (&str, u64), order: RunOrder) -> Result<(), Error> {
    let (by, from, now_ms) = (told.0.to_owned(), "10.0.0.9:5000".to_owned(), told.1);
    let command = MetaCommand::Run(Box::new(RunEntry { order, by, from, now_ms }));
    let before = state.clone();
    let reply = state.apply(&command);
    state.check().unwrap();
    match reply {
        MetaReply::Done { .. } => {
            let once = state.clone();
            assert!(matches!(state.apply(&command), MetaReply::Done { .. }));
            assert_eq!(*state, once, "telling it twice changes nothing");
            Ok(())
        }
        MetaReply::Refused(error) => {
            assert_eq!(*state, before, "a refusal changes nothing");
            Err(error)
        }
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
fn the_oldest_run_that_is_over_makes_room_and_numbers_rise() {
    let mut state = formed();
    for runner in 1..=RUNS_MAX as u64 + 3 {
        tell(&mut state, runner, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
        // The second, the third and the fourth end; the first is under way all the while.
        if (2..=4).contains(&runner) {
            tell(&mut state, runner, runner, 1, RunEvent::End(failure())).unwrap();
        }
    }
    let all = state.runs.latest(usize::MAX);
    let numbers: Vec<u64> = all.iter().rev().map(|head| head.number).collect();
    assert_eq!(numbers, [&[1][..], &(5..=67).collect::<Vec<_>>()].concat());
    assert_eq!(tell(&mut state, 2, 2, 2, began(0, "one")).unwrap_err().code, Code::NotFound);
    tell(&mut state, 1, 1, 1, began(0, "one")).unwrap();
    let mut found: Vec<Run> = numbers.iter().map(|n| state.runs.get(*n).unwrap().clone()).collect();
    found.rotate_left(9);
    assert_eq!(Runs::of(found), state.runs);
}

#[test]
fn a_run_under_way_is_not_pushed_out_but_one_without_a_runner_is_in_the_end() {
    let mut state = formed();
    for runner in 1..=RUNS_MAX as u64 {
        tell(&mut state, runner, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    }
    let begin = |runner| {
        let event = RunEvent::Begin(book("b.rhai"));
        RunOrder { runner, run: 0, sequence: 0, event }
    };
    let refused = tell(&mut state, 99, 0, 0, RunEvent::Begin(book("b.rhai"))).unwrap_err();
    assert_eq!(refused.code, Code::OperationConflict, "{refused}");
    // Those that were heard of lately stay, and the oldest of the silent ones goes.
    let later = 1_000 + SILENT_MS;
    for runner in [1, 2] {
        let event = began(0, "one");
        let order = RunOrder { runner, run: runner, sequence: 1, event };
        tell_at(&mut state, (ANN, later - 1), order).unwrap();
    }
    let early = tell_at(&mut state, (ANN, later - 1), begin(99)).unwrap_err();
    assert_eq!(early.code, Code::OperationConflict);
    tell_at(&mut state, (ANN, later), begin(99)).unwrap();
    assert!(state.runs.get(3).is_none());
    assert!([1, 2, 4, 65].iter().all(|run| state.runs.get(*run).is_some()));
}

#[test]
fn whoever_holds_most_of_the_places_keeps_nobody_else_from_one() {
    let mut state = formed();
    let order = |runner| {
        let event = RunEvent::Begin(book("a.rhai"));
        RunOrder { runner, run: 0, sequence: 0, event }
    };
    for runner in 1..=RUNS_MAX as u64 {
        let by = if runner % 2 == 0 || runner == 7 { "user bob" } else { ANN };
        tell_at(&mut state, (by, 1_000), order(runner)).unwrap();
    }
    // He was heard of in his first one since.
    let event = RunEvent::Note("still there".into());
    let note = RunOrder { runner: 2, run: 2, sequence: 1, event };
    tell_at(&mut state, ("user bob", 1_500), note).unwrap();
    let his_own = tell_at(&mut state, ("user bob", 2_000), order(98)).unwrap_err();
    assert_eq!(his_own.code, Code::OperationConflict);
    tell_at(&mut state, (ANN, 2_000), order(99)).unwrap();
    assert!(state.runs.get(4).is_none(), "silent longest");
    assert!([1, 2, 3, 6, 65].iter().all(|run| state.runs.get(*run).is_some()));
    // Now both hold half.
    assert!(tell_at(&mut state, (ANN, 2_000), order(100)).is_err());
}

#[test]
fn a_runner_is_about_one_run() {
    let mut state = formed();
    for runner in [3, 5] {
        tell(&mut state, runner, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    }
    let taken_up = tell(&mut state, 5, 1, 0, RunEvent::Resume(book("a.rhai"))).unwrap_err();
    let begun = tell(&mut state, 3, 0, 0, RunEvent::Begin(book("b.rhai"))).unwrap_err();
    assert_eq!((taken_up.code, begun.code), (Code::BadRequest, Code::BadRequest));
    let again = RunOrder { runner: 3, run: 0, sequence: 0, event: RunEvent::Begin(book("a.rhai")) };
    assert!(tell_at(&mut state, ("user bob", 1), again).is_err(), "somebody else's");
}

#[test]
fn only_its_holder_tells_of_a_run_and_nobody_is_shown_by_what() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    let forged = |runner, sequence| {
        let event = RunEvent::End(None);
        (("user bob", 2_000), RunOrder { runner, run: 1, sequence, event })
    };
    let (told, order) = forged(5, 1);
    let refused = tell_at(&mut state, told, order).unwrap_err();
    assert_eq!(refused.code, Code::Denied, "{refused}");
    tell(&mut state, 5, 1, 1, began(0, "one")).unwrap();
    assert_eq!(
        state.runs.shown(1).unwrap(),
        Run { runner: 0, ..state.runs.get(1).unwrap().clone() }
    );
    // Whoever takes it up is its holder, and whoever was is not any more.
    let event = RunEvent::Resume(book("a.rhai"));
    let resume = RunOrder { runner: 6, run: 1, sequence: 0, event };
    tell_at(&mut state, ("user bob", 2_000), resume.clone()).unwrap();
    assert_eq!(tell_at(&mut state, (ANN, 2_000), resume).unwrap_err().code, Code::Denied);
    assert_eq!(tell(&mut state, 6, 1, 1, RunEvent::End(None)).unwrap_err().code, Code::Denied);
    let (told, order) = forged(6, 1);
    tell_at(&mut state, told, order).unwrap();
    // A name that is cut where it is kept is cut where it is compared.
    let long = format!("user {}", "ü".repeat(NAME_BYTES_MAX));
    let event = RunEvent::Begin(book("a.rhai"));
    tell_at(&mut state, (&long, 1), RunOrder { runner: 7, run: 0, sequence: 0, event }).unwrap();
    let event = RunEvent::End(None);
    tell_at(&mut state, (&long, 1), RunOrder { runner: 7, run: 2, sequence: 1, event }).unwrap();
}

#[test]
fn what_is_told_is_cut_before_it_is_proposed() {
    let order = |event| RunOrder { runner: 1, run: 1, sequence: 1, event };
    let long = || "ü".repeat(1 << 20);
    let params = (0..32).map(|_| (long(), long())).collect();
    let book = Book { script: long(), sha256: long(), params, host: long() };
    for event in [
        RunEvent::Begin(book.clone()),
        RunEvent::Resume(book),
        RunEvent::StepBegan { index: 0, name: long(), line: 1 },
        RunEvent::StepEnded {
            index: 0,
            result: Some(long()),
            failure: Some((long(), long())),
            operations: vec![u64::MAX; 1 << 20],
        },
        RunEvent::Note(long()),
        RunEvent::End(Some((long(), long()))),
    ] {
        let once = fitted(order(event)).unwrap();
        assert!(codec::encode(&once).len() < RUN_BYTES_MAX, "{}", codec::encode(&once).len());
        assert_eq!(fitted(once.clone()), Ok(once));
    }
}

#[test]
fn whoever_ends_a_step_hears_whether_its_result_is_on_record() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    let mut kept = Vec::new();
    for index in 0..8 {
        let sequence = u64::from(index) * 2 + 1;
        tell(&mut state, 5, 1, sequence, began(index, "s")).unwrap();
        let event = ended(index, Some("x".repeat(9_000)));
        let order = RunOrder { runner: 5, run: 1, sequence: sequence + 1, event };
        tell_at(&mut state, (ANN, 1), order.clone()).unwrap();
        kept.push(state.runs.answer(&order));
    }
    let answers = [true, true, true, true, true, true, false, false];
    assert_eq!(kept, answers.map(|result| Ok(Answer::StepKept { result })));
}

/// Fills the record of run 1 with notes, after which it takes no more of them; answers the next sequence.
fn fill(state: &mut ClusterState, mut sequence: u64) -> u64 {
    for text in ["z".repeat(TEXT_BYTES_MAX), "z".repeat(40), String::new()] {
        while tell(state, 5, 1, sequence, RunEvent::Note(text.clone())).is_ok() {
            sequence += 1;
        }
    }
    sequence
}

#[test]
fn a_full_record_has_room_for_what_cleans_up_and_for_its_end() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    tell(&mut state, 5, 1, 1, began(0, "s")).unwrap();
    let next = fill(&mut state, 2);
    assert_eq!(tell(&mut state, 5, 1, next, began(1, "t")).unwrap_err().code, Code::BatchTooLarge);
    let again = tell(&mut state, 5, 1, next, RunEvent::Resume(book("a.rhai"))).map(drop);
    assert_eq!(again, Ok(()), "it is the same runner");
    // What failed, with all that a failure may say; what cleans up, the same; and the end.
    let long = || Some(("c".repeat(999), "m".repeat(9_999)));
    let failed = |index| {
        let (result, failure, operations) = (None, long(), vec![u64::MAX; 99]);
        RunEvent::StepEnded { index, result, failure, operations }
    };
    tell(&mut state, 5, 1, next, failed(0)).unwrap();
    tell(&mut state, 5, 1, next + 1, began(1, ON_FAILURE)).unwrap();
    tell(&mut state, 5, 1, next + 2, failed(1)).unwrap();
    tell(&mut state, 5, 1, next + 3, RunEvent::End(long())).unwrap();
    let refused = tell(&mut state, 6, 1, 0, RunEvent::Resume(book("a.rhai"))).unwrap_err();
    assert_eq!(refused.code, Code::BatchTooLarge, "nothing could be recorded of it");
}

#[test]
fn no_event_makes_a_record_longer_than_it_may_be() {
    let mut state = formed();
    tell(&mut state, 5, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    for index in 0..STEPS_MAX as u32 {
        tell(&mut state, 5, 1, u64::from(index) + 1, began(index, "s")).unwrap();
    }
    let mut sequence = fill(&mut state, STEPS_MAX as u64 + 1);
    // Steps that are all open end one after the other, and are begun again with larger numbers: `tell` holds the bound.
    for index in 0..STEPS_MAX as u32 {
        let (result, operations) = (None, vec![u64::MAX; 16]);
        let event = RunEvent::StepEnded { index, result, failure: failure(), operations };
        sequence += u64::from(tell(&mut state, 5, 1, sequence, event).is_ok());
        let event = RunEvent::StepBegan { index, name: "s".into(), line: u32::MAX };
        let order = RunOrder { runner: 5, run: 1, sequence, event };
        sequence += u64::from(tell_at(&mut state, (ANN, u64::MAX), order).is_ok());
    }
    tell(&mut state, 5, 1, sequence, RunEvent::End(failure())).unwrap();
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
    assert_eq!(refused.code, Code::BatchTooLarge);
    // What cleans up has one more, once.
    tell(&mut state, 5, 1, next, began(STEPS_MAX as u32, ON_FAILURE)).unwrap();
    assert!(tell(&mut state, 5, 1, next + 1, began(STEPS_MAX as u32 + 1, ON_FAILURE)).is_err());
    tell(&mut state, 5, 1, next + 1, began(STEPS_MAX as u32, ON_FAILURE)).unwrap();
    let mut sequence = next + 2;
    while tell(&mut state, 5, 1, sequence, RunEvent::Note("z".repeat(2_000))).is_ok() {
        sequence += 1;
    }
    assert!(sequence - next > 30 && sequence - next < 64, "{}", sequence - next);
    tell(&mut state, 6, 0, 0, RunEvent::Begin(book("a.rhai"))).unwrap();
    for sequence in 1..=NOTES_MAX as u64 {
        tell(&mut state, 6, 2, sequence, RunEvent::Note(String::new())).unwrap();
    }
    let next = NOTES_MAX as u64 + 1;
    let refused = tell(&mut state, 6, 2, next, RunEvent::Note(String::new())).unwrap_err();
    assert!(refused.message.contains("256 notes"), "{refused}");
    let params = (0..33).map(|n| (format!("p{n}"), String::new())).collect();
    let many = Book { params, ..book("a.rhai") };
    assert!(tell(&mut state, 7, 0, 0, RunEvent::Begin(many)).is_err());
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
