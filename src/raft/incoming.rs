//! A snapshot as it arrives: one file for each group, made durable every few MiB, kept when its stream
//! breaks off, and continued by the next stream that brings the same one.
//!
//! Files, checksums and whose turn it is. What streams say to each other is in `receiving`.

use super::encoding::MetaRecord;
use super::staging::{Identity, Note, Staged, StagedFile, Way};
use crate::faults::{self, Point};
use crate::types::limits;
use crate::wire::codec;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{MutexGuard, watch};

/// Bytes received after which the file and its note are made durable: what a crash may cost.
const SYNC_BYTES: u64 = 8 << 20;
/// How long a new stream waits for the one before to let go.
const TURN_MAX: Duration = Duration::from_secs(10);
/// How long a part of a snapshot is kept that nobody continues.
const UNUSED_MAX: Duration = Duration::from_secs(10 * 60);
/// Number of the turn that never comes: the group is being closed.
const CLOSED: u64 = u64::MAX;

/// See the module.
pub struct Incoming {
    part: Mutex<Option<Part>>,
    /// Bytes that are here of what is on its way, for display.
    arriving_bytes: AtomicU64,
    busy: tokio::sync::Mutex<()>,
    newest: watch::Sender<u64>,
}

/// What is there of a snapshot while no stream brings more.
struct Part {
    file: StagedFile,
    note: Note,
    since: Instant,
}

/// The right to receive; the next stream takes it away.
pub struct Turn<'a> {
    _busy: MutexGuard<'a, ()>,
    newest: watch::Receiver<u64>,
    number: u64,
}

impl Turn<'_> {
    /// Resolves when another stream wants to receive, or the group is being closed.
    pub async fn over(&self) {
        let number = self.number;
        // An error means that the group is gone.
        drop(self.newest.clone().wait_for(|newest| *newest != number).await);
    }
}

impl Default for Incoming {
    fn default() -> Self {
        let newest = watch::Sender::new(0);
        let (part, busy) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { part, arriving_bytes: AtomicU64::new(0), busy, newest }
    }
}

impl Incoming {
    /// Bytes that are here of what is on its way; 0 once it is installed or given up.
    pub fn arriving_bytes(&self) -> u64 {
        self.arriving_bytes.load(Ordering::Relaxed)
    }

    /// So much of it is here.
    pub fn has_arrived(&self, bytes: u64) {
        self.arriving_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Takes over what an earlier process left.
    pub fn restore(&self, found: Option<(StagedFile, Note)>, now: Instant) {
        *self.part.lock() = found.map(|(file, note)| Part { file, note, since: now });
    }

    /// The turn of a new stream. The one before ends: its sender has lost it, or is not the leader any more.
    /// None if it does not end in time (it is being installed), or the group is being closed.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let mut number = CLOSED;
        self.newest.send_if_modified(|newest| {
            if *newest != CLOSED {
                (*newest, number) = (*newest + 1, *newest + 1);
            }
            number != CLOSED
        });
        if number == CLOSED {
            return None;
        }
        let newest = self.newest.subscribe();
        let busy = tokio::time::timeout(TURN_MAX, self.busy.lock()).await.ok()?;
        Some(Turn { _busy: busy, newest, number })
    }

    /// Ends the stream that is being received and lets none begin; what has arrived stays. Waits, within
    /// bounds, until nothing is written any more.
    pub async fn close(&self) {
        self.newest.send_replace(CLOSED);
        drop(tokio::time::timeout(TURN_MAX, self.busy.lock()).await);
    }

    /// Opens the file to continue it if this snapshot is what is there in part; else begins a new one, and
    /// what was there is deleted. Blocks.
    pub fn begin(&self, dir: &Path, identity: &Identity) -> io::Result<Filling> {
        if let Some(part) = self.part.lock().take() {
            if part.note.identity == *identity {
                // Bytes that are not what they were are no reason to fail.
                match Filling::resume(part) {
                    Ok(Some(filling)) => return Ok(filling),
                    Ok(None) => tracing::warn!("a part of a snapshot was damaged; it starts anew"),
                    Err(error) => tracing::warn!(%error, "a part of a snapshot cannot be read"),
                }
            } else {
                part.file.remove();
            }
        }
        Filling::create(dir, identity.clone())
    }

