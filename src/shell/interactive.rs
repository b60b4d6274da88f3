//! The shell for people: the loop that carries out what the editor's thread reads.
//!
//! What the prompt shows is asked for in the background (`heard`); a prompt never waits for a node. SIGTERM ends it at
//! any time, with the terminal as it was: at a prompt, and in a command, which is left; a script may clean up before.

use super::editor::{self, Desk, Prompt, Typed};
use super::heard::{Shared, look, watch};
use super::names::Live;
use super::prompt::{prompt, styled};
use super::request::{self, Asked};
use super::script_mode::ScriptMode;
use super::signals::Terminate;
use super::{history, keys, line, rhai, script};
use crate::cli::args::admin::Admin;
use crate::cli::args::{Cli, Format, Verb};
use crate::cli::data::Stand;
use crate::cli::session::Session;
use crate::cli::{exit, live, millis, output};
use crate::script::console;
use parking_lot::Mutex;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// How long a prompt waits for a look that was asked for by what was typed.
const LOOK_WAIT: Duration = Duration::from_millis(500);
/// How long the editor may take to get ready for a line, and how often that is looked at.
const EDITOR_WAIT: Duration = Duration::from_millis(200);
const EDITOR_LOOK: Duration = Duration::from_millis(5);
/// Switches the completion of keys off.
const KEY_COMPLETION: &str = "PPDB_KEY_COMPLETION";

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
    let (typed, lines) = mpsc::channel(1);
    let off = std::env::var_os(KEY_COMPLETION).is_some_and(|value| value == "off");
    let names = Live { shared: shared.clone(), handle: Handle::current(), keys: !off };
    let colors = has_colors();
    let desk = Desk { names, colors, history: if no_history { None } else { history_file() } };
    let thread = std::thread::Builder::new().name("ppdb-editor".to_owned());
    if let Err(error) = thread.spawn(move || editor::edit(desk, &prompts, &typed)) {
        eprintln!("no line editor: {error}");
        return exit::OPERATOR;
    }
    let Some(terminate) = Terminate::hear() else { return exit::OPERATOR };
    let background = tokio::spawn(watch(shared.clone()));
    let mut shell = Shell { session, shared, colors, ask, lines, terminate, script: None };
    let code = match shell.greet().await {
        Next::Prompt => shell.talk().await,
        Next::Leave => exit::YES,
    };
    background.abort();
    code
}

/// Whether the terminal can have colors, and its user wants them (`NO_COLOR`).
fn has_colors() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let dumb = set("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !dumb && set("NO_COLOR").is_none()
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

/// What a line leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Prompt,
    Leave,
}

struct Shell<'a> {
    session: &'a mut Session,
    shared: Arc<Mutex<Shared>>,
    colors: bool,
    ask: std_mpsc::SyncSender<Prompt>,
    lines: mpsc::Receiver<Typed>,
    terminate: Terminate,
    /// The Rhai mode with its variables; they outlive the mode.
    script: Option<ScriptMode>,
}

