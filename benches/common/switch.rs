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

/// As `measure`, so many times, each time beside a copy by hand; the one in the middle by what it took as a multiple
/// of that copy. The last switch stays.
pub async fn measure_often(
    own: &mut ppdb::Cluster,
    dir: &Path,
    times: usize,
) -> Result<(u64, f64, f64)> {
    own.set_live("switch.cool_down", "0s").await?;
    let mut all = vec![measure(own, dir).await?];
    while all.len() < times {
        own.revert().await?;
        all.push(measure(own, dir).await?);
    }
    for (bytes, switch_s, copy_s) in &all {
        eprintln!("a switch without load: {bytes} bytes in {switch_s:.2} s, by hand {copy_s:.2} s");
    }
    all.sort_by(|(_, a, by_hand_a), (_, b, by_hand_b)| (a / by_hand_a).total_cmp(&(b / by_hand_b)));
    Ok(all[all.len() / 2])
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
