//! The functions of `strategy`: each is the command of the same name, with the same document; and what an operation
//! can be waited for.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::{Answer, thrown};
use super::objects::StrategyOf;
use super::params::duration;
use super::rehearsal::{holds, rehearsed};
use crate::cli::caller::{Caller, other_answer};
use crate::cli::strategy::follow::{Change, Follow, Goal, Patience, follow, over};
use crate::cli::strategy::order::{Insistence, Taken, give, taken, view};
use crate::cli::strategy::{PLAN_DEFAULT, WAIT_DEFAULT, cost, document, goal, plan, precheck};
use crate::types::{Code, Error, Result};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer as WireAnswer, Command};
use crate::wire::operation::{Operation, Phase, Progress, StrategyOrder};
use crate::wire::plan::{Check, Verdict};
use crate::wire::terms::Terms;
use rhai::{Dynamic, Engine, FnPtr, ImmutableString, Map, NativeCallContext};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at how clients are served.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Registers them.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    questions(engine, bridge);
    targeted(engine, bridge, "prepare", |to, terms| StrategyOrder::Prepare { to, terms });
    // `switch` is a word of the language, also after a dot.
    targeted(engine, bridge, "switch_to", |to, terms| StrategyOrder::Switch { to, terms });
    plain(engine, bridge, "commit", StrategyOrder::Commit);
    plain(engine, bridge, "finalize", StrategyOrder::Finalize);
    reasoned(engine, bridge, "abort", |reason| StrategyOrder::Abort { reason });
    reasoned(engine, bridge, "revert", |reason| StrategyOrder::Revert { reason });
    throttling(engine, bridge);
    waiting(engine, bridge);
}

