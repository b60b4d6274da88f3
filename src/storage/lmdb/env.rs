//! Opening LMDB and telling its refusals apart. The one place with unsafe code in the product.

use crate::storage::{Error, Space};
use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls};
use std::path::Path;

/// A database of byte strings.
pub(super) type Db = heed::Database<'static, Bytes, Bytes>;

/// Readers at a time. A read transaction takes a slot for as long as it lives; threads bound their number.
const READERS_MAX: u32 = 1_024;
/// The map is reserved in steps of this, which is a multiple of every page size in use.
const MAP_STEP_BYTES: usize = 64 << 10;
/// Names of the databases: one for each space in stored order, and the table's own records.
const NAMES: [&str; 5] = ["data", "expiry", "sessions", "meta", "table"];

/// The databases of a table.
#[derive(Clone, Copy)]
pub(super) struct Dbs([Db; 5]);

impl Dbs {
    /// The database of a space.
    pub fn of(&self, space: Space) -> Db {
        self.0[space as usize]
    }

    /// The database of the table's own records.
    pub fn own(&self) -> Db {
        self.0[4]
    }
}

/// What is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The folder of a generation, for reading and writing.
    Table,
    /// A file that is a complete copy and that nobody writes, for reading only.
    Copy,
}

/// Opens an environment. Durability is LMDB's default: data fdatasynced, then the meta page written through
/// an `O_DSYNC` descriptor, on every commit.
#[allow(unsafe_code)]
pub(super) fn open(path: &Path, map_bytes: usize, kind: Kind) -> Result<Env<WithoutTls>, Error> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    let map_bytes = map_bytes.max(1).checked_next_multiple_of(MAP_STEP_BYTES).unwrap_or(map_bytes);
    options.map_size(map_bytes).max_dbs(NAMES.len() as u32).max_readers(READERS_MAX);
    // SAFETY: the file is mapped, so whoever changes it behind LMDB's back changes memory that is borrowed.
    // These are the duties, and who does them:
    // - One process has the table open: `Home` holds an exclusive lock on the store's folder, and heed
    //   refuses a path that is open already in this process.
    // - Nobody but LMDB writes the file or its lock file while it is open: `Home` alone names files in
    //   there; a generation is placed before it is opened and never written by path after. Growing a file
    //   that LMDB left shorter than its last page number (`cover_pages`) changes no byte that exists.
    // - Nobody truncates the file: generations are unlinked whole, which leaves the mapping intact.
    // - No remote file system: said in the documentation of the data folder.
    // - The environment is never resized while it is open; a larger map is a new generation.
    // - Flags: none of NO_SYNC, NO_META_SYNC, WRITE_MAP, MAP_ASYNC. NO_LOCK only for a private copy that
    //   is complete and has no writer, together with READ_ONLY.
    // - A write transaction begins and ends on one thread: it never leaves `LmdbTable::write`.
    // - Readers are not left behind by this process: transactions are values that end when dropped, and
    //   LMDB clears the slots of a dead process when it opens the table alone.
    let env = unsafe {
        if kind == Kind::Copy {
            options.flags(EnvFlags::READ_ONLY | EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK);
        }
        options.open(path)
    };
    env.map_err(|error| refused(format!("open {}", path.display()), error))
}

/// Creates the databases of an empty table; `first` writes the table's first own records in the same
/// transaction.
pub(super) fn create(
    env: &Env<WithoutTls>,
    first: impl FnOnce(&mut RwTxn<'_>, heed::Database<'_, Bytes, Bytes>) -> heed::Result<()>,
) -> Result<Dbs, Error> {
    let made = env.write_txn().and_then(|txn| {
        env.create_databases_and_commit(txn, |opener, txn| {
            let mut create = |i: usize| opener.create_database::<Bytes, Bytes>(txn, Some(NAMES[i]));
            let dbs = [create(0)?, create(1)?, create(2)?, create(3)?, create(4)?];
            first(txn, dbs[4])?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(dbs))
        })
    });
    match made.map_err(|error| refused("create databases", error))?.commit() {
        Some(dbs) => Ok(Dbs(dbs)),
        None => Err(Error::Lmdb("creating databases was given up".into())),
    }
}

