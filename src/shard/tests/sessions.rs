//! Retries that apply at most once: across reloads, out of order, with forgotten sessions.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn tiny() -> Limits {
    Limits { window: 4, expiry_ms: 100, sessions_max: 3, result_bytes_max: 16, removals_max: 6 }
}

fn name(session: SessionId, sequence: u64) -> Option<SessionSeq> {
    Some(SessionSeq { session, sequence })
}

/// Adds one to a counter under a name.
fn bump(copy: &mut Copy, now_ms: u64, session: SessionId, sequence: u64) -> Reply {
    copy.apply_named(now_ms, name(session, sequence), &[incr("n", 1)])
}

fn int(n: i64) -> Reply {
    Reply::Results(crate::wire::client::encode_results(&[OpResult::Int(n)]))
}

const EXPIRED: Reply = Reply::Refused(Code::SessionExpired);
const TOO_OLD: Reply = Reply::Refused(Code::SequenceTooOld);

#[test]
fn a_retry_is_answered_as_the_first_time_also_after_a_restart() {
    let mut copy = Copy::new();
    let session = copy.open(1);
    assert_eq!(bump(&mut copy, 1, session, 1), int(1));
    assert_eq!(bump(&mut copy, 1, session, 2), int(2));
    for _ in 0..2 {
        assert_eq!(bump(&mut copy, 2, session, 1), int(1));
        assert_eq!(bump(&mut copy, 2, session, 2), int(2));
        copy.reload();
    }
    // Also out of the table, when nothing is left in the overlay.
    copy.digest();
    copy.reload();
    assert_eq!(bump(&mut copy, 2, session, 2), int(2));
    assert_eq!(copy.stored("n"), "2");
}

#[test]
fn a_retry_in_the_same_entry_applies_once() {
    let mut copy = Copy::new();
    let session = copy.open(1);
    let ops = encode_ops(&[incr("n", 1)]);
    let item = Item::Ops { dedup: name(session, 1), ops: &ops };
    assert_eq!(copy.apply(1, vec![item, item, item]), [int(1), int(1), int(1)]);
}

#[test]
fn sequences_may_come_in_any_order_within_the_window() {
    let mut copy = Copy::with(tiny());
    let session = copy.open(1);
    for (n, sequence) in [(1, 3), (2, 1), (3, 4), (4, 2)] {
        assert_eq!(bump(&mut copy, 1, session, sequence), int(n));
    }
    assert_eq!(bump(&mut copy, 1, session, 3), int(1));
    // 7 pushes 3 below the window, and leaves 4 in it.
    assert_eq!(bump(&mut copy, 1, session, 7), int(5));
    assert_eq!(bump(&mut copy, 1, session, 3), TOO_OLD);
    assert_eq!(bump(&mut copy, 1, session, 4), int(3));
    assert_eq!(bump(&mut copy, 1, session, 6), int(6));
    copy.reload();
    assert_eq!(bump(&mut copy, 1, session, 6), int(6));
    assert_eq!(bump(&mut copy, 1, session, 5), int(7));
    assert_eq!(copy.stored("n"), "7");
    assert_eq!(bump(&mut copy, 1, session, 0), Reply::Refused(Code::BadRequest));
}

#[test]
fn the_highest_sequence_is_no_special_case() {
    let mut copy = Copy::with(tiny());
    let session = copy.open(1);
    assert_eq!(bump(&mut copy, 1, session, u64::MAX), int(1));
    assert_eq!(bump(&mut copy, 1, session, u64::MAX), int(1));
    assert_eq!(bump(&mut copy, 1, session, u64::MAX - 3), int(2));
    assert_eq!(bump(&mut copy, 1, session, u64::MAX - 4), TOO_OLD);
    assert_eq!(bump(&mut copy, 1, session, 1), TOO_OLD);
}

#[test]
fn an_unknown_session_applies_nothing() {
    let mut copy = Copy::with(tiny());
    let session = copy.open(1);
    let other_lineage = SessionId { incarnation: Incarnation(6), ..session };
    let never_opened = SessionId { index: 99, ..session };
    for session in [other_lineage, never_opened] {
        assert_eq!(bump(&mut copy, 1, session, 1), EXPIRED);
    }
    assert_eq!(copy.stored("n"), "-");
}

#[test]
fn a_session_expires_by_shard_time_since_its_last_use() {
    let mut copy = Copy::with(tiny());
    let session = copy.open(1_000);
    assert_eq!(bump(&mut copy, 1_099, session, 1), int(1));
    assert_eq!(bump(&mut copy, 1_198, session, 1), int(1));
    // A reload keeps the last use; the stored session goes with the first entry after its time.
    copy.reload();
    assert_eq!(copy.records(Space::Sessions).len(), 2);
    assert_eq!(bump(&mut copy, 1_298, session, 2), EXPIRED);
    assert!(copy.records(Space::Sessions).is_empty());
    assert_eq!(bump(&mut copy, 1_298, session, 1), EXPIRED);
    assert_eq!(copy.stored("n"), "1");
}

#[test]
fn expired_sessions_go_in_bounded_steps_and_answer_nothing_meanwhile() {
    let mut copy = Copy::with(tiny());
    let sessions: Vec<SessionId> = (0..3).map(|_| copy.open(1_000)).collect();
    for session in &sessions {
        for sequence in 1..=4 {
            bump(&mut copy, 1_000, *session, sequence);
        }
    }
    assert_eq!(copy.records(Space::Sessions).len(), 15);
    // Six records are the bound; the session in which it is reached goes whole.
    assert_eq!(bump(&mut copy, 2_000, sessions[2], 1), EXPIRED);
    assert_eq!(copy.records(Space::Sessions).len(), 5);
    copy.reload();
    assert_eq!(bump(&mut copy, 2_000, sessions[2], 1), EXPIRED);
    assert!(copy.records(Space::Sessions).is_empty());
}

