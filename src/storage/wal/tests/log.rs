//! Stories about one log: what is written, read back, carried forward, deleted, refused.

use super::super::body::Change;
use super::super::recovery::recover_bytes;
use super::super::sim::{Dice, Fault};
use super::super::{Wal, record, segment};
use super::*;
use crate::types::GroupId;
use std::sync::mpsc;
use std::time::Duration;

pub(super) fn entries(log: &GroupLog) -> Vec<Bytes> {
    log.entries(0..u64::MAX, usize::MAX).unwrap()
}

pub(super) fn numbered(range: std::ops::Range<u64>, size: usize) -> Vec<Bytes> {
    range.map(|i| Bytes::from(format!("{i:0size$}"))).collect()
}

#[test]
fn everything_survives_a_restart() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let (a, b, c) = (log.group(0), log.group(65537), log.group(9));
    a.create(bytes("meta"), ignore());
    a.save_vote(bytes("vote 1"), ignore());
    a.append(0, numbered(0..40, 100), ignore());
    a.truncate(30);
    a.append(30, numbered(130..135, 100), ignore());
    a.purge(4, bytes("at 4"));
    a.save_committed(bytes("at 3"));
    b.create(bytes("b"), ignore());
    b.purge(99, bytes("snapshot"));
    b.append(100, numbered(100..101, 3000), ignore());
    c.create(bytes("c"), ignore());
    c.append(0, numbered(0..2, 10), ignore());
    c.remove(ignore());
    c.save_vote(bytes("again"), ignore());
    log.drain();
    let before = entries(&a);
    drop((a, b, c, log));

    let log = Driven::open(&fs.restart(), tiny()).unwrap();
    let (a, b, c) = (log.group(0), log.group(65537), log.group(9));
    let groups = log.wal.groups();
    assert_eq!(groups, [(GroupId(0), bytes("meta")), (GroupId(65537), bytes("b"))]);
    assert_eq!(
        (a.vote(), a.committed(), a.purged()),
        (Some(bytes("vote 1")), Some(bytes("at 3")), Some(bytes("at 4")))
    );
    assert_eq!((a.range(), a.durable_end(), a.live_bytes()), (5..35, 35, 3000));
    assert_eq!(entries(&a), before);
    assert_eq!(entries(&a), [numbered(5..30, 100), numbered(130..135, 100)].concat());
    assert_eq!((b.range(), b.purged()), (100..101, Some(bytes("snapshot"))));
    assert_eq!(entries(&b), numbered(100..101, 3000));
    assert_eq!((c.range(), c.created(), c.vote()), (0..0, None, Some(bytes("again"))));
}

#[test]
fn entries_are_readable_before_they_are_durable() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..50, 100), log.done(1));
    assert_eq!(entries(&group), numbered(0..50, 100));
    assert_eq!((group.range(), group.durable_end()), (0..50, 0));
    assert!(log.done.lock().is_empty());
    log.drain();
    assert_eq!(*log.done.lock(), [(1, true)]);
    assert_eq!(group.durable_end(), 50);
    // The cache holds 512 bytes; the rest comes from the segment.
    assert_eq!(entries(&group), numbered(0..50, 100));
}

#[test]
fn reads_are_bounded_by_bytes_but_give_at_least_one() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..20, 100), ignore());
    group.purge(4, Bytes::new());
    log.drain();
    let read = |range, bytes_max| group.entries(range, bytes_max).unwrap();
    assert_eq!(read(0..u64::MAX, 250), numbered(5..7, 100));
    assert_eq!(read(7..20, 1), numbered(7..8, 100));
    assert_eq!(read(18..30, 1000), numbered(18..20, 100));
    assert!(read(20..30, 1000).is_empty());
    assert!(read(0..5, 1000).is_empty());
}

