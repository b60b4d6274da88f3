//! What the answers to `status`, `info`, `cluster nodes` and `shard map` look like: a document with a table beside it.
//! Asks nobody.

use crate::cli::strategy::document;
use crate::cli::value::Doc;
use crate::cluster::heard::clock_ms;
use crate::types::NodeName;
use crate::types::units::show_bytes;
use crate::wire::alarm::Alarm;
use crate::wire::client::{Map, Role};
use crate::wire::command::{Info, SafetyInfo, Status};
use crate::wire::tally::{Direction, Tally};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What `status` answers.
pub fn status_doc(status: &Status) -> Doc {
    let leaderless: Vec<u16> = status.shards_leaderless.iter().map(|shard| shard.0).collect();
    let nodes = nodes_doc(status);
    let json = json!({
        "cluster": status.cluster, "epoch": status.epoch, "strategy": status.strategy,
        "answered_by": status.answered_by.as_str(),
        "metadata_leader": status.metadata_leader.as_ref().map(NodeName::as_str),
        "nodes": nodes.json, "shards_leaderless": leaderless,
        "may_fail_without_loss": status.may_fail_without_loss, "messages": status.messages,
        "alarms": status.alarms.iter().map(alarm_json).collect::<Vec<_>>(),
        "switches": switches_json(&status.switches),
    });
    let mut notes = vec![
        format!(
            "cluster {}  {}  epoch {}",
            status.cluster,
            document::name(status.strategy),
            status.epoch
        ),
        format!("may fail without loss: {}", status.may_fail_without_loss),
    ];
    if !leaderless.is_empty() {
        let names: Vec<String> = status.shards_leaderless.iter().map(ToString::to_string).collect();
        notes.push(format!("without a leader: {}", names.join(" ")));
    }
    notes.extend(status.messages.iter().map(|message| format!("- {message}")));
    notes.extend(alarm_lines(&status.alarms));
    notes.push(String::new());
    Doc { json, notes, ..nodes }
}

/// Since the cluster was formed; times in milliseconds, the last one since 1970.
fn switches_json(tally: &Tally) -> Json {
    let direction = |d: &Direction| json!({ "settled": d.settled, "aborted": d.aborted, "reverted": d.reverted });
    json!({
        "strategy_switches": tally.strategy_switches(),
        "failed_operations": tally.failed_operations,
        "avg_switch_time": tally.avg_switch_time_ms(), "last_switch_time": tally.last_settled_ms,
        "to_full": direction(&tally.to_full), "to_sharded": direction(&tally.to_sharded),
    })
}

fn alarm_json(alarm: &Alarm) -> Json {
    let seen_by: Vec<&str> = alarm.seen_by.iter().map(NodeName::as_str).collect();
    json!({
        "name": alarm.name, "severity": alarm.severity, "subject": alarm.subject,
        "message": alarm.message, "fix": alarm.fix, "since_ms": alarm.since_ms, "seen_by": seen_by,
    })
}

/// What is wrong, since when, and what can be done about it; of several of a kind the first one, and what the others are
/// about.
fn alarm_lines(alarms: &[Alarm]) -> Vec<String> {
    let mut kinds: Vec<(&Alarm, Vec<&str>)> = Vec::new();
    for alarm in alarms {
        match kinds.iter_mut().find(|(first, _)| first.name == alarm.name) {
            Some((_, more)) => more.push(&alarm.subject),
            None => kinds.push((alarm, Vec::new())),
        }
    }
    kinds.iter().flat_map(|(first, more)| kind_lines(first, more)).collect()
}

fn kind_lines(first: &Alarm, more: &[&str]) -> [String; 2] {
    let age_s = clock_ms().saturating_sub(first.since_ms) / 1_000;
    let age = humantime::format_duration(Duration::from_secs(age_s));
    let severity = first.severity.name().to_uppercase();
    let more = match more.len() {
        0 => String::new(),
        count => format!(", and {count} more: {}", more.join(", ")),
    };
    [format!("{severity} for {age}: {}{more}", first.message), format!("  {}", first.fix)]
}

