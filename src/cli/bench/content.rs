//! Values that prove where they belong: their bytes follow from key, version and length.
//!
//! A value read back is checked against what was written without keeping what was written. The first
//! eight bytes are the version, as far as they fit; the others come from a mixing function.

use bytes::{BufMut, Bytes, BytesMut};

/// The value of a key in a version.
pub fn value(key: u64, version: u64, bytes: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(bytes + 8);
    let seed = seed(key, version, bytes);
    out.put_u64_le(version);
    for i in 1..bytes.div_ceil(8) as u64 {
        out.put_u64_le(word(seed, i));
    }
    out.truncate(bytes);
    out.freeze()
}

/// True if these bytes are the value of that key in that version.
pub fn is_value(key: u64, version: u64, bytes: &[u8]) -> bool {
    let seed = seed(key, version, bytes.len());
    bytes.chunks(8).enumerate().all(|(i, chunk)| {
        let expected = if i == 0 { version } else { word(seed, i as u64) };
        expected.to_le_bytes()[..chunk.len()] == *chunk
    })
}

/// The version that these bytes claim; none if they are too few to say.
pub fn version_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|first| u64::from_le_bytes(*first))
}

fn seed(key: u64, version: u64, bytes: usize) -> u64 {
    mix(mix(mix(key) ^ version) ^ bytes as u64)
}

fn word(seed: u64, i: u64) -> u64 {
    mix(seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of SplitMix64: every bit of the input changes half of the output.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_its_key_version_and_length_only() {
        for bytes in [12, 16, 20, 128, 6_656] {
            let value = value(7, 3, bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(version_of(&value), Some(3));
            assert!(is_value(7, 3, &value));
            assert!(!is_value(8, 3, &value) && !is_value(7, 4, &value));
            assert!(!is_value(7, 3, &value[..bytes - 1]));
        }
    }

    #[test]
    fn every_changed_bit_shows() {
        let original = value(1, 1, 70);
        for bit in 0..70 * 8 {
            let mut changed = original.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_value(1, 1, &changed), "bit {bit}");
        }
    }

    #[test]
    fn short_values_hold_what_fits() {
        assert!(value(1, 1, 0).is_empty() && is_value(1, 1, b""));
        assert_eq!(value(1, 0x0201, 2), Bytes::from_static(&[1, 2]));
        assert_eq!(version_of(b"short"), None);
    }
}
