//! Proposes what waits: one entry with everything that came while the last ones were under way.
//!
//! A thin driver over `queue`: it owns the task, the notifications and the timeouts. What an entry holds
//! is decided in `queue`, what it means in `logic`.

use super::clock::{self, Clock};
use super::entry::{Entry, Reply};
use super::error::{of_proposal, uncertain};
use super::queue::{Limits, Outcome, Queue, Request, Waiting, deadline_exceeded};
use super::task::Task;
use super::timing::Timing;
use crate::raft;
use crate::types::{LogPos, limits};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

/// Entries under way at a time. The second one only goes if it is full: what an entry costs hardly depends on
/// how much is in it, and what comes while one is under way fills the next.
const IN_FLIGHT_MAX: usize = 2;

/// What entries are proposed to.
pub trait Proposer: Send + Sync + 'static {
    /// As `raft::Group::propose`.
    fn propose(
        &self,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(LogPos, Vec<Bytes>), raft::Error>>;

    /// As `raft::Group::times`; nothing is known where nobody measures.
    fn times(&self, _index: u64) -> raft::Times {
        raft::Times::default()
    }
}

impl Proposer for raft::Group {
    fn times(&self, index: u64) -> raft::Times {
        raft::Group::times(self, index)
    }

    fn propose(
        &self,
        payload: Bytes,
    ) -> BoxFuture<'static, Result<(LogPos, Vec<Bytes>), raft::Error>> {
        let group = self.clone();
        Box::pin(async move { raft::Group::propose(&group, payload).await })
    }
}

/// A handle to a shard's batcher; its task ends with the last clone.
#[derive(Clone)]
pub struct Batcher {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Notify,
}

impl Batcher {
    /// Starts the task. Needs a runtime.
    pub fn start(proposer: impl Proposer, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let shared =
            Arc::new(Shared { queue: Mutex::new(Queue::new(limits)), arrived: Notify::new() });
        let task = Task::spawn(drive(shared.clone(), proposer, clock));
        Self { shared, _task: Arc::new(task) }
    }

    /// Lets a request pass the log. Dropping the future before the request was taken for an entry takes it
    /// back; an error after that is uncertain.
    pub async fn submit(&self, request: Request, deadline: Instant) -> Outcome {
        let (reply, mut outcome) = oneshot::channel();
        let (id, call) = {
            let mut queue = self.shared.queue.lock();
            let id = queue.push(Waiting { request, deadline, reply })?;
            (id, queue.calls())
        };
        let waits = Waits { shared: &self.shared, id };
        if call {
            self.shared.arrived.notify_one();
        }
        if let Ok(told) = tokio::time::timeout_at(deadline.into(), &mut outcome).await {
            return told.unwrap_or_else(|_| Err(uncertain("the shard is closing")));
        }
        if waits.take_back() {
            return Err(deadline_exceeded());
        }
        // It was taken, or told to have expired, an instant ago.
        outcome.try_recv().unwrap_or_else(|_| Err(uncertain("the deadline passed")))
    }
}

/// What the task does next.
enum Step {
    Propose(Vec<Waiting>),
    /// For a request or an answer, at most until then.
    Wait(Option<Instant>),
}

impl Shared {
    /// An entry goes out beside another one only if it is full.
    fn next(&self, is_alone: bool, now: Instant) -> Step {
        let mut queue = self.queue.lock();
        if !is_alone && !queue.fills_an_entry() {
            return Step::Wait(None);
        }
        if let Some(until) = queue.lingers_until(now) {
            return Step::Wait(Some(until));
        }
        let taken = queue.take(now);
        if taken.is_empty() { Step::Wait(None) } else { Step::Propose(taken) }
    }
}

/// Takes a request back when its caller goes away.
struct Waits<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Waits<'_> {
    fn take_back(&self) -> bool {
        self.shared.queue.lock().cancel(self.id)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}

async fn drive(shared: Arc<Shared>, proposer: impl Proposer, clock: Arc<dyn Clock>) {
    let mut in_flight = FuturesUnordered::new();
    let mut last_ms = 0;
    loop {
        let mut lingers_until = None;
        while in_flight.len() < IN_FLIGHT_MAX {
            let taken = match shared.next(in_flight.is_empty(), Instant::now()) {
                Step::Propose(taken) => taken,
                Step::Wait(until) => {
                    lingers_until = until;
                    break;
                }
            };
            last_ms = clock::stamp(last_ms, clock.stamp_ms(), &[]);
            in_flight.push(carry(&shared, &proposer, last_ms, taken));
        }
        let lingering = async {
            match lingers_until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = in_flight.next() => {}
            () = shared.arrived.notified(), if in_flight.len() < IN_FLIGHT_MAX => {
                // One turn for the requests that arrived together with this one.
                tokio::task::yield_now().await;
            }
            () = lingering => {}
        }
    }
}

/// Proposes one entry and hands out what it answered.
async fn carry(shared: &Shared, proposer: &impl Proposer, stamp_ms: u64, taken: Vec<Waiting>) {
    let items = taken.iter().map(|waiting| waiting.request.item()).collect();
    let payload = Entry { stamp_ms, items }.encode();
    let started = Instant::now();
    // No caller waits longer, so a proposal that hangs must not hold the shard up either.
    let proposal = tokio::time::timeout(limits::DEADLINE_MAX, proposer.propose(payload));
    let answered = proposal.await.unwrap_or(Err(raft::Error::Uncertain));
    let now = Instant::now();
    shared.queue.lock().note_entry(taken.len(), now - started, now);
    let times = |pos: &LogPos| Timing { proposed: started, entry: proposer.times(pos.index) };
    hand_out(taken, answered.map(|(pos, replies)| (pos, replies, times(&pos))));
}

fn hand_out(taken: Vec<Waiting>, answered: Result<(LogPos, Vec<Bytes>, Timing), raft::Error>) {
    let (pos, replies, timing) = match answered {
        Ok(answered) if answered.1.len() == taken.len() => answered,
        Ok((pos, replies, _)) => {
            tracing::error!(%pos, expected = taken.len(), got = replies.len(), "replies do not match");
            return hand_out(taken, Err(raft::Error::Uncertain));
        }
        Err(error) => {
            for waiting in taken {
                let _ = waiting.reply.send(Err(of_proposal(error.clone())));
            }
            return;
        }
    };
    for (waiting, reply) in taken.into_iter().zip(replies) {
        let told = match Reply::decode(&reply) {
            Some(reply) => Ok((pos, reply, timing)),
            None => Err(uncertain("its reply cannot be read")),
        };
        let _ = waiting.reply.send(told);
    }
}
