//! Sends the table of a group to another copy: copies it to a staging file, or goes on with the one that is
//! there. For all groups of the node, one is sent at a time; meanwhile the next one is copied, and the one
//! before made durable and installed by its receiver.
//!
//! On the stream: header, the receiver's answer with the offset it has, chunks from there, the answer that all
//! of it is there, the answer that it is installed. Memory is a few chunks, whatever the size.

use super::background::Worker;
use super::encoding::{MembershipRecord, MetaRecord, SnapshotAnswer, VoteRecord};
use super::incoming::checksum;
use super::outgoing::Ready;
use super::rpc::Callee;
use super::shared::Shared;
use super::snapshot::{FramesIn, FramesOut, SnapshotData, within};
use super::snapshot::{INSTALL_MAX, OPEN_MAX, STALL_MAX};
use super::staging::{Identity, Note, StagedFile, Way};
use super::types::{Snapshot, Vote, pos};
use crate::faults::{self, Point};
use crate::types::{Code, LogPos, limits};
use crate::wire::codec;
use crate::wire::peer::SnapshotHeader;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for the receiver to say from where it wants the data: another transfer to it may have to
/// end, and what it has of this one is read and checked.
const BEGIN_MAX: Duration = Duration::from_secs(120);
/// A stream that waited longer than this for its turn is opened anew: the other side waits for a header only
/// so long, five minutes.
const UNUSED_STREAM_MAX: Duration = Duration::from_secs(60);
/// Wait after a refusal.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// Longest pause between two chunks: the receiver must not take a slow copy for a dead sender.
const TAKES_MAX: Duration = Duration::from_secs(5);
/// Where a copy makes way, it rests after each chunk so many times as long as it had to wait for its turn on the
/// runtime that consensus runs on; that is next to nothing while few want it.
const REST_TIMES: u32 = 64;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(100);
/// In a pause the rate is asked for again after this time: a new one is felt at once.
const RATE_LOOK: Duration = Duration::from_millis(100);

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
    let announced = snapshot.meta.last_log_id.as_ref().map(pos);
    match copy_and_send(shared, to, vote, announced, install_max).await? {
        SnapshotAnswer::Done(vote) => {
            if let Some(hold) = hold {
                hold.linger(Instant::now());
            }
            Ok(vote.into())
        }
        SnapshotAnswer::Refused(code) => {
            tokio::time::sleep(REFUSED_WAIT).await;
            Err(format!("refused: {code}"))
        }
        SnapshotAnswer::Continue { .. } => Err("an answer that does not end the transfer".into()),
    }
}

async fn copy_and_send(
    shared: &Arc<Shared>,
    to: Callee,
    vote: Vote,
    announced: Option<LogPos>,
    install_max: Duration,
) -> Result<SnapshotAnswer, String> {
    let (peers, outgoing) = (&shared.peers, &shared.outgoing);
    let attempt = outgoing.attempt();
    let making = outgoing.making.lock().await;
    // Before the copy: a node that cannot be reached must not cost a copy at each attempt.
    let open = || within(OPEN_MAX, "opening", peers.links.open_snapshot(to.node));
    let (mut sender, mut receiver) = open().await?;
    faults::pass(Point::SnapshotOpened)?;
    // From here on: one to a node that cannot be reached keeps nothing busy.
    let _transfer = peers.transfer();
    let opened = Instant::now();
    let next = match outgoing.ready(announced, shared.purged_index()) {
        // All who want this one are sent it before the next one: it goes the sooner, and is whole everywhere.
        Some(_) => None,
        None => Some(peers.copy_slot.acquire().await.map_err(|e| e.to_string())?),
    };
    ready(shared, announced).await?;
    drop(making);
    let turn = peers.send_slot.acquire().await.map_err(|e| e.to_string())?;
    drop(next);
    if opened.elapsed() > UNUSED_STREAM_MAX {
        (sender, receiver) = open().await?;
    }
    // Again: while it waited, the log may have let go of what follows it.
    let ready = ready(shared, announced).await?;
    let Identity { meta, data_bytes, crc32c, .. } = ready.identity;
    let header = SnapshotHeader {
        group: shared.group,
        from: shared.raft_id,
        to: to.copy,
        vote: codec::encode(&VoteRecord::from(&vote)).into(),
        meta,
        data_bytes,
        crc32c,
    };
    let course = Course {
        bytes_per_s: &|| peers.copy_rate(),
        makes_way: &|| peers.makes_way(),
        goes_on: &|bytes| {
            peers.count_copied(bytes);
            outgoing.progress(Instant::now());
        },
        install_max,
    };
    tracing::info!(group = %shared.group, to = to.copy, bytes = data_bytes, "sending a snapshot");
    let answer = transmit(&sender, &mut receiver, &header, &ready.path, &course, turn).await?;
    match answer {
        SnapshotAnswer::Done(_) => outgoing.arrived(&attempt),
        SnapshotAnswer::Refused(code) if !may_pass(code) => outgoing.remove(),
        _ => {}
    }
    Ok(answer)
}

