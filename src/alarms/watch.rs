//! How long something has been bad, and from when to when that is an alarm.
//!
//! What comes and goes within seconds is one alarm: it ends only when it was good for a while.

use super::Kind;
use super::judge::Condition;
use crate::types::NodeName;
use crate::wire::alarm::Alarm;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long it has to be good before an alarm ends.
const GOOD: Duration = Duration::from_secs(5);
/// Conditions watched at a time; more say nothing new.
const WATCHED_MAX: usize = 1_024;

struct Watched {
    condition: Condition,
    /// Since when it is bad; to be shown, in milliseconds since 1970.
    since: Instant,
    since_ms: u64,
    /// When it was so last.
    last: Instant,
    /// It is an alarm.
    raised: bool,
}

/// The conditions of one node over time.
#[derive(Default)]
pub struct Watch {
    watched: BTreeMap<(Kind, String), Watched>,
}

/// What is an alarm since the last look, and what is none any more.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// These began.
    pub raised: Vec<Alarm>,
    /// These ended.
    pub ended: Vec<Alarm>,
}

impl Watch {
    /// Takes what is bad now. `now_ms`, in milliseconds since 1970, is for display alone: a clock that is set neither
    /// raises an alarm nor keeps one.
    pub fn step(
        &mut self,
        found: Vec<Condition>,
        by: &NodeName,
        now: Instant,
        now_ms: u64,
    ) -> Changes {
        for condition in found {
            let key = (condition.kind, condition.subject.clone());
            if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&key) {
                continue;
            }
            let begun = || Watched {
                condition: condition.clone(),
                since: now.checked_sub(condition.lasted).unwrap_or(now),
                since_ms: now_ms.saturating_sub(condition.lasted.as_millis() as u64),
                last: now,
                raised: false,
            };
            let watched = self.watched.entry(key).or_insert_with(begun);
            if watched.condition.marker != condition.marker {
                *watched = begun();
            }
            (watched.condition, watched.last) = (condition, now);
        }
        let mut changes = Changes::default();
        self.watched.retain(|_, watched| {
            let is_bad = watched.last == now;
            let lasted = now.saturating_duration_since(watched.since);
            if is_bad && !watched.raised && lasted >= watched.condition.hold {
                watched.raised = true;
                changes.raised.push(alarm(watched, by));
            }
            // One that is no alarm yet is forgotten at once.
            let was_bad_lately = now.saturating_duration_since(watched.last) < GOOD;
            let stays = is_bad || (watched.raised && was_bad_lately);
            if !stays && watched.raised {
                changes.ended.push(alarm(watched, by));
            }
            stays
        });
        changes
    }

    /// What is an alarm.
    pub fn alarms(&self, by: &NodeName) -> Vec<Alarm> {
        self.watched.values().filter(|w| w.raised).map(|w| alarm(w, by)).collect()
    }

    /// How long the operation that should move has not; zero if there is none.
    pub fn stalled(&self, now: Instant) -> Duration {
        let stuck = self.watched.values().find(|w| w.condition.kind == Kind::SwitchStuck);
        stuck.map_or(Duration::ZERO, |watched| now.saturating_duration_since(watched.since))
    }
}

fn alarm(watched: &Watched, by: &NodeName) -> Alarm {
    let rule = watched.condition.kind.rule();
    Alarm {
        name: rule.name.to_owned(),
        severity: rule.severity,
        subject: watched.condition.subject.clone(),
        message: watched.condition.message.clone(),
        fix: rule.fix.to_owned(),
        since_ms: watched.since_ms,
        seen_by: vec![by.clone()],
    }
}

