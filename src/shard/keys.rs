//! What one operation does to one key.
//!
//! `decide` is the whole rule as a function of the operation, the live record and shard time; `Keys`
//! fetches the record and carries the decision out. Batches, sessions and time are not known here.

use super::expiry::Expiry;
use super::records::Record;
use crate::storage::{self, Space, View, Writer};
use crate::types::{self, Code, Condition, Op, OpResult, limits};
use bytes::Bytes;

/// Bytes of values that one reply may carry; a `Get` that would go past it is `Failed(BatchTooLarge)`,
/// and asking for fewer keys at a time helps. What applies among writes is part of the meaning of
/// entries: a change needs a new entry version.
pub const REPLY_VALUE_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX;

/// Bytes of values that may still be added to a reply.
#[derive(Clone, Copy, Debug)]
pub struct ReplyBudget(usize);

impl Default for ReplyBudget {
    fn default() -> Self {
        Self(REPLY_VALUE_BYTES_MAX)
    }
}

impl ReplyBudget {
    /// The value as a result, if it still fits.
    fn spend(&mut self, value: &Bytes) -> OpResult {
        match self.0.checked_sub(value.len()) {
            None => OpResult::Failed(Code::BatchTooLarge),
            Some(left) => {
                self.0 = left;
                OpResult::Value(value.clone())
            }
        }
    }
}

/// What becomes of the stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It is replaced, or created.
    Put(Record),
    /// It goes away, also if it had expired already.
    Remove,
}

/// What an operation does and answers, given the record that is alive at `now_ms`. An operation that
/// answers `Failed` changes nothing.
pub fn decide(
    op: &Op,
    live: Option<&Record>,
    now_ms: u64,
    budget: &mut ReplyBudget,
) -> (Change, OpResult) {
    // What a write that keeps the time to live keeps.
    let kept_ms = live.and_then(|record| record.expires_ms);
    let put = |expires_ms, value, result| (Change::Put(Record { expires_ms, value }), result);
    let answer = |result| (Change::None, result);
    match op {
        Op::Get { .. } => answer(live.map_or(OpResult::Nil, |record| budget.spend(&record.value))),
        Op::Exists { .. } => answer(OpResult::Bool(live.is_some())),
        Op::Ttl { .. } => answer(live.map_or(OpResult::Nil, |record| ttl(record, now_ms))),
        Op::Set { value, condition, expiry, .. } => {
            if !condition_holds(*condition, live.is_some()) {
                return answer(OpResult::Bool(false));
            }
            let expires_ms = match expiry {
                types::Expiry::Never => None,
                types::Expiry::AfterMs(after_ms) => Some(now_ms.saturating_add(*after_ms)),
                types::Expiry::Keep => kept_ms,
            };
            put(expires_ms, value.clone(), OpResult::Done)
        }
        Op::Del { .. } => (Change::Remove, OpResult::Bool(live.is_some())),
        Op::Incr { by, .. } => match incremented(live, *by) {
            Ok(sum) => put(kept_ms, sum.to_string().into(), OpResult::Int(sum)),
            Err(code) => answer(OpResult::Failed(code)),
        },
        Op::Append { value, .. } => {
            let old: &[u8] = live.map_or(&[], |record| &record.value);
            let bytes = old.len() + value.len();
            if bytes > limits::VALUE_BYTES_MAX {
                return answer(OpResult::Failed(Code::ValueTooLong));
            }
            put(kept_ms, [old, value].concat().into(), OpResult::Int(bytes as i64))
        }
        Op::Cas { expected, value, .. } => {
            if live.map(|record| &record.value) != expected.as_ref() {
                return answer(OpResult::Bool(false));
            }
            put(kept_ms, value.clone(), OpResult::Bool(true))
        }
        Op::Expire { after_ms, .. } => match live {
            None => answer(OpResult::Bool(false)),
            Some(record) => {
                let expires_ms = Some(now_ms.saturating_add(*after_ms));
                put(expires_ms, record.value.clone(), OpResult::Bool(true))
            }
        },
        Op::Persist { .. } => match live {
            Some(record) if record.expires_ms.is_some() => {
                put(None, record.value.clone(), OpResult::Bool(true))
            }
            _ => answer(OpResult::Bool(false)),
        },
    }
}

