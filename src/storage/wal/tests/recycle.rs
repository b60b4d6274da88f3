//! Segments that are used again: what is left in them, and who still reads them.

use super::super::sim::Fault;
use super::super::{WalFs, keeper, segment};
use super::log::{entries, numbered};
use super::*;
use std::sync::atomic::Ordering;

/// Appends and forgets entries until the first segment is dead and some more are full.
fn fill_and_forget(log: &mut Driven, group: &GroupLog) {
    for i in group.range().end..60 {
        group.append(i, numbered(i..i + 1, 1000), ignore());
        log.drain();
        group.purge(i, bytes("p"));
    }
    log.drain();
}

#[test]
fn a_dead_segment_is_used_again() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    fill_and_forget(&mut log, &group);
    // Not a byte of zeros could be written any more.
    fs.set_fault(Some(Fault::NoSpace));
    for i in 60..600 {
        group.append(i, numbered(i..i + 1, 1000), log.done(i));
        log.drain();
        group.purge(i - 3, bytes("p"));
    }
    log.drain();
    assert!(log.done.lock().iter().all(|(_, ok)| *ok));
    let stats = log.wal.stats();
    assert!(stats.segments_ready as usize <= 1 + keeper::RECYCLED_MAX, "{stats:?}");
    let names = WalFs::list(&fs).unwrap();
    assert_eq!(names.len() as u64 * (16 << 10), stats.disk_bytes, "{names:?}");
    assert!(!names.contains(&segment::name(9)) && !names.contains(&segment::SPARE.to_owned()));
    drop(log);
    let log = Driven::open(&fs.restart(), tiny()).unwrap();
    assert_eq!(entries(&log.group(1)), numbered(597..600, 1000));
}

#[test]
fn the_keeper_hears_how_much_room_the_segment_in_use_has() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    let mut before = 0;
    let (mut rose, mut fell) = (0, 0);
    for i in 0..60 {
        group.append(i, numbered(i..i + 1, 1000), ignore());
        log.drain();
        let now = log.writer.shared.keeper.room_bytes.load(Ordering::Relaxed);
        assert!(now <= 16 << 10, "{now}");
        rose += usize::from(now > before);
        fell += usize::from(now < before && before - now >= 1000);
        before = now;
    }
    // It falls with each batch, and is large again in the next segment.
    assert!(rose >= 3 && rose + fell == 60, "{rose} {fell}");
}

/// What is left behind in the last bytes, where no header fits, must not look like a header that was cut off.
#[test]
fn a_segment_that_is_used_again_may_end_a_few_bytes_before_its_end() {
    /// An entry whose batch fills a segment to its last byte.
    const WHOLE: usize = (16 << 10) - segment::BLOCK_BYTES - 128;
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    let mut write = |i: u64, size: usize| {
        group.append(i, numbered(i..i + 1, size), ignore());
        log.drain();
        let copy = fs.copy(i);
        // Not after each: then only segments with nothing but a purge in them would be used for entries.
        if i.is_multiple_of(3) {
            group.purge(i, bytes("p"));
            log.drain();
        }
        copy
    };
    (0..10).for_each(|i| drop(write(i, WHOLE)));
    for i in 10..30 {
        let copy = write(i, WHOLE - 24);
        let log = Driven::open(&copy, tiny()).unwrap();
        let last = log.group(1).entries(i..i + 1, usize::MAX).unwrap();
        assert!(last == numbered(i..i + 1, WHOLE - 24));
    }
}

#[test]
fn what_somebody_reads_is_not_used_again() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    let read = log.writer.shared.segments.lock().get(&1).cloned().unwrap();
    // The header and most of the first record.
    let (mut before, mut after) = (vec![0; 5_000], vec![0; 5_000]);
    group.append(0, numbered(0..1, 1000), ignore());
    log.drain();
    read.read_at(0, &mut before).unwrap();
    fill_and_forget(&mut log, &group);
    assert_eq!(fs.content(&segment::name(1)), None, "it is dead");
    read.read_at(0, &mut after).unwrap();
    assert!(before == after, "it was written over");
}
