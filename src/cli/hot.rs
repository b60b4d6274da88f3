//! `keys hot`: the keys that the cluster is asked for most, put together from what each node has sampled.
//!
//! The rates are estimates: of a key with n sampled operations, give or take their square root.

use super::caller::{Caller, other_answer};
use super::output::escape;
use super::session::Call;
use super::value::{Answered, Doc, named_bytes};
use crate::types::{NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::load::{HOT_KEYS_MAX, HotKeys};
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A key, over all nodes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Hot {
    shard: u16,
    ops_per_s: f64,
    /// What `ops_per_s` is surely not lower than, but for the luck of the sample.
    at_least_ops_per_s: f64,
    writes_per_s: f64,
    /// Operations a second by node.
    nodes: BTreeMap<NodeName, f64>,
}

/// Asks every node, or the one that `--node` names.
pub async fn run<C: Caller>(caller: &C, limit: usize, call: &Call) -> Result<Answered> {
    let nodes = match &call.globals.node {
        Some(node) => vec![node.clone()],
        None => caller.map().await?.nodes.iter().map(|node| node.name.clone()).collect(),
    };
    let timeout = call.left().min(ANSWER_TIMEOUT);
    // All that each has: what is tenth on every node may be first on all of them.
    let command = Command::HotKeys { limit: HOT_KEYS_MAX as u32 };
    let answers = join_all(
        nodes.iter().map(async |node| caller.command(command.clone(), Some(node), timeout).await),
    );
    let (mut told, mut silent, mut last) = (vec![], vec![], None);
    for (answer, node) in answers.await.into_iter().zip(&nodes) {
        match answer {
            Ok((Answer::HotKeys(keys), _)) => told.push(keys),
            Ok(_) => return Err(other_answer()),
            Err(error) => {
                silent.push(node.clone());
                last = Some(error);
            }
        }
    }
    match last {
        Some(error) if told.is_empty() => Err(error),
        _ => Ok(Answered::doc(doc(&told, &silent, limit), None)),
    }
}

/// Operations a second that so many sampled ones stand for.
fn rate(of: &HotKeys, sampled: u64) -> f64 {
    sampled as f64 * f64::from(of.one_in) * 1_000.0 / of.window_ms.max(1) as f64
}

/// The hottest first.
fn merged(told: &[HotKeys]) -> Vec<(Bytes, Hot)> {
    let mut all: BTreeMap<Bytes, Hot> = BTreeMap::new();
    for of in told {
        for key in &of.keys {
            let hot = all.entry(key.key.clone()).or_default();
            let known = key.count.saturating_sub(key.error);
            let ops_per_s = rate(of, key.count);
            hot.shard = key.shard.0;
            hot.ops_per_s += ops_per_s;
            hot.at_least_ops_per_s += rate(of, known);
            // What took the place of another key is known in part; the rest is taken to be alike.
            hot.writes_per_s += ops_per_s * key.writes as f64 / known.max(1) as f64;
            *hot.nodes.entry(of.node.clone()).or_default() += ops_per_s;
        }
    }
    let mut all: Vec<(Bytes, Hot)> = all.into_iter().collect();
    all.sort_by(|(_, a), (_, b)| b.ops_per_s.total_cmp(&a.ops_per_s));
    all
}

fn doc(told: &[HotKeys], silent: &[NodeName], limit: usize) -> Doc {
    let all_per_s: f64 = told.iter().map(|of| rate(of, of.sampled)).sum();
    let mut hottest = merged(told);
    hottest.truncate(limit);
    let share = |hot: &Hot| if all_per_s > 0.0 { hot.ops_per_s / all_per_s } else { 0.0 };
    let names: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    let keys: Vec<Json> = hottest.iter().map(|(key, hot)| key_json(key, hot, share(hot))).collect();
    let rows = hottest.iter().map(|(key, hot)| {
        let numbers = [hot.ops_per_s, hot.at_least_ops_per_s].map(|rate| format!("{rate:.0}"));
        let mut row = vec![escape(key), format!("s{}", hot.shard)];
        row.extend(numbers);
        row.extend([
            format!("{:.1} %", share(hot) * 100.0),
            kind(hot).into(),
            nodes(hot).join(" "),
        ]);
        row
    });
    let mut notes = vec![format!(
        "{all_per_s:.0} operations a second in all, estimated from {} that were sampled",
        told.iter().map(|of| of.sampled).sum::<u64>()
    )];
    if !names.is_empty() {
        notes.push(format!("no answer from {}", names.join(", ")));
    }
    let json = json!({
        "keys": keys, "ops_per_s": all_per_s.round(), "no_answer": names,
        "sampled": told.iter().map(|of| of.sampled).sum::<u64>(),
    });
    let header = vec!["KEY", "SHARD", "OPS/S", "AT LEAST", "SHARE", "MOSTLY", "NODES"];
    Doc { json, header, rows: rows.collect(), notes }
}

fn key_json(key: &Bytes, hot: &Hot, share: f64) -> Json {
    let mut object = Map::new();
    named_bytes(&mut object, "key", key);
    let reads_per_s = (hot.ops_per_s - hot.writes_per_s).max(0.0);
    let more = json!({
        "shard": hot.shard, "ops_per_s": hot.ops_per_s.round(),
        "at_least_ops_per_s": hot.at_least_ops_per_s.round(),
        "share": (share * 1_000.0).round() / 1_000.0, "mostly": kind(hot),
        "reads_per_s": reads_per_s.round(), "writes_per_s": hot.writes_per_s.round(),
        "nodes": nodes(hot),
    });
    if let Json::Object(more) = more {
        object.extend(more);
    }
    Json::Object(object)
}

fn kind(hot: &Hot) -> &'static str {
    if hot.writes_per_s * 2.0 > hot.ops_per_s { "writes" } else { "reads" }
}

