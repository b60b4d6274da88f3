//! One file of the twin: what is synced, what is only seen, and what a power cut makes of the difference.

const SECTOR_BYTES: usize = 512;

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing that was not synced is there.
    DropAll,
    /// Everything is there.
    KeepAll,
    /// Each write is there or not.
    Writes,
    /// Each sector of each write is there or not.
    Sectors,
    /// Each write is there up to some byte.
    Bytes,
    /// As `Sectors`, and some sectors that were never written before hold garbage.
    Garbage,
}

impl Cut {
    pub(super) const ALL: [Cut; 6] =
        [Cut::DropAll, Cut::KeepAll, Cut::Writes, Cut::Sectors, Cut::Bytes, Cut::Garbage];
}

/// Small and seeded (splitmix64): the same everywhere and for ever.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }
}

/// What has not been synced, in order.
#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    durable: Vec<u8>,
    pub cached: Vec<u8>,
    pending: Vec<Pending>,
}

impl Inode {
    /// Writes what is dirty, and only that.
    pub fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write(offset, data) => put(&mut self.durable, offset, &data),
                Pending::Length(bytes) => self.durable.resize(bytes, 0),
            }
        }
    }

    /// The dirty pages are marked clean, though they never reached the disk.
    pub fn sync_failed(&mut self) {
        self.pending.clear();
    }

    pub fn write(&mut self, offset: usize, data: &[u8]) {
        put(&mut self.cached, offset, data);
        self.pending.push(Pending::Write(offset, data.to_vec()));
    }

    pub fn resize(&mut self, bytes: usize) {
        self.cached.resize(bytes, 0);
        self.pending.push(Pending::Length(bytes));
    }

    /// What the platter holds after the cut.
    pub fn cut(&mut self, cut: Cut, dice: &mut Dice) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Length(bytes) => {
                    if cut == Cut::KeepAll || (cut != Cut::DropAll && dice.below(2) == 0) {
                        self.durable.resize(bytes, 0);
                    }
                }
                Pending::Write(offset, data) => tear(&mut self.durable, offset, &data, cut, dice),
            }
        }
        self.cached.clone_from(&self.durable);
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

fn tear(durable: &mut Vec<u8>, offset: usize, data: &[u8], cut: Cut, dice: &mut Dice) {
    match cut {
        Cut::DropAll => {}
        Cut::KeepAll => put(durable, offset, data),
        Cut::Writes => {
            if dice.below(2) == 0 {
                put(durable, offset, data);
            }
        }
        Cut::Bytes => {
            let kept = dice.below(data.len() as u64 + 1) as usize;
            put(durable, offset, &data[..kept]);
        }
        Cut::Sectors | Cut::Garbage => {
            let (mut start, end) = (offset, offset + data.len());
            while start < end {
                let sector_end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let stop = sector_end.min(end);
                // A sector is written as a whole or not at all, so one that holds something may keep it
                // or take the new bytes; only one that was never written can hold anything.
                let fresh = durable.get(start..stop).is_none_or(|old| old.iter().all(|b| *b == 0));
                let fresh = fresh && stop - start == SECTOR_BYTES;
                match dice.below(4) {
                    0 | 1 => put(durable, start, &data[start - offset..stop - offset]),
                    2 if fresh && cut == Cut::Garbage => {
                        let garbage: Vec<u8> =
                            (0..SECTOR_BYTES).map(|_| dice.roll() as u8).collect();
                        put(durable, start, &garbage);
                    }
                    _ => {}
                }
                start = stop;
            }
        }
    }
}

impl Inode {
    /// Flips a bit at rest, under the nose of everybody.
    pub fn flip(&mut self, offset: usize, bit: u32) {
        for bytes in [&mut self.cached, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}
