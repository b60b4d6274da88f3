//! What waits for a place in the log, and which of it goes into the next entry.
//!
//! A bounded queue as plain code: `now` is an argument, nothing is proposed here. A request leaves the
//! queue exactly once: taken for an entry, expired, or cancelled by its caller. Only what was taken can
//! have had an effect.

use super::Error;
use super::entry::{Item, Reply};
use super::timing::Timing;
use crate::types::{self, Code, LogPos, SessionSeq, limits};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes that wait for one shard's batcher; more are refused (`Overloaded`).
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// What a waiting request costs beside its operations.
const REQUEST_BYTES: usize = 128;
/// How long an entry waits for more requests, counted from the answers to the one before. Where entries take less it
/// does not wait at all.
const LINGER: Duration = Duration::from_millis(1);
/// Bounds of the hint when to come back, in milliseconds.
const RETRY_AFTER_MS: (u64, u64) = (10, 1_000);

/// What is to become an item of an entry; owns what `Item` borrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Operations, encoded, with their number.
    Ops {
        /// Applies at most once under this name.
        dedup: Option<SessionSeq>,
        /// `encode_ops`.
        ops: Bytes,
        /// How many there are.
        count: usize,
    },
    /// Opens a session.
    Open,
    /// Moves shard time on.
    Tick,
    /// Asks every copy for its digest.
    Digest,
    /// Refuses orders of a lower one from here on.
    Fence {
        /// Number of the operation.
        operation: u64,
        /// The step at which its direction was chosen last.
        turn: u64,
    },
}

impl Request {
    /// The item of an entry.
    pub fn item(&self) -> Item<'_> {
        match self {
            Request::Ops { dedup, ops, .. } => Item::Ops { dedup: *dedup, ops },
            Request::Open => Item::Open,
            Request::Tick => Item::Tick,
            Request::Digest => Item::Digest,
            Request::Fence { operation, turn } => {
                Item::Fence { operation: *operation, turn: *turn }
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Request::Ops { count, .. } => *count,
            Request::Open | Request::Tick | Request::Digest | Request::Fence { .. } => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Request::Ops { ops, .. } => ops.len(),
            Request::Open | Request::Tick | Request::Digest | Request::Fence { .. } => 0,
        }
    }
}

/// Where an item was applied, what it answered, and where its time went.
pub type Outcome = Result<(LogPos, Reply, Timing), Error>;

/// A request and who waits for it.
#[derive(Debug)]
pub struct Waiting {
    /// What is asked.
    pub request: Request,
    /// After this nothing is proposed any more.
    pub deadline: Instant,
    /// Where the outcome goes; nobody may be listening.
    pub reply: oneshot::Sender<Outcome>,
}

/// Bounds of a queue and of an entry.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests waiting.
    pub requests_max: usize,
    /// Bytes waiting.
    pub bytes_max: usize,
    /// Operations in an entry; the first request goes in whatever it has.
    pub entry_ops_max: usize,
    /// Bytes of operations in an entry; the same.
    pub entry_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: limits::SHARD_QUEUE_MAX,
            bytes_max: QUEUE_BYTES_MAX,
            entry_ops_max: limits::ENTRY_OPS_MAX,
            entry_bytes_max: limits::ENTRY_BYTES_MAX,
        }
    }
}

/// Requests in the order they came.
#[derive(Debug, Default)]
pub struct Queue {
    limits: Limits,
    waiting: BTreeMap<u64, Waiting>,
    next_id: u64,
    count: usize,
    bytes: usize,
    /// How long an entry takes from proposal to answer; for the hint when to come back.
    entry_time: Duration,
    /// Requests in the last entry and those that waited when it was answered.
    company: usize,
    /// When that was.
    answered_at: Option<Instant>,
}

impl Queue {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Lets a request wait; returns a name to cancel it by. A full queue refuses at once.
    pub fn push(&mut self, waiting: Waiting) -> Result<u64, Error> {
        let bytes = REQUEST_BYTES + waiting.request.bytes();
        let is_full = self.waiting.len() >= self.limits.requests_max
            || self.bytes.saturating_add(bytes) > self.limits.bytes_max;
        if is_full {
            return Err(self.overloaded());
        }
        let id = self.next_id;
        self.next_id += 1;
        self.count += waiting.request.count();
        self.bytes += bytes;
        self.waiting.insert(id, waiting);
        Ok(id)
    }

    /// Whether the next entry would be as large as one may be.
    pub fn fills_an_entry(&self) -> bool {
        let bytes = self.bytes - self.waiting.len() * REQUEST_BYTES;
        self.count >= self.limits.entry_ops_max || bytes >= self.limits.entry_bytes_max
    }

    /// Takes a request back: true if it was still waiting, so that it has no effect, ever.
    pub fn cancel(&mut self, id: u64) -> bool {
        self.remove(id).is_some()
    }

