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
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use summary::explained;
pub use terminal::{Terminal, shown};

/// How long a script may run unless `--timeout` says otherwise.
pub const RUN_DEFAULT: Duration = Duration::from_secs(3600);
/// Bytes of a script.
pub const SOURCE_BYTES_MAX: u64 = 64 << 10;
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
    /// The record that it goes on with: what it says is done is not done again.
    pub resume: Option<u64>,
    /// Nothing else runs in this process: the memory that a script may take is measured.
    pub alone: bool,
}

impl Runbook {
    /// A script with nothing else given.
    pub fn of(name: &str, source: &str) -> Self {
        Self {
            name: name.to_owned(),
            source: source.to_owned(),
            params: Vec::new(),
            dry_run: false,
            yes: false,
            timeout: RUN_DEFAULT,
            request_timeout: limits::DEADLINE_DEFAULT,
            resume: None,
            alone: false,
        }
    }
}

/// A parameter that a script declares.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// `bool`, `int`, `float` or `string`.
    pub kind: &'static str,
    /// What it is unless given; none if it has to be.
    pub default: Option<Json>,
}

/// What a script shows and asks.
pub trait Stage: Send + Sync {
    /// A line of its own.
    fn print(&self, text: &str);
    /// A remark about what it does.
    fn log(&self, text: &str);
    /// An operation that it waits for has moved on.
    fn changed(&self, change: &Change);
    /// A question; an error if nobody is there to answer. Whoever stops waiting leaves nobody behind who reads.
    fn confirm<'a>(&'a self, question: &'a str) -> Asking<'a>;
}

/// A person thinks about a question.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<bool>> + Send + 'a>>;

/// A step of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Where in the script; 0 if not known.
    pub line: usize,
    /// The code of its failure.
    pub code: Option<String>,
    /// It was done by the run that is resumed, and not again.
    pub replayed: bool,
    /// The time it took.
    pub ms: f64,
}

/// One order or check of a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
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
    /// `ScriptTimeout`, `GuardFailed`, `NotInStep`, `Interrupted`.
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
    /// The number of its record; none if none was kept.
    pub run: Option<u64>,
    /// Its steps, in order.
    pub steps: Vec<Step>,
    /// What it ordered and checked, in order; at most a thousand.
    pub calls: Vec<Called>,
    /// What did not fit among them.
    pub calls_left_out: u64,
    /// What goes on without it, if it ended early.
    pub left_running: Option<String>,
    /// The time it took.
    pub ms: f64,
}

impl Ended {
    /// One that has done nothing.
    pub fn of(result: Result<Json, Box<Trouble>>) -> Self {
        let (run, left_running, ms) = (None, None, 0.0);
        Self { result, run, steps: vec![], calls: vec![], calls_left_out: 0, left_running, ms }
    }
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
    /// Compiles a script and holds the parameters given against those it declares. Answers those.
    pub check: fn(&Runbook) -> Result<Vec<Param>, Box<Trouble>>,
    /// Runs a script.
    pub run: RunDoor,
    /// What a record knows a script by.
    pub sha256: fn(&str) -> String,
    /// Everything that a script may call, for editors.
    pub definitions: fn() -> String,
}

/// `ppdb run FILE`, which Ctrl-C stops: answers the exit code. `all` are the settings from every source, `typed` the
/// flags. `attended`: a person at a terminal can be asked.
pub async fn start(
    door: ScriptDoor,
    args: &RunArgs,
    all: &Globals,
    typed: &Globals,
    attended: bool,
) -> u8 {
    // One for the whole run: a Ctrl-C that comes between two waits is not lost.
    let mut interrupts = signal(SignalKind::interrupt()).ok();
    let asked = async || match &mut interrupts {
        Some(interrupts) => drop(interrupts.recv().await),
        // It cannot be heard: then it ends the program by itself.
        None => std::future::pending().await,
    };
    start_until(door, args, all, typed, attended, asked).await
}

/// The same for a caller who hears what stops the script: `asked` returns each time that somebody wants an end of it.
pub async fn start_until(
    door: ScriptDoor,
    args: &RunArgs,
    all: &Globals,
    typed: &Globals,
    attended: bool,
    mut asked: impl AsyncFnMut(),
) -> u8 {
    let format = output::format_or_default(all.output);
    let started = Instant::now();
    let ready = tokio::select! {
        ready = ready(door, args, all, typed, format, started) => ready,
        () = asked() => {
            let name = args.file.as_ref().map(|path| path.display().to_string());
            let trouble = interrupted("the script was interrupted before it began");
            let book = Runbook::of(&name.unwrap_or_default(), "");
            return finish(&book, &of_trouble(trouble, millis(started)), format);
        }
    };
    let (book, client) = match ready {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    let stage = Terminal::new(format, attended);
    let ended = on_stage(door, client.clone(), &book, stage, asked).await;
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, client.close()).await;
    finish(&book, &ended, format)
}

