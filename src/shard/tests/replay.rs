//! The same log gives the same bytes, wherever and however often it is applied.

use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A log of everything: plain and named requests with retries, sessions, ticks, digests, fences, stamps that
/// go back, keys and sessions that expire.
fn log(entries: u64) -> Vec<Bytes> {
    let mut runner = TestRunner::deterministic();
    let strategy = (prop::collection::vec(super::model::op(), 1..6), 0..40u64, 0..10u64, 0..8u64);
    let mut payloads = Vec::new();
    let mut stamp_ms = 1_000;
    for index in 1..=entries {
        let (ops, advance_ms, kind, sequence) = strategy.new_tree(&mut runner).unwrap().current();
        stamp_ms = stamp_ms + advance_ms - 5;
        let ops = encode_ops(&ops);
        let session =
            SessionId { incarnation: INCARNATION, index: index.saturating_sub(sequence + 1) };
        let dedup = Some(SessionSeq { session, sequence });
        let plain = Item::Ops { dedup: None, ops: &ops };
        let named = Item::Ops { dedup, ops: &ops };
        let items = match kind {
            0 => vec![Item::Tick],
            1 => vec![plain, Item::Digest],
            2..=4 => vec![Item::Open, plain],
            5 if sequence == 0 => vec![],
            5 => vec![Item::Fence { operation: index / 500, turn: advance_ms }, plain],
            _ => vec![named, plain, named],
        };
        payloads.push(Entry { stamp_ms, items }.encode());
    }
    payloads
}

fn replay(log: &[Bytes], mut between: impl FnMut(&mut Copy, usize)) -> (Vec<Vec<Reply>>, Digest) {
    let limits =
        Limits { window: 4, expiry_ms: 300, sessions_max: 5, removals_max: 3, ..Limits::default() };
    let mut copy = Copy::with(limits);
    let mut replies = Vec::new();
    for (i, payload) in log.iter().enumerate() {
        replies.push(copy.apply_payload(payload.clone()).0);
        between(&mut copy, i);
    }
    copy.check_index();
    (replies, copy.digest())
}

#[test]
fn replayed_logs_give_the_same_replies_and_digests() {
    let log = log(2_000);
    let (replies, digest) = replay(&log, |_, _| ());
    assert!(digest.keys > 0);
    // The log must exercise what could differ.
    let count = |wanted: &Reply| replies.iter().flatten().filter(|reply| *reply == wanted).count();
    assert!(count(&Reply::Refused(Code::SessionExpired)) > 10);
    assert!(count(&Reply::Refused(Code::Superseded)) > 10);
    assert!(
        count(&Reply::Refused(Code::SequenceTooOld)) + count(&Reply::Refused(Code::BadRequest)) > 0
    );

    assert_eq!(replay(&log, |_, _| ()), (replies.clone(), digest.clone()));
    let restarted = replay(&log, |copy, i| {
        if i % 7 == 3 {
            copy.reload();
        }
        if i % 50 == 20 {
            copy.digest();
        }
    });
    assert_eq!(restarted, (replies, digest));
}

#[test]
fn the_digest_sees_data_time_and_sessions() {
    let digest_of = |change: &dyn Fn(&mut Copy)| {
        let mut copy = Copy::new();
        copy.open(1_000);
        change(&mut copy);
        copy.digest().sha256
    };
    let session = SessionId { incarnation: INCARNATION, index: 1 };
    let named = |sequence| Some(SessionSeq { session, sequence });
    let changes: [&dyn Fn(&mut Copy); 7] = [
        &|copy| drop(copy.request(1_000, &[set("k", "v")])),
        &|copy| drop(copy.request(1_000, &[set("k", "w")])),
        &|copy| drop(copy.request(1_001, &[set("k", "v")])),
        &|copy| drop(copy.apply_named(1_000, named(1), &[set("k", "v")])),
        &|copy| drop(copy.apply_named(1_000, named(2), &[set("k", "v")])),
        &|copy| drop(copy.apply(1_000, vec![Item::Fence { operation: 1, turn: 1 }])),
        &|copy| drop(copy.apply(1_000, vec![Item::Fence { operation: 1, turn: 2 }])),
    ];
    let digests: Vec<_> = changes.iter().map(|change| digest_of(change)).collect();
    for (i, digest) in digests.iter().enumerate() {
        assert_eq!(*digest, digest_of(changes[i]));
        assert!(!digests[..i].contains(digest), "change {i} is not seen");
    }
}
