//! `system_healthy`: is everybody there, of one mind, and will be for as long as the switch takes?

use super::{Bench, no_go, unknown, warn};
use crate::cluster::ShardPlacement;
use crate::strategy::core::ANSWERS_WITHIN_MS;
use crate::strategy::forecast::TOOK_MS_MAX;
use crate::types::{NodeId, ShardId};
use crate::wire::client::{Role, Strategy};
use crate::wire::operation::NodeReport;
use crate::wire::plan::{Check, Field};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a node's clock may be from the coordinator's.
pub const CLOCK_OFF_MS: u64 = 500;
/// A certificate has to last this long, and so many times as long as the switch is expected to take.
pub const CERTIFICATE_LEFT_MS: u64 = DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
const CERTIFICATE_TIMES: u64 = 3;

impl Bench<'_> {
    fn health(&self, name: &str, node: Option<NodeId>) -> Check {
        self.check(name, Field::SystemHealthy, node)
    }

    pub(super) fn operation(&self) -> Check {
        let under_way = self.state.operation().filter(|op| op.phase.holds_slot());
        let value = match under_way {
            Some(op) => format!("operation {} is {}", op.id, op.phase.name()),
            None => "none".to_owned(),
        };
        let check = Check { value, limit: "none".into(), ..self.health("operation", None) };
        match self.state.may_begin(self.to, self.now_ms) {
            Ok(()) => check,
            Err(error) => no_go(check, error.message),
        }
    }

    pub(super) fn redundancy(&self) -> Check {
        let primaries = self.state.primaries().len();
        let check = Check {
            value: format!("{primaries} primaries"),
            limit: "3 or more".into(),
            ..self.health("redundancy", None)
        };
        match (self.to, primaries) {
            (Strategy::Full, 0 | 1) => {
                no_go(check, "there is no second primary to replicate to; add one")
            }
            (Strategy::Full, 2) => warn(
                check,
                "with two primaries the loss of either stops writes; a third would bear it",
            ),
            _ => check,
        }
    }

    pub(super) fn members(&self) -> Vec<Check> {
        let member = |node: NodeId| {
            let check = Check { limit: "answers".into(), ..self.health("members", Some(node)) };
            match self.report(node) {
                Some(report) => Check { value: format!("answers, {}", report.version), ..check },
                None => no_go(
                    Check { value: "does not answer".into(), ..check },
                    "start it with `ppdb serve`, or look at its log",
                ),
            }
        };
        self.members_ids().map(member).collect()
    }

    pub(super) fn leaders(&self) -> Check {
        let led = |shard: &&ShardPlacement| {
            !self.leads().any(|(_, c)| c.shard == shard.id && c.incarnation == shard.incarnation)
        };
        let missing: Vec<ShardId> = self.state.shards.iter().filter(led).map(|s| s.id).collect();
        let check = Check {
            value: format!("{} without a leader", missing.len()),
            limit: "0".into(),
            ..self.health("leaders", None)
        };
        match missing.is_empty() {
            true => check,
            false => no_go(check, format!("{}: start the node that owns them", listed(&missing))),
        }
    }

    pub(super) fn clocks(&self) -> Vec<Check> {
        let clock = |(node, report): (&NodeId, &NodeReport)| {
            // Not now: whoever is silent is waited for, and that says nothing of the clocks of the others.
            let arrived_ms = self.seen.arrived_ms.get(node).copied().unwrap_or(self.now_ms);
            let off_ms = report.clock_ms.abs_diff(arrived_ms);
            let check = Check {
                value: format!("{off_ms} ms off"),
                limit: format!("{CLOCK_OFF_MS} ms"),
                ..self.health("clocks", Some(*node))
            };
            match off_ms <= CLOCK_OFF_MS {
                true => check,
                false => no_go(check, "set the clock; is its time service running?"),
            }
        };
        self.seen.reports.iter().map(clock).collect()
    }

    /// Everybody runs what most run. Two halves cannot tell who is wrong, and both are named.
    pub(super) fn versions(&self) -> Vec<Check> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for report in self.seen.reports.values() {
            *counts.entry(&report.version).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or_default();
        let usual: Vec<&str> =
            counts.iter().filter(|(_, n)| **n == most).map(|(v, _)| *v).collect();
        let version = |(node, report): (&NodeId, &NodeReport)| {
            let check = Check {
                value: report.version.clone(),
                limit: usual.join(" or "),
                ..self.health("versions", Some(*node))
            };
            match usual.as_slice() {
                [one] if *one == report.version => check,
                _ => no_go(check, "run the same version on every node"),
            }
        };
        self.seen.reports.iter().map(version).collect()
    }

    pub(super) fn certificates(&self) -> Vec<Check> {
        // A switch that never ends is refused by its own check, not by certificates.
        let takes_ms = Some(self.forecast().took_ms).filter(|ms| *ms < TOOK_MS_MAX);
        let outlast_ms = takes_ms.unwrap_or_default().saturating_mul(CERTIFICATE_TIMES);
        let limit_ms = CERTIFICATE_LEFT_MS.max(outlast_ms);
        let certificate = |(node, report): (&NodeId, &NodeReport)| {
            let left_ms = report.certificate_expires_ms.saturating_sub(self.now_ms);
            let check = Check {
                value: format!("valid for {}", span(left_ms)),
                limit: format!("{} or more", span(limit_ms)),
                ..self.health("certificates", Some(*node))
            };
            match left_ms >= limit_ms {
                true => check,
                false => no_go(
                    check,
                    format!(
                        "issue it anew with `ppdb cert issue node {}` and restart the node",
                        self.name(*node)
                    ),
                ),
            }
        };
        self.seen.reports.iter().map(certificate).collect()
    }

    pub(super) fn replica_lag(&self) -> Vec<Check> {
        let lag = |node: NodeId| {
            let check = Check {
                limit: format!("within 1 s of writes, answered within {ANSWERS_WITHIN_MS} ms"),
                ..self.health("replica_lag", Some(node))
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
                _ => no_go(
                    check,
                    format!("{far} shards are behind there; wait until `replica lag` is small"),
                ),
            }
        };
        self.state.of_role(Role::Replica).into_iter().map(lag).collect()
    }

    /// Going back demotes each shard to its owner, or promotes the others again: either way its owner leads.
    pub(super) fn way_back(&self) -> Check {
        let astray = |shard: &&ShardPlacement| {
            !self.leads().any(|(node, c)| c.shard == shard.id && node == shard.owner)
        };
        let shards: Vec<ShardId> = self.state.shards.iter().filter(astray).map(|s| s.id).collect();
        let check = Check {
            value: format!("{} not led by their owner", shards.len()),
            limit: "0".into(),
            ..self.health("way_back", None)
        };
        match (shards.is_empty(), self.to) {
            (true, _) => check,
            // Towards `sharded` the switch itself brings leadership home before its commit point.
            (false, Strategy::Sharded) => {
                warn(check, format!("{}: leadership returns to the owner first", listed(&shards)))
            }
            (false, Strategy::Full) => {
                no_go(check, format!("{}: start the owner", listed(&shards)))
            }
        }
    }
}

fn listed(shards: &[ShardId]) -> String {
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// To whole minutes, and from two days on to whole days.
fn span(ms: u64) -> String {
    match ms / DAY_MS {
        0 | 1 => humantime::format_duration(Duration::from_secs(ms / 60_000 * 60)).to_string(),
        days => format!("{days} days"),
    }
}
