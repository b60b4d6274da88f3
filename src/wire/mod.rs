//! Bytes <-> messages, pure: framing, codec, client and peer messages, the `Command` value.
//!
//! Nothing here touches a socket or a clock. Whatever arrives is checked for length before
//! anything is allocated, and a frame with trailing bytes is refused.

pub mod alarm;
pub mod breaker;
pub mod client;
pub mod codec;
pub mod command;
pub mod frame;
pub mod guard;
pub mod load;
pub mod logs;
pub mod monitor;
pub mod operation;
pub mod oplog;
pub mod peer;
pub mod plan;
pub mod runs;
pub mod slowlog;
pub mod tally;
pub mod terms;
pub mod typed;
