//! The cursor of a scan: opaque text that says after which key the next page starts.
//!
//! It is the last key returned, and means the same in every shard, so it stays valid across restarts,
//! moved shards and a switch of the strategy.

use crate::types::{Code, Error, Result, limits};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Version of the encoding, its first byte.
const VERSION: u8 = 1;

/// Encodes the last key of a page.
pub(crate) fn encode(last_key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION], last_key].concat())
}

/// Decodes a cursor given back; it has to fit the prefix of the scan.
pub(crate) fn decode(cursor: &str, prefix: &[u8]) -> Result<Vec<u8>> {
    let refuse = |why: &str| Err(Error::new(Code::BadRequest, format!("this cursor {why}")));
    if cursor.len() > 2 * limits::KEY_BYTES_MAX {
        return refuse("is too long");
    }
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(cursor) else {
        return refuse("is not one that a scan returned");
    };
    match bytes.split_first() {
        Some((&VERSION, key)) if !key.is_empty() && key.len() <= limits::KEY_BYTES_MAX => {
            if key.starts_with(prefix) {
                Ok(key.to_vec())
            } else {
                refuse("belongs to a scan with another prefix")
            }
        }
        _ => refuse("is not one that a scan returned"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        assert_eq!(encode(b"user:\xff"), "AXVzZXI6_w");
    }

    #[test]
    fn survives_any_key_and_refuses_anything_else() {
        for key in [&b"a"[..], b"\0", &[255; limits::KEY_BYTES_MAX]] {
            assert_eq!(decode(&encode(key), b"").unwrap(), key);
        }
        assert_eq!(decode(&encode(b"user:7"), b"user:").unwrap(), b"user:7");
        let long = encode(&[1; limits::KEY_BYTES_MAX + 1]);
        for (cursor, prefix) in [
            ("", &b""[..]),
            ("AQ", b""),
            ("!!", b""),
            ("AnVzZXI", b""),
            (&long, b""),
            (&encode(b"order:7"), b"user:"),
        ] {
            let error = decode(cursor, prefix).unwrap_err();
            assert_eq!(error.code, Code::BadRequest, "{cursor}");
        }
    }
}
