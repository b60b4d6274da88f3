//! The digest of a table: what two copies compare to know that they hold the same.
//!
//! SHA-256 over (space, key length u32 le, key, value length u32 le, value) of every record of every
//! space, in order. It reads stored records, never the overlay, and each of them passes its checksum.

use super::table::Snapshot;
use super::{Applied, Error, Space};
use crate::types::LogPos;
use std::ops::ControlFlow;

/// Records between two calls of `pause`.
const SLICE_RECORDS: usize = 1_024;
/// Bytes between two calls of `pause`, if they come first.
const SLICE_BYTES: usize = 1 << 20;

/// Content of a store at one log index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// What the table held when it was scanned.
    pub pos: Option<LogPos>,
    /// Records in `Space::Data`.
    pub keys: u64,
    /// SHA-256 over (space, key, value) of every record in order.
    pub sha256: [u8; 32],
}

/// The table's state at the moment this was made, to be scanned later, on any thread. Until it is dropped
/// the table cannot reuse what is overwritten meanwhile, and its file grows by as much.
pub struct DigestReader {
    snapshot: Box<dyn Snapshot>,
    applied: Applied,
}

impl DigestReader {
    pub(super) fn new(snapshot: Box<dyn Snapshot>) -> Result<Self, Error> {
        let applied = snapshot.applied()?;
        Ok(Self { snapshot, applied })
    }

    /// How far the state reaches that will be scanned.
    pub fn pos(&self) -> Option<LogPos> {
        self.applied.pos
    }

    /// Scans it, with a call of `pause` after every 1,024 records or 1 MiB. Blocks.
    pub fn scan(self, pause: &mut dyn FnMut()) -> Result<Digest, Error> {
        let mut sum = Sum::default();
        for space in Space::ALL {
            self.snapshot.scan(space, &[], None, &mut |key, value| {
                if sum.add(space, key, value) {
                    pause();
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(Digest { pos: self.applied.pos, keys: sum.keys, sha256: sum.finish() })
    }
}

struct Sum {
    sha256: ring::digest::Context,
    keys: u64,
    slice_records: usize,
    slice_bytes: usize,
}

impl Default for Sum {
    fn default() -> Self {
        let sha256 = ring::digest::Context::new(&ring::digest::SHA256);
        Self { sha256, keys: 0, slice_records: 0, slice_bytes: 0 }
    }
}

impl Sum {
    /// Adds a record; true at the end of a slice.
    fn add(&mut self, space: Space, key: &[u8], value: &[u8]) -> bool {
        self.sha256.update(&[space as u8]);
        for part in [key, value] {
            self.sha256.update(&(part.len() as u32).to_le_bytes());
            self.sha256.update(part);
        }
        self.keys += u64::from(space == Space::Data);
        self.slice_records += 1;
        self.slice_bytes += key.len() + value.len();
        let full = self.slice_records >= SLICE_RECORDS || self.slice_bytes >= SLICE_BYTES;
        if full {
            (self.slice_records, self.slice_bytes) = (0, 0);
        }
        full
    }

    fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.sha256.finish().as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_keeps_its_bytes() {
        let mut sum = Sum::default();
        sum.add(Space::Data, b"k", b"v1");
        sum.add(Space::Meta, b"m", b"");
        assert_eq!(sum.keys, 1);
        let plain = b"\x00\x01\x00\x00\x00k\x02\x00\x00\x00v1\x03\x01\x00\x00\x00m\x00\x00\x00\x00";
        let expected = ring::digest::digest(&ring::digest::SHA256, plain);
        assert_eq!(sum.finish(), expected.as_ref());
    }

    #[test]
    fn slices_end_by_records_and_by_bytes() {
        let mut sum = Sum::default();
        let ends = (0..SLICE_RECORDS * 2).filter(|_| sum.add(Space::Data, b"k", b"v")).count();
        assert_eq!(ends, 2);
        let big = vec![0; SLICE_BYTES / 2];
        assert_eq!((0..4).filter(|_| sum.add(Space::Data, b"", &big)).count(), 2);
    }
}
