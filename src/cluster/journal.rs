//! The journal of operations: what each transition of a change of strategy does to the cluster's state.
//!
//! Pure and deterministic, like `core`. Every transition is a compare-and-set on (operation, step). The
//! placement changes here and nowhere else while an operation runs; making the groups follow it is the
//! coordinator's work, and conditional on the operation's turn.

use super::core::{ClusterState, CopyPlacement};
use super::tally;
use crate::faults::has_bug;
use crate::types::{Code, CopyId, Error, NodeId, ShardId, limits};
use crate::wire::client::{Role, Strategy};
use crate::wire::guard::{Guard, ServiceLevel};
use crate::wire::operation::{Checkpoint, Operation, Origin, Phase, Times, Verified};
use crate::wire::terms::{Actual, Terms};
use serde::{Deserialize, Serialize};

/// Operations that the journal remembers; older ones are forgotten.
pub const OPERATIONS_MAX: usize = 64;
/// Longest reason kept.
const REASON_BYTES_MAX: usize = 256;

/// A transition of an operation. Stored, so append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Records the origin (last log index of each shard, by id) and how well the cluster serves, and places the
    /// copies to be made.
    Checkpoint { indexes: Vec<u64>, baseline: ServiceLevel },
    /// Targets have begun to receive.
    CopyStarted,
    /// Every target follows its log.
    CaughtUp,
    /// The digests of these copies equal their owner's at that log index.
    Verified { shard: ShardId, copies: Vec<CopyId>, index: u64 },
    /// What was verified of these copies says nothing any more: they were replaced since.
    Doubted { copies: Vec<CopyId> },
    /// All copies are verified; those that were made for it have so many bytes.
    Prepared { copy_bytes: u64 },
    /// The user asks for the commit.
    CommitAsked,
    /// The commit point.
    Commit,
    /// Every shard's group is what the placement says.
    Settled,
    /// Gives up before the commit point.
    Abort { reason: String },
    /// Goes back after the commit point.
    Revert { reason: String },
    /// Closes the way back.
    Finalize,
    /// An operator sets the rate of the copying; none goes back to the setting.
    Throttled { copy_bytes_per_s: Option<u64> },
    /// The guard slows the copying down.
    Slowed { copy_bytes_per_s: u64, why: String },
    /// The guard holds it.
    Held { why: String },
    /// The guard lets it go on.
    Released,
    /// The guard says what is bad.
    Alarm { why: String },
    /// It is not bad any more.
    Calm,
    /// As `Abort`, by the cluster itself.
    GaveUp { why: String },
    /// As `Revert`, by the cluster itself.
    WentBack { why: String },
    /// The longest write gap so far, noted before the switch settles.
    Measured { write_gap_ms: u64 },
}

pub(super) fn conflict(message: impl Into<String>) -> Error {
    Error::new(Code::OperationConflict, message)
}

impl ClusterState {
    /// The latest operation, over or not.
    pub fn operation(&self) -> Option<&Operation> {
        self.operations.last()
    }

    /// The operation under way, Soaking included.
    pub fn active(&self) -> Option<&Operation> {
        self.operation().filter(|op| !op.phase.is_over())
    }

    /// Why no operation towards `to` may begin at `now_ms`, as far as the journal alone can tell.
    pub fn may_begin(&self, to: Strategy, now_ms: u64) -> Result<(), Error> {
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        if let Some(op) = self.operation().filter(|op| op.phase.holds_slot()) {
            return Err(conflict(format!(
                "operation {} is {}; wait for it, or `strategy abort` or `strategy revert` it",
                op.id,
                op.phase.name()
            )));
        }
        if self.strategy == to {
            return Err(conflict(format!("the strategy is {} already", name(to))));
        }
        if to == Strategy::Full && self.primaries().len() < 2 {
            return Err(conflict(
                "full replication needs a second primary: nothing to replicate to",
            ));
        }
        match self.cooling_ms(to, now_ms) {
            0 => Ok(()),
            left => Err(conflict(format!(
                "cooling down after the last switch to {}: {} s left; the setting is switch.cool_down",
                name(to),
                left.div_ceil(1_000)
            ))),
        }
    }

