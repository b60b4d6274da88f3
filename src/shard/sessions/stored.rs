//! Stored formats of sessions: one record for each session, one slot for each remembered result.
//!
//! Pure bytes, in `Space::Sessions`. A slot is reused by the sequence one window later, so remembering a
//! result is a single put and forgetting an old one costs nothing.

use crate::shard::entry::Reply;
use crate::shard::records::{V1, corrupt, u64s};
use crate::storage;
use crate::types::{Code, Incarnation, OpResult, SessionId};
use crate::wire::{client, codec};
use bytes::{BufMut, Bytes, BytesMut};

const SESSION: u8 = 1;
const SLOT: u8 = 2;
const ID_BYTES: usize = 12;
/// Results that runs may stand for: far more than a request has, and far less than damage could claim.
const EXPANDED_MAX: u64 = 1 << 16;

/// Prefix of the keys of all session records.
pub const SESSION_PREFIX: &[u8] = &[SESSION];

/// Key of a session's record.
pub fn session_key(id: SessionId) -> Vec<u8> {
    key(SESSION, id)
}

/// Prefix of the keys of a session's slots.
pub fn slot_prefix(id: SessionId) -> Vec<u8> {
    key(SLOT, id)
}

/// Key of the slot of a sequence. `window` is at most 65,536.
pub fn slot_key(id: SessionId, sequence: u64, window: u64) -> Vec<u8> {
    let mut key = key(SLOT, id);
    key.put_u16((sequence % window) as u16);
    key
}

fn key(kind: u8, id: SessionId) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + ID_BYTES + 2);
    key.put_u8(kind);
    key.put_u32(id.incarnation.0);
    key.put_u64(id.index);
    key
}

/// The session of a record's key.
pub fn parse_session_key(key: &[u8]) -> Result<SessionId, storage::Error> {
    let id = key.strip_prefix(SESSION_PREFIX).and_then(|id| {
        let (incarnation, index) = id.split_first_chunk()?;
        let incarnation = Incarnation(u32::from_be_bytes(*incarnation));
        Some(SessionId { incarnation, index: u64::from_be_bytes(index.try_into().ok()?) })
    });
    id.ok_or_else(|| corrupt("session key", key))
}

/// A session's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Shard time of the last entry that used it.
    pub used_ms: u64,
    /// Log index of that entry.
    pub used_index: u64,
    /// Highest sequence seen; 0 before the first.
    pub high: u64,
}

impl Session {
    /// The stored form: version, then three numbers of 8 bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(25);
        out.put_u8(V1);
        out.put_u64(self.used_ms);
        out.put_u64(self.used_index);
        out.put_u64(self.high);
        out.freeze()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, storage::Error> {
        let [used_ms, used_index, high] = u64s(bytes, "session")?;
        Ok(Self { used_ms, used_index, high })
    }
}

/// What is remembered of a request that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its results, as they were answered.
    Results(Bytes),
    /// Its results, each run of equal ones once: the answer to a batch of sets is a few bytes.
    Runs(Bytes),
    /// Only that it was applied: the results are too large to be remembered.
    Lost,
}

const RESULTS: u8 = V1;
const RUNS: u8 = V1 | 1;
const LOST: u8 = V1 | 2;

impl Kept {
    /// The smallest loss that fits `bytes_max`. `encoded` is `encode_results(results)`.
    pub fn of(results: &[OpResult], encoded: &Bytes, bytes_max: usize) -> Self {
        if encoded.len() <= bytes_max {
            // A copy, because the reply's buffer may be far larger than what is kept of it.
            return Self::Results(Bytes::copy_from_slice(encoded));
        }
        match runs(results, bytes_max) {
            Some(runs) => Self::Runs(runs),
            None => Self::Lost,
        }
    }

    /// The answer to a retry. `Unknown` for lost results: the request was applied once, and nobody can
    /// tell any more what it answered.
    pub fn reply(&self) -> Result<Reply, storage::Error> {
        match self {
            Kept::Results(encoded) => Ok(Reply::Results(encoded.clone())),
            Kept::Runs(runs) => expand(runs).map(Reply::Results),
            Kept::Lost => Ok(Reply::Refused(Code::Unknown)),
        }
    }

    /// A slot: version and form, sequence (8 bytes, big endian), body.
    pub fn encode(&self, sequence: u64) -> Bytes {
        let (form, body): (u8, &[u8]) = match self {
            Kept::Results(encoded) => (RESULTS, encoded),
            Kept::Runs(runs) => (RUNS, runs),
            Kept::Lost => (LOST, &[]),
        };
        let mut out = BytesMut::with_capacity(9 + body.len());
        out.put_u8(form);
        out.put_u64(sequence);
        out.put_slice(body);
        out.freeze()
    }

    /// The sequence in a slot and what is remembered of it.
    pub fn decode(slot: &Bytes) -> Result<(u64, Self), storage::Error> {
        let parts = slot.split_first().and_then(|(form, rest)| {
            let (sequence, body) = rest.split_first_chunk()?;
            Some((*form, u64::from_be_bytes(*sequence), slot.slice_ref(body)))
        });
        match parts {
            Some((RESULTS, sequence, body)) => Ok((sequence, Kept::Results(body))),
            Some((RUNS, sequence, body)) => Ok((sequence, Kept::Runs(body))),
            Some((LOST, sequence, body)) if body.is_empty() => Ok((sequence, Kept::Lost)),
            _ => Err(corrupt("session slot", slot)),
        }
    }
}

