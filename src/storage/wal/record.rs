//! The bytes of one record: a header with its own checksum, and a body with another.
//!
//! Both checksums are salted with the segment's random number, the segment and the offset, so that bytes
//! which were copied, left over or chosen by a client are never taken for a record. This file neither
//! reads files nor knows what follows from a record.
//!
//! ```text
//!  0 header crc   4 body crc   8 body length  12 kind  13 version  14 zero
//! 16 segment     24 batch     32 sequence     40 group
//! 48 body, zeros up to a multiple of 8 (covered by the body crc)
//! ```

/// Bytes before the body.
pub(super) const HEAD_BYTES: usize = 48;
/// Bytes of a record of kind `Batch`.
pub(super) const BATCH_BYTES: usize = HEAD_BYTES + 16;
/// Records start at multiples of this.
pub(super) const ALIGN: usize = 8;
/// Stored version of the record format.
pub(super) const VERSION: u8 = 1;

/// Under the fuzzer checksums hold, or it would never get past the first one.
#[allow(unexpected_cfgs)]
pub(super) const CHECKS: bool = !cfg!(fuzzing);

/// What a record says. Stored: numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Batch = 1,
    Append = 2,
    Truncate = 3,
    Purge = 4,
    Vote = 5,
    Committed = 6,
    Create = 7,
    Remove = 8,
}

impl Kind {
    /// The kind of a stored number.
    pub fn of(number: u8) -> Option<Self> {
        use Kind::*;
        [Batch, Append, Truncate, Purge, Vote, Committed, Create, Remove]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// What the checksums of one segment are mixed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt {
    pub segment: u64,
    pub random: u64,
}

impl Salt {
    fn crc(self, offset: u64, data: &[u8]) -> u32 {
        let mut salt = [0; 24];
        salt[..8].copy_from_slice(&self.random.to_le_bytes());
        salt[8..16].copy_from_slice(&self.segment.to_le_bytes());
        salt[16..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c(&salt), data)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub kind: u8,
    pub version: u8,
    pub body_bytes: u32,
    pub body_crc: u32,
    /// Number of the batch that wrote it.
    pub batch: u64,
    /// Number of the record; for a batch header the last one that is durable.
    pub sequence: u64,
    pub group: u64,
}

impl Head {
    /// Bytes of the whole record.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.body_bytes as usize)
    }
}

/// Bytes of a record with such a body.
pub(super) fn record_bytes(body_bytes: usize) -> usize {
    HEAD_BYTES + body_bytes.next_multiple_of(ALIGN)
}

/// Little-endian number at `at`, which the caller has checked to be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// As `u32_at`, of 8 bytes.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// The header at `at`, if there is a valid one.
pub(super) fn head(bytes: &[u8], at: usize, salt: Salt) -> Option<Head> {
    let head = bytes.get(at..at.checked_add(HEAD_BYTES)?)?;
    if u64_at(head, 16) != salt.segment {
        return None;
    }
    if CHECKS && u32_at(head, 0) != salt.crc(at as u64, &head[4..]) {
        return None;
    }
    Some(Head {
        kind: head[12],
        version: head[13],
        body_bytes: u32_at(head, 8),
        body_crc: u32_at(head, 4),
        batch: u64_at(head, 24),
        sequence: u64_at(head, 32),
        group: u64_at(head, 40),
    })
}

/// The body, without padding, of the record at `at` whose header is `head`; none if it fails its checksum
/// or is not all there.
pub(super) fn body<'a>(bytes: &'a [u8], at: usize, head: &Head, salt: Salt) -> Option<&'a [u8]> {
    let padded = bytes.get(at + HEAD_BYTES..at.checked_add(head.record_bytes())?)?;
    if CHECKS && head.body_crc != salt.crc(at as u64, padded) {
        return None;
    }
    Some(&padded[..head.body_bytes as usize])
}

/// Where a record is written and which numbers it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub salt: Salt,
    /// Offset in the segment of the first byte of the buffer.
    pub base: u64,
    pub batch: u64,
}

/// Appends a record to `buffer`; `body` writes the body.
pub(super) fn write(
    buffer: &mut Vec<u8>,
    place: Place,
    kind: Kind,
    sequence: u64,
    group: u64,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = buffer.len();
    let offset = place.base + start as u64;
    buffer.resize(start + HEAD_BYTES, 0);
    body(buffer);
    let body_bytes = buffer.len() - start - HEAD_BYTES;
    buffer.resize(start + record_bytes(body_bytes), 0);
    let body_crc = place.salt.crc(offset, &buffer[start + HEAD_BYTES..]);
    let head = &mut buffer[start..start + HEAD_BYTES];
    head[4..8].copy_from_slice(&body_crc.to_le_bytes());
    head[8..12].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    head[12] = kind as u8;
    head[13] = VERSION;
    head[16..24].copy_from_slice(&place.salt.segment.to_le_bytes());
    head[24..32].copy_from_slice(&place.batch.to_le_bytes());
    head[32..40].copy_from_slice(&sequence.to_le_bytes());
    head[40..48].copy_from_slice(&group.to_le_bytes());
    let crc = place.salt.crc(offset, &head[4..]);
    head[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Appends a batch header: `bytes` of the whole batch, itself included, and how many records follow.
/// Everything up to `durable` was durable before this batch was written.
pub(super) fn write_batch(
    buffer: &mut Vec<u8>,
    place: Place,
    durable: u64,
    bytes: u64,
    count: u32,
) {
    write(buffer, place, Kind::Batch, durable, 0, |body| {
        body.extend_from_slice(&bytes.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
    });
}
