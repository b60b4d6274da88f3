//! Read barriers: up to which index must a copy have applied, so that a read shows everything that was
//! committed when the read arrived.
//!
//! Others ask the leader, and all that wait while a question is out share the next one. The leader confirms a quorum
//! after the question arrived, by a round of its own (the library lets concurrent questions share one), unless the two
//! are a quorum themselves, as two of three voters are. The question holds the vote of the copy that asks. Had a later
//! leader been elected before, one of the two would have voted for it, and have saved that vote before it was
//! counted; so where both have saved the vote that made this leader, none was (Raft, section 6.4, with the question
//! in the place of the heartbeat). What this leader has applied is then all that anybody was told: no copy is told that
//! more is committed (`network`), so none has shown more.

use super::encoding::decode_vote;
use super::peers::Lane;
use super::rpc::Callee;
use super::shared::Shared;
use super::types::{AppendRequest, Raft, log_id, pos};
use super::{Error, failure, state};
use crate::types::{Code, LogPos, NodeId};
use crate::wire::peer::PeerBody;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long one question may take; who waits longer joins the next one.
const QUESTION_MAX: Duration = Duration::from_secs(1);

/// An index, proven for a question asked at `asked`.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    pub index: u64,
    pub asked: Instant,
    /// This copy itself was confirmed as the leader.
    pub led: bool,
}

/// Lets readers share questions to the leader. A reader takes part only in a question that is asked after
/// it came.
#[derive(Default)]
pub struct Rounds {
    state: Mutex<State>,
}

type Waiting = Vec<oneshot::Sender<Result<Reached, Error>>>;

#[derive(Default)]
struct State {
    asking: bool,
    waiting: Waiting,
}

impl Rounds {
    fn join(&self) -> (oneshot::Receiver<Result<Reached, Error>>, bool) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        state.waiting.push(sender);
        let first = !state.asking;
        state.asking = true;
        (receiver, first)
    }

    /// Everybody who came before this moment; none ends the asking.
    fn take(&self) -> Option<Waiting> {
        let mut state = self.state.lock();
        let waiting = std::mem::take(&mut state.waiting);
        state.asking = !waiting.is_empty();
        state.asking.then_some(waiting)
    }
}

/// The index to be applied, from a round of its own if this copy leads, else by asking the leader.
pub async fn barrier(shared: &Arc<Shared>, rounds: &Arc<Rounds>) -> Result<Reached, Error> {
    let raft = shared.raft().ok_or_else(|| Error::Stopped("not started".into()))?;
    if raft.is_leader() {
        let asked = Instant::now();
        match leader_index(raft).await {
            Err(Error::NotLeader(_)) => {}
            other => return other.map(|pos| Reached { index: pos.index, asked, led: true }),
        }
    }
    let (answer, first) = rounds.join();
    if first {
        shared.peers.handle.spawn(ask(Arc::clone(shared), Arc::clone(rounds)));
    }
    answer.await.unwrap_or_else(|_| Err(Error::NoQuorum("the question was dropped".into())))
}

async fn ask(shared: Arc<Shared>, rounds: Arc<Rounds>) {
    while let Some(waiting) = rounds.take() {
        let asked = Instant::now();
        let reached = ask_leader(&shared).await.map(|index| Reached { index, asked, led: false });
        for sender in waiting {
            let _ = sender.send(reached.clone());
        }
    }
}

async fn ask_leader(shared: &Shared) -> Result<u64, Error> {
    let raft = shared.raft().ok_or_else(|| Error::Stopped("not started".into()))?;
    let (leader, node) =
        known_leader(raft).ok_or_else(|| Error::NoQuorum("no leader is known".into()))?;
    if leader == shared.raft_id {
        return leader_index(raft).await.map(|pos| pos.index);
    }
    let callee = Callee { group: shared.group, copy: leader, node };
    let vote = shared.log.vote();
    let question = PeerBody::ReadIndexAs(vote.clone());
    let no_quorum = |e: super::rpc::Error| Error::NoQuorum(format!("leader on {node}: {e}"));
    let call = shared.peers.call(shared.raft_id, callee, Lane::Urgent, question);
    match call.map_err(no_quorum)?.answer(QUESTION_MAX).await.map_err(no_quorum)? {
        PeerBody::ReadIndexAnswer(pos) => Ok(pos.index),
        PeerBody::Committed(pos) => {
            learn(shared, raft, &vote, pos).await;
            Ok(pos.index)
        }
        PeerBody::Refused(Code::NotLeader) => Err(Error::NotLeader(None)),
        PeerBody::Refused(code) => Err(Error::NoQuorum(format!("leader on {node}: {code}"))),
        _ => Err(Error::NoQuorum(format!("leader on {node}: an answer to something else"))),
    }
}

