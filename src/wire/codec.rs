//! Versioned postcard: one version byte, then the value, and nothing after it.
//!
//! Structs have no field names on the wire, so a layout never changes: a new layout is a new enum
//! variant at the end, or a new version byte. postcard bounds lengths by the bytes that remain.

use serde::{Deserialize, Serialize};

/// Version of every frame and stored record that this build writes.
pub const VERSION: u8 = 1;

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No bytes at all.
    #[error("an empty message")]
    Empty,
    /// Written by a version this build does not know.
    #[error("format version {0}, this build knows {VERSION}")]
    Version(u8),
    /// Not a value of the type expected.
    #[error("malformed message: {0}")]
    Malformed(postcard::Error),
    /// A value, and then something else.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
}

/// Encodes with the version byte in front.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_into(value, Vec::with_capacity(128))
}

/// Appends the version byte and the value to a buffer.
pub fn encode_into<T: Serialize>(value: &T, mut out: Vec<u8>) -> Vec<u8> {
    out.push(VERSION);
    match postcard::to_extend(value, out) {
        Ok(out) => out,
        // Growing a Vec cannot fail, and no type here has a length unknown to serde.
        Err(error) => unreachable!("encoding into memory: {error}"),
    }
}

/// Decodes the whole buffer; the value may borrow from it.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    let (version, body) = bytes.split_first().ok_or(Error::Empty)?;
    if *version != VERSION {
        return Err(Error::Version(*version));
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(Error::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(Error::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_exactly_one_message() {
        let bytes = encode(&(7u32, "seven".to_owned()));
        assert_eq!(bytes[0], VERSION);
        assert_eq!(decode::<(u32, String)>(&bytes), Ok((7, "seven".into())));
        assert_eq!(decode::<(u32, String)>(&[]), Err(Error::Empty));
        assert_eq!(decode::<(u32, String)>(&[9, 7]), Err(Error::Version(9)));
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<(u32, String)>(&longer), Err(Error::Trailing(1)));
        for cut in 1..bytes.len() {
            assert!(matches!(decode::<(u32, String)>(&bytes[..cut]), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn a_huge_declared_length_allocates_nothing() {
        // version, then a varint length of 2^60 for a byte string, then two bytes.
        let bomb = [1u8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 2];
        assert!(matches!(decode::<bytes::Bytes>(&bomb), Err(Error::Malformed(_))));
        assert!(matches!(decode::<Vec<u64>>(&bomb), Err(Error::Malformed(_))));
    }
}