fn nodes_doc(status: &Status) -> Doc {
    let json = status.nodes.iter().map(|n| {
        json!({
            "name": n.name.as_str(), "role": n.role, "addr": n.addr, "up": n.up,
            "shards_owned": n.shards_owned, "copies": n.copies,
        })
    });
    let rows = status.nodes.iter().map(|n| {
        let up = if n.up { "up" } else { "DOWN" };
        let (owned, copies) = (n.shards_owned.to_string(), n.copies.to_string());
        vec![n.name.to_string(), role(n.role).into(), n.addr.clone(), up.into(), owned, copies]
    });
    Doc {
        json: json.collect(),
        header: vec!["NODE", "ROLE", "ADDRESS", "STATE", "OWNS", "COPIES"],
        rows: rows.collect(),
        notes: Vec::new(),
    }
}

/// The members, with what each has served since it started.
pub fn busy_doc(status: &Status, infos: &BTreeMap<NodeName, Info>) -> Doc {
    let mut doc = nodes_doc(status);
    doc.header.extend(["READY", "READS", "WRITES"]);
    let nodes = doc.json.as_array_mut().into_iter().flatten();
    for ((node, row), json) in status.nodes.iter().zip(&mut doc.rows).zip(nodes) {
        let info = infos.get(&node.name);
        json["ready"] = json!(info.map(|info| info.ready));
        json["reads"] = json!(info.map(|info| info.reads));
        json["writes"] = json!(info.map(|info| info.writes));
        row.extend(match info {
            Some(info) => {
                let ready = if info.ready { "yes" } else { "no" };
                [ready.to_owned(), info.reads.to_string(), info.writes.to_string()]
            }
            None => ["-", "-", "-"].map(str::to_owned),
        });
    }
    doc
}

/// What `info` answers.
pub fn info_doc(info: &Info) -> Doc {
    let copies: Vec<Json> = info
        .copies
        .iter()
        .map(|c| {
            json!({
                "shard": c.shard.0, "incarnation": c.incarnation.0, "copy": c.copy.0,
                "state": c.state, "term": c.term, "applied": c.applied, "flushed": c.flushed,
                "keys": c.keys,
            })
        })
        .collect();
    let json = json!({
        "node": info.node.as_str(), "node_id": info.node_id.map(|id| id.0),
        "disk": info.disk.to_string(), "version": info.version, "pid": info.pid,
        "uptime_s": info.uptime_s, "ready": info.ready, "wal_bytes": info.wal_bytes,
        "wal_syncs": info.wal_syncs, "copies_bytes": info.copies_bytes, "reads": info.reads,
        "writes": info.writes, "metadata_term": info.metadata_term,
        "safety": safety_json(&info.safety), "copies": copies,
    });
    let safety = &info.safety;
    let uptime = humantime::format_duration(Duration::from_secs(info.uptime_s));
    let notes = vec![
        format!("node {}  version {}  pid {}  up {uptime}", info.node, info.version, info.pid),
        format!("disk {}  ready: {}", info.disk, if info.ready { "yes" } else { "no" }),
        format!("served since the start: {} reads, {} writes", info.reads, info.writes),
        format!(
            "load {} %: {} of {} requests; refused since the start: {} reads, {} writes, {} scans and batches",
            safety.load_percent,
            safety.requests,
            safety.max_concurrent_ops,
            safety.refused_reads,
            safety.refused_writes,
            safety.refused_bulk
        ),
        format!(
            "log {} in {} syncs, copies {}",
            show_bytes(info.wal_bytes),
            info.wal_syncs,
            show_bytes(info.copies_bytes)
        ),
        String::new(),
    ];
    let rows = info.copies.iter().map(|c| {
        let numbers = [c.term, c.applied, c.flushed, c.keys].map(|number| number.to_string());
        let mut row = vec![c.shard.to_string(), c.incarnation.to_string(), c.copy.to_string()];
        row.push(c.state.clone());
        row.extend(numbers);
        row
    });
    let header =
        ["SHARD", "INCARNATION", "COPY", "STATE", "TERM", "APPLIED", "FLUSHED", "KEYS"].to_vec();
    Doc { json, header, rows: rows.collect(), notes }
}

/// With the names of the settings where it is one.
fn safety_json(safety: &SafetyInfo) -> Json {
    json!({
        "load": f64::from(safety.load_percent) / 100.0, "requests": safety.requests,
        "max_concurrent_ops": safety.max_concurrent_ops,
        "max_batch_size": safety.max_batch_size, "max_batch_bytes": safety.max_batch_bytes,
        "timeout_ms": safety.timeout_ms,
        "load_threshold": f64::from(safety.load_threshold_percent) / 100.0,
        "refused": {
            "bulk": safety.refused_bulk, "write": safety.refused_writes,
            "read": safety.refused_reads,
        },
    })
}

