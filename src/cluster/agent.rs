//! Makes this node's copies what the metadata says: creates and opens them, starts new groups, adds the
//! learners that placement lists, and lifts the boot fence.
//!
//! Every step is repeatable and conditional, so a crash anywhere is an ordinary restart. The agent never
//! decides where a copy belongs; `core` did.

use super::core::{ClusterState, CopyPlacement, MetaCommand, ShardPlacement};
use super::opening::{Finding, judge};
use super::registry::{LocalCopy, Registry};
use super::view::StateView;
use crate::faults::{self, Point};
use crate::raft::{self, Group, GroupSpec, Host};
use crate::shard::{self, Clock, Shard};
use crate::storage::wal::{self, Wal};
use crate::types::{Code, DiskId, Error, GroupId, NodeId, Result};
use crate::wire::client::Role;
use crate::wire::codec;
use crate::wire::peer::FormationRecord;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often placement and membership are compared when nothing announces a change.
const RECONCILE_EVERY: Duration = Duration::from_millis(200);
/// Copies that are opened or created at a time: each waits for the disk several times, and they share an fsync.
const OPENED_AT_A_TIME: usize = 8;
/// Shards to which learners are added at a time.
const RECONCILED_AT_A_TIME: usize = 8;
/// By then the transfer to a new learner has begun, if it needs one.
const TRANSFER_BEGINS: Duration = Duration::from_millis(100);
/// How long one attempt to confirm the metadata may take.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// What the log keeps about a copy: it exists, for this disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CopyRecord {
    pub(super) raft_id: u64,
    pub(super) disk: DiskId,
}

/// What the agent works with.
pub struct Agent {
    /// This node.
    pub node: NodeId,
    /// The disk its data lies on.
    pub disk: DiskId,
    /// The node's data folder.
    pub data_dir: PathBuf,
    /// The log shared by all groups.
    pub wal: Wal,
    /// All groups of this node.
    pub host: Host,
    /// What is known of the cluster.
    pub view: StateView,
    /// The copies held here.
    pub registry: Registry,
    /// Where stamps come from.
    pub clock: Arc<dyn Clock>,
    /// Held by whoever adds a learner while clients are served.
    pub filling: tokio::sync::Mutex<()>,
}

impl Agent {
    /// Opens this node's metadata copy, creating it the first time.
    pub async fn open_metadata(&self) -> Result<Group> {
        let (logic, state) = super::MetaLogic::new();
        let (id, raft_id) = (GroupId::META, self.node.0);
        let dir = self.data_dir.join("meta");
        // Nothing can confirm this one but itself: what is recorded holds.
        match self.find(id, raft_id, &dir, true)? {
            Finding::Create => self.record_copy(id, raft_id).await?,
            Finding::Open => {}
            found => return Err(corrupt(id, &format!("{found:?}"))),
        }
        let group = self.open(id, raft_id, dir, Box::new(logic)).await?;
        self.view.set_state(state);
        Ok(group)
    }

    /// Runs until a copy cannot be opened, or the disk under one has failed; returns why. Everything else is
    /// tried again.
    pub async fn run(self: Arc<Self>, meta: Group) -> Error {
        tokio::select! {
            error = self.reconcile(&meta) => error,
            never = self.keep_copy_rate() => match never {},
        }
    }

    /// Has copies sent at the rate that holds, from the moment at which this node hears of it: what is reconciled may take
    /// seconds, and a switch that is ordered next would begin at the rate before.
    async fn keep_copy_rate(&self) -> Infallible {
        let mut changed = self.view.watch();
        loop {
            self.host.set_copy_rate(self.view.state().copy_rate());
            self.wait_for_change(&mut changed).await;
        }
    }

    /// Until the state of the cluster changes, or for some time.
    async fn wait_for_change(&self, changed: &mut Option<watch::Receiver<Arc<ClusterState>>>) {
        let told = match changed {
            Some(changed) => tokio::time::timeout(RECONCILE_EVERY, changed.changed()).await,
            None => return tokio::time::sleep(RECONCILE_EVERY).await,
        };
        // Nobody tells any more.
        if let Ok(Err(_)) = told {
            tokio::time::sleep(RECONCILE_EVERY).await;
        }
    }

