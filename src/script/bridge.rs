//! From the script's thread to the client and back: a call waits here, and nowhere else.
//!
//! Every wait ends when its work is done, when Ctrl-C stops the script, or when the script's time is up,
//! whichever is first. The engine itself asks `stopped` between its operations. What a script changes passes
//! `change`, which asks whether it may.

use super::failure::{self, Answer, Stopped, code_of, failed, thrown};
use super::meter::{Bucket, CALLS_BURST, CALLS_PER_S, PRINT_BYTES_MAX};
use super::record::Recorder;
use crate::cli::caller::Caller;
use crate::cli::runbook::{Called, Runbook, Stage, Step};
use crate::cli::strategy::follow::Change;
use crate::types::{Error, Result};
use crate::wire::operation::Operation;
use parking_lot::Mutex;
use rhai::{EvalAltResult, NativeCallContext};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Calls that are kept for the summary; the rest is counted.
const CALLS_KEPT_MAX: usize = 1_000;
/// Characters of a call in the summary.
const CALL_CHARS_MAX: usize = 120;

/// Where the text of a script comes from, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `ppdb run`: what changes something belongs into a step.
    Run,
    /// The same, and nothing is changed.
    Dry,
    /// A person types line after line.
    Console,
}

/// What all functions of one script share.
pub struct Bridge<C> {
    /// The cluster.
    pub caller: Arc<C>,
    /// The script and what it was given.
    pub book: Arc<Runbook>,
    /// Where it shows and asks.
    pub stage: Arc<dyn Stage>,
    /// What it may do.
    pub mode: Mode,
    /// Where its steps are recorded; none where there is no record.
    pub recorder: Option<Arc<Recorder<C>>>,
    /// The runtime that drives the client.
    pub handle: Handle,
    state: Mutex<State>,
}

struct State {
    until: Instant,
    stop: watch::Receiver<bool>,
    /// The script has failed and cleans up: nothing but the time ends that.
    closing: bool,
    /// Why it has to end although nobody said so.
    limit: Option<Stopped>,
    bucket: Bucket,
    printed_bytes: usize,
    open: Option<OpenStep>,
    seen: BTreeMap<String, usize>,
    calls: Vec<Called>,
    calls_left_out: u64,
    steps: Vec<Step>,
    last_change: Option<Change>,
    rehearsed: Option<Operation>,
    unwritten: BTreeSet<String>,
}

/// The step that is being run.
#[derive(Clone, Debug, Default)]
pub struct OpenStep {
    /// It was begun before, by a run that did not end it.
    pub again: bool,
    /// Operations that it began or steered.
    pub operations: Vec<u64>,
}

