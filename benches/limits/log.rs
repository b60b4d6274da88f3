//! The write-ahead log alone: records of one group, a batch of them at a time, each batch waited for. One
//! batch is one write and one fdatasync.

use crate::{RECORD_BYTES, Result, Row};
use bytes::Bytes;
use ppdb::storage::wal::{GroupLog, Options, Wal};
use ppdb::types::GroupId;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

const BATCHES: [usize; 3] = [1, 64, 256];
/// Records after which what is before them is purged, as a node does it once its tables hold them.
const PURGE_EVERY: u64 = 50_000;
/// Longest wait for a batch.
const BATCH_WAIT: Duration = Duration::from_secs(30);

/// A row for each size of a batch, over one log.
pub fn rows(dir: &Path) -> Result<Vec<Row>> {
    let dir = dir.join("log");
    std::fs::create_dir(&dir)?;
    let wal = Wal::open(&dir, Options::default())?;
    let row = |(i, batch): (usize, usize)| {
        let log = wal.group(GroupId(i as u64 + 1));
        let name = format!("log append + fdatasync, batches of {batch}");
        Row::new(name, "records/s", move |time| append(&log, batch, time))
    };
    Ok(BATCHES.into_iter().enumerate().map(row).collect())
}

fn append(log: &GroupLog, batch: usize, time: Duration) -> Result<f64> {
    let record = Bytes::from(vec![7; RECORD_BYTES]);
    let (sender, done) = channel();
    let started = Instant::now();
    let mut records = 0;
    while started.elapsed() < time {
        let first = log.range().end;
        log.append(first, vec![record.clone(); batch], tell(&sender));
        done.recv_timeout(BATCH_WAIT)??;
        records += batch as u64;
        if log.range().end - log.range().start > PURGE_EVERY {
            log.purge(log.range().end - 1, Bytes::new());
        }
    }
    Ok(records as f64 / started.elapsed().as_secs_f64())
}

fn tell(sender: &Sender<Result<(), ppdb::storage::wal::Error>>) -> ppdb::storage::wal::Done {
    let sender = sender.clone();
    Box::new(move |result| drop(sender.send(result)))
}
