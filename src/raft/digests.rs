//! Digests that entries asked for: computed beside the group from what the table held exactly there, the
//! last few kept for whoever asks.

use super::DigestResult;
use crate::faults::{self, Point};
use crate::storage::{DigestReader, Error};
use crate::types::{Code, LogPos};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Results kept for each group.
const KEPT_MAX: usize = 8;
/// Pause after each slice of a scan, so that it takes a part of one core and not all of it.
const PAUSE: Duration = Duration::from_millis(1);

/// See the module. Clones share the results.
#[derive(Clone, Default)]
pub struct Digests {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    results: Mutex<VecDeque<(u64, DigestResult)>>,
    changed: Notify,
}

impl Digests {
    /// Keeps a result; the oldest one goes.
    pub fn put(&self, index: u64, result: DigestResult) {
        let mut results = self.inner.results.lock();
        results.retain(|(at, _)| *at != index);
        results.push_back((index, result));
        while results.len() > KEPT_MAX {
            results.pop_front();
        }
        self.inner.changed.notify_waiters();
    }

    fn get(&self, index: u64) -> Option<DigestResult> {
        self.inner.results.lock().iter().find(|(at, _)| *at == index).map(|(_, r)| r.clone())
    }

    /// The result for an index, once it is there.
    pub async fn wait(&self, index: u64, within: Duration) -> Option<DigestResult> {
        let arrives = async {
            loop {
                let changed = self.inner.changed.notified();
                tokio::pin!(changed);
                // Listen first: a result put between look and wait is not missed.
                changed.as_mut().enable();
                if let Some(result) = self.get(index) {
                    return result;
                }
                changed.await;
            }
        };
        tokio::time::timeout(within, arrives).await.ok()
    }

    /// Scans on a thread of its own what the table holds now, which must be `pos`.
    pub fn compute(&self, pos: LogPos, reader: Result<DigestReader, Error>) {
        let digests = self.clone();
        let work = move || {
            let digest = reader.and_then(|reader| {
                faults::pass(Point::DigestScan)?;
                let digest = reader.scan(&mut || std::thread::sleep(PAUSE))?;
                faults::pass(Point::DigestDone)?;
                Ok(digest)
            });
            digests.put(pos.index, judge(pos, digest));
        };
        let thread = std::thread::Builder::new().name("digest".into()).spawn(work);
        if let Err(error) = thread {
            tracing::warn!(%error, "no thread for a digest");
            self.put(pos.index, Err(Code::Overloaded));
        }
    }
}

fn judge(pos: LogPos, digest: Result<crate::storage::Digest, Error>) -> DigestResult {
    match digest {
        Ok(digest) if digest.pos == Some(pos) => Ok(digest),
        // The table was read somewhere else: no statement about `pos`.
        Ok(_) => Err(Code::Internal),
        Err(Error::Corrupt { what, detail }) => {
            tracing::error!(what, detail, "a digest met a damaged record");
            Err(Code::Corrupt)
        }
        Err(error) => {
            tracing::error!(%error, "a digest failed");
            Err(Code::Internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Digest;

    #[tokio::test]
    async fn results_arrive_and_only_the_last_are_kept() {
        let digests = Digests::default();
        assert_eq!(digests.wait(3, Duration::from_millis(10)).await, None);
        let waiting = tokio::spawn({
            let digests = digests.clone();
            async move { digests.wait(3, Duration::from_secs(20)).await }
        });
        tokio::task::yield_now().await;
        digests.put(3, Err(Code::Internal));
        assert_eq!(waiting.await.unwrap(), Some(Err(Code::Internal)));
        for index in 4..4 + KEPT_MAX as u64 {
            digests.put(index, Err(Code::Corrupt));
        }
        assert_eq!(digests.get(3), None);
        assert_eq!(digests.get(4), Some(Err(Code::Corrupt)));
    }

    #[test]
    fn a_digest_of_another_position_is_no_digest() {
        let at = |index| LogPos { term: 1, leader: 1, index };
        let digest = Digest { pos: Some(at(5)), keys: 0, sha256: [0; 32] };
        assert_eq!(judge(at(5), Ok(digest.clone())), Ok(digest.clone()));
        assert_eq!(judge(at(6), Ok(digest)), Err(Code::Internal));
        let corrupt = Error::Corrupt { what: "record".into(), detail: "x".into() };
        assert_eq!(judge(at(5), Err(corrupt)), Err(Code::Corrupt));
    }
}
