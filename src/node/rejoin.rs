//! Members that come back with an empty disk, seen from the metadata leader: it asks at the address of
//! whoever is silent, has the disk that answers registered under fresh ids, tells the node to join, and
//! has the copies replaced whose groups go on without the lost disk.
//!
//! What an answer means and what the cluster becomes is decided in `cluster::rejoin`. Nothing is kept here
//! between two rounds but what was logged, so a leader that dies is replaced by the next one.

use super::Node;
use crate::cluster::MetaCommand;
use crate::cluster::agent::reply_of;
use crate::cluster::rejoin::{self, Finding, SILENT_FOR};
use crate::raft::Group;
use crate::types::{Code, CopyId, Error, NodeId, NodeName, Result};
use crate::wire::client::Role;
use crate::wire::codec;
use crate::wire::peer::{FormationMember, FormationRecord, NodeAnswer, NodeCall, NodeDescription};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks at the members.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a quorum may take to confirm that this node leads, or that a shard has a leader.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the metadata group may take for an entry.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether this node founds the cluster of a record: the first primary does, once. Ids of a formation
/// count from 1 without a gap; in a record of a cluster that runs, the node that is told to join has a
/// higher one, and must not start its groups again.
pub(super) fn founds(record: &FormationRecord, name: &NodeName) -> bool {
    let first = record.members.iter().filter(|m| m.role == Role::Primary).map(|m| &m.name).min();
    let counted = record.members.iter().all(|m| m.id.0 <= record.members.len() as u64);
    first == Some(name) && counted
}

impl Node {
    /// Runs for ever; acts while this node leads the metadata group.
    pub(super) async fn watch_members(self: Arc<Self>, me: NodeId, meta: Group) {
        // Everybody tells everybody that he is there, so this node has listened since it started.
        let since = Instant::now();
        let mut told = BTreeMap::new();
        while !self.stopping.load(Ordering::Acquire) {
            tokio::time::sleep(LOOK_EVERY).await;
            let confirmed = meta.state().is_leader
                && meta.read_barrier(Instant::now() + CONFIRM_TIMEOUT).await.is_ok();
            if !confirmed || !self.view.state().is_formed() {
                continue;
            }
            self.note_joined(&meta).await;
            self.look_for_lost(me, &meta, since, &mut told).await;
            self.replace_lost(&meta).await;
        }
    }

    /// Members that were registered anew and are heard under their new id have joined.
    async fn note_joined(&self, meta: &Group) {
        let state = self.view.state();
        for (id, member) in &state.members {
            if !member.joined && self.heard.is_up(*id) {
                tracing::info!(name = %member.name, %id, "rejoined");
                report(propose(meta, &MetaCommand::Joined { node: *id }).await, "joined");
            }
        }
    }

    /// Asks at the addresses of silent members who is there, and acts on it.
    async fn look_for_lost(
        &self,
        me: NodeId,
        meta: &Group,
        since: Instant,
        told: &mut BTreeMap<NodeId, String>,
    ) {
        let state = self.view.state();
        let now = Instant::now();
        let silent = |id: NodeId| rejoin::silent_for(self.heard.last(id), since, now) >= SILENT_FOR;
        let asked = state.members.iter().filter(|(id, member)| {
            let expected = !member.joined && !self.heard.is_up(**id);
            **id != me && (expected || silent(**id))
        });
        let answers = join_all(asked.map(|(id, member)| async move {
            let answer = self.call(&member.addr, &member.name, NodeCall::Describe).await;
            (*id, member.name.clone(), answer)
        }));
        for (id, name, answer) in answers.await {
            // Who cannot be reached is down, which `status` says.
            let Ok(NodeAnswer::Description(found)) = answer else { continue };
            match rejoin::judge(&state, id, &found) {
                Finding::Itself => {}
                Finding::Empty(_) if !silent(id) => {}
                Finding::Empty(_) => self.register(meta, id, &found).await,
                Finding::Invited | Finding::Replaced => self.invite(&name).await,
                Finding::Stranger(why) => {
                    if told.insert(id, why.clone()).as_ref() != Some(&why) {
                        tracing::warn!(%name, why, "a member is silent, and this answers instead");
                    }
                }
            }
        }
    }

