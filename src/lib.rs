//! PPDB: a durable, sharded key-value store that an operator can switch to full replication and back.
//!
//! Start with `ARCHITECTURE.md`. The public face of the library is [`client`]; everything else is the
//! inside of the one binary. A module uses only modules that stand above it in this list.

pub mod cli;
pub mod client;
pub mod pki;
pub mod raft;
pub mod shard;
pub mod storage;
pub mod transport;
pub mod types;
pub mod wire;
