//! The client library: finds the map from any node, routes by key, follows hints, balances reads,
//! retries what is safe within the deadline and reports the rest as it is: `unknown`.
//!
//! Everything that talks to a cluster uses it: the command line, the shell, scripts, the load generator.
//!
//! ```no_run
//! use ppdb::client::{CallOptions, Client, Level, Options, ScanOptions};
//! use ppdb::pki::Identity;
//! use ppdb::types::{Condition, Expiry, Op, OpResult, Result};
//! use std::path::Path;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<()> {
//! let certs = Path::new("certs");
//! let client = Client::connect(Options {
//!     endpoints: vec!["127.0.0.1:7401".into(), "127.0.0.1:7402".into()],
//!     identity: Identity::load(
//!         &certs.join("ca.crt"),
//!         &certs.join("user-alice.crt"),
//!         &certs.join("user-alice.key"),
//!     )?,
//!     connections_per_node: 1,
//! })
//! .await?;
//!
//! // A write. If its answer is lost it is repeated under the same session and sequence, so that it
//! // applies once; what cannot be settled within the timeout is an error of class `Uncertain`.
//! let set = Op::Set {
//!     key: "hello".into(),
//!     value: "world".into(),
//!     condition: Condition::Always,
//!     expiry: Expiry::Never,
//! };
//! let written = client.call(vec![set], &CallOptions::default()).await.remove(0)?;
//! println!("written by {} at {}", written.served_by, written.token);
//!
//! // A read of our own write, from any copy that has caught up with it.
//! let session = CallOptions { level: Some(Level::Session), ..CallOptions::default() };
//! let read = client.call(vec![Op::Get { key: "hello".into() }], &session).await.remove(0)?;
//! assert_eq!(read.result, OpResult::Value("world".into()));
//!
//! // All keys in order, page by page.
//! let mut scan = ScanOptions { limit: 100, ..ScanOptions::default() };
//! loop {
//!     let page = client.scan(&scan, &session).await?;
//!     for (key, _value) in &page.entries {
//!         println!("{}", key.escape_ascii());
//!     }
//!     scan.cursor = page.cursor;
//!     if scan.cursor.is_none() {
//!         break;
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What an outcome means
//!
//! | the answer to an operation | the operation |
//! |---|---|
//! | `Ok` | took effect, once |
//! | `Err` of class `Retry`, `Fix` or `Stop` | has not taken effect and never will |
//! | `Err` of class `Uncertain` | may have taken effect, or may yet, at most once |
//!
//! # How it is built
//!
//! `exec` is the spine: split by shard, a request each. `attempt` is the one loop that sends: `retry`
//! decides what follows a failure, `route` and `health` which node is asked, `sessions` and `tokens` what
//! a request carries; these are plain code. `pool` and `conn` hold the connections, behind the seam `net`.

mod attempt;
mod command;
mod conn;
mod cursor;
mod discover;
mod exec;
mod health;
mod merge;
mod net;
mod pool;
mod retry;
mod route;
mod scan;
mod sessions;
mod split;
mod tokens;

#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod socket_tests;
#[cfg(test)]
mod testing;

use crate::breaker;
use crate::pki::Identity;
use crate::types::{Code, Error, NodeName, Op, OpResult, Result, Token, limits};
use crate::wire::client::{Map, ReadDefault};
use crate::wire::command::{Answer, Command};
use bytes::Bytes;
use exec::Inner;
pub use health::CallClass;
use pool::Pool;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How to reach a cluster.
#[derive(Clone)]
pub struct Options {
    /// Any nodes of the cluster, `host:port`; one that answers is enough.
    pub endpoints: Vec<String>,
    /// Who we are.
    pub identity: Identity,
    /// Connections to each node, made when first needed and shared by all requests; 1 is enough for
    /// most, at most 256.
    pub connections_per_node: usize,
}

/// What a read may return, with the client's own tokens behind `Session`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Real-time order.
    Linearizable,
    /// At least as new as everything this client has seen (its tokens).
    Session,
    /// The nearest copy, provably not older than the bound if there is one.
    Local { max_staleness_ms: Option<u32> },
}

impl Level {
    /// Level of a read that names none, by the cluster's setting `reads.default` in the map.
    pub fn by_default(default: ReadDefault) -> Self {
        match default {
            ReadDefault::Linearizable => Level::Linearizable,
            ReadDefault::Session => Level::Session,
            ReadDefault::Local => Level::Local { max_staleness_ms: None },
        }
    }
}

