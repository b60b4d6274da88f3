//! `ppdb run`: what a runbook is given, what comes of it, and how both look at a terminal.
//!
//! The language is behind `ScriptDoor`, which stands above this module and is handed in, as the shell is.

mod summary;
mod terminal;

use super::args::{Format, Globals, RunArgs};
use super::session::{self, Call};
use super::strategy::follow::Change;
use super::talk::Talk;
use super::value::{Answered, Doc, Done};
use super::{exit, millis, output};
use crate::client::Client;
use crate::types::{Code, Error, Result, limits};
use serde_json::{Value as Json, json};
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub use summary::explained;
pub use terminal::{Terminal, shown};

/// How long a script may run unless `--timeout` says otherwise.
pub const RUN_DEFAULT: Duration = Duration::from_secs(3600);
/// Bytes of a script.
pub const SOURCE_BYTES_MAX: u64 = 1 << 20;
/// Time for a goodbye to the nodes.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// A script and what it is given.
#[derive(Clone, Debug)]
pub struct Runbook {
    /// What it is called in messages: its path.
    pub name: String,
    /// Its text.
    pub source: String,
    /// `--param`, in the order given; the last of a name counts.
    pub params: Vec<(String, String)>,
    /// Give no order.
    pub dry_run: bool,
    /// Answer yes to whatever it asks.
    pub yes: bool,
    /// The whole time it may take.
    pub timeout: Duration,
    /// The time of one request to the cluster.
    pub request_timeout: Duration,
}

/// What a script shows and asks.
pub trait Stage: Send + Sync {
    /// A line of its own.
    fn print(&self, text: &str);
    /// A remark about what it does.
    fn log(&self, text: &str);
    /// An operation that it waits for has moved on.
    fn changed(&self, change: &Change);
    /// A question; an error if nobody is there to answer.
    fn confirm(&self, question: &str) -> Result<bool>;
}

/// One order or check of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The call, with its arguments.
    pub call: String,
    /// Where in the script; 0 if not known.
    pub line: usize,
    /// Its code, if it failed.
    pub code: Option<String>,
    /// The time it took.
    pub ms: f64,
}

/// Why a script ended early.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// A code of `types::Code`, or `ScriptSyntax`, `ScriptError`, `ScriptLimit`, `ScriptFailed`,
    /// `ScriptTimeout`, `Interrupted`.
    pub code: String,
    /// What to do, as for every error: `retry`, `fix`, `uncertain`, `stop`.
    pub class: String,
    /// What happened.
    pub message: String,
    /// Line and column, from 1.
    pub at: Option<(usize, usize)>,
    /// Functions of the script that were being called, the innermost first.
    pub inside: Vec<String>,
    /// The exit code of the program.
    pub exit: u8,
}

/// What came of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The value of its last expression.
    pub result: Result<Json, Box<Trouble>>,
    /// What it ordered and checked, in order; at most a thousand.
    pub steps: Vec<Step>,
    /// What did not fit among them.
    pub steps_left_out: u64,
    /// What goes on without it, if it ended early.
    pub left_running: Option<String>,
    /// The time it took.
    pub ms: f64,
}

/// Runs a script on a connected client until it ends or the flag is raised.
pub type RunDoor = fn(
    Client,
    Runbook,
    Arc<dyn Stage>,
    watch::Receiver<bool>,
) -> Pin<Box<dyn Future<Output = Ended> + Send>>;

/// The language of runbooks.
#[derive(Clone, Copy)]
pub struct ScriptDoor {
    /// Compiles a script and holds the parameters given against those it asks for. Answers their names,
    /// as far as they can be told from the text.
    pub check: fn(&Runbook) -> Result<Vec<String>, Box<Trouble>>,
    /// Runs a script.
    pub run: RunDoor,
}

/// `ppdb run FILE`: answers the exit code. `all` are the settings from every source, `typed` the flags.
pub async fn start(door: ScriptDoor, args: &RunArgs, all: &Globals, typed: &Globals) -> u8 {
    let format = output::format_or_default(all.output);
    let started = Instant::now();
    let failed = |error: Error| super::report(&Err(error.into()), format, millis(started));
    let book = match read(&args.file) {
        Ok(source) => Runbook {
            name: args.file.display().to_string(),
            source,
            params: args.params.clone(),
            dry_run: args.dry_run,
            yes: args.yes,
            timeout: typed.timeout.unwrap_or(RUN_DEFAULT),
            request_timeout: all.timeout.unwrap_or(limits::DEADLINE_DEFAULT),
        },
        Err(error) => return failed(error),
    };
    // Before anybody is asked anything: a misspelt script costs no connection.
    let params = match (door.check)(&book) {
        Ok(params) => params,
        Err(trouble) => return finish(&book, &of_trouble(trouble, millis(started)), format),
    };
    if args.check {
        return super::report(&checked(&book, &params), format, millis(started));
    }
    let client = match connect(all, &book).await {
        Ok(client) => client,
        Err(error) => return failed(error),
    };
    let ended = on_stage(door, client.clone(), &book, format).await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
    finish(&book, &ended, format)
}

async fn connect(all: &Globals, book: &Runbook) -> Result<Client> {
    let call = Call {
        globals: all.clone(),
        typed: Globals::default(),
        deadline: Instant::now() + book.request_timeout,
        talk: Talk::default(),
    };
    Ok(session::open(all, &call).await?.0)
}

/// Runs it; Ctrl-C stops it, and nothing else.
async fn on_stage(door: ScriptDoor, client: Client, book: &Runbook, format: Format) -> Ended {
    let (stop, stopped) = watch::channel(false);
    let stage = Arc::new(Terminal::new(format));
    let running = (door.run)(client, book.clone(), stage.clone(), stopped);
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        _ = tokio::signal::ctrl_c() => {
            stop.send_replace(true);
            running.await
        }
    };
    stage.close();
    ended
}

fn read(path: &Path) -> Result<String> {
    let bad = |why: String| Error::new(Code::BadRequest, format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut limited = file.take(SOURCE_BYTES_MAX + 1);
    limited.read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > SOURCE_BYTES_MAX {
        return Err(bad(format!("a script has at most {SOURCE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| bad("a script is UTF-8 text".into()))
}

fn checked(book: &Runbook, params: &[String]) -> Done {
    let json = json!({ "script": book.name, "params": params });
    let notes = vec![format!("{} compiles", book.name)];
    let rows = params.iter().map(|name| vec![name.clone()]).collect();
    Ok(Answered::doc(Doc { json, header: vec!["PARAMETER"], rows, notes }, None))
}

fn of_trouble(trouble: Box<Trouble>, ms: f64) -> Ended {
    Ended { result: Err(trouble), steps: vec![], steps_left_out: 0, left_running: None, ms }
}

/// Prints how it ended and answers the exit code.
fn finish(book: &Runbook, ended: &Ended, format: Format) -> u8 {
    // A reader that went away is no failure of the script.
    let _ = output::print(&summary::printed(book, ended, format));
    ended.result.as_ref().map_or_else(|trouble| trouble.exit, |_| exit::YES)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
