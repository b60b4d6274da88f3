//! The table in LMDB: one environment for each copy, one database for each space.
//!
//! Writes come in big sorted transactions with LMDB's default durability. What the environment's file must
//! not suffer is in `env`; which file is the current one is in `home`.
//!
//! Values are stored whole: up to the 1 MiB that a value may have, a run of contiguous pages is found by a
//! search that LMDB bounds, and the file grows where it fails. Pages of what was deleted stay in the file, and
//! are used again unless a reader that began before still sees them: while one is open, the file grows by what
//! flushes write. `Store::compact` takes the gaps out.

mod env;
mod home;

pub use home::{remove_store, sweep_removed};

use super::digest::{Digest, DigestReader};
use super::overlay::Overlay;
use super::table::{Compacted, Replacement, Snapshot, Table, Visit, lower_bound};
use super::{Applied, Error, Options, Space, reclaim, record};
use crate::faults::{self, Point};
use bytes::Bytes;
use env::{Db, Dbs, Kind, refused};
use heed::{CompactionOption, Env, MdbError, RoTxn, RwTxn, WithoutTls};
use home::{DATA, Home, at};
use std::fs::File;
use std::io::{Seek, Write};
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One generation of a store's table.
pub(super) struct LmdbTable {
    env: Env<WithoutTls>,
    dbs: Dbs,
    home: Arc<Home>,
    generation: u64,
}

impl LmdbTable {
    /// Opens the current generation in `dir`, or creates the first one. What a crash left over is removed.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let home = Arc::new(Home::open(dir)?);
        let Some(generation) = home.current()? else { return Self::create(home, options) };
        let table = Self::open_generation(&home, generation, options)?;
        home.sweep(generation)?;
        Ok(table)
    }

    /// A store that was never opened has no `CURRENT` and at most the empty generation of an attempt that
    /// was cut short. A generation with content and no `CURRENT` is damage, and nothing to build upon.
    fn create(home: Arc<Home>, options: &Options) -> Result<Self, Error> {
        const FIRST: u64 = 1;
        if home.has_generations()? {
            let leftover = Self::open_generation(&home, FIRST, options)?;
            if leftover.applied()? != Applied::default() {
                let what = home.generation(FIRST).display().to_string();
                return Err(Error::corrupt(what, "there is a table, but no CURRENT that names it"));
            }
        }
        let staging = home.stage()?;
        let env = env::open(&staging, options.map_bytes, Kind::Table)?;
        let applied = record::applied_to_bytes(&Applied::default())?;
        env::create(&env, |txn, own| {
            put_own(txn, own, record::KEY_FORMAT, &record::TABLE_FORMAT.to_le_bytes())?;
            put_own(txn, own, record::KEY_APPLIED, &applied)
        })?;
        // Closed here, because it is opened again under its final name.
        drop(env);
        home.place(FIRST)?;
        let table = Self::open_generation(&home, FIRST, options)?;
        home.switch(FIRST)??;
        Ok(table)
    }

    fn open_generation(
        home: &Arc<Home>,
        generation: u64,
        options: &Options,
    ) -> Result<Self, Error> {
        let dir = home.generation(generation);
        let data = dir.join(DATA);
        // LMDB would make a fresh table where the file is missing or empty.
        let found = std::fs::metadata(&data).map_or(0, |meta| meta.len());
        if found == 0 {
            return Err(Error::corrupt(data.display().to_string(), "the file is missing or empty"));
        }
        let env = env::open(&dir, options.map_bytes, Kind::Table)?;
        cover_pages(&env, &data)?;
        let dbs = env::databases(&env)?;
        let table = Self { env, dbs, home: Arc::clone(home), generation };
        check_format(&*env::begin(&table.env)?, dbs.own())?;
        Ok(table)
    }

    fn applied(&self) -> Result<Applied, Error> {
        read_applied(&*env::begin(&self.env)?, self.dbs.own())
    }

    /// Digest of a complete copy that nobody writes.
    fn digest_of(&self, file: &Path) -> Result<Digest, Error> {
        let env = env::open(file, 1, Kind::Copy)?;
        let dbs = env::databases(&env)?;
        let txn = env.static_read_txn().map_err(|e| refused("begin reading", e))?;
        let snapshot = LmdbSnapshot { txn, dbs, _home: Arc::clone(&self.home) };
        DigestReader::new(Box::new(snapshot))?.scan(&mut || ())
    }

    fn data_file(&self) -> PathBuf {
        self.home.generation(self.generation).join(DATA)
    }

    /// A full disk shows itself to LMDB as a short write, which it reports as a plain I/O error. What the
    /// file system has left tells the two apart.
    fn was_disk_full(&self, error: &Error, bytes: usize) -> bool {
        let Error::Io { error, .. } = error else { return false };
        let Ok(disk) = rustix::fs::statvfs(self.home.generation(self.generation)) else {
            return false;
        };
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        is_short_write(error, free_bytes, bytes as u64)
    }

    fn write_all(&self, overlay: &Overlay, applied: &[u8]) -> heed::Result<()> {
        // The transaction begins and ends in here: LMDB's writer lock belongs to the thread that took it.
        let mut txn = self.env.write_txn()?;
        for space in Space::ALL {
            let db = self.dbs.of(space);
            for (key, value) in overlay.records(space) {
                match value {
                    Some(value) => put(&mut txn, db, space as u8, key, value)?,
                    None => drop(db.delete(&mut txn, key)?),
                }
            }
        }
        put_own(&mut txn, self.dbs.own(), record::KEY_APPLIED, applied)?;
        faults::fsync().and_then(|()| Ok(faults::pass(Point::FlushCommit)?))?;
        txn.commit()
    }
}

