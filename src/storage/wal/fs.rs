//! The file layer under the log: a seam, and the real one.
//!
//! The log reaches the disk only through these two traits, so a twin can lose power under the real code.
//! Nothing here knows what the bytes mean.

use crate::faults;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One folder of segment files.
pub trait WalFs: Send + Sync + 'static {
    /// Names of the files in the folder, in any order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates a file (or replaces one of the same name) of `bytes` zeros whose blocks are allocated and
    /// written, so that writes inside it need no change of the inode. The content is durable on return,
    /// the name is not before `sync_dir`. `rest` is called after each part; if it fails, there is no file.
    fn create(&self, name: &str, bytes: u64, rest: &Rest<'_>) -> io::Result<Arc<dyn WalFile>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>>;

    /// Removes a file; durable after `sync_dir`. Open handles go on working.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, which no other file has; durable after `sync_dir`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes names that were created, removed or changed durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// A random number, for the salt of a segment.
    fn random(&self) -> u64;
}

/// Hears how long a part of a new file took to write and how many bytes are left, and may take its time; an error gives
/// the file up.
pub type Rest<'a> = dyn Fn(Duration, u64) -> io::Result<()> + 'a;

/// One segment file.
pub trait WalFile: Send + Sync {
    /// Bytes of the file.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills the buffer from `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. May be lost, torn or reordered until `sync` returned.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Lengthens the file to `bytes` with zeros, as `create` does; durable on return.
    fn grow(&self, bytes: u64) -> io::Result<()>;

    /// Cuts the file to `bytes`.
    fn shorten(&self, bytes: u64) -> io::Result<()>;

    /// fdatasync: everything written so far is durable on return. After an error nothing is known about
    /// what reached the disk, ever.
    fn sync(&self) -> io::Result<()>;
}

/// The folder on a real disk. It is locked against a second log, in this or another process.
pub struct DiskFs {
    dir: PathBuf,
    /// The lock goes when the file is closed.
    _lock: File,
}

/// Bytes written between two fdatasyncs while a segment is prepared, so that the log's own fdatasync does
/// not queue behind a whole segment of zeros.
const FILL_BYTES: usize = 1 << 20;

impl DiskFs {
    /// Opens the folder, creating it if it is missing, and locks it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let missing: Vec<&Path> = dir
            .ancestors()
            .take_while(|dir| !dir.as_os_str().is_empty() && !dir.is_dir())
            .collect();
        std::fs::create_dir_all(dir)?;
        // The name of a new folder is durable once the folder above it is synced.
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            let here = parent.as_os_str().is_empty();
            File::open(if here { Path::new(".") } else { parent })?.sync_all()?;
        }
        let lock = options().create(true).truncate(false).open(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "the log is open elsewhere"))
            }
        }
    }
}

/// Segment files hold users' data: nobody else may read them.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl WalFs for DiskFs {
    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, name: &str, bytes: u64, rest: &Rest<'_>) -> io::Result<Arc<dyn WalFile>> {
        let path = self.dir.join(name);
        faults::disk_full()?;
        let file = options().create(true).truncate(true).open(&path)?;
        match fill(&file, 0, bytes, rest) {
            Ok(()) => Ok(Arc::new(DiskFile(file))),
            Err(error) => {
                // On a full disk half a segment would only take space from others.
                let _ = std::fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn WalFile>> {
        Ok(Arc::new(DiskFile(options().open(self.dir.join(name))?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

struct DiskFile(File);

/// Allocates and writes zeros from `from` to `to`. Allocation alone would leave extents that the file
/// system has to convert, with a journal commit, on the first fdatasync after each write into them.
fn fill(file: &File, from: u64, to: u64, rest: &Rest<'_>) -> io::Result<()> {
    if from < to {
        use rustix::{fs, io::Errno};
        match fs::fallocate(file, fs::FallocateFlags::empty(), from, to - from) {
            // Some file systems cannot; the zeros allocate as well, only less contiguously.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let zeros = vec![0; FILL_BYTES];
    let mut at = from;
    while at < to {
        let (bytes, began) = ((to - at).min(FILL_BYTES as u64), Instant::now());
        file.write_all_at(&zeros[..bytes as usize], at)?;
        file.sync_data()?;
        at += bytes;
        rest(began.elapsed(), to - at)?;
    }
    file.sync_all()
}

impl WalFile for DiskFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn grow(&self, bytes: u64) -> io::Result<()> {
        faults::disk_full()?;
        // A record waits for this.
        fill(&self.0, self.bytes()?, bytes, &|_, _| Ok(()))
    }

    fn shorten(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        faults::fsync()?;
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep").join("wal");
        let first = DiskFs::open(&path).unwrap();
        assert_eq!(DiskFs::open(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        DiskFs::open(&path).unwrap();
    }

    #[test]
    fn files_are_allocated_zeros_and_private() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let fs = DiskFs::open(dir.path()).unwrap();
        let file = fs.create("a", 100_000, &|_, _| Ok(())).unwrap();
        let meta = std::fs::metadata(dir.path().join("a")).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (100_000, 0o600));
        assert!(meta.blocks() * 512 >= 100_000);
        file.write_at(99_990, b"0123456789").unwrap();
        file.grow(200_000).unwrap();
        let mut tail = [9; 20];
        fs.open("a").unwrap().read_at(99_990, &mut tail).unwrap();
        assert_eq!(&tail, b"0123456789\0\0\0\0\0\0\0\0\0\0");
        assert!(file.read_at(199_990, &mut tail).is_err());
        file.shorten(10).unwrap();
        assert_eq!(file.bytes().unwrap(), 10);
        fs.rename("a", "b").unwrap();
        assert!(fs.open("a").is_err());
        fs.remove("b").unwrap();
        assert!(fs.open("b").is_err());
    }

    #[test]
    fn a_file_is_written_in_parts_and_given_up_when_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let fs = DiskFs::open(dir.path()).unwrap();
        let parts = std::cell::Cell::new(0);
        let bytes = 2 * FILL_BYTES as u64 + 1;
        let count = |_, left| {
            assert_eq!(left, [bytes - FILL_BYTES as u64, 1, 0][parts.replace(parts.get() + 1)]);
            Ok(())
        };
        assert_eq!(fs.create("a", bytes, &count).unwrap().bytes().unwrap(), bytes);
        assert_eq!(parts.get(), 3);
        let closed = |_, _| Err(io::ErrorKind::Interrupted.into());
        assert!(fs.create("b", bytes, &closed).is_err());
        assert!(!fs.list().unwrap().contains(&"b".to_owned()));
    }
}