/// What can be run, and a connection for it. An exit code if there is nothing to run, or something is wrong: then that
/// was printed.
async fn ready(
    door: ScriptDoor,
    args: &RunArgs,
    all: &Globals,
    typed: &Globals,
    format: Format,
    started: Instant,
) -> Result<(Runbook, Client), u8> {
    let done = |done: Done| super::report(&done, format, millis(started));
    if let Some(path) = &args.definitions {
        return Err(done(define(door, path).map_err(Into::into)));
    }
    let request_timeout = all.timeout.unwrap_or(limits::DEADLINE_DEFAULT);
    let (book, client) = match opened(door, args, all, request_timeout).await {
        Ok(opened) => opened,
        Err(error) => return Err(done(Err(error.into()))),
    };
    let timeout = typed.timeout.unwrap_or(RUN_DEFAULT);
    let book = Runbook { timeout, request_timeout, ..book };
    // Before anybody is asked anything: a misspelt script costs no connection.
    let params = match (door.check)(&book) {
        Ok(params) => params,
        Err(trouble) => return Err(finish(&book, &of_trouble(trouble, millis(started)), format)),
    };
    if args.check {
        return Err(done(checked(&book, &params)));
    }
    if let Some(missing) = params.iter().find(|param| is_missing(param, &book)) {
        let name = &missing.name;
        let message =
            format!("the parameter `{name}` has no default: --param {name}=VALUE gives one");
        return Err(done(Err(Error::new(Code::BadRequest, message).into())));
    }
    match client {
        Some(client) => Ok((book, client)),
        None => match connect(all, request_timeout).await {
            Ok(client) => Ok((book, client)),
            Err(error) => Err(done(Err(error.into()))),
        },
    }
}

/// The script, and what it is given. One that goes on with a record is given what that says, and needs a connection for
/// it.
async fn opened(
    door: ScriptDoor,
    args: &RunArgs,
    all: &Globals,
    request_timeout: Duration,
) -> Result<(Runbook, Option<Client>)> {
    let (recorded, client) = match &args.resume {
        None => (None, None),
        Some(number) => {
            let client = connect(all, request_timeout).await?;
            let run = super::runs::one(&client, *number, None, request_timeout).await?;
            (Some(run), Some(client))
        }
    };
    let path = match (&args.file, &recorded) {
        (Some(path), _) => path.clone(),
        (None, Some(run)) => PathBuf::from(&run.book.script),
        (None, None) => return Err(Error::new(Code::BadRequest, "which script?")),
    };
    let source = read(&path)?;
    if let Some(run) = &recorded
        && (door.sha256)(&source) != run.book.sha256
        && !args.allow_changed
    {
        let (number, path) = (run.number, path.display());
        let message = format!(
            "{path} is not the script of RUN-{number} any more: its steps may mean something else. \
             --allow-changed goes on all the same"
        );
        return Err(Error::new(Code::PlanOutdated, message));
    }
    let params =
        recorded.as_ref().map_or_else(|| args.params.clone(), |run| run.book.params.clone());
    let (dry_run, yes) = (args.dry_run, args.yes);
    let resume = recorded.map(|run| run.number);
    let book = Runbook::of(&path.display().to_string(), &source);
    Ok((Runbook { params, dry_run, yes, resume, alone: true, ..book }, client))
}

fn is_missing(param: &Param, book: &Runbook) -> bool {
    param.default.is_none() && !book.params.iter().any(|(name, _)| *name == param.name)
}

/// `--definitions FILE`.
fn define(door: ScriptDoor, path: &Path) -> Result<Answered> {
    let text = (door.definitions)();
    let bad = |error: std::io::Error| {
        Error::new(Code::BadRequest, format!("{}: {error}", path.display()))
    };
    std::fs::write(path, &text).map_err(bad)?;
    let (file, functions) = (path.display().to_string(), text.matches("\nfn ").count());
    let notes = vec![format!("{functions} functions are defined in {file}")];
    let json = json!({ "file": file, "functions": functions });
    Ok(Answered::doc(Doc { json, notes, ..Doc::default() }, None))
}

async fn connect(all: &Globals, timeout: Duration) -> Result<Client> {
    let call = Call {
        globals: all.clone(),
        typed: Globals::default(),
        deadline: Instant::now() + timeout,
        talk: Talk::default(),
    };
    Ok(session::open(all, &call).await?.0)
}

/// Runs it; what the caller hears stops it, and nothing else.
async fn on_stage(
    door: ScriptDoor,
    client: Client,
    book: &Runbook,
    stage: Terminal,
    mut asked: impl AsyncFnMut(),
) -> Ended {
    let (stop, stopped) = watch::channel(false);
    let stage = Arc::new(stage);
    let running = (door.run)(client, book.clone(), stage.clone(), stopped);
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = asked() => {
            stop.send_replace(true);
            tokio::select! {
                ended = &mut running => ended,
                // Whoever asks twice does not want to wait for what cleans up.
                () = asked() => Ended::of(Err(interrupted(
                    "the script was interrupted twice; its record may lack its end",
                ))),
            }
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

fn checked(book: &Runbook, params: &[Param]) -> Done {
    let json_of = |param: &Param| {
        let is_required = param.default.is_none();
        json!({ "name": param.name, "type": param.kind, "default": param.default, "required": is_required })
    };
    let params_json: Vec<Json> = params.iter().map(json_of).collect();
    let json = json!({ "script": book.name, "params": params_json });
    let notes = vec![format!("{} compiles", book.name)];
    let default = |param: &Param| match &param.default {
        None => "required".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let row = |param: &Param| vec![param.name.clone(), param.kind.to_owned(), default(param)];
    let rows = params.iter().map(row).collect();
    Ok(Answered::doc(Doc { json, header: vec!["PARAMETER", "TYPE", "DEFAULT"], rows, notes }, None))
}

fn interrupted(message: &str) -> Box<Trouble> {
    Box::new(Trouble {
        code: "Interrupted".into(),
        class: "uncertain".into(),
        message: message.into(),
        at: None,
        inside: vec![],
        exit: exit::INTERRUPTED,
    })
}

fn of_trouble(trouble: Box<Trouble>, ms: f64) -> Ended {
    Ended { ms, ..Ended::of(Err(trouble)) }
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
