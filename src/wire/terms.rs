//! On which terms a switch was asked for: its plan, the checks that were skipped by name, what was predicted,
//! and the bounds its guard holds it to. Beside it what the switch then cost.
//!
//! Data and its bounds. Who checks a plan, and what a guard does, is decided elsewhere.

use crate::types::{Code, Error, NodeName, Result, limits};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Checks that one switch may skip.
pub const SKIPPED_MAX: usize = 8;
/// Bytes of the name of a check.
pub const CHECK_NAME_BYTES_MAX: usize = 32;
/// Bounds that a guard may be given: latency and write gap, share of failed requests, and time to go back.
pub const LATENCY_MS: RangeInclusive<u64> = 1..=60_000;
/// The same for the share of requests that fail, in millionths.
pub const ERROR_RATE_PPM: RangeInclusive<u64> = 1..=1_000_000;
/// The same for how long after its commit point a switch may go back by itself.
pub const AUTO_REVERT_MS: RangeInclusive<u64> = 1_000..=24 * 3600 * 1000;

/// Number of a plan, rising, never used again. People write `P-17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PlanId(pub u64);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P-{}", self.0)
    }
}

impl FromStr for PlanId {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let digits = text.strip_prefix("P-").unwrap_or(text);
        let number =
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        number.map(PlanId).ok_or_else(|| format!("`{text}` is no plan such as P-17"))
    }
}

/// On which terms a switch was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// The plan that it is bound to.
    pub plan: Option<PlanId>,
    /// Names of checks whose no is overruled, by who asked for the switch.
    pub skipped: Vec<String>,
    /// What the plan predicted. Filled in by the coordinator, never by who asks.
    pub predicted: Option<Predicted>,
    /// 99 of 100 requests shall be answered within this time.
    pub max_p99_ms: Option<u64>,
    /// Of a million requests no more than this shall fail.
    pub max_error_rate_ppm: Option<u64>,
    /// No write shall wait longer.
    pub max_write_gap_ms: Option<u64>,
    /// After the commit point it may go back by itself for this long.
    pub auto_revert_within_ms: Option<u64>,
}

impl Terms {
    /// Refuses what lies out of bounds; asked where an order is accepted and before it is journaled.
    pub fn check(&self) -> Result<()> {
        let bad = |message: String| Err(Error::new(Code::BadRequest, message));
        if self.skipped.len() > SKIPPED_MAX {
            return bad(format!(
                "a switch may skip {SKIPPED_MAX} checks, not {}",
                self.skipped.len()
            ));
        }
        if self.skipped.iter().any(|name| name.len() > CHECK_NAME_BYTES_MAX) {
            return bad(format!("no check has a name of over {CHECK_NAME_BYTES_MAX} bytes"));
        }
        let members_max = limits::PRIMARIES_MAX + limits::REPLICAS_MAX;
        if self.predicted.as_ref().is_some_and(|p| p.nodes.len() > members_max) {
            return bad(format!("a cluster has at most {members_max} members"));
        }
        let bounds = [
            ("max-p99", "ms", self.max_p99_ms, LATENCY_MS),
            ("max-error-rate", "millionths", self.max_error_rate_ppm, ERROR_RATE_PPM),
            ("max-write-gap", "ms", self.max_write_gap_ms, LATENCY_MS),
            ("auto-revert-within", "ms", self.auto_revert_within_ms, AUTO_REVERT_MS),
        ];
        for (name, unit, value, range) in bounds {
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let (from, to) = (range.start(), range.end());
                return bad(format!("{name} is {from} to {to} {unit}, not {value}"));
            }
        }
        Ok(())
    }
}

/// What a plan says a switch will cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// Bytes that are copied, in all.
    pub copy_bytes: u64,
    /// From the start until the new strategy holds everywhere, without the time it is held prepared.
    pub took_ms: u64,
    /// Longest time in which no write is acknowledged.
    pub write_gap_ms: u64,
    /// Each node, by id.
    pub nodes: Vec<NodePredicted>,
}

/// What a plan says a switch will cost one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodePredicted {
    /// The node.
    pub node: NodeName,
    /// Bytes that come in.
    pub in_bytes: u64,
    /// Bytes that go out.
    pub out_bytes: u64,
    /// Bytes more than before on its disk, at most, at one time.
    pub disk_peak_bytes: u64,
}

/// What a switch did cost, as far as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Actual {
    /// Bytes that were copied, in all.
    pub copy_bytes: Option<u64>,
    /// Longest time in which no write was acknowledged.
    pub write_gap_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_written_as_people_say_it() {
        assert_eq!(PlanId(17).to_string(), "P-17");
        assert_eq!("P-17".parse(), Ok(PlanId(17)));
        assert_eq!("17".parse(), Ok(PlanId(17)));
        for bad in ["P-", "P-x", "p-17", "P--1", "-1", "+1", ""] {
            assert!(bad.parse::<PlanId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn terms_have_bounds() {
        let usual = Terms::default();
        usual.check().unwrap();
        let full = Terms {
            plan: Some(PlanId(1)),
            skipped: vec!["disk".into()],
            max_p99_ms: Some(60_000),
            max_error_rate_ppm: Some(1),
            max_write_gap_ms: Some(1),
            auto_revert_within_ms: Some(600_000),
            ..Terms::default()
        };
        full.check().unwrap();
        for bad in [
            Terms { max_p99_ms: Some(0), ..usual.clone() },
            Terms { max_error_rate_ppm: Some(1_000_001), ..usual.clone() },
            Terms { max_write_gap_ms: Some(60_001), ..usual.clone() },
            Terms { auto_revert_within_ms: Some(999), ..usual.clone() },
            Terms { skipped: vec!["disk".into(); SKIPPED_MAX + 1], ..usual.clone() },
            Terms { skipped: vec!["d".repeat(CHECK_NAME_BYTES_MAX + 1)], ..usual },
        ] {
            assert_eq!(bad.check().unwrap_err().code, Code::BadRequest, "{bad:?}");
        }
    }
}
