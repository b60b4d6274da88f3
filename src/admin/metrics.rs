//! The values of this node's metrics, gathered when somebody asks. Read-only.
//!
//! What each one means is in `telemetry::metrics`.

use super::Admin;
use super::disk::{Space, map_bytes_max};
use crate::admission::{Class, Resource};
use crate::cluster::LocalCopy;
use crate::cluster::heard::clock_ms;
use crate::raft::State;
use crate::telemetry::exposition::{Exposition, US_PER_S};
use crate::telemetry::metrics as m;
use crate::types::{Code, Result, ShardId};
use crate::wire::client::Strategy;
use crate::wire::command::Status;
use crate::wire::operation::Operation;
use crate::wire::tally::Direction;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const MS_PER_S: f64 = 1e3;

impl Admin {
    /// All of them, as Prometheus reads them. A node that belongs to no cluster yet has those of its process only.
    /// It looks into every table, so it leaves the place where requests are read, and lets what waits for this thread go on
    /// elsewhere.
    pub async fn metrics(&self) -> Result<String> {
        tokio::task::yield_now().await;
        tokio::task::block_in_place(|| self.gathered())
    }

    fn gathered(&self) -> Result<String> {
        let mut out = Exposition::default();
        self.process(&mut out);
        self.requests(&mut out);
        self.safety_net(&mut out);
        self.log(&mut out);
        if let Ok(status) = self.status() {
            self.cluster(&mut out, &status);
            self.journal(&mut out);
            self.operation(&mut out);
            self.copies(&mut out);
            self.peers(&mut out);
        }
        out.text()
    }

