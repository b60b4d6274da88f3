//! What the operation behind an order can be waited for: where it leads, a phase, or as long as clients are served well.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::{Answer, thrown};
use super::orders::{carry_out, of_operation};
use super::params::duration;
use crate::cli::caller::{Caller, other_answer};
use crate::cli::strategy::WAIT_DEFAULT;
use crate::cli::strategy::follow::{Change, Follow, Goal, Patience, follow, over};
use crate::cli::strategy::order::view;
use crate::types::{Code, Error, Result};
use crate::wire::command::{Answer as WireAnswer, Command};
use crate::wire::operation::{Operation, Phase, Progress, StrategyOrder};
use rhai::{Dynamic, Engine, FnPtr, Map, NativeCallContext};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks at how clients are served.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What an operation can be waited for: `op.wait()`, `op.wait("30m")`, `op.wait("30m", |s| s.p99_ms < 5.0)`,
/// `op.wait_for("prepared", "30m")`.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
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

/// A phase by its name.
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
