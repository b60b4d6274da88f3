//! The expiry index, removal of keys whose time has come, and when the leader has to move time on.
//!
//! Visibility does not depend on removal: a key is gone for readers as soon as shard time reaches its
//! expiry. Removal is a bounded part of applying any entry, in the order of the index, so that every copy
//! removes the same keys at the same entry.

use super::records::{self, EXPIRY_VALUE};
use crate::storage::{self, Space, View, Writer};
use std::ops::ControlFlow;
use std::time::Duration;

/// Keys removed while applying one entry. Part of the meaning of entries: a change needs a new version.
pub const REMOVALS_MAX: usize = 256;
/// Keys removed while applying an entry with a `Tick`, which comes at most about once a second.
pub const TICK_REMOVALS_MAX: usize = 1_024;

/// Time between two ticks of a leader. A tenth less than the second within which expiry has to be
/// visible, because the tick has to be committed and applied within it too.
pub const TICK_SPACING: Duration = Duration::from_millis(900);
/// Longest sleep of the ticker: how late it notices a key with a short time to live.
pub const TICK_POLL: Duration = Duration::from_millis(200);

const NEVER_MS: u64 = u64::MAX;

/// The expiry index with a cached lower bound of its first time, so that an entry looks into the index
/// only if something may be due.
#[derive(Debug)]
pub struct Expiry {
    first_ms: u64,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { first_ms: NEVER_MS }
    }
}

impl Expiry {
    /// The index of a store.
    pub fn load(view: &dyn View) -> Result<Self, storage::Error> {
        Ok(Self { first_ms: first_due_ms(view)?.unwrap_or(NEVER_MS) })
    }

    /// True only if no record has an expiry: a bound of `NEVER_MS` is a time that no key is given.
    pub fn is_empty(&self) -> bool {
        self.first_ms == NEVER_MS
    }

    /// Keeps the index in step with a record whose expiry goes from `old_ms` to `new_ms`.
    pub fn moved(
        &mut self,
        writer: &mut Writer<'_>,
        key: &[u8],
        old_ms: Option<u64>,
        new_ms: Option<u64>,
    ) {
        if old_ms == new_ms {
            return;
        }
        if let Some(at_ms) = old_ms {
            writer.delete(Space::Expiry, &records::expiry_key(at_ms, key));
        }
        if let Some(at_ms) = new_ms {
            writer.put(Space::Expiry, &records::expiry_key(at_ms, key), EXPIRY_VALUE);
            self.first_ms = self.first_ms.min(at_ms);
        }
    }

    /// Removes keys whose time has come, the oldest first, at most `removals_max`; returns how many.
    pub fn remove_due(
        &mut self,
        writer: &mut Writer<'_>,
        now_ms: u64,
        removals_max: usize,
    ) -> Result<usize, storage::Error> {
        if self.first_ms > now_ms {
            return Ok(0);
        }
        let (due, next_ms) = due(writer, now_ms, removals_max)?;
        for index_key in &due {
            let (_, key) = records::parse_expiry_key(index_key)?;
            writer.delete(Space::Data, key);
            writer.delete(Space::Expiry, index_key);
        }
        self.first_ms = next_ms;
        Ok(due.len())
    }
}

/// Keys of the index that are due, and the time of the first one that is left.
fn due(
    view: &dyn View,
    now_ms: u64,
    removals_max: usize,
) -> Result<(Vec<Vec<u8>>, u64), storage::Error> {
    let mut due = Vec::new();
    let mut next = Ok(NEVER_MS);
    view.scan(Space::Expiry, b"", None, &mut |index_key, _| {
        match records::parse_expiry_key(index_key) {
            Ok((at_ms, _)) if at_ms <= now_ms && due.len() < removals_max => {
                due.push(index_key.to_vec());
                return ControlFlow::Continue(());
            }
            Ok((at_ms, _)) => next = Ok(at_ms),
            Err(error) => next = Err(error),
        }
        ControlFlow::Break(())
    })?;
    Ok((due, next?))
}

/// The earliest time in the index.
pub fn first_due_ms(view: &dyn View) -> Result<Option<u64>, storage::Error> {
    let (_, first_ms) = due(view, 0, 0)?;
    Ok((first_ms != NEVER_MS).then_some(first_ms))
}

/// What the leader's ticker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Propose a tick.
    Propose,
    /// Look again after this long.
    Sleep(Duration),
}

/// Decides from the earliest time in the index, the node's stamp clock, and the time since the last tick
/// was proposed.
pub fn next_tick(first_ms: Option<u64>, stamp_ms: u64, since_tick: Option<Duration>) -> Tick {
    let Some(first_ms) = first_ms else { return Tick::Sleep(TICK_POLL) };
    let until_due = Duration::from_millis(first_ms.saturating_sub(stamp_ms));
    let until_allowed =
        since_tick.map_or(Duration::ZERO, |since| TICK_SPACING.saturating_sub(since));
    match until_due.max(until_allowed) {
        Duration::ZERO => Tick::Propose,
        wait => Tick::Sleep(wait.min(TICK_POLL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn the_leader_ticks_when_something_is_due() {
        assert_eq!(next_tick(None, 5_000, None), Tick::Sleep(TICK_POLL));
        assert_eq!(next_tick(Some(5_001), 5_000, None), Tick::Sleep(MS(1)));
        assert_eq!(next_tick(Some(9_000), 5_000, None), Tick::Sleep(TICK_POLL));
        assert_eq!(next_tick(Some(5_000), 5_000, None), Tick::Propose);
        assert_eq!(next_tick(Some(1), 5_000, None), Tick::Propose);
    }

    #[test]
    fn ticks_keep_their_distance() {
        assert_eq!(next_tick(Some(1), 5_000, Some(MS(0))), Tick::Sleep(TICK_POLL));
        assert_eq!(next_tick(Some(1), 5_000, Some(MS(850))), Tick::Sleep(MS(50)));
        assert_eq!(next_tick(Some(1), 5_000, Some(TICK_SPACING)), Tick::Propose);
        assert_eq!(next_tick(Some(5_150), 5_000, Some(MS(850))), Tick::Sleep(MS(150)));
    }
}
