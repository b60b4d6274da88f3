//! A trace of a production disk, replayed as key-value load against four real nodes; each read is compared
//! with what was written before it.
//!
//! The trace lies beside the repository where it is built; elsewhere a made-up one of the same shape is used.

use crate::harness::{Cluster, Shape, ppdb_within};
use flate2::{Compression, write::GzEncoder};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Requests of the made-up trace.
const REQUESTS: usize = 20_000;
/// The real one writes 2.4 GB.
const REPLAY_WITHIN: Duration = Duration::from_secs(240);

/// The real trace, or a made-up one in `dir`.
fn trace(dir: &Path) -> PathBuf {
    let shared = "../shared/data/block-io-trace.csv.gz";
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join(shared);
    if real.exists() {
        return real;
    }
    let path = dir.join("trace.csv.gz");
    let mut out = GzEncoder::new(File::create(&path).expect("a file"), Compression::fast());
    let rng = &mut StdRng::seed_from_u64(1);
    writeln!(out, "version,time,op,size,lbn").expect("written");
    for i in 0..REQUESTS {
        // Three of five requests write; sizes are sectors, many blocks are met again.
        let op = if rng.random_bool(0.59) { "2a" } else { "28" };
        let size = 512 * [1, 8, 8, 8, 16, 32, 128][rng.random_range(0..7)];
        let block = rng.random_range(0..REQUESTS * 2 / 5);
        writeln!(out, "1,{},{op},{size},{}", 5_633_898 + i, 40_000_000 + block).expect("written");
    }
    out.finish().expect("written");
    path
}

/// The field of that name, wherever it is in the document.
fn field(document: &Value, name: &str) -> Option<u64> {
    match document {
        Value::Object(fields) => fields
            .get(name)
            .and_then(Value::as_u64)
            .or_else(|| fields.values().find_map(|value| field(value, name))),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_trace_reads_what_it_wrote() {
    let cluster = Cluster::start(Shape::default()).await;
    let path = trace(cluster.dir());
    let path = path.to_str().expect("a plain path");
    let words = ["bench", "--trace", path, "-o", "json"].map(str::to_owned);
    let ran = ppdb_within(REPLAY_WITHIN, words.into_iter().chain(cluster.flags())).expect(0);
    let report = ran.json();
    assert_eq!(field(&report, "errors"), Some(0), "{report}");
    assert_eq!(field(&report, "mismatches"), Some(0), "{report}");
    println!("replayed {path} in {:?}: {report}", ran.took);
}
