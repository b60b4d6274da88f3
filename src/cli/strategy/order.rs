//! Giving an order, until it is known whether it was taken.
//!
//! A client library sends a command once. If the answer is lost, the journal tells whether the order was
//! taken, because ids of operations only rise and one operation runs at a time; only an order that was not
//! taken is given again. What the journal says is judged by `taken`, which is pure.

use super::super::caller::{Caller, other_answer};
use super::document::name;
use crate::types::{Class, Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{Operation, Phase, StrategyOrder, StrategyView};
use std::time::{Duration, Instant};

/// How long an order that is refused for the moment, or whose answer was lost, is given again: the
/// coordinator may be moving to another node.
const INSIST: Duration = Duration::from_secs(20);
/// One request waits this long: the answer comes when the order is journaled, and in front of a switch the
/// cluster is measured.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// How an order is given.
#[derive(Clone, Copy, Debug)]
pub struct Insistence {
    /// The end of all attempts.
    pub until: Instant,
    /// Between two attempts.
    pub pause: Duration,
    /// False: one attempt.
    pub again: bool,
}

impl Insistence {
    /// As usual, but not beyond `deadline`.
    pub fn until(deadline: Instant, again: bool) -> Self {
        Self { until: deadline.min(Instant::now() + INSIST), pause: PAUSE, again }
    }

    fn timeout(&self) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        left.min(REQUEST_TIMEOUT).max(Duration::from_millis(1))
    }
}

/// What the journal says of an order whose answer was lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// It was taken: this is its operation.
    Yes(Box<Operation>),
    /// Not so far. It may be given again.
    NotYet,
    /// It was not, and somebody else's order came first: giving it again would mean another operation.
    Overtaken,
}

/// What became of an order, from the latest operation before it was given and the latest one now.
pub fn taken(order: &StrategyOrder, before: Option<&Operation>, now: Option<&Operation>) -> Taken {
    let newer = now.filter(|op| before.is_none_or(|before| op.id > before.id));
    let same = now.filter(|op| before.is_some_and(|before| op.id == before.id));
    let phases: &[Phase] = match order {
        StrategyOrder::Prepare { to, .. } | StrategyOrder::Switch { to, .. } => {
            return match newer {
                Some(op) if op.to == *to => Taken::Yes(Box::new(op.clone())),
                Some(_) => Taken::Overtaken,
                None => Taken::NotYet,
            };
        }
        StrategyOrder::Commit => {
            &[Phase::Committing, Phase::Soaking, Phase::Finalizing, Phase::Finalized]
        }
        StrategyOrder::Throttle { copy_bytes_per_s } => {
            return match (same, newer) {
                (Some(op), _) if op.copy_bytes_per_s == *copy_bytes_per_s => {
                    Taken::Yes(Box::new(op.clone()))
                }
                (None, Some(_)) => Taken::Overtaken,
                _ => Taken::NotYet,
            };
        }
        StrategyOrder::Abort { .. } => &[Phase::Aborting, Phase::Aborted],
        StrategyOrder::Revert { .. } => &[Phase::Reverting, Phase::Reverted],
        StrategyOrder::Finalize => &[Phase::Finalizing, Phase::Finalized],
    };
    let asked = |op: &Operation| *order == StrategyOrder::Commit && op.commit_asked;
    match (same, newer) {
        (Some(op), _) if asked(op) && op.phase <= Phase::Prepared => {
            Taken::Yes(Box::new(op.clone()))
        }
        (Some(op), _) if phases.contains(&op.phase) => Taken::Yes(Box::new(op.clone())),
        (None, Some(_)) => Taken::Overtaken,
        _ => Taken::NotYet,
    }
}

/// Gives an order and answers its operation as journaled. It means the operation that is the latest now, and is
/// refused if another one comes in between.
pub async fn give<C: Caller>(
    caller: &C,
    order: &StrategyOrder,
    insistence: &Insistence,
) -> Result<(Operation, Option<NodeName>)> {
    give_to(caller, order, None, insistence).await
}

/// The same for an operation that is named.
pub async fn give_to<C: Caller>(
    caller: &C,
    order: &StrategyOrder,
    meant: Option<u64>,
    insistence: &Insistence,
) -> Result<(Operation, Option<NodeName>)> {
    let before = patiently(insistence, async || view(caller, insistence.timeout()).await).await?;
    let before = before.operation;
    let meant = meant.or(before.as_ref().map(|op| op.id));
    let mut lost: Option<Error> = None;
    loop {
        let command = command(order.clone(), meant);
        let error = match caller.command(command, None, insistence.timeout()).await {
            Ok((Answer::Operation(op), by)) => return Ok((*op, Some(by))),
            Ok(_) => return Err(other_answer()),
            Err(error) => error,
        };
        if !insistence.again {
            return Err(error);
        }
        if error.class() == Class::Uncertain {
            lost = Some(error.clone());
        }
        // A refusal after a lost answer may be the echo of the first attempt.
        if lost.is_some() {
            match view(caller, insistence.timeout()).await {
                Ok(now) => match taken(order, before.as_ref(), now.operation.as_ref()) {
                    Taken::Yes(op) => return Ok((*op, None)),
                    Taken::Overtaken => return Err(overtaken(now.operation.as_ref())),
                    Taken::NotYet => {}
                },
                Err(error) if error.class() == Class::Fix => return Err(error),
                Err(_) => {}
            }
        }
        if !passes(&error) {
            return Err(error);
        }
        if Instant::now() + insistence.pause >= insistence.until {
            return Err(lost.map_or(error, unsettled));
        }
        tokio::time::sleep(insistence.pause).await;
    }
}

/// An order as it is sent: one that begins an operation means none.
fn command(order: StrategyOrder, meant: Option<u64>) -> Command {
    let begins = matches!(order, StrategyOrder::Prepare { .. } | StrategyOrder::Switch { .. });
    match meant.filter(|_| !begins) {
        Some(operation) => Command::StrategyOf { operation, order },
        None => Command::Strategy(order),
    }
}

/// The strategy, the latest operation, and how far it is.
pub async fn view<C: Caller>(caller: &C, timeout: Duration) -> Result<StrategyView> {
    match caller.command(Command::StrategyShow, None, timeout).await? {
        (Answer::StrategyView(view), _) => Ok(*view),
        _ => Err(other_answer()),
    }
}

/// Asks a harmless question again while the refusal may pass.
pub async fn patiently<T>(
    insistence: &Insistence,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let late = Instant::now() + insistence.pause >= insistence.until;
        if !passes(&error) || !insistence.again || late {
            return Err(error);
        }
        tokio::time::sleep(insistence.pause).await;
    }
}

/// True if the same order may succeed by itself soon. What is not safe now is told at once: a person
/// should know what is waited for.
fn passes(error: &Error) -> bool {
    match error.code {
        Code::NotSafeNow => false,
        _ => matches!(error.class(), Class::Retry | Class::Uncertain),
    }
}

fn unsettled(error: Error) -> Error {
    let message = format!("{}; `strategy show` tells whether the order was taken", error.message);
    Error { message, ..error }
}

fn overtaken(now: Option<&Operation>) -> Error {
    let message = match now {
        Some(op) => format!(
            "another order came first: operation {}, to {}, by {}, is {}",
            op.id,
            name(op.to),
            op.by,
            op.phase.name()
        ),
        None => "another order came first".to_owned(),
    };
    Error::new(Code::OperationConflict, message)
}

#[cfg(test)]
#[path = "order_tests.rs"]
mod tests;