/// Opens the databases of a table; one that is missing is damage.
pub(super) fn databases(env: &Env<WithoutTls>) -> Result<Dbs, Error> {
    let txn = begin(env)?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let open = |i: usize| opener.open_database::<Bytes, Bytes>(txn, Some(NAMES[i]));
        let dbs = [open(0)?, open(1)?, open(2)?, open(3)?, open(4)?];
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(dbs))
    });
    match opened.map_err(|e| refused("open databases", e))?.commit() {
        Some([Some(a), Some(b), Some(c), Some(d), Some(e)]) => Ok(Dbs([a, b, c, d, e])),
        _ => Err(Error::corrupt("table", "a database is missing")),
    }
}

/// Begins a read transaction.
pub(super) fn begin(env: &Env<WithoutTls>) -> Result<RoTxn<'_, WithoutTls>, Error> {
    env.read_txn().map_err(|error| refused("begin reading", error))
}

/// Bytes that the file must have for every page of the table to be readable.
///
/// LMDB may leave the file shorter (pages that a transaction took and gave back at its end are not
/// written), but a shorter file can also be a cut one, and reading a mapped page beyond the end of its file
/// kills the process.
pub(super) fn bytes_needed(env: &Env<WithoutTls>) -> u64 {
    let page_bytes = u64::from(env.unnamed_database_stat().page_size);
    (env.info().last_page_number as u64).saturating_add(1).saturating_mul(page_bytes)
}

/// Bytes of the pages that the databases hold, LMDB's own included.
pub(super) fn bytes_used(env: &Env<WithoutTls>, dbs: &Dbs) -> Result<u64, Error> {
    /// The two meta pages, and a few for the list of free ones.
    const OWN_PAGES: u64 = 8;
    let txn = begin(env)?;
    let main = env.unnamed_database_stat();
    let page_bytes = u64::from(main.page_size);
    let pages =
        |stat: heed::DatabaseStat| stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
    let mut sum = OWN_PAGES + pages(main) as u64;
    for db in dbs.0 {
        sum += pages(db.stat(&txn).map_err(|e| refused("count pages", e))?) as u64;
    }
    Ok(sum * page_bytes)
}

/// Tells LMDB's refusals apart, before they turn into text.
pub(super) fn refused(what: impl Into<String>, error: heed::Error) -> Error {
    use MdbError::{Corrupted, Incompatible, Invalid, MapFull, PageNotFound, VersionMismatch};
    let what = what.into();
    match error {
        heed::Error::Io(error) => Error::io(what, error),
        heed::Error::Mdb(MapFull) => {
            Error::NoSpace(format!("{what}: the map of the table is full"))
        }
        heed::Error::Mdb(
            e @ (Corrupted | PageNotFound | Invalid | VersionMismatch | Incompatible),
        ) => Error::corrupt(what, e.to_string()),
        other => Error::Lmdb(format!("{what}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error as IoError;

    #[test]
    fn refusals_keep_their_meaning() {
        let class = |error| match refused("x", error) {
            Error::NoSpace(_) => "space",
            Error::Corrupt { .. } => "corrupt",
            Error::Io { .. } => "io",
            Error::Lmdb(_) => "lmdb",
        };
        assert_eq!(class(heed::Error::Mdb(MdbError::MapFull)), "space");
        let os = |code| heed::Error::Io(IoError::from_raw_os_error(code));
        for full in [28 /* ENOSPC */, 122 /* EDQUOT */, 27 /* EFBIG */] {
            assert_eq!(class(os(full)), "space", "{full}");
        }
        assert_eq!(class(os(5)), "io");
        for damage in [MdbError::Corrupted, MdbError::PageNotFound, MdbError::Invalid] {
            assert_eq!(class(heed::Error::Mdb(damage)), "corrupt");
        }
        for other in [MdbError::Panic, MdbError::ReadersFull, MdbError::TxnFull] {
            assert_eq!(class(heed::Error::Mdb(other)), "lmdb");
        }
        assert_eq!(class(heed::Error::EnvAlreadyOpened), "lmdb");
    }
}
