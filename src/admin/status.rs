//! What `status`, `info` and `replica lag` answer, put together from the cluster's state and this node's
//! copies. Read-only.

use super::Admin;
use crate::admission::Class;
use crate::cluster::{ClusterState, ShardPlacement};
use crate::raft::Group;
use crate::types::{Code, DiskId, Error, NodeId, Result, ShardId};
use crate::wire::client::{Role, Strategy};
use crate::wire::command::{CopyInfo, CopyLag, Info, NodeStatus, SafetyInfo, Status};
use crate::wire::operation::Phase;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

impl Admin {
    pub(super) fn status(&self) -> Result<Status> {
        let state = self.view.state();
        if !state.is_formed() {
            return Err(Error::new(Code::NotFormed, "this node belongs to no cluster"));
        }
        let nodes: Vec<NodeStatus> = state
            .members
            .iter()
            .map(|(id, member)| NodeStatus {
                name: member.name.clone(),
                role: member.role,
                addr: member.addr.clone(),
                up: member.name == self.name || self.heard.is_up(*id),
                shards_owned: state.shards.iter().filter(|s| s.owner == *id).count() as u16,
                copies: state
                    .shards
                    .iter()
                    .filter(|s| s.copies.iter().any(|c| c.node == *id))
                    .count() as u16,
            })
            .collect();
        let shards_leaderless = self.leaderless();
        let messages = messages(&state, &nodes, &shards_leaderless);
        let metadata_leader = self
            .control
            .read()
            .as_ref()
            .and_then(|c| c.metadata.state().leader)
            .map(|(_, node)| node);
        let primaries_up = nodes.iter().filter(|n| n.role == Role::Primary && n.up).count();
        let primaries = nodes.iter().filter(|n| n.role == Role::Primary).count();
        let may_fail_without_loss = match state.strategy {
            Strategy::Sharded => 0,
            Strategy::Full => primaries_up.saturating_sub(primaries.min(5) / 2 + 1) as u16,
        };
        Ok(Status {
            cluster: state.cluster.clone(),
            epoch: state.epoch,
            strategy: state.strategy,
            answered_by: self.name.clone(),
            metadata_leader: metadata_leader.and_then(|node| self.view.name(node)),
            nodes,
            shards_leaderless,
            may_fail_without_loss,
            messages,
            alarms: self.all_alarms(),
            switches: state.tally(),
        })
    }

    /// Shards whose leader is not known here, or lives on a node that is not heard.
    pub(super) fn leaderless(&self) -> Vec<ShardId> {
        let state = self.view.state();
        let me = state.member(&self.name).map(|(id, _)| id);
        let up = |node: NodeId| Some(node) == me || self.heard.is_up(node);
        let lost = |s: &ShardPlacement| {
            s.copies.iter().any(|c| c.node == s.owner && c.voter && state.is_lost(c))
        };
        let led = |s: &&ShardPlacement| match self.registry.get(s.id) {
            Some(copy) => copy.shard.group().state().leader.is_some_and(|(_, node)| up(node)),
            None => up(s.owner) && !lost(s),
        };
        state.shards.iter().filter(|s| !led(s)).map(|s| s.id).collect()
    }

    pub(super) fn info(&self) -> Info {
        let state = self.view.state();
        let wal = self.wal.stats();
        let copies = self.registry.all();
        Info {
            node: self.name.clone(),
            node_id: state.member(&self.name).map(|(id, _)| id).or(self.view.node(&self.name)),
            disk: self.disk,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            ready: state.is_formed() && copies.iter().all(|(_, copy)| copy.is_serving()),
            wal_bytes: wal.disk_bytes,
            wal_syncs: wal.syncs,
            copies_bytes: copies.iter().map(|(_, c)| c.shard.group().store().table_bytes()).sum(),
            reads: self.served.reads.load(Ordering::Relaxed),
            writes: self.served.writes.load(Ordering::Relaxed),
            safety: self.safety(),
            metadata_term: self.control.read().as_ref().map(|c| c.metadata.state().term),
            copies: copies
                .iter()
                .map(|(shard, copy)| {
                    let group = copy.shard.group();
                    CopyInfo {
                        shard: *shard,
                        incarnation: copy.incarnation,
                        copy: copy.copy,
                        state: group.state().role.to_owned(),
                        term: group.state().term,
                        applied: group.state().applied.map_or(0, |pos| pos.index),
                        flushed: group.store().flushed().map_or(0, |pos| pos.index),
                        keys: group.store().keys_estimate(),
                    }
                })
                .collect(),
        }
    }

