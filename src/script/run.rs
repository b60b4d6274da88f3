//! One script from its text to its end.
//!
//! The engine has a thread of its own, because it blocks; here is only waited for it. A script that does not
//! come to its end when it is stopped (it may be asking a person) is left behind.

use super::bridge::{Bridge, Mode, interrupted};
use super::failure::{self, Answer, Stopped};
use super::meter::{CPU_BURST, CPU_CLOSING, Meter};
use super::record::Recorder;
use super::steps::{self, Handlers};
use super::telling::GRACE;
use super::{convert, engine, keys, objects, orders, params, stage, waits};
use crate::cli::caller::Caller;
use crate::cli::runbook::{Ended, Param, Runbook, Stage, Trouble};
use crate::cli::strategy::follow::Change;
use crate::cli::strategy::order;
use crate::cli::talk;
use crate::cluster::runs::ON_FAILURE;
use parking_lot::Mutex;
use rhai::{AST, Dynamic, Engine, EvalAltResult, Map, Scope};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Stack of the script's thread: the deepest script that the fence allows fits many times.
pub const STACK_BYTES: usize = 64 << 20;
/// How long a stopped script may take to end; longer than what it tells its record may still take then.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long cleaning up after a failure may take.
const CLOSING: Duration = Duration::from_secs(60);
/// How long the end of a run is told to its record.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How long the cluster may take to say what goes on without the script.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Operations of the language between two looks at the clock and the memory.
const LOOK_EVERY: u64 = 16;

/// Measures what the script uses, and begins anew for what cleans up.
pub type Meters = Rc<RefCell<Meter>>;

/// Compiles a script, and holds its parameters against those it declares; answers the declared ones.
pub fn check(book: &Runbook) -> Result<Vec<Param>, Box<Trouble>> {
    let book = book.clone();
    let thread = std::thread::Builder::new().name("ppdb-runbook".into()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || look_at(&book));
    let spawned = spawned.map_err(|error| failure::broken(&format!("no thread: {error}")))?;
    spawned.join().unwrap_or_else(|_| Err(failure::broken("the script broke the engine")))
}

/// Runs a script until it declares its parameters, without a cluster and without a word.
fn look_at(book: &Runbook) -> Result<Vec<Param>, Box<Trouble>> {
    let mut engine = engine::fenced();
    objects::install(&mut engine);
    let found = Arc::new(Mutex::new(None));
    let (given, declared) = (book.clone(), found.clone());
    engine.register_fn("params", move |declaration: Map| -> Answer {
        let params = params::declared(&declaration);
        let fits = params::values(&given, &declaration, true);
        *declared.lock() = Some(fits.and(params));
        Err(Stopped::Looked.error())
    });
    engine.register_fn("required", |kind: &str| -> Answer<params::Required> {
        params::required(kind).map_err(failure::thrown)
    });
    engine.on_print(|_| {}).on_debug(|_, _, _| {});
    let (meter, used_up) = (Meter::start(book.alone, CPU_BURST), Arc::new(Mutex::new(None)));
    let (noted, began, timeout) = (used_up.clone(), Instant::now(), book.timeout);
    engine.on_progress(move |operations| match operations % LOOK_EVERY {
        0 => {
            let late = (began.elapsed() >= timeout).then_some(Stopped::OutOfTime);
            let why = late.or_else(|| meter.look())?;
            Some(noted.lock().get_or_insert(why).clone().token())
        }
        _ => None,
    });
    let ast = compile(&engine, &book.source)?;
    // Whatever else a script does first needs a cluster, and fails here.
    let ended = engine.eval_ast::<Dynamic>(&ast);
    let (declared, used_up) = (found.lock().take(), used_up.lock().take());
    if let Some(why) = used_up {
        let place = ended.err().and_then(|error| failure::of_run(*error, book.timeout).at);
        return Err(Box::new(Trouble {
            at: place,
            ..*failure::of_run(*why.error(), book.timeout)
        }));
    }
    match (declared, ended) {
        (Some(Ok(params)), _) => Ok(params),
        (Some(Err(error)), Err(at)) => {
            let place = failure::of_run(*at, book.timeout).at;
            Err(Box::new(Trouble { at: place, ..*failure::of_error(&error) }))
        }
        (Some(Err(error)), Ok(_)) => Err(failure::of_error(&error)),
        (None, ended) => {
            // That it fails without a cluster says nothing. That it has reached a limit before does.
            let failed = ended.err().map(|error| failure::of_run(*error, book.timeout));
            if let Some(trouble) = failed.filter(|trouble| trouble.code == failure::LIMIT) {
                return Err(trouble);
            }
            params::check(book, &[]).map_err(|error| failure::of_error(&error))?;
            Ok(Vec::new())
        }
    }
}

