//! May a change of strategy start now? Named checks, each with its node, value and limit. Pure.
//!
//! What cannot be measured fails. The checks refuse the impossible; how much the switch will cost is not
//! told here.

use super::core::{ANSWERS_WITHIN_MS, Seen};
use crate::cluster::ClusterState;
use crate::types::{NodeId, units};
use crate::wire::client::{Role, Strategy};
use crate::wire::operation::{Check, CopyReport, NodeReport, Precheck, Verdict};

/// How far a node's clock may be from the coordinator's.
pub const CLOCK_OFF_MS: u64 = 500;
/// A copy takes this much more disk than its bytes, in percent: the log and what is written meanwhile.
const DISK_MARGIN_PERCENT: u64 = 120;
/// Share of a disk that stays free, in percent, and what is enough however large the disk is: a tenth of a
/// large one is more than any switch needs, and would refuse what is safe.
const DISK_FREE_PERCENT: u64 = 10;
const DISK_FREE_ENOUGH_BYTES: u64 = 10 << 30;
/// Share of its largest size that a table may reach, in percent.
const MAP_USE_PERCENT: u64 = 80;

/// Checks everything, by the coordinator's clock.
pub fn precheck(state: &ClusterState, seen: &Seen, to: Strategy, now_ms: u64) -> Precheck {
    let bench = Bench { state, seen, to };
    let mut checks = vec![bench.operation(now_ms), bench.redundancy()];
    checks.extend(bench.members());
    checks.push(bench.leaders());
    checks.extend(bench.clocks(now_ms));
    checks.extend(bench.disk());
    checks.extend(bench.map_space());
    checks.extend(bench.replica_lag());
    checks.push(bench.way_back());
    let verdict = checks.iter().map(|c| c.verdict).max().unwrap_or(Verdict::NoGo);
    let copy_bytes = state.primaries().iter().map(|node| bench.incoming_bytes(*node)).sum();
    Precheck { to, verdict, checks, copy_bytes }
}

struct Bench<'a> {
    state: &'a ClusterState,
    seen: &'a Seen,
    to: Strategy,
}

