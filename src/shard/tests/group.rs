//! The handle over a real group: one voter with its log and table on disk, stopped and started again.

use super::*;
use crate::raft::testing::NoLinks;
use crate::raft::{self, Group, GroupSpec, Host};
use crate::shard::{Clock, Error, Shard, logic};
use crate::storage::wal::{self, Wal};
use crate::types::{GroupId, NodeId, ReadLevel, Token};
use crate::wire::client::Scan;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SHARD: ShardId = ShardId(3);
const GROUP: GroupId = GroupId::of(SHARD, INCARNATION);
const RAFT_ID: u64 = 11;

/// A clock that the test sets.
#[derive(Default)]
struct SetClock(AtomicU64);

impl Clock for SetClock {
    fn stamp_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Node {
    host: Host,
    shard: Shard,
    clock: Arc<SetClock>,
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The log of a node that has just stopped is free once the last of its tasks has gone.
async fn open_log(dir: &Path, options: &wal::Options) -> Wal {
    let deadline = soon();
    loop {
        match Wal::open(dir, options.clone()) {
            Ok(wal) => return wal,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Node {
    /// Starts the node; creates the copy and the group the first time.
    async fn start(dir: &Path) -> Self {
        let wal_dir = dir.join("wal");
        std::fs::create_dir_all(&wal_dir).unwrap();
        let options =
            wal::Options { segment_bytes: 4 << 20, segments_reserved: 1, ..Default::default() };
        let wal = open_log(&wal_dir, &options).await;
        let is_new = wal.groups().is_empty();
        if is_new {
            let (done, durable) = tokio::sync::oneshot::channel();
            wal.group(GROUP).create(Bytes::new(), Box::new(move |result| drop(done.send(result))));
            durable.await.unwrap().unwrap();
        }
        let host = Host::new(wal, Arc::new(NoLinks), raft::Options::default());
        let group = open(&host, dir).await;
        if is_new {
            group.initialize([(RAFT_ID, NodeId(1))].into()).await.unwrap();
        }
        let clock = Arc::new(SetClock::default());
        clock.0.store(1_000, Ordering::Relaxed);
        let shard = Shard::start(SHARD, INCARNATION, group, clock.clone());
        let node = Self { host, shard, clock };
        node.leads().await;
        node
    }

    async fn leads(&self) {
        let deadline = soon();
        while !self.shard.group().state().is_leader {
            assert!(Instant::now() < deadline, "{:?}", self.shard.group().state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.host.shutdown_and_release().await;
    }

    async fn write(&self, dedup: Option<SessionSeq>, ops: &[Op]) -> (Vec<OpResult>, Token) {
        let (results, token, _) = self.shard.write(encode_ops(ops), dedup, soon()).await.unwrap();
        (decode_results(&results).unwrap(), token)
    }

    async fn read(&self, level: ReadLevel, ops: Vec<Op>) -> (Vec<OpResult>, Token) {
        let (reply, _) = self.shard.read(ops, level, soon()).await.unwrap();
        (decode_results(&reply.results).unwrap(), reply.token)
    }
}

/// The files of a copy that was stopped may take a moment to be let go.
async fn open(host: &Host, dir: &Path) -> Group {
    let deadline = soon();
    loop {
        let logic = logic(SHARD, INCARNATION);
        let spec = GroupSpec { group: GROUP, raft_id: RAFT_ID, dir: dir.join("copy"), logic };
        match host.open(spec).await {
            Ok(group) => return group,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    match result {
        Err(Error::Public(error)) => error.code,
        other => panic!("not an error with a code: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_once_read_at_every_level_and_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let session = node.shard.open_session(soon()).await.unwrap();
    assert_eq!(session.incarnation, INCARNATION);
    let named = Some(SessionSeq { session, sequence: 1 });
    let (results, token) = node.write(named, &[incr("n", 5), get("n")]).await;
    assert_eq!(results, [OpResult::Int(5), value("5")]);
    assert_eq!((token.shard, token.incarnation), (SHARD, INCARNATION));
    assert!(token.index > session.index);

    let session_level = ReadLevel::Session { incarnation: INCARNATION, index: token.index };
    for level in [
        ReadLevel::Linearizable,
        session_level,
        ReadLevel::Local { max_staleness_ms: None },
        ReadLevel::Local { max_staleness_ms: Some(5_000) },
    ] {
        assert_eq!(node.read(level, vec![get("n")]).await, (vec![value("5")], token), "{level:?}");
    }
    let bounded = ReadLevel::Local { max_staleness_ms: Some(5_000) };
    let (reply, _) = node.shard.read(vec![get("n")], bounded, soon()).await.unwrap();
    assert!(reply.age_ms.unwrap() <= 5_000);

    node.stop().await;
    let node = Node::start(dir.path()).await;
    let (results, _) = node.write(named, &[incr("n", 5), get("n")]).await;
    assert_eq!(results, [OpResult::Int(5), value("5")]);
    let (results, after) = node.read(ReadLevel::Linearizable, vec![get("n")]).await;
    assert_eq!(results, [value("5")]);
    assert!(after.index > token.index);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_entries_and_every_write_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let before = node.shard.group().state().last_index.unwrap();
    let writers = (0..64).map(|_| {
        let shard = node.shard.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                shard.write(encode_ops(&[incr("n", 1)]), None, soon()).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let (results, _) = node.read(ReadLevel::Linearizable, vec![get("n")]).await;
    assert_eq!(results, [value("1280")]);
    let entries = node.shard.group().state().last_index.unwrap() - before;
    assert!(entries < 640, "{entries} entries for 1,280 writes");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_lets_keys_expire_without_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.write(None, &[set_ttl("short", "v", 500), set("long", "v")]).await;
    assert_eq!(node.shard.keys(), Ok(2));
    let scan = Scan {
        shard: SHARD,
        prefix: Bytes::new(),
        after: None,
        limit: 10,
        keys_only: true,
        level: ReadLevel::Linearizable,
    };
    let (page, _) = node.shard.scan(scan.clone(), soon()).await.unwrap();
    assert_eq!(page.entries, [(bytes("long"), None), (bytes("short"), None)]);
    assert_eq!(page.next_after, None);

    let before = node.shard.group().state().last_index.unwrap();
    node.clock.0.store(1_500, Ordering::Relaxed);
    let due_at = Instant::now();
    while node.shard.keys() != Ok(1) {
        assert!(due_at.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (results, _) = node.read(ReadLevel::Linearizable, vec![get("short"), get("long")]).await;
    assert_eq!(results, [OpResult::Nil, value("v")]);
    let (page, _) = node.shard.scan(scan, soon()).await.unwrap();
    assert_eq!(page.entries, [(bytes("long"), None)]);
    // Nothing is due any more, so nothing is proposed.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(node.shard.group().state().last_index.unwrap(), before + 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_at_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let before = node.shard.group().state().last_index;
    let shard = &node.shard;
    let write = |ops: &[Op]| shard.write(encode_ops(ops), None, soon());
    assert_eq!(code(write(&[]).await), Code::BatchTooLarge);
    assert_eq!(code(write(&[set("", "v")]).await), Code::KeyTooLong);
    assert_eq!(code(write(&vec![incr("n", 1); 1_025]).await), Code::BatchTooLarge);
    // An operation that no build knows would stop every copy if it came into the log.
    let unknown = Bytes::from_static(&[1, 1, 99]);
    assert_eq!(code(shard.write(unknown, None, soon()).await), Code::BadRequest);

    let level = ReadLevel::Linearizable;
    assert_eq!(code(shard.read(vec![incr("n", 1)], level, soon()).await), Code::BadRequest);
    let long_key = get(&"k".repeat(481));
    assert_eq!(code(shard.read(vec![long_key], level, soon()).await), Code::KeyTooLong);
    assert_eq!(code(shard.read(vec![get("k"); 1_025], level, soon()).await), Code::BatchTooLarge);
    let prefix = Bytes::from(vec![b'k'; 481]);
    let scan = Scan { shard: SHARD, prefix, after: None, limit: 1, keys_only: true, level };
    assert_eq!(code(shard.scan(scan, soon()).await), Code::KeyTooLong);
    assert_eq!(shard.group().state().last_index, before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_is_of_exactly_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.write(None, &[set("a", "1"), set("b", "2")]).await;
    let index = node.shard.propose_digest(soon()).await.unwrap();
    node.write(None, &[set("c", "3")]).await;
    let digest = node.shard.group().digest(index, Duration::from_secs(20)).await.unwrap().unwrap();
    assert_eq!((digest.pos.unwrap().index, digest.keys), (index, 2));
    node.stop().await;
}
