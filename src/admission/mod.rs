//! Admission: may this request start now?
//!
//! A budget of requests and of bytes for each node. It does not queue, retry or know what a shard is:
//! what does not fit is refused at once, with a hint when to come back.

use crate::types::{Code, Error, Result, limits};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Budget of a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Requests worked on at a time.
    pub concurrent_max: usize,
    /// Bytes of the requests worked on at a time.
    pub bytes_max: usize,
    /// When a refused client should come back, in milliseconds.
    pub retry_after_ms: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrent_max: limits::CONCURRENT_REQUESTS_MAX,
            bytes_max: 256 << 20,
            retry_after_ms: 20,
        }
    }
}

/// The budget; clones share it.
#[derive(Clone)]
pub struct Budget {
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    options: Arc<Options>,
}

/// The part of the budget a request holds until its reply is queued.
pub struct Permit {
    _request: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(options: Options) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(options.concurrent_max)),
            bytes: Arc::new(Semaphore::new(options.bytes_max)),
            options: Arc::new(options),
        }
    }

    /// The larger share of the two budgets that is taken, in percent.
    pub fn used_percent(&self) -> u32 {
        let used = |left: usize, all: usize| (all - left.min(all)) * 100 / all.max(1);
        let requests = used(self.requests.available_permits(), self.options.concurrent_max);
        let bytes = used(self.bytes.available_permits(), self.options.bytes_max);
        requests.max(bytes) as u32
    }

    /// Takes room for a request of that many bytes, or refuses at once (`Overloaded`).
    pub fn admit(&self, bytes: usize) -> Result<Permit> {
        let request = self.requests.clone().try_acquire_owned();
        let room = self.bytes.clone().try_acquire_many_owned(bytes as u32);
        match (request, room) {
            (Ok(request), Ok(bytes)) => Ok(Permit { _request: request, _bytes: bytes }),
            _ => Err(Error::new(
                Code::Overloaded,
                format!(
                    "this node works on at most {} requests of {} bytes at a time",
                    self.options.concurrent_max, self.options.bytes_max
                ),
            )
            .retry_after(self.options.retry_after_ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_room_comes_back() {
        let budget = Budget::new(Options { concurrent_max: 2, bytes_max: 100, retry_after_ms: 7 });
        let first = budget.admit(60).unwrap();
        let refused = budget.admit(60).err().unwrap();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::Overloaded, Some(7)));
        assert_eq!(budget.used_percent(), 60);
        let second = budget.admit(40).unwrap();
        assert_eq!(budget.used_percent(), 100);
        assert!(budget.admit(0).is_err());
        drop(first);
        assert!(budget.admit(60).is_ok());
        drop(second);
    }
}