impl Bench<'_> {
    fn check(&self, name: &str, node: Option<NodeId>) -> Check {
        Check {
            name: name.to_owned(),
            verdict: Verdict::Go,
            node: node.and_then(|node| self.state.name(node)),
            value: String::new(),
            limit: String::new(),
            message: String::new(),
        }
    }

    fn report(&self, node: NodeId) -> Option<&NodeReport> {
        self.seen.reports.get(&node)
    }

    /// The leader's own report of each of its shards.
    fn leads(&self) -> impl Iterator<Item = (NodeId, &CopyReport)> {
        self.seen.reports.iter().flat_map(|(node, report)| {
            report.copies.iter().filter(|c| c.lead.is_some()).map(|c| (*node, c))
        })
    }

    fn operation(&self, now_ms: u64) -> Check {
        let under_way = self.state.operation().filter(|op| op.phase.holds_slot());
        let value = match under_way {
            Some(op) => format!("operation {} is {}", op.id, op.phase.name()),
            None => "none".to_owned(),
        };
        let check = Check { value, limit: "none".into(), ..self.check("operation", None) };
        match self.state.may_begin(self.to, now_ms) {
            Ok(()) => check,
            Err(error) => Check { verdict: Verdict::NoGo, message: error.message, ..check },
        }
    }

    fn redundancy(&self) -> Check {
        let primaries = self.state.primaries().len();
        let check = Check {
            value: format!("{primaries} primaries"),
            limit: "3 or more".into(),
            ..self.check("redundancy", None)
        };
        let (verdict, message) = match (self.to, primaries) {
            (Strategy::Full, 0 | 1) => {
                (Verdict::NoGo, "there is no second primary to replicate to; add one")
            }
            (Strategy::Full, 2) => (
                Verdict::Warn,
                "with two primaries the loss of either stops writes; a third would bear it",
            ),
            _ => (Verdict::Go, ""),
        };
        Check { verdict, message: message.into(), ..check }
    }

    fn members(&self) -> Vec<Check> {
        let member = |node: &NodeId| {
            let check = Check { limit: "answers".into(), ..self.check("members", Some(*node)) };
            match self.report(*node) {
                Some(report) => Check { value: format!("answers, {}", report.version), ..check },
                None => Check {
                    verdict: Verdict::NoGo,
                    value: "does not answer".into(),
                    message: "start it with `ppdb serve`, or look at its log".into(),
                    ..check
                },
            }
        };
        self.state.members.keys().map(member).collect()
    }

    fn leaders(&self) -> Check {
        let led = |shard: &&crate::cluster::ShardPlacement| {
            !self.leads().any(|(_, c)| c.shard == shard.id && c.incarnation == shard.incarnation)
        };
        let missing: Vec<String> =
            self.state.shards.iter().filter(led).map(|s| s.id.to_string()).collect();
        let check = Check {
            value: format!("{} without a leader", missing.len()),
            limit: "0".into(),
            ..self.check("leaders", None)
        };
        if missing.is_empty() {
            return check;
        }
        let message = format!("{}: start the node that owns them", missing.join(" "));
        Check { verdict: Verdict::NoGo, message, ..check }
    }

    fn clocks(&self, now_ms: u64) -> Vec<Check> {
        let clock = |(node, report): (&NodeId, &NodeReport)| {
            let off_ms = report.clock_ms.abs_diff(now_ms);
            let check = Check {
                value: format!("{off_ms} ms off"),
                limit: format!("{CLOCK_OFF_MS} ms"),
                ..self.check("clocks", Some(*node))
            };
            match off_ms <= CLOCK_OFF_MS {
                true => check,
                false => Check {
                    verdict: Verdict::NoGo,
                    message: "set the clock; is its time service running?".into(),
                    ..check
                },
            }
        };
        self.seen.reports.iter().map(clock).collect()
    }

    /// Bytes of the shards that a primary has no copy of.
    fn incoming_bytes(&self, node: NodeId) -> u64 {
        if self.to == Strategy::Sharded {
            return 0;
        }
        let absent = |c: &&CopyReport| {
            let shard = self.state.shard(c.shard);
            shard.is_some_and(|s| !s.copies.iter().any(|copy| copy.node == node))
        };
        self.leads().map(|(_, c)| c).filter(absent).map(|c| c.table_bytes).sum()
    }

    fn disk(&self) -> Vec<Check> {
        let disk = |node: NodeId| {
            let check = self.check("disk", Some(node));
            let Some(report) = self.report(node) else { return unknown(check) };
            let need = self.incoming_bytes(node).saturating_mul(DISK_MARGIN_PERCENT) / 100
                + (report.disk_total_bytes / 100 * DISK_FREE_PERCENT).min(DISK_FREE_ENOUGH_BYTES);
            let check = Check {
                value: format!("{} free", mib(report.disk_free_bytes)),
                limit: format!("{} needed", mib(need)),
                ..check
            };
            match report.disk_free_bytes >= need {
                true => check,
                false => Check {
                    verdict: Verdict::NoGo,
                    message: format!(
                        "free {} more on its data folder's disk",
                        mib(need - report.disk_free_bytes)
                    ),
                    ..check
                },
            }
        };
        self.state.primaries().into_iter().map(disk).collect()
    }

    fn map_space(&self) -> Vec<Check> {
        let space = |node: NodeId| {
            let check = self.check("map_space", Some(node));
            let Some(report) = self.report(node) else { return unknown(check) };
            let largest = self.leads().map(|(_, c)| c.table_bytes).max().unwrap_or_default();
            let limit = report.map_bytes_max / 100 * MAP_USE_PERCENT;
            let check = Check {
                value: format!("{} the largest table", mib(largest)),
                limit: mib(limit),
                ..check
            };
            match largest <= limit {
                true => check,
                false => Check {
                    verdict: Verdict::NoGo,
                    message: "its tables may not grow that large".into(),
                    ..check
                },
            }
        };
        self.state.primaries().into_iter().map(space).collect()
    }

    fn replica_lag(&self) -> Vec<Check> {
        let lag = |node: NodeId| {
            let check = Check {
                limit: format!("within 1 s of writes, answered within {ANSWERS_WITHIN_MS} ms"),
                ..self.check("replica_lag", Some(node))
            };
            let (mut entries, mut far, mut found) = (0, 0, 0);
            for lead in self.leads().filter_map(|(_, c)| c.lead.as_ref()) {
                let Some(member) = lead.members.iter().find(|m| m.node == node) else { continue };
                found += 1;
                entries += lead.last_index.saturating_sub(member.matched);
                let answers = member.answered_ms.is_some_and(|ms| ms <= ANSWERS_WITHIN_MS);
                far += u32::from(!(answers && member.near));
            }
            if found < self.state.shards.len() {
                return unknown(check);
            }
            let check = Check { value: format!("{entries} entries"), ..check };
            match far {
                0 => check,
                _ => Check {
                    verdict: Verdict::NoGo,
                    message: format!(
                        "{far} shards are behind there; wait until `replica lag` is small"
                    ),
                    ..check
                },
            }
        };
        self.state.of_role(Role::Replica).into_iter().map(lag).collect()
    }

    /// Going back demotes each shard to its owner, or promotes the others again: either way its owner leads.
    fn way_back(&self) -> Check {
        let astray = |shard: &&crate::cluster::ShardPlacement| {
            !self.leads().any(|(node, c)| c.shard == shard.id && node == shard.owner)
        };
        let shards: Vec<String> =
            self.state.shards.iter().filter(astray).map(|s| s.id.to_string()).collect();
        let check = Check {
            value: format!("{} not led by their owner", shards.len()),
            limit: "0".into(),
            ..self.check("way_back", None)
        };
        match (shards.is_empty(), self.to) {
            (true, _) => check,
            // Towards `sharded` the switch itself brings leadership home before its commit point.
            (false, Strategy::Sharded) => Check {
                verdict: Verdict::Warn,
                message: format!("{}: leadership returns to the owner first", shards.join(" ")),
                ..check
            },
            (false, Strategy::Full) => Check {
                verdict: Verdict::NoGo,
                message: format!("{}: start the owner", shards.join(" ")),
                ..check
            },
        }
    }
}

/// What cannot be measured fails.
fn unknown(check: Check) -> Check {
    Check {
        verdict: Verdict::NoGo,
        value: "not known".into(),
        message: "it could not be measured; does the node answer?".into(),
        ..check
    }
}

/// Rounded up to whole MiB, for people.
fn mib(bytes: u64) -> String {
    units::show_bytes(bytes.div_ceil(1 << 20) << 20)
}
