//! From the script's thread to the client and back: a call waits here, and nowhere else.
//!
//! Every wait ends when its work is done, when Ctrl-C stops the script, or when the script's time is up,
//! whichever is first. The engine itself asks `stopped` between its operations.

use super::failure::{Answer, Stopped, code_of, failed, thrown};
use crate::cli::caller::Caller;
use crate::cli::runbook::{Runbook, Stage, Step};
use crate::cli::strategy::follow::Change;
use crate::types::{Error, Result};
use crate::wire::operation::Operation;
use parking_lot::Mutex;
use rhai::{EvalAltResult, NativeCallContext};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Steps that are kept for the summary; the rest is counted.
const STEPS_MAX: usize = 1_000;
/// Characters of a call in the summary.
const CALL_CHARS_MAX: usize = 120;

/// What all functions of one script share.
pub struct Bridge<C> {
    /// The cluster.
    pub caller: Arc<C>,
    /// The script and what it was given.
    pub book: Arc<Runbook>,
    /// Where it shows and asks.
    pub stage: Arc<dyn Stage>,
    /// When its time is up.
    pub until: Instant,
    handle: Handle,
    stop: watch::Receiver<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: Vec<Step>,
    steps_left_out: u64,
    last_change: Option<Change>,
    rehearsed: Option<Operation>,
}

impl<C: Caller> Bridge<C> {
    /// A bridge to a cluster; has to be made inside the runtime that drives its client.
    pub fn new(
        caller: Arc<C>,
        book: Runbook,
        stage: Arc<dyn Stage>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let until = Instant::now() + book.timeout;
        let (handle, book, state) = (Handle::current(), Arc::new(book), Mutex::default());
        Self { caller, book, stage, until, handle, stop, state }
    }

    /// Why the script has to end, if it has to.
    pub fn stopped(&self) -> Option<Stopped> {
        if *self.stop.borrow() {
            return Some(Stopped::Interrupted);
        }
        (Instant::now() >= self.until).then_some(Stopped::OutOfTime)
    }

    /// Waits for some work. Its error becomes an exception; being stopped is none that can be caught.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Answer<T> {
        if let Some(why) = self.stopped() {
            return Err(why.error());
        }
        let mut stop = self.stop.clone();
        self.handle.block_on(async {
            let interrupted = async {
                if stop.wait_for(|stop| *stop).await.is_err() {
                    // Nobody is left who could raise the flag.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = interrupted => Err(Stopped::Interrupted.error()),
                done = work => done.map_err(thrown),
                () = tokio::time::sleep_until(self.until.into()) => Err(Stopped::OutOfTime.error()),
            }
        })
    }

    /// The time of one request, at most what is left of the script's.
    pub fn request_timeout(&self) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        left.min(self.book.request_timeout).max(Duration::from_millis(1))
    }

    /// Does something that belongs into the summary.
    pub fn step<T>(
        &self,
        context: &NativeCallContext<'_>,
        call: &str,
        work: impl FnOnce() -> Answer<T>,
    ) -> Answer<T> {
        let started = Instant::now();
        let done = work();
        let step = Step {
            call: call.chars().take(CALL_CHARS_MAX).collect(),
            line: context.call_position().line().unwrap_or(0),
            code: done.as_ref().err().map(|error| code_of(error)),
            ms: started.elapsed().as_secs_f64() * 1000.0,
        };
        let mut state = self.state.lock();
        match state.steps.len() < STEPS_MAX {
            true => state.steps.push(step),
            false => state.steps_left_out += 1,
        }
        done
    }

    /// An operation has moved on. What an earlier call has shown is not shown again by the next.
    pub fn changed(&self, change: &Change) {
        let before = self.state.lock().last_change.replace(change.clone());
        if before.as_ref() != Some(change) {
            self.stage.changed(change);
        }
    }

    /// The operation that the script had to do with last.
    pub fn last_change(&self) -> Option<Change> {
        self.state.lock().last_change.clone()
    }

    /// Steps so far, and how many did not fit among them.
    pub fn steps(&self) -> (Vec<Step>, u64) {
        let state = self.state.lock();
        (state.steps.clone(), state.steps_left_out)
    }

    /// The operation that a dry run pretends.
    pub fn rehearsed(&self) -> Option<Operation> {
        self.state.lock().rehearsed.clone()
    }

    /// A dry run pretends this operation from here on.
    pub fn rehearse(&self, op: Operation) {
        self.state.lock().rehearsed = Some(op);
    }

    /// Sleeps, at most until the script's time is up.
    pub fn sleep(&self, time: Duration) -> Answer<()> {
        self.wait(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }

    /// Asks whoever runs the script. A no ends it, unless the script catches that.
    pub fn confirm(&self, question: &str) -> Answer<bool> {
        if self.book.yes {
            self.stage.log(&format!("{question} yes, by --yes"));
            return Ok(true);
        }
        if self.book.dry_run {
            self.stage.log(&format!("{question} would be asked"));
            return Ok(true);
        }
        match self.stage.confirm(question).map_err(thrown)? {
            true => Ok(true),
            false => Err(failed(&format!("the answer to `{question}` was no"))),
        }
    }
}

/// What was passed does not fit.
pub fn refused(message: impl Into<String>) -> Box<EvalAltResult> {
    thrown(Error::new(crate::types::Code::BadRequest, message))
}