impl Table for LmdbTable {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        get(&*env::begin(&self.env)?, self.dbs.of(space), space as u8, key)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        let txn = self.env.clone().static_read_txn().map_err(|e| refused("begin reading", e))?;
        Ok(Box::new(LmdbSnapshot { txn, dbs: self.dbs, _home: Arc::clone(&self.home) }))
    }

    fn write(&self, overlay: &Overlay, applied: &Applied) -> Result<(), Error> {
        faults::disk_full().map_err(|error| Error::io("flush", error))?;
        let encoded = record::applied_to_bytes(applied)?;
        self.write_all(overlay, &encoded).map_err(|error| {
            let error = refused("flush", error);
            match self.was_disk_full(&error, overlay.size().bytes) {
                true => Error::NoSpace(format!("{error}; the disk is full")),
                false => error,
            }
        })
    }

    fn records(&self, space: Space) -> Result<u64, Error> {
        let txn = env::begin(&self.env)?;
        self.dbs.of(space).len(&txn).map_err(|e| refused("count", e))
    }

    fn disk_bytes(&self) -> u64 {
        // Blocks, not length: the file may have holes. A block here is 512 bytes by definition.
        std::fs::metadata(self.data_file()).map_or(0, |meta| meta.blocks() * 512)
    }

    fn copy_to(&self, file: &Path) -> Result<Applied, Error> {
        faults::disk_full().map_err(|error| Error::io("copy", error))?;
        let copied = copy(&self.env, file);
        if copied.is_err() {
            let _ = std::fs::remove_file(file);
        }
        copied
    }

    fn replace(&self, file: &Path, options: &Options) -> Result<Replacement, Error> {
        inspect(file)?;
        let generation = self.generation + 1;
        let staging = self.home.stage()?;
        home::move_in(file, &staging)?;
        self.home.place(generation)?;
        let table = Self::open_generation(&self.home, generation, options)?;
        #[cfg(debug_assertions)]
        planted::damage(&table);
        let applied = table.applied()?;
        // From here on the other table is the one that a restart opens, whatever is returned.
        let unsynced = self.home.switch(generation)?.err();
        Ok(Replacement { table: Arc::new(table), applied, unsynced })
    }

    fn rebuild(&self, options: &Options) -> Result<Replacement, Error> {
        let file = self.home.scratch_file();
        self.copy_to(&file)?;
        self.replace(&file, options)
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        let used = env::bytes_used(&self.env, &self.dbs)?;
        Ok(self.disk_bytes().saturating_sub(used))
    }

    fn compacted(&self) -> Result<Option<Compacted>, Error> {
        let file = self.home.scratch_file();
        let reader = DigestReader::new(self.snapshot()?)?;
        let made = self.copy_to(&file).and_then(|applied| {
            if applied.pos != reader.pos() {
                return Ok(None);
            }
            let (found, expected) = (self.digest_of(&file)?, reader.scan(&mut || ())?);
            match found == expected {
                true => Ok(Some(Compacted { file: file.clone(), applied })),
                false => {
                    Err(Error::corrupt(file.display().to_string(), "it is not what was copied"))
                }
            }
        });
        if !matches!(made, Ok(Some(_))) {
            let _ = std::fs::remove_file(&file);
        }
        made
    }

    fn retire(&self) {
        let data = File::options().write(true).open(self.data_file());
        // What stays is removed when the store is opened next.
        if let Err(error) = self.home.remove_generation(self.generation) {
            return tracing::warn!(%error, "the files of a replaced table stay until the next start");
        }
        // Snapshots may still read it.
        let closing = self.env.clone().prepare_for_closing();
        reclaim::shrink(data.into_iter().collect(), move |wait| closing.wait_timeout(wait));
    }

    fn destroy(&self) -> Result<(), Error> {
        self.home.destroy()
    }

    #[cfg(test)]
    fn write_stored(&self, space: Space, key: &[u8], stored: &[u8]) {
        let mut txn = self.env.write_txn().unwrap();
        self.dbs.of(space).put(&mut txn, key, stored).unwrap();
        txn.commit().unwrap();
    }
}

