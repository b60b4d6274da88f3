//! The client library: finds the map from any node, routes by key, follows hints, balances reads,
//! retries what is safe within the deadline and reports the rest as it is: `unknown`.
//!
//! Everything that talks to a cluster uses it: the command line, the shell, scripts, the load generator.

use crate::pki::Identity;
use crate::types::{Error, NodeName, Op, OpResult, Result, Token};
use crate::wire::client::Map;
use crate::wire::command::{Answer, Command};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// How to reach a cluster.
#[derive(Clone)]
pub struct Options {
    /// Any nodes of the cluster, `host:port`; one that answers is enough.
    pub endpoints: Vec<String>,
    /// Who we are.
    pub identity: Identity,
    /// Connections shared by all requests of this client (spread over the nodes).
    pub connections_per_node: usize,
}

/// What a read may return, with the client's own tokens behind `Session`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Real-time order.
    #[default]
    Linearizable,
    /// At least as new as everything this client has seen (its tokens).
    Session,
    /// The nearest copy, provably not older than the bound if there is one.
    Local { max_staleness_ms: Option<u32> },
}

/// How one call is carried out.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// For reads.
    pub level: Level,
    /// A token the caller brings along, for `Session`.
    pub after: Option<Token>,
    /// The whole time, retries included.
    pub timeout: Duration,
    /// Retry what is safe.
    pub retry: bool,
    /// Ask this node for `Session` and `Local` reads.
    pub node: Option<NodeName>,
    /// All operations or none: refused unless all keys share a shard.
    pub atomic: bool,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            level: Level::default(),
            after: None,
            timeout: crate::types::limits::DEADLINE_DEFAULT,
            retry: true,
            node: None,
            atomic: false,
        }
    }
}

/// The answer to one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct OpAnswer {
    /// What it answered (`OpResult::Failed` never appears here; it is an `Err`).
    pub result: OpResult,
    /// How far the shard had got.
    pub token: Token,
    /// Who answered.
    pub served_by: NodeName,
    /// Age bound of a bounded `local` read.
    pub age_ms: Option<u32>,
}

/// A page of a scan over all shards, in key order.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Keys with their values, unless only keys were asked for.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
    /// Give it back for the next page; none at the end.
    pub cursor: Option<String>,
}

/// What to scan.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// Only keys that start with this.
    pub prefix: Bytes,
    /// Where the last page ended.
    pub cursor: Option<String>,
    /// Keys in a page.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

/// A connected client; a cheap handle, shared by any number of tasks.
#[derive(Clone)]
pub struct Client {
    _inner: Arc<()>,
}

impl Client {
    /// Connects to the first endpoint that answers and reads the map. A node that belongs to no cluster
    /// yet is fine: only commands work then.
    pub async fn connect(_options: Options) -> Result<Self> {
        unimplemented!()
    }

    /// Carries out operations, each on the shard of its key. One result for each, in order.
    pub async fn call(
        &self,
        _ops: Vec<Op>,
        _options: &CallOptions,
    ) -> Vec<Result<OpAnswer, Error>> {
        unimplemented!()
    }

    /// A page of keys.
    pub async fn scan(&self, _scan: &ScanOptions, _options: &CallOptions) -> Result<Page> {
        unimplemented!()
    }

    /// Sends a command to a node (any, if none is named); says who answered. Never retried after sending.
    pub async fn command(
        &self,
        _command: Command,
        _node: Option<&NodeName>,
        _timeout: Duration,
    ) -> Result<(Answer, NodeName)> {
        unimplemented!()
    }

    /// The map as last seen; `refresh` asks for a newer one.
    pub fn map(&self) -> Arc<Map> {
        unimplemented!()
    }

    /// Asks for the map again.
    pub async fn refresh(&self) -> Result<Arc<Map>> {
        unimplemented!()
    }

    /// Closes every connection.
    pub async fn close(&self) {
        unimplemented!()
    }
}
