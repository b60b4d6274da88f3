//! The things of a cluster that a script names: `cluster`, `nodes`, `shards` and `replicas`, and how all of them become
//! names of the language.
//!
//! `strategy` is in `orders`, `kv` in `keys`.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::Answer;
use crate::cli::caller::{Caller, other_answer};
use crate::cli::{admin, settings, verify};
use crate::types::{NodeName, ShardId};
use crate::wire::command::{Answer as WireAnswer, Command, Status};
use rhai::{Dynamic, Engine, Map, NativeCallContext, Scope};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The cluster as a whole.
#[derive(Clone, Copy)]
pub struct Cluster;
/// Its nodes.
#[derive(Clone, Copy)]
pub struct Nodes;
/// Its shards.
#[derive(Clone, Copy)]
pub struct Shards;
/// The copies of its shards.
#[derive(Clone, Copy)]
pub struct Replicas;
/// How its data is placed.
#[derive(Clone, Copy)]
pub struct StrategyOf;
/// Keys and values.
#[derive(Clone, Copy)]
pub struct Kv;

fn all() -> [(&'static str, Dynamic); 6] {
    [
        ("cluster", Dynamic::from(Cluster)),
        ("strategy", Dynamic::from(StrategyOf)),
        ("shards", Dynamic::from(Shards)),
        ("replicas", Dynamic::from(Replicas)),
        ("nodes", Dynamic::from(Nodes)),
        ("kv", Dynamic::from(Kv)),
    ]
}

/// The names as a script is compiled with them.
pub fn names() -> Scope<'static> {
    let mut scope = Scope::new();
    for (name, value) in all() {
        scope.push_constant_dynamic(name, value);
    }
    scope
}

/// The same while it runs: known everywhere, also inside functions and closures, unless the script has a variable of that
/// name.
pub fn install(engine: &mut Engine) {
    engine
        .register_type_with_name::<Cluster>("Cluster")
        .register_type_with_name::<StrategyOf>("Strategy")
        .register_type_with_name::<Shards>("Shards")
        .register_type_with_name::<Replicas>("Replicas")
        .register_type_with_name::<Nodes>("Nodes")
        .register_type_with_name::<Kv>("Kv");
    let known: BTreeMap<&str, Dynamic> = all().into();
    // Marked as what may change with the next version; the one in use is pinned.
    #[allow(deprecated)]
    engine.on_var(move |name, index, context| {
        let own = index > 0 || context.scope().contains(name);
        Ok(known.get(name).filter(|_| !own).cloned())
    });
}

/// Registers what they can do.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    about_the_cluster(engine, bridge);
    live_settings(engine, bridge);
    about_nodes(engine, bridge);
    about_shards(engine, bridge);
    about_copies(engine, bridge);
}

fn status<C: Caller>(b: &Bridge<C>) -> Answer<Status> {
    b.wait(admin::status(&*b.caller, None, b.request_timeout())).map(|(status, _)| status)
}

fn about_the_cluster<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("status", move |_: Cluster| -> Answer {
        Ok(to_script(&admin::status_doc(&status(&b)?).json))
    });
    let b = bridge.clone();
    engine.register_fn("name", move |_: Cluster| -> Answer<String> { Ok(status(&b)?.cluster) });
    let b = bridge.clone();
    engine.register_fn("epoch", move |_: Cluster| -> Answer<i64> {
        Ok(status(&b)?.epoch.cast_signed())
    });
    let b = bridge.clone();
    engine.register_fn("alarms", move |_: Cluster| -> Answer {
        let json = admin::status_doc(&status(&b)?).json;
        Ok(to_script(&json["alarms"]))
    });
    let b = bridge.clone();
    engine.register_fn("can_lose", move |_: Cluster, primaries: i64| -> Answer<bool> {
        Ok(i64::from(status(&b)?.may_fail_without_loss) >= primaries)
    });
    let b = bridge.clone();
    engine.register_fn("is_healthy", move |_: Cluster| -> Answer<bool> {
        let status = status(&b)?;
        Ok(status.shards_leaderless.is_empty() && status.nodes.iter().all(|node| node.up))
    });
}

