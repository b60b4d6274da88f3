//! The functions about the strategy: each is the command of the same name, with the same document.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::{Answer, thrown};
use super::params::duration;
use super::rehearsal::{holds, rehearsed};
use crate::cli::caller::{Caller, other_answer};
use crate::cli::strategy::follow::{Change, Follow, Goal, Patience, follow};
use crate::cli::strategy::order::{Insistence, give, view};
use crate::cli::strategy::{PLAN_DEFAULT, WAIT_DEFAULT, document, goal, plan, precheck};
use crate::types::{Code, Error, Result};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer as WireAnswer, Command};
use crate::wire::operation::{Operation, Phase, StrategyOrder};
use crate::wire::plan::{Check, Verdict};
use crate::wire::terms::Terms;
use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a call waits, and for how long: `#{ wait: false }`, `#{ timeout: "2h" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    wait: bool,
    timeout: Duration,
}

impl Waiting {
    fn usual() -> Self {
        Waiting { wait: true, timeout: WAIT_DEFAULT }
    }

    fn read(options: &Map) -> Answer<Self> {
        let mut waiting = Self::usual();
        for (name, value) in options {
            match (name.as_str(), value.as_bool(), value.clone().into_string()) {
                ("wait", Ok(wait), _) => waiting.wait = wait,
                ("timeout", _, Ok(text)) => waiting.timeout = duration(&text).map_err(thrown)?,
                ("wait" | "timeout", ..) => {
                    return Err(refused(format!(
                        "`{name}: {value}` is not `wait: false` or `timeout: \"2h\"`"
                    )));
                }
                _ => return Err(refused(format!("`{name}` is no option: wait, timeout"))),
            }
        }
        Ok(waiting)
    }
}

/// What a switch may be asked for with: how long to wait, and `#{ plan: "P-17", skip: ["load"] }`.
struct Asked {
    waiting: Waiting,
    terms: Terms,
}

impl Asked {
    fn read(mut options: Map) -> Answer<Self> {
        let mut terms = Terms::default();
        if let Some(plan) = options.remove("plan") {
            let named = plan.clone().into_string().ok().and_then(|text| text.parse().ok());
            let plan =
                named.ok_or_else(|| refused(format!("`plan: {plan}` is no plan such as P-17")))?;
            terms.plan = Some(plan);
        }
        if let Some(skip) = options.remove("skip") {
            let names = skip.clone().into_typed_array::<ImmutableString>();
            let bad = |_| refused(format!("`skip: {skip}` is no list such as [\"load\"]"));
            terms.skipped = names.map_err(bad)?.into_iter().map(|name| name.to_string()).collect();
        }
        Ok(Asked { waiting: Waiting::read(&options)?, terms })
    }
}

/// Registers them.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    questions(engine, bridge);
    targeted(engine, bridge, "prepare", |to, terms| StrategyOrder::Prepare { to, terms });
    // `switch` is a word of the language.
    targeted(engine, bridge, "switch_to", |to, terms| StrategyOrder::Switch { to, terms });
    plain(engine, bridge, "commit", StrategyOrder::Commit);
    plain(engine, bridge, "finalize", StrategyOrder::Finalize);
    reasoned(engine, bridge, "abort", |reason| StrategyOrder::Abort { reason });
    reasoned(engine, bridge, "revert", |reason| StrategyOrder::Revert { reason });
    watching(engine, bridge);
}

fn questions<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("precheck", move |context: NativeCallContext, to: &str| -> Answer {
        let to = target(to)?;
        b.step(&context, &format!("precheck(\"{}\")", document::name(to)), || {
            let told = b.wait(precheck(&*b.caller, to, b.request_timeout().max(PLAN_DEFAULT)))?;
            Ok(to_script(&plan::document(&told).json))
        })
    });
    let b = bridge.clone();
    engine.register_fn("operation", move || -> Answer {
        if let Some(op) = b.rehearsed() {
            return Ok(of_operation(&op, None, true));
        }
        let view = b.wait(view(&*b.caller, b.request_timeout()))?;
        let progress = view.progress.as_ref().map(document::progress);
        Ok(view.operation.map_or(Dynamic::UNIT, |op| of_operation(&op, progress, false)))
    });
    let b = bridge.clone();
    engine.register_fn("strategy", move || -> Answer {
        let view = b.wait(view(&*b.caller, b.request_timeout()))?;
        let holding = match b.rehearsed() {
            Some(op) => holds(&view, Some(&op)),
            None => view.strategy,
        };
        Ok(document::name(holding).into())
    });
    let b = bridge.clone();
    engine.register_fn("history", move || -> Answer {
        let timeout = b.request_timeout();
        let all = b.wait(async {
            match b.caller.command(Command::StrategyHistory, None, timeout).await? {
                (WireAnswer::History(all), _) => Ok(all),
                _ => Err(other_answer()),
            }
        })?;
        Ok(to_script(&document::history(&all).json))
    });
}

