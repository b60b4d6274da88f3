//! The shell for people: a line editor on a thread of its own, commands on the session.
//!
//! The editor blocks, so it has its own thread and gets one prompt for one line. What the prompt shows is
//! asked for in the background; a prompt never waits for a node.

use super::complete::complete;
use super::prompt::{Seen, prompt};
use super::request::{self, Asked};
use super::{history, line, script};
use crate::cli::session::Session;
use crate::cli::{exit, millis, output};
use crate::client::Client;
use crate::wire::command::{Answer, Command};
use parking_lot::Mutex;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{
    ColorMode, Completer, CompletionType, Config, Editor, Helper, Highlighter, Hinter, Validator,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often the background asks how the cluster is.
const REFRESH: Duration = Duration::from_secs(2);
/// How long it waits for the answer.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// What the editor, the background and the loop share.
#[derive(Default)]
struct Shared {
    client: Option<Client>,
    seen: Seen,
    nodes: Vec<String>,
}

enum Typed {
    Line(String),
    Cleared,
    End,
}

/// The terminal as it was. The editor's thread may be in the middle of a line when the shell is dropped,
/// and would leave the terminal without echo.
struct Terminal(Option<Termios>);

impl Terminal {
    fn remember() -> Self {
        Self(tcgetattr(std::io::stdin()).ok())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(modes) = &self.0 {
            // A terminal that is gone needs no modes.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// Runs until Ctrl-D or `exit`; answers the exit code.
pub async fn run(session: &mut Session, no_history: bool) -> u8 {
    let _terminal = Terminal::remember();
    let shared = Arc::new(Mutex::new(Shared::default()));
    let (ask, prompts) = std_mpsc::sync_channel(1);
    let (typed, mut lines) = mpsc::channel(1);
    let history = if no_history { None } else { history_file() };
    let editor = shared.clone();
    let thread = std::thread::Builder::new().name("ppdb-editor".to_owned());
    if let Err(error) = thread.spawn(move || edit(history, &editor, &prompts, &typed)) {
        eprintln!("no line editor: {error}");
        return exit::OPERATOR;
    }
    let background = tokio::spawn(watch(shared.clone()));
    greet(session, &shared).await;
    let code = talk(session, &shared, &ask, &mut lines).await;
    background.abort();
    code
}

async fn talk(
    session: &mut Session,
    shared: &Mutex<Shared>,
    ask: &std_mpsc::SyncSender<String>,
    lines: &mut mpsc::Receiver<Typed>,
) -> u8 {
    loop {
        let text = prompt(&shared.lock().seen);
        if ask.send(text).is_err() {
            return exit::OPERATOR;
        }
        let line = match lines.recv().await {
            Some(Typed::Line(line)) => line,
            Some(Typed::Cleared) => continue,
            Some(Typed::End) | None => return exit::YES,
        };
        if !carry_out(session, &line).await {
            return exit::YES;
        }
        remember(session, shared);
    }
}

/// Carries out one line; false at `exit`.
async fn carry_out(session: &mut Session, text: &str) -> bool {
    let started = Instant::now();
    let format = output::format_or_default(session.base().output);
    let asked = match line::words(text.as_bytes()) {
        Ok(words) if words.is_empty() => return true,
        Ok(words) => request::of_words(words),
        Err(error) => Asked::Answer(Box::new(Err(error.into()))),
    };
    let (done, format) = match asked {
        Asked::Leave => return false,
        Asked::Answer(done) => (*done, format),
        Asked::Run(cli, stand) => {
            if let Some(run) = script::runbook(session, &cli) {
                run.await;
                return true;
            }
            let format = cli.globals.output.unwrap_or(format);
            tokio::select! {
                done = session.run(*cli, &stand) => (done, format),
                _ = tokio::signal::ctrl_c() => {
                    eprintln!("{}", session.left_early());
                    return true;
                }
            }
        }
    };
    script::show(&done, format, millis(started));
    true
}

/// Connects, so that the first prompt says where we are. A shell opens without a cluster as well.
async fn greet(session: &mut Session, shared: &Mutex<Shared>) {
    eprintln!("ppdb {}; `help` lists the commands, Ctrl-D leaves", env!("CARGO_PKG_VERSION"));
    if let Asked::Run(cli, stand) = request::of_words(vec!["connect".into()])
        && let Err(failure) = session.run(*cli, &stand).await
    {
        eprint!("{}", output::explain(&failure));
    }
    remember(session, shared);
    if let Some(client) = session.connected() {
        let seen = ask_status(client).await;
        note(shared, seen);
    }
}

/// Takes over what the session learned with its last command.
fn remember(session: &Session, shared: &Mutex<Shared>) {
    let mut shared = shared.lock();
    shared.client = session.connected().cloned();
    shared.seen.cluster = session.cluster().map(str::to_owned);
    shared.seen.node = session.last_node().cloned();
    let map = session.map().filter(|map| !map.nodes.is_empty());
    shared.seen.map = map.as_ref().map(|map| (map.strategy, map.epoch));
    shared.nodes =
        map.map_or_else(Vec::new, |map| map.nodes.iter().map(|n| n.name.to_string()).collect());
}

/// Keeps asking how the cluster is, while there is a client.
async fn watch(shared: Arc<Mutex<Shared>>) {
    loop {
        tokio::time::sleep(REFRESH).await;
        let client = shared.lock().client.clone();
        if let Some(client) = client {
            let seen = ask_status(&client).await;
            note(&shared, seen);
        }
    }
}

async fn ask_status(client: &Client) -> Option<crate::wire::command::Status> {
    let ask = client.command(Command::Status, None, REFRESH_TIMEOUT);
    match tokio::time::timeout(REFRESH_TIMEOUT, ask).await {
        Ok(Ok((Answer::Status(status), _))) => Some(status),
        _ => None,
    }
}

fn note(shared: &Mutex<Shared>, status: Option<crate::wire::command::Status>) {
    let mut shared = shared.lock();
    shared.seen.down = status.as_ref().map(|status| {
        status.nodes.iter().filter(|node| !node.up).map(|node| node.name.clone()).collect()
    });
    if let Some(status) = status {
        shared.seen.map = Some((status.strategy, status.epoch));
    }
}

/// Completes from the command tree.
struct TreeCompleter(Arc<Mutex<Shared>>);

impl rustyline::completion::Completer for TreeCompleter {
    type Candidate = String;
    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let nodes = self.0.lock().nodes.clone();
        Ok(complete(line.get(..pos).unwrap_or(line), &nodes))
    }
}

#[derive(Completer, Helper, Highlighter, Hinter, Validator)]
struct TreeHelper {
    #[rustyline(Completer)]
    completer: TreeCompleter,
}

/// The editor's thread: one line for each prompt, until the loop goes away or the terminal does.
fn edit(
    history: Option<PathBuf>,
    shared: &Arc<Mutex<Shared>>,
    prompts: &std_mpsc::Receiver<String>,
    typed: &mpsc::Sender<Typed>,
) {
    let mut editor = match editor(shared) {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("no line editor: {error}");
            return;
        }
    };
    if let Some(path) = &history {
        // An unreadable history is an empty one.
        let _ = editor.load_history(path);
    }
    while let Ok(text) = prompts.recv() {
        let input = match editor.readline(&text) {
            Ok(line) => {
                keep(&mut editor, &line, history.as_ref());
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Cleared,
            Err(_) => Typed::End,
        };
        if typed.blocking_send(input).is_err() {
            return;
        }
    }
}

fn editor(shared: &Arc<Mutex<Shared>>) -> rustyline::Result<Editor<TreeHelper, FileHistory>> {
    let config = Config::builder()
        .max_history_size(history::LINES_MAX)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .color_mode(ColorMode::Disabled)
        .build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(TreeHelper { completer: TreeCompleter(shared.clone()) }));
    Ok(editor)
}

/// Remembers a line; one that starts with a blank is not remembered.
fn keep(editor: &mut Editor<TreeHelper, FileHistory>, line: &str, history: Option<&PathBuf>) {
    let added = editor.add_history_entry(line).unwrap_or(false);
    if let Some(path) = history.filter(|_| added)
        && let Err(error) = editor.append_history(path)
    {
        eprintln!("history: {error}");
    }
}

fn history_file() -> Option<PathBuf> {
    let path = history::file(|name| std::env::var_os(name).map(PathBuf::from))?;
    match history::prepare(&path) {
        Ok(()) => Some(path),
        Err(error) => {
            eprintln!("no history: {}: {error}", path.display());
            None
        }
    }
}
