//! Calls in flight to other copies: ids, and who waits for which answer.
//!
//! It sends nothing. An answer counts only if it comes from the copy that was asked.

use crate::types::{GroupId, NodeId};
use crate::wire::peer::{PeerBody, PeerMessage};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Calls that may wait for an answer at a time, over all groups; further ones fail at once.
const CALLS_MAX: usize = 65_536;

/// The copy on the other side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Callee {
    pub group: GroupId,
    /// Its raft id.
    pub copy: u64,
    /// The node it is on.
    pub node: NodeId,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None came in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Too many calls wait already.
    #[error("{CALLS_MAX} calls in flight")]
    TooMany,
}

struct Pending {
    callee: Callee,
    answer: oneshot::Sender<PeerBody>,
}

/// See the module.
#[derive(Clone)]
pub struct Calls {
    state: Arc<Mutex<State>>,
}

struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
}

/// One call; dropping it forgets the call.
pub struct Call {
    /// The id to send.
    pub id: u64,
    answer: oneshot::Receiver<PeerBody>,
    state: Arc<Mutex<State>>,
}

impl Calls {
    /// Ids start anywhere, so that an answer to a call of an earlier process meets none of this one.
    pub fn new() -> Self {
        let state = State { next: rand::random(), pending: HashMap::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Registers a call.
    pub fn begin(&self, callee: Callee) -> Result<Call, Error> {
        let mut state = self.state.lock();
        if state.pending.len() >= CALLS_MAX {
            return Err(Error::TooMany);
        }
        let id = state.next;
        state.next = state.next.wrapping_add(1);
        let (sender, answer) = oneshot::channel();
        state.pending.insert(id, Pending { callee, answer: sender });
        Ok(Call { id, answer, state: Arc::clone(&self.state) })
    }

    /// Hands an answer to who waits for it; false if nobody does or somebody else was asked.
    pub fn complete(&self, from: NodeId, message: PeerMessage) -> bool {
        let mut state = self.state.lock();
        let callee = Callee { group: message.group, copy: message.from, node: from };
        if state.pending.get(&message.call).is_none_or(|pending| pending.callee != callee) {
            return false;
        }
        match state.pending.remove(&message.call) {
            Some(pending) => pending.answer.send(message.body).is_ok(),
            None => false,
        }
    }
}

impl Call {
    /// Waits for the answer.
    pub async fn answer(mut self, within: Duration) -> Result<PeerBody, Error> {
        match tokio::time::timeout(within, &mut self.answer).await {
            Ok(Ok(body)) => Ok(body),
            _ => Err(Error::Timeout(within)),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.state.lock().pending.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Code;

    fn message(call: u64, group: u64, from: u64) -> PeerMessage {
        let body = PeerBody::Refused(Code::Moved);
        PeerMessage { group: GroupId(group), from, to: 1, call, body }
    }

    #[tokio::test]
    async fn only_the_copy_that_was_asked_can_answer() {
        let calls = Calls::new();
        let callee = Callee { group: GroupId(1), copy: 2, node: NodeId(20) };
        let call = calls.begin(callee).unwrap();
        let id = call.id;
        assert!(!calls.complete(NodeId(30), message(id, 1, 2)));
        assert!(!calls.complete(NodeId(20), message(id, 2, 2)));
        assert!(!calls.complete(NodeId(20), message(id, 1, 3)));
        assert!(!calls.complete(NodeId(20), message(id.wrapping_add(1), 1, 2)));
        assert!(calls.complete(NodeId(20), message(id, 1, 2)));
        assert_eq!(call.answer(Duration::from_secs(1)).await, Ok(PeerBody::Refused(Code::Moved)));
        assert!(!calls.complete(NodeId(20), message(id, 1, 2)));
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_forgotten() {
        let calls = Calls::new();
        let callee = Callee { group: GroupId(1), copy: 2, node: NodeId(20) };
        let wait = Duration::from_millis(50);
        assert_eq!(calls.begin(callee).unwrap().answer(wait).await, Err(Error::Timeout(wait)));
        drop(calls.begin(callee).unwrap());
        assert!(calls.state.lock().pending.is_empty());
    }
}
