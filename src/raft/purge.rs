//! How far the log of a copy may be purged, and how the library is told.
//!
//! The library purges only what a snapshot covers. Ours covers what the table holds durably and costs
//! nothing to build (`machine`), so a purge is: build it, wait until the library has it, purge.

use super::shared::Shared;
use super::types::Metrics;
use openraft::async_runtime::WatchReceiver;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the library may take to build our snapshot before the purge is left to the next time.
const BUILD_MAX: Duration = Duration::from_secs(10);
/// Bytes of the node's log below which nobody has to give up entries kept for members that are behind.
const LOG_BYTES_FREE: u64 = 512 << 20;

/// A copy that does not lead keeps so much less: it is asked for it only if it comes to lead while somebody is behind.
/// The more copies a node has the more of them do not lead, and what they keep are whole segments of its log.
const KEEPS_LESS: u64 = 4;

/// Where a copy's log stands.
#[derive(Clone, Debug)]
struct Ends {
    /// Last index the table holds durably.
    flushed: u64,
    /// Last index purged.
    purged: Option<u64>,
    /// First index that has to stay to keep the bytes that are to be kept.
    keep_from: u64,
    /// On the leader: the lowest index that a member has acknowledged (none if one has nothing).
    /// Others do not know who is behind and keep for anyone.
    acknowledged: Option<Option<u64>>,
    /// The same of those members that have something.
    followed: u64,
    /// A snapshot on its way ends here.
    hold: Option<u64>,
    /// The node's log is too large, and this group is what keeps its oldest part.
    pressed: bool,
}

/// The index up to which may be purged, if that is further than before.
fn upto(ends: &Ends) -> Option<u64> {
    // Exclusive ends: one past the last index that may go.
    let flushed = ends.flushed + 1;
    let by_members = match ends.acknowledged {
        Some(Some(index)) => ends.keep_from.max(index + 1),
        // Who has nothing gets a snapshot, since the log does not begin at its beginning any more. What follows the
        // snapshot is held for it.
        Some(None) if ends.purged.is_some() => ends.keep_from.max(ends.followed + 1),
        Some(None) | None => ends.keep_from,
    };
    let end = if ends.pressed { flushed } else { flushed.min(by_members) };
    // Once every member has what a snapshot ends with, its receiver has it, too.
    let all_have = |hold: &u64| matches!(ends.acknowledged, Some(Some(all)) if all >= *hold);
    let hold = ends.hold.filter(|hold| !all_have(hold));
    let end = hold.map_or(end, |hold| end.min(hold + 1));
    let purged = ends.purged.map_or(0, |index| index + 1);
    (end > purged).then(|| end - 1)
}

/// Nobody is behind.
const NOBODY: u64 = u64::MAX - 1;

/// The lowest index acknowledged by all members but this one, if this copy leads.
fn acknowledged(metrics: &Metrics) -> Option<Option<u64>> {
    let lowest = matched(metrics)?.min();
    // Nobody else: nothing to keep for anyone.
    Some(lowest.unwrap_or(Some(NOBODY)))
}

/// What each of the others has, if this copy leads.
fn matched(metrics: &Metrics) -> Option<impl Iterator<Item = Option<u64>>> {
    let replication = metrics.replication.as_ref()?;
    let others = replication.iter().filter(|(id, _)| **id != metrics.id);
    Some(others.map(|(_, matched)| matched.as_ref().map(|id| id.index)))
}

/// Whether this group has to let go of everything its table holds: the node's log has no room left, or
/// has grown beyond what all groups together may keep, and this group's entries are the oldest in it.
pub fn pressed(shared: &Shared) -> bool {
    let stats = shared.wal.stats();
    let allowed = LOG_BYTES_FREE
        .max(shared.peers.options.log_keep_bytes.saturating_mul(2 * shared.flusher.groups()));
    (stats.no_space || stats.used_bytes > allowed)
        && shared.wal.oldest_pinning_group() == Some(shared.group)
}

