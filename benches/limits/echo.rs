//! The transport alone: small frames there and back, large frames one way. Both sides are in this process,
//! on the same cores, with the certificates and settings that nodes use.

use crate::{RECORD_BYTES, Result, Row};
use bytes::Bytes;
use ppdb::pki::{self, Identity, IssueOptions, Subject};
use ppdb::transport::{Connection, Endpoint, StreamClass};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Connections, and frames in flight on each.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 64), (4, 16), (4, 64), (64, 1)];
const BULK_BYTES: usize = 256 << 10;

/// Both ends.
struct Ends {
    runtime: Runtime,
    client: Endpoint,
    addr: String,
}

/// A row for each shape, and one for large frames.
pub fn rows(dir: &Path) -> Result<Vec<Row>> {
    let certs = dir.join("certs");
    pki::init(&certs, "bench")?;
    for name in ["n1", "n2"] {
        pki::issue(&certs, Subject::node(name)?, IssueOptions::default())?;
    }
    let runtime = Runtime::new()?;
    let ends = {
        let _inside = runtime.enter();
        let identity = Identity::from_dir(&certs, "node-n1")?;
        let server = Endpoint::server(([127, 0, 0, 1], 0).into(), &identity)?;
        let addr = server.local_addr().to_string();
        runtime.spawn(async move {
            while let Some(connection) = server.accept().await {
                tokio::spawn(echo(connection));
            }
        });
        let client = Endpoint::client(&Identity::from_dir(&certs, "node-n2")?)?;
        Arc::new(Ends { client, addr, runtime })
    };
    let mut rows: Vec<Row> = SHAPES
        .into_iter()
        .map(|(connections, in_flight)| {
            let ends = ends.clone();
            let name = format!("QUIC framed echo, {connections} connections x {in_flight}");
            Row::new(name, "echoes/s", move |time| {
                ends.runtime.block_on(echoes(&ends, connections, in_flight, time))
            })
        })
        .collect();
    rows.push(Row::new("QUIC frames of 256 KiB one way", "MB/s", move |time| {
        ends.runtime.block_on(bulk(&ends, time))
    }));
    Ok(rows)
}

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

async fn echoes(ends: &Ends, connections: usize, in_flight: usize, time: Duration) -> Result<f64> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(ends.client.connect(&ends.addr).await?);
    }
    let started = Instant::now();
    let loads = opened.into_iter().map(|c| tokio::spawn(load(c, in_flight, started + time)));
    let mut echoes = 0;
    for load in loads.collect::<Vec<_>>() {
        echoes += load.await??;
    }
    Ok(echoes as f64 / started.elapsed().as_secs_f64())
}

/// Keeps `in_flight` frames under way on one stream.
async fn load(connection: Connection, in_flight: usize, until: Instant) -> Result<u64> {
    let (sender, mut receiver) = connection.open(StreamClass::Client).await?;
    let payload = Bytes::from(vec![7; RECORD_BYTES]);
    for _ in 0..in_flight {
        sender.send(payload.clone()).await?;
    }
    let mut echoes = 0;
    while Instant::now() < until && receiver.recv().await?.is_some() {
        echoes += 1;
        sender.send(payload.clone()).await?;
    }
    Ok(echoes)
}

/// The receiver reads on, so what was sent is at most a window ahead of what has arrived.
async fn bulk(ends: &Ends, time: Duration) -> Result<f64> {
    let connection = ends.client.connect(&ends.addr).await?;
    let (sender, _receiver) = connection.open(StreamClass::Snapshot).await?;
    let payload = Bytes::from(vec![7; BULK_BYTES]);
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < time {
        sender.send(payload.clone()).await?;
        bytes += BULK_BYTES as u64;
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}
