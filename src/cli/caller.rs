//! What the doors need of a cluster: one command to a node, operations on keys, pages of them, the map.
//!
//! The real thing is the client; tests put a twin in its place (`testing`), so that orders, waiting and
//! scripts are tried without a node.

use crate::client::{CallOptions, Client, NodeBreaker, OpAnswer, Page, ScanOptions};
use crate::types::{Code, Error, NodeName, Op, Result};
use crate::wire::client::Map;
use crate::wire::command::{Answer, Command};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Carries out what a door asks for.
pub trait Caller: Send + Sync + 'static {
    /// Sends a command to a node (any, if none is named); says who answered. Never sent twice.
    fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Answer, NodeName)>> + Send;

    /// Carries out operations on keys; one result for each, in order.
    fn call(
        &self,
        ops: Vec<Op>,
        options: &CallOptions,
    ) -> impl Future<Output = Vec<Result<OpAnswer>>> + Send;

    /// A page of keys.
    fn scan(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// The map as it is now.
    fn map(&self) -> impl Future<Output = Result<Arc<Map>>> + Send;

    /// What became of its own calls to nodes, where that is counted.
    fn breakers(&self) -> Vec<NodeBreaker> {
        Vec::new()
    }
}

impl Caller for Client {
    fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(Answer, NodeName)>> + Send {
        Client::command(self, command, node, timeout)
    }

    fn call(
        &self,
        ops: Vec<Op>,
        options: &CallOptions,
    ) -> impl Future<Output = Vec<Result<OpAnswer>>> + Send {
        Client::call(self, ops, options)
    }

    fn scan(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
    ) -> impl Future<Output = Result<Page>> + Send {
        Client::scan(self, scan, options)
    }

    fn map(&self) -> impl Future<Output = Result<Arc<Map>>> + Send {
        self.refresh()
    }

    fn breakers(&self) -> Vec<NodeBreaker> {
        Client::breakers(self)
    }
}

/// A node answered something that was not asked.
pub fn other_answer() -> Error {
    Error::new(Code::Internal, "the node answered another question")
}
