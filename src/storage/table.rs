//! What lies under the overlay: an ordered table that is written in big, durable transactions.
//!
//! `lmdb` is the real one, `memory` its twin; one conformance suite holds for both.

use super::overlay::Overlay;
use super::{Applied, Error, Options, Space};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Called with keys and values in order; breaks to end the scan.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A durable, ordered table. Every value it hands out has passed its checksum.
pub(super) trait Table: Send + Sync {
    /// The value of a key in the last committed state.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Fixes the last committed state for reading. A snapshot that lives long makes the file grow.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;

    /// Writes the overlay and how far it reaches in one durable transaction: after an error nothing of
    /// it is there. One caller at a time.
    fn write(&self, overlay: &Overlay, applied: &Applied) -> Result<(), Error>;

    /// Records in a space.
    fn records(&self, space: Space) -> Result<u64, Error>;

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;

    /// Writes a complete copy to `file`, and tells what the copy reflects. It is not durable: most copies are gone
    /// before the disk has seen them. Who makes it a table makes it durable.
    /// Nothing is left under that name after an error.
    fn copy_to(&self, file: &Path) -> Result<Applied, Error>;

    /// Makes the table in `file`, which is consumed, the one that is opened from here on.
    /// After an error this table is the current one, also after a crash.
    fn replace(&self, file: &Path, options: &Options) -> Result<Replacement, Error>;

    /// The same for a compacted copy of this table itself.
    fn rebuild(&self, options: &Options) -> Result<Replacement, Error>;

    /// Bytes on disk that hold nothing: pages of what was deleted or overwritten, which the file keeps.
    fn free_bytes(&self) -> Result<u64, Error>;

    /// Writes a compacted copy to a file of its own and proves, record by record, that it holds what this table
    /// does; none if this table was written meanwhile. Neither readers nor the writer wait for it, but what is
    /// overwritten meanwhile takes new pages. Nothing is left after an error.
    fn compacted(&self) -> Result<Option<Compacted>, Error>;

    /// Deletes the files of a table that was replaced. Readers that have it open go on.
    fn retire(&self);

    /// Deletes everything, in a way that a crash in the middle cannot bring back half of it.
    fn destroy(&self) -> Result<(), Error>;

    /// Stores raw bytes, envelope included, as a fault in a page would.
    #[cfg(test)]
    fn write_stored(&self, space: Space, key: &[u8], stored: &[u8]);
}

/// One committed state of a table.
pub(super) trait Snapshot: Send {
    /// How far that state reaches.
    fn applied(&self) -> Result<Applied, Error>;

    /// The value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits the keys that start with `prefix` and lie after `after`, in order.
    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error>;
}

/// A table that took the place of another.
pub(super) struct Replacement {
    /// The new table.
    pub table: Arc<dyn Table>,
    /// What it reflects.
    pub applied: Applied,
    /// The switch was made, but is not known to be durable: the old files have to stay, and the node has to
    /// stop. It may come up with either table.
    pub unsynced: Option<Error>,
}

/// A compacted copy that was proven.
pub(super) struct Compacted {
    /// Where it is; worthless after a crash.
    pub file: PathBuf,
    /// What it reflects.
    pub applied: Applied,
}

/// Where a scan starts: at the prefix or behind `after`, whichever is later.
pub(super) fn lower_bound<'a>(prefix: &'a [u8], after: Option<&'a [u8]>) -> Bound<&'a [u8]> {
    match after {
        Some(after) if after >= prefix && !after.is_empty() => Bound::Excluded(after),
        _ if prefix.is_empty() => Bound::Unbounded,
        _ => Bound::Included(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_starts_at_the_later_of_prefix_and_after() {
        assert_eq!(lower_bound(b"", None), Bound::Unbounded);
        assert_eq!(lower_bound(b"", Some(b"")), Bound::Unbounded);
        assert_eq!(lower_bound(b"b", None), Bound::Included(&b"b"[..]));
        assert_eq!(lower_bound(b"b", Some(b"a")), Bound::Included(&b"b"[..]));
        assert_eq!(lower_bound(b"b", Some(b"b")), Bound::Excluded(&b"b"[..]));
        assert_eq!(lower_bound(b"b", Some(b"bz")), Bound::Excluded(&b"bz"[..]));
        assert_eq!(lower_bound(b"b", Some(b"c")), Bound::Excluded(&b"c"[..]));
    }
}