/// The one that is asked most first.
fn nodes(hot: &Hot) -> Vec<&str> {
    let mut nodes: Vec<(&NodeName, f64)> = hot.nodes.iter().map(|(n, rate)| (n, *rate)).collect();
    nodes.sort_by(|a, b| b.1.total_cmp(&a.1));
    nodes.into_iter().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;
    use crate::wire::load::HotKey;

    fn told(node: &str, keys: &[(&'static [u8], u64, u64, u64)]) -> HotKeys {
        let key = |(key, count, error, writes): &(&'static [u8], u64, u64, u64)| HotKey {
            key: Bytes::from_static(key),
            shard: ShardId(3),
            count: *count,
            error: *error,
            writes: *writes,
        };
        HotKeys {
            node: NodeName::new(node).unwrap(),
            window_ms: 10_000,
            one_in: 64,
            sampled: 1_000,
            keys: keys.iter().map(key).collect(),
        }
    }

    #[test]
    fn what_is_second_on_every_node_may_be_first_on_all() {
        let n1 = told("n1", &[(b"a", 300, 0, 0), (b"both", 200, 0, 0)]);
        let n2 = told("n2", &[(b"\xff", 310, 10, 300), (b"both", 250, 0, 0)]);
        let doc = doc(&[n1, n2], &[NodeName::new("n3").unwrap()], 3);
        let keys = &doc.json["keys"];
        assert_eq!((&keys[0]["key"], &keys[0]["ops_per_s"]), (&json!("both"), &json!(2_880.0)));
        assert_eq!(keys[0]["nodes"], json!(["n2", "n1"]));
        assert_eq!((&keys[0]["share"], &keys[0]["mostly"]), (&json!(0.225), &json!("reads")));
        assert_eq!((&keys[1]["key_b64"], &keys[1]["mostly"]), (&json!("/w=="), &json!("writes")));
        assert_eq!(keys[1]["ops_per_s"], 1_984.0);
        assert_eq!(
            (&keys[1]["at_least_ops_per_s"], &keys[1]["reads_per_s"]),
            (&json!(1_920.0), &json!(0.0))
        );
        assert_eq!(
            (&doc.json["ops_per_s"], &doc.json["no_answer"]),
            (&json!(12_800.0), &json!(["n3"]))
        );
        assert_eq!(doc.rows[1][0], "\\xff");
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }

    #[test]
    fn nothing_sampled_is_an_answer() {
        let nothing = HotKeys { window_ms: 0, sampled: 0, ..told("n1", &[]) };
        let doc = doc(&[nothing], &[], 10);
        assert_eq!((&doc.json["keys"], &doc.json["ops_per_s"]), (&json!([]), &json!(0.0)));
    }
}
