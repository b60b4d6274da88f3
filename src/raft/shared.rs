//! What the tasks of one copy share: its store and log, how far it has applied, its memberships, and why
//! it stopped. State and small questions about it; the work is done elsewhere.

use super::compact;
use super::digests::Digests;
use super::encoding::MembershipRecord;
use super::flush::{FlushState, Flusher};
use super::holds::Holds;
use super::incoming::Incoming;
use super::log_store::LogStore;
use super::outgoing::Outgoing;
use super::peers::Peers;
use super::snapshot;
use super::staging::Found;
use super::types::Raft;
use crate::storage::{self, Store, wal::Wal};
use crate::types::{GroupId, LogPos, NodeId};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::watch;

/// See the module.
pub struct Shared {
    pub group: GroupId,
    /// Raft id of this copy.
    pub raft_id: u64,
    /// Folder of the copy's table and staged snapshots.
    pub dir: PathBuf,
    pub store: Store,
    pub log: LogStore,
    pub wal: Wal,
    pub peers: Arc<Peers>,
    /// Index of the last entry that is visible.
    pub applied: watch::Sender<Option<u64>>,
    pub flush: FlushState,
    pub flusher: Flusher,
    /// When its table is looked at next, whether it has gaps.
    pub compaction_rest: compact::Rest,
    pub digests: Digests,
    pub holds: Holds,
    /// The table as it is sent.
    pub outgoing: Outgoing,
    /// Another copy's table as it arrives.
    pub incoming: Arc<Incoming>,
    memberships: Mutex<Memberships>,
    fresh: Mutex<Option<Instant>>,
    installed: AtomicU64,
    stopped: Mutex<Option<String>>,
    disk_error: Mutex<Option<String>>,
    /// Changes of the members under way.
    member_changes: watch::Sender<usize>,
    raft: OnceLock<Raft>,
}

/// How a copy takes part in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Voter,
    /// A learner beside an only voter. What it lacks may be lost with that one.
    Standby,
    /// A learner beside several voters. What it lacks, others have.
    Further,
}

impl Part {
    fn of(copy: u64, voters: impl Iterator<Item = u64>) -> Self {
        let (mut votes, mut count) = (false, 0);
        for voter in voters {
            votes |= voter == copy;
            count += 1;
        }
        match count {
            _ if votes => Part::Voter,
            0 | 1 => Part::Standby,
            _ => Part::Further,
        }
    }
}

/// A change of the members under way.
pub struct MemberChange<'a>(&'a watch::Sender<usize>);

impl Drop for MemberChange<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|changes| *changes -= 1);
    }
}

impl Shared {
    pub fn new(
        spec: (GroupId, u64, PathBuf),
        store: Store,
        (log, wal): (LogStore, Wal),
        peers: Arc<Peers>,
        flusher: Flusher,
        membership: MembershipRecord,
    ) -> Self {
        let (group, raft_id, dir) = spec;
        let pos = store.applied().pos;
        let installed = snapshot::marked_install(&dir).map_or(0, |pos| pos.index);
        Self {
            group,
            raft_id,
            dir,
            store,
            log,
            wal,
            peers,
            applied: watch::Sender::new(pos.map(|p| p.index)),
            flush: FlushState::default(),
            flusher,
            compaction_rest: compact::Rest::default(),
            digests: Digests::default(),
            holds: Holds::default(),
            outgoing: Outgoing::default(),
            incoming: Arc::default(),
            memberships: Mutex::new(Memberships::starting_with(membership)),
            fresh: Mutex::default(),
            installed: AtomicU64::new(installed),
            stopped: Mutex::default(),
            disk_error: Mutex::default(),
            member_changes: watch::Sender::default(),
            raft: OnceLock::new(),
        }
    }

    /// Log index at which the last snapshot was installed here, or was about to be; 0 if none ever was.
    pub fn installed(&self) -> u64 {
        self.installed.load(Ordering::Acquire)
    }

    /// Notes it, after it was noted durably and before the table is replaced.
    pub fn set_installed(&self, index: u64) {
        self.installed.store(index, Ordering::Release);
    }

