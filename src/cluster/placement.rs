//! Which primary owns which shard: the smallest change to balance, ties by rendezvous hashing.
//!
//! Pure. A primary owns at most ceil(shards / primaries) and at least floor(shards / primaries) shards,
//! so none owns nothing while there are at least as many shards as primaries.

use crate::types::{NodeId, ShardId};
use std::collections::BTreeMap;

/// The owner of each shard, by shard id. `current` may be empty, shorter, or name primaries that are
/// gone; owners that may stay, stay. Without primaries there are no owners.
pub fn owners(shards: u16, primaries: &[NodeId], current: &[NodeId]) -> Vec<NodeId> {
    if primaries.is_empty() {
        return vec![];
    }
    let mut quota = Quota::new(shards, primaries);
    let kept: Vec<Option<NodeId>> = (0..shards)
        .map(|s| current.get(s as usize).copied().filter(|owner| quota.take(*owner)))
        .collect();
    kept.iter().enumerate().map(|(s, owner)| owner.unwrap_or_else(|| quota.best(s))).collect()
}

/// How many more shards each primary may get.
struct Quota {
    floor: u16,
    /// Primaries that may own one more than the floor.
    extra: u16,
    owned: BTreeMap<NodeId, u16>,
}

impl Quota {
    fn new(shards: u16, primaries: &[NodeId]) -> Self {
        let n = primaries.len() as u16;
        let owned = primaries.iter().map(|p| (*p, 0)).collect();
        Self { floor: shards / n, extra: shards % n, owned }
    }

    fn has_room(&self, owned: u16) -> bool {
        owned < self.floor || (owned == self.floor && self.extra > 0)
    }

    fn take(&mut self, primary: NodeId) -> bool {
        let Some(owned) = self.owned.get(&primary).copied() else {
            return false;
        };
        if !self.has_room(owned) {
            return false;
        }
        if owned == self.floor {
            self.extra -= 1;
        }
        self.owned.insert(primary, owned + 1);
        true
    }

    /// The primary with room that the shard's hash prefers. The quotas add up to the number of shards,
    /// so there is one as long as fewer shards were given out.
    fn best(&mut self, shard: usize) -> NodeId {
        let best = self
            .owned
            .iter()
            .filter(|(_, owned)| self.has_room(**owned))
            .map(|(primary, _)| *primary)
            .max_by_key(|primary| (score(ShardId(shard as u16), *primary), *primary))
            .unwrap_or_default();
        self.take(best);
        best
    }
}

/// Rendezvous weight of a primary for a shard: the finalizer of splitmix64 over both ids.
fn score(shard: ShardId, primary: NodeId) -> u64 {
    let mut x = (primary.0 << 16) ^ u64::from(shard.0) ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: u64) -> Vec<NodeId> {
        (1..=n).map(NodeId).collect()
    }

    fn counts(owners: &[NodeId]) -> BTreeMap<NodeId, u16> {
        let mut counts = BTreeMap::new();
        owners.iter().for_each(|o| *counts.entry(*o).or_default() += 1);
        counts
    }

    #[test]
    fn every_primary_gets_its_share() {
        for n in 1..=7 {
            for shards in [1, 2, 7, 12, 64] {
                let got = owners(shards, &ids(n), &[]);
                assert_eq!(got.len(), shards as usize);
                let counts = counts(&got);
                let (floor, ceil) = (shards / n as u16, shards.div_ceil(n as u16));
                assert!(counts.values().all(|c| (floor..=ceil).contains(c)), "{n} {shards}");
                assert_eq!(counts.len(), (n as usize).min(shards as usize));
            }
        }
    }

    #[test]
    fn a_new_primary_takes_only_its_share() {
        let before = owners(12, &ids(3), &[]);
        let after = owners(12, &ids(4), &before);
        let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
        assert_eq!(moved, 3);
        assert_eq!(owners(12, &ids(4), &after), after);
    }

    #[test]
    fn a_lost_primary_gives_only_its_own() {
        let before = owners(12, &ids(4), &[]);
        let after = owners(12, &ids(3), &before);
        for (b, a) in before.iter().zip(&after) {
            assert!(b == a || *b == NodeId(4));
        }
    }

    #[test]
    fn no_primaries_no_owners() {
        assert!(owners(12, &[], &[]).is_empty());
    }
}
