//! A node measures what a switch would rest on: its own disk, and its way to every peer. Bounded in time and
//! bytes, one probe at a time, and behind everything else: a disk and a stream rest as long as they worked.

use super::Admin;
use crate::faults;
use crate::storage;
use crate::strategy::{COORDINATOR, Calls};
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::plan::{DISK_CHUNK_BYTES, DiskProbe, PeerProbe, ProbeOrder, ProbeReport};
use bytes::Bytes;
use futures_util::future::join_all;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// How long the disk is not measured while removed tables are given back to it.
const RECLAIM_WAIT_MAX: Duration = Duration::from_secs(2);
/// Bytes written to the disk at most, whatever is ordered, and sent to one peer.
pub const DISK_BYTES_MAX: u64 = 4 << 20;
/// The same for one peer.
pub const PEER_BYTES_MAX: u64 = 2 << 20;
/// One frame to a peer.
const PEER_CHUNK_BYTES: usize = 256 << 10;
/// Frames on their way to one peer at a time: one after the other would measure round trips.
const PEER_CHUNKS_AT_A_TIME: usize = 2;
/// Small writes that are made durable one by one.
const SYNCS: usize = 8;
const SYNC_BYTES: usize = 4 << 10;
/// Questions to a peer, the pause between two, and how long one may take.
const QUESTIONS: u32 = 20;
const QUESTION_EVERY: Duration = Duration::from_millis(10);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that leaves so many questions unanswered is asked no more.
const LOST_MAX: u32 = 2;

impl Admin {
    /// Measures; refused while another probe runs here.
    pub(super) async fn probe(
        &self,
        order: ProbeOrder,
        calls: &dyn Calls,
        deadline: Instant,
    ) -> Result<ProbeReport> {
        let _turn = turn(&self.probing)?;
        let state = self.view.state();
        let me = state.member(&self.name).map(|(id, _)| id);
        let others = state.members.keys().copied().filter(|node| Some(*node) != me);
        let bytes = order.peer_bytes.min(PEER_BYTES_MAX);
        let bounds = Bounds { deadline, question: QUESTION_TIMEOUT };
        let peers = join_all(others.map(|node| probe_peer(calls, node, bytes, bounds)));
        let (dir, bytes) = (self.data_dir.clone(), order.disk_bytes.min(DISK_BYTES_MAX));
        let disk = tokio::task::spawn_blocking(move || {
            // What an operation leaves behind says nothing of the next one.
            storage::wait_reclaimed(RECLAIM_WAIT_MAX);
            probe_disk(&dir, bytes, deadline)
        });
        let (peers, disk) = tokio::join!(peers, disk);
        let disk = disk.map_err(|e| e.to_string()).and_then(|disk| disk.map_err(|e| e.to_string()));
        Ok(ProbeReport { disk, peers })
    }
}

/// One probe at a time: a second one would measure the first.
fn turn(probing: &Mutex<()>) -> Result<MutexGuard<'_, ()>> {
    let busy = |_| Error::new(Code::Overloaded, "this node measures already").retry_after(1_000);
    probing.try_lock().map_err(busy)
}

/// The end of all questions to a peer, and the longest wait for one answer.
#[derive(Clone, Copy)]
struct Bounds {
    deadline: Instant,
    question: Duration,
}

/// Writes a file that has no name any more, so that nothing is left of it whatever happens. Blocks.
fn probe_disk(dir: &Path, bytes: u64, deadline: Instant) -> io::Result<DiskProbe> {
    let path = dir.join("probe");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    std::fs::remove_file(&path)?;
    let chunk = vec![0x5a; DISK_CHUNK_BYTES as usize];
    let (mut written, mut worked) = (0, Duration::ZERO);
    while written < bytes.max(1) {
        in_time(deadline)?;
        let part = &chunk[..chunk.len().min((bytes.max(1) - written) as usize)];
        let took = timed(|| file.write_all(part).and_then(|()| sync(&file)))?;
        written += part.len() as u64;
        worked += took;
        std::thread::sleep(took);
    }
    let mut syncs = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        in_time(deadline)?;
        let took = timed(|| small_write(&mut file))?;
        syncs.push(took.as_micros() as u64);
        std::thread::sleep(took);
    }
    syncs.sort_unstable();
    Ok(DiskProbe {
        write_bytes_per_s: rate(written, worked),
        sync_us: syncs[syncs.len() / 2],
        sync_worst_us: syncs[syncs.len() - 1],
    })
}

fn small_write(file: &mut File) -> io::Result<()> {
    file.write_all(&[0x5a; SYNC_BYTES])?;
    sync(file)
}

fn sync(file: &File) -> io::Result<()> {
    faults::fsync()?;
    file.sync_data()
}

fn timed(work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let began = Instant::now();
    work().map(|()| began.elapsed())
}

fn in_time(deadline: Instant) -> io::Result<()> {
    match Instant::now() < deadline {
        true => Ok(()),
        false => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the disk is too slow to be measured"))
        }
    }
}

