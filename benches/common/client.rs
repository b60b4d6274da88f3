//! The client library as benches use it: a set, a get, and many sets at once. When to send which, and what its
//! time means, is decided by whoever calls.

use crate::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use ppdb::client::{CallOptions, Client};
use ppdb::types::{Condition, Expiry, Op, OpResult};

/// The operation that sets a key.
pub fn set_op(key: Bytes, value: Bytes) -> Op {
    Op::Set { key, value, condition: Condition::Always, expiry: Expiry::Never }
}

/// Sets a key.
pub async fn set(client: &Client, call: &CallOptions, key: Bytes, value: Bytes) -> Result<()> {
    match one(client, call, set_op(key, value)).await? {
        OpResult::Done => Ok(()),
        other => Err(format!("set answered {other:?}").into()),
    }
}

/// The value of a key, which has to be there.
pub async fn get(client: &Client, call: &CallOptions, key: Bytes) -> Result<Bytes> {
    match one(client, call, Op::Get { key }).await? {
        OpResult::Value(value) => Ok(value),
        other => Err(format!("get answered {other:?}").into()),
    }
}

/// Carries out calls of several operations each, so many of them at a time; an error if any operation failed.
pub async fn call_all(
    client: &Client,
    call: &CallOptions,
    calls: impl Iterator<Item = Vec<Op>>,
    in_flight: usize,
) -> Result<()> {
    let calls = calls.map(|ops| client.call(ops, call));
    let mut calls = futures_util::stream::iter(calls).buffer_unordered(in_flight);
    while let Some(answers) = calls.next().await {
        answers.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    }
    Ok(())
}

async fn one(client: &Client, call: &CallOptions, op: Op) -> Result<OpResult> {
    let answer = client.call(vec![op], call).await.pop();
    Ok(answer.ok_or("no answer")??.result)
}
