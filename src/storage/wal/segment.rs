//! A segment file: its name, and the block at its start that says where it continues from.
//!
//! The block is durable before the first batch of the segment is written, so a valid block proves that
//! everything before it was durable. It holds the header twice, 2,048 bytes apart: one bad sector does
//! not take the salt, without which no record could be read.
//!
//! A segment that nobody needs is used again instead of writing a file of zeros: its block then holds a mark, laid
//! out as a header, until it gets the header. What is left behind the mark has the salt of another segment. The mark
//! tells the random number that the header will have, so that a header which was lost later is missed.
//!
//! ```text
//!  0 magic "ppdbwal\0"   8 version  12 zero  16 segment  24 random  32 end of the segment before
//! 40 last sequence before  48 last batch before  56 zero  60 crc
//! ```

use super::record::{self, CHECKS, Salt, u32_at, u64_at};

/// Bytes before the first batch.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Where the copies of the header lie in the block.
const COPIES: [usize; 2] = [0, 2048];
const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"ppdbwal\0";
/// The same of a mark.
const MARK: &[u8; 8] = b"ppdbnew\0";
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
    /// It is to be used again: a mark, and leftovers of another segment behind it.
    Emptied {
        /// For the salt.
        random: u64,
    },
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
        self.written_as(MAGIC)
    }

    fn written_as(&self, magic: &[u8; 8]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(magic);
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

/// The block that makes a file with leftovers an empty segment.
pub(super) fn mark(id: u64, random: u64) -> Vec<u8> {
    let [end_before, sequence_before, batch_before] = [0; 3];
    Header { segment: id, random, end_before, sequence_before, batch_before }.written_as(MARK)
}

/// Judges the start of segment `id`; `bytes` should reach some way beyond the block.
pub(super) fn block(id: u64, bytes: &[u8]) -> Block {
    let (mut foreign, mut emptied) = (None, None);
    for at in COPIES {
        let Some(header) = bytes.get(at..at + HEADER_BYTES) else { continue };
        let sound = !CHECKS || u32_at(header, 60) == crc32c::crc32c(&header[..60]);
        let is_mark = &header[..8] == MARK;
        if !sound || !(is_mark || &header[..8] == MAGIC) || u64_at(header, 16) != id {
            continue;
        }
        match u32_at(header, 8) {
            VERSION if is_mark => emptied = Some(u64_at(header, 24)),
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
    match (foreign, emptied) {
        (Some(version), _) => Block::Foreign(version),
        (None, Some(random)) => {
            let salt = Salt { segment: id, random };
            match record::head(bytes, BLOCK_BYTES, salt) {
                Some(_) => Block::Broken,
                None => Block::Emptied { random },
            }
        }
        (None, None) if is_zero(unused) => Block::Blank,
        (None, None) => Block::Broken,
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

/// File name of what is no segment any more and not yet another one.
pub(super) const SPARE: &str = "spare";

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
    fn a_mark_empties_what_is_behind_it_until_a_record_of_its_salt_is_there() {
        let random = 77;
        let mut bytes = mark(3, random);
        bytes.resize(2 * BLOCK_BYTES, 0xa5);
        assert_eq!(block(3, &bytes), Block::Emptied { random });
        assert_eq!(block(4, &bytes), Block::Broken, "a mark of another segment");
        for at in COPIES {
            bytes[at + 30] ^= 1;
            let expected = if at == 0 { Block::Emptied { random } } else { Block::Broken };
            assert_eq!(block(3, &bytes), expected);
        }

        let place = |salt| record::Place { salt, base: BLOCK_BYTES as u64, batch: 1 };
        for (salt, expected) in [
            (Salt { segment: 2, random }, Block::Emptied { random }),
            (Salt { segment: 3, random: 78 }, Block::Emptied { random }),
            (Salt { segment: 3, random }, Block::Broken),
        ] {
            let mut bytes = mark(3, random);
            let mut records = Vec::new();
            record::write_batch(&mut records, place(salt), 0, 64, 0);
            bytes.extend(records);
            assert_eq!(block(3, &bytes), expected, "{salt:?}");
        }

        // As the header is written over it.
        let torn = [&HEADER.block()[..2048], &mark(3, random)[2048..]].concat();
        assert_eq!(block(3, &torn), Block::Used(HEADER));
        let torn = [&mark(3, random)[..2048], &HEADER.block()[2048..]].concat();
        assert_eq!(block(3, &torn), Block::Used(HEADER));
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
