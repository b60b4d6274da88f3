//! The envelope around every stored value: format version, checksum, value.
//!
//! `1 | crc32c u32 le | value`. The checksum covers the space, the length of the key, the key and the
//! value, so that an intact record under a foreign key is found out as well. LMDB has no page checksums
//! of its own: what fails here is all that stands between a rotten page and a client.

use super::{Applied, Error, Space};

/// Version of the envelope, its first byte.
pub(super) const FORMAT: u8 = 1;
/// Bytes in front of the value.
pub(super) const HEADER_BYTES: usize = 5;
/// The space byte of a table's own records.
pub(super) const OWN: u8 = 0xFF;
/// Key of the record that names the format of the table.
pub(super) const KEY_FORMAT: &[u8] = b"format";
/// Key of the record that says how far the table has got.
pub(super) const KEY_APPLIED: &[u8] = b"applied";
/// Version of the table: which databases it has and what is in them.
pub(super) const TABLE_FORMAT: u32 = 1;

fn checksum(space: u8, key: &[u8], value: &[u8]) -> u32 {
    let mut prefix = [space, 0, 0, 0, 0];
    prefix[1..].copy_from_slice(&(key.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&prefix), key);
    crc32c::crc32c_append(crc, value)
}

/// The bytes that go in front of the value.
pub(super) fn header(space: u8, key: &[u8], value: &[u8]) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = checksum(space, key, value).to_le_bytes();
    [FORMAT, a, b, c, d]
}

/// The whole envelope in one buffer.
pub(super) fn seal(space: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    [&header(space, key, value), value].concat()
}

/// The value inside, or `Corrupt`.
pub(super) fn open<'a>(space: u8, key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], Error> {
    let Some((&[format, a, b, c, d], value)) = stored.split_first_chunk::<HEADER_BYTES>() else {
        return Err(bad(space, key, format!("{} bytes are no record", stored.len())));
    };
    if format != FORMAT {
        return Err(bad(space, key, format!("format {format} is unknown")));
    }
    let (found, expected) = (checksum(space, key, value), u32::from_le_bytes([a, b, c, d]));
    if found != expected {
        let detail = format!("checksum {found:08x} instead of {expected:08x}");
        return Err(bad(space, key, detail));
    }
    Ok(value)
}

fn bad(space: u8, key: &[u8], detail: String) -> Error {
    let name = Space::ALL.get(space as usize).map_or("Own".into(), |space| format!("{space:?}"));
    // Keys can be long and are users' data: enough of it to find the record again.
    let shown = &key[..key.len().min(64)];
    Error::corrupt(format!("record {name}/{}", shown.escape_ascii()), detail)
}

/// The value of the record under `KEY_APPLIED`.
pub(super) fn applied_to_bytes(applied: &Applied) -> Result<Vec<u8>, Error> {
    postcard::to_allocvec(applied).map_err(|e| Error::corrupt("applied state", e.to_string()))
}

/// Reads it back; bytes left over are damage too.
pub(super) fn applied_from_bytes(bytes: &[u8]) -> Result<Applied, Error> {
    match postcard::take_from_bytes::<Applied>(bytes) {
        Ok((applied, [])) => Ok(applied),
        Ok((_, rest)) => {
            Err(Error::corrupt("applied state", format!("{} bytes too many", rest.len())))
        }
        Err(e) => Err(Error::corrupt("applied state", e.to_string())),
    }
}

/// Refuses a table of another format.
pub(super) fn check_table_format(value: &[u8]) -> Result<(), Error> {
    if value == TABLE_FORMAT.to_le_bytes() {
        return Ok(());
    }
    let detail = format!("{} instead of {TABLE_FORMAT}", value.escape_ascii());
    Err(Error::corrupt("table format", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogPos;
    use bytes::Bytes;

    #[test]
    fn the_envelope_keeps_its_bytes() {
        let golden = [0x01, 0x3c, 0xfe, 0x4f, 0x5f, b'v', b'a', b'l'];
        assert_eq!(seal(0, b"key", b"val"), golden);
        assert_eq!(open(0, b"key", &golden).unwrap(), b"val");
        assert_eq!(seal(3, b"k", b"").len(), HEADER_BYTES);
    }

    #[test]
    fn the_metadata_records_keep_their_bytes() {
        let applied = Applied {
            pos: Some(LogPos { term: 3, leader: 2, index: 300 }),
            membership: Bytes::from_static(b"mm"),
        };
        let golden = [1, 3, 2, 0xac, 0x02, 2, b'm', b'm'];
        assert_eq!(applied_to_bytes(&applied).unwrap(), golden);
        assert_eq!(applied_from_bytes(&golden).unwrap(), applied);
        assert_eq!(applied_to_bytes(&Applied::default()).unwrap(), [0, 0]);
        assert_eq!(TABLE_FORMAT.to_le_bytes(), [1, 0, 0, 0]);
        assert!(check_table_format(&[1, 0, 0, 0]).is_ok());
        assert!(check_table_format(&[2, 0, 0, 0]).is_err());
        assert!(check_table_format(&[1]).is_err());
    }

    #[test]
    fn applied_bytes_left_over_or_missing_are_damage() {
        for bad in [&[][..], &[1, 3, 2], &[0, 0, 0], &[2, 0], &[0, 9, 1]] {
            assert!(matches!(applied_from_bytes(bad), Err(Error::Corrupt { .. })), "{bad:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let sealed = seal(1, b"some key", b"some value");
        for bit in 0..sealed.len() * 8 {
            let mut broken = sealed.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert!(open(1, b"some key", &broken).is_err(), "bit {bit}");
        }
        for cut in 0..sealed.len() {
            assert!(open(1, b"some key", &sealed[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_found() {
        let sealed = seal(1, b"ab", b"cd");
        assert!(open(2, b"ab", &sealed).is_err());
        assert!(open(1, b"aB", &sealed).is_err());
        // The same bytes, cut differently between key and value.
        let moved = [&sealed[..HEADER_BYTES], b"bcd"].concat();
        assert!(open(1, b"a", &moved).is_err());
    }
}
