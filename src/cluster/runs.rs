//! Records of runs: what the last runbooks did, as every member of the metadata group keeps it. Pure and deterministic,
//! like `core`.
//!
//! A record is made of events, which come in order and from one runner. What a runner does when an event is refused is
//! not decided here: it stops.

use super::core::ClusterState;
use crate::types::{Code, Error};
use crate::wire::codec;
use crate::wire::runs::{
    Book, Resumed, Run, RunEnd, RunEvent, RunHead, RunNote, RunOrder, RunStep, StepEnd,
};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Runs kept. The oldest makes room for a new one.
pub const RUNS_MAX: usize = 64;
/// Steps of one run; another one is refused.
pub const STEPS_MAX: usize = 256;
/// Bytes of one record. A result that does not fit is left out; a step or a note that does not fit is refused.
pub const RUN_BYTES_MAX: usize = 64 << 10;
/// Bytes of one result; a longer one is left out.
pub const RESULT_BYTES_MAX: usize = 16 << 10;
/// Kept free of results, so that every step can end and the run can.
const RESERVE_BYTES: usize = 4 << 10;
/// Bytes of a note, a path, a parameter or a message; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1_024;
/// Bytes of names and addresses; the same.
const NAME_BYTES_MAX: usize = 256;
/// Parameters of a run; more are refused.
const PARAMS_MAX: usize = 32;
/// Operations of a step; the rest is left out.
const OPERATIONS_MAX: usize = 16;
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

/// The runs, oldest first, with numbers that follow each other. Clones share them until one is changed.
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

    /// The run that this runner is about.
    pub fn of_runner(&self, runner: u64) -> Option<&Run> {
        self.runs.iter().rev().find(|run| run.runner == runner).map(|run| &**run)
    }

    fn begin(&mut self, entry: &RunEntry, book: &Book) -> Result<(), Error> {
        if self.of_runner(entry.order.runner).is_some() {
            return Ok(());
        }
        if book.params.len() > PARAMS_MAX {
            return Err(bad(format!("a run has at most {PARAMS_MAX} parameters")));
        }
        let runs = Arc::make_mut(&mut self.runs);
        let number = runs.back().map_or(1, |last| last.number.saturating_add(1));
        runs.push_back(Arc::new(Run {
            number,
            runner: entry.order.runner,
            by: cut(&entry.by, NAME_BYTES_MAX),
            from: cut(&entry.from, NAME_BYTES_MAX),
            book: bounded(book),
            began_ms: entry.now_ms,
            steps: Vec::new(),
            notes: Vec::new(),
            resumed: Vec::new(),
            end: None,
            events: 0,
        }));
        if runs.len() > RUNS_MAX {
            runs.pop_front();
        }
        Ok(())
    }

    /// Takes the event of a run.
    fn take(&mut self, entry: &RunEntry) -> Result<(), Error> {
        let RunOrder { runner, run, sequence, event } = &entry.order;
        let missing = || Error::new(Code::NotFound, format!("there is no record of RUN-{run}"));
        let known = self.get(*run).ok_or_else(missing)?;
        if let RunEvent::Resume(book) = event {
            if known.runner == *runner {
                return Ok(());
            }
            may_be_resumed(known)?;
            let resumed = Resumed {
                at_ms: entry.now_ms,
                by: cut(&entry.by, NAME_BYTES_MAX),
                from: cut(&entry.from, NAME_BYTES_MAX),
                host: cut(&book.host, NAME_BYTES_MAX),
            };
            let (runner, sha256) = (*runner, cut(&book.sha256, NAME_BYTES_MAX));
            let run = self.change(*run).ok_or_else(missing)?;
            (run.runner, run.events, run.end, run.book.sha256) = (runner, 0, None, sha256);
            run.resumed.push(resumed);
            return Ok(());
        }
        if known.runner != *runner {
            let message = format!("somebody else has taken up RUN-{run}: this one may not go on");
            return Err(Error::new(Code::Superseded, message));
        }
        if *sequence <= known.events {
            return Ok(());
        }
        if *sequence != known.events + 1 {
            return Err(bad(format!("event {sequence} of RUN-{run} came before the one in front")));
        }
        let mut changed = known.clone();
        happen(&mut changed, event, entry.now_ms)?;
        changed.events += 1;
        *self.change(*run).ok_or_else(missing)? = changed;
        Ok(())
    }

    fn change(&mut self, number: u64) -> Option<&mut Run> {
        let runs = Arc::make_mut(&mut self.runs);
        runs.iter_mut().rfind(|run| run.number == number).map(Arc::make_mut)
    }

    /// What must hold after every command.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut pairs = self.runs.iter().zip(self.runs.iter().skip(1));
        let follow = pairs.all(|(one, next)| one.number.checked_add(1) == Some(next.number));
        let small = |run: &Arc<Run>| bytes(run) <= RUN_BYTES_MAX && run.steps.len() <= STEPS_MAX;
        match follow && self.runs.len() <= RUNS_MAX && self.runs.iter().all(small) {
            true => Ok(()),
            false => Err("the records of runs are too many or too long, or have gaps".into()),
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
        RunEvent::Begin(_) | RunEvent::Resume(_) => return Err(bad("it has begun already".into())),
        RunEvent::StepBegan { index, name, line } => step_began(run, *index, name, *line, now_ms)?,
        RunEvent::StepEnded { index, result, failure, operations } => {
            let end = StepEnd {
                at_ms: now_ms,
                result: result.clone().filter(|text| text.len() <= RESULT_BYTES_MAX),
                failure: failure.as_ref().map(bounded_failure),
                operations: operations.iter().take(OPERATIONS_MAX).copied().collect(),
            };
            step_ended(run, *index, end)?;
        }
        RunEvent::Note(text) => {
            run.notes.push(RunNote { at_ms: now_ms, text: cut(text, TEXT_BYTES_MAX) });
            has_room(run)?;
        }
        RunEvent::End(failure) => {
            let failure = failure.as_ref().map(bounded_failure);
            run.end = Some(RunEnd { at_ms: now_ms, failure });
        }
    }
    Ok(())
}

