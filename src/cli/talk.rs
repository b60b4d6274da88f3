//! What a command says while it waits for an operation, and what is left running if its waiting ends early.

use super::args::Format;
use super::output;
use super::strategy::bar::{self, Look};
use super::strategy::document;
use super::strategy::follow::Change;
use super::value::Done;
use crate::wire::operation::Phase;
use parking_lot::Mutex;
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

/// Width of a terminal that does not tell.
const COLUMNS_USUAL: usize = 80;

/// Empties a terminal.
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

/// Where changes of an operation are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// Nowhere: whoever drives gets one answer.
    #[default]
    Nothing,
    /// One line that is written over, for a person at a terminal, on standard error.
    Progress,
    /// A line for each change on standard output, in this format: `strategy watch`.
    Lines(Format),
    /// The line that is written over, on standard output: `strategy watch` at a terminal.
    Bar,
    /// One answer after the other on standard output, in this format: `stats --watch`. At a terminal each takes the
    /// place of the one before.
    Pages(Format),
}

impl Show {
    /// Progress, if a person sees standard error.
    pub fn to_person() -> Self {
        if std::io::stderr().is_terminal() { Show::Progress } else { Show::Nothing }
    }
}

/// Says what changes; clones say it in the same place.
#[derive(Clone)]
pub struct Talk {
    show: Show,
    started: Instant,
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    running: Option<Change>,
    /// A line stands on the terminal that is to be written over, for this phase.
    open: Option<Phase>,
    /// The line that stands there says how far something is, and is wiped out at its end.
    counts: bool,
}

impl Default for Talk {
    fn default() -> Self {
        Self::new(Show::Nothing)
    }
}

impl Talk {
    /// Nothing was said yet.
    pub fn new(show: Show) -> Self {
        Self { show, started: Instant::now(), last: Arc::default() }
    }

    /// Whether what was shown is drawn over: then every look is worth showing.
    pub fn is_redrawn(&self) -> bool {
        matches!(self.show, Show::Progress | Show::Bar)
    }

    /// Whether every line of something that is followed has a place of its own.
    pub fn prints_lines(&self) -> bool {
        matches!(self.show, Show::Lines(Format::Table | Format::Plain | Format::Jsonl))
    }

    /// A line of something that is followed, as columns or as an object. False once nobody reads it.
    pub fn line(&self, row: &[String], json: impl FnOnce() -> serde_json::Value) -> bool {
        let text = match self.show {
            Show::Lines(Format::Table) => row.join("  ") + "\n",
            Show::Lines(Format::Plain) => row.join("\t") + "\n",
            Show::Lines(Format::Jsonl) => format!("{}\n", json()),
            _ => return true,
        };
        output::print(&output::Printed { out: text.into_bytes(), err: String::new() }).is_ok()
    }

    /// Several lines at once, each as columns or as an object. False once nobody reads them.
    pub fn lines<T>(
        &self,
        items: &[T],
        row: impl Fn(&T) -> Vec<String>,
        json: impl Fn(&T) -> serde_json::Value,
    ) -> bool {
        let mut text = String::new();
        for item in items {
            match self.show {
                Show::Lines(Format::Table) => text.push_str(&row(item).join("  ")),
                Show::Lines(Format::Plain) => text.push_str(&row(item).join("\t")),
                Show::Lines(Format::Jsonl) => text.push_str(&json(item).to_string()),
                _ => return true,
            }
            text.push('\n');
        }
        let out = text.into_bytes();
        out.is_empty() || output::print(&output::Printed { out, err: String::new() }).is_ok()
    }

    /// How far something is, for a person: one line that is written over, and wiped out at the end.
    pub fn progress(&self, text: &str) {
        if self.show != Show::Progress {
            return;
        }
        let columns = look(std::io::stderr()).columns;
        let text: String = text.chars().filter(|c| !c.is_control()).take(columns).collect();
        self.last.lock().counts = true;
        // A terminal that went away does not end the work.
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }

    /// Sentences that columns have no place for: where those are piped, they go to standard error.
    pub fn aside(&self, notes: &[String]) {
        if self.show == Show::Lines(Format::Plain) {
            notes.iter().for_each(|note| eprintln!("{}", output::escape(note.as_bytes())));
        }
    }

    /// A sentence for whoever looks on, on standard error; nothing for a program that gets one answer.
    pub fn note(&self, text: &str) {
        if self.show != Show::Nothing {
            eprintln!("{}", output::escape(text.as_bytes()));
        }
    }

    /// Whether answers can be shown one after the other.
    pub fn shows_pages(&self) -> bool {
        matches!(self.show, Show::Pages(_))
    }

    /// One of several answers.
    pub fn page(&self, done: &Done) {
        let Show::Pages(format) = self.show else { return };
        let mut printed = output::render(done, format, self.started.elapsed().as_secs_f64() * 1e3);
        if format == Format::Table && std::io::stdout().is_terminal() {
            printed.out = [CLEAR, &printed.out].concat();
        }
        // A reader that went away does not end the waiting.
        let _ = output::print(&printed);
    }

    /// An operation has moved on.
    pub fn changed(&self, change: &Change) {
        let mut last = self.last.lock();
        last.running = Some(change.clone());
        let elapsed_s = self.started.elapsed().as_secs_f64();
        match self.show {
            Show::Nothing | Show::Pages(_) => {}
            Show::Lines(format) => {
                let text = line(change, format, elapsed_s);
                let out = output::Printed { out: text.into_bytes(), err: String::new() };
                // A reader that went away does not end the waiting.
                let _ = output::print(&out);
            }
            Show::Progress => last.draw(change, &mut std::io::stderr().lock(), std::io::stderr()),
            Show::Bar => last.draw(change, &mut std::io::stdout().lock(), std::io::stdout()),
        }
    }

