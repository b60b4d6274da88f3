//! Log lines of a node as they are asked for and answered. Data only; which are kept is decided in `telemetry`.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How much a line matters, most first. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What happens in the life of a node.
    Info,
    /// What one looks at when something is not understood.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// All of them, most first.
    pub const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("`{text}` is no level: error, warn, info, debug or trace"))
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Rising without gaps since the process started, from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// How much it matters.
    pub level: LogLevel,
    /// The part of the program that says it.
    pub target: String,
    /// The sentence.
    pub message: String,
    /// What it is about, by name.
    pub fields: Vec<(String, String)>,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// When the process started whose lines they are; another process begins anew.
    pub started_ms: u64,
    /// The last line that was looked at.
    pub sequence: u64,
}

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogQuestion {
    /// Those after this one, oldest first; without it the newest.
    pub after: Option<LogPosition>,
    /// Those that matter so much at least.
    pub level: LogLevel,
    /// No older ones, in milliseconds before the node's time now.
    pub since_ms: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Some lines of a node, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Where to go on.
    pub position: LogPosition,
    /// Lines, wanted or not, that were pushed out of memory before anybody could read them: of those after the
    /// position that was asked for, or of all since the process started.
    pub dropped: u64,
}
