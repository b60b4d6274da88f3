//! Lanes: requests one after the other, `pipeline` lanes side by side in each client's task.

use super::BenchOptions;
use super::meter::Meter;
use crate::types::{Code, Error, Result};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::sync::Arc;

/// Meters of a run. A histogram takes 150 KB, so clients share them; this many do not get in each
/// other's way.
const METERS_MAX: usize = 32;

/// Where a lane counts.
pub type SharedMeter = Arc<Mutex<Meter>>;

/// Runs `lane(i, meter)` for every lane, those of one client in one task, and adds up what they
/// measured.
pub async fn run<F>(
    options: &BenchOptions,
    mut lane: impl FnMut(usize, SharedMeter) -> F,
) -> Result<Meter>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (clients, pipeline) = (options.clients as usize, options.pipeline as usize);
    let meters: Vec<SharedMeter> =
        (0..clients.min(METERS_MAX)).map(|_| Arc::new(Mutex::new(Meter::new()))).collect();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let meter = &meters[client % meters.len()];
            let lanes = client * pipeline..(client + 1) * pipeline;
            let mut lanes: FuturesUnordered<F> = lanes.map(|i| lane(i, meter.clone())).collect();
            tokio::spawn(async move { while lanes.next().await.is_some() {} })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?;
    }
    let mut all = Meter::new();
    for meter in meters {
        all.add(&meter.lock())?;
    }
    Ok(all)
}