/// Whether neither answer nor new record depend on the record before; only its place in the expiry index
/// may.
fn overwrites(op: &Op) -> bool {
    matches!(
        op,
        Op::Set {
            condition: Condition::Always,
            expiry: types::Expiry::Never | types::Expiry::AfterMs(_),
            ..
        }
    )
}

fn condition_holds(condition: Condition, exists: bool) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Absent => !exists,
        Condition::Present => exists,
    }
}

fn ttl(record: &Record, now_ms: u64) -> OpResult {
    OpResult::Int(match record.expires_ms {
        None => -1,
        Some(at_ms) => i64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(i64::MAX),
    })
}

fn incremented(live: Option<&Record>, by: i64) -> Result<i64, Code> {
    let old = live.map_or(Some(0), |record| integer(&record.value)).ok_or(Code::NotAnInteger)?;
    old.checked_add(by).ok_or(Code::IntegerOverflow)
}

/// A 64-bit decimal integer: digits with at most a minus sign in front, nothing else.
fn integer(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The record of a key that is alive at this shard time.
pub fn live(view: &dyn View, key: &[u8], now_ms: u64) -> Result<Option<Record>, storage::Error> {
    Ok(stored(view, key)?.filter(|record| record.is_alive(now_ms)))
}

fn stored(view: &dyn View, key: &[u8]) -> Result<Option<Record>, storage::Error> {
    view.get(Space::Data, key)?.map(|bytes| Record::decode(&bytes)).transpose()
}

/// Answers reads at one instant; the caller has made sure that there is no write among them.
pub fn read(view: &dyn View, ops: &[Op], now_ms: u64) -> Result<Vec<OpResult>, storage::Error> {
    let mut budget = ReplyBudget::default();
    ops.iter()
        .map(|op| {
            let live = live(view, op.key(), now_ms)?;
            Ok(decide(op, live.as_ref(), now_ms, &mut budget).1)
        })
        .collect()
}

/// The keys of a shard while one entry is applied.
pub struct Keys<'a, 'w> {
    /// Where records are found and put.
    pub writer: &'a mut Writer<'w>,
    /// Kept in step with every record.
    pub expiry: &'a mut Expiry,
    /// Shard time of the entry.
    pub now_ms: u64,
}

impl Keys<'_, '_> {
    /// Carries out the operations of one request in order; each sees the ones before it.
    pub fn apply(&mut self, ops: &[Op]) -> Result<Vec<OpResult>, storage::Error> {
        let mut budget = ReplyBudget::default();
        ops.iter().map(|op| self.apply_one(op, &mut budget)).collect()
    }

    fn apply_one(&mut self, op: &Op, budget: &mut ReplyBudget) -> Result<OpResult, storage::Error> {
        let key = op.key();
        // A tenth of the cost of a set, and on a large table a page from disk.
        let unread = overwrites(op) && self.expiry.is_empty();
        let stored = if unread { None } else { stored(self.writer, key)? };
        let live = stored.as_ref().filter(|record| record.is_alive(self.now_ms));
        let (change, result) = decide(op, live, self.now_ms, budget);
        let old_ms = stored.as_ref().and_then(|record| record.expires_ms);
        match change {
            Change::Put(record) => {
                self.expiry.moved(self.writer, key, old_ms, record.expires_ms);
                self.writer.put(Space::Data, key, record.encode());
            }
            Change::Remove if stored.is_some() => {
                self.expiry.moved(self.writer, key, old_ms, None);
                self.writer.delete(Space::Data, key);
            }
            Change::Remove | Change::None => {}
        }
        Ok(result)
    }
}