#[test]
fn a_new_session_takes_the_place_of_the_least_recently_used() {
    let mut copy = Copy::with(tiny());
    let [a, b, c] = [0; 3].map(|_| copy.open(1));
    assert_eq!(bump(&mut copy, 1, a, 1), int(1));
    copy.reload();
    let d = copy.open(1);
    assert_eq!(bump(&mut copy, 1, b, 1), EXPIRED);
    assert_eq!(bump(&mut copy, 1, a, 1), int(1));
    assert_eq!(bump(&mut copy, 1, d, 1), int(2));
    copy.open(1);
    assert_eq!(bump(&mut copy, 1, c, 1), EXPIRED);
    assert_eq!(bump(&mut copy, 1, a, 1), int(1));
    assert_eq!(
        copy.store
            .read(|view| crate::shard::sessions::Sessions::load(view, tiny()).unwrap().len())
            .unwrap(),
        3
    );
}

#[test]
fn large_results_are_answered_once_and_never_applied_twice() {
    let mut copy = Copy::with(tiny());
    let session = copy.open(1);
    let large = "x".repeat(40);
    copy.request(1, &[set("k", &large)]);
    let ops = [incr("n", 1), get("k")];
    let first = copy.apply_named(1, name(session, 1), &ops);
    assert_eq!(results(&first), [OpResult::Int(1), value(&large)]);
    let lost = Reply::Refused(Code::Unknown);
    assert_eq!(copy.apply_named(1, name(session, 1), &ops), lost);
    copy.reload();
    assert_eq!(copy.apply_named(1, name(session, 1), &ops), lost);
    assert_eq!(copy.stored("n"), "1");
    // A batch of sets is remembered whatever its length.
    let sets: Vec<Op> = (0..500).map(|i| set(&format!("s{i}"), "v")).collect();
    let first = copy.apply_named(1, name(session, 2), &sets);
    assert_eq!(results(&first), vec![OpResult::Done; 500]);
    assert_eq!(copy.apply_named(1, name(session, 2), &sets), first);
}

#[test]
fn a_named_write_costs_three_records_beside_the_state() {
    let mut copy = Copy::new();
    let session = copy.open(1);
    let before = copy.records(Space::Sessions).len();
    for sequence in 1..=5_000 {
        bump(&mut copy, 1, session, sequence);
    }
    // The record of the session is there already; each slot of the window is used once.
    assert_eq!(copy.records(Space::Sessions).len(), before + 1_024);
}

/// The table as plain as it can be written: everything in one list, no indexes, no slots.
#[derive(Default)]
struct Model {
    now_ms: u64,
    counter: i64,
    sessions: BTreeMap<u64, Known>,
}

struct Known {
    used: (u64, u64),
    high: u64,
    results: BTreeMap<u64, i64>,
}

impl Model {
    fn step(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let now_ms = self.now_ms;
        self.sessions.retain(|_, known| known.used.0 + tiny().expiry_ms > now_ms);
    }

    fn open(&mut self, index: u64) {
        if self.sessions.len() == tiny().sessions_max {
            let by_use = |(id, known): &(&u64, &Known)| (known.used, **id);
            let oldest = *self.sessions.iter().min_by_key(by_use).unwrap().0;
            self.sessions.remove(&oldest);
        }
        let used = (self.now_ms, index);
        self.sessions.insert(index, Known { used, high: 0, results: BTreeMap::new() });
    }

    fn bump(&mut self, index: u64, session: u64, sequence: u64) -> Reply {
        let now_ms = self.now_ms;
        let Some(known) = self.sessions.get_mut(&session) else { return EXPIRED };
        known.used = (now_ms, index);
        if sequence + tiny().window <= known.high {
            return TOO_OLD;
        }
        known.high = known.high.max(sequence);
        if let Some(result) = known.results.get(&sequence) {
            return int(*result);
        }
        self.counter += 1;
        known.results.insert(sequence, self.counter);
        int(self.counter)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open,
    Bump { nth_session: usize, sequence: u64 },
    Reload,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        1 => Just(Step::Open),
        8 => (0..5usize, 1..14u64).prop_map(|(nth_session, sequence)| Step::Bump { nth_session, sequence }),
        1 => Just(Step::Reload),
    ];
    (prop_oneof![8 => 0..10u64, 1 => 50..120u64], step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn sessions_behave_as_the_model(steps in prop::collection::vec(step(), 1..120)) {
        // The model forgets at once; how fast the table removes what expired changes no answer.
        for removals_max in [1, 1_000] {
            let mut copy = Copy::with(Limits { removals_max, ..tiny() });
            let (mut model, mut opened, mut now_ms) = (Model::default(), Vec::new(), 1);
            for (advance_ms, step) in &steps {
                now_ms += advance_ms;
                model.step(now_ms);
                match step {
                    Step::Open => {
                        let session = copy.open(now_ms);
                        model.open(session.index);
                        opened.push(session);
                    }
                    Step::Bump { nth_session, sequence } => {
                        let Some(session) = opened.iter().rev().nth(*nth_session) else { continue };
                        let expected = model.bump(copy.next_index(), session.index, *sequence);
                        prop_assert_eq!(bump(&mut copy, now_ms, *session, *sequence), expected);
                    }
                    Step::Reload => copy.reload(),
                }
            }
        }
    }
}
