//! Which operations are sampled: one in so many, at random, counted by each thread for itself.

use std::cell::Cell;

thread_local! {
    /// Operations that this thread passes by before the next one it samples, and its random numbers.
    static SAMPLER: Cell<Sampler> = const { Cell::new(Sampler { one_in: 0, skip: 0, random: 0 }) };
}

#[derive(Clone, Copy)]
struct Sampler {
    /// What `skip` was drawn for.
    one_in: u32,
    skip: u32,
    random: u32,
}

impl Sampler {
    /// A random number below that.
    fn random(&mut self, below: u32) -> u32 {
        if self.random == 0 {
            self.random = rand::random::<u32>() | 1;
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random % below.max(1)
    }

    /// How many of so many operations are passed by before the first one that is sampled; none if all are.
    fn pass(&mut self, one_in: u32, count: usize) -> Option<usize> {
        if self.one_in != one_in {
            self.one_in = one_in;
            self.skip = self.random(2 * one_in - 1);
        }
        let skip = self.skip as usize;
        match skip < count {
            true => {
                // At random, or what repeats would be sampled always or never.
                self.skip = self.random(2 * one_in - 1);
                Some(skip)
            }
            false => {
                self.skip -= count as u32;
                None
            }
        }
    }
}

/// How many of so many operations are passed by before the first one of the sample; none if all are.
pub fn pass(one_in: u32, count: usize) -> Option<usize> {
    let mut sampler = SAMPLER.get();
    let skipped = sampler.pass(one_in, count);
    SAMPLER.set(sampler);
    skipped
}

/// A random number below that.
pub fn draw(below: u32) -> u32 {
    let mut sampler = SAMPLER.get();
    let drawn = sampler.random(below);
    SAMPLER.set(sampler);
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(sampler: &mut Sampler, one_in: u32, requests: usize, size: usize) -> usize {
        let mut sampled = 0;
        for _ in 0..requests {
            let mut left = size;
            while let Some(skipped) = sampler.pass(one_in, left) {
                sampled += 1;
                left -= skipped + 1;
            }
        }
        sampled
    }

    #[test]
    fn one_in_so_many_is_sampled_and_one_in_one_is_everything() {
        let mut sampler = Sampler { one_in: 0, skip: 0, random: 7 };
        for size in [1, 3, 64] {
            assert_eq!(sampled(&mut sampler, 1, 1_000, size), 1_000 * size);
            let share = sampled(&mut sampler, 100, 1_000_000 / size, size);
            assert!((9_500..=10_500).contains(&share), "{share} of a million, {size} each");
        }
        // What was drawn for a coarse sample does not hold a finer one up.
        let _ = sampled(&mut sampler, 1_000_000, 1, 1);
        assert_eq!(sampled(&mut sampler, 1, 10, 1), 10);
    }
}
