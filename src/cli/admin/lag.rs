//! `replica lag`: how far each copy is behind, as one node or all of them know it.

use crate::cli::caller::{Caller, other_answer};
use crate::cli::value::Doc;
use crate::types::{NodeName, Result};
use crate::wire::command::{Answer, Command, CopyLag};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Asks one node, or every member: a leader knows its followers only. Members that did not answer are
/// named, not left out.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;

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
}
