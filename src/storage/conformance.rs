//! One suite for the store over LMDB and over the in-memory twin.
//!
//! A story gets a `Rig` and never asks which table it has. `Rig::open` is a start of the process: what
//! was not flushed is gone.

use super::lmdb::LmdbTable;
use super::memory::MemoryTable;
use super::table::Table;
use super::*;
use std::path::PathBuf;
use std::sync::Arc;

const MAP: Options = Options { map_bytes: 64 << 20 };

/// Where stores live that outlast their handles.
struct Rig {
    dir: tempfile::TempDir,
    /// The twin's "disk"; none for LMDB.
    memory: Option<Arc<dyn Table>>,
}

impl Rig {
    fn lmdb() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), memory: None }
    }

    fn twin() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), memory: Some(Arc::new(MemoryTable::new(&MAP))) }
    }

    fn open_with(&self, options: Options) -> Store {
        match &self.memory {
            Some(table) => Store::over(Arc::clone(table), options).unwrap(),
            None => Store::open(&self.dir.path().join("store"), options).unwrap(),
        }
    }

    fn open(&self) -> Store {
        self.open_with(MAP)
    }

    /// Another, empty store of the same kind.
    fn other(&self, name: &str, options: Options) -> Store {
        let table: Arc<dyn Table> = match &self.memory {
            Some(_) => Arc::new(MemoryTable::new(&options)),
            None => Arc::new(LmdbTable::open(&self.dir.path().join(name), &options).unwrap()),
        };
        Store::over(table, options).unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn at(index: u64) -> Applied {
    let pos = Some(LogPos { term: 1, leader: 1, index });
    Applied { pos, membership: Bytes::from(format!("members at {index}")) }
}

fn index(pos: Option<LogPos>) -> Option<u64> {
    pos.map(|pos| pos.index)
}

/// One log entry: `key=value` writes, `-key` deletes.
fn entry(store: &Store, index: u64, writes: &str) {
    let mut writer = store.write();
    for write in writes.split_whitespace() {
        match write.split_once('=') {
            Some((key, value)) => {
                writer.put(Space::Data, key.as_bytes(), Bytes::from(value.to_owned()));
            }
            None => writer.delete(Space::Data, write.trim_start_matches('-').as_bytes()),
        }
    }
    writer.commit(at(index));
}

fn flush(store: &Store) -> Option<u64> {
    store.freeze();
    index(store.flush_frozen().unwrap())
}

fn get(store: &Store, key: &str) -> Option<String> {
    let key = key.as_bytes();
    let direct = store.get(Space::Data, key).unwrap();
    let viewed = store.read(|view| view.get(Space::Data, key)).unwrap().unwrap();
    assert_eq!(direct, viewed);
    direct.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// A page of a scan as `key=value` words.
fn page(view: &dyn View, prefix: &str, after: Option<&str>, keys_max: usize) -> String {
    let mut found = Vec::new();
    let after = after.map(str::as_bytes);
    view.scan(Space::Data, prefix.as_bytes(), after, &mut |key, value| {
        found.push(format!("{}={}", key.escape_ascii(), value.escape_ascii()));
        if found.len() == keys_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    found.join(" ")
}

fn scan(store: &Store, prefix: &str, after: Option<&str>) -> String {
    store.read(|view| page(view, prefix, after, usize::MAX)).unwrap()
}

fn writes_are_visible_per_entry(rig: Rig) {
    let store = rig.open();
    assert_eq!(store.applied(), Applied::default());
    let mut writer = store.write();
    writer.put(Space::Data, b"a", Bytes::from_static(b"1"));
    assert_eq!(writer.get(Space::Data, b"a").unwrap().unwrap(), "1");
    assert_eq!(get(&store, "a"), None, "not before the commit");
    writer.commit(at(1));
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
    assert_eq!((store.applied(), store.flushed()), (at(1), None));

    let mut dropped = store.write();
    dropped.put(Space::Data, b"a", Bytes::from_static(b"2"));
    dropped.delete(Space::Data, b"b");
    drop(dropped);
    assert_eq!(get(&store, "a").as_deref(), Some("1"));

    entry(&store, 2, "-a b=2");
    assert_eq!((get(&store, "a"), get(&store, "b").as_deref()), (None, Some("2")));
    assert_eq!(store.get(Space::Meta, b"b").unwrap(), None, "spaces are apart");
    assert_eq!(store.get(Space::Data, b"").unwrap(), None, "the empty key is no key");
}

fn scans_merge_overlays_and_table(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=t b1=t b2=t b3=t b4=t c=t");
    flush(&store);
    entry(&store, 2, "b0=f b2=f -b3 b5=f");
    store.freeze();
    entry(&store, 3, "b3=a -b4 b5=a b6=a d=a -b0");
    let all = "b1=t b2=f b3=a b5=a b6=a";
    for flushed in [false, true] {
        assert_eq!(scan(&store, "b", None), all, "flushed: {flushed}");
        assert_eq!(scan(&store, "", None), format!("a=t {all} c=t d=a"));
        assert_eq!(scan(&store, "b", Some("b2")), "b3=a b5=a b6=a");
        assert_eq!(scan(&store, "b", Some("b4")), "b5=a b6=a", "after need not exist");
        assert_eq!(scan(&store, "b", Some("a")), all);
        assert_eq!(scan(&store, "b", Some("b6")), "");
        assert_eq!(scan(&store, "b", Some("zzz")), "");
        assert_eq!(scan(&store, "x", None), "");
        let first = store.read(|view| page(view, "", None, 3)).unwrap();
        assert_eq!(first, "a=t b1=t b2=f");
        store.flush_frozen().unwrap();
        flush(&store);
    }
    assert_eq!(store.overlay_bytes(), 0);
}

fn a_writer_sees_its_own_writes_over_everything(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=1 b=1 c=1");
    flush(&store);
    entry(&store, 2, "b=2");
    let mut writer = store.write();
    assert_eq!(writer.get(Space::Data, b"c").unwrap().unwrap(), "1");
    writer.put(Space::Data, b"d", Bytes::from_static(b"3"));
    writer.delete(Space::Data, b"a");
    assert_eq!(page(&writer, "", None, 9), "b=2 c=1 d=3");
    assert_eq!(writer.get(Space::Data, b"a").unwrap(), None);
    // A flush in the middle of an entry moves records to where the writer has looked already.
    assert_eq!(flush(&store), Some(2));
    assert_eq!(writer.get(Space::Data, b"b").unwrap().unwrap(), "2");
    assert_eq!(page(&writer, "", None, 9), "b=2 c=1 d=3");
    writer.commit(at(3));
    assert_eq!(scan(&store, "", None), "b=2 c=1 d=3");
}

fn a_freeze_holds_exactly_what_was_applied(rig: Rig) {
    let store = rig.open();
    assert_eq!(store.freeze(), None, "nothing to flush");
    assert_eq!(store.flush_frozen().unwrap(), None);
    entry(&store, 4, "a=4");
    assert_eq!(index(store.freeze()), Some(4));
    entry(&store, 5, "a=5 b=5");
    assert_eq!(store.flushed(), None);
    assert_eq!(index(store.flush_frozen().unwrap()), Some(4));
    assert_eq!(index(store.flushed()), Some(4));
    assert_eq!((get(&store, "a").as_deref(), index(store.applied_pos())), (Some("5"), Some(5)));
    let digest = store.digest(&mut || ()).unwrap();
    assert_eq!((index(digest.pos), digest.keys), (Some(4), 1));

    assert_eq!(flush(&store), Some(5));
    // An entry without writes has to move the durable position too: the log waits for it.
    entry(&store, 6, "");
    assert_eq!(flush(&store), Some(6));
    assert_eq!(flush(&store), None);
    drop(store);
    assert_eq!(rig.open().applied(), at(6));
}

fn a_second_freeze_waits_for_the_first(rig: Rig) {
    use std::time::Duration;
    let store = rig.open();
    entry(&store, 1, "a=1");
    assert_eq!(index(store.freeze()), Some(1));
    entry(&store, 2, "a=2");
    assert_eq!(store.freeze_within(Duration::from_millis(1)), None);
    let waiter = store.clone();
    let waiting = std::thread::spawn(move || index(waiter.freeze()));
    assert_eq!(index(store.flush_frozen().unwrap()), Some(1));
    assert_eq!(waiting.join().unwrap(), Some(2));
    assert_eq!(index(store.flush_frozen().unwrap()), Some(2));
    assert_eq!(store.freeze_within(Duration::ZERO), Some(None));
}

fn what_was_flushed_survives_and_only_that(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=1 b=1");
    flush(&store);
    entry(&store, 2, "a=2 -b");
    store.freeze();
    entry(&store, 3, "c=3");
    drop(store);

    let store = rig.open();
    assert_eq!((store.applied(), store.flushed()), (at(1), at(1).pos));
    assert_eq!(scan(&store, "", None), "a=1 b=1");
    entry(&store, 2, "a=2 -b");
    flush(&store);
    drop(store);
    let store = rig.open();
    assert_eq!(store.applied(), at(2));
    assert_eq!(scan(&store, "", None), "a=2");
}

fn all_keys_and_values_of_the_limits_fit(rig: Rig) {
    let store = rig.open();
    let longest = vec![0xFF; STORED_KEY_BYTES_MAX];
    let records = [
        (&b"\0"[..], Bytes::new()),
        (b"\0\0", Bytes::from(vec![7; 1 << 20])),
        (&longest[..], Bytes::from(vec![8; 3_000])),
    ];
    let mut writer = store.write();
    for space in Space::ALL {
        for (key, value) in &records {
            writer.put(space, key, value.clone());
        }
    }
    writer.commit(at(1));
    for flushed in [false, true] {
        for space in Space::ALL {
            let mut found = Vec::new();
            let scanned = store.read(|view| {
                view.scan(space, b"", None, &mut |key, value| {
                    found.push((key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })
            });
            scanned.unwrap().unwrap();
            assert_eq!(found.len(), 3, "{space:?}, flushed: {flushed}");
            for ((key, value), (found_key, found_value)) in records.iter().zip(&found) {
                assert_eq!((key, &value[..]), (&&found_key[..], &found_value[..]));
                assert_eq!(store.get(space, key).unwrap().as_ref(), Some(value));
            }
        }
        flush(&store);
    }
    assert!(store.table_bytes() > 4 << 20);
}

fn sizes_tell_when_to_flush(rig: Rig) {
    let store = rig.open();
    assert_eq!((store.overlay_bytes(), store.keys_estimate()), (0, 0));
    let before = store.table_bytes();
    let mut writer = store.write();
    for i in 0..OVERLAY_RECORDS_FLUSH as u32 {
        writer.put(Space::Data, &i.to_be_bytes(), Bytes::from_static(&[1; 100]));
    }
    writer.commit(at(1));
    assert!(store.flush_due() && !store.overlay_full());
    assert!(store.overlay_bytes() > OVERLAY_RECORDS_FLUSH * 104);
    assert_eq!(store.keys_estimate(), OVERLAY_RECORDS_FLUSH as u64);
    let held = store.overlay_bytes();
    store.freeze();
    assert_eq!(store.overlay_bytes(), held, "frozen is not gone");
    assert!(!store.flush_due());
    let mut writer = store.write();
    for i in 0..32_u32 {
        let value = Bytes::from(vec![2; 1 << 20]);
        writer.put(Space::Sessions, &i.to_be_bytes(), value);
    }
    writer.commit(at(2));
    assert!(store.flush_due() && store.overlay_full());
    store.flush_frozen().unwrap();
    assert_eq!(store.keys_estimate(), OVERLAY_RECORDS_FLUSH as u64);
    assert!(store.table_bytes() > before + (1 << 20));
}

fn digests_depend_on_content_alone(rig: Rig) {
    let entries = ["a=1 b=1 c=1", "b=2 -c d=2", "", "e=3 -e f=3", "a=4"];
    let schedules = [[true; 5], [false; 5], [true, false, false, true, false]];
    let mut digests = Vec::new();
    for (nr, schedule) in schedules.into_iter().enumerate() {
        let stores =
            [rig.other(&format!("schedule-{nr}"), MAP), Store::in_memory(Options::default())];
        for store in stores {
            for (i, writes) in entries.iter().enumerate() {
                entry(&store, i as u64, writes);
                let mut writer = store.write();
                writer.put(Space::Meta, b"clock", Bytes::from(vec![i as u8]));
                writer.commit(at(i as u64));
                if schedule[i] {
                    flush(&store);
                }
            }
            flush(&store);
            digests.push(store.digest(&mut || ()).unwrap());
        }
    }
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_eq!((index(digests[0].pos), digests[0].keys), (Some(4), 4));

    let changed = rig.other("changed", MAP);
    entry(&changed, 4, "a=4 b=2 d=2 f=4");
    flush(&changed);
    assert_ne!(changed.digest(&mut || ()).unwrap().sha256, digests[0].sha256);
}

fn a_digest_reader_keeps_its_index(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=1 b=1");
    flush(&store);
    let expected = store.digest(&mut || ()).unwrap();
    let reader = store.digest_reader().unwrap();
    for i in 2..20 {
        entry(&store, i, &format!("a={i} c{i}={i}"));
        flush(&store);
    }
    assert_eq!(index(reader.pos()), Some(1));
    let elsewhere = std::thread::spawn(move || reader.scan(&mut || ()).unwrap());
    assert_eq!(elsewhere.join().unwrap(), expected);
    assert_ne!(store.digest(&mut || ()).unwrap(), expected);
}

fn a_copy_becomes_another_store(rig: Rig) {
    let source = rig.open();
    entry(&source, 7, "a=7 b=7");
    flush(&source);
    let expected = source.digest(&mut || ()).unwrap();
    entry(&source, 8, "a=8");
    let file = rig.file("copy");
    assert_eq!(source.copy_to(&file).unwrap(), at(7), "the overlay is not in it");

    let target = rig.other("target", MAP);
    entry(&target, 1, "x=1 a=1");
    flush(&target);
    let old = target.digest_reader().unwrap();
    entry(&target, 2, "y=2");
    target.freeze();
    entry(&target, 3, "z=3");
    assert_eq!(target.install(&file).unwrap(), at(7));
    assert!(!file.exists());
    assert_eq!((target.applied(), target.flushed()), (at(7), at(7).pos));
    assert_eq!((scan(&target, "", None).as_str(), target.overlay_bytes()), ("a=7 b=7", 0));
    assert_eq!(target.digest(&mut || ()).unwrap(), expected);
    assert_eq!(target.freeze(), None, "the frozen overlay went with the rest");
    // Who was reading goes on with what it had.
    assert_eq!(old.scan(&mut || ()).unwrap().keys, 2);

    entry(&target, 8, "a=8");
    assert_eq!(flush(&target), Some(8));
    assert_eq!(scan(&target, "", None), "a=8 b=7");
    // And once more, over a table that was installed itself.
    source.copy_to(&file).unwrap();
    target.install(&file).unwrap();
    assert_eq!(target.digest(&mut || ()).unwrap(), expected);
}

fn what_is_no_table_is_not_installed(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=1");
    flush(&store);
    entry(&store, 2, "b=2");
    let whole = rig.file("whole");
    store.copy_to(&whole).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    let broken = rig.file("broken");
    for bad in
        [&b""[..], b"short", &[0; 8192], &bytes[..bytes.len() - 1], &bytes[..bytes.len() / 2]]
    {
        std::fs::write(&broken, bad).unwrap();
        let refused = store.install(&broken);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{} bytes: {refused:?}", bad.len());
    }
    assert!(matches!(store.install(&rig.file("missing")), Err(Error::Io { .. })));
    assert_eq!((scan(&store, "", None).as_str(), store.applied()), ("a=1 b=2", at(2)));
    assert_eq!(flush(&store), Some(2));
}

fn broken_records_are_never_served(rig: Rig) {
    let store = rig.open();
    entry(&store, 1, "a=1 b=1 c=1 d=1");
    flush(&store);
    let intact = record::seal(Space::Data as u8, b"a", b"1");
    let mut flipped = record::seal(Space::Data as u8, b"b", b"1");
    flipped[record::HEADER_BYTES] ^= 1;
    store.table().write_stored(Space::Data, b"b", &flipped);
    store.table().write_stored(Space::Data, b"c", &intact);
    store.table().write_stored(Space::Data, b"d", b"");
    assert_eq!(get(&store, "a").as_deref(), Some("1"));
    for key in [b"b", b"c", b"d"] {
        let is_corrupt = |read: Result<Option<Bytes>, Error>| {
            assert!(matches!(read, Err(Error::Corrupt { .. })), "{key:?}: {read:?}");
        };
        is_corrupt(store.get(Space::Data, key));
        is_corrupt(store.read(|view| view.get(Space::Data, key)).unwrap());
        is_corrupt(store.write().get(Space::Data, key));
    }
    let mut visited = 0;
    let scanned = store.read(|view| {
        view.scan(Space::Data, b"", None, &mut |_, _| {
            visited += 1;
            ControlFlow::Continue(())
        })
    });
    assert!(matches!(scanned.unwrap(), Err(Error::Corrupt { .. })));
    assert_eq!(visited, 1);
    assert!(matches!(store.digest(&mut || ()), Err(Error::Corrupt { .. })));
}

fn a_full_table_is_no_space_and_can_be_enlarged(rig: Rig) {
    let small = Options { map_bytes: 1 << 20 };
    let store = rig.other("small", small);
    entry(&store, 1, "a=1");
    flush(&store);
    let big = "x".repeat(900_000);
    entry(&store, 2, &format!("big={big} bigger={big}"));
    store.freeze();
    entry(&store, 3, "b=3");
    for _ in 0..2 {
        assert!(matches!(store.flush_frozen(), Err(Error::NoSpace(_))));
        assert_eq!(index(store.flushed()), Some(1));
        assert_eq!(get(&store, "big").map(|v| v.len()), Some(900_000), "still frozen and visible");
        assert_eq!(store.digest(&mut || ()).unwrap().keys, 1, "nothing of it is in the table");
    }
    assert_eq!(store.rebuild(MAP).unwrap(), at(1));
    assert_eq!(index(store.flush_frozen().unwrap()), Some(2));
    assert_eq!(flush(&store), Some(3));
    assert_eq!(store.digest(&mut || ()).unwrap().keys, 4);
    assert_eq!(get(&store, "b").as_deref(), Some("3"));
}

fn a_rebuilt_table_holds_the_same(rig: Rig) {
    let store = rig.open();
    let filler = "x".repeat(3_000);
    let many: String = (0..500).map(|i| format!("k{i}={filler} ")).collect();
    entry(&store, 1, &many);
    flush(&store);
    let fewer: String = (0..490).map(|i| format!("-k{i} ")).collect();
    entry(&store, 2, &fewer);
    flush(&store);
    entry(&store, 3, "a=3");
    let (bytes, digest) = (store.table_bytes(), store.digest(&mut || ()).unwrap());
    store.rebuild(MAP).unwrap();
    assert_eq!(store.digest(&mut || ()).unwrap(), digest);
    assert_eq!((get(&store, "a").as_deref(), store.applied()), (Some("3"), at(3)));
    assert!(store.table_bytes() <= bytes);
    assert_eq!(flush(&store), Some(3));
}

fn a_destroyed_store_is_gone(rig: Rig) {
    let store = rig.other("doomed", MAP);
    entry(&store, 1, "a=1");
    flush(&store);
    let reader = store.digest_reader().unwrap();
    store.destroy().unwrap();
    assert_eq!(reader.scan(&mut || ()).unwrap().keys, 1);
    let again = rig.other("doomed", MAP);
    assert_eq!((again.applied(), get(&again, "a")), (Applied::default(), None));
}

macro_rules! suite {
    ($($story:ident,)*) => {
        mod lmdb { $(#[test] fn $story() { super::$story(super::Rig::lmdb()) })* }
        mod twin { $(#[test] fn $story() { super::$story(super::Rig::twin()) })* }
    };
}

suite! {
    writes_are_visible_per_entry,
    scans_merge_overlays_and_table,
    a_writer_sees_its_own_writes_over_everything,
    a_freeze_holds_exactly_what_was_applied,
    a_second_freeze_waits_for_the_first,
    what_was_flushed_survives_and_only_that,
    all_keys_and_values_of_the_limits_fit,
    sizes_tell_when_to_flush,
    digests_depend_on_content_alone,
    a_digest_reader_keeps_its_index,
    a_copy_becomes_another_store,
    what_is_no_table_is_not_installed,
    broken_records_are_never_served,
    a_full_table_is_no_space_and_can_be_enlarged,
    a_rebuilt_table_holds_the_same,
    a_destroyed_store_is_gone,
}
