//! Reading entries of a group: from memory if they are among the newest, else from their segment,
//! checked.

use super::Error;
use super::fs::WalFile;
use super::group::Group;
use super::state::Slot;
use super::writer::Shared;
use crate::types::GroupId;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Consecutive entries that lie side by side in one segment.
struct Run {
    segment: u64,
    offset: u64,
    bytes: usize,
    /// (index, bytes, crc)
    entries: Vec<(u64, usize, u32)>,
}

enum Piece {
    Cached(Bytes),
    Stored(Run),
}

/// Reads entries of a group, cached or not.
pub(super) fn read(
    shared: &Shared,
    group: &Group,
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<Bytes>, Error> {
    let mut pieces: Vec<(Piece, Option<_>)> = Vec::new();
    {
        let state = group.state.lock();
        let there = state.range();
        let mut bytes = 0;
        for index in range.start.max(there.start)..range.end.min(there.end) {
            let Some(slot) = state.slot(index) else { break };
            if bytes > 0 && bytes + slot.bytes as usize > bytes_max {
                break;
            }
            // An entry counts at least 1, so that empty ones do not make the answer boundless.
            bytes += (slot.bytes as usize).max(1);
            match &slot.body {
                Some(body) => pieces.push((Piece::Cached(body.clone()), None)),
                None => add(&mut pieces, shared, index, slot),
            }
        }
    }
    let mut entries = Vec::new();
    for (piece, file) in pieces {
        match (piece, file) {
            (Piece::Cached(body), _) => entries.push(body),
            (Piece::Stored(run), Some(file)) => load(group.id, &*file, run, &mut entries)?,
            (Piece::Stored(run), None) => {
                return Err(Error::Damage(format!("segment {} is gone", run.segment)));
            }
        }
    }
    Ok(entries)
}

type File = Arc<dyn WalFile>;

/// Adds a stored entry, to the run before it if it lies next to that. The file is looked up under the
/// group's lock: what is live in a group keeps its segment in the table.
fn add(pieces: &mut Vec<(Piece, Option<File>)>, shared: &Shared, index: u64, slot: &Slot) {
    let (at, bytes) = (slot.at, slot.bytes as usize);
    let entry = (index, bytes, at.crc);
    match pieces.last_mut() {
        Some((Piece::Stored(run), _))
            if run.segment == at.segment && run.offset + run.bytes as u64 == at.offset =>
        {
            run.bytes += bytes;
            run.entries.push(entry);
        }
        _ => {
            let file = shared.segments.lock().get(&at.segment).cloned();
            let run = Run { segment: at.segment, offset: at.offset, bytes, entries: vec![entry] };
            pieces.push((Piece::Stored(run), file));
        }
    }
}

fn load(
    group: GroupId,
    file: &dyn WalFile,
    run: Run,
    entries: &mut Vec<Bytes>,
) -> Result<(), Error> {
    let mut buffer = vec![0; run.bytes];
    file.read_at(run.offset, &mut buffer)
        .map_err(|error| Error::io(&format!("read segment {}", run.segment), &error))?;
    let mut rest = Bytes::from(buffer);
    for (index, bytes, crc) in run.entries {
        let entry = rest.split_to(bytes);
        if crc32c::crc32c(&entry) != crc {
            return Err(Error::Damage(format!(
                "entry {index} of {group} in segment {} fails its checksum",
                run.segment
            )));
        }
        entries.push(entry);
    }
    Ok(())
}