#[test]
fn callbacks_run_once_and_in_order_over_many_batches() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    for i in 0..200 {
        let group = log.group(i % 3);
        match i % 5 {
            4 => group.save_vote(bytes("vote"), log.done(i)),
            _ => group.append(group.range().end, numbered(0..1, 300), log.done(i)),
        }
    }
    log.drain();
    let wanted: Vec<(u64, bool)> = (0..200).map(|i| (i, true)).collect();
    assert_eq!(*log.done.lock(), wanted);
}

#[test]
fn a_barrier_comes_after_what_was_submitted_and_changes_nothing() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.barrier(log.done(0));
    assert_eq!(*log.done.lock(), [(0, true)], "there is nothing to wait for");
    group.save_vote(bytes("one"), log.done(1));
    group.append(0, numbered(0..9, 1000), log.done(2));
    group.truncate(5);
    group.barrier(log.done(3));
    group.save_vote(bytes("two"), log.done(4));
    group.barrier(log.done(5));
    assert_eq!(log.done.lock().len(), 1);
    log.drain();
    let wanted = [0, 1, 2, 3, 4, 5].map(|name| (name, true));
    assert_eq!(*log.done.lock(), wanted);
    drop((group, log));
    let log = Driven::open(&fs.restart(), tiny()).unwrap();
    assert_eq!((log.group(1).vote(), log.group(1).range()), (Some(bytes("two")), 0..5));
}

#[test]
fn what_leaves_a_hole_is_refused_and_the_log_goes_on() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    let group = log.group(1);
    group.append(1, numbered(0..1, 10), log.done(1));
    group.append(0, numbered(0..9, 1000), log.done(2));
    group.append(11, numbered(0..9, 1000), log.done(3));
    group.append(9, Vec::new(), log.done(4));
    log.drain();
    assert_eq!(*log.done.lock(), [(1, false), (3, false), (2, true), (4, true)]);
    assert_eq!(group.range(), 0..9);
}

#[test]
fn committed_waits_for_company_and_overtakes_nothing() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.save_committed(bytes("0"));
    assert_eq!(log.drain(), Step::Idle);
    let before = log.wal.stats().syncs;
    // Two batches wait; what is committed belongs behind the second.
    group.append(0, numbered(0..2, 1500), ignore());
    group.save_committed(bytes("1"));
    log.writer.step(false);
    assert_eq!(log.wal.stats().syncs, before + 1);
    let half = Driven::open(&fs.copy(2), tiny()).unwrap();
    assert_eq!((half.group(1).range(), half.group(1).committed()), (0..1, None));
    log.drain();
    let whole = Driven::open(&fs.copy(2), tiny()).unwrap();
    assert_eq!((whole.group(1).range(), whole.group(1).committed()), (0..2, Some(bytes("1"))));
}

#[test]
fn an_error_stops_the_log_for_ever() {
    for fault in [Fault::Sync, Fault::Write] {
        let fs = SimFs::new(1);
        let mut log = Driven::open(&fs, tiny()).unwrap();
        let group = log.group(1);
        group.append(0, numbered(0..1, 100), log.done(1));
        log.drain();
        fs.set_fault(Some(fault));
        group.append(1, numbered(0..1, 1500), log.done(2));
        group.append(2, numbered(0..1, 1500), log.done(3));
        assert_eq!(log.drain(), Step::Ended);
        let ops = fs.ops();
        group.save_vote(bytes("late"), log.done(4));
        assert_eq!(log.drain(), Step::Ended);
        assert_eq!(*log.done.lock(), [(1, true), (2, false), (3, false), (4, false)], "{fault:?}");
        assert_eq!(fs.ops(), ops, "nothing is tried again");
        assert_eq!(group.durable_end(), 1);
        let failed = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(matches!(failed.block_on(log.wal.failed()), Error::Io { .. }));
    }
}

