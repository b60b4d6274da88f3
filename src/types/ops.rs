//! Operations on keys, their results, and the level a read asks for.
//!
//! These values travel on the wire and are stored in the log, so enums are only appended to.

use super::{Code, Error, Incarnation, Result, limits};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// When a `set` may take effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Always.
    #[default]
    Always,
    /// Only if the key does not exist (`NX`).
    Absent,
    /// Only if the key exists (`XX`).
    Present,
}

/// What becomes of the time to live when a key is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiry {
    /// The key lasts; an earlier time to live is dropped.
    #[default]
    Never,
    /// The key expires this many milliseconds of shard time after the write.
    AfterMs(u64),
    /// An earlier time to live is kept.
    Keep,
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Value of a key: `Value` or `Nil`.
    Get { key: Bytes },
    /// Whether a key exists: `Bool`.
    Exists { key: Bytes },
    /// Milliseconds of shard time left: `Int`, -1 without a time to live, `Nil` without the key.
    Ttl { key: Bytes },
    /// Stores a value: `Done`, or `Bool(false)` where the condition did not hold.
    Set { key: Bytes, value: Bytes, condition: Condition, expiry: Expiry },
    /// Removes a key: `Bool` tells whether it existed.
    Del { key: Bytes },
    /// Adds to a decimal integer (absent counts as 0): `Int` is the sum. The time to live is kept.
    Incr { key: Bytes, by: i64 },
    /// Appends to a value (absent counts as empty): `Int` is the length in bytes. Keeps the time to live.
    Append { key: Bytes, value: Bytes },
    /// Replaces the value if it equals `expected` (`None`: the key must be absent): `Bool`.
    /// Keeps the time to live.
    Cas { key: Bytes, expected: Option<Bytes>, value: Bytes },
    /// Gives a key a time to live, at least 1 ms: `Bool` tells whether the key existed.
    Expire { key: Bytes, after_ms: u64 },
    /// Takes the time to live away: `Bool` tells whether there was one.
    Persist { key: Bytes },
}

impl Op {
    /// The key operated on.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Get { key }
            | Op::Exists { key }
            | Op::Ttl { key }
            | Op::Set { key, .. }
            | Op::Del { key }
            | Op::Incr { key, .. }
            | Op::Append { key, .. }
            | Op::Cas { key, .. }
            | Op::Expire { key, .. }
            | Op::Persist { key } => key,
        }
    }

    /// True for operations that pass the log.
    pub fn is_write(&self) -> bool {
        !matches!(self, Op::Get { .. } | Op::Exists { .. } | Op::Ttl { .. })
    }

    /// Bytes of key and value carried.
    pub fn bytes(&self) -> usize {
        self.key().len()
            + match self {
                Op::Set { value, .. } | Op::Append { value, .. } => value.len(),
                Op::Cas { expected, value, .. } => {
                    value.len() + expected.as_ref().map_or(0, Bytes::len)
                }
                _ => 0,
            }
    }

    /// Refuses what is over a limit, naming the limit.
    pub fn check(&self) -> Result<()> {
        let key_bytes = self.key().len();
        if key_bytes == 0 || key_bytes > limits::KEY_BYTES_MAX {
            return Err(Error::new(
                Code::KeyTooLong,
                format!("a key has 1 to {} bytes, this one has {key_bytes}", limits::KEY_BYTES_MAX),
            ));
        }
        let value_bytes = match self {
            Op::Set { value, .. } | Op::Append { value, .. } => value.len(),
            Op::Cas { expected, value, .. } => {
                value.len().max(expected.as_ref().map_or(0, Bytes::len))
            }
            _ => 0,
        };
        if value_bytes > limits::VALUE_BYTES_MAX {
            return Err(Error::new(
                Code::ValueTooLong,
                format!(
                    "a value has at most {} bytes, this one has {value_bytes}",
                    limits::VALUE_BYTES_MAX
                ),
            ));
        }
        let ttl_ms = match self {
            Op::Set { expiry: Expiry::AfterMs(ms), .. } | Op::Expire { after_ms: ms, .. } => *ms,
            _ => 1,
        };
        if ttl_ms == 0 || ttl_ms > limits::TTL_MS_MAX {
            return Err(Error::new(
                Code::BadRequest,
                format!("a time to live is 1 to {} ms, not {ttl_ms}", limits::TTL_MS_MAX),
            ));
        }
        Ok(())
    }
}

/// What one operation answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// The key does not exist.
    Nil,
    /// It was done and there is nothing to tell.
    Done,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// Bytes.
    Value(Bytes),
    /// This operation had no effect, for this reason.
    Failed(Code),
}

/// What a read may return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadLevel {
    /// Real-time order, from any client.
    #[default]
    Linearizable,
    /// At least as new as this log index of the shard's incarnation (0: whatever is there).
    Session { incarnation: Incarnation, index: u64 },
    /// The nearest copy; with a bound, provably not older than that.
    Local { max_staleness_ms: Option<u32> },
}

/// A session is named by the position of the log entry that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId {
    /// Lineage of the shard in which it was opened.
    pub incarnation: Incarnation,
    /// Log index of the `Open` entry.
    pub index: u64,
}

/// Names one request so that it is applied at most once. Sequences start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionSeq {
    /// The session, opened in the same shard.
    pub session: SessionId,
    /// Position within the session; a retry repeats it.
    pub sequence: u64,
}
