//! Messages that arrive for a copy: appends in their order, one queue for each sender, everything else at
//! once. Who is listened to was decided before.
//!
//! A sender is taken at its word only about itself: a vote or an append names its leader, and that must be
//! the copy the message comes from.

use super::encoding::{
    AppendAnswer, TransferAnswer, TransferCall, VoteAnswer, VoteCall, decode_append,
};
use super::peers::Lane;
use super::read;
use super::rpc::Callee;
use super::shared::Shared;
use super::types::{AppendRequest, Raft, VoteRequest, pos};
use crate::types::Code;
use crate::wire::codec;
use crate::wire::peer::PeerBody;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use openraft::raft::{AppendEntriesResponse, TransferLeaderError};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Appends of one sender that may wait for their turn; further ones are refused. More than a sender has in
/// flight.
const QUEUE_MAX: usize = 64;
/// Appends of one sender in the library at a time.
const PIPELINE_MAX: usize = 32;
/// A queue that was not used for this long goes away.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// An append in a queue.
struct Arrived {
    from: Callee,
    call: u64,
    body: Bytes,
}

/// The queues of one copy, by the raft id of the sender.
#[derive(Default)]
pub struct Inbox {
    queues: Mutex<HashMap<u64, mpsc::Sender<Arrived>>>,
}

impl Inbox {
    /// Queues an append; false if the queue is full.
    pub fn push(&self, shared: &Arc<Shared>, from: Callee, call: u64, body: Bytes) -> bool {
        let mut queues = self.queues.lock();
        let mut arrived = Arrived { from, call, body };
        if let Some(queue) = queues.get(&from.copy) {
            match queue.try_send(arrived) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(_)) => return false,
                Err(mpsc::error::TrySendError::Closed(back)) => arrived = back,
            }
        }
        queues.retain(|_, queue| !queue.is_closed());
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let sent = sender.try_send(arrived).is_ok();
        queues.insert(from.copy, sender);
        shared.peers.handle.spawn(run(Arc::clone(shared), receiver));
        sent
    }
}

/// What became of a session with the library.
#[derive(PartialEq, Eq)]
enum Over {
    /// The library ends a session at the first append that it does not take.
    Session,
    Queue,
}

async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Arrived>) {
    let Some(raft) = shared.raft().cloned() else { return };
    while session(&shared, &raft, &mut queue).await == Over::Session {}
}

async fn session(shared: &Shared, raft: &Raft, queue: &mut mpsc::Receiver<Arrived>) -> Over {
    let (requests, arriving) = mpsc::channel::<AppendRequest>(PIPELINE_MAX);
    let input = stream::unfold(arriving, |mut from| async { from.recv().await.map(|r| (r, from)) });
    let mut results = Box::pin(raft.stream_append(input));
    let mut waiting: VecDeque<(Callee, u64)> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            result = results.next(), if !waiting.is_empty() => {
                let Some(Ok(result)) = result else { return Over::Queue };
                let Some((from, call)) = waiting.pop_front() else { return Over::Queue };
                let answer = AppendAnswer::from(&result);
                reply(shared, from, call, Lane::Append, &answer);
                if result.is_err() {
                    // What stands behind it in the pipeline is lost; its sender starts again anyway.
                    return Over::Session;
                }
            }
            arrived = queue.recv(), if waiting.len() < PIPELINE_MAX => {
                let Some(Arrived { from, call, body }) = arrived else { return Over::Queue };
                match leader_append(&body, from.copy) {
                    Some(request) => {
                        if requests.send(request).await.is_err() {
                            return Over::Queue;
                        }
                        waiting.push_back((from, call));
                    }
                    None => refuse(shared, from, call, Code::BadRequest),
                }
            }
            () = tokio::time::sleep(IDLE_MAX), if waiting.is_empty() => return Over::Queue,
        }
    }
}

fn leader_append(body: &Bytes, from: u64) -> Option<AppendRequest> {
    let decoded =
        decode_append(body).inspect_err(|error| tracing::warn!(from, %error, "a bad append"));
    decoded.ok().filter(|r| r.vote.committed && r.vote.leader_id.node_id == from)
}