/// Whether a refusal says nothing about the file.
fn may_pass(code: Code) -> bool {
    use Code::{Moved, NoSpace, NotReady, Overloaded, Unreachable};
    matches!(code, Moved | NoSpace | NotReady | Overloaded | Unreachable)
}

/// The file that is there, if it is of use; else a fresh copy of the table.
async fn ready(shared: &Arc<Shared>, announced: Option<LogPos>) -> Result<Ready, String> {
    if let Some(ready) = shared.outgoing.ready(announced, shared.purged_index()) {
        return Ok(ready);
    }
    shared.outgoing.remove();
    let copying = Arc::clone(shared);
    Worker::start("copy")?.run(move || prepare(&copying, announced)).await
}

/// Copies the table. What the copy reflects is read from the copy, which may be newer than what the
/// library was told. The copy is not made durable: it survives the death of the process, and of one that a power
/// loss damaged the receiver will say that it does not have the checksum of its note. Blocks.
fn prepare(shared: &Shared, announced: Option<LogPos>) -> Result<Ready, String> {
    let text = |e: io::Error| e.to_string();
    let file = StagedFile::new(&shared.dir, Way::Out).map_err(text)?.guard();
    faults::pass(Point::SnapshotCopy)?;
    let applied = shared.store.copy_to(file.path()).map_err(|e| e.to_string())?;
    let last = applied.pos.ok_or("the table is empty")?;
    if announced.is_some_and(|announced| last.index < announced.index) {
        return Err("the copy is older than what was announced".into());
    }
    let membership = MembershipRecord::decode(&applied.membership).map_err(|e| e.to_string())?;
    let meta = MetaRecord { last, membership };
    let (data_bytes, crc32c) =
        checksum(&mut File::open(file.path()).map_err(text)?).map_err(text)?;
    let (group, copy) = (shared.group, shared.raft_id);
    let encoded = codec::encode(&meta).into();
    let identity = Identity { group, copy, meta: encoded, data_bytes, crc32c };
    faults::pass(Point::SnapshotCopied)?;
    file.write_note_lazily(&Note::whole(identity.clone())).map_err(text)?;
    faults::pass(Point::SnapshotNoted)?;
    Ok(shared.outgoing.replace(file.keep(), identity, meta, &shared.holds, Instant::now()))
}

/// How a transfer runs.
pub struct Course<'a> {
    /// Asked before each chunk; 0 is unlimited.
    pub bytes_per_s: &'a (dyn Fn() -> u64 + Sync),
    /// Whether others want what the copy takes.
    pub makes_way: &'a (dyn Fn() -> bool + Sync),
    /// Called when the receiver has answered, with 0, and when it has taken so many bytes.
    pub goes_on: &'a (dyn Fn(u64) + Sync),
    /// Longest wait for the installation.
    pub install_max: Duration,
}

impl Course<'_> {
    /// How long to rest after a chunk, by how busy the runtime is.
    async fn rest(&self) -> Duration {
        if !(self.makes_way)() {
            return Duration::ZERO;
        }
        let asked = Instant::now();
        tokio::task::yield_now().await;
        (asked.elapsed() * REST_TIMES).min(REST_MAX)
    }

    fn answer_max(&self) -> Duration {
        self.install_max.min(INSTALL_MAX + STALL_MAX)
    }
}

/// How long so many bytes take at that rate, at most `TAKES_MAX`; 0 is unlimited.
fn takes(bytes: u64, bytes_per_s: u64) -> Duration {
    match bytes_per_s {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(bytes as f64 / rate as f64).min(TAKES_MAX),
    }
}

