//! What the guard of a switch, or an operator in its place, does to the operation under way: the rate of its
//! copying, its alarm, what went wrong last. Pure and deterministic, like `journal`, which calls it.

use super::core::ClusterState;
use super::journal::{Event, conflict, precedes_commit, shortened};
use crate::types::Error;
use crate::wire::guard::{Failure, Stage};

/// Rate of a copy that is held: it moves on by one chunk now and then, so that neither side gives it up.
pub const HELD_BYTES_PER_S: u64 = 1;

impl ClusterState {
    /// Rate at which a node sends copies at this moment, in bytes a second; 0 is unlimited. What was set for the
    /// operation under way holds for it alone, and ends with its commit point or its abort.
    pub fn copy_rate(&self) -> u64 {
        match self.active().filter(|op| precedes_commit(op.phase)) {
            Some(op) if op.guard.stage == Stage::Held => HELD_BYTES_PER_S,
            Some(op) => op.copy_bytes_per_s.unwrap_or_else(|| self.copy_bytes_per_s()),
            None => self.copy_bytes_per_s(),
        }
    }

    /// Carries out an event about rate or alarm.
    pub(super) fn guarded(&mut self, event: &Event, now_ms: u64) -> Result<(), Error> {
        let Some(op) = self.operations.last_mut() else { return Ok(()) };
        let (copies, guard) = (precedes_commit(op.phase), &mut op.guard);
        let why = match (event, guard.stage) {
            (Event::Throttled { copy_bytes_per_s }, stage) if copies => {
                op.copy_bytes_per_s = *copy_bytes_per_s;
                // Whoever sets a rate wants it to be felt; the guard may hold it again.
                guard.stage = if stage == Stage::Held { Stage::Slowed } else { stage };
                return Ok(());
            }
            (Event::Slowed { copy_bytes_per_s, why }, Stage::Free) if copies => {
                op.copy_bytes_per_s = Some(*copy_bytes_per_s);
                guard.stage = Stage::Slowed;
                why
            }
            (Event::Held { why }, Stage::Slowed) if copies => {
                guard.stage = Stage::Held;
                guard.holds += 1;
                why
            }
            (Event::Released, Stage::Held) if copies => {
                guard.stage = Stage::Slowed;
                return Ok(());
            }
            (Event::Alarm { why }, _) if !op.phase.is_over() && guard.alarm.is_none() => {
                guard.alarm = Some(shortened(why));
                why
            }
            (Event::Calm, _) if guard.alarm.is_some() => {
                guard.alarm = None;
                return Ok(());
            }
            (Event::Throttled { .. }, _) => {
                let phase = op.phase.name();
                return Err(conflict(format!(
                    "operation {} is {phase}: nothing is copied for it any more; the rate between operations \
                     is the setting copy.bytes_per_s",
                    op.id
                )));
            }
            _ => return Err(conflict("the guard's step does not follow from there")),
        };
        op.last_failure = Some(Failure { at_ms: now_ms, what: shortened(why) });
        Ok(())
    }

