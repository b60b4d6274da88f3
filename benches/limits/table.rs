//! The store over LMDB alone: durable commits of random keys, a batch at a time, and reads of random keys.

use crate::data::{Data, Random, VALUE_BYTES};
use crate::{KEYS, Result, Row};
use bytes::Bytes;
use ppdb::storage::{Applied, Options, Space, Store};
use ppdb::types::LogPos;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCHES: [usize; 4] = [1, 64, 256, 16_384];
/// Reads between two looks at the clock.
const READS: usize = 256;

/// Fills a store; a row for each size of a batch, and one for reads.
pub fn rows(dir: &Path) -> Result<Vec<Row>> {
    let data = Arc::new(Data::new(KEYS));
    let store = Store::open(&dir.join("table"), Options::default())?;
    let mut random = Random::new(0);
    for keys in data.keys.chunks(BATCHES[3]) {
        commit(&store, keys.iter().map(|key| (key.clone(), data.value(&mut random))))?;
    }
    let mut rows: Vec<Row> = BATCHES
        .into_iter()
        .map(|batch| {
            let (store, data) = (store.clone(), data.clone());
            let name = format!("LMDB durable commit, batches of {batch}");
            Row::new(name, "puts/s", move |time| puts(&store, &data, batch, time))
        })
        .collect();
    rows.push(Row::new("LMDB get, one thread", "gets/s", move |time| gets(&store, &data, time)));
    Ok(rows)
}

/// As a copy does it: into the overlay, then the overlay into the table in one transaction.
fn commit(store: &Store, records: impl Iterator<Item = (Bytes, Bytes)>) -> Result<()> {
    let index = store.applied_pos().map_or(0, |pos| pos.index + 1);
    let mut writer = store.write();
    records.for_each(|(key, value)| writer.put(Space::Data, &key, value));
    let pos = Some(LogPos { term: 1, leader: 1, index });
    writer.commit(Applied { pos, membership: Bytes::new() });
    store.freeze();
    store.flush_frozen()?;
    Ok(())
}

fn puts(store: &Store, data: &Data, batch: usize, time: Duration) -> Result<f64> {
    let mut random = Random::new(batch as u64);
    let started = Instant::now();
    let mut puts = 0;
    while started.elapsed() < time {
        let record = |_| (data.key(&mut random), data.value(&mut random));
        commit(store, (0..batch).map(record))?;
        puts += batch;
    }
    Ok(puts as f64 / started.elapsed().as_secs_f64())
}

fn gets(store: &Store, data: &Data, time: Duration) -> Result<f64> {
    let mut random = Random::new(1);
    let started = Instant::now();
    let mut gets = 0;
    while started.elapsed() < time {
        for _ in 0..READS {
            let found = store.get(Space::Data, &data.key(&mut random))?;
            if found.is_none_or(|value| value.len() != VALUE_BYTES) {
                return Err("a key that was stored is not there".into());
            }
        }
        gets += READS;
    }
    Ok(gets as f64 / started.elapsed().as_secs_f64())
}
