//! What the leader of a shard knows of its group, and how it carries out an order of the coordinator.
//!
//! One order at a time: 1 the fence (a lower one is refused, a higher one is raised through the log), 2 read
//! the members, 3 `change::check` by what they answer to a question sent now, 4 change them on the condition
//! that they are still the ones read. Each step may refuse; repeating an order is always safe.

use super::change::{self, Step};
use super::error::{of_change, of_read, of_store, uncertain_change};
use super::fence::Fence;
use super::queue::Request;
use super::{Error, Shard};
use crate::faults::{self, Point};
use crate::raft::{self, Membership};
use crate::types::{self, Code, CopyId};
use crate::wire::operation::{Lead, MemberReport, ShardChange};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, Semaphore};

/// Orders to one shard that may wait for their turn; further ones are refused (`Overloaded`).
const ORDERS_MAX: usize = 16;
/// Hint when to come back with an order that was refused for their number.
const RETRY_AFTER_MS: u32 = 200;
/// How long the members may take to answer before an order that needs them is refused.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Pause between two looks at who has answered.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Lets orders to a shard pass one after the other.
pub struct Orders {
    turn: Arc<tokio::sync::Mutex<()>>,
    places: Arc<Semaphore>,
}

impl Default for Orders {
    fn default() -> Self {
        Self { turn: Arc::default(), places: Arc::new(Semaphore::new(ORDERS_MAX)) }
    }
}

impl Orders {
    /// Waits until the orders before are through. The turn ends when the guard is dropped.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<OwnedMutexGuard<()>, Error> {
        let Ok(_place) = self.places.try_acquire() else {
            let message = format!("{ORDERS_MAX} orders to this shard wait already");
            return Err(types::Error::new(Code::Overloaded, message)
                .retry_after(RETRY_AFTER_MS)
                .into());
        };
        let turn = tokio::time::timeout_at(deadline.into(), self.turn.clone().lock_owned()).await;
        turn.map_err(|_| {
            Error::new(Code::DeadlineExceeded, "an earlier order to this shard is under way")
        })
    }
}

/// The members as they were read, and what the leader knew of them then.
pub(super) struct Seen {
    membership: Membership,
    pub(super) lead: Lead,
}

impl Shard {
    /// What this copy knows of its group as its leader; none on any other copy. A member is near if it has
    /// everything that was written more than a second ago. Cheap: asks nobody.
    pub fn lead(&self) -> Option<Lead> {
        match self.look(None) {
            Ok(seen) => seen.map(|seen| seen.lead),
            Err(error) => {
                tracing::warn!(shard = %self.inner.shard, %error, "the fence cannot be read");
                None
            }
        }
    }

    /// The highest (operation, turn) whose fence is applied on this copy; zero before the first.
    pub fn fence(&self) -> Result<(u64, u64), Error> {
        self.highest_fence().map(Into::into)
    }

    /// Carries out an order of the coordinator, on the leader only.
    ///
    /// `Superseded`: the shard has seen a higher `fence` (operation, turn). `NotSafeNow`: a rule does not hold
    /// at this moment, or the members have changed meanwhile; the message says what is waited for.
    /// `BadRequest`: it names copies that are no members, or no voter at all. `Unknown`: it was proposed and
    /// its outcome is not known; repeating it, also while two configurations hold, brings it to its end.
    /// A transfer is done when the voter was asked; `lead` on either copy tells who leads then.
    pub async fn order(
        &self,
        fence: (u64, u64),
        change: ShardChange,
        deadline: Instant,
    ) -> Result<(), Error> {
        let shard = self.clone();
        // On its own, so that a caller who goes away does not leave the two entries of a change half done.
        let order = tokio::spawn(async move {
            let _turn = shard.inner.orders.turn(deadline).await?;
            shard.carry_out(fence.into(), &change, deadline).await
        });
        order.await.unwrap_or_else(|_| Err(uncertain_change("the node is stopping")))
    }

    async fn carry_out(
        &self,
        fence: Fence,
        change: &ShardChange,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.pass_fence(fence, deadline).await?;
        if *change == ShardChange::Fence {
            return Ok(());
        }
        let seen = self.read_members(deadline).await?;
        self.change_members(&seen, change, deadline).await
    }

    /// Refuses a fence lower than the highest, and makes a higher one the highest.
    async fn pass_fence(&self, fence: Fence, deadline: Instant) -> Result<(), Error> {
        let group = &self.inner.group;
        if !group.is_leader() {
            return Err(self.not_leader());
        }
        // A leader may lead before it has applied what its predecessors committed, fences among it.
        group.read_barrier(deadline).await.map_err(of_read)?;
        let highest = self.highest_fence()?;
        if fence < highest {
            let message = format!("the order is of {fence}; this shard has seen {highest}");
            return Err(Error::new(Code::Superseded, message));
        }
        if fence > highest {
            let Fence { operation, turn } = fence;
            faults::pass(Point::FenceBefore).map_err(types::Error::from)?;
            self.submit_plain(Request::Fence { operation, turn }, deadline).await?;
            faults::pass(Point::FenceAfter).map_err(|lost| uncertain_change(&lost.to_string()))?;
        }
        Ok(())
    }