    /// Takes over the snapshots that were on their way when the process before ended.
    pub fn restore_staged(&self, found: Found, now: Instant) {
        let (purged, holds) = (self.purged_index(), &self.holds);
        self.outgoing.restore(found.outgoing, self.raft_id, purged, holds, now);
        self.incoming.restore(found.incoming, now);
    }

    /// Deletes snapshots on their way that are of no use any more. Cheap; called all the time.
    pub fn tidy_staged(&self, now: Instant) {
        self.outgoing.tidy(now, self.purged_index(), |index| self.is_lacked(index));
        self.incoming.tidy(now, self.store.applied_pos().map(|pos| pos.index));
    }

    /// True if this copy leads and a member is not known to have everything up to that index.
    fn is_lacked(&self, index: u64) -> bool {
        let Some(raft) = self.raft() else { return true };
        let metrics = raft.metrics();
        let metrics = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics);
        let mut matched = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
        matched.any(|(_, at)| at.as_ref().is_none_or(|at| at.index < index))
    }

    /// The last index that the log has let go of.
    pub fn purged_index(&self) -> Option<u64> {
        self.log.purged().map(|id| id.index)
    }

    /// The library's handle, once the group runs.
    pub fn raft(&self) -> Option<&Raft> {
        self.raft.get()
    }

    /// Sets the handle, once.
    pub fn started(&self, raft: Raft) {
        let _ = self.raft.set(raft);
    }

    /// Why its own state is in doubt.
    pub fn failure(&self) -> Option<String> {
        self.stopped.lock().clone()
    }

    /// Why the group has stopped here, be it a failure or a shutdown.
    pub fn stopped(&self) -> Option<String> {
        self.failure().or_else(|| {
            let metrics = self.raft()?.metrics();
            let state =
                &openraft::async_runtime::WatchReceiver::borrow_watched(&metrics).running_state;
            state.as_ref().err().map(ToString::to_string)
        })
    }

    /// Why the disk under this copy cannot be trusted: it refused what had to be written or read. What is read
    /// and does not fit its checksum is damage of this copy alone, and no such reason.
    pub fn disk_error(&self) -> Option<String> {
        self.disk_error.lock().clone()
    }

    /// Notes an error of the store that stops this group.
    pub fn doubt(&self, what: &str, error: &storage::Error) {
        if !matches!(error, storage::Error::Corrupt { .. }) {
            self.disk_error.lock().get_or_insert(format!("{what} of {}: {error}", self.group));
        }
    }

    /// Stops the group because its state is in doubt. The first reason stays.
    pub fn stop(&self, reason: String) {
        tracing::error!(group = %self.group, reason, "the group has stopped");
        self.log.lone().changed();
        self.stopped.lock().get_or_insert(reason);
        if let Some(raft) = self.raft.get().cloned() {
            self.peers.handle.spawn(async move { drop(raft.shutdown().await) });
        }
    }

    /// Membership in force at an earlier position that is not yet flushed, or at the flushed one.
    pub fn membership_at(&self, pos: LogPos) -> MembershipRecord {
        self.memberships.lock().at(pos.index).clone()
    }

    /// Whether the membership that is applied has this copy as its only voter.
    pub fn is_only_voter(&self) -> bool {
        let memberships = self.memberships.lock();
        memberships.current().has_only_voter(self.raft_id)
    }

    /// Whether these copies are a quorum by the newest membership in the log, which has to be applied up to here.
    pub fn is_quorum(&self, copies: &BTreeSet<u64>, applied: u64) -> bool {
        let memberships = self.memberships.lock();
        self.log.lone().knows_membership(applied) && memberships.current().is_quorum(copies)
    }

    /// How a copy takes part by the newest membership that the library knows here.
    pub fn part_of(&self, copy: u64) -> Part {
        let Some(raft) = self.raft() else { return Part::Standby };
        let metrics = raft.metrics();
        let metrics = openraft::async_runtime::WatchReceiver::borrow_watched(&metrics);
        Part::of(copy, metrics.membership_config.membership().voter_ids())
    }

    /// The members change until what this returns is dropped.
    pub fn change_members(&self) -> MemberChange<'_> {
        self.member_changes.send_modify(|changes| *changes += 1);
        MemberChange(&self.member_changes)
    }

    /// Resolves while the members change.
    pub async fn members_change(&self) {
        // The sender is this.
        let _ = self.member_changes.subscribe().wait_for(|changes| *changes > 0).await;
    }

    /// A membership entry was applied.
    pub fn membership_applied(&self, record: MembershipRecord) {
        let flushed = self.store.flushed().map(|p| p.index);
        self.memberships.lock().push(record, flushed);
    }

    /// A snapshot has replaced everything.
    pub fn membership_replaced(&self, record: MembershipRecord) {
        self.log.lone().changed();
        *self.memberships.lock() = Memberships::starting_with(record);
    }

    /// Whether a message from this copy, sent by this node, may be listened to. Unknown copies may: this
    /// one may not have heard of them yet. Removed ones never, and nobody speaks for another node.
    pub fn listens_to(&self, copy: u64, node: NodeId) -> bool {
        let memberships = self.memberships.lock();
        let record = memberships.current();
        !record.removed.contains(&copy) && record.body.nodes.get(&copy).is_none_or(|n| *n == node)
    }

    /// When this copy was last proven to reflect everything committed.
    pub fn fresh_as_of(&self) -> Option<Instant> {
        *self.fresh.lock()
    }

    /// It was proven for a question asked at `at`.
    pub fn fresh_at(&self, at: Instant) {
        let mut fresh = self.fresh.lock();
        *fresh = Some(fresh.map_or(at, |known| known.max(at)));
    }

    /// Waits until an index is visible; false at the deadline.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|at| at.is_some_and(|at| at >= index));
        tokio::time::timeout_at(deadline.into(), reached).await.is_ok_and(|r| r.is_ok())
    }
}

