//! What the bodies of records say: changes as the queue holds them, and as recovery reads them.
//!
//! Numbers are little-endian. An `Append` is its first index, the count, the lengths, then the bytes of
//! the entries; `Truncate` an index; `Purge` an index and a body; `Vote`, `Committed` and `Create` a
//! body; `Remove` nothing; a batch header the bytes of the batch, the count of its records, four zeros.

use super::record::{self, HEAD_BYTES, Head, Kind, Place, VERSION, record_bytes, u32_at, u64_at};
use crate::types::GroupId;
use bytes::Bytes;

/// What is asked of the log, as the queue holds it.
#[derive(Debug)]
pub(super) enum Change {
    Append { first: u64, entries: Vec<Bytes> },
    Truncate { from: u64 },
    Purge { upto: u64, body: Bytes },
    Vote(Bytes),
    Committed(Bytes),
    Create(Bytes),
    Remove,
}

impl Change {
    /// Bytes of the record.
    pub fn record_bytes(&self) -> usize {
        record_bytes(match self {
            Change::Append { entries, .. } => {
                12 + entries.iter().map(|entry| 4 + entry.len()).sum::<usize>()
            }
            Change::Truncate { .. } => 8,
            Change::Purge { body, .. } => 8 + body.len(),
            Change::Vote(body) | Change::Committed(body) | Change::Create(body) => body.len(),
            Change::Remove => 0,
        })
    }

    /// Which record this is.
    pub fn kind(&self) -> Kind {
        match self {
            Change::Append { .. } => Kind::Append,
            Change::Truncate { .. } => Kind::Truncate,
            Change::Purge { .. } => Kind::Purge,
            Change::Vote(_) => Kind::Vote,
            Change::Committed(_) => Kind::Committed,
            Change::Create(_) => Kind::Create,
            Change::Remove => Kind::Remove,
        }
    }

    /// Appends the record to `buffer`.
    pub fn write(&self, buffer: &mut Vec<u8>, place: Place, sequence: u64, group: GroupId) {
        record::write(buffer, place, self.kind(), sequence, group.0, |body| match self {
            Change::Append { first, entries } => {
                body.extend_from_slice(&first.to_le_bytes());
                body.extend_from_slice(&(entries.len() as u32).to_le_bytes());
                for entry in entries {
                    body.extend_from_slice(&(entry.len() as u32).to_le_bytes());
                }
                entries.iter().for_each(|entry| body.extend_from_slice(entry));
            }
            Change::Truncate { from } => body.extend_from_slice(&from.to_le_bytes()),
            Change::Purge { upto, body: purged } => {
                body.extend_from_slice(&upto.to_le_bytes());
                body.extend_from_slice(purged);
            }
            Change::Vote(bytes) | Change::Committed(bytes) | Change::Create(bytes) => {
                body.extend_from_slice(bytes)
            }
            Change::Remove => {}
        });
    }
}

/// What a record says, as recovery reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read<'a> {
    Batch { bytes: u64, count: u32 },
    Append { first: u64, entries: Entries<'a> },
    Truncate { from: u64 },
    Purge { upto: u64, body: &'a [u8] },
    Vote(&'a [u8]),
    Committed(&'a [u8]),
    Create(&'a [u8]),
    Remove,
}

/// The entries of an `Append` body, as (offset in the body, bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entries<'a> {
    body: &'a [u8],
    count: usize,
    next: usize,
    offset: usize,
}

impl<'a> Entries<'a> {
    /// Checks that counts and lengths fit the body exactly.
    fn of(body: &'a [u8]) -> Option<Self> {
        let count = u32_at(body.get(..12)?, 8) as usize;
        let offset = count.checked_mul(4)?.checked_add(12)?;
        let lengths = body.get(12..offset)?;
        let bytes: u64 = lengths.chunks_exact(4).map(|length| u32_at(length, 0) as u64).sum();
        ((body.len() - offset) as u64 == bytes).then_some(Self { body, count, next: 0, offset })
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.count - self.next
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.count {
            return None;
        }
        let start = self.offset;
        let end = start + u32_at(self.body, 12 + 4 * self.next) as usize;
        self.next += 1;
        self.offset = end;
        Some((start, self.body.get(start..end)?))
    }
}

/// Reads a body; none if it is not what this version writes.
pub(super) fn read<'a>(head: &Head, body: &'a [u8]) -> Option<Read<'a>> {
    if head.version != VERSION {
        return None;
    }
    let number = || body.get(..8).map(|bytes| u64_at(bytes, 0));
    let whole = |bytes: usize| (body.len() == bytes).then_some(());
    Some(match Kind::of(head.kind)? {
        Kind::Batch => {
            whole(16)?;
            Read::Batch { bytes: number()?, count: u32_at(body, 8) }
        }
        Kind::Append => Read::Append { first: number()?, entries: Entries::of(body)? },
        Kind::Truncate => {
            whole(8)?;
            Read::Truncate { from: number()? }
        }
        Kind::Purge => Read::Purge { upto: number()?, body: &body[8..] },
        Kind::Vote => Read::Vote(body),
        Kind::Committed => Read::Committed(body),
        Kind::Create => Read::Create(body),
        Kind::Remove => {
            whole(0)?;
            Read::Remove
        }
    })
}

/// Offset in an `Append` record of the bytes of its first entry.
pub(super) fn entries_offset(count: usize) -> usize {
    HEAD_BYTES + 12 + 4 * count
}
