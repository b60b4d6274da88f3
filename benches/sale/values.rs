//! The data that is switched: keys, and for each of them a size that its values always have.
//!
//! Pure: decides sizes and cuts values; stores nothing. Sizes are spread log-uniformly, so that each doubling from
//! the smallest to the largest has as many keys as the others, and the large ones most of the bytes.

use crate::random::Random;
use bytes::Bytes;

/// The smallest value.
pub const VALUE_BYTES_MIN: usize = 128;
/// The largest one.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Values are cut out of so many bytes that look random, wherever they begin, so that none costs a copy.
const NOISE_BYTES: usize = 1 << 20;

/// Keys by number, and their values.
pub struct Values {
    sizes: Vec<u32>,
    noise: Bytes,
}

impl Values {
    /// As many keys as it takes until their values come to `total_bytes`.
    pub fn new(total_bytes: u64) -> Self {
        let mut random = Random::new(1);
        let (mut sizes, mut sum_bytes) = (Vec::new(), 0);
        while sum_bytes < total_bytes {
            let size = size_at(share(&mut random));
            sum_bytes += size as u64;
            sizes.push(size as u32);
        }
        let words = (0..NOISE_BYTES / 8).flat_map(|_| random.next().to_le_bytes());
        Self { sizes, noise: words.collect::<Vec<u8>>().into() }
    }

    /// How many keys there are.
    pub fn keys(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(*size)).sum()
    }

    /// A number of a key, all equally likely.
    pub fn any(&self, random: &mut Random) -> usize {
        (random.next() % self.sizes.len() as u64) as usize
    }

    /// The key of this number.
    pub fn key(&self, number: usize) -> Bytes {
        format!("sale:{number:012}").into()
    }

    /// Bytes that each value of this key has.
    pub fn size(&self, number: usize) -> usize {
        self.sizes[number] as usize
    }

    /// A value for this key.
    pub fn value(&self, number: usize, random: &mut Random) -> Bytes {
        let size = self.size(number);
        let at = (random.next() % (NOISE_BYTES - size) as u64) as usize;
        self.noise.slice(at..at + size)
    }
}

/// The size below which this share of the keys lies.
pub fn size_at(share: f64) -> usize {
    let (min, max) = (VALUE_BYTES_MIN as f64, VALUE_BYTES_MAX as f64);
    (min * (max / min).powf(share)).round() as usize
}

/// From 0 up to 1.
fn share(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}
