//! Scripts one after the other, typed by a person: variables and functions of one are there for the next.
//!
//! The engine's values cannot leave the thread they were made on, so a console has a thread of its own for as long as
//! it is open. One that does not come to its end when it is stopped is left behind, with its variables.

use super::bridge::Bridge;
use super::engine;
use super::failure;
use super::run::{self, STACK_BYTES, ended, furnished, of_result};
use crate::cli::caller::Caller;
use crate::cli::runbook::{Ended, Runbook, Stage, Trouble};
use rhai::{AST, Dynamic, LexError, ParseErrorType, Scope};
use serde_json::Value as Json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::{oneshot, watch};

/// One script for the thread.
struct Job<C> {
    bridge: Arc<Bridge<C>>,
    tell: oneshot::Sender<Result<Json, Box<Trouble>>>,
}

/// An open console.
pub struct Console<C> {
    jobs: Option<SyncSender<Job<C>>>,
}

impl<C: Caller> Default for Console<C> {
    fn default() -> Self {
        Self { jobs: None }
    }
}

impl<C: Caller> Console<C> {
    /// Runs a script until it ends or the flag is raised. Has to be called inside the runtime that drives the client.
    pub async fn eval(
        &mut self,
        caller: Arc<C>,
        book: Runbook,
        stage: Arc<dyn Stage>,
        stop: watch::Receiver<bool>,
    ) -> Ended {
        let bridge = Arc::new(Bridge::new(caller, book, stage, stop.clone()));
        let (tell, told) = oneshot::channel();
        let job = Job { bridge: bridge.clone(), tell };
        let given = self.thread().and_then(|jobs| jobs.send(job).map_err(|_| gone()));
        let (ended, left_behind) = ended(&bridge, given.map(|()| told), stop).await;
        if left_behind {
            self.jobs = None;
        }
        ended
    }

    /// The thread; started if there is none.
    fn thread(&mut self) -> Result<&SyncSender<Job<C>>, Box<Trouble>> {
        if self.jobs.is_none() {
            let (send, jobs) = sync_channel(1);
            let thread =
                std::thread::Builder::new().name("ppdb-console".into()).stack_size(STACK_BYTES);
            thread
                .spawn(move || work(&jobs))
                .map_err(|error| failure::broken(&format!("no thread for scripts: {error}")))?;
            self.jobs = Some(send);
        }
        self.jobs.as_ref().ok_or_else(gone)
    }
}

fn gone() -> Box<Trouble> {
    failure::broken("the console's thread is gone")
}

/// On the console's thread: one job after the other, until the console is closed.
fn work<C: Caller>(jobs: &Receiver<Job<C>>) {
    let (mut scope, mut functions) = (Scope::new(), AST::empty());
    for job in jobs {
        let run = AssertUnwindSafe(|| evaluate(&job.bridge, &mut scope, &mut functions));
        let broken = |_| Err(failure::broken("the script broke the engine"));
        // Nobody listens any more if it was left behind.
        let _ = job.tell.send(catch_unwind(run).unwrap_or_else(broken));
    }
}

fn evaluate<C: Caller>(
    bridge: &Arc<Bridge<C>>,
    scope: &mut Scope<'static>,
    functions: &mut AST,
) -> Result<Json, Box<Trouble>> {
    let engine = furnished(bridge);
    let script = engine.compile_with_scope(scope, &bridge.book.source);
    let script = functions.merge(&script.map_err(|error| failure::of_parse(&error))?);
    let result = engine.eval_ast_with_scope::<Dynamic>(scope, &script);
    *functions = script.clone_functions_only();
    of_result(result, bridge)
}

/// Names that a script may use: functions, and words of the language. Has to be called inside a runtime.
pub fn names<C: Caller>(caller: Arc<C>, book: Runbook, stage: Arc<dyn Stage>) -> Vec<String> {
    let (_keep, stop) = watch::channel(false);
    run::names(&Arc::new(Bridge::new(caller, book, stage, stop)))
}

/// Whether a text is the beginning of a script, and not one yet.
pub fn is_unfinished(text: &str) -> bool {
    let mut engine = engine::fenced();
    // Which variables there are is not known here.
    engine.set_strict_variables(false);
    let Err(error) = engine.compile(text) else { return false };
    match error.err_type() {
        ParseErrorType::UnexpectedEOF => true,
        ParseErrorType::BadInput(LexError::UnterminatedString) => text.contains('`'),
        _ => at_end(text, error.position()),
    }
}

/// Whether a place lies behind everything that was typed.
fn at_end(text: &str, place: rhai::Position) -> bool {
    let Some(line) = place.line() else { return true };
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = lines.last().map_or(0, |last| last.chars().count());
    line > lines.len() || (line == lines.len() && place.position().is_some_and(|at| at > last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_unfinished_as_long_as_its_end_is_missing() {
        for open in [
            "for i in 0..3 {\n",
            "print(\n",
            "print(1,\n",
            "let a = [1,\n",
            "let m = #{ a: 1,\n",
            "let x =\n",
            "1 +\n",
            "if true {\n print(1);\n}\nelse {\n",
            "let t = `one\n",
            "fn f(a) {\n",
            "unknown + {\n",
        ] {
            assert!(is_unfinished(open), "{open}");
        }
        for done in ["", "1 + 1\n", "let x = 1;\n", "for i in 0..3 { }\n", "unknown\n"] {
            assert!(!is_unfinished(done), "{done}");
        }
        for wrong in ["let 1 = x;\n", ")\n", "print(1));\n", "\"open\n", "let x = 1 2;\n", "}\n"] {
            assert!(!is_unfinished(wrong), "{wrong}");
        }
    }
}
