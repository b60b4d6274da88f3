//! One replicated shard: what its entries mean, batching of writes, reads at every level, expiry,
//! sessions, digests, and what its leader does with an order to change its members.
//!
//! Knows its group and store. Does not know the map, other shards or how requests arrive.
//!
//! A write: `write` checks it, `batcher` puts it into an entry with everything else that waits, `logic`
//! applies the entry on every copy. A read: `reads` makes sure that the copy may answer at the level asked
//! for, then `keys` or `scan` read one instant of the store.
//!
//! An order of the coordinator: `lead` lets one at a time pass the fence, `change` holds the rules, and the
//! group changes its members only if they are still the ones that were read.
//!
//! A request is atomic: its operations are in one entry, so no reader sees some of them without the
//! others, and no fault separates them. It is not a transaction with roll-back: an operation that answers
//! `Failed` has no effect, and the others of the same request are applied all the same.

mod batcher;
mod change;
pub mod clock;
mod entry;
mod error;
mod expiry;
mod fence;
mod freshness;
mod keys;
mod lead;
mod logic;
mod pace;
mod queue;
mod reads;
mod records;
mod scan;
mod sessions;
mod task;
mod ticker;
mod timing;

#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use entry::{Entry, Item};
pub use error::Error;
pub use keys::REPLY_VALUE_BYTES_MAX;
pub use timing::{Spent, Timing};

use crate::faults::{self, Point};
use crate::raft;
use crate::types::{
    self, Code, Incarnation, ReadLevel, SessionId, SessionSeq, ShardId, Token, limits,
};
use crate::wire::client::{self, KvReply, ScanReply};
use batcher::Batcher;
use bytes::Bytes;
use entry::Reply;
use freshness::Freshness;
use lead::Orders;
use pace::Pace;
use parking_lot::Mutex;
use queue::Request;
use reads::Reader;
use records::State;
use std::sync::Arc;
use std::time::{Duration, Instant};
use task::Task;
use timing::Waited;

/// Records counted at one instant by `Shard::keys`.
const COUNT_STEP: usize = 4_096;

/// The logic of a shard's group, to open it with.
pub fn logic(shard: ShardId, incarnation: Incarnation) -> Box<dyn raft::Logic> {
    Box::new(logic::Logic::new(shard, incarnation, sessions::Limits::default()))
}

/// A copy of a shard on this node; a cheap handle. Its tasks end with the last clone.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

struct Inner {
    shard: ShardId,
    incarnation: Incarnation,
    group: raft::Group,
    batcher: Batcher,
    freshness: Arc<Freshness>,
    pace: Arc<Mutex<Pace>>,
    orders: Orders,
    _tasks: [Task; 2],
}

impl Shard {
    /// Wraps an open group and starts its batcher, ticker and pings. Needs a runtime.
    pub fn start(
        shard: ShardId,
        incarnation: Incarnation,
        group: raft::Group,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let batcher = Batcher::start(group.clone(), clock.clone(), queue::Limits::default());
        let freshness = Arc::new(Freshness::default());
        let pace = Arc::<Mutex<Pace>>::default();
        let ticker = Task::spawn(ticker::run(group.clone(), clock, batcher.clone(), pace.clone()));
        let pings = Task::spawn(freshness.clone().run(group.clone()));
        let _tasks = [ticker, pings];
        let orders = Orders::default();
        let inner = Inner { shard, incarnation, group, batcher, freshness, pace, orders, _tasks };
        Self { inner: Arc::new(inner) }
    }

    /// The group below.
    pub fn group(&self) -> &raft::Group {
        &self.inner.group
    }

    /// Writes (and reads among them) through the log; `ops` is `encode_ops`. Answers `encode_results`, one
    /// for each operation, and where the time went.
    ///
    /// `ops` are checked once more, because an entry that does not read stops every copy of the shard.
    /// `DeadlineExceeded`, `Overloaded` and `NotLeader` mean that nothing happened; what was proposed and not
    /// answered is `Unknown`. A repeated (session, sequence) is answered as the first time, or, where the
    /// results were too large to be remembered, `Unknown`: applied once, and no retry can tell more.
    pub async fn write(
        &self,
        ops: Bytes,
        dedup: Option<SessionSeq>,
        deadline: Instant,
    ) -> Result<(Bytes, Token, Timing), Error> {
        let count = client::decode_ops(&ops)?.len();
        match self.submit(Request::Ops { dedup, ops, count }, deadline).await? {
            (index, Reply::Results(results), timing) => Ok((results, self.token(index), timing)),
            (_, Reply::Refused(code), _) => Err(error::refused(code)),
            (_, Reply::Done, _) => Err(error::uncertain("it was answered without results")),
        }
    }

