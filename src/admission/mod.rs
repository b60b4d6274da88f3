//! Admission: may this request start now?
//!
//! The safety net of a node: a budget of requests and of bytes, of which each class of work may use a share only,
//! so that what matters least is refused first. It does not queue, retry or know what a shard is: what does not fit is
//! refused at once, with a hint when to come back. Orders of operators and messages between nodes are not admitted
//! here: they have lanes of their own (`node::server`).
//!
//! The load is the largest share of anything that can run out ([`Resource`]): the budget itself at this moment, the
//! queue of the log, and how long the disk and the processors make work wait. With the default threshold of 80 %
//! copying makes way from there on, scans and batches are refused from 90 %, writes from 95 %, and reads when there is
//! no room at all. A class that is refused is let in again when the load is five points lower.
//!
//! What counts of disk and processors is *waiting*, not use: both are fully used when a node serves as much as it can,
//! which is no reason to refuse (ARCHITECTURE.md, "What a node takes on").

use crate::types::{Code, Error, Result, limits};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Operations from which on a request is a batch.
pub const BATCH_OPS_MIN: usize = 64;
/// How far the load has to fall below where it was refused, in percent.
const HYSTERESIS_PERCENT: u32 = 5;
/// Bounds of the hint when to come back, in milliseconds: with a load of nothing and with no room at all.
const RETRY_AFTER_MS: (u32, u32) = (10, 50);

/// What the budget is for, in the order in which it is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Copies of shards. They are not admitted but slowed down.
    Copy,
    /// Scans, and requests of many operations.
    Bulk,
    /// Requests that change keys.
    Write,
    /// Requests that read keys by name.
    Read,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 4] = [Class::Copy, Class::Bulk, Class::Write, Class::Read];

    /// As settings and metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Copy => "copy",
            Class::Bulk => "bulk",
            Class::Write => "write",
            Class::Read => "read",
        }
    }

    /// The class of a request with so many operations.
    pub const fn of(ops: usize, writes: usize) -> Self {
        match (ops >= BATCH_OPS_MIN, writes > 0) {
            (true, _) => Class::Bulk,
            (false, true) => Class::Write,
            (false, false) => Class::Read,
        }
    }
}

/// What an operator can set; the same on every node.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Requests worked on at a time.
    pub max_concurrent_ops: usize,
    /// Operations in one request.
    pub max_batch_size: usize,
    /// Bytes of keys and values in one request.
    pub max_batch_bytes: usize,
    /// How long a request is worked on, whatever time it names.
    pub timeout: Duration,
    /// Load from which on copying makes way, in percent; the other classes follow between it and 100.
    pub load_threshold_percent: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent_ops: limits::CONCURRENT_REQUESTS_MAX,
            max_batch_size: limits::REQUEST_OPS_MAX,
            max_batch_bytes: limits::REQUEST_BYTES_MAX,
            timeout: limits::DEADLINE_DEFAULT,
            load_threshold_percent: 80,
        }
    }
}

impl Limits {
    /// The load from which on a class is refused, in percent.
    fn shed_from(&self, class: Class) -> u32 {
        let threshold = self.load_threshold_percent.min(100);
        let above = 100 - threshold;
        match class {
            Class::Copy => threshold,
            Class::Bulk => threshold + above / 2,
            Class::Write => threshold + above * 3 / 4,
            Class::Read => u32::MAX,
        }
    }
}

/// Bytes of the requests worked on at a time.
const BYTES_MAX: usize = 256 << 20;
/// Waiting is a full load if it takes this share of the time that a request is worked on: what comes then would most
/// likely be given up, with an uncertain outcome. But never less than `WAIT_MIN`: a short timeout does not make an
/// ordinary fdatasync an overload.
const WAIT_SHARE: u32 = 2;
const WAIT_MIN: Duration = Duration::from_millis(500);
/// Entries of one group that are committed and not applied, as a full load. etcd refuses from the same number.
const UNAPPLIED_MAX: u64 = 5_000;

