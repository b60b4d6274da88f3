//! The switch between strategies, as the command line and the shell give it: each command is one `Command`
//! to the cluster, and then at most waiting.
//!
//! `order` gives an order until it is known whether it was taken, `follow` waits, `document` and `plan` are
//! what is answered. What a switch is, and everything that happens in it, is decided by the cluster.

pub mod bar;
pub mod cost;
pub mod document;
pub mod follow;
pub mod order;
pub mod plan;

use super::args::strategy::{Rate, Strategy as Verb, Wait};
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::value::Answered;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::client::Strategy;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{Operation, Phase, StrategyOrder};
use crate::wire::plan::{PlanHead, Precheck, Verdict};
use follow::{Follow, Goal, Patience};
use order::Insistence;
use std::time::Duration;

/// How long a command waits for its operation unless `--timeout` on the same line says otherwise.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(600);
/// How long `strategy plan` may take unless told otherwise: the cluster is measured first.
pub const PLAN_DEFAULT: Duration = Duration::from_secs(15);
/// How long `strategy watch` follows unless told otherwise.
pub const WATCH_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// How long a command may take, unless told otherwise; none if it is answered at once.
pub fn patience(verb: &Verb) -> Option<Duration> {
    match verb {
        Verb::Watch => Some(WATCH_DEFAULT),
        Verb::Plan { .. } => Some(PLAN_DEFAULT),
        verb => verb.waits().then_some(WAIT_DEFAULT),
    }
}

/// The phase that an order leads to; one that changes nothing but a rate leads nowhere.
pub fn goal(order: &StrategyOrder) -> Phase {
    match order {
        StrategyOrder::Throttle { .. } => Phase::Planned,
        StrategyOrder::Prepare { .. } => Phase::Prepared,
        StrategyOrder::Commit | StrategyOrder::Switch { .. } => Phase::Soaking,
        StrategyOrder::Abort { .. } => Phase::Aborted,
        StrategyOrder::Revert { .. } => Phase::Reverted,
        StrategyOrder::Finalize => Phase::Finalized,
    }
}

/// Carries out one command.
pub async fn run<C: Caller>(caller: &C, verb: Verb, call: &Call) -> Result<Answered> {
    let (order, meant, wait) = match verb {
        Verb::Show => return show(caller, call).await,
        Verb::Plan { to } => return plan(caller, to.into(), call).await,
        Verb::Plans => return plans(caller, call).await,
        Verb::History => return history(caller, call).await,
        Verb::Watch => return watch(caller, call).await,
        Verb::Prepare { to, terms, wait, .. } => {
            (StrategyOrder::Prepare { to: to.into(), terms: terms.into() }, None, wait)
        }
        Verb::Switch { to, terms, wait, .. } => {
            (StrategyOrder::Switch { to: to.into(), terms: terms.into() }, None, wait)
        }
        Verb::Commit { meant, wait, .. } => (StrategyOrder::Commit, meant.operation, wait),
        Verb::Abort { reason, meant, wait, .. } => {
            (StrategyOrder::Abort { reason }, meant.operation, wait)
        }
        Verb::Revert { reason, meant, wait, .. } => {
            (StrategyOrder::Revert { reason }, meant.operation, wait)
        }
        Verb::Finalize { meant, wait, .. } => (StrategyOrder::Finalize, meant.operation, wait),
        Verb::Throttle { rate: Rate(copy_bytes_per_s), meant } => {
            let order = StrategyOrder::Throttle { copy_bytes_per_s };
            (order, meant.operation, Wait { no_wait: true })
        }
    };
    let insistence = Insistence::until(call.deadline, !call.globals.no_retry);
    let (op, by) = order::give_to(caller, &order, meant, &insistence).await?;
    let op = match wait {
        Wait { no_wait: true } => op,
        Wait { no_wait: false } => wait_for(caller, &op, Goal::Phase(goal(&order)), call).await?,
    };
    Ok(Answered::doc(document::ordered(&op), by))
}

async fn show<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    let view = order::view(caller, call.left()).await?;
    let shards = caller.map().await?.shards.len();
    Ok(Answered::doc(document::view(&view, shards), None))
}

async fn plan<C: Caller>(caller: &C, to: Strategy, call: &Call) -> Result<Answered> {
    let precheck = measured(caller, to, call).await?;
    let yes = precheck.verdict != Verdict::NoGo;
    Ok(Answered { yes, ..Answered::doc(plan::document(&precheck), None) })
}

/// The same for a person, who is told why it takes some seconds.
pub async fn measured<C: Caller>(caller: &C, to: Strategy, call: &Call) -> Result<Precheck> {
    call.talk.progress("the cluster is measured, which takes some seconds");
    let precheck = precheck(caller, to, call.left()).await;
    call.talk.close_line();
    precheck
}

/// Whether a switch may start now.
pub async fn precheck<C: Caller>(caller: &C, to: Strategy, timeout: Duration) -> Result<Precheck> {
    match caller.command(Command::Precheck { to }, None, timeout).await? {
        (Answer::Precheck(precheck), _) => Ok(precheck),
        _ => Err(other_answer()),
    }
}

async fn plans<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    let (all, by) = kept_plans(caller, call.globals.node.as_ref(), call.left()).await?;
    Ok(Answered::doc(plan::list(&all), Some(by)))
}

/// The plans that are kept, and who says so.
pub async fn kept_plans<C: Caller>(
    caller: &C,
    node: Option<&NodeName>,
    timeout: Duration,
) -> Result<(Vec<PlanHead>, NodeName)> {
    match caller.command(Command::Plans, node, timeout).await? {
        (Answer::Plans(all), by) => Ok((all, by)),
        _ => Err(other_answer()),
    }
}

async fn history<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    match caller.command(Command::StrategyHistory, None, call.left()).await? {
        (Answer::History(all), by) => Ok(Answered::doc(document::history(&all), Some(by))),
        _ => Err(other_answer()),
    }
}

async fn watch<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    let insistence = Insistence::until(call.deadline, !call.globals.no_retry);
    let ask = async || order::view(caller, call.left().min(Duration::from_secs(2))).await;
    let view = order::patiently(&insistence, ask).await?;
    let Some(op) = view.operation else {
        return Err(Error::new(Code::NotFound, "there was no operation yet; nothing to watch"));
    };
    let op = wait_for(caller, &op, Goal::Rest, call).await?;
    let yes = !matches!(op.phase, Phase::Aborted | Phase::Reverted);
    Ok(Answered { yes, ..Answered::doc(document::ordered(&op), None) })
}

async fn wait_for<C: Caller>(
    caller: &C,
    op: &Operation,
    goal: Goal,
    call: &Call,
) -> Result<Operation> {
    let mut following = Follow::new(op.id, goal);
    following.every_look = call.talk.is_redrawn();
    let patience = Patience::until(call.deadline);
    let shown = |change: &follow::Change| call.talk.changed(change);
    let ended = follow::follow(caller, &mut following, op, &patience, &shown).await;
    call.talk.ended();
    ended
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
