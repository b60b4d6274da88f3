//! The operation log: the last operations of operators, as every member of the metadata group keeps them. Pure and
//! deterministic, like `core`.
//!
//! A record comes twice: before its operation is carried out, and with its outcome. Which operations have one is
//! not decided here.

use super::core::ClusterState;
use crate::types::{Code, Error};
use crate::wire::oplog::{Outcome, Record};
use std::collections::VecDeque;
use std::sync::Arc;

/// Records kept. The oldest makes room for a new one.
pub const RECORDS_MAX: usize = 256;
/// Bytes of the text of an order, and of the message of an outcome; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of who asked, and of the address that the order came from; the same.
const ASKER_BYTES_MAX: usize = 128;

/// The log, oldest record first, with numbers that follow each other. Clones share it until one is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OperationLog {
    records: Arc<VecDeque<Record>>,
}

impl OperationLog {
    /// The log with these records, in whatever order they were found.
    pub fn of(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| record.number);
        Self { records: Arc::new(records.into()) }
    }

    /// The latest records, newest first.
    pub fn latest(&self, limit: usize) -> Vec<Record> {
        self.records.iter().rev().take(limit).cloned().collect()
    }

    /// The record with that key.
    pub fn get(&self, key: u64) -> Option<&Record> {
        self.records.iter().rev().find(|record| record.key == key)
    }

    /// Records without an outcome.
    pub fn open(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.outcome.is_none())
    }

    /// Keeps a record, or notes its outcome if its key is known. Repeating either changes nothing.
    fn keep(&mut self, record: &Record) {
        match self.get(record.key) {
            Some(known) if !settles(known.outcome.as_ref(), record.outcome.as_ref()) => {}
            Some(_) => self.settle(record),
            None => self.push(record),
        }
    }

    fn push(&mut self, record: &Record) {
        let records = Arc::make_mut(&mut self.records);
        let number = records.back().map_or(1, |last| last.number.saturating_add(1));
        records.push_back(Record { number, ..bounded(record) });
        if records.len() > RECORDS_MAX {
            records.pop_front();
        }
    }

    fn settle(&mut self, record: &Record) {
        let records = Arc::make_mut(&mut self.records);
        let Some(known) = records.iter_mut().rfind(|known| known.key == record.key) else { return };
        let settled = bounded(record);
        known.outcome = settled.outcome;
        known.took_ms = settled.took_ms;
        known.plan = settled.plan.or(known.plan);
        known.operation = settled.operation.or(known.operation);
    }

    /// What must hold after every command.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut pairs = self.records.iter().zip(self.records.iter().skip(1));
        let follow = pairs.all(|(one, next)| one.number.checked_add(1) == Some(next.number));
        match follow && self.records.len() <= RECORDS_MAX {
            true => Ok(()),
            false => Err("the operation log is too long, or has gaps".into()),
        }
    }
}

/// What was lost may be found again: its node went on, and was only no longer the one that keeps the log.
fn settles(known: Option<&Outcome>, told: Option<&Outcome>) -> bool {
    match (known, told) {
        (None, Some(_)) => true,
        (Some(Outcome::Lost), Some(told)) => *told != Outcome::Lost,
        _ => false,
    }
}

fn bounded(record: &Record) -> Record {
    let cut = |text: &str, bytes_max| text[..text.floor_char_boundary(bytes_max)].to_owned();
    let outcome = match &record.outcome {
        Some(Outcome::Failed { code, message }) => {
            Some(Outcome::Failed { code: *code, message: cut(message, TEXT_BYTES_MAX) })
        }
        other => other.clone(),
    };
    Record {
        by: cut(&record.by, ASKER_BYTES_MAX),
        from: cut(&record.from, ASKER_BYTES_MAX),
        command: cut(&record.command, TEXT_BYTES_MAX),
        outcome,
        ..record.clone()
    }
}

