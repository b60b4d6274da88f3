//! The cluster as a program sees it: sets and gets through the client library, repeated where that is safe.
//!
//! Says how one request ended. When to send which, and what its time means, is decided elsewhere.

use crate::Result;
use crate::client::{self, set_op};
use crate::random::Random;
use crate::values::Values;
use ppdb::client::{CallOptions, Client};
use std::time::Duration;

/// A request that no safe repetition has settled within this time has failed.
const SETTLED: Duration = Duration::from_secs(30);
/// Sets in one call while the keys are stored. Their bytes stay below what a node lets wait.
const FILL_OPS: usize = 50;
/// Calls in flight meanwhile.
const FILL_IN_FLIGHT: usize = 8;

/// A client and its data.
pub struct Store {
    client: Client,
    values: Values,
    call: CallOptions,
}

impl Store {
    /// Stores nothing yet.
    pub fn new(client: Client, values: Values) -> Self {
        Self { client, values, call: CallOptions { timeout: SETTLED, ..CallOptions::default() } }
    }

    /// Its data.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Stores every key.
    pub async fn fill(&self) -> Result<()> {
        let mut random = Random::new(0);
        let keys: Vec<usize> = (0..self.values.keys()).collect();
        let calls = keys.chunks(FILL_OPS).map(|numbers| {
            let sets = numbers.iter().map(|number| {
                set_op(self.values.key(*number), self.values.value(*number, &mut random))
            });
            sets.collect()
        });
        client::call_all(&self.client, &self.call, calls, FILL_IN_FLIGHT).await
    }

    /// Overwrites a key.
    pub async fn set(&self, number: usize, random: &mut Random) -> Result<()> {
        let (key, value) = (self.values.key(number), self.values.value(number, random));
        client::set(&self.client, &self.call, key, value).await
    }

    /// Reads a key, which was stored and keeps its size.
    pub async fn get(&self, number: usize) -> Result<()> {
        let value = client::get(&self.client, &self.call, self.values.key(number)).await?;
        match value.len() == self.values.size(number) {
            true => Ok(()),
            false => Err(format!("a value of {} bytes", value.len()).into()),
        }
    }
}
