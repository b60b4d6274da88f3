//! The plan of a switch as it travels and is journaled: named checks and their verdict, what the switch will
//! cost, what the plan is bound to, and the measurements that all of this rests on. Data only.

use super::client::Strategy;
use super::terms::{PlanId, Predicted};
use crate::types::{DiskId, NodeId, NodeName};
use serde::{Deserialize, Serialize};

/// What a check or a plan says. In order of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Fine.
    Go,
    /// Possible, with a price that the message names.
    Warn,
    /// Refused.
    NoGo,
}

impl Verdict {
    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Go => "go",
            Verdict::Warn => "warn",
            Verdict::NoGo => "no_go",
        }
    }
}

/// The four questions that the checks answer together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// Is everybody there, and of one mind?
    SystemHealthy,
    /// Do the nodes reach each other, quickly enough?
    NetworkStable,
    /// Does what the switch needs fit?
    EnoughResources,
    /// Can the cluster bear what it costs while it runs?
    EstimatedImpact,
}

impl Field {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Field; 4] = [
        Field::SystemHealthy,
        Field::NetworkStable,
        Field::EnoughResources,
        Field::EstimatedImpact,
    ];

    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Field::SystemHealthy => "system_healthy",
            Field::NetworkStable => "network_stable",
            Field::EnoughResources => "enough_resources",
            Field::EstimatedImpact => "estimated_impact",
        }
    }
}

/// One named check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its name, stable; `strategy::checks::NAMES` lists them.
    pub name: String,
    /// The question that it belongs to.
    pub field: Field,
    /// What it says.
    pub verdict: Verdict,
    /// The node it is about; none if about the cluster.
    pub node: Option<NodeName>,
    /// What was measured.
    pub value: String,
    /// What it is compared with.
    pub limit: String,
    /// How long ago it was measured.
    pub age_ms: u64,
    /// Share of what is allowed, in percent, where the check has a model: 100 is the limit.
    pub used_percent: Option<u32>,
    /// Whoever asked overruled it: a no of this check does not count.
    pub skipped: bool,
    /// Why it is so and the smallest fix; empty if it is fine.
    pub message: String,
}

/// Whether a change of strategy may start now, and what it will cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precheck {
    /// The strategy asked for.
    pub to: Strategy,
    /// The gravest of the checks that were not skipped.
    pub verdict: Verdict,
    /// All checks that were made, in a fixed order.
    pub checks: Vec<Check>,
    /// What it will cost.
    pub predicted: Predicted,
    /// The plan under which a switch may start; none if nothing may.
    pub plan: Option<Planned>,
}

impl Precheck {
    /// The verdict on one of the four questions.
    pub fn field(&self, field: Field) -> Verdict {
        let of_field = self.checks.iter().filter(|c| c.field == field && !c.skipped);
        of_field.map(|c| c.verdict).max().unwrap_or(Verdict::Go)
    }

    /// The largest share of what is allowed, in percent.
    pub fn impact_percent(&self) -> u32 {
        self.checks.iter().filter_map(|c| c.used_percent).max().unwrap_or_default()
    }
}

/// The name of a plan and how long it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Its number.
    pub id: PlanId,
    /// By the leader's clock, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// A plan in the list of those that are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanHead {
    /// Its number.
    pub id: PlanId,
    /// The strategy asked for.
    pub to: Strategy,
    /// Who asked for it.
    pub by: String,
    /// By the leader's clock, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Bytes that are copied, in all.
    pub copy_bytes: u64,
    /// How long the switch takes.
    pub took_ms: u64,
    /// Why it can start nothing any more; none if it still can.
    pub outdated: Option<String>,
}

/// A plan as it is journaled: it starts one switch, while nothing that it is bound to has moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Number, rising, never used again.
    pub id: PlanId,
    /// The strategy asked for.
    pub to: Strategy,
    /// Who asked for it.
    pub by: String,
    /// By the leader's clock, in milliseconds since 1970. Binds the start only.
    pub expires_ms: u64,
    /// What it will cost.
    pub predicted: Predicted,
    /// What it is bound to.
    pub bound: Bound,
}

/// The world that a plan was made for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Version of the map, which each change of members, placement and live settings raises.
    pub epoch: u64,
    /// The members, by id.
    pub members: Vec<BoundMember>,
}

/// A member in `Bound`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundMember {
    /// Its id.
    pub node: NodeId,
    /// Its name, for messages.
    pub name: NodeName,
    /// Its disk.
    pub disk: DiskId,
    /// The program it runs.
    pub version: String,
    /// The end of its certificate's validity.
    pub certificate_expires_ms: u64,
}

/// How busy a node is; part of its report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// Milliseconds that the rates and the share of the processors rest on; 0 right after a start.
    pub window_ms: u64,
    /// Share of the processors that the process may use, in percent.
    pub cpu_percent: u32,
    /// Share of its budget of requests and bytes that is taken, in percent.
    pub queue_percent: u32,
    /// Operations a second.
    pub ops_per_s: u64,
    /// Bytes of write requests a second that it carried out.
    pub write_bytes_per_s: u64,
    /// Minutes that `ops_per_s_p50` and `ops_per_s_p95` rest on.
    pub history_minutes: u32,
    /// Half of the minutes it was busier.
    pub ops_per_s_p50: u64,
    /// In five of a hundred minutes it was busier.
    pub ops_per_s_p95: u64,
}

/// What a node shall measure at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeOrder {
    /// Bytes that it writes to its own disk.
    pub disk_bytes: u64,
    /// Bytes that it sends to each peer.
    pub peer_bytes: u64,
}

/// What a node measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The disk of its data folder, or why it could not be measured.
    pub disk: Result<DiskProbe, String>,
    /// The way to each peer.
    pub peers: Vec<PeerProbe>,
}

/// Bytes of a disk probe that are made durable at a time.
pub const DISK_CHUNK_BYTES: u64 = 256 << 10;

/// A disk, as a temporary file on it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskProbe {
    /// Bytes a second, written and made durable, `DISK_CHUNK_BYTES` at a time.
    pub write_bytes_per_s: u64,
    /// The median of small writes that were made durable, one by one.
    pub sync_us: u64,
    /// The slowest of them.
    pub sync_worst_us: u64,
}

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerProbe {
    /// The peer.
    pub node: NodeId,
    /// Questions sent.
    pub asked: u32,
    /// Questions that were not answered in time.
    pub lost: u32,
    /// Median time of a question and its answer.
    pub rtt_us: u64,
    /// The slowest of them.
    pub rtt_worst_us: u64,
    /// Bytes a second that arrived there; 0 if none did.
    pub bytes_per_s: u64,
}
