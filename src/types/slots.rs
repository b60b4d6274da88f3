//! Which slot a key has and which slots a shard has: the Redis Cluster rule.
//!
//! slot = CRC16-XMODEM(key, or the part between the first `{` and the next `}` if not empty) mod 16384
//! (redis.io/docs, Cluster specification, "Key distribution model").

use super::ShardId;
use std::ops::Range;

/// Number of slots.
pub const SLOTS: u16 = 16_384;

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, b| (crc << 8) ^ TABLE[((crc >> 8) ^ *b as u16) as usize])
}

/// The slot of a key, 0 to 16383.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|b| *b == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// The shard of a slot when `shards` share the slots in contiguous ranges of equal size (+-1).
pub fn shard_of_slot(slot: u16, shards: u16) -> ShardId {
    ShardId((slot as u32 * shards as u32 / SLOTS as u32) as u16)
}

/// The shard of a key.
pub fn shard_of(key: &[u8], shards: u16) -> ShardId {
    shard_of_slot(slot_of(key), shards)
}

/// The slots of a shard.
pub fn slots_of(shard: ShardId, shards: u16) -> Range<u16> {
    let first = |s: u32| (s * SLOTS as u32).div_ceil(shards as u32) as u16;
    first(shard.0 as u32)..first(shard.0 as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_redis_rule() {
        // Values from the Redis Cluster specification and `redis-cli cluster keyslot`.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
    }

    #[test]
    fn shards_cover_every_slot_once() {
        for shards in [1u16, 3, 12, 64, 1000] {
            let mut next = 0;
            for s in 0..shards {
                let range = slots_of(ShardId(s), shards);
                assert_eq!(range.start, next);
                assert!(range.clone().all(|slot| shard_of_slot(slot, shards) == ShardId(s)));
                next = range.end;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