/// Asks a peer some small questions, then sends it some bytes.
async fn probe_peer(calls: &dyn Calls, node: NodeId, bytes: u64, bounds: Bounds) -> PeerProbe {
    let in_time = || Instant::now() < bounds.deadline;
    let (mut asked, mut lost, mut took_us) = (0, 0, vec![]);
    while asked < QUESTIONS && lost < LOST_MAX && in_time() {
        asked += 1;
        match ask(calls, node, Bytes::new(), bounds).await {
            Some(took) => took_us.push(took.as_micros() as u64),
            None => lost += 1,
        }
        tokio::time::sleep(QUESTION_EVERY).await;
    }
    took_us.sort_unstable();
    let payload = Bytes::from(vec![0x5a; PEER_CHUNK_BYTES]);
    let (mut bytes_per_s, mut left) = (0, bytes);
    while left > 0 && lost < LOST_MAX && in_time() {
        let parts: Vec<Bytes> = std::iter::from_fn(|| {
            let part = payload.slice(..payload.len().min(left as usize));
            left -= part.len() as u64;
            (!part.is_empty()).then_some(part)
        })
        .take(PEER_CHUNKS_AT_A_TIME)
        .collect();
        let began = Instant::now();
        let taken = join_all(parts.iter().map(|part| ask(calls, node, part.clone(), bounds))).await;
        let took = began.elapsed();
        let arrived = taken.iter().zip(&parts).filter(|(taken, _)| taken.is_some());
        let arrived_bytes: usize = arrived.map(|(_, part)| part.len()).sum();
        if arrived_bytes == 0 {
            break;
        }
        // The best is what the way carries; at other times something else was on it, or it had been idle.
        bytes_per_s = rate(arrived_bytes as u64, took).max(bytes_per_s);
        tokio::time::sleep(took).await;
    }
    PeerProbe {
        node,
        asked,
        lost,
        rtt_us: took_us.get(took_us.len() / 2).copied().unwrap_or_default(),
        rtt_worst_us: took_us.last().copied().unwrap_or_default(),
        bytes_per_s,
    }
}

/// How long a peer took to take so many bytes and to say so; none if it did not in time.
async fn ask(calls: &dyn Calls, node: NodeId, payload: Bytes, bounds: Bounds) -> Option<Duration> {
    let began = Instant::now();
    let left = bounds.deadline.saturating_duration_since(began).min(bounds.question);
    let call = calls.call(node, COORDINATOR, Command::Echo(payload), left);
    match tokio::time::timeout(left, call).await {
        Ok(Ok(Answer::Echoed)) => Some(began.elapsed()),
        _ => None,
    }
}

fn rate(bytes: u64, worked: Duration) -> u64 {
    let us = worked.as_micros().max(1);
    (u128::from(bytes) * 1_000_000 / us).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex as Counts;

    /// Answers, or is silent, and counts what was sent.
    struct Peer {
        silent: bool,
        got: Counts<(u32, u64)>,
    }

    impl Calls for Peer {
        fn call(
            &self,
            _node: NodeId,
            _by: &str,
            command: Command,
            _timeout: Duration,
        ) -> BoxFuture<'static, Result<Answer>> {
            let Command::Echo(payload) = command else { panic!("{command:?}") };
            let mut got = self.got.lock();
            *got = (got.0 + 1, got.1 + payload.len() as u64);
            match self.silent {
                true => std::future::pending().boxed(),
                false => std::future::ready(Ok(Answer::Echoed)).boxed(),
            }
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn bounds() -> Bounds {
        Bounds { deadline: soon(), question: Duration::from_millis(30) }
    }

    #[tokio::test]
    async fn a_peer_is_asked_so_often_and_is_sent_so_much() {
        let peer = Peer { silent: false, got: Counts::default() };
        let found = probe_peer(&peer, NodeId(2), PEER_BYTES_MAX, bounds()).await;
        assert_eq!((found.asked, found.lost), (QUESTIONS, 0));
        assert!(found.bytes_per_s > 0);
        assert_eq!(*peer.got.lock(), (QUESTIONS + 8, PEER_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_silent_peer_costs_little() {
        let peer = Peer { silent: true, got: Counts::default() };
        let found = probe_peer(&peer, NodeId(2), PEER_BYTES_MAX, bounds()).await;
        assert_eq!((found.asked, found.lost), (LOST_MAX, LOST_MAX));
        assert_eq!((found.bytes_per_s, peer.got.lock().1), (0, 0));
    }

    #[test]
    fn one_probe_at_a_time() {
        let probing = Mutex::new(());
        let first = turn(&probing).unwrap();
        assert_eq!(turn(&probing).unwrap_err().code, Code::Overloaded);
        drop(first);
        assert!(turn(&probing).is_ok());
    }

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let found = probe_disk(dir.path(), 1 << 20, soon()).unwrap();
        assert!(found.write_bytes_per_s > 0 && found.sync_us <= found.sync_worst_us);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let late = probe_disk(dir.path(), 1 << 20, Instant::now()).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(probe_disk(&dir.path().join("none"), 1, soon()).is_err());
    }
}
