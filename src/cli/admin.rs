//! Questions and orders to a node: each is sent as a `Command`, and its answer becomes a document with a
//! table beside it.

use super::args::Globals;
use super::args::admin::{Admin, Cluster, Member, Replica, Shard};
use super::args::load::Keys;
use super::caller::{Caller, other_answer};
use super::session::{self, Call};
use super::strategy::document;
use super::value::{Answered, Doc};
use super::{
    breakers, doctor, hot, latency, logs, monitor, oplog, runs, slowlog, stats, strategy, verify,
};
use crate::client::Client;
use crate::cluster::heard::clock_ms;
use crate::types::units::show_bytes;
use crate::types::{Code, Error, NodeName, Result, limits};
use crate::wire::alarm::Alarm;
use crate::wire::client::{Map, Role};
use crate::wire::command::{Answer, Command, CopyLag, Formation, Info, SafetyInfo, Status};
use crate::wire::tally::{Direction, Tally};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a node may take to say what it has served.
const INFO_TIMEOUT: Duration = Duration::from_secs(1);

/// Carries out a command that needs nothing but a client.
pub async fn run<C: Caller>(client: &C, command: Admin, call: &Call) -> Result<Answered> {
    let node = call.globals.node.as_ref();
    match command {
        Admin::Status => {
            let (status, by) = status(client, node, call.left()).await?;
            Ok(Answered::doc(status_doc(&status), Some(by)))
        }
        Admin::Cluster(Cluster::Nodes) => {
            let (status, by) = status(client, node, call.left()).await?;
            let infos = infos(client, &status, call.left()).await;
            Ok(Answered::doc(busy_doc(&status, &infos), Some(by)))
        }
        Admin::Info { of } => {
            let (answer, by) =
                client.command(Command::Info, of.as_ref().or(node), call.left()).await?;
            let Answer::Info(info) = answer else { return Err(other_answer()) };
            Ok(Answered::doc(info_doc(&info), Some(by)))
        }
        Admin::Shard(Shard::Map) => Ok(Answered::doc(map_doc(&*client.map().await?), None)),
        Admin::Shard(Shard::Verify { shard }) => {
            let tell = |done, of| call.talk.progress(&format!("{done} of {of} shards compared"));
            let compared = verify::verify_telling(client, shard, call.deadline, tell).await;
            call.talk.ended();
            Ok(verify::answered(&compared?))
        }
        Admin::Strategy(verb) => strategy::run(client, verb, call).await,
        Admin::Op(question) => oplog::run(client, question, call).await,
        Admin::Runs(question) => runs::run(client, question, call).await,
        Admin::Logs(args) => logs::run(client, args, call).await,
        Admin::Stats(args) => stats::run(client, &args, call).await,
        Admin::Keys(Keys::Hot { limit }) => hot::run(client, limit.into(), call).await,
        Admin::Breaker(verb) => breakers::run(client, verb, call).await,
        Admin::SlowLog { limit } => slowlog::run(client, limit, call).await,
        Admin::Monitor(args) => monitor::run(client, args, call).await,
        Admin::Latency(args) => latency::run(client, &args, call).await,
        Admin::Doctor(args) => doctor::run(client, &args, call).await,
        Admin::Replica(Replica::Lag) => lag(client, node, call).await,
        Admin::Cluster(Cluster::Init { .. })
        | Admin::Connect { .. }
        | Admin::Top(_)
        | Admin::Keys(Keys::Big(_)) => Err(other_answer()),
    }
}

/// The whole cluster, as one node sees it.
pub async fn status<C: Caller>(
    client: &C,
    node: Option<&NodeName>,
    timeout: Duration,
) -> Result<(Status, NodeName)> {
    match client.command(Command::Status, node, timeout).await? {
        (Answer::Status(status), by) => Ok((status, by)),
        _ => Err(other_answer()),
    }
}

