//! Operations as somebody who watches a node is told of them: what is asked for, and a page of what came. Data only;
//! what is sampled, kept and forgotten is decided in `crate::monitor`.

use crate::types::{Code, Op, ShardId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Bytes of a pattern.
pub const PATTERN_BYTES_MAX: usize = 128;
/// The coarsest sample: one in so many.
pub const ONE_IN_MAX: u32 = 1_000_000;

/// What an operation does. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OpKind {
    /// A value was asked for.
    Get,
    /// Whether a key exists.
    Exists,
    /// How long it has left.
    Ttl,
    /// A value was stored.
    Set,
    /// A key was removed.
    Del,
    /// A number was added to.
    Incr,
    /// A value was appended to.
    Append,
    /// A value was replaced if it was as expected.
    Cas,
    /// A key was given a time to live.
    Expire,
    /// It was taken away.
    Persist,
    /// A page of keys was asked for.
    Scan,
}

impl OpKind {
    /// All of them.
    pub const ALL: [OpKind; 11] = [
        OpKind::Get,
        OpKind::Exists,
        OpKind::Ttl,
        OpKind::Set,
        OpKind::Del,
        OpKind::Incr,
        OpKind::Append,
        OpKind::Cas,
        OpKind::Expire,
        OpKind::Persist,
        OpKind::Scan,
    ];

    /// Of this operation.
    pub const fn of(op: &Op) -> Self {
        match op {
            Op::Get { .. } => OpKind::Get,
            Op::Exists { .. } => OpKind::Exists,
            Op::Ttl { .. } => OpKind::Ttl,
            Op::Set { .. } => OpKind::Set,
            Op::Del { .. } => OpKind::Del,
            Op::Incr { .. } => OpKind::Incr,
            Op::Append { .. } => OpKind::Append,
            Op::Cas { .. } => OpKind::Cas,
            Op::Expire { .. } => OpKind::Expire,
            Op::Persist { .. } => OpKind::Persist,
        }
    }

    /// The word for it, as one would type the command.
    pub const fn name(self) -> &'static str {
        match self {
            OpKind::Get => "get",
            OpKind::Exists => "exists",
            OpKind::Ttl => "ttl",
            OpKind::Set => "set",
            OpKind::Del => "del",
            OpKind::Incr => "incr",
            OpKind::Append => "append",
            OpKind::Cas => "cas",
            OpKind::Expire => "expire",
            OpKind::Persist => "persist",
            OpKind::Scan => "scan",
        }
    }
}

impl FromStr for OpKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(OpKind::name).join(", ");
            format!("`{text}` is no operation: {names}")
        })
    }
}

/// Which operations are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// On average one of so many, 1 to `ONE_IN_MAX`.
    pub one_in: u32,
    /// Only keys like this: `*` stands for any bytes, `?` for one, and a backslash takes the meaning of the next.
    pub pattern: Option<Bytes>,
    /// Only these; all if there is none.
    pub kinds: Vec<OpKind>,
}

/// What has come since the last question. A watch begins with the first question, and ends when nobody asks for some
/// seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorQuestion {
    /// Drawn at random by whoever watches.
    pub watch: u64,
    /// The same in all questions of a watch.
    pub wish: Wish,
    /// The number of the last operation that arrived; it and all before it are let go of.
    pub after: u64,
    /// It is the last question.
    pub is_last: bool,
}

/// What became of an operation. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done, or answered.
    Ok,
    /// The key does not exist.
    Absent,
    /// The answer was no: a condition did not hold, or there was nothing to remove.
    No,
    /// It failed, or was refused.
    Failed(Code),
}

impl Outcome {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Absent => "absent",
            Outcome::No => "no",
            Outcome::Failed(code) => code.name(),
        }
    }
}

/// One operation. No value is ever part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorEvent {
    /// Rising without gaps within a watch, from 1.
    pub sequence: u64,
    /// When it was answered, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// Who asked: `user ann`.
    pub by: String,
    /// What it does.
    pub kind: OpKind,
    /// Its key, or the prefix of a scan; the beginning of a long one.
    pub key: Bytes,
    /// Bytes that the whole key has.
    pub key_bytes: u32,
    /// The shard.
    pub shard: ShardId,
    /// Operations in the request that it was part of.
    pub operations: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// From the arrival of the request until its answer was ready, in microseconds.
    pub took_us: u64,
}

/// What a watch has to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorPage {
    /// When the watch began, in microseconds since 1970: another number is another watch, whose counts begin anew.
    pub began_us: u64,
    /// The operations after the one that was named, oldest first.
    pub events: Vec<MonitorEvent>,
    /// Operations in the sample, wanted or not, since it began.
    pub sampled: u64,
    /// Those that were wanted.
    pub matched: u64,
    /// Those of them for which there was no room.
    pub dropped: u64,
    /// Microseconds that the node has spent on all its watches, since it started.
    pub spent_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_that_may_be_typed() {
        for kind in OpKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("mget".parse::<OpKind>().unwrap_err().contains("get, exists"));
    }
}
