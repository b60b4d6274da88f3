//! Breakers between nodes as they travel: what is asked of one by an operator, and what can be seen of it. Data only:
//! when one opens is decided in `crate::breaker`, what it holds back in `cluster::breakers`.

use crate::types::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Bounds of the time that a breaker may be forced. There is none without an end: what nobody remembers must not hold.
pub const FORCE_MIN: Duration = Duration::from_secs(1);
/// The longest.
pub const FORCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What one node asks of another. Messages of consensus are no calls, and no breaker holds them back. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PeerClass {
    /// Questions and orders.
    Control,
    /// Copies of shards.
    Copy,
}

impl PeerClass {
    /// All of them.
    pub const ALL: [PeerClass; 2] = [PeerClass::Control, PeerClass::Copy];

    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            PeerClass::Control => "control",
            PeerClass::Copy => "copy",
        }
    }
}

/// An order about the breakers of the node asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerOrder {
    /// The peer that they are about.
    pub peer: NodeName,
    /// Of which class; none is all.
    pub class: Option<PeerClass>,
    /// Open them, or close them.
    pub open: bool,
    /// For how many milliseconds, `FORCE_MIN` to `FORCE_MAX`.
    pub for_ms: u64,
}

/// Whether calls are made. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BreakerState {
    /// All of them.
    Closed,
    /// None.
    Open,
    /// Some, to see how it is now.
    HalfOpen,
}

impl BreakerState {
    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// One breaker of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerBreaker {
    /// The peer that is called.
    pub peer: NodeName,
    /// What is asked of it.
    pub class: PeerClass,
    /// What became of it.
    pub seen: BreakerSeen,
}

/// What can be seen of a breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BreakerSeen {
    /// Whether calls are made.
    pub state: BreakerState,
    /// No calls are made: `state` is `Open`.
    pub is_open: bool,
    /// Calls of the last ten seconds that were counted.
    pub calls: u64,
    /// Those of them that failed.
    pub error_count: u64,
    /// Those of them that were slow.
    pub slow_request_count: u64,
    /// When the last one failed, in milliseconds since 1970.
    pub last_failure_time: Option<u64>,
    /// How often it has opened by itself.
    pub opened_total: u64,
    /// Why it opened last, or by whose order it is forced.
    pub reason: Option<String>,
    /// Until when it is forced, in milliseconds since 1970; none if it is not.
    pub forced_until: Option<u64>,
}
