//! The in-memory twin of the LMDB table, for unit tests and simulation.
//!
//! It stores the same envelopes, refuses what LMDB refuses (a full map, a foreign file) and forgets
//! everything when it is dropped. Its copies are files of a format of their own.

use super::overlay::Overlay;
use super::table::{Compacted, Replacement, Snapshot, Table, Visit, lower_bound};
use super::{Applied, Error, Options, Space, record};
use bytes::Bytes;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// First bytes of a copy.
const MAGIC: &[u8; 8] = b"PPDBMEM1";

/// A table that lives as long as its last handle.
pub(super) struct MemoryTable {
    content: RwLock<Arc<Content>>,
    bytes_max: usize,
}

/// One committed state: envelopes by space and key.
#[derive(Clone, Default)]
struct Content {
    spaces: [BTreeMap<Box<[u8]>, Bytes>; 4],
    applied: Applied,
    bytes: usize,
}

impl Content {
    fn set(&mut self, space: Space, key: &[u8], stored: Option<Bytes>) {
        let records = &mut self.spaces[space as usize];
        let cost = |stored: &Bytes| key.len() + stored.len();
        self.bytes += stored.as_ref().map_or(0, cost);
        let old = match stored {
            Some(stored) => records.insert(key.into(), stored),
            None => records.remove(key),
        };
        self.bytes -= old.as_ref().map_or(0, cost);
    }

    fn value(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let Some(stored) = self.spaces[space as usize].get(key) else { return Ok(None) };
        record::open(space as u8, key, stored)?;
        Ok(Some(stored.slice(record::HEADER_BYTES..)))
    }
}

impl MemoryTable {
    /// An empty table.
    pub fn new(options: &Options) -> Self {
        Self::with(Content::default(), options)
    }

    fn with(content: Content, options: &Options) -> Self {
        Self { content: RwLock::new(Arc::new(content)), bytes_max: options.map_bytes }
    }

    fn state(&self) -> Arc<Content> {
        Arc::clone(&self.content.read())
    }
}

impl Table for MemoryTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.content.read().value(space, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(self.state()))
    }

    fn write(&self, overlay: &Overlay, applied: &Applied) -> Result<(), Error> {
        let mut content = Content::clone(&self.state());
        for space in Space::ALL {
            for (key, value) in overlay.records(space) {
                let sealed = value.as_ref().map(|value| record::seal(space as u8, key, value));
                content.set(space, key, sealed.map(Bytes::from));
            }
        }
        if content.bytes > self.bytes_max {
            return Err(Error::NoSpace(format!("the table is full: {} bytes", self.bytes_max)));
        }
        content.applied = applied.clone();
        *self.content.write() = Arc::new(content);
        Ok(())
    }

    fn records(&self, space: Space) -> Result<u64, Error> {
        Ok(self.state().spaces[space as usize].len() as u64)
    }

    fn disk_bytes(&self) -> u64 {
        self.state().bytes as u64
    }

    fn copy_to(&self, file: &Path) -> Result<Applied, Error> {
        let content = self.state();
        let written = write_copy(&content, file);
        written.map_err(|error| {
            let _ = std::fs::remove_file(file);
            Error::io(format!("copy to {}", file.display()), error)
        })?;
        Ok(content.applied.clone())
    }

    fn replace(&self, file: &Path, options: &Options) -> Result<Replacement, Error> {
        let name = file.display().to_string();
        let bytes = std::fs::read(file).map_err(|e| Error::io(&name, e))?;
        let content = read_copy(&bytes)
            .ok_or_else(|| Error::corrupt(&name, "not a whole copy of an in-memory table"))?;
        std::fs::remove_file(file).map_err(|e| Error::io(&name, e))?;
        let applied = content.applied.clone();
        let table = Arc::new(Self::with(content, options));
        Ok(Replacement { table, applied, unsynced: None })
    }

    fn rebuild(&self, options: &Options) -> Result<Replacement, Error> {
        let content = Content::clone(&self.state());
        let applied = content.applied.clone();
        let table = Arc::new(Self::with(content, options));
        Ok(Replacement { table, applied, unsynced: None })
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        Ok(0)
    }

    fn compacted(&self) -> Result<Option<Compacted>, Error> {
        // It has no gaps.
        Ok(None)
    }

    fn retire(&self) {}

    fn destroy(&self) -> Result<(), Error> {
        *self.content.write() = Arc::default();
        Ok(())
    }

    #[cfg(test)]
    fn write_stored(&self, space: Space, key: &[u8], stored: &[u8]) {
        let mut content = Content::clone(&self.state());
        content.set(space, key, Some(Bytes::copy_from_slice(stored)));
        *self.content.write() = Arc::new(content);
    }
}

impl Snapshot for Arc<Content> {
    fn applied(&self) -> Result<Applied, Error> {
        Ok(self.applied.clone())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.value(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let range = (lower_bound(prefix, after), Bound::Unbounded);
        for (key, stored) in self.spaces[space as usize].range::<[u8], _>(range) {
            if !key.starts_with(prefix)
                || visit(key, record::open(space as u8, key, stored)?).is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

fn write_copy(content: &Content, file: &Path) -> std::io::Result<()> {
    let mut out = Vec::from(&MAGIC[..]);
    let mut part = |bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    part(&postcard::to_allocvec(&content.applied).map_err(std::io::Error::other)?);
    for space in Space::ALL {
        for (key, stored) in &content.spaces[space as usize] {
            part(&[space as u8]);
            part(key);
            part(stored);
        }
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    let mut file = std::fs::File::create(file)?;
    file.write_all(&out)?;
    file.sync_all()
}

fn read_copy(bytes: &[u8]) -> Option<Content> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut part = || {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (part, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = tail;
        Some(part)
    };
    let mut content =
        Content { applied: record::applied_from_bytes(part()?).ok()?, ..Content::default() };
    while let Some(space) = part() {
        let space = *Space::ALL.get(usize::from(*space.first()?))?;
        let (key, stored) = (part()?, part()?);
        content.set(space, key, Some(Bytes::copy_from_slice(stored)));
    }
    Some(content)
}
