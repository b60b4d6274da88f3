//! `shard verify`: does every copy of a shard store the same, by its own digest at one log index?
//!
//! The leader proposes a digest entry and answers for it; every other copy that the map lists is asked for
//! the same entry. A copy that is behind gets time to arrive there; if one was restarted or sent as a table just
//! then, so that it will never have that digest, they are all asked for another one. Nothing is repaired here.

use super::caller::{Caller, other_answer};
use super::value::{Answered, Doc};
use crate::types::{Class, Code, Error, NodeName, Result, ShardId};
use crate::wire::client::MapShard;
use crate::wire::command::{Answer, Command, CopyDigest};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// How long all digests may take unless `--timeout` on the same line says otherwise.
pub const VERIFY_DEFAULT: Duration = Duration::from_secs(120);
/// Shards at a time: a digest reads a whole copy.
const SHARDS_AT_A_TIME: usize = 3;
/// One request waits this long for its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// Digest entries proposed for one shard before a copy without one counts as silent.
const ENTRIES_MAX: usize = 5;
/// Between two requests for the same digest.
const PAUSE: Duration = Duration::from_millis(100);

/// What a copy answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The same as the leader's.
    Equal,
    /// Something else.
    Differs(CopyDigest),
    /// It could not tell.
    Silent(Error),
}

/// A shard and what its copies said.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The shard.
    pub shard: ShardId,
    /// The leader's digest, or why there is none.
    pub own: Result<CopyDigest>,
    /// The other copies of the map.
    pub others: Vec<(NodeName, Verdict)>,
}

impl Compared {
    /// True if every copy that the map lists was heard and stores the same.
    pub fn equal(&self) -> bool {
        self.own.is_ok() && self.others.iter().all(|(_, verdict)| *verdict == Verdict::Equal)
    }
}

/// Compares the copies of one shard, or of all.
pub async fn verify<C: Caller>(
    caller: &C,
    only: Option<ShardId>,
    until: Instant,
) -> Result<Vec<Compared>> {
    verify_telling(caller, only, until, |_, _| {}).await
}

/// The same; says how many of how many shards are compared.
pub async fn verify_telling<C: Caller>(
    caller: &C,
    only: Option<ShardId>,
    until: Instant,
    tell: impl Fn(usize, usize),
) -> Result<Vec<Compared>> {
    let map = caller.map().await?;
    let wanted = map.shards.iter().filter(|shard| only.is_none_or(|only| shard.id == only));
    let shards: Vec<&MapShard> = wanted.collect();
    if shards.is_empty() {
        let what = only.map_or("the map names no shard".to_owned(), |s| format!("there is no {s}"));
        return Err(Error::new(Code::NotFound, what));
    }
    let total = shards.len();
    tell(0, total);
    let compared = stream::iter(shards).map(|shard| compare(caller, shard, until));
    let counted = compared.buffered(SHARDS_AT_A_TIME).enumerate();
    Ok(counted.map(|(at, one)| (tell(at + 1, total), one).1).collect().await)
}

async fn compare<C: Caller>(caller: &C, shard: &MapShard, until: Instant) -> Compared {
    let mut compared = compare_once(caller, shard, until).await;
    for _ in 1..ENTRIES_MAX {
        let missed =
            |verdict: &Verdict| matches!(verdict, Verdict::Silent(e) if e.code == Code::NotFound);
        if !compared.others.iter().any(|(_, verdict)| missed(verdict)) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        compared = compare_once(caller, shard, until).await;
    }
    compared
}

/// At one log index.
async fn compare_once<C: Caller>(caller: &C, shard: &MapShard, until: Instant) -> Compared {
    let propose = Command::Digest { shard: shard.id, at: None };
    let own = match ask(caller, propose, &shard.owner, true, until).await {
        Ok(own) => own,
        Err(error) => return Compared { shard: shard.id, own: Err(error), others: Vec::new() },
    };
    let others = shard.copies.iter().filter(|copy| **copy != own.node).map(|copy| {
        let own = &own;
        async move {
            let order = Command::Digest { shard: shard.id, at: Some(own.index) };
            let verdict = match ask(caller, order, copy, false, until).await {
                Ok(theirs) if same(own, &theirs) => Verdict::Equal,
                Ok(theirs) => Verdict::Differs(theirs),
                Err(error) => Verdict::Silent(error),
            };
            (copy.clone(), verdict)
        }
    });
    let others = join_all(others).await;
    Compared { shard: shard.id, own: Ok(own), others }
}

/// The same content at the same point of the same lineage.
fn same(a: &CopyDigest, b: &CopyDigest) -> bool {
    let of = |d: &CopyDigest| (d.shard, d.incarnation, d.index, d.keys, d.sha256.clone());
    of(a) == of(b)
}

