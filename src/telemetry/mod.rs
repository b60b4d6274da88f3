//! To be seen: structured logs on standard error, the last of them in memory for whoever asks, the table of metrics and
//! their text.
//!
//! Nothing here decides anything.

mod capture;
pub mod exposition;
pub mod metrics;
pub mod ring;

use crate::wire::logs::{LogLevel, LogPage, LogQuestion};
use capture::{Capture, now_ms};
use parking_lot::Mutex;
use ring::Ring;
use std::sync::Arc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What libraries may say unless the filter names them: they report every heartbeat that a busy machine
/// delays, and what matters of it shows in our own lines.
const LIBRARIES: &str = "openraft=error,quinn=error,quinn_proto=error";
/// Bytes of a filter that may be set while a node runs.
const FILTER_BYTES_MAX: usize = 256;

/// The logs of this process: what was said last, and how much is said. Clones share both.
#[derive(Clone)]
pub struct Logs {
    ring: Arc<Mutex<Ring>>,
    filter: reload::Handle<EnvFilter, Registry>,
    /// The filter that it was started with.
    own: String,
}

impl Logs {
    /// Lines of this process.
    pub fn page(&self, question: &LogQuestion) -> LogPage {
        self.ring.lock().page(question, now_ms())
    }

    /// From here on says what this filter lets through; an empty one is the filter of the start.
    pub fn set_filter(&self, text: &str) -> Result<(), String> {
        let text = if text.is_empty() { &self.own } else { text };
        self.filter.reload(parsed(text)?).map_err(|e| format!("log filter `{text}`: {e}"))
    }
}

/// Starts logging to standard error; `filter` is a level (`info`) or directives (`info,ppdb::raft=debug`).
/// A second call changes nothing: what it answers hears of nothing.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<Logs, String> {
    let ring = Arc::new(Mutex::new(Ring::new(now_ms())));
    let (layer, handle) = reload::Layer::new(parsed(filter)?);
    let lines = match format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_writer(std::io::stderr).boxed(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed()
        }
    };
    let all = tracing_subscriber::registry().with(layer).with(Capture(ring.clone())).with(lines);
    let _ = all.try_init();
    Ok(Logs { ring, filter: handle, own: filter.to_owned() })
}

fn parsed(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{LIBRARIES},{filter}"))
        .map_err(|e| format!("log filter `{filter}`: {e}"))
}

/// Refuses what is no filter: levels and `TARGET=LEVEL`, separated by commas alone. A word alone that is no level would
/// be taken for a target, and silence everything else.
pub fn check_filter(text: &str) -> Result<(), String> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(format!("a filter has at most {FILTER_BYTES_MAX} bytes"));
    }
    // The library would take a number and even an empty word for a level.
    let is_level = |word: &str| word == "off" || word.parse::<LogLevel>().is_ok();
    for directive in text.split(',') {
        let fits = match directive.split_once('=') {
            None => is_level(directive),
            Some((target, level)) => !target.is_empty() && is_level(level),
        };
        if !fits {
            return Err(format!("`{directive}` is neither a level nor TARGET=LEVEL, such as info"));
        }
    }
    parsed(text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_levels_and_targets_with_a_level() {
        for good in ["info", "WARN", "off", "info,ppdb::raft=debug", "error,ppdb=trace"] {
            check_filter(good).unwrap_or_else(|why| panic!("{good}: {why}"));
        }
        let long = format!("info,{}", "ppdb=info,".repeat(40));
        for bad in
            ["loud", "", "info,", "ppdb::raft", "ppdb=loud", "=info", "3", "error, info", &long]
        {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_event_becomes_a_line_and_the_filter_may_change() {
        let ring = Arc::new(Mutex::new(Ring::new(1)));
        let (layer, handle) = reload::Layer::new(parsed("info").unwrap());
        let logs = Logs { ring: ring.clone(), filter: handle, own: "info".into() };
        let all = tracing_subscriber::registry().with(layer).with(Capture(ring));
        let question =
            LogQuestion { after: None, level: LogLevel::Trace, since_ms: None, limit: 9 };
        tracing::subscriber::with_default(all, || {
            tracing::warn!(node = "n1", count = 3, ?question.limit, "something {}", "happened");
            tracing::debug!("not said");
            logs.set_filter("ppdb=debug").unwrap();
            tracing::debug!("said");
            logs.set_filter("").unwrap();
            tracing::debug!("not said again");
        });
        let page = logs.page(&question);
        let [first, second] = &page.lines[..] else { panic!("{page:?}") };
        assert_eq!((first.level, first.message.as_str()), (LogLevel::Warn, "something happened"));
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [field("node", "n1"), field("count", "3"), field("question.limit", "9")];
        assert_eq!(first.fields, expected);
        assert!(first.target.starts_with("ppdb::telemetry") && first.at_ms > 0);
        assert_eq!((second.sequence, second.message.as_str()), (2, "said"));
        assert!(logs.set_filter("ppdb=loud").is_err());
    }
}