    /// The requests of the next entry; those whose deadline has passed are told so and go nowhere.
    pub fn take(&mut self, now: Instant) -> Vec<Waiting> {
        let mut taken: Vec<Waiting> = Vec::new();
        let (mut count, mut bytes, mut opens) = (0, 0, false);
        while let Some((&id, next)) = self.waiting.first_key_value() {
            if next.deadline <= now {
                if let Some(expired) = self.remove(id) {
                    // Nobody listening is as good as told.
                    let _ = expired.reply.send(Err(deadline_exceeded()));
                }
                continue;
            }
            let request = &next.request;
            let is_open = *request == Request::Open;
            let fits = count + request.count() <= self.limits.entry_ops_max
                && bytes + request.bytes() <= self.limits.entry_bytes_max
                && !(is_open && opens);
            if !fits && !taken.is_empty() {
                break;
            }
            count += request.count();
            bytes += request.bytes();
            opens |= is_open;
            taken.extend(self.remove(id));
        }
        taken
    }

    /// Notes that an entry with so many requests was answered after that time.
    pub fn note_entry(&mut self, requests: usize, took: Duration, now: Instant) {
        self.entry_time = took;
        self.company = requests + self.waiting.len();
        self.answered_at = Some(now);
    }

    /// Whether somebody has to be told of the request that was just pushed.
    pub fn calls(&self) -> bool {
        self.waiting.len() == 1 || self.waiting.len() == self.company || self.fills_an_entry()
    }

    /// Until when the next entry waits for more, if it does: whoever was just answered tends to come back at
    /// once, and an entry for all of them costs little more than one for the first. Only where entries take
    /// long anyway.
    pub fn lingers_until(&self, now: Instant) -> Option<Instant> {
        let complete = self.waiting.len() >= self.company || self.fills_an_entry();
        if self.waiting.is_empty() || complete || self.entry_time < LINGER {
            return None;
        }
        let until = self.answered_at? + LINGER;
        (until > now).then_some(until)
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.count -= waiting.request.count();
        self.bytes -= REQUEST_BYTES + waiting.request.bytes();
        Some(waiting)
    }

    fn overloaded(&self) -> Error {
        let message = format!(
            "{} requests with {} bytes wait for this shard; the limits are {} and {}",
            self.waiting.len(),
            self.bytes,
            self.limits.requests_max,
            self.limits.bytes_max
        );
        let by_ops = self.count / self.limits.entry_ops_max.max(1);
        let by_bytes = self.bytes / self.limits.entry_bytes_max.max(1);
        let retry_after_ms = retry_after_ms(by_ops.max(by_bytes) + 1, self.entry_time);
        types::Error::new(Code::Overloaded, message).retry_after(retry_after_ms).into()
    }
}

/// When half of the entries that wait should be through.
fn retry_after_ms(entries: usize, entry_time: Duration) -> u32 {
    let half_ms = (entry_time.as_millis() as u64).saturating_mul(entries as u64) / 2;
    half_ms.clamp(RETRY_AFTER_MS.0, RETRY_AFTER_MS.1) as u32
}

