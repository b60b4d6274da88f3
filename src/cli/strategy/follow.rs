//! Following an operation: what is new, and whether the waiting is over.
//!
//! `Follow` decides, from one look at the journal after the other; `follow` looks. Neither gives an order:
//! whoever stops following changes nothing.

use super::super::caller::{Caller, other_answer};
use super::document::name;
use crate::types::{Class, Code, Error, Result};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer, Command};
use crate::wire::guard::{Failure, Guard};
use crate::wire::operation::{Operation, Phase, Progress};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// One look waits this long for an answer, so that a node that hangs costs one look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Nothing will happen without a further order: it is prepared, soaks, or is over.
    Rest,
    /// This phase, or one that lies behind it on the same way.
    Phase(Phase),
}

/// How long, and how often is looked.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The end of the waiting.
    pub until: Instant,
    /// Between two looks.
    pub look_every: Duration,
}

impl Patience {
    /// Until then, at the usual pace.
    pub fn until(until: Instant) -> Self {
        Self { until, look_every: LOOK_EVERY }
    }
}

/// What can be seen of an operation from outside; one is shown for each that differs from the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The operation.
    pub operation: u64,
    /// Strategy before.
    pub from: Strategy,
    /// Strategy after.
    pub to: Strategy,
    /// Where it stands.
    pub phase: Phase,
    /// How far the phase is, where the coordinator tells.
    pub progress: Option<Progress>,
    /// Why it was aborted or reverted.
    pub reason: Option<String>,
    /// What the guard has done, and its baseline.
    pub guard: Guard,
    /// What went wrong last.
    pub last_failure: Option<Failure>,
}

impl Change {
    /// Of one look.
    pub fn of(op: &Operation, progress: Option<&Progress>) -> Self {
        Change {
            operation: op.id,
            from: op.from,
            to: op.to,
            phase: op.phase,
            progress: progress.filter(|_| !op.phase.is_over()).cloned(),
            reason: op.reason.clone(),
            guard: op.guard.clone(),
            last_failure: op.last_failure.clone(),
        }
    }

    /// Share of the phase that is done, where it can be told: of the bytes, else of the shards.
    pub fn fraction(&self) -> Option<f64> {
        let progress = self.progress.as_ref()?;
        let share =
            |done: u64, total: u64| (total > 0).then(|| done.min(total) as f64 / total as f64);
        share(progress.bytes_done, progress.bytes_total)
            .or_else(|| share(progress.shards_done.into(), progress.shards_total.into()))
    }

    /// Whole percent of the bytes, where there are any to copy.
    pub fn percent(&self) -> Option<u64> {
        percent(self.progress.as_ref()?)
    }

    /// What makes a new line: not every byte, and not the estimate.
    fn key(&self) -> impl PartialEq {
        let progress = self.progress.as_ref();
        let shards = progress.map(|p| (p.shards_done, p.shards_total, p.pending.clone()));
        let blocker = progress.and_then(|p| p.blocker.clone());
        let guard = (self.guard.stage, self.guard.alarm.clone());
        let ends = (self.reason.clone(), self.last_failure.clone());
        (self.operation, self.phase, ends, guard, shards, blocker, self.percent())
    }
}

/// Whole percent of the bytes, where there are any to copy.
pub fn percent(progress: &Progress) -> Option<u64> {
    let done = progress.bytes_done.min(progress.bytes_total);
    (u128::from(done) * 100).checked_div(u128::from(progress.bytes_total)).map(|p| p as u64)
}

/// Decides, for one operation and one goal.
#[derive(Clone, Debug)]
pub struct Follow {
    /// The operation.
    pub operation: u64,
    /// What is waited for.
    pub goal: Goal,
    /// Whoever is shown the changes draws over what was there, and wants to do so with each look.
    pub every_look: bool,
    last: Option<Change>,
}

impl Follow {
    /// Nothing was seen yet.
    pub fn new(operation: u64, goal: Goal) -> Self {
        Self { operation, goal, every_look: false, last: None }
    }

    /// One look: what is new, if anything.
    pub fn look(&mut self, op: &Operation, progress: Option<&Progress>) -> Option<Change> {
        let change = Change::of(op, progress);
        let new = self.last.as_ref().is_none_or(|last| last.key() != change.key());
        self.last = Some(change.clone());
        (new || self.every_look).then_some(change)
    }

