//! Reads at every level, against a replica that the test controls.

use super::*;
use crate::raft;
use crate::shard::Error;
use crate::shard::freshness::Freshness;
use crate::shard::keys;
use crate::shard::reads::{Answer, Reader, Replica};
use crate::shard::task::Task;
use crate::types::{NodeId, ReadLevel};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// How the leader answers.
#[derive(Clone, Copy)]
enum Leader {
    Answers,
    Refuses,
    /// Stopped without closing anything.
    Hangs,
}

struct Fake {
    copy: Mutex<Copy>,
    store: Store,
    leader: Mutex<Leader>,
    fresh_as_of: Mutex<Option<Instant>>,
    pings: AtomicUsize,
}

#[derive(Clone)]
struct FakeReplica(Arc<Fake>);

impl FakeReplica {
    fn new(leader: Leader) -> Self {
        let copy = Copy::new();
        let store = copy.store.clone();
        let (copy, leader) = (Mutex::new(copy), Mutex::new(leader));
        let (fresh_as_of, pings) = (Mutex::new(None), AtomicUsize::new(0));
        Self(Arc::new(Fake { copy, store, leader, fresh_as_of, pings }))
    }

    fn pings(&self) -> usize {
        self.0.pings.load(Ordering::Relaxed)
    }

    async fn ask_leader(&self) -> Result<(), raft::Error> {
        let leader = *self.0.leader.lock();
        match leader {
            Leader::Answers => Ok(()),
            Leader::Refuses => Err(raft::Error::NotLeader(Some(NodeId(2)))),
            Leader::Hangs => std::future::pending().await,
        }
    }
}

impl Replica for FakeReplica {
    async fn read_barrier(&self, _deadline: Instant) -> Result<u64, raft::Error> {
        self.ask_leader().await?;
        // An entry that means nothing to the shard stands at 1,000.
        Ok(1_000)
    }

    fn reads_alone(&self) -> bool {
        false
    }

    async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        while self.0.copy.lock().state().index < index {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(MS(1)).await;
        }
        true
    }

    fn fresh_as_of(&self) -> Option<Instant> {
        *self.0.fresh_as_of.lock()
    }

    async fn refresh(&self, _deadline: Instant) -> Result<(), raft::Error> {
        self.0.pings.fetch_add(1, Ordering::Relaxed);
        let sent_at = Instant::now();
        self.ask_leader().await?;
        *self.0.fresh_as_of.lock() = Some(sent_at);
        Ok(())
    }

    fn store(&self) -> &Store {
        &self.0.store
    }
}

struct Test {
    replica: FakeReplica,
    freshness: Arc<Freshness>,
}

impl Test {
    fn new(leader: Leader) -> Self {
        Self { replica: FakeReplica::new(leader), freshness: Arc::default() }
    }

    fn write(&self, text: &str) {
        self.replica.0.copy.lock().request(1_000, &[set("k", text)]);
    }

    async fn read(&self, level: ReadLevel, wait_max: Duration) -> Result<Answer<OpResult>, Error> {
        let reader = Reader {
            replica: &self.replica,
            incarnation: INCARNATION,
            freshness: &self.freshness,
            waited: Default::default(),
        };
        let read = |view: &dyn crate::storage::View, now_ms| {
            Ok(keys::read(view, &[get("k")], now_ms)?.remove(0))
        };
        reader.read(level, Instant::now() + wait_max, read).await
    }

    async fn code(&self, level: ReadLevel, wait_max: Duration) -> Code {
        match self.read(level, wait_max).await {
            Err(Error::Public(error)) => error.code,
            other => panic!("not an error with a code: {other:?}"),
        }
    }
}

fn session(index: u64) -> ReadLevel {
    ReadLevel::Session { incarnation: INCARNATION, index }
}

fn local(max_staleness_ms: Option<u32>) -> ReadLevel {
    ReadLevel::Local { max_staleness_ms }
}

