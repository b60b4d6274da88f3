//! Snapshots on their way: a copy of the table in a staging file, streamed in chunks, received into
//! another staging file. What a snapshot means is the store's and the library's business.
//!
//! A file that is not installed is deleted, by its owner or when the copy is next opened. Memory is a few
//! chunks on either side, whatever the size.

use super::encoding::{MembershipRecord, MetaRecord, SnapshotAnswer, VoteRecord};
use super::holds::Hold;
use super::rpc::Callee;
use super::shared::Shared;
use super::types::{Snapshot, Vote};
use crate::transport::{FrameReceiver, FrameSender};
use crate::types::{Code, LogPos, limits};
use crate::wire::codec;
use crate::wire::peer::SnapshotHeader;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for the other side to take a chunk or to send one.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a stream to the other side.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the header of a stream that was opened: meanwhile the sender copies its table.
const HEADER_MAX: Duration = Duration::from_secs(300);
/// Longest wait for a received snapshot to be installed.
const INSTALL_MAX: Duration = Duration::from_secs(300);
/// Wait after a refusal: the next attempt copies the whole table again.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// Longest pause between two chunks: the receiver must not take a slow copy for a dead sender, and a new
/// rate must be felt soon.
const TAKES_MAX: Duration = Duration::from_secs(5);
/// Bytes that a received snapshot leaves free on the disk, for the log.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// What the library passes around as the data of a snapshot.
pub enum SnapshotData {
    /// The table as it will be when it is copied; meanwhile the log that follows the announced position stays.
    Table { hold: Option<Hold> },
    /// A file that was received and checked.
    Received(Staged),
}

/// A file in the staging folder; deleted when dropped, unless it was moved away.
pub struct Staged {
    path: PathBuf,
}

impl Staged {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a staged snapshot stays")
            }
        }
    }
}

/// Beside the store's own files, under a name that the store does not use.
fn staging(dir: &Path) -> PathBuf {
    dir.join("transfer")
}

