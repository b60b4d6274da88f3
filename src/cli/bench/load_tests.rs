//! Loads against a store in memory, honest and not.

use super::super::testing::{Fault, Memory, options};
use super::*;

async fn run_on(fault: Fault, line: &str) -> Measured {
    let caller = Arc::new(Memory::new(fault));
    run(caller, &CallOptions::default(), &options(line)).await.unwrap()
}

const SHORT: &str = "--clients 4 --keys 50 --duration 50ms --warmup 0s";

#[tokio::test]
async fn every_operation_of_the_mix_runs_and_an_honest_store_has_no_mismatch() {
    for mix in ["get,set", "incr", "append", "get,del,set", "exists,set", "mget,mset"] {
        let line = format!("{SHORT} --pipeline 3 --mix {mix}");
        let meter = run_on(Fault::None, &line).await.meter;
        assert_eq!((meter.mismatches, meter.errors().len()), (0, 0), "{mix}");
        assert!(meter.requests() > 10, "{mix}");
        let batches = mix.starts_with('m');
        assert_eq!(meter.keys > meter.requests(), batches, "{mix}");
    }
}

#[tokio::test]
async fn wrong_and_missing_values_are_mismatches() {
    for fault in [Fault::WrongValues, Fault::LosesWrites] {
        let meter = run_on(fault, &format!("{SHORT} --mix get")).await.meter;
        assert!(meter.mismatches > 0, "{fault:?}");
        assert!(meter.first_mismatch.is_some());
    }
    let unloaded = format!("{SHORT} --mix get --skip-load");
    assert_eq!(run_on(Fault::None, &unloaded).await.meter.mismatches, 0, "absent is fine");
}

#[tokio::test]
async fn errors_are_counted_by_code_and_not_timed() {
    let meter = run_on(Fault::Refuses, &format!("{SHORT} --mix set")).await.meter;
    assert_eq!(meter.requests(), 0);
    assert!(meter.errors()["Overloaded"] > 0);
    let caller = Arc::new(Memory::new(Fault::Refuses));
    let load = run(caller, &CallOptions::default(), &options(SHORT)).await;
    assert!(load.err().unwrap().message.contains("while loading"));
}

#[tokio::test]
async fn an_open_loop_shows_the_wait_behind_a_slow_request() {
    // One lane, 100 requests a second, each takes 50 ms: the queue grows by 4 in each 50 ms.
    let line = "--clients 1 --keys 5 --mix set --rate 100 --duration 500ms --warmup 0s";
    let meter = run_on(Fault::Slow(Duration::from_millis(50)), line).await.meter;
    assert!(meter.requests() >= 5);
    assert!(meter.max_ms() > 200.0, "{} ms", meter.max_ms());
}