/// What each node that is up says of itself; one that does not answer is left out.
async fn infos<C: Caller>(client: &C, status: &Status, left: Duration) -> BTreeMap<NodeName, Info> {
    let timeout = left.min(INFO_TIMEOUT);
    let asked = status.nodes.iter().filter(|node| node.up).map(async |node| {
        match client.command(Command::Info, Some(&node.name), timeout).await {
            Ok((Answer::Info(info), _)) => Some((node.name.clone(), info)),
            _ => None,
        }
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Forms a cluster: connects to the first primary by name, which is the one that takes the order.
pub async fn init(members: &[Member], shards: u16, call: &Call) -> Result<Answered> {
    let first = check_members(members)?;
    let globals = Globals { endpoints: vec![first.addr.clone()], ..call.globals.clone() };
    let count = members.len();
    call.talk.progress(&format!("{} is asked to form a cluster of {count}", first.name));
    let formed = form(&globals, members, shards, call).await;
    call.talk.close_line();
    let (answer, by, cluster) = formed?;
    let Answer::Formed { map, created } = answer else { return Err(other_answer()) };
    let note = match created {
        true => format!("cluster {cluster} is formed, {} shards", map.shards.len()),
        false => format!("cluster {cluster} was formed before, with these members"),
    };
    let json = json!({
        "cluster": cluster, "created": created, "epoch": map.epoch, "shards": map.shards.len(),
        "nodes": map_nodes(&map),
    });
    let rows =
        map.nodes.iter().map(|n| vec![n.name.to_string(), role(n.role).into(), n.addr.clone()]);
    let doc = Doc {
        json,
        header: vec!["NODE", "ROLE", "ADDRESS"],
        rows: rows.collect(),
        notes: vec![note],
    };
    Ok(Answered::doc(doc, Some(by)))
}

async fn form(
    globals: &Globals,
    members: &[Member],
    shards: u16,
    call: &Call,
) -> Result<(Answer, NodeName, String)> {
    let (client, cluster) = session::open(globals, call).await?;
    let members = members.iter().map(|m| (m.name.clone(), m.role, m.addr.clone())).collect();
    let order = Command::ClusterInit(Formation { cluster: cluster.clone(), shards, members });
    let answer = client.command(order, None, call.left()).await;
    client.close().await;
    answer.map(|(answer, by)| (answer, by, cluster))
}

/// Refuses a formation that no cluster could have; answers its first primary by name.
fn check_members(members: &[Member]) -> Result<&Member> {
    let refuse = |message: String| Err(Error::new(Code::BadRequest, message));
    let of = |role: Role| members.iter().filter(move |member| member.role == role);
    let (primaries, replicas) = (of(Role::Primary).count(), of(Role::Replica).count());
    if !(1..=limits::PRIMARIES_MAX).contains(&primaries) || replicas > limits::REPLICAS_MAX {
        return refuse(format!(
            "a cluster has 1 to {} primaries and 0 to {} replicas, not {primaries} and {replicas}",
            limits::PRIMARIES_MAX,
            limits::REPLICAS_MAX
        ));
    }
    for (i, member) in members.iter().enumerate() {
        if members[..i].iter().any(|other| other.name == member.name || other.addr == member.addr) {
            return refuse(format!(
                "{} or its address {} is there twice",
                member.name, member.addr
            ));
        }
    }
    match of(Role::Primary).min_by(|a, b| a.name.cmp(&b.name)) {
        Some(first) => Ok(first),
        None => refuse("a cluster has a primary".into()),
    }
}

/// What `connect` answers.
pub async fn connected(
    client: &Client,
    cluster: &str,
    globals: &Globals,
    call: &Call,
) -> Result<Answered> {
    let (answer, by) = client.command(Command::Info, None, call.left()).await?;
    let Answer::Info(info) = answer else { return Err(other_answer()) };
    let json = json!({
        "cluster": cluster, "node": by.as_str(), "version": info.version, "ready": info.ready,
        "formed": info.node_id.is_some(), "endpoints": globals.endpoints(),
    });
    let state = match (info.node_id, info.ready) {
        (None, _) => "belongs to no cluster yet",
        (Some(_), false) => "not ready yet",
        (Some(_), true) => "ready",
    };
    let row = vec![by.to_string(), cluster.to_owned(), info.version, state.to_owned()];
    let header = vec!["NODE", "CLUSTER", "VERSION", "STATE"];
    Ok(Answered::doc(Doc { json, header, rows: vec![row], notes: Vec::new() }, Some(by)))
}

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
fn busy_doc(status: &Status, infos: &BTreeMap<NodeName, Info>) -> Doc {
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
    let uptime = humantime::format_duration(std::time::Duration::from_secs(info.uptime_s));
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

fn map_nodes(map: &Map) -> Vec<Json> {
    map.nodes
        .iter()
        .map(|n| json!({ "name": n.name.as_str(), "role": n.role, "addr": n.addr }))
        .collect()
}

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

/// Asks one node, or every member: a leader knows its followers only. Members that did not answer are
/// named, not left out.
async fn lag<C: Caller>(client: &C, node: Option<&NodeName>, call: &Call) -> Result<Answered> {
    Ok(Answered::doc(lags(client, node, call.left()).await?, None))
}

/// How far each copy is behind, as one node or all of them know it.
pub async fn lags<C: Caller>(
    client: &C,
    node: Option<&NodeName>,
    timeout: Duration,
) -> Result<Doc> {
    let asked: Vec<NodeName> = match node {
        Some(node) => vec![node.clone()],
        None => client.map().await?.nodes.iter().map(|n| n.name.clone()).collect(),
    };
    let ask = |node: NodeName| async move {
        (client.command(Command::ReplicaLag, Some(&node), timeout).await, node)
    };
    let answers = futures_util::future::join_all(asked.into_iter().map(ask)).await;
    let (mut copies, mut silent, mut last) = (Vec::new(), Vec::new(), None);
    for (answer, node) in answers {
        match answer {
            Ok((Answer::ReplicaLag(rows), _)) => copies.extend(rows),
            Ok(_) => return Err(other_answer()),
            Err(error) => {
                silent.push(node);
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if copies.is_empty() => Err(error),
        _ => Ok(lag_doc(&best_of(copies), &silent)),
    }
}

/// Several nodes may tell about one copy: what its leader says counts, because only a leader knows what
/// the copy has acknowledged.
fn best_of(copies: Vec<CopyLag>) -> Vec<CopyLag> {
    let mut best: BTreeMap<(u16, NodeName), CopyLag> = BTreeMap::new();
    let rank = |copy: &CopyLag| (copy.matched.is_some(), copy.leader_index);
    for copy in copies {
        let key = (copy.shard.0, copy.node.clone());
        match best.get(&key) {
            Some(known) if rank(known) >= rank(&copy) => {}
            _ => drop(best.insert(key, copy)),
        }
    }
    best.into_values().collect()
}

fn lag_doc(copies: &[CopyLag], silent: &[NodeName]) -> Doc {
    let behind =
        |copy: &CopyLag| copy.matched.map(|matched| copy.leader_index.saturating_sub(matched));
    let rows = copies.iter().map(|c| {
        let lag = behind(c).map_or("?".to_owned(), |lag| lag.to_string());
        let matched = c.matched.map_or("?".to_owned(), |matched| matched.to_string());
        vec![
            c.shard.to_string(),
            c.node.to_string(),
            c.state.clone(),
            c.leader_index.to_string(),
            matched,
            lag,
        ]
    });
    let rows = rows.collect();
    let json_copies: Vec<Json> = copies
        .iter()
        .map(|c| {
            json!({
                "shard": c.shard.0, "node": c.node.as_str(), "state": c.state,
                "leader_index": c.leader_index, "matched": c.matched, "behind": behind(c),
            })
        })
        .collect();
    let names: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    let json = json!({ "copies": json_copies, "no_answer": names });
    let notes = if names.is_empty() {
        Vec::new()
    } else {
        vec![format!("no answer from {}", names.join(", "))]
    };
    let header = vec!["SHARD", "NODE", "STATE", "LEADER", "MATCHED", "BEHIND"];
    Doc { json, header, rows, notes }
}

fn role(role: Role) -> &'static str {
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

    fn members(texts: &[&str]) -> Vec<Member> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

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
    fn the_first_primary_by_name_takes_the_order() {
        let four =
            members(&["n3=primary@h:3", "a=replica@h:4", "n1=primary@h:1", "n2=primary@h:2"]);
        assert_eq!(check_members(&four).unwrap().addr, "h:1");
        for bad in [
            vec!["r1=replica@h:1"],
            vec!["n1=primary@h:1", "n1=primary@h:2"],
            vec!["n1=primary@h:1", "n2=primary@h:1"],
            vec!["n1=primary@h:1", "a=replica@h:2", "b=replica@h:3", "c=replica@h:4"],
        ] {
            assert_eq!(
                check_members(&members(&bad)).unwrap_err().code,
                Code::BadRequest,
                "{bad:?}"
            );
        }
    }

    fn copy(node: &str, leader_index: u64, matched: Option<u64>) -> CopyLag {
        let node = NodeName::new(node).unwrap();
        CopyLag { shard: ShardId(1), node, state: "voter".into(), leader_index, matched }
    }

    #[test]
    fn what_the_leader_says_about_a_copy_counts() {
        let told = vec![copy("r1", 90, None), copy("r1", 80, Some(75)), copy("n1", 80, Some(80))];
        let best = best_of(told);
        assert_eq!(best, vec![copy("n1", 80, Some(80)), copy("r1", 80, Some(75))]);
        let doc = lag_doc(&best, &[NodeName::new("n2").unwrap()]);
        assert_eq!(doc.json["copies"][1]["behind"], 5);
        assert_eq!(doc.json["no_answer"], json!(["n2"]));
        assert_eq!(lag_doc(&[copy("n1", 3, None)], &[]).json["copies"][0]["behind"], Json::Null);
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
