//! `redis-benchmark`, Redis' own load generator, as a second opinion on what Redis can do here.

use super::{Cluster, benchmark_csv};
use crate::Result;
use crate::load::{CLIENTS, Measured, Shape, Work};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest run: it is told a number of requests, and a slow minute of the machine must not last for ever.
const RUN_MAX: Duration = Duration::from_secs(300);

/// Runs it for about the time of the shape, judged by `rate_expected` (requests a second).
pub async fn benchmark(
    program: &Path,
    cluster: &Cluster,
    keys: usize,
    shape: Shape,
    rate_expected: f64,
) -> Result<Measured> {
    let requests = (rate_expected * shape.time.as_secs_f64()).max(1_000.0) as u64;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let test = match shape.work {
        Work::Set => "set",
        Work::Get => "get",
    };
    let certs = &cluster.certs;
    let mut command = Command::new(program);
    command.args(["--cluster", "--csv", "-h", "127.0.0.1", "--tls", "--sni", "localhost"]);
    command.arg("--cacert").arg(&certs.ca).arg("--cert").arg(&certs.cert);
    command.arg("--key").arg(&certs.key);
    let numbers = [
        ("-p", u64::from(cluster.first_port())),
        ("-c", CLIENTS as u64),
        ("-P", shape.pipeline as u64),
        ("-n", requests),
        ("-r", keys as u64),
        ("-d", crate::data::VALUE_BYTES as u64),
        ("--threads", threads as u64),
    ];
    for (flag, value) in numbers {
        command.args([flag, &value.to_string()]);
    }
    command.args(["-t", test]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(RUN_MAX, command.output()).await;
    let output = ended.map_err(|_| "redis-benchmark took more than five minutes")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let [rate, p50_ms, p99_ms] = benchmark_csv::parse(&text).ok_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("redis-benchmark: {}\n{text}{error}", output.status)
    })?;
    Ok(Measured { rate, p50_ms, p99_ms, failed: 0, failure: None })
}