/// Alarms of several nodes as one list, the worst and oldest first: the same thing seen by several is one alarm, since
/// the earliest.
pub fn merged(alarms: impl IntoIterator<Item = Alarm>) -> Vec<Alarm> {
    let mut by_subject: BTreeMap<(String, String), Alarm> = BTreeMap::new();
    for alarm in alarms {
        match by_subject.entry((alarm.name.clone(), alarm.subject.clone())) {
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(alarm)),
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.since_ms = known.since_ms.min(alarm.since_ms);
                known.seen_by.extend(alarm.seen_by);
                known.seen_by.sort();
                known.seen_by.dedup();
            }
        }
    }
    let mut all: Vec<Alarm> = by_subject.into_values().collect();
    all.sort_by_key(|alarm| (std::cmp::Reverse(alarm.severity), alarm.since_ms));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::alarm::Severity;

    /// So many seconds after the first look, by a clock that begins at a million.
    fn at(start: Instant, second: u64) -> (Instant, u64) {
        (start + Duration::from_secs(second), 1_000_000 + second * 1_000)
    }

    fn condition(hold_s: u64, marker: u64) -> Condition {
        Condition {
            kind: Kind::Lag,
            subject: "s1 on r1".to_owned(),
            message: "late".to_owned(),
            hold: Duration::from_secs(hold_s),
            lasted: Duration::ZERO,
            marker,
        }
    }

    fn by(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// Looks each second while it is bad; answers the seconds at which the alarm began and ended.
    fn seconds(bad: &[(u64, u64)], hold_s: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut watch, mut raised, mut ended) = (Watch::default(), Vec::new(), Vec::new());
        let start = Instant::now();
        for second in 0..100 {
            let is_bad = bad.iter().any(|(from, to)| (*from..*to).contains(&second));
            let found = if is_bad { vec![condition(hold_s, 0)] } else { vec![] };
            let (now, now_ms) = at(start, second);
            let changes = watch.step(found, &by("n1"), now, now_ms);
            raised.extend(changes.raised.iter().map(|_| second));
            ended.extend(changes.ended.iter().map(|_| second));
            assert_eq!(watch.alarms(&by("n1")).len(), raised.len() - ended.len());
        }
        (raised, ended)
    }

    #[test]
    fn an_alarm_begins_when_it_has_lasted_and_ends_when_it_was_good_for_a_while() {
        assert_eq!(seconds(&[(10, 40)], 20), (vec![30], vec![44]));
        assert_eq!(seconds(&[(10, 29), (30, 49)], 20), (vec![], vec![]));
        // Good for moments only: one alarm.
        assert_eq!(seconds(&[(10, 20), (23, 30)], 0), (vec![10], vec![34]));
    }

    #[test]
    fn what_moves_begins_anew_and_what_lasted_before_counts() {
        let (mut watch, me, start) = (Watch::default(), by("n1"), Instant::now());
        for second in 0..60 {
            let (now, now_ms) = at(start, second);
            let changes = watch.step(vec![condition(20, second / 15)], &me, now, now_ms);
            assert_eq!(changes, Changes::default(), "it moved {} s ago", second % 15);
        }
        let lasted = Condition { lasted: Duration::from_secs(20), ..condition(20, 77) };
        let (now, now_ms) = at(start, 60);
        let raised = watch.step(vec![lasted], &me, now, now_ms).raised;
        assert_eq!((raised.len(), raised[0].since_ms), (1, 1_040_000));
    }

    #[test]
    fn a_clock_that_is_set_neither_raises_an_alarm_nor_keeps_one() {
        let (mut watch, me, start) = (Watch::default(), by("n1"), Instant::now());
        watch.step(vec![condition(20, 0)], &me, start, 1_000_000);
        let hour_ms = 3_600_000;
        let soon = start + Duration::from_secs(1);
        let ahead = watch.step(vec![condition(20, 0)], &me, soon, 1_000_000 + hour_ms);
        assert_eq!(ahead, Changes::default());
        let (now, _) = at(start, 20);
        assert_eq!(watch.step(vec![condition(20, 0)], &me, now, hour_ms).raised.len(), 1);
        let (now, _) = at(start, 25);
        assert_eq!(watch.step(vec![], &me, now, 0).ended.len(), 1, "set back by an hour");
    }

    #[test]
    fn what_several_see_is_one_alarm_and_the_worst_comes_first() {
        let warning = |seen_by: &str, since_ms| Alarm {
            name: "lag".to_owned(),
            severity: Severity::Warning,
            subject: "s1 on r1".to_owned(),
            message: String::new(),
            fix: String::new(),
            since_ms,
            seen_by: vec![by(seen_by)],
        };
        let critical = Alarm {
            name: "node_down".to_owned(),
            severity: Severity::Critical,
            ..warning("n1", 90)
        };
        let all = merged([warning("n2", 80), critical.clone(), warning("n1", 70)]);
        assert_eq!(all[0], critical);
        assert_eq!((all.len(), all[1].since_ms), (2, 70));
        assert_eq!(all[1].seen_by, [by("n1"), by("n2")]);
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let mut watch = Watch::default();
        let many =
            (0..2 * WATCHED_MAX).map(|i| Condition { subject: i.to_string(), ..condition(0, 0) });
        let changes = watch.step(many.collect(), &by("n1"), Instant::now(), 1);
        assert_eq!(changes.raised.len(), WATCHED_MAX);
    }
}