    /// The waiting ended: nothing is left behind.
    pub fn ended(&self) {
        self.last.lock().running = None;
        self.close_line();
    }

    /// The waiting ended early. Says what goes on without us, and what can be done about it.
    pub fn left_running(&self) -> Option<String> {
        self.close_line();
        self.last.lock().running.take().and_then(|change| left_running(&change))
    }

    /// Whether a line stands on the terminal that is to be written over.
    #[cfg(test)]
    pub fn has_open_line(&self) -> bool {
        let last = self.last.lock();
        last.counts || last.open.is_some()
    }

    /// Ends the line that is being written over, so that another one can follow.
    pub fn close_line(&self) {
        if std::mem::take(&mut self.last.lock().counts) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        if self.last.lock().open.take().is_some() {
            match self.show {
                Show::Bar => drop(writeln!(std::io::stdout())),
                _ => eprintln!(),
            }
        }
    }
}

impl Last {
    /// Draws over the line of the same phase; another phase gets a line of its own.
    fn draw(&mut self, change: &Change, out: &mut impl Write, terminal: impl AsFd) {
        let next = self.open.is_some_and(|phase| phase != change.phase);
        let start = if next { "\n" } else { "\r" };
        self.open = Some(change.phase);
        let text = bar::line(change, look(terminal));
        // A terminal that went away does not end the waiting.
        let _ = write!(out, "{start}\x1b[K{text}");
        let _ = out.flush();
    }
}

/// How wide a terminal is, and whether its user wants colors (`NO_COLOR`).
fn look(terminal: impl AsFd) -> Look {
    let columns = rustix::termios::tcgetwinsize(terminal).map_or(0, |size| size.ws_col);
    let columns = if columns == 0 { COLUMNS_USUAL } else { columns.into() };
    let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // The last column stays free: some terminals wrap as soon as it is taken.
    Look { columns: columns - 1, colors }
}

/// A change on a line of its own.
fn line(change: &Change, format: Format, elapsed_s: f64) -> String {
    let json = || json!({ "v": 1, "s": tenths(elapsed_s), "change": document::change(change) });
    match format {
        Format::Table => {
            let text = output::escape(document::change_line(change).as_bytes());
            format!("+{elapsed_s:.1}s  {text}\n")
        }
        Format::Plain => {
            let percent = change.percent().map_or("-".to_owned(), |p| p.to_string());
            let phase = change.phase.name();
            format!("{}\t{phase}\t{percent}\t{elapsed_s:.1}\n", change.operation)
        }
        Format::Jsonl => format!("{}\n", json()),
        // One object is the answer; what leads to it is talk.
        Format::Json => String::new(),
    }
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

/// What goes on without us; none if it rests.
pub fn left_running(change: &Change) -> Option<String> {
    use Phase::*;
    let way_out = match change.phase {
        Planned | Checkpointed | Copying | CaughtUp => "; `ppdb strategy abort` gives it up",
        Prepared => "; `ppdb strategy commit` goes on, `ppdb strategy abort` gives it up",
        Committing => "; `ppdb strategy revert` goes back",
        Finalizing | Aborting | Reverting => "",
        Soaking | Finalized | Aborted | Reverted => return None,
    };
    Some(format!(
        "operation {} ({} -> {}) is {} and goes on: `ppdb strategy show` tells how far it is, \
         `ppdb strategy watch` follows it{way_out}",
        change.operation,
        document::name(change.from),
        document::name(change.to),
        change.phase.name(),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{operation, progress};
    use super::*;

    fn change(phase: Phase) -> Change {
        Change::of(&operation(7, phase), Some(&progress(3, 12)))
    }

    #[test]
    fn whoever_leaves_is_told_what_goes_on_and_how_to_stop_it() {
        for (phase, word) in [
            (Phase::Copying, "abort"),
            (Phase::Prepared, "commit"),
            (Phase::Committing, "revert"),
            (Phase::Aborting, "watch"),
        ] {
            let text = left_running(&change(phase)).unwrap();
            assert!(text.contains("operation 7 (sharded -> full)"), "{text}");
            assert!(text.contains(&format!("`ppdb strategy {word}`")), "{text}");
        }
        for rest in [Phase::Soaking, Phase::Finalized, Phase::Aborted, Phase::Reverted] {
            assert_eq!(left_running(&change(rest)), None);
        }
        let talk = Talk::default();
        assert_eq!(talk.left_running(), None);
        talk.changed(&change(Phase::Copying));
        assert!(talk.clone().left_running().is_some());
        talk.changed(&change(Phase::Copying));
        talk.ended();
        assert_eq!(talk.left_running(), None);
    }

    #[test]
    fn a_change_is_one_line_in_each_format() {
        let change = change(Phase::Copying);
        let json: serde_json::Value =
            serde_json::from_str(&line(&change, Format::Jsonl, 1.26)).unwrap();
        assert_eq!((&json["v"], &json["s"]), (&json!(1), &json!(1.3)));
        assert_eq!(json["change"]["phase"], "copying");
        assert_eq!(json["change"]["progress"]["percent"], 25);
        assert_eq!(line(&change, Format::Plain, 1.26), "7\tcopying\t25\t1.3\n");
        assert!(line(&change, Format::Table, 1.26).starts_with("+1.3s  operation 7"));
        assert_eq!(line(&change, Format::Json, 1.26), "");
    }
}
