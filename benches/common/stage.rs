//! What a bench with real processes stands on: a folder on a real disk, an end that comes before its time, the
//! form of its result. Starts nothing itself.

use crate::Result;
use clap::ValueEnum;
use std::path::Path;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// `TMPFS_MAGIC`: a file system in memory, where fsync costs nothing.
const TMPFS: i64 = 0x0102_1994;

/// How the result is printed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Format {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

/// A fresh folder in `parent`, or in the system's folder for such, which is removed when it is dropped.
pub fn fresh_dir(parent: Option<&Path>, prefix: &str) -> Result<TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(&parent)?;
    if rustix::fs::statfs(dir.path())?.f_type == TMPFS {
        let parent = parent.display();
        return Err(format!("{parent} is in memory, fsync is free there; use --dir").into());
    }
    Ok(dir)
}

/// Ends with an error, at the first SIGINT or SIGTERM.
pub async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Err("interrupted".into())
}
