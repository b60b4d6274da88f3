//! `breaker list`, `open` and `close`: what nodes hold back from each other, and orders about it.
//!
//! Each node is asked for its own; those that did not answer are named.

use super::args::load::{Breaker, Force};
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::value::{Answered, Doc};
use crate::cluster::heard::clock_ms;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::breaker::{BreakerOrder, BreakerSeen, PeerBreaker};
use crate::wire::command::{Answer, Command};
use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long a node may take to say what it holds back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Whose breaker it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A node's.
    Peer,
    /// Of the client of this session.
    Client,
}

/// One breaker as it is shown.
struct Row {
    node: String,
    peer: String,
    kind: Kind,
    class: &'static str,
    seen: BreakerSeen,
}

/// Carries out one command.
pub async fn run<C: Caller>(caller: &C, verb: Breaker, call: &Call) -> Result<Answered> {
    match verb {
        Breaker::List => list(caller, call).await,
        Breaker::Open(force) => order(caller, force, true, call).await,
        Breaker::Close(force) => order(caller, force, false, call).await,
    }
}

async fn list<C: Caller>(caller: &C, call: &Call) -> Result<Answered> {
    let nodes = nodes(caller, call, |_| true).await?;
    let Asked { mut rows, silent } = ask(caller, Command::Breakers, nodes, call).await?;
    rows.extend(of_client(caller));
    Ok(Answered::doc(doc(&rows, &silent), None))
}

/// The exit code is 1 if a node did not take the order.
async fn order<C: Caller>(caller: &C, force: Force, open: bool, call: &Call) -> Result<Answered> {
    let Force { peer, class, time, .. } = force;
    let nodes = nodes(caller, call, |name| *name != peer).await?;
    let for_ms = time.as_millis() as u64;
    let command = Command::Breaker(BreakerOrder { peer, class, open, for_ms });
    let Asked { rows, silent } = ask(caller, command, nodes, call).await?;
    Ok(Answered { yes: silent.is_empty(), ..Answered::doc(doc(&rows, &silent), None) })
}

/// The node named, or all that are meant.
async fn nodes<C: Caller>(
    caller: &C,
    call: &Call,
    is_meant: impl Fn(&NodeName) -> bool,
) -> Result<Vec<NodeName>> {
    if let Some(node) = &call.globals.node {
        return Ok(vec![node.clone()]);
    }
    let map = caller.map().await?;
    Ok(map.nodes.iter().map(|node| node.name.clone()).filter(is_meant).collect())
}

/// What nodes answered.
struct Asked {
    rows: Vec<Row>,
    silent: Vec<NodeName>,
}

async fn ask<C: Caller>(
    caller: &C,
    command: Command,
    nodes: Vec<NodeName>,
    call: &Call,
) -> Result<Asked> {
    let timeout = call.left().min(ANSWER_TIMEOUT);
    let answers = join_all(nodes.into_iter().map(async |node| {
        let answer = caller.command(command.clone(), Some(&node), timeout).await;
        (node, answer)
    }));
    let mut asked = Asked { rows: vec![], silent: vec![] };
    let mut last = Error::new(Code::NotFound, "there is no node to ask");
    for (node, answer) in answers.await {
        match answer {
            Ok((Answer::Breakers(told), _)) => {
                asked.rows.extend(told.into_iter().map(|breaker| row(&node, breaker)));
            }
            Ok(_) => return Err(other_answer()),
            // Nothing is wrong with the node: the order is.
            Err(error) if error.class() == crate::types::Class::Fix => return Err(error),
            Err(error) => {
                asked.silent.push(node);
                last = error;
            }
        }
    }
    if asked.rows.is_empty() { Err(last) } else { Ok(asked) }
}

fn row(node: &NodeName, breaker: PeerBreaker) -> Row {
    Row {
        node: node.to_string(),
        peer: breaker.peer.to_string(),
        kind: Kind::Peer,
        class: breaker.class.name(),
        seen: breaker.seen,
    }
}