/// Deletes what an earlier process left behind.
pub fn sweep(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(staging(dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn stage(dir: &Path, prefix: &str) -> io::Result<Staged> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = staging(dir);
    std::fs::create_dir_all(&folder)?;
    let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(Staged { path: folder.join(name) })
}

fn install_mark(dir: &Path) -> PathBuf {
    dir.join("install.base")
}

/// Notes durably, before the table is replaced, at which position it will stand. If the process dies
/// before the log has its new base, the copy then opens with a log that ends before its table, and only
/// this note tells that from a log that was lost.
pub fn mark_install(dir: &Path, base: Option<LogPos>) -> io::Result<()> {
    let mut file = File::create(install_mark(dir))?;
    file.write_all(&codec::encode(&base))?;
    file.sync_all()?;
    File::open(dir)?.sync_all()
}

/// The position noted by `mark_install`; none if there is no whole note.
pub fn marked_install(dir: &Path) -> Option<LogPos> {
    let bytes = std::fs::read(install_mark(dir)).ok()?;
    codec::decode::<Option<LogPos>>(&bytes).ok()?
}

/// Frames out, one after the other.
pub trait FramesOut: Send {
    fn send(&self, frame: Bytes) -> impl Future<Output = Result<(), String>> + Send;
}

/// Frames in.
pub trait FramesIn: Send {
    fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

impl FramesOut for FrameSender {
    async fn send(&self, frame: Bytes) -> Result<(), String> {
        FrameSender::send(self, frame).await.map_err(|e| e.to_string())
    }
}

impl FramesIn for FrameReceiver {
    async fn recv(&mut self) -> Result<Option<Bytes>, String> {
        FrameReceiver::recv(self).await.map_err(|e| e.to_string())
    }
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|e| format!("{what}: {e}")),
        Err(_) => Err(format!("{what}: nothing for {limit:?}")),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
}

/// A copy of the table that is ready to be sent.
struct Outgoing {
    file: Staged,
    meta: MetaRecord,
    data_bytes: u64,
    crc32c: u32,
}

/// Copies the table. What the copy reflects is read from the copy, which may be newer than what the
/// library was told.
fn prepare(shared: &Shared) -> Result<Outgoing, String> {
    let text = |e: io::Error| e.to_string();
    let file = stage(&shared.dir, "out").map_err(text)?;
    let applied = shared.store.copy_to(file.path()).map_err(|e| e.to_string())?;
    let last = applied.pos.ok_or("the table is empty")?;
    let membership = MembershipRecord::decode(&applied.membership).map_err(|e| e.to_string())?;
    let (mut data_bytes, mut crc32c) = (0, 0);
    let mut reader = File::open(file.path()).map_err(text)?;
    let mut chunk = vec![0; limits::SNAPSHOT_CHUNK_BYTES];
    loop {
        let read = reader.read(&mut chunk).map_err(text)?;
        if read == 0 {
            break;
        }
        data_bytes += read as u64;
        crc32c = crc32c::crc32c_append(crc32c, &chunk[..read]);
    }
    Ok(Outgoing { file, meta: MetaRecord { last, membership }, data_bytes, crc32c })
}

/// Sends the table to another copy and waits until it is installed there; returns its vote.
pub async fn send(
    shared: &Arc<Shared>,
    to: Callee,
    vote: Vote,
    snapshot: Snapshot,
    install_max: Duration,
) -> Result<Vote, String> {
    let SnapshotData::Table { hold } = snapshot.snapshot else {
        return Err("only a table can be sent".into());
    };
    let announced = snapshot.meta.last_log_id.as_ref().map(super::types::pos);
    match copy_and_send(shared, to, vote, announced, install_max).await? {
        SnapshotAnswer::Done(vote) => {
            if let Some(hold) = hold {
                hold.arrived(Instant::now());
            }
            Ok(vote.into())
        }
        SnapshotAnswer::Refused(code) => {
            tokio::time::sleep(REFUSED_WAIT).await;
            Err(format!("refused: {code}"))
        }
    }
}

async fn copy_and_send(
    shared: &Arc<Shared>,
    to: Callee,
    vote: Vote,
    announced: Option<LogPos>,
    install_max: Duration,
) -> Result<SnapshotAnswer, String> {
    let peers = &shared.peers;
    let _slot = peers.snapshot_slot.acquire().await.map_err(|e| e.to_string())?;
    // Before the copy: a node that cannot be reached must not cost a copy at each attempt.
    let opening = peers.links.open_snapshot(to.node);
    let (sender, mut receiver) = within(OPEN_MAX, "opening", opening).await?;
    let copying = Arc::clone(shared);
    let outgoing = blocking(move || prepare(&copying)).await?;
    if announced.is_some_and(|announced| outgoing.meta.last.index < announced.index) {
        return Err("the copy is older than what was announced".into());
    }
    let header = SnapshotHeader {
        group: shared.group,
        from: shared.raft_id,
        to: to.copy,
        vote: codec::encode(&VoteRecord::from(&vote)).into(),
        meta: codec::encode(&outgoing.meta).into(),
        data_bytes: outgoing.data_bytes,
        crc32c: outgoing.crc32c,
    };
    let bytes = header.data_bytes;
    tracing::info!(group = %shared.group, to = to.copy, bytes, "sending a snapshot");
    let rate = || peers.copy_rate();
    transmit(&sender, &mut receiver, &header, outgoing.file.path(), rate, install_max).await
}

/// How long so many bytes take at that rate, at most `TAKES_MAX`; 0 is unlimited.
fn takes(bytes: u64, bytes_per_s: u64) -> Duration {
    match bytes_per_s {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(bytes as f64 / rate as f64).min(TAKES_MAX),
    }
}

async fn transmit(
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
    header: &SnapshotHeader,
    path: &Path,
    bytes_per_s: impl Fn() -> u64,
    install_max: Duration,
) -> Result<SnapshotAnswer, String> {
    within(STALL_MAX, "header", sender.send(codec::encode(header).into())).await?;
    let path = path.to_owned();
    let mut file = blocking(move || File::open(path).map_err(|e| e.to_string())).await?;
    let (mut due, mut sent) = (Instant::now(), 0);
    // One future for the whole stream: a receiver that refuses says so at once and reads no further.
    let mut early = std::pin::pin!(receiver.recv());
    while sent < header.data_bytes {
        let read = move || {
            let mut chunk = vec![0; limits::SNAPSHOT_CHUNK_BYTES];
            let length = file.read(&mut chunk).map_err(|e| e.to_string())?;
            chunk.truncate(length);
            Ok((file, chunk))
        };
        let (back, chunk) = blocking(read).await?;
        file = back;
        if chunk.is_empty() {
            return Err("the staged file became shorter".into());
        }
        let length = chunk.len() as u64;
        sent += length;
        let taken = within(STALL_MAX, "chunk", sender.send(chunk.into()));
        tokio::select! {
            taken = taken => taken?,
            answer = &mut early => return answer.and_then(decode_answer),
        }
        // Never earlier than now: time that was lost is not made up for by a burst.
        due = (due + takes(length, bytes_per_s())).max(Instant::now());
        tokio::time::sleep_until(due.into()).await;
    }
    within(install_max, "answer", early).await.and_then(decode_answer)
}

fn decode_answer(frame: Option<Bytes>) -> Result<SnapshotAnswer, String> {
    let frame = frame.ok_or("the stream ended without an answer")?;
    codec::decode(&frame).map_err(|e| e.to_string())
}

/// Reads the header of an incoming stream.
pub async fn header(receiver: &mut impl FramesIn) -> Result<SnapshotHeader, String> {
    let frame = within(HEADER_MAX, "header", receiver.recv()).await?;
    codec::decode(&frame.ok_or("no header")?).map_err(|e| e.to_string())
}

/// Answers an incoming stream.
pub async fn answer(sender: &impl FramesOut, answer: &SnapshotAnswer) {
    let sent = within(STALL_MAX, "answer", sender.send(codec::encode(answer).into())).await;
    if let Err(error) = sent {
        tracing::debug!(error, "the answer to a snapshot was lost");
    }
}

/// Receives the data into a staging file and installs it. The header was checked for group and copies.
pub async fn receive(
    shared: &Arc<Shared>,
    header: &SnapshotHeader,
    receiver: &mut impl FramesIn,
) -> SnapshotAnswer {
    match try_receive(shared, header, receiver).await {
        Ok(vote) => {
            let bytes = header.data_bytes;
            tracing::info!(group = %shared.group, from = header.from, bytes, "snapshot installed");
            SnapshotAnswer::Done(VoteRecord::from(&vote))
        }
        Err((code, error)) => {
            tracing::warn!(group = %shared.group, from = header.from, error, "a snapshot was not taken");
            SnapshotAnswer::Refused(code)
        }
    }
}

type Refusal = (Code, String);

async fn try_receive(
    shared: &Arc<Shared>,
    header: &SnapshotHeader,
    receiver: &mut impl FramesIn,
) -> Result<Vote, Refusal> {
    let bad = |text: String| (Code::BadRequest, text);
    let vote: VoteRecord = codec::decode(&header.vote).map_err(|e| bad(e.to_string()))?;
    let meta: MetaRecord = codec::decode(&header.meta).map_err(|e| bad(e.to_string()))?;
    judge(header.from, vote, &meta, committed(shared)).map_err(bad)?;
    if free_bytes(&shared.dir)
        .is_some_and(|free| free < header.data_bytes.saturating_add(FREE_BYTES_MIN))
    {
        return Err((Code::NoSpace, format!("{} bytes do not fit", header.data_bytes)));
    }
    let file = store(&shared.dir, header, receiver).await?;
    let raft_meta = meta.to_raft().map_err(|e| bad(e.to_string()))?;
    // Again: what is committed here may have moved while the data came.
    judge(header.from, vote, &meta, committed(shared)).map_err(bad)?;
    let raft = shared.raft().ok_or((Code::NotReady, "not started".to_owned()))?;
    let snapshot = Snapshot { meta: raft_meta, snapshot: SnapshotData::Received(file) };
    let installed =
        tokio::time::timeout(INSTALL_MAX, raft.install_full_snapshot(vote.into(), snapshot)).await;
    match installed {
        Ok(Ok(response)) => Ok(response.vote),
        Ok(Err(error)) => Err((Code::Internal, error.to_string())),
        Err(_) => Err((Code::Internal, format!("not installed within {INSTALL_MAX:?}"))),
    }
}

fn committed(shared: &Shared) -> Option<LogPos> {
    use openraft::async_runtime::WatchReceiver;
    let metrics = shared.raft()?.metrics();
    let committed = metrics.borrow_watched().local_committed;
    committed.as_ref().map(super::types::pos)
}

/// What the library would panic about: a snapshot that no leader of this lineage can have sent.
fn judge(
    from: u64,
    vote: VoteRecord,
    meta: &MetaRecord,
    committed: Option<LogPos>,
) -> Result<(), String> {
    if !vote.committed || vote.leader != from {
        return Err("the sender does not claim to lead".into());
    }
    let rank = |pos: LogPos| (pos.term, pos.leader, pos.index);
    if (meta.last.term, meta.last.leader) > (vote.term, vote.leader) {
        return Err(format!("a snapshot at {} from a leader of term {}", meta.last, vote.term));
    }
    match committed {
        Some(here) if rank(meta.last) > rank(here) && meta.last.index <= here.index => {
            Err(format!("a snapshot at {} contradicts {here}, committed here", meta.last))
        }
        _ => Ok(()),
    }
}

fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Writes the chunks to a file, which is durable and checked when this returns.
async fn store(
    dir: &Path,
    header: &SnapshotHeader,
    receiver: &mut impl FramesIn,
) -> Result<Staged, Refusal> {
    let text = |e: String| (Code::Internal, e);
    let dir = dir.to_owned();
    let create = move || {
        let staged = stage(&dir, "in").map_err(|e| e.to_string())?;
        let file = File::create(staged.path()).map_err(|e| e.to_string())?;
        Ok((staged, file))
    };
    let (staged, mut file) = blocking(create).await.map_err(text)?;
    let (mut got, mut crc) = (0u64, 0u32);
    while got < header.data_bytes {
        let chunk = within(STALL_MAX, "chunk", receiver.recv())
            .await
            .map_err(|e| (Code::Unreachable, e))?;
        let chunk =
            chunk.ok_or((Code::Unreachable, format!("the stream ended after {got} bytes")))?;
        got += chunk.len() as u64;
        if got > header.data_bytes {
            return Err((Code::BadRequest, "more data than announced".into()));
        }
        crc = crc32c::crc32c_append(crc, &chunk);
        let write = move || match file.write_all(&chunk) {
            Ok(()) => Ok(Ok(file)),
            Err(error) => Ok(Err(error)),
        };
        file = blocking(write).await.map_err(text)?.map_err(|error| {
            let full = error.kind() == io::ErrorKind::StorageFull;
            (if full { Code::NoSpace } else { Code::Internal }, error.to_string())
        })?;
    }
    if crc != header.crc32c {
        return Err((Code::Corrupt, "the data does not have the announced checksum".into()));
    }
    blocking(move || file.sync_all().map_err(|e| e.to_string())).await.map_err(text)?;
    Ok(staged)
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
