//! How the library reaches another copy: appends through a bounded pipeline, everything small and urgent
//! on its own lane, snapshots on a stream of their own.
//!
//! Every answer is checked against what was asked before the library sees it, because the library panics
//! on answers that the protocol cannot produce.

use super::encoding::{
    AppendAnswer, TransferAnswer, TransferCall, VoteAnswer, VoteCall, encode_append,
};
use super::peers::{Lane, Peers};
use super::rpc::{self, Callee};
use super::sending;
use super::shared::{Part, Shared};
use super::snapshot::SnapshotData;
use super::types::{
    AppendRequest, AppendResult, Entry, LogId, Member, RpcError, Snapshot, TransferRequest,
    TypeConfig, Vote, VoteRequest, VoteResponse, log_id,
};
use crate::types::{Code, LogPos};
use crate::wire::codec;
use crate::wire::peer::PeerBody;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderError,
    TransferLeaderResponse,
};
use openraft::{EntryPayload, OptionalSend};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// How long an append may wait for its answer. An answer needs an fsync of the follower, and those stall
/// for hundreds of milliseconds on a busy disk; giving up earlier only sends the same entries again.
const APPEND_ANSWER_MAX: Duration = Duration::from_secs(1);

/// Bytes of entries to a learner, for each millisecond of its tick, from which on the next append follows at once: there
/// is a backlog,
const BACKLOG_BYTES_PER_MS: u64 = 3_200;
/// and so many entries.
const BACKLOG_ENTRIES: u64 = 256;

/// Most entries in one append.
pub const APPEND_ENTRIES_MAX: u64 = 300;
const _: () = assert!(BACKLOG_ENTRIES < APPEND_ENTRIES_MAX);

/// Makes the library's clients of one copy.
pub struct Network {
    pub shared: Arc<Shared>,
}

/// A client of one other copy.
pub struct Link {
    shared: Arc<Shared>,
    callee: Callee,
    lane: Lane,
}

impl Network {
    fn link(&self, target: u64, member: &Member, lane: Lane) -> Link {
        let callee = Callee { group: self.shared.group, copy: target, node: member.node };
        Link { shared: Arc::clone(&self.shared), callee, lane }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Lane::Urgent)
    }
}

fn network(text: impl ToString) -> RpcError {
    RpcError::Network(NetworkError::from_string(text))
}

fn unreachable(text: impl ToString) -> RpcError {
    RpcError::Unreachable(Unreachable::from_string(text))
}

fn failed(error: rpc::Error) -> RpcError {
    match error {
        rpc::Error::Timeout(_) => network(error),
        // Backs off, so that the calls in flight can drain.
        rpc::Error::TooMany => unreachable(error),
    }
}

fn refused(code: Code) -> RpcError {
    let text = format!("refused: {code}");
    match code {
        Code::Overloaded | Code::BadRequest => network(text),
        // The copy is not there (any more, or yet): back off.
        _ => unreachable(text),
    }
}

fn decode<T: DeserializeOwned>(body: PeerBody) -> Result<T, RpcError> {
    match body {
        PeerBody::Answer(bytes) => codec::decode(&bytes).map_err(network),
        PeerBody::Refused(code) => Err(refused(code)),
        _ => Err(network("an answer to something else")),
    }
}

/// What an answer to an append has to agree with.
struct Asked {
    prev: Option<LogId>,
    last: Option<LogId>,
}

impl Asked {
    fn of(request: &AppendRequest) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        Self { prev: request.prev_log_id, last }
    }

    fn check(&self, answer: AppendAnswer) -> Result<AppendResult, RpcError> {
        let result = AppendResult::from(answer);
        let fits = match &result {
            Ok(matched) => *matched == self.last,
            Err(StreamAppendError::Conflict(at)) => Some(*at) == self.prev,
            Err(StreamAppendError::HigherVote(_)) => true,
        };
        if fits { Ok(result) } else { Err(network("an answer that does not fit the append")) }
    }
}

impl Link {
    fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    fn heartbeat(&self) -> bool {
        self.lane == Lane::Urgent
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        body: PeerBody,
        within: Duration,
    ) -> Result<T, RpcError> {
        let call = self
            .peers()
            .call(self.shared.raft_id, self.callee, Lane::Urgent, body)
            .map_err(failed)?;
        decode(call.answer(within).await.map_err(failed)?)
    }

