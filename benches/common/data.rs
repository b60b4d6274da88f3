//! The keys and values that every system under test gets: the same ones, made before the clock runs.

use bytes::Bytes;

pub use crate::random::Random;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 128;
/// Different values; a power of two. Enough that none can be compressed away, few enough to stay in cache.
const VALUES: usize = 1_024;

/// Keys and values.
pub struct Data {
    /// All keys, 16 bytes each.
    pub keys: Vec<Bytes>,
    values: Vec<Bytes>,
}

impl Data {
    /// `keys` keys, and values that look random.
    pub fn new(keys: usize) -> Self {
        let mut random = Random::new(1);
        let value = |random: &mut Random| {
            let words = (0..VALUE_BYTES.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
            words.take(VALUE_BYTES).collect::<Vec<u8>>().into()
        };
        Self {
            keys: (0..keys).map(|i| format!("key:{i:012}").into()).collect(),
            values: (0..VALUES).map(|_| value(&mut random)).collect(),
        }
    }

    /// A key, all equally likely.
    pub fn key(&self, random: &mut Random) -> Bytes {
        self.keys[(random.next() % self.keys.len() as u64) as usize].clone()
    }

    /// A value.
    pub fn value(&self, random: &mut Random) -> Bytes {
        self.values[random.next() as usize % VALUES].clone()
    }
}