/// `name(to)` and `name(to, options)`.
fn targeted<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: fn(Strategy, Terms) -> StrategyOrder,
) {
    let b = bridge.clone();
    engine.register_fn(name, move |context: NativeCallContext, to: &str| -> Answer {
        let call = format!("{name}(\"{to}\")");
        b.step(&context, &call, || {
            carry_out(&b, order(target(to)?, Terms::default()), Waiting::usual())
        })
    });
    let b = bridge.clone();
    engine.register_fn(name, move |context: NativeCallContext, to: &str, options: Map| -> Answer {
        let call = format!("{name}(\"{to}\")");
        b.step(&context, &call, || {
            let Asked { waiting, terms } = Asked::read(options)?;
            carry_out(&b, order(target(to)?, terms), waiting)
        })
    });
}

/// `name()` and `name(options)`.
fn plain<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: StrategyOrder,
) {
    let (b, given) = (bridge.clone(), order.clone());
    engine.register_fn(name, move |context: NativeCallContext| -> Answer {
        let call = format!("{name}()");
        b.step(&context, &call, || carry_out(&b, given.clone(), Waiting::usual()))
    });
    let b = bridge.clone();
    engine.register_fn(name, move |context: NativeCallContext, options: Map| -> Answer {
        let call = format!("{name}()");
        b.step(&context, &call, || carry_out(&b, order.clone(), Waiting::read(&options)?))
    });
}

/// `name(reason)` and `name(reason, options)`: the journal keeps why.
fn reasoned<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: fn(String) -> StrategyOrder,
) {
    let b = bridge.clone();
    engine.register_fn(name, move |context: NativeCallContext, reason: &str| -> Answer {
        let call = format!("{name}(\"{reason}\")");
        b.step(&context, &call, || carry_out(&b, order(reason.to_owned()), Waiting::usual()))
    });
    let b = bridge.clone();
    engine.register_fn(
        name,
        move |context: NativeCallContext, reason: &str, options: Map| -> Answer {
            let call = format!("{name}(\"{reason}\")");
            b.step(&context, &call, || {
                carry_out(&b, order(reason.to_owned()), Waiting::read(&options)?)
            })
        },
    );
}

/// `watch()`, `watch(phase)`, `watch(phase, timeout)`.
fn watching<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("watch", move |context: NativeCallContext| -> Answer {
        b.step(&context, "watch()", || watch(&b, Goal::Rest, WAIT_DEFAULT))
    });
    let b = bridge.clone();
    engine.register_fn("watch", move |context: NativeCallContext, until: &str| -> Answer {
        let call = format!("watch(\"{until}\")");
        b.step(&context, &call, || watch(&b, Goal::Phase(phase(until)?), WAIT_DEFAULT))
    });
    let b = bridge.clone();
    engine.register_fn(
        "watch",
        move |context: NativeCallContext, until: &str, timeout: &str| -> Answer {
            let call = format!("watch(\"{until}\")");
            b.step(&context, &call, || {
                let timeout = duration(timeout).map_err(thrown)?;
                watch(&b, Goal::Phase(phase(until)?), timeout)
            })
        },
    );
}

/// Gives an order and, unless told otherwise, waits until it has led where it should.
fn carry_out<C: Caller>(b: &Bridge<C>, order: StrategyOrder, waiting: Waiting) -> Answer {
    if b.book.dry_run {
        return rehearse(b, &order);
    }
    let until = b.until.min(Instant::now() + waiting.timeout);
    let op = b.wait(async {
        let insistence = Insistence::until(until, true);
        give(&*b.caller, &order, &insistence).await.map(|(op, _)| op)
    })?;
    if waiting.wait {
        return wait_for(b, &op, Goal::Phase(goal(&order)), until);
    }
    b.changed(&Change::of(&op, None));
    Ok(of_operation(&op, None, false))
}