/// How one call is carried out.
#[derive(Clone, Debug)]
pub struct CallOptions {
    /// For reads. None: `Session` if there is a token in `after`, else what the cluster's setting
    /// `reads.default` names, as this client knows it: a change is noticed within seconds.
    pub level: Option<Level>,
    /// A token the caller brings along, for `Session`.
    pub after: Option<Token>,
    /// The whole time, retries included; at most a day.
    pub timeout: Duration,
    /// Retry what is safe. Without it each request is sent at most once, and a write without the
    /// session that would make a repeat apply once.
    pub retry: bool,
    /// Ask this node, and no other, for `Session` and `Local` reads.
    pub node: Option<NodeName>,
    /// All operations or none: refused unless all keys share a shard.
    pub atomic: bool,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            level: None,
            after: None,
            timeout: limits::DEADLINE_DEFAULT,
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
    /// Keys in a page, up to `limits::SCAN_PAGE_MAX`; 0 means 100. A page ends earlier at
    /// `limits::SCAN_PAGE_BYTES_MAX`.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

/// One breaker of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeBreaker {
    /// The node that is called.
    pub node: NodeName,
    /// What is asked of it.
    pub class: CallClass,
    /// What became of it.
    pub seen: breaker::Seen,
}

/// A connected client; a cheap handle, shared by any number of tasks. Needs a tokio runtime with time
/// and I/O enabled.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner<Pool>>,
    /// Why it changes nothing, if it does not.
    read_only: Option<Arc<str>>,
}

impl Client {
    /// Connects to the first endpoint that answers and reads the map. A node that belongs to no cluster
    /// yet is fine: only commands work then.
    pub async fn connect(options: Options) -> Result<Self> {
        let inner = Arc::new(Inner::new(Pool::new(&options)?));
        inner.start(inner.deadline(limits::DEADLINE_DEFAULT)).await?;
        Ok(Self { inner, read_only: None })
    }

    /// The same connections without the right to change anything: writes, and commands that are no question, are
    /// refused (`ReadOnly`, for this reason) before anything is sent.
    pub fn read_only(&self, reason: &str) -> Self {
        Self { inner: self.inner.clone(), read_only: Some(reason.into()) }
    }

    fn refusal(&self, changes: bool) -> Option<Error> {
        let reason = self.read_only.as_ref().filter(|_| changes)?;
        Some(Error::new(Code::ReadOnly, reason.as_ref()))
    }

    /// Carries out operations, each on the shard of its key. One result for each, in order.
    ///
    /// Operations of one shard that fit one request (`limits::REQUEST_OPS_MAX`,
    /// `limits::REQUEST_BYTES_MAX`) are atomic together if a write is among them. Operations on one key
    /// take effect in the order given.
    pub async fn call(&self, ops: Vec<Op>, options: &CallOptions) -> Vec<Result<OpAnswer, Error>> {
        if let Some(refusal) = self.refusal(ops.iter().any(Op::is_write)) {
            return ops.iter().map(|_| Err(refusal.clone())).collect();
        }
        self.keep_map();
        self.inner.call(ops, options).await
    }

    /// A page of keys. A scan sees each shard at the moment its page is read, not one moment of all;
    /// a key that exists during the whole scan is returned exactly once.
    pub async fn scan(&self, scan: &ScanOptions, options: &CallOptions) -> Result<Page> {
        self.keep_map();
        self.inner.scan(scan, options).await
    }

    /// Sends a command to a node (any, if none is named); says who answered. Never retried after sending.
    /// `ClusterInit` goes to the first primary by name, at the address its formation gives.
    pub async fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        timeout: Duration,
    ) -> Result<(Answer, NodeName)> {
        if let Some(refusal) = self.refusal(command::needs_writes(&command)) {
            return Err(refusal);
        }
        self.inner.command(command, node, timeout).await
    }

    /// Asks for the map once in a while, beside the requests: a new strategy or default level refuses
    /// nobody, so no refusal would tell of it.
    fn keep_map(&self) {
        if self.inner.map_is_due() {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                let deadline = inner.deadline(limits::DEADLINE_DEFAULT);
                inner.try_refresh(deadline).await;
            });
        }
    }

    /// The map as last seen, empty before the cluster is formed; `refresh` asks for a newer one.
    pub fn map(&self) -> Arc<Map> {
        self.inner.view().map.clone()
    }

    /// Asks for the map again.
    pub async fn refresh(&self) -> Result<Arc<Map>> {
        let deadline = self.inner.deadline(limits::DEADLINE_DEFAULT);
        Ok(self.inner.refresh(deadline).await?.map.clone())
    }

    /// The breakers of this client, one for each node of the map and class of calls. An open one is gone around where
    /// another node may answer: reads in full replication, and those at `Session` and `Local`. Who leads a shard is
    /// asked all the same.
    pub fn breakers(&self) -> Vec<NodeBreaker> {
        let now = Instant::now();
        let of_node = |node: &Arc<route::Node>| {
            CallClass::ALL.map(|class| NodeBreaker {
                node: node.target.name.clone(),
                class,
                seen: node.health.breaker(class, now),
            })
        };
        self.inner.view().nodes.iter().flat_map(of_node).collect()
    }

    /// Closes every connection. What is in flight ends as lost; later calls are refused.
    pub async fn close(&self) {
        self.inner.close();
        self.inner.net.close().await;
    }
}
