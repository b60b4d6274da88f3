//! What only LMDB's table has: files, generations, crashes between two system calls.

use super::*;
use crate::storage::{LogPos, Store};
use std::fs;

const OPTIONS: Options = Options { map_bytes: 16 << 20 };

fn applied(index: u64) -> Applied {
    let pos = Some(LogPos { term: 1, leader: 1, index });
    Applied { pos, membership: Bytes::from_static(b"m") }
}

/// A store in `dir` with the key `k` at `index`.
fn filled(dir: &Path, index: u64) -> Store {
    let store = Store::open(dir, OPTIONS).unwrap();
    let mut writer = store.write();
    writer.put(Space::Data, b"k", Bytes::from(index.to_string()));
    writer.commit(applied(index));
    store.freeze();
    store.flush_frozen().unwrap();
    store
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn is_corrupt<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Corrupt { .. }))
}

#[test]
fn every_crash_during_an_installation_leaves_the_old_or_the_new() {
    let root = tempfile::tempdir().unwrap();
    let copy = root.path().join("copy");
    filled(&root.path().join("source"), 9).copy_to(&copy).unwrap();

    // The steps of `replace`, cut short after each of them. A crash leaves files, and nothing in memory.
    type Step = fn(&Home, &Path);
    let steps: [Step; 5] = [
        |home, _| drop(home.stage().unwrap()),
        |home, copy| {
            let staging = home.stage().unwrap();
            fs::copy(copy, staging.join(DATA)).unwrap();
        },
        |home, _| drop(home.place(2).unwrap()),
        |home, _| {
            let torn = home.generation(2).with_file_name("CURRENT.new");
            fs::write(torn, b"ppdb-tab").unwrap();
        },
        |home, _| home.switch(2).unwrap().unwrap(),
    ];
    for cut in 0..=steps.len() {
        let dir = root.path().join(format!("target-{cut}"));
        drop(filled(&dir, 1));
        let home = Home::open(&dir).unwrap();
        steps[..cut].iter().for_each(|step| step(&home, &copy));
        drop(home);
        let (index, kept) = if cut == steps.len() { (9, "gen-2") } else { (1, "gen-1") };
        for _ in 0..2 {
            let store = Store::open(&dir, OPTIONS).unwrap();
            assert_eq!(store.applied(), applied(index), "cut after step {cut}");
            let value = store.get(Space::Data, b"k").unwrap().unwrap();
            assert_eq!(value, index.to_string());
            assert_eq!(names(&dir), ["CURRENT", "LOCK", kept], "leftovers go, cut {cut}");
        }
    }
}

#[test]
fn a_creation_cut_short_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    drop(Store::open(&dir, OPTIONS).unwrap());
    // The empty generation is in place, `CURRENT` is not; and before that, half a staging folder.
    fs::remove_file(dir.join("CURRENT")).unwrap();
    fs::create_dir(dir.join("staging")).unwrap();
    fs::write(dir.join("staging/data.mdb"), b"half").unwrap();
    assert_eq!(Store::open(&dir, OPTIONS).unwrap().applied(), Applied::default());
    assert_eq!(names(&dir), ["CURRENT", "LOCK", "gen-1"]);
}

#[test]
fn a_lost_or_broken_pointer_is_damage_and_not_an_empty_store() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    drop(filled(&dir, 3));
    let current = fs::read(dir.join("CURRENT")).unwrap();
    fs::remove_file(dir.join("CURRENT")).unwrap();
    assert!(is_corrupt(Store::open(&dir, OPTIONS)));
    fs::write(dir.join("CURRENT"), b"").unwrap();
    assert!(is_corrupt(Store::open(&dir, OPTIONS)));
    fs::write(dir.join("CURRENT"), current).unwrap();
    assert_eq!(Store::open(&dir, OPTIONS).unwrap().applied(), applied(3), "nothing was touched");
    fs::rename(dir.join("gen-1"), dir.join("gen-5")).unwrap();
    assert!(is_corrupt(Store::open(&dir, OPTIONS)));
    assert!(dir.join("gen-5").exists());
}

#[test]
fn a_data_file_that_was_cut_is_damage_and_does_not_kill_the_process() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    let store = Store::open(&dir, OPTIONS).unwrap();
    let mut writer = store.write();
    for i in 0..2_000_u32 {
        writer.put(Space::Data, &i.to_be_bytes(), Bytes::from(vec![1; 500]));
    }
    writer.commit(applied(1));
    store.freeze();
    store.flush_frozen().unwrap();
    let expected = store.digest(&mut || ()).unwrap();
    drop(store);
    let data = dir.join("gen-1").join(DATA);
    let whole = fs::read(&data).unwrap();
    let mut corrupt = 0;
    for keep in [0, 100, 4_096, 8_192, 12_288, whole.len() / 2, whole.len() - 4_096] {
        fs::write(&data, &whole[..keep]).unwrap();
        let read = Store::open(&dir, OPTIONS).and_then(|store| {
            let all = store.digest(&mut || ())?;
            Ok((all, store.applied()))
        });
        // A page that nothing refers to may be missing; everything else is found out.
        let intact = matches!(&read, Ok((digest, at)) if *digest == expected && *at == applied(1));
        assert!(intact || is_corrupt(read), "{keep} of {} bytes", whole.len());
        corrupt += usize::from(!intact);
    }
    assert!(corrupt >= 6);
    fs::write(&data, &whole).unwrap();
    assert_eq!(Store::open(&dir, OPTIONS).unwrap().digest(&mut || ()).unwrap(), expected);
}