/// Gives up staged snapshots that are of no use any more, then purges what may go, if that is anything and
/// no purge is under way.
pub fn consider(shared: &Arc<Shared>, now: Instant) {
    shared.tidy_staged(now);
    let Some(raft) = shared.raft().cloned() else { return };
    let Some(flushed) = shared.store.flushed() else { return };
    let (acknowledged, followed) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let followed = matched(&metrics).and_then(|matched| matched.flatten().min());
        (acknowledged(&metrics), followed.unwrap_or(NOBODY))
    };
    let usual = shared.peers.options.log_keep_bytes;
    let keep_bytes = if acknowledged.is_some() { usual } else { usual / KEEPS_LESS };
    let ends = Ends {
        flushed: flushed.index,
        purged: shared.purged_index(),
        keep_from: shared.log.keep_from(keep_bytes),
        acknowledged,
        followed,
        hold: shared.holds.limit(now),
        pressed: pressed(shared),
    };
    let Some(index) = upto(&ends) else { return };
    if shared.flush.purging.swap(true, Ordering::AcqRel) {
        return;
    }
    let shared = Arc::clone(shared);
    shared.peers.handle.clone().spawn(async move {
        if let Err(error) = purge(&shared, flushed.index, index).await {
            tracing::debug!(group = %shared.group, error, "the log was not purged");
        }
        shared.flush.purging.store(false, Ordering::Release);
    });
}

async fn purge(shared: &Shared, flushed: u64, index: u64) -> Result<(), String> {
    let raft = shared.raft().ok_or("not started")?;
    let covered = |m: &Metrics| m.snapshot.as_ref().is_some_and(|id| id.index >= index);
    if !covered(&raft.metrics().borrow_watched()) {
        raft.trigger().snapshot().await.map_err(|e| e.to_string())?;
        let built = raft.wait(Some(BUILD_MAX)).metrics(covered, "snapshot built").await;
        built.map_err(|e| e.to_string())?;
    }
    tracing::debug!(group = %shared.group, index, flushed, "purging the log");
    raft.trigger().purge_log(index).await.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            flushed: 100,
            purged: Some(10),
            keep_from: 80,
            acknowledged: Some(Some(95)),
            followed: 95,
            hold: None,
            pressed: false,
        }
    }

    #[test]
    fn never_beyond_what_is_durable_or_held() {
        assert_eq!(upto(&Ends { acknowledged: Some(Some(500)), ..ends() }), Some(100));
        let held = || Ends { acknowledged: Some(Some(39)), hold: Some(40), ..ends() };
        assert_eq!(upto(&held()), Some(40));
        assert_eq!(upto(&Ends { pressed: true, ..held() }), Some(40));
        assert_eq!(upto(&Ends { acknowledged: Some(None), ..held() }), Some(40));
        assert_eq!(upto(&Ends { acknowledged: None, ..held() }), Some(40));
        // The receiver has it by now.
        assert_eq!(upto(&Ends { acknowledged: Some(Some(40)), keep_from: 0, ..held() }), Some(40));
        assert_eq!(upto(&Ends { acknowledged: Some(Some(500)), ..held() }), Some(100));
        assert_eq!(upto(&Ends { keep_from: 500, ..ends() }), Some(100));
        assert_eq!(upto(&Ends { purged: Some(100), pressed: true, ..ends() }), None);
    }

    #[test]
    fn a_leader_keeps_for_members_behind_within_the_bytes() {
        assert_eq!(upto(&ends()), Some(95));
        assert_eq!(upto(&Ends { acknowledged: Some(Some(85)), ..ends() }), Some(85));
        assert_eq!(upto(&Ends { acknowledged: Some(Some(20)), ..ends() }), Some(79));
        // Nothing is kept for whom only a snapshot helps, as long as the log does not reach back to its beginning.
        assert_eq!(upto(&Ends { acknowledged: Some(None), ..ends() }), Some(95));
        assert_eq!(upto(&Ends { acknowledged: Some(None), hold: Some(90), ..ends() }), Some(90));
        assert_eq!(upto(&Ends { acknowledged: Some(None), purged: None, ..ends() }), Some(79));
        assert_eq!(upto(&Ends { acknowledged: Some(None), followed: NOBODY, ..ends() }), Some(100));
    }

    #[test]
    fn others_keep_the_bytes_and_under_pressure_nothing_is_kept() {
        assert_eq!(upto(&Ends { acknowledged: None, ..ends() }), Some(79));
        assert_eq!(upto(&Ends { acknowledged: None, keep_from: 0, ..ends() }), None);
        assert_eq!(
            upto(&Ends { acknowledged: None, keep_from: 0, pressed: true, ..ends() }),
            Some(100)
        );
        assert_eq!(upto(&Ends { acknowledged: Some(None), pressed: true, ..ends() }), Some(100));
    }
}
