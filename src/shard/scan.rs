//! Pages of keys in order, and the count of keys, both in short steps over one instant each.
//!
//! A page is bounded by keys, bytes and records looked at, so that neither large values nor a long run of
//! expired keys can hold up the applier.

use super::records;
use crate::storage::{self, Space, View};
use crate::types::limits;
use crate::wire::client::Scan;
use bytes::Bytes;
use std::ops::ControlFlow;

/// Bounds of one page.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Keys.
    pub keys_max: usize,
    /// Bytes of keys and values; the first key goes in whatever it has.
    pub bytes_max: usize,
    /// Records looked at, expired ones included.
    pub visited_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            keys_max: limits::SCAN_PAGE_MAX,
            bytes_max: limits::SCAN_PAGE_BYTES_MAX,
            visited_max: 4 * limits::SCAN_PAGE_MAX,
        }
    }
}

/// Part of the keys in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys that exist, with their values unless only keys were asked for.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
    /// Where the next page starts (exclusive), if there may be one. Not always the last key in `entries`:
    /// expired keys may follow it.
    pub next_after: Option<Bytes>,
}

/// A page at shard time `now_ms`. A limit of 0 counts as 1.
pub fn page(
    view: &dyn View,
    scan: &Scan,
    limits: &Limits,
    now_ms: u64,
) -> Result<Page, storage::Error> {
    let keys_max = (scan.limit as usize).clamp(1, limits.keys_max);
    let mut entries = Vec::new();
    let mut next_after = None;
    let mut damage = None;
    let (mut bytes, mut visited, mut last) = (0, 0, Vec::new());
    view.scan(Space::Data, &scan.prefix, scan.after.as_deref(), &mut |key, record| {
        let (expires_ms, value) = match records::parts(record) {
            Ok(parts) => parts,
            Err(error) => {
                damage = Some(error);
                return ControlFlow::Break(());
            }
        };
        let is_alive = records::is_alive(expires_ms, now_ms);
        let value = (!scan.keys_only).then_some(value);
        let entry_bytes = key.len() + value.map_or(0, <[u8]>::len);
        let is_full = visited == limits.visited_max
            || is_alive && entries.len() == keys_max
            || is_alive && !entries.is_empty() && bytes + entry_bytes > limits.bytes_max;
        if is_full {
            next_after = Some(Bytes::copy_from_slice(&last));
            return ControlFlow::Break(());
        }
        visited += 1;
        last.clear();
        last.extend_from_slice(key);
        if is_alive {
            bytes += entry_bytes;
            entries.push((Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice)));
        }
        ControlFlow::Continue(())
    })?;
    match damage {
        Some(error) => Err(error),
        None => Ok(Page { entries, next_after }),
    }
}

/// Keys that exist in a part of the store: at most `visited_max` records after `after`, and where to go on.
pub fn count(
    view: &dyn View,
    after: Option<&[u8]>,
    visited_max: usize,
    now_ms: u64,
) -> Result<(u64, Option<Vec<u8>>), storage::Error> {
    let (mut keys, mut visited, mut last) = (0, 0, Vec::new());
    let mut end = Ok(None);
    view.scan(Space::Data, b"", after, &mut |key, record| {
        if visited == visited_max {
            end = Ok(Some(std::mem::take(&mut last)));
            return ControlFlow::Break(());
        }
        match records::parts(record) {
            Ok((expires_ms, _)) => keys += u64::from(records::is_alive(expires_ms, now_ms)),
            Err(error) => {
                end = Err(error);
                return ControlFlow::Break(());
            }
        }
        visited += 1;
        last.clear();
        last.extend_from_slice(key);
        ControlFlow::Continue(())
    })?;
    Ok((keys, end?))
}
