//! Watches: what somebody who runs `monitor` is told of the operations of this node.
//!
//! With nobody watching, an operation costs one relaxed load. With watches, one of so many operations is sampled, those
//! that are wanted wait in a queue of each watch until they are asked for, and for what does not fit there is a count and
//! no wait. A watch for which nobody asks is forgotten.
//!
//! No value is looked at. Who may watch is not decided here.

mod glob;
mod sampler;

use crate::cluster::heard::clock_ms;
use crate::pki::Principal;
use crate::types::{Code, Error, Op, OpResult, Result, ShardId};
use crate::wire::client::{KvReply, decode_results};
use crate::wire::monitor::{
    MonitorEvent, MonitorPage, MonitorQuestion, ONE_IN_MAX, OpKind, Outcome, PATTERN_BYTES_MAX,
    Wish,
};
use bytes::Bytes;
use glob::matches;
use parking_lot::{Mutex, RwLock};
use sampler::{draw, pass};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Watches of a node; more are refused.
pub const WATCHES_MAX: usize = 4;
/// Operations that wait in a watch to be asked for; what comes then is dropped, and counted.
pub const QUEUE_MAX: usize = 1_024;
/// A watch is forgotten if nobody asks for so long.
pub const LEASE: Duration = Duration::from_secs(5);
/// Bytes of a key that are shown.
pub const KEY_BYTES_MAX: usize = 128;

/// The watches of a node.
#[derive(Debug)]
pub struct Monitor {
    /// The finest sample that is wanted; 0 if nobody watches.
    one_in: AtomicU32,
    watches: RwLock<Vec<Arc<Watch>>>,
    /// Time that was spent on all of them.
    spent_ns: AtomicU64,
    started: Instant,
}

#[derive(Debug)]
struct Watch {
    id: u64,
    began_us: u64,
    wish: Wish,
    /// When it was asked last, in milliseconds since the start.
    asked_ms: AtomicU64,
    sampled: AtomicU64,
    dropped: AtomicU64,
    /// What is wanted is dropped before it is copied.
    is_full: AtomicBool,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<MonitorEvent>,
    /// Of the newest.
    last: u64,
}

impl Default for Monitor {
    fn default() -> Self {
        let (one_in, spent_ns) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { one_in, watches: RwLock::default(), spent_ns, started: Instant::now() }
    }
}

impl Monitor {
    /// Operations of a request, before they are carried out: those that somebody wants to hear of.
    pub fn pick(&self, shard: ShardId, ops: &[Op]) -> Option<Picked> {
        match self.one_in.load(Ordering::Relaxed) {
            0 => None,
            one_in => {
                self.look(one_in, shard, ops.len(), |at| (OpKind::of(&ops[at]), ops[at].key()))
            }
        }
    }

    /// The same for a page of keys.
    pub fn pick_scan(&self, shard: ShardId, prefix: &Bytes) -> Option<Picked> {
        match self.one_in.load(Ordering::Relaxed) {
            0 => None,
            one_in => self.look(one_in, shard, 1, |_| (OpKind::Scan, prefix)),
        }
    }

    #[inline(never)]
    fn look<'a>(
        &self,
        one_in: u32,
        shard: ShardId,
        count: usize,
        of: impl Fn(usize) -> (OpKind, &'a Bytes),
    ) -> Option<Picked> {
        let mut at = pass(one_in, count)?;
        let began = Instant::now();
        let now_ms = self.since_start_ms(began);
        let mut picked = Picked { shard, count, wanted: Vec::new() };
        let mut is_over = false;
        {
            let watches = self.watches.read();
            is_over |= watches.iter().any(|watch| watch.is_over(now_ms));
            loop {
                let (kind, key) = of(at);
                for watch in watches.iter().filter(|watch| watch.samples(one_in)) {
                    if let Some(op) = watch.wants(at, kind, key) {
                        picked.wanted.push((watch.clone(), op));
                    }
                }
                match pass(one_in, count - at - 1) {
                    Some(skipped) => at += 1 + skipped,
                    None => break,
                }
            }
        }
        if is_over {
            self.change(|watches| watches.retain(|watch| !watch.is_over(now_ms)));
        }
        self.spent(began);
        (!picked.wanted.is_empty()).then_some(picked)
    }

