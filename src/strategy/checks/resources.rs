//! `enough_resources`: does what the switch needs fit on every node, now and at its peak?

use super::{Bench, judged, mib, micros, no_go, rate, unknown};
use crate::types::NodeId;
use crate::wire::plan::{Check, DiskProbe, Field};

/// A copy takes this much more disk than is forecast, in percent.
const DISK_MARGIN_PERCENT: u64 = 120;
/// Share of a disk that stays free, in percent, and what is enough however large the disk is: a tenth of a
/// large one is more than any switch needs, and would refuse what is safe.
const DISK_FREE_PERCENT: u64 = 10;
const DISK_FREE_ENOUGH_BYTES: u64 = 10 << 30;
/// Share of its largest size that a table may reach, in percent.
const MAP_USE_PERCENT: u64 = 80;
/// A node's busiest resource may be used to this share, in percent, before a switch adds to it.
pub const LOAD_PERCENT_MAX: u32 = 80;
/// Half of the small writes have to be durable within this time, which is that of a heartbeat.
const SYNC_MAX_US: u64 = 250_000;

impl Bench<'_> {
    fn resource(&self, name: &str, node: NodeId) -> Check {
        self.check(name, Field::EnoughResources, Some(node))
    }

    /// What is forecast for each node, with a margin, beside what has to stay free.
    pub(super) fn disk(&self) -> Vec<Check> {
        let forecast = self.forecast();
        let disk = |node: NodeId| {
            let check = self.resource("disk", node);
            let Some(report) = self.report(node) else { return unknown(check) };
            let peak = forecast.disk_peak_bytes(node);
            let peak = peak.saturating_mul(DISK_MARGIN_PERCENT) / 100;
            let stays = report.disk_total_bytes / 100 * DISK_FREE_PERCENT;
            let need = peak.saturating_add(stays.min(DISK_FREE_ENOUGH_BYTES));
            let free = report.disk_free_bytes;
            let check = Check {
                value: format!("{} free", mib(free)),
                limit: format!("{} needed", mib(need)),
                ..check
            };
            if free < need {
                let message = format!("free {} more on its data folder's disk", mib(need - free));
                return no_go(check, message);
            }
            judged(check, peak, free - (need - peak), || "free some of its disk".to_owned())
        };
        self.members_ids().map(disk).collect()
    }

    pub(super) fn map_space(&self) -> Vec<Check> {
        let space = |node: NodeId| {
            let check = self.resource("map_space", node);
            let Some(report) = self.report(node) else { return unknown(check) };
            let largest = self.leads().map(|(_, c)| c.table_bytes).max().unwrap_or_default();
            let limit = report.map_bytes_max / 100 * MAP_USE_PERCENT;
            let check = Check {
                value: format!("{} the largest table", mib(largest)),
                limit: mib(limit),
                ..check
            };
            judged(check, largest, limit, || "its tables may not grow that large".to_owned())
        };
        self.state.primaries().into_iter().map(space).collect()
    }

    /// The busiest of what a process has, as a share of what it may use.
    pub(super) fn load(&self) -> Vec<Check> {
        let load = |node: NodeId| {
            let check = self.resource("load", node);
            let measured = self.report(node).filter(|report| report.load.window_ms > 0);
            let Some(report) = measured else { return unknown(check) };
            let (cpu, queue) = (report.load.cpu_percent, report.load.queue_percent);
            let busiest = cpu.max(queue);
            let check = Check {
                value: format!("processors {cpu} %, requests {queue} %"),
                limit: format!("under {LOAD_PERCENT_MAX} %"),
                used_percent: Some(super::percent(busiest.into(), LOAD_PERCENT_MAX.into())),
                ..check
            };
            match busiest < LOAD_PERCENT_MAX {
                true => check,
                false => no_go(check, "wait until less is asked of it"),
            }
        };
        self.members_ids().map(load).collect()
    }

    pub(super) fn disk_speed(&self) -> Vec<Check> {
        let speed = |node: NodeId| {
            let check = Check {
                limit: format!("a small write within {}", micros(SYNC_MAX_US)),
                age_ms: self.probe_age_ms(),
                ..self.resource("disk_speed", node)
            };
            let Some(probe) = self.probe(node) else { return unknown(check) };
            match &probe.disk {
                Ok(DiskProbe { write_bytes_per_s, sync_us, sync_worst_us }) => {
                    let check = Check {
                        value: format!(
                            "{}, a small write {}, at worst {}",
                            rate(*write_bytes_per_s),
                            micros(*sync_us),
                            micros(*sync_worst_us)
                        ),
                        ..check
                    };
                    match *sync_us <= SYNC_MAX_US && *write_bytes_per_s > 0 {
                        true => check,
                        false => no_go(check, "find out what keeps its disk busy"),
                    }
                }
                Err(why) => Check { message: why.clone(), ..unknown(check) },
            }
        };
        self.members_ids().map(speed).collect()
    }
}
