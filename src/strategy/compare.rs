//! The digest gate: one digest entry in a shard's log, and every copy's digest at exactly that entry, each
//! computed by its holder from its own stored bytes.

use super::driver::{COORDINATOR, Calls};
use crate::faults::{self, Point};
use crate::types::{Code, CopyId, Error, NodeId, ShardId};
use crate::wire::command::{Answer, Command, CopyDigest};
use std::time::{Duration, Instant};

/// Longest time for one comparison; then another digest is proposed. A scan that makes way for clients takes a
/// hundred thousand records a second.
const COMPARE_MAX: Duration = Duration::from_secs(3600);
/// Longest wait in one call; a digest that is not there yet is asked for again.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two questions for the same digest.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Before another digest is proposed because a copy will never have this one: each costs its owner a scan.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a node may be silent in the middle of a comparison.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// Why copies are not proven equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing can be said now: a node did not answer, the leader changed.
    Later(String),
    /// A copy differs, or its stored bytes are damaged.
    Unequal(String),
}

/// Compares; answers the copies that are equal, the reference among them, and the log index.
pub async fn run(
    calls: &dyn Calls,
    shard: ShardId,
    leader: NodeId,
    (reference, copies): (CopyId, Vec<(CopyId, NodeId)>),
) -> Result<(Vec<CopyId>, u64), Failure> {
    faults::pass(Point::CompareBefore).map_err(later)?;
    if faults::has_bug("digest-gate-skipped") {
        let unseen = copies.iter().map(|(copy, _)| *copy);
        return Ok((std::iter::once(reference).chain(unseen).collect(), u64::MAX));
    }
    let until = Instant::now() + COMPARE_MAX;
    // Proposing twice is harmless: it is another entry.
    let first =
        calls.call(leader, COORDINATOR, Command::Digest { shard, at: None }, CALL_TIMEOUT).await;
    let first = match first {
        Ok(Answer::DigestBegun { index, .. }) => wait(calls, shard, leader, index, until).await?,
        first => first.and_then(digest).map_err(|error| of_error(shard, leader, &error))?,
    };
    let mut equal = vec![reference];
    for (copy, node) in copies {
        let found = wait(calls, shard, node, first.index, until).await?;
        if (&found.sha256, found.keys) != (&first.sha256, first.keys) {
            let (here, there) = (first.keys, found.keys);
            return Err(Failure::Unequal(format!(
                "{copy} on {} differs from {reference} on {} at log index {}: {there} keys, not {here}, or other values",
                found.node, first.node, first.index
            )));
        }
        equal.push(copy);
    }
    faults::pass(Point::CompareAfter).map_err(later)?;
    Ok((equal, first.index))
}

fn later(why: impl ToString) -> Failure {
    Failure::Later(why.to_string())
}

/// Asks until the digest at that index is there.
async fn wait(
    calls: &dyn Calls,
    shard: ShardId,
    node: NodeId,
    index: u64,
    until: Instant,
) -> Result<CopyDigest, Failure> {
    let mut heard = Instant::now();
    loop {
        let command = Command::Digest { shard, at: Some(index) };
        let error =
            match calls.call(node, COORDINATOR, command, CALL_TIMEOUT).await.and_then(digest) {
                Ok(found) if found.index == index => return Ok(found),
                Ok(found) => {
                    let why = format!("{} answered for log index {}", found.node, found.index);
                    return Err(Failure::Later(why));
                }
                Err(error) => error,
            };
        let failure = of_error(shard, node, &error);
        if error.code == Code::NotYet {
            heard = Instant::now();
        } else if error.code == Code::NotFound {
            // Restarted in the middle, or sent as a table meanwhile: it will never have this one.
            tokio::time::sleep(AGAIN_AFTER).await;
            return Err(failure);
        } else if matches!(failure, Failure::Unequal(_)) || heard.elapsed() > SILENT_MAX {
            return Err(failure);
        }
        if Instant::now() >= until {
            return Err(Failure::Later(format!("{shard} was not compared within {COMPARE_MAX:?}")));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn digest(answer: Answer) -> Result<CopyDigest, Error> {
    match answer {
        Answer::Digest(digest) => Ok(digest),
        _ => Err(Error::new(Code::Internal, "the node answered another question")),
    }
}

/// Damage found while reading is a difference; everything else says nothing about the copy.
fn of_error(shard: ShardId, node: NodeId, error: &Error) -> Failure {
    match error.code {
        Code::Corrupt => {
            Failure::Unequal(format!("the stored bytes of {shard} on {node} are damaged: {error}"))
        }
        _ => Failure::Later(format!("{shard} on {node}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, NodeName};
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;

    /// Node 1 leads and takes long; node 2 has the same.
    #[derive(Default)]
    struct Slow {
        asked: Mutex<Vec<(NodeId, Option<u64>)>>,
    }

    fn digest_on(node: NodeId, index: u64) -> CopyDigest {
        CopyDigest {
            node: NodeName::new(&format!("n{}", node.0)).unwrap(),
            shard: ShardId(3),
            incarnation: Incarnation(1),
            index,
            keys: 5,
            sha256: "aa".repeat(32),
        }
    }

    impl Calls for Slow {
        fn call(
            &self,
            node: NodeId,
            _by: &str,
            command: Command,
            _timeout: Duration,
        ) -> BoxFuture<'static, Result<Answer, Error>> {
            let Command::Digest { at, .. } = command else { panic!("{command:?}") };
            let mut asked = self.asked.lock();
            asked.push((node, at));
            let answer = match (at, asked.len()) {
                (None, _) => Ok(Answer::DigestBegun { node: digest_on(node, 0).node, index: 90 }),
                (Some(_), ..4) => Err(Error::new(Code::NotYet, "no digest yet")),
                (Some(index), _) => Ok(Answer::Digest(digest_on(node, index))),
            };
            std::future::ready(answer).boxed()
        }
    }

    #[tokio::test]
    async fn a_digest_that_takes_long_is_waited_for_and_not_asked_for_anew() {
        let (calls, leader, other) = (Slow::default(), NodeId(1), NodeId(2));
        let copies = (CopyId(1), vec![(CopyId(2), other)]);
        let found = run(&calls, ShardId(3), leader, copies).await;
        assert_eq!(found, Ok((vec![CopyId(1), CopyId(2)], 90)));
        let waits = (leader, Some(90));
        let asked = calls.asked.into_inner();
        assert_eq!(asked, [(leader, None), waits, waits, waits, (other, Some(90))]);
    }
}
