//! Alarms: what an operator should see to, judged from what a node knows.
//!
//! Plain code: `conditions` says what is bad at this moment, `Watch` how long it has been so and when that is an alarm.
//! Gathering what is known, asking the other nodes and telling people is done by `admin`. Nothing here acts: an alarm
//! starts no switch and ends none.
//!
//! Each kind has one threshold, which is a live setting, and the expression of the same rule over the metrics, for
//! those whose alarms come from Prometheus.

mod judge;
mod rules;
mod watch;

pub use judge::{Facts, REQUESTS_MIN, conditions};
pub use rules::rules;
pub use watch::{Changes, Watch, merged};

use crate::wire::alarm::Severity;
use std::time::Duration;

/// What alarms are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A member is not heard.
    NodeDown,
    /// A shard has no leader: writes to it wait.
    NoLeader,
    /// A copy does not keep up with its leader.
    Lag,
    /// The disk of the data folder fills up.
    Disk,
    /// The largest table comes near the largest size that one may have.
    Map,
    /// The log waits for the disk.
    FsyncP99,
    /// Requests fail for no fault of their own.
    ErrorRate,
    /// A node does not call another one, because calls failed or were slow.
    BreakerOpen,
    /// A switch is under way and nothing moves.
    SwitchStuck,
    /// A certificate runs out.
    Certificate,
    /// A clock is off.
    Clock,
}

/// A kind, as it is documented and as Prometheus can watch for it.
#[derive(Debug)]
pub struct Rule {
    /// Which.
    pub kind: Kind,
    /// Its name; the threshold is the live setting `alarm.` and this name.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub summary: &'static str,
    /// What can be done about it.
    pub fix: &'static str,
    /// The condition over the metrics. `{limit}` stands for the threshold, in seconds or as a share, and
    /// `{failures}` for the codes that count as failures of the service.
    pub expr: &'static str,
    /// How long it has to hold there.
    pub held: Held,
}

/// How long a condition has to hold in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As long as the threshold says.
    Threshold,
    /// A fixed time.
    For(Duration),
}

const A_MINUTE: Held = Held::For(Duration::from_secs(60));

