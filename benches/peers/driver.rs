//! PPDB's client library as the load drives it: by tasks that share one connection to each node they use (three
//! for writes and linearizable reads, four for local ones), or 63.

use crate::Result;
use crate::client::{self, set_op};
use crate::data::{Data, Random};
use crate::load::Target;
use crate::ppdb::Cluster;
use bytes::Bytes;
use ppdb::client::{CallOptions, Client, Level};
use ppdb::types::slots;
use std::time::Duration;

/// One request; what takes longer has failed.
const REQUEST: Duration = Duration::from_secs(15);
/// Sets in one call while the keys are stored.
const FILL_OPS: usize = 200;
/// Calls in flight meanwhile.
const FILL_IN_FLIGHT: usize = 16;

/// The client library, asked to read at one level.
pub struct Driver {
    client: Client,
    call: CallOptions,
}

impl Driver {
    /// With so many connections to each node.
    pub async fn of(cluster: &Cluster, per_node: usize) -> Result<Self> {
        let client = cluster.client(per_node).await?;
        Ok(Self { client, call: CallOptions { timeout: REQUEST, ..CallOptions::default() } })
    }

    /// The same, reading the nearest copy.
    pub fn local(self) -> Self {
        let level = Some(Level::Local { max_staleness_ms: None });
        Self { call: CallOptions { level, ..self.call }, ..self }
    }

    /// Stores every key.
    pub async fn fill(&self, data: &Data) -> Result<()> {
        let mut random = Random::new(0);
        let calls = data.keys.chunks(FILL_OPS).map(|keys| {
            let sets = keys.iter().map(|key| set_op(key.clone(), data.value(&mut random)));
            sets.collect()
        });
        client::call_all(&self.client, &self.call, calls, FILL_IN_FLIGHT).await
    }

    /// Ends its connections.
    pub async fn close(&self) {
        self.client.close().await;
    }

    /// A key for each shard.
    pub async fn key_of_each_shard(&self) -> Result<Vec<Bytes>> {
        let shards = self.client.refresh().await?.shards.len() as u16;
        let names = (0u32..).map(|i| Bytes::from(format!("shard:{i}")));
        let mut keys = vec![None; shards.into()];
        for name in names {
            let shard = usize::from(slots::shard_of(&name, shards).0);
            keys[shard].get_or_insert(name);
            if keys.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(keys.into_iter().flatten().collect())
    }
}

impl Target for Driver {
    async fn set(&self, _lane: usize, key: Bytes, value: Bytes) -> Result<()> {
        client::set(&self.client, &self.call, key, value).await
    }

    async fn get(&self, _lane: usize, key: Bytes) -> Result<usize> {
        Ok(client::get(&self.client, &self.call, key).await?.len())
    }
}