#[test]
fn idle_groups_do_not_pin_segments() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    for id in 1..=6 {
        let idle = log.group(id);
        idle.create(bytes("idle"), ignore());
        idle.save_vote(bytes("vote"), ignore());
        idle.append(0, numbered(0..4, 40), ignore());
        idle.purge(1, bytes("one"));
        idle.save_committed(bytes("three"));
    }
    let busy = log.group(7);
    for i in 0..500 {
        busy.append(i, numbered(i..i + 1, 1000), ignore());
        log.drain();
        busy.purge(i.saturating_sub(5), bytes("p"));
        assert!(log.wal.stats().disk_bytes <= 6 * (16 << 10), "{:?}", log.wal.stats());
    }
    log.drain();
    let names = fs.content(&segment::name(1));
    assert_eq!(names, None, "the first segment is gone");
    for log in [log, Driven::open(&fs.copy(3), tiny()).unwrap()] {
        for id in 1..=6 {
            let idle = log.group(id);
            assert_eq!(entries(&idle), numbered(2..4, 40));
            assert_eq!((idle.created(), idle.vote()), (Some(bytes("idle")), Some(bytes("vote"))));
            assert_eq!(
                (idle.purged(), idle.committed()),
                (Some(bytes("one")), Some(bytes("three")))
            );
        }
    }
}

#[test]
fn a_group_with_many_entries_is_named_and_frees_the_log_by_purging() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let (heavy, busy) = (log.group(1), log.group(2));
    assert_eq!(log.wal.oldest_pinning_group(), None);
    heavy.append(0, numbered(0..10, 100), ignore());
    for i in 0..200 {
        busy.append(i, numbered(i..i + 1, 1000), ignore());
        busy.purge(i, bytes("p"));
        log.drain();
    }
    assert_eq!(log.wal.oldest_pinning_group(), Some(GroupId(1)));
    assert!(log.wal.stats().segments_sealed > 5);
    let disk_bytes = log.wal.stats().disk_bytes;
    heavy.purge(9, bytes("flushed"));
    log.drain();
    assert!(log.wal.stats().segments_sealed <= 1, "{:?}", log.wal.stats());
    assert!(log.wal.stats().disk_bytes < disk_bytes / 2);
}

#[test]
fn a_dead_segment_is_kept_until_what_killed_it_is_durable() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..40, 1000), ignore());
    log.drain();
    group.purge(39, bytes("all"));
    let torn = Driven::open(&fs.copy(2), tiny()).unwrap();
    assert_eq!(torn.group(1).range(), 0..40);
    log.drain();
    assert_eq!(log.wal.stats().segments_sealed, 0);
}

#[test]
fn records_larger_than_a_segment_get_a_larger_one() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..3, 50_000), ignore());
    group.save_vote(Bytes::from(vec![7; 20_000]), ignore());
    log.drain();
    assert_eq!(entries(&group), numbered(0..3, 50_000));
    let log = Driven::open(&fs.reboot().1, tiny()).unwrap();
    assert_eq!(entries(&log.group(1)), numbered(0..3, 50_000));
    assert_eq!(log.group(1).vote().unwrap().len(), 20_000);
}

#[test]
fn what_recovery_reports_survives_the_next_cut() {
    // A kill leaves in the page cache what no fdatasync covered. Once a recovered log has said that it
    // is there, a power cut may not take it away.
    for seed in 0..200 {
        let fs = SimFs::new(seed);
        let mut log = Driven::open(&fs, tiny()).unwrap();
        log.group(1).append(0, numbered(0..5, 100), ignore());
        log.drain();
        log.group(1).append(5, numbered(5..9, 100), ignore());
        fs.set_fault(Some(Fault::Sync));
        log.drain();
        let fs = fs.restart();
        let log = Driven::open(&fs, tiny()).unwrap();
        assert_eq!(log.group(1).durable_end(), 9);
        let log = Driven::open(&fs.reboot().1, tiny()).unwrap();
        assert_eq!(log.group(1).range(), 0..9, "seed {seed}");
    }
}