/// Runs of equal results; none if they do not fit. Stops early, so a long answer costs little.
fn runs(results: &[OpResult], bytes_max: usize) -> Option<Bytes> {
    let mut runs: Vec<(u32, &OpResult)> = Vec::new();
    // A run has at least two bytes.
    let runs_max = bytes_max / 2;
    for result in results {
        match runs.last_mut() {
            Some((count, last)) if *last == result => *count += 1,
            _ => runs.push((1, result)),
        }
        if runs.len() > runs_max {
            return None;
        }
    }
    let encoded = codec::encode(&runs);
    (encoded.len() <= bytes_max).then(|| encoded.into())
}

fn expand(bytes: &Bytes) -> Result<Bytes, storage::Error> {
    let runs: Vec<(u32, OpResult)> =
        codec::decode(bytes).map_err(|_| corrupt("session slot", bytes))?;
    let total = runs.iter().fold(0, |total: u64, (count, _)| total + u64::from(*count));
    if total > EXPANDED_MAX {
        return Err(corrupt("session slot", bytes));
    }
    let results: Vec<OpResult> = runs
        .into_iter()
        .flat_map(|(count, result)| std::iter::repeat_n(result, count as usize))
        .collect();
    Ok(client::encode_results(&results))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::client::encode_results;

    const ID: SessionId = SessionId { incarnation: Incarnation(2), index: 0x0103 };

    fn kept(results: &[OpResult]) -> Kept {
        Kept::of(results, &encode_results(results), 64)
    }

    #[test]
    fn stored_formats_keep_their_bytes() {
        assert_eq!(session_key(ID), [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 3]);
        assert_eq!(slot_prefix(ID), [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 3]);
        let slot = [2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 3, 1, 4];
        assert_eq!(slot_key(ID, 1_024 + 0x0104, 1_024), slot);
        assert_eq!(parse_session_key(&session_key(ID)).unwrap(), ID);

        let session = Session { used_ms: 1, used_index: 2, high: 3 };
        let mut bytes = [0u8; 25];
        (bytes[0], bytes[8], bytes[16], bytes[24]) = (0x10, 1, 2, 3);
        assert_eq!(&session.encode()[..], bytes);
        assert_eq!(Session::decode(&bytes).unwrap(), session);

        let done = [OpResult::Done];
        let many = vec![OpResult::Done; 200];
        let golden: [(Kept, &[u8]); 3] = [
            (kept(&done), &[0x10, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 1]),
            (kept(&many), &[0x11, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 0xc8, 1, 1]),
            (Kept::Lost, &[0x12, 0, 0, 0, 0, 0, 0, 0, 9]),
        ];
        for (kept, bytes) in golden {
            assert_eq!(&kept.encode(9)[..], bytes);
            assert_eq!(Kept::decode(&Bytes::copy_from_slice(bytes)).unwrap(), (9, kept));
        }
    }

    #[test]
    fn what_does_not_read_is_damage() {
        for bad in [
            &[][..],
            &[0x10, 0, 0],
            &[0x13, 0, 0, 0, 0, 0, 0, 0, 9],
            &[0x12, 0, 0, 0, 0, 0, 0, 0, 9, 1],
        ] {
            assert!(Kept::decode(&Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
        assert!(Kept::Runs(Bytes::from_static(&[1, 1])).reply().is_err());
        let bomb = codec::encode(&[(u32::MAX, OpResult::Done)].as_slice());
        assert!(Kept::Runs(bomb.into()).reply().is_err());
        for bad in [&[][..], &[1, 2], &[2; 13], &[1; 14]] {
            assert!(parse_session_key(bad).is_err(), "{bad:?}");
        }
        assert!(Session::decode(&[0x10; 24]).is_err());
    }

    #[test]
    fn a_retry_is_answered_with_the_same_bytes_as_long_as_they_fit() {
        let value = |bytes: usize| OpResult::Value(vec![7; bytes].into());
        let remembered: [Vec<OpResult>; 5] = [
            vec![OpResult::Done],
            vec![OpResult::Int(i64::MIN), OpResult::Bool(true), OpResult::Nil],
            vec![value(60)],
            vec![OpResult::Done; 1_024],
            (0..1_000).map(|i| OpResult::Bool(i < 400)).collect(),
        ];
        for results in remembered {
            assert_eq!(kept(&results).reply().unwrap(), Reply::Results(encode_results(&results)));
        }
        let alternating = (0..200).map(|i| OpResult::Bool(i % 2 == 0)).collect();
        let lost: [Vec<OpResult>; 3] =
            [vec![value(100)], (0..40).map(OpResult::Int).collect(), alternating];
        for results in lost {
            assert_eq!(kept(&results), Kept::Lost);
            assert_eq!(kept(&results).reply().unwrap(), Reply::Refused(Code::Unknown));
        }
    }

    #[test]
    fn nothing_kept_is_larger_than_the_bound() {
        for n in 0..300usize {
            let results: Vec<OpResult> = (0..n).map(|i| OpResult::Int((i / 30) as i64)).collect();
            match kept(&results) {
                Kept::Results(body) | Kept::Runs(body) => assert!(body.len() <= 64, "{n}"),
                Kept::Lost => panic!("{n} results in ten runs were not kept"),
            }
        }
    }
}