impl ClusterState {
    /// Keeps a record of the operation log. The epoch stays: what operators did is no reason to make a plan anew.
    pub(super) fn keep_record(&mut self, record: &Record) -> Result<(), Error> {
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        self.oplog.keep(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::core::tests::record as formation;
    use super::super::{MetaCommand, MetaReply};
    use super::*;
    use crate::types::NodeName;
    use crate::wire::terms::PlanId;

    fn begun(key: u64) -> Record {
        Record {
            number: 0,
            key,
            by: "user ann".into(),
            from: "10.0.0.9:5000".into(),
            through: None,
            node: NodeName::new("n1").unwrap(),
            command: format!("strategy commit --operation {key}"),
            plan: None,
            operation: None,
            began_ms: 1_000 + key,
            took_ms: None,
            outcome: None,
        }
    }

    fn ended(key: u64, outcome: Outcome) -> Record {
        let (plan, operation) = (Some(PlanId(3)), Some(7));
        Record { took_ms: Some(4), outcome: Some(outcome), plan, operation, ..begun(key) }
    }

    fn formed() -> ClusterState {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(formation(3, 1, 12)));
        state
    }

    fn keep(state: &mut ClusterState, record: Record) {
        let command = MetaCommand::Record(Box::new(record));
        assert_eq!(state.apply(&command), MetaReply::Done { epoch: 1 });
        state.check().unwrap();
        let once = state.clone();
        state.apply(&command);
        assert_eq!(*state, once, "keeping it twice changes nothing");
    }

    #[test]
    fn a_record_is_begun_and_gets_its_outcome() {
        let mut state = formed();
        keep(&mut state, begun(9));
        assert_eq!(state.oplog.open().count(), 1);
        keep(&mut state, ended(9, Outcome::Ok));
        assert_eq!(state.oplog.open().count(), 0);
        let kept = state.oplog.get(9).unwrap();
        assert_eq!((kept.number, kept.took_ms), (1, Some(4)));
        assert_eq!((kept.plan, kept.operation), (Some(PlanId(3)), Some(7)));
        // An outcome is final.
        let message = "late".to_owned();
        keep(&mut state, ended(9, Outcome::Failed { code: Code::Unknown, message }));
        keep(&mut state, ended(9, Outcome::Lost));
        assert_eq!(state.oplog.get(9).unwrap().outcome, Some(Outcome::Ok));
    }

    #[test]
    fn what_was_given_up_as_lost_may_still_be_told() {
        let mut state = formed();
        keep(&mut state, begun(9));
        keep(&mut state, Record { outcome: Some(Outcome::Lost), ..begun(9) });
        assert_eq!(state.oplog.get(9).unwrap().outcome, Some(Outcome::Lost));
        keep(&mut state, ended(9, Outcome::Ok));
        assert_eq!(state.oplog.get(9).unwrap().outcome, Some(Outcome::Ok));
    }

    #[test]
    fn one_that_comes_ended_is_kept_as_it_is() {
        let mut state = formed();
        keep(&mut state, ended(5, Outcome::Ok));
        assert_eq!(state.oplog.latest(9).len(), 1);
        assert_eq!(state.oplog.open().count(), 0);
    }

    #[test]
    fn the_log_is_short_and_its_numbers_follow_each_other() {
        let mut state = formed();
        for key in 1..=RECORDS_MAX as u64 + 3 {
            keep(&mut state, begun(key));
        }
        let all = state.oplog.latest(usize::MAX);
        assert_eq!(all.len(), RECORDS_MAX);
        assert_eq!((all[0].number, all[0].key), (259, 259));
        assert_eq!(all[RECORDS_MAX - 1].number, 4);
        assert_eq!(state.oplog.latest(2).len(), 2);
        let mut found = all.clone();
        found.rotate_left(99);
        assert_eq!(OperationLog::of(found), state.oplog);
    }

    #[test]
    fn texts_are_bounded_between_characters() {
        let mut state = formed();
        let long = Record { by: "ü".repeat(99), command: "x".repeat(5_000), ..begun(1) };
        keep(&mut state, long);
        let kept = state.oplog.get(1).unwrap();
        assert_eq!((kept.by.len(), kept.command.len()), (ASKER_BYTES_MAX, TEXT_BYTES_MAX));
        let message = "y".repeat(5_000);
        keep(&mut state, ended(1, Outcome::Failed { code: Code::Denied, message }));
        let Some(Outcome::Failed { message, .. }) = &state.oplog.get(1).unwrap().outcome else {
            panic!("it failed");
        };
        assert_eq!(message.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn nothing_is_kept_where_there_is_no_cluster() {
        let mut state = ClusterState::default();
        let reply = state.apply(&MetaCommand::Record(Box::new(begun(1))));
        assert!(matches!(reply, MetaReply::Refused(error) if error.code == Code::NotFormed));
        assert_eq!(state, ClusterState::default());
    }
}
