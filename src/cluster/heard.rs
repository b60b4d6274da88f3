//! When each peer was last heard from and what its clock said: liveness for `status`, and the source of
//! the stamps that shards measure time with.
//!
//! Nothing here decides about leadership or quorums; that is consensus' own business.

use crate::shard::Clock;
use crate::types::NodeId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock heard longer ago than this no longer counts.
const CLOCK_VALID: Duration = Duration::from_secs(5);
/// How far a stamp may run ahead of the median of the clocks heard.
pub const CLOCK_AHEAD_MS: u64 = 500;
/// A peer heard from within this time counts as up.
pub const UP_WITHIN: Duration = Duration::from_secs(2);

/// What peers said, shared by clones.
#[derive(Clone, Default)]
pub struct Heard {
    peers: Arc<Mutex<BTreeMap<NodeId, Peer>>>,
}

#[derive(Clone, Copy)]
struct Peer {
    at: Instant,
    clock_ms: u64,
}

impl Heard {
    /// A member said that it is there, under its own id: its name alone does not tell the disk it runs on.
    pub fn note(&self, from: NodeId, clock_ms: u64) {
        self.peers.lock().insert(from, Peer { at: Instant::now(), clock_ms });
    }

    /// Whether a peer was heard from lately.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.peers.lock().get(&node).is_some_and(|peer| peer.at.elapsed() < UP_WITHIN)
    }

    /// When a peer was heard from last.
    pub fn last(&self, node: NodeId) -> Option<Instant> {
        self.peers.lock().get(&node).map(|peer| peer.at)
    }

    /// How far this machine's clock is ahead of the middle of all that count, its own among them, in milliseconds; none
    /// if no other is heard.
    pub fn clock_ahead_ms(&self) -> Option<i64> {
        ahead_ms(clock_ms(), &self.clocks_ms())
    }

    /// The clocks of the peers, carried forward to this moment.
    fn clocks_ms(&self) -> Vec<u64> {
        let now = Instant::now();
        let peers = self.peers.lock();
        let carried = peers.values().filter_map(|peer| {
            let age = now.duration_since(peer.at);
            (age < CLOCK_VALID).then(|| peer.clock_ms.saturating_add(age.as_millis() as u64))
        });
        carried.collect()
    }
}

/// This machine's clock, in milliseconds since 1970.
pub fn clock_ms() -> u64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    now_ms.saturating_add_signed(crate::faults::clock_offset_ms())
}

/// min(own, median of the clocks heard + 500 ms); the own clock if fewer than three are heard.
pub fn bounded_stamp_ms(own_ms: u64, heard_ms: &[u64]) -> u64 {
    if heard_ms.len() < 3 {
        return own_ms;
    }
    let mut sorted = heard_ms.to_vec();
    sorted.sort_unstable();
    own_ms.min(sorted[sorted.len() / 2].saturating_add(CLOCK_AHEAD_MS))
}

fn ahead_ms(own_ms: u64, heard_ms: &[u64]) -> Option<i64> {
    let mut all: Vec<u64> = heard_ms.iter().copied().chain([own_ms]).collect();
    all.sort_unstable();
    let middle = all.get(all.len() / 2).filter(|_| !heard_ms.is_empty())?;
    i64::try_from(i128::from(own_ms) - i128::from(*middle)).ok()
}

impl Clock for Heard {
    fn stamp_ms(&self) -> u64 {
        bounded_stamp_ms(clock_ms(), &self.clocks_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fast_clock_cannot_run_away_with_time() {
        assert_eq!(bounded_stamp_ms(9_000, &[1_000, 1_001]), 9_000);
        assert_eq!(bounded_stamp_ms(9_000, &[1_000, 1_001, 1_002]), 1_501);
        assert_eq!(bounded_stamp_ms(1_200, &[1_000, 1_001, 1_002]), 1_200);
        assert_eq!(bounded_stamp_ms(9_000, &[1_000, 90_000, 1_002]), 1_502);
    }

    #[test]
    fn a_clock_is_off_by_the_middle_of_all() {
        assert_eq!(ahead_ms(5_000, &[]), None);
        assert_eq!(ahead_ms(5_700, &[5_000, 5_001, 4_999]), Some(699));
        assert_eq!(ahead_ms(4_000, &[5_000, 5_001]), Some(-1_000));
        // One that is wrong does not make the others so.
        assert_eq!(ahead_ms(5_000, &[5_001, 90_000]), Some(-1));
    }

    #[test]
    fn a_peer_is_up_once_heard() {
        let heard = Heard::default();
        assert!(!heard.is_up(NodeId(2)));
        heard.note(NodeId(2), clock_ms());
        assert!(heard.is_up(NodeId(2)));
    }
}
