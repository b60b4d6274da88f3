//! Checks of the cluster as a whole. Pure.

use super::super::strategy::document;
use super::judge::{Facts, Seen, State};
use super::samples::label;
use crate::alarms::Kind;
use crate::wire::alarm::Severity;
use crate::wire::client::{Role, Strategy};
use crate::wire::operation::Phase;

/// Every member answers.
pub fn members(facts: &Facts) -> Seen {
    let mut seen = Seen::fine(format!("all {} members answer", facts.nodes.len()));
    for node in facts.nodes.iter().filter(|node| node.status.is_none()) {
        let why = node.error.as_ref().map_or("no answer".into(), |error| error.message.clone());
        let member = facts.status.nodes.iter().find(|member| member.name == node.name);
        let role = match member.map(|member| member.role) {
            Some(Role::Replica) => "replica",
            _ => "primary",
        };
        let addr = member.map_or("HOST:PORT", |member| member.addr.as_str());
        let name = &node.name;
        let fix = format!("ppdb serve --{role} --name {name} --listen {addr} --data-dir DIR");
        seen.add(State::Bad, format!("{name} does not answer: {why}"), fix);
    }
    // What was not told cannot be judged by what follows.
    for node in facts.nodes.iter().filter(|node| node.status.is_some()) {
        if let Some(error) = &node.error {
            let name = &node.name;
            let what = format!("{name} does not answer everything: {}", error.message);
            seen.add(State::Warn, what, format!("ppdb logs --node {name} --level warn"));
        }
    }
    seen
}

/// Every shard has a leader.
pub fn leaders(facts: &Facts) -> Seen {
    let mut seen = Seen::fine(format!("each of {} shards has a leader", facts.copies.len()));
    let without = &facts.status.shards_leaderless;
    if !without.is_empty() {
        let names: Vec<String> = without.iter().map(ToString::to_string).collect();
        let what = format!("no leader: {}; writes to these shards wait", names.join(" "));
        seen.add(State::Bad, what, "ppdb shard map");
    }
    seen
}

/// All members know the same map.
pub fn one_view(facts: &Facts) -> Seen {
    let leader = facts.status.metadata_leader.as_ref();
    let named = leader.map_or("nobody", |leader| leader.as_str());
    let epoch = facts.status.epoch;
    let mut seen = Seen::fine(format!("epoch {epoch} everywhere, {named} leads the metadata"));
    if leader.is_none() {
        let what = "the metadata has no leader: no order about the cluster is taken";
        seen.add(State::Bad, what, "ppdb logs --level warn");
    }
    for (name, status) in
        facts.nodes.iter().filter_map(|node| Some((&node.name, node.status.as_ref()?)))
    {
        if status.epoch < epoch {
            let what = format!("{name} is at epoch {}, others at {epoch}", status.epoch);
            seen.add(State::Warn, what, format!("ppdb logs --node {name} --level warn"));
        }
        if leader.is_some() && status.metadata_leader.is_none() {
            let what = format!("{name} hears no leader of the metadata");
            seen.add(State::Warn, what, format!("ppdb logs --node {name} --level warn"));
        }
    }
    seen
}

/// What is stored more than once.
pub fn copies(facts: &Facts) -> Seen {
    let least = facts.copies.iter().map(|(_, copies)| *copies).min().unwrap_or_default();
    let may_fail = facts.status.may_fail_without_loss;
    let mut seen = Seen::fine(format!(
        "{} copies of each shard at least, {may_fail} primaries may fail without loss",
        least
    ));
    let alone = facts.copies.iter().filter(|(_, copies)| *copies < 2);
    let alone: Vec<String> = alone.map(|(shard, _)| shard.to_string()).collect();
    if !alone.is_empty() {
        let what = format!("one copy only: {}; its disk is all there is of them", alone.join(" "));
        seen.add(State::Warn, what, "ppdb shard map");
    }
    let primaries = facts.status.nodes.iter().filter(|node| node.role == Role::Primary).count();
    if facts.status.strategy == Strategy::Full && primaries >= 3 && may_fail == 0 {
        let what = "full replication, and no primary may fail: another one stops the writes";
        seen.add(State::Warn, what, "ppdb cluster nodes");
    }
    seen
}

/// Copies that do not keep up, as the leaders of their shards tell it.
pub fn lag(facts: &Facts) -> Seen {
    let mut seen = Seen::fine("every copy has what was written a second ago");
    for node in &facts.nodes {
        let behind = node.samples.all("ppdb_copy_near").iter().filter(|(_, near)| *near == 0.0);
        let named = behind.filter_map(|(labels, _)| {
            Some(format!("{} on {}", label(labels, "shard")?, label(labels, "node")?))
        });
        let named: Vec<String> = named.collect();
        if !named.is_empty() {
            let what = format!("behind {}: {}", node.name, named.join(", "));
            seen.add(State::Warn, what, "ppdb replica lag");
        }
    }
    seen
}

/// What the nodes call an alarm.
pub fn alarms(facts: &Facts) -> Seen {
    let mut seen = Seen::fine("no alarm");
    for alarm in &facts.status.alarms {
        let state = match alarm.severity {
            Severity::Critical => State::Bad,
            Severity::Warning => State::Warn,
        };
        let what = format!("{}: {}; {}", alarm.name, alarm.message, alarm.fix);
        seen.add(state, what, "ppdb status");
    }
    seen
}

/// A change of strategy under way.
pub fn operation(facts: &Facts) -> Seen {
    let Some(view) = &facts.strategy else {
        let mut seen = Seen::fine("");
        seen.add(State::Warn, "nobody answers what is under way", "ppdb strategy show");
        return seen;
    };
    let Some(operation) = view.operation.as_ref() else {
        return Seen::fine("nothing is under way");
    };
    let (id, phase) = (operation.id, operation.phase.name());
    let to = document::name(operation.to);
    let mut seen = Seen::fine(match operation.phase {
        Phase::Finalized | Phase::Aborted | Phase::Reverted => "nothing is under way".to_owned(),
        _ => format!("operation {id} to {to} is {phase}"),
    });
    let stuck = facts.status.alarms.iter().any(|a| a.name == Kind::SwitchStuck.rule().name);
    let blocker = view.progress.as_ref().and_then(|progress| progress.blocker.as_ref());
    match blocker {
        _ if stuck => {
            let why = blocker.map_or(String::new(), |blocker| format!(": {blocker}"));
            let what = format!("operation {id} to {to} is {phase} and does not move{why}");
            seen.add(State::Bad, what, "ppdb strategy show");
        }
        Some(blocker) => {
            let what = format!("operation {id} to {to} is {phase} and waits: {blocker}");
            seen.add(State::Warn, what, "ppdb strategy show");
        }
        None => {}
    }
    seen
}

/// Live settings that somebody has set.
pub fn settings(facts: &Facts) -> Seen {
    let Some(settings) = &facts.settings else {
        let mut seen = Seen::fine("");
        let what =
            "nobody answers which live settings there are: limits are judged by the usual ones";
        seen.add(State::Warn, what, "ppdb config get");
        return seen;
    };
    let set = settings.iter().filter(|setting| setting.value != setting.default);
    let set: Vec<String> = set.map(|s| format!("{}={}", s.name, s.value)).collect();
    match set.is_empty() {
        true => Seen::fine(format!("{} live settings, all as usual", settings.len())),
        false => Seen::fine(format!("set: {}", set.join(" "))),
    }
}
