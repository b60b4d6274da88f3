//! What goes into the operation log: every command of an operator that changes something, and who gave it.
//!
//! What only the coordinator carries out is recorded there, before the act. What another node carries out, or
//! refuses by itself, is recorded when it is over.

use super::{Admin, Asker};
use crate::cluster::heard::clock_ms;
use crate::strategy::recorder::ended;
use crate::types::Result;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::StrategyOrder;
use crate::wire::oplog::Record;
use crate::wire::typed::typed;
use std::time::{Duration, Instant};

/// How long an answer that is recorded afterwards waits for its record.
const RECORD_PATIENCE: Duration = Duration::from_millis(500);

impl Admin {
    /// The record of a command that is about to be carried out here; none if it changes nothing.
    pub(super) fn record_of(&self, asker: &Asker, command: &Command) -> Option<Record> {
        let text = typed(command)?;
        let plan = match command {
            Command::Strategy(
                StrategyOrder::Prepare { terms, .. } | StrategyOrder::Switch { terms, .. },
            ) => terms.plan,
            _ => None,
        };
        let operation = match command {
            Command::StrategyOf { operation, .. } => Some(*operation),
            _ => None,
        };
        Some(Record {
            number: 0,
            key: rand::random(),
            by: asker.name.clone(),
            from: asker.from.clone(),
            through: asker.through.clone(),
            node: self.name.clone(),
            command: text,
            plan,
            operation,
            began_ms: clock_ms(),
            took_ms: None,
            outcome: None,
        })
    }

    /// Records a command that is over. Where there is no cluster yet there is no log.
    pub(super) async fn record_ended(
        &self,
        record: Option<Record>,
        began: Instant,
        done: &Result<Answer>,
    ) {
        let (Some(record), Ok(control)) = (record, self.formed()) else { return };
        let record = ended(record, began.elapsed(), done);
        let telling = tokio::spawn(async move { control.coordinator.tell(&record).await });
        let _ = tokio::time::timeout(RECORD_PATIENCE, telling).await;
    }
}
