//! May a change of strategy start, or be committed, now? Named checks, each with its node, value, limit and
//! age. Pure: what the nodes reported and measured in, checks out.
//!
//! What cannot be measured fails. A check without a source, and a term without a model, is not listed.

mod health;
mod impact;
mod network;
mod resources;

pub use health::{CERTIFICATE_LEFT_MS, CLOCK_OFF_MS};
pub use network::RTT_MAX_US;
pub use resources::LOAD_PERCENT_MAX;

use super::core::Seen;
use super::forecast;
use crate::cluster::ClusterState;
use crate::types::{Code, Error, NodeId, Result, units};
use crate::wire::client::Strategy;
use crate::wire::operation::{CopyReport, NodeReport};
use crate::wire::plan::{Check, Field, ProbeReport, Verdict};

/// A measurement that is older says nothing any more.
pub const PROBE_OLD_MS: u64 = 60_000;
/// Checks that a refusal names; a node that is silent leaves a dozen others without their measurement.
const REFUSAL_CHECKS_MAX: usize = 4;
/// From this share of what is allowed on a check warns, in percent.
const WARN_PERCENT: u32 = 80;

/// Every check, and whether a switch may skip it. The others tell what a switch is made of: without them it
/// would not be dangerous, it could not end.
pub const NAMES: [(&str, bool); 17] = [
    ("operation", false),
    ("redundancy", false),
    ("members", false),
    ("leaders", false),
    ("clocks", true),
    ("versions", true),
    ("certificates", true),
    ("replica_lag", true),
    ("way_back", true),
    ("network", true),
    ("disk", true),
    ("map_space", true),
    ("load", true),
    ("disk_speed", true),
    ("copy_rate", true),
    ("write_load", true),
    ("off_peak", true),
];

/// Refuses names that are no checks, and those that no switch may skip.
pub fn may_skip(skipped: &[String]) -> Result<()> {
    for name in skipped {
        let message = match NAMES.iter().find(|(known, _)| known == name) {
            Some((_, true)) => continue,
            Some((_, false)) => format!("the check `{name}` is never skipped"),
            None => {
                let known: Vec<&str> = NAMES.iter().filter(|n| n.1).map(|n| n.0).collect();
                format!(
                    "there is no check `{name}` to skip; those that can be are: {}",
                    known.join(", ")
                )
            }
        };
        return Err(Error::new(Code::BadRequest, message));
    }
    Ok(())
}

/// Before the start of a switch: everything, in a fixed order.
pub fn at_start(state: &ClusterState, seen: &Seen, to: Strategy, now_ms: u64) -> Vec<Check> {
    let bench = Bench { state, seen, to, now_ms };
    let mut checks = vec![bench.operation(), bench.redundancy()];
    checks.extend(bench.members());
    checks.push(bench.leaders());
    checks.extend(bench.shared());
    checks.push(bench.way_back());
    checks.push(bench.off_peak());
    checks
}

/// Why the commit point has to wait: the first check that says no and was not skipped. Whether the copies are
/// there, and who leads, is judged by `core` itself.
pub fn at_commit(
    state: &ClusterState,
    seen: &Seen,
    to: Strategy,
    skipped: &[String],
    now_ms: u64,
) -> Option<String> {
    commit_checks(state, seen, (to, skipped), now_ms)
        .iter()
        .find(|check| is_no(check))
        .map(one_line)
}

/// Whether what was measured a while ago says no to the commit: another probe may say something else.
pub fn is_held_by_probe(
    state: &ClusterState,
    seen: &Seen,
    terms: (Strategy, &[String]),
    now_ms: u64,
) -> bool {
    is_no_by_probe(&commit_checks(state, seen, terms, now_ms))
}

/// Whether what was measured a while ago says no.
pub fn is_no_by_probe(checks: &[Check]) -> bool {
    checks.iter().any(|check| is_no(check) && check.age_ms > 0)
}

fn commit_checks(
    state: &ClusterState,
    seen: &Seen,
    (to, skipped): (Strategy, &[String]),
    now_ms: u64,
) -> Vec<Check> {
    let bench = Bench { state, seen, to, now_ms };
    let mut checks = bench.members();
    checks.extend(bench.shared());
    skip(&mut checks, skipped);
    checks
}

/// Marks the checks that are skipped.
pub fn skip(checks: &mut [Check], skipped: &[String]) {
    for check in checks {
        check.skipped = skipped.contains(&check.name);
    }
}

/// The gravest of the checks that were not skipped.
pub fn verdict(checks: &[Check]) -> Verdict {
    let counted = checks.iter().filter(|check| !check.skipped);
    counted.map(|check| check.verdict).max().unwrap_or(Verdict::NoGo)
}

fn is_no(check: &Check) -> bool {
    check.verdict == Verdict::NoGo && !check.skipped
}