    fn process(&self, out: &mut Exposition) {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        out.value(&m::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), profile], 1.0);
        let expires_ms = self.certificate_expires_ms as f64;
        out.value(&m::CERTIFICATE_EXPIRY, &[], expires_ms / MS_PER_S);
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(time).unwrap_or_default();
        out.value(&m::PROCESS_CPU, &[], cpu.as_secs_f64());
        let up = self.started.elapsed().as_secs_f64();
        out.value(&m::PROCESS_START, &[], (clock_ms() as f64 / MS_PER_S - up).round());
        if let Some(bytes) = resident_bytes() {
            out.value(&m::PROCESS_MEMORY, &[], bytes as f64);
        }
        if let Ok(disk) = Space::of(&self.data_dir) {
            out.value(&m::DISK_FREE_BYTES, &[], disk.free_bytes as f64);
            out.value(&m::DISK_SIZE_BYTES, &[], disk.size_bytes as f64);
        }
    }

    fn requests(&self, out: &mut Exposition) {
        for counted in self.served.totals.counted() {
            let class = counted.class.name();
            for (code, count) in counted.outcomes {
                let code = code.map_or("ok", Code::name);
                out.value(&m::REQUESTS, &[class, code], count as f64);
            }
            let (ok, failed) = (&counted.ok_us, &counted.failed_us);
            out.histogram(&m::REQUEST_DURATION, &[class, "ok"], ok, US_PER_S);
            out.histogram(&m::REQUEST_DURATION, &[class, "failed"], failed, US_PER_S);
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
        out.value(&m::READ_KEYS, &[], count(&self.served.reads));
        out.value(&m::WRITTEN_KEYS, &[], count(&self.served.writes));
        out.value(&m::WRITTEN_BYTES, &[], count(&self.served.write_bytes));
        let level = self.served.level.level(Instant::now());
        out.value(&m::WRITE_GAP, &[], level.write_gap_ms as f64 / MS_PER_S);
    }

    fn safety_net(&self, out: &mut Exposition) {
        let limits = self.budget.limits();
        out.value(&m::REQUESTS_IN_FLIGHT, &[], self.budget.requests() as f64);
        out.value(&m::REQUESTS_IN_FLIGHT_MAX, &[], limits.max_concurrent_ops as f64);
        out.value(&m::BATCH_OPS_MAX, &[], limits.max_batch_size as f64);
        out.value(&m::BATCH_BYTES_MAX, &[], limits.max_batch_bytes as f64);
        out.value(&m::REQUEST_TIMEOUT, &[], limits.timeout.as_secs_f64());
        let percent = |percent: u32| f64::from(percent) / 100.0;
        out.value(&m::LOAD_THRESHOLD_RATIO, &[], percent(limits.load_threshold_percent));
        out.value(&m::LOAD_RATIO, &[], percent(self.budget.load_percent()));
        for resource in Resource::ALL {
            let share = self.budget.share_percent(resource);
            out.value(&m::LOAD_SHARE_RATIO, &[resource.name()], percent(share));
        }
        // Copies are slowed down, not refused.
        for class in [Class::Bulk, Class::Write, Class::Read] {
            out.value(&m::SHED, &[class.name()], self.budget.refused(class) as f64);
        }
    }

    fn log(&self, out: &mut Exposition) {
        let measured = self.wal.measured();
        out.histogram(&m::WAL_FSYNC_DURATION, &[], &measured.sync_us.counted(), US_PER_S);
        out.histogram(&m::WAL_BATCH_BYTES, &[], &measured.batch_bytes.counted(), 1.0);
        out.histogram(&m::WAL_BATCH_RECORDS, &[], &measured.batch_records.counted(), 1.0);
        out.value(&m::WAL_SIZE_BYTES, &[], self.wal.stats().disk_bytes as f64);
        out.value(&m::WAL_QUEUE_RATIO, &[], f64::from(self.wal.queue_percent()) / 100.0);
    }

    fn cluster(&self, out: &mut Exposition, status: &Status) {
        let yes = |yes: bool| f64::from(u8::from(yes));
        out.value(&m::EPOCH, &[], status.epoch as f64);
        for (strategy, name) in [(Strategy::Sharded, "sharded"), (Strategy::Full, "full")] {
            out.value(&m::STRATEGY, &[name], yes(status.strategy == strategy));
        }
        out.value(&m::MAY_FAIL, &[], status.may_fail_without_loss.into());
        let others = status.nodes.iter().filter(|node| node.name != self.name);
        others.for_each(|node| out.value(&m::NODE_UP, &[node.name.as_str()], yes(node.up)));
        let leaderless = status.shards_leaderless.len();
        out.value(&m::SHARDS_LEADERLESS, &[], leaderless as f64);
        let alarms = self.own_alarms();
        for alarm in &alarms {
            let labels = [alarm.name.as_str(), &alarm.subject, alarm.severity.name()];
            out.value(&m::ALARM_ACTIVE, &labels, 1.0);
        }
        let all_up = status.nodes.iter().all(|node| node.up);
        out.value(&m::CLUSTER_AVAILABLE, &[], yes(leaderless == 0));
        out.value(&m::CLUSTER_HEALTHY, &[], yes(leaderless == 0 && all_up && alarms.is_empty()));
        if let Some(ahead_ms) = self.heard.clock_ahead_ms() {
            out.value(&m::CLOCK_OFFSET, &[], ahead_ms as f64 / MS_PER_S);
        }
    }

    /// What the journal counts since the cluster was formed.
    fn journal(&self, out: &mut Exposition) {
        let tally = self.view.state().tally();
        let (sharded, full) = ("sharded", "full");
        for (from, to, counts) in
            [(sharded, full, tally.to_full), (full, sharded, tally.to_sharded)]
        {
            let Direction { settled, aborted, reverted } = counts;
            for (result, count) in
                [("settled", settled), ("aborted", aborted), ("reverted", reverted)]
            {
                out.value(&m::STRATEGY_SWITCHES, &[from, to, result], count as f64);
            }
        }
        out.value(&m::FAILED_OPERATIONS, &[], tally.failed_operations as f64);
        let mut seconds = |metric, ms: Option<u64>| {
            if let Some(ms) = ms {
                out.value(metric, &[], ms as f64 / MS_PER_S);
            }
        };
        seconds(&m::SWITCH_DURATION_AVG, tally.avg_switch_time_ms());
        seconds(&m::LAST_SWITCH_TIMESTAMP, tally.last_settled_ms);
        seconds(&m::LAST_SWITCH_DURATION, tally.last_took_ms);
    }

    /// The latest operation, and how far it is where that is known.
    fn operation(&self, out: &mut Exposition) {
        let state = self.view.state();
        let Some(op) = state.operation() else { return };
        out.value(&m::SWITCH_PHASE, &[op.phase.name()], 1.0);
        for (term, actual, predicted) in estimates(op) {
            if predicted > 0 {
                out.value(&m::SWITCH_ESTIMATE_RATIO, &[term], actual as f64 / predicted as f64);
            }
        }
        let Some(stalled) = self.stalled() else { return };
        out.value(&m::SWITCH_STALLED, &[], stalled.as_secs_f64());
        let control = self.control.read().clone();
        let shown = control.and_then(|control| control.coordinator.show().ok());
        let Some(progress) = shown.and_then(|shown| shown.progress) else { return };
        if op.phase.holds_slot() {
            out.value(&m::SWITCH_BYTES, &["done"], progress.bytes_done as f64);
            out.value(&m::SWITCH_BYTES, &["total"], progress.bytes_total as f64);
            if let Some(eta_s) = progress.eta_s {
                out.value(&m::SWITCH_ETA, &[], eta_s as f64);
            }
        }
    }

    /// What became of the calls to the other nodes.
    fn peers(&self, out: &mut Exposition) {
        for breaker in self.breakers.all(Instant::now()) {
            let (labels, seen) = ([breaker.peer.as_str(), breaker.class.name()], &breaker.seen);
            out.value(&m::BREAKER_OPEN, &labels, f64::from(u8::from(seen.is_open)));
            out.value(&m::BREAKER_OPENED, &labels, seen.opened_total as f64);
            out.value(&m::BREAKER_ERRORS, &labels, seen.error_count as f64);
            out.value(&m::BREAKER_SLOW, &labels, seen.slow_request_count as f64);
        }
    }

    fn copies(&self, out: &mut Exposition) {
        let copies = self.registry.all();
        let is_ready = copies.iter().all(|(_, copy)| copy.is_serving());
        out.value(&m::NODE_READY, &[], f64::from(u8::from(is_ready)));
        out.value(&m::MAP_SIZE_BYTES, &[], map_bytes_max() as f64);
        if let Some(control) = self.control.read().as_ref() {
            out.value(&m::COPIED_BYTES, &[], control.metadata.host_copied_bytes() as f64);
            raft(out, "meta", &control.metadata.state());
        }
        copies.iter().for_each(|(shard, copy)| self.copy(out, *shard, copy));
    }

    fn copy(&self, out: &mut Exposition, shard: ShardId, copy: &LocalCopy) {
        let name = shard.to_string();
        let shard = [name.as_str()];
        let group = copy.shard.group();
        let (store, state) = (group.store(), group.state());
        raft(out, &name, &state);
        out.value(&m::COPY_APPLIED_INDEX, &shard, state.applied.map_or(0, |pos| pos.index) as f64);
        out.value(&m::COPY_FLUSHED_INDEX, &shard, store.flushed().map_or(0, |p| p.index) as f64);
        out.value(&m::COPY_KEYS, &shard, store.keys_estimate() as f64);
        out.value(&m::COPY_OVERLAY_BYTES, &shard, store.overlay_bytes() as f64);
        out.value(&m::COPY_TABLE_BYTES, &shard, store.table_bytes() as f64);
        if let Ok(free) = store.free_bytes() {
            out.value(&m::COPY_TABLE_FREE_BYTES, &shard, free as f64);
        }
        if let Some(at) = group.fresh_as_of() {
            out.value(&m::COPY_AGE, &shard, at.elapsed().as_secs_f64());
        }
        let Some(lead) = copy.shard.lead() else { return };
        for member in lead.members {
            let Some(node) = self.view.name(member.node).filter(|node| *node != self.name) else {
                continue;
            };
            let labels = [name.as_str(), node.as_str()];
            let lag = lead.last_index.saturating_sub(member.matched);
            out.value(&m::COPY_LAG_ENTRIES, &labels, lag as f64);
            out.value(&m::COPY_NEAR, &labels, f64::from(u8::from(member.near)));
            if let Some(ms) = member.answered_ms {
                out.value(&m::COPY_SILENT, &labels, ms as f64 / MS_PER_S);
            }
        }
    }
}

fn raft(out: &mut Exposition, shard: &str, state: &State) {
    out.value(&m::RAFT_TERM, &[shard], state.term as f64);
    out.value(&m::RAFT_LEADER, &[shard], f64::from(u8::from(state.is_leader)));
}

/// What an operation cost, beside what its plan said: the term, and both figures where they are known.
fn estimates(op: &Operation) -> Vec<(&'static str, u64, u64)> {
    let Some(predicted) = &op.terms.predicted else { return Vec::new() };
    let known = [
        ("bytes", op.actual.copy_bytes, predicted.copy_bytes),
        ("duration", op.times.took_ms(), predicted.took_ms),
        ("write_gap", op.actual.write_gap_ms, predicted.write_gap_ms),
    ];
    known.into_iter().filter_map(|(term, actual, said)| Some((term, actual?, said))).collect()
}

/// Resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
