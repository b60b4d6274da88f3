//! The folder of a store: which generation of the table is the current one, and how another takes over.
//!
//! ```text
//! LOCK          held exclusively while the store is open
//! CURRENT       names the generation: "ppdb-table 1 gen 7 crc32c 0a1b2c3d\n"
//! gen-7/        data.mdb and lock.mdb of LMDB
//! staging/      what is being prepared (also staging.mdb); worthless after a crash
//! ```
//! A generation is complete before it is renamed to `gen-N`, and becomes the current one by the rename of
//! `CURRENT`. So after a crash at any point either the old or the new one is opened, and whatever else lies
//! there is removed. Nothing here knows LMDB.

use crate::faults::{self, Point};
use crate::storage::{Error, reclaim};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The data file inside a generation; the name is LMDB's.
pub(super) const DATA: &str = "data.mdb";
/// Held exclusively while the store is open.
const LOCK: &str = "LOCK";
/// What the folder of a destroyed store is called until it is gone.
const REMOVED_SUFFIX: &str = ".removed";
/// Version of the folder's layout.
const LAYOUT: &str = "ppdb-table 1";

/// A store's folder, locked against a second opener.
pub(super) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Creates the folder if it is missing and locks it.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        make_dir(dir)?;
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
        let name = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&name);
        let lock = lock.map_err(at(&name))?;
        lock.try_lock().map_err(|error| at(&name)(error.into()))?;
        Ok(Self { dir: dir.to_owned(), _lock: lock })
    }

    /// The folder of a generation.
    pub fn generation(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("gen-{generation}"))
    }

    /// The generation that `CURRENT` names; none if there is no such file.
    pub fn current(&self) -> Result<Option<u64>, Error> {
        let name = self.dir.join("CURRENT");
        match fs::read(&name) {
            Ok(text) => match parse_current(&text) {
                Some(generation) => Ok(Some(generation)),
                None => Err(Error::corrupt(name.display().to_string(), "it names no generation")),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&name)(error)),
        }
    }

    /// Whether any generation is there.
    pub fn has_generations(&self) -> Result<bool, Error> {
        Ok(self.names()?.iter().any(|name| name.starts_with("gen-")))
    }

    /// An empty folder to prepare a generation in.
    pub fn stage(&self) -> Result<PathBuf, Error> {
        let staging = self.dir.join("staging");
        remove(&staging)?;
        make_dir(&staging)?;
        Ok(staging)
    }

    /// A file beside the generations that is worthless after a crash.
    pub fn scratch_file(&self) -> PathBuf {
        self.dir.join("staging.mdb")
    }

    /// Turns what was staged into a generation that is complete and durable, but not the current one. Whatever lies
    /// in the store's folder is durable under its name when this returns.
    pub fn place(&self, generation: u64) -> Result<PathBuf, Error> {
        let (staging, placed) = (self.dir.join("staging"), self.generation(generation));
        remove(&placed)?;
        sync_data(&staging.join(DATA))?;
        sync_dir(&staging)?;
        faults::pass(Point::TablePlace)?;
        fs::rename(&staging, &placed).map_err(at(&placed))?;
        sync_dir(&self.dir)?;
        faults::pass(Point::TablePlaced)?;
        Ok(placed)
    }

    /// Makes a placed generation the current one. `Err` outside: it is not. `Err` inside: it is, but a power
    /// loss may bring back the one before.
    pub fn switch(&self, generation: u64) -> Result<Result<(), Error>, Error> {
        let (fresh, current) = (self.dir.join("CURRENT.new"), self.dir.join("CURRENT"));
        let mut file = File::options();
        let file = file.create(true).truncate(true).write(true).mode(0o600).open(&fresh);
        file.and_then(|mut file| {
            file.write_all(format_current(generation).as_bytes())?;
            file.sync_all()
        })
        .map_err(at(&fresh))?;
        faults::pass(Point::TableSwitch)?;
        fs::rename(&fresh, &current).map_err(at(&current))?;
        Ok(faults::pass(Point::TableSwitched)
            .map_err(Error::from)
            .and_then(|()| sync_dir(&self.dir)))
    }

    /// Removes everything but the generation `keep`.
    pub fn sweep(&self, keep: u64) -> Result<(), Error> {
        let kept = format!("gen-{keep}");
        for name in self.names()? {
            let ours =
                ["gen-", "staging", "CURRENT.new"].iter().any(|start| name.starts_with(start));
            if ours && name != kept {
                remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes a generation.
    pub fn remove_generation(&self, generation: u64) -> Result<(), Error> {
        remove(&self.generation(generation))
    }

    /// Removes the folder. It is renamed first: a crash in the middle leaves a name that no store has.
    pub fn destroy(&self) -> Result<(), Error> {
        let mut name = self.dir.file_name().unwrap_or_default().to_owned();
        name.push(REMOVED_SUFFIX);
        let away = self.dir.with_file_name(name);
        remove(&away)?;
        fs::rename(&self.dir, &away).map_err(at(&self.dir))?;
        if let Some(parent) = self.dir.parent() {
            sync_dir(parent)?;
        }
        remove(&away)
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        names(&self.dir)
    }
}

/// Removes the folder of a store that is not opened again, and all that is in it.
pub fn remove_store(dir: &Path) -> std::io::Result<()> {
    let lock = File::open(dir.join(LOCK)).ok();
    let mut files = Vec::new();
    let inside = fs::read_dir(dir)?.flatten();
    for data in inside.map(|entry| entry.path().join(DATA)) {
        files.extend(File::options().write(true).open(data));
    }
    fs::remove_dir_all(dir)?;
    if let Some(lock) = lock {
        reclaim::shrink(files, move |wait| becomes_free(&lock, wait));
    }
    Ok(())
}

/// Waits at most so long until the store that holds the lock is closed.
fn becomes_free(lock: &File, wait: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(50);
    let until = Instant::now() + wait;
    loop {
        if lock.try_lock().is_ok() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Removes what is left of stores in `parent` whose removal was interrupted by a crash.
pub fn sweep_removed(parent: &Path) -> Result<(), Error> {
    for name in names(parent)? {
        if name.ends_with(REMOVED_SUFFIX) {
            remove(&parent.join(name))?;
        }
    }
    Ok(())
}

/// Makes the entries of a folder durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    // The parent of a relative path of one part is the empty path, which means the working directory.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    sync_file(dir)
}

/// Makes a file durable.
pub(super) fn sync_file(file: &Path) -> Result<(), Error> {
    let synced = File::open(file).and_then(|file| {
        faults::fsync()?;
        file.sync_all()
    });
    synced.map_err(at(file))
}

/// Makes a file's content durable; next to nothing if it is.
fn sync_data(file: &Path) -> Result<(), Error> {
    let synced = File::open(file).and_then(|file| {
        faults::fsync()?;
        file.sync_data()
    });
    synced.map_err(at(file))
}

/// Moves a file into a folder as `DATA`, over the border of a file system if it must.
pub(super) fn move_in(file: &Path, staging: &Path) -> Result<(), Error> {
    let data = staging.join(DATA);
    match fs::rename(file, &data) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            fs::copy(file, &data).map_err(at(&data))?;
            sync_file(&data)?;
            fs::remove_file(file).map_err(at(file))
        }
        moved => moved.map_err(at(file)),
    }
}

/// Names the file in an error of the operating system.
pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |error| Error::io(path.display().to_string(), error)
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let name = |entry: std::io::Result<fs::DirEntry>| entry.map(|e| e.file_name());
    let names = entries.map(name).collect::<Result<Vec<_>, _>>().map_err(at(dir))?;
    // A name that is not UTF-8 is none of ours.
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn format_current(generation: u64) -> String {
    let body = format!("{LAYOUT} gen {generation} crc32c ");
    format!("{body}{:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn parse_current(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let rest = text.strip_prefix(LAYOUT)?.strip_prefix(" gen ")?;
    let generation = rest.split_once(' ')?.0.parse().ok()?;
    (format_current(generation) == text).then_some(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_keeps_its_bytes() {
        let golden = "ppdb-table 1 gen 7 crc32c 679606f1\n";
        assert_eq!(format_current(7), golden);
        assert_eq!(parse_current(golden.as_bytes()), Some(7));
        for bit in 0..golden.len() * 8 {
            let mut broken = golden.as_bytes().to_vec();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_current(&broken), None, "bit {bit}");
        }
        assert_eq!(parse_current(b""), None);
        assert_eq!(parse_current(&golden.as_bytes()[..20]), None);
    }

    #[test]
    fn the_files_of_a_removed_store_shrink_once_it_is_closed() {
        const BYTES: u64 = 20 << 20;
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("c1");
        let home = Home::open(&store).unwrap();
        fs::create_dir(home.generation(1)).unwrap();
        let data = File::create(home.generation(1).join(DATA)).unwrap();
        data.set_len(BYTES).unwrap();
        let bytes = || data.metadata().unwrap().len();
        remove_store(&store).unwrap();
        assert!(!store.exists());
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(bytes(), BYTES, "it is open");
        drop(home);
        let until = Instant::now() + Duration::from_secs(20);
        while bytes() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(bytes(), 0);
        assert_eq!(remove_store(&store).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_has_one_owner() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("c1")).unwrap();
        assert!(Home::open(&dir.path().join("c1")).is_err());
        drop(home);
        assert!(Home::open(&dir.path().join("c1")).is_ok());
    }

    #[test]
    fn an_interrupted_removal_is_finished_later() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("c1.removed/gen-1")).unwrap();
        fs::create_dir_all(dir.path().join("c2")).unwrap();
        sweep_removed(dir.path()).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["c2"]);
    }
}