/// What can run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Requests worked on, of `max_concurrent_ops`.
    Requests,
    /// Bytes of these requests.
    Bytes,
    /// Bytes that wait to be written to the log.
    LogQueue,
    /// How long the log's present write and fdatasync have been waited for.
    FsyncWait,
    /// How late this process gets to what is due: a turn on a processor.
    CpuWait,
    /// Entries that are committed and not applied, in the group led here that is furthest behind. A copy that gets its
    /// table, as in a switch, has all of them to apply, and keeps no client waiting.
    ApplyLag,
    /// Bytes applied and not yet flushed. They fill up whenever much is written, and slow that down by themselves: only
    /// copies make way for them.
    Unflushed,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 7] = [
        Resource::Requests,
        Resource::Bytes,
        Resource::LogQueue,
        Resource::FsyncWait,
        Resource::CpuWait,
        Resource::ApplyLag,
        Resource::Unflushed,
    ];

    /// As metrics and refusals call it.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Requests => "requests",
            Resource::Bytes => "bytes",
            Resource::LogQueue => "log_queue",
            Resource::FsyncWait => "fsync_wait",
            Resource::CpuWait => "cpu_wait",
            Resource::ApplyLag => "apply_lag",
            Resource::Unflushed => "unflushed",
        }
    }
}

/// What a node measures of itself ten times a second, beside its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Of the log's queue, 0 to 100.
    pub log_queue_percent: u32,
    /// See [`Resource::FsyncWait`].
    pub fsync_wait: Duration,
    /// See [`Resource::CpuWait`].
    pub cpu_wait: Duration,
    /// See [`Resource::ApplyLag`].
    pub unapplied_entries: u64,
    /// Of the room for what is applied and not flushed, 0 to 100.
    pub unflushed_percent: u32,
}

/// The shares of what is measured and not counted, by `Resource`, in percent.
type Shares = [AtomicU32; Resource::ALL.len()];

/// The budget; clones share it.
#[derive(Clone, Default)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    limits: RwLock<Limits>,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// By `Resource`, in percent; those of requests and bytes are counted, not kept here.
    measured: Shares,
    /// Whether each class is refused at this moment.
    shed: [AtomicBool; Class::ALL.len()],
    refused: [AtomicU64; Class::ALL.len()],
}

/// The part of the budget a request holds until its reply is queued.
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.give_back(self.bytes);
    }
}

impl Inner {
    fn give_back(&self, bytes: usize) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn measured(&self, resource: Resource) -> u32 {
        self.measured[resource as usize].load(Ordering::Relaxed)
    }

    /// What is taken most, with its share in percent, if so many requests and bytes are worked on.
    fn busiest(&self, requests: usize, bytes: usize, limits: &Limits) -> (Resource, u32) {
        let mut busiest = (Resource::Requests, percent(requests, limits.max_concurrent_ops));
        let waits =
            [Resource::LogQueue, Resource::FsyncWait, Resource::CpuWait, Resource::ApplyLag];
        let measured = waits.into_iter().map(|resource| (resource, self.measured(resource)));
        for other in measured.chain([(Resource::Bytes, percent(bytes, BYTES_MAX))]) {
            if other.1 > busiest.1 {
                busiest = other;
            }
        }
        busiest
    }

    /// Whether a class is to be refused under that load. Remembers it, for the hysteresis.
    fn sheds(&self, class: Class, load_percent: u32, limits: &Limits) -> bool {
        let shed = &self.shed[class as usize];
        let from = limits.shed_from(class);
        let is_shed = shed.load(Ordering::Relaxed);
        let sheds =
            load_percent >= if is_shed { from - HYSTERESIS_PERCENT.min(from) } else { from };
        if sheds != is_shed {
            shed.store(sheds, Ordering::Relaxed);
        }
        sheds
    }
}

