//! The leader's ticker: proposes a `Tick` when a key is due and nothing else moves shard time on.
//!
//! A thin driver; when to tick is decided in `expiry::next_tick`.

use super::batcher::Batcher;
use super::clock::Clock;
use super::expiry::{self, TICK_POLL, TICK_SPACING, Tick, next_tick};
use super::queue::Request;
use crate::raft::Group;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Wait after the index could not be read; whoever reads the data meets the same damage and acts on it.
const DAMAGE_WAIT: Duration = Duration::from_secs(10);

/// Runs until it is aborted.
pub async fn run(group: Group, clock: Arc<dyn Clock>, batcher: Batcher) {
    let mut ticked_at: Option<Instant> = None;
    loop {
        let wait = match look(&group, &*clock, ticked_at) {
            Tick::Sleep(wait) => wait,
            Tick::Propose => {
                let now = Instant::now();
                ticked_at = Some(now);
                // Refused or lost: the next look finds the same keys due.
                let _ = batcher.submit(Request::Tick, now + TICK_SPACING).await;
                continue;
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn look(group: &Group, clock: &dyn Clock, ticked_at: Option<Instant>) -> Tick {
    if !group.is_leader() {
        return Tick::Sleep(TICK_POLL);
    }
    match group.store().read(expiry::first_due_ms).and_then(|first_ms| first_ms) {
        Ok(first_ms) => next_tick(first_ms, clock.stamp_ms(), ticked_at.map(|at| at.elapsed())),
        Err(error) => {
            tracing::warn!(%error, "the expiry index cannot be read");
            Tick::Sleep(DAMAGE_WAIT)
        }
    }
}
