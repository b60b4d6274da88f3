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