/// The checks that say no, in one line; beyond the first few only their number.
pub fn refusal(checks: &[Check]) -> String {
    let no: Vec<&Check> = checks.iter().filter(|check| is_no(check)).collect();
    let (told, more) = no.split_at(no.len().min(REFUSAL_CHECKS_MAX));
    let told: Vec<String> = told.iter().map(|check| one_line(check)).collect();
    match more.len() {
        0 => told.join("; "),
        more => format!("{}; and {more} more", told.join("; ")),
    }
}

fn one_line(check: &Check) -> String {
    let Check { name, value, limit, message, .. } = check;
    let node = check.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    format!("{name}{node}: {value} (limit {limit}): {message}")
}

/// What the checks look at.
pub(super) struct Bench<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) seen: &'a Seen,
    pub(super) to: Strategy,
    pub(super) now_ms: u64,
}

impl Bench<'_> {
    /// What counts before the start and before the commit alike.
    fn shared(&self) -> Vec<Check> {
        let mut checks = self.clocks();
        checks.extend(self.versions());
        checks.extend(self.certificates());
        checks.extend(self.replica_lag());
        checks.extend(self.network());
        checks.extend(self.disk());
        checks.extend(self.map_space());
        checks.extend(self.load());
        checks.extend(self.disk_speed());
        checks.extend(self.copy_rate());
        checks.extend(self.write_load());
        checks
    }

    fn check(&self, name: &str, field: Field, node: Option<NodeId>) -> Check {
        Check {
            name: name.to_owned(),
            field,
            verdict: Verdict::Go,
            node: node.and_then(|node| self.state.name(node)),
            value: String::new(),
            limit: String::new(),
            age_ms: 0,
            used_percent: None,
            skipped: false,
            message: String::new(),
        }
    }

    pub(super) fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.seen.reports.get(&node)
    }

    /// What a node measured, if that is recent.
    pub(super) fn probe(&self, node: NodeId) -> Option<&ProbeReport> {
        let probed = self.seen.probed.as_ref().filter(|probed| probed.age_ms <= PROBE_OLD_MS);
        probed?.reports.get(&node)
    }

    fn probe_age_ms(&self) -> u64 {
        self.seen.probed.as_ref().map_or(0, |probed| probed.age_ms)
    }

    fn members_ids(&self) -> impl Iterator<Item = NodeId> {
        self.state.members.keys().copied()
    }

    fn name(&self, node: NodeId) -> String {
        self.state.name(node).map_or_else(|| node.to_string(), |name| name.to_string())
    }

    /// The leader's own report of each of its shards.
    pub(super) fn leads(&self) -> impl Iterator<Item = (NodeId, &CopyReport)> {
        self.seen.reports.iter().flat_map(|(node, report)| {
            report.copies.iter().filter(|c| c.lead.is_some()).map(|c| (*node, c))
        })
    }

    pub(super) fn forecast(&self) -> forecast::Forecast {
        forecast::of(self)
    }
}

/// What cannot be measured fails.
fn unknown(check: Check) -> Check {
    let limit = match check.limit.is_empty() {
        true => "a measurement".to_owned(),
        false => check.limit.clone(),
    };
    Check {
        verdict: Verdict::NoGo,
        value: "not known".into(),
        limit,
        message: "it could not be measured; does every node answer?".into(),
        ..check
    }
}

fn no_go(check: Check, message: impl Into<String>) -> Check {
    Check { verdict: Verdict::NoGo, message: message.into(), ..check }
}

fn warn(check: Check, message: impl Into<String>) -> Check {
    Check { verdict: Verdict::Warn, message: message.into(), ..check }
}

/// A check with a model: it warns before its limit is reached.
fn judged(check: Check, used: u64, allowed: u64, fix: impl FnOnce() -> String) -> Check {
    let used_percent = percent(used, allowed);
    let check = Check { used_percent: Some(used_percent), ..check };
    match used_percent {
        0..WARN_PERCENT => check,
        WARN_PERCENT..100 => warn(check, format!("it is close to its limit; {}", fix())),
        _ => no_go(check, fix()),
    }
}

/// Share in whole percent, rounded up; nothing of nothing is 0.
pub(super) fn percent(used: u64, allowed: u64) -> u32 {
    match (used, allowed) {
        (0, _) => 0,
        (_, 0) => u32::MAX,
        (used, allowed) => {
            let percent = (u128::from(used) * 100).div_ceil(u128::from(allowed));
            u32::try_from(percent).unwrap_or(u32::MAX)
        }
    }
}

/// Rounded up to whole MiB, for people.
fn mib(bytes: u64) -> String {
    units::show_bytes(bytes.div_ceil(1 << 20) << 20)
}

/// A rate for people.
fn rate(bytes_per_s: u64) -> String {
    match bytes_per_s {
        0..1_048_576 => format!("{}KiB/s", bytes_per_s.div_ceil(1 << 10)),
        _ => format!("{}MiB/s", bytes_per_s >> 20),
    }
}

/// Microseconds for people.
fn micros(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

#[cfg(test)]
pub(super) mod tests;