fn watch<C: Caller>(b: &Bridge<C>, goal: Goal, timeout: Duration) -> Answer {
    if let Some(op) = b.rehearsed() {
        return Ok(of_operation(&op, None, true));
    }
    let until = b.until.min(Instant::now() + timeout);
    let op = b.wait(latest(b))?;
    wait_for(b, &op, goal, until)
}

async fn latest<C: Caller>(b: &Bridge<C>) -> Result<Operation> {
    let view = view(&*b.caller, b.request_timeout()).await?;
    view.operation.ok_or_else(|| Error::new(Code::NotFound, "there was no operation yet"))
}

fn wait_for<C: Caller>(b: &Bridge<C>, op: &Operation, goal: Goal, until: Instant) -> Answer {
    let mut following = Follow::new(op.id, goal);
    let (patience, shown) = (Patience::until(until), |change: &Change| b.changed(change));
    let ended = b.wait(follow(&*b.caller, &mut following, op, &patience, &shown))?;
    Ok(of_operation(&ended, None, false))
}

/// What would be done: a beginning is prechecked, everything else is only pretended.
fn rehearse<C: Caller>(b: &Bridge<C>, order: &StrategyOrder) -> Answer {
    if let StrategyOrder::Prepare { to, terms } | StrategyOrder::Switch { to, terms } = order {
        let told = b.wait(precheck(&*b.caller, *to, b.request_timeout().max(PLAN_DEFAULT)))?;
        let no =
            |check: &&Check| check.verdict == Verdict::NoGo && !terms.skipped.contains(&check.name);
        let against = told.checks.iter().find(no);
        if let Some(check) = against {
            let message = format!("{}: {}", check.name, check.message);
            return Err(thrown(Error::new(Code::PrecheckFailed, message)));
        }
    }
    let view = b.wait(view(&*b.caller, b.request_timeout()))?;
    let latest = b.rehearsed().or_else(|| view.operation.clone());
    let op = rehearsed(order, &view, latest.as_ref()).map_err(thrown)?;
    let (from, to) = (document::name(op.from), document::name(op.to));
    b.stage.log(&format!("would be ordered: {} ({from} -> {to})", words(order)));
    b.rehearse(op.clone());
    Ok(of_operation(&op, None, true))
}

fn words(order: &StrategyOrder) -> &'static str {
    match order {
        StrategyOrder::Prepare { .. } => "strategy prepare",
        StrategyOrder::Commit => "strategy commit",
        StrategyOrder::Switch { .. } => "strategy switch",
        StrategyOrder::Abort { .. } => "strategy abort",
        StrategyOrder::Revert { .. } => "strategy revert",
        StrategyOrder::Finalize => "strategy finalize",
        StrategyOrder::Throttle { .. } => "strategy throttle",
    }
}

/// An operation as a script sees it: the document, how far it is, and whether a dry run pretends it.
fn of_operation(op: &Operation, progress: Option<Json>, pretended: bool) -> Dynamic {
    let mut json = document::operation(op);
    json["progress"] = progress.unwrap_or(Json::Null);
    json["pretended"] = json!(pretended);
    to_script(&json)
}

fn target(text: &str) -> Answer<Strategy> {
    match text {
        "full" => Ok(Strategy::Full),
        "sharded" => Ok(Strategy::Sharded),
        other => Err(refused(format!("`{other}` is no strategy: full or sharded"))),
    }
}

fn phase(text: &str) -> Answer<Phase> {
    const ALL: [Phase; 13] = [
        Phase::Planned,
        Phase::Checkpointed,
        Phase::Copying,
        Phase::CaughtUp,
        Phase::Prepared,
        Phase::Committing,
        Phase::Soaking,
        Phase::Finalizing,
        Phase::Finalized,
        Phase::Aborting,
        Phase::Aborted,
        Phase::Reverting,
        Phase::Reverted,
    ];
    ALL.into_iter().find(|phase| phase.name() == text).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|phase| phase.name()).collect();
        refused(format!("`{text}` is no phase; there are: {}", names.join(", ")))
    })
}
