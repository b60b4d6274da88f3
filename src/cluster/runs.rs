//! Records of runs: what the last runbooks did, as every member of the metadata group keeps it. Pure and deterministic,
//! like `core`.
//!
//! A record is made of events, which come in order, from one runner, and from whoever began or resumed the run. What a
//! runner does when an event is refused is not decided here: it stops.

mod bounds;

pub use bounds::{NAME_BYTES_MAX, NOTES_MAX, RESULT_BYTES_MAX, RUN_BYTES_MAX, STEPS_MAX, fitted};

use super::core::ClusterState;
use crate::types::{Code, Error};
use crate::wire::codec;
use crate::wire::command::Answer;
use crate::wire::runs::{
    Book, Resumed, Run, RunEnd, RunEvent, RunHead, RunNote, RunOrder, RunStep, StepEnd,
};
use bounds::{CLOSING_BYTES, END_BYTES, RESERVE_BYTES, cut, leaves, too_much};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Runs kept. The oldest that is over makes room for a new one.
pub const RUNS_MAX: usize = 64;
/// The step in which a run cleans up after a failure. No other step has this name.
pub const ON_FAILURE: &str = "on failure";
/// A run without an event for this long is over although nobody said so: no script may take that long.
const SILENT_MS: u64 = 25 * 60 * 60 * 1_000;
/// How often a run may be taken up; after that it has to be run anew.
const RESUMED_MAX: usize = 16;

/// An event with who told it, from where and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// What happened.
    pub order: RunOrder,
    /// Who asked: `user ann`.
    pub by: String,
    /// The address that it came from, `host:port`.
    pub from: String,
    /// In milliseconds since 1970 by the clock of the coordinator.
    pub now_ms: u64,
}

/// The runs, oldest first, with numbers that rise. Clones share them until one is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Runs {
    runs: Arc<VecDeque<Arc<Run>>>,
}

impl Runs {
    /// These runs, in whatever order they were found.
    pub fn of(mut runs: Vec<Run>) -> Self {
        runs.sort_by_key(|run| run.number);
        Self { runs: Arc::new(runs.into_iter().map(Arc::new).collect()) }
    }

    /// The latest, newest first.
    pub fn latest(&self, limit: usize) -> Vec<RunHead> {
        self.runs.iter().rev().take(limit).map(|run| run.head()).collect()
    }

