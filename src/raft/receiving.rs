//! Receives the table of a group from its leader: judges the header, says how much of it is here, takes the
//! rest, checks the whole and hands it to the library to be installed.
//!
//! What a snapshot means is the store's and the library's business.

use super::background::Worker;
use super::encoding::{MetaRecord, SnapshotAnswer, VoteRecord};
use super::incoming::{Filling, Incoming, Turn};
use super::shared::Shared;
use super::snapshot::{FramesIn, FramesOut, SnapshotData, within};
use super::snapshot::{INSTALL_MAX, STALL_MAX};
use super::staging::{Identity, Staged};
use super::types::{Snapshot, Vote, pos};
use crate::faults::{self, Point};
use crate::types::{Code, LogPos};
use crate::wire::codec;
use crate::wire::peer::SnapshotHeader;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for the header of a stream that was opened: meanwhile the sender copies its table.
const HEADER_MAX: Duration = Duration::from_secs(300);
/// Bytes that a received snapshot leaves free on the disk, for the log.
const FREE_BYTES_MIN: u64 = 256 << 20;

/// Why a snapshot is not taken: what the sender is told, and what is logged here.
pub type Refusal = (Code, String);

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

/// Receives the data and installs it; returns the last answer. The header was checked for group and copies.
pub async fn receive(
    shared: &Arc<Shared>,
    header: &SnapshotHeader,
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
) -> SnapshotAnswer {
    match try_receive(shared, header, sender, receiver).await {
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

async fn try_receive(
    shared: &Arc<Shared>,
    header: &SnapshotHeader,
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
) -> Result<Vote, Refusal> {
    let bad = |text: String| (Code::BadRequest, text);
    let vote: VoteRecord = codec::decode(&header.vote).map_err(|e| bad(e.to_string()))?;
    let meta: MetaRecord = codec::decode(&header.meta).map_err(|e| bad(e.to_string()))?;
    judge(header.from, vote, &meta, committed(shared)).map_err(bad)?;
    let raft_meta = meta.to_raft().map_err(|e| bad(e.to_string()))?;
    let raft = shared.raft().ok_or((Code::NotReady, "not started".to_owned()))?;
    faults::pass(Point::ReceiveBegin).map_err(internal)?;
    let turn = shared.incoming.turn().await;
    let turn = turn.ok_or((Code::Overloaded, "another one is being installed".to_owned()))?;
    let file = fetch(&shared.incoming, &turn, &shared.dir, header, sender, receiver).await?;
    faults::pass(Point::ReceiveWhole).map_err(internal)?;
    // Again: what is committed here may have moved while the data came.
    judge(header.from, vote, &meta, committed(shared)).map_err(bad)?;
    let snapshot = Snapshot { meta: raft_meta, snapshot: SnapshotData::Received(file) };
    let installed =
        tokio::time::timeout(INSTALL_MAX, raft.install_full_snapshot(vote.into(), snapshot)).await;
    shared.incoming.has_arrived(0);
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
    committed.as_ref().map(pos)
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

/// Bytes that a snapshot may still take.
fn room_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(FREE_BYTES_MIN))
}

fn internal(error: impl ToString) -> Refusal {
    (Code::Internal, error.to_string())
}

fn disk(error: &io::Error) -> Refusal {
    let full = error.kind() == io::ErrorKind::StorageFull;
    (if full { Code::NoSpace } else { Code::Internal }, error.to_string())
}

/// Takes what is missing of the file, which is whole, checked and durable when this returns. When the stream
/// breaks off, what has arrived stays; after anything else nothing does.
pub async fn fetch(
    incoming: &Arc<Incoming>,
    turn: &Turn<'_>,
    dir: &Path,
    header: &SnapshotHeader,
    sender: &impl FramesOut,
    receiver: &mut impl FramesIn,
) -> Result<Staged, Refusal> {
    let worker = Worker::start("receive").map_err(internal)?;
    let (begun, folder, identity) = (Arc::clone(incoming), dir.to_owned(), Identity::of(header));
    let begin = move || Ok(begun.begin(&folder, &identity));
    let mut filling = worker.run(begin).await.map_err(internal)?.map_err(|e| disk(&e))?;
    let missing_bytes = filling.missing_bytes();
    if room_bytes(dir).is_some_and(|room| room < missing_bytes) {
        return Err((Code::NoSpace, format!("{missing_bytes} bytes do not fit")));
    }
    let from_bytes = filling.got_bytes();
    incoming.has_arrived(from_bytes);
    answer(sender, &SnapshotAnswer::Continue { from_bytes }).await;
    while filling.missing_bytes() > 0 {
        let chunk = tokio::select! {
            chunk = within(STALL_MAX, "chunk", receiver.recv()) => chunk,
            () = turn.over() => Err("another stream takes its place".to_owned()),
        };
        let ended = || format!("the stream ended after {} bytes", filling.got_bytes());
        let chunk = match chunk.and_then(|chunk| chunk.ok_or_else(ended)) {
            Ok(chunk) => chunk,
            Err(error) => return Err(broken_off(&worker, incoming, filling, error).await),
        };
        if chunk.len() as u64 > filling.missing_bytes() {
            return Err((Code::BadRequest, "more data than announced".into()));
        }
        let write = move || Ok(filling.write(&chunk).map(|()| filling));
        filling = worker.run(write).await.map_err(internal)?.map_err(|e| disk(&e))?;
        incoming.has_arrived(filling.got_bytes());
    }
    // Where the disk is not waited for: the sender may go on with the next one.
    answer(sender, &SnapshotAnswer::Continue { from_bytes: filling.got_bytes() }).await;
    let finished = worker.run(move || Ok(filling.finish())).await.map_err(internal)?;
    let wrong = || (Code::Corrupt, "the data does not have the announced checksum".to_owned());
    finished.map_err(|e| disk(&e))?.ok_or_else(wrong)
}

async fn broken_off(
    worker: &Worker,
    incoming: &Arc<Incoming>,
    filling: Filling,
    error: String,
) -> Refusal {
    let incoming = Arc::clone(incoming);
    let kept = worker.run(move || incoming.put_back(filling).map_err(|e| e.to_string())).await;
    if let Err(error) = kept {
        tracing::warn!(error, "what has arrived of a snapshot is lost");
    }
    (Code::Unreachable, error)
}

#[cfg(test)]
mod tests {
    use super::super::encoding::MembershipRecord;
    use super::*;

    #[test]
    fn snapshots_that_no_leader_of_this_lineage_sent_are_refused() {
        let at = |term, leader, index| LogPos { term, leader, index };
        let meta = |last| MetaRecord { last, membership: MembershipRecord::default() };
        let vote = VoteRecord { term: 3, leader: 1, committed: true };
        assert_eq!(judge(1, vote, &meta(at(3, 1, 50)), None), Ok(()));
        assert_eq!(judge(1, vote, &meta(at(2, 9, 50)), Some(at(2, 9, 40))), Ok(()));
        // Older than what is here: the library says that it is not needed.
        assert_eq!(judge(1, vote, &meta(at(2, 1, 30)), Some(at(2, 9, 40))), Ok(()));
        assert!(judge(2, vote, &meta(at(3, 1, 50)), None).is_err());
        let asked = VoteRecord { committed: false, ..vote };
        assert!(judge(1, asked, &meta(at(3, 1, 50)), None).is_err());
        assert!(judge(1, vote, &meta(at(4, 1, 50)), None).is_err());
        assert!(judge(1, vote, &meta(at(3, 2, 50)), None).is_err());
        assert!(judge(1, vote, &meta(at(3, 1, 40)), Some(at(2, 9, 40))).is_err());
        assert!(judge(1, vote, &meta(at(3, 1, 10)), Some(at(2, 9, 40))).is_err());
    }
}