/// The memberships from the flushed position to the applied one. A membership change takes two entries
/// and a flush comes at least every few seconds, so there are few.
struct Memberships {
    records: VecDeque<MembershipRecord>,
}

impl Memberships {
    fn starting_with(record: MembershipRecord) -> Self {
        Self { records: VecDeque::from([record]) }
    }

    fn current(&self) -> &MembershipRecord {
        &self.records[self.records.len() - 1]
    }

    fn at(&self, index: u64) -> &MembershipRecord {
        let holds = |record: &&MembershipRecord| record.pos.is_none_or(|pos| pos.index <= index);
        self.records.iter().rev().find(holds).unwrap_or(&self.records[0])
    }

    fn push(&mut self, record: MembershipRecord, flushed: Option<u64>) {
        self.records.push_back(record);
        let flushed = flushed.unwrap_or(0);
        while self.records.get(1).and_then(|next| next.pos).is_some_and(|pos| pos.index <= flushed)
        {
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: u64) -> MembershipRecord {
        MembershipRecord { pos: Some(LogPos { term: 1, leader: 1, index }), ..Default::default() }
    }

    #[test]
    fn a_learner_is_the_standby_of_an_only_voter() {
        let part = |copy, voters: &[u64]| Part::of(copy, voters.iter().copied());
        assert_eq!([part(1, &[1]), part(2, &[1, 2])], [Part::Voter; 2]);
        assert_eq!(part(2, &[1]), Part::Standby);
        assert_eq!(part(3, &[1, 2]), Part::Further);
    }

    #[test]
    fn a_membership_is_found_by_the_position_it_was_in_force_at() {
        let mut all = Memberships::starting_with(MembershipRecord::default());
        all.push(record(0), None);
        all.push(record(5), Some(0));
        all.push(record(9), Some(4));
        assert_eq!(all.at(4), &record(0));
        assert_eq!(all.at(5), &record(5));
        assert_eq!(all.at(100), &record(9));
        assert_eq!(all.current(), &record(9));
        all.push(record(12), Some(9));
        assert_eq!(all.records.len(), 2);
        assert_eq!(all.at(10), &record(9));
    }
}