    /// The run with that number.
    pub fn get(&self, number: u64) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.number == number).map(|run| &**run)
    }

    /// The run as everybody may see it: without its runner, which is what a runner proves itself by.
    pub fn shown(&self, number: u64) -> Option<Run> {
        self.get(number).map(|run| Run { runner: 0, ..run.clone() })
    }

    /// The run that this runner is about.
    pub fn of_runner(&self, runner: u64) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.runner == runner).map(|run| &**run)
    }

    /// What these have and the ones before had not, or had otherwise; and the numbers that are gone.
    pub fn since<'a>(&'a self, before: &Runs) -> (Vec<&'a Run>, Vec<u64>) {
        let same = |run: &&Arc<Run>| before.runs.iter().any(|old| Arc::ptr_eq(old, run));
        let changed = self.runs.iter().filter(|run| !same(run)).map(|run| &**run);
        let gone = before.runs.iter().map(|run| run.number).filter(|old| self.get(*old).is_none());
        (changed.collect(), gone.collect())
    }

    /// What whoever told an event that was taken is answered.
    pub fn answer(&self, order: &RunOrder) -> Result<Answer, Error> {
        match &order.event {
            RunEvent::Begin(_) | RunEvent::Resume(_) => {
                let found = self.of_runner(order.runner).cloned();
                found.map(|run| Answer::Run(Box::new(run))).ok_or_else(|| {
                    Error::new(Code::Superseded, "somebody else has taken up the run in between")
                })
            }
            RunEvent::StepEnded { index, .. } => {
                let step = self.get(order.run).and_then(|run| run.steps.get(*index as usize));
                let end = step.and_then(|step| step.end.as_ref());
                Ok(Answer::StepKept { result: end.is_some_and(|end| end.result.is_some()) })
            }
            _ => Ok(Answer::Ordered),
        }
    }

    fn begin(&mut self, entry: &RunEntry, book: &Book) -> Result<(), Error> {
        let runner = entry.order.runner;
        if let Some(known) = self.of_runner(runner) {
            let is_same = known.resumed.is_empty() && known.by == entry.by && known.book == *book;
            return if is_same { Ok(()) } else { Err(has_another(known)) };
        }
        let number = self.runs.back().map_or(1, |last| last.number.saturating_add(1));
        let room = match self.runs.len() < RUNS_MAX {
            true => None,
            false => Some(self.makes_room(entry).ok_or_else(all_open)?),
        };
        let runs = Arc::make_mut(&mut self.runs);
        if let Some(at) = room {
            runs.remove(at);
        }
        runs.push_back(Arc::new(Run {
            number,
            runner,
            by: entry.by.clone(),
            from: entry.from.clone(),
            book: book.clone(),
            began_ms: entry.now_ms,
            steps: Vec::new(),
            notes: Vec::new(),
            resumed: Vec::new(),
            end: None,
            events: 0,
        }));
        Ok(())
    }

    /// Which one goes for the run that an entry begins: the oldest that is over. Where none is, whoever holds more than
    /// half of all makes room for anybody else, with the one that was silent longest: who may only look can begin runs, and
    /// shall keep nobody from them.
    fn makes_room(&self, entry: &RunEntry) -> Option<usize> {
        let over = self.runs.iter().position(|run| is_over(run, entry.now_ms));
        let held = |by: &String| self.runs.iter().filter(|run| holder(run) == by).count();
        let spare = |run: &Run| *holder(run) != entry.by && held(holder(run)) > RUNS_MAX / 2;
        let spares = || self.runs.iter().enumerate().filter(|(_, run)| spare(run));
        over.or_else(|| spares().min_by_key(|(_, run)| last_ms(run)).map(|(at, _)| at))
    }

    fn resume(&mut self, entry: &RunEntry, book: &Book) -> Result<(), Error> {
        let runner = entry.order.runner;
        let known = self.known(&entry.order)?;
        if known.runner == runner {
            return from_its_holder(known, entry);
        }
        if let Some(another) = self.of_runner(runner) {
            return Err(has_another(another));
        }
        may_be_resumed(known)?;
        let mut changed = known.clone();
        (changed.runner, changed.events, changed.end) = (runner, 0, None);
        changed.book.sha256 = book.sha256.clone();
        changed.resumed.push(Resumed {
            at_ms: entry.now_ms,
            by: entry.by.clone(),
            from: entry.from.clone(),
            host: book.host.clone(),
        });
        leaves(&changed, RESERVE_BYTES)?;
        self.put(changed);
        Ok(())
    }

    /// Takes the event of a run that was begun or resumed.
    fn take(&mut self, entry: &RunEntry) -> Result<(), Error> {
        let RunOrder { runner, run, sequence, event } = &entry.order;
        let known = self.known(&entry.order)?;
        if known.runner != *runner {
            let message = format!("somebody else has taken up RUN-{run}: this one may not go on");
            return Err(Error::new(Code::Superseded, message));
        }
        from_its_holder(known, entry)?;
        if *sequence <= known.events {
            return Ok(());
        }
        if *sequence != known.events + 1 {
            return Err(bad(format!("event {sequence} of RUN-{run} came before the one in front")));
        }
        let mut changed = known.clone();
        changed.events = *sequence;
        happen(&mut changed, event, entry.now_ms)?;
        self.put(changed);
        Ok(())
    }

    fn known(&self, order: &RunOrder) -> Result<&Run, Error> {
        let missing =
            || Error::new(Code::NotFound, format!("there is no record of RUN-{}", order.run));
        self.get(order.run).ok_or_else(missing)
    }

    fn put(&mut self, changed: Run) {
        let runs = Arc::make_mut(&mut self.runs);
        if let Some(run) = runs.iter_mut().rfind(|run| run.number == changed.number) {
            *run = Arc::new(changed);
        }
    }

    /// What must hold after every command.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut pairs = self.runs.iter().zip(self.runs.iter().skip(1));
        let rise = pairs.all(|(one, next)| one.number < next.number);
        let runners: BTreeSet<u64> = self.runs.iter().map(|run| run.runner).collect();
        let small = |run: &Arc<Run>| {
            codec::encode(&**run).len() <= RUN_BYTES_MAX
                && run.steps.len() <= STEPS_MAX + 1
                && run.notes.len() <= NOTES_MAX
        };
        let few = self.runs.len() <= RUNS_MAX && self.runs.iter().all(small);
        match rise && few && runners.len() == self.runs.len() {
            true => Ok(()),
            false => Err("the records of runs are too many, too long, or out of order, or two have one runner".into()),
        }
    }
}

/// Whether nobody goes on with a run: it has ended, or nothing was heard of it for longer than a script may take.
fn is_over(run: &Run, now_ms: u64) -> bool {
    run.end.is_some() || now_ms.saturating_sub(last_ms(run)) >= SILENT_MS
}

/// When a run was heard of last.
fn last_ms(run: &Run) -> u64 {
    let steps = run
        .steps
        .iter()
        .flat_map(|step| [step.began_ms, step.end.as_ref().map_or(0, |end| end.at_ms)]);
    let notes = run.notes.iter().map(|note| note.at_ms);
    let resumed = run.resumed.iter().map(|resumed| resumed.at_ms);
    steps.chain(notes).chain(resumed).fold(run.began_ms, u64::max)
}

fn all_open() -> Error {
    let message = format!(
        "{RUNS_MAX} runs are under way, and no more are kept; `runs list` shows them, and `run --resume` ends one \
         whose runner is gone"
    );
    Error::new(Code::OperationConflict, message)
}

fn has_another(known: &Run) -> Error {
    bad(format!("this runner is about RUN-{}", known.number))
}

