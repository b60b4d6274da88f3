//! The file of contexts: where it is, reading it with a bound, and replacing it as a whole.
//!
//! It holds no secret, but it says which key goes to which cluster and what is protected: nobody else may write it.

use super::Contexts;
use crate::types::{Code, Error, Result};
use rustix::fs::FlockOperation;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The variable that names another file.
pub const FILE_ENV: &str = "PPDB_CONTEXTS";
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Others may not write it.
const OTHERS_WRITE: u32 = 0o022;
/// How long another change of the file is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Between two attempts to lock it.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Where the file is: `PPDB_CONTEXTS`, else in the user's configuration folder; none without a home.
pub fn path(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = get(FILE_ENV).filter(|path| !path.as_os_str().is_empty()) {
        return Some(named);
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let folder = get("XDG_CONFIG_HOME").filter(absolute);
    let folder = folder.or_else(|| get("HOME").filter(absolute).map(|home| home.join(".config")));
    folder.map(|folder| folder.join("ppdb/contexts.toml"))
}

fn own() -> Option<PathBuf> {
    path(|name| std::env::var_os(name).map(PathBuf::from))
}

/// The contexts of this user; none if there is no file.
pub fn read() -> Result<Contexts> {
    own().map_or_else(|| Ok(Contexts::default()), |path| read_at(&path))
}

/// Changes the contexts of this user: all of what `change` does is kept, or nothing. Answers where they are.
pub fn update(change: impl FnOnce(&mut Contexts) -> Result<()>) -> Result<PathBuf> {
    let path = own().ok_or_else(|| {
        Error::new(
            Code::BadConfig,
            format!("there is no home folder; {FILE_ENV} names the file of contexts"),
        )
    })?;
    update_at(&path, change)?;
    Ok(path)
}

/// Reads the file at `path`.
pub fn read_at(path: &Path) -> Result<Contexts> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Contexts::default()),
        Err(error) => return Err(bad(path, error)),
    };
    let mode = file.metadata().map_err(|error| bad(path, error))?.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        let cure = path.display();
        return Err(bad(
            path,
            format!("mode {mode:04o} lets others write it; run `chmod 600 {cure}`"),
        ));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| bad(path, error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(bad(path, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let contexts: Contexts = toml::from_str(&text).map_err(|error| bad(path, error))?;
    contexts.checked().map_err(|error| bad(path, error.message))
}

/// Changes the file at `path`, one at a time.
pub fn update_at(path: &Path, change: impl FnOnce(&mut Contexts) -> Result<()>) -> Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| bad(folder, e))?;
    let locked = File::open(folder).map_err(|error| bad(folder, error))?;
    lock(&locked, folder)?;
    let mut contexts = read_at(path)?;
    change(&mut contexts)?;
    let contexts = contexts.checked()?;
    let text = toml::to_string(&contexts).map_err(|error| bad(path, error))?;
    replace(path, folder, &text).map_err(|error| bad(path, error))?;
    locked.sync_all().map_err(|error| bad(folder, error))
}

/// The lock goes with the open folder.
fn lock(folder: &File, named: &Path) -> Result<()> {
    let until = Instant::now() + LOCK_WAIT;
    while let Err(error) = rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK || Instant::now() >= until {
            return Err(bad(named, format!("it is being changed by another program ({error})")));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}

fn replace(path: &Path, folder: &Path, text: &str) -> std::io::Result<()> {
    let beside = folder.join(format!(".contexts.{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        // What is left over would only be in the way.
        let _ = fs::remove_file(&beside);
    })
}

fn bad(path: &Path, why: impl ToString) -> Error {
    Error::new(
        Code::BadConfig,
        format!("contexts in {}: {}", path.display(), why.to_string().trim_end()),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Color, Context};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn found(pairs: &[(&str, &str)]) -> Option<PathBuf> {
        path(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
    }

    fn add(path: &Path, name: &str) -> Result<()> {
        let context = Context {
            endpoints: vec!["a:1".into(), "[::1]:2".into()],
            cert: Some("/with \"quotes\"/c.crt".into()),
            protected: true,
            color: Some(Color::Magenta),
            ..Context::default()
        };
        update_at(path, |all| {
            all.contexts.insert(name.to_owned(), context);
            Ok(())
        })
    }

    #[test]
    fn the_variable_wins_over_the_usual_folders() {
        let home = ("HOME", "/home/ann");
        assert_eq!(found(&[home]), Some("/home/ann/.config/ppdb/contexts.toml".into()));
        assert_eq!(found(&[home, ("XDG_CONFIG_HOME", "/c")]), Some("/c/ppdb/contexts.toml".into()));
        assert_eq!(found(&[home, (FILE_ENV, "/f")]), Some("/f".into()));
        assert_eq!(found(&[("HOME", "relative")]), None);
    }

    #[test]
    fn what_is_written_is_read_again_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/contexts.toml");
        assert_eq!(read_at(&path).unwrap(), Contexts::default());
        add(&path, "prod").unwrap();
        add(&path, "test").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let all = read_at(&path).unwrap();
        assert_eq!(all.contexts.keys().collect::<Vec<_>>(), ["prod", "test"]);
        let prod = all.get("prod").unwrap();
        assert_eq!((prod.protected, prod.color), (true, Some(Color::Magenta)));
        assert_eq!(prod.cert, Some("/with \"quotes\"/c.crt".into()));
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn a_change_that_fails_leaves_the_file_as_it_was_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("contexts.toml"), folder.path().join("link"));
        add(&path, "prod").unwrap();
        let before = fs::read_to_string(&path).unwrap();
        let refused = update_at(&path, |all| {
            all.contexts.clear();
            Err(Error::new(Code::BadRequest, "no"))
        });
        assert_eq!(refused.unwrap_err().code, Code::BadRequest);
        assert_eq!(add(&path, "no name").unwrap_err().code, Code::BadConfig);
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, "test").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read_at(&path).unwrap().contexts.len(), 2);
    }

    #[test]
    fn a_file_that_others_may_write_or_that_is_damaged_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        let refused = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_at(&path).unwrap_err();
            assert_eq!(error.code, Code::BadConfig);
            error.message
        };
        assert!(refused("version = 1\n", 0o666).contains("chmod 600"));
        assert!(refused("version = 2\n", 0o600).contains("version 2"));
        assert!(refused("version = 1\ncurrent = 'x'\n", 0o600).contains("`x` does not exist"));
        assert!(refused("version = 1\nprod = 1\n", 0o600).contains("unknown field"));
        assert!(
            refused("version = 1\n[contexts.a]\nendpoints = []\n", 0o600).contains("no endpoint")
        );
        assert!(refused("version = ", 0o600).contains("contexts.toml"));
        let long = format!("version = 1\n#{}\n", "x".repeat(FILE_BYTES_MAX as usize));
        assert!(refused(&long, 0o600).contains("longer than"));
    }

    #[test]
    fn two_changes_at_a_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("contexts.toml");
        std::thread::scope(|scope| {
            for i in 0..8 {
                let path = &path;
                scope.spawn(move || add(path, &format!("c{i}")).unwrap());
            }
        });
        assert_eq!(read_at(&path).unwrap().contexts.len(), 8);
    }
}