/// The members of a map, in JSON.
pub fn map_nodes(map: &Map) -> Vec<Json> {
    map.nodes
        .iter()
        .map(|n| json!({ "name": n.name.as_str(), "role": n.role, "addr": n.addr }))
        .collect()
}

/// What `shard map` answers.
pub fn map_doc(map: &Map) -> Doc {
    let count = map.shards.len() as u16;
    let slots = |shard| crate::types::slots::slots_of(shard, count);
    let shards = map.shards.iter().map(|s| {
        let copies: Vec<&str> = s.copies.iter().map(NodeName::as_str).collect();
        json!({
            "shard": s.id.0, "incarnation": s.incarnation.0, "owner": s.owner.as_str(),
            "copies": copies, "slots": [slots(s.id).start, slots(s.id).end.saturating_sub(1)],
        })
    });
    let shards: Vec<Json> = shards.collect();
    let json = json!({
        "epoch": map.epoch, "strategy": map.strategy, "nodes": map_nodes(map), "shards": shards,
    });
    let rows = map.shards.iter().map(|s| {
        let copies: Vec<&str> = s.copies.iter().map(NodeName::as_str).collect();
        let range = format!("{}-{}", slots(s.id).start, slots(s.id).end.saturating_sub(1));
        vec![s.id.to_string(), range, s.owner.to_string(), copies.join(" ")]
    });
    Doc {
        json,
        header: vec!["SHARD", "SLOTS", "OWNER", "COPIES"],
        rows: rows.collect(),
        notes: vec![format!("{}  epoch {}", document::name(map.strategy), map.epoch)],
    }
}

/// How a role is written in a table.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DiskId, Incarnation, ShardId};
    use crate::wire::client::{MapNode, MapShard};

    #[test]
    fn alarms_of_a_kind_are_told_once_with_all_that_they_are_about() {
        let alarm = |name: &str, subject: &str| Alarm {
            name: name.to_owned(),
            severity: crate::wire::alarm::Severity::Critical,
            subject: subject.to_owned(),
            message: format!("{subject} is bad"),
            fix: format!("mend {name}"),
            since_ms: clock_ms().saturating_sub(61_500),
            seen_by: vec![],
        };
        let all = [alarm("no_leader", "s1"), alarm("disk", "n2"), alarm("no_leader", "s4")];
        let expected = [
            "CRITICAL for 1m 1s: s1 is bad, and 1 more: s4",
            "  mend no_leader",
            "CRITICAL for 1m 1s: n2 is bad",
            "  mend disk",
        ];
        assert_eq!(alarm_lines(&all), expected);
    }

    #[test]
    fn documents_hold_every_shard_slot_and_a_readable_disk() {
        let node = NodeName::new("n1").unwrap();
        let shard = |id: u16| MapShard {
            id: ShardId(id),
            incarnation: Incarnation(1),
            owner: node.clone(),
            copies: vec![node.clone()],
        };
        let map = Map {
            epoch: 4,
            nodes: vec![MapNode { name: node.clone(), role: Role::Primary, addr: "h:1".into() }],
            shards: vec![shard(0), shard(1)],
            ..Map::default()
        };
        let doc = map_doc(&map);
        assert_eq!(doc.json["shards"][0]["slots"], json!([0, 8191]));
        assert_eq!(doc.json["shards"][1]["slots"], json!([8192, 16383]));
        assert_eq!(doc.rows[1], ["s1", "8192-16383", "n1", "n1"]);
        let info = Info {
            node,
            node_id: None,
            disk: DiskId(u128::MAX),
            version: "0".into(),
            pid: 1,
            uptime_s: 60,
            ready: false,
            wal_bytes: 0,
            wal_syncs: 0,
            copies_bytes: 0,
            copies: Vec::new(),
            reads: 7,
            writes: 3,
            safety: SafetyInfo {
                load_percent: 25,
                load_threshold_percent: 80,
                refused_writes: 4,
                ..SafetyInfo::default()
            },
            metadata_term: Some(2),
        };
        assert_eq!(info_doc(&info).json["safety"]["load"], 0.25);
        assert_eq!(info_doc(&info).json["safety"]["refused"]["write"], 4);
        assert_eq!(info_doc(&info).json["disk"], "f".repeat(32));
        assert_eq!(info_doc(&info).json["reads"], 7);
    }
}
