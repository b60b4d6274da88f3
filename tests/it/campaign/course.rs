//! Orders to the coordinator, given until they are known to be taken, and where they lead.

use ppdb::client::Client;
use ppdb::faults::Course;
use ppdb::types::{Code, NodeName};
use ppdb::wire::client::Strategy;
use ppdb::wire::command::{Answer, Command};
use ppdb::wire::operation::{Operation, Phase, StrategyOrder};
use ppdb::wire::terms::Terms;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest wait for one answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Longest wait for the journal of one node, which may be gone.
const JOURNAL_WITHIN: Duration = Duration::from_millis(400);
/// Longest time until an order is taken, and until the phase it leads to.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// The journal as a node has it; any node that answers if none is named.
pub async fn history(client: &Client, node: Option<&NodeName>) -> Option<Vec<Operation>> {
    match client.command(Command::StrategyHistory, node, JOURNAL_WITHIN).await {
        Ok((Answer::History(history), _)) => Some(history),
        _ => None,
    }
}

/// The newest operation that any of these nodes knows: a node that was stopped may lag behind.
async fn newest(client: &Client, nodes: &[NodeName]) -> Option<Operation> {
    let asked = nodes.iter().map(|node| history(client, Some(node)));
    let known = futures_util::future::join_all(asked).await;
    let last = known.into_iter().flatten().filter_map(|history| history.last().cloned());
    last.max_by_key(|op| (op.id, op.step))
}

/// Whether the journal shows that this order was taken.
fn is_taken(order: &StrategyOrder, op: &Operation, after: u64) -> bool {
    match order {
        StrategyOrder::Prepare { .. } | StrategyOrder::Switch { .. } => op.id > after,
        StrategyOrder::Commit => op.commit_asked,
        StrategyOrder::Abort { .. } => matches!(op.phase, Phase::Aborting | Phase::Aborted),
        StrategyOrder::Revert { .. } => matches!(op.phase, Phase::Reverting | Phase::Reverted),
        StrategyOrder::Finalize => matches!(op.phase, Phase::Finalizing | Phase::Finalized),
        StrategyOrder::Throttle { copy_bytes_per_s } => op.copy_bytes_per_s == *copy_bytes_per_s,
    }
}

/// Whoever orders, and to whom.
pub struct Orders<'a> {
    /// Asks.
    pub client: &'a Client,
    /// Who may know the journal.
    pub nodes: &'a [NodeName],
    /// The last operation before.
    pub after: u64,
}

impl Orders<'_> {
    /// Gives an order until it is taken. What fails without an answer is looked up and given again.
    pub async fn give(&self, order: StrategyOrder) -> Result<(), String> {
        let end = Instant::now() + SETTLE_WITHIN;
        loop {
            let command = Command::Strategy(order.clone());
            let error = match self.client.command(command, None, ANSWER_WITHIN).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let op = newest(self.client, self.nodes).await;
            if op.is_some_and(|op| is_taken(&order, &op, self.after)) {
                return Ok(());
            }
            let passes = !matches!(error.code, Code::BadRequest | Code::Denied);
            if !passes || Instant::now() >= end {
                return Err(format!("{order:?} is not taken: {error}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the operation is in one of these phases.
    pub async fn wait(&self, phases: &[Phase]) -> Result<Phase, String> {
        let end = Instant::now() + SETTLE_WITHIN;
        let mut last = None;
        loop {
            if let Some(op) = newest(self.client, self.nodes).await {
                if op.id > self.after && phases.contains(&op.phase) {
                    return Ok(op.phase);
                }
                last = Some((op.id, op.phase, op.reason));
            }
            if Instant::now() >= end {
                let show = self.client.command(Command::StrategyShow, None, ANSWER_WITHIN).await;
                return Err(format!("never {phases:?}, but {last:?}: {show:?}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Orders what the course says, one after the other; answers the phase at its end. `began` is told once
    /// the operation is journaled.
    pub async fn drive(
        &self,
        course: Course,
        to: Strategy,
        began: &Notify,
    ) -> Result<Phase, String> {
        let reason = || "the campaign".to_owned();
        let prepares = matches!(course, Course::Commit | Course::Abort);
        let first = match prepares {
            true => StrategyOrder::Prepare { to, terms: Terms::default() },
            false => StrategyOrder::Switch { to, terms: Terms::default() },
        };
        self.give(first).await?;
        began.notify_one();
        let reached = match prepares {
            true => Phase::Prepared,
            false => Phase::Soaking,
        };
        let phase = self.wait(&[reached, Phase::Aborted]).await?;
        if phase == Phase::Aborted {
            return Ok(phase);
        }
        match course {
            Course::Switch | Course::Busy | Course::Astray => Ok(phase),
            Course::Commit => {
                self.give(StrategyOrder::Commit).await?;
                self.wait(&[Phase::Soaking, Phase::Aborted]).await
            }
            Course::Abort => {
                self.give(StrategyOrder::Abort { reason: reason() }).await?;
                self.wait(&[Phase::Aborted]).await
            }
            Course::Revert => {
                self.give(StrategyOrder::Revert { reason: reason() }).await?;
                self.wait(&[Phase::Reverted]).await
            }
            Course::Finalize => {
                self.give(StrategyOrder::Finalize).await?;
                self.wait(&[Phase::Finalized]).await
            }
        }
    }
}

/// How an operation has to end that took this course and was not aborted by an error.
pub fn end_of(course: Course) -> Phase {
    match course {
        Course::Abort => Phase::Aborted,
        Course::Revert => Phase::Reverted,
        // What soaks is finalized after the looks at it.
        _ => Phase::Finalized,
    }
}
