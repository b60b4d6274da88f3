//! What this node tells the coordinator about itself and its copies. Read-only.

use super::Admin;
use crate::cluster::{LocalCopy, heard::clock_ms};
use crate::storage;
use crate::types::{Code, CopyId, Error, Result, ShardId};
use crate::wire::operation::{CopyReport, NodeReport};
use std::time::Instant;

impl Admin {
    pub(super) fn report(&self) -> Result<NodeReport> {
        let state = self.view.state();
        let node = state.member(&self.name).map(|(id, _)| id);
        let node = node.ok_or_else(|| {
            Error::new(Code::NotFormed, format!("{} is not a member of a cluster", self.name))
        })?;
        let disk = rustix::fs::statvfs(&self.data_dir)
            .map_err(|e| Error::new(Code::Internal, format!("the disk cannot be measured: {e}")))?;
        let copies = self.registry.all();
        let copied = self.control.read().as_ref().map(|c| c.metadata.host_copied_bytes());
        Ok(NodeReport {
            node,
            clock_ms: clock_ms(),
            disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            disk_total_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            map_bytes_max: storage::TABLE_BYTES_MAX,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            copies: copies.iter().map(|(shard, copy)| report(*shard, copy)).collect(),
            service: self.served.level.level(Instant::now()),
            copied_bytes: copied.unwrap_or_default(),
        })
    }
}

fn report(shard: ShardId, copy: &LocalCopy) -> CopyReport {
    let group = copy.shard.group();
    CopyReport {
        shard,
        incarnation: copy.incarnation,
        copy: copy.copy,
        leader: group.state().leader.map(|(id, _)| CopyId(id)),
        table_bytes: group.store().table_bytes(),
        applied: group.state().applied.map_or(0, |pos| pos.index),
        installed: group.installed_index(),
        arriving_bytes: group.arriving_bytes(),
        lead: copy.shard.lead(),
    }
}