#[test]
fn a_rotten_value_page_is_found() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    let store = Store::open(&dir, OPTIONS).unwrap();
    let mut writer = store.write();
    writer.put(Space::Data, b"k", Bytes::from_static(b"a value that is easy to find"));
    writer.commit(applied(1));
    store.freeze();
    store.flush_frozen().unwrap();
    drop(store);
    let data = dir.join("gen-1").join(DATA);
    let mut bytes = fs::read(&data).unwrap();
    let needle = b"easy to find";
    let mut rotten = 0;
    for at in 0..bytes.len() - needle.len() {
        if bytes[at..].starts_with(needle) {
            bytes[at] ^= 0x10;
            rotten += 1;
        }
    }
    assert!(rotten > 0);
    fs::write(&data, &bytes).unwrap();
    assert!(is_corrupt(Store::open(&dir, OPTIONS).unwrap().get(Space::Data, b"k")));
}

#[test]
fn a_table_of_another_format_or_without_its_records_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let changes: [fn(&LmdbTable, &mut RwTxn<'_>); 3] = [
        |table, txn| {
            put_own(txn, table.dbs.own(), record::KEY_FORMAT, &2_u32.to_le_bytes()).unwrap();
        },
        |table, txn| assert!(table.dbs.own().delete(txn, record::KEY_FORMAT).unwrap()),
        |table, txn| assert!(table.dbs.own().delete(txn, record::KEY_APPLIED).unwrap()),
    ];
    for (nr, change) in changes.into_iter().enumerate() {
        let dir = root.path().join(format!("c{nr}"));
        let copy = root.path().join("copy");
        drop(filled(&dir, 1));
        let table = LmdbTable::open(&dir, &OPTIONS).unwrap();
        let mut txn = table.env.write_txn().unwrap();
        change(&table, &mut txn);
        txn.commit().unwrap();
        table.env.copy_to_path(&copy, CompactionOption::Enabled).unwrap();
        drop(table);
        assert!(is_corrupt(Store::open(&dir, OPTIONS)), "change {nr}");
        let target = filled(&root.path().join(format!("t{nr}")), 2);
        assert!(is_corrupt(target.install(&copy)), "change {nr}");
        assert_eq!(target.applied(), applied(2));
    }
}

#[test]
fn a_store_is_open_once() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    let store = filled(&dir, 1);
    assert!(matches!(Store::open(&dir, OPTIONS), Err(Error::Io { .. })));
    // A reader keeps the environment, and with it the folder.
    let reader = store.digest_reader().unwrap();
    drop(store);
    assert!(Store::open(&dir, OPTIONS).is_err());
    drop(reader);
    assert_eq!(Store::open(&dir, OPTIONS).unwrap().applied(), applied(1));
}

#[test]
fn durability_is_never_traded() {
    let root = tempfile::tempdir().unwrap();
    let table = LmdbTable::open(&root.path().join("c1"), &OPTIONS).unwrap();
    let flags = table.env.flags().unwrap().unwrap();
    let weak = heed::EnvFlags::NO_SYNC
        | heed::EnvFlags::NO_META_SYNC
        | heed::EnvFlags::WRITE_MAP
        | heed::EnvFlags::MAP_ASYNC
        | heed::EnvFlags::NO_LOCK;
    assert!(!flags.intersects(weak), "{flags:?}");
    assert_eq!(table.env.max_key_size(), crate::storage::STORED_KEY_BYTES_MAX);
}

#[test]
fn a_short_write_on_a_full_disk_is_no_space() {
    let io = |code| std::io::Error::from_raw_os_error(code);
    assert!(is_short_write(&io(5), 0, 0));
    assert!(is_short_write(&io(5), 4 << 20, 1 << 20));
    assert!(!is_short_write(&io(5), 1 << 40, 8 << 20), "a disk that fails is another matter");
    assert!(!is_short_write(&io(13), 0, 0));
}

/// Writes keys `from` to `to` of 4 KiB each, or deletes them, as entry `index`, and flushes.
fn many(store: &Store, index: u64, keys: std::ops::Range<u32>, value: Option<u8>) {
    let mut writer = store.write();
    for key in keys {
        match value {
            Some(byte) => {
                writer.put(Space::Data, &key.to_be_bytes(), Bytes::from(vec![byte; 4_096]))
            }
            None => writer.delete(Space::Data, &key.to_be_bytes()),
        }
    }
    writer.commit(applied(index));
    store.freeze();
    store.flush_frozen().unwrap();
}