fn percent(used: usize, all: usize) -> u32 {
    (used.min(all) * 100 / all.max(1)) as u32
}

impl Budget {
    /// What an operator wants, from now on.
    pub fn set_limits(&self, limits: Limits) {
        *self.inner.limits.write() = limits;
    }

    /// What holds now.
    pub fn limits(&self) -> Limits {
        self.inner.limits.read().clone()
    }

    /// What was measured; it holds until the next call.
    pub fn set_pressure(&self, pressure: &Pressure) {
        let wait_max = (self.inner.limits.read().timeout / WAIT_SHARE).max(WAIT_MIN);
        let waited =
            |wait: Duration| percent(wait.as_millis() as usize, wait_max.as_millis() as usize);
        for (resource, share) in [
            (Resource::LogQueue, pressure.log_queue_percent),
            (Resource::FsyncWait, waited(pressure.fsync_wait)),
            (Resource::CpuWait, waited(pressure.cpu_wait)),
            (
                Resource::ApplyLag,
                percent(pressure.unapplied_entries as usize, UNAPPLIED_MAX as usize),
            ),
            (Resource::Unflushed, pressure.unflushed_percent),
        ] {
            self.inner.measured[resource as usize].store(share.min(100), Ordering::Relaxed);
        }
    }

    /// How much of it is taken, in percent.
    pub fn share_percent(&self, resource: Resource) -> u32 {
        match resource {
            Resource::Requests => {
                percent(self.requests(), self.inner.limits.read().max_concurrent_ops)
            }
            Resource::Bytes => percent(self.inner.bytes.load(Ordering::Relaxed), BYTES_MAX),
            measured => self.inner.measured(measured),
        }
    }

