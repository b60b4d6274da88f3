//! A store in memory that can be told to misbehave, to see that a run notices.

use super::{BenchOptions, Caller};
use crate::client::{CallOptions, OpAnswer};
use crate::types::{Code, Error, Incarnation, NodeName, Op, OpResult, Result, ShardId, Token};
use bytes::Bytes;
use clap::Parser;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchOptions,
}

pub fn options(line: &str) -> BenchOptions {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap().bench
}

/// What the store does wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// Refuses everything.
    Refuses,
    /// Acknowledges writes and forgets every third.
    LosesWrites,
    /// Answers every fifth read with other bytes.
    WrongValues,
    /// Answers every third read of a key with the value before the last.
    Stale,
    /// Every third write applies or not, and ends as unknown.
    Unknown,
    /// Takes its time.
    Slow(Duration),
}

pub struct Memory {
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: HashMap<Bytes, Bytes>,
    before: HashMap<Bytes, Bytes>,
    count: u64,
}

impl Memory {
    pub fn new(fault: Fault) -> Self {
        Self { fault, state: Mutex::default() }
    }

    fn apply(&self, op: &Op) -> Result<OpResult> {
        let mut state = self.state.lock();
        state.count += 1;
        let count = state.count;
        let nth = |n| count.is_multiple_of(n);
        if self.fault == Fault::Refuses {
            return Err(Error::new(Code::Overloaded, "full"));
        }
        let key = op.key().clone();
        let int = |value: Option<&Bytes>| {
            value.map_or(0, |v| std::str::from_utf8(v).unwrap().parse::<i64>().unwrap())
        };
        Ok(match op {
            Op::Set { value, .. } => {
                let unknown = self.fault == Fault::Unknown && nth(3);
                let dropped = self.fault == Fault::LosesWrites && nth(3) || unknown && nth(2);
                if !dropped && let Some(old) = state.keys.insert(key.clone(), value.clone()) {
                    state.before.insert(key, old);
                }
                if unknown {
                    return Err(Error::new(Code::Unknown, "lost"));
                }
                OpResult::Done
            }
            Op::Get { .. } => {
                let stale = self.fault == Fault::Stale && nth(3) && state.before.contains_key(&key);
                let from = if stale { &state.before } else { &state.keys };
                match from.get(&key) {
                    Some(value) if self.fault == Fault::WrongValues && nth(5) => {
                        let mut wrong = value.to_vec();
                        *wrong.last_mut().unwrap() ^= 0xff;
                        OpResult::Value(wrong.into())
                    }
                    Some(value) => OpResult::Value(value.clone()),
                    None => OpResult::Nil,
                }
            }
            Op::Exists { .. } => OpResult::Bool(state.keys.contains_key(&key)),
            Op::Del { .. } => OpResult::Bool(state.keys.remove(&key).is_some()),
            Op::Incr { by, .. } => {
                let sum = int(state.keys.get(&key)) + by;
                state.keys.insert(key, sum.to_string().into());
                OpResult::Int(sum)
            }
            Op::Append { value, .. } => {
                let old = state.keys.get(&key).cloned().unwrap_or_default();
                let new = [&old[..], &value[..]].concat();
                let bytes = new.len() as i64;
                state.keys.insert(key, new.into());
                OpResult::Int(bytes)
            }
            other => panic!("{other:?} is not part of any mix"),
        })
    }
}

impl Caller for Memory {
    async fn call(&self, ops: Vec<Op>, _options: &CallOptions) -> Vec<Result<OpAnswer>> {
        match self.fault {
            Fault::Slow(time) => tokio::time::sleep(time).await,
            _ => tokio::task::yield_now().await,
        }
        let answer = |result| OpAnswer {
            result,
            token: Token { shard: ShardId(0), incarnation: Incarnation(0), index: 1 },
            served_by: NodeName::new("n1").unwrap(),
            age_ms: None,
        };
        ops.iter().map(|op| self.apply(op).map(answer)).collect()
    }
}