/// Damage to the first record of a table, where a test asks for it.
#[cfg(debug_assertions)]
mod planted {
    use super::{LmdbTable, Space};

    pub fn damage(table: &LmdbTable) {
        let Some(what) = crate::faults::planted("installed-table") else { return };
        let db = table.dbs.of(Space::Data);
        let damaged = table.env.write_txn().and_then(|mut txn| {
            if let Some((key, stored)) = db.first(&txn)? {
                let (key, mut stored) = (key.to_vec(), stored.to_vec());
                match what.as_str() {
                    "lose" => drop(db.delete(&mut txn, &key)?),
                    _ => {
                        stored.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
                        db.put(&mut txn, &key, &stored)?;
                    }
                }
            }
            txn.commit()
        });
        tracing::warn!(what, ok = damaged.is_ok(), "damage was planted in a table");
    }
}

struct LmdbSnapshot {
    txn: RoTxn<'static, WithoutTls>,
    dbs: Dbs,
    /// The transaction keeps the environment open, so the folder stays locked as long.
    _home: Arc<Home>,
}

impl Snapshot for LmdbSnapshot {
    fn applied(&self) -> Result<Applied, Error> {
        read_applied(&self.txn, self.dbs.own())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        get(&self.txn, self.dbs.of(space), space as u8, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let range = (lower_bound(prefix, after), Bound::Unbounded);
        let range = self.dbs.of(space).range(&self.txn, &range).map_err(|e| refused("scan", e))?;
        let mut last: Option<&[u8]> = None;
        for item in range {
            let (key, stored) = item.map_err(|e| refused("scan", e))?;
            // Pages that lead back to themselves would be walked for ever.
            if last.is_some_and(|last| last >= key) {
                let detail = format!("{} does not come after its neighbour", key.escape_ascii());
                return Err(Error::corrupt("order of keys", detail));
            }
            last = Some(key);
            if !key.starts_with(prefix) {
                break;
            }
            if visit(key, record::open(space as u8, key, stored)?) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

fn get(txn: &RoTxn<'_>, db: Db, space: u8, key: &[u8]) -> Result<Option<Bytes>, Error> {
    // LMDB has no empty key and refuses to look for it.
    if key.is_empty() {
        return Ok(None);
    }
    match db.get(txn, key).map_err(|e| refused("get", e))? {
        Some(stored) => Ok(Some(Bytes::copy_from_slice(record::open(space, key, stored)?))),
        None => Ok(None),
    }
}

/// Writes the envelope straight into the page.
fn put(
    txn: &mut RwTxn<'_>,
    db: heed::Database<'_, heed::types::Bytes, heed::types::Bytes>,
    space: u8,
    key: &[u8],
    value: &[u8],
) -> heed::Result<()> {
    let header = record::header(space, key, value);
    db.put_reserved(txn, key, header.len() + value.len(), |out| {
        out.write_all(&header)?;
        out.write_all(value)
    })
}

fn put_own(
    txn: &mut RwTxn<'_>,
    own: heed::Database<'_, heed::types::Bytes, heed::types::Bytes>,
    key: &[u8],
    value: &[u8],
) -> heed::Result<()> {
    put(txn, own, record::OWN, key, value)
}

fn read_own(txn: &RoTxn<'_>, own: Db, key: &[u8]) -> Result<Bytes, Error> {
    get(txn, own, record::OWN, key)?
        .ok_or_else(|| Error::corrupt("table", format!("it has no record {}", key.escape_ascii())))
}

fn read_applied(txn: &RoTxn<'_>, own: Db) -> Result<Applied, Error> {
    record::applied_from_bytes(&read_own(txn, own, record::KEY_APPLIED)?)
}

fn check_format(txn: &RoTxn<'_>, own: Db) -> Result<(), Error> {
    record::check_table_format(&read_own(txn, own, record::KEY_FORMAT)?)
}

/// Makes the file long enough for all of its pages. Where it was cut, zeros read as damage (no page, no
/// checksum) instead of killing the process.
fn cover_pages(env: &Env<WithoutTls>, data: &Path) -> Result<(), Error> {
    let needed = env::bytes_needed(env);
    let file = File::options().write(true).open(data).map_err(at(data))?;
    let found = file.metadata().map_err(at(data))?.len();
    if found < needed { file.set_len(needed).map_err(at(data)) } else { Ok(()) }
}

/// Copies an environment to a file: compacted, or as it is where LMDB has lost track of a page.
fn copy(env: &Env<WithoutTls>, file: &Path) -> Result<Applied, Error> {
    let mut out = File::options();
    let out = out.read(true).write(true).create(true).truncate(true).mode(0o600).open(file);
    let mut out = out.map_err(at(file))?;
    let copied = match env.copy_to_file(&mut out, CompactionOption::Enabled) {
        Err(heed::Error::Mdb(MdbError::Incompatible)) => {
            out.set_len(0).and_then(|()| out.rewind()).map_err(at(file))?;
            env.copy_to_file(&mut out, CompactionOption::Disabled)
        }
        copied => copied,
    };
    copied.map_err(|e| refused(format!("copy to {}", file.display()), e))?;
    let opened = env::open(file, 1, Kind::Copy)?;
    cover_pages(&opened, file)?;
    // What the copy reflects is read from the copy: it has a read transaction of its own.
    let dbs = env::databases(&opened)?;
    read_applied(&*env::begin(&opened)?, dbs.own())
}

/// Checks that a file is a whole table of ours. The length comes first: a page beyond the end of a file
/// cannot be looked at.
fn inspect(file: &Path) -> Result<(), Error> {
    let found = std::fs::metadata(file).map_err(at(file))?.len();
    if found == 0 {
        return Err(Error::corrupt(file.display().to_string(), "the file is empty"));
    }
    let opened = env::open(file, 1, Kind::Copy)?;
    let needed = env::bytes_needed(&opened);
    if found < needed {
        let detail = format!("{found} bytes of {needed}");
        return Err(Error::corrupt(file.display().to_string(), detail));
    }
    let dbs = env::databases(&opened)?;
    let txn = env::begin(&opened)?;
    check_format(&txn, dbs.own())?;
    read_applied(&txn, dbs.own()).map(drop)
}

/// A disk that has less left than a flush may write (pages are rewritten around each record) was full.
fn is_short_write(error: &std::io::Error, free_bytes: u64, overlay_bytes: u64) -> bool {
    const SLACK_BYTES: u64 = 1 << 20;
    let eio = rustix::io::Errno::IO.raw_os_error();
    error.raw_os_error() == Some(eio) && free_bytes < SLACK_BYTES + 4 * overlay_bytes
}

#[cfg(test)]
mod tests;
