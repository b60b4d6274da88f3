//! The vocabulary every other module speaks: ids, keys, operations, outcomes, errors, limits.
//!
//! Plain values only. Nothing here does I/O, reads a clock or knows how bytes travel.

pub mod error;
pub mod histogram;
pub mod ids;
pub mod limits;
pub mod ops;
pub mod slots;
pub mod units;

pub use error::{Class, Code, Error, Result};
pub use histogram::Histogram;
pub use ids::{CopyId, DiskId, GroupId, Incarnation, LogPos, NodeId, NodeName, ShardId, Token};
pub use ops::{Condition, Expiry, Op, OpResult, ReadLevel, SessionId, SessionSeq};