    /// What is left of the rest after the last switch in the same direction, in milliseconds.
    pub fn cooling_ms(&self, to: Strategy, now_ms: u64) -> u64 {
        let same = |op: &&Operation| op.to == to && op.times.committed_ms.is_some();
        let last = self.operations.iter().rev().find(same).and_then(|op| op.times.committed_ms);
        let rest_ms = self.cool_down().as_millis() as u64;
        last.map_or(0, |last| last.saturating_add(rest_ms).saturating_sub(now_ms))
    }

    /// Milliseconds until the way back of the operation under way is closed; none while nothing has been
    /// committed, or nothing closes it yet.
    pub fn revert_left_ms(&self, now_ms: u64) -> Option<u64> {
        let op = self.active().filter(|op| op.phase == Phase::Soaking)?;
        let window_ms = self.revert_window().as_millis() as u64;
        Some(op.times.soaking_ms?.saturating_add(window_ms).saturating_sub(now_ms))
    }

    pub(super) fn begin(
        &mut self,
        to: Strategy,
        by: &str,
        commit_asked: bool,
        now_ms: u64,
        terms: &Terms,
    ) -> Result<(), Error> {
        terms.check()?;
        self.may_begin(to, now_ms)?;
        if let Some(plan) = terms.plan {
            self.plan_for(plan, to, now_ms)?;
            self.use_plan(plan);
        }
        // A switch that soaks loses its way back to the next one; the copies it kept are the next one's.
        if let Some(op) = self.operations.last_mut().filter(|op| op.phase == Phase::Soaking) {
            op.phase = Phase::Finalized;
            op.step += 1;
            op.turn = op.step;
            op.guard.alarm = None;
            op.reason =
                Some(format!("the way back was closed by operation {}", self.next_operation));
            op.times.ended_ms = Some(now_ms);
        }
        self.operations.push(Operation {
            id: self.next_operation,
            step: 1,
            turn: 1,
            phase: Phase::Planned,
            from: self.strategy,
            to,
            by: shortened(by),
            commit_asked,
            reason: None,
            checkpoint: None,
            verified: vec![],
            dropped: false,
            times: Times { started_ms: now_ms, ..Times::default() },
            copy_bytes_per_s: None,
            guard: Guard::default(),
            last_failure: None,
            terms: terms.clone(),
            actual: Actual::default(),
        });
        self.next_operation += 1;
        if self.operations.len() > OPERATIONS_MAX {
            let forgotten = self.operations.remove(0);
            tally::add(&mut self.forgotten, &forgotten);
        }
        Ok(())
    }

