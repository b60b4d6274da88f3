//! Real clusters for tests: certificates by `ppdb cert`, nodes by `ppdb serve`, formed by
//! `ppdb cluster init`, each on loopback addresses and ports of its own.
//!
//! A cluster ends with its value: every process is killed, stopped ones too, and the folder is removed.
//! If the test failed, the last lines of each node's log are printed first.

mod certs;
mod cluster;
mod net;
mod node;
mod program;
mod shell;
mod strategy;
mod terminal;

pub use certs::Certs;
pub use cluster::{Cluster, Shape, info, turn};
pub use net::free_demo_offset;
pub use node::{Node, Wrap};
pub use program::{Ran, command, drain, ppdb, ppdb_within, program, wait};
pub use shell::Shell;
pub use strategy::show;
pub use terminal::Terminal;

use ppdb::client::{CallOptions, Client, OpAnswer};
use ppdb::types::{Op, Result};
use std::time::{Duration, Instant};

/// Call options with a timeout.
pub fn within(timeout: Duration) -> CallOptions {
    CallOptions { timeout, ..CallOptions::default() }
}

/// Carries out a single operation.
pub async fn one(client: &Client, op: Op, options: &CallOptions) -> Result<OpAnswer> {
    client.call(vec![op], options).await.pop().expect("one answer for one operation")
}

/// A plain `set`.
pub fn set(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Op {
    Op::Set {
        key: key.into().into(),
        value: value.into().into(),
        condition: Default::default(),
        expiry: Default::default(),
    }
}

/// A `get`.
pub fn get(key: impl Into<Vec<u8>>) -> Op {
    Op::Get { key: key.into().into() }
}

/// Anonymous memory of a process, in KiB; none once it is gone.
pub fn anonymous_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Asks until `ready` says yes; fails with `what` and the last answer after `timeout`.
pub async fn wait_until<T: std::fmt::Debug>(
    what: &str,
    timeout: Duration,
    mut ask: impl AsyncFnMut() -> T,
    ready: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + timeout;
    loop {
        let answer = ask().await;
        if ready(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "no {what} within {} s: {answer:?}", timeout.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
