//! Where a demo lives: its folder, the lock that keeps a second one away, and what an earlier one left.
//!
//! The lock is held by the file system for as long as this process lives, so a demo that was killed
//! never blocks the next one. Leftover nodes are recognized by what they are (`/proc/PID/exe`) and by the
//! data folder they were given; nothing else is ever killed.

use crate::types::{Code, Error, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::{Value as Json, json};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Marks a folder as a demo's, and remembers its ports.
const MARKER: &str = "demo.json";
/// How long the lock of a process that is just dying is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// How long killed leftovers may take to disappear.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The folder of a demo, held by this process.
#[derive(Debug)]
pub struct Place {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// True if it stays.
    pub keep: bool,
    _lock: File,
}

impl Place {
    /// Takes the place of this port offset, clearing away what a demo that died has left. Blocks for
    /// seconds at most.
    pub fn take(port_offset: u16, keep: Option<&Path>) -> Result<Self> {
        let name = format!("ppdb-demo-{}-{port_offset}", getuid().as_raw());
        let temporary = std::env::temp_dir();
        let lock = lock(&temporary.join(format!("{name}.lock")), port_offset)?;
        let dir = match keep {
            Some(dir) => std::path::absolute(dir).map_err(|e| failed(dir, &e))?,
            None => temporary.join(name),
        };
        kill_leftovers(&dir);
        match keep {
            Some(_) => kept(&dir, port_offset)?,
            None => fresh(&dir)?,
        }
        Ok(Self { dir, keep: keep.is_some(), _lock: lock })
    }

    /// Deletes the folder, unless it stays.
    pub fn leave(&self) -> Result<()> {
        if self.keep {
            return Ok(());
        }
        fs::remove_dir_all(&self.dir).map_err(|error| failed(&self.dir, &error))
    }
}

fn lock(path: &Path, port_offset: u16) -> Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(path)
        .map_err(|error| failed(path, &error))?;
    let until = Instant::now() + LOCK_WAIT;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= until {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let message = format!(
                "a demo with --port-offset {port_offset} is running (process {}); end it, or choose another offset",
                holder.trim()
            );
            return Err(Error::new(Code::BadRequest, message));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| failed(path, &error))?;
    Ok(file)
}

/// An empty folder of our own. A name in a shared folder may have been taken by somebody else.
fn fresh(dir: &Path) -> Result<()> {
    if let Ok(found) = fs::symlink_metadata(dir) {
        if !found.is_dir() || found.uid() != getuid().as_raw() {
            let message = format!("{} is there and is not ours", dir.display());
            return Err(Error::new(Code::Denied, message));
        }
        fs::remove_dir_all(dir).map_err(|error| failed(dir, &error))?;
    }
    DirBuilder::new().mode(0o700).create(dir).map_err(|error| failed(dir, &error))
}

/// A folder that stays: new and empty, or a demo's with the same ports.
fn kept(dir: &Path, port_offset: u16) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(dir, &e))?;
    let marker = dir.join(MARKER);
    match fs::read_to_string(&marker) {
        Ok(text) => {
            let before: Json = serde_json::from_str(&text).unwrap_or_default();
            if before["port_offset"] == json!(port_offset) {
                return Ok(());
            }
            let message = format!(
                "{} is a demo with --port-offset {}; its nodes know each other by those ports",
                dir.display(),
                before["port_offset"]
            );
            Err(Error::new(Code::BadRequest, message))
        }
        Err(_) => {
            let mut entries = fs::read_dir(dir).map_err(|error| failed(dir, &error))?;
            if entries.next().is_some() {
                let message = format!("{} is not empty and not a demo's", dir.display());
                return Err(Error::new(Code::BadRequest, message));
            }
            let text = json!({ "v": 1, "port_offset": port_offset }).to_string();
            fs::write(&marker, text).map_err(|error| failed(&marker, &error))
        }
    }
}

