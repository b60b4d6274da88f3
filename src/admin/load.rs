//! How busy this node is: its share of the processors, operations and bytes written in the last seconds, and
//! what is usual over a day. Plain values with `now` as an argument; a task of the node samples.

use crate::wire::plan::LoadReport;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// What the last seconds are.
const WINDOW: Duration = Duration::from_secs(10);
/// Samples kept: those of the window, and one before it.
const SAMPLES_MAX: usize = 12;
/// One entry of the history.
const MINUTE: Duration = Duration::from_secs(60);
/// A day of minutes.
const MINUTES_MAX: usize = 24 * 60;

/// Counters since the start of the process, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Time that its threads spent on a processor.
    pub cpu: Duration,
    /// Operations served.
    pub ops: u64,
    /// Bytes of write requests carried out.
    pub write_bytes: u64,
}

/// The last seconds and the last day of one node.
#[derive(Default)]
pub struct Meter {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The last samples, the oldest first.
    recent: VecDeque<Sample>,
    /// Operations a second in each of the last minutes, the oldest first.
    minutes: VecDeque<u64>,
    /// The sample at which the minute under way began.
    minute: Option<Sample>,
}

impl Meter {
    /// Notes a sample.
    pub fn note(&self, sample: Sample) {
        let mut inner = self.inner.lock();
        inner.recent.push_back(sample);
        while inner.recent.len() > SAMPLES_MAX {
            inner.recent.pop_front();
        }
        let began = *inner.minute.get_or_insert(sample);
        let lasted = sample.at.saturating_duration_since(began.at);
        if lasted >= MINUTE {
            let rate = per_second(sample.ops.saturating_sub(began.ops), lasted);
            inner.minutes.push_back(rate);
            inner.minute = Some(sample);
            if inner.minutes.len() > MINUTES_MAX {
                inner.minutes.pop_front();
            }
        }
    }

    /// What is known now. `processors` is how many the process may use, `queue_percent` what is taken of its
    /// budget at this moment.
    pub fn report(&self, now: Instant, processors: usize, queue_percent: u32) -> LoadReport {
        let inner = self.inner.lock();
        let in_window = |sample: &&Sample| now.saturating_duration_since(sample.at) <= WINDOW;
        let first = inner.recent.iter().find(in_window).copied();
        let last = inner.recent.back().copied();
        let mut report = LoadReport { queue_percent, ..LoadReport::default() };
        if let (Some(first), Some(last)) = (first, last) {
            let lasted = last.at.saturating_duration_since(first.at);
            report.window_ms = lasted.as_millis() as u64;
            let busy = last.cpu.saturating_sub(first.cpu).as_micros();
            let allowed = lasted.as_micros() * processors.max(1) as u128;
            report.cpu_percent = (busy * 100).checked_div(allowed).unwrap_or_default() as u32;
            report.ops_per_s = per_second(last.ops.saturating_sub(first.ops), lasted);
            let written = last.write_bytes.saturating_sub(first.write_bytes);
            report.write_bytes_per_s = per_second(written, lasted);
        }
        let mut sorted: Vec<u64> = inner.minutes.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied();
        report.history_minutes = sorted.len() as u32;
        report.ops_per_s_p50 = at(50).unwrap_or_default();
        report.ops_per_s_p95 = at(95).unwrap_or_default();
        report
    }
}

fn per_second(count: u64, lasted: Duration) -> u64 {
    let ms = lasted.as_millis();
    (u128::from(count) * 1_000).checked_div(ms).unwrap_or_default() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(start: Instant, s: u64, cpu_ms: u64, ops: u64) -> Sample {
        let at = start + Duration::from_secs(s);
        Sample { at, cpu: Duration::from_millis(cpu_ms), ops, write_bytes: ops * 100 }
    }

    #[test]
    fn the_last_seconds_are_told_and_earlier_ones_are_not() {
        let start = Instant::now();
        let meter = Meter::default();
        assert_eq!(
            meter.report(start, 2, 7),
            LoadReport { queue_percent: 7, ..Default::default() }
        );
        // A burst that is over.
        meter.note(sample(start, 0, 0, 0));
        meter.note(sample(start, 1, 2_000, 1_000_000));
        for s in 2..=60 {
            meter.note(sample(start, s, 2_000 + (s - 1) * 500, 1_000_000 + (s - 1) * 30));
        }
        let report = meter.report(start + Duration::from_secs(60), 2, 0);
        // Half a processor of two.
        assert_eq!((report.cpu_percent, report.ops_per_s), (25, 30));
        assert_eq!(report.window_ms, 10_000);
        assert_eq!(report.write_bytes_per_s, 3_000);
        assert!(meter.inner.lock().recent.len() <= SAMPLES_MAX);
    }

    #[test]
    fn a_day_is_kept_by_the_minute() {
        let start = Instant::now();
        let meter = Meter::default();
        let mut ops = 0;
        for minute in 0..=2 * MINUTES_MAX as u64 {
            // Quiet, and every tenth minute busy.
            meter.note(sample(start, minute * 60, 0, ops));
            ops += if minute % 10 == 0 { 6_000 } else { 600 };
        }
        let report = meter.report(start, 1, 0);
        assert_eq!(report.history_minutes, MINUTES_MAX as u32);
        assert_eq!((report.ops_per_s_p50, report.ops_per_s_p95), (10, 100));
    }
}
