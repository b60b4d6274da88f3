//! Opening a log: reads the segments, lets recovery decide, and makes what it decided true on disk.
//!
//! The end of the log may be known to the page cache only (a process that was killed between write and
//! fdatasync, or whose fdatasync failed). So what no later batch proves durable is written once more and
//! synced before anybody is told that it is there.

use super::fs::{WalFile, WalFs};
use super::group::Group;
use super::keeper::{Empty, Keeper, RECYCLED_MAX};
use super::queue::Queue;
use super::record::BATCH_BYTES;
use super::recovery::{BLANK_CHECK_BYTES, Ending, Layout, Replay, layout};
use super::segment::{self, BLOCK_BYTES, Block, Header};
use super::writer::{Active, Shared, Writer, activate};
use super::{Error, Limits, Measured};
use crate::types::GroupId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

struct Found {
    id: u64,
    file: Arc<dyn WalFile>,
    bytes: u64,
    block: Block,
}

/// The last segment as recovery left it.
struct Tail {
    header: Header,
    ending: Ending,
    /// What is kept of the last batch.
    last_batch: Vec<u8>,
}

/// Recovers the log. `inline`: there will be no threads; the caller drives the writer, which does the
/// keeper's work as well.
pub(super) fn open(
    fs: Arc<dyn WalFs>,
    limits: Limits,
    queue_bytes_max: usize,
    inline: bool,
) -> Result<Writer, Error> {
    // Names may be there that no sync has made durable.
    fs.sync_dir().map_err(|error| Error::io("sync the folder", &error))?;
    remove_spare(&*fs)?;
    let found = find(&*fs)?;
    let blocks: Vec<(u64, Block)> = found.iter().map(|f| (f.id, f.block)).collect();
    let Layout { used, blank } = layout(&blocks)?;
    let (used_files, blank_files) = found.split_at(used.len());
    let (replay, tail) = read(&used, used_files)?;

    let next_id = found.last().map_or(1, |last| last.id + 1 - blank.len() as u64);
    let ready = reusable(&*fs, blank_files, limits)?;
    let used_bytes: u64 = used_files.iter().map(|f| f.bytes).sum();
    let disk_bytes = used_bytes + ready.iter().map(|empty| empty.bytes).sum::<u64>();
    let next_id = next_id + ready.len() as u64;
    let keeper =
        Keeper::new(fs.clone(), limits.segment_bytes, limits.segments_reserved, ready, next_id);
    keeper.disk_bytes().store(disk_bytes, Ordering::Relaxed);

    let Replay { groups, holds, sequence, batch, .. } = replay;
    let group = |(id, state)| {
        let id = GroupId(id);
        (id, Arc::new(Group::new(id, state)))
    };
    let segments = used_files.iter().map(|found| (found.id, found.file.clone())).collect();
    let shared = Arc::new(Shared {
        fs,
        queue: Queue::new(queue_bytes_max),
        keeper,
        groups: Mutex::new(groups.into_iter().map(group).collect()),
        segments: Mutex::new(segments),
        failed: watch::Sender::new(None),
        syncs: AtomicU64::new(0),
        measured: Measured::default(),
        writing_since: Mutex::new(None),
        sealed: AtomicU64::new(0),
        pinning: Mutex::new(None),
        limits,
    });
    let mut sealed: VecDeque<(u64, u64)> = used_files.iter().map(|f| (f.id, f.bytes)).collect();
    // An empty last batch, and the header of a fresh segment, already prove what is before them.
    let open_batch =
        tail.as_ref().is_some_and(|t| t.ending.clean && t.last_batch.len() > BATCH_BYTES);
    let active = resume(&shared, used_files, tail, &mut sealed, (sequence, batch))?;
    if !inline {
        shared.keeper.has_thread();
    }
    let (carried, buffer) = (0, Vec::new());
    let mut writer =
        Writer { shared, active, sealed, holds, sequence, batch, carried, open_batch, buffer };
    writer.tidy()?;
    Ok(writer)
}

/// Removes what a crash left between two segments.
fn remove_spare(fs: &dyn WalFs) -> Result<(), Error> {
    let names = fs.list().map_err(|error| Error::io("list the folder", &error))?;
    if !names.iter().any(|name| name == segment::SPARE) {
        return Ok(());
    }
    fs.remove(segment::SPARE).map_err(|error| Error::io("delete a spare segment", &error))?;
    fs.sync_dir().map_err(|error| Error::io("sync the folder", &error))
}

