//! A snapshot over a slow stream, from one end to the other: sent, cut short, continued, damaged, refused,
//! slowed down; and the mark of an installation.

use super::super::encoding::{SnapshotAnswer, VoteRecord};
use super::super::incoming::Incoming;
use super::super::receiving::{answer, fetch, header};
use super::super::sending::{Course, transmit};
use super::super::staging::folder;
use super::*;
use crate::types::{Code, limits};
use crate::wire::peer::SnapshotHeader;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::mpsc;

const CHUNK: usize = limits::SNAPSHOT_CHUNK_BYTES;

/// One direction of a stream, with a queue as short as a slow reader's.
struct Out(mpsc::Sender<Bytes>);
struct In(mpsc::Receiver<Bytes>);

impl FramesOut for Out {
    async fn send(&self, frame: Bytes) -> Result<(), String> {
        self.0.send(frame).await.map_err(|_| "closed".to_owned())
    }
}

impl FramesIn for In {
    async fn recv(&mut self) -> Result<Option<Bytes>, String> {
        Ok(self.0.recv().await)
    }
}

fn pipe() -> (Out, In) {
    let (sender, receiver) = mpsc::channel(2);
    (Out(sender), In(receiver))
}

fn header_of(data: &[u8]) -> SnapshotHeader {
    let vote = VoteRecord { term: 1, leader: 1, committed: true };
    SnapshotHeader {
        group: crate::types::GroupId(1),
        from: 1,
        to: 2,
        vote: codec::encode(&vote).into(),
        meta: Bytes::new(),
        data_bytes: data.len() as u64,
        crc32c: crc32c::crc32c(data),
    }
}

fn data(chunks: usize) -> Vec<u8> {
    (0..chunks * CHUNK + 7).map(|i| (i / 3) as u8).collect()
}

/// The two ends of a transfer, with folders of their own.
struct World {
    dir: tempfile::TempDir,
    incoming: Arc<Incoming>,
    /// Bytes sent since it was asked last.
    sent: AtomicU64,
}

impl World {
    fn new(data: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data"), data).unwrap();
        Self { dir, incoming: Arc::default(), sent: AtomicU64::new(0) }
    }

    async fn send(
        &self,
        header: &SnapshotHeader,
        (out, answers): (Out, &mut In),
        rate: &(dyn Fn() -> u64 + Sync),
    ) -> Result<SnapshotAnswer, String> {
        let goes_on = |bytes| {
            self.sent.fetch_add(bytes, Ordering::Relaxed);
        };
        let (makes_way, install_max) = (&|| false, STALL_MAX);
        let course = Course { bytes_per_s: rate, makes_way, goes_on: &goes_on, install_max };
        transmit(&out, answers, header, &self.dir.path().join("data"), &course, ()).await
    }

    /// Receives up to so many frames of data; the answer of a whole file is its content.
    async fn receive(
        &self,
        there: In,
        back: Out,
        frames_max: usize,
    ) -> Result<Vec<u8>, (Code, String)> {
        let (relay, mut here) = pipe();
        let mut there = there;
        let cut = async move {
            for _ in 0..=frames_max {
                let Ok(Some(frame)) = there.recv().await else { break };
                if relay.send(frame).await.is_err() {
                    break;
                }
            }
        };
        let receive = async {
            let header = header(&mut here).await.unwrap();
            let turn = self.incoming.turn().await.unwrap();
            let dir = self.dir.path();
            let whole = fetch(&self.incoming, &turn, dir, &header, &back, &mut here).await;
            whole.map(|file| std::fs::read(file.path()).unwrap())
        };
        // Who has everything, or has given up, waits for nothing more.
        let mut receive = std::pin::pin!(receive);
        let received = tokio::select! {
            received = &mut receive => received,
            () = cut => receive.await,
        };
        if let Err((code, _)) = &received {
            answer(&back, &SnapshotAnswer::Refused(*code)).await;
        }
        received
    }