/// Every kind, in the order of `Kind`.
pub const RULES: [Rule; 11] = [
    Rule {
        kind: Kind::NodeDown,
        name: "node_down",
        severity: Severity::Critical,
        summary: "a node is not heard by the others",
        fix: "start it with `ppdb serve`; if it runs, look at its log and at the network",
        expr: "ppdb_node_up == 0",
        held: Held::Threshold,
    },
    Rule {
        kind: Kind::NoLeader,
        name: "no_leader",
        severity: Severity::Critical,
        summary: "a shard has no leader: writes to it wait",
        fix: "start the nodes that are down; `ppdb shard map` names the owner of each shard",
        expr: "ppdb_shards_leaderless > 0",
        held: Held::Threshold,
    },
    Rule {
        kind: Kind::Lag,
        name: "lag",
        severity: Severity::Warning,
        summary: "a copy does not keep up with its leader",
        fix: "`ppdb replica lag` says how far; look at the disk, the processors and the network of its node",
        expr: "ppdb_copy_near == 0",
        held: Held::Threshold,
    },
    Rule {
        kind: Kind::Disk,
        name: "disk",
        severity: Severity::Critical,
        summary: "the disk of the data folder fills up",
        fix: "make room on it, or move the data folder to a larger one; on a full disk writes are refused",
        expr: "1 - ppdb_disk_free_bytes / ppdb_disk_size_bytes >= {limit}",
        held: A_MINUTE,
    },
    Rule {
        kind: Kind::Map,
        name: "map",
        severity: Severity::Critical,
        summary: "the largest table comes near the largest size that one may have",
        fix: "delete what is not needed, or form a cluster with more shards and load it anew",
        expr: "max by (instance) (ppdb_copy_table_bytes) / max by (instance) (ppdb_map_size_bytes) >= {limit}",
        held: A_MINUTE,
    },
    Rule {
        kind: Kind::FsyncP99,
        name: "fsync_p99",
        severity: Severity::Warning,
        summary: "one in a hundred fdatasyncs of the log takes long: every write waits for them",
        fix: "look for other work on that disk; `ppdb strategy plan` measures it by itself",
        expr: "histogram_quantile(0.99, rate(ppdb_wal_fsync_duration_seconds_bucket[1m])) >= {limit}",
        held: A_MINUTE,
    },
    Rule {
        kind: Kind::ErrorRate,
        name: "error_rate",
        severity: Severity::Critical,
        summary: "requests fail for no fault of their own",
        fix: "`ppdb status` and `ppdb info` of the node say what it refuses, its log why",
        expr: "sum by (instance) (rate(ppdb_requests_total{code=~\"{failures}\"}[1m])) / \
               sum by (instance) (rate(ppdb_requests_total[1m])) >= {limit}",
        held: A_MINUTE,
    },
    Rule {
        kind: Kind::BreakerOpen,
        name: "breaker_open",
        severity: Severity::Warning,
        summary: "a node does not call another one, because calls failed or were slow",
        fix: "`ppdb breaker list` says why; look at the node that is not called",
        expr: "ppdb_breaker_open == 1",
        held: Held::Threshold,
    },
    Rule {
        kind: Kind::SwitchStuck,
        name: "switch_stuck",
        severity: Severity::Warning,
        summary: "an operation is under way and nothing moves",
        fix: "`ppdb strategy show` names what it waits for; `abort` or `revert` goes back",
        expr: "ppdb_switch_stalled_seconds >= {limit}",
        held: Held::For(Duration::ZERO),
    },
    Rule {
        kind: Kind::Certificate,
        name: "certificate",
        severity: Severity::Warning,
        summary: "the certificate of a node runs out",
        fix: "`ppdb cert issue node NAME`, then restart the node; the others go on meanwhile",
        expr: "ppdb_certificate_expiry_timestamp_seconds - time() <= {limit}",
        held: A_MINUTE,
    },
    Rule {
        kind: Kind::Clock,
        name: "clock",
        severity: Severity::Warning,
        summary: "the clock of a node is off: times to live are inexact",
        fix: "look at the time synchronization of its machine (chrony, systemd-timesyncd)",
        expr: "abs(ppdb_clock_offset_seconds) >= {limit}",
        held: A_MINUTE,
    },
];

impl Kind {
    /// What is said about it.
    pub fn rule(self) -> &'static Rule {
        &RULES[self as usize]
    }
}

/// From where on something is an alarm; live settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds {
    /// A member was not heard for so long.
    pub node_down: Duration,
    /// A shard had no leader for so long.
    pub no_leader: Duration,
    /// A copy was not near its leader for so long.
    pub lag: Duration,
    /// Share of the disk that is taken, in percent.
    pub disk_percent: u32,
    /// Share of the largest possible size that the largest table has, in percent.
    pub map_percent: u32,
    /// Of 100 fdatasyncs of the log in the last minute one took so long.
    pub fsync_p99: Duration,
    /// Share of requests that failed, in millionths.
    pub error_rate_ppm: u64,
    /// A breaker was open for so long.
    pub breaker_open: Duration,
    /// An operation did not move for so long.
    pub switch_stuck: Duration,
    /// What is left of a certificate.
    pub certificate: Duration,
    /// How far a clock is off.
    pub clock: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_where_they_are_looked_up() {
        for rule in &RULES {
            assert_eq!(rule.kind.rule().name, rule.name);
            assert!(!rule.fix.is_empty() && !rule.summary.is_empty());
            assert_eq!(
                rule.held == Held::Threshold,
                !rule.expr.contains("{limit}"),
                "{}",
                rule.name
            );
        }
    }
}
