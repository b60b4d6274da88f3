//! A known member that comes back with an empty disk: what the cluster's state becomes, and what the
//! metadata leader makes of what such a node says of itself.
//!
//! Pure. Ids are never used again, so a lost disk is a member that is gone and another one under the same
//! name; a copy whose group cannot go on without it stays where it is recorded and waits for the operator.

use super::core::{ClusterState, CopyPlacement, Member, ShardPlacement};
use crate::types::{Code, CopyId, DiskId, Error, NodeId, ShardId};
use crate::wire::operation::Phase;
use crate::wire::peer::{FormationMember, FormationRecord, NodeDescription};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the disk that is registered has to be silent before another one may take its member's place.
pub const SILENT_FOR: Duration = Duration::from_secs(10);

impl ClusterState {
    /// The member goes on under a fresh id with another disk. Copies that need not vote are replaced at
    /// once; one that shall vote stays recorded with the lost disk until its group is known to go on
    /// without it (`replace`), because it may hold what no other copy has.
    pub(super) fn rejoin(&mut self, node: NodeId, disk: DiskId) -> Result<(), Error> {
        let Some(member) = self.members.get(&node) else {
            return Err(Error::new(Code::NotFound, format!("there is no member {node}")));
        };
        let known = self.members.values().map(|m| m.disk).chain(self.placed().map(|c| c.disk));
        if known.into_iter().any(|known| known == disk) {
            let message = format!("disk {disk} is registered, or was");
            return Err(Error::new(Code::BadRequest, message));
        }
        let fresh = NodeId(self.next_node);
        let Some(next) = self.next_node.checked_add(1) else {
            return Err(Error::new(Code::BadRequest, "there are no more member ids"));
        };
        let member = Member { disk, joined: false, ..member.clone() };
        self.members.remove(&node);
        self.members.insert(fresh, member);
        self.next_node = next;
        self.epoch += 1;
        for i in 0..self.shards.len() {
            if self.shards[i].owner == node {
                self.shards[i].owner = fresh;
            }
            for j in 0..self.shards[i].copies.len() {
                if self.shards[i].copies[j].node != node {
                    continue;
                }
                match self.shards[i].copies[j].voter {
                    true => self.shards[i].copies[j].node = fresh,
                    false => self.shards[i].copies[j] = self.create_copy(fresh, false),
                }
            }
        }
        self.reopen_comparison();
        Ok(())
    }

    /// A member that was registered anew runs as such.
    pub(super) fn joined(&mut self, node: NodeId) -> Result<(), Error> {
        let member = self.members.get_mut(&node);
        let member = member
            .ok_or_else(|| Error::new(Code::NotFound, format!("there is no member {node}")))?;
        member.joined = true;
        Ok(())
    }

    /// Fresh copies take the place of lost ones, on the disks that their members have. Copies that are not
    /// lost, or not placed any more, stay as they are.
    pub(super) fn replace(&mut self, copies: &[CopyId]) -> Result<(), Error> {
        let lost: Vec<CopyId> = self.lost_copies().into_iter().map(|(_, c)| c.id).collect();
        if !copies.iter().any(|copy| lost.contains(copy)) {
            return Err(Error::new(Code::NotFound, "none of these copies is lost"));
        }
        for i in 0..self.shards.len() {
            for j in 0..self.shards[i].copies.len() {
                let copy = self.shards[i].copies[j];
                if lost.contains(&copy.id) && copies.contains(&copy.id) {
                    self.shards[i].copies[j] = self.create_copy(copy.node, copy.voter);
                }
            }
        }
        self.epoch += 1;
        self.reopen_comparison();
        Ok(())
    }

    /// What was prepared is so no more where a copy was replaced: it has to be compared first.
    fn reopen_comparison(&mut self) {
        let open = !self.unverified().is_empty();
        if let Some(op) = self.operations.last_mut()
            && op.phase == Phase::Prepared
            && open
        {
            op.phase = Phase::CaughtUp;
            op.step += 1;
        }
    }

