//! Lanes: requests one after the other, `pipeline` lanes side by side in each client's task.

use super::BenchOptions;
use super::meter::Meter;
use crate::types::{Code, Error, Result};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// Runs `lane(i)` for every lane, those of one client in one task, and adds up what they measured.
pub async fn run<F>(options: &BenchOptions, mut lane: impl FnMut(usize) -> F) -> Result<Meter>
where
    F: Future<Output = Meter> + Send + 'static,
{
    let pipeline = options.pipeline as usize;
    let clients: Vec<_> = (0..options.clients as usize)
        .map(|client| {
            let lanes = client * pipeline..(client + 1) * pipeline;
            let mut lanes: FuturesUnordered<F> = lanes.map(&mut lane).collect();
            tokio::spawn(async move {
                let mut all = Meter::new();
                while let Some(meter) = lanes.next().await {
                    all.add(meter)?;
                }
                Ok::<Meter, Error>(all)
            })
        })
        .collect();
    let mut all = Meter::new();
    for client in clients {
        let meter = client.await.map_err(|e| Error::new(Code::Internal, e.to_string()))??;
        all.add(meter)?;
    }
    Ok(all)
}