#[tokio::test]
async fn a_linearizable_read_passes_the_barrier() {
    let test = Test::new(Leader::Answers);
    test.write("1");
    let answer = test.read(ReadLevel::Linearizable, MS(500)).await.unwrap();
    // The index of what was read, not the one the barrier reached.
    assert_eq!(answer, Answer { value: value("1"), index: 1, age_ms: None });

    let test = Test::new(Leader::Refuses);
    let refused = test.read(ReadLevel::Linearizable, MS(500)).await;
    assert_eq!(refused, Err(Error::NotLeader(Some(NodeId(2)))));
    let test = Test::new(Leader::Hangs);
    assert_eq!(test.code(ReadLevel::Linearizable, MS(20)).await, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_session_read_waits_for_its_token() {
    let test = Test::new(Leader::Hangs);
    test.write("1");
    for index in [0, 1] {
        assert_eq!(test.read(session(index), MS(500)).await.unwrap().index, 1);
    }
    assert_eq!(test.code(session(2), MS(20)).await, Code::NotYet);
    let (answer, ()) = tokio::join!(test.read(session(2), MS(2_000)), async {
        tokio::time::sleep(MS(20)).await;
        test.write("2");
    });
    assert_eq!(answer.unwrap(), Answer { value: value("2"), index: 2, age_ms: None });
    for incarnation in [Incarnation(6), Incarnation(8)] {
        let lost = ReadLevel::Session { incarnation, index: 0 };
        assert_eq!(test.code(lost, MS(500)).await, Code::TokenLost);
    }
}

#[tokio::test]
async fn a_local_read_answers_what_is_there_with_its_age_if_known() {
    let test = Test::new(Leader::Hangs);
    let empty = test.read(local(None), MS(500)).await.unwrap();
    assert_eq!(empty, Answer { value: OpResult::Nil, index: 0, age_ms: None });
    *test.replica.0.fresh_as_of.lock() = Instant::now().checked_sub(MS(5_000));
    let age_ms = test.read(local(None), MS(500)).await.unwrap().age_ms.unwrap();
    assert!((5_000..6_000).contains(&age_ms), "{age_ms}");
    assert_eq!(test.replica.pings(), 0);
}

#[tokio::test]
async fn a_bounded_read_pings_once_if_it_has_to() {
    let test = Test::new(Leader::Answers);
    test.write("1");
    let answer = test.read(local(Some(5_000)), MS(2_000)).await.unwrap();
    assert_eq!((answer.value, test.replica.pings()), (value("1"), 1));
    assert!(answer.age_ms.unwrap() <= 5_000);
    // Fresh enough: no second ping.
    test.read(local(Some(5_000)), MS(2_000)).await.unwrap();
    assert_eq!(test.replica.pings(), 1);
    // Old enough for another.
    *test.replica.0.fresh_as_of.lock() = Instant::now().checked_sub(MS(5_001));
    test.read(local(Some(5_000)), MS(2_000)).await.unwrap();
    assert_eq!(test.replica.pings(), 2);
}

#[tokio::test]
async fn a_stopped_leader_gives_too_stale_within_the_bound() {
    for (leader, bound_ms, deadline) in [
        (Leader::Hangs, 100, MS(10_000)),
        (Leader::Hangs, 10_000, MS(100)),
        (Leader::Refuses, 10_000, MS(10_000)),
    ] {
        let test = Test::new(leader);
        let started = Instant::now();
        assert_eq!(test.code(local(Some(bound_ms)), deadline).await, Code::TooStale);
        assert!(started.elapsed() < MS(1_000), "{:?}", started.elapsed());
    }
    // The same with many readers, who share the ping that hangs.
    let test = Test::new(Leader::Hangs);
    let started = Instant::now();
    let reads = (0..50).map(|_| test.code(local(Some(100)), MS(10_000)));
    let codes = futures_util::future::join_all(reads).await;
    assert!(codes.iter().all(|code| *code == Code::TooStale));
    assert!(started.elapsed() < MS(1_000), "{:?}", started.elapsed());
}

#[tokio::test]
async fn readers_share_a_ping() {
    let test = Test::new(Leader::Answers);
    let reads = (0..50).map(|_| test.read(local(Some(5_000)), MS(2_000)));
    let answers = futures_util::future::join_all(reads).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(test.replica.pings(), 1);
}

#[tokio::test]
async fn pings_run_in_the_background_only_when_asked_for() {
    let test = Test::new(Leader::Answers);
    let _pings = Task::spawn(test.freshness.clone().run(test.replica.clone()));
    tokio::time::sleep(MS(120)).await;
    assert_eq!(test.replica.pings(), 0);
    test.read(local(Some(300)), MS(2_000)).await.unwrap();
    let asked_at = Instant::now();
    while test.replica.pings() < 4 {
        assert!(asked_at.elapsed() < MS(5_000), "{} pings", test.replica.pings());
        tokio::time::sleep(MS(5)).await;
    }
    // Every 100 ms, beside the ping of the read itself.
    assert!(asked_at.elapsed() >= MS(150), "{:?}", asked_at.elapsed());
}