    fn placed(&self) -> impl Iterator<Item = &CopyPlacement> {
        self.shards.iter().flat_map(|s| &s.copies)
    }

    /// Whether the disk that a copy was created for is not its member's any more.
    pub fn is_lost(&self, copy: &CopyPlacement) -> bool {
        self.members.get(&copy.node).is_none_or(|member| member.disk != copy.disk)
    }

    /// Copies on lost disks that no fresh copy has replaced.
    pub fn lost_copies(&self) -> Vec<(ShardId, CopyPlacement)> {
        let of_shard = |s: &ShardPlacement| {
            let lost = s.copies.iter().filter(|c| self.is_lost(c));
            lost.map(|c| (s.id, *c)).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of_shard).collect()
    }

    /// Whether that id belonged to a member that is gone. Ids do not come back, so this is for ever.
    pub fn is_gone(&self, node: NodeId) -> bool {
        self.is_formed() && node.0 < self.next_node && !self.members.contains_key(&node)
    }

    /// The members as they are, in the form in which a node is told to join.
    pub fn record(&self) -> FormationRecord {
        let member = |(id, m): (&NodeId, &Member)| FormationMember {
            id: *id,
            name: m.name.clone(),
            role: m.role,
            addr: m.addr.clone(),
            disk: m.disk,
        };
        FormationRecord {
            id: self.formation,
            cluster: self.cluster.clone(),
            shards: self.shards.len() as u16,
            members: self.members.iter().map(member).collect(),
        }
    }
}

impl ShardPlacement {
    /// Whether this copy may start the group: it founds it, and votes alone. That it is the only voter
    /// placed is not enough: a copy that replaced a lost one has a group to join, in which others may
    /// still vote, and starting it anew would forget everything.
    pub fn may_start(&self, copy: CopyId) -> bool {
        let alone = self.copies.iter().filter(|c| c.voter).map(|c| c.id).eq([copy]);
        self.founder == copy && alone
    }
}

/// For how long a member was not heard by one who has listened since then.
pub fn silent_for(heard: Option<Instant>, since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(heard.map_or(since, |heard| heard.max(since)))
}

/// Whether the voters other than `lost` that are up are a quorum of all.
pub fn quorum_without(
    voters: &BTreeMap<u64, NodeId>,
    lost: NodeId,
    up: impl Fn(NodeId) -> bool,
) -> bool {
    let left = voters.values().filter(|node| **node != lost && up(**node)).count();
    left * 2 > voters.len()
}

/// What a node that answers at a member's address is to that member.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// The member itself: it runs, or is about to.
    Itself,
    /// The member with an empty disk: it may rejoin with it.
    Empty(DiskId),
    /// The member with the disk it was registered anew with: it has to be told to join.
    Invited,
    /// The member with a disk that was replaced: it has to be told that it is out.
    Replaced,
    /// Nothing that could go on as the member. Why, and what to do.
    Stranger(String),
}

/// Judges what answers at the address of a member.
pub fn judge(state: &ClusterState, node: NodeId, found: &NodeDescription) -> Finding {
    let Some(member) = state.members.get(&node) else {
        return Finding::Stranger(format!("there is no member {node}"));
    };
    if found.name != member.name || found.role != member.role {
        return Finding::Stranger(format!(
            "at {} answers {}, started as {:?}; the member is {}, {:?}",
            member.addr, found.name, found.role, member.name, member.role
        ));
    }
    let registered = found.disk == member.disk;
    match found.formation {
        Some(other) if other != state.formation => Finding::Stranger(format!(
            "the data folder of {} belongs to another cluster; start it with its own or an empty one",
            member.name
        )),
        Some(_) if registered => Finding::Itself,
        Some(_) => Finding::Replaced,
        None if !registered => Finding::Empty(found.disk),
        None if !member.joined => Finding::Invited,
        // It promised things under this id and has forgotten them: it may not speak under it again.
        None => Finding::Stranger(format!(
            "the data folder of {} is known and has lost what it held; start it with an empty one",
            member.name
        )),
    }
}

#[cfg(test)]
#[path = "rejoin_test.rs"]
mod tests;
