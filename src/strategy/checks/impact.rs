//! `estimated_impact`: can the cluster bear what the switch costs while it runs? Only terms with a model:
//! whether the copies outrun the writes, and what writing everything everywhere asks of each disk.

use super::{Bench, judged, rate, unknown, warn};
use crate::types::NodeId;
use crate::wire::client::Strategy;
use crate::wire::plan::{Check, Field};

/// A copy that is made has to be this much faster than what is written meanwhile, in percent.
const OUTRUN_PERCENT: u64 = 120;
/// Share of what a disk can write that writes may take in `full`, in percent.
const WRITE_USE_PERCENT: u64 = 70;
/// A full day of minutes.
const DAY_MINUTES: u32 = 24 * 60;
/// With fewer minutes nothing can be said of what is usual.
const HISTORY_MINUTES_MIN: u32 = 10;

impl Bench<'_> {
    fn impact(&self, name: &str, node: Option<NodeId>) -> Check {
        self.check(name, Field::EstimatedImpact, node)
    }

    /// Copies that do not outrun the writes never end.
    pub(super) fn copy_rate(&self) -> Vec<Check> {
        let forecast = self.forecast();
        let incoming = forecast.nodes.iter().filter(|node| node.in_bytes > 0);
        let outruns = |node: &super::forecast::NodeForecast| {
            let check =
                Check { age_ms: self.probe_age_ms(), ..self.impact("copy_rate", Some(node.node)) };
            let Some(copied) = node.copy_bytes_per_s else { return unknown(check) };
            let needed = node.write_bytes_per_s.saturating_mul(OUTRUN_PERCENT) / 100;
            let check = Check {
                value: format!("copies at {}", rate(copied)),
                limit: format!("over {}", rate(needed)),
                ..check
            };
            judged(check, needed, copied, || {
                "wait until less is written, or raise copy.bytes_per_s".to_owned()
            })
        };
        incoming.map(outruns).collect()
    }

    /// In `full` every primary writes what all of them write.
    pub(super) fn write_load(&self) -> Vec<Check> {
        if self.to == Strategy::Sharded {
            return vec![];
        }
        let written: u64 = self.seen.reports.values().map(|r| r.load.write_bytes_per_s).sum();
        let load = |node: NodeId| {
            let check =
                Check { age_ms: self.probe_age_ms(), ..self.impact("write_load", Some(node)) };
            let disk = self.probe(node).and_then(|probe| probe.disk.as_ref().ok());
            let Some(disk) = disk else { return unknown(check) };
            let allowed = disk.write_bytes_per_s / 100 * WRITE_USE_PERCENT;
            let check = Check {
                value: format!("{} written", rate(written)),
                limit: rate(allowed),
                ..check
            };
            judged(check, written, allowed, || "wait until less is written".to_owned())
        };
        self.state.primaries().into_iter().map(load).collect()
    }

    /// Is this a quiet hour? Only ever a warning, and only where a day is known well enough to tell.
    pub(super) fn off_peak(&self) -> Check {
        let check = self.impact("off_peak", None);
        let loads = || self.seen.reports.values().map(|report| &report.load);
        let sum = |of: fn(&crate::wire::plan::LoadReport) -> u64| -> u64 { loads().map(of).sum() };
        let now = sum(|load| load.ops_per_s);
        let (p50, p95) = (sum(|load| load.ops_per_s_p50), sum(|load| load.ops_per_s_p95));
        let minutes = loads().map(|load| load.history_minutes).min().unwrap_or_default();
        let check = Check {
            value: format!("{now} operations/s"),
            limit: format!("{p95} operations/s, of {minutes} minutes"),
            ..check
        };
        if minutes < HISTORY_MINUTES_MIN {
            let limit = "not known yet".to_owned();
            let message = format!("only {minutes} minutes of history: nothing is judged");
            return Check { limit, message, ..check };
        }
        let short = match minutes < DAY_MINUTES {
            true => format!(", by only {minutes} minutes of history"),
            false => String::new(),
        };
        // Where every hour is the same, none is quieter than this one.
        match now > p95 && now > p50.saturating_add(p50 / 2) {
            true => warn(check, format!("this is a busy hour{short}; a quiet one costs less")),
            false => Check { message: short.trim_start_matches(", ").to_owned(), ..check },
        }
    }
}
