//! Digests that entries asked for: computed beside the group from what the table held exactly there, the
//! last few kept for whoever asks. An entry that came to this copy as part of a table, or whose digest was not
//! finished when the process ended, never gets one: whoever asks is told so.

use super::{DigestResult, background};
use crate::faults::{self, Point};
use crate::storage::{DigestReader, Error};
use crate::types::{Code, LogPos};
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Results kept for each group.
const KEPT_MAX: usize = 8;
/// A scan that makes way for clients rests after each slice so many times as long as that took. That it leaves the
/// processor to whoever wakes is not enough: caches, and the other half of a core, are shared all the same.
const REST_TIMES: u32 = 3;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(50);

/// Why there is no digest at an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoDigest {
    /// It was not there in time; it may come.
    Yet,
    /// It will never be there: another one has to be proposed.
    Ever,
}

/// See the module. Clones share the results.
#[derive(Clone, Default)]
pub struct Digests {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    results: VecDeque<(u64, DigestResult)>,
    /// Entries that were applied here and whose results are to come.
    pending: BTreeSet<u64>,
}

impl Digests {
    /// Notes that a result for `index` will come; before the entry shows as applied.
    pub fn expect(&self, index: u64) {
        self.inner.known.lock().pending.insert(index);
    }

    /// What was to come will not: the table was replaced.
    pub fn forget_pending(&self) {
        self.inner.known.lock().pending.clear();
        self.inner.changed.notify_waiters();
    }

    /// Keeps a result; the oldest one goes.
    pub fn put(&self, index: u64, result: DigestResult) {
        let mut known = self.inner.known.lock();
        known.pending.remove(&index);
        let results = &mut known.results;
        results.retain(|(at, _)| *at != index);
        results.push_back((index, result));
        while results.len() > KEPT_MAX {
            results.pop_front();
        }
        self.inner.changed.notify_waiters();
    }

    fn get(&self, index: u64, applied: impl Fn() -> Option<u64>) -> Result<DigestResult, NoDigest> {
        // Looked at first: an entry that shows as applied was expected before.
        let is_applied = applied().is_some_and(|applied| applied >= index);
        let known = self.inner.known.lock();
        match known.results.iter().find(|(at, _)| *at == index) {
            Some((_, result)) => Ok(result.clone()),
            None if is_applied && !known.pending.contains(&index) => Err(NoDigest::Ever),
            None => Err(NoDigest::Yet),
        }
    }

    /// The result for an index, once it is there. `applied` tells the last index applied here.
    pub async fn wait(
        &self,
        index: u64,
        within: Duration,
        applied: impl Fn() -> Option<u64>,
    ) -> Result<DigestResult, NoDigest> {
        let arrives = async {
            loop {
                let changed = self.inner.changed.notified();
                tokio::pin!(changed);
                // Listen first: a result put between look and wait is not missed.
                changed.as_mut().enable();
                match self.get(index, &applied) {
                    Err(NoDigest::Yet) => changed.await,
                    found => return found,
                }
            }
        };
        tokio::time::timeout(within, arrives).await.unwrap_or(Err(NoDigest::Yet))
    }

    /// Scans on a thread of its own what the table holds now, which must be `pos`. Asks `makes_way` all the time
    /// whether it has to make way for others.
    pub fn compute(
        &self,
        pos: LogPos,
        reader: Result<DigestReader, Error>,
        makes_way: impl Fn() -> bool + Send + 'static,
    ) {
        let digests = self.clone();
        let mut began = Instant::now();
        let mut rest = move || {
            if makes_way() {
                std::thread::sleep((began.elapsed() * REST_TIMES).min(REST_MAX));
            }
            began = Instant::now();
        };
        let work = move || {
            let digest = reader.and_then(|reader| {
                faults::pass(Point::DigestScan)?;
                let digest = reader.scan(&mut rest)?;
                faults::pass(Point::DigestDone)?;
                Ok(digest)
            });
            digests.put(pos.index, judge(pos, digest));
        };
        if let Err(error) = background::spawn_idle("digest", work) {
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
        let soon = Duration::from_millis(10);
        assert_eq!(digests.wait(3, soon, || None).await, Err(NoDigest::Yet));
        let waiting = tokio::spawn({
            let digests = digests.clone();
            async move { digests.wait(3, Duration::from_secs(20), || Some(2)).await }
        });
        tokio::task::yield_now().await;
        digests.put(3, Err(Code::Internal));
        assert_eq!(waiting.await.unwrap(), Ok(Err(Code::Internal)));
        for index in 4..4 + KEPT_MAX as u64 {
            digests.put(index, Err(Code::Corrupt));
        }
        assert_eq!(digests.get(3, || Some(20)), Err(NoDigest::Ever));
        assert_eq!(digests.get(4, || Some(20)), Ok(Err(Code::Corrupt)));
    }

    #[tokio::test]
    async fn what_was_applied_without_a_digest_never_gets_one() {
        let digests = Digests::default();
        let (soon, long) = (Duration::from_millis(10), Duration::from_secs(20));
        digests.expect(7);
        assert_eq!(digests.wait(7, soon, || Some(7)).await, Err(NoDigest::Yet), "it is computed");
        assert_eq!(digests.wait(6, long, || Some(7)).await, Err(NoDigest::Ever));
        assert_eq!(
            digests.wait(8, soon, || Some(7)).await,
            Err(NoDigest::Yet),
            "it may be applied"
        );
        let waiting = tokio::spawn({
            let digests = digests.clone();
            async move { digests.wait(7, long, || Some(9)).await }
        });
        tokio::task::yield_now().await;
        digests.forget_pending();
        assert_eq!(waiting.await.unwrap(), Err(NoDigest::Ever), "a table came in its place");
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
