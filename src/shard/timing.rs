//! Where the time of a request went, as far as this node can tell: handed up beside the answer, judged by nobody
//! here.

use crate::raft::Times;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The moments of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Its entry was proposed.
    pub proposed: Instant,
    /// What the group knows of its entry.
    pub entry: Times,
}

/// Where the time of a request went that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Of a write.
    Write(Timing),
    /// Of a read: so much of it on waiting until its copy might answer.
    Read(Duration),
}

/// Time that a read has spent waiting until its copy might answer. A read that need not wait reads no clock.
#[derive(Debug, Default)]
pub struct Waited {
    us: AtomicU64,
}

impl Waited {
    /// Counts the time of something that is waited for.
    pub async fn during<T>(&self, wait: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = wait.await;
        self.us.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        done
    }

    /// All of it.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_waited_for_counts() {
        let waited = Waited::default();
        assert_eq!(waited.total(), Duration::ZERO);
        assert_eq!(waited.during(async { 7 }).await, 7);
        let once = waited.total();
        waited.during(tokio::time::sleep(Duration::from_millis(2))).await;
        assert!(waited.total() >= once + Duration::from_millis(2));
    }
}
