//! Settings of a node: one TOML file, then the environment, then flags; the later one wins.
//!
//! `setting` is the table of everything that can be set, with its default and its meaning; `layer`
//! puts the sources on top of each other and remembers where each value came from; `file` reads TOML.
//! Nothing here opens a data folder or a certificate.

pub mod file;
pub mod layer;
pub mod setting;

use crate::telemetry::LogFormat;
use crate::types::NodeName;
use crate::wire::client::Role;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use layer::{Layer, Origin, Resolved, resolve};
pub use setting::{SETTINGS, Setting};

/// Where metrics are scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address and TCP port.
    pub listen: SocketAddr,
    /// HTTPS with a certificate of the cluster; false only on a loopback address.
    pub tls: bool,
}

/// Everything a node is started with, checked. `setting::SETTINGS` has the default of each field.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeSettings {
    /// The name in the node's certificate.
    pub name: NodeName,
    /// Primary or replica.
    pub role: Role,
    /// Where the node listens (UDP).
    pub listen: SocketAddr,
    /// Where others reach it, `host:port`; never a wildcard address.
    pub advertise: String,
    /// The data folder.
    pub data_dir: PathBuf,
    /// The CA that every certificate of the cluster comes from.
    pub ca: PathBuf,
    /// The node's certificate.
    pub cert: PathBuf,
    /// The key of that certificate, readable by its owner only.
    pub key: PathBuf,
    /// Filter of log lines, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log_level: String,
    /// Text or JSON.
    pub log_format: LogFormat,
    /// Where metrics are scraped; none is nowhere.
    pub metrics: Option<Metrics>,
    /// Bytes of one segment of the write-ahead log, 1 MiB to 1 GiB.
    pub wal_segment_bytes: u64,
    /// Between heartbeats, 10 ms to 10 s.
    pub raft_heartbeat: Duration,
    /// Shortest wait for an election once a leader's lease is over; together with the longest more than four
    /// heartbeats.
    pub raft_election_min: Duration,
    /// Longest wait for an election, and a leader's lease; more than the shortest.
    pub raft_election_max: Duration,
}
