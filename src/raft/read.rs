//! Read barriers: up to which index must a copy have applied, so that a read shows everything that was
//! committed when the read arrived.
//!
//! The leader confirms a quorum after the question arrived (the library lets concurrent questions share a
//! round); others ask the leader, and all that wait while a question is out share the next one.

use super::peers::Lane;
use super::rpc::Callee;
use super::shared::Shared;
use super::types::{Raft, pos};
use super::{Error, failure, state};
use crate::types::{Code, LogPos, NodeId};
use crate::wire::peer::PeerBody;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
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
    let no_quorum = |e: super::rpc::Error| Error::NoQuorum(format!("leader on {node}: {e}"));
    let call = shared.peers.call(shared.raft_id, callee, Lane::Urgent, PeerBody::ReadIndex);
    match call.map_err(no_quorum)?.answer(QUESTION_MAX).await.map_err(no_quorum)? {
        PeerBody::ReadIndexAnswer(pos) => Ok(pos.index),
        PeerBody::Refused(Code::NotLeader) => Err(Error::NotLeader(None)),
        PeerBody::Refused(code) => Err(Error::NoQuorum(format!("leader on {node}: {code}"))),
        _ => Err(Error::NoQuorum(format!("leader on {node}: an answer to something else"))),
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
    use super::*;

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
