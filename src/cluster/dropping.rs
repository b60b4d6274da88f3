//! Drops the copies that the metadata no longer lists for this node and disk: closed, forgotten by the log,
//! deleted. A crash anywhere in between is finished by the next start.
//!
//! Only after a quorum has confirmed the metadata in this process: what an old state does not list may have
//! been placed since. What a confirmed state does not list is gone for ever, because copy ids are never
//! used again.

use super::agent::{Agent, CopyRecord, durable};
use super::core::{ClusterState, ShardPlacement};
use crate::faults::{self, Point};
use crate::raft::Host;
use crate::storage;
use crate::types::{Code, CopyId, DiskId, Error, GroupId, NodeId, Result};
use crate::wire::client::{Role, Strategy};
use crate::wire::codec;
use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two copies while clients are served: whoever stops, closes and deletes eight of them at once is felt.
const REST: Duration = Duration::from_millis(50);
/// Folders of copies are named by their id.
const FOLDER_PREFIX: char = 'c';

impl Agent {
    /// Drops every copy here that is not placed here. False if something of one is left, to be tried again.
    pub(super) async fn drop_unlisted(&self) -> Result<bool> {
        let state = self.view.state();
        let Some(listed) = listed(&state, self.node, self.disk) else { return Ok(true) };
        for (shard, copy) in self.registry.all() {
            if listed.contains(&copy.copy) {
                continue;
            }
            tracing::info!(%shard, copy = %copy.copy, "dropping a copy that is no longer placed here");
            faults::pass(Point::DropBegin)?;
            self.registry.remove(shard, copy.copy);
            let group = copy.shard.group().id();
            drop(copy);
            if !self.host.discard(group).await {
                // It may still write, and a copy that is created next would take that for its own.
                return Err(Error::new(Code::Internal, format!("{group} does not stop")));
            }
            faults::pass(Point::DropStopped)?;
            tokio::time::sleep(rest(&self.host)).await;
        }
        for group in self.recorded_unlisted(&listed) {
            if self.host.group(group).is_none() {
                self.forget(group).await?;
            }
        }
        let folders = self.data_dir.join("copies");
        let host = self.host.clone();
        let unlisted = move || remove_folders(&folders, &listed, || rest(&host));
        match tokio::task::spawn_blocking(unlisted).await {
            Ok(Ok(())) => Ok(true),
            // The space is not given back yet; nothing else depends on it.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the folder of a dropped copy is not gone yet");
                Ok(false)
            }
            Err(error) => Err(Error::new(Code::Internal, error.to_string())),
        }
    }

    /// Whether there may be anything to drop; cheap, for every round.
    pub(super) fn holds_unlisted(&self) -> bool {
        let state = self.view.state();
        listed(&state, self.node, self.disk).is_some_and(|listed| {
            let gone = |copy: CopyId| !listed.contains(&copy);
            self.registry.all().iter().any(|(_, copy)| gone(copy.copy))
                || !self.recorded_unlisted(&listed).is_empty()
        })
    }

    /// Groups whose copy on this disk is not placed any more. A record that cannot be read stays: whoever
    /// wants to open that copy says so.
    fn recorded_unlisted(&self, listed: &BTreeSet<CopyId>) -> Vec<GroupId> {
        let is_unlisted = |(group, body): &(GroupId, Bytes)| {
            let record: Option<CopyRecord> = codec::decode(body).ok();
            let own = record.filter(|r| *group != GroupId::META && r.disk == self.disk);
            own.is_some_and(|r| !listed.contains(&CopyId(r.raft_id)))
        };
        self.wal.groups().into_iter().filter(is_unlisted).map(|(group, _)| group).collect()
    }

    /// The log forgets the group before its folder goes: a folder without a record is known to be dead,
    /// a record without its folder would look like a disk that lost data.
    async fn forget(&self, group: GroupId) -> Result<()> {
        durable(|done| self.wal.group(group).remove(done)).await?;
        Ok(faults::pass(Point::DropForgotten)?)
    }
}

/// How long to rest after a copy.
fn rest(host: &Host) -> Duration {
    if host.makes_way() { REST } else { Duration::ZERO }
}

/// The copies that are recorded for a disk; none if it was replaced: its folder is the operator's then,
/// because a copy in it may hold what no other copy has.
fn listed(state: &ClusterState, node: NodeId, disk: DiskId) -> Option<BTreeSet<CopyId>> {
    // Planted: a primary judges by which shards it owns, and not by the ids of copies.
    let is_primary = state.members.get(&node).is_some_and(|member| member.role == Role::Primary);
    let sharded = state.strategy == Strategy::Sharded;
    let by_shard = is_primary && sharded && faults::has_bug("drop-by-shard");
    let is_kept = |shard: &&ShardPlacement| !by_shard || shard.owner == node;
    let placed = state.shards.iter().filter(is_kept).flat_map(|s| &s.copies);
    (!state.is_gone(node)).then(|| placed.filter(|c| c.disk == disk).map(|c| c.id).collect())
}

/// Removes the folders of copies that are not listed, with a rest after each. Other names are left alone. Blocks.
fn remove_folders(
    folders: &Path,
    listed: &BTreeSet<CopyId>,
    rest: impl Fn() -> Duration,
) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(folders) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut dead: Vec<PathBuf> = vec![];
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|n| n.strip_prefix(FOLDER_PREFIX)?.parse().ok());
        if id.is_some_and(|id| !listed.contains(&CopyId(id))) {
            dead.push(entry.path());
        }
    }
    dead.iter().try_for_each(|folder| {
        faults::pass(Point::DropFolder)?;
        storage::remove_store(folder)?;
        std::thread::sleep(rest());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::MetaCommand;
    use crate::cluster::core::tests::record;

    #[test]
    fn only_folders_of_copies_that_are_not_listed_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["c1", "c2", "c30", "other", "c", "cx"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("data"), b"x").unwrap();
        }
        let listed = BTreeSet::from([CopyId(2)]);
        let rests = std::cell::Cell::new(0);
        let rest = || {
            rests.set(rests.get() + 1);
            Duration::ZERO
        };
        remove_folders(dir.path(), &listed, rest).unwrap();
        assert_eq!(rests.get(), 2, "one after each");
        remove_folders(dir.path(), &listed, rest).unwrap();
        let mut left: Vec<String> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["c", "c2", "cx", "other"]);
        remove_folders(&dir.path().join("absent"), &listed, rest).unwrap();
    }

    #[test]
    fn nothing_is_dropped_from_a_disk_that_was_replaced() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(record(3, 1, 12)));
        let (node, disk) = (NodeId(3), state.members[&NodeId(3)].disk);
        let of_disk = |state: &ClusterState| {
            let placed = state.shards.iter().flat_map(|s| &s.copies);
            placed.filter(|c| c.disk == disk).map(|c| c.id).collect::<BTreeSet<_>>()
        };
        let before = of_disk(&state);
        assert_eq!(listed(&state, node, disk), Some(before.clone()));
        state.apply(&MetaCommand::Rejoin { node, disk: DiskId(77) });
        assert_eq!(of_disk(&state), before, "what only that disk has is still recorded");
        assert_eq!(listed(&state, node, disk), None);
        assert_eq!(listed(&state, NodeId(5), DiskId(77)), Some(BTreeSet::new()));
    }

    #[test]
    fn folders_are_named_as_they_are_looked_for() {
        assert_eq!(CopyId(7).to_string(), format!("{FOLDER_PREFIX}7"));
    }
}
