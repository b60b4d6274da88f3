//! Reads everything back, from the leaders and from every copy, and compares what the copies store.

use super::ledger::{self, Entry, Verdict};
use crate::cli::verify::{self, Verdict as Copy};
use crate::client::{CallOptions, Client, Level, OpAnswer};
use crate::types::{NodeName, Op, OpResult, Result, slots};
use crate::wire::client::Map;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys in one call.
const CHUNK: usize = 200;
/// Keys in one call where the nodes that answer are counted: each call chooses anew.
const ANYWHERE_CHUNK: usize = 20;
/// Calls at a time.
const CALLS: usize = 8;
/// The whole time of one call; a copy may have to catch up.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Times that a chunk is asked for again.
const ATTEMPTS: usize = 3;
/// Pause before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// What reading back has shown. Only the first few sentences are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Values read.
    pub reads: u64,
    /// Acknowledged writes that were not there.
    pub lost: u64,
    /// Values that were there and never took effect.
    pub phantoms: u64,
    /// Keys that could not be read.
    pub unreadable: u64,
    /// What was found, for people.
    pub examples: Vec<String>,
}

/// Sentences kept.
const EXAMPLES_MAX: usize = 5;

impl Findings {
    /// True if everything acknowledged was there and nothing else.
    pub fn held(&self) -> bool {
        self.lost == 0 && self.phantoms == 0 && self.unreadable == 0
    }

    /// Adds what another part has shown.
    pub fn add(&mut self, other: Findings) {
        self.reads += other.reads;
        self.lost += other.lost;
        self.phantoms += other.phantoms;
        self.unreadable += other.unreadable;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES_MAX);
    }

    fn note(&mut self, text: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text);
        }
    }
}

/// Reads every key in real-time order.
pub async fn linearizable(client: &Client, entries: &[(u32, Entry)]) -> Findings {
    let options = CallOptions {
        level: Some(Level::Linearizable),
        timeout: CALL_TIMEOUT,
        ..CallOptions::default()
    };
    let all: Vec<&(u32, Entry)> = entries.iter().collect();
    read(client, &all, &options).await
}

/// Reads keys as a client does that does not care which copy answers; says how many each node answered.
pub async fn anywhere(client: &Client, keys: u32) -> Result<BTreeMap<NodeName, u64>> {
    let options = CallOptions {
        level: Some(Level::Session),
        timeout: CALL_TIMEOUT,
        ..CallOptions::default()
    };
    let mut by_node = BTreeMap::new();
    let all: Vec<u32> = (0..keys).collect();
    let chunks = all.chunks(ANYWHERE_CHUNK).map(|chunk| {
        let ops = chunk.iter().map(|key| Op::Get { key: ledger::key(*key).into() });
        client.call(ops.collect(), &options)
    });
    let mut chunks = stream::iter(chunks).buffer_unordered(CALLS);
    while let Some(answers) = chunks.next().await {
        for answer in answers {
            *by_node.entry(answer?.served_by).or_insert(0) += 1;
        }
    }
    Ok(by_node)
}

/// Reads every key from every copy that should hold it, at least as new as all we have seen.
pub async fn copies(client: &Client, entries: &[(u32, Entry)], map: &Map) -> Findings {
    let mut by_node: BTreeMap<&NodeName, Vec<&(u32, Entry)>> = BTreeMap::new();
    for entry in entries {
        let shard = slots::shard_of(ledger::key(entry.0).as_bytes(), map.shards.len() as u16);
        for copy in map.shards.iter().filter(|s| s.id == shard).flat_map(|s| &s.copies) {
            by_node.entry(copy).or_default().push(entry);
        }
    }
    let mut findings = Findings::default();
    for (node, held) in by_node {
        let options = CallOptions {
            level: Some(Level::Session),
            node: Some(node.clone()),
            timeout: CALL_TIMEOUT,
            ..CallOptions::default()
        };
        findings.add(read(client, &held, &options).await);
    }
    findings
}

