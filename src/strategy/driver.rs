//! The coordinator: asks every node what it knows, decides by `core`, journals and sends orders. It runs on
//! every primary and acts only while this node leads the metadata group, proven by a quorum each round.
//!
//! What it keeps between rounds (who answered since when, comparisons under way) may be lost at any moment.

use super::around::{self, Around};
use super::compare;
use super::core::{Action, Decision, Seen, decide};
use super::precheck::precheck;
use crate::cluster::heard::clock_ms;
use crate::cluster::{ClusterState, Event, MetaCommand, MetaReply, StateView};
use crate::raft::{self, Group};
use crate::types::{Code, Error, NodeId, Result, ShardId};
use crate::wire::client::Strategy;
use crate::wire::codec;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{
    NodeReport, Operation, Precheck, Progress, SettingView, ShardChange, ShardOrder, StrategyOrder,
    StrategyView, Verdict,
};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Between two rounds while an operation runs.
const ROUND_BUSY: Duration = Duration::from_millis(100);
/// Between two rounds while nothing is to be done.
const ROUND_IDLE: Duration = Duration::from_millis(500);
/// Who asks when the coordinator itself does.
pub const COORDINATOR: &str = "coordinator";
/// Longest wait for a node's report; one that is slower counts as silent in this round.
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);
/// Longest time for one order to a shard.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for journaling one event.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Orders to shards on their way at a time.
const ORDERS_MAX: usize = 4;
/// Shards being compared at a time.
const COMPARISONS_MAX: usize = 2;
/// How often an order of the user is tried again when the operation moved on meanwhile.
const ORDER_TRIES: usize = 8;

/// How the coordinator reaches nodes, this one included.
pub trait Calls: Send + Sync + 'static {
    /// Has a node carry out a command that `by` asked for.
    fn call(
        &self,
        node: NodeId,
        by: &str,
        command: Command,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>>;
}

/// One node's coordinator. Clones share it.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
}

struct Inner {
    view: StateView,
    metadata: Group,
    calls: Arc<dyn Calls>,
    memory: Mutex<Memory>,
    wake: Notify,
}

#[derive(Default)]
struct Memory {
    answering_since: BTreeMap<NodeId, Instant>,
    /// Shards with an order or a comparison on its way.
    ordered: BTreeSet<ShardId>,
    compared: BTreeSet<ShardId>,
    /// Comparisons that failed, for the operation and turn they were made in.
    unequal: BTreeMap<ShardId, String>,
    unequal_of: (u64, u64),
    progress: Progress,
    /// The blocker last logged.
    told: Option<String>,
}

