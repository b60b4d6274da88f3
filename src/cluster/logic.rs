//! The metadata group as a replicated state machine: decodes entries, applies them to the state, stores
//! the state as one record, and those of the operation log and of runs beside it, and publishes it.
//!
//! What a command does is decided in `core`.

use super::core::{ClusterState, MetaCommand};
use super::journal::Event;
use super::oplog::{OperationLog, RECORDS_MAX};
use super::runs::{RUNS_MAX, Runs};
use crate::faults::{self, Point};
use crate::raft::{Effect, Logic};
use crate::storage::{Error, Space, View, Writer};
use crate::types::LogPos;
use crate::wire::codec;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::watch;

/// Key of the state in `Space::Meta`.
const STATE_KEY: &[u8] = b"cluster";
/// Key of the counts of what the journal has forgotten, beside it.
const TALLY_KEY: &[u8] = b"tally";
/// Before the place of a record of the operation log, in the same space.
const OPLOG_PREFIX: &[u8] = b"oplog/";
/// Before the number of a run in the key of its record, in the same space.
const RUN_PREFIX: &[u8] = b"run/";

/// Applies metadata entries.
pub struct MetaLogic {
    state: ClusterState,
    published: watch::Sender<Arc<ClusterState>>,
}

impl MetaLogic {
    /// The logic, and the state it publishes after each entry.
    pub fn new() -> (Self, watch::Receiver<Arc<ClusterState>>) {
        let (published, watched) = watch::channel(Arc::default());
        (Self { state: ClusterState::default(), published }, watched)
    }
}

impl Logic for MetaLogic {
    fn load(&mut self, view: &dyn View) -> Result<(), Error> {
        self.state = stored(view, STATE_KEY, "cluster state")?;
        self.state.forgotten = stored(view, TALLY_KEY, "tally of operations")?;
        let records = load_places(view, OPLOG_PREFIX, RECORDS_MAX, "operation log")?;
        self.state.oplog = OperationLog::of(records);
        self.state.runs = load_runs(view)?;
        self.published.send_replace(Arc::new(self.state.clone()));
        Ok(())
    }

    fn apply(
        &mut self,
        _pos: LogPos,
        payload: &Bytes,
        writer: &mut Writer<'_>,
    ) -> Result<Effect, Error> {
        // An entry that cannot be read was written by a newer version or is damaged. Skipping it would
        // let this copy differ from the others, so the group stops here.
        let command: MetaCommand =
            codec::decode(payload).map_err(|e| corrupt("metadata entry", &e))?;
        let is_commit = matches!(command, MetaCommand::Advance { event: Event::Commit, .. });
        if is_commit {
            faults::pass(Point::CommitApply)?;
        }
        let (forgotten, runs) = (self.state.forgotten, self.state.runs.clone());
        let reply = self.state.apply(&command);
        match &command {
            MetaCommand::Record(record) => self.store_record(record.key, writer),
            MetaCommand::Run(_) => self.store_runs(&runs, writer),
            _ => writer.put(Space::Meta, STATE_KEY, codec::encode(&self.state).into()),
        }
        if self.state.forgotten != forgotten {
            writer.put(Space::Meta, TALLY_KEY, codec::encode(&self.state.forgotten).into());
        }
        self.published.send_replace(Arc::new(self.state.clone()));
        if is_commit {
            faults::pass(Point::CommitApplied)?;
        }
        Ok(Effect { replies: vec![codec::encode(&reply).into()], digest: false })
    }
}

/// A stored record; one that was never written is empty.
fn stored<T: Default + DeserializeOwned>(
    view: &dyn View,
    key: &[u8],
    what: &str,
) -> Result<T, Error> {
    match view.get(Space::Meta, key)? {
        Some(bytes) => codec::decode(&bytes).map_err(|e| corrupt(what, &e)),
        None => Ok(T::default()),
    }
}

impl MetaLogic {
    /// A record has a place of its own, which the one that pushes it out of the log takes over.
    fn store_record(&self, key: u64, writer: &mut Writer<'_>) {
        if let Some(record) = self.state.oplog.get(key) {
            let place = place(OPLOG_PREFIX, record.number % RECORDS_MAX as u64);
            writer.put(Space::Meta, &place, codec::encode(record).into());
        }
    }

    /// A run is stored under its number, and what made room for another one is removed.
    fn store_runs(&self, before: &Runs, writer: &mut Writer<'_>) {
        let (changed, gone) = self.state.runs.since(before);
        for run in changed {
            writer.put(Space::Meta, &run_key(run.number), codec::encode(run).into());
        }
        for number in gone {
            writer.delete(Space::Meta, &run_key(number));
        }
    }
}

