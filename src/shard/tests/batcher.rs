//! The batcher against a log that answers when the test says so.

use super::*;
use crate::raft;
use crate::shard::batcher::{Batcher, Proposer};
use crate::shard::queue::{self, Outcome, Request};
use crate::shard::{Clock, Error};
use crate::types::NodeId;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

type Proposed = Result<(LogPos, Vec<Bytes>), raft::Error>;

/// Hands every proposal to the test.
struct FakeLog(mpsc::UnboundedSender<(Bytes, oneshot::Sender<Proposed>)>);

impl Proposer for FakeLog {
    fn propose(&self, payload: Bytes) -> BoxFuture<'static, Proposed> {
        let (answer, answered) = oneshot::channel();
        self.0.send((payload, answer)).unwrap();
        Box::pin(async move { answered.await.unwrap_or(Err(raft::Error::Uncertain)) })
    }
}

/// A clock that goes back by a second with every look.
struct Backwards(AtomicU64);

impl Clock for Backwards {
    fn stamp_ms(&self) -> u64 {
        self.0.fetch_sub(1_000, Ordering::Relaxed)
    }
}

struct Proposal {
    payload: Bytes,
    answer: oneshot::Sender<Proposed>,
}

impl Proposal {
    fn entry(&self) -> Entry<'_> {
        Entry::decode(&self.payload).unwrap()
    }

    fn items(&self) -> usize {
        self.entry().items.len()
    }

    /// Answers every item with `Done` at this index.
    fn done(self, index: u64) {
        let replies = vec![Reply::Done.encode(); self.items()];
        self.answer.send(Ok((LogPos { term: 1, leader: 1, index }, replies))).unwrap();
    }

    fn fail(self, error: raft::Error) {
        self.answer.send(Err(error)).unwrap();
    }
}

struct Test {
    batcher: Batcher,
    proposals: mpsc::UnboundedReceiver<(Bytes, oneshot::Sender<Proposed>)>,
}

impl Test {
    fn new() -> Self {
        Self::with(queue::Limits::default())
    }

    fn with(limits: queue::Limits) -> Self {
        let (sender, proposals) = mpsc::unbounded_channel();
        let clock = Arc::new(Backwards(AtomicU64::new(100_000)));
        Self { batcher: Batcher::start(FakeLog(sender), clock, limits), proposals }
    }

    /// Submits from a task and lets it get as far as it can.
    async fn submit(&self, request: Request, wait_max: Duration) -> JoinHandle<Outcome> {
        let batcher = self.batcher.clone();
        let deadline = Instant::now() + wait_max;
        let task = tokio::spawn(async move { batcher.submit(request, deadline).await });
        settle().await;
        task
    }

    async fn tick(&self) -> JoinHandle<Outcome> {
        self.submit(Request::Tick, Duration::from_secs(30)).await
    }

    async fn next(&mut self) -> Proposal {
        let (payload, answer) = self.proposals.recv().await.unwrap();
        Proposal { payload, answer }
    }

    fn is_quiet(&mut self) -> bool {
        self.proposals.try_recv().is_err()
    }
}

/// Runs every task that is ready.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn code(outcome: Outcome) -> Code {
    match outcome {
        Err(Error::Public(error)) => error.code,
        other => panic!("not an error with a code: {other:?}"),
    }
}

fn ops(ops: &[Op]) -> Request {
    Request::Ops { dedup: None, ops: encode_ops(ops), count: ops.len() }
}

