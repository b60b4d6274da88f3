//! When the table of a copy is written anew without its gaps: one at a time for all groups of the node, only while
//! the node is told that there is time for it, and only where a good part of the file holds nothing.
//!
//! The shard goes on meanwhile. If a flush comes in between, the attempt was in vain and is made again later, so a
//! shard that writes all the time keeps its gaps, and fills them.

use super::background;
use super::shared::Shared;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Free bytes of a table below which nobody cares.
const FREE_BYTES_MIN: u64 = 8 << 20;
/// Free share of a table, in percent, from which on it is compacted.
const FREE_PERCENT_MIN: u64 = 50;
/// Between two looks at one table, and rest after an attempt that was in vain.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Rest of one table after it was compacted, or could not be.
const REST: Duration = Duration::from_secs(10 * 60);
/// Bytes that a compaction leaves free on the disk.
const DISK_BYTES_MIN: u64 = 256 << 20;

/// What the groups of a node share: whether there is time, and whose turn it is.
#[derive(Debug, Default)]
pub struct Turns {
    allowed: AtomicBool,
    taken: AtomicBool,
}

impl Turns {
    /// Whether there is time for it.
    pub fn allow(&self, allowed: bool) {
        self.allowed.store(allowed, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.allowed.load(Ordering::Relaxed) && !self.taken.swap(true, Ordering::AcqRel)
    }

    fn give_back(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

/// When one table is looked at next.
#[derive(Debug, Default)]
pub struct Rest(Mutex<Option<Instant>>);

impl Rest {
    fn is_due(&self, now: Instant) -> bool {
        self.0.lock().is_none_or(|until| now >= until)
    }

    fn until(&self, at: Instant) {
        *self.0.lock() = Some(at);
    }
}

/// Whether a table of so many bytes, of which so many hold nothing, is worth it and has room for its copy.
fn is_worth_it(table_bytes: u64, free_bytes: u64, disk_free_bytes: u64) -> bool {
    let used_bytes = table_bytes.saturating_sub(free_bytes);
    free_bytes >= FREE_BYTES_MIN
        && free_bytes >= table_bytes / 100 * FREE_PERCENT_MIN
        && disk_free_bytes.saturating_sub(used_bytes) >= DISK_BYTES_MIN
}

/// Compacts the table of a group in the background if it is due. Cheap; called all the time.
pub fn consider(shared: &Arc<Shared>, now: Instant) {
    let turns = &shared.peers.compactions;
    if !shared.compaction_rest.is_due(now) || !turns.take() {
        return;
    }
    shared.compaction_rest.until(now + LOOK_EVERY);
    if !wants(shared) {
        turns.give_back();
        return;
    }
    let compacted = Arc::clone(shared);
    let work = move || {
        let rest = compact(&compacted);
        compacted.compaction_rest.until(Instant::now() + rest);
        compacted.peers.compactions.give_back();
    };
    // Not idle: for the exchange of the tables it keeps flushes waiting.
    if let Err(error) = background::spawn_low("compact", work) {
        tracing::warn!(%error, "no thread for a compaction");
        turns.give_back();
    }
}

fn wants(shared: &Shared) -> bool {
    let Ok(disk) = rustix::fs::statvfs(&shared.dir) else { return false };
    let disk_free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    let table_bytes = shared.store.table_bytes();
    // Asking LMDB costs more than asking the file system.
    table_bytes >= FREE_BYTES_MIN
        && shared
            .store
            .free_bytes()
            .is_ok_and(|free| is_worth_it(table_bytes, free, disk_free_bytes))
}

/// How long to rest afterwards.
fn compact(shared: &Shared) -> Duration {
    let (group, before_bytes) = (shared.group, shared.store.table_bytes());
    match shared.store.compact() {
        Ok(true) => {
            let after_bytes = shared.store.table_bytes();
            tracing::info!(%group, before_bytes, after_bytes, "a table was compacted");
            REST
        }
        Ok(false) => LOOK_EVERY,
        Err(error @ crate::storage::Error::NoSpace(_)) => {
            tracing::warn!(%group, %error, "a table is not compacted");
            REST
        }
        // Whatever is wrong with the table shows itself where it is read; this attempt changed nothing.
        Err(error) => {
            tracing::error!(%group, %error, "a table could not be compacted");
            REST
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn only_a_table_that_is_half_empty_and_has_room_is_worth_it() {
        assert!(is_worth_it(16 * MIB, 8 * MIB, 1 << 30));
        assert!(!is_worth_it(16 * MIB, 8 * MIB - 1, 1 << 30));
        assert!(!is_worth_it(7 * MIB, 7 * MIB, 1 << 30), "too little");
        assert!(!is_worth_it(1_000 * MIB, 499 * MIB, 1 << 30));
        assert!(!is_worth_it(1_000 * MIB, 500 * MIB, 500 * MIB), "no room for the copy");
    }

    #[test]
    fn there_is_one_turn_and_none_while_there_is_no_time() {
        let turns = Turns::default();
        assert!(!turns.take());
        turns.allow(true);
        assert!(turns.take() && !turns.take());
        turns.give_back();
        turns.allow(false);
        assert!(!turns.take());
    }

    #[test]
    fn a_rest_lasts_until_its_end() {
        let (rest, now) = (Rest::default(), Instant::now());
        assert!(rest.is_due(now));
        rest.until(now + REST);
        assert!(!rest.is_due(now + REST - Duration::from_millis(1)) && rest.is_due(now + REST));
    }
}