    async fn reconcile(self: &Arc<Self>, meta: &Group) -> Error {
        let mut changed = self.view.watch();
        let (mut confirmed, mut swept) = (false, false);
        loop {
            if let Some(error) = self.disk_error(meta) {
                return error;
            }
            // A copy that is gone makes room for the next one of its shard first.
            if confirmed && (!swept || self.holds_unlisted()) {
                match self.drop_unlisted().await {
                    Ok(all_gone) => swept = all_gone,
                    Err(error) => return error,
                }
            }
            if let Err(error) = self.open_copies(confirmed).await {
                return error;
            }
            let state = self.view.state();
            let busy = state.operation().is_some_and(|op| op.phase.holds_slot());
            self.host.allow_compaction(confirmed && !busy);
            if !confirmed && self.confirm(meta).await {
                // What waited for this can be created, dropped and opened.
                confirmed = true;
                continue;
            }
            match self.view.replaced(self.node) {
                true => self.close_fences(),
                false if confirmed => self.lift_fences(),
                false => {}
            }
            self.reconcile_metadata(meta).await;
            let agent = &self;
            let reconcile =
                |(_, copy): (_, Arc<LocalCopy>)| async move { agent.reconcile_shard(&copy).await };
            let copies = stream::iter(self.registry.all());
            copies.for_each_concurrent(RECONCILED_AT_A_TIME, reconcile).await;
            self.wait_for_change(&mut changed).await;
        }
    }

    /// A group that the disk stopped would look unreachable for ever, and nobody would know why.
    fn disk_error(&self, meta: &Group) -> Option<Error> {
        let copies = self.registry.all();
        let groups = copies.iter().map(|(_, copy)| copy.shard.group());
        let found = std::iter::once(meta).chain(groups).find_map(Group::disk_error)?;
        Some(Error::new(Code::Corrupt, format!("the disk cannot be trusted: {found}")))
    }

    /// One linearizable metadata read: from here on the copy ids and incarnations known are the valid ones.
    async fn confirm(&self, meta: &Group) -> bool {
        let state = self.view.state();
        if state.is_formed() && meta.read_barrier(Instant::now() + CONFIRM_TIMEOUT).await.is_ok() {
            tracing::info!(epoch = self.view.state().epoch, "metadata confirmed by a quorum");
            self.view.set_confirmed();
            return true;
        }
        false
    }

    /// Lets each copy that the confirmed metadata lists answer; a lone voter first applies an entry of
    /// its own term, which its read barrier proves.
    fn lift_fences(&self) {
        let state = self.view.state();
        for (id, copy) in self.registry.all() {
            let Some(placed) = state.shard(id) else { continue };
            let listed = placed.incarnation == copy.incarnation
                && placed.copies.iter().any(|c| c.id == copy.copy && c.node == self.node);
            if copy.is_serving() || !listed {
                continue;
            }
            let lone = placed.copies.iter().filter(|c| c.voter).all(|c| c.id == copy.copy);
            // A copy that had nothing when it was opened has to have been up to date once: before, it
            // would deny keys that every other copy has.
            let proof = lone || copy.was_empty;
            tokio::spawn(async move {
                let deadline = Instant::now() + CONFIRM_TIMEOUT;
                if !proof || copy.shard.group().read_barrier(deadline).await.is_ok() {
                    faults::at(Point::CopyServe);
                    copy.serve();
                }
            });
        }
    }

