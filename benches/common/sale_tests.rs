//! Tests of what the bench of a sale decides by itself: which sizes, which schedule, what clients saw, and whether
//! that is what was promised.

use crate::demands::{Verdict, verdicts};
use crate::findings::{Cost, Findings, Run, Step, Unloaded};
use crate::quantile::quantile;
use crate::random::Random;
use crate::values::{VALUE_BYTES_MAX, VALUE_BYTES_MIN, Values, size_at};
use crate::window::{CLIENTS, Request, Window, due_us, is_write, seen};

#[test]
fn a_quantile_is_a_value_that_was_there() {
    assert_eq!(quantile(&mut [], 0.99), None);
    assert_eq!(quantile(&mut [3.0], 0.99), Some(3.0));
    let mut hundred: Vec<f64> = (0..100).rev().map(f64::from).collect();
    assert_eq!(quantile(&mut hundred, 0.99), Some(99.0));
    assert_eq!(
        (quantile(&mut hundred, 0.5), quantile(&mut hundred, 1.0)),
        (Some(50.0), Some(99.0))
    );
}

#[test]
fn each_doubling_of_the_size_has_as_many_keys() {
    assert_eq!((size_at(0.0), size_at(1.0)), (VALUE_BYTES_MIN, VALUE_BYTES_MAX));
    assert_eq!(size_at(1.0 / 9.0), 2 * VALUE_BYTES_MIN, "128 B to 64 KiB is nine doublings");
    let values = Values::new(64 << 20);
    let over = values.bytes() - (64 << 20);
    assert!(over < VALUE_BYTES_MAX as u64, "{over} bytes too many");
    let mut of_doubling = [0; 9];
    for number in 0..values.keys() {
        let times = values.size(number) as f64 / VALUE_BYTES_MIN as f64;
        of_doubling[(times.log2() as usize).min(8)] += 1;
    }
    let usual = values.keys() / 9;
    assert!(
        of_doubling.iter().all(|n| (usual * 8 / 10..usual * 12 / 10).contains(n)),
        "{of_doubling:?}"
    );
}

#[test]
fn a_value_has_the_size_of_its_key_and_differs() {
    let (values, mut random) = (Values::new(1 << 20), Random::new(7));
    let number = values.any(&mut random);
    let [one, other] = [0; 2].map(|_| values.value(number, &mut random));
    assert_eq!((one.len(), other.len()), (values.size(number), values.size(number)));
    assert_ne!(one, other);
    assert_ne!(values.key(1), values.key(2));
}

#[test]
fn requests_are_due_one_after_the_other_whoever_sends_them() {
    let all: Vec<u64> =
        (0..3).flat_map(|n| (0..CLIENTS).map(move |client| due_us(1_000.0, client, n))).collect();
    let expected: Vec<u64> = (0..3 * CLIENTS as u64).map(|i| i * 1_000).collect();
    assert_eq!(all, expected);
    let writes = (0..CLIENTS).map(|client| (0..10).filter(|n| is_write(client, *n)).count());
    assert!(writes.into_iter().all(|writes| writes == 8), "four sets to a get, for each client");
}

/// Times in milliseconds.
fn request(write: bool, due: u64, ended: u64) -> Request {
    Request { write, due_us: due * 1_000, ended_us: ended * 1_000, ok: true }
}

#[test]
fn what_a_client_waited_for_counts_from_when_it_was_due() {
    let waits = vec![
        request(true, 0, 2),
        request(true, 10, 310),
        // Could not be sent before 310, and waited all the same.
        request(false, 20, 311),
        request(true, 30, 312),
    ];
    let steady = vec![request(true, 0, 1), request(true, 100, 101)];
    let window = seen(&[waits.clone(), steady], &(0..1_000_000));
    assert_eq!((window.answered, window.failed), (6, 0));
    assert_eq!((window.gap_ms, window.wait_ms), (308.0, 300.0));
    assert_eq!((window.p99_ms, window.write_p99_ms), (300.0, 300.0));
    let later = seen(&[waits], &(20_000..40_000));
    assert_eq!((later.answered, later.gap_ms, later.wait_ms), (2, 2.0, 282.0));
    assert_eq!(later.p99_ms, 291.0, "the get");
    assert_eq!(seen(&[], &(0..1)), Window::default());
}

