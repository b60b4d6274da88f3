//! What is there of a snapshot after its stream broke off, after a crash, and when somebody tampered with it.

use super::super::encoding::MembershipRecord;
use super::super::staging::{folder, take_stock};
use super::*;
use crate::types::{GroupId, LogPos};

const GROUP: GroupId = GroupId(1);

fn data() -> Vec<u8> {
    (0..2 * SYNC_BYTES + SYNC_BYTES / 2).map(|i| (i / 7) as u8).collect()
}

fn identity(data: &[u8], index: u64) -> Identity {
    let last = LogPos { term: 1, leader: 1, index };
    let meta = MetaRecord { last, membership: MembershipRecord::default() };
    let (meta, crc32c) = (codec::encode(&meta).into(), crc32c::crc32c(data));
    Identity { group: GROUP, copy: 1, meta, data_bytes: data.len() as u64, crc32c }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(folder(dir)).unwrap().count()
}

/// What the next process finds.
fn after_a_crash(dir: &Path) -> Incoming {
    let incoming = Incoming::default();
    incoming.restore(take_stock(dir, GROUP).unwrap().incoming, Instant::now());
    incoming
}

fn fill(filling: &mut Filling, data: &[u8]) {
    data.chunks(limits::SNAPSHOT_CHUNK_BYTES).for_each(|chunk| filling.write(chunk).unwrap());
}

#[test]
fn a_stream_that_broke_off_is_continued_where_it_was() {
    let (dir, data) = (tempfile::tempdir().unwrap(), data());
    let (incoming, identity) = (Incoming::default(), identity(&data, 9));
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    fill(&mut filling, &data[..100_001]);
    incoming.put_back(filling).unwrap();
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    assert_eq!(filling.got_bytes(), 100_001);
    fill(&mut filling, &data[100_001..]);
    let whole = filling.finish().unwrap().unwrap();
    assert_eq!(std::fs::read(whole.path()).unwrap(), data);
    drop(whole);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn a_crash_costs_what_was_not_made_durable() {
    let (dir, data) = (tempfile::tempdir().unwrap(), data());
    let identity = identity(&data, 9);
    let mut filling = Incoming::default().begin(dir.path(), &identity).unwrap();
    fill(&mut filling, &data);
    // The process is gone: nothing is put back, nothing is deleted.
    std::mem::forget(filling);
    let mut filling = after_a_crash(dir.path()).begin(dir.path(), &identity).unwrap();
    let got = filling.got_bytes();
    assert!(got >= data.len() as u64 - SYNC_BYTES && got < data.len() as u64, "{got}");
    fill(&mut filling, &data[got as usize..]);
    let whole = filling.finish().unwrap().unwrap();
    // Gone again, before it was installed: nothing has to be sent any more.
    std::mem::forget(whole);
    let filling = after_a_crash(dir.path()).begin(dir.path(), &identity).unwrap();
    assert_eq!(filling.missing_bytes(), 0);
    let whole = filling.finish().unwrap().unwrap();
    assert_eq!(std::fs::read(whole.path()).unwrap(), data);
}

#[test]
fn bytes_that_changed_on_the_disk_are_not_continued() {
    let (dir, data) = (tempfile::tempdir().unwrap(), data());
    let (incoming, identity) = (Incoming::default(), identity(&data, 9));
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    fill(&mut filling, &data[..1_000_000]);
    let path = filling.file.path().to_owned();
    incoming.put_back(filling).unwrap();
    let mut broken = std::fs::read(&path).unwrap();
    broken[77] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    let filling = incoming.begin(dir.path(), &identity).unwrap();
    assert_eq!(filling.got_bytes(), 0);
    assert!(!path.exists());
    drop(filling);
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn a_whole_file_that_is_not_what_was_announced_is_deleted() {
    let (dir, data) = (tempfile::tempdir().unwrap(), data());
    let (incoming, identity) = (Incoming::default(), identity(&data, 9));
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    fill(&mut filling, &data[..1_000_000]);
    incoming.put_back(filling).unwrap();
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    let mut rest = data[1_000_000..].to_vec();
    rest[5] ^= 1;
    fill(&mut filling, &rest);
    assert!(filling.finish().unwrap().is_none());
    assert_eq!(files(dir.path()), 0);
    assert_eq!(incoming.begin(dir.path(), &identity).unwrap().got_bytes(), 0);
    // Neither is one that is too short.
    let mut filling = incoming.begin(dir.path(), &identity).unwrap();
    fill(&mut filling, &data[..10]);
    assert!(filling.finish().unwrap().is_none());
}

#[test]
fn another_snapshot_supersedes_what_is_there() {
    let (dir, data) = (tempfile::tempdir().unwrap(), data());
    let incoming = Incoming::default();
    let mut filling = incoming.begin(dir.path(), &identity(&data, 9)).unwrap();
    fill(&mut filling, &data[..50]);
    incoming.put_back(filling).unwrap();
    let mut filling = incoming.begin(dir.path(), &identity(&data, 10)).unwrap();
    assert_eq!(filling.got_bytes(), 0);
    fill(&mut filling, &data[..50]);
    incoming.put_back(filling).unwrap();
    assert_eq!(files(dir.path()), 2, "a file and its note");
    let now = Instant::now();
    incoming.tidy(now, Some(9));
    assert_eq!(files(dir.path()), 2);
    incoming.tidy(now, Some(10));
    assert_eq!(files(dir.path()), 0, "the log has brought what it would have");
    let mut filling = incoming.begin(dir.path(), &identity(&data, 11)).unwrap();
    fill(&mut filling, &data[..50]);
    incoming.put_back(filling).unwrap();
    incoming.tidy(now + UNUSED_MAX / 2, None);
    assert_eq!(files(dir.path()), 2);
    incoming.tidy(Instant::now() + UNUSED_MAX, None);
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn the_next_stream_takes_the_turn_and_none_begins_once_closed() {
    let incoming = Incoming::default();
    let first = incoming.turn().await.unwrap();
    let (second, ()) = tokio::join!(incoming.turn(), async {
        first.over().await;
        drop(first);
    });
    let second = second.unwrap();
    let soon = Duration::from_millis(20);
    assert!(tokio::time::timeout(soon, second.over()).await.is_err());
    let ((), ()) = tokio::join!(incoming.close(), async {
        second.over().await;
        drop(second);
    });
    assert!(incoming.turn().await.is_none());
}
