//! Stored formats of the users' keys, of the expiry index and of the shard's own state.
//!
//! Pure bytes. Checksums are the store's work; a record that passed them and still does not read is
//! damage all the same (`storage::Error::Corrupt`). Formats of sessions are in `sessions`.

use crate::storage;
use bytes::{BufMut, Bytes, BytesMut};

/// First byte of every record: the version in the upper half, flags in the lower.
pub const V1: u8 = 0x10;
const V1_EXPIRING: u8 = V1 | 1;

/// Key of the shard's state in `Space::Meta`.
pub const STATE_KEY: &[u8] = b"shard";

/// A user's key as stored in `Space::Data`: version, expiry (8 bytes, big endian, if any), value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Shard time in milliseconds from which on the key does not exist; none if it lasts.
    pub expires_ms: Option<u64>,
    /// The value.
    pub value: Bytes,
}

impl Record {
    /// True while the key exists for readers at this shard time.
    pub fn is_alive(&self, now_ms: u64) -> bool {
        is_alive(self.expires_ms, now_ms)
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(9 + self.value.len());
        match self.expires_ms {
            None => out.put_u8(V1),
            Some(expires_ms) => {
                out.put_u8(V1_EXPIRING);
                out.put_u64(expires_ms);
            }
        }
        out.put_slice(&self.value);
        out.freeze()
    }

    /// Reads the stored form; the value is a slice of it.
    pub fn decode(bytes: &Bytes) -> Result<Self, storage::Error> {
        let (expires_ms, value) = parts(bytes)?;
        Ok(Self { expires_ms, value: bytes.slice_ref(value) })
    }
}

/// True while a key with this expiry exists at this shard time.
pub fn is_alive(expires_ms: Option<u64>, now_ms: u64) -> bool {
    expires_ms.is_none_or(|at| now_ms < at)
}

/// Expiry and value of a stored record, borrowed.
pub fn parts(bytes: &[u8]) -> Result<(Option<u64>, &[u8]), storage::Error> {
    let (kind, rest) = bytes.split_first().ok_or_else(|| corrupt("record", bytes))?;
    match *kind {
        V1 => Ok((None, rest)),
        V1_EXPIRING => {
            let (at, value) = rest.split_first_chunk().ok_or_else(|| corrupt("record", bytes))?;
            Ok((Some(u64::from_be_bytes(*at)), value))
        }
        _ => Err(corrupt("record", bytes)),
    }
}

/// Key of the expiry index in `Space::Expiry`: the time, big endian, then the user's key.
pub fn expiry_key(expires_ms: u64, key: &[u8]) -> Vec<u8> {
    [&expires_ms.to_be_bytes(), key].concat()
}

/// Value of the expiry index: only the version.
pub const EXPIRY_VALUE: Bytes = Bytes::from_static(&[V1]);

/// Time and user's key of an entry of the expiry index.
pub fn parse_expiry_key(bytes: &[u8]) -> Result<(u64, &[u8]), storage::Error> {
    let (at, key) = bytes.split_first_chunk().ok_or_else(|| corrupt("expiry key", bytes))?;
    Ok((u64::from_be_bytes(*at), key))
}

/// The shard's own state: written with every entry, so that a reader sees in one instant what the data
/// reflects and what time it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Shard time: the highest leader stamp applied, in milliseconds since 1970.
    pub now_ms: u64,
    /// Log index of the last entry applied here; entries without meaning for the shard (blank ones,
    /// memberships) are not counted.
    pub index: u64,
}

impl State {
    /// The stored form: version, time, index.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        out.put_u8(V1);
        out.put_u64(self.now_ms);
        out.put_u64(self.index);
        out.freeze()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, storage::Error> {
        let [now_ms, index] = u64s(bytes, "shard state")?;
        Ok(Self { now_ms, index })
    }

    /// The state that a view shows; zero before the first entry.
    pub fn of(view: &dyn storage::View) -> Result<Self, storage::Error> {
        let stored = view.get(storage::Space::Meta, STATE_KEY)?;
        stored.map_or(Ok(Self::default()), |bytes| Self::decode(&bytes))
    }
}

/// Reads the version byte and exactly `N` big endian numbers.
pub fn u64s<const N: usize>(bytes: &[u8], what: &str) -> Result<[u64; N], storage::Error> {
    let mut rest = match bytes.split_first() {
        Some((&V1, rest)) if rest.len() == 8 * N => rest,
        _ => return Err(corrupt(what, bytes)),
    };
    let mut numbers = [0; N];
    for number in &mut numbers {
        let Some((head, tail)) = rest.split_first_chunk() else { return Err(corrupt(what, bytes)) };
        *number = u64::from_be_bytes(*head);
        rest = tail;
    }
    Ok(numbers)
}

/// The error for a record of the shard that does not read.
pub fn corrupt(what: &str, bytes: &[u8]) -> storage::Error {
    let head: String = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let detail = format!("{} bytes, starting with `{head}`, are not of a known form", bytes.len());
    storage::Error::Corrupt { what: what.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_formats_keep_their_bytes() {
        let lasting = Record { expires_ms: None, value: Bytes::from_static(b"v") };
        let expiring = Record { expires_ms: Some(0x0102), value: Bytes::from_static(b"w") };
        let golden: [(&Record, &[u8]); 2] =
            [(&lasting, &[0x10, b'v']), (&expiring, &[0x11, 0, 0, 0, 0, 0, 0, 1, 2, b'w'])];
        for (record, bytes) in golden {
            assert_eq!(&record.encode()[..], bytes);
            assert_eq!(&Record::decode(&Bytes::copy_from_slice(bytes)).unwrap(), record);
        }
        let key = expiry_key(0x0304, b"k");
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 3, 4, b'k']);
        assert_eq!(parse_expiry_key(&key).unwrap(), (0x0304, &b"k"[..]));
        assert_eq!(&EXPIRY_VALUE[..], [0x10]);
        let state = State { now_ms: 5, index: 6 };
        let bytes = [0x10, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6];
        assert_eq!(&state.encode()[..], bytes);
        assert_eq!(State::decode(&bytes).unwrap(), state);
        assert_eq!(STATE_KEY, b"shard");
    }

    #[test]
    fn what_does_not_read_is_damage() {
        for bad in [&[][..], &[0x20, 1], &[0x11, 0, 0], &[0]] {
            let error = Record::decode(&Bytes::copy_from_slice(bad)).unwrap_err();
            assert!(matches!(error, storage::Error::Corrupt { .. }), "{bad:?}: {error}");
        }
        assert!(parse_expiry_key(&[1, 2, 3]).is_err());
        assert!(State::decode(&[0x10; 16]).is_err());
        assert!(State::decode(&[0x10; 18]).is_err());
        assert!(State::decode(&[0x20; 17]).is_err());
    }

    #[test]
    fn a_key_ends_exactly_at_its_time() {
        assert!(is_alive(None, u64::MAX));
        assert!(is_alive(Some(10), 9));
        assert!(!is_alive(Some(10), 10));
        assert!(!is_alive(Some(10), 11));
    }
}
