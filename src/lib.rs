//! PPDB: a durable, sharded key-value store that an operator can switch to full replication and back.
//!
//! Start with `ARCHITECTURE.md`. The public face of the library is [`client`]; everything else is the
//! inside of the one binary. A module uses only modules that stand above it in this list.

#![deny(unsafe_code)]

pub mod types;
pub mod faults;
pub mod wire;
pub mod storage;
pub mod pki;
pub mod transport;
pub mod breaker;
pub mod client;
pub mod raft;
pub mod shard;
pub mod admission;
pub mod telemetry;
pub mod alarms;
pub mod cluster;
pub mod service;
pub mod hot;
pub mod slowlog;
pub mod monitor;
pub mod request;
pub mod strategy;
pub mod admin;
pub mod config;
pub mod node;
pub mod cli;
pub mod script;
pub mod shell;