    /// What is said when time runs out. The operation does not care.
    pub fn out_of_time(&self, last_error: Option<&Error>) -> Error {
        let phase = self.last.as_ref().map_or("under way", |change| change.phase.name());
        let blocker = self.last.as_ref().and_then(|c| c.progress.as_ref()?.blocker.clone());
        let waits = blocker.map_or(String::new(), |what| format!(" ({what})"));
        let silence = last_error.map_or(String::new(), |error| format!("; last answer: {error}"));
        let message = format!(
            "operation {} is {phase}{waits} and goes on; `strategy watch` follows it{silence}",
            self.operation
        );
        Error::new(Code::Unknown, message)
    }
}

/// Whether the waiting is over: the goal is reached, or cannot be reached any more.
pub fn over(goal: Goal, op: &Operation) -> Option<Result<()>> {
    let goal = match goal {
        Goal::Phase(goal) => goal,
        Goal::Rest => return rests(op).then_some(Ok(())),
    };
    // Declared in the order of the three ways: forward, giving up, going back.
    let way = |phase: Phase| match phase {
        Phase::Aborting | Phase::Aborted => 1,
        Phase::Reverting | Phase::Reverted => 2,
        _ => 0,
    };
    if way(op.phase) == way(goal) && op.phase >= goal {
        return Some(Ok(()));
    }
    let final_rest = op.phase.is_over() || (way(goal) == 1 && op.phase == Phase::Soaking);
    final_rest.then(|| Err(missed(op)))
}

/// True if nothing will happen without a further order.
fn rests(op: &Operation) -> bool {
    let held = op.phase == Phase::Prepared && !op.commit_asked;
    held || op.phase == Phase::Soaking || op.phase.is_over()
}

fn missed(op: &Operation) -> Error {
    let reason = op.reason.as_deref().map_or(String::new(), |reason| format!(": {reason}"));
    let (id, phase) = (op.id, op.phase.name());
    match op.phase {
        Phase::Aborted | Phase::Reverted => {
            let message =
                format!("operation {id} was {phase}{reason}; the strategy is {}", name(op.from));
            Error::new(Code::Undone, message)
        }
        _ => Error::new(Code::OperationConflict, format!("operation {id} is {phase}{reason}")),
    }
}

/// Looks until the waiting is over; what is new goes to `shown`. `first` is what is known already.
pub async fn follow<C: Caller>(
    caller: &C,
    follow: &mut Follow,
    first: &Operation,
    patience: &Patience,
    shown: &(dyn Fn(&Change) + Sync),
) -> Result<Operation> {
    let mut op = first.clone();
    let (mut progress, mut last_error) = (None, None);
    loop {
        if let Some(change) = follow.look(&op, progress.as_ref()) {
            shown(&change);
        }
        if let Some(end) = over(follow.goal, &op) {
            return end.map(|()| op);
        }
        let left = patience.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(follow.out_of_time(last_error.as_ref()));
        }
        tokio::time::sleep(patience.look_every.min(left)).await;
        let left = patience.until.saturating_duration_since(Instant::now());
        match look(caller, follow.operation, left.min(LOOK_TIMEOUT)).await {
            // A node that is behind may not know of it yet.
            Ok(None) => {}
            Ok(Some((seen, told))) if seen.step >= op.step => {
                (op, progress, last_error) = (seen, told, None);
            }
            Ok(Some(_)) => {}
            Err(error) if matches!(error.class(), Class::Fix | Class::Stop) => return Err(error),
            Err(error) => last_error = Some(error),
        }
    }
}

/// The operation as it is now; one that is not the latest any more is looked up in the history.
async fn look<C: Caller>(
    caller: &C,
    id: u64,
    timeout: Duration,
) -> Result<Option<(Operation, Option<Progress>)>> {
    let timeout = timeout.max(Duration::from_millis(1));
    let (answer, _) = caller.command(Command::StrategyShow, None, timeout).await?;
    let Answer::StrategyView(view) = answer else { return Err(other_answer()) };
    match view.operation {
        Some(op) if op.id == id => Ok(Some((op, view.progress))),
        Some(op) if op.id > id => {
            let (answer, _) = caller.command(Command::StrategyHistory, None, timeout).await?;
            let Answer::History(all) = answer else { return Err(other_answer()) };
            Ok(all.into_iter().find(|op| op.id == id).map(|op| (op, None)))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
