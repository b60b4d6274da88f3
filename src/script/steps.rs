//! How a runbook goes: its parameters, guards, steps, waiting, and what is done if it fails.
//!
//! A step is the unit of the record. It is written down before it is run and after it has ended, and one that ended well
//! is not run again by a run that is resumed: its result comes from the record.

use super::bridge::{Bridge, Mode, OpenStep, refused};
use super::convert::{to_json, to_script};
use super::failure::{self, Answer, Stopped, code_of, message_of, raised, thrown};
use super::params;
use super::record::Known;
use crate::cli::caller::Caller;
use crate::cli::runbook::Step;
use crate::cluster::runs::{NAME_BYTES_MAX, ON_FAILURE};
use crate::types::{Code, Error};
use rhai::{Engine, EvalAltResult, FnPtr, Map, NativeCallContext};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks of `wait_until`.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long `wait_until` waits unless told otherwise.
const WAIT_DEFAULT: &str = "1m";
/// What cleans up after a failure, at most.
const HANDLERS_MAX: usize = 16;

/// What is to be done if the script fails; on the script's own thread only.
pub type Handlers = Rc<RefCell<Vec<FnPtr>>>;

/// Registers them; answers where `on_failure` puts what it is given.
pub fn register<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) -> Handlers {
    let handlers = Handlers::default();
    declaring(engine, bridge);
    guarding(engine, bridge);
    waiting(engine, bridge);
    let b = bridge.clone();
    engine.register_fn(
        "step",
        move |context: NativeCallContext, name: &str, work: FnPtr| -> Answer {
            step(&b, &context, name, || work.call_within_context(&context, ()))
        },
    );
    let (b, all) = (bridge.clone(), handlers.clone());
    engine.register_fn("on_failure", move |work: FnPtr| -> Answer<()> {
        let mut all = all.borrow_mut();
        if all.len() >= HANDLERS_MAX {
            return Err(b.ends_with(Stopped::Limit(format!(
                "`on_failure` is called more than {HANDLERS_MAX} times"
            ))));
        }
        all.push(work);
        Ok(())
    });
    handlers
}

fn declaring<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    engine.register_fn("required", |kind: &str| -> Answer<params::Required> {
        params::required(kind).map_err(thrown)
    });
    let (b, declared) = (bridge.clone(), Cell::new(false));
    engine.register_fn("params", move |declaration: Map| -> Answer<Map> {
        if b.mode != Mode::Console && declared.replace(true) {
            return Err(refused("`params` comes once, before anything else"));
        }
        params::values(&b.book, &declaration, false).map_err(thrown)
    });
}

fn guarding<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn("guard", move |text: &str, holds: bool| -> Answer<()> {
        b.stage.log(&format!("guard: {text}: {}", if holds { "yes" } else { "no" }));
        match holds {
            true => Ok(()),
            false => Err(raised(failure::GUARD, &format!("the guard `{text}` does not hold"))),
        }
    });
}

/// `wait_until(text, cond)` and `wait_until(text, timeout, cond)`.
fn waiting<C: Caller>(engine: &mut Engine, bridge: &Arc<Bridge<C>>) {
    let b = bridge.clone();
    engine.register_fn(
        "wait_until",
        move |context: NativeCallContext, text: &str, holds: FnPtr| -> Answer<()> {
            wait_until(&b, &context, text, WAIT_DEFAULT, &holds)
        },
    );
    let b = bridge.clone();
    engine.register_fn(
        "wait_until",
        move |context: NativeCallContext, text: &str, timeout: &str, holds: FnPtr| -> Answer<()> {
            wait_until(&b, &context, text, timeout, &holds)
        },
    );
}

fn wait_until<C: Caller>(
    b: &Bridge<C>,
    context: &NativeCallContext<'_>,
    text: &str,
    timeout: &str,
    holds: &FnPtr,
) -> Answer<()> {
    let until = Instant::now() + params::duration(timeout).map_err(thrown)?;
    b.call(context, &format!("wait_until(\"{text}\")"), || {
        b.stage.log(&format!("waiting until {text}"));
        loop {
            if holds.call_within_context::<bool>(context, ())? {
                return Ok(());
            }
            if b.is_dry() {
                b.not_simulated(&format!("waiting until {text}, at most {timeout}"));
                return Ok(());
            }
            if Instant::now() >= until {
                let message = format!("not within {timeout}: {text}");
                return Err(thrown(Error::new(Code::DeadlineExceeded, message)));
            }
            b.sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now())))?;
        }
    })
}

/// A step: its result from the record, or its work.
pub fn step<C: Caller>(
    b: &Bridge<C>,
    context: &NativeCallContext<'_>,
    name: &str,
    work: impl FnOnce() -> Answer,
) -> Answer {
    if name == ON_FAILURE {
        return Err(refused(format!("no step is called `{ON_FAILURE}` but what cleans up")));
    }
    // A record would cut it, and a run that is resumed would not find it again.
    if name.len() > NAME_BYTES_MAX {
        return Err(refused(format!("the name of a step has at most {NAME_BYTES_MAX} bytes")));
    }
    let line = context.call_position().line().unwrap_or(0);
    run_step(b, name, line, work)
}

/// The same at a line that is known.
pub fn run_step<C: Caller>(
    b: &Bridge<C>,
    name: &str,
    line: usize,
    work: impl FnOnce() -> Answer,
) -> Answer {
    let started = Instant::now();
    let summary = |code, replayed| {
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        b.stepped(Step { name: name.to_owned(), line, code, replayed, ms });
    };
    // Before anything is written: nobody could resume a record with one inside the other.
    b.open_step(OpenStep::default())?;
    let known = match &b.recorder {
        None => Ok(Known::Run { index: 0, again: false, result_was_lost: false }),
        Some(recorder) => {
            let occurrence = b.occurrence(name);
            let begin = || b.record(recorder.begin_step(name, occurrence, line as u32));
            b.count().and_then(|()| begin())
        }
    };
    b.close_step();
    let (index, again) = match known? {
        Known::Done(json) => {
            b.stage.log(&format!("step {name}: done before"));
            summary(None, true);
            return Ok(to_script(&json));
        }
        Known::Run { index, again, result_was_lost } => {
            let how = match (again, result_was_lost) {
                (_, true) => {
                    ": done before, and run again, because there was no room for its result"
                }
                (true, _) => ": begun before, and run again",
                _ if b.is_dry() => " (rehearsed)",
                _ => "",
            };
            b.stage.log(&format!("step {name}{how}"));
            (index, again)
        }
    };
    b.open_step(OpenStep { again, ..OpenStep::default() })?;
    let done = work();
    let open = b.close_step();
    summary(done.as_ref().err().map(|error| code_of(error)), false);
    // What was stopped has not ended: it is run again by whoever resumes.
    if matches!(&done, Err(error) if is_stop(error)) {
        return done;
    }
    let Some(recorder) = &b.recorder else { return done };
    let json = done.as_ref().map(to_json);
    let told = match (&json, &done) {
        (Ok(json), _) => Ok(json),
        (Err(_), Err(error)) => Err((code_of(error), message_of(error))),
        (Err(_), Ok(_)) => return done,
    };
    if !b.record(recorder.end_step(index, told, open.operations))? {
        b.stage.log(&format!(
            "step {name}: its result is too long to be kept, or the record is full; it is run again on --resume"
        ));
    }
    done
}

/// True for what no script can catch.
fn is_stop(error: &EvalAltResult) -> bool {
    match error {
        EvalAltResult::ErrorTerminated(..) => true,
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => is_stop(inner),
        _ => false,
    }
}
