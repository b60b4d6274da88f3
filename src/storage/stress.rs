//! Readers beside an applier, a flusher and installations: nobody may see a state that never was.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

const KEYS: u64 = 64;

fn key(nr: u64) -> [u8; 8] {
    nr.to_be_bytes()
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

/// Entry `i` sets every key to `i`, but the one that it deletes.
fn apply(store: &Store, i: u64) {
    let mut writer = store.write();
    for nr in 0..KEYS {
        if nr == i % KEYS {
            writer.delete(Space::Data, &key(nr));
        } else {
            writer.put(Space::Data, &key(nr), Bytes::copy_from_slice(&i.to_be_bytes()));
        }
    }
    writer.commit(Applied {
        pos: Some(LogPos { term: 1, leader: 1, index: i }),
        ..Applied::default()
    });
}

/// Ends the others when its thread fails: the test is to fail, not to hang.
struct StopAll<'a>(&'a AtomicBool);

impl Drop for StopAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What a whole scan saw: which entry, all of it and nothing else.
fn check_scan(view: &dyn View) -> u64 {
    let mut seen = Vec::new();
    view.scan(Space::Data, b"", None, &mut |key, value| {
        seen.push((number(key), number(value)));
        ControlFlow::Continue(())
    })
    .unwrap();
    let i = seen[0].1;
    let expected: Vec<_> = (0..KEYS).filter(|nr| *nr != i % KEYS).map(|nr| (nr, i)).collect();
    assert_eq!(seen, expected);
    i
}

/// The table holds whole entries as well: its position and its records change in one transaction.
fn check_table(store: &Store) {
    let snapshot = store.table().snapshot().unwrap();
    let Some(pos) = snapshot.applied().unwrap().pos else { return };
    let mut values = Vec::new();
    let collect = &mut |_: &[u8], value: &[u8]| {
        values.push(number(value));
        ControlFlow::Continue(())
    };
    snapshot.scan(Space::Data, b"", None, collect).unwrap();
    assert_eq!(values, vec![pos.index; KEYS as usize - 1]);
}

fn readers_and_flushes(store: Store, entries: u64) {
    apply(&store, 1);
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (store, done, seen) = (&store, &done, &seen);
        for reader in 0..3 {
            scope.spawn(move || {
                let _stop = StopAll(done);
                let mut newest = 0;
                while !done.load(Ordering::Relaxed) {
                    let applied = store.applied_pos().unwrap().index;
                    let (i, inside) = store
                        .read(|view| (check_scan(view), store.applied_pos().unwrap().index))
                        .unwrap();
                    assert_eq!(i, inside, "the marks inside of a read are the view's");
                    assert!(i >= applied && i >= newest, "{i} after {newest} and {applied}");
                    newest = i;
                    // A point read may be later than the scan, never earlier.
                    for nr in 0..KEYS {
                        match store.get(Space::Data, &key(nr)).unwrap() {
                            Some(value) => assert!(number(&value) >= newest, "key {nr}, {reader}"),
                            None => assert!(store.applied_pos().unwrap().index >= newest),
                        }
                    }
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(move || {
            let _stop = StopAll(done);
            while !done.load(Ordering::Relaxed) {
                check_table(store);
            }
        });
        scope.spawn(move || {
            let _stop = StopAll(done);
            let mut flushed = 0;
            while !done.load(Ordering::Relaxed) {
                let frozen = store.freeze().map_or(flushed, |pos| pos.index);
                let wrote = store.flush_frozen().unwrap().map_or(flushed, |pos| pos.index);
                assert_eq!(frozen, wrote);
                let digest = store.digest(&mut || ()).unwrap();
                assert_eq!(digest.pos.map(|pos| pos.index), store.flushed().map(|pos| pos.index));
                assert!(digest.pos.is_none() || digest.keys == KEYS - 1);
                assert!(wrote >= flushed);
                flushed = wrote;
            }
        });
        // Goes on until the readers have seen something, however few cores there are.
        let mut i = 1;
        while (i < entries || seen.load(Ordering::Relaxed) < 30) && !done.load(Ordering::Relaxed) {
            i += 1;
            apply(store, i);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn readers_see_whole_entries_while_lmdb_is_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), Options { map_bytes: 256 << 20 }).unwrap();
    readers_and_flushes(store, 2_000);
}

#[test]
fn readers_see_whole_entries_while_the_twin_is_flushed() {
    readers_and_flushes(Store::in_memory(Options::default()), 2_000);
}

#[test]
fn readers_go_on_while_tables_are_swapped() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { map_bytes: 16 << 20 };
    let store = Store::open(&dir.path().join("store"), options.clone()).unwrap();
    apply(&store, 7);
    store.freeze();
    store.flush_frozen().unwrap();
    let (done, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (store, done, seen) = (&store, &done, &seen);
        for _ in 0..2 {
            scope.spawn(move || {
                let _stop = StopAll(done);
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(store.read(check_scan).unwrap(), 7);
                    assert_eq!(number(&store.get(Space::Data, &key(1)).unwrap().unwrap()), 7);
                    let reader = store.digest_reader().unwrap();
                    assert_eq!(reader.scan(&mut || ()).unwrap().keys, KEYS - 1);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let file = dir.path().join("copy");
        for round in 0..20 {
            store.copy_to(&file).unwrap();
            store.install(&file).unwrap();
            store.rebuild(options.clone()).unwrap();
            while seen.load(Ordering::Relaxed) <= round && !done.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}