    pub(super) fn advance(
        &mut self,
        operation: u64,
        step: u64,
        event: &Event,
        now_ms: u64,
    ) -> Result<(), Error> {
        let Some(op) = self.operations.last() else {
            return Err(conflict("there is no operation"));
        };
        if (op.id, op.step) != (operation, step) && !has_bug("unconditional-step") {
            return Err(conflict(format!(
                "operation {} is at step {}, not operation {operation} at {step}",
                op.id, op.step
            )));
        }
        let (phase, to) = (op.phase, op.to);
        match (event, phase) {
            (Event::Checkpoint { indexes, baseline }, Phase::Planned) => {
                self.checkpoint(indexes, *baseline, to)?;
            }
            (Event::CopyStarted, Phase::Checkpointed) => self.enter(Phase::Copying),
            (Event::CaughtUp, Phase::Copying) => self.enter(Phase::CaughtUp),
            (Event::Verified { shard, copies, index }, _) if verifies(phase) => {
                self.verify(*shard, copies, *index)?;
            }
            (Event::Doubted { copies }, _) if verifies(phase) => self.doubt(copies)?,
            (Event::Prepared { copy_bytes }, Phase::CaughtUp) => {
                self.all_verified()?;
                self.enter(Phase::Prepared);
                if let Some(op) = self.operations.last_mut() {
                    op.actual.copy_bytes = Some(*copy_bytes);
                }
                self.times(|times| times.prepared_ms = Some(now_ms));
            }
            (Event::CommitAsked, Phase::Prepared) if !op.commit_asked => {
                if let Some(op) = self.operations.last_mut() {
                    op.commit_asked = true;
                }
            }
            (Event::Commit, Phase::Prepared) => {
                self.all_verified()?;
                self.turn_to(Phase::Committing);
                self.times(|times| times.committed_ms = Some(now_ms));
                self.place(to);
            }
            (Event::Measured { write_gap_ms }, Phase::Committing) => {
                if let Some(op) = self.operations.last_mut() {
                    op.actual.write_gap_ms = Some(*write_gap_ms);
                }
            }
            (Event::Settled, _) => self.settled(now_ms)?,
            (Event::Abort { reason }, _) if precedes_commit(phase) => self.abort(reason),
            (Event::GaveUp { why }, _) if precedes_commit(phase) => {
                self.abort(why);
                self.failed(why, now_ms);
            }
            (Event::Revert { reason }, Phase::Committing | Phase::Soaking) => self.revert(reason),
            (Event::WentBack { why }, Phase::Committing | Phase::Soaking) => {
                self.revert(why);
                self.failed(why, now_ms);
            }
            (
                Event::Throttled { .. }
                | Event::Slowed { .. }
                | Event::Held { .. }
                | Event::Released
                | Event::Alarm { .. }
                | Event::Calm,
                _,
            ) => self.guarded(event, now_ms)?,
            (Event::Finalize, Phase::Soaking) => {
                self.turn_to(Phase::Finalizing);
                self.drop_extra();
            }
            _ => {
                return Err(conflict(format!(
                    "operation {operation} is {}: {}",
                    phase.name(),
                    misfit(event)
                )));
            }
        }
        if let Some(op) = self.operations.last_mut() {
            op.step = step + 1;
        }
        Ok(())
    }

    fn abort(&mut self, reason: &str) {
        self.turn_to(Phase::Aborting);
        self.reason(reason);
        self.drop_extra();
    }

    fn revert(&mut self, reason: &str) {
        let origin = |op: &Operation| if has_bug("origin-inferred") { op.to } else { op.from };
        let Some(from) = self.operation().map(origin) else { return };
        self.turn_to(Phase::Reverting);
        self.reason(reason);
        self.place(from);
    }

    fn checkpoint(
        &mut self,
        indexes: &[u64],
        baseline: ServiceLevel,
        to: Strategy,
    ) -> Result<(), Error> {
        if indexes.len() != self.shards.len() {
            return Err(conflict("a checkpoint has one log index for each shard"));
        }
        let origin = |(shard, index): (&super::ShardPlacement, &u64)| Origin {
            owner: shard.owner,
            voters: shard.copies.iter().filter(|c| c.voter).map(|c| c.id).collect(),
            index: *index,
        };
        let shards = self.shards.iter().zip(indexes).map(origin).collect();
        let next_copy = CopyId(self.next_copy);
        let checkpoint = Checkpoint { epoch: self.epoch, next_copy, shards };
        if to == Strategy::Full {
            self.place_everywhere();
        }
        if let Some(op) = self.operations.last_mut() {
            op.checkpoint = Some(checkpoint);
            op.guard.baseline = Some(baseline);
        }
        self.enter(Phase::Checkpointed);
        Ok(())
    }

    /// Every primary gets a copy of every shard, as a learner.
    fn place_everywhere(&mut self) {
        let primaries = self.primaries();
        for i in 0..self.shards.len() {
            for node in &primaries {
                if !self.shards[i].copies.iter().any(|c| c.node == *node) {
                    let copy = self.create_copy(*node, false);
                    self.shards[i].copies.push(copy);
                }
            }
        }
    }

    /// The commit point of a change: the voters are those of the strategy from here on.
    fn place(&mut self, strategy: Strategy) {
        self.strategy = strategy;
        self.epoch += 1;
        let primaries = self.primaries();
        for shard in &mut self.shards {
            let owner = shard.owner;
            for copy in &mut shard.copies {
                copy.voter = match strategy {
                    Strategy::Sharded => copy.node == owner,
                    Strategy::Full => primaries.contains(&copy.node),
                };
            }
        }
    }