/// Kills the nodes of an earlier demo in this folder and waits until they are gone.
fn kill_leftovers(dir: &Path) {
    let mut left = leftovers(dir);
    for pid in &left {
        eprintln!("a node of an earlier demo is still running (process {pid}); killing it");
        if let Some(pid) = Pid::from_raw(*pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let until = Instant::now() + KILL_WAIT;
    while !left.is_empty() && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
        left = leftovers(dir);
    }
}

/// Process ids of nodes whose data is in this folder.
fn leftovers(dir: &Path) -> Vec<i32> {
    let own = std::env::current_exe().unwrap_or_default();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|process| {
            let pid: i32 = process.file_name().to_str()?.parse().ok()?;
            // A process that ends while we look has neither.
            let exe = fs::read_link(process.path().join("exe")).ok()?;
            let cmdline = fs::read(process.path().join("cmdline")).ok()?;
            let ours = process.metadata().ok()?.uid() == getuid().as_raw();
            (ours && is_node_of(&exe, &cmdline, &own, dir)).then_some(pid)
        })
        .collect()
}

/// True for `ppdb serve … --data-dir DIR/…`, by a program of our name.
fn is_node_of(exe: &Path, cmdline: &[u8], own: &Path, dir: &Path) -> bool {
    // A program that was rebuilt while its nodes ran is shown as `… (deleted)`.
    let name = exe.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    if Some(name) != own.file_name().map(OsStr::as_bytes) {
        return false;
    }
    let mut words = cmdline.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let serves = words.nth(1) == Some(OsStr::new("serve"));
    serves
        && words.any(|word| word == "--data-dir")
        && words.next().is_some_and(|data| Path::new(data).starts_with(dir) && data != dir)
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::BadConfig, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_of_this_folder_are_ours() {
        let own = Path::new("/b/target/ppdb");
        let dir = Path::new("/tmp/ppdb-demo-0-0");
        let check = |exe: &str, words: &[&str]| {
            is_node_of(Path::new(exe), words.join("\0").as_bytes(), own, dir)
        };
        let node =
            ["ppdb", "serve", "--primary", "--data-dir", "/tmp/ppdb-demo-0-0/n1", "--name", "n1"];
        assert!(check("/b/target/ppdb", &node));
        assert!(check("/elsewhere/ppdb (deleted)", &node));
        assert!(!check("/usr/bin/vim", &node));
        assert!(!check(
            "/b/target/ppdb",
            &["ppdb", "shell", "--data-dir", "/tmp/ppdb-demo-0-0/n1"]
        ));
        assert!(!check(
            "/b/target/ppdb",
            &["ppdb", "serve", "--data-dir", "/tmp/ppdb-demo-0-01/n1"]
        ));
        assert!(!check("/b/target/ppdb", &["ppdb", "serve", "--data-dir", "/var/lib/ppdb"]));
        assert!(!check("/b/target/ppdb", &["ppdb", "serve", "/tmp/ppdb-demo-0-0/n1"]));
        assert!(!check("/b/target/ppdb", &["ppdb", "serve", "--data-dir"]));
        assert!(!check("/b/target/ppdb", &["ppdb", "serve", "--data-dir", "/tmp/ppdb-demo-0-0"]));
    }

    #[test]
    fn a_lock_is_held_by_one_and_freed_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l");
        let held = lock(&path, 7).unwrap();
        let error = lock(&path, 7).unwrap_err();
        assert!(error.message.contains(&std::process::id().to_string()), "{error}");
        drop(held);
        lock(&path, 7).unwrap();
    }

    #[test]
    fn a_kept_folder_is_empty_or_a_demo_with_the_same_ports() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("kept");
        kept(&dir, 3).unwrap();
        kept(&dir, 3).unwrap();
        assert!(kept(&dir, 4).unwrap_err().message.contains("--port-offset 3"));
        assert!(kept(folder.path(), 3).unwrap_err().message.contains("not empty"));
    }

    #[test]
    fn a_fresh_folder_is_emptied_and_a_strange_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("fresh");
        fresh(&dir).unwrap();
        fs::write(dir.join("old"), "x").unwrap();
        fresh(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert_eq!(fresh(&link).unwrap_err().code, Code::Denied);
    }
}
