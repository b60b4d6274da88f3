//! Replays against a store in memory, honest and not.

use super::super::meter::Meter;
use super::super::testing::{Fault, Memory, options};
use super::*;
use std::io::Write as _;

/// A trace in which every third request is a read; some blocks are read before they are written.
fn trace(requests: u64) -> String {
    let mut text = "version,time,op,size,lbn\n".to_owned();
    for i in 0..requests {
        let (op, size, block) = (if i % 3 == 2 { READ } else { WRITE }, 512 + i % 900, i * 7 % 40);
        text.push_str(&format!("1,{i},{op},{size},{block}\n"));
    }
    text
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let file = File::create(&path).unwrap();
    if name.ends_with(".gz") {
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        packed.finish().unwrap();
    } else {
        std::fs::write(&path, text).unwrap();
    }
    (folder, path)
}

async fn replay(fault: Fault, line: &str) -> Meter {
    let (_folder, path) = file("t.csv.gz", &trace(3_000));
    let caller = Arc::new(Memory::new(fault));
    run(caller, &path, &CallOptions::default(), &options(line)).await.unwrap().meter
}

#[tokio::test]
async fn an_honest_store_replays_without_mismatch() {
    let meter = replay(Fault::None, "--clients 8 --pipeline 2").await;
    assert_eq!((meter.requests(), meter.mismatches), (3_000, 0), "{:?}", meter.first_mismatch);
    let some = replay(Fault::None, "--trace x --trace-limit 100").await;
    assert_eq!(some.requests(), 100);
}

#[tokio::test]
async fn lost_wrong_and_stale_values_are_noticed() {
    for fault in [Fault::LosesWrites, Fault::WrongValues, Fault::Stale] {
        let meter = replay(fault, "--clients 8").await;
        assert!(meter.mismatches > 0, "{fault:?}");
        assert_eq!(meter.requests(), 3_000);
    }
}

#[tokio::test]
async fn unknown_outcomes_are_errors_and_not_mismatches() {
    let meter = replay(Fault::Unknown, "--clients 8").await;
    assert!(meter.errors()["Unknown"] > 100);
    assert_eq!(meter.mismatches, 0, "{:?}", meter.first_mismatch);
}

#[tokio::test]
async fn a_rate_spreads_the_requests() {
    let start = Instant::now();
    let meter = replay(Fault::None, "--trace x --trace-limit 50 --rate 500").await;
    assert_eq!(meter.requests(), 50);
    assert!(start.elapsed().as_millis() >= 98, "{:?}", start.elapsed());
}

#[test]
fn columns_are_found_by_name_and_sizes_are_capped() {
    let text = "lbn,op,size\n7,2a,99999999\n7,28,512\n";
    let read: Vec<Record> = records(text.as_bytes(), None).map(Result::unwrap).collect();
    let record = |number, write_bytes| Record { number, key: 7, write_bytes };
    assert_eq!(read, [record(0, Some(limits::VALUE_BYTES_MAX)), record(1, None)]);
}

#[tokio::test]
async fn what_is_not_a_trace_is_refused_with_the_reason() {
    for (text, reason) in [
        ("time,op,size\n1,2a,5\n", "no column `lbn`"),
        ("op,size,lbn\n2a,5,1\n35,5,1\n2a,5,1\n", "request 1: operation `35`"),
        ("op,size,lbn\n2a,x,1\n", "request 0: `x` is not a number"),
        ("op,size,lbn\n2a,5\n", "record"),
    ] {
        let (_folder, path) = file("t.csv", text);
        let caller = Arc::new(Memory::new(Fault::None));
        let error = run(caller, &path, &CallOptions::default(), &options("")).await.err().unwrap();
        assert_eq!(error.code, Code::BadRequest, "{text}");
        assert!(error.message.contains(reason), "{text}: {error}");
    }
    let caller = Arc::new(Memory::new(Fault::None));
    let absent = run(caller, Path::new("/nowhere"), &CallOptions::default(), &options("")).await;
    assert_eq!(absent.err().unwrap().code, Code::NotFound);
}