fn step_began(run: &mut Run, index: u32, name: &str, line: u32, now_ms: u64) -> Result<(), Error> {
    let name = cut(name, NAME_BYTES_MAX);
    let at = index as usize;
    if at == run.steps.len() {
        if at >= STEPS_MAX {
            return Err(bad(format!("a run has at most {STEPS_MAX} steps")));
        }
        run.steps.push(RunStep { name, line, began_ms: now_ms, tries: 1, end: None });
        return has_room(run);
    }
    match run.steps.get_mut(at) {
        Some(step) if step.name == name => {
            (step.began_ms, step.line, step.end) = (now_ms, line, None);
            step.tries = step.tries.saturating_add(1);
            Ok(())
        }
        _ => Err(bad(format!("RUN-{} has no step {index} of the name `{name}`", run.number))),
    }
}

fn step_ended(run: &mut Run, index: u32, end: StepEnd) -> Result<(), Error> {
    let missing = || bad(format!("step {index} was not begun"));
    let step = run.steps.get_mut(index as usize).ok_or_else(missing)?;
    step.end = Some(end);
    if has_room(run).is_err()
        && let Some(end) = run.steps.get_mut(index as usize).and_then(|step| step.end.as_mut())
    {
        end.result = None;
        if let Some((_, message)) = &mut end.failure {
            *message = cut(message, NAME_BYTES_MAX / 8);
        }
    }
    // Each step has left room for its own end.
    match bytes(run) <= RUN_BYTES_MAX {
        true => Ok(()),
        false => Err(full()),
    }
}

/// Room for the ends of all steps that are open, and of the run.
fn has_room(run: &Run) -> Result<(), Error> {
    match bytes(run) + RESERVE_BYTES <= RUN_BYTES_MAX {
        true => Ok(()),
        false => Err(full()),
    }
}

fn full() -> Error {
    bad(format!("the record of a run has at most {RUN_BYTES_MAX} bytes, and this one is full"))
}

fn bad(message: String) -> Error {
    Error::new(Code::BadRequest, message)
}

fn bytes(run: &Run) -> usize {
    codec::encode(run).len()
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

fn bounded_failure((code, message): &(String, String)) -> (String, String) {
    (cut(code, NAME_BYTES_MAX / 4), cut(message, TEXT_BYTES_MAX))
}

fn bounded(book: &Book) -> Book {
    let param =
        |(name, value): &(String, String)| (cut(name, NAME_BYTES_MAX), cut(value, TEXT_BYTES_MAX));
    Book {
        script: cut(&book.script, TEXT_BYTES_MAX),
        sha256: cut(&book.sha256, NAME_BYTES_MAX),
        params: book.params.iter().map(param).collect(),
        host: cut(&book.host, NAME_BYTES_MAX),
    }
}

impl ClusterState {
    /// Takes an event of a run. The epoch stays, as with the operation log.
    pub(super) fn keep_run(&mut self, entry: &RunEntry) -> Result<(), Error> {
        if !self.is_formed() {
            return Err(Error::new(Code::NotFormed, "there is no cluster yet"));
        }
        match &entry.order.event {
            RunEvent::Begin(book) => self.runs.begin(entry, book),
            _ => self.runs.take(entry),
        }
    }
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