fn reply<T: Serialize>(shared: &Shared, to: Callee, call: u64, lane: Lane, answer: &T) {
    let body = PeerBody::Answer(codec::encode(answer).into());
    shared.peers.answer(to, shared.raft_id, call, lane, body);
}

/// Says that a call was not carried out.
pub fn refuse(shared: &Shared, to: Callee, call: u64, code: Code) {
    shared.peers.answer(to, shared.raft_id, call, Lane::Urgent, PeerBody::Refused(code));
}

/// Serves a call that need not keep any order.
pub async fn serve(shared: Arc<Shared>, from: Callee, call: u64, body: PeerBody) {
    let Some(raft) = shared.raft().cloned() else {
        return refuse(&shared, from, call, Code::NotReady);
    };
    let done = match body {
        PeerBody::Append(body) => heartbeat(&raft, &body, from.copy).await.map(encode),
        PeerBody::Vote(body) => vote(&raft, &body, from.copy, false).await.map(encode),
        PeerBody::PreVote(body) => vote(&raft, &body, from.copy, true).await.map(encode),
        PeerBody::TransferLeader(body) => transfer(&raft, &body, from.copy).await.map(encode),
        PeerBody::ReadIndex => read_index(&raft).await,
        PeerBody::ReadIndexAs(vote) => match read::committed_for(&shared, from.copy, &vote) {
            Some(pos) => Ok(PeerBody::Committed(pos)),
            None => read_index(&raft).await,
        },
        _ => return,
    };
    let body = done.unwrap_or_else(PeerBody::Refused);
    shared.peers.answer(from, shared.raft_id, call, Lane::Urgent, body);
}

fn encode<T: Serialize>(answer: T) -> PeerBody {
    PeerBody::Answer(codec::encode(&answer).into())
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Code> {
    codec::decode(body).map_err(|_| Code::BadRequest)
}

async fn heartbeat(raft: &Raft, body: &Bytes, from: u64) -> Result<AppendAnswer, Code> {
    let request = leader_append(body, from).ok_or(Code::BadRequest)?;
    let prev = request.prev_log_id.as_ref().map(pos);
    let last = request.entries.last().map(|entry| pos(&entry.log_id)).or(prev);
    match raft.append_entries(request).await.map_err(|_| Code::NotReady)? {
        AppendEntriesResponse::Success => Ok(AppendAnswer::Matched(last)),
        AppendEntriesResponse::PartialSuccess(id) => {
            Ok(AppendAnswer::Matched(id.as_ref().map(pos)))
        }
        AppendEntriesResponse::Conflict => prev.map(AppendAnswer::Conflict).ok_or(Code::Internal),
        AppendEntriesResponse::HigherVote(vote) => Ok(AppendAnswer::HigherVote((&vote).into())),
    }
}

async fn vote(raft: &Raft, body: &[u8], from: u64, only_asking: bool) -> Result<VoteAnswer, Code> {
    let call: VoteCall = decode(body)?;
    if call.vote.leader != from || call.vote.committed {
        return Err(Code::BadRequest);
    }
    let request = VoteRequest::from(call);
    let response =
        if only_asking { raft.pre_vote(request).await } else { raft.vote(request).await };
    response.map(|r| VoteAnswer::from(&r)).map_err(|_| Code::NotReady)
}

async fn transfer(raft: &Raft, body: &[u8], from: u64) -> Result<TransferAnswer, Code> {
    let call: TransferCall = decode(body)?;
    if call.vote.leader != from || !call.vote.committed {
        return Err(Code::BadRequest);
    }
    Ok(match raft.handle_transfer_leader(call.into()).await.map_err(|_| Code::NotReady)? {
        Ok(()) => TransferAnswer::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            TransferAnswer::VoteChanged { expected: (&expected).into(), actual: (&actual).into() }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            let [expected, actual] = [expected, actual].map(|id| id.as_ref().map(pos));
            TransferAnswer::NotFlushed { expected, actual }
        }
    })
}

/// The round that confirms the quorum begins here, after the call has arrived.
async fn read_index(raft: &Raft) -> Result<PeerBody, Code> {
    match read::leader_index(raft).await {
        Ok(pos) => Ok(PeerBody::ReadIndexAnswer(pos)),
        Err(super::Error::NotLeader(_)) => Err(Code::NotLeader),
        Err(_) => Err(Code::NotReady),
    }
}
