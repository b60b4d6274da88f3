//! `network_stable`: does every node reach every other one, quickly enough for consensus and for the copies?

use super::{Bench, micros, no_go, rate, unknown, warn};
use crate::types::NodeId;
use crate::wire::plan::{Check, Field, PeerProbe};

/// Half of the questions to a peer have to be answered within this time.
pub const RTT_MAX_US: u64 = 50_000;
/// A peer that once took longer is told: at half a second of silence voters begin to doubt their leader.
const RTT_WORST_US: u64 = 250_000;
/// What a link carries at least, beyond what is written and copied.
const LINK_BYTES_PER_S_MIN: u64 = 1 << 20;
/// A link carries so many times what is written and copied.
const LINK_TIMES: u64 = 2;

impl Bench<'_> {
    /// One check for each node: the worst of its ways to the others.
    pub(super) fn network(&self) -> Vec<Check> {
        self.members_ids().map(|node| self.ways_of(node)).collect()
    }

    fn ways_of(&self, node: NodeId) -> Check {
        let need = self.link_bytes_per_s();
        let check = Check {
            limit: format!("none lost, {}, {} or more", micros(RTT_MAX_US), rate(need)),
            age_ms: self.probe_age_ms(),
            ..self.check("network", Field::NetworkStable, Some(node))
        };
        let Some(probe) = self.probe(node) else { return unknown(check) };
        let others = self.members_ids().filter(|other| *other != node);
        let mut worst: Option<Check> = None;
        for other in others {
            let found = match probe.peers.iter().find(|peer| peer.node == other) {
                Some(peer) => self.way(check.clone(), peer, need),
                None => {
                    let value = format!("to {}: not known", self.name(other));
                    Check { value, ..unknown(check.clone()) }
                }
            };
            if worst.as_ref().is_none_or(|worst| found.verdict > worst.verdict) {
                worst = Some(found);
            }
        }
        // A node on its own has no way to anybody, and needs none.
        worst.unwrap_or(Check { value: "no other node".into(), ..check })
    }

    fn way(&self, check: Check, peer: &PeerProbe, need: u64) -> Check {
        let to = self.name(peer.node);
        let check = Check {
            value: format!(
                "to {to}: {} of {} lost, {}, at worst {}, {}",
                peer.lost,
                peer.asked,
                micros(peer.rtt_us),
                micros(peer.rtt_worst_us),
                rate(peer.bytes_per_s)
            ),
            ..check
        };
        if peer.lost > 0 || peer.asked == 0 {
            return no_go(check, format!("look at the network between it and {to}"));
        }
        if peer.rtt_us > RTT_MAX_US {
            return no_go(check, format!("{to} is too far away, or the network is busy"));
        }
        if peer.bytes_per_s < need {
            let fix = "lower copy.bytes_per_s, or wait until less is written";
            return no_go(check, format!("the way to {to} carries too little; {fix}"));
        }
        match peer.rtt_worst_us > RTT_WORST_US {
            true => warn(check, format!("{to} once took long; a leader may be doubted meanwhile")),
            false => check,
        }
    }

    fn link_bytes_per_s(&self) -> u64 {
        let written: u64 = self.seen.reports.values().map(|r| r.load.write_bytes_per_s).sum();
        let moved = written.saturating_add(self.state.copy_bytes_per_s());
        moved.saturating_mul(LINK_TIMES).max(LINK_BYTES_PER_S_MIN)
    }
}