/// Compiles a text that may name the things of a cluster.
pub fn compile(engine: &Engine, source: &str) -> Result<AST, Box<Trouble>> {
    compile_in(engine, &objects::names(), source)
}

/// The same with the names that there are.
pub fn compile_in(engine: &Engine, names: &Scope<'_>, source: &str) -> Result<AST, Box<Trouble>> {
    engine.compile_with_scope(names, source).map_err(|error| failure::of_parse(&error))
}

/// Runs a script until it ends or the flag is raised.
pub async fn run<C: Caller>(
    caller: Arc<C>,
    book: Runbook,
    stage: Arc<dyn Stage>,
    stop: watch::Receiver<bool>,
) -> Ended {
    let started = Instant::now();
    let mode = if book.dry_run { Mode::Dry } else { Mode::Run };
    let recorder = match mode {
        Mode::Run => match begun(&caller, &book, stop.clone()).await {
            Ok(recorder) => Some(Arc::new(recorder)),
            Err(trouble) => return never_begun(trouble, started),
        },
        _ => None,
    };
    let run = recorder.as_ref().map(|recorder| recorder.run.number);
    let bridge = Bridge::new(caller, book, stage, stop.clone(), mode, recorder.clone());
    let bridge = Arc::new(bridge);
    let result = on_its_thread(&bridge, stop).await;
    if let Some(recorder) = &recorder {
        let failure = result.as_ref().err().map(|t| (t.code.clone(), t.message.clone()));
        let told = tokio::time::timeout(END_PATIENCE, recorder.end(failure)).await;
        if !matches!(told, Ok(Ok(()))) {
            bridge.stage.log("the end of this run could not be recorded");
        }
    }
    let left_running = match &result {
        Ok(_) => None,
        Err(_) => left_running(&bridge).await,
    };
    let (calls, calls_left_out) = bridge.calls();
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    Ended { result, run, steps: bridge.steps(), calls, calls_left_out, left_running, ms }
}

/// Its record, unless whoever runs it has stopped it before there was one.
async fn begun<C: Caller>(
    caller: &Arc<C>,
    book: &Runbook,
    stop: watch::Receiver<bool>,
) -> Result<Recorder<C>, Box<Trouble>> {
    let stopped = async {
        interrupted(stop, false).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        begun = Recorder::begin(caller.clone(), book) => begun.map_err(|e| failure::of_error(&e)),
        () = stopped => Err(failure::of_run(*Stopped::Interrupted.error(), book.timeout)),
    }
}

fn never_begun(trouble: Box<Trouble>, started: Instant) -> Ended {
    let ms = started.elapsed().as_secs_f64() * 1000.0;
    Ended { ms, ..Ended::of(Err(trouble)) }
}

async fn on_its_thread<C: Caller>(
    bridge: &Arc<Bridge<C>>,
    stop: watch::Receiver<bool>,
) -> Result<Json, Box<Trouble>> {
    let (tell, told) = oneshot::channel();
    let for_thread = bridge.clone();
    let thread = std::thread::Builder::new().name("ppdb-runbook".into()).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| evaluate(&for_thread)));
        let broken = |_| Err(failure::broken("the script broke the engine"));
        // Nobody listens any more if the script was left behind.
        let _ = tell.send(result.unwrap_or_else(broken));
    });
    if let Err(error) = spawned {
        return Err(failure::broken(&format!("no thread for the script: {error}")));
    }
    tokio::select! {
        told = told => told.unwrap_or_else(|_| Err(failure::broken("the script's thread is gone"))),
        () = long_stopped(bridge, stop) => {
            let why = bridge.stopped().unwrap_or(Stopped::Interrupted);
            Err(failure::of_run(*why.error(), bridge.book.timeout))
        }
    }
}

