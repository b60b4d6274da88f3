//! The fence against coordinators that were replaced: the highest (operation, turn) a shard has seen.
//!
//! A record of the shard's own state and the one rule about it. It is raised by an entry of the shard's
//! log, so every copy has it, a snapshot carries it, and a leader that takes over knows it.

use super::records::{V1, u64s};
use crate::storage::{self, Space, View, Writer};
use bytes::{BufMut, Bytes, BytesMut};

/// Key of the record in `Space::Meta`.
pub const FENCE_KEY: &[u8] = b"fence";

/// An operation of the journal and the turn of its direction. Ordered: a later operation is higher, and so
/// is a later turn of the same one. Zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    /// Number of the operation.
    pub operation: u64,
    /// The step at which its direction was chosen last.
    pub turn: u64,
}

impl Fence {
    /// The stored form: version, operation, turn.
    pub fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        out.put_u8(V1);
        out.put_u64(self.operation);
        out.put_u64(self.turn);
        out.freeze()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, storage::Error> {
        let [operation, turn] = u64s(bytes, "fence")?;
        Ok(Self { operation, turn })
    }

    /// The highest fence that a view shows.
    pub fn highest(view: &dyn View) -> Result<Self, storage::Error> {
        let stored = view.get(Space::Meta, FENCE_KEY)?;
        stored.map_or(Ok(Self::default()), |bytes| Self::decode(&bytes))
    }

    /// Makes this the highest fence, if it is not lower than the one there is: false, and nothing changes,
    /// if it is.
    pub fn raise(self, writer: &mut Writer<'_>) -> Result<bool, storage::Error> {
        let highest = Self::highest(writer)?;
        if self > highest {
            writer.put(Space::Meta, FENCE_KEY, self.encode());
        }
        Ok(self >= highest)
    }
}

impl From<(u64, u64)> for Fence {
    fn from((operation, turn): (u64, u64)) -> Self {
        Self { operation, turn }
    }
}

impl From<Fence> for (u64, u64) {
    fn from(fence: Fence) -> Self {
        (fence.operation, fence.turn)
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {}, turn {}", self.operation, self.turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_keeps_its_bytes() {
        let fence = Fence { operation: 0x0102, turn: 3 };
        let bytes = [0x10, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(&fence.encode()[..], bytes);
        assert_eq!(Fence::decode(&bytes).unwrap(), fence);
        assert_eq!(FENCE_KEY, b"fence");
        for bad in [&bytes[..16], &[0x20; 17], &[0x10; 18], &[]] {
            assert!(Fence::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_operation_counts_before_the_turn() {
        let fence = |operation, turn| Fence { operation, turn };
        assert!(fence(2, 1) > fence(1, 9));
        assert!(fence(2, 2) > fence(2, 1));
        assert!(fence(0, 1) > Fence::default());
        assert_eq!(Fence::from((4, 5)), fence(4, 5));
        assert_eq!(<(u64, u64)>::from(fence(4, 5)), (4, 5));
    }
}
