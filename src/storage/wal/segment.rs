//! A segment file: its name, and the block at its start that says where it continues from.
//!
//! The block is durable before the first batch of the segment is written, so a valid block proves that
//! everything before it was durable. It holds the header twice, 2,048 bytes apart: one bad sector does
//! not take the salt, without which no record could be read.
//!
//! ```text
//!  0 magic "ppdbwal\0"   8 version  12 zero  16 segment  24 random  32 end of the segment before
//! 40 last sequence before  48 last batch before  56 zero  60 crc
//! ```

use super::record::{CHECKS, Salt, u32_at, u64_at};

/// Bytes before the first batch.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Where the copies of the header lie in the block.
const COPIES: [usize; 2] = [0, 2048];
const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"ppdbwal\0";
const VERSION: u32 = 1;

/// What the block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Number of this segment; segments follow each other without a gap.
    pub segment: u64,
    /// Random, for the salt.
    pub random: u64,
    /// The log continues from this offset of the segment before; what lies behind it there never counts.
    pub end_before: u64,
    /// Last record before this segment.
    pub sequence_before: u64,
    /// Last batch before this segment.
    pub batch_before: u64,
}

/// What is found at the start of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// The segment is in use.
    Used(Header),
    /// It was never used: no header, and nothing behind it.
    Blank,
    /// A later version of the program wrote it.
    Foreign(u32),
    /// It holds something, but no header.
    Broken,
}

impl Header {
    /// What checksums in this segment are salted with.
    pub fn salt(&self) -> Salt {
        Salt { segment: self.segment, random: self.random }
    }

    /// The whole block.
    pub fn block(&self) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[16..24].copy_from_slice(&self.segment.to_le_bytes());
        header[24..32].copy_from_slice(&self.random.to_le_bytes());
        header[32..40].copy_from_slice(&self.end_before.to_le_bytes());
        header[40..48].copy_from_slice(&self.sequence_before.to_le_bytes());
        header[48..56].copy_from_slice(&self.batch_before.to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        let mut block = vec![0; BLOCK_BYTES];
        for at in COPIES {
            block[at..at + HEADER_BYTES].copy_from_slice(&header);
        }
        block
    }
}

/// Judges the start of segment `id`; `bytes` should reach some way beyond the block.
pub(super) fn block(id: u64, bytes: &[u8]) -> Block {
    let mut foreign = None;
    for at in COPIES {
        let Some(header) = bytes.get(at..at + HEADER_BYTES) else { continue };
        let sound = !CHECKS || u32_at(header, 60) == crc32c::crc32c(&header[..60]);
        if !sound || &header[..8] != MAGIC || u64_at(header, 16) != id {
            continue;
        }
        match u32_at(header, 8) {
            VERSION => {
                return Block::Used(Header {
                    segment: id,
                    random: u64_at(header, 24),
                    end_before: u64_at(header, 32),
                    sequence_before: u64_at(header, 40),
                    batch_before: u64_at(header, 48),
                });
            }
            version => foreign = Some(version),
        }
    }
    // A header is written into a file of full length, and may be torn there. A file that ends inside its
    // block is half created and holds zeros, or it was in use and has lost its end.
    let unused = bytes.get(BLOCK_BYTES..).unwrap_or(bytes);
    match (foreign, is_zero(unused)) {
        (Some(version), _) => Block::Foreign(version),
        (None, true) => Block::Blank,
        (None, false) => Block::Broken,
    }
}

/// True if every byte is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

/// File name of a segment.
pub(super) fn name(id: u64) -> String {
    format!("{id:020}.wal")
}

/// The segment of a file name; none for other files. Numbers that no log reaches are other files.
pub(super) fn id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let id = (digits.len() == 20).then(|| digits.parse().ok()).flatten()?;
    (1..=u64::MAX / 2).contains(&id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        segment: 3,
        random: 0x0123_4567_89ab_cdef,
        end_before: 5000,
        sequence_before: 17,
        batch_before: 9,
    };

    #[test]
    fn either_copy_of_the_header_is_enough() {
        let block_bytes = HEADER.block();
        assert_eq!(block(3, &block_bytes), Block::Used(HEADER));
        for at in COPIES {
            let mut bytes = block_bytes.clone();
            bytes[at + 30] ^= 1;
            assert_eq!(block(3, &bytes), Block::Used(HEADER));
        }
    }

    #[test]
    fn without_a_header_what_follows_decides() {
        let mut bytes = HEADER.block();
        COPIES.iter().for_each(|at| bytes[at + 30] ^= 1);
        bytes.resize(3 * BLOCK_BYTES, 0);
        assert_eq!(block(3, &bytes), Block::Blank);
        bytes[2 * BLOCK_BYTES] = 1;
        assert_eq!(block(3, &bytes), Block::Broken);
        assert_eq!(block(3, &[]), Block::Blank);
        assert_eq!(block(3, &[0; 20]), Block::Blank);
        assert_eq!(block(3, &HEADER.block()[..20]), Block::Broken);
    }

    #[test]
    fn a_header_in_another_file_or_version_does_not_count() {
        assert_eq!(block(4, &HEADER.block()), Block::Blank);
        let mut bytes = HEADER.block();
        for at in COPIES {
            bytes[at + 8] = 2;
            let crc = crc32c::crc32c(&bytes[at..at + 60]);
            bytes[at + 60..at + 64].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(block(3, &bytes), Block::Foreign(2));
    }

    #[test]
    fn names_are_exact() {
        assert_eq!(name(7), "00000000000000000007.wal");
        assert_eq!(id(&name(7)), Some(7));
        for other in [
            "7.wal",
            "lock",
            "0000000000000000000x.wal",
            "00000000000000000007.wal~",
            &name(0),
            &name(u64::MAX),
        ] {
            assert_eq!(id(other), None, "{other}");
        }
    }
}