    /// Opens every copy that the metadata gives to this node and disk; creates those that do not exist,
    /// once the metadata is confirmed.
    pub(super) async fn open_copies(&self, confirmed: bool) -> Result<()> {
        let state = self.view.state();
        let mut due = vec![];
        for placed in &state.shards {
            let mine = placed.copies.iter().find(|c| c.node == self.node && c.disk == self.disk);
            let Some(copy) = mine else { continue };
            if self.registry.get(placed.id).is_none() {
                due.push((placed, *copy));
            }
        }
        let open = |(placed, copy)| self.open_copy(placed, copy, confirmed);
        stream::iter(due.into_iter().map(Ok)).try_for_each_concurrent(OPENED_AT_A_TIME, open).await
    }

    async fn open_copy(
        &self,
        placed: &ShardPlacement,
        copy: CopyPlacement,
        confirmed: bool,
    ) -> Result<()> {
        let group_id = GroupId::of(placed.id, placed.incarnation);
        let dir = self.data_dir.join(format!("copies/{}", copy.id));
        match self.find(group_id, copy.id.0, &dir, confirmed)? {
            Finding::Wait => return Ok(()),
            Finding::Corrupt(why) => return Err(corrupt(group_id, &why)),
            Finding::Create => {
                faults::pass(Point::CopyRecord)?;
                self.record_copy(group_id, copy.id.0).await?;
                faults::pass(Point::CopyRecorded)?;
            }
            Finding::Open => {}
        }
        let logic = shard::logic(placed.id, placed.incarnation);
        let group = self.open(group_id, copy.id.0, dir.clone(), logic).await?;
        faults::pass(Point::CopyOpened)?;
        let shard = Shard::start(placed.id, placed.incarnation, group, self.clock.clone());
        self.registry.insert(placed.id, LocalCopy::new(shard, copy.id, placed.incarnation, dir));
        Ok(())
    }

    fn find(&self, group: GroupId, raft_id: u64, dir: &Path, confirmed: bool) -> Result<Finding> {
        let recorded = self.wal.group(group).created();
        let recorded = recorded.map(|body| codec::decode::<CopyRecord>(&body)).transpose();
        let recorded = recorded.map_err(|e| corrupt(group, &e))?;
        let wanted = CopyRecord { raft_id, disk: self.disk };
        Ok(judge(&wanted, recorded.as_ref(), dir.exists(), confirmed))
    }

    async fn open(
        &self,
        group: GroupId,
        raft_id: u64,
        dir: PathBuf,
        logic: Box<dyn raft::Logic>,
    ) -> Result<Group> {
        let opened = self.host.open(GroupSpec { group, raft_id, dir, logic }).await;
        opened.map_err(|e| corrupt(group, &format!("it cannot be opened: {e}")))
    }

    /// A copy is recorded in the log before its folder exists, so a folder without a record means that the
    /// log lost what it had acknowledged.
    async fn record_copy(&self, group: GroupId, raft_id: u64) -> Result<()> {
        let body = codec::encode(&CopyRecord { raft_id, disk: self.disk });
        durable(|done| self.wal.group(group).create(body.into(), done)).await
    }

    /// Nothing is served any more under an id that is gone.
    fn close_fences(&self) {
        for (shard, copy) in self.registry.all() {
            if copy.is_serving() {
                tracing::error!(%shard, copy = %copy.copy, "closed: this disk was replaced");
                copy.close();
            }
        }
    }

    /// Starts a pristine group whose founder is this copy; on its leader, adds the learners listed.
    async fn reconcile_shard(&self, copy: &LocalCopy) {
        let state = self.view.state();
        let Some(shard) = placement_of(&state, copy) else { return };
        let group = copy.shard.group();
        let now = group.state();
        if now.last_index.is_none() && now.term == 0 {
            let alone = BTreeMap::from([(copy.copy.0, self.node)]);
            if shard.may_start(copy.copy)
                && let Err(error) = group.initialize(alone).await
            {
                tracing::debug!(shard = %shard.id, %error, "not initialized");
            }
        } else if now.is_leader {
            let there = shard.copies.iter().filter(|c| !state.is_lost(c));
            self.fill(group, there.map(|c| (c.id.0, c.node))).await;
        }
    }

