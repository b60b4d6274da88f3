//! The members of the metadata group follow the members of the cluster: newcomers learn, primaries among
//! them vote once they are near, in the place of voters that are gone, and who is gone is removed.
//!
//! `next_change` decides (pure), one step at a time, each conditional on the membership it was decided on.

use super::agent::Agent;
use crate::raft::{Group, Membership};
use crate::types::NodeId;
use crate::wire::client::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Entries that a learner may lack when it becomes a voter. The metadata log is quiet.
const NEAR_ENTRIES: u64 = 32;
/// Longest time for one change; what is not done by then is looked at again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Voters are changed only while a quorum has answered the leader within this time.
const QUORUM_WITHIN_MS: u64 = 2_000;

/// One step of the membership.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// This member follows from now on.
    Add(NodeId),
    /// Exactly these vote.
    Voters(BTreeSet<u64>),
    /// These do not follow any more.
    Remove(BTreeSet<u64>),
}

/// The next step towards the members of the cluster; none if the group is there, or has to wait.
pub fn next_change(
    now: &Membership,
    near: impl Fn(u64) -> bool,
    members: &BTreeMap<NodeId, Role>,
) -> Option<Change> {
    let is_member = |id: &u64| members.contains_key(&NodeId(*id));
    let staying: BTreeSet<u64> = now.voters.keys().copied().filter(is_member).collect();
    if now.joint {
        // Both sets have a quorum of their own, so whoever is gone need not stay any longer.
        return (!staying.is_empty()).then_some(Change::Voters(staying));
    }
    let is_known = |id: &NodeId| now.voters.contains_key(&id.0) || now.learners.contains_key(&id.0);
    if let Some(new) = members.keys().find(|id| !is_known(id)) {
        return Some(Change::Add(*new));
    }
    let ready = |id: &u64| members.get(&NodeId(*id)) == Some(&Role::Primary) && near(*id);
    let newcomers: BTreeSet<u64> = now.learners.keys().copied().filter(ready).collect();
    if !newcomers.is_empty() {
        // Each newcomer takes the place of one who is gone: fewer voters would bear fewer failures.
        let gone = now.voters.keys().copied().filter(|id| !is_member(id));
        let kept = gone.skip(newcomers.len());
        let voters = staying.into_iter().chain(newcomers.iter().copied()).chain(kept).collect();
        return Some(Change::Voters(voters));
    }
    let gone: BTreeSet<u64> = now.learners.keys().copied().filter(|id| !is_member(id)).collect();
    (!gone.is_empty()).then_some(Change::Remove(gone))
}

impl Agent {
    /// On the metadata leader: takes the next step, if there is one.
    pub(super) async fn reconcile_metadata(&self, meta: &Group) {
        let membership = meta.membership();
        let state = meta.state();
        let Some(pos) = membership.pos.filter(|_| state.is_leader) else { return };
        // A member is in the cluster's state before it is in the group, and out of the state before it is
        // out of the group. So a state older than the membership would bring back who is gone.
        if state.applied.is_none_or(|applied| applied.index < pos.index) {
            return;
        }
        let last = state.last_index.unwrap_or_default();
        let near = |id: u64| {
            let matched = state.matched.get(&id).copied().flatten();
            state.quorum_ack_ms.is_some_and(|ms| ms <= QUORUM_WITHIN_MS)
                && matched.is_some_and(|at| at + NEAR_ENTRIES >= last)
        };
        let members = self.members();
        let Some(change) = next_change(&membership, near, &members) else { return };
        let carry_out = async {
            match change.clone() {
                Change::Add(node) => meta.add_learner(Some(pos), node.0, node).await,
                Change::Voters(voters) => meta.change_voters(Some(pos), voters).await,
                Change::Remove(learners) => meta.remove_learners(Some(pos), learners).await,
            }
        };
        match tokio::time::timeout(CHANGE_TIMEOUT, carry_out).await {
            Ok(Ok(())) => tracing::info!(?change, "members of the metadata group changed"),
            Ok(Err(error)) => tracing::debug!(?change, %error, "metadata members not changed yet"),
            Err(_) => tracing::info!(?change, "the metadata group did not answer in time"),
        }
    }

