//! `replicas.verify(#{ sample: 100, prefix: "cart:" })`: reads of a sample of keys, at every node that holds a copy.
//!
//! A digest says whether copies store the same at one index; a sample, whether what clients are given is the same. A
//! key that is being written is read again; what differs then is told by name.

use super::bridge::{Bridge, refused};
use super::convert::to_script;
use super::failure::Answer;
use crate::cli::caller::Caller;
use crate::client::{CallOptions, Level, ScanOptions};
use crate::types::{NodeName, Op, OpResult, Result, limits, slots};
use crate::wire::client::Map as ClusterMap;
use bytes::Bytes;
use rhai::Map;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Keys that are read unless told otherwise.
const SAMPLE_DEFAULT: i64 = 100;
/// How often a key is read before it counts as different.
const TRIES: u32 = 4;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a node may take to answer for its keys.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Differences that are named; the rest is counted.
const NAMED_MAX: usize = 20;

/// Keys that each node has to answer for.
type Asked = BTreeMap<NodeName, BTreeSet<Bytes>>;

/// Reads the sample and compares.
pub fn verify<C: Caller>(b: &Bridge<C>, mut options: Map) -> Answer {
    let sample = match options.remove("sample") {
        None => SAMPLE_DEFAULT,
        Some(number) => number.as_int().map_err(|_| refused("`sample` is a number of keys"))?,
    };
    let prefix = match options.remove("prefix") {
        None => String::new(),
        Some(text) => text.into_string().map_err(|_| refused("`prefix` is a text"))?,
    };
    let most = limits::SCAN_PAGE_MAX as i64;
    if let Some(odd) = options.keys().next() {
        return Err(refused(format!("`{odd}` is no option: sample, prefix")));
    }
    if !(1..=most).contains(&sample) {
        return Err(refused(format!("a sample has 1 to {most} keys, not {sample}")));
    }
    b.wait(compare(b, sample as u32, prefix.into()))
}

async fn compare<C: Caller>(b: &Bridge<C>, limit: u32, prefix: Bytes) -> Result<rhai::Dynamic> {
    let options = CallOptions { timeout: b.request_timeout(), ..CallOptions::default() };
    let scan = ScanOptions { prefix, limit, keys_only: true, ..ScanOptions::default() };
    let page = b.caller.scan(&scan, &options).await?;
    let keys: BTreeSet<Bytes> = page.entries.into_iter().map(|(key, _)| key).collect();
    let map = b.caller.map().await?;
    let (mut left, mut reads) = (asked(&map, &keys), 0);
    let mut silent = BTreeMap::new();
    for tries_left in (0..TRIES).rev() {
        (reads, left) = (
            reads + left.values().map(BTreeSet::len).sum::<usize>(),
            look(b, left, &mut silent).await?,
        );
        if left.is_empty() || tries_left == 0 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let differing: Vec<(&NodeName, &Bytes)> =
        left.iter().flat_map(|(node, keys)| keys.iter().map(move |key| (node, key))).collect();
    let named = differing
        .iter()
        .take(NAMED_MAX)
        .map(|(node, key)| json!({ "node": node.as_str(), "key": String::from_utf8_lossy(key) }));
    let named: Vec<_> = named.collect();
    let silent: Vec<_> = silent
        .iter()
        .map(|(node, why): (&NodeName, &String)| json!({ "node": node.as_str(), "error": why }))
        .collect();
    Ok(to_script(&json!({
        "keys": keys.len(), "reads": reads, "equal": differing.is_empty() && silent.is_empty(),
        "differing": differing.len(), "named": named, "silent": silent,
    })))
}

/// Every node that holds a copy of a key.
fn asked(map: &ClusterMap, keys: &BTreeSet<Bytes>) -> Asked {
    let mut asked = Asked::new();
    for key in keys {
        let shard = slots::shard_of(key, map.shards.len() as u16);
        let copies = map.shards.iter().filter(|s| s.id == shard).flat_map(|s| &s.copies);
        for node in copies {
            asked.entry(node.clone()).or_default().insert(key.clone());
        }
    }
    asked
}

/// One round: what a node answers otherwise than the leader of the shard. One that does not answer is not asked again.
async fn look<C: Caller>(
    b: &Bridge<C>,
    asked: Asked,
    silent: &mut BTreeMap<NodeName, String>,
) -> Result<Asked> {
    let keys: BTreeSet<Bytes> = asked.values().flatten().cloned().collect();
    let keys: Vec<Bytes> = keys.into_iter().collect();
    let truth = read(b, &keys, None).await;
    let truth: BTreeMap<&Bytes, Result<OpResult>> = keys.iter().zip(truth).collect();
    let mut left = Asked::new();
    for (node, keys) in asked {
        let keys: Vec<Bytes> = keys.into_iter().collect();
        let told = read(b, &keys, Some(node.clone())).await;
        for (key, told) in keys.into_iter().zip(told) {
            match (truth.get(&key), told) {
                (Some(Ok(true_one)), Ok(told)) if *true_one == told => {}
                (Some(Err(error)), _) => return Err(error.clone()),
                (_, Err(error)) => {
                    silent.insert(node.clone(), error.to_string());
                }
                _ => {
                    left.entry(node.clone()).or_default().insert(key);
                }
            }
        }
    }
    Ok(left)
}

/// Reads keys where the cluster is up to date, or at one node as it has them.
async fn read<C: Caller>(
    b: &Bridge<C>,
    keys: &[Bytes],
    node: Option<NodeName>,
) -> Vec<Result<OpResult>> {
    let level = match node {
        Some(_) => Level::Local { max_staleness_ms: None },
        None => Level::Linearizable,
    };
    let timeout = b.request_timeout().min(READ_TIMEOUT);
    let options = CallOptions { timeout, level: Some(level), node, ..CallOptions::default() };
    let ops = keys.iter().map(|key| Op::Get { key: key.clone() }).collect();
    let answers = b.caller.call(ops, &options).await;
    answers.into_iter().map(|answer| answer.map(|answer| answer.result)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{Twin, name};

    #[tokio::test]
    async fn every_holder_of_a_copy_answers_for_its_keys() {
        let map = Twin::new().map().await.unwrap();
        let keys: BTreeSet<Bytes> = (0..9).map(|i| Bytes::from(format!("k{i}"))).collect();
        let asked = asked(&map, &keys);
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[&name("n2")], keys);
    }
}
