//! The switch to full replication without load, and beside it the least that it can cost: every table file
//! of the primaries copied twice, with fsync.

use crate::{Result, ppdb};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Copies that a switch makes of each table: three primaries, one of which has it.
const TARGETS: u64 = 2;

/// Switches. Bytes to be copied, seconds of the switch, seconds of the copy by hand.
pub async fn measure(own: &mut ppdb::Cluster, dir: &Path) -> Result<(u64, f64, f64)> {
    // What is not in the tables yet would be sent as log entries.
    own.settled().await?;
    let tables = own.tables()?;
    let scratch = dir.join("copy");
    std::fs::create_dir(&scratch)?;
    // Before the switch, which adds tables and changes those that are there.
    let (bytes, copied) = tokio::task::spawn_blocking(move || copy(&tables, &scratch)).await??;
    let switched = own.switch_to_full().await?;
    Ok((bytes, switched.as_secs_f64(), copied.as_secs_f64()))
}

fn copy(tables: &[PathBuf], scratch: &Path) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let mut bytes = 0;
    for (i, table) in tables.iter().enumerate() {
        for target in 0..TARGETS {
            let to = scratch.join(format!("{i}.{target}"));
            bytes += std::fs::copy(table, &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    let copied = started.elapsed();
    std::fs::remove_dir_all(scratch)?;
    Ok((bytes, copied))
}