#[test]
fn a_write_that_failed_acknowledges_nothing() {
    let failed = Request { ok: false, ..request(true, 100, 200) };
    let window =
        seen(&[vec![request(true, 0, 1), failed, request(true, 200, 301)]], &(0..1_000_000));
    assert_eq!((window.failed, window.answered, window.gap_ms), (1, 2, 300.0));
}

/// One run that meets every demand by just as much as it must.
fn met() -> Findings {
    let base =
        Window { answered: 100, p99_ms: 10.0, gap_ms: 50.0, wait_ms: 30.0, ..Window::default() };
    let whole = Window { p99_ms: 20.0, gap_ms: 250.0, wait_ms: 230.0, ..base };
    let cost = Cost {
        predicted_bytes: 1_000,
        actual_bytes: 1_100,
        predicted_ms: 500,
        actual_ms: 1_000,
        held_ms: 9,
    };
    let back = Cost { predicted_bytes: 0, actual_bytes: 0, actual_ms: 250, ..cost };
    let step = |cost| Step { name: "a switch", took_s: 1.0, window: whole, cost: Some(cost) };
    let steps = vec![step(cost), step(back)];
    let run = Run { base, whole, steps, failed: 0, failure: None };
    let unloaded = Unloaded { bytes: 1_000, switch_s: 10.0, copy_s: 7.0, cost };
    Findings { unloaded, runs: vec![run], ..Findings::default() }
}

fn misses(findings: &Findings) -> Vec<&'static str> {
    let all = verdicts(findings).into_iter();
    all.filter(|verdict| verdict.met == Some(false)).map(|verdict| verdict.demand).collect()
}

#[test]
fn every_demand_is_judged_by_its_limit() {
    assert_eq!(misses(&met()), Vec::<&str>::new(), "{:?}", verdicts(&met()));
    let with = |change: fn(&mut Findings)| {
        let mut findings = met();
        change(&mut findings);
        misses(&findings)
    };
    assert_eq!(with(|f| f.runs[0].failed = 1), ["failed requests"]);
    assert_eq!(with(|f| f.runs[0].whole.gap_ms += 1.0), ["longest write gap"]);
    assert_eq!(with(|f| f.runs[0].whole.wait_ms += 1.0), ["longest wait for a write"]);
    assert_eq!(with(|f| f.runs[0].whole.p99_ms += 0.1), ["p99 of all requests"]);
    let bytes = ["bytes by the plan, each switch"];
    assert_eq!(with(|f| cost(f, 0).actual_bytes = 1_101), bytes);
    assert_eq!(with(|f| cost(f, 0).actual_bytes = 899), bytes);
    assert_eq!(with(|f| cost(f, 1).actual_bytes = 1), bytes, "nothing was to be copied");
    assert_eq!(with(|f| cost(f, 0).actual_ms = 1_001), ["time by the plan, each switch"]);
    assert_eq!(with(|f| cost(f, 1).actual_ms = 249), ["time by the plan, each switch"]);
    assert_eq!(with(|f| f.unloaded.copy_s = 6.9), ["the same, goal"]);
    assert_eq!(with(|f| f.unloaded.copy_s = 3.9).len(), 2);
}

fn cost(findings: &mut Findings, step: usize) -> &mut Cost {
    findings.runs[0].steps[step].cost.as_mut().expect("a switch")
}

#[test]
fn the_worst_run_counts_and_what_was_not_found_is_not_met() {
    let mut findings = met();
    let mut bad = findings.runs[0].clone();
    bad.whole.p99_ms = 21.0;
    findings.runs.extend([bad, findings.runs[0].clone()]);
    assert_eq!(misses(&findings), ["p99 of all requests"]);
    let demands = verdicts(&Findings::default());
    let demanded: Vec<&Verdict> =
        demands.iter().filter(|verdict| verdict.limit.is_some()).collect();
    assert!(demanded.len() >= 8 && demanded.iter().all(|verdict| verdict.met == Some(false)));
    let shown = verdicts(&met()).into_iter().find(|v| v.demand == "bytes, median error");
    let error = shown.and_then(|verdict| verdict.figure).unwrap_or_default();
    assert!((error - 0.1).abs() < 1e-9, "the switch that copies nothing is left out: {error}");
}
