//! The guard of a switch: are clients served as well as before it began, and if not, what is done about it?
//!
//! `Watch` collects windows of five seconds from what the nodes report; `judge` decides, from these windows, the
//! operation with its baseline and limits, and the time. Both are pure. A coordinator that dies takes its windows
//! with it, so the next one needs three of its own; what was done is in the operation and stays.
//!
//! Before the commit point three bad windows in a row halve the rate of the copying, three more hold it, three
//! more end the operation; three good ones let a held copy go on. An operation that was prepared and waits for its
//! operator is only spoken about, and so is everything after the commit point: an alarm. It is taken back by the
//! guard only within the time that the operator gave for that.

use super::core::{ANSWERS_WITHIN_MS, Seen};
use crate::cluster::settings::COPY_BYTES_PER_S_MIN;
use crate::cluster::{ClusterState, Event};
use crate::wire::client::Role;
use crate::wire::guard::{ServiceLevel, Stage};
use crate::wire::operation::{MemberReport, Operation, Phase};
use std::time::{Duration, Instant};

/// Length of a window; what nodes report reaches back as far.
pub const WINDOW: Duration = Duration::from_secs(5);
/// So many windows in a row are bad before something is done, and good before it is undone.
pub const WINDOWS: usize = 3;
/// Without a limit of its own a percentile may reach this multiple of the baseline's.
const P99_FACTOR: u64 = 2;
/// And this, however fast the baseline was: a cluster that does little is not judged by its noise.
const P99_FLOOR_US: u64 = 50_000;
/// Errors of a million requests, without a limit of its own: 0.5 %.
const ERRORS_PPM_MAX: u64 = 5_000;
/// Of fewer requests in a window no share is taken.
const REQUESTS_MIN: u64 = 100;
/// A copy that falls behind by fewer entries in a window does not fall behind.
const LAG_GROWTH_MIN: u64 = 100;
/// How often a copy is held before the operation ends: one that only ever stands still is no way forward.
const HOLDS_MAX: u32 = 3;

/// How far copies that counted before are behind their leaders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Entries, over all of them.
    pub entries: u64,
    /// Copies that lack something written more than a second ago.
    pub far: u32,
}

/// What was seen in one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The worst of the nodes.
    pub level: ServiceLevel,
    /// At its end.
    pub lag: Lag,
    /// Entries more than at its beginning.
    pub lag_growth: u64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Half the rate of the copying.
    Halve(String),
    /// No copying.
    Hold(String),
    /// The copying goes on.
    Release,
    /// The operation ends before its commit point.
    Abort(String),
    /// A person is told.
    Alarm(String),
    /// There is nothing to be told any more.
    Calm,
    /// The operation is taken back.
    Revert(String),
}

/// Decides. `windows` are of this operation and of its phase since it turned, and since the last step; the latest
/// is last.
pub fn judge(op: &Operation, windows: &[Window], now_ms: u64) -> Step {
    use Phase::*;
    let Some(latest) = windows.len().checked_sub(WINDOWS).map(|from| &windows[from..]) else {
        return Step::Nothing;
    };
    let why: Vec<Option<String>> = latest.iter().map(|window| complaint(op, window)).collect();
    let is_good = why.iter().all(Option::is_none);
    let bad = why.into_iter().collect::<Option<Vec<_>>>().and_then(|mut why| why.pop());
    match (op.phase, bad) {
        (Checkpointed | Copying | CaughtUp, bad) => slow_down(op, bad, is_good),
        (Prepared, bad) if op.commit_asked => slow_down(op, bad, is_good),
        (Committing | Soaking, Some(why)) if may_revert(op, now_ms) => Step::Revert(why),
        (Prepared | Committing | Soaking, Some(why)) if op.guard.alarm.is_none() => {
            Step::Alarm(why)
        }
        (Prepared | Committing | Soaking, None) if is_good && op.guard.alarm.is_some() => {
            Step::Calm
        }
        _ => Step::Nothing,
    }
}

/// Before the commit point.
fn slow_down(op: &Operation, bad: Option<String>, is_good: bool) -> Step {
    match (op.guard.stage, bad) {
        (Stage::Free, Some(why)) => Step::Halve(why),
        (Stage::Slowed, Some(why)) if op.guard.holds < HOLDS_MAX => Step::Hold(why),
        (Stage::Slowed | Stage::Held, Some(why)) => Step::Abort(why),
        (Stage::Held, None) if is_good => Step::Release,
        (_, None) => Step::Nothing,
    }
}

fn may_revert(op: &Operation, now_ms: u64) -> bool {
    let since = op.times.committed_ms.map(|committed| now_ms.saturating_sub(committed));
    since.zip(op.terms.auto_revert_within_ms).is_some_and(|(since, within)| since <= within)
}

