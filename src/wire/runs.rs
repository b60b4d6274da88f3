//! A run of a runbook on record: who ran which script, what each step led to, and how it ended; and the events of which
//! a record is made, as whoever runs it tells them.
//!
//! Data only. What a record keeps, and whose events it takes, is decided in `cluster::runs`.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Rising: `RUN-12`.
    pub number: u64,
    /// Drawn at random by whoever runs it: only that one may go on with it. Zero in what is shown to anybody else.
    pub runner: u64,
    /// Who asked: `user ann`.
    pub by: String,
    /// The address that it is run from, `host:port`.
    pub from: String,
    /// The script and what it was given.
    pub book: Book,
    /// When it began, in milliseconds since 1970 by the clock of the coordinator, as all times here.
    pub began_ms: u64,
    /// Steps in the order in which they were begun first.
    pub steps: Vec<RunStep>,
    /// What the script noted.
    pub notes: Vec<RunNote>,
    /// Who took it up again after it had ended early.
    pub resumed: Vec<Resumed>,
    /// How it ended; none while it is under way, or if its runner is gone.
    pub end: Option<RunEnd>,
    /// Events of this runner that were taken.
    pub events: u64,
}

/// A script and what it was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// The path as it was given.
    pub script: String,
    /// SHA-256 of its text, in hexadecimal.
    pub sha256: String,
    /// `--param`, in the order given.
    pub params: Vec<(String, String)>,
    /// The machine that it is run on.
    pub host: String,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStep {
    /// Its name in the script.
    pub name: String,
    /// Its line there; 0 if not known.
    pub line: u32,
    /// When it was begun, the last time.
    pub began_ms: u64,
    /// How often it was begun.
    pub tries: u32,
    /// How it ended; none while it is under way.
    pub end: Option<StepEnd>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepEnd {
    /// When.
    pub at_ms: u64,
    /// What it led to, as JSON; none if it failed, or if that was too long to be kept.
    pub result: Option<String>,
    /// Code and message of its failure.
    pub failure: Option<(String, String)>,
    /// Changes of strategy that it began or steered.
    pub operations: Vec<u64>,
}

/// What a script noted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunNote {
    /// When.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// A run was taken up again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// When.
    pub at_ms: u64,
    /// By whom.
    pub by: String,
    /// From where.
    pub from: String,
    /// On which machine.
    pub host: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    /// When.
    pub at_ms: u64,
    /// Code and message of its failure; none if it came to its end.
    pub failure: Option<(String, String)>,
}

/// An event of a run, as its runner tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOrder {
    /// The runner.
    pub runner: u64,
    /// The run; 0 with `Begin`, which gives it a number.
    pub run: u64,
    /// 1 for the first event of this runner after `Begin` or `Resume`, and so on: telling one twice changes nothing.
    pub sequence: u64,
    /// What happened.
    pub event: RunEvent,
}

/// What happened. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RunEvent {
    /// It begins.
    Begin(Book),
    /// Somebody takes up a run that has not come to its end. Whoever ran it before is locked out.
    Resume(Book),
    /// A step is about to be run: the next one, or one that was begun before.
    StepBegan { index: u32, name: String, line: u32 },
    /// It ended.
    StepEnded {
        /// Which.
        index: u32,
        /// What it led to, as JSON.
        result: Option<String>,
        /// Code and message of its failure.
        failure: Option<(String, String)>,
        /// Changes of strategy that it began or steered.
        operations: Vec<u64>,
    },
    /// The script notes something.
    Note(String),
    /// It ends, for this reason if it failed.
    End(Option<(String, String)>),
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunHead {
    /// Its number.
    pub number: u64,
    /// Who asked.
    pub by: String,
    /// The script.
    pub script: String,
    /// When it began.
    pub began_ms: u64,
    /// Steps begun, and steps that ended well.
    pub steps: (u32, u32),
    /// How it ended.
    pub end: Option<RunEnd>,
}

impl Run {
    /// Its line in a list.
    pub fn head(&self) -> RunHead {
        let done = |step: &&RunStep| step.end.as_ref().is_some_and(|end| end.failure.is_none());
        RunHead {
            number: self.number,
            by: self.by.clone(),
            script: self.book.script.clone(),
            began_ms: self.began_ms,
            steps: (self.steps.len() as u32, self.steps.iter().filter(done).count() as u32),
            end: self.end.clone(),
        }
    }
}
