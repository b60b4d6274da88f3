//! The record of a run, as its runner tells it: one event after the other, each until it is known to be kept.
//!
//! A run that is resumed begins with the steps of the record: those that ended well are not run again.

use crate::cli::caller::{Caller, other_answer};
use crate::cli::runbook::Runbook;
use crate::cluster::runs::{ON_FAILURE, RESULT_BYTES_MAX};
use crate::types::{Class, Code, Error, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::runs::{Book, Run, RunEvent, RunOrder, RunStep};
use ring::digest::{SHA256, digest};
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long an event is told again: the coordinator may be moving to another node.
const INSIST: Duration = Duration::from_secs(20);
/// One request waits this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells the record of one run.
pub struct Recorder<C> {
    caller: Arc<C>,
    runner: u64,
    /// The record as it was when this runner began or resumed it.
    pub run: Run,
    state: Mutex<State>,
}

struct State {
    sequence: u64,
    /// Told, and perhaps kept: told once more before anything else is.
    pending: Option<RunEvent>,
    steps: Vec<RunStep>,
}

/// What a step has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// It ended well, with this.
    Done(Json),
    /// It has to be run: under this index, and whether it was begun before.
    Run { index: u32, again: bool, result_was_lost: bool },
}

/// SHA-256 of a script, in hexadecimal.
pub fn sha256(source: &str) -> String {
    digest(&SHA256, source.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of this machine, or nothing where the system does not tell.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What a record says of a script.
fn book_of(book: &Runbook) -> Book {
    Book {
        script: book.name.clone(),
        sha256: sha256(&book.source),
        params: book.params.clone(),
        host: host(),
    }
}

impl<C: Caller> Recorder<C> {
    /// Begins a record, or takes up the one that the runbook names.
    pub async fn begin(caller: Arc<C>, book: &Runbook) -> Result<Self> {
        let (run, event) = match &book.resume {
            Some(run) => (*run, RunEvent::Resume(book_of(book))),
            None => (0, RunEvent::Begin(book_of(book))),
        };
        let runner = rand::random();
        let order = RunOrder { runner, run, sequence: 0, event };
        let run = match tell(&*caller, &order, Instant::now() + INSIST).await? {
            Answer::Run(run) => *run,
            _ => return Err(other_answer()),
        };
        let state = State { sequence: 0, pending: None, steps: run.steps.clone() };
        Ok(Self { caller, runner, run, state: Mutex::new(state) })
    }

    /// Tells an event; `settle` comes before.
    async fn tell(&self, state: &mut State, event: RunEvent) -> Result<Answer> {
        state.pending = Some(event.clone());
        self.send(state, event).await
    }

    /// Tells once more what was left in doubt, if anything was. If it is refused now it was never kept, and is in the way of
    /// nothing: whatever is told next hears for itself whether it may be.
    async fn settle(&self, state: &mut State) -> Result<()> {
        let Some(event) = state.pending.clone() else { return Ok(()) };
        match self.send(state, event).await {
            Err(error) if passes(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Only what is in doubt stays pending: an event that was refused for good would be refused again, and would hold up
    /// what cleans up and the end of the run.
    async fn send(&self, state: &mut State, event: RunEvent) -> Result<Answer> {
        let (runner, run, sequence) = (self.runner, self.run.number, state.sequence + 1);
        let order = RunOrder { runner, run, sequence, event };
        let told = tell(&*self.caller, &order, Instant::now() + INSIST).await;
        match &told {
            Ok(_) => {
                (state.sequence, state.pending) = (sequence, None);
                // Noted here, because whoever began the step may have stopped waiting.
                if let RunEvent::StepBegan { index, name, line } = order.event
                    && index as usize == state.steps.len()
                {
                    state.steps.push(RunStep { name, line, began_ms: 0, tries: 1, end: None });
                }
            }
            Err(error) if !passes(error) => state.pending = None,
            Err(_) => {}
        }
        told
    }

    /// What the record knows of the step that has that name for the so-maniest time; begins it unless it is done.
    pub async fn begin_step(&self, name: &str, occurrence: usize, line: u32) -> Result<Known> {
        let state = &mut *self.state.lock().await;
        self.settle(state).await?;
        let found = state.steps.iter().enumerate().filter(|(_, step)| step.name == name);
        let found = found.map(|(at, step)| (at, step.clone())).nth(occurrence);
        let Some((at, step)) = found else {
            let index = state.steps.len() as u32;
            self.tell(state, RunEvent::StepBegan { index, name: name.to_owned(), line }).await?;
            return Ok(Known::Run { index, again: false, result_was_lost: false });
        };
        let ended_well = step.end.as_ref().is_some_and(|end| end.failure.is_none());
        let (is_open, result) = (step.end.is_none(), step.end.and_then(|end| end.result));
        // Each failure is cleaned up after, also if the one before was.
        let cleans_up = name == ON_FAILURE;
        if let (true, false, Some(text)) = (ended_well, cleans_up, result) {
            let kept = serde_json::from_str(&text);
            return kept.map(Known::Done).map_err(|e| Error::new(Code::Corrupt, e.to_string()));
        }
        let index = at as u32;
        self.tell(state, RunEvent::StepBegan { index, name: name.to_owned(), line }).await?;
        Ok(match cleans_up {
            true => Known::Run { index, again: is_open, result_was_lost: false },
            false => Known::Run { index, again: true, result_was_lost: ended_well },
        })
    }

    /// A step has ended. Answers whether its result was kept.
    pub async fn end_step(
        &self,
        index: u32,
        done: std::result::Result<&Json, (String, String)>,
        operations: Vec<u64>,
    ) -> Result<bool> {
        let state = &mut *self.state.lock().await;
        self.settle(state).await?;
        let (result, failure) = match done {
            Ok(json) => (Some(json.to_string()), None),
            Err(failure) => (None, Some(failure)),
        };
        let result = result.filter(|text| text.len() <= RESULT_BYTES_MAX);
        let failed = failure.is_some();
        match self.tell(state, RunEvent::StepEnded { index, result, failure, operations }).await? {
            Answer::StepKept { result } => Ok(failed || result),
            _ => Err(other_answer()),
        }
    }

    /// The script notes something.
    pub async fn note(&self, text: &str) -> Result<()> {
        let state = &mut *self.state.lock().await;
        self.settle(state).await?;
        self.tell(state, RunEvent::Note(text.to_owned())).await.map(drop)
    }

    /// The run is over.
    pub async fn end(&self, failure: Option<(String, String)>) -> Result<()> {
        let state = &mut *self.state.lock().await;
        self.settle(state).await?;
        self.tell(state, RunEvent::End(failure)).await.map(drop)
    }
}

/// Whether an error says nothing of what becomes of the event.
fn passes(error: &Error) -> bool {
    matches!(error.class(), Class::Retry | Class::Uncertain)
}

/// Tells an event until it is known what became of it.
async fn tell<C: Caller>(caller: &C, order: &RunOrder, until: Instant) -> Result<Answer> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = left.min(REQUEST_TIMEOUT).max(Duration::from_millis(1));
        let command = Command::Run(Box::new(order.clone()));
        let error = match caller.command(command, None, timeout).await {
            Ok((answer, _)) => return Ok(answer),
            Err(error) => error,
        };
        if !passes(&error) || Instant::now() + PAUSE >= until {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