/// On the leader: what is committed, if this copy and the one that asked with that vote are a quorum, and neither
/// knows of a later leader.
pub fn committed_for(shared: &Shared, asker: u64, vote: &[u8]) -> Option<LogPos> {
    let applied = shared.store.applied_pos()?;
    let life = Life { copy: shared.raft_id, opened_at: shared.log.opened_at() };
    let both = BTreeSet::from([shared.raft_id, asker]);
    (shared.is_quorum(&both, applied.index)
        && shared.log.vote() == vote
        && life.answered_no_more_than(applied, vote))
    .then_some(applied)
}

/// A copy since it was started.
struct Life {
    copy: u64,
    /// Index of the last entry in its log then.
    opened_at: u64,
}

impl Life {
    /// Whether this copy leads by that vote, and neither it nor a leader before has answered for more than what is
    /// applied. With an entry of its own term all entries of earlier leaders are. If it was started anew it may lead on
    /// in its term, with less applied than it had answered for; but all of that was in its log.
    fn answered_no_more_than(&self, applied: LogPos, vote: &[u8]) -> bool {
        decode_vote(vote).is_ok_and(|vote| {
            let elected = (vote.leader_id.term, vote.leader_id.node_id);
            vote.committed
                && elected == (applied.term, applied.leader)
                && applied.leader == self.copy
                && applied.index >= self.opened_at
        })
    }
}

/// Takes the leader's word that an entry is committed, which its next append would say as well. Who does not have it
/// yet will be sent it.
async fn learn(shared: &Shared, raft: &Raft, vote: &[u8], committed: LogPos) {
    let is_applied = |applied: LogPos| applied.index >= committed.index;
    let is_here = shared.log.last().is_some_and(|last| last.index >= committed.index);
    if !is_here || shared.store.applied_pos().is_some_and(is_applied) {
        return;
    }
    let Ok(vote) = decode_vote(vote) else { return };
    let at = Some(log_id(committed));
    let told = AppendRequest { vote, prev_log_id: at, leader_commit: at, entries: Vec::new() };
    if let Err(error) = raft.append_entries(told).await {
        tracing::debug!(group = %shared.group, %error, "a commit was not taken");
    }
}

/// The leader this copy knows, with its node.
pub fn known_leader(raft: &Raft) -> Option<(u64, NodeId)> {
    state::leader(&raft.metrics().borrow_watched())
}

/// On the leader: confirms the quorum with a round that begins now, and tells what must be applied.
pub async fn leader_index(raft: &Raft) -> Result<LogPos, Error> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(pos(linearizer.read_log_id().log_id())),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
            Err(Error::NotLeader(to.leader_node.map(|member| member.node)))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
            Err(Error::NoQuorum(error.to_string()))
        }
        Err(RaftError::Fatal(error)) => Err(failure(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::{VoteRecord, encode_vote};
    use super::*;

    #[test]
    fn a_leader_speaks_for_what_it_has_applied_once_that_is_all_it_ever_answered_for() {
        let life = Life { copy: 7, opened_at: 40 };
        let vote = |term, leader, committed| {
            encode_vote(&VoteRecord { term, leader, committed }.into()).to_vec()
        };
        let at = |term, leader, index| LogPos { term, leader, index };
        let may = |applied, vote: &[u8]| life.answered_no_more_than(applied, vote);
        assert!(may(at(3, 7, 40), &vote(3, 7, true)));
        assert!(!may(at(3, 7, 39), &vote(3, 7, true)), "not yet what it had when it was started");
        assert!(!may(at(2, 7, 50), &vote(3, 7, true)), "no entry of its term");
        assert!(!may(at(3, 8, 50), &vote(3, 7, true)), "nor is that one");
        assert!(!may(at(3, 8, 50), &vote(3, 8, true)), "another one leads");
        assert!(!may(at(3, 7, 50), &vote(3, 7, false)), "it was not elected yet");
        assert!(!may(at(3, 7, 50), b""));
    }

    #[test]
    fn a_reader_that_comes_during_a_question_waits_for_the_next() {
        let rounds = Rounds::default();
        let (mut early, first) = rounds.join();
        assert!(first);
        let asked = rounds.take().unwrap();
        let (mut late, first) = rounds.join();
        assert!(!first);
        for sender in asked {
            sender.send(Err(Error::Uncertain)).unwrap();
        }
        assert!(early.try_recv().is_ok());
        assert!(late.try_recv().is_err());
        assert_eq!(rounds.take().map(|w| w.len()), Some(1));
        assert!(rounds.take().is_none());
        assert!(rounds.join().1);
    }
}
