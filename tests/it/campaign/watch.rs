//! What clients see while a switch is struck: writes of their own keys, hot keys that all of them use, a counter
//! that is raised with retries, and scans over keys that nobody touches.

use crate::durability::{Ledger, Load, verify};
use crate::harness::{get, one, within};
use crate::linearizability::{Histories, check_all, record_on};
use crate::scan::scan_all;
use ppdb::client::Client;
use ppdb::types::{Class, Op, OpResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Deadline of each request: whatever is struck is back before.
const DEADLINE: Duration = Duration::from_secs(30);
/// Writers of keys of their own, and their rest between two writes.
const WRITERS: (u64, Duration) = (4, Duration::from_millis(4));
/// Rest between two increments.
const COUNT_EVERY: Duration = Duration::from_millis(10);
/// Operations of each of the clients on each hot key.
const HOT_OPS: usize = 20;
/// Keys that last.
pub const LASTING: usize = 300;
/// What they begin with.
pub const LASTING_PREFIX: &str = "lasting:";

/// The clients of one run.
pub struct Watch {
    client: Client,
    name: String,
    over: Arc<AtomicBool>,
    /// Writes of keys of their own.
    pub load: Load,
    hot: JoinHandle<Vec<Histories>>,
    counter: JoinHandle<(i64, u64)>,
    scans: JoinHandle<usize>,
}

impl Watch {
    /// Starts them; `name` keeps their keys apart from those of other runs.
    pub fn start(client: &Client, hot: Vec<Client>, name: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let prefix = format!("hot:{name}");
        let hot = tokio::spawn(async move {
            let over = move |_| ended.load(Ordering::Relaxed);
            let keys = (prefix.as_str(), HOT_OPS);
            record_on(keys, hot, Instant::now(), Duration::from_secs(240), over).await
        });
        Self {
            client: client.clone(),
            name: name.to_owned(),
            load: Load::paced(client, name, DEADLINE, WRITERS),
            hot,
            counter: tokio::spawn(count(client.clone(), name.to_owned(), Arc::clone(&over))),
            scans: tokio::spawn(scan(client.clone(), Arc::clone(&over))),
            over,
        }
    }

    /// Ends them and checks what they saw. Answers what was written, and in how many operations on hot keys.
    pub async fn end(self) -> (Ledger, usize) {
        self.over.store(true, Ordering::Relaxed);
        let ledger = self.load.end().await;
        let (sum, open) = self.counter.await.expect("the counter");
        let scans = self.scans.await.expect("the scans");
        let phases = self.hot.await.expect("the recording");
        let first = ledger.failed.first();
        assert!(first.is_none(), "{} writes failed, such as {first:?}", ledger.failed.len());
        verify(&self.client, &ledger, &within(DEADLINE), &self.name).await;
        let key = format!("count:{}", self.name);
        let read = one(&self.client, get(key), &within(DEADLINE)).await.expect("a read");
        let found: i64 = match read.result {
            OpResult::Value(text) => String::from_utf8_lossy(&text).parse().expect("a number"),
            _ => 0,
        };
        let possible = sum..=sum + open as i64;
        assert!(possible.contains(&found), "the counter is {found}, not in {possible:?}");
        assert!(scans > 0, "no scan came to its end");
        let histories = check_all(phases);
        (ledger, histories.iter().map(|(_, events)| events.len()).sum())
    }
}

/// Raises a counter by one, again and again: how often that was acknowledged, and how often it is not known.
async fn count(client: Client, name: String, over: Arc<AtomicBool>) -> (i64, u64) {
    let (mut sum, mut open) = (0, 0);
    let key = format!("count:{name}");
    while !over.load(Ordering::Relaxed) {
        let op = Op::Incr { key: key.clone().into(), by: 1 };
        match one(&client, op, &within(DEADLINE)).await {
            Ok(answer) => {
                sum += 1;
                let OpResult::Int(found) = answer.result else { panic!("{answer:?}") };
                let possible = sum..=sum + open as i64;
                assert!(possible.contains(&found), "an increment answered {found}: {possible:?}");
            }
            Err(error) if error.class() == Class::Uncertain => open += 1,
            Err(error) => panic!("an increment failed: {error}"),
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
    (sum, open)
}

/// Scans the lasting keys, again and again: each exactly once, in every scan.
async fn scan(client: Client, over: Arc<AtomicBool>) -> usize {
    let mut scans = 0;
    while !over.load(Ordering::Relaxed) {
        let found = scan_all(&client, LASTING_PREFIX, 50, &within(DEADLINE)).await;
        assert_eq!(found, LASTING, "keys in a scan");
        scans += 1;
    }
    scans
}