#[tokio::test]
async fn what_waits_shares_one_entry_and_a_second_one_goes_only_full() {
    let mut test = Test::with(queue::Limits { entry_ops_max: 6, ..queue::Limits::default() });
    let first = test.tick().await;
    let a = test.next().await;
    let mut full = Vec::new();
    for _ in 0..5 {
        full.push(test.tick().await);
        assert!(test.is_quiet());
    }
    full.push(test.tick().await);
    let b = test.next().await;
    assert_eq!((a.items(), b.items()), (1, 6));
    let mut waiting = Vec::new();
    for i in 0..5 {
        waiting.push(test.submit(ops(&[incr("n", i)]), Duration::from_secs(30)).await);
    }
    assert!(test.is_quiet());

    b.done(2);
    for second in full {
        assert_eq!(second.await.unwrap().unwrap().0.index, 2);
    }
    assert!(test.is_quiet());
    a.done(1);
    assert_eq!(first.await.unwrap().unwrap().0.index, 1);
    let c = test.next().await;
    let expected: Vec<Bytes> = (0..5).map(|i| encode_ops(&[incr("n", i)])).collect();
    let items: Vec<Item<'_>> = expected.iter().map(|ops| Item::Ops { dedup: None, ops }).collect();
    assert_eq!(c.entry().items, items);
    // Each gets its own reply.
    let replies = (0..5).map(|i| Reply::encode_results(&[OpResult::Int(i)])).collect::<Vec<_>>();
    c.answer.send(Ok((LogPos { index: 3, ..LogPos::default() }, replies))).unwrap();
    for (i, task) in waiting.into_iter().enumerate() {
        let (pos, reply, _) = task.await.unwrap().unwrap();
        assert_eq!((pos.index, results(&reply)), (3, vec![OpResult::Int(i as i64)]));
    }
}

#[tokio::test]
async fn stamps_do_not_go_back_with_the_clock() {
    let mut test = Test::new();
    for _ in 0..3 {
        let task = test.tick().await;
        let proposal = test.next().await;
        assert_eq!(proposal.entry().stamp_ms, 100_000);
        proposal.done(1);
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_deadline_before_the_proposal_is_a_fail_and_after_it_unknown() {
    let mut test = Test::new();
    let short = Duration::from_millis(30);
    let proposed = test.submit(Request::Tick, short).await;
    let _second = test.tick().await;
    let waiting = test.submit(ops(&[incr("n", 1)]), short).await;
    assert_eq!(code(proposed.await.unwrap()), Code::Unknown);
    assert_eq!(code(waiting.await.unwrap()), Code::DeadlineExceeded);

    test.next().await.done(1);
    test.next().await.done(2);
    settle().await;
    assert!(test.is_quiet(), "the expired request was proposed");
    assert_eq!(
        code(test.submit(Request::Tick, Duration::ZERO).await.await.unwrap()),
        Code::DeadlineExceeded
    );
    settle().await;
    assert!(test.is_quiet());
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_request_back() {
    let mut test = Test::new();
    let (_first, _second) = (test.tick().await, test.tick().await);
    let gone = test.submit(ops(&[incr("n", 1)]), Duration::from_secs(30)).await;
    let stays = test.submit(Request::Digest, Duration::from_secs(30)).await;
    gone.abort();
    settle().await;
    test.next().await.done(1);
    let second = test.next().await;
    assert_eq!(second.entry().items, [Item::Tick, Item::Digest]);
    second.done(2);
    stays.await.unwrap().unwrap();
}

#[tokio::test]
async fn errors_of_the_log_reach_every_caller() {
    let mut test = Test::new();
    let node = Some(NodeId(4));
    for (error, expected) in [
        (raft::Error::NotLeader(node), None),
        (raft::Error::Uncertain, Some(Code::Unknown)),
        (raft::Error::Stopped("x".into()), Some(Code::Unknown)),
        (raft::Error::NoQuorum("x".into()), Some(Code::NotReady)),
    ] {
        let task = test.tick().await;
        test.next().await.fail(error);
        match (task.await.unwrap(), expected) {
            (outcome, Some(expected)) => assert_eq!(code(outcome), expected),
            (outcome, None) => assert_eq!(outcome, Err(Error::NotLeader(node))),
        }
    }
}

#[tokio::test]
async fn replies_that_do_not_match_or_read_are_unknown() {
    let mut test = Test::new();
    for replies in [vec![], vec![Reply::Done.encode(); 2], vec![Bytes::from_static(&[9])]] {
        let task = test.tick().await;
        test.next().await.answer.send(Ok((LogPos::default(), replies))).unwrap();
        assert_eq!(code(task.await.unwrap()), Code::Unknown);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let mut test = Test::with(queue::Limits { requests_max: 2, ..queue::Limits::default() });
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(test.tick().await);
    }
    let refused =
        test.batcher.submit(Request::Tick, Instant::now() + Duration::from_secs(30)).await;
    let Err(Error::Public(error)) = refused else { panic!("not refused") };
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.retry_after_ms.is_some());
    for index in [1, 2] {
        test.next().await.done(index);
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let task = test.tick().await;
    test.next().await.done(3);
    assert_eq!(task.await.unwrap().unwrap().0.index, 3);
}
