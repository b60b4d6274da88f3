//! Counts of changes of strategy since the cluster was formed: the four figures that survive every restart. Data only:
//! they are counted in `cluster::tally`.

use serde::{Deserialize, Serialize};

/// Changes in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// The new strategy held everywhere. One that was reverted later is among them, too: counts never go back.
    pub settled: u64,
    /// Given up before the commit point.
    pub aborted: u64,
    /// Taken back after it.
    pub reverted: u64,
}

/// What became of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// From sharded to full replication.
    pub to_full: Direction,
    /// From full replication to sharded.
    pub to_sharded: Direction,
    /// Ended aborted, by whomever, or taken back by the guard.
    pub failed_operations: u64,
    /// Milliseconds that the settled ones took in all, from the start until the new strategy held everywhere, without
    /// the time they were held prepared.
    pub took_ms: u64,
    /// When the latest of them settled, in milliseconds since 1970, and how long it took.
    pub last_settled_ms: Option<u64>,
    /// The same one's duration in milliseconds.
    pub last_took_ms: Option<u64>,
}

impl Tally {
    /// Settled changes in both directions.
    pub fn strategy_switches(&self) -> u64 {
        self.to_full.settled + self.to_sharded.settled
    }

    /// Mean duration of a settled change in milliseconds; none before the first.
    pub fn avg_switch_time_ms(&self) -> Option<u64> {
        self.took_ms.checked_div(self.strategy_switches())
    }
}