/// Who began a run, or resumed it last.
fn holder(run: &Run) -> &String {
    run.resumed.last().map_or(&run.by, |resumed| &resumed.by)
}

/// Only that one tells what happens to it.
fn from_its_holder(run: &Run, entry: &RunEntry) -> Result<(), Error> {
    let holder = holder(run);
    match *holder == entry.by {
        true => Ok(()),
        false => {
            let message = format!("RUN-{} is run by {holder}, and by nobody else", run.number);
            Err(Error::new(Code::Denied, message))
        }
    }
}

fn may_be_resumed(run: &Run) -> Result<(), Error> {
    let number = run.number;
    if run.end.as_ref().is_some_and(|end| end.failure.is_none()) {
        let message = format!("RUN-{number} came to its end; there is nothing to resume");
        return Err(Error::new(Code::OperationConflict, message));
    }
    if run.resumed.len() >= RESUMED_MAX {
        let message = format!("RUN-{number} was resumed {RESUMED_MAX} times; run the script anew");
        return Err(Error::new(Code::OperationConflict, message));
    }
    Ok(())
}

/// One event, on a run that may take it.
fn happen(run: &mut Run, event: &RunEvent, now_ms: u64) -> Result<(), Error> {
    if run.end.is_some() {
        return Err(bad(format!("RUN-{} has ended", run.number)));
    }
    match event {
        RunEvent::Begin(_) | RunEvent::Resume(_) => Err(bad("it has begun already".into())),
        RunEvent::StepBegan { index, name, line } => step_began(run, *index, name, *line, now_ms),
        RunEvent::StepEnded { index, result, failure, operations } => {
            let (result, failure) = (result.clone(), failure.clone());
            let end = StepEnd { at_ms: now_ms, result, failure, operations: operations.clone() };
            step_ended(run, *index, end)
        }
        RunEvent::Note(text) => {
            if run.notes.len() >= NOTES_MAX {
                return Err(too_much(format!("a run has at most {NOTES_MAX} notes")));
            }
            run.notes.push(RunNote { at_ms: now_ms, text: text.clone() });
            leaves(run, RESERVE_BYTES)
        }
        RunEvent::End(failure) => {
            run.end = Some(RunEnd { at_ms: now_ms, failure: failure.clone() });
            leaves(run, 0)
        }
    }
}

/// The next step, or once more one that was begun before. What cleans up has a step of its own, and the room kept for it.
fn step_began(run: &mut Run, index: u32, name: &str, line: u32, now_ms: u64) -> Result<(), Error> {
    let (at, closes) = (index as usize, name == ON_FAILURE);
    let closings = run.steps.iter().filter(|step| step.name == ON_FAILURE).count();
    if at == run.steps.len() {
        if closes && closings > 0 {
            return Err(bad(format!("RUN-{} has its step `{ON_FAILURE}` already", run.number)));
        }
        if !closes && at - closings >= STEPS_MAX {
            return Err(too_much(format!("a run has at most {STEPS_MAX} steps")));
        }
        let name = name.to_owned();
        run.steps.push(RunStep { name, line, began_ms: now_ms, tries: 1, end: None });
    } else {
        let step = run.steps.get_mut(at).filter(|step| step.name == name);
        let step =
            step.ok_or_else(|| bad(format!("there is no step {index} of the name `{name}`")))?;
        (step.began_ms, step.line, step.end) = (now_ms, line, None);
        step.tries = step.tries.saturating_add(1);
    }
    leaves(run, if closes { CLOSING_BYTES } else { RESERVE_BYTES })
}

fn step_ended(run: &mut Run, index: u32, end: StepEnd) -> Result<(), Error> {
    let missing = || bad(format!("step {index} was not begun"));
    let step = run.steps.get_mut(index as usize).ok_or_else(missing)?;
    step.end = Some(end);
    if leaves(run, RESERVE_BYTES).is_err()
        && let Some(end) = run.steps.get_mut(index as usize).and_then(|step| step.end.as_mut())
    {
        end.result = None;
        if let Some((_, message)) = &mut end.failure {
            *message = cut(message, NAME_BYTES_MAX / 8);
        }
    }
    // Each step has left room for its own end.
    leaves(run, END_BYTES)
}

fn bad(message: String) -> Error {
    Error::new(Code::BadRequest, message)
}

impl ClusterState {
    /// Takes an event of a run. The epoch stays, as with the operation log.
    pub(super) fn keep_run(&mut self, entry: &RunEntry) -> Result<(), Error> {
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        // Whoever proposed it has cut it already; an entry of the log is not trusted to be.
        let entry = &RunEntry {
            order: fitted(entry.order.clone())?,
            by: cut(&entry.by, NAME_BYTES_MAX),
            from: cut(&entry.from, NAME_BYTES_MAX),
            now_ms: entry.now_ms,
        };
        match &entry.order.event {
            RunEvent::Begin(book) => self.runs.begin(entry, book),
            RunEvent::Resume(book) => self.runs.resume(entry, book),
            _ => self.runs.take(entry),
        }
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