    /// Adds a learner that is missing. Where clients are served, one at a time, and not while enough of them are being
    /// filled.
    async fn fill(&self, group: &Group, wanted: impl Iterator<Item = (u64, NodeId)>) {
        if !self.host.makes_way() {
            add_missing_learner(group, wanted).await;
            return;
        }
        let Ok(_filling) = self.filling.try_lock() else { return };
        if !self.host.has_transfers_enough() && add_missing_learner(group, wanted).await {
            // It counts once its transfer has begun.
            tokio::time::sleep(TRANSFER_BEGINS).await;
        }
    }

    /// Brings a formation to its end from the first primary, however often it was interrupted: everyone
    /// joined, metadata group started, cluster formed.
    pub async fn complete_formation(&self, meta: &Group, record: &FormationRecord) -> Result<()> {
        let voters: BTreeMap<u64, NodeId> = record
            .members
            .iter()
            .filter(|m| m.role == Role::Primary)
            .map(|m| (m.id.0, m.id))
            .collect();
        if meta.state().last_index.is_none()
            && let Err(error) = meta.initialize(voters).await
        {
            tracing::debug!(%error, "metadata group was started before");
        }
        let payload = codec::encode(&MetaCommand::Form(record.clone()));
        match meta.propose(payload.into()).await {
            Ok((_, replies)) => reply_of(&replies),
            Err(error) => Err(Error::new(Code::NotReady, format!("metadata group: {error}"))),
        }
    }
}

/// Waits until what is submitted to the log is durable.
pub(super) async fn durable(submit: impl FnOnce(wal::Done)) -> Result<()> {
    let (done, durable) = tokio::sync::oneshot::channel();
    submit(Box::new(move |result| drop(done.send(result))));
    match durable.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Error::new(Code::Corrupt, error.to_string())),
        Err(_) => Err(Error::new(Code::Corrupt, "the log has stopped")),
    }
}

/// The outcome of a metadata command.
pub fn reply_of(replies: &[Bytes]) -> Result<()> {
    let reply = replies.first().map(|bytes| codec::decode(bytes));
    match reply {
        Some(Ok(super::MetaReply::Done { .. })) => Ok(()),
        Some(Ok(super::MetaReply::Refused(error))) => Err(error),
        Some(Err(error)) => Err(Error::new(Code::Internal, error.to_string())),
        None => Err(Error::new(Code::Internal, "a metadata entry without a reply")),
    }
}

/// Adds the first member that is missing, on the condition that the membership is the one just read.
/// One at a time: the next round sees the new membership. Whether one was added.
async fn add_missing_learner(group: &Group, wanted: impl Iterator<Item = (u64, NodeId)>) -> bool {
    let membership = group.membership();
    if membership.joint || membership.pos.is_none() {
        return false;
    }
    let known: BTreeSet<u64> =
        membership.voters.keys().chain(membership.learners.keys()).copied().collect();
    for (raft_id, node) in wanted.filter(|(id, _)| !known.contains(id)).take(1) {
        if faults::pass(Point::LearnerAdd).is_err() {
            return false;
        }
        match group.add_learner(membership.pos, raft_id, node).await {
            Ok(()) => {
                faults::at(Point::LearnerAdded);
                tracing::info!(raft_id, %node, "learner added");
                return true;
            }
            Err(error) => tracing::debug!(raft_id, %node, %error, "learner not added yet"),
        }
    }
    false
}

/// The placement of a local copy, if the metadata still lists it.
fn placement_of<'a>(state: &'a ClusterState, copy: &LocalCopy) -> Option<&'a ShardPlacement> {
    state.shards.iter().find(|s| s.copies.iter().any(|c| c.id == copy.copy))
}

fn corrupt(group: GroupId, detail: &dyn std::fmt::Display) -> Error {
    Error::new(Code::Corrupt, format!("the copy of {group}: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_records_keep_their_bytes() {
        let record = CopyRecord { raft_id: 7, disk: DiskId(1) };
        assert_eq!(codec::encode(&record), [1, 7, 1]);
    }
}
