//! The language line by line: for a person, who sees what each line leads to before typing the next.
//!
//! Variables and functions stay from line to line. What changes something needs no step: nothing is resumed here, and
//! there is no record of a run; orders are in the operation log as ever.

use super::bridge::{Bridge, Mode};
use super::failure;
use super::meter::{CPU_BURST, Meter};
use super::run::{STACK_BYTES, compile_in, ended, furnished};
use super::{engine, objects, table};
use crate::cli::caller::Caller;
use crate::cli::runbook::{Ended, RUN_DEFAULT, Runbook, Stage, Trouble};
use crate::types::{Code, Error, Result};
use rhai::{AST, Dynamic, Engine, ParseErrorType, Scope};
use serde_json::Value as Json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// What such a text is called in messages.
pub const NAME: &str = "rhai";
/// Time for a line that was stopped to end; after that it is left behind, and the console with it.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A conversation in the language of runbooks.
pub struct Console<C> {
    bridge: Arc<Bridge<C>>,
    lines: mpsc::SyncSender<Line>,
}

/// A text to be carried out, and where its end goes.
struct Line {
    text: String,
    done: oneshot::Sender<Said>,
}

/// What came of it, and the variables that there are afterwards.
type Said = (std::result::Result<Json, Box<Trouble>>, Vec<String>);

impl<C: Caller> Console<C> {
    /// A console over a cluster; has to be made inside the runtime that drives its client. `request_timeout` is that of
    /// one request.
    pub fn new(caller: Arc<C>, stage: Arc<dyn Stage>, request_timeout: Duration) -> Result<Self> {
        let book = Runbook { name: NAME.into(), request_timeout, ..Runbook::of("", "") };
        let (_, never) = watch::channel(false);
        let bridge = Bridge::new(caller, book, stage, never, Mode::Console, None);
        let (bridge, (lines, told)) = (Arc::new(bridge), mpsc::sync_channel(1));
        let for_thread = bridge.clone();
        let thread = std::thread::Builder::new().name("ppdb-rhai".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || answer(&for_thread, &told));
        spawned.map_err(|error| Error::new(Code::Internal, format!("no thread: {error}")))?;
        Ok(Self { bridge, lines })
    }

    /// Carries out a text, which may have any number of lines, until it ends, its time is up, or the flag is raised.
    /// Answers the value of its last expression, and the variables that there are afterwards.
    pub async fn eval(
        &self,
        text: &str,
        timeout: Option<Duration>,
        stop: watch::Receiver<bool>,
    ) -> (Ended, Vec<String>) {
        let started = Instant::now();
        let timeout = timeout.unwrap_or(RUN_DEFAULT);
        self.bridge.begin_line(timeout, stop.clone());
        let (done, told) = oneshot::channel();
        let sent = self.lines.send(Line { text: text.to_owned(), done });
        let gone =
            || (Err(failure::broken("the console was left behind; open it again")), Vec::new());
        let (result, variables) = match sent {
            Err(_) => gone(),
            Ok(()) => tokio::select! {
                told = told => told.unwrap_or_else(|_| gone()),
                () = long_stopped(stop, timeout) => gone(),
            },
        };
        let (calls, calls_left_out) = self.bridge.calls();
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        let ended =
            Ended { calls, calls_left_out, steps: self.bridge.steps(), ms, ..Ended::of(result) };
        (ended, variables)
    }
}

async fn long_stopped(mut stop: watch::Receiver<bool>, timeout: Duration) {
    let raised = async {
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = raised => {}
        () = tokio::time::sleep(timeout) => {}
    }
    tokio::time::sleep(STOP_GRACE).await;
}

/// On the console's own thread, until nobody asks any more.
fn answer<C: Caller>(bridge: &Arc<Bridge<C>>, lines: &mpsc::Receiver<Line>) {
    let (engine, handlers, meters) = furnished(bridge);
    let (mut scope, mut known) = (Scope::new(), AST::empty());
    while let Ok(Line { text, done }) = lines.recv() {
        *meters.borrow_mut() = Meter::start(bridge.book.alone, CPU_BURST);
        let said =
            catch_unwind(AssertUnwindSafe(|| one(&engine, bridge, &mut scope, &mut known, &text)));
        let said = said.unwrap_or_else(|_| Err(failure::broken("the text broke the engine")));
        // A line that failed is over; the next one is no cleaning up.
        bridge.close_step();
        handlers.borrow_mut().clear();
        let variables = scope.iter().map(|(name, ..)| name.to_owned()).collect();
        if done.send((said, variables)).is_err() {
            return;
        }
    }
}

fn one<C: Caller>(
    engine: &Engine,
    bridge: &Bridge<C>,
    scope: &mut Scope<'static>,
    known: &mut AST,
    text: &str,
) -> std::result::Result<Json, Box<Trouble>> {
    let mut names = objects::names();
    for (name, ..) in scope.iter() {
        names.push(name.to_owned(), ());
    }
    let new = compile_in(engine, &names, text)?;
    let ast = known.merge(&new);
    let done = engine.eval_ast_with_scope::<Dynamic>(scope, &ast);
    // The functions stay, what was carried out does not.
    *known = ast;
    known.clear_statements();
    ended(bridge, done)
}

/// Whether a text only lacks its end: an open bracket, string or comment, or a statement that has just begun.
pub fn is_unfinished(text: &str) -> bool {
    let mut engine = engine::fenced();
    engine.set_strict_variables(false);
    let Err(error) = engine.compile(text) else { return false };
    let last = text.trim_end().lines().count();
    let at_the_end = error.position().line().is_none_or(|line| {
        let chars = text.lines().nth(line - 1).map_or(0, |line| line.trim_end().chars().count());
        line >= last && error.position().position().is_none_or(|at| at > chars)
    });
    match error.err_type() {
        ParseErrorType::UnexpectedEOF => true,
        ParseErrorType::MissingToken(..) | ParseErrorType::ExprExpected(_) => at_the_end,
        ParseErrorType::BadInput(lex) => {
            matches!(lex, rhai::LexError::UnterminatedString) && at_the_end
        }
        _ => false,
    }
}

/// Every name that a text may begin with, for completion: objects, functions, words of the language.
pub fn names() -> Vec<&'static str> {
    table::names()
}

/// What can be called on an object, by its name: `strategy` has `plan`, `switch_to`, …; none for any other name.
pub fn methods(object: &str) -> Vec<&'static str> {
    table::methods(object)
}
