//! Notices: what a person at the prompt should hear without asking. Pure: what changed from one look at the
//! cluster to the next.

use super::seen::{Heard, Running, Snapshot};
use crate::alarms::Kind;
use crate::cli::output;
use crate::cli::strategy::document;
use crate::wire::operation::Phase;
use std::collections::BTreeMap;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Whether anybody answers.
    Connection,
    /// A member.
    Node,
    /// A change of strategy: whoever waits for it hears it from there.
    Operation,
    /// An alarm.
    Alarm,
}

/// One line above the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub about: About,
    /// What it says; one line that a terminal does not obey.
    pub text: String,
}

/// What changed. The first answer of all is no change, and neither is the first after a silence, but for being
/// one: nobody knows what happened meanwhile, and the prompt shows how it is.
pub fn notices(before: &Heard, after: &Heard) -> Vec<Notice> {
    match (before, after) {
        (Heard::Answer(_), Heard::Silence) => {
            let text = "no node answers; the next command tries again";
            vec![notice(About::Connection, text)]
        }
        (Heard::Silence | Heard::NotReady, Heard::Answer(_)) => {
            vec![notice(About::Connection, "the cluster answers again")]
        }
        (Heard::Answer(before), Heard::Answer(after)) => changes(before, after),
        _ => Vec::new(),
    }
}

fn notice(about: About, text: &str) -> Notice {
    Notice { about, text: output::escape(text.as_bytes()) }
}

fn changes(before: &Snapshot, after: &Snapshot) -> Vec<Notice> {
    let mut found = Vec::new();
    let down = after.down.difference(&before.down).map(|node| format!("{node} is down"));
    let back = before.down.difference(&after.down).map(|node| format!("{node} is back"));
    found.extend(down.chain(back).map(|text| notice(About::Node, &text)));
    found.extend(operation(before.operation.as_ref(), after.operation.as_ref()));
    found.extend(alarms(before, after));
    found
}

/// A change of strategy has begun, or has come to where a person has something to do or to know.
fn operation(before: Option<&Running>, after: Option<&Running>) -> Option<Notice> {
    let after = after?;
    let before = before.filter(|before| before.id == after.id);
    if before.is_some_and(|before| before.phase == after.phase) {
        return None;
    }
    let (from, to) = (document::name(after.from), document::name(after.to));
    let what = match after.phase {
        Phase::Prepared if !after.commit_asked => {
            "is prepared; `strategy commit` goes on".to_owned()
        }
        Phase::Soaking => "is settled; `strategy revert` goes back".to_owned(),
        Phase::Finalized => "is finalized".to_owned(),
        Phase::Aborted | Phase::Reverted => {
            let why = after.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            format!("was {}{why}", after.phase.name())
        }
        Phase::Aborting | Phase::Reverting => format!("is {}", after.phase.name()),
        _ if before.is_none() => format!("has begun, by {}", after.by),
        _ => return None,
    };
    let text = format!("operation {} ({from} -> {to}) {what}", after.id);
    Some(notice(About::Operation, &text))
}

/// Alarms that have begun or are over, those of one name together. What is told of nodes already is not told again.
fn alarms(before: &Snapshot, after: &Snapshot) -> Vec<Notice> {
    let begun = by_name(after, before).into_iter().map(|(name, alarms)| {
        let (_, message) = alarms[0];
        format!("alarm {name}: {message}{}", and_more(alarms.len()))
    });
    let over = by_name(before, after).into_iter().map(|(name, alarms)| {
        let (subject, _) = alarms[0];
        format!("alarm {name} is over: {subject}{}", and_more(alarms.len()))
    });
    begun.chain(over).map(|text| notice(About::Alarm, &text)).collect()
}