/// Opens all segment files, in order.
fn find(fs: &dyn WalFs) -> Result<Vec<Found>, Error> {
    let names = fs.list().map_err(|error| Error::io("list the folder", &error))?;
    let mut ids: Vec<u64> = names.iter().filter_map(|name| segment::id(name)).collect();
    ids.sort_unstable();
    ids.into_iter()
        .map(|id| {
            let io = |error| Error::io(&format!("open segment {id}"), &error);
            let file = fs.open(&segment::name(id)).map_err(io)?;
            let bytes = file.bytes().map_err(io)?;
            let mut start = vec![0; bytes.min(BLOCK_BYTES as u64) as usize];
            file.read_at(0, &mut start).map_err(io)?;
            let mut block = segment::block(id, &start);
            if matches!(block, Block::Blank | Block::Emptied { .. }) {
                start.resize(bytes.min(BLANK_CHECK_BYTES as u64) as usize, 0);
                file.read_at(0, &mut start).map_err(io)?;
                block = segment::block(id, &start);
            }
            Ok(Found { id, file, bytes, block })
        })
        .collect()
}

/// Reads the used segments, one at a time in memory.
fn read(used: &[Header], files: &[Found]) -> Result<(Replay, Option<Tail>), Error> {
    let mut replay = Replay::default();
    let mut tail = None;
    for (at, (header, found)) in used.iter().zip(files).enumerate() {
        let end = used.get(at + 1).map(|next| next.end_before);
        let mut bytes = vec![0; end.unwrap_or(found.bytes).min(found.bytes) as usize];
        found
            .file
            .read_at(0, &mut bytes)
            .map_err(|error| Error::io(&format!("read segment {}", found.id), &error))?;
        let ending = replay.segment(header, &bytes, end)?;
        let last_batch = bytes.get(ending.last_batch.clone()).unwrap_or_default().to_vec();
        tail = Some(Tail { header: *header, ending, last_batch });
    }
    replay.finish()?;
    Ok((replay, tail))
}

/// Blank segments that can be used as they are; the others are deleted, from the last one down, so that
/// the numbers stay without a gap.
fn reusable(fs: &dyn WalFs, blank: &[Found], limits: Limits) -> Result<VecDeque<Empty>, Error> {
    let fits = |found: &&Found| found.bytes == limits.segment_bytes;
    let keep_max = limits.segments_reserved.max(1) + RECYCLED_MAX;
    let keep = blank.iter().take_while(fits).count().min(keep_max);
    for found in blank[keep..].iter().rev() {
        let name = segment::name(found.id);
        fs.remove(&name).map_err(|error| Error::io(&format!("delete {name}"), &error))?;
        fs.sync_dir().map_err(|error| Error::io("sync the folder", &error))?;
    }
    let empty = |f: &Found| {
        let random = match f.block {
            Block::Emptied { random } => Some(random),
            _ => None,
        };
        Empty { id: f.id, file: f.file.clone(), bytes: f.bytes, random }
    };
    Ok(blank[..keep].iter().map(empty).collect())
}

/// Makes the end of the log durable and finds the segment in which it goes on: the last one after a clean
/// end, a fresh one after a cut. Moves the one that is written out of `sealed`.
fn resume(
    shared: &Shared,
    files: &[Found],
    tail: Option<Tail>,
    sealed: &mut VecDeque<(u64, u64)>,
    (sequence, batch): (u64, u64),
) -> Result<Active, Error> {
    let (Some(tail), Some(last)) = (tail, files.last()) else {
        return activate(shared, 0, sequence, batch, 0);
    };
    let Tail { header, ending, last_batch } = tail;
    let io = |error| Error::io(&format!("settle segment {}", last.id), &error);
    // Writing makes pages dirty that a failed fdatasync may have left marked as clean.
    last.file.write_at(0, &header.block()).map_err(io)?;
    last.file.write_at(ending.last_batch.start as u64, &last_batch).map_err(io)?;
    last.file.sync().map_err(io)?;
    shared.syncs.fetch_add(1, Ordering::Relaxed);
    let offset = ending.offset as u64;
    if ending.clean {
        sealed.pop_back();
        return Ok(Active { header, file: last.file.clone(), bytes: last.bytes, offset });
    }
    if !ending.whole {
        tracing::warn!(
            segment = last.id,
            offset,
            "the log was torn here and goes on in a fresh segment"
        );
    }
    let active = activate(shared, offset, sequence, batch, 0)?;
    // The fresh segment says where this one ends, so the rest of it only takes space.
    last.file.shorten(offset).map_err(io)?;
    shared.keeper.disk_bytes().fetch_sub(last.bytes - offset, Ordering::Relaxed);
    if let Some(cut) = sealed.back_mut() {
        cut.1 = offset;
    }
    Ok(active)
}