    /// Copies that the strategy does not need are no longer placed.
    fn drop_extra(&mut self) {
        let replicas: Vec<NodeId> = self.of_role(Role::Replica);
        for shard in &mut self.shards {
            shard.copies.retain(|c| c.voter || replicas.contains(&c.node));
        }
        if let Some(op) = self.operations.last_mut() {
            op.dropped = true;
        }
    }

    fn settled(&mut self, now_ms: u64) -> Result<(), Error> {
        let Some(op) = self.operations.last() else { return Ok(()) };
        match op.phase {
            Phase::Committing => {
                self.enter(Phase::Soaking);
                self.times(|times| times.soaking_ms = Some(now_ms));
            }
            Phase::Finalizing => self.end(Phase::Finalized, now_ms),
            Phase::Aborting => self.end(Phase::Aborted, now_ms),
            // First the voters go back, then what only they needed.
            Phase::Reverting if !op.dropped && self.strategy == Strategy::Sharded => {
                self.drop_extra();
            }
            Phase::Reverting => self.end(Phase::Reverted, now_ms),
            phase => {
                return Err(conflict(format!(
                    "an operation that is {} does not settle",
                    phase.name()
                )));
            }
        }
        Ok(())
    }

    fn verify(&mut self, shard: ShardId, copies: &[CopyId], index: u64) -> Result<(), Error> {
        let placed = self.shard(shard).map_or(&[][..], |s| &s.copies);
        if let Some(stranger) = copies.iter().find(|id| !placed.iter().any(|c| c.id == **id)) {
            return Err(conflict(format!("{stranger} is no copy of {shard}")));
        }
        if let Some(op) = self.operations.last_mut() {
            op.verified.retain(|v| !copies.contains(&v.copy));
            let verified = |copy: &CopyId| Verified { shard, copy: *copy, index };
            op.verified.extend(copies.iter().map(verified));
        }
        Ok(())
    }

    fn doubt(&mut self, copies: &[CopyId]) -> Result<(), Error> {
        if let Some(op) = self.operations.last_mut() {
            op.verified.retain(|v| !copies.contains(&v.copy));
            if op.phase == Phase::Prepared {
                op.phase = Phase::CaughtUp;
            }
        }
        Ok(())
    }

    /// Copies of primaries that no digest has proven yet, in the operation under way.
    pub fn unverified(&self) -> Vec<(ShardId, CopyId)> {
        let primaries = self.primaries();
        let verified = |id: CopyId| {
            self.operation().is_some_and(|op| op.verified.iter().any(|v| v.copy == id))
        };
        let of_shard = |s: &super::ShardPlacement| {
            let shard = s.id;
            let wanted = |c: &&CopyPlacement| primaries.contains(&c.node) && !verified(c.id);
            s.copies.iter().filter(wanted).map(move |c| (shard, c.id)).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    fn all_verified(&self) -> Result<(), Error> {
        match self.unverified().first() {
            None => Ok(()),
            Some((shard, copy)) => Err(Error::new(
                Code::NotSafeNow,
                format!("{copy} of {shard} was not compared with its owner's yet"),
            )),
        }
    }

    fn enter(&mut self, phase: Phase) {
        if let Some(op) = self.operations.last_mut() {
            op.phase = phase;
        }
    }

    /// Enters a phase that changes the direction: orders of earlier turns are void, and an alarm is about
    /// what was before.
    fn turn_to(&mut self, phase: Phase) {
        self.enter(phase);
        if let Some(op) = self.operations.last_mut() {
            op.turn = op.step + 1;
            op.guard.alarm = None;
        }
    }

    fn end(&mut self, phase: Phase, now_ms: u64) {
        self.enter(phase);
        self.times(|times| times.ended_ms = Some(now_ms));
    }

    fn times(&mut self, set: impl FnOnce(&mut Times)) {
        if let Some(op) = self.operations.last_mut() {
            set(&mut op.times);
        }
    }

    fn reason(&mut self, reason: &str) {
        if let Some(op) = self.operations.last_mut() {
            op.reason = Some(shortened(reason));
        }
    }

    /// Members of a role, by id.
    pub fn of_role(&self, role: Role) -> Vec<NodeId> {
        self.members.iter().filter(|(_, m)| m.role == role).map(|(id, _)| *id).collect()
    }

    /// The primaries, by id.
    pub fn primaries(&self) -> Vec<NodeId> {
        self.of_role(Role::Primary)
    }

    /// What must hold of the journal after every command.
    pub(super) fn check_journal(&self) -> Result<(), String> {
        let (earlier, latest) = match self.operations.split_last() {
            None => return Ok(()),
            Some((latest, earlier)) => (earlier, latest),
        };
        if self.operations.len() > OPERATIONS_MAX || latest.id >= self.next_operation {
            return Err("the journal is longer, or its ids higher, than they can be".into());
        }
        if let Some(op) = earlier.iter().find(|op| !op.phase.is_over()) {
            return Err(format!("operation {} is not over, and is not the latest", op.id));
        }
        let holds = match latest.phase {
            Phase::Committing | Phase::Soaking | Phase::Finalizing | Phase::Finalized => latest.to,
            _ => latest.from,
        };
        if self.strategy != holds {
            return Err(format!(
                "operation {} is {}, and the strategy {}",
                latest.id,
                latest.phase.name(),
                name(self.strategy)
            ));
        }
        if latest.turn > latest.step {
            return Err(format!("operation {}: its turn lies ahead of its step", latest.id));
        }
        let primaries = self.primaries();
        for shard in &self.shards {
            let mut voters: Vec<NodeId> =
                shard.copies.iter().filter(|c| c.voter).map(|c| c.node).collect();
            voters.sort_unstable();
            let expected = match self.strategy {
                Strategy::Sharded => vec![shard.owner],
                Strategy::Full => primaries.clone(),
            };
            if voters != expected {
                return Err(format!("{}: its voters are not those of the strategy", shard.id));
            }
        }
        Ok(())
    }
}

fn name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Sharded => "sharded",
        Strategy::Full => "full",
    }
}