#[test]
fn after_a_tear_the_log_goes_on_in_a_fresh_segment() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    log.group(1).append(0, numbered(0..3, 100), ignore());
    log.drain();
    log.group(1).append(3, numbered(3..6, 300), ignore());
    log.drain();
    let name = segment::name(1);
    let last = fs.content(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    fs.flip(&name, last, 0);
    let mut log = Driven::open(&fs.restart(), tiny()).unwrap();
    assert_eq!(entries(&log.group(1)), numbered(0..3, 100));
    log.group(1).append(3, numbered(13..14, 100), ignore());
    log.drain();
    let second = Driven::open(&fs.reboot().1, tiny()).unwrap();
    assert_eq!(entries(&second.group(1)), [numbered(0..3, 100), numbered(13..14, 100)].concat());
    assert_eq!(second.wal.stats().segments_sealed, 1);
}

#[test]
fn nothing_is_written_over_the_remains_of_a_torn_batch() {
    // The header of the last batch is torn and its records are not. Written over, they could stand right
    // behind a shorter batch and look like part of the log.
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    log.group(2).append(0, numbered(0..1, 1000), ignore());
    log.group(1).save_vote(bytes("one"), ignore());
    log.drain();
    let name = segment::name(1);
    let end = fs.content(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    log.group(1).save_vote(bytes("two"), ignore());
    log.group(1).save_vote(bytes("six"), ignore());
    log.drain();
    fs.flip(&name, end / 8 * 8 + 8, 0);
    for vote in ["ten", "for"] {
        let mut log = Driven::open(&fs.restart(), tiny()).unwrap();
        assert!(matches!(log.group(1).vote().as_deref(), Some(b"one" | b"ten")));
        log.group(1).save_vote(bytes(vote), ignore());
        log.drain();
        assert_eq!(log.wal.stats().segments_sealed, 1);
    }
    assert_eq!(fs.content(&name).unwrap().len(), end / 8 * 8 + 8, "the remains are cut off");
}

#[test]
fn every_flipped_bit_before_a_later_batch_is_damage() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.create(bytes("c"), ignore());
    group.append(0, numbered(0..3, 20), ignore());
    log.drain();
    group.save_vote(bytes("vote"), ignore());
    log.drain();
    let name = segment::name(1);
    let content = fs.content(&name).unwrap();
    let last_batch = content.iter().rposition(|byte| *byte != 0).unwrap();
    group.purge(0, bytes("p"));
    log.drain();
    for offset in segment::BLOCK_BYTES..last_batch {
        for bit in 0..8 {
            let mut content = fs.content(&name).unwrap();
            content[offset] ^= 1 << bit;
            let recovered = recover_bytes(&[(1, &content)]);
            assert!(matches!(recovered, Err(Error::Damage(_))), "{offset} {bit}: {recovered:?}");
        }
    }
    assert_eq!(recover_bytes(&[(1, &fs.content(&name).unwrap())]).unwrap().records, 4);
}

/// Segments with their numbers.
type Files = Vec<(u64, Vec<u8>)>;

#[test]
fn a_missing_or_shortened_segment_is_damage() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..60, 1000), ignore());
    log.drain();
    drop((group, log));
    let contents: Files =
        (1..=6).filter_map(|id| Some((id, fs.content(&segment::name(id))?))).collect();
    let recover = |change: &dyn Fn(&mut Files)| {
        let mut contents = contents.clone();
        change(&mut contents);
        let borrowed: Vec<_> = contents.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
        recover_bytes(&borrowed)
    };
    assert_eq!(recover(&|_| {}).unwrap().entries, 60);
    let damaged = |change: &dyn Fn(&mut Files)| {
        assert!(matches!(recover(change), Err(Error::Damage(_))));
    };
    damaged(&|all| drop(all.remove(2)));
    damaged(&|all| all[1].1.truncate(9_000));
    damaged(&|all| all[1].1[..4096].fill(0));
    damaged(&|all| all[1].1.fill(0));
    damaged(&|all| all[1].1.clear());
    damaged(&|all| drop(all.remove(0)));
    damaged(&|all| all.reverse());
    damaged(&|all| {
        let segment::Block::Used(header) = segment::block(3, &all[2].1) else { panic!() };
        let header = segment::Header { sequence_before: header.sequence_before + 1, ..header };
        all[2].1[..4096].copy_from_slice(&header.block());
    });
}