    /// Requests worked on at this moment.
    pub fn requests(&self) -> usize {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// The load in percent.
    pub fn load_percent(&self) -> u32 {
        let bytes = self.inner.bytes.load(Ordering::Relaxed);
        self.inner.busiest(self.requests(), bytes, &self.inner.limits.read()).1
    }

    /// Whether copies of shards have to make way at this moment.
    pub fn sheds_copies(&self) -> bool {
        let load = self.load_percent().max(self.inner.measured(Resource::Unflushed));
        self.inner.sheds(Class::Copy, load, &self.inner.limits.read())
    }

    /// Requests refused since the start.
    pub fn refused(&self, class: Class) -> u64 {
        self.inner.refused[class as usize].load(Ordering::Relaxed)
    }

    /// How long a request is worked on that asks for so long.
    pub fn time_for(&self, asked: Duration) -> Duration {
        asked.min(self.inner.limits.read().timeout)
    }

    /// Takes room for a request with so many operations and bytes of them, `held_bytes` in all, or refuses at once:
    /// what has more in it than one may (`BatchTooLarge`), and what there is no room for (`Overloaded`).
    pub fn admit_ops(
        &self,
        (ops, writes): (usize, usize),
        bytes: usize,
        held_bytes: usize,
    ) -> Result<Permit> {
        let limits = self.inner.limits.read();
        if ops > limits.max_batch_size || bytes > limits.max_batch_bytes {
            let message = format!(
                "{ops} operations with {bytes} bytes in one request; safety.max_batch_size is {}, \
                 safety.max_batch_bytes {}",
                limits.max_batch_size, limits.max_batch_bytes
            );
            return Err(Error::new(Code::BatchTooLarge, message));
        }
        self.take(&limits, Class::of(ops, writes), held_bytes)
    }

    /// Takes room for a request of that many bytes, or refuses at once (`Overloaded`).
    pub fn admit(&self, class: Class, bytes: usize) -> Result<Permit> {
        self.take(&self.inner.limits.read(), class, bytes)
    }

    fn take(&self, limits: &Limits, class: Class, bytes: usize) -> Result<Permit> {
        let inner = &self.inner;
        let requests = inner.requests.fetch_add(1, Ordering::Relaxed);
        let others = inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits =
            requests < limits.max_concurrent_ops && others.saturating_add(bytes) <= BYTES_MAX;
        let (busiest, load) = inner.busiest(requests, others, limits);
        if !inner.sheds(class, load, limits) && fits {
            return Ok(Permit { inner: inner.clone(), bytes });
        }
        inner.give_back(bytes);
        inner.refused[class as usize].fetch_add(1, Ordering::Relaxed);
        let message = format!(
            "this node is at {load} % of what it takes on ({}); {} requests wait until it is below {} %",
            busiest.name(),
            class.name(),
            limits.shed_from(class).min(100)
        );
        let (least, most) = RETRY_AFTER_MS;
        let retry_after_ms = least + (most - least) * load.min(100) / 100;
        Err(Error::new(Code::Overloaded, message).retry_after(retry_after_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max_concurrent_ops: usize) -> Budget {
        let budget = Budget::default();
        budget.set_limits(Limits { max_concurrent_ops, ..Limits::default() });
        budget
    }

    fn fill(budget: &Budget, requests: usize) -> Vec<Permit> {
        (0..requests).map(|_| budget.admit(Class::Read, 0).unwrap()).collect()
    }

    #[test]
    fn what_does_not_fit_is_refused_and_room_comes_back() {
        let budget = budget(2);
        let first = budget.admit(Class::Read, BYTES_MAX - 10).unwrap();
        let refused = budget.admit(Class::Read, 11).err().unwrap();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::Overloaded, Some(49)));
        let second = budget.admit(Class::Read, 10).unwrap();
        assert_eq!((budget.requests(), budget.load_percent()), (2, 100));
        assert!(budget.admit(Class::Read, 0).is_err());
        assert_eq!(budget.refused(Class::Read), 2);
        drop(first);
        assert!(budget.admit(Class::Read, 60).is_ok());
        drop(second);
        assert_eq!((budget.requests(), budget.load_percent()), (0, 0));
    }

    #[test]
    fn classes_are_refused_in_their_order() {
        let budget = budget(1_000);
        let admitted = |class| budget.admit(class, 0).is_ok();
        let mut held = Vec::new();
        for (percent, copies_go, bulk, write) in [
            (79, true, true, true),
            (80, false, true, true),
            (90, false, false, true),
            (95, false, false, false),
        ] {
            held.extend(fill(&budget, percent * 10 - held.len()));
            assert_eq!(!budget.sheds_copies(), copies_go, "copies at {percent} %");
            assert_eq!(admitted(Class::Bulk), bulk, "scans and batches at {percent} %");
            assert_eq!(admitted(Class::Write), write, "writes at {percent} %");
            assert!(admitted(Class::Read), "reads at {percent} %");
        }
        held.extend(fill(&budget, 50));
        assert!(!admitted(Class::Read), "there is no room");
        // Five points lower each is let in again.
        held.truncate(901);
        assert!(!admitted(Class::Write));
        held.truncate(899);
        assert!(admitted(Class::Write) && !admitted(Class::Bulk));
        held.truncate(849);
        assert!(admitted(Class::Bulk) && budget.sheds_copies());
        held.truncate(749);
        assert!(!budget.sheds_copies());
    }

    #[test]
    fn what_runs_out_elsewhere_refuses_writes_and_not_reads() {
        let budget = budget(100);
        let log_queue = |percent| Pressure { log_queue_percent: percent, ..Pressure::default() };
        budget.set_pressure(&log_queue(97));
        assert!(budget.sheds_copies());
        for class in [Class::Bulk, Class::Write] {
            assert_eq!(budget.admit(class, 1).err().unwrap().code, Code::Overloaded);
            assert_eq!(budget.refused(class), 1);
        }
        assert!(budget.admit(Class::Read, 1).is_ok());
        // What waits to be flushed slows down writing by itself.
        budget.set_pressure(&Pressure { unflushed_percent: 100, ..Pressure::default() });
        assert!(budget.admit(Class::Write, 1).is_ok() && budget.sheds_copies());
        assert_eq!(budget.load_percent(), 0);
        budget.set_pressure(&Pressure::default());
        assert!(!budget.sheds_copies());
    }

    #[test]
    fn waiting_counts_by_the_time_that_a_request_has() {
        let budget = budget(100);
        let timeout = Duration::from_secs(4);
        budget.set_limits(Limits { timeout, ..Limits::default() });
        let wait = Duration::from_millis;
        type Measure = fn(Duration) -> Pressure;
        let waits: [(Resource, Measure); 2] = [
            (Resource::FsyncWait, |fsync_wait| Pressure { fsync_wait, ..Pressure::default() }),
            (Resource::CpuWait, |cpu_wait| Pressure { cpu_wait, ..Pressure::default() }),
        ];
        for (resource, measured) in waits {
            // Half of four seconds is all.
            for (ms, share, writes) in [(100, 5, true), (1_899, 94, true), (1_901, 95, false)] {
                budget.set_pressure(&measured(wait(ms)));
                assert_eq!((budget.share_percent(resource), budget.load_percent()), (share, share));
                assert_eq!(budget.admit(Class::Write, 1).is_ok(), writes, "{ms}");
                assert!(budget.admit(Class::Read, 1).is_ok());
            }
            let refused = budget.admit(Class::Write, 1).err().unwrap();
            assert!(refused.message.contains(resource.name()), "{refused}");
            budget.set_pressure(&Pressure::default());
            assert!(budget.admit(Class::Write, 1).is_ok());
        }
        // However short that time is, an ordinary fdatasync is no load.
        budget.set_limits(Limits { timeout: wait(10), ..Limits::default() });
        budget.set_pressure(&Pressure { fsync_wait: wait(50), ..Pressure::default() });
        assert_eq!(budget.load_percent(), 10);
        let unapplied_entries = UNAPPLIED_MAX * 9 / 10;
        budget.set_pressure(&Pressure { unapplied_entries, ..Pressure::default() });
        assert_eq!(budget.share_percent(Resource::ApplyLag), 90);
        assert!(budget.admit(Class::Bulk, 1).is_err() && budget.admit(Class::Write, 1).is_ok());
    }

    #[test]
    fn limits_hold_at_once_also_below_what_is_under_way() {
        let budget = budget(10);
        let held = fill(&budget, 10);
        budget.set_limits(Limits { max_concurrent_ops: 4, ..Limits::default() });
        assert!(budget.admit(Class::Read, 0).is_err());
        assert_eq!(budget.load_percent(), 100);
        drop(held);
        assert_eq!(fill(&budget, 4).len(), 4);
    }

    #[test]
    fn a_request_has_a_class_and_a_size() {
        assert_eq!(Class::of(1, 0), Class::Read);
        assert_eq!(Class::of(2, 1), Class::Write);
        assert_eq!(Class::of(BATCH_OPS_MIN, 0), Class::Bulk);
        let budget = Budget::default();
        budget.set_limits(Limits { max_batch_size: 3, max_batch_bytes: 100, ..Limits::default() });
        assert!(budget.admit_ops((3, 0), 100, 200).is_ok());
        for (ops, bytes) in [(4, 1), (1, 101)] {
            let refused = budget.admit_ops((ops, 1), bytes, 200).err().unwrap();
            assert_eq!(refused.code, Code::BatchTooLarge);
        }
        assert_eq!(budget.requests(), 0);
        let timeout = Duration::from_millis(20);
        budget.set_limits(Limits { timeout, ..Limits::default() });
        let [more, less] = [30, 10].map(Duration::from_millis);
        assert_eq!((budget.time_for(more), budget.time_for(less)), (timeout, less));
    }
}
