//! The functions of `kv`: keys and values as text.

use super::bridge::{Bridge, refused};
use super::failure::Answer;
use super::objects::Kv;
use crate::cli::caller::Caller;
use crate::client::{CallOptions, ScanOptions};
use crate::types::{Code, Condition, Error, Expiry, Op, OpResult, Result, limits};
use bytes::Bytes;
use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use std::sync::Arc;

/// Registers them.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    reading(engine, bridge);
    writing(engine, bridge);
}

fn reading<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("get", move |_: Kv, key: &str| -> Answer {
        look_out(&b, key);
        match b.wait(one(&b, Op::Get { key: key.to_owned().into() }))? {
            OpResult::Value(bytes) => text(key, bytes),
            _ => Ok(Dynamic::UNIT),
        }
    });
    let b = bridge.clone();
    engine.register_fn("exists", move |_: Kv, key: &str| -> Answer<bool> {
        look_out(&b, key);
        let exists = b.wait(one(&b, Op::Exists { key: key.to_owned().into() }))?;
        Ok(exists == OpResult::Bool(true))
    });
    let b = bridge.clone();
    engine.register_fn("scan", move |_: Kv, prefix: &str, limit: i64| -> Answer {
        let most = limits::SCAN_PAGE_MAX as i64;
        if !(1..=most).contains(&limit) {
            return Err(refused(format!("a page has 1 to {most} keys, not {limit}")));
        }
        let prefix = Bytes::from(prefix.to_owned());
        let scan = ScanOptions { prefix, limit: limit as u32, ..ScanOptions::default() };
        let options = CallOptions { timeout: b.request_timeout(), ..CallOptions::default() };
        let page = b.wait(b.caller.scan(&scan, &options))?;
        let entry = |(key, value): (Bytes, Option<Bytes>)| {
            let name = String::from_utf8_lossy(&key).into_owned();
            let value = match value {
                Some(value) => text(&name, value)?,
                None => Dynamic::UNIT,
            };
            let fields = [("key", Dynamic::from(name)), ("value", value)];
            Ok(Dynamic::from_map(fields.map(|(name, value)| (name.into(), value)).into()))
        };
        let entries: Answer<Array> = page.entries.into_iter().map(entry).collect();
        Ok(entries?.into())
    });
}

/// A rehearsed write is not there to be read.
fn look_out<C: Caller>(b: &Bridge<C>, key: &str) {
    if b.is_unwritten(key) {
        b.not_simulated(&format!(
            "kv reads `{key}` as it is now, without the write that is rehearsed"
        ));
    }
}

fn text(key: &str, bytes: Bytes) -> Answer {
    match String::from_utf8(bytes.into()) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(refused(format!("the value of `{key}` is not UTF-8 text"))),
    }
}

fn writing<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn(
        "set",
        move |context: NativeCallContext, _: Kv, key: &str, value: Dynamic| -> Answer<bool> {
            set(&b, &context, key, &value, Expiry::Never)
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "set",
        move |context: NativeCallContext,
              _: Kv,
              key: &str,
              value: Dynamic,
              options: Map|
              -> Answer<bool> {
            let ttl = options.get("ttl").and_then(|ttl| ttl.clone().into_string().ok());
            let (Some(ttl), 1) = (ttl, options.len()) else {
                return Err(refused("the only option of kv.set is `ttl`, such as \"1h\""));
            };
            let after = super::params::duration(&ttl).map_err(super::failure::thrown)?;
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            set(&b, &context, key, &value, Expiry::AfterMs(after_ms))
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "del",
        move |context: NativeCallContext, _: Kv, key: &str| -> Answer<bool> {
            let op = Op::Del { key: key.to_owned().into() };
            Ok(write(&b, &context, "del", key, op)? == OpResult::Bool(true))
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "incr",
        move |context: NativeCallContext, _: Kv, key: &str, by: i64| -> Answer {
            let op = Op::Incr { key: key.to_owned().into(), by };
            match write(&b, &context, "incr", key, op)? {
                OpResult::Int(sum) => Ok(sum.into()),
                _ => Ok(Dynamic::UNIT),
            }
        },
    );
}

fn set<C: Caller>(
    b: &Bridge<C>,
    context: &NativeCallContext<'_>,
    key: &str,
    value: &Dynamic,
    expiry: Expiry,
) -> Answer<bool> {
    let (condition, value) = (Condition::Always, value.to_string().into());
    let op = Op::Set { key: key.to_owned().into(), value, condition, expiry };
    write(b, context, "set", key, op).map(|_| true)
}

fn write<C: Caller>(
    b: &Bridge<C>,
    context: &NativeCallContext<'_>,
    name: &str,
    key: &str,
    op: Op,
) -> Answer<OpResult> {
    b.change(context, &format!("kv.{name}(\"{key}\")"), || {
        if b.is_dry() {
            b.stage.log(&format!("would be ordered: {name} {key}"));
            b.unwritten(key.to_owned());
            return Ok(OpResult::Bool(true));
        }
        b.wait(one(b, op))
    })
}

async fn one<C: Caller>(b: &Bridge<C>, op: Op) -> Result<OpResult> {
    let options = CallOptions { timeout: b.request_timeout(), ..CallOptions::default() };
    let answer = b.caller.call(vec![op], &options).await.into_iter().next();
    let missing = || Err(Error::new(Code::Internal, "an operation without an answer"));
    answer.unwrap_or_else(missing).map(|answer| answer.result)
}
