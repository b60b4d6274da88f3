//! Watches by values: what is told, what is dropped and counted, and when a watch is over.

use super::*;
use crate::pki::Subject;
use crate::types::{Incarnation, Token};
use crate::wire::client::encode_results;

const SHARD: ShardId = ShardId(3);

fn question(watch: u64, one_in: u32) -> MonitorQuestion {
    let wish = Wish { one_in, pattern: None, kinds: vec![] };
    MonitorQuestion { watch, wish, after: 0, is_last: false }
}

fn get(key: &str) -> Op {
    Op::Get { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn del(key: &str) -> Op {
    Op::Del { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn ann() -> Principal {
    Principal { cluster: "c".into(), subject: Subject::user("ann").unwrap() }
}

fn reply(results: &[OpResult]) -> Result<KvReply> {
    let token = Token { shard: SHARD, incarnation: Incarnation(1), index: 1 };
    Ok(KvReply { results: encode_results(results), token, age_ms: None })
}

/// One request that is picked and answered; false if nobody wanted it.
fn serve(monitor: &Monitor, ops: &[Op], done: &Result<KvReply>) -> bool {
    let picked = monitor.pick(SHARD, ops);
    let is_picked = picked.is_some();
    if let Some(picked) = picked {
        monitor.note(picked, &ann(), Duration::from_micros(250), done);
    }
    is_picked
}

fn ask(monitor: &Monitor, question: &MonitorQuestion) -> MonitorPage {
    monitor.answer(question, Instant::now()).unwrap()
}

fn keys(page: &MonitorPage) -> Vec<&[u8]> {
    page.events.iter().map(|event| event.key.as_ref()).collect()
}

#[test]
fn nobody_hears_of_anything_until_somebody_watches_and_after_the_last_question() {
    let monitor = Monitor::default();
    assert!(!serve(&monitor, &[get("a")], &reply(&[OpResult::Nil])));
    let first = ask(&monitor, &question(7, 1));
    assert_eq!((first.events.len(), first.sampled, first.matched), (0, 0, 0));
    assert!(serve(&monitor, &[get("b")], &reply(&[OpResult::Nil])));
    let last = ask(&monitor, &MonitorQuestion { is_last: true, ..question(7, 1) });
    assert_eq!((keys(&last), last.began_us), (vec![&b"b"[..]], first.began_us));
    assert_eq!(monitor.one_in.load(Ordering::Relaxed), 0);
    assert!(!serve(&monitor, &[get("c")], &reply(&[OpResult::Nil])));
}

#[test]
fn each_operation_of_a_request_is_told_with_what_became_of_it_and_never_with_a_value() {
    let monitor = Monitor::default();
    ask(&monitor, &question(7, 1));
    let set = Op::Set {
        key: "s".into(),
        value: "secret".into(),
        condition: Default::default(),
        expiry: Default::default(),
    };
    let ops = [get("a"), set, del("d"), get("e")];
    let failed = OpResult::Failed(Code::NotAnInteger);
    let value = OpResult::Value("secret".into());
    serve(&monitor, &ops, &reply(&[OpResult::Nil, OpResult::Done, OpResult::Bool(false), value]));
    serve(&monitor, &ops[..1], &reply(&[failed]));
    serve(&monitor, &ops[2..3], &Err(Error::new(Code::Overloaded, "full")));
    let scan = monitor.pick_scan(SHARD, &Bytes::from_static(b"cart:")).unwrap();
    monitor.note_scan(scan, &ann(), Duration::ZERO, None);
    let page = ask(&monitor, &question(7, 1));
    let told: Vec<(&str, &str, u32)> = page
        .events
        .iter()
        .map(|event| (event.kind.name(), event.outcome.name(), event.operations))
        .collect();
    let expected = [
        ("get", "absent", 4),
        ("set", "ok", 4),
        ("del", "no", 4),
        ("get", "ok", 4),
        ("get", "NotAnInteger", 1),
        ("del", "Overloaded", 1),
        ("scan", "ok", 1),
    ];
    assert_eq!(told, expected);
    let event = &page.events[1];
    assert_eq!((event.by.as_str(), event.shard, event.took_us), ("user ann", SHARD, 250));
    assert_eq!((event.key.as_ref(), event.key_bytes), (&b"s"[..], 1));
    assert!(!format!("{page:?}").contains("secret"));
    assert_eq!((page.sampled, page.matched, page.dropped), (7, 7, 0));
}

#[test]
fn only_what_is_wanted_is_told_and_all_is_counted() {
    let monitor = Monitor::default();
    let wish =
        Wish { one_in: 1, pattern: Some("cart:*".into()), kinds: vec![OpKind::Get, OpKind::Scan] };
    let carts = MonitorQuestion { wish, ..question(1, 1) };
    ask(&monitor, &carts);
    ask(&monitor, &question(2, 1));
    let nil = reply(&[OpResult::Nil]);
    for op in [get("cart:1"), get("user:1"), del("cart:2"), get("cart:3")] {
        serve(&monitor, &[op], &nil);
    }
    let page = ask(&monitor, &carts);
    assert_eq!(keys(&page), [b"cart:1", b"cart:3"]);
    assert_eq!((page.sampled, page.matched), (4, 2));
    let all = ask(&monitor, &question(2, 1));
    assert_eq!((all.events.len(), all.sampled, all.matched), (4, 4, 4));
}

#[test]
fn what_did_not_arrive_is_answered_again_and_what_did_is_let_go_of() {
    let monitor = Monitor::default();
    ask(&monitor, &question(7, 1));
    let nil = reply(&[OpResult::Nil]);
    for key in ["a", "b", "c"] {
        serve(&monitor, &[get(key)], &nil);
    }
    let first = ask(&monitor, &question(7, 1));
    assert_eq!(first, MonitorPage { spent_us: first.spent_us, ..ask(&monitor, &question(7, 1)) });
    let rest = ask(&monitor, &MonitorQuestion { after: 2, ..question(7, 1) });
    assert_eq!((keys(&rest), rest.events[0].sequence), (vec![&b"c"[..]], 3));
    let none = ask(&monitor, &MonitorQuestion { after: 900, ..question(7, 1) });
    assert_eq!((none.events.len(), none.matched), (0, 3));
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    let monitor = Monitor::default();
    ask(&monitor, &question(7, 1));
    let (nil, extra) = (reply(&[OpResult::Nil]), 500);
    for number in 0..QUEUE_MAX + extra {
        serve(&monitor, &[get(&number.to_string())], &nil);
    }
    let page = ask(&monitor, &question(7, 1));
    assert_eq!((page.events.len(), page.dropped), (QUEUE_MAX, extra as u64));
    assert_eq!(page.matched, (QUEUE_MAX + extra) as u64);
    // A request that is picked for nobody with room is not even noted.
    assert!(!serve(&monitor, &[get("late")], &nil));
    let next = MonitorQuestion { after: QUEUE_MAX as u64, ..question(7, 1) };
    assert_eq!(ask(&monitor, &next).events.len(), 0);
    assert!(serve(&monitor, &[get("room")], &nil));
    let after = ask(&monitor, &next);
    assert_eq!((keys(&after), after.dropped), (vec![&b"room"[..]], extra as u64 + 1));
}

#[test]
fn a_watch_that_nobody_asks_for_is_forgotten_and_their_number_is_bounded() {
    let monitor = Monitor::default();
    let start = Instant::now();
    for watch in 0..WATCHES_MAX as u64 {
        monitor.answer(&question(watch, 1), start).unwrap();
    }
    let refused = monitor.answer(&question(90, 1), start).unwrap_err();
    assert_eq!(refused.code, Code::Overloaded);
    let later = start + LEASE + Duration::from_millis(5);
    let first = monitor.answer(&question(0, 1), start).unwrap();
    let fresh = monitor.answer(&question(0, 1), later).unwrap();
    assert!(fresh.began_us > first.began_us, "it has begun anew");
    assert_eq!(monitor.watches.read().len(), 1, "the others are over");
    // Requests see to it, too: nobody may ever ask again.
    monitor.watches.write()[0].asked_ms.store(0, Ordering::Relaxed);
    let long_ago = Monitor { started: start.checked_sub(2 * LEASE).unwrap(), ..monitor };
    serve(&long_ago, &[get("a")], &reply(&[OpResult::Nil]));
    assert_eq!(long_ago.one_in.load(Ordering::Relaxed), 0);
}

#[test]
fn the_finest_sample_is_drawn_and_a_coarser_one_from_it() {
    let monitor = Monitor::default();
    ask(&monitor, &question(1, 10));
    ask(&monitor, &question(2, 100));
    assert_eq!(monitor.one_in.load(Ordering::Relaxed), 10);
    let nil = reply(&[OpResult::Nil]);
    let (mut fine, mut coarse) = (0, 0);
    for _ in 0..100 {
        (0..1_000).for_each(|_| _ = serve(&monitor, &[get("k")], &nil));
        let of = |watch, one_in, after| {
            let asked = MonitorQuestion { after, ..question(watch, one_in) };
            ask(&monitor, &asked).events.last().map_or(after, |event| event.sequence)
        };
        (fine, coarse) = (of(1, 10, fine), of(2, 100, coarse));
    }
    assert!((9_000..=11_000).contains(&fine), "{fine} of 100,000 are one in ten");
    assert!((800..=1_200).contains(&coarse), "{coarse} are one in a hundred");
}

#[test]
fn a_wish_has_bounds() {
    let monitor = Monitor::default();
    let refused = |wish: Wish| {
        let asked = MonitorQuestion { wish, ..question(1, 1) };
        monitor.answer(&asked, Instant::now()).unwrap_err().code
    };
    let wish = |one_in, bytes: usize| Wish {
        one_in,
        pattern: Some(Bytes::from(vec![b'*'; bytes])),
        kinds: vec![],
    };
    assert_eq!(refused(wish(0, 1)), Code::BadRequest);
    assert_eq!(refused(wish(ONE_IN_MAX + 1, 1)), Code::BadRequest);
    assert_eq!(refused(wish(1, PATTERN_BYTES_MAX + 1)), Code::BadRequest);
    let kinds = vec![OpKind::Get; 12];
    assert_eq!(refused(Wish { kinds, ..wish(1, 1) }), Code::BadRequest);
    let long = Op::Get { key: Bytes::from(vec![b'k'; 480]) };
    ask(&monitor, &question(1, 1));
    serve(&monitor, &[long], &reply(&[OpResult::Nil]));
    let event = &ask(&monitor, &question(1, 1)).events[0];
    assert_eq!((event.key.len(), event.key_bytes), (KEY_BYTES_MAX, 480));
}