impl Coordinator {
    /// A coordinator over the metadata group of this node.
    pub fn new(view: StateView, metadata: Group, calls: Arc<dyn Calls>) -> Self {
        let (memory, wake) = (Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { view, metadata, calls, memory, wake }) }
    }

    /// Runs for ever.
    pub async fn run(self) {
        loop {
            let busy = match self.leads().await {
                true => self.round().await,
                false => {
                    *self.inner.memory.lock() = Memory::default();
                    false
                }
            };
            let pause = if busy { ROUND_BUSY } else { ROUND_IDLE };
            let _ = tokio::time::timeout(pause, self.inner.wake.notified()).await;
        }
    }

    /// Whether this node leads the metadata group, and its state is up to date: a quorum says so.
    async fn leads(&self) -> bool {
        let metadata = &self.inner.metadata;
        metadata.state().is_leader
            && self.state().is_formed()
            && metadata.read_barrier(Instant::now() + REPORT_TIMEOUT).await.is_ok()
    }

    fn state(&self) -> Arc<ClusterState> {
        self.inner.view.state()
    }

    /// Refuses unless this node leads; the hint names who does.
    fn require_lead(&self) -> Result<()> {
        let state = self.inner.metadata.state();
        match (state.is_leader, state.leader) {
            (true, _) => Ok(()),
            (false, Some((_, node))) => {
                let message = "another node leads the metadata group";
                Err(Error::new(Code::NotLeader, message).hint(self.inner.view.name(node)))
            }
            (false, None) => {
                let message = "the metadata group has no leader that is known; without a quorum nothing changes";
                Err(Error::new(Code::NotReady, message).retry_after(500))
            }
        }
    }

    /// One look at the cluster and what follows from it; true if there is something to do.
    async fn round(&self) -> bool {
        let seen = self.look().await;
        let state = self.state();
        let Decision { actions, progress } = decide(&state, &seen, clock_ms());
        self.note(&state, progress);
        let mut orders = vec![];
        let busy = state.active().is_some_and(|op| op.phase.holds_slot()) || !actions.is_empty();
        for action in actions {
            match action {
                Action::Journal(event) => {
                    if let Some(op) = state.operation() {
                        around::act_first(&*self.inner.calls, &state, &event, ORDER_TIMEOUT).await;
                        self.journal(op, event).await;
                    }
                    // The state has changed: the rest was decided for another one.
                    self.inner.wake.notify_one();
                    return true;
                }
                Action::Order { order, .. } if is_held(&order) => {}
                Action::Order { node, order } => orders.push((node, order)),
                Action::Compare { shard, leader, reference, copies } => {
                    self.compare(&state, shard, leader, (reference, copies));
                }
            }
        }
        for (node, order) in orders {
            let shard = order.shard;
            {
                let mut memory = self.inner.memory.lock();
                if memory.ordered.len() >= ORDERS_MAX || !memory.ordered.insert(shard) {
                    continue;
                }
            }
            let this = self.clone();
            tokio::spawn(async move {
                let change = format!("{:?}", order.change);
                match around::send(&*this.inner.calls, node, order, ORDER_TIMEOUT).await {
                    Ok(_) => tracing::info!(%shard, change, "shard order carried out"),
                    Err(error) => tracing::debug!(%shard, change, %error, "shard order refused"),
                }
                this.inner.memory.lock().ordered.remove(&shard);
                this.inner.wake.notify_one();
            });
        }
        busy
    }

    /// Asks every member for its report.
    async fn look(&self) -> Seen {
        let state = self.state();
        let asked = state.members.keys().map(|node| async {
            let call = self.inner.calls.call(*node, COORDINATOR, Command::Report, REPORT_TIMEOUT);
            match tokio::time::timeout(REPORT_TIMEOUT, call).await {
                Ok(Ok(Answer::Report(report))) => Some((*node, report)),
                _ => None,
            }
        });
        let answers = join_all(asked).await;
        let reports: BTreeMap<NodeId, NodeReport> = answers.into_iter().flatten().collect();
        let now = Instant::now();
        let turn = state.operation().map_or((0, 0), |op| (op.id, op.turn));
        let mut memory = self.inner.memory.lock();
        memory.answering_since.retain(|node, _| reports.contains_key(node));
        for node in reports.keys() {
            memory.answering_since.entry(*node).or_insert(now);
        }
        if memory.unequal_of != turn {
            memory.unequal.clear();
            memory.unequal_of = turn;
        }
        let steady = |(node, since): (&NodeId, &Instant)| {
            (*node, now.duration_since(*since).as_millis() as u64)
        };
        let steady_ms = memory.answering_since.iter().map(steady).collect();
        Seen { reports, steady_ms, unequal: memory.unequal.clone() }
    }

    fn note(&self, state: &ClusterState, progress: Progress) {
        let mut memory = self.inner.memory.lock();
        if progress.blocker != memory.told {
            if let (Some(blocker), Some(op)) = (&progress.blocker, state.active()) {
                tracing::info!(
                    operation = op.id,
                    phase = op.phase.name(),
                    blocker,
                    "operation waits"
                );
            }
            memory.told.clone_from(&progress.blocker);
        }
        memory.progress = progress;
    }

    /// Journals an event of an operation at its step.
    async fn journal(&self, op: &Operation, event: Event) {
        tracing::info!(
            operation = op.id,
            step = op.step,
            phase = op.phase.name(),
            ?event,
            "journal"
        );
        let command =
            MetaCommand::Advance { operation: op.id, step: op.step, event, now_ms: clock_ms() };
        if let Err(error) = self.propose(command).await {
            tracing::info!(operation = op.id, %error, "event not journaled");
        }
    }

    async fn propose(&self, command: MetaCommand) -> Result<()> {
        let around = Around::of(&command, &self.state());
        around.before()?;
        let payload = codec::encode(&command).into();
        let proposed = self.inner.metadata.propose(payload);
        let unknown = || {
            Error::new(
                Code::Unknown,
                "the metadata group did not answer in time; look at `strategy show`",
            )
        };
        let replies = match tokio::time::timeout(JOURNAL_TIMEOUT, proposed).await {
            Err(_) => return Err(unknown()),
            Ok(Err(raft::Error::NotLeader(leader))) => {
                let hint = leader.and_then(|node| self.inner.view.name(node));
                return Err(
                    Error::new(Code::NotLeader, "another node leads the metadata group").hint(hint)
                );
            }
            Ok(Err(raft::Error::Uncertain)) => return Err(unknown()),
            Ok(Err(error)) => return Err(Error::new(Code::NotReady, error.to_string())),
            Ok(Ok((_, replies))) => replies,
        };
        let reply = replies.first().map(|bytes| codec::decode::<MetaReply>(bytes));
        match reply {
            Some(Ok(MetaReply::Done { .. })) => around.after(),
            Some(Ok(MetaReply::Refused(error))) => Err(error),
            _ => Err(Error::new(Code::Internal, "a metadata entry without a reply")),
        }
    }

    fn compare(
        &self,
        state: &ClusterState,
        shard: ShardId,
        leader: NodeId,
        copies: (crate::types::CopyId, Vec<(crate::types::CopyId, NodeId)>),
    ) {
        let Some(op) = state.operation() else { return };
        let turn = (op.id, op.turn);
        {
            let mut memory = self.inner.memory.lock();
            let tried = memory.unequal.contains_key(&shard);
            if tried || memory.compared.len() >= COMPARISONS_MAX || !memory.compared.insert(shard) {
                return;
            }
        }
        let this = self.clone();
        tokio::spawn(async move {
            let found = compare::run(&*this.inner.calls, shard, leader, copies).await;
            match found {
                Ok((copies, index)) => {
                    // The operation may have moved on to another step meanwhile, which changes nothing.
                    for _ in 0..ORDER_TRIES {
                        let state = this.state();
                        let Some(op) = state.operation().filter(|op| (op.id, op.turn) == turn)
                        else {
                            break;
                        };
                        let (copies, now_ms) = (copies.clone(), clock_ms());
                        let event = Event::Verified { shard, copies, index };
                        let (operation, step) = (op.id, op.step);
                        let command = MetaCommand::Advance { operation, step, event, now_ms };
                        match this.propose(command).await {
                            Err(error) if error.code == Code::OperationConflict => continue,
                            _ => break,
                        }
                    }
                }
                Err(compare::Failure::Later(why)) => {
                    tracing::info!(%shard, why, "not compared yet")
                }
                Err(compare::Failure::Unequal(why)) => {
                    tracing::error!(%shard, why, "a copy does not equal its owner's");
                    let mut memory = this.inner.memory.lock();
                    if memory.unequal_of == turn {
                        memory.unequal.insert(shard, why);
                    }
                }
            }
            this.inner.memory.lock().compared.remove(&shard);
            this.inner.wake.notify_one();
        });
    }

    /// Whether a change of strategy may start now.
    pub async fn precheck(&self, to: Strategy) -> Result<Precheck> {
        self.require_lead()?;
        let seen = self.look().await;
        Ok(precheck(&self.state(), &seen, to, clock_ms()))
    }

    /// Carries out an order of the user: journaled when this returns.
    pub async fn order(&self, by: &str, order: StrategyOrder) -> Result<Operation> {
        self.require_lead()?;
        match order {
            StrategyOrder::Prepare { to } => self.begin(by, to, false).await?,
            StrategyOrder::Switch { to } => self.begin(by, to, true).await?,
            StrategyOrder::Commit => self.steer(Event::CommitAsked).await?,
            StrategyOrder::Abort { reason } => self.steer(Event::Abort { reason }).await?,
            StrategyOrder::Revert { reason } => self.steer(Event::Revert { reason }).await?,
            StrategyOrder::Finalize => self.steer(Event::Finalize).await?,
        }
        self.inner.wake.notify_one();
        let state = self.state();
        let missing = || Error::new(Code::Internal, "the operation is not in the journal");
        state.operation().cloned().ok_or_else(missing)
    }

    async fn begin(&self, by: &str, to: Strategy, commit_asked: bool) -> Result<()> {
        // The journal's own refusal says more than the list of checks.
        self.state().may_begin(to, clock_ms())?;
        let found = self.precheck(to).await?;
        if found.verdict == Verdict::NoGo {
            return Err(Error::new(Code::PrecheckFailed, refusal(&found)));
        }
        let now_ms = clock_ms();
        self.propose(MetaCommand::Begin { to, by: by.to_owned(), commit_asked, now_ms }).await
    }

    /// An event that the user asks for; the coordinator may move the operation on at the same time.
    async fn steer(&self, event: Event) -> Result<()> {
        let mut refused = Error::new(Code::OperationConflict, "there is no operation");
        for _ in 0..ORDER_TRIES {
            let state = self.state();
            let Some(op) = state.operation() else { return Err(refused) };
            if event == Event::CommitAsked && op.commit_asked && !op.phase.is_over() {
                return Ok(());
            }
            let (operation, step, now_ms) = (op.id, op.step, clock_ms());
            let command = MetaCommand::Advance { operation, step, event: event.clone(), now_ms };
            match self.propose(command).await {
                Err(error) if error.code == Code::OperationConflict => {
                    let still = self.state().operation().map(|op| (op.id, op.step));
                    refused = error;
                    if still == Some((operation, step)) {
                        return Err(refused);
                    }
                }
                done => return done,
            }
        }
        Err(refused)
    }

    /// Sets a live setting.
    pub async fn set(&self, name: String, value: String) -> Result<Vec<SettingView>> {
        self.require_lead()?;
        crate::cluster::settings::check(&name, &value)?;
        self.propose(MetaCommand::Set { name, value }).await?;
        Ok(self.state().settings_view())
    }

    /// The latest operation and how far it is.
    pub fn show(&self) -> Result<StrategyView> {
        self.require_lead()?;
        let state = self.state();
        let progress = self.inner.memory.lock().progress.clone();
        Ok(StrategyView {
            strategy: state.strategy,
            epoch: state.epoch,
            operation: state.operation().cloned(),
            progress: Some(progress),
        })
    }
}

/// Whether a test holds back what comes after the commit point.
fn is_held(order: &ShardOrder) -> bool {
    matches!(order.change, ShardChange::Voters(_))
        && crate::faults::planted("hold-voters").is_some()
}

/// Every check that says no, in one line.
fn refusal(found: &Precheck) -> String {
    let no = found.checks.iter().filter(|c| c.verdict == Verdict::NoGo).map(|c| {
        let node = c.node.as_ref().map(|n| format!(" on {n}")).unwrap_or_default();
        format!("{}{node}: {} (limit {}): {}", c.name, c.value, c.limit, c.message)
    });
    no.collect::<Vec<_>>().join("; ")
}
