//! The history file: what people typed, which nobody else may read.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Lines kept.
pub const LINES_MAX: usize = 1_000;

/// Where the history is: `PPDB_HISTFILE`, else in the user's state folder; none without a home, or if the
/// variable is empty.
pub fn file(get: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(named) = get("PPDB_HISTFILE") {
        return Some(named).filter(|path| !path.as_os_str().is_empty());
    }
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = get("XDG_STATE_HOME").filter(absolute);
    let state =
        state.or_else(|| get("HOME").filter(absolute).map(|home| home.join(".local/state")));
    state.map(|state| state.join("ppdb/history"))
}

/// Makes the file if it is not there, and takes every right of others away.
pub fn prepare(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other(format!("{} is not a file", path.display())));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Option<PathBuf> {
        file(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value)))
    }

    #[test]
    fn the_variable_wins_and_an_empty_one_means_none() {
        let home = ("HOME", "/home/ann");
        assert_eq!(found(&[home]), Some("/home/ann/.local/state/ppdb/history".into()));
        assert_eq!(found(&[home, ("XDG_STATE_HOME", "/s")]), Some("/s/ppdb/history".into()));
        assert_eq!(found(&[home, ("PPDB_HISTFILE", "/h")]), Some("/h".into()));
        assert_eq!(found(&[home, ("PPDB_HISTFILE", "")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/history");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        fs::write(&path, "get a\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "get a\n");
        assert!(prepare(Path::new("/dev/null")).is_err());
    }
}