/// Asks a node until it answers; `moves` follows hints to another one.
async fn ask<C: Caller>(
    caller: &C,
    command: Command,
    node: &NodeName,
    moves: bool,
    until: Instant,
) -> Result<CopyDigest> {
    let (mut command, mut node, mut moves) = (command, node.clone(), moves);
    loop {
        let left = until.saturating_duration_since(Instant::now()).min(ASK_TIMEOUT);
        let left = left.max(Duration::from_millis(1));
        let error = match caller.command(command.clone(), Some(&node), left).await {
            Ok((Answer::Digest(digest), _)) => return Ok(digest),
            Ok((Answer::DigestBegun { node: at_node, index }, _)) => {
                // It takes long: from here on that entry is asked for, where it was made.
                if let Command::Digest { at, .. } = &mut command {
                    *at = Some(index);
                }
                (node, moves) = (at_node, false);
                Error::new(Code::NotYet, format!("{node} has not finished its digest"))
            }
            Ok(_) => other_answer(),
            Err(error) => error,
        };
        // A digest changes no data, so a lost answer may be asked for again.
        let again = matches!(error.class(), Class::Retry | Class::Uncertain);
        if !again || Instant::now() + PAUSE >= until {
            return Err(error);
        }
        if let (true, Some(hint)) = (moves, &error.hint) {
            node = hint.clone();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the command answers: no unless all copies are equal.
pub fn answered(compared: &[Compared]) -> Answered {
    let yes = compared.iter().all(Compared::equal);
    Answered { yes, ..Answered::doc(doc(compared), None) }
}

/// The document.
pub fn doc(compared: &[Compared]) -> Doc {
    let verdicts = || compared.iter().flat_map(|c| c.others.iter().map(|(_, verdict)| verdict));
    let differing = verdicts().filter(|verdict| matches!(verdict, Verdict::Differs(_))).count();
    let silent = verdicts().filter(|verdict| matches!(verdict, Verdict::Silent(_))).count()
        + compared.iter().filter(|c| c.own.is_err()).count();
    let copies = verdicts().count() + compared.iter().filter(|c| c.own.is_ok()).count();
    let equal = compared.iter().all(Compared::equal);
    let json = json!({
        "equal": equal, "copies": copies, "differing": differing, "silent": silent,
        "shards": compared.iter().map(shard_json).collect::<Vec<_>>(),
    });
    let note = match equal {
        true => format!("{copies} copies of {} shards: all equal", compared.len()),
        false => format!(
            "{copies} copies of {} shards: {differing} differ, {silent} could not be compared",
            compared.len()
        ),
    };
    Doc {
        json,
        header: vec!["SHARD", "NODE", "STATE", "INDEX", "KEYS", "SHA256"],
        rows: compared.iter().flat_map(rows).collect(),
        notes: vec![note],
    }
}

fn shard_json(compared: &Compared) -> Json {
    let own = compared.own.as_ref();
    let leader = own.map(|own| copy_json(&own.node, "leader", Some(own), None));
    let others = compared.others.iter().map(|(node, verdict)| match verdict {
        Verdict::Equal => copy_json(node, "equal", own.ok(), None),
        Verdict::Differs(theirs) => copy_json(node, "differs", Some(theirs), None),
        Verdict::Silent(error) => copy_json(node, "silent", None, Some(error)),
    });
    json!({
        "shard": compared.shard.0, "equal": compared.equal(),
        "index": own.ok().map(|own| own.index),
        "error": own.err().map(ToString::to_string),
        "copies": leader.into_iter().chain(others).collect::<Vec<_>>(),
    })
}

fn copy_json(
    node: &NodeName,
    state: &str,
    digest: Option<&CopyDigest>,
    error: Option<&Error>,
) -> Json {
    json!({
        "node": node.as_str(), "state": state,
        "keys": digest.map(|d| d.keys), "sha256": digest.map(|d| d.sha256.as_str()),
        "error": error.map(ToString::to_string),
    })
}

fn rows(compared: &Compared) -> Vec<Vec<String>> {
    let row = |node: &str, state: &str, digest: Option<&CopyDigest>| {
        let of = |get: fn(&CopyDigest) -> String| digest.map_or("-".to_owned(), get);
        vec![
            compared.shard.to_string(),
            node.to_owned(),
            state.to_owned(),
            of(|d| d.index.to_string()),
            of(|d| d.keys.to_string()),
            of(|d| d.sha256.chars().take(16).collect()),
        ]
    };
    let own = match &compared.own {
        Ok(own) => row(own.node.as_str(), "leader", Some(own)),
        Err(error) => row("-", &format!("no digest: {error}"), None),
    };
    let others = compared.others.iter().map(|(node, verdict)| match verdict {
        Verdict::Equal => row(node.as_str(), "equal", compared.own.as_ref().ok()),
        Verdict::Differs(theirs) => row(node.as_str(), "DIFFERS", Some(theirs)),
        Verdict::Silent(error) => row(node.as_str(), &format!("silent: {error}"), None),
    });
    std::iter::once(own).chain(others).collect()
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