/// All runs. More than are kept were not written by this program.
fn load_runs(view: &dyn View) -> Result<Runs, Error> {
    let mut stored = Vec::new();
    view.scan(Space::Meta, RUN_PREFIX, None, &mut |_, bytes| {
        stored.push(codec::decode(bytes));
        if stored.len() <= RUNS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if stored.len() > RUNS_MAX {
        let (what, detail) = ("records of runs".into(), format!("more than {RUNS_MAX}"));
        return Err(Error::Corrupt { what, detail });
    }
    let runs: Result<Vec<_>, _> = stored.into_iter().collect();
    runs.map(Runs::of).map_err(|e| corrupt("record of a run", &e))
}

fn run_key(number: u64) -> Vec<u8> {
    [RUN_PREFIX, &number.to_be_bytes()].concat()
}

/// The records at all places of a kind, in no order.
fn load_places<T: DeserializeOwned>(
    view: &dyn View,
    prefix: &[u8],
    places: usize,
    what: &str,
) -> Result<Vec<T>, Error> {
    let mut records = Vec::new();
    for number in 0..places as u64 {
        if let Some(bytes) = view.get(Space::Meta, &place(prefix, number))? {
            records.push(codec::decode(&bytes).map_err(|e| corrupt(what, &e))?);
        }
    }
    Ok(records)
}

fn place(prefix: &[u8], number: u64) -> Vec<u8> {
    [prefix, &(number as u16).to_be_bytes()].concat()
}

fn corrupt(what: &str, error: &codec::Error) -> Error {
    Error::Corrupt { what: what.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::core::tests::record;
    use crate::cluster::journal::OPERATIONS_MAX;
    use crate::cluster::runs::RunEntry;
    use crate::storage::{Applied, Options, Store};
    use crate::wire::client::Strategy;
    use crate::wire::runs::{Book, RunEvent, RunOrder};

    #[test]
    fn everything_that_is_known_is_there_again_after_a_restart() {
        let store = Store::in_memory(Options::default());
        let (mut logic, _) = MetaLogic::new();
        let mut index = 0;
        let mut apply = |logic: &mut MetaLogic, command: &MetaCommand| {
            index += 1;
            let pos = LogPos { index, ..LogPos::default() };
            let mut writer = store.write();
            logic.apply(pos, &codec::encode(command).into(), &mut writer).unwrap();
            writer.commit(Applied { pos: Some(pos), ..Applied::default() });
        };
        apply(&mut logic, &MetaCommand::Form(record(3, 1, 3)));
        for _ in 0..OPERATIONS_MAX + 2 {
            let (to, by, terms) = (Strategy::Full, "test".to_owned(), Default::default());
            apply(
                &mut logic,
                &MetaCommand::Begin { to, by, commit_asked: false, now_ms: 1, terms },
            );
            for event in [Event::Abort { reason: "no".to_owned() }, Event::Settled] {
                let (operation, step) = logic.state.operation().map(|op| (op.id, op.step)).unwrap();
                apply(&mut logic, &MetaCommand::Advance { operation, step, event, now_ms: 2 });
            }
        }
        assert_eq!(logic.state.forgotten.to_full.aborted, 2);
        let mut tell = |logic: &mut MetaLogic, runner, run, sequence, event| {
            let order = RunOrder { runner, run, sequence, event };
            let (by, from) = ("test".to_owned(), String::new());
            apply(logic, &MetaCommand::Run(Box::new(RunEntry { order, by, from, now_ms: 3 })));
        };
        for runner in 1..=RUNS_MAX as u64 + 2 {
            tell(&mut logic, runner, 0, 0, RunEvent::Begin(Book::default()));
            if runner % 2 == 0 {
                tell(&mut logic, runner, runner, 1, RunEvent::End(None));
            }
        }
        // Whoever is about one run takes up another one as well: that changes neither.
        tell(&mut logic, 5, 3, 0, RunEvent::Resume(Book::default()));
        tell(&mut logic, 5, 0, 0, RunEvent::Begin(Book { host: "h".into(), ..Book::default() }));
        tell(&mut logic, 99, 7, 0, RunEvent::Resume(Book::default()));
        assert_eq!(logic.state.runs.latest(usize::MAX).len(), RUNS_MAX);
        assert!(logic.state.runs.get(1).is_some() && logic.state.runs.get(2).is_none());
        let (mut again, _) = MetaLogic::new();
        store.read(|view| again.load(view)).unwrap().unwrap();
        assert_eq!(again.state, logic.state);
    }
}
