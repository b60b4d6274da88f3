//! What the guard of a switch goes by: how well nodes serve, what it has done about an operation, and what went
//! wrong last. Data only: what is bad is decided in `strategy::guard`.

use serde::{Deserialize, Serialize};

/// How well a node, or the worst of several, served clients in the last five to six seconds. Requests for keys by
/// name count, not scans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLevel {
    /// Requests carried out that only read.
    pub reads: u64,
    /// Requests carried out that change a key.
    pub writes: u64,
    /// Requests that failed for no fault of their own: in vain until their deadline, refused for lack of room,
    /// or because stored data is in doubt. What a client takes to another node as a matter of course is none.
    pub errors: u64,
    /// Of 100 reads carried out 99 took at most this long from arrival to reply; none if there were too few.
    pub read_p99_us: Option<u64>,
    /// The same of writes.
    pub write_p99_us: Option<u64>,
    /// The longest write gap: the longest time from the arrival of a write to its reply, of all that were carried
    /// out and of those whose deadline passed.
    pub write_gap_ms: u64,
}

impl ServiceLevel {
    /// Of several nodes: counts added up, and of everything else what is worst.
    pub fn worst<'a>(levels: impl IntoIterator<Item = &'a Self>) -> Self {
        levels.into_iter().fold(Self::default(), |a, b| Self {
            reads: a.reads + b.reads,
            writes: a.writes + b.writes,
            errors: a.errors + b.errors,
            read_p99_us: a.read_p99_us.max(b.read_p99_us),
            write_p99_us: a.write_p99_us.max(b.write_p99_us),
            write_gap_ms: a.write_gap_ms.max(b.write_gap_ms),
        })
    }

    /// All requests, failed or not.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.errors
    }

    /// Errors of a million requests.
    pub fn errors_ppm(&self) -> u64 {
        (self.errors.saturating_mul(1_000_000)).checked_div(self.requests()).unwrap_or(0)
    }

    /// The slower of the two percentiles.
    pub fn p99_us(&self) -> Option<u64> {
        self.read_p99_us.max(self.write_p99_us)
    }
}

/// How far the guard has slowed the copying down. Append-only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Not at all.
    #[default]
    Free,
    /// To half its rate.
    Slowed,
    /// It stands still, until clients are served well again.
    Held,
}

impl Stage {
    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Free => "free",
            Stage::Slowed => "slowed",
            Stage::Held => "held",
        }
    }
}

/// What the guard remembers of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// How well the cluster served at the checkpoint; none before it.
    pub baseline: Option<ServiceLevel>,
    /// What it has done about the copying.
    pub stage: Stage,
    /// How often it has held it.
    pub holds: u32,
    /// What is bad since the commit point, while it is.
    pub alarm: Option<String>,
}

/// Something that went wrong in an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_node_counts_and_requests_add_up() {
        let fast = ServiceLevel {
            reads: 900,
            writes: 50,
            errors: 0,
            read_p99_us: Some(2_000),
            write_p99_us: None,
            write_gap_ms: 80,
        };
        let slow = ServiceLevel {
            reads: 30,
            writes: 10,
            errors: 10,
            read_p99_us: None,
            write_p99_us: Some(9_000),
            write_gap_ms: 20,
        };
        let worst = ServiceLevel::worst([&fast, &slow]);
        assert_eq!((worst.read_p99_us, worst.write_p99_us), (Some(2_000), Some(9_000)));
        assert_eq!((worst.requests(), worst.errors_ppm(), worst.write_gap_ms), (1_000, 10_000, 80));
        assert_eq!(worst.p99_us(), Some(9_000));
        assert_eq!(ServiceLevel::default().errors_ppm(), 0);
    }
}
