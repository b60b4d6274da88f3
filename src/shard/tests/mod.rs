//! Tests of the logic over the in-memory store, and what they share: one copy of a shard without a group.

mod batcher;
mod change;
mod expiry;
mod fence;
mod group;
mod model;
mod ops;
mod order;
mod reads;
mod replay;
mod scan;
mod sessions;
mod shards;

use super::entry::{Entry, Item, Reply};
use super::logic::Logic;
use super::records::{self, Record, State};
use super::sessions::Limits;
use crate::raft::Logic as _;
use crate::storage::{Applied, Digest, Options, Space, Store};
use crate::types::{
    Code, Condition, Expiry, Incarnation, LogPos, Op, OpResult, SessionId, SessionSeq, ShardId,
};
use crate::wire::client::{decode_results, encode_ops};
use bytes::Bytes;
use std::ops::ControlFlow;

const INCARNATION: Incarnation = Incarnation(7);

/// One copy: the logic over an in-memory store, and the log that it has applied.
struct Copy {
    store: Store,
    logic: Logic,
    limits: Limits,
    log: Vec<Bytes>,
}

impl Copy {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let store = Store::in_memory(Options::default());
        let logic = Logic::new(ShardId(3), INCARNATION, limits.clone());
        let mut copy = Self { store, logic, limits, log: Vec::new() };
        copy.reload();
        copy
    }

    /// Forgets everything that is only cached, as a restart does.
    fn reload(&mut self) {
        self.logic = Logic::new(ShardId(3), INCARNATION, self.limits.clone());
        let Self { store, logic, .. } = self;
        store.read(|view| logic.load(view)).unwrap().unwrap();
    }

    /// Index of the next entry.
    fn next_index(&self) -> u64 {
        self.log.len() as u64 + 1
    }

    fn apply_payload(&mut self, payload: Bytes) -> (Vec<Reply>, bool) {
        let pos = LogPos { term: 1, leader: 1, index: self.next_index() };
        let mut writer = self.store.write();
        let effect = self.logic.apply(pos, &payload, &mut writer).unwrap();
        writer.commit(Applied { pos: Some(pos), membership: Bytes::new() });
        self.log.push(payload);
        let replies = effect.replies.iter().map(|reply| Reply::decode(reply).unwrap()).collect();
        (replies, effect.digest)
    }

    fn apply(&mut self, stamp_ms: u64, items: Vec<Item<'_>>) -> Vec<Reply> {
        self.apply_payload(Entry { stamp_ms, items }.encode()).0
    }

    fn apply_named(&mut self, stamp_ms: u64, dedup: Option<SessionSeq>, ops: &[Op]) -> Reply {
        let ops = encode_ops(ops);
        self.apply(stamp_ms, vec![Item::Ops { dedup, ops: &ops }]).remove(0)
    }

    /// One request in an entry of its own.
    fn request(&mut self, stamp_ms: u64, ops: &[Op]) -> Vec<OpResult> {
        results(&self.apply_named(stamp_ms, None, ops))
    }

    fn open(&mut self, stamp_ms: u64) -> SessionId {
        let index = self.next_index();
        assert_eq!(self.apply(stamp_ms, vec![Item::Open]), [Reply::Done]);
        SessionId { incarnation: INCARNATION, index }
    }

    fn state(&self) -> State {
        self.store.read(|view| State::of(view)).unwrap().unwrap()
    }

    fn records(&self, space: Space) -> Vec<(Vec<u8>, Bytes)> {
        let mut records = Vec::new();
        let collect = |view: &dyn crate::storage::View| {
            view.scan(space, b"", None, &mut |key, value| {
                records.push((key.to_vec(), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            })
        };
        self.store.read(collect).unwrap().unwrap();
        records
    }

    /// A stored record as text: `-` without one, else the value, and `@` its expiry.
    fn stored(&self, key: &str) -> String {
        let stored = self.store.get(Space::Data, key.as_bytes()).unwrap();
        stored.map_or("-".to_owned(), |bytes| {
            let Record { expires_ms, value } = Record::decode(&bytes).unwrap();
            let value = String::from_utf8_lossy(&value).into_owned();
            expires_ms.map_or(value.clone(), |at| format!("{value}@{at}"))
        })
    }

    /// The expiry index holds exactly what the records say.
    fn check_index(&self) {
        let mut expected: Vec<Vec<u8>> = self
            .records(Space::Data)
            .iter()
            .filter_map(|(key, record)| {
                let at = Record::decode(record).unwrap().expires_ms?;
                Some(records::expiry_key(at, key))
            })
            .collect();
        expected.sort();
        let index: Vec<Vec<u8>> =
            self.records(Space::Expiry).into_iter().map(|(key, _)| key).collect();
        assert_eq!(index, expected);
    }

    fn digest(&self) -> Digest {
        self.store.freeze();
        self.store.flush_frozen().unwrap();
        self.store.digest(&mut || ()).unwrap()
    }
}

fn results(reply: &Reply) -> Vec<OpResult> {
    match reply {
        Reply::Results(bytes) => decode_results(bytes).unwrap(),
        other => panic!("no results: {other:?}"),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn get(key: &str) -> Op {
    Op::Get { key: bytes(key) }
}

fn set(key: &str, value: &str) -> Op {
    set_if(key, value, Condition::Always, Expiry::Never)
}

fn set_ttl(key: &str, value: &str, ttl_ms: u64) -> Op {
    set_if(key, value, Condition::Always, Expiry::AfterMs(ttl_ms))
}

fn set_if(key: &str, value: &str, condition: Condition, expiry: Expiry) -> Op {
    Op::Set { key: bytes(key), value: bytes(value), condition, expiry }
}

fn incr(key: &str, by: i64) -> Op {
    Op::Incr { key: bytes(key), by }
}

fn value(text: &str) -> OpResult {
    OpResult::Value(bytes(text))
}

#[test]
fn an_entry_that_does_not_read_stops_the_copy() {
    let mut copy = Copy::new();
    let newer_item = Bytes::from_static(&[1, 0, 1, 9]);
    let newer_op = Entry { stamp_ms: 0, items: vec![Item::Ops { dedup: None, ops: &[1, 1, 99] }] };
    for payload in [Bytes::new(), Bytes::from_static(&[2, 0, 0]), newer_item, newer_op.encode()] {
        let mut writer = copy.store.write();
        let error = copy.logic.apply(LogPos::default(), &payload, &mut writer).unwrap_err();
        assert!(matches!(error, crate::storage::Error::Corrupt { .. }), "{error}");
    }
}

#[test]
fn every_item_has_its_reply_and_a_digest_is_passed_on() {
    let mut copy = Copy::new();
    let ops = encode_ops(&[set("k", "v"), get("k")]);
    let item = Item::Ops { dedup: None, ops: &ops };
    let entry =
        Entry { stamp_ms: 5, items: vec![item, Item::Tick, Item::Open, Item::Open, Item::Digest] };
    let (replies, digest) = copy.apply_payload(entry.encode());
    assert_eq!(results(&replies[0]), [OpResult::Done, value("v")]);
    // The index of the entry names one session.
    let refused = Reply::Refused(Code::Internal);
    assert_eq!(replies[1..], [Reply::Done, Reply::Done, refused, Reply::Done]);
    assert!(digest);
    assert_eq!(copy.state(), State { now_ms: 5, index: 1 });
    let (_, digest) = copy.apply_payload(Entry { stamp_ms: 6, items: vec![Item::Tick] }.encode());
    assert!(!digest);
}