/// What is bad in a window, with its value and its limit; none if it is good.
fn complaint(op: &Operation, window: &Window) -> Option<String> {
    let (level, terms) = (&window.level, &op.terms);
    let baseline = op.guard.baseline.unwrap_or_default();
    let slow = |what: &str, now_us: Option<u64>, before_us: Option<u64>| {
        let now_us = now_us?;
        let limit_us = match (terms.max_p99_ms, before_us) {
            (Some(ms), _) => ms.saturating_mul(1_000),
            (None, Some(before)) => before.saturating_mul(P99_FACTOR).max(P99_FLOOR_US),
            // What was not measured before cannot have become worse.
            (None, None) => return None,
        };
        let before = before_us.map_or("not known".to_owned(), show_us);
        (now_us > limit_us).then(|| {
            let (now, limit) = (show_us(now_us), show_us(limit_us));
            format!("p99 of {what} is {now} (limit {limit}, before the switch {before})")
        })
    };
    let failing = || {
        let (found, limit) =
            (level.errors_ppm(), terms.max_error_rate_ppm.unwrap_or(ERRORS_PPM_MAX));
        let counts = level.requests() >= REQUESTS_MIN && found > limit;
        counts.then(|| format!("{} of requests fail (limit {})", percent(found), percent(limit)))
    };
    let stalling = || {
        let (found, limit) = (level.write_gap_ms, terms.max_write_gap_ms?);
        (found > limit).then(|| format!("the longest write gap is {found} ms (limit {limit} ms)"))
    };
    let behind = || {
        let (far, more) = (window.lag.far, window.lag_growth);
        let grows = far > 0 && more >= LAG_GROWTH_MIN;
        grows.then(|| format!("{far} copies fall behind, by {more} entries more"))
    };
    slow("writes", level.write_p99_us, baseline.write_p99_us)
        .or_else(|| slow("reads", level.read_p99_us, baseline.read_p99_us))
        .or_else(failing)
        .or_else(stalling)
        .or_else(behind)
}

fn show_us(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

fn percent(ppm: u64) -> String {
    format!("{:.2} %", ppm as f64 / 10_000.0)
}

/// Half the rate at which the busiest node sends, or of what it may send, whichever is less.
pub fn halved(limit_bytes_per_s: u64, sent_bytes_per_s: u64) -> u64 {
    let rate = match limit_bytes_per_s {
        0 => sent_bytes_per_s,
        limit => limit.min(sent_bytes_per_s.max(COPY_BYTES_PER_S_MIN)),
    };
    (rate / 2).max(COPY_BYTES_PER_S_MIN)
}

/// How well the cluster serves: the worst of the nodes that answer.
pub fn level(seen: &Seen) -> ServiceLevel {
    ServiceLevel::worst(seen.reports.values().map(|report| &report.service))
}

/// How far the copies are behind that vote or lie on a replica. Those being made are expected to be, and one that
/// does not answer at all is told about elsewhere.
pub fn lag(state: &ClusterState, seen: &Seen) -> Lag {
    let replicas = state.of_role(Role::Replica);
    let counts = |m: &&MemberReport| {
        let answers = m.answered_ms.is_some_and(|ms| ms <= ANSWERS_WITHIN_MS);
        answers && (m.voter || replicas.contains(&m.node))
    };
    let leads = seen.reports.values().flat_map(|r| &r.copies).filter_map(|c| c.lead.as_ref());
    leads.fold(Lag::default(), |lag, lead| {
        let members = lead.members.iter().filter(counts);
        members.fold(lag, |lag, m| Lag {
            entries: lag.entries + lead.last_index.saturating_sub(m.matched),
            far: lag.far + u32::from(!m.near),
        })
    })
}

/// Collects windows, for the operation and turn that they are of.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    of: (u64, u64),
    began: Option<(Instant, Lag)>,
    windows: Vec<Window>,
    /// Longest write gap of the operation, as long as it was looked at, and of the seconds before it.
    gap_ms: u64,
}

impl Watch {
    /// One look. True if a window has ended with it.
    pub fn look(&mut self, op: &Operation, level: ServiceLevel, lag: Lag, now: Instant) -> bool {
        if self.of != (op.id, op.turn) {
            // What was served before a turn says nothing about what comes after it.
            let gap_ms = if self.of.0 == op.id { self.gap_ms } else { 0 };
            *self = Self { of: (op.id, op.turn), gap_ms, ..Self::default() };
        }
        self.gap_ms = self.gap_ms.max(level.write_gap_ms);
        let (began, before) = *self.began.get_or_insert((now, lag));
        if now.saturating_duration_since(began) < WINDOW {
            return false;
        }
        let lag_growth = lag.entries.saturating_sub(before.entries);
        self.windows.push(Window { level, lag, lag_growth });
        if self.windows.len() > WINDOWS {
            self.windows.remove(0);
        }
        self.began = Some((now, lag));
        true
    }

    /// The windows that count, the latest last.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// A step was taken: what was seen before it does not count for the next.
    pub fn acted(&mut self) {
        self.windows.clear();
    }

    /// Longest write gap of the operation so far.
    pub fn gap_ms(&self) -> u64 {
        self.gap_ms
    }
}

/// The event that journals a step.
pub fn event(step: Step, limit_bytes_per_s: u64, sent_bytes_per_s: u64) -> Option<Event> {
    Some(match step {
        Step::Nothing => return None,
        Step::Halve(why) => {
            let copy_bytes_per_s = halved(limit_bytes_per_s, sent_bytes_per_s);
            Event::Slowed { copy_bytes_per_s, why }
        }
        Step::Hold(why) => Event::Held { why },
        Step::Release => Event::Released,
        Step::Abort(why) => Event::GaveUp { why: format!("the guard gave it up: {why}") },
        Step::Alarm(why) => Event::Alarm { why },
        Step::Calm => Event::Calm,
        Step::Revert(why) => Event::WentBack { why: format!("the guard took it back: {why}") },
    })
}

#[cfg(test)]
#[path = "guard_test.rs"]
mod tests;