/// Carries a file over a stream; returns the last answer. `turn` is dropped as soon as the receiver has all of
/// it: the next one need not wait for the installation.
pub async fn transmit<T>(
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
    header: &SnapshotHeader,
    path: &Path,
    course: &Course<'_>,
    turn: T,
) -> Result<SnapshotAnswer, String> {
    within(STALL_MAX, "header", sender.send(codec::encode(header).into())).await?;
    let first = within(BEGIN_MAX, "answer to the header", receiver.recv()).await;
    let sent = match first.and_then(decode_answer)? {
        SnapshotAnswer::Continue { from_bytes } if from_bytes <= header.data_bytes => from_bytes,
        SnapshotAnswer::Continue { from_bytes } => {
            return Err(format!("the receiver has {from_bytes} of {} bytes", header.data_bytes));
        }
        last => return Ok(last),
    };
    faults::pass(Point::SnapshotHeader)?;
    (course.goes_on)(0);
    if sent > 0 {
        tracing::info!(group = %header.group, to = header.to, from_bytes = sent, "going on with it");
    }
    let worker = Worker::start("send")?;
    let path = path.to_owned();
    let file = worker.run(move || open_at(&path, sent).map_err(|e| e.to_string())).await?;
    match push(sender, receiver, (&worker, file), header.data_bytes - sent, course).await? {
        SnapshotAnswer::Continue { from_bytes } if from_bytes == header.data_bytes => {}
        last => return Ok(last),
    }
    drop(turn);
    faults::pass(Point::SnapshotSent)?;
    within(course.answer_max(), "answer", receiver.recv()).await.and_then(decode_answer)
}

fn open_at(path: &Path, from_bytes: u64) -> io::Result<File> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from_bytes)).map(|_| file)
}

/// Sends the rest of a file at the rate that holds; returns what the receiver says next, which is that it has
/// everything, or why it does not take it.
async fn push(
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
    (worker, mut file): (&Worker, File),
    mut left_bytes: u64,
    course: &Course<'_>,
) -> Result<SnapshotAnswer, String> {
    let mut due = Instant::now();
    // One future for the answer: a receiver that refuses says so at once and reads no further.
    let mut early = std::pin::pin!(receiver.recv());
    while left_bytes > 0 {
        let read = move || {
            let mut chunk = vec![0; limits::SNAPSHOT_CHUNK_BYTES];
            let length = file.read(&mut chunk).map_err(|e| e.to_string())?;
            chunk.truncate(length);
            Ok((file, chunk))
        };
        let (back, chunk) = worker.run(read).await?;
        file = back;
        if chunk.is_empty() {
            return Err("the staged file became shorter".into());
        }
        faults::pass(Point::SnapshotChunk)?;
        let length = chunk.len() as u64;
        left_bytes = left_bytes.saturating_sub(length);
        let taken = within(STALL_MAX, "chunk", sender.send(chunk.into()));
        tokio::select! {
            taken = taken => taken?,
            answer = &mut early => return answer.and_then(decode_answer),
        }
        (course.goes_on)(length);
        let since = due;
        let rest = course.rest().await;
        let rested = Instant::now() + rest;
        loop {
            // Never earlier than now: time that was lost is not made up for by a burst.
            let paced = since + takes(length, (course.bytes_per_s)());
            due = paced.max(rested).max(Instant::now());
            let look = due.min(Instant::now() + RATE_LOOK);
            tokio::select! {
                () = tokio::time::sleep_until(look.into()) => {}
                answer = &mut early => return answer.and_then(decode_answer),
            }
            if look == due {
                break;
            }
        }
    }
    within(course.answer_max(), "answer to the data", early).await.and_then(decode_answer)
}

fn decode_answer(frame: Option<Bytes>) -> Result<SnapshotAnswer, String> {
    let frame = frame.ok_or("the stream ended without an answer")?;
    codec::decode(&frame).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_takes_its_time_at_the_rate() {
        assert_eq!(takes(1 << 30, 0), Duration::ZERO);
        assert_eq!(takes(1_000, 2_000), Duration::from_millis(500));
        assert_eq!(takes(1 << 30, 1), TAKES_MAX);
    }

    #[test]
    fn only_refusals_about_the_data_cost_the_file() {
        assert!(may_pass(Code::Overloaded) && may_pass(Code::Unreachable));
        assert!(!may_pass(Code::Corrupt) && !may_pass(Code::Internal));
    }
}
