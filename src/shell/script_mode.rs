//! Rhai in the shell: a console on the session's connection, and how what comes of a script is shown.

use super::rhai::Lines;
use crate::cli::args::{Format, Globals};
use crate::cli::runbook::{self, Runbook, Terminal};
use crate::cli::{self, output};
use crate::client::Client;
use crate::script::console::{self, Console};
use crate::types::{Result, limits};
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// The Rhai mode on one connection. Its variables outlive the mode, and end with the connection.
pub struct ScriptMode {
    /// Lines go to the script that is being typed.
    pub is_open: bool,
    /// That script.
    pub lines: Lines,
    console: Console<Client>,
    stage: Arc<Terminal>,
    /// Variables that there are.
    variables: Vec<String>,
    /// Why it may change nothing.
    read_only: Option<String>,
}

impl ScriptMode {
    /// A console on this connection; in a protected context it changes nothing.
    pub fn new(client: &Client, base: &Globals) -> Result<Self> {
        let read_only = base.read_only(Instant::now());
        let client = match &read_only {
            Some(why) => client.read_only(why),
            None => client.clone(),
        };
        let stage = Arc::new(Terminal::new(Format::Table, cli::is_terminal()));
        let timeout = base.timeout.unwrap_or(limits::DEADLINE_DEFAULT);
        let console = Console::new(Arc::new(client), stage.clone(), timeout)?;
        let (lines, variables) = (Lines::default(), Vec::new());
        Ok(Self { is_open: false, lines, console, stage, variables, read_only })
    }

    /// Whether what may be changed is still what it was when the console was opened.
    pub fn fits(&self, base: &Globals) -> bool {
        self.read_only == base.read_only(Instant::now())
    }

    /// Names that may be typed: those of the language, and the variables.
    pub fn names(&self) -> Vec<String> {
        let known = console::names().into_iter().map(str::to_owned);
        known.chain(self.variables.iter().cloned()).collect()
    }

    /// Runs a script and shows what came of it. When `asked` returns it is stopped; an operation that it waited for goes
    /// on.
    pub async fn run(&mut self, text: &str, asked: impl Future<Output = u8>) {
        let (stop, stopped) = watch::channel(false);
        let running = self.console.eval(text, None, stopped);
        tokio::pin!(running);
        let (ended, variables) = tokio::select! {
            ended = &mut running => ended,
            _ = asked => {
                stop.send_replace(true);
                running.await
            }
        };
        self.variables = variables;
        self.stage.close();
        match &ended.result {
            Ok(value) => {
                let out = output::Printed { out: shown(value).into_bytes(), ..Default::default() };
                // A terminal that went away shows nothing.
                let _ = output::print(&out);
            }
            Err(trouble) => {
                eprint!("{}", runbook::explained(&Runbook::of(console::NAME, text), trouble));
            }
        }
        if let Some(text) = &ended.left_running {
            eprintln!("  {}", output::escape(text.as_bytes()));
        }
    }
}

/// A value for people: nothing for `()`, text as it is, documents over several lines.
fn shown(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => runbook::shown(text) + "\n",
        Json::Array(_) | Json::Object(_) => format!("{value:#}\n"),
        other => format!("{other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_shown_as_people_read_them() {
        assert_eq!(shown(&Json::Null), "");
        assert_eq!(shown(&json!(3)), "3\n");
        assert_eq!(shown(&json!("a\x1b[2J")), "a\\x1b[2J\n");
        assert_eq!(shown(&json!({ "a": 1 })), "{\n  \"a\": 1\n}\n");
    }
}