/// Phases in which copies are compared: those that a switch makes, and later those of members that rejoined.
fn verifies(phase: Phase) -> bool {
    phase >= Phase::Copying
}

/// Phases before the commit point.
pub(super) fn precedes_commit(phase: Phase) -> bool {
    phase <= Phase::Prepared
}

fn misfit(event: &Event) -> &'static str {
    match event {
        Event::Commit | Event::CommitAsked => "only what is prepared is committed, and only once",
        Event::Abort { .. } | Event::GaveUp { .. } => {
            "only before the commit point it is aborted; `strategy revert` goes back"
        }
        Event::Revert { .. } | Event::WentBack { .. } => {
            "only after the commit point and before the end it is reverted; before it, `strategy abort`"
        }
        Event::Finalize => "only what soaks is finalized",
        _ => "the step does not follow from there",
    }
}

/// At most `REASON_BYTES_MAX` bytes, cut between two characters.
pub(super) fn shortened(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The member limit lets every primary vote in every shard.
const _: () = assert!(limits::PRIMARIES_MAX <= 5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetaCommand;
    use crate::cluster::core::tests::record;

    #[test]
    fn a_switch_in_the_same_direction_has_to_cool_down_and_the_way_back_has_not() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        let (to, by, terms) = (Strategy::Full, "test".to_owned(), Terms::default());
        state.apply(&MetaCommand::Begin { to, by, commit_asked: true, now_ms: 1, terms });
        let op = state.operations.last_mut().unwrap();
        op.phase = Phase::Reverted;
        assert_eq!(state.cooling_ms(Strategy::Full, 2), 0, "it was never committed");
        state.operations.last_mut().unwrap().times.committed_ms = Some(1_000);
        let refused = state.may_begin(Strategy::Full, 1_000 + 599_999).unwrap_err();
        assert_eq!(refused.code, Code::OperationConflict);
        assert!(refused.message.contains("1 s left"), "{refused}");
        state.may_begin(Strategy::Full, 1_000 + 600_000).unwrap();
        state.strategy = Strategy::Full;
        state.may_begin(Strategy::Sharded, 1_001).unwrap();
        state.settings.insert("switch.cool_down".into(), "0s".into());
        state.strategy = Strategy::Sharded;
        state.may_begin(Strategy::Full, 1_001).unwrap();
    }
}
