//! The slow log: the last requests that took longer than a threshold, with where their time went, in bounded memory.
//!
//! Whether a request was slow is one relaxed load for each request; only one that was is written down. What may be
//! answered, and how, is not decided here.

use crate::cluster::heard::clock_ms;
use crate::pki::Principal;
use crate::shard::Spent;
use crate::types::{Code, ShardId};
use crate::wire::slowlog::{Phases, SlowKind, SlowRequest};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests kept. The oldest makes room.
pub const REQUESTS_MAX: usize = 128;
/// Bytes of a key that are shown.
pub const KEY_BYTES_MAX: usize = 64;
/// What counts as slow unless told otherwise.
pub const THRESHOLD_DEFAULT: Duration = Duration::from_millis(10);

/// The requests, and what counts as slow.
#[derive(Debug)]
pub struct SlowLog {
    threshold_us: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<SlowRequest>,
    /// Of the newest.
    last: u64,
}

impl Default for SlowLog {
    fn default() -> Self {
        let threshold_us = AtomicU64::new(THRESHOLD_DEFAULT.as_micros() as u64);
        Self { threshold_us, kept: Mutex::default() }
    }
}

impl SlowLog {
    /// From here on what takes so long, or longer, is slow. Zero: everything is.
    pub fn set_threshold(&self, threshold: Duration) {
        self.threshold_us.store(threshold.as_micros() as u64, Ordering::Relaxed);
    }

    /// Whether a request that took so long is kept.
    fn is_slow(&self, took: Duration) -> bool {
        took.as_micros() as u64 >= self.threshold_us.load(Ordering::Relaxed)
    }

    /// A request has been answered, or refused on its way, after that time.
    pub fn note(&self, asked: &Asked, who: &Principal, took: Duration, spent: Result<Spent, Code>) {
        if self.is_slow(took) {
            self.keep(written_down(asked, who, took, spent));
        }
    }

    /// Keeps a request under the next number.
    fn keep(&self, request: SlowRequest) {
        let mut kept = self.kept.lock();
        kept.last += 1;
        let number = kept.last;
        kept.requests.push_back(SlowRequest { number, ..request });
        if kept.requests.len() > REQUESTS_MAX {
            kept.requests.pop_front();
        }
    }

    /// The last ones, newest first.
    pub fn latest(&self, limit: usize) -> Vec<SlowRequest> {
        self.kept.lock().requests.iter().rev().take(limit).cloned().collect()
    }
}

/// A request that is being worked on: what is told of it if it is slow. Made for every request, so it allocates
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What it does.
    pub kind: SlowKind,
    /// Operations in it, or keys of a page.
    pub operations: usize,
    /// Its first key, or the prefix of a scan.
    pub key: KeyHead,
    /// The shard.
    pub shard: ShardId,
    /// When it arrived.
    pub arrived: Instant,
}

#[cold]
fn written_down(
    asked: &Asked,
    who: &Principal,
    took: Duration,
    spent: Result<Spent, Code>,
) -> SlowRequest {
    SlowRequest {
        number: 0,
        at_ms: clock_ms(),
        kind: asked.kind,
        operations: u32::try_from(asked.operations).unwrap_or(u32::MAX),
        key: asked.key.text(),
        by: who.subject.label(),
        shard: asked.shard,
        total_us: took.as_micros() as u64,
        phases: spent.map_or(Phases::Unknown, |spent| phases(asked.arrived, took, spent)),
        code: spent.err(),
    }
}

/// Where the time went. The phases add up to all of it: what is not known counts for the phase before.
fn phases(arrived: Instant, took: Duration, spent: Spent) -> Phases {
    let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
    match spent {
        Spent::Write(timing) => {
            let ended = arrived + took;
            let proposed = timing.proposed.clamp(arrived, ended);
            let committed = timing.entry.committed.unwrap_or(ended).clamp(proposed, ended);
            // A majority of others may be quicker than the own disk, and then nobody waits for that.
            let durable = timing.entry.durable.unwrap_or(committed).clamp(proposed, committed);
            Phases::Write {
                queue_us: us(arrived, proposed),
                wal_us: us(proposed, durable),
                commit_us: us(durable, committed),
                apply_us: us(committed, ended),
            }
        }
        Spent::Read(waited) => {
            let waited = waited.min(took);
            let read = took - waited;
            Phases::Read { wait_us: waited.as_micros() as u64, read_us: read.as_micros() as u64 }
        }
    }
}

/// The beginning of a key, kept beside a request until it is known whether that was slow. Allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct KeyHead {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
}

impl KeyHead {
    /// Of this key.
    pub fn of(key: &[u8]) -> Self {
        let mut bytes = [0; KEY_BYTES_MAX];
        let shown = key.len().min(KEY_BYTES_MAX);
        bytes[..shown].copy_from_slice(&key[..shown]);
        Self { bytes, length: key.len() }
    }