/// Returns when the script was stopped so long ago that it should have ended, and what cleans up after it as well.
async fn long_stopped<C: Caller>(bridge: &Bridge<C>, mut stop: watch::Receiver<bool>) {
    let raised = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = raised => {}
        () = tokio::time::sleep_until(bridge.until().into()) => {}
    }
    tokio::time::sleep(STOP_GRACE).await;
    if let Some(until) = bridge.closing_until() {
        tokio::time::sleep_until(until.into()).await;
        tokio::time::sleep(STOP_GRACE).await;
    }
}

/// On the script's thread.
fn evaluate<C: Caller>(bridge: &Arc<Bridge<C>>) -> Result<Json, Box<Trouble>> {
    let (engine, handlers, meters) = furnished(bridge);
    let ast = compile(&engine, &bridge.book.source)?;
    match ended(bridge, engine.eval_ast::<Dynamic>(&ast)) {
        Ok(json) => Ok(json),
        Err(trouble) => {
            clean_up(bridge, &engine, &ast, &handlers, &meters, &trouble);
            Err(trouble)
        }
    }
}

/// The end of an evaluation, as a document or as what went wrong.
pub fn ended<C: Caller>(bridge: &Bridge<C>, ended: Answer) -> Result<Json, Box<Trouble>> {
    // Some functions of the language, such as a sort, go on whatever becomes of what they call.
    let ended = match (ended, bridge.ends_for()) {
        (Ok(_), Some(why)) => Err(why.error()),
        (ended, _) => ended,
    };
    match ended {
        Ok(value) => Ok(convert::to_json(&value)),
        Err(error) => match *error {
            EvalAltResult::Exit(value, _) => Ok(convert::to_json(&value)),
            error => Err(failure::of_run(error, bridge.book.timeout)),
        },
    }
}

/// What the script gave to `on_failure`, the last first, as one step. Its own failure is told, and no more.
fn clean_up<C: Caller>(
    bridge: &Arc<Bridge<C>>,
    engine: &Engine,
    ast: &AST,
    handlers: &Handlers,
    meters: &Meters,
    trouble: &Trouble,
) {
    let handlers: Vec<_> = handlers.borrow_mut().drain(..).rev().collect();
    if handlers.is_empty() {
        return;
    }
    bridge.begin_closing(CLOSING);
    bridge.close_step();
    *meters.borrow_mut() = Meter::start(bridge.book.alone, CPU_CLOSING);
    let done = steps::run_step(bridge, ON_FAILURE, 0, || {
        for handler in &handlers {
            let argument = failure::as_value(trouble);
            let _ = handler.call::<Dynamic>(engine, ast, (argument,))?;
        }
        Ok(Dynamic::UNIT)
    });
    if let Err(error) = done {
        let trouble = failure::of_run(*error, CLOSING);
        bridge
            .stage
            .log(&format!("on_failure failed itself: {} ({})", trouble.message, trouble.code));
    }
}

/// The fenced engine with everything a script may call.
pub fn furnished<C: Caller>(bridge: &Arc<Bridge<C>>) -> (Engine, Handlers, Meters) {
    let mut engine = engine::fenced();
    objects::install(&mut engine);
    objects::register(&mut engine, bridge);
    orders::register(&mut engine, bridge);
    waits::register(&mut engine, bridge);
    keys::register(&mut engine, bridge);
    stage::register(&mut engine, bridge);
    let handlers = steps::register(&mut engine, bridge);
    let meters = Meters::new(RefCell::new(Meter::start(bridge.book.alone, CPU_BURST)));
    let (b, meter) = (bridge.clone(), meters.clone());
    engine.on_progress(move |operations| match operations % LOOK_EVERY {
        0 => {
            let why = b.stopped().or_else(|| meter.borrow().look())?;
            b.end_for(why.clone());
            Some(why.token())
        }
        _ => None,
    });
    (engine, handlers, meters)
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