impl<C: Caller> Bridge<C> {
    /// A bridge to a cluster; has to be made inside the runtime that drives its client.
    pub fn new(
        caller: Arc<C>,
        book: Runbook,
        stage: Arc<dyn Stage>,
        stop: watch::Receiver<bool>,
        mode: Mode,
        recorder: Option<Arc<Recorder<C>>>,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            until: now + book.timeout,
            stop,
            closing: false,
            limit: None,
            bucket: Bucket::new(CALLS_BURST, CALLS_PER_S, now),
            printed_bytes: 0,
            open: None,
            seen: BTreeMap::new(),
            calls: Vec::new(),
            calls_left_out: 0,
            steps: Vec::new(),
            last_change: None,
            rehearsed: None,
            unwritten: BTreeSet::new(),
        };
        let (handle, book, state) = (Handle::current(), Arc::new(book), Mutex::new(state));
        Self { caller, book, stage, mode, recorder, handle, state }
    }

    /// Another line of a console, with a time and a flag of its own.
    pub fn begin_line(&self, timeout: Duration, stop: watch::Receiver<bool>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        (state.until, state.stop, state.limit) = (now + timeout, stop, None);
        (state.bucket, state.printed_bytes) = (Bucket::new(CALLS_BURST, CALLS_PER_S, now), 0);
        (state.calls, state.calls_left_out) = (Vec::new(), 0);
        state.last_change = None;
    }

    /// The script has failed: what cleans up has this time, and Ctrl-C does not end it.
    pub fn begin_closing(&self, time: Duration) {
        let mut state = self.state.lock();
        let now = Instant::now();
        (state.closing, state.until, state.limit) = (true, now + time, None);
        state.bucket = Bucket::new(CALLS_BURST, CALLS_PER_S, now);
    }

    /// When what cleans up has to be done, if it has begun.
    pub fn closing_until(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.closing.then_some(state.until)
    }

    /// When its time is up.
    pub fn until(&self) -> Instant {
        self.state.lock().until
    }

    /// Whether nothing is to be changed.
    pub fn is_dry(&self) -> bool {
        self.mode == Mode::Dry
    }

    /// Why the script has to end, if it has to.
    pub fn stopped(&self) -> Option<Stopped> {
        let state = self.state.lock();
        if state.limit.is_some() {
            return state.limit.clone();
        }
        if !state.closing && *state.stop.borrow() {
            return Some(Stopped::Interrupted);
        }
        (Instant::now() >= state.until).then_some(Stopped::OutOfTime)
    }

    /// The script ends at the next look.
    pub fn end_for(&self, why: Stopped) {
        self.state.lock().limit.get_or_insert(why);
    }

    /// Why it ends, if that was noticed.
    pub fn ends_for(&self) -> Option<Stopped> {
        self.state.lock().limit.clone()
    }

    /// The same; answers the error that no script can catch.
    pub fn ends_with(&self, why: Stopped) -> Box<EvalAltResult> {
        self.end_for(why.clone());
        why.error()
    }

    /// Counts a call to the cluster, or a pause.
    pub fn count(&self) -> Answer<()> {
        if let Some(why) = self.stopped() {
            return Err(why.error());
        }
        let taken = self.state.lock().bucket.take(Instant::now());
        if taken {
            return Ok(());
        }
        let why = Stopped::Limit(format!(
            "it asks too often: {CALLS_BURST} calls to the cluster, and {CALLS_PER_S} more in each second; \
             `wait_until` asks at a fair pace"
        ));
        Err(self.ends_with(why))
    }

    /// What may end a wait: the flag, which counts for nothing while it cleans up, and the time.
    pub fn ends(&self) -> (watch::Receiver<bool>, Instant, bool) {
        let state = self.state.lock();
        (state.stop.clone(), state.until, state.closing)
    }

    /// Waits for some work on the cluster. Its error becomes an exception; being stopped is none that can be caught.
    pub fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Answer<T> {
        self.count()?;
        let (stop, until, closing) = self.ends();
        self.handle.block_on(async {
            tokio::select! {
                biased;
                () = interrupted(stop, closing) => Err(Stopped::Interrupted.error()),
                done = work => done.map_err(thrown),
                () = tokio::time::sleep_until(until.into()) => Err(Stopped::OutOfTime.error()),
            }
        })
    }

    /// The time of one request, at most what is left of the script's.
    pub fn request_timeout(&self) -> Duration {
        let left = self.until().saturating_duration_since(Instant::now());
        left.min(self.book.request_timeout).max(Duration::from_millis(1))
    }

    /// Does something that belongs into the list of calls.
    pub fn call<T>(
        &self,
        context: &NativeCallContext<'_>,
        call: &str,
        work: impl FnOnce() -> Answer<T>,
    ) -> Answer<T> {
        let started = Instant::now();
        let done = work();
        let called = Called {
            call: call.chars().take(CALL_CHARS_MAX).collect(),
            line: context.call_position().line().unwrap_or(0),
            code: done.as_ref().err().map(|error| code_of(error)),
            ms: started.elapsed().as_secs_f64() * 1000.0,
        };
        let mut state = self.state.lock();
        match state.calls.len() < CALLS_KEPT_MAX {
            true => state.calls.push(called),
            false => state.calls_left_out += 1,
        }
        done
    }

    /// The same for what changes something: only inside a step, so that the record of the run is complete.
    pub fn change<T>(
        &self,
        context: &NativeCallContext<'_>,
        call: &str,
        work: impl FnOnce() -> Answer<T>,
    ) -> Answer<T> {
        let allowed = self.mode == Mode::Console || self.state.lock().open.is_some();
        if !allowed {
            let message = format!("{call} changes something: it belongs into `step(\"…\", || …)`");
            return Err(failure::raised(failure::NOT_IN_STEP, &message));
        }
        self.call(context, call, work)
    }

    /// A step begins. Steps do not lie in each other.
    pub fn open_step(&self, open: OpenStep) -> Answer<()> {
        let mut state = self.state.lock();
        if state.open.is_some() {
            return Err(refused("a step inside a step: the record could not tell them apart"));
        }
        state.open = Some(open);
        Ok(())
    }

    /// It ends.
    pub fn close_step(&self) -> OpenStep {
        self.state.lock().open.take().unwrap_or_default()
    }

    /// The step that is being run.
    pub fn in_step(&self) -> Option<OpenStep> {
        self.state.lock().open.clone()
    }

    /// How many steps of that name there were before; counts this one.
    pub fn occurrence(&self, name: &str) -> usize {
        let mut state = self.state.lock();
        let seen = state.seen.entry(name.to_owned()).or_default();
        *seen += 1;
        *seen - 1
    }

    /// A step for the summary.
    pub fn stepped(&self, step: Step) {
        self.state.lock().steps.push(step);
    }

    /// The step under way has to do with this operation.
    pub fn concerns(&self, operation: u64) {
        if let Some(open) = &mut self.state.lock().open
            && !open.operations.contains(&operation)
        {
            open.operations.push(operation);
        }
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

    /// Calls so far, and how many did not fit among them.
    pub fn calls(&self) -> (Vec<Called>, u64) {
        let state = self.state.lock();
        (state.calls.clone(), state.calls_left_out)
    }

    /// Steps so far.
    pub fn steps(&self) -> Vec<Step> {
        self.state.lock().steps.clone()
    }

    /// The operation that a dry run pretends.
    pub fn rehearsed(&self) -> Option<Operation> {
        self.state.lock().rehearsed.clone()
    }

    /// A dry run pretends this operation from here on.
    pub fn rehearse(&self, op: Operation) {
        self.state.lock().rehearsed = Some(op);
    }

    /// A dry run has not written this key, or this setting.
    pub fn unwritten(&self, what: String) {
        self.state.lock().unwritten.insert(what);
    }

    /// Whether it was to be written by this dry run.
    pub fn is_unwritten(&self, what: &str) -> bool {
        self.state.lock().unwritten.contains(what)
    }

    /// A dry run shows what it cannot know.
    pub fn not_simulated(&self, what: &str) {
        self.stage.log(&format!("NOT SIMULATED: {what}"));
    }

    /// Whether there is room for more words.
    pub fn may_say(&self, text: &str) -> bool {
        let mut state = self.state.lock();
        state.printed_bytes = state.printed_bytes.saturating_add(text.len() + 1);
        if state.printed_bytes <= PRINT_BYTES_MAX {
            return true;
        }
        let why = format!("it has printed more than {} MiB", PRINT_BYTES_MAX >> 20);
        state.limit.get_or_insert(Stopped::Limit(why));
        false
    }

    /// Sleeps, at most until the script's time is up.
    pub fn sleep(&self, time: Duration) -> Answer<()> {
        self.wait(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
    }

    /// Asks whoever runs the script. A no ends it, unless the script catches that; whoever stops it, or its time, ends
    /// the question as well.
    pub fn confirm(&self, question: &str) -> Answer<bool> {
        if self.book.yes {
            self.stage.log(&format!("{question} yes, by --yes"));
            return Ok(true);
        }
        if self.is_dry() {
            self.stage.log(&format!("{question} would be asked"));
            return Ok(true);
        }
        match self.wait(self.stage.confirm(question))? {
            true => Ok(true),
            false => Err(failed(&format!("the answer to `{question}` was no"))),
        }
    }
}

/// Returns when a script is stopped, unless it cleans up: that goes on.
pub async fn interrupted(mut stop: watch::Receiver<bool>, closing: bool) {
    if closing || stop.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left who could raise the flag, or it was raised already.
        std::future::pending::<()>().await;
    }
}

/// What was passed does not fit.
pub fn refused(message: impl Into<String>) -> Box<EvalAltResult> {
    thrown(Error::new(crate::types::Code::BadRequest, message))
}