    /// The members, once the last change of them is committed.
    pub(super) async fn read_members(&self, deadline: Instant) -> Result<Seen, Error> {
        let group = &self.inner.group;
        if let Some(pos) = group.membership().pos {
            group.wait_applied(pos.index, deadline).await;
        }
        let seen = self.look(None)?.ok_or_else(|| self.not_leader())?;
        let applied = group.store().applied_pos().map(|pos| pos.index);
        if seen.membership.pos.map(|pos| pos.index) > applied {
            return Err(Error::new(
                Code::NotSafeNow,
                "the last change of the members is not committed yet",
            ));
        }
        Ok(seen)
    }

    /// Changes the members if they are still the ones that were seen.
    pub(super) async fn change_members(
        &self,
        seen: &Seen,
        change: &ShardChange,
        deadline: Instant,
    ) -> Result<(), Error> {
        let group = &self.inner.group;
        let expected = seen.membership.pos;
        let step = change::check(self.copy(), &seen.lead, change)?;
        let step = match step {
            Step::Voters(_) | Step::Transfer(_) => self.ask_members(change, deadline).await?,
            Step::Nothing | Step::Remove(_) => step,
        };
        let points = around(&step);
        if let Some((before, _)) = points {
            faults::pass(before).map_err(types::Error::from)?;
        }
        let carried_out = async {
            match step.clone() {
                Step::Nothing => Ok(()),
                Step::Voters(voters) => group.change_voters(expected, voters).await,
                Step::Remove(learners) => group.remove_learners(expected, learners).await,
                Step::Transfer(to) => group.transfer_leader(to).await,
            }
        };
        let done = tokio::time::timeout_at(deadline.into(), carried_out).await;
        let done = done.unwrap_or(Err(raft::Error::Uncertain)).map_err(of_change);
        if let (Ok(()), Some((_, after))) = (&done, points) {
            faults::pass(after).map_err(|lost| uncertain_change(&lost.to_string()))?;
        }
        if step != Step::Nothing {
            let shard = self.inner.shard;
            match &done {
                Ok(()) => tracing::info!(%shard, ?step, "members changed"),
                Err(error) => tracing::warn!(%shard, ?step, %error, "members not changed"),
            }
        }
        done
    }

    /// Asks the members, and decides once enough of them have answered. What they answered before may be a
    /// second old: whoever stopped since then would hold up every write as soon as it votes.
    async fn ask_members(&self, change: &ShardChange, deadline: Instant) -> Result<Step, Error> {
        let group = &self.inner.group;
        let asked = Instant::now();
        let until = deadline.min(asked + ANSWER_WITHIN);
        group.ask_members().await.map_err(of_change)?;
        loop {
            let seen = self.look(Some(asked))?.ok_or_else(|| self.not_leader())?;
            match change::check(self.copy(), &seen.lead, change) {
                Err(error) if error.code == Code::NotSafeNow && Instant::now() < until => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                decided => return Ok(decided?),
            }
        }
    }

    /// Members and positions as this leader knows them now; none if it does not lead. Answers to what was sent
    /// before `since` count for nothing.
    pub(super) fn look(&self, since: Option<Instant>) -> Result<Option<Seen>, Error> {
        let group = &self.inner.group;
        let membership = group.membership();
        let state = group.state();
        if !state.is_leader {
            return Ok(None);
        }
        let last_index = state.last_index.unwrap_or(0);
        let near_index = {
            let now = Instant::now();
            let mut pace = self.inner.pace.lock();
            pace.note(now, last_index);
            pace.near_index(now, last_index)
        };
        let report = |(id, node, voter)| {
            let is_me = id == group.raft_id();
            let matched = state.matched.get(&id).copied().flatten();
            let matched = if is_me { Some(last_index) } else { matched };
            let answered = state.answered.get(&id).copied().flatten();
            let answered = answered.filter(|at| since.is_none_or(|since| *at >= since));
            MemberReport {
                copy: CopyId(id),
                node,
                voter,
                matched: matched.unwrap_or(0),
                answered_ms: answered.map(|at| at.elapsed().as_millis() as u64),
                near: matched.is_some_and(|matched| matched >= near_index),
            }
        };
        let voters = membership.voters.iter().map(|(id, node)| (*id, *node, true));
        let learners = membership.learners.iter().map(|(id, node)| (*id, *node, false));
        let mut members: Vec<MemberReport> = voters.chain(learners).map(report).collect();
        members.sort_by_key(|member| member.copy);
        let fence = self.fence()?;
        let lead = Lead { fence, joint: membership.joint, last_index, members };
        Ok(Some(Seen { membership, lead }))
    }

    fn highest_fence(&self) -> Result<Fence, Error> {
        let read = self.inner.group.store().read(Fence::highest);
        read.and_then(|fence| fence).map_err(of_store)
    }

    fn copy(&self) -> CopyId {
        CopyId(self.inner.group.raft_id())
    }

    fn not_leader(&self) -> Error {
        Error::NotLeader(self.inner.group.leader().map(|(_, node)| node))
    }
}

/// The failpoints before and after a step.
fn around(step: &Step) -> Option<(Point, Point)> {
    match step {
        Step::Nothing => None,
        Step::Voters(voters) if voters.len() == 1 => {
            Some((Point::DemoteBefore, Point::DemoteAfter))
        }
        Step::Voters(_) => Some((Point::PromoteBefore, Point::PromoteAfter)),
        Step::Remove(_) => Some((Point::RemoveBefore, Point::RemoveAfter)),
        Step::Transfer(_) => Some((Point::TransferBefore, Point::TransferAfter)),
    }
}