async fn read(client: &Client, entries: &[&(u32, Entry)], options: &CallOptions) -> Findings {
    let chunks =
        stream::iter(entries.chunks(CHUNK)).map(|chunk| read_chunk(client, chunk, options));
    let mut chunks = chunks.buffer_unordered(CALLS);
    let mut findings = Findings::default();
    while let Some(found) = chunks.next().await {
        findings.add(found);
    }
    findings
}

async fn read_chunk(client: &Client, chunk: &[&(u32, Entry)], options: &CallOptions) -> Findings {
    let mut findings = Findings::default();
    let mut open: Vec<&(u32, Entry)> = chunk.to_vec();
    for attempt in 1..=ATTEMPTS {
        let ops = open.iter().map(|(key, _)| Op::Get { key: ledger::key(*key).into() }).collect();
        let answers = client.call(ops, options).await;
        let mut again = Vec::new();
        for (entry, answer) in open.into_iter().zip(answers) {
            match answer {
                Ok(answer) => judge(&mut findings, entry, &answer, options),
                Err(_) if attempt < ATTEMPTS => again.push(entry),
                Err(error) => {
                    findings.unreadable += 1;
                    findings.note(format!("{}: {error}", ledger::key(entry.0)));
                }
            }
        }
        open = again;
        if open.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    findings
}

fn judge(
    findings: &mut Findings,
    (key, entry): &(u32, Entry),
    answer: &OpAnswer,
    options: &CallOptions,
) {
    findings.reads += 1;
    let name = ledger::key(*key);
    if options.node.as_ref().is_some_and(|node| *node != answer.served_by) {
        // The copy that was asked for was not looked at, so nothing is known of it.
        findings.unreadable += 1;
        findings.note(format!("{name}: answered by {}", answer.served_by));
        return;
    }
    let read = match &answer.result {
        OpResult::Value(bytes) => Some(&bytes[..]),
        _ => None,
    };
    let by = &answer.served_by;
    match entry.judge(*key, read) {
        Verdict::Held => {}
        Verdict::Lost => {
            findings.lost += 1;
            findings.note(format!("{name}: an acknowledged write is not on {by}"));
        }
        Verdict::Phantom => {
            findings.phantoms += 1;
            findings.note(format!("{name}: {by} has a value that never took effect"));
        }
    }
}

/// True if all copies of every shard store the same, each by its own digest at one log index. Says for
/// which shard it could not be told.
pub async fn digests_equal(client: &Client, within: Duration) -> Result<bool, String> {
    let compared = verify::verify(client, None, Instant::now() + within).await;
    let compared = compared.map_err(|error| error.to_string())?;
    let mut equal = true;
    for one in &compared {
        let shard = one.shard;
        one.own.as_ref().map_err(|error| format!("{shard}: {error}"))?;
        for (copy, verdict) in &one.others {
            match verdict {
                Copy::Silent(error) => return Err(format!("{shard} on {copy}: {error}")),
                verdict => equal &= *verdict == Copy::Equal,
            }
        }
    }
    Ok(equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, ShardId, Token};

    fn answer(by: &str, result: OpResult) -> OpAnswer {
        let token = Token { shard: ShardId(0), incarnation: Incarnation(1), index: 1 };
        OpAnswer { result, token, served_by: NodeName::new(by).unwrap(), age_ms: None }
    }

    #[test]
    fn a_read_counts_for_the_copy_that_was_asked_only() {
        let mut entry = Entry::default();
        let number = entry.next();
        entry.acked(number);
        let options =
            CallOptions { node: Some(NodeName::new("r1").unwrap()), ..CallOptions::default() };
        let value = || OpResult::Value(ledger::value(3, 1).into());
        let judged = |by: &str, result| {
            let mut findings = Findings::default();
            judge(&mut findings, &(3, entry.clone()), &answer(by, result), &options);
            findings
        };
        assert!(judged("r1", value()).held());
        assert_eq!(judged("n1", value()).unreadable, 1);
        assert_eq!(judged("r1", OpResult::Nil).lost, 1);
        assert_eq!(judged("r1", OpResult::Value(ledger::value(3, 2).into())).phantoms, 1);
    }
}
