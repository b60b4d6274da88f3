//! Rhai in the shell: a console on the session's connection, and how what comes of a script is shown.

use super::rhai::Lines;
use crate::cli::args::{Format, Globals};
use crate::cli::runbook::{self, Runbook, Stage, Terminal};
use crate::cli::{output, runbook::RUN_DEFAULT};
use crate::client::Client;
use crate::script::console::{self, Console};
use crate::types::limits;
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What messages call a script that was typed.
const NAME: &str = "rhai";

/// The Rhai mode.
#[derive(Default)]
pub struct ScriptMode {
    /// Lines go to the script that is being typed.
    pub is_open: bool,
    /// That script.
    pub lines: Lines,
    /// Names that the language knows.
    pub names: Vec<String>,
    console: Console<Client>,
    client: Option<Arc<Client>>,
    request_timeout: Duration,
}

impl ScriptMode {
    /// From here on scripts use this connection.
    pub fn client(&mut self, client: Client, base: &Globals) {
        self.request_timeout = base.timeout.unwrap_or(limits::DEADLINE_DEFAULT);
        let client = Arc::new(client);
        self.client = Some(client.clone());
        if self.names.is_empty() {
            let stage = Arc::new(Terminal::new(Format::Table));
            self.names = console::names(client, self.book(""), stage);
        }
    }

    /// Whether a text is the beginning of a script.
    pub fn unfinished(&self) -> fn(&str) -> bool {
        console::is_unfinished
    }

    /// Runs a script and shows what came of it. Ctrl-C stops it; an operation that it waited for goes on.
    pub async fn run(&mut self, text: &str) {
        let Some(client) = self.client.clone() else { return };
        let book = self.book(text);
        let stage = Arc::new(Terminal::new(Format::Table));
        let (stop, stopped) = watch::channel(false);
        let for_script: Arc<dyn Stage> = stage.clone();
        let running = self.console.eval(client, book.clone(), for_script, stopped);
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            _ = tokio::signal::ctrl_c() => {
                stop.send_replace(true);
                running.await
            }
        };
        stage.close();
        match &ended.result {
            Ok(value) => print!("{}", shown(value)),
            Err(trouble) => eprint!("{}", runbook::explained(&book, trouble)),
        }
        if let Some(text) = &ended.left_running {
            eprintln!("  {}", output::escape(text.as_bytes()));
        }
    }

    fn book(&self, text: &str) -> Runbook {
        Runbook {
            name: NAME.to_owned(),
            source: text.to_owned(),
            params: Vec::new(),
            dry_run: false,
            yes: false,
            timeout: RUN_DEFAULT,
            request_timeout: self.request_timeout,
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
