//! The load: the same loop for every system, so that only the system differs.
//!
//! A client is a task that keeps `pipeline` requests in flight. Latency is from the call to its answer;
//! failed requests are counted and neither timed nor part of the rate.

use crate::Result;
use crate::data::{Data, Random};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients: tasks.
pub const CLIENTS: usize = 64;
/// Latencies up to this are told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;
/// How long what is in flight at the end may take.
const END_WAIT: Duration = Duration::from_secs(30);

/// A system under load, through its client. `lane` says which requester asks, to choose a connection by.
pub trait Target: Send + Sync + 'static {
    /// Stores a value; answered when the system says that it is durable.
    fn set(&self, lane: usize, key: Bytes, value: Bytes)
    -> impl Future<Output = Result<()>> + Send;

    /// Reads a value: its length. An absent key is an error, as all were stored.
    fn get(&self, lane: usize, key: Bytes) -> impl Future<Output = Result<usize>> + Send;
}

/// Which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Sets of random keys.
    Set,
    /// Gets of random keys.
    Get,
}

/// How much of them.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which requests.
    pub work: Work,
    /// Requests that each client keeps in flight.
    pub pipeline: usize,
    /// Not measured, first.
    pub warmup: Duration,
    /// Measured.
    pub time: Duration,
}

/// What one round came to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Answers a second.
    pub rate: f64,
    /// Median latency, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// Requests that failed.
    pub failed: u64,
    /// Why the first of them did.
    pub failure: Option<String>,
}

struct Meter {
    latencies_us: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
}

/// Runs one round.
pub async fn run<T: Target>(target: Arc<T>, data: Arc<Data>, shape: Shape) -> Result<Measured> {
    let from = Instant::now() + shape.warmup;
    let until = from + shape.time;
    let clients: Vec<tokio::task::JoinHandle<Result<Meter>>> = (0..CLIENTS)
        .map(|client| {
            let lanes = client * shape.pipeline..(client + 1) * shape.pipeline;
            let lane = |i| lane(target.clone(), data.clone(), shape.work, i, from, until);
            let mut lanes: FuturesUnordered<_> = lanes.map(lane).collect();
            tokio::spawn(async move {
                let mut all = meter()?;
                while let Some(one) = lanes.next().await {
                    all.add(one?)?;
                }
                Ok(all)
            })
        })
        .collect();
    let mut all = meter()?;
    let end = until + END_WAIT;
    for client in clients {
        let meter = tokio::time::timeout_at(end.into(), client).await;
        let meter = meter.map_err(|_| "requests were not answered within 30 s of the end")?;
        all.add(meter??)?;
    }
    let ms = |quantile| all.latencies_us.value_at_quantile(quantile) as f64 / 1e3;
    Ok(Measured {
        rate: all.latencies_us.len() as f64 / shape.time.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        failed: all.failed,
        failure: all.failure.clone(),
    })
}

async fn lane<T: Target>(
    target: Arc<T>,
    data: Arc<Data>,
    work: Work,
    lane: usize,
    from: Instant,
    until: Instant,
) -> Result<Meter> {
    let mut meter = meter()?;
    let mut random = Random::new(lane as u64 + 2);
    loop {
        let key = data.key(&mut random);
        let started = Instant::now();
        if started >= until {
            return Ok(meter);
        }
        let outcome = match work {
            Work::Set => target.set(lane, key, data.value(&mut random)).await,
            Work::Get => match target.get(lane, key).await {
                Ok(crate::data::VALUE_BYTES) => Ok(()),
                Ok(bytes) => Err(format!("a value of {bytes} bytes").into()),
                Err(error) => Err(error),
            },
        };
        let ended = Instant::now();
        if ended < from || ended > until {
            continue;
        }
        match outcome {
            Ok(()) => {
                meter.latencies_us.saturating_record((ended - started).as_micros() as u64);
            }
            Err(error) => {
                meter.failed += 1;
                meter.failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

fn meter() -> Result<Meter> {
    let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 2)?;
    Ok(Meter { latencies_us, failed: 0, failure: None })
}

impl Meter {
    fn add(&mut self, other: Meter) -> Result<()> {
        self.latencies_us.add(&other.latencies_us)?;
        self.failed += other.failed;
        if self.failure.is_none() {
            self.failure = other.failure;
        }
        Ok(())
    }
}
