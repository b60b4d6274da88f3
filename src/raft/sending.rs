//! Sends the table of a group to another copy: copies it to a staging file, or goes on with the one that is
//! there; one transfer at a time for all groups of the node.
//!
//! On the stream: header, the receiver's answer with the offset it has, chunks from there, the answer to all
//! of it. Memory is a few chunks, whatever the size.

use super::encoding::{MembershipRecord, MetaRecord, SnapshotAnswer, VoteRecord};
use super::incoming::checksum;
use super::outgoing::Ready;
use super::rpc::Callee;
use super::shared::Shared;
use super::snapshot::{FramesIn, FramesOut, SnapshotData, blocking, within};
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
/// Wait after a refusal.
const REFUSED_WAIT: Duration = Duration::from_secs(5);
/// Longest pause between two chunks: the receiver must not take a slow copy for a dead sender.
const TAKES_MAX: Duration = Duration::from_secs(5);
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
    let _slot = peers.snapshot_slot.acquire().await.map_err(|e| e.to_string())?;
    // Before the copy: a node that cannot be reached must not cost a copy at each attempt.
    let opening = peers.links.open_snapshot(to.node);
    let (sender, mut receiver) = within(OPEN_MAX, "opening", opening).await?;
    faults::pass(Point::SnapshotOpened)?;
    let ready = match outgoing.ready(announced, shared.purged_index()) {
        Some(ready) => ready,
        None => {
            outgoing.remove();
            let copying = Arc::clone(shared);
            blocking(move || prepare(&copying, announced)).await?
        }
    };
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
        goes_on: &|bytes| {
            peers.count_copied(bytes);
            outgoing.progress(Instant::now());
        },
        install_max,
    };
    tracing::info!(group = %shared.group, to = to.copy, bytes = data_bytes, "sending a snapshot");
    let answer = transmit(&sender, &mut receiver, &header, &ready.path, &course).await?;
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

/// Copies the table. What the copy reflects is read from the copy, which may be newer than what the
/// library was told. Blocks.
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
    file.write_note(&Note::whole(identity.clone())).map_err(text)?;
    faults::pass(Point::SnapshotNoted)?;
    Ok(shared.outgoing.replace(file.keep(), identity, meta, &shared.holds, Instant::now()))
}

/// How a transfer runs.
pub struct Course<'a> {
    /// Asked before each chunk; 0 is unlimited.
    pub bytes_per_s: &'a (dyn Fn() -> u64 + Sync),
    /// Called when the receiver has answered, with 0, and when it has taken so many bytes.
    pub goes_on: &'a (dyn Fn(u64) + Sync),
    /// Longest wait for the installation.
    pub install_max: Duration,
}

/// How long so many bytes take at that rate, at most `TAKES_MAX`; 0 is unlimited.
fn takes(bytes: u64, bytes_per_s: u64) -> Duration {
    match bytes_per_s {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(bytes as f64 / rate as f64).min(TAKES_MAX),
    }
}

/// Carries a file over a stream; returns the last answer.
pub async fn transmit(
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
    header: &SnapshotHeader,
    path: &Path,
    course: &Course<'_>,
) -> Result<SnapshotAnswer, String> {
    within(STALL_MAX, "header", sender.send(codec::encode(header).into())).await?;
    let first = within(BEGIN_MAX, "answer to the header", receiver.recv()).await;
    let mut sent = match first.and_then(decode_answer)? {
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
    let path = path.to_owned();
    let open = move || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(sent)).map(|_| file)
    };
    let mut file = blocking(move || open().map_err(|e| e.to_string())).await?;
    let mut due = Instant::now();
    // One future for the rest of the stream: a receiver that refuses says so at once and reads no further.
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
        faults::pass(Point::SnapshotChunk)?;
        let length = chunk.len() as u64;
        sent += length;
        let taken = within(STALL_MAX, "chunk", sender.send(chunk.into()));
        tokio::select! {
            taken = taken => taken?,
            answer = &mut early => return answer.and_then(decode_answer),
        }
        (course.goes_on)(length);
        let since = due;
        loop {
            // Never earlier than now: time that was lost is not made up for by a burst.
            due = (since + takes(length, (course.bytes_per_s)())).max(Instant::now());
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
    faults::pass(Point::SnapshotSent)?;
    let install_max = course.install_max.min(INSTALL_MAX + STALL_MAX);
    within(install_max, "answer", early).await.and_then(decode_answer)
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
