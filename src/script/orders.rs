//! The functions of `strategy`: each is the command of the same name, with the same document.
//!
//! Waiting for what an order leads to is in `waits`.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::{Answer, thrown};
use super::objects::StrategyOf;
use super::rehearsal::{holds, rehearsed};
use crate::cli::caller::{Caller, other_answer};
use crate::cli::strategy::follow::Change;
use crate::cli::strategy::order::{Insistence, Taken, give, taken, view};
use crate::cli::strategy::{PLAN_DEFAULT, cost, document, goal, kept_plans, plan, precheck};
use crate::types::{Code, Error};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer as WireAnswer, Command};
use crate::wire::operation::{Operation, Phase, StrategyOrder};
use crate::wire::plan::{Check, Verdict};
use crate::wire::terms::Terms;
use rhai::{Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use serde_json::{Value as Json, json};
use std::sync::Arc;

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
                json["in_peak"] = json!(in_peak(&told.checks));
                json["estimated_impact"] = json["fields"]["estimated_impact"].clone();
                Ok(to_script(&json))
            })
        },
    );
    let b = bridge.clone();
    engine.register_fn("plans", move |_: StrategyOf| -> Answer {
        let (all, _) = b.wait(kept_plans(&*b.caller, None, b.request_timeout()))?;
        Ok(to_script(&plan::list(&all).json))
    });
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

/// Whether this is a busy hour; none where that check was not made.
fn in_peak(checks: &[Check]) -> Option<bool> {
    let judged = checks.iter().find(|check| check.name == "off_peak");
    judged.map(|check| check.verdict != Verdict::Go)
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
pub fn carry_out<C: Caller>(b: &Bridge<C>, order: StrategyOrder) -> Answer {
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
pub fn of_operation(
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
