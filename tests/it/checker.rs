//! Decides whether the recorded history of one key is linearizable, with the checker `porcupine-rs`, and
//! proves on planted faults that it would notice.
//!
//! The key is a register that holds a whole number or nothing, with `get`, `set`, `cas` and `incr`.

use porcupine_rs::{CheckResult, Model, Operation};
use std::time::Duration;

/// Longest search for one history; running into it fails the test.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(30);

/// An operation with what it answered. `None` for an answer: the outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// A read, and what it returned. One whose answer was lost says nothing and is left out.
    Get(Option<i64>),
    /// A write that took effect (or may have).
    Set { value: i64 },
    /// A compare-and-set, and whether it swapped.
    Cas { expected: Option<i64>, value: i64, swapped: Option<bool> },
    /// An addition, and the sum it returned.
    Incr { by: i64, sum: Option<i64> },
}

/// One operation in a history. Times count from any fixed point, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The client, which has one operation at a time.
    pub client: u32,
    /// Just before it was sent.
    pub called_ns: i64,
    /// Just after its answer; `None` if its outcome is unknown: it may take effect at any later time,
    /// or never.
    pub returned_ns: Option<i64>,
    /// What it was.
    pub seen: Seen,
}

#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = Option<i64>;
    type Op = Seen;
    type Metadata = ();

    fn init() -> Option<i64> {
        None
    }

    fn step(state: &Option<i64>, op: &Seen) -> (bool, Option<i64>) {
        match *op {
            Seen::Get(value) => (value == *state, *state),
            Seen::Set { value } => (true, Some(value)),
            Seen::Cas { expected, value, swapped } => {
                let fits = expected == *state;
                let after = if fits { Some(value) } else { *state };
                (swapped.is_none_or(|swapped| swapped == fits), after)
            }
            Seen::Incr { by, sum } => {
                let after = state.unwrap_or(0).wrapping_add(by);
                (sum.is_none_or(|sum| sum == after), Some(after))
            }
        }
    }
}

/// `Ok` if some order of the operations that respects real time explains every answer.
pub fn check(history: &[Event]) -> Result<(), String> {
    let operations: Vec<Operation<Register>> = history
        .iter()
        .map(|event| Operation {
            client_id: Some(event.client),
            call_time: event.called_ns,
            return_time: event.returned_ns.unwrap_or(i64::MAX),
            op: event.seen,
            metadata: None,
        })
        .collect();
    match porcupine_rs::check_operations_timeout(&operations, SEARCH_TIME_MAX) {
        CheckResult::Ok => Ok(()),
        CheckResult::Illegal => Err(format!("not linearizable:\n{}", listing(history))),
        CheckResult::Unknown => Err(format!(
            "no verdict within {} s on {} operations:\n{}",
            SEARCH_TIME_MAX.as_secs(),
            history.len(),
            listing(history)
        )),
    }
}

/// The history in order of calls, for a person.
fn listing(history: &[Event]) -> String {
    let mut events = history.to_vec();
    events.sort_by_key(|event| event.called_ns);
    let line = |event: &Event| {
        let us = |ns: i64| ns / 1_000;
        let returned = event.returned_ns.map_or("?".into(), |ns| us(ns).to_string());
        format!("{:>10} {returned:>10} us  c{} {:?}", us(event.called_ns), event.client, event.seen)
    };
    events.iter().map(line).collect::<Vec<_>>().join("\n")
}

mod planted {
    //! Made-up histories: valid ones pass, and each kind of fault is caught.

    use super::*;
    use proptest::test_runner::{Config, TestRunner};
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    fn event(client: u32, called: i64, returned: i64, seen: Seen) -> Event {
        Event { client, called_ns: called, returned_ns: Some(returned), seen }
    }

    fn unknown(client: u32, called: i64, seen: Seen) -> Event {
        Event { client, called_ns: called, returned_ns: None, seen }
    }

    const SET_1: Seen = Seen::Set { value: 1 };
    const SET_2: Seen = Seen::Set { value: 2 };

    #[test]
    fn a_stale_read_is_caught() {
        let fresh = [event(0, 0, 10, SET_1), event(0, 20, 30, SET_2)];
        let read = |called, value| event(1, called, called + 5, Seen::Get(Some(value)));
        assert!(
            check(&[&fresh[..], &[read(22, 1)]].concat()).is_ok(),
            "while it is being replaced"
        );
        assert!(check(&[&fresh[..], &[read(31, 2)]].concat()).is_ok());
        let error = check(&[&fresh[..], &[read(31, 1)]].concat()).unwrap_err();
        assert!(error.starts_with("not linearizable"), "{error}");
    }

    #[test]
    fn a_retry_that_was_applied_twice_is_caught() {
        let incr =
            |client, called, sum| event(client, called, called + 5, Seen::Incr { by: 1, sum });
        let once = [incr(0, 0, Some(1)), incr(1, 10, Some(2))];
        assert!(check(&once).is_ok());
        let twice = [incr(0, 0, Some(1)), incr(1, 10, Some(3))];
        assert!(check(&twice).is_err(), "the first increment counted twice");
        let hidden = [unknown(0, 0, Seen::Incr { by: 1, sum: None }), incr(1, 10, Some(3))];
        assert!(check(&hidden).is_err(), "an unknown outcome takes effect once or never");
        let blind = [
            unknown(0, 0, SET_1),
            event(1, 10, 15, SET_2),
            event(1, 20, 25, Seen::Get(Some(1))),
            event(1, 30, 35, SET_2),
            event(1, 40, 45, Seen::Get(Some(1))),
        ];
        assert!(check(&blind[..3]).is_ok(), "an unknown outcome may take effect late");
        assert!(check(&blind).is_err(), "but not again after it was replaced");
    }

