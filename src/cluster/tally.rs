//! Counts of changes of strategy since the cluster was formed: the four figures that survive every restart.
//!
//! They come from the journal alone. It keeps a bounded number of operations; what it forgets is added to a tally
//! first, so that the counts are those of all operations there ever were, and agree with `strategy history` exactly
//! while that still has them all.

use super::core::ClusterState;
use crate::wire::client::Strategy;
use crate::wire::operation::{Operation, Phase};
use crate::wire::tally::Tally;

/// Adds an operation, as it stands.
pub(super) fn add(tally: &mut Tally, op: &Operation) {
    let direction = match op.to {
        Strategy::Full => &mut tally.to_full,
        Strategy::Sharded => &mut tally.to_sharded,
    };
    if let (Some(took_ms), Some(at_ms)) = (op.times.took_ms(), op.times.soaking_ms) {
        direction.settled += 1;
        tally.took_ms += took_ms;
        (tally.last_settled_ms, tally.last_took_ms) = (Some(at_ms), Some(took_ms));
    }
    match op.phase {
        Phase::Aborted => direction.aborted += 1,
        Phase::Reverted => direction.reverted += 1,
        _ => {}
    }
    tally.failed_operations += u64::from(has_failed(op));
}

/// Whether it ended without the new strategy, and not because an operator took it back.
fn has_failed(op: &Operation) -> bool {
    let by_guard = || {
        op.last_failure.as_ref().is_some_and(|failure| op.reason.as_ref() == Some(&failure.what))
    };
    match op.phase {
        Phase::Aborted => true,
        Phase::Reverted => by_guard(),
        _ => false,
    }
}

impl ClusterState {
    /// Of all operations since the cluster was formed.
    pub fn tally(&self) -> Tally {
        let mut tally = self.forgotten;
        self.operations.iter().for_each(|op| add(&mut tally, op));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::core::tests::record;
    use crate::cluster::journal::OPERATIONS_MAX;
    use crate::cluster::{Event, MetaCommand, MetaReply};
    use crate::wire::operation::Times;

    fn formed() -> ClusterState {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 3)));
        state
    }

    fn begun(state: &mut ClusterState) {
        let (to, by, terms) = (Strategy::Full, "test".to_owned(), Default::default());
        state.apply(&MetaCommand::Begin { to, by, commit_asked: true, now_ms: 1_000, terms });
    }

    #[test]
    fn each_end_is_counted_once_and_a_way_back_does_not_undo_a_count() {
        let mut state = formed();
        begun(&mut state);
        assert_eq!(state.tally(), Tally::default(), "nothing has ended");
        let op_times = Times {
            started_ms: 1_000,
            prepared_ms: Some(3_000),
            committed_ms: Some(60_000),
            soaking_ms: Some(60_500),
            ended_ms: None,
        };
        let op = state.operations.last_mut().unwrap();
        (op.phase, op.times) = (Phase::Soaking, op_times);
        let settled = state.tally();
        assert_eq!((settled.to_full.settled, settled.avg_switch_time_ms()), (1, Some(2_500)));
        assert_eq!((settled.last_settled_ms, settled.last_took_ms), (Some(60_500), Some(2_500)));
        let op = state.operations.last_mut().unwrap();
        (op.phase, op.reason) = (Phase::Reverted, Some("the sale is over".to_owned()));
        let reverted = state.tally();
        assert_eq!((reverted.to_full.settled, reverted.to_full.reverted), (1, 1));
        assert_eq!(reverted.failed_operations, 0, "an operator took it back");
    }

    #[test]
    fn what_the_journal_forgets_is_still_counted() {
        let mut state = formed();
        let wanted = OPERATIONS_MAX as u64 * 2 + 3;
        for _ in 0..wanted {
            begun(&mut state);
            for event in [Event::GaveUp { why: "slow".to_owned() }, Event::Settled] {
                let (operation, step) = state.operation().map(|op| (op.id, op.step)).unwrap();
                let reply =
                    state.apply(&MetaCommand::Advance { operation, step, event, now_ms: 9 });
                assert!(matches!(reply, MetaReply::Done { .. }), "{reply:?}");
            }
            state.check().unwrap();
        }
        assert_eq!(state.operations.len(), OPERATIONS_MAX);
        let tally = state.tally();
        assert_eq!((tally.to_full.aborted, tally.failed_operations), (wanted, wanted));
        assert_eq!((tally.strategy_switches(), tally.avg_switch_time_ms()), (0, None));
    }
}