/// Nothing was proposed.
pub fn deadline_exceeded() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed before the write was proposed")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_secs(60);

    struct Test {
        queue: Queue,
        now: Instant,
    }

    impl Test {
        fn new() -> Self {
            let limits = Limits {
                requests_max: 6,
                bytes_max: 3_000,
                entry_ops_max: 4,
                entry_bytes_max: 100,
            };
            Self { queue: Queue::new(limits), now: Instant::now() }
        }

        fn push_at(
            &mut self,
            request: Request,
            deadline: Duration,
        ) -> (Result<u64, Error>, oneshot::Receiver<Outcome>) {
            let (reply, outcome) = oneshot::channel();
            let deadline = self.now + deadline;
            (self.queue.push(Waiting { request, deadline, reply }), outcome)
        }

        fn push(&mut self, request: Request) -> Result<u64, Error> {
            self.push_at(request, FAR).0
        }

        fn take(&mut self) -> Vec<Request> {
            self.queue.take(self.now).into_iter().map(|waiting| waiting.request).collect()
        }
    }

    fn ops(count: usize, bytes: usize) -> Request {
        Request::Ops { dedup: None, ops: vec![count as u8; bytes].into(), count }
    }

    #[test]
    fn an_entry_takes_everything_that_fits_in_order() {
        let mut test = Test::new();
        let all = [ops(2, 10), Request::Tick, Request::Digest, ops(1, 10)];
        for request in &all {
            test.push(request.clone()).unwrap();
        }
        // Four operations fill an entry.
        let [first, second] = [test.take(), test.take()];
        assert_eq!(first, [ops(2, 10), Request::Tick, Request::Digest]);
        assert_eq!(second, [ops(1, 10)]);
        assert!(test.take().is_empty());
    }

    #[test]
    fn bytes_end_an_entry_and_a_large_request_has_its_own() {
        let mut test = Test::new();
        for request in [ops(1, 60), ops(1, 41), ops(1, 500), ops(9, 1), ops(1, 1)] {
            test.push(request).unwrap();
        }
        assert_eq!(test.take(), [ops(1, 60)]);
        assert_eq!(test.take(), [ops(1, 41)]);
        assert_eq!(test.take(), [ops(1, 500)]);
        assert_eq!(test.take(), [ops(9, 1)]);
        assert_eq!(test.take(), [ops(1, 1)]);
    }

    #[test]
    fn an_entry_opens_one_session() {
        let mut test = Test::new();
        for request in [ops(1, 1), Request::Open, Request::Open, ops(1, 2)] {
            test.push(request).unwrap();
        }
        assert_eq!(test.take(), [ops(1, 1), Request::Open]);
        assert_eq!(test.take(), [Request::Open, ops(1, 2)]);
    }

    #[test]
    fn a_full_queue_refuses_by_count_and_by_bytes() {
        let mut test = Test::new();
        for _ in 0..6 {
            test.push(ops(1, 1)).unwrap();
        }
        let Err(Error::Public(error)) = test.push(ops(1, 1)) else { panic!("a seventh request") };
        assert_eq!((error.code, error.retry_after_ms), (Code::Overloaded, Some(10)));
        assert_eq!(test.take().len(), 4);
        test.push(ops(1, 1)).unwrap();

        let mut test = Test::new();
        test.push(ops(1, 2_500)).unwrap();
        assert!(test.push(ops(1, 300)).is_err());
        test.push(ops(1, 100)).unwrap();
        // What was refused or taken is no longer counted.
        assert_eq!(test.take().len() + test.take().len(), 2);
        assert_eq!((test.queue.bytes, test.queue.count), (0, 0));
    }

    #[test]
    fn the_hint_grows_with_what_waits() {
        let ms = Duration::from_millis;
        assert_eq!(retry_after_ms(1, ms(1)), 10);
        assert_eq!(retry_after_ms(16, ms(20)), 160);
        assert_eq!(retry_after_ms(1_000, ms(20)), 1_000);
    }

    #[test]
    fn a_slow_entry_is_waited_with_until_everybody_is_back() {
        let ms = Duration::from_millis;
        let mut test = Test::new();
        let idle = |test: &Test| test.queue.lingers_until(test.now);
        test.push(ops(1, 1)).unwrap();
        assert_eq!(idle(&test), None, "nothing is known of others");

        // Two were answered and one waits: three may be there soon.
        test.queue.note_entry(2, ms(3), test.now);
        assert_eq!(idle(&test), Some(test.now + LINGER));
        test.push(ops(1, 1)).unwrap();
        assert!(idle(&test).is_some() && !test.queue.calls());
        test.push(ops(1, 1)).unwrap();
        assert_eq!(idle(&test), None, "all are back");
        assert!(test.queue.calls(), "and whoever waits for them is told");

        // Time is up.
        test.queue.note_entry(3, ms(3), test.now);
        assert!(idle(&test).is_some());
        test.now += LINGER;
        assert_eq!(idle(&test), None);

        // A quick log is not worth waiting for.
        test.queue.note_entry(3, LINGER - Duration::from_micros(1), test.now);
        assert_eq!(idle(&test), None);
        test.queue.note_entry(3, LINGER, test.now);
        assert_eq!(idle(&test), Some(test.now + LINGER));

        // Nobody waits: the first to come calls.
        test.take();
        test.queue.note_entry(3, ms(3), test.now);
        assert_eq!(idle(&test), None);
        test.push(ops(1, 1)).unwrap();
        assert!(test.queue.calls());
    }

    #[test]
    fn an_expired_request_is_told_and_never_taken() {
        let mut test = Test::new();
        let (_, mut outcome) = test.push_at(ops(1, 1), Duration::from_millis(5));
        test.push(ops(1, 2)).unwrap();
        test.now += Duration::from_millis(5);
        assert_eq!(test.take(), [ops(1, 2)]);
        assert_eq!(outcome.try_recv().unwrap(), Err(deadline_exceeded()));
    }

    #[test]
    fn a_request_can_be_cancelled_only_while_it_waits() {
        let mut test = Test::new();
        let first = test.push(ops(1, 1)).unwrap();
        let second = test.push(ops(1, 2)).unwrap();
        assert!(test.queue.cancel(first));
        assert!(!test.queue.cancel(first));
        assert_eq!(test.take(), [ops(1, 2)]);
        assert!(!test.queue.cancel(second));
        assert_eq!((test.queue.bytes, test.queue.count), (0, 0));
    }
}
