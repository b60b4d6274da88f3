//! The handle of one copy's group: proposals, reads, changes of the membership, and what it knows.

use super::digests::NoDigest;
use super::read::{self, Rounds};
use super::shared::Shared;
use super::stages::Times;
use super::types::{self, Member, Metrics, Payload, Raft, Replies, WriteError, log_id, pos};
use super::{DigestResult, Error, Membership, State, failure, state};
use crate::storage::Store;
use crate::types::{GroupId, LogPos, NodeId};
use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, ForwardReason, ForwardToLeader, InitializeError, RaftError,
};
use openraft::{ChangeMembers, Precondition};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a read waits for an index before the leader is asked whether it is committed.
const COMMIT_WAIT: Duration = Duration::from_millis(1);

/// One copy's group. Clones share everything.
#[derive(Clone)]
pub struct Group {
    shared: Arc<Shared>,
    rounds: Arc<Rounds>,
}

impl Group {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, rounds: Arc::default() }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn raft(&self) -> Result<&Raft, Error> {
        match (self.shared.stopped(), self.shared.raft()) {
            (None, Some(raft)) => Ok(raft),
            (reason, _) => Err(Error::Stopped(reason.unwrap_or_else(|| "not started".into()))),
        }
    }

    /// The group.
    pub fn id(&self) -> GroupId {
        self.shared.group
    }

    /// Raft id of this copy.
    pub fn raft_id(&self) -> u64 {
        self.shared.raft_id
    }

    /// Log index at which the last snapshot was installed in this copy, over restarts; 0 if none ever was.
    /// Never lower than where the table really comes from; an installation that a crash cut short may have
    /// raised it without having taken place.
    pub fn installed_index(&self) -> u64 {
        self.shared.installed()
    }

    /// Bytes that are here of a table that is on its way to this copy; 0 while there is none.
    pub fn arriving_bytes(&self) -> u64 {
        self.shared.incoming.arriving_bytes()
    }

    /// As `Host::copied_bytes`, of the host that this copy belongs to.
    pub fn host_copied_bytes(&self) -> u64 {
        self.shared.peers.copied_bytes()
    }

    /// Why the group has stopped here; none while it works.
    pub fn stopped(&self) -> Option<String> {
        self.shared.stopped()
    }

    /// Why the disk under this copy cannot be trusted any more; the node has to end then.
    pub fn disk_error(&self) -> Option<String> {
        self.shared.disk_error()
    }

    /// Starts the group with these voters. Only on a copy whose log is pristine; on any other a `Conflict`
    /// that says so (repeating it is harmless).
    pub async fn initialize(&self, voters: BTreeMap<u64, NodeId>) -> Result<(), Error> {
        let members: BTreeMap<u64, Member> =
            voters.into_iter().map(|(id, node)| (id, Member { node })).collect();
        match self.raft()?.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(error))) => {
                Err(Error::Conflict(format!("the group has been started: {error}")))
            }
            Err(RaftError::APIError(error)) => Err(Error::Conflict(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(failure(&error)),
        }
    }

    /// Proposes an entry; resolves when it is committed and applied here. It may never resolve while the
    /// leader is cut off: whoever waits has a deadline, and past it the outcome is unknown.
    pub async fn propose(&self, payload: Bytes) -> Result<(LogPos, Vec<Bytes>), Error> {
        match self.raft()?.client_write(Payload(payload)).await {
            Ok(done) => {
                let Replies(replies) = done.data;
                Ok((pos(&done.log_id), replies))
            }
            Err(error) => Err(write_error(error)),
        }
    }

    /// Resolves when a linearizable read may be answered from this copy: leader by a read-index round
    /// shared with others, follower by asking the leader. Returns the index that was reached.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<u64, Error> {
        self.raft()?;
        let lone = self.shared.log.lone();
        let question = lone.question();
        let barrier = read::barrier(&self.shared, &self.rounds);
        let late = || Error::NoQuorum("no quorum confirmed in time".into());
        let reached =
            tokio::time::timeout_at(deadline.into(), barrier).await.map_err(|_| late())??;
        if !self.shared.wait_applied(reached.index, deadline).await {
            return Err(Error::NoQuorum(format!(
                "index {} was not applied in time",
                reached.index
            )));
        }
        self.shared.fresh_at(reached.asked);
        if let (Some(question), true) = (question, reached.led) {
            lone.settle(question, reached.index, self.shared.is_only_voter());
        }
        Ok(reached.index)
    }

    /// True while this copy may answer linearizable reads at once from what it has applied: it leads, it is the
    /// only voter, and an earlier `read_barrier` has proven both. Cheap enough for every request.
    pub fn reads_alone(&self) -> bool {
        self.shared.log.lone().holds()
    }

    /// Waits until an index is applied here; false at the deadline.
    ///
    /// A copy hears that entries are committed with the next ones, or a little later. If only that is missing, the
    /// leader is asked, and its answer says so.
    pub async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut applied = pin!(self.shared.wait_applied(index, deadline));
        if let Ok(reached) = tokio::time::timeout(COMMIT_WAIT, &mut applied).await {
            return reached;
        }
        if self.shared.log.last().is_some_and(|last| last.index >= index) {
            tokio::select! {
                reached = &mut applied => return reached,
                _ = read::barrier(&self.shared, &self.rounds) => {}
            }
        }
        applied.await
    }

    /// When this copy was last proven to reflect everything committed: the moment a question was sent that
    /// was answered by a leader with a quorum it confirmed later, and an index that is applied here.
    pub fn fresh_as_of(&self) -> Option<Instant> {
        self.shared.fresh_as_of()
    }

    /// Asks the leader (or, on it, confirms the quorum) and updates `fresh_as_of`.
    pub async fn refresh(&self, deadline: Instant) -> Result<(), Error> {
        self.read_barrier(deadline).await.map(drop)
    }

    /// Resolves when this copy has applied everything it may have shown before it was restarted: a commit
    /// of the cluster covers its log. Until then a `local` read could go back in time.
    pub async fn recovered(&self, deadline: Instant) -> Result<(), Error> {
        let wait = deadline.saturating_duration_since(Instant::now());
        let recovered = self.raft()?.wait_for_recovery(Some(wait)).await;
        recovered.map(drop).map_err(|error| Error::NoQuorum(error.to_string()))
    }

    /// Current membership as this copy knows it; it may not be committed yet.
    pub fn membership(&self) -> Membership {
        match self.shared.raft() {
            Some(raft) => types::membership(&raft.metrics().borrow_watched().membership_config),
            None => Membership {
                pos: None,
                joint: false,
                voters: BTreeMap::new(),
                learners: BTreeMap::new(),
            },
        }
    }

    /// What this copy knows now. Where only the leader matters, `is_leader` and `leader` are cheaper.
    pub fn state(&self) -> State {
        let applied = self.shared.store.applied_pos();
        match self.shared.raft() {
            Some(raft) => State::of(&raft.metrics().borrow_watched(), applied),
            None => State::stopped(applied),
        }
    }

    /// Sends every member a message that it answers at once; the answers show in `state`. On the leader only.
    pub async fn ask_members(&self) -> Result<(), Error> {
        self.raft()?.trigger().heartbeat().await.map_err(|error| failure(&error))
    }

    /// True while this copy leads, as far as it knows. Copies nothing: cheap enough for every request.
    pub fn is_leader(&self) -> bool {
        self.shared.raft().is_some_and(Raft::is_leader)
    }

    /// Raft id of the leader known, with its node. As cheap as `is_leader`.
    pub fn leader(&self) -> Option<(u64, NodeId)> {
        self.shared.raft().and_then(read::known_leader)
    }

    /// When an entry got how far that was applied a moment ago.
    pub fn times(&self, index: u64) -> Times {
        self.shared.log.stages().of(index)
    }

    /// On the leader: entries that are committed and not applied; 0 elsewhere. As cheap as `is_leader`.
    pub fn unapplied(&self) -> u64 {
        let applied = self.shared.store.applied_pos();
        let raft = self.shared.raft();
        raft.map_or(0, |raft| state::unapplied(&raft.metrics().borrow_watched(), applied))
    }

    /// Last entry in the log of this copy. As cheap as `is_leader`.
    pub fn last_index(&self) -> Option<u64> {
        self.shared.raft().and_then(|raft| raft.metrics().borrow_watched().last_log_index)
    }

    /// Adds a learner, if the membership is still the one at `expected`.
    pub async fn add_learner(
        &self,
        expected: Option<LogPos>,
        raft_id: u64,
        node: NodeId,
    ) -> Result<(), Error> {
        self.settled()?;
        let nodes = BTreeMap::from([(raft_id, Member { node })]);
        self.change(ChangeMembers::AddNodes(nodes), true, expected).await
    }

    /// Makes exactly these learners and voters the voters, if the membership is still the one at
    /// `expected`. Demoted voters stay as learners. It takes two entries; `Uncertain` after the first one
    /// leaves the membership joint, and the same call with the new position finishes it.
    pub async fn change_voters(
        &self,
        expected: Option<LogPos>,
        voters: BTreeSet<u64>,
    ) -> Result<(), Error> {
        self.change(ChangeMembers::ReplaceAllVoters(voters), true, expected).await
    }

    /// Removes learners, if the membership is still the one at `expected`. A voter among them is refused.
    pub async fn remove_learners(
        &self,
        expected: Option<LogPos>,
        learners: BTreeSet<u64>,
    ) -> Result<(), Error> {
        self.settled()?;
        self.change(ChangeMembers::RemoveNodes(learners), false, expected).await
    }

    /// While joint, the library would take any change as the second half of the one under way.
    fn settled(&self) -> Result<(), Error> {
        if self.membership().joint {
            return Err(Error::Conflict("a change of the voters is under way".into()));
        }
        Ok(())
    }

    async fn change(
        &self,
        change: ChangeMembers<u64, Member>,
        retain: bool,
        expected: Option<LogPos>,
    ) -> Result<(), Error> {
        let condition =
            Precondition::LastMembershipLogId { last_membership_log_id: expected.map(log_id) };
        let raft = self.raft()?;
        let _change = self.shared.change_members();
        match raft.change_membership_if(change, retain, [condition]).await.map_err(write_error) {
            Ok(done) => {
                // The library may answer some microseconds before it tells its state: whoever reads the
                // members next shall see the change. That it stops meanwhile undoes nothing.
                let newest = Some(done.log_id());
                let told = |seen: &Metrics| seen.membership_config.log_id().as_ref() >= newest;
                let _ = raft.wait(None).metrics(told, "the change is told").await;
                Ok(())
            }
            // The second of two entries may fail where the first did not.
            Err(Error::NotLeader(_) | Error::NoQuorum(_)) if self.membership().pos != expected => {
                Err(Error::Uncertain)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks a voter to take over. Resolves when it was asked; who leads then is seen in `state`.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), Error> {
        let raft = self.raft()?;
        if !raft.is_leader() {
            return Err(Error::NotLeader(read::known_leader(raft).map(|(_, node)| node)));
        }
        if !self.membership().voters.contains_key(&to) {
            return Err(Error::Conflict(format!("copy {to} is not a voter")));
        }
        raft.trigger().transfer_leader(to).await.map_err(|error| failure(&error))
    }

    /// The copy's store, for reads.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The digest computed for the entry at `index`, once it is there (bounded memory: the last 8).
    pub async fn digest(&self, index: u64, timeout: Duration) -> Result<DigestResult, NoDigest> {
        let applied = || *self.shared.applied.borrow();
        self.shared.digests.wait(index, timeout, applied).await
    }

    /// Writes what is applied to the table; false if that did not happen within 30 s.
    pub async fn flush(&self) -> bool {
        self.shared.flusher.flush_all(&self.shared).await
    }
}

fn forward(to: ForwardToLeader<types::TypeConfig>) -> Error {
    match to.reason {
        ForwardReason::LeaseExpired => {
            Error::NoQuorum("no quorum has answered within the lease".into())
        }
        _ => Error::NotLeader(to.leader_node.map(|member| member.node)),
    }
}

fn write_error(error: WriteError) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => forward(to),
        RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Error::Uncertain,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Error::Conflict(error.to_string())
        }
        RaftError::APIError(ClientWriteError::PreconditionFailed(error)) => {
            Error::Conflict(error.to_string())
        }
        // It worked when the call began: whether the entry got into the log before it stopped is open.
        RaftError::Fatal(_) => Error::Uncertain,
    }
}