#[test]
fn compacting_gives_gaps_back_and_changes_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    let store = Store::open(&dir, OPTIONS).unwrap();
    many(&store, 1, 0..1_500, Some(1));
    let full_bytes = store.table_bytes();
    many(&store, 2, 100..1_500, None);
    // Only in the overlay: it stays there.
    let mut writer = store.write();
    writer.put(Space::Data, b"late", Bytes::from_static(b"3"));
    writer.commit(applied(3));
    let free_bytes = store.free_bytes().unwrap();
    assert!(free_bytes > full_bytes / 100 * 80, "{free_bytes} of {full_bytes} bytes hold nothing");
    let (digest, reader) = (store.digest(&mut || ()).unwrap(), store.digest_reader().unwrap());

    assert!(store.compact().unwrap());
    assert!(store.table_bytes() < full_bytes / 5, "{} of {full_bytes}", store.table_bytes());
    assert_eq!(store.digest(&mut || ()).unwrap(), digest);
    assert_eq!(reader.scan(&mut || ()).unwrap(), digest, "who reads the old one goes on");
    assert_eq!(store.get(Space::Data, b"late").unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(names(&dir), ["CURRENT", "LOCK", "gen-2"]);
    many(&store, 4, 0..10, Some(4));
    drop(store);
    let again = Store::open(&dir, OPTIONS).unwrap();
    assert_eq!(again.applied(), applied(4));
    assert_eq!(again.digest(&mut || ()).unwrap().keys, 101);
}

#[test]
fn a_copy_that_a_flush_has_overtaken_is_thrown_away() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c1");
    let store = Store::open(&dir, OPTIONS).unwrap();
    many(&store, 1, 0..1_000, Some(1));
    many(&store, 2, 0..900, None);
    let compacted = store.compact_with(|| many(&store, 3, 2_000..2_010, Some(3))).unwrap();
    assert!(!compacted);
    assert_eq!(names(&dir), ["CURRENT", "LOCK", "gen-1"]);
    assert_eq!(store.digest(&mut || ()).unwrap().keys, 110);
    assert!(store.compact().unwrap(), "the next attempt is made from what there is then");
    assert_eq!(store.digest(&mut || ()).unwrap().keys, 110);
}

#[test]
fn a_copy_that_is_not_the_same_is_never_swapped_in() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("c1"), OPTIONS).unwrap();
    many(&store, 1, 0..100, Some(1));
    // A record whose checksum does not hold: what cannot be proven is not taken over.
    store.table().write_stored(Space::Data, b"odd", b"no envelope");
    assert!(is_corrupt(store.compact()));
    assert_eq!(names(&root.path().join("c1")), ["CURRENT", "LOCK", "gen-1"]);
}

/// A copy or a digest reads one state of the table for as long as it takes. Meanwhile pages that are overwritten
/// cannot be used again, so the file grows by what is flushed, and by nothing else; when the reader is gone, the
/// pages are used again, and the file stays as it is.
#[test]
fn a_long_reader_lets_the_file_grow_by_what_is_flushed_and_no_further() {
    const KEYS: std::ops::Range<u32> = 0..256;
    const FLUSHES: u64 = 10;
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("c1"), Options { map_bytes: 64 << 20 }).unwrap();
    // Overwriting without a reader: after the first few rounds the file has all the pages it needs.
    (1..=5).for_each(|index| many(&store, index, KEYS, Some(index as u8)));
    let steady_bytes = store.table_bytes();
    (6..=20).for_each(|index| many(&store, index, KEYS, Some(index as u8)));
    assert!(store.table_bytes() <= steady_bytes + steady_bytes / 5, "it grows by itself");

    let before_bytes = store.table_bytes();
    let reader = store.digest_reader().unwrap();
    (21..21 + FLUSHES).for_each(|index| many(&store, index, KEYS, Some(index as u8)));
    let grown_bytes = store.table_bytes() - before_bytes;
    // Two pages of 4 KiB hold one record of 4 KiB with its envelope; a fifth more is for the tree above.
    let flushed_bytes = FLUSHES * u64::from(KEYS.end) * 2 * 4_096;
    println!("{FLUSHES} flushes under a reader: {grown_bytes} bytes more, {flushed_bytes} flushed");
    assert!(grown_bytes <= flushed_bytes + flushed_bytes / 5, "{grown_bytes} of {flushed_bytes}");
    assert!(grown_bytes >= flushed_bytes / 4, "the reader held nothing: {grown_bytes}");
    assert_eq!(reader.scan(&mut || ()).unwrap().pos, applied(20).pos);

    let with_gaps_bytes = store.table_bytes();
    (40..60).for_each(|index| many(&store, index, KEYS, Some(index as u8)));
    let again_bytes = store.table_bytes();
    let most_bytes = with_gaps_bytes + with_gaps_bytes / 20;
    assert!(again_bytes <= most_bytes, "pages are used again: {with_gaps_bytes}, {again_bytes}");
    assert!(store.compact().unwrap());
    assert!(store.table_bytes() < steady_bytes + steady_bytes / 5);
}