#[test]
fn a_last_segment_cut_short_inside_a_batch_is_damage() {
    // A batch is written only where it fits, into a file whose length is durable. So a file that ends
    // inside a batch was no tear: it has lost its end, and with it what callers may have been told.
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    let name = segment::name(1);
    let mut borders = vec![segment::BLOCK_BYTES];
    for i in 0..3 {
        group.save_vote(bytes("vote"), ignore());
        // Ends in zeros, as a body does that is padded: they count as much as other bytes.
        group.append(i, vec![Bytes::from(vec![0; 61])], ignore());
        log.drain();
        borders.push(log.writer.active.offset as usize);
    }
    let content = fs.content(&name).unwrap();
    for length in 0..=borders[3] {
        // Nothing tells that more was there: an empty file was never used, at a border a log may end.
        let sound = length == 0 || borders.contains(&length);
        let found = recover_bytes(&[(1, &content[..length])]);
        let longer = recover_bytes(&[(1, &[&content[..length], &[0; 1024][..]].concat())]);
        match (sound, found) {
            (true, Ok(found)) => assert_eq!(found, longer.unwrap(), "zeros hold nothing: {length}"),
            (false, Err(Error::Damage(_))) => {}
            (_, found) => panic!("cut at {length}: {found:?}"),
        }
    }
    // Behind a tear it is the log itself that ends its file inside a batch, once another segment follows.
    fs.flip(&name, borders[3] - 1, 0);
    let log = Driven::open(&fs.restart(), tiny()).unwrap();
    assert_eq!(log.group(1).range(), 0..2);
    assert!(fs.content(&name).unwrap().len() < borders[3]);
    drop(log);
    assert_eq!(Driven::open(&fs.reboot().1, tiny()).unwrap().group(1).range(), 0..2);
}

#[test]
fn a_header_out_of_order_is_damage_even_if_its_body_is_torn() {
    let header = segment::Header {
        segment: 1,
        random: 7,
        end_before: 0,
        sequence_before: 0,
        batch_before: 0,
    };
    let base = segment::BLOCK_BYTES as u64;
    let place = record::Place { salt: header.salt(), base, batch: 1 };
    // A batch with room for one vote; the last byte of the votes in it is torn.
    let recover = |votes: u64| {
        let vote = Change::Vote(bytes("in eight"));
        let batch_bytes = record::BATCH_BYTES + vote.record_bytes();
        let mut batch = Vec::new();
        record::write_batch(&mut batch, place, 0, batch_bytes as u64, 1);
        (1..=votes).for_each(|vote_at| vote.write(&mut batch, place, vote_at, GroupId(1)));
        *batch.last_mut().unwrap() ^= 1;
        recover_bytes(&[(1, &[header.block(), batch, vec![0; 1024]].concat())])
    };
    assert!(recover(1).unwrap().cut);
    assert!(matches!(recover(2), Err(Error::Damage(_))));
}

