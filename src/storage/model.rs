//! Random operations on a store and on plain maps, which have to agree after every step.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Op {
    /// One log entry: puts, and deletes where the value is none.
    Entry(Vec<(u8, Vec<u8>, Option<Vec<u8>>)>),
    Freeze,
    Flush,
    Reopen,
    /// Copies the table and installs the copy in place.
    Install,
    Rebuild,
    Scan {
        space: u8,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        keys_max: usize,
    },
}

/// Few short keys, so that they meet each other and share prefixes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xFF]), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let write = (0..4_u8, key(), value);
    let part = || prop::collection::vec(prop::sample::select(vec![0, 1, b'a', 0xFF]), 0..3);
    prop_oneof![
        8 => prop::collection::vec(write, 0..6).prop_map(Op::Entry),
        3 => Just(Op::Freeze),
        3 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => Just(Op::Install),
        1 => Just(Op::Rebuild),
        6 => (0..4_u8, part(), prop::option::of(part()), 0..6_usize).prop_map(
            |(space, prefix, after, keys_max)| Op::Scan { space, prefix, after, keys_max }
        ),
    ]
}

/// What the store should hold: all of it, what is frozen, what is in the table.
#[derive(Clone, Default)]
struct Model {
    visible: ([Map; 4], u64),
    frozen: Option<([Map; 4], u64)>,
    table: ([Map; 4], u64),
}

fn applied(index: u64) -> Applied {
    let pos = (index > 0).then_some(LogPos { term: 1, leader: 2, index });
    Applied { pos, membership: Bytes::new() }
}

fn collect(view: &dyn View, space: Space, prefix: &[u8], after: Option<&[u8]>, max: usize) -> Map {
    let mut found = Map::new();
    let mut last: Option<Vec<u8>> = None;
    view.scan(space, prefix, after, &mut |key, value| {
        assert!(last.as_deref() < Some(key), "out of order");
        last = Some(key.to_vec());
        found.insert(key.to_vec(), value.to_vec());
        if found.len() >= max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    found
}

fn step(store: &mut Option<Store>, model: &mut Model, dir: &Path, op: Op) {
    let options = Options { map_bytes: 8 << 20 };
    let open = store.as_ref().unwrap();
    match op {
        Op::Entry(writes) => {
            let mut writer = open.write();
            for (space, key, value) in writes {
                let (at, map) = (Space::ALL[space as usize], &mut model.visible.0[space as usize]);
                match value {
                    Some(value) => {
                        writer.put(at, &key, Bytes::from(value.clone()));
                        map.insert(key.clone(), value);
                    }
                    None => {
                        writer.delete(at, &key);
                        map.remove(&key);
                    }
                }
                let read = writer.get(at, &key).unwrap();
                assert_eq!(read.as_deref(), map.get(&key).map(|v| &v[..]));
            }
            model.visible.1 += 1;
            writer.commit(applied(model.visible.1));
        }
        Op::Freeze if model.frozen.is_none() => {
            let expected = (model.visible.1 != model.table.1).then_some(model.visible.1);
            assert_eq!(open.freeze().map(|pos| pos.index), expected);
            model.frozen = expected.map(|_| model.visible.clone());
        }
        Op::Freeze | Op::Flush => {
            let expected = model.frozen.take();
            let flushed = open.flush_frozen().unwrap().map(|pos| pos.index);
            assert_eq!(flushed, expected.as_ref().map(|(_, index)| *index));
            model.table = expected.unwrap_or(std::mem::take(&mut model.table));
        }
        Op::Reopen => {
            *store = None;
            *store = Some(Store::open(&dir.join("store"), options).unwrap());
            *model =
                Model { visible: model.table.clone(), frozen: None, table: model.table.clone() };
        }
        Op::Install => {
            let file = dir.join("copy");
            assert_eq!(open.copy_to(&file).unwrap(), applied(model.table.1));
            assert_eq!(open.install(&file).unwrap(), applied(model.table.1));
            *model =
                Model { visible: model.table.clone(), frozen: None, table: model.table.clone() };
        }
        Op::Rebuild => {
            assert_eq!(open.rebuild(options).unwrap(), applied(model.table.1));
        }
        Op::Scan { space, prefix, after, keys_max } => {
            let map = &model.visible.0[space as usize];
            let max = keys_max.max(1);
            let expected = map
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix) && Some(*key) > after.as_ref())
                .take(max)
                .map(|(key, value)| (key.clone(), value.clone()));
            let expected: Map = expected.collect();
            let space = Space::ALL[space as usize];
            let found = open.read(|view| collect(view, space, &prefix, after.as_deref(), max));
            assert_eq!(found.unwrap(), expected);
        }
    }
    let open = store.as_ref().unwrap();
    assert_eq!(open.applied(), applied(model.visible.1));
    assert_eq!(open.flushed(), applied(model.table.1).pos);
    for space in Space::ALL {
        let map = &model.visible.0[space as usize];
        let all = open.read(|view| collect(view, space, b"", None, usize::MAX)).unwrap();
        assert_eq!(&all, map);
        for (key, value) in map {
            assert_eq!(open.get(space, key).unwrap().as_deref(), Some(&value[..]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_a_few_maps(ops in prop::collection::vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let opened = Store::open(&dir.path().join("store"), Options { map_bytes: 8 << 20 });
        let (mut store, mut model) = (Some(opened.unwrap()), Model::default());
        for op in ops {
            step(&mut store, &mut model, dir.path(), op);
        }
    }
}