    /// Has the empty disk registered under a fresh id, if the cluster has a quorum without the lost one.
    async fn register(&self, meta: &Group, node: NodeId, found: &NodeDescription) {
        let voters = meta.membership().voters;
        let up = |id: NodeId| id.0 == meta.raft_id() || self.heard.is_up(id);
        if !rejoin::quorum_without(&voters, node, up) {
            return;
        }
        tracing::warn!(name = %found.name, lost = %node, disk = %found.disk, "a member lost its disk and rejoins");
        let command = MetaCommand::Rejoin { node, disk: found.disk };
        let done = propose(meta, &command).await;
        if done.is_ok() {
            self.invite(&found.name).await;
        }
        report(done, "rejoin");
    }

    /// Tells a node who the members are and under which id it is one of them.
    async fn invite(&self, name: &NodeName) {
        let state = self.view.state();
        let Some((id, member)) = state.member(name) else { return };
        match self.call(&member.addr, name, NodeCall::Join(state.record())).await {
            Ok(NodeAnswer::Joined) => tracing::info!(%name, %id, "told to rejoin"),
            Ok(NodeAnswer::Refused(error)) | Err(error) => {
                tracing::info!(%name, %id, %error, "not rejoined yet");
            }
            Ok(NodeAnswer::Description(_) | NodeAnswer::Answer(_)) => {}
        }
    }

    /// Has lost copies replaced whose group another copy leads with a quorum. This node can tell that of
    /// groups it has a copy of; a primary has one of every group whose quorum can do without a primary.
    async fn replace_lost(&self, meta: &Group) {
        let lost = self.view.state().lost_copies();
        let led = join_all(lost.iter().map(|(shard, copy)| async {
            let here = self.registry.get(*shard).filter(|here| here.copy != copy.id)?;
            let group = here.shard.group();
            group.read_barrier(Instant::now() + CONFIRM_TIMEOUT).await.ok()?;
            let (leader, _) = group.state().leader?;
            (leader != copy.id.0).then_some(copy.id)
        }));
        let copies: Vec<CopyId> = led.await.into_iter().flatten().collect();
        if !copies.is_empty() {
            tracing::info!(?copies, "lost copies are replaced");
            report(propose(meta, &MetaCommand::Replace { copies }).await, "replace");
        }
    }

    /// This disk joined before: is it still the one that the members know? A record with a lower id is
    /// older than this node's own.
    pub(super) fn still_member(
        &self,
        joined: &FormationRecord,
        told: &FormationMember,
    ) -> Result<()> {
        let mine = joined.members.iter().find(|m| m.name == self.name).map(|m| m.id);
        if mine.is_none_or(|mine| told.id <= mine) {
            return Ok(());
        }
        let why = format!(
            "this data folder was replaced: {} goes on as member {} with disk {}, and nothing is served \
             from here. Stop this process and start the node with the folder of that disk, or with an \
             empty one; keep this one while `ppdb status` names shards that wait for it",
            self.name, told.id, told.disk
        );
        if self.view.set_replaced(told.id) {
            tracing::error!(disk = %self.disk_id, "{why}");
        }
        Err(Error::new(Code::AlreadyFormed, why))
    }
}

fn report(done: Result<()>, what: &str) {
    if let Err(error) = done {
        tracing::info!(what, %error, "not journaled");
    }
}

async fn propose(meta: &Group, command: &MetaCommand) -> Result<()> {
    let proposed = meta.propose(codec::encode(command).into());
    match tokio::time::timeout(PROPOSE_TIMEOUT, proposed).await {
        Ok(Ok((_, replies))) => reply_of(&replies),
        Ok(Err(error)) => Err(Error::new(Code::NotReady, error.to_string())),
        Err(_) => Err(Error::new(Code::Unknown, "the metadata group did not answer in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DiskId;

    #[test]
    fn a_cluster_is_founded_once_by_its_first_primary() {
        let name = |i: u64| NodeName::new(&format!("n{i}")).unwrap();
        let member = |i: u64, id: u64| FormationMember {
            id: NodeId(id),
            name: name(i),
            role: if i == 1 { Role::Replica } else { Role::Primary },
            addr: format!("10.0.0.{i}:7101"),
            disk: DiskId(id.into()),
        };
        let record = |members| FormationRecord { id: 1, cluster: "c".into(), shards: 3, members };
        let formed = record(vec![member(1, 1), member(2, 2), member(3, 3)]);
        assert!(founds(&formed, &name(2)));
        assert!(!founds(&formed, &name(1)) && !founds(&formed, &name(3)));
        // The first primary lost its disk and is told to join what it founded once.
        let running = record(vec![member(1, 1), member(2, 4), member(3, 3)]);
        assert!(!founds(&running, &name(2)));
    }
}