#[test]
fn recovery_takes_any_bytes() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.create(bytes("c"), ignore());
    for i in 0..12 {
        group.append(i * 3, numbered(i..i + 3, 300), ignore());
        group.save_vote(bytes("vote"), ignore());
        log.drain();
    }
    group.truncate(30);
    group.purge(20, bytes("p"));
    group.remove(ignore());
    log.drain();
    let whole: Files =
        (1..=3).filter_map(|id| Some((id, fs.content(&segment::name(id))?))).collect();
    let mut dice = Dice(7);
    let (mut sound, mut damaged) = (0, 0);
    for _ in 0..20_000 {
        let mut files = whole.clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(files.len() as u64) as usize;
            let file = &mut files[at].1;
            // Mostly where records are, often a field of eight bytes, often an extreme.
            let offset = dice.below(file.len() as u64) as usize / 8 * 8;
            let value = [0, 1, u64::MAX, dice.roll(), dice.below(5_000)][dice.below(5) as usize];
            match dice.below(8) {
                0 => file.truncate(offset),
                1 => file.rotate_left(8),
                _ if offset + 8 <= file.len() => {
                    file[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
                }
                _ => {}
            }
            if file.is_empty() {
                break;
            }
        }
        let borrowed: Vec<_> = files.iter().map(|(id, bytes)| (*id, &bytes[..])).collect();
        match recover_bytes(&borrowed) {
            Ok(_) => sound += 1,
            Err(_) => damaged += 1,
        }
    }
    assert!(sound > 50 && damaged > 50, "{sound} {damaged}");
}

#[test]
fn a_closed_log_knows_its_last_batch() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    log.group(1).save_vote(bytes("vote"), ignore());
    log.drain();
    let Driven { wal, mut writer, .. } = log;
    drop(wal);
    assert_eq!(writer.step(false), Step::Ended);
    let name = segment::name(1);
    let content = fs.content(&name).unwrap();
    let vote = content.windows(4).position(|window| window == b"vote").unwrap();
    fs.flip(&name, vote, 1);
    assert!(matches!(Driven::open(&fs.restart(), tiny()), Err(Error::Damage(_))));
}

#[test]
fn an_entry_that_rots_is_not_served() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    let group = log.group(1);
    group.append(0, numbered(0..20, 100), ignore());
    log.drain();
    let name = segment::name(1);
    let wanted = &numbered(3..4, 100)[0][..];
    let content = fs.content(&name).unwrap();
    let at = content.windows(100).position(|window| window == wanted).unwrap();
    fs.flip(&name, at, 0);
    assert!(matches!(group.entries(0..20, usize::MAX), Err(Error::Damage(_))));
    assert_eq!(group.entries(4..20, usize::MAX).unwrap(), numbered(4..20, 100));
}

#[test]
fn a_log_that_ends_before_what_is_proven_is_damage() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    let group = log.group(1);
    assert!(matches!(group.require(0), Err(Error::Damage(_))));
    group.append(0, numbered(0..5, 10), ignore());
    log.drain();
    assert!(group.require(4).is_ok());
    assert!(group.require(5).is_err());
    group.purge(9, bytes("snapshot"));
    assert!(group.require(9).is_ok());
    assert!(group.require(10).is_err());
}

#[test]
fn a_full_disk_leaves_the_reserve_and_space_may_come_back() {
    let fs = SimFs::new(1);
    let mut log = Driven::open(&fs, tiny()).unwrap();
    fs.set_fault(Some(Fault::NoSpace));
    let group = log.group(1);
    for i in 0..15 {
        group.append(i, numbered(i..i + 1, 1000), log.done(i));
        log.drain();
    }
    let stats = log.wal.stats();
    assert_eq!((stats.no_space, stats.segments_ready, stats.segments_sealed), (true, 0, 1));
    fs.set_fault(None);
    for i in 15..40 {
        group.append(i, numbered(i..i + 1, 1000), log.done(i));
        log.drain();
    }
    assert!(!log.wal.stats().no_space);
    assert!(log.done.lock().iter().all(|(_, ok)| *ok));
    assert_eq!(entries(&group), numbered(0..40, 1000));
}