    fn safety(&self) -> SafetyInfo {
        let limits = self.budget.limits();
        SafetyInfo {
            load_percent: self.budget.load_percent(),
            requests: self.budget.requests() as u64,
            max_concurrent_ops: limits.max_concurrent_ops as u64,
            max_batch_size: limits.max_batch_size as u64,
            max_batch_bytes: limits.max_batch_bytes as u64,
            timeout_ms: limits.timeout.as_millis() as u64,
            load_threshold_percent: limits.load_threshold_percent,
            refused_bulk: self.budget.refused(Class::Bulk),
            refused_writes: self.budget.refused(Class::Write),
            refused_reads: self.budget.refused(Class::Read),
        }
    }

    pub(super) fn replica_lag(&self) -> Result<Vec<CopyLag>> {
        if !self.view.state().is_formed() {
            return Err(Error::new(Code::NotFormed, "this node belongs to no cluster"));
        }
        let copies = self.registry.all();
        Ok(copies
            .iter()
            .flat_map(|(shard, copy)| self.lag_of(*shard, copy.shard.group()))
            .collect())
    }

    /// On the leader every member's progress; elsewhere nothing, because only the leader knows.
    fn lag_of(&self, shard: ShardId, group: &Group) -> Vec<CopyLag> {
        let now = group.state();
        if !now.is_leader {
            return vec![];
        }
        let leader_index = now.last_index.unwrap_or_default();
        let membership = group.membership();
        let voters = membership.voters.iter().map(|(id, node)| (id, node, "voter"));
        let learners = membership.learners.iter().map(|(id, node)| (id, node, "learner"));
        voters
            .chain(learners)
            .filter_map(|(id, node, state)| {
                let leads = now.leader.is_some_and(|(leader, _)| leader == *id);
                Some(CopyLag {
                    shard,
                    node: self.view.name(*node)?,
                    state: if leads { "leader" } else { state }.to_owned(),
                    leader_index,
                    matched: match leads {
                        true => Some(leader_index),
                        false => now.matched.get(id).copied().flatten(),
                    },
                })
            })
            .collect()
    }
}

/// What a person should know, most important first.
fn messages(state: &ClusterState, nodes: &[NodeStatus], leaderless: &[ShardId]) -> Vec<String> {
    let mut messages: Vec<String> = alarm(state).into_iter().collect();
    if !leaderless.is_empty() {
        messages.push(format!("no leader: {}; writes to these shards wait", listed(leaderless)));
    }
    let mut by_disk: BTreeMap<(NodeId, DiskId), Vec<ShardId>> = BTreeMap::new();
    for (shard, copy) in state.lost_copies() {
        by_disk.entry((copy.node, copy.disk)).or_default().push(shard);
    }
    for ((node, disk), shards) in by_disk {
        let name = state.name(node).map_or_else(|| node.to_string(), |name| name.to_string());
        messages.push(format!(
            "{name} lost disk {disk}, and no quorum without it is known for: {}; keep that disk, its \
             copies may hold what no other copy has",
            listed(&shards)
        ));
    }
    for node in nodes.iter().filter(|n| !n.up) {
        let name = &node.name;
        messages.push(match state.member(name).is_some_and(|(_, member)| member.joined) {
            true => format!("{name} is down; start it with `ppdb serve`"),
            false => format!("{name} lost its disk and has not rejoined with an empty one yet"),
        });
    }
    messages
}

/// What the guard says of the operation under way, with what can be done about it.
fn alarm(state: &ClusterState) -> Option<String> {
    let op = state.active()?;
    let why = op.guard.alarm.as_ref()?;
    let (id, way_out) = (op.id, way_out(op.phase));
    Some(format!(
        "operation {id} is {}: {why}; `ppdb strategy {way_out} --operation {id}` goes back",
        op.phase.name()
    ))
}

/// The order that takes an operation back.
fn way_out(phase: Phase) -> &'static str {
    match phase < Phase::Committing {
        true => "abort",
        false => "revert",
    }
}

fn listed(shards: &[ShardId]) -> String {
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetaCommand;
    use crate::cluster::core::tests::record;

    #[test]
    fn a_lost_disk_is_told_with_the_shards_that_wait_for_it() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 3)));
        let (node, shard) = (state.shards[1].owner, state.shards[1].id);
        state.apply(&MetaCommand::Rejoin { node, disk: DiskId(77) });
        let rejoining = NodeStatus {
            name: state.name(state.shards[1].owner).unwrap(),
            role: Role::Primary,
            addr: String::new(),
            up: false,
            shards_owned: 1,
            copies: 1,
        };
        let told = messages(&state, &[rejoining], &[shard]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[1].contains("lost disk") && told[1].contains(&format!("for: {shard};")));
        assert!(told[2].contains("has not rejoined"));
    }
}