    /// The members of the cluster; before it is formed, those of the formation.
    fn members(&self) -> BTreeMap<NodeId, Role> {
        let state = self.view.state();
        match self.view.formation() {
            Some(record) if !state.is_formed() => {
                record.members.iter().map(|m| (m.id, m.role)).collect()
            }
            _ => state.members.iter().map(|(id, m)| (*id, m.role)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPos;

    fn ids<K: Ord + Copy>(
        ids: impl IntoIterator<Item = u64>,
        key: impl Fn(u64) -> K,
    ) -> BTreeMap<K, NodeId> {
        ids.into_iter().map(|id| (key(id), NodeId(id))).collect()
    }

    fn group(voters: &[u64], learners: &[u64]) -> Membership {
        Membership {
            pos: Some(LogPos { term: 1, leader: 1, index: 1 }),
            joint: false,
            voters: ids(voters.iter().copied(), |id| id),
            learners: ids(learners.iter().copied(), |id| id),
        }
    }

    fn members(primaries: &[u64], replicas: &[u64]) -> BTreeMap<NodeId, Role> {
        let of = |ids: &[u64], role| ids.iter().map(|id| (NodeId(*id), role)).collect::<Vec<_>>();
        of(primaries, Role::Primary).into_iter().chain(of(replicas, Role::Replica)).collect()
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    #[test]
    fn a_lost_primary_is_replaced_step_by_step() {
        let wanted = members(&[1, 2, 5], &[4]);
        let step = |now: &Membership, near: bool| next_change(now, |_| near, &wanted);
        assert_eq!(step(&group(&[1, 2, 3], &[4]), true), Some(Change::Add(NodeId(5))));
        assert_eq!(step(&group(&[1, 2, 3], &[4, 5]), false), None);
        let voters = Some(Change::Voters(set(&[1, 2, 5])));
        assert_eq!(step(&group(&[1, 2, 3], &[4, 5]), true), voters);
        // Interrupted between the two entries of the change: it is brought to its end.
        let joint = Membership { joint: true, ..group(&[1, 2, 3, 5], &[4]) };
        assert_eq!(step(&joint, false), voters);
        assert_eq!(step(&group(&[1, 2, 5], &[3, 4]), true), Some(Change::Remove(set(&[3]))));
        assert_eq!(step(&group(&[1, 2, 5], &[4]), true), None);
    }

    #[test]
    fn a_lost_replica_never_votes() {
        let wanted = members(&[1, 2, 3], &[5]);
        let step = |now: &Membership| next_change(now, |_| true, &wanted);
        assert_eq!(step(&group(&[1, 2, 3], &[4])), Some(Change::Add(NodeId(5))));
        assert_eq!(step(&group(&[1, 2, 3], &[4, 5])), Some(Change::Remove(set(&[4]))));
        assert_eq!(step(&group(&[1, 2, 3], &[5])), None);
    }

    #[test]
    fn a_newcomer_takes_one_place_and_the_others_stay_taken() {
        // Two of five are gone, and one of the two that replace them is near.
        let wanted = members(&[1, 2, 3, 6, 7], &[]);
        let now = group(&[1, 2, 3, 4, 5], &[6, 7]);
        let voters = next_change(&now, |id| id == 6, &wanted);
        assert_eq!(voters, Some(Change::Voters(set(&[1, 2, 3, 5, 6]))));
        // Lost twice before it ever voted.
        let wanted = members(&[1, 2, 6], &[]);
        let now = group(&[1, 2, 3], &[5, 6]);
        let voters = next_change(&now, |_| true, &wanted);
        assert_eq!(voters, Some(Change::Voters(set(&[1, 2, 6]))));
    }

    #[test]
    fn replicas_of_a_formation_follow() {
        let wanted = members(&[1, 2], &[3]);
        assert_eq!(
            next_change(&group(&[1, 2], &[]), |_| false, &wanted),
            Some(Change::Add(NodeId(3)))
        );
        assert_eq!(next_change(&group(&[1, 2], &[3]), |_| true, &wanted), None);
    }
}
