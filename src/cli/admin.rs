//! Questions and orders to a node: each is sent as a `Command`. What its answer looks like is told by `documents`, and
//! by the modules of the larger commands.

mod documents;
mod lag;

pub use documents::{info_doc, map_doc, status_doc};
pub use lag::lags;

use super::args::Globals;
use super::args::admin::{Admin, Cluster, Member, Replica, Shard};
use super::args::load::Keys;
use super::caller::{Caller, other_answer};
use super::session::{self, Call};
use super::value::{Answered, Doc};
use super::{
    breakers, doctor, hot, latency, logs, monitor, oplog, runs, slowlog, stats, strategy, verify,
};
use crate::client::Client;
use crate::types::{Code, Error, NodeName, Result, limits};
use crate::wire::client::Role;
use crate::wire::command::{Answer, Command, Formation, Info, Status};
use serde_json::json;
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
            Ok(Answered::doc(documents::busy_doc(&status, &infos), Some(by)))
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
        Admin::Replica(Replica::Lag) => {
            Ok(Answered::doc(lags(client, node, call.left()).await?, None))
        }
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
        "nodes": documents::map_nodes(&map),
    });
    let rows = map
        .nodes
        .iter()
        .map(|n| vec![n.name.to_string(), documents::role(n.role).into(), n.addr.clone()]);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn members(texts: &[&str]) -> Vec<Member> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
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
}
