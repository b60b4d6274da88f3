//! One script from its text to its end.
//!
//! The engine has a thread of its own, because it blocks; here is only waited for it. A script that does not
//! come to its end when it is stopped (it may be asking a person) is left behind.

use super::bridge::Bridge;
use super::failure::{self, Stopped};
use super::{convert, data, engine, orders, params, stage};
use crate::cli::caller::Caller;
use crate::cli::runbook::{Ended, Runbook, Stage, Trouble};
use crate::cli::strategy::follow::Change;
use crate::cli::strategy::order;
use crate::cli::talk;
use rhai::Engine;
use serde_json::Value as Json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Stack of the script's thread: the deepest script that the fence allows fits many times.
pub const STACK_BYTES: usize = 64 << 20;
/// How long a stopped script may take to end.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long the cluster may take to say what goes on without the script.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Operations of the language between two looks at the clock.
const LOOK_EVERY: u64 = 64;

/// Words of the language that start a statement or an expression.
const WORDS: [&str; 16] = [
    "break", "catch", "const", "continue", "else", "false", "for", "if", "let", "loop", "return",
    "switch", "throw", "true", "try", "while",
];

/// Compiles a script and holds its parameters against those it asks for; answers their names.
pub fn check(book: &Runbook) -> Result<Vec<String>, Box<Trouble>> {
    engine::fenced().compile(&book.source).map_err(|error| failure::of_parse(&error))?;
    params::check(book).map_err(|error| failure::of_error(&error))
}

/// Runs a script until it ends or the flag is raised.
pub async fn run<C: Caller>(
    caller: Arc<C>,
    book: Runbook,
    stage: Arc<dyn Stage>,
    stop: watch::Receiver<bool>,
) -> Ended {
    let bridge = Arc::new(Bridge::new(caller, book, stage, stop.clone()));
    let (tell, told) = oneshot::channel();
    let for_thread = bridge.clone();
    let thread = std::thread::Builder::new().name("ppdb-runbook".into()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| evaluate(&for_thread)));
        let broken = |_| Err(failure::broken("the script broke the engine"));
        // Nobody listens any more if the script was left behind.
        let _ = tell.send(result.unwrap_or_else(broken));
    });
    let no_thread = |error| failure::broken(&format!("no thread for the script: {error}"));
    ended(&bridge, spawned.map(|_| told).map_err(no_thread), stop).await.0
}

/// Waits for a script that a thread works at. True if it was stopped and has not come to its end since.
pub async fn ended<C: Caller>(
    bridge: &Bridge<C>,
    told: Result<oneshot::Receiver<Result<Json, Box<Trouble>>>, Box<Trouble>>,
    stop: watch::Receiver<bool>,
) -> (Ended, bool) {
    let started = Instant::now();
    let mut left_behind = false;
    let result = match told {
        Ok(told) => tokio::select! {
            told = told => told.unwrap_or_else(|_| Err(failure::broken("the script's thread is gone"))),
            () = long_stopped(stop, bridge.until) => {
                left_behind = true;
                let why = bridge.stopped().unwrap_or(Stopped::Interrupted);
                Err(failure::of_run(*why.error(), bridge.book.timeout))
            }
        },
        Err(trouble) => Err(trouble),
    };
    let left_running = match &result {
        Ok(_) => None,
        Err(_) => left_running(bridge).await,
    };
    let (steps, steps_left_out) = bridge.steps();
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    (Ended { result, steps, steps_left_out, left_running, ms }, left_behind)
}

/// Returns when the script was stopped so long ago that it should have ended.
async fn long_stopped(mut stop: watch::Receiver<bool>, until: Instant) {
    let raised = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = raised => {}
        () = tokio::time::sleep_until(until.into()) => {}
    }
    tokio::time::sleep(STOP_GRACE).await;
}

/// On the script's thread.
fn evaluate<C: Caller>(bridge: &Arc<Bridge<C>>) -> Result<Json, Box<Trouble>> {
    let engine = furnished(bridge);
    let ast = engine.compile(&bridge.book.source).map_err(|error| failure::of_parse(&error))?;
    of_result(engine.eval_ast::<rhai::Dynamic>(&ast), bridge)
}

/// What a script ended with.
pub fn of_result<C: Caller>(
    result: Result<rhai::Dynamic, Box<rhai::EvalAltResult>>,
    bridge: &Bridge<C>,
) -> Result<Json, Box<Trouble>> {
    match result {
        Ok(value) => Ok(convert::to_json(&value)),
        Err(error) => match *error {
            rhai::EvalAltResult::Exit(value, _) => Ok(convert::to_json(&value)),
            error => Err(failure::of_run(error, bridge.book.timeout)),
        },
    }
}

/// Names that a script may use: functions, and words of the language.
pub fn names<C: Caller>(bridge: &Arc<Bridge<C>>) -> Vec<String> {
    let signatures = furnished(bridge).gen_fn_signatures(true);
    let names = signatures.iter().filter_map(|signature| signature.split('(').next());
    let is_name = |name: &&str| {
        let mut chars = name.chars();
        chars.next().is_some_and(char::is_alphabetic)
            && chars.all(|c| c.is_alphanumeric() || c == '_')
    };
    let mut names: Vec<String> =
        names.map(str::trim).filter(is_name).chain(WORDS).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

/// The fenced engine with everything a script may call.
pub fn furnished<C: Caller>(bridge: &Arc<Bridge<C>>) -> Engine {
    let mut engine = engine::fenced();
    orders::register(&mut engine, bridge);
    data::register(&mut engine, bridge);
    stage::register(&mut engine, bridge);
    let b = bridge.clone();
    engine.on_progress(move |operations| match operations % LOOK_EVERY {
        0 => b.stopped().map(Stopped::token),
        _ => None,
    });
    engine
}

/// What goes on without the script: what it had to do with last, as it stands now if that can be told.
async fn left_running<C: Caller>(bridge: &Bridge<C>) -> Option<String> {
    let last = bridge.last_change()?;
    let look = order::view(&*bridge.caller, LAST_LOOK);
    let seen = match tokio::time::timeout(LAST_LOOK, look).await {
        Ok(Ok(view)) => view
            .operation
            .filter(|op| op.id >= last.operation)
            .map(|op| Change::of(&op, view.progress.as_ref())),
        _ => None,
    };
    talk::left_running(&seen.unwrap_or(last))
}