impl Shell<'_> {
    /// Connects, so that the first prompt says where we are. A shell opens without a cluster as well.
    async fn greet(&mut self) -> Next {
        let version = env!("CARGO_PKG_VERSION");
        eprintln!("ppdb {version}; `help` lists the commands, TAB completes, Ctrl-D leaves");
        let connected = tokio::select! {
            connected = connect(self.session) => connected,
            () = self.terminate.come() => {
                eprintln!("{}", self.session.left_early());
                return Next::Leave;
            }
        };
        if let Err(explained) = connected {
            eprint!("{explained}");
        }
        self.remember();
        self.look().await;
        Next::Prompt
    }

    async fn talk(&mut self) -> u8 {
        loop {
            // It may have come behind a command; then the editor does not even begin.
            if self.terminate.came().await {
                return exit::YES;
            }
            if self.ask.send(self.prompt()).is_err() {
                return exit::OPERATOR;
            }
            let typed = tokio::select! {
                typed = self.lines.recv() => typed,
                // A view listens to it as well; from then on nobody else would.
                () = self.terminate.come() => {
                    taken_by_the_editor().await;
                    // The line with the prompt is left as it is.
                    eprintln!();
                    None
                }
            };
            let next = match typed {
                Some(Typed::Line(line)) => self.take(&line).await,
                Some(Typed::Cleared) => self.cleared(),
                Some(Typed::End) if self.leave_script() => Next::Prompt,
                Some(Typed::End) | None => Next::Leave,
            };
            if self.terminate.has_left() {
                return exit::TERMINATED;
            }
            if next == Next::Leave {
                return exit::YES;
            }
            self.remember();
            self.tell();
        }
    }

    fn prompt(&self) -> Prompt {
        if let Some(script) = self.script.as_ref().filter(|script| script.is_open) {
            let text = script.lines.prompt().to_owned();
            return (text.clone(), text);
        }
        let seen = &self.shared.lock().seen;
        let plain = prompt(seen);
        let drawn = if self.colors { styled(seen) } else { plain.clone() };
        (plain, drawn)
    }

    /// Ctrl-C in a line.
    fn cleared(&mut self) -> Next {
        if let Some(script) = &mut self.script {
            script.lines.clear();
        }
        Next::Prompt
    }

    /// Ctrl-D or `exit` in the Rhai mode leaves the mode; false if it is not on.
    fn leave_script(&mut self) -> bool {
        self.shared.lock().script_names = None;
        self.script.as_mut().is_some_and(|script| std::mem::take(&mut script.is_open))
    }

    /// Prints what was noticed while a command ran.
    fn tell(&self) {
        let waiting = self.shared.lock().waiting();
        waiting.iter().for_each(|notice| eprint!("{notice}"));
    }

    async fn take(&mut self, text: &str) -> Next {
        if let Some(script) = self.script.as_mut().filter(|script| script.is_open) {
            match script.lines.take(text, console::is_unfinished) {
                rhai::Taken::More => {}
                rhai::Taken::Leave => drop(self.leave_script()),
                rhai::Taken::TooLong => eprintln!("this is too long for a script"),
                rhai::Taken::Run(text) => self.run_script(&text).await,
            }
            return Next::Prompt;
        }
        match rhai::asked(text) {
            Some("") => self.open_script().await,
            Some(text) => self.run_script(text).await,
            None => return self.carry_out(text).await,
        }
        Next::Prompt
    }

    /// Carries out one line of commands.
    async fn carry_out(&mut self, text: &str) -> Next {
        let started = Instant::now();
        let format = output::format_or_default(self.session.base().output);
        let asked = match line::words(text.as_bytes()) {
            Ok(words) if words.is_empty() => return Next::Prompt,
            Ok(words) => request::of_words(words),
            Err(error) => Asked::Answer(Box::new(Err(error.into()))),
        };
        match asked {
            Asked::Leave => return Next::Leave,
            Asked::Answer(done) => drop(script::show(&done, format, millis(started))),
            Asked::Run(cli, stand) => self.command(*cli, &stand, format, started).await,
        }
        Next::Prompt
    }

    async fn command(&mut self, cli: Cli, stand: &Stand, format: Format, started: Instant) {
        if let Verb::Run(args) = &cli.verb {
            self.shared.lock().told_elsewhere = true;
            let asked = async || {
                self.terminate.leave().await;
            };
            script::runbook(self.session, args, &cli.globals, asked).await;
            return self.told().await;
        }
        let format = cli.globals.output.unwrap_or(format);
        let keys = keys::typed(&cli.verb);
        let place = self.session.base().clone();
        let connects = matches!(cli.verb, Verb::Admin(Admin::Connect { .. }));
        let orders = matches!(cli.verb, Verb::Admin(Admin::Strategy(_)));
        // What only asks, or only orders, does not tell how it goes on.
        let follows = matches!(&cli.verb, Verb::Admin(Admin::Strategy(verb)) if verb.waits());
        self.shared.lock().told_elsewhere = follows;
        let ends_itself = live::hears_interrupt(&cli.verb);
        let done = {
            let mut running = pin!(self.session.run(cli, stand));
            tokio::select! {
                done = &mut running => Some(done),
                code = self.terminate.leave() => {
                    let answers = ends_itself && code == exit::INTERRUPTED;
                    live::ended_after_interrupt(answers, running).await
                }
            }
        };
        match done {
            Some(done) => {
                script::show(&done, format, millis(started));
                self.shared.lock().note(&keys, &done);
            }
            None => eprintln!("{}", self.session.left_early()),
        }
        let moves = !self.session.base().same_connection(&place);
        if moves {
            self.shared.lock().moved();
        }
        if moves || connects {
            // Its console is on the connection that was.
            self.script = None;
        }
        self.remember();
        let unknown = self.shared.lock().seen.heard.snapshot().is_none();
        if orders {
            self.told().await;
        } else if moves || unknown {
            self.look().await;
        }
    }

    /// The prompt is up to date when a command ends that told what happened; from here on notices tell it again.
    async fn told(&self) {
        self.look().await;
        self.shared.lock().told_elsewhere = false;
    }

    /// Looks at the cluster for the next prompt, if that is quick.
    async fn look(&self) {
        if self.terminate.has_left() {
            return;
        }
        let shared = self.shared.clone();
        let looking = tokio::spawn(async move { look(&shared).await });
        // One that takes long goes on beside the prompt.
        let _ = tokio::time::timeout(LOOK_WAIT, looking).await;
    }

    /// Takes over what the session learned with its last command.
    fn remember(&self) {
        self.shared.lock().remember(self.session);
    }

    async fn open_script(&mut self) {
        match self.ready_script().await {
            Ok(script) => {
                script.is_open = true;
                let names = script.names();
                self.shared.lock().script_names = Some(names);
                eprintln!("Rhai: TAB completes; `exit`, Ctrl-D or two empty lines leave");
            }
            Err(explained) => eprint!("{explained}"),
        }
    }

    async fn run_script(&mut self, text: &str) {
        self.shared.lock().told_elsewhere = true;
        let ready = self.ready_script().await.map(drop);
        let names = match (ready, &mut self.script) {
            (Ok(()), Some(script)) => {
                script.run(text, self.terminate.leave()).await;
                Some(script.names()).filter(|_| script.is_open)
            }
            (Ok(()), None) => None,
            (Err(explained), _) => {
                eprint!("{explained}");
                None
            }
        };
        self.shared.lock().script_names = names;
        self.told().await;
    }

    /// The Rhai mode, on the connection that the session has.
    async fn ready_script(&mut self) -> Result<&mut ScriptMode, String> {
        if self.session.connected().is_none() {
            tokio::select! {
                connected = connect(self.session) => connected?,
                _ = self.terminate.leave() => return Err("interrupted\n".to_owned()),
            }
        }
        let Some(client) = self.session.connected() else {
            return Err("not connected\n".to_owned());
        };
        let base = self.session.base();
        let old = self.script.take();
        let is_open = old.as_ref().is_some_and(|script| script.is_open);
        let mut script = match old.filter(|script| script.fits(base)) {
            Some(script) => script,
            None => {
                ScriptMode::new(client, base).map_err(|error| output::explain(&error.into()))?
            }
        };
        script.is_open = is_open;
        Ok(self.script.insert(script))
    }
}

/// Waits until the editor has taken the terminal for the line that it was asked for. It would do so after the terminal
/// was given back, otherwise. One that cannot be drawn on is never taken.
async fn taken_by_the_editor() {
    let taken = async {
        while tcgetattr(std::io::stdin())
            .is_ok_and(|modes| modes.local_modes.contains(LocalModes::ICANON))
        {
            tokio::time::sleep(EDITOR_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(EDITOR_WAIT, taken).await;
}

/// Connects to the endpoints of the session; answers what is wrong.
async fn connect(session: &mut Session) -> Result<(), String> {
    let Asked::Run(cli, stand) = request::of_words(vec!["connect".into()]) else { return Ok(()) };
    let done = session.run(*cli, &stand).await;
    done.map(drop).map_err(|failure| output::explain(&failure))
}
