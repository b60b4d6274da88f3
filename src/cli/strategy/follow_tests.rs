//! Every phase against every goal, and what is shown and said on the way.

use super::super::super::testing::{Twin, operation, progress};
use super::*;
use parking_lot::Mutex;

const ALL: [Phase; 13] = {
    use Phase::*;
    [
        Planned,
        Checkpointed,
        Copying,
        CaughtUp,
        Prepared,
        Committing,
        Soaking,
        Finalizing,
        Finalized,
        Aborting,
        Aborted,
        Reverting,
        Reverted,
    ]
};

/// `.` wait, `+` reached, `u` undone, `x` cannot be reached.
fn judged(goal: Goal) -> String {
    let sign = |phase| match over(goal, &operation(7, phase)) {
        None => '.',
        Some(Ok(())) => '+',
        Some(Err(error)) if error.code == Code::Undone => 'u',
        Some(Err(_)) => 'x',
    };
    ALL.into_iter().map(sign).collect()
}

#[test]
fn each_goal_ends_in_the_right_phases() {
    assert_eq!(judged(Goal::Phase(Phase::Prepared)), "....+++++.u.u");
    assert_eq!(judged(Goal::Phase(Phase::Soaking)), "......+++.u.u");
    assert_eq!(judged(Goal::Phase(Phase::Finalized)), "........+.u.u");
    assert_eq!(judged(Goal::Phase(Phase::Aborted)), "......x.x.+.u");
    assert_eq!(judged(Goal::Phase(Phase::Reverted)), "........x.u.+");
    assert_eq!(judged(Goal::Rest), "....+.+.+.+.+");
}

#[test]
fn a_prepared_operation_whose_commit_was_asked_for_does_not_rest() {
    let op = Operation { commit_asked: true, ..operation(7, Phase::Prepared) };
    assert!(over(Goal::Rest, &op).is_none());
}

#[test]
fn what_was_undone_says_why_and_what_holds() {
    let op = Operation { reason: Some("no sale".into()), ..operation(7, Phase::Aborted) };
    let error = over(Goal::Phase(Phase::Prepared), &op).unwrap().unwrap_err();
    assert_eq!(error.code, Code::Undone);
    assert_eq!(error.message, "operation 7 was aborted: no sale; the strategy is sharded");
}

#[test]
fn only_what_can_be_seen_makes_a_line() {
    let mut following = Follow::new(7, Goal::Rest);
    let op = operation(7, Phase::Copying);
    assert!(following.look(&op, None).is_some());
    assert!(following.look(&op, None).is_none());
    assert!(following.look(&op, Some(&progress(1, 4))).is_some());
    let mut later = progress(1, 4);
    (later.bytes_done, later.eta_s) = (later.bytes_done + 1, Some(9));
    assert!(following.look(&op, Some(&later)).is_none(), "a byte and an estimate are no news");
    later.blocker = Some("n2".into());
    assert!(following.look(&op, Some(&later)).is_some());
    assert!(following.look(&operation(7, Phase::CaughtUp), Some(&later)).is_some());
}

#[test]
fn percent_is_whole_and_never_over_a_hundred() {
    assert_eq!(percent(&Progress::default()), None);
    assert_eq!(percent(&progress(1, 3)), Some(33));
    let more = Progress { bytes_total: 1, bytes_done: u64::MAX, ..Progress::default() };
    assert_eq!(percent(&more), Some(100));
}

fn patience(ms: u64) -> Patience {
    Patience {
        until: Instant::now() + Duration::from_millis(ms),
        look_every: Duration::from_millis(1),
    }
}

/// Follows the latest operation of a twin; answers the end and the phases that were shown.
async fn followed(twin: &Twin, goal: Goal, ms: u64) -> (Result<Operation>, Vec<Phase>) {
    let first = twin.0.lock().operations.last().cloned().unwrap();
    let mut following = Follow::new(first.id, goal);
    let phases = Mutex::new(vec![]);
    let shown = |change: &Change| phases.lock().push(change.phase);
    let end = follow(twin, &mut following, &first, &patience(ms), &shown).await;
    let mut phases = phases.into_inner();
    phases.dedup();
    (end, phases)
}

#[tokio::test]
async fn a_switch_is_followed_from_phase_to_phase() {
    let op = Operation { commit_asked: true, ..operation(1, Phase::Planned) };
    let twin = Twin::with(|state| {
        state.operations.push(op);
        state.blind_looks = 3;
    });
    let (end, phases) = followed(&twin, Goal::Phase(Phase::Soaking), 10_000).await;
    assert_eq!(end.unwrap().phase, Phase::Soaking);
    assert_eq!(phases, ALL[..7], "looks that were refused are looked again");
}

#[tokio::test]
async fn when_time_runs_out_the_operation_goes_on_and_that_is_said() {
    let twin = Twin::with(|state| {
        state.operations.push(operation(1, Phase::Planned));
        state.stuck_in = Some(Phase::Copying);
    });
    let (end, _) = followed(&twin, Goal::Phase(Phase::Prepared), 100).await;
    let error = end.unwrap_err();
    assert_eq!(error.outcome(), "unknown");
    assert!(error.message.contains("operation 1 is copying and goes on"), "{error}");
    assert_eq!(twin.phase(), Some(Phase::Copying));
}

#[tokio::test]
async fn an_operation_that_is_not_the_latest_is_found_in_the_history() {
    let first = Operation { reason: Some("closed".into()), ..operation(1, Phase::Finalized) };
    let twin = Twin::with(|state| {
        state.operations = vec![Operation { step: 9, ..first }, operation(2, Phase::Planned)];
    });
    let mut following = Follow::new(1, Goal::Phase(Phase::Finalized));
    let known = operation(1, Phase::Soaking);
    let end = follow(&twin, &mut following, &known, &patience(5_000), &|_| {}).await;
    assert_eq!(end.unwrap().phase, Phase::Finalized);
}

#[tokio::test]
async fn an_operation_that_gives_up_ends_the_waiting() {
    for (phase, goal) in [(Phase::Copying, Phase::Prepared), (Phase::Soaking, Phase::Finalized)] {
        let op = Operation { commit_asked: true, ..operation(1, Phase::Planned) };
        let twin = Twin::with(|state| {
            state.operations.push(op);
            state.gives_up_in = Some(phase);
        });
        let (end, _) = followed(&twin, Goal::Phase(goal), 5_000).await;
        let error = end.unwrap_err();
        assert_eq!(error.code, Code::Undone, "{error}");
        assert!(error.message.contains("the guard said so"), "{error}");
    }
}
