//! What the transport carries on this machine: small frames there and back, and large frames one way.
//!
//! `cargo bench --bench quic_echo`. Everything runs in one process over loopback, both sides on the same
//! cores, with the certificates and settings that a node uses.

use bytes::Bytes;
use hdrhistogram::Histogram;
use ppdb::{
    pki::{self, Identity, IssueOptions, Subject},
    transport::{Connection, Endpoint, StreamClass},
};
use std::{
    collections::VecDeque,
    error::Error,
    time::{Duration, Instant},
};

const RUN: Duration = Duration::from_secs(3);
const ECHO_BYTES: usize = 160;
const BULK_BYTES: usize = 256 << 10;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

async fn echo(connection: Connection) {
    while let Ok((class, sender, mut receiver)) = connection.accept().await {
        tokio::spawn(async move {
            while let Ok(Some(frame)) = receiver.recv().await {
                let is_wanted = class == StreamClass::Client;
                if is_wanted && sender.send(frame).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Keeps `in_flight` frames under way on one stream; the latency of each in nanoseconds.
async fn load(connection: Connection, in_flight: usize, until: Instant) -> Result<Vec<u64>> {
    let (sender, mut receiver) = connection.open(StreamClass::Client).await?;
    let payload = Bytes::from(vec![7; ECHO_BYTES]);
    let (mut sent, mut latencies) = (VecDeque::new(), vec![]);
    for _ in 0..in_flight {
        sent.push_back(Instant::now());
        sender.send(payload.clone()).await?;
    }
    while Instant::now() < until && receiver.recv().await?.is_some() {
        let now = Instant::now();
        latencies.extend(sent.pop_front().map(|at| (now - at).as_nanos() as u64));
        sent.push_back(now);
        sender.send(payload.clone()).await?;
    }
    Ok(latencies)
}

async fn bulk(connection: Connection, until: Instant) -> Result<u64> {
    let (sender, _receiver) = connection.open(StreamClass::Snapshot).await?;
    let payload = Bytes::from(vec![7; BULK_BYTES]);
    let mut bytes = 0;
    while Instant::now() < until {
        sender.send(payload.clone()).await?;
        bytes += BULK_BYTES as u64;
    }
    Ok(bytes)
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    pki::init(dir.path(), "bench")?;
    for name in ["n1", "n2"] {
        pki::issue(dir.path(), Subject::node(name)?, IssueOptions::default())?;
    }
    let identity = Identity::from_dir(dir.path(), "node-n1")?;
    let server = Endpoint::server(([127, 0, 0, 1], 0).into(), &identity)?;
    let addr = server.local_addr().to_string();
    let accepting = server.clone();
    tokio::spawn(async move {
        while let Some(connection) = accepting.accept().await {
            tokio::spawn(echo(connection));
        }
    });
    let client = Endpoint::client(&Identity::from_dir(dir.path(), "node-n2")?)?;
    for (connections, in_flight) in [(1, 1), (1, 64), (4, 16), (4, 64), (64, 1)] {
        let until = Instant::now() + RUN;
        let mut tasks = vec![];
        for _ in 0..connections {
            tasks.push(tokio::spawn(load(client.connect(&addr).await?, in_flight, until)));
        }
        let mut histogram = Histogram::<u64>::new(3)?;
        for task in tasks {
            for latency in task.await?? {
                histogram.record(latency)?;
            }
        }
        let rate = histogram.len() as f64 / RUN.as_secs_f64();
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "echo of {ECHO_BYTES} bytes, {connections} connections x {in_flight}: {rate:.0}/s, p50 {:.0} us, p99 {:.0} us",
            micros(0.5),
            micros(0.99)
        );
    }
    let started = Instant::now();
    let bytes = bulk(client.connect(&addr).await?, started + RUN).await?;
    let rate = bytes as f64 / started.elapsed().as_secs_f64() / 1e6;
    println!("frames of {BULK_BYTES} bytes one way, 1 connection: {rate:.0} MB/s");
    client.close("done").await;
    Ok(())
}