    /// Sends an append when there is room for it, and waits for its answer.
    async fn append(
        shared: Arc<Shared>,
        callee: Callee,
        lane: Lane,
        mut request: AppendRequest,
        within: Duration,
    ) -> Result<AppendResult, RpcError> {
        request.leader_commit = told(request.leader_commit, shared.store.applied_pos());
        let asked = Asked::of(&request);
        let body = encode_append(&request, lane == Lane::Urgent);
        drop(request);
        let _room = match lane {
            Lane::Append => shared.peers.window(callee.node, body.len()).await,
            Lane::Urgent => None,
        };
        let call = shared.peers.call(shared.raft_id, callee, lane, PeerBody::Append(body));
        let answer = call.map_err(failed)?.answer(within).await.map_err(failed)?;
        asked.check(decode(answer)?)
    }

    fn append_wait(&self, option: &RPCOption) -> Duration {
        if self.heartbeat() { option.soft_ttl() } else { APPEND_ANSWER_MAX }
    }
}

/// What another copy is told to be committed: no more than is applied here. It shows what it applies, and this copy
/// answers reads, its own and those of others, by what it has applied itself: whoever had seen more elsewhere would go
/// back in time.
fn told(committed: Option<LogId>, applied: Option<LogPos>) -> Option<LogId> {
    committed.min(applied.map(log_id))
}

/// The same requests, with pauses between them. The library makes a request only when it is asked for one, of
/// everything that is in the log by then.
fn gathered<S>(input: S, shared: Arc<Shared>, to: u64) -> impl Stream<Item = AppendRequest>
where
    S: Stream<Item = AppendRequest> + Unpin,
{
    let state = (input, shared, None);
    futures_util::stream::unfold(state, move |(mut input, shared, sent)| async move {
        pause(&shared, to, sent).await;
        let request = input.next().await?;
        let sent = Sent::of(&request);
        Some((request, (input, shared, sent)))
    })
}

/// What the last request had.
struct Sent {
    /// Its last entry.
    index: u64,
    entries: u64,
    bytes: u64,
}

impl Sent {
    /// None if it had no entries.
    fn of(request: &AppendRequest) -> Option<Self> {
        let last = request.entries.last()?;
        let bytes: usize = request.entries.iter().map(payload_bytes).sum();
        let entries = request.entries.len() as u64;
        Some(Self { index: last.log_id.index, entries, bytes: bytes as u64 })
    }

    /// Whether there is more than what came within a tick of so many milliseconds.
    fn is_backlog(&self, tick_ms: u64) -> bool {
        self.entries >= BACKLOG_ENTRIES || self.bytes >= tick_ms * BACKLOG_BYTES_PER_MS
    }
}

/// Until the next request is worth it.
async fn pause(shared: &Shared, to: u64, sent: Option<Sent>) {
    let Some(sent) = sent else { return };
    let options = &shared.peers.options;
    let tick_ms = match shared.part_of(to) {
        Part::Voter => {
            let most = Duration::from_millis(options.commit_gather_ms);
            let _ = tokio::time::timeout(most, shared.log.grown_beyond(sent.index)).await;
            return;
        }
        Part::Further if shared.peers.makes_way() => options.further_tick_ms,
        Part::Standby | Part::Further => options.learner_tick_ms,
    };
    if !sent.is_backlog(tick_ms) {
        let tick = shared.peers.next_tick(shared.group, Duration::from_millis(tick_ms));
        tokio::select! {
            () = tokio::time::sleep_until(tick.into()) => {}
            // A learner may be about to vote: then clients wait for it.
            () = shared.members_change() => {}
        }
    }
}

