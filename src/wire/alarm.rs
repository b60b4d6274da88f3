//! An alarm as nodes tell it to each other and to users. Data only: what is one is decided in `alarms`.

use crate::types::NodeName;
use serde::{Deserialize, Serialize};

/// How bad it is. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It should be seen to within the day.
    Warning,
    /// Clients are hurt, or will be soon.
    Critical,
}

impl Severity {
    /// The name in JSON, tables and rules.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Something that an operator should see to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its name, such as `node_down`; its threshold is the live setting `alarm.` and this name.
    pub name: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a node, or `s3 on n2`.
    pub subject: String,
    /// What was met, with value and limit.
    pub message: String,
    /// What can be done about it.
    pub fix: String,
    /// Since when, in milliseconds since 1970, by the clock of the node that saw it first.
    pub since_ms: u64,
    /// Who sees it, by name.
    pub seen_by: Vec<NodeName>,
}
