//! The functions about the cluster and its keys: `status`, `shard_verify`, live settings, `get`, `set`, `del`.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::Answer;
use crate::cli::caller::Caller;
use crate::cli::{admin, settings, verify};
use crate::client::CallOptions;
use crate::types::{Code, Condition, Error, Expiry, Op, OpResult, Result, ShardId};
use crate::wire::command::Command;
use rhai::{Dynamic, Engine, NativeCallContext};
use std::sync::Arc;
use std::time::Instant;

/// Registers them.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    about_the_cluster(engine, bridge);
    live_settings(engine, bridge);
    keys(engine, bridge);
}

fn about_the_cluster<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("status", move || -> Answer {
        let (status, _) = b.wait(admin::status(&*b.caller, None, b.request_timeout()))?;
        Ok(to_script(&admin::status_doc(&status).json))
    });
    let b = bridge.clone();
    engine.register_fn("shard_verify", move |context: NativeCallContext| -> Answer {
        b.step(&context, "shard_verify()", || compare(&b, None))
    });
    let b = bridge.clone();
    engine.register_fn("shard_verify", move |context: NativeCallContext, shard: &str| -> Answer {
        let call = format!("shard_verify(\"{shard}\")");
        b.step(&context, &call, || {
            let number = shard.strip_prefix('s').unwrap_or(shard).parse().map(ShardId);
            let number =
                number.map_err(|_| refused(format!("`{shard}` is not a shard such as s3")));
            compare(&b, Some(number?))
        })
    });
}

fn compare<C: Caller>(b: &Bridge<C>, shard: Option<ShardId>) -> Answer {
    let until = b.until.min(Instant::now() + verify::VERIFY_DEFAULT);
    let compared = b.wait(verify::verify(&*b.caller, shard, until))?;
    Ok(to_script(&verify::doc(&compared).json))
}

fn live_settings<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("config_get", move |name: &str| -> Answer {
        let timeout = b.request_timeout();
        b.wait(async {
            let all = settings::ask(&*b.caller, Command::Settings, timeout).await?;
            settings::find(&all, name).map(|setting| setting.value.clone().into())
        })
    });
    let b = bridge.clone();
    engine.register_fn(
        "config_set",
        move |context: NativeCallContext, name: &str, value: Dynamic| -> Answer {
            let (timeout, value) = (b.request_timeout(), value.to_string());
            let call = format!("config_set(\"{name}\", \"{value}\")");
            b.step(&context, &call, || {
                if b.book.dry_run {
                    b.stage.log(&format!("would be ordered: config set {name} {value}"));
                    return Ok(value.clone().into());
                }
                let order = Command::Set { name: name.to_owned(), value: value.clone() };
                b.wait(async {
                    let all = settings::ask(&*b.caller, order, timeout).await?;
                    settings::find(&all, name).map(|setting| setting.value.clone().into())
                })
            })
        },
    );
}

fn keys<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("get", move |key: &str| -> Answer {
        match b.wait(one(&b, Op::Get { key: key.to_owned().into() }))? {
            OpResult::Value(bytes) => match String::from_utf8(bytes.into()) {
                Ok(text) => Ok(text.into()),
                Err(_) => Err(refused(format!("the value of `{key}` is not UTF-8 text"))),
            },
            _ => Ok(Dynamic::UNIT),
        }
    });
    let b = bridge.clone();
    engine.register_fn(
        "set",
        move |context: NativeCallContext, key: &str, value: Dynamic| -> Answer {
            b.step(&context, &format!("set(\"{key}\")"), || {
                if b.book.dry_run {
                    b.stage.log(&format!("would be ordered: set {key}"));
                    return Ok(true.into());
                }
                let (condition, expiry) = (Condition::Always, Expiry::Never);
                let (key, value) = (key.to_owned().into(), value.to_string().into());
                b.wait(one(&b, Op::Set { key, value, condition, expiry }))?;
                Ok(true.into())
            })
        },
    );
    let b = bridge.clone();
    engine.register_fn("del", move |context: NativeCallContext, key: &str| -> Answer {
        b.step(&context, &format!("del(\"{key}\")"), || {
            if b.book.dry_run {
                b.stage.log(&format!("would be ordered: del {key}"));
                return Ok(true.into());
            }
            let existed = b.wait(one(&b, Op::Del { key: key.to_owned().into() }))?;
            Ok((existed == OpResult::Bool(true)).into())
        })
    });
}

async fn one<C: Caller>(b: &Bridge<C>, op: Op) -> Result<OpResult> {
    let options = CallOptions { timeout: b.request_timeout(), ..CallOptions::default() };
    let answer = b.caller.call(vec![op], &options).await.into_iter().next();
    let missing = || Err(Error::new(Code::Internal, "an operation without an answer"));
    answer.unwrap_or_else(missing).map(|answer| answer.result)
}