    /// Opens a session.
    pub async fn open_session(&self, deadline: Instant) -> Result<SessionId, Error> {
        let index = self.submit_plain(Request::Open, deadline).await?;
        Ok(SessionId { incarnation: self.inner.incarnation, index })
    }

    /// Reads at a level; `ops` are reads only. Also answers how long it waited until it might.
    pub async fn read(
        &self,
        ops: Vec<crate::types::Op>,
        level: ReadLevel,
        deadline: Instant,
    ) -> Result<(KvReply, Duration), Error> {
        check_reads(&ops)?;
        let read = |view: &dyn crate::storage::View, now_ms| keys::read(view, &ops, now_ms);
        let reader = self.reader();
        let answer = reader.read(level, deadline, read).await?;
        let results = client::encode_results(&answer.value);
        let (token, age_ms) = (self.token(answer.index), answer.age_ms);
        Ok((KvReply { results, token, age_ms }, reader.waited.total()))
    }

    /// A page of keys, and how long it waited until it might answer.
    pub async fn scan(
        &self,
        scan: client::Scan,
        deadline: Instant,
    ) -> Result<(ScanReply, Duration), Error> {
        check_scan(&scan)?;
        let page_limits = scan::Limits::default();
        let read =
            |view: &dyn crate::storage::View, now_ms| scan::page(view, &scan, &page_limits, now_ms);
        let reader = self.reader();
        let answer = reader.read(scan.level, deadline, read).await?;
        let scan::Page { entries, next_after } = answer.value;
        let token = self.token(answer.index);
        Ok((ScanReply { entries, token, next_after }, reader.waited.total()))
    }

    /// Proposes a digest entry (leader only); returns its index.
    pub async fn propose_digest(&self, deadline: Instant) -> Result<u64, Error> {
        faults::pass(Point::DigestPropose).map_err(types::Error::from)?;
        self.submit_plain(Request::Digest, deadline).await
    }

    /// Keys that have not expired, counted from the store's own records. Exact if nothing is written
    /// meanwhile. Takes time in proportion to the records, in short steps; blocks: not for async threads.
    pub fn keys(&self) -> Result<u64, Code> {
        let (mut keys, mut after) = (0, None);
        loop {
            let counted = self.inner.group.store().read(|view| {
                let now_ms = State::of(view)?.now_ms;
                scan::count(view, after.as_deref(), COUNT_STEP, now_ms)
            });
            let (step, next) = counted.and_then(|step| step).map_err(|error| match error {
                crate::storage::Error::Corrupt { .. } => Code::Corrupt,
                _ => Code::Internal,
            })?;
            keys += step;
            match next {
                None => return Ok(keys),
                next => after = next,
            }
        }
    }

    async fn submit(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<(u64, Reply, Timing), Error> {
        let (pos, reply, timing) = self.inner.batcher.submit(request, deadline).await?;
        Ok((pos.index, reply, timing))
    }

    async fn submit_plain(&self, request: Request, deadline: Instant) -> Result<u64, Error> {
        match self.submit(request, deadline).await? {
            (index, Reply::Done, _) => Ok(index),
            (_, Reply::Refused(code), _) => Err(error::refused(code)),
            (_, Reply::Results(_), _) => Err(error::uncertain("it was answered with results")),
        }
    }

    fn reader(&self) -> Reader<'_, raft::Group> {
        let Inner { group, incarnation, freshness, .. } = &*self.inner;
        let waited = Waited::default();
        Reader { replica: group, incarnation: *incarnation, freshness, waited }
    }

    fn token(&self, index: u64) -> Token {
        Token { shard: self.inner.shard, incarnation: self.inner.incarnation, index }
    }
}

/// Only reads, each within its limits.
fn check_reads(ops: &[crate::types::Op]) -> Result<(), Error> {
    if ops.iter().any(crate::types::Op::is_write) {
        return Err(Error::new(Code::BadRequest, "a write among reads that do not pass the log"));
    }
    if ops.len() > limits::REQUEST_OPS_MAX {
        let message = format!(
            "a batch has 1 to {} operations, this one has {}",
            limits::REQUEST_OPS_MAX,
            ops.len()
        );
        return Err(Error::new(Code::BatchTooLarge, message));
    }
    Ok(ops.iter().try_for_each(crate::types::Op::check)?)
}

/// No key is longer, so a longer prefix or start can only be a mistake.
fn check_scan(scan: &client::Scan) -> Result<(), Error> {
    let after_bytes = scan.after.as_ref().map_or(0, Bytes::len);
    let bytes = scan.prefix.len().max(after_bytes);
    if bytes <= limits::KEY_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a key has 1 to {} bytes, this one has {bytes}", limits::KEY_BYTES_MAX);
    Err(Error::new(Code::KeyTooLong, message))
}
