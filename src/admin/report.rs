//! What this node tells the coordinator about itself and its copies. Read-only.

use super::Admin;
use super::disk::{Space, map_bytes_max};
use super::load::{SAMPLE_EVERY, Sample};
use crate::cluster::{LocalCopy, heard::clock_ms};
use crate::types::{Code, CopyId, Error, Result, ShardId};
use crate::wire::operation::{CopyReport, NodeReport};
use crate::wire::plan::LoadReport;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Admin {
    pub(super) fn report(&self) -> Result<NodeReport> {
        let state = self.view.state();
        let node = state.member(&self.name).map(|(id, _)| id);
        let node = node.ok_or_else(|| {
            Error::new(Code::NotFormed, format!("{} is not a member of a cluster", self.name))
        })?;
        let disk = Space::of(&self.data_dir)
            .map_err(|e| Error::new(Code::Internal, format!("the disk cannot be measured: {e}")))?;
        let copies = self.registry.all();
        let copied = self.control.read().as_ref().map(|c| c.metadata.host_copied_bytes());
        let mut report = NodeReport {
            node,
            clock_ms: clock_ms(),
            disk_free_bytes: disk.free_bytes,
            disk_total_bytes: disk.size_bytes,
            map_bytes_max: map_bytes_max(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificate_expires_ms: self.certificate_expires_ms,
            load: self.load(),
            copies: copies.iter().map(|(shard, copy)| report(*shard, copy)).collect(),
            service: self.served.level.level(Instant::now()),
            copied_bytes: copied.unwrap_or_default(),
        };
        self.misreport(&mut report);
        Ok(report)
    }

    /// How busy this node is.
    pub(super) fn load(&self) -> LoadReport {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        self.meter.report(Instant::now(), processors, self.budget.load_percent())
    }

    /// Feeds the meters for ever.
    pub async fn sample_load(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.rates.note(Instant::now(), self.counts());
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            let (reads, writes) = (&self.served.reads, &self.served.writes);
            self.meter.note(Sample {
                at: Instant::now(),
                cpu: Duration::try_from(time).unwrap_or_default(),
                ops: reads.load(Ordering::Relaxed) + writes.load(Ordering::Relaxed),
                write_bytes: self.served.write_bytes.load(Ordering::Relaxed),
            });
        }
    }

    /// Whether a test has this node report something else than what it knows: `name=value`, a line each.
    fn misreport(&self, report: &mut NodeReport) {
        let Some(planted) = crate::faults::planted("report") else { return };
        for (name, value) in planted.lines().filter_map(|line| line.split_once('=')) {
            let number = value.parse().unwrap_or_default();
            match name {
                "disk_free_bytes" => report.disk_free_bytes = number,
                // Seen to where it is asked for.
                "map_bytes_max" => {}
                "clock_ahead_ms" => report.clock_ms += number,
                "certificate_ms" => report.certificate_expires_ms = clock_ms() + number,
                "cpu_percent" => report.load.cpu_percent = number as u32,
                "queue_percent" => report.load.queue_percent = number as u32,
                "version" => report.version = value.to_owned(),
                "behind" => self.misreport_behind(report, value),
                other => tracing::warn!(other, "no such value to report"),
            }
        }
    }

    /// The copies on a node are said to be far behind those that lead here.
    fn misreport_behind(&self, report: &mut NodeReport, node: &str) {
        let leads = report.copies.iter_mut().filter_map(|copy| copy.lead.as_mut());
        for member in leads.flat_map(|lead| &mut lead.members) {
            if self.view.name(member.node).is_some_and(|name| name.as_str() == node) {
                member.near = false;
            }
        }
    }
}

fn report(shard: ShardId, copy: &LocalCopy) -> CopyReport {
    let group = copy.shard.group();
    let store = group.store();
    // A copy is made without the pages that hold nothing.
    let used_bytes = store.table_bytes().saturating_sub(store.free_bytes().unwrap_or(0));
    CopyReport {
        shard,
        incarnation: copy.incarnation,
        copy: copy.copy,
        leader: group.state().leader.map(|(id, _)| CopyId(id)),
        table_bytes: used_bytes + store.overlay_bytes() as u64,
        applied: group.state().applied.map_or(0, |pos| pos.index),
        installed: group.installed_index(),
        arriving_bytes: group.arriving_bytes(),
        lead: copy.shard.lead(),
    }
}