    /// As text: what is not printable ASCII is escaped, and three dots stand for the rest of a long key.
    pub fn text(&self) -> String {
        let shown = &self.bytes[..self.length.min(KEY_BYTES_MAX)];
        let dots = if self.length > KEY_BYTES_MAX { "..." } else { "" };
        format!("{}{dots}", shown.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Subject;
    use crate::raft::Times;
    use crate::shard::Timing;

    fn request(at_ms: u64) -> SlowRequest {
        SlowRequest {
            number: 0,
            at_ms,
            kind: SlowKind::Read,
            operations: 1,
            key: "k".into(),
            by: "user ann".into(),
            shard: ShardId(0),
            total_us: 12_000,
            phases: Phases::Unknown,
            code: None,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn spent(arrived: Instant, durable: Option<u64>, committed: Option<u64>) -> Phases {
        let at = |at: u64| arrived + ms(at);
        let entry = Times { durable: durable.map(at), committed: committed.map(at) };
        let timing = Timing { proposed: at(2), entry };
        phases(arrived, ms(20), Spent::Write(timing))
    }

    #[test]
    fn the_phases_of_a_write_are_the_whole_of_it() {
        let arrived = Instant::now();
        let expected = |wal: u64, commit: u64, apply: u64| Phases::Write {
            queue_us: 2_000,
            wal_us: wal * 1_000,
            commit_us: commit * 1_000,
            apply_us: apply * 1_000,
        };
        assert_eq!(spent(arrived, Some(13), Some(19)), expected(11, 6, 1));
        // Two others were quicker than the own disk.
        assert_eq!(spent(arrived, Some(25), Some(19)), expected(17, 0, 1));
        // Too long ago to be remembered.
        assert_eq!(spent(arrived, None, Some(19)), expected(17, 0, 1));
        assert_eq!(spent(arrived, Some(13), None), expected(11, 7, 0));
        assert_eq!(spent(arrived, None, None), expected(18, 0, 0));
    }

    #[test]
    fn a_read_waits_and_reads() {
        let read = |waited| phases(Instant::now(), ms(20), Spent::Read(ms(waited)));
        assert_eq!(read(15), Phases::Read { wait_us: 15_000, read_us: 5_000 });
        assert_eq!(read(21), Phases::Read { wait_us: 20_000, read_us: 0 });
    }

    #[test]
    fn only_what_was_slow_is_written_down_with_who_asked_and_why_it_failed() {
        let log = SlowLog::default();
        let who = Principal::new("c", Subject::user("ann").unwrap()).unwrap();
        let asked = Asked {
            kind: SlowKind::Read,
            operations: 2,
            key: KeyHead::of(b"cart:42"),
            shard: ShardId(3),
            arrived: Instant::now(),
        };
        log.note(&asked, &who, ms(9), Ok(Spent::Read(ms(0))));
        assert!(log.latest(9).is_empty());
        log.note(&asked, &who, ms(11), Ok(Spent::Read(ms(0))));
        log.note(&asked, &who, ms(12), Err(Code::Unknown));
        let [failed, read] = &log.latest(9)[..] else { panic!("two were slow") };
        assert_eq!((read.by.as_str(), read.key.as_str()), ("user ann", "cart:42"));
        assert_eq!((read.total_us, read.code), (11_000, None));
        assert_eq!((failed.phases, failed.code), (Phases::Unknown, Some(Code::Unknown)));
    }

    #[test]
    fn the_threshold_decides() {
        let log = SlowLog::default();
        assert!(log.is_slow(THRESHOLD_DEFAULT));
        assert!(!log.is_slow(THRESHOLD_DEFAULT - Duration::from_micros(1)));
        log.set_threshold(Duration::from_secs(60));
        assert!(!log.is_slow(Duration::from_secs(59)));
        log.set_threshold(Duration::ZERO);
        assert!(log.is_slow(Duration::ZERO), "everything");
    }

    #[test]
    fn the_last_ones_are_kept_newest_first() {
        let log = SlowLog::default();
        (0..REQUESTS_MAX as u64 + 5).for_each(|at_ms| log.keep(request(at_ms)));
        let all = log.latest(usize::MAX);
        assert_eq!(all.len(), REQUESTS_MAX);
        assert_eq!((all[0].number, all[0].at_ms), (133, 132));
        assert_eq!(all[REQUESTS_MAX - 1].number, 6);
        assert_eq!(log.latest(2).len(), 2);
    }

    #[test]
    fn a_key_is_printable_and_short() {
        assert_eq!(KeyHead::of(b"cart:42").text(), "cart:42");
        assert_eq!(KeyHead::of(b"a\n\xff\x1b").text(), "a\\n\\xff\\x1b");
        assert_eq!(KeyHead::of(b"").text(), "");
        assert_eq!(KeyHead::of(&[b'k'; KEY_BYTES_MAX]).text(), "k".repeat(KEY_BYTES_MAX));
        let long = KeyHead::of(&[b'k'; KEY_BYTES_MAX + 1]).text();
        assert_eq!(long, "k".repeat(KEY_BYTES_MAX) + "...");
    }
}
