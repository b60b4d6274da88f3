//! The coordinator keeps the operation log: a record is journaled before its operation is carried out, and gets its
//! outcome afterwards.
//!
//! An operation whose record cannot be journaled is not carried out. One that was carried out never fails because
//! its outcome could not be noted: that is tried for a while, and then the record says `unknown`.

use super::driver::{COORDINATOR, Coordinator};
use crate::cluster::heard::clock_ms;
use crate::cluster::runs::{self, RunEntry};
use crate::cluster::{ClusterState, MetaCommand};
use crate::types::{Code, Error, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::oplog::{Outcome, Record};
use crate::wire::runs::RunOrder;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Recorded operations that one coordinator carries out at a time; more are refused.
const OPEN_MAX: usize = 64;
/// Events of runs that one coordinator proposes at a time; more are refused.
const EVENTS_MAX: usize = 64;
/// How long an answer waits until its record says the same. Whoever looks at once should find it.
const OUTCOME_PATIENCE: Duration = Duration::from_millis(20);
/// How often an outcome is told again, and the pause before that: long enough for another coordinator to take over.
const OUTCOME_TRIES: u32 = 10;
const OUTCOME_PAUSE: Duration = Duration::from_millis(500);
/// How long the node that keeps the log may take to answer another one.
const KEEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Hint when to come back with an operation that was refused for their number.
const RETRY_AFTER_MS: u32 = 200;

/// What is being recorded here: the keys of the records whose operations are under way, and room for events of runs.
#[derive(Clone)]
pub(super) struct Recording {
    open: Arc<Mutex<BTreeSet<u64>>>,
    events: Arc<Semaphore>,
}

impl Default for Recording {
    fn default() -> Self {
        Self { open: Arc::default(), events: Arc::new(Semaphore::new(EVENTS_MAX)) }
    }
}

/// A record is under way; dropping this ends that.
struct Open {
    recording: Recording,
    key: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.recording.open.lock().remove(&self.key);
    }
}

impl Recording {
    fn begin(&self, key: u64) -> Result<Open> {
        let mut open = self.open.lock();
        if open.len() >= OPEN_MAX {
            let message = format!("{OPEN_MAX} operations are under way already");
            return Err(Error::new(Code::Overloaded, message).retry_after(RETRY_AFTER_MS));
        }
        open.insert(key);
        Ok(Open { recording: self.clone(), key })
    }

    /// Room for one more event of a run.
    fn event(&self) -> Result<OwnedSemaphorePermit> {
        self.events.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{EVENTS_MAX} events of runs are under way already");
            Error::new(Code::Overloaded, message).retry_after(RETRY_AFTER_MS)
        })
    }

    /// Records without an outcome that nobody will give one: only the coordinator carries operations out, this is
    /// the coordinator, and they are not under way here.
    fn orphans(&self, state: &ClusterState) -> Vec<Record> {
        let open = self.open.lock();
        let lost = |record: &&Record| !open.contains(&record.key);
        let settled = |record: &Record| Record { outcome: Some(Outcome::Lost), ..record.clone() };
        state.oplog.open().filter(lost).map(settled).collect()
    }
}

impl Coordinator {
    /// Carries out an operation under a record, which is journaled first.
    pub async fn recorded(
        &self,
        record: Record,
        act: impl Future<Output = Result<Answer>>,
    ) -> Result<Answer> {
        self.require_lead()?;
        let open = self.inner.recording.begin(record.key)?;
        self.propose(MetaCommand::Record(Box::new(record.clone()))).await?;
        let began = Instant::now();
        let done = act.await;
        let record = ended(record, began.elapsed(), &done);
        let this = self.clone();
        let telling = tokio::spawn(async move {
            this.tell(&record).await;
            drop(open);
        });
        let _ = tokio::time::timeout(OUTCOME_PATIENCE, telling).await;
        done
    }

    /// Keeps the record of an operation that is over, wherever the log is kept. Tried for a while; a failure is
    /// logged and no more.
    pub async fn tell(&self, record: &Record) {
        for tries_left in (0..OUTCOME_TRIES).rev() {
            match self.keep_there(record).await {
                Ok(()) => return,
                Err(error) if tries_left == 0 => {
                    let (by, command) = (&record.by, &record.command);
                    tracing::warn!(by, command, %error, "the operation log misses an outcome");
                }
                Err(_) => tokio::time::sleep(OUTCOME_PAUSE).await,
            }
        }
    }

    async fn keep_there(&self, record: &Record) -> Result<()> {
        let Some(node) = self.elsewhere() else { return self.keep(record.clone()).await };
        let command = Command::Record(Box::new(record.clone()));
        let asked = self.inner.calls.call(node, COORDINATOR, command, KEEP_TIMEOUT);
        asked.await.map(drop)
    }

