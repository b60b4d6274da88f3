//! How much room there is: on the disk of the data folder, as `df` counts it, and in a table.

use crate::faults;
use crate::storage;
use std::io;
use std::path::Path;

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// These and what is taken. What is kept for others (the superuser, another quota) counts as neither, or a disk
    /// would never be seen to be full.
    pub size_bytes: u64,
}

impl Space {
    /// Of the disk of a folder.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        let taken = disk.f_blocks.saturating_sub(disk.f_bfree);
        Ok(Self::counted(taken, disk.f_bavail, disk.f_frsize))
    }

    fn counted(taken: u64, free: u64, block_bytes: u64) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(block_bytes);
        Self { free_bytes: bytes(free), size_bytes: bytes(taken.saturating_add(free)) }
    }

    /// How much is taken, in percent; none of a disk without room for anything.
    pub fn taken_percent(&self) -> Option<u32> {
        let taken = self.size_bytes.saturating_sub(self.free_bytes);
        let percent = (u128::from(taken) * 100).checked_div(u128::from(self.size_bytes))?;
        Some(percent as u32)
    }
}

/// Bytes that a table may grow to. A test may have a node believe another number.
pub fn map_bytes_max() -> u64 {
    let planted = faults::planted("report");
    let lines = planted.iter().flat_map(|text| text.lines());
    let named = lines.filter_map(|line| line.strip_prefix("map_bytes_max="));
    let other = named.filter_map(|number| number.parse().ok()).next();
    other.unwrap_or(storage::TABLE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_others_is_neither_taken_nor_free() {
        let space = Space::counted(60, 40, 4_096);
        assert_eq!((space.free_bytes, space.size_bytes), (40 * 4_096, 100 * 4_096));
        assert_eq!(space.taken_percent(), Some(60));
        assert_eq!(Space::counted(60, 0, 4_096).taken_percent(), Some(100));
        assert_eq!(Space::counted(0, 0, 4_096).taken_percent(), None);
        let here = Space::of(&std::env::temp_dir()).unwrap();
        assert!(here.free_bytes <= here.size_bytes && here.size_bytes > 0);
        assert!(Space::of(Path::new("/nowhere")).is_err());
    }
}