#[cfg(debug_assertions)]
#[test]
fn the_planted_fault_answers_too_early() {
    let fs = SimFs::new(1);
    let planted = Options { ack_before_fsync: true, ..tiny() };
    let mut log = Driven::open(&fs, planted).unwrap();
    fs.set_fault(Some(Fault::Sync));
    log.group(1).save_vote(bytes("vote"), log.done(1));
    log.drain();
    assert_eq!(*log.done.lock(), [(1, true)]);
}

#[test]
fn threads_write_what_many_submit_and_dropping_waits_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { segment_bytes: 64 << 10, queue_bytes_max: 8 << 10, ..Options::default() };
    let wal = Wal::open(dir.path(), small.clone()).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for id in 0..4 {
            let (log, sender) = (wal.group(GroupId(id)), sender.clone());
            scope.spawn(move || {
                for i in 0..300 {
                    let sender = sender.clone();
                    let done: Done = Box::new(move |result| {
                        result.unwrap();
                        sender.send((id, i)).unwrap();
                    });
                    log.append(i, numbered(i..i + 1, 500), done);
                    if i % 50 == 49 {
                        log.purge(i - 30, bytes("p"));
                    }
                }
            });
        }
    });
    let last = wal.group(GroupId(9));
    last.save_vote(bytes("last"), ignore());
    let syncs = wal.stats().syncs;
    assert!(syncs > 1);
    drop((wal, last, sender));
    let mut next = [0; 4];
    for (id, i) in receiver.iter() {
        assert_eq!(next[id as usize], i);
        next[id as usize] += 1;
    }
    assert_eq!(next, [300; 4]);
    let wal = Wal::open(dir.path(), small).unwrap();
    assert_eq!(wal.group(GroupId(9)).vote(), Some(bytes("last")));
    for id in 0..4 {
        let log = wal.group(GroupId(id));
        assert_eq!((log.range(), log.durable_end()), (270..300, 300));
        assert_eq!(entries(&log), numbered(270..300, 500));
    }
}

#[test]
fn submitting_waits_only_while_the_queue_is_full() {
    let fs = SimFs::new(1);
    let options = Options { queue_bytes_max: 1000, ..tiny() };
    let mut log = Driven::open(&fs, options).unwrap();
    let group = log.group(1);
    let (sender, receiver) = mpsc::channel();
    let submitting = std::thread::spawn(move || {
        for i in 0..3 {
            group.append(i, numbered(i..i + 1, 600), ignore());
            sender.send(i).unwrap();
        }
    });
    let wait = Duration::from_secs(10);
    assert_eq!(receiver.recv_timeout(wait), Ok(0));
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "the second has to wait");
    log.drain();
    assert_eq!(receiver.recv_timeout(wait), Ok(1));
    while log.drain() == Step::Idle && receiver.recv_timeout(Duration::from_millis(1)).is_err() {}
    submitting.join().unwrap();
    log.drain();
    assert_eq!(log.group(1).durable_end(), 3);
}

#[test]
fn a_callback_that_panics_stops_the_log_instead_of_hanging_it() {
    let mut log = Driven::open(&SimFs::new(1), tiny()).unwrap();
    log.group(1).save_vote(bytes("u"), Box::new(|_| panic!("a callback's own trouble")));
    log.group(1).save_vote(bytes("v"), log.done(1));
    assert_eq!(log.drain(), Step::Ended);
    assert_eq!(*log.done.lock(), [(1, true)], "the others are answered");

    let wal = Wal::open_with(Arc::new(SimFs::new(1)), tiny()).unwrap();
    wal.group(GroupId(1)).save_vote(bytes("v"), Box::new(|_| panic!("a callback's own trouble")));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(matches!(runtime.block_on(wal.failed()), Error::Stopped));
    let (sender, receiver) = mpsc::channel();
    let done: Done = Box::new(move |result| sender.send(result.is_err()).unwrap());
    wal.group(GroupId(1)).save_vote(bytes("w"), done);
    assert_eq!(receiver.recv(), Ok(true));
}