    /// Keeps a record here.
    pub async fn keep(&self, record: Record) -> Result<()> {
        self.require_lead()?;
        self.propose(MetaCommand::Record(Box::new(record))).await
    }

    /// Takes an event of a run of a runbook; answers what its runner has to know.
    pub async fn keep_run(&self, by: &str, from: &str, order: RunOrder) -> Result<Answer> {
        self.require_lead()?;
        let _turn = self.inner.recording.event()?;
        let entry = proposed(by, from, order)?;
        let order = entry.order.clone();
        self.propose(MetaCommand::Run(Box::new(entry))).await?;
        self.state().runs.answer(&order)
    }

    /// Notes which records will never get an outcome. Called while this node is proven to lead.
    pub(super) async fn settle_orphans(&self) {
        for record in self.inner.recording.orphans(&self.state()) {
            let (by, command) = (record.by.clone(), record.command.clone());
            match self.propose(MetaCommand::Record(Box::new(record))).await {
                Ok(()) => tracing::warn!(by, command, "nobody knows what came of an operation"),
                // The next round, or the next coordinator, does it.
                Err(_) => return,
            }
        }
    }
}

/// The record of an operation that took so long and was answered so.
pub fn ended(record: Record, took: Duration, done: &Result<Answer>) -> Record {
    let (plan, operation) = match done {
        Ok(Answer::Operation(op)) => (op.terms.plan, Some(op.id)),
        _ => (None, None),
    };
    Record {
        plan: record.plan.or(plan),
        operation: record.operation.or(operation),
        took_ms: Some(took.as_millis() as u64),
        outcome: Some(Outcome::of(done)),
        ..record
    }
}

/// An event as it is proposed. It is cut here already, because it is sent to every member and kept in the log.
fn proposed(by: &str, from: &str, order: RunOrder) -> Result<RunEntry> {
    let (by, from) = (by.to_owned(), from.to_owned());
    Ok(RunEntry { order: runs::fitted(order)?, by, from, now_ms: clock_ms() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::core::tests::record as formation;
    use crate::types::NodeName;
    use crate::wire::codec;
    use crate::wire::runs::RunEvent;

    fn record(key: u64) -> Record {
        Record {
            number: 0,
            key,
            by: "user ann".into(),
            from: "10.0.0.9:5000".into(),
            through: None,
            node: NodeName::new("n1").unwrap(),
            command: "strategy commit".into(),
            plan: None,
            operation: None,
            began_ms: 1,
            took_ms: None,
            outcome: None,
        }
    }

    #[test]
    fn only_what_is_not_under_way_here_is_lost() {
        let mut state = ClusterState::default();
        state.apply(&MetaCommand::Form(formation(3, 1, 12)));
        for key in [1, 2] {
            state.apply(&MetaCommand::Record(Box::new(record(key))));
        }
        let recording = Recording::default();
        let open = recording.begin(1).unwrap();
        let lost = recording.orphans(&state);
        assert_eq!(lost.iter().map(|record| record.key).collect::<Vec<_>>(), [2]);
        assert_eq!(lost[0].outcome, Some(Outcome::Lost));
        drop(open);
        assert_eq!(recording.orphans(&state).len(), 2);
        for record in recording.orphans(&state) {
            state.apply(&MetaCommand::Record(Box::new(record)));
        }
        assert!(recording.orphans(&state).is_empty());
    }

    #[test]
    fn what_is_proposed_of_a_run_is_as_short_as_what_is_kept() {
        let event = RunEvent::Note("x".repeat(4 << 20));
        let order = RunOrder { runner: 1, run: 1, sequence: 1, event };
        let entry = proposed("user ann", "10.0.0.9:5000", order).unwrap();
        assert!(codec::encode(&entry).len() < 2_048);
    }

    #[test]
    fn so_many_at_a_time() {
        let recording = Recording::default();
        let all: Vec<Open> =
            (0..OPEN_MAX as u64).map(|key| recording.begin(key).unwrap()).collect();
        let refused = recording.begin(99).map(drop).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::Overloaded, Some(200)));
        drop(all);
        assert!(recording.begin(99).is_ok());
        let all: Vec<_> = (0..EVENTS_MAX).map(|_| recording.event().unwrap()).collect();
        let refused = recording.event().map(drop).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_ms), (Code::Overloaded, Some(200)));
        drop(all);
        assert!(recording.event().is_ok());
    }

    #[test]
    fn a_refusal_is_an_outcome() {
        let refused = Err(Error::new(Code::PrecheckFailed, "the disk is full"));
        let record = ended(record(1), Duration::from_millis(7), &refused);
        let (code, message) = (Code::PrecheckFailed, "the disk is full".to_owned());
        assert_eq!(record.outcome, Some(Outcome::Failed { code, message }));
        assert_eq!(record.took_ms, Some(7));
    }
}