    /// Notes what went wrong.
    pub(super) fn failed(&mut self, what: &str, now_ms: u64) {
        if let Some(op) = self.operations.last_mut() {
            op.last_failure = Some(Failure { at_ms: now_ms, what: shortened(what) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::core::tests::record;
    use crate::cluster::{MetaCommand, MetaReply};
    use crate::types::Code;
    use crate::wire::client::Strategy;
    use crate::wire::operation::{Operation, Phase};

    /// To full replication, with a setting of 1 MiB a second.
    fn copying() -> ClusterState {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        state.settings.insert("copy.bytes_per_s".into(), "1MiB".into());
        let (to, by, terms) = (Strategy::Full, "test".to_owned(), Default::default());
        state.apply(&MetaCommand::Begin { to, by, commit_asked: true, now_ms: 1, terms });
        let indexes = vec![1; state.shards.len()];
        done(&mut state, Event::Checkpoint { indexes, baseline: Default::default() });
        done(&mut state, Event::CopyStarted);
        state
    }

    fn advance(state: &mut ClusterState, event: Event) -> MetaReply {
        let (operation, step) = state.operation().map(|op| (op.id, op.step)).unwrap();
        state.apply(&MetaCommand::Advance { operation, step, event, now_ms: 7 })
    }

    fn done(state: &mut ClusterState, event: Event) {
        let reply = advance(state, event.clone());
        assert!(matches!(reply, MetaReply::Done { .. }), "{event:?}: {reply:?}");
        state.check().unwrap();
    }

    fn refused(state: &mut ClusterState, event: Event) {
        let before = state.clone();
        let reply = advance(state, event.clone());
        let is_conflict =
            matches!(&reply, MetaReply::Refused(e) if e.code == Code::OperationConflict);
        assert!(is_conflict, "{event:?}: {reply:?}");
        assert_eq!(*state, before, "{event:?}");
    }

    fn latest(state: &ClusterState) -> &Operation {
        state.operation().unwrap()
    }

    fn slowed() -> Event {
        Event::Slowed { copy_bytes_per_s: 100_000, why: "slow".into() }
    }

    #[test]
    fn the_guard_slows_holds_and_lets_go_in_that_order() {
        let mut state = copying();
        refused(&mut state, Event::Held { why: "slow".into() });
        refused(&mut state, Event::Released);
        done(&mut state, slowed());
        assert_eq!(state.copy_rate(), 100_000);
        assert_eq!(latest(&state).last_failure, Some(Failure { at_ms: 7, what: "slow".into() }));
        refused(&mut state, slowed());
        done(&mut state, Event::Held { why: "still".into() });
        assert_eq!((state.copy_rate(), latest(&state).guard.holds), (HELD_BYTES_PER_S, 1));
        done(&mut state, Event::Released);
        assert_eq!(state.copy_rate(), 100_000);
        done(&mut state, Event::GaveUp { why: "enough".into() });
        let op = latest(&state);
        assert_eq!((op.phase, op.reason.as_deref()), (Phase::Aborting, Some("enough")));
        assert_eq!(op.last_failure.as_ref().map(|f| f.what.as_str()), Some("enough"));
        assert_eq!(state.copy_rate(), 1 << 20, "the setting holds again");
    }

    #[test]
    fn a_throttle_is_the_operations_alone_and_ends_with_its_copying() {
        let mut state = copying();
        assert_eq!(state.copy_rate(), 1 << 20);
        done(&mut state, Event::Throttled { copy_bytes_per_s: Some(0) });
        assert_eq!(state.copy_rate(), 0);
        assert_eq!(state.copy_bytes_per_s(), 1 << 20, "the setting was not touched");
        done(&mut state, slowed());
        done(&mut state, Event::Held { why: "slow".into() });
        done(&mut state, Event::Throttled { copy_bytes_per_s: Some(9 << 20) });
        assert_eq!(state.copy_rate(), 9 << 20, "whoever sets a rate lets it go");
        done(&mut state, Event::Throttled { copy_bytes_per_s: None });
        assert_eq!(state.copy_rate(), 1 << 20);
        done(&mut state, Event::Throttled { copy_bytes_per_s: Some(9 << 20) });
        done(&mut state, Event::Abort { reason: "by order".into() });
        assert_eq!(latest(&state).last_failure.as_ref().map(|f| f.what.as_str()), Some("slow"));
        assert_eq!(state.copy_rate(), 1 << 20);
        refused(&mut state, Event::Throttled { copy_bytes_per_s: Some(0) });
        refused(&mut state, Event::GaveUp { why: "late".into() });
    }

    #[test]
    fn an_alarm_is_told_once_and_ends_with_what_it_is_about() {
        let mut state = copying();
        done(&mut state, Event::CaughtUp);
        for (shard, copy) in state.unverified() {
            done(&mut state, Event::Verified { shard, copies: vec![copy], index: 1 });
        }
        done(&mut state, Event::Prepared { copy_bytes: 0 });
        refused(&mut state, Event::Measured { write_gap_ms: 3 });
        done(&mut state, Event::Commit);
        done(&mut state, Event::Measured { write_gap_ms: 31 });
        assert_eq!(latest(&state).actual.write_gap_ms, Some(31));
        refused(&mut state, slowed());
        refused(&mut state, Event::Calm);
        done(&mut state, Event::Alarm { why: "slow".into() });
        refused(&mut state, Event::Alarm { why: "slow".into() });
        done(&mut state, Event::Calm);
        done(&mut state, Event::Alarm { why: "slow again".into() });
        done(&mut state, Event::WentBack { why: "slow again".into() });
        let op = latest(&state);
        assert_eq!((op.phase, op.guard.alarm.as_ref()), (Phase::Reverting, None));
        assert_eq!(state.strategy, Strategy::Sharded);
        refused(&mut state, Event::WentBack { why: "twice".into() });
    }
}