fn live_settings<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("setting", move |_: Cluster, name: &str| -> Answer {
        let timeout = b.request_timeout();
        if b.is_unwritten(name) {
            b.not_simulated(&format!("cluster.setting(\"{name}\") is what is set now"));
        }
        b.wait(async {
            let all = settings::ask(&*b.caller, Command::Settings, timeout).await?;
            settings::find(&all, name).map(|setting| setting.value.clone().into())
        })
    });
    let b = bridge.clone();
    engine.register_fn(
        "configure",
        move |context: NativeCallContext, _: Cluster, name: &str, value: Dynamic| -> Answer {
            let (timeout, value) = (b.request_timeout(), value.to_string());
            let call = format!("cluster.configure(\"{name}\", \"{value}\")");
            b.change(&context, &call, || {
                if b.is_dry() {
                    b.stage.log(&format!("would be ordered: config set {name} {value}"));
                    b.unwritten(name.to_owned());
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

/// A node as a script sees it; an error if there is none of that name.
fn node(status: &Status, name: &str) -> Answer<Json> {
    let all = admin::status_doc(status).json["nodes"].take();
    let found = all.as_array().into_iter().flatten().find(|node| node["name"] == name).cloned();
    found.ok_or_else(|| {
        let names: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
        refused(format!("there is no node `{name}`; there are: {}", names.join(", ")))
    })
}

fn about_nodes<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("all", move |_: Nodes| -> Answer {
        Ok(to_script(&admin::status_doc(&status(&b)?).json["nodes"]))
    });
    let b = bridge.clone();
    engine.register_fn("names", move |_: Nodes| -> Answer {
        let names: Vec<String> =
            status(&b)?.nodes.into_iter().map(|node| node.name.to_string()).collect();
        Ok(to_script(&json!(names)))
    });
    let b = bridge.clone();
    engine.register_fn("get", move |_: Nodes, name: &str| -> Answer {
        Ok(to_script(&node(&status(&b)?, name)?))
    });
    let b = bridge.clone();
    engine.register_fn("is_up", move |_: Nodes, name: &str| -> Answer<bool> {
        Ok(node(&status(&b)?, name)?["up"] == json!(true))
    });
    let b = bridge.clone();
    engine.register_fn("info", move |_: Nodes, name: &str| -> Answer {
        let named = NodeName::new(name).map_err(refused)?;
        let timeout = b.request_timeout();
        let info = b.wait(async {
            match b.caller.command(Command::Info, Some(&named), timeout).await? {
                (WireAnswer::Info(info), _) => Ok(info),
                _ => Err(other_answer()),
            }
        })?;
        Ok(to_script(&admin::info_doc(&info).json))
    });
}

fn about_shards<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("map", move |_: Shards| -> Answer {
        let map = b.wait(b.caller.map())?;
        Ok(to_script(&admin::map_doc(&map).json["shards"]))
    });
    let b = bridge.clone();
    engine.register_fn("leaderless", move |_: Shards| -> Answer {
        Ok(to_script(&admin::status_doc(&status(&b)?).json["shards_leaderless"]))
    });
    let b = bridge.clone();
    engine.register_fn("verify", move |context: NativeCallContext, _: Shards| -> Answer {
        b.call(&context, "shards.verify()", || compare(&b, None))
    });
    let b = bridge.clone();
    engine.register_fn(
        "verify",
        move |context: NativeCallContext, _: Shards, shard: &str| -> Answer {
            let call = format!("shards.verify(\"{shard}\")");
            b.call(&context, &call, || {
                let number = shard.strip_prefix('s').unwrap_or(shard).parse().map(ShardId);
                let number =
                    number.map_err(|_| refused(format!("`{shard}` is not a shard such as s3")));
                compare(&b, Some(number?))
            })
        },
    );
}

fn compare<C: Caller>(b: &Bridge<C>, shard: Option<ShardId>) -> Answer {
    if b.rehearsed().is_some() {
        b.not_simulated("shards.verify() compares the copies that there are now");
    }
    // Half of the time that is left: whoever compares wants to hear of a copy that does not answer.
    let left = b.until().saturating_duration_since(Instant::now());
    let until = Instant::now() + verify::VERIFY_DEFAULT.min(left / 2);
    let compared = b.wait(verify::verify(&*b.caller, shard, until))?;
    Ok(to_script(&verify::doc(&compared).json))
}

fn about_copies<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("lag", move |_: Replicas| -> Answer {
        let timeout = b.request_timeout();
        Ok(to_script(&b.wait(admin::lags(&*b.caller, None, timeout))?.json))
    });
    let b = bridge.clone();
    engine.register_fn(
        "verify",
        move |context: NativeCallContext, _: Replicas, options: Map| -> Answer {
            b.call(&context, "replicas.verify()", || super::samples::verify(&b, options))
        },
    );
}
