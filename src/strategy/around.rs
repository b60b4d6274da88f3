//! The failpoints around what the coordinator does: its entries in the journal, and its orders to shards.

use super::driver::{COORDINATOR, Calls};
use crate::cluster::{ClusterState, Event, MetaCommand};
use crate::faults::{self, Point};
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{Phase, ShardChange, ShardOrder};
use std::time::Duration;

/// The points before and after an entry is journaled; none for what is not a step of an operation.
pub struct Around {
    points: Option<(Point, Point)>,
}

impl Around {
    /// Those of this command, proposed in that state.
    pub fn of(command: &MetaCommand, state: &ClusterState) -> Self {
        let points = match command {
            MetaCommand::Begin { .. } => Some((Point::BeforeBegin, Point::AfterBegin)),
            MetaCommand::Advance { event, .. } => {
                of_event(event, state.operation().map(|op| op.phase))
            }
            _ => None,
        };
        Self { points }
    }

    /// Passed when nothing is journaled yet.
    pub fn before(&self) -> Result<()> {
        match self.points {
            Some((before, _)) => Ok(faults::pass(before)?),
            None => Ok(()),
        }
    }

    /// Passed when it is journaled and nobody has been told; an error loses the answer.
    pub fn after(&self) -> Result<()> {
        match self.points {
            Some((_, after)) => {
                faults::pass(after).map_err(|lost| Error::new(Code::Unknown, lost.to_string()))
            }
            None => Ok(()),
        }
    }
}

/// Sends an order to the node that leads the shard.
pub async fn send(
    calls: &dyn Calls,
    node: NodeId,
    order: ShardOrder,
    timeout: Duration,
) -> Result<Answer> {
    faults::pass(Point::OrderBefore)?;
    let answer = calls.call(node, COORDINATOR, Command::Shard(order), timeout).await;
    faults::at(Point::OrderAfter);
    answer
}

/// The bug `journal-after-act`: shards get the voters of a commit that is not journaled yet.
pub async fn act_first(calls: &dyn Calls, state: &ClusterState, event: &Event, timeout: Duration) {
    let Some(op) = state.operation().filter(|_| *event == Event::Commit) else { return };
    if !faults::has_bug("journal-after-act") {
        return;
    }
    let (operation, step) = (op.id, op.step);
    let mut next = state.clone();
    next.apply(&MetaCommand::Advance { operation, step, event: event.clone(), now_ms: 0 });
    for shard in &next.shards {
        let voters = shard.copies.iter().filter(|c| c.voter).map(|c| c.id).collect();
        let order = ShardOrder {
            shard: shard.id,
            incarnation: shard.incarnation,
            fence: (operation, step + 1),
            change: ShardChange::Voters(voters),
        };
        let _ = send(calls, shard.owner, order, timeout).await;
    }
}

fn of_event(event: &Event, phase: Option<Phase>) -> Option<(Point, Point)> {
    Some(match event {
        Event::Checkpoint { .. } => (Point::BeforeCheckpoint, Point::AfterCheckpoint),
        Event::CopyStarted => (Point::BeforeCopyStarted, Point::AfterCopyStarted),
        Event::CaughtUp => (Point::BeforeCaughtUp, Point::AfterCaughtUp),
        Event::Verified { .. } => (Point::BeforeVerified, Point::AfterVerified),
        Event::Prepared { .. } => (Point::BeforePrepared, Point::AfterPrepared),
        Event::CommitAsked => (Point::BeforeCommitAsked, Point::AfterCommitAsked),
        Event::Commit => (Point::BeforeCommit, Point::AfterCommit),
        Event::Abort { .. } => (Point::BeforeAbort, Point::AfterAbort),
        Event::Revert { .. } => (Point::BeforeRevert, Point::AfterRevert),
        Event::Finalize => (Point::BeforeFinalize, Point::AfterFinalize),
        Event::Settled => match phase? {
            Phase::Committing => (Point::BeforeSoaking, Point::AfterSoaking),
            Phase::Aborting => (Point::BeforeAborted, Point::AfterAborted),
            Phase::Reverting => (Point::BeforeReverted, Point::AfterReverted),
            Phase::Finalizing => (Point::BeforeFinalized, Point::AfterFinalized),
            _ => return None,
        },
        _ => return None,
    })
}