/// Alarms of one moment that the other does not have, with subject and message.
fn by_name<'a>(of: &'a Snapshot, not_of: &Snapshot) -> BTreeMap<&'a str, Vec<(&'a str, &'a str)>> {
    let mut found = BTreeMap::<&str, Vec<(&str, &str)>>::new();
    let told = Kind::NodeDown.rule().name;
    let news = of.alarms.iter().filter(|(key, _)| !not_of.alarms.contains_key(*key));
    for ((name, subject), message) in news.filter(|((name, _), _)| name != told) {
        found.entry(name).or_default().push((subject, message));
    }
    found
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(", and {} more", count - 1) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::seen::testing::{alarm, healthy, node, running};
    use super::*;

    fn heard(snapshot: Snapshot) -> Heard {
        Heard::Answer(Box::new(snapshot))
    }

    fn told(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let found = notices(&heard(before.clone()), &heard(after.clone()));
        found.into_iter().map(|notice| notice.text).collect()
    }

    fn with(operation: Running) -> Snapshot {
        Snapshot { operation: Some(operation), ..healthy() }
    }

    #[test]
    fn nothing_is_said_when_nothing_changed_or_nothing_was_known() {
        assert!(told(&healthy(), &healthy()).is_empty());
        let bad = Snapshot { down: [node("n3")].into(), ..healthy() };
        assert!(notices(&Heard::NotYet, &heard(bad.clone())).is_empty());
        assert!(told(&bad, &bad).is_empty());
        assert!(notices(&Heard::NotYet, &Heard::Silence).is_empty());
    }

    #[test]
    fn a_node_goes_and_comes_back() {
        let bad = Snapshot { down: [node("n3")].into(), ..healthy() };
        assert_eq!(told(&healthy(), &bad), ["n3 is down"]);
        assert_eq!(told(&bad, &healthy()), ["n3 is back"]);
        let other = Snapshot { down: [node("n1")].into(), ..healthy() };
        assert_eq!(told(&bad, &other), ["n1 is down", "n3 is back"]);
    }

    #[test]
    fn silence_is_told_once_in_each_direction() {
        let some = heard(healthy());
        let about = |found: Vec<Notice>| found.iter().map(|n| n.about).collect::<Vec<_>>();
        assert_eq!(about(notices(&some, &Heard::Silence)), [About::Connection]);
        assert_eq!(about(notices(&Heard::Silence, &some)), [About::Connection]);
        assert!(notices(&Heard::Silence, &Heard::Silence).is_empty());
    }

    #[test]
    fn a_switch_is_told_where_it_rests() {
        let at = |phase| with(running(phase));
        assert_eq!(
            told(&healthy(), &at(Phase::Checkpointed)),
            ["operation 7 (sharded -> full) has begun, by user ann"]
        );
        assert!(told(&at(Phase::Checkpointed), &at(Phase::Copying)).is_empty());
        assert!(told(&at(Phase::Copying), &at(Phase::Prepared)).is_empty(), "it goes on by itself");
        let held = with(Running { commit_asked: false, ..running(Phase::Prepared) });
        assert!(told(&at(Phase::Copying), &held)[0].contains("`strategy commit`"));
        assert!(told(&at(Phase::Committing), &at(Phase::Soaking))[0].contains("is settled"));
        let why = Some("p99\x1b[2J".to_owned());
        let aborted = with(Running { reason: why, ..running(Phase::Aborted) });
        assert_eq!(
            told(&at(Phase::Aborting), &aborted),
            ["operation 7 (sharded -> full) was aborted: p99\\x1b[2J"]
        );
        let next = with(Running { id: 8, ..running(Phase::Copying) });
        assert!(told(&aborted, &next)[0].starts_with("operation 8"));
        assert!(told(&at(Phase::Copying), &healthy()).is_empty(), "nobody told");
    }

    #[test]
    fn alarms_begin_and_end_and_are_not_told_twice_or_by_the_hundred() {
        let mut bad = healthy();
        alarm(&mut bad, Kind::Disk, "n1");
        alarm(&mut bad, Kind::NodeDown, "n3");
        assert_eq!(told(&healthy(), &bad), ["alarm disk: n1 is in trouble"]);
        assert_eq!(told(&bad, &healthy()), ["alarm disk is over: n1"]);
        let mut many = healthy();
        (0..20).for_each(|i| alarm(&mut many, Kind::Lag, &format!("s{i} on r1")));
        let expected = "alarm lag: s0 on r1 is in trouble, and 19 more";
        assert_eq!(told(&healthy(), &many), [expected]);
        assert_eq!(told(&many, &healthy()), ["alarm lag is over: s0 on r1, and 19 more"]);
    }
}
