//! A snapshot over a slow stream: sent, cut short, damaged, meant for somebody else.

use super::*;
use tokio::sync::mpsc;

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

fn file(dir: &Path, data: &[u8]) -> PathBuf {
    let path = dir.join("data");
    std::fs::write(&path, data).unwrap();
    path
}

#[tokio::test]
async fn a_file_leaves_in_chunks_behind_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..3 * limits::SNAPSHOT_CHUNK_BYTES + 7).map(|i| i as u8).collect();
    let path = file(dir.path(), &data);
    let (out, mut there) = pipe();
    let (back, mut answers) = pipe();
    let expected = header_of(&data);
    let receiver = tokio::spawn(async move {
        let got = header(&mut there).await.unwrap();
        let (mut data, mut longest) = (vec![], 0);
        while (data.len() as u64) < got.data_bytes {
            let chunk = there.recv().await.unwrap().unwrap();
            longest = longest.max(chunk.len());
            data.extend_from_slice(&chunk);
        }
        answer(&back, &SnapshotAnswer::Refused(Code::NoSpace)).await;
        (got, data, longest)
    });
    let told = transmit(&out, &mut answers, &expected, &path, || 0, STALL_MAX).await.unwrap();
    assert_eq!(told, SnapshotAnswer::Refused(Code::NoSpace));
    let (got, received, longest) = receiver.await.unwrap();
    assert_eq!((got, received, longest), (expected, data, limits::SNAPSHOT_CHUNK_BYTES));
}

#[tokio::test]
async fn a_refusal_ends_the_sending_early() {
    let dir = tempfile::tempdir().unwrap();
    let data = vec![7; 40 * limits::SNAPSHOT_CHUNK_BYTES];
    let path = file(dir.path(), &data);
    let (out, mut there) = pipe();
    let (back, mut answers) = pipe();
    let receiver = tokio::spawn(async move {
        header(&mut there).await.unwrap();
        answer(&back, &SnapshotAnswer::Refused(Code::Moved)).await;
        // Reads nothing more, but does not hang up either.
        std::future::pending::<()>().await;
        drop(there);
    });
    let told =
        transmit(&out, &mut answers, &header_of(&data), &path, || 0, STALL_MAX).await.unwrap();
    assert_eq!(told, SnapshotAnswer::Refused(Code::Moved));
    receiver.abort();
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), b"data");
    let (out, there) = pipe();
    let (back, mut answers) = pipe();
    drop((back, there));
    assert!(
        transmit(&out, &mut answers, &header_of(b"data"), &path, || 0, STALL_MAX).await.is_err()
    );
}

#[test]
fn a_chunk_takes_its_time_at_the_rate() {
    assert_eq!(takes(1 << 30, 0), Duration::ZERO);
    assert_eq!(takes(1_000, 2_000), Duration::from_millis(500));
    assert_eq!(takes(1 << 30, 1), TAKES_MAX);
}

#[tokio::test]
async fn a_rate_that_changes_is_felt_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let data = vec![7; 4 * limits::SNAPSHOT_CHUNK_BYTES];
    std::fs::write(&path, &data).unwrap();
    let (out, there) = pipe();
    let (_back, mut answers) = pipe();
    let header = header_of(&data);
    // One chunk in a second, then as fast as it goes: without the change this takes 4 s.
    let asked = std::sync::atomic::AtomicU64::new(0);
    let rate = || match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => limits::SNAPSHOT_CHUNK_BYTES as u64,
        _ => 0,
    };
    let started = Instant::now();
    let reading = tokio::spawn(async move {
        let mut there = there;
        while there.recv().await.is_ok_and(|frame| frame.is_some()) {}
    });
    let sent = transmit(&out, &mut answers, &header, &path, rate, Duration::from_millis(10)).await;
    assert!(sent.is_err(), "nobody answers");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    reading.abort();
}

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
    assert!(judge(1, VoteRecord { committed: false, ..vote }, &meta(at(3, 1, 50)), None).is_err());
    assert!(judge(1, vote, &meta(at(4, 1, 50)), None).is_err());
    assert!(judge(1, vote, &meta(at(3, 2, 50)), None).is_err());
    assert!(judge(1, vote, &meta(at(3, 1, 40)), Some(at(2, 9, 40))).is_err());
    assert!(judge(1, vote, &meta(at(3, 1, 10)), Some(at(2, 9, 40))).is_err());
}

#[test]
fn the_note_of_an_installation_is_read_back_or_ignored() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(marked_install(dir.path()), None);
    let at = Some(LogPos { term: 2, leader: 1, index: 77 });
    mark_install(dir.path(), at).unwrap();
    assert_eq!(marked_install(dir.path()), at);
    let bytes = std::fs::read(install_mark(dir.path())).unwrap();
    std::fs::write(install_mark(dir.path()), &bytes[..3]).unwrap();
    assert_eq!(marked_install(dir.path()), None);
}

#[test]
fn staged_files_go_with_their_owner_and_leftovers_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let staged = stage(dir.path(), "in").unwrap();
    std::fs::write(staged.path(), b"x").unwrap();
    let path = staged.path().to_owned();
    drop(staged);
    assert!(!path.exists());
    let left = stage(dir.path(), "in").unwrap();
    std::fs::write(left.path(), b"x").unwrap();
    let path = left.path().to_owned();
    std::mem::forget(left);
    sweep(dir.path()).unwrap();
    assert!(!path.exists());
    sweep(dir.path()).unwrap();
}

#[tokio::test]
async fn only_a_whole_and_true_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = vec![5; 300_000];
    let receive = async |header: SnapshotHeader, chunks: Vec<Bytes>| {
        let (out, mut there) = pipe();
        let feed = tokio::spawn(async move {
            for chunk in chunks {
                let _ = out.send(chunk).await;
            }
        });
        let stored = store(dir.path(), &header, &mut there).await;
        feed.await.unwrap();
        stored.map_err(|(code, _)| code)
    };
    let left = || std::fs::read_dir(staging(dir.path())).unwrap().count();
    let chunks = || vec![Bytes::from(vec![5; 200_000]), Bytes::from(vec![5; 100_000])];
    let staged = receive(header_of(&data), chunks()).await.unwrap();
    assert_eq!(std::fs::read(staged.path()).unwrap(), data);
    drop(staged);
    let wrong = SnapshotHeader { crc32c: 1, ..header_of(&data) };
    assert_eq!(receive(wrong, chunks()).await.err(), Some(Code::Corrupt));
    let short = receive(header_of(&data), chunks()[..1].to_vec()).await;
    assert_eq!(short.err(), Some(Code::Unreachable));
    let long = SnapshotHeader { data_bytes: 250_000, ..header_of(&data) };
    assert_eq!(receive(long, chunks()).await.err(), Some(Code::BadRequest));
    assert_eq!(left(), 0);
}
