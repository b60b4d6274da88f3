//! The line editor: a thread of its own, because it blocks. It gets one prompt for one line, completes, hints, keeps
//! the history, and lets notices be drawn above the line.

use super::complete::complete;
use super::heard::Shared;
use super::names::Live;
use super::{hint, history, rhai};
use crate::script::console;
use parking_lot::Mutex;
use rustyline::completion::Pair;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{MemHistory, SearchDirection};
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, ExternalPrinter, Helper};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use tokio::sync::mpsc;

/// Notices that are on their way to the terminal.
const NOTICES_UNDER_WAY: usize = 8;

/// A prompt, without colors and with them.
pub type Prompt = (String, String);

/// What came of a prompt.
#[derive(Debug)]
pub enum Typed {
    /// A line.
    Line(String),
    /// Ctrl-C: the line is dropped.
    Cleared,
    /// Ctrl-D, or the terminal is gone.
    End,
}

/// What an editor needs.
pub struct Desk {
    /// Names for completion.
    pub names: Live,
    /// The terminal may be drawn on with colors; without them there are no hints, which would look like typed text.
    pub colors: bool,
    /// Where the history is written down; none keeps it in memory.
    pub history: Option<PathBuf>,
}

type Line = Editor<Desk, MemHistory>;

/// The editor's thread: one line for each prompt, until the loop goes away or the terminal does.
pub fn edit(desk: Desk, prompts: &Receiver<Prompt>, typed: &mpsc::Sender<Typed>) {
    let shared = desk.names.shared.clone();
    let path = desk.history.clone();
    let mut editor = match editor(desk) {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("no line editor: {error}");
            return;
        }
    };
    // A terminal that cannot be drawn on has no place above the line: notices wait for the next prompt.
    shared.lock().printer = editor.create_external_printer().ok().and_then(printer);
    while let Ok(prompt) = prompts.recv() {
        begin(&shared);
        let read = editor.readline(&prompt);
        shared.lock().reading = false;
        let input = match read {
            Ok(line) => {
                let in_script = shared.lock().script_names.is_some();
                keep(&mut editor, &line, path.as_ref(), in_script);
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

fn begin(shared: &Mutex<Shared>) {
    let mut shared = shared.lock();
    shared.reading = true;
    shared.deliver();
}

fn editor(desk: Desk) -> rustyline::Result<Line> {
    let color = if desk.colors { ColorMode::Enabled } else { ColorMode::Disabled };
    let config = Config::builder()
        .max_history_size(history::LINES_MAX)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .completion_show_all_if_ambiguous(true)
        .color_mode(color)
        .build();
    let memory = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, memory)?;
    // An unreadable history is an empty one.
    let lines = desk.history.as_ref().and_then(|path| history::load(path).ok());
    for line in lines.unwrap_or_default() {
        editor.add_history_entry(line)?;
    }
    editor.set_helper(Some(desk));
    Ok(editor)
}

/// Drawing above the line may wait for a key, so it has a thread; what does not fit its queue waits elsewhere.
fn printer(
    mut printer: impl ExternalPrinter + Send + 'static,
) -> Option<std::sync::mpsc::SyncSender<String>> {
    let (send, notices) = sync_channel::<String>(NOTICES_UNDER_WAY);
    let draw = move || {
        for text in notices {
            if printer.print(text).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("ppdb-notices".to_owned());
    thread.spawn(draw).ok().map(|_| send)
}

/// Remembers a line; one that starts with a blank is not remembered.
fn keep(editor: &mut Line, line: &str, history: Option<&PathBuf>, in_script: bool) {
    let added = editor.add_history_entry(line).unwrap_or(false);
    if let Some(path) = history.filter(|_| added && history::may_be_written(line, in_script))
        && let Err(error) = history::append(path, line)
    {
        eprintln!("history: {error}");
    }
}

/// A hint: what a command still wants, or a line of the history, which the arrow key takes over.
pub struct Shown {
    text: String,
    is_history: bool,
}

impl rustyline::hint::Hint for Shown {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.is_history.then_some(&self.text)
    }
}

impl Hinter for Desk {
    type Hint = Shown;

    fn hint(&self, line: &str, at: usize, context: &Context<'_>) -> Option<Shown> {
        if !self.colors || at < line.len() || line.is_empty() {
            return None;
        }
        // Commands are no hint for a script.
        if self.names.shared.lock().script_names.is_some() {
            return None;
        }
        if let Some(text) = hint::hint(line) {
            return Some(Shown { text, is_history: false });
        }
        let last = context.history().len().checked_sub(1)?;
        let history = context.history();
        let found = history.starts_with(line, last, SearchDirection::Reverse).ok().flatten()?;
        let text = found.entry.get(at..).filter(|rest| !rest.is_empty())?.to_owned();
        Some(Shown { text, is_history: true })
    }
}

impl Highlighter for Desk {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

impl rustyline::completion::Completer for Desk {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = line.get(..at).unwrap_or(line);
        let script_names = self.names.shared.lock().script_names.clone();
        Ok(match script_names {
            Some(names) => script(line, &names),
            None => command(line, &self.names),
        })
    }
}

impl rustyline::validate::Validator for Desk {}
impl Helper for Desk {}

/// Candidates in a line of commands. The only one is followed by a blank, unless it is a folder.
fn command(line: &str, names: &Live) -> (usize, Vec<Pair>) {
    let offer = complete(line, names);
    let only = offer.words.len() == 1 && !offer.more;
    let pair = |word: &String| {
        let end = if only && !word.ends_with('/') { " " } else { "" };
        Pair { display: word.clone(), replacement: format!("{word}{end}") }
    };
    let mut pairs: Vec<Pair> = offer.words.iter().map(pair).collect();
    if offer.more {
        // There are others that are not listed: what the listed ones have in common means nothing.
        let typed = line[offer.start..].to_owned();
        pairs.push(Pair { display: "…".into(), replacement: typed });
    }
    (offer.start, pairs)
}

/// Candidates in a line of a script: behind `object.` what can be called on it, else what is known by name.
fn script(line: &str, names: &[String]) -> (usize, Vec<Pair>) {
    let start = rhai::name_start(line);
    let partial = &line[start..];
    let object = line[..start].strip_suffix('.').map(|before| &before[rhai::name_start(before)..]);
    let words: Vec<&str> = match object {
        Some(object) => console::methods(object),
        None => names.iter().map(String::as_str).collect(),
    };
    let fit = words.into_iter().filter(|name| name.starts_with(partial));
    let pair = |name: &str| Pair { display: name.to_owned(), replacement: name.to_owned() };
    (start, fit.map(pair).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn names_of_the_language_are_completed_where_a_name_ends() {
        let names = ["status".to_owned(), "strategy".to_owned(), "print".to_owned()];
        let words = |line: &str| {
            let (start, pairs) = script(line, &names);
            (start, pairs.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(words("let x = st"), (8, vec!["status".to_owned(), "strategy".to_owned()]));
        assert_eq!(words("print(sta"), (6, vec!["status".to_owned()]));
        assert_eq!(words("zzz").1, [""; 0]);
        assert_eq!(words("let p = strategy.swi"), (17, vec!["switch_to".to_owned()]));
        assert_eq!(words("status.sta").1, [""; 0], "a function has no methods");
    }

    #[test]
    fn what_is_not_listed_keeps_the_common_part_from_being_taken_over() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let names = Live { shared: shared.clone(), handle: runtime.handle().clone(), keys: true };
        shared.lock().keys.note("user:17");
        let (start, pairs) = command("get us", &names);
        let words: Vec<&str> = pairs.iter().map(|pair| pair.replacement.as_str()).collect();
        assert_eq!((start, words), (4, vec!["user:17", "us"]));
        let (_, pairs) = command("strategy swi", &names);
        assert_eq!(pairs[0].replacement, "switch ");
    }
}