    /// What was picked has been answered, or refused on its way.
    pub fn note(&self, picked: Picked, by: &Principal, took: Duration, done: &Result<KvReply>) {
        let began = Instant::now();
        let results = match done {
            Ok(reply) => decode_results(&reply.results).map_err(|error| error.code),
            Err(error) => Err(error.code),
        };
        self.tell(picked, by, (took, began), |at| match &results {
            Ok(results) => results.get(at).map_or(Outcome::Ok, outcome),
            Err(code) => Outcome::Failed(*code),
        });
    }

    /// The same for a page of keys.
    pub fn note_scan(&self, picked: Picked, by: &Principal, took: Duration, code: Option<Code>) {
        self.tell(picked, by, (took, Instant::now()), |_| {
            code.map_or(Outcome::Ok, Outcome::Failed)
        });
    }

    /// `began` is since when time is spent on telling.
    fn tell(
        &self,
        picked: Picked,
        by: &Principal,
        (took, began): (Duration, Instant),
        of: impl Fn(usize) -> Outcome,
    ) {
        let (at_ms, by) = (clock_ms(), by.subject.label());
        for (watch, op) in picked.wanted {
            watch.keep(MonitorEvent {
                sequence: 0,
                at_ms,
                by: by.clone(),
                kind: op.kind,
                key: op.key,
                key_bytes: op.key_bytes,
                shard: picked.shard,
                operations: u32::try_from(picked.count).unwrap_or(u32::MAX),
                outcome: of(op.at),
                took_us: took.as_micros() as u64,
            });
        }
        self.spent(began);
    }

    /// Answers a question, and begins the watch if it is the first one. `Overloaded` if there are too many.
    pub fn answer(&self, question: &MonitorQuestion, now: Instant) -> Result<MonitorPage> {
        check(&question.wish)?;
        let now_ms = self.since_start_ms(now);
        let known = || self.watches.read().iter().find(|watch| watch.id == question.watch).cloned();
        let watch = match known().filter(|watch| !watch.is_over(now_ms)) {
            Some(watch) => watch,
            None => self.begin(question, now_ms)?,
        };
        watch.asked_ms.store(now_ms, Ordering::Relaxed);
        if question.is_last {
            self.change(|watches| watches.retain(|watch| watch.id != question.watch));
        }
        let began = Instant::now();
        let (events, matched, dropped) = watch.after(question.after);
        self.spent(began);
        Ok(MonitorPage {
            began_us: watch.began_us,
            events,
            sampled: watch.sampled.load(Ordering::Relaxed),
            matched,
            dropped,
            spent_us: self.spent_ns.load(Ordering::Relaxed) / 1_000,
        })
    }

    fn begin(&self, question: &MonitorQuestion, now_ms: u64) -> Result<Arc<Watch>> {
        let watch = Arc::new(Watch::new(question, now_ms));
        let has_begun = self.change(|watches| {
            watches.retain(|other| !other.is_over(now_ms) && other.id != watch.id);
            let has_room = watches.len() < WATCHES_MAX;
            if has_room {
                watches.push(watch.clone());
            }
            has_room
        });
        match has_begun {
            true => Ok(watch),
            false => {
                let message = format!("{WATCHES_MAX} others watch this node, and it takes no more");
                Err(Error::new(Code::Overloaded, message).retry_after(LEASE.as_millis() as u32))
            }
        }
    }