    #[test]
    fn a_failed_write_that_took_effect_is_caught() {
        // Operations that failed are left out of a history, so their values must never be seen.
        let history = [event(0, 0, 10, SET_1), event(1, 20, 25, Seen::Get(Some(7)))];
        assert!(check(&history).is_err());
    }

    #[test]
    fn a_swap_that_had_no_right_to_happen_is_caught() {
        let cas = |called, expected, value, swapped| {
            event(1, called, called + 5, Seen::Cas { expected, value, swapped: Some(swapped) })
        };
        let set = event(0, 0, 10, SET_1);
        assert!(check(&[set, cas(20, Some(1), 5, true), cas(30, Some(1), 6, false)]).is_ok());
        assert!(check(&[set, cas(20, Some(1), 5, true), cas(30, Some(1), 6, true)]).is_err());
        assert!(check(&[set, cas(20, Some(1), 5, false)]).is_err());
        assert!(check(&[cas(20, None, 5, true)]).is_ok());
    }

    /// A history as a correct register with concurrent clients makes it: each operation takes effect at
    /// one instant between its call and its answer. Some answers are lost; some of those operations
    /// took effect late, some never.
    fn valid_history(rng: &mut StdRng, operations: usize) -> Vec<Event> {
        struct Planned {
            event: Event,
            effect_ns: Option<i64>,
        }
        let mut clocks = [0i64; 8];
        let mut planned: Vec<Planned> = (0..operations)
            .map(|i| {
                let client = rng.random_range(0..clocks.len());
                let called = clocks[client] + rng.random_range(1..50);
                let effect = called + rng.random_range(1..100);
                let returned = effect + rng.random_range(1..100);
                clocks[client] = returned;
                let value = 1_000 * (i as i64 + 1);
                let seen = match rng.random_range(0..10) {
                    0..4 => Seen::Get(None),
                    4..6 => Seen::Set { value },
                    6..8 => Seen::Cas { expected: None, value, swapped: None },
                    _ => Seen::Incr { by: 1, sum: None },
                };
                let event = event(client as u32, called, returned, seen);
                let lost = !matches!(seen, Seen::Get(_)) && rng.random_bool(0.03);
                let late = effect + rng.random_range(0..2_000);
                match (lost, rng.random_bool(0.5)) {
                    (false, _) => Planned { event, effect_ns: Some(effect) },
                    (true, took_effect) => Planned {
                        event: Event { returned_ns: None, ..event },
                        effect_ns: took_effect.then_some(late),
                    },
                }
            })
            .collect();
        planned.sort_by_key(|p| p.effect_ns.unwrap_or(i64::MAX));
        let mut state = None;
        for Planned { event, effect_ns } in &mut planned {
            if let Seen::Cas { expected, .. } = &mut event.seen
                && rng.random_bool(0.7)
            {
                *expected = state;
            }
            if effect_ns.is_none() {
                continue;
            }
            let before = state;
            state = Register::step(&state, &event.seen).1;
            let answered = event.returned_ns.is_some();
            match &mut event.seen {
                Seen::Get(value) => {
                    *value = before;
                    state = before;
                }
                Seen::Cas { expected, swapped, .. } if answered => {
                    *swapped = Some(*expected == before);
                }
                Seen::Incr { sum, .. } if answered => *sum = state,
                _ => {}
            }
        }
        planned.into_iter().map(|p| p.event).collect()
    }

    #[test]
    fn valid_concurrent_histories_pass_and_a_wrong_answer_in_them_does_not() {
        let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
        let checked = TestRunner::new(config).run(&proptest::num::u64::ANY, |seed| {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut history = valid_history(rng, 400);
            check(&history).map_err(proptest::test_runner::TestCaseError::fail)?;
            // A read of a value that no operation ever wrote.
            let read = history.iter_mut().find(|e| matches!(e.seen, Seen::Get(_)));
            let read = read.expect("four of ten operations are reads");
            read.seen = Seen::Get(Some(-1));
            proptest::prop_assert!(check(&history).is_err());
            Ok(())
        });
        checked.unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn a_stale_read_is_caught_among_many_valid_operations() {
        for seed in 0..20 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut history = valid_history(rng, 300);
            let end = history.iter().filter_map(|e| e.returned_ns).max().unwrap_or(0);
            // Two writes after everything else, known to have taken effect, then a read of the first.
            history.push(event(0, end + 3_000, end + 3_010, Seen::Set { value: -10 }));
            history.push(event(0, end + 3_020, end + 3_030, Seen::Set { value: -20 }));
            assert!(check(&history).is_ok(), "seed {seed}");
            history.push(event(1, end + 3_040, end + 3_050, Seen::Get(Some(-10))));
            assert!(check(&history).is_err(), "seed {seed}");
        }
    }
}