/// Asks for the next request only once the answer to the last one was taken. The library takes an answer that
/// matches an entry for the answer to every request up to that entry that it has made so far, a later one
/// without entries included: with two under way, a read could be confirmed by an answer to what was sent before
/// it arrived. What comes meanwhile shares the next request, so nothing is lost by it.
fn one_at_a_time<R, F: Future>(
    requests: impl Stream<Item = R>,
    send: impl FnMut(R) -> F,
) -> impl Stream<Item = F::Output> {
    requests.then(send)
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let within = self.append_wait(&option);
        let answer = Self::append(Arc::clone(&self.shared), self.callee, self.lane, rpc, within);
        answer.await.map(AppendEntriesResponse::from)
    }

    /// One request after the other; the stream ends at the first answer that is not a match.
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        let within = self.append_wait(&option);
        let (shared, callee, lane) = (Arc::clone(&self.shared), self.callee, self.lane);
        let requests = gathered(input, Arc::clone(&shared), callee.copy);
        let answers = one_at_a_time(requests, move |request| {
            Self::append(Arc::clone(&shared), callee, lane, request, within)
        });
        let until_over = answers.scan(false, |over, answer| {
            let go_on = !*over;
            *over = !matches!(answer, Ok(Ok(_)));
            std::future::ready(go_on.then_some(answer))
        });
        Box::pin(async move { Ok(Box::pin(until_over) as BoxStream<'s, _>) })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let body = Bytes::from(codec::encode(&VoteCall::from(&rpc)));
        self.ask::<VoteAnswer>(PeerBody::Vote(body), option.soft_ttl())
            .await
            .map(VoteResponse::from)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest,
        option: RPCOption,
    ) -> Result<VoteResponse, RpcError> {
        let body = Bytes::from(codec::encode(&VoteCall::from(&rpc)));
        self.ask::<VoteAnswer>(PeerBody::PreVote(body), option.soft_ttl())
            .await
            .map(VoteResponse::from)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let send = sending::send(&self.shared, self.callee, vote, snapshot, option.hard_ttl());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(error) => {
                    tracing::warn!(group = %self.shared.group, to = %self.callee.node, %error, "a snapshot was not sent");
                    // Always with back-off: the next attempt may have to copy the whole table again.
                    Err(StreamingError::Unreachable(Unreachable::from_string(error)))
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferRequest,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let body = Bytes::from(codec::encode(&TransferCall::from(&request)));
        let answer = self.ask(PeerBody::TransferLeader(body), option.soft_ttl()).await?;
        Ok(match answer {
            TransferAnswer::Accepted => Ok(()),
            TransferAnswer::VoteChanged { expected, actual } => {
                Err(TransferLeaderError::VoteChanged {
                    expected: expected.into(),
                    actual: actual.into(),
                })
            }
            TransferAnswer::NotFlushed { expected, actual } => {
                let [expected, actual] = [expected, actual].map(|p| p.map(super::types::log_id));
                Err(TransferLeaderError::LogNotFlushed { expected, actual })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_made_only_after_the_answer_to_the_one_before_was_taken() {
        let made = std::sync::atomic::AtomicUsize::new(0);
        let count = || made.load(std::sync::atomic::Ordering::Relaxed);
        let requests = futures_util::stream::iter(0..3).inspect(|_| {
            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let (answer, answers) = tokio::sync::mpsc::unbounded_channel();
        let answers = tokio::sync::Mutex::new(answers);
        let send = |_| async { answers.lock().await.recv().await };
        let mut answered = Box::pin(one_at_a_time(requests, send));
        assert!(futures_util::FutureExt::now_or_never(answered.next()).is_none());
        assert_eq!(count(), 1);
        for taken in 1..=3 {
            answer.send(taken).unwrap();
            assert_eq!(count(), taken);
            assert_eq!(answered.next().await, Some(Some(taken)));
            assert_eq!(count(), taken, "made before the answer was taken");
            let _ = futures_util::FutureExt::now_or_never(answered.next());
        }
    }

    #[test]
    fn nobody_is_told_of_more_than_is_applied_here() {
        let at = |index| LogPos { term: 1, leader: 1, index };
        let told = |committed: Option<u64>, applied: Option<u64>| {
            told(committed.map(|index| log_id(at(index))), applied.map(at)).map(|id| id.index)
        };
        assert_eq!(told(Some(7), Some(5)), Some(5));
        assert_eq!(told(Some(7), Some(9)), Some(7));
        assert_eq!(told(Some(7), None), None);
        assert_eq!(told(None, Some(5)), None);
    }

    #[test]
    fn many_bytes_or_entries_for_a_learner_are_a_backlog() {
        let sent = |entries, bytes| Sent { index: 0, entries, bytes };
        assert!(!sent(255, 63_999).is_backlog(20));
        assert!(sent(1, 64_000).is_backlog(20));
        assert!(!sent(1, 64_000).is_backlog(100));
        assert!(sent(256, 1_000).is_backlog(100));
    }

    #[test]
    fn answers_that_do_not_fit_never_reach_the_library() {
        let at = |index| LogPos { term: 1, leader: 1, index };
        let asked = Asked { prev: Some(log_id(at(4))), last: Some(log_id(at(6))) };
        assert!(asked.check(AppendAnswer::Matched(Some(at(6)))).is_ok());
        assert!(asked.check(AppendAnswer::Matched(Some(at(7)))).is_err());
        assert!(asked.check(AppendAnswer::Matched(None)).is_err());
        assert!(asked.check(AppendAnswer::Conflict(at(4))).is_ok());
        assert!(asked.check(AppendAnswer::Conflict(at(5))).is_err());
        let from_start = Asked { prev: None, last: None };
        assert!(from_start.check(AppendAnswer::Conflict(at(0))).is_err());
        assert!(from_start.check(AppendAnswer::Matched(None)).is_ok());
    }
}
