//! Where a script of `ppdb run` shows and asks: a terminal, or pipes.

use super::super::args::Format;
use super::super::care;
use super::super::output::{self, Printed};
use super::super::strategy::follow::Change;
use super::super::talk::{Show, Talk};
use super::super::value::VERSION;
use super::{Asking, Stage};
use crate::types::{Code, Error};
use serde_json::json;
use std::io::IsTerminal;

/// A terminal, or a pipe.
pub struct Terminal {
    format: Format,
    talk: Talk,
    attended: bool,
}

impl Terminal {
    /// Nothing was said yet. `attended`: a person at a terminal can be asked.
    pub fn new(format: Format, attended: bool) -> Self {
        let show = match format {
            Format::Jsonl => Show::Lines(Format::Jsonl),
            _ => Show::to_person(),
        };
        Self { format, talk: Talk::new(show), attended }
    }

    /// The script has ended.
    pub fn close(&self) {
        self.talk.ended();
    }

    /// A line for whoever reads; a reader that went away does not stop a switch.
    fn say(&self, key: &str, text: &str) {
        self.talk.close_line();
        if self.format == Format::Jsonl {
            let _ = output::print(&output::compact(&json!({ "v": VERSION, key: text })));
            return;
        }
        let to_out = key == "print" && self.format != Format::Json;
        let line = if std::io::stdout().is_terminal() { shown(text) } else { text.to_owned() };
        let line = format!("{line}\n");
        let printed = match to_out {
            true => Printed { out: line.into_bytes(), err: String::new() },
            false => Printed { out: Vec::new(), err: line },
        };
        let _ = output::print(&printed);
    }
}

/// A terminal shows what a script prints and does not obey it; line feeds and tabs are meant.
pub fn shown(text: &str) -> String {
    let keep = |c: char| c == '\n' || c == '\t';
    let parts = text.split_inclusive(keep).map(|part| match part.strip_suffix(keep) {
        Some(before) => output::escape(before.as_bytes()) + &part[before.len()..],
        None => output::escape(part.as_bytes()),
    });
    parts.collect()
}

impl Stage for Terminal {
    fn print(&self, text: &str) {
        self.say("print", text);
    }

    fn log(&self, text: &str) {
        self.say("log", text);
    }

    fn changed(&self, change: &Change) {
        self.talk.changed(change);
    }

    fn confirm<'a>(&'a self, question: &'a str) -> Asking<'a> {
        Box::pin(async move {
            self.talk.close_line();
            if !self.attended {
                let message = format!("nobody is there to answer `{question}`; --yes answers yes");
                return Err(Error::new(Code::BadRequest, message));
            }
            Ok(care::is_yes(&care::ask(&format!("{} [y/N]", shown(question))).await?))
        })
    }
}
