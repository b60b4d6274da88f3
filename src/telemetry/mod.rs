//! To be seen: structured logs on standard error, the table of metrics and their text, the rules for Prometheus.
//!
//! Nothing here decides anything.

pub mod exposition;
pub mod metrics;
pub mod rules;

use tracing_subscriber::EnvFilter;

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

/// Starts logging to standard error; `filter` is a level (`info`) or directives (`info,ppdb::raft=debug`).
/// A second call changes nothing.
pub fn init_logs(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{filter}"))
        .map_err(|e| format!("log filter `{filter}`: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
