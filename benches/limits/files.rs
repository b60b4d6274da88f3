//! The disk by hand: what a log could do without a format, and what a copy of a table could do without a
//! network.

use crate::{Result, Row};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of the file that is copied.
const FILE_BYTES: usize = 64 << 20;
/// Bytes written before each fdatasync.
const BLOCK_BYTES: usize = 4 << 10;
/// The blocks are written round and round in a file of this many.
const BLOCKS: u64 = 4_096;

/// Two rows.
pub fn rows(dir: &Path) -> Result<Vec<Row>> {
    let (source, target) = (dir.join("source"), dir.join("target"));
    write(&source, FILE_BYTES)?;
    let blocks = dir.join("blocks");
    write(&blocks, BLOCK_BYTES * BLOCKS as usize)?;
    let blocks = OpenOptions::new().write(true).open(blocks)?;
    Ok(vec![
        Row::new("file write of 4 KiB + fdatasync", "writes/s", move |time| sync(&blocks, time)),
        Row::new("file copy + fsync, 64 MiB", "MB/s", move |time| copy(&source, &target, time)),
    ])
}

fn write(path: &Path, bytes: usize) -> Result<()> {
    std::fs::write(path, vec![7; bytes])?;
    Ok(File::open(path)?.sync_all()?)
}

fn sync(file: &File, time: Duration) -> Result<f64> {
    let block = [8; BLOCK_BYTES];
    let started = Instant::now();
    let mut writes = 0;
    while started.elapsed() < time {
        file.write_all_at(&block, writes % BLOCKS * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(writes as f64 / started.elapsed().as_secs_f64())
}

fn copy(source: &Path, target: &PathBuf, time: Duration) -> Result<f64> {
    let started = Instant::now();
    let mut bytes = 0;
    while started.elapsed() < time {
        // A copy to a new place, as a node gets it.
        let _ = std::fs::remove_file(target);
        bytes += std::fs::copy(source, target)?;
        File::open(target)?.sync_all()?;
    }
    Ok(bytes as f64 / 1e6 / started.elapsed().as_secs_f64())
}