    /// Changes the watches, and with them what is sampled.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Arc<Watch>>) -> T) -> T {
        let mut watches = self.watches.write();
        let changed = change(&mut watches);
        let finest = watches.iter().map(|watch| watch.wish.one_in).min();
        self.one_in.store(finest.unwrap_or(0), Ordering::Relaxed);
        changed
    }

    fn since_start_ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    fn spent(&self, began: Instant) {
        self.spent_ns.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Watch {
    fn new(question: &MonitorQuestion, now_ms: u64) -> Self {
        let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            id: question.watch,
            began_us: since_1970.as_micros() as u64,
            wish: question.wish.clone(),
            asked_ms: AtomicU64::new(now_ms),
            sampled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            queue: Mutex::default(),
        }
    }

    fn is_over(&self, now_ms: u64) -> bool {
        let asked_ms = self.asked_ms.load(Ordering::Relaxed);
        now_ms.saturating_sub(asked_ms) > LEASE.as_millis() as u64
    }

    /// Whether an operation that is in the sample of one in so many is in that of this watch, too.
    fn samples(&self, one_in: u32) -> bool {
        let is_sampled = self.wish.one_in <= one_in || draw(self.wish.one_in) < one_in;
        if is_sampled {
            self.sampled.fetch_add(1, Ordering::Relaxed);
        }
        is_sampled
    }

    /// What is to be told of an operation, if it is wanted and there is room for it.
    fn wants(&self, at: usize, kind: OpKind, key: &Bytes) -> Option<PickedOp> {
        let kinds = &self.wish.kinds;
        let is_wanted = (kinds.is_empty() || kinds.contains(&kind))
            && self.wish.pattern.as_ref().is_none_or(|pattern| matches(pattern, key));
        if !is_wanted {
            return None;
        }
        if self.is_full.load(Ordering::Relaxed) {
            self.drop_one();
            return None;
        }
        // Copied: a slice of the request would keep all of it in memory.
        let shown = Bytes::copy_from_slice(&key[..key.len().min(KEY_BYTES_MAX)]);
        Some(PickedOp { at, kind, key: shown, key_bytes: key.len() as u32 })
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn keep(&self, event: MonitorEvent) {
        let mut queue = self.queue.lock();
        if queue.events.len() >= QUEUE_MAX {
            self.is_full.store(true, Ordering::Relaxed);
            return self.drop_one();
        }
        queue.last += 1;
        let sequence = queue.last;
        queue.events.push_back(MonitorEvent { sequence, ..event });
    }

    /// Lets go of what has arrived, and answers the rest, with how many there were in all: those that were wanted, and of
    /// them those that were dropped.
    fn after(&self, sequence: u64) -> (Vec<MonitorEvent>, u64, u64) {
        let mut queue = self.queue.lock();
        while queue.events.front().is_some_and(|event| event.sequence <= sequence) {
            queue.events.pop_front();
        }
        self.is_full.store(queue.events.len() >= QUEUE_MAX, Ordering::Relaxed);
        let dropped = self.dropped.load(Ordering::Relaxed);
        (queue.events.iter().cloned().collect(), queue.last + dropped, dropped)
    }
}

/// Operations of a request that somebody wants to hear of.
#[derive(Debug)]
pub struct Picked {
    shard: ShardId,
    /// Operations in the request.
    count: usize,
    wanted: Vec<(Arc<Watch>, PickedOp)>,
}

#[derive(Debug)]
struct PickedOp {
    /// Its place in the request.
    at: usize,
    kind: OpKind,
    key: Bytes,
    key_bytes: u32,
}

fn outcome(result: &OpResult) -> Outcome {
    match result {
        OpResult::Nil => Outcome::Absent,
        OpResult::Bool(false) => Outcome::No,
        OpResult::Failed(code) => Outcome::Failed(*code),
        OpResult::Done | OpResult::Bool(true) | OpResult::Int(_) | OpResult::Value(_) => {
            Outcome::Ok
        }
    }
}

fn check(wish: &Wish) -> Result<()> {
    let pattern_bytes = wish.pattern.as_ref().map_or(0, Bytes::len);
    match (1..=ONE_IN_MAX).contains(&wish.one_in) && pattern_bytes <= PATTERN_BYTES_MAX {
        true if wish.kinds.len() <= OpKind::ALL.len() => Ok(()),
        _ => Err(Error::new(
            Code::BadRequest,
            format!(
                "a watch is for one in 1 to {ONE_IN_MAX} operations, with a pattern of at most {PATTERN_BYTES_MAX} bytes"
            ),
        )),
    }
}

#[cfg(test)]
mod tests;