    /// The stream broke off: what has arrived is made durable and stays for the next one. Blocks.
    pub fn put_back(&self, mut filling: Filling) -> io::Result<()> {
        filling.sync()?;
        let Filling { file, note, .. } = filling;
        *self.part.lock() = Some(Part { file: file.keep(), note, since: Instant::now() });
        Ok(())
    }

    /// Deletes what is there in part if nobody will continue it: `applied` has reached it, or it is old.
    /// Cheap; called all the time.
    pub fn tidy(&self, now: Instant, applied: Option<u64>) {
        let useless = |part: &mut Part| {
            let meta = codec::decode::<MetaRecord>(&part.note.identity.meta);
            let reached = meta.map_or(true, |m| applied.is_some_and(|a| a >= m.last.index));
            reached || now.saturating_duration_since(part.since) >= UNUSED_MAX
        };
        let due = self.part.lock().take_if(useless);
        due.into_iter().for_each(|part| part.file.remove());
    }
}

/// A file that is being filled. Deleted when dropped.
pub struct Filling {
    file: Staged,
    data: File,
    note: Note,
    got_bytes: u64,
    crc32c: u32,
}

impl Filling {
    fn create(dir: &Path, identity: Identity) -> io::Result<Self> {
        let file = StagedFile::new(dir, Way::In)?.guard();
        let data = File::create(file.path())?;
        Ok(Self { file, data, note: Note::empty(identity), got_bytes: 0, crc32c: 0 })
    }

    /// None if what is there is not what the note says.
    fn resume(part: Part) -> io::Result<Option<Self>> {
        let Part { file, note, .. } = part;
        let file = file.guard();
        let mut data = File::options().read(true).write(true).open(file.path())?;
        data.set_len(note.have_bytes)?;
        let (got_bytes, crc32c) = checksum(&mut data)?;
        if (got_bytes, crc32c) != (note.have_bytes, note.have_crc32c) {
            return Ok(None);
        }
        data.seek(SeekFrom::Start(got_bytes))?;
        Ok(Some(Self { file, data, note, got_bytes, crc32c }))
    }

    /// Bytes that are there.
    pub fn got_bytes(&self) -> u64 {
        self.got_bytes
    }

    /// Bytes still to come.
    pub fn missing_bytes(&self) -> u64 {
        self.note.identity.data_bytes - self.got_bytes
    }

    /// Writes what came next; not more than is missing. Blocks.
    pub fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        faults::pass(Point::ReceiveChunk)?;
        faults::disk_full()?;
        self.data.write_all(chunk)?;
        self.got_bytes += chunk.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, chunk);
        if self.got_bytes - self.note.have_bytes >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        faults::pass(Point::ReceiveSync)?;
        self.data.sync_data()?;
        Ok(faults::pass(Point::ReceiveSynced)?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()?;
        self.note.have_bytes = self.got_bytes;
        self.note.have_crc32c = self.crc32c;
        self.file.write_note(&self.note)
    }

    /// The whole file, durable; none if it is not what was announced. Blocks.
    pub fn finish(self) -> io::Result<Option<Staged>> {
        if self.missing_bytes() > 0 || self.crc32c != self.note.identity.crc32c {
            return Ok(None);
        }
        self.sync_data()?;
        self.file.write_note_lazily(&Note::whole(self.note.identity))?;
        Ok(Some(self.file))
    }
}

/// Length and CRC-32C of a file from where it stands, read in chunks.
pub fn checksum(file: &mut File) -> io::Result<(u64, u32)> {
    let mut chunk = vec![0; limits::SNAPSHOT_CHUNK_BYTES];
    let (mut bytes, mut crc32c) = (0, 0);
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok((bytes, crc32c));
        }
        bytes += read as u64;
        crc32c = crc32c::crc32c_append(crc32c, &chunk[..read]);
    }
}

#[cfg(test)]
#[path = "incoming_test.rs"]
mod tests;
