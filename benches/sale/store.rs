//! The cluster as a program sees it: sets and gets through the client library, repeated where that is safe.
//!
//! Says how one request ended. When to send which, and what its time means, is decided elsewhere.

use crate::Result;
use crate::random::Random;
use crate::values::Values;
use futures_util::StreamExt as _;
use ppdb::client::{CallOptions, Client};
use ppdb::types::{Condition, Expiry, Op, OpResult};
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
            let ops = numbers.iter().map(|number| self.set_op(*number, &mut random)).collect();
            self.client.call(ops, &self.call)
        });
        let mut calls = futures_util::stream::iter(calls).buffer_unordered(FILL_IN_FLIGHT);
        while let Some(answers) = calls.next().await {
            answers.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        }
        Ok(())
    }

    /// Overwrites a key.
    pub async fn set(&self, number: usize, random: &mut Random) -> Result<()> {
        match self.one(self.set_op(number, random)).await? {
            OpResult::Done => Ok(()),
            other => Err(format!("set answered {other:?}").into()),
        }
    }

    /// Reads a key, which was stored and keeps its size.
    pub async fn get(&self, number: usize) -> Result<()> {
        match self.one(Op::Get { key: self.values.key(number) }).await? {
            OpResult::Value(value) if value.len() == self.values.size(number) => Ok(()),
            OpResult::Value(value) => Err(format!("a value of {} bytes", value.len()).into()),
            other => Err(format!("get answered {other:?}").into()),
        }
    }

    fn set_op(&self, number: usize, random: &mut Random) -> Op {
        let (key, value) = (self.values.key(number), self.values.value(number, random));
        Op::Set { key, value, condition: Condition::Always, expiry: Expiry::Never }
    }

    async fn one(&self, op: Op) -> Result<OpResult> {
        let answer = self.client.call(vec![op], &self.call).await.pop();
        Ok(answer.ok_or("no answer")??.result)
    }
}
