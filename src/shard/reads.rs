//! Reads at the three levels: what has to hold before a copy may answer, and what the answer may claim.
//!
//! The token of an answer is the log index that the same instant of the store shows, neither more than
//! was read (a copy would be waited for in vain) nor less (a later read could go back in time).

use super::Error;
use super::error::{of_read, of_store};
use super::freshness::Freshness;
use super::records::State;
use super::timing::Waited;
use crate::raft;
use crate::storage::{self, Store, View};
use crate::types::{Code, Incarnation, ReadLevel};
use std::future::Future;
use std::time::{Duration, Instant};

/// What a read needs to know of the copy it reads; `raft::Group` is one.
pub trait Replica: Send + Sync + 'static {
    /// As `raft::Group::read_barrier`.
    fn read_barrier(
        &self,
        deadline: Instant,
    ) -> impl Future<Output = Result<u64, raft::Error>> + Send;
    /// As `raft::Group::reads_alone`.
    fn reads_alone(&self) -> bool;
    /// As `raft::Group::wait_applied`.
    fn wait_applied(&self, index: u64, deadline: Instant) -> impl Future<Output = bool> + Send;
    /// As `raft::Group::fresh_as_of`.
    fn fresh_as_of(&self) -> Option<Instant>;
    /// As `raft::Group::refresh`.
    fn refresh(&self, deadline: Instant) -> impl Future<Output = Result<(), raft::Error>> + Send;
    /// As `raft::Group::store`.
    fn store(&self) -> &Store;
}

impl Replica for raft::Group {
    async fn read_barrier(&self, deadline: Instant) -> Result<u64, raft::Error> {
        raft::Group::read_barrier(self, deadline).await
    }
    fn reads_alone(&self) -> bool {
        raft::Group::reads_alone(self)
    }
    async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        raft::Group::wait_applied(self, index, deadline).await
    }
    fn fresh_as_of(&self) -> Option<Instant> {
        raft::Group::fresh_as_of(self)
    }
    async fn refresh(&self, deadline: Instant) -> Result<(), raft::Error> {
        raft::Group::refresh(self, deadline).await
    }
    fn store(&self) -> &Store {
        raft::Group::store(self)
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer itself.
    pub value: T,
    /// The log index it reflects.
    pub index: u64,
    /// Its age at most, in milliseconds, for `local` reads of a copy that was ever proven fresh.
    pub age_ms: Option<u32>,
}

/// One copy to read from.
pub struct Reader<'a, R> {
    /// The copy.
    pub replica: &'a R,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// Its proofs of freshness.
    pub freshness: &'a Freshness,
    /// How long it had to wait.
    pub waited: Waited,
}

impl<R: Replica> Reader<'_, R> {
    /// Waits for what the level demands, then reads once at one instant. `read` is given the view and shard
    /// time, is short, and may run twice.
    pub async fn read<T>(
        &self,
        level: ReadLevel,
        deadline: Instant,
        read: impl Fn(&dyn View, u64) -> Result<T, storage::Error>,
    ) -> Result<Answer<T>, Error> {
        match level {
            ReadLevel::Linearizable => {
                if !self.replica.reads_alone() {
                    self.waited.during(self.barrier(deadline)).await?;
                }
                self.read_now(&read)
            }
            ReadLevel::Session { incarnation, index } => {
                self.waited.during(self.reach(incarnation, index, deadline)).await?;
                self.read_now(&read)
            }
            ReadLevel::Local { max_staleness_ms: None } => {
                // Before the read: the copy was at least that fresh when it was read.
                let fresh_at = self.replica.fresh_as_of();
                let answer = self.read_now(&read)?;
                Ok(Answer { age_ms: fresh_at.map(|at| whole_ms(at.elapsed())), ..answer })
            }
            ReadLevel::Local { max_staleness_ms: Some(bound_ms) } => {
                self.read_bounded(Duration::from_millis(bound_ms.into()), deadline, &read).await
            }
        }
    }

    async fn barrier(&self, deadline: Instant) -> Result<(), Error> {
        let barrier = self.replica.read_barrier(deadline);
        match tokio::time::timeout_at(deadline.into(), barrier).await {
            Ok(reached) => reached.map(|_| ()).map_err(of_read),
            Err(_) => {
                Err(Error::new(Code::DeadlineExceeded, "no quorum confirmed the read in time"))
            }
        }
    }

    async fn reach(
        &self,
        incarnation: Incarnation,
        index: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        if incarnation != self.incarnation {
            let message = format!(
                "the token is of incarnation {incarnation}, this copy of {}",
                self.incarnation
            );
            return Err(Error::new(Code::TokenLost, message));
        }
        let wait = self.replica.wait_applied(index, deadline);
        match tokio::time::timeout_at(deadline.into(), wait).await {
            Ok(true) => Ok(()),
            _ => Err(Error::new(
                Code::NotYet,
                format!("this copy has not reached log index {index} within the deadline"),
            )),
        }
    }

    /// A stopped leader must not cost more than the bound: the ping is given up by then, and so is the read.
    async fn read_bounded<T>(
        &self,
        bound: Duration,
        deadline: Instant,
        read: &impl Fn(&dyn View, u64) -> Result<T, storage::Error>,
    ) -> Result<Answer<T>, Error> {
        let started = Instant::now();
        self.freshness.ask(bound, started);
        if let Some(answer) = self.read_if_fresh(bound, read)? {
            return Ok(answer);
        }
        let until = deadline.min(started + bound);
        self.waited.during(self.freshness.refresh(self.replica, bound, until)).await;
        if let Some(answer) = self.read_if_fresh(bound, read)? {
            return Ok(answer);
        }
        let age = match self.replica.fresh_as_of() {
            Some(at) => format!("was last proven fresh {} ms ago", whole_ms(at.elapsed())),
            None => "was not proven fresh since it started".to_owned(),
        };
        let message = format!("this copy {age}, the bound is {} ms", whole_ms(bound));
        Err(Error::new(Code::TooStale, message))
    }

    /// Reads if the copy is proven to be fresh enough, counted to the end of the read.
    fn read_if_fresh<T>(
        &self,
        bound: Duration,
        read: &impl Fn(&dyn View, u64) -> Result<T, storage::Error>,
    ) -> Result<Option<Answer<T>>, Error> {
        let Some(fresh_at) = self.replica.fresh_as_of() else { return Ok(None) };
        if fresh_at.elapsed() > bound {
            return Ok(None);
        }
        let answer = self.read_now(read)?;
        let age = fresh_at.elapsed();
        Ok((age <= bound).then(|| Answer { age_ms: Some(whole_ms(age)), ..answer }))
    }

    fn read_now<T>(
        &self,
        read: &impl Fn(&dyn View, u64) -> Result<T, storage::Error>,
    ) -> Result<Answer<T>, Error> {
        let at_one_instant = |view: &dyn View| {
            let state = State::of(view)?;
            let value = read(view, state.now_ms)?;
            Ok(Answer { value, index: state.index, age_ms: None })
        };
        self.replica.store().read(at_one_instant).and_then(|answer| answer).map_err(of_store)
    }
}

/// Milliseconds, rounded up: an age must not be told smaller than it is.
fn whole_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}