    /// A whole transfer, or one that is cut after so many frames of data.
    async fn transfer(
        &self,
        header: &SnapshotHeader,
        frames_max: usize,
    ) -> (u64, Result<Vec<u8>, Code>) {
        let (out, there) = pipe();
        let (back, mut answers) = pipe();
        let sent_before = self.sent.load(Ordering::Relaxed);
        let sending = self.send(header, (out, &mut answers), &|| 0);
        let (_, received) = tokio::join!(sending, self.receive(there, back, frames_max));
        let sent = self.sent.load(Ordering::Relaxed) - sent_before;
        (sent, received.map_err(|(code, _)| code))
    }

    fn files(&self) -> usize {
        std::fs::read_dir(folder(self.dir.path())).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn a_file_arrives_in_chunks_behind_its_header() {
    let data = data(3);
    let world = World::new(&data);
    let (sent, received) = world.transfer(&header_of(&data), usize::MAX - 1).await;
    assert_eq!((sent, received.unwrap()), (data.len() as u64, data));
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn what_arrived_is_not_sent_again() {
    let data = data(40);
    let (world, header) = (World::new(&data), header_of(&data));
    let (_, cut) = world.transfer(&header, 20).await;
    assert_eq!(cut, Err(Code::Unreachable));
    assert_eq!(world.files(), 2, "a file and its note");
    let (sent, received) = world.transfer(&header, usize::MAX - 1).await;
    assert_eq!((sent, received.unwrap()), ((data.len() - 20 * CHUNK) as u64, data));
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_wrong_checksum_after_a_continuation_costs_everything_that_was_there() {
    let data = data(10);
    let (world, header) = (World::new(&data), header_of(&data));
    assert_eq!(world.transfer(&header, 5).await.1, Err(Code::Unreachable));
    let mut other = data.clone();
    *other.last_mut().unwrap() ^= 1;
    std::fs::write(world.dir.path().join("data"), other).unwrap();
    assert_eq!(world.transfer(&header, usize::MAX - 1).await.1, Err(Code::Corrupt));
    assert_eq!(world.files(), 0);
    std::fs::write(world.dir.path().join("data"), &data).unwrap();
    let (sent, received) = world.transfer(&header, usize::MAX - 1).await;
    assert_eq!((sent, received.unwrap()), (data.len() as u64, data));
}

#[tokio::test]
async fn a_file_that_is_longer_or_shorter_than_announced_is_not_kept() {
    let data = data(2);
    let world = World::new(&data);
    let longer = SnapshotHeader { data_bytes: data.len() as u64 - 1, ..header_of(&data) };
    assert_eq!(world.transfer(&longer, usize::MAX - 1).await.1, Err(Code::BadRequest));
    assert_eq!(world.files(), 0);
    let shorter = SnapshotHeader { data_bytes: data.len() as u64 + 1, ..header_of(&data) };
    let (out, there) = pipe();
    let (back, mut answers) = pipe();
    let sending = world.send(&shorter, (out, &mut answers), &|| 0);
    let (sent, received) = tokio::join!(sending, world.receive(there, back, usize::MAX - 1));
    assert!(sent.unwrap_err().contains("shorter"));
    assert_eq!(received.unwrap_err().0, Code::Unreachable);
}

#[tokio::test]
async fn a_new_stream_takes_over_from_one_that_hangs() {
    let data = data(10);
    let (world, header) = (World::new(&data), header_of(&data));
    let (out, there) = pipe();
    let (back, mut answers) = pipe();
    // The first sender is gone, but its stream has not noticed.
    let hangs = async {
        out.send(codec::encode(&header).into()).await.unwrap();
        answers.recv().await.unwrap();
        for chunk in data.chunks(CHUNK).take(4) {
            out.send(chunk.to_vec().into()).await.unwrap();
        }
        while world.sent.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let again = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.transfer(&header, usize::MAX - 1).await
    };
    let first = world.receive(there, back, usize::MAX - 1);
    let ((), first, (sent, received)) = tokio::join!(hangs, first, again);
    assert_eq!(first.unwrap_err().0, Code::Unreachable);
    assert_eq!((sent, received.unwrap()), ((data.len() - 4 * CHUNK) as u64, data));
}

/// A receiver that answers the header, and then says so.
async fn told(
    first: SnapshotAnswer,
    then: Option<SnapshotAnswer>,
) -> Result<SnapshotAnswer, String> {
    let data = data(40);
    let world = World::new(&data);
    let (out, mut there) = pipe();
    let (back, mut answers) = pipe();
    let receiver = async {
        header(&mut there).await.unwrap();
        answer(&back, &first).await;
        match then {
            Some(then) => answer(&back, &then).await,
            None => drop(back),
        }
        // Reads nothing more, but does not hang up either.
        std::future::pending::<()>().await;
        drop(there);
    };
    let header = header_of(&data);
    tokio::select! {
        told = world.send(&header, (out, &mut answers), &|| 0) => told,
        () = receiver => unreachable!(),
    }
}

#[tokio::test]
async fn a_refusal_ends_the_sending_early() {
    let refused = || SnapshotAnswer::Refused(Code::Moved);
    assert_eq!(told(refused(), None).await, Ok(refused()));
    let begin = |from_bytes| SnapshotAnswer::Continue { from_bytes };
    assert_eq!(told(begin(0), Some(refused())).await, Ok(refused()));
    assert_eq!(told(begin(7), Some(refused())).await, Ok(refused()));
    assert!(told(begin(1 << 40), None).await.is_err(), "it cannot have that much");
    assert!(told(begin(0), None).await.is_err(), "the stream ended without an answer");
}

#[tokio::test]
async fn the_next_one_need_not_wait_for_the_installation() {
    let data = data(3);
    let (world, header) = (World::new(&data), header_of(&data));
    let (out, mut there) = pipe();
    let (back, mut answers) = pipe();
    let slot = tokio::sync::Semaphore::new(1);
    let turn = slot.acquire().await.unwrap();
    let (makes_way, install_max) = (&|| false, STALL_MAX);
    let course = Course { bytes_per_s: &|| 0, makes_way, goes_on: &|_| (), install_max };
    let path = world.dir.path().join("data");
    let sending = transmit(&out, &mut answers, &header, &path, &course, turn);
    let receiving = async {
        there.recv().await.unwrap();
        answer(&back, &SnapshotAnswer::Continue { from_bytes: 0 }).await;
        let mut got_bytes = 0;
        while got_bytes < header.data_bytes {
            got_bytes += there.recv().await.unwrap().unwrap().len() as u64;
            assert_eq!(slot.available_permits(), 0, "after {got_bytes} bytes");
        }
        answer(&back, &SnapshotAnswer::Continue { from_bytes: got_bytes }).await;
        drop(slot.acquire().await.unwrap());
        answer(&back, &SnapshotAnswer::Refused(Code::Internal)).await;
    };
    let (answered, ()) = tokio::join!(sending, receiving);
    assert_eq!(answered, Ok(SnapshotAnswer::Refused(Code::Internal)));
}

#[tokio::test]
async fn a_rate_that_changes_is_felt_at_once() {
    let data = data(3);
    let (world, header) = (World::new(&data), header_of(&data));
    let (out, there) = pipe();
    let (back, mut answers) = pipe();
    // A chunk every four seconds, and soon as fast as it goes: the first pause ends as well.
    let slow = Duration::from_millis(300);
    let started = Instant::now();
    let rate = || if started.elapsed() < slow { CHUNK as u64 / 4 } else { 0 };
    let receiving = async { (world.receive(there, back, usize::MAX - 1).await, started.elapsed()) };
    let (_, (received, took)) =
        tokio::join!(world.send(&header, (out, &mut answers), &rate), receiving);
    assert_eq!(received.unwrap(), data);
    assert!(took >= slow && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn the_note_of_an_installation_is_read_back_or_ignored() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(marked_install(dir.path()), None);
    let at = |index| Some(LogPos { term: 2, leader: 1, index });
    mark_install(dir.path(), at(77)).unwrap();
    assert_eq!(marked_install(dir.path()), at(77));
    // A crash while the next one is written leaves the one before.
    std::fs::write(dir.path().join("install.base-new"), b"\x01").unwrap();
    assert_eq!(marked_install(dir.path()), at(77));
    mark_install(dir.path(), at(99)).unwrap();
    assert_eq!(marked_install(dir.path()), at(99));
    let bytes = std::fs::read(install_mark(dir.path())).unwrap();
    std::fs::write(install_mark(dir.path()), &bytes[..3]).unwrap();
    assert_eq!(marked_install(dir.path()), None);
}