/// Those of this client that have seen a call.
fn of_client<C: Caller>(caller: &C) -> Vec<Row> {
    let now_ms = clock_ms();
    let used =
        caller.breakers().into_iter().filter(|b| b.seen.calls > 0 || b.seen.opened_total > 0);
    let row = |b: crate::client::NodeBreaker| Row {
        node: "client".into(),
        peer: b.node.to_string(),
        kind: Kind::Client,
        class: b.class.name(),
        seen: b.seen.at(now_ms),
    };
    used.map(row).collect()
}

fn doc(rows: &[Row], silent: &[NodeName]) -> Doc {
    let names: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    let json: Vec<Json> = rows.iter().map(json_of).collect();
    let notes = match names.is_empty() {
        true => vec![],
        false => vec![format!("no answer from {}", names.join(", "))],
    };
    Doc {
        json: json!({ "breakers": json, "no_answer": names }),
        header: vec!["BY", "TOWARDS", "CLASS", "STATE", "CALLS", "ERRORS", "SLOW", "OPENED", "WHY"],
        rows: rows.iter().map(cells).collect(),
        notes,
    }
}

fn json_of(row: &Row) -> Json {
    let seen = &row.seen;
    json!({
        "node": (row.kind == Kind::Peer).then_some(&row.node), "peer": row.peer,
        "kind": match row.kind { Kind::Peer => "peer", Kind::Client => "client" },
        "class": row.class, "state": seen.state.name(), "is_open": seen.is_open,
        "error_count": seen.error_count, "slow_request_count": seen.slow_request_count,
        "calls": seen.calls, "last_failure_time": seen.last_failure_time,
        "opened_total": seen.opened_total, "reason": seen.reason,
        "forced_until": seen.forced_until,
    })
}

fn cells(row: &Row) -> Vec<String> {
    let seen = &row.seen;
    let state = match seen.forced_until {
        Some(until_ms) => {
            let left_s = until_ms.saturating_sub(clock_ms()).div_ceil(1_000);
            let left = humantime::format_duration(Duration::from_secs(left_s));
            format!("{} for {left}", seen.state.name())
        }
        None => seen.state.name().to_owned(),
    };
    let [calls, errors, slow, opened] =
        [seen.calls, seen.error_count, seen.slow_request_count, seen.opened_total]
            .map(|number| number.to_string());
    let why = seen.reason.clone().unwrap_or_default();
    let (node, peer, class) = (row.node.clone(), row.peer.clone(), row.class.to_owned());
    vec![node, peer, class, state, calls, errors, slow, opened, why]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::breaker::{BreakerState, PeerClass};

    #[test]
    fn the_four_fields_have_their_names_and_a_forced_state_its_end() {
        let seen = BreakerSeen {
            state: BreakerState::Open,
            is_open: true,
            calls: 8,
            error_count: 5,
            slow_request_count: 1,
            last_failure_time: Some(1_700_000_000_123),
            opened_total: 2,
            reason: Some("5 of 8 calls failed".into()),
            forced_until: None,
        };
        let forced = BreakerSeen { forced_until: Some(clock_ms() + 90_500), ..seen.clone() };
        let (n1, n2, n3) = ("n1", "n2", "n3");
        let name = |name: &str| NodeName::new(name).unwrap();
        let [plain, forced] = [(n2, seen), (n3, forced)].map(|(peer, seen)| {
            row(&name(n1), PeerBreaker { peer: name(peer), class: PeerClass::Copy, seen })
        });
        let doc = doc(&[plain, forced], &[name("n4")]);
        let first = &doc.json["breakers"][0];
        assert_eq!((&first["error_count"], &first["slow_request_count"]), (&json!(5), &json!(1)));
        assert_eq!(first["last_failure_time"], json!(1_700_000_000_123_u64));
        assert_eq!((&first["is_open"], &first["state"]), (&json!(true), &json!("open")));
        assert_eq!(doc.json["no_answer"], json!(["n4"]));
        assert_eq!(doc.rows[0][3], "open");
        assert_eq!(doc.rows[1][3], "open for 1m 31s");
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }
}