fn questions<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn(
        "plan",
        move |context: NativeCallContext, _: StrategyOf, to: &str| -> Answer {
            let to = target(to)?;
            b.call(&context, &format!("strategy.plan(\"{}\")", document::name(to)), || {
                let told =
                    b.wait(precheck(&*b.caller, to, b.request_timeout().max(PLAN_DEFAULT)))?;
                let mut json = plan::document(&told).json;
                json["ok"] = json["may_start"].clone();
                json["eta"] = json!(cost::seconds(told.predicted.took_ms));
                json["estimated_impact"] = json["fields"]["estimated_impact"].clone();
                Ok(to_script(&json))
            })
        },
    );
    let b = bridge.clone();
    engine.register_fn("operation", move |_: StrategyOf| -> Answer {
        if let Some(op) = b.rehearsed() {
            return Ok(of_operation(&op, None, None, true));
        }
        let view = b.wait(view(&*b.caller, b.request_timeout()))?;
        let progress = view.progress.as_ref().map(document::progress);
        Ok(view.operation.map_or(Dynamic::UNIT, |op| of_operation(&op, None, progress, false)))
    });
    let b = bridge.clone();
    engine.register_fn("current", move |_: StrategyOf| -> Answer {
        let view = b.wait(view(&*b.caller, b.request_timeout()))?;
        let holding = match b.rehearsed() {
            Some(op) => holds(&view, Some(&op)),
            None => view.strategy,
        };
        Ok(document::name(holding).into())
    });
    let b = bridge.clone();
    engine.register_fn("history", move |_: StrategyOf| -> Answer {
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

/// `name(to)`, `name(to, options)` and `name(plan)`, where a plan is what `strategy.plan` answered.
fn targeted<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: fn(Strategy, Terms) -> StrategyOrder,
) {
    let b = bridge.clone();
    engine.register_fn(
        name,
        move |context: NativeCallContext, _: StrategyOf, to: &str| -> Answer {
            begin(&b, &context, name, to, Map::new(), order)
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        name,
        move |context: NativeCallContext, _: StrategyOf, to: &str, options: Map| -> Answer {
            begin(&b, &context, name, to, options, order)
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        name,
        move |context: NativeCallContext, _: StrategyOf, plan: Map| -> Answer {
            let to = plan.get("to").and_then(|to| to.clone().into_string().ok());
            let (Some(to), Some(id)) = (to, plan.get("plan")) else {
                return Err(refused(format!(
                    "strategy.{name} takes \"full\", \"sharded\" or a plan"
                )));
            };
            if id.is_unit() {
                let why = "the precheck said no, so there is no plan to go by";
                return Err(thrown(Error::new(Code::PrecheckFailed, why)));
            }
            let options = Map::from([("plan".into(), id.clone())]);
            begin(&b, &context, name, &to, options, order)
        },
    );
}

fn begin<C: Caller>(
    b: &Bridge<C>,
    context: &NativeCallContext<'_>,
    name: &str,
    to: &str,
    options: Map,
    order: fn(Strategy, Terms) -> StrategyOrder,
) -> Answer {
    b.change(context, &format!("strategy.{name}(\"{to}\")"), || {
        carry_out(b, order(target(to)?, terms(options)?))
    })
}

/// `name()`.
fn plain<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: StrategyOrder,
) {
    let b = bridge.clone();
    engine.register_fn(name, move |context: NativeCallContext, _: StrategyOf| -> Answer {
        b.change(&context, &format!("strategy.{name}()"), || carry_out(&b, order.clone()))
    });
}

/// `name(reason)`: the journal keeps why.
fn reasoned<C: Caller>(
    engine: &mut Engine,
    bridge: &Arc<Bridge<C>>,
    name: &'static str,
    order: fn(String) -> StrategyOrder,
) {
    let b = bridge.clone();
    engine.register_fn(
        name,
        move |context: NativeCallContext, _: StrategyOf, reason: &str| -> Answer {
            let call = format!("strategy.{name}(\"{reason}\")");
            b.change(&context, &call, || carry_out(&b, order(reason.to_owned())))
        },
    );
}

/// `throttle("8MiB")`; `throttle("default")` gives the rate back to the setting.
fn throttling<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn(
        "throttle",
        move |context: NativeCallContext, _: StrategyOf, rate: &str| -> Answer {
            b.change(&context, &format!("strategy.throttle(\"{rate}\")"), || {
                let copy_bytes_per_s = match rate {
                    "default" => None,
                    rate => Some(crate::types::units::bytes(rate).map_err(refused)?),
                };
                carry_out(&b, StrategyOrder::Throttle { copy_bytes_per_s })
            })
        },
    );
}

/// What an operation can be waited for: `op.wait()`, `op.wait("30m")`, `op.wait("30m", |s| s.p99_ms < 5.0)`,
/// `op.wait_for("prepared", "30m")`.
fn waiting<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("wait", move |context: NativeCallContext, op: Map| -> Answer {
        b.call(&context, "wait()", || wait(&b, &op, goal_of(&op), WAIT_DEFAULT))
    });
    let b = bridge.clone();
    engine.register_fn(
        "wait",
        move |context: NativeCallContext, op: Map, timeout: &str| -> Answer {
            b.call(&context, &format!("wait(\"{timeout}\")"), || {
                wait(&b, &op, goal_of(&op), duration(timeout).map_err(thrown)?)
            })
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "wait_for",
        move |context: NativeCallContext, op: Map, until: &str, timeout: &str| -> Answer {
            b.call(&context, &format!("wait_for(\"{until}\")"), || {
                let timeout = duration(timeout).map_err(thrown)?;
                wait(&b, &op, Goal::Phase(phase(until)?), timeout)
            })
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "wait",
        move |context: NativeCallContext, op: Map, timeout: &str, holds: FnPtr| -> Answer {
            b.change(&context, &format!("wait(\"{timeout}\", …)"), || {
                let timeout = duration(timeout).map_err(thrown)?;
                let holds =
                    |service: Dynamic| holds.call_within_context::<bool>(&context, (service,));
                wait_while(&b, &op, timeout, &holds)
            })
        },
    );
}

/// The phase that the order behind an operation leads to, or wherever it rests.
fn goal_of(op: &Map) -> Goal {
    let named = op.get("goal").and_then(|goal| goal.clone().into_string().ok());
    named.and_then(|name| phase(&name).ok()).map_or(Goal::Rest, Goal::Phase)
}

fn id_of(op: &Map) -> Answer<u64> {
    let id = op.get("id").and_then(|id| id.as_int().ok()).and_then(|id| u64::try_from(id).ok());
    id.ok_or_else(|| refused("only an operation can be waited for"))
}

/// The plan and the checks that an order is given with: `#{ plan: "P-17", skip: ["load"] }`.
fn terms(mut options: Map) -> Answer<Terms> {
    let mut terms = Terms::default();
    if let Some(plan) = options.remove("plan") {
        let named = plan.clone().into_string().ok().and_then(|text| text.parse().ok());
        terms.plan =
            Some(named.ok_or_else(|| refused(format!("`plan: {plan}` is no plan such as P-17")))?);
    }
    if let Some(skip) = options.remove("skip") {
        let names = skip.clone().into_typed_array::<ImmutableString>();
        let bad = |_| refused(format!("`skip: {skip}` is no list such as [\"load\"]"));
        terms.skipped = names.map_err(bad)?.into_iter().map(|name| name.to_string()).collect();
    }
    match options.keys().next() {
        Some(odd) => Err(refused(format!("`{odd}` is no option: plan, skip"))),
        None => Ok(terms),
    }
}

/// Gives an order; answers when it is journaled.
fn carry_out<C: Caller>(b: &Bridge<C>, order: StrategyOrder) -> Answer {
    if b.is_dry() {
        return rehearse(b, &order);
    }
    let until = b.until();
    let op = match given_before(b, &order)? {
        Some(op) => op,
        None => b.wait(async {
            let insistence = Insistence::until(until, true);
            give(&*b.caller, &order, &insistence).await.map(|(op, _)| op)
        })?,
    };
    b.concerns(op.id);
    b.changed(&Change::of(&op, None));
    Ok(of_operation(&op, Some(goal(&order)), None, false))
}

/// In a step that is run once more: the operation, if the order was taken the first time. An operation that began
/// before this run is somebody else's.
fn given_before<C: Caller>(b: &Bridge<C>, order: &StrategyOrder) -> Answer<Option<Operation>> {
    let (Some(open), Some(recorder)) = (b.in_step(), &b.recorder) else { return Ok(None) };
    if !open.again {
        return Ok(None);
    }
    let now = b.wait(view(&*b.caller, b.request_timeout()))?.operation;
    let since = recorder.run.began_ms;
    let before = now.as_ref().filter(|op| op.times.started_ms < since);
    let begins = matches!(order, StrategyOrder::Prepare { .. } | StrategyOrder::Switch { .. });
    let before = if begins { before } else { now.as_ref() };
    match taken(order, before, now.as_ref()) {
        Taken::Yes(op) if !begins || !given_up(op.phase) => {
            b.stage.log(&format!("the order was taken before: operation {}", op.id));
            Ok(Some(*op))
        }
        _ => Ok(None),
    }
}

fn given_up(phase: Phase) -> bool {
    matches!(phase, Phase::Aborting | Phase::Aborted | Phase::Reverting | Phase::Reverted)
}

fn wait<C: Caller>(b: &Bridge<C>, op: &Map, goal: Goal, timeout: Duration) -> Answer {
    let id = id_of(op)?;
    if let Some(op) = b.rehearsed() {
        return Ok(of_operation(&op, None, None, true));
    }
    let until = b.until().min(Instant::now() + timeout);
    let first = b.wait(named(b, id))?;
    b.concerns(id);
    let mut following = Follow::new(id, goal);
    let (patience, shown) = (Patience::until(until), |change: &Change| b.changed(change));
    let ended = b.wait(follow(&*b.caller, &mut following, &first, &patience, &shown))?;
    Ok(of_operation(&ended, None, None, false))
}

/// Waits while clients are served well enough; else the operation is given up, or taken back after its commit point.
fn wait_while<C: Caller>(
    b: &Bridge<C>,
    op: &Map,
    timeout: Duration,
    holds: &dyn Fn(Dynamic) -> Answer<bool>,
) -> Answer {
    let (id, goal) = (id_of(op)?, goal_of(op));
    if b.is_dry() {
        b.not_simulated("how clients are served while the operation is under way");
        return wait(b, op, goal, timeout);
    }
    let until = b.until().min(Instant::now() + timeout);
    loop {
        let seen = b.wait(view(&*b.caller, b.request_timeout()))?;
        let now = match seen.operation {
            Some(op) if op.id == id => op,
            _ => b.wait(named(b, id))?,
        };
        b.changed(&Change::of(&now, seen.progress.as_ref()));
        if let Some(over) = over(goal, &now) {
            return over.map(|()| of_operation(&now, None, None, false)).map_err(thrown);
        }
        if !holds(service_of(&now, seen.progress.as_ref()))? {
            let reason = "a runbook's condition on how clients are served did not hold".to_owned();
            let (order, word) = match now.phase < Phase::Committing {
                true => (StrategyOrder::Abort { reason }, "abort"),
                false => (StrategyOrder::Revert { reason }, "revert"),
            };
            b.stage.log(&format!("the condition does not hold: strategy {word}"));
            let back = carry_out(b, order)?.cast::<Map>();
            let _ =
                wait(b, &back, goal_of(&back), until.saturating_duration_since(Instant::now()))?;
            let message = format!("operation {id} was taken back: a condition did not hold");
            return Err(thrown(Error::new(Code::Undone, message)));
        }
        if Instant::now() >= until {
            let message = format!("operation {id} is {} and goes on", now.phase.name());
            return Err(thrown(Error::new(Code::Unknown, message)));
        }
        b.sleep(LOOK_EVERY)?;
    }
}

/// What a condition is asked about; without requests there is no latency, and it counts as 0.
fn service_of(op: &Operation, progress: Option<&Progress>) -> Dynamic {
    let p99_us = progress.and_then(|progress| progress.service.p99_us()).unwrap_or(0);
    let gap_ms = progress.map_or(0, |progress| progress.write_gap_ms);
    let errors = progress.map_or(0, |progress| progress.service.errors);
    to_script(&json!({
        "phase": op.phase.name(), "p99_ms": p99_us as f64 / 1_000.0, "write_gap_ms": gap_ms,
        "errors": errors,
    }))
}

/// The operation of that number: the latest, or one of the history.
async fn named<C: Caller>(b: &Bridge<C>, id: u64) -> Result<Operation> {
    let latest = view(&*b.caller, b.request_timeout()).await?.operation;
    if let Some(op) = latest.filter(|op| op.id == id) {
        return Ok(op);
    }
    match b.caller.command(Command::StrategyHistory, None, b.request_timeout()).await? {
        (WireAnswer::History(all), _) => all.into_iter().find(|op| op.id == id),
        _ => return Err(other_answer()),
    }
    .ok_or_else(|| Error::new(Code::NotFound, format!("the journal has no operation {id}")))
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
    Ok(of_operation(&op, Some(goal(order)), None, true))
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

/// An operation as a script sees it: the document, where its order leads, how far it is, and whether a dry run
/// pretends it.
fn of_operation(
    op: &Operation,
    goal: Option<Phase>,
    progress: Option<Json>,
    pretended: bool,
) -> Dynamic {
    let mut json = document::operation(op);
    json["goal"] = json!(goal.map(Phase::name));
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
