//! What a copy knows of its group, read from what the library publishes.
//!
//! Reads only, and borrows: nothing here clones what is published, waits, or decides anything.

use super::types::Metrics;
use crate::types::{LogPos, NodeId};
use openraft::{Instant as _, ServerState};
use std::collections::BTreeMap;
use std::time::Instant;

/// What a copy knows of its group.
#[derive(Clone, Debug)]
pub struct State {
    /// Raft id of the leader known, with its node.
    pub leader: Option<(u64, NodeId)>,
    /// True if that is this copy.
    pub is_leader: bool,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: &'static str,
    /// Term.
    pub term: u64,
    /// Last entry in the log.
    pub last_index: Option<u64>,
    /// Last entry applied.
    pub applied: Option<LogPos>,
    /// On the leader: what each member acknowledged, by raft id.
    pub matched: BTreeMap<u64, Option<u64>>,
    /// On the leader: when it sent the last message that a member answered, by raft id; none if the member has
    /// answered nothing in this term. The leader itself has always just answered.
    pub answered: BTreeMap<u64, Option<Instant>>,
    /// On the leader: milliseconds since a quorum acknowledged it.
    pub quorum_ack_ms: Option<u64>,
}

impl State {
    /// Of a group that has not started.
    pub(super) fn stopped(applied: Option<LogPos>) -> Self {
        Self {
            leader: None,
            is_leader: false,
            role: "stopped",
            term: 0,
            last_index: None,
            applied,
            matched: BTreeMap::new(),
            answered: BTreeMap::new(),
            quorum_ack_ms: None,
        }
    }

    /// Of a group that runs.
    pub(super) fn of(metrics: &Metrics, applied: Option<LogPos>) -> Self {
        let is_leader = metrics.state == ServerState::Leader;
        let lone = metrics.membership_config.membership().voter_ids().eq([metrics.id]);
        let acknowledged = metrics.last_quorum_acked.as_ref().map(|at| age_ms(at.into_inner()));
        let matched = metrics.replication.iter().flatten();
        Self {
            leader: leader(metrics),
            is_leader,
            role: match metrics.state {
                ServerState::Leader => "leader",
                ServerState::Follower => "follower",
                ServerState::Candidate => "candidate",
                ServerState::Learner => "learner",
                ServerState::Shutdown => "stopped",
            },
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied,
            matched: matched.map(|(id, at)| (*id, at.as_ref().map(|at| at.index))).collect(),
            answered: if is_leader { answered(metrics) } else { BTreeMap::new() },
            // A lone voter is its own quorum at any moment.
            quorum_ack_ms: if is_leader && lone {
                Some(0)
            } else {
                acknowledged.filter(|_| is_leader)
            },
        }
    }
}

/// On the leader: entries that are committed and not applied. To any other copy a table that is being installed is as
/// many as it has ever reflected, and no client waits for them there.
pub(super) fn unapplied(metrics: &Metrics, applied: Option<LogPos>) -> u64 {
    if metrics.state != ServerState::Leader {
        return 0;
    }
    let committed = metrics.local_committed.as_ref().map_or(0, |at| at.index);
    committed.saturating_sub(applied.map_or(0, |at| at.index))
}

/// The leader a copy knows, with its node.
pub fn leader(metrics: &Metrics) -> Option<(u64, NodeId)> {
    let leader = metrics.current_leader?;
    let member = metrics.membership_config.membership().get_node(&leader)?;
    Some((leader, member.node))
}

/// The library notes a member's answer under the moment at which what it answers was *sent*, so an answer
/// that took long counts as old: what is told here is never too young.
fn answered(metrics: &Metrics) -> BTreeMap<u64, Option<Instant>> {
    // The library's moments have an age only. Read after the clock, so that none comes out too late.
    let now = Instant::now();
    let at = |noted: openraft::TokioInstant| now.checked_sub(noted.elapsed());
    let known = metrics.heartbeat.iter().flatten();
    let mut answered: BTreeMap<u64, Option<Instant>> = known
        .map(|(id, noted)| (*id, noted.as_ref().and_then(|noted| at(noted.into_inner()))))
        .collect();
    // It notes its own only when somebody else answers.
    answered.insert(metrics.id, Some(now));
    answered
}

fn age_ms(at: openraft::TokioInstant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{TypeConfig, log_id};

    #[test]
    fn only_a_leader_owes_its_clients_what_is_committed() {
        let at = |index| LogPos { term: 3, leader: 1, index };
        let mut metrics = openraft::RaftMetrics::<TypeConfig>::new_initial(1);
        metrics.local_committed = Some(log_id(at(9_000)));
        for (role, owed) in [
            (ServerState::Leader, 20),
            (ServerState::Follower, 0),
            (ServerState::Candidate, 0),
            (ServerState::Learner, 0),
        ] {
            metrics.state = role;
            assert_eq!(unapplied(&metrics, Some(at(8_980))), owed, "{role:?}");
            assert_eq!(unapplied(&metrics, Some(at(9_001))), 0, "{role:?}");
            // Its table is on its way, or being installed.
            assert_eq!(unapplied(&metrics, None), if owed > 0 { 9_000 } else { 0 }, "{role:?}");
        }
    }
}
