//! The coordinator: asks every node what it knows, decides by `core`, journals and sends orders. It runs on
//! every primary and acts only while this node leads the metadata group, proven by a quorum each round.
//!
//! What it keeps between rounds (who answered since when, comparisons under way) may be lost at any moment.

use super::around::{self, Around};
use super::compare;
use super::core::{Action, Decision, Probed, Seen, decide};
use super::guard::{self, Watch};
use super::pace::{Demand, Pace, Turns};
use super::probing::Made;
use super::recorder::Recording;
use crate::cluster::heard::clock_ms;
use crate::cluster::settings::copy_rate;
use crate::cluster::{ClusterState, Event, MetaCommand, MetaReply, StateView};
use crate::raft::{self, Group};
use crate::types::{Code, Error, NodeId, Result, ShardId};
use crate::wire::codec;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::{
    NodeReport, Operation, Phase, Progress, SettingView, ShardChange, ShardOrder, StrategyOrder,
    StrategyView,
};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Between two rounds while an operation runs.
const ROUND_BUSY: Duration = Duration::from_millis(50);
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
/// Orders to shards on their way at a time,
const ORDERS_MAX: usize = 12;
/// and in a round while clients are served: a group whose voters change stands still for a moment, and its copies have
/// work for longer.
const ORDERS_MAX_SERVING: usize = 2;
/// Shards being compared at a time,
const COMPARISONS_MAX: usize = 6;
/// and while clients are served: each costs every holder a flush and a scan.
const COMPARISONS_MAX_SERVING: usize = 1;
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
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    view: StateView,
    metadata: Group,
    pub(super) calls: Arc<dyn Calls>,
    pub(super) memory: Mutex<Memory>,
    /// Held while the cluster is probed: a second probe would measure the first one.
    pub(super) probing: tokio::sync::Mutex<()>,
    /// Operations of operators that are under way here.
    pub(super) recording: Recording,
    wake: Notify,
}

#[derive(Default)]
pub(super) struct Memory {
    answering_since: BTreeMap<NodeId, Instant>,
    /// Shards with an order or a comparison on its way.
    ordered: BTreeSet<ShardId>,
    compared: BTreeSet<ShardId>,
    /// Comparisons that failed, for the operation and turn they were made in.
    unequal: BTreeMap<ShardId, String>,
    unequal_of: (u64, u64),
    progress: Progress,
    watch: Watch,
    pace: Pace,
    demand: Demand,
    turns: Turns,
    /// The blocker last logged.
    told: Option<String>,
    /// The last probe.
    pub(super) probed: Option<Made>,
}

impl Coordinator {
    /// A coordinator over the metadata group of this node.
    pub fn new(view: StateView, metadata: Group, calls: Arc<dyn Calls>) -> Self {
        let (memory, probing, wake) = (Mutex::default(), Default::default(), Notify::new());
        let recording = Recording::default();
        let inner = Inner { view, metadata, calls, memory, probing, recording, wake };
        Self { inner: Arc::new(inner) }
    }

    /// Runs for ever.
    pub async fn run(self) {
        loop {
            let busy = match self.leads().await {
                true => {
                    self.settle_orphans().await;
                    self.round().await
                }
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

    pub(super) fn state(&self) -> Arc<ClusterState> {
        self.inner.view.state()
    }

    /// The node that leads the metadata group, if it is another one.
    pub(super) fn elsewhere(&self) -> Option<NodeId> {
        let state = self.inner.metadata.state();
        state.leader.map(|(_, node)| node).filter(|_| !state.is_leader)
    }

    /// Refuses unless this node leads; the hint names who does.
    pub(super) fn require_lead(&self) -> Result<()> {
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
        if let (Some(event), Some(op)) = (self.guard(&state, &seen), state.operation()) {
            self.journal(op, event).await;
            self.inner.wake.notify_one();
            return true;
        }
        self.measure_ahead(&state, &seen);
        let Decision { actions, progress } = decide(&state, &seen, clock_ms());
        self.note(&state, &seen, progress);
        let serving = self.inner.memory.lock().demand.is_there(Instant::now());
        let mut orders = vec![];
        let busy = state.active().is_some_and(|op| op.phase.holds_slot()) || !actions.is_empty();
        for action in actions {
            match action {
                Action::Journal(event) => {
                    if let Some(op) = state.operation() {
                        let event = self.with_cost(op, event);
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
                    let most = if serving { COMPARISONS_MAX_SERVING } else { COMPARISONS_MAX };
                    self.compare(&state, shard, leader, (reference, copies), most);
                }
            }
        }
        let most = if serving { ORDERS_MAX_SERVING } else { ORDERS_MAX };
        self.inner.memory.lock().turns.order(&mut orders);
        for (node, order) in orders {
            let shard = order.shard;
            {
                let mut memory = self.inner.memory.lock();
                if memory.ordered.len() >= most || !memory.ordered.insert(shard) {
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
                if !serving {
                    this.inner.wake.notify_one();
                }
            });
        }
        busy
    }

    /// Asks every member for its report.
    pub(super) async fn look(&self) -> Seen {
        let state = self.state();
        let asked = state.members.keys().map(|node| async {
            let call = self.inner.calls.call(*node, COORDINATOR, Command::Report, REPORT_TIMEOUT);
            match tokio::time::timeout(REPORT_TIMEOUT, call).await {
                Ok(Ok(Answer::Report(report))) => Some((*node, report, clock_ms())),
                _ => None,
            }
        });
        let answers = join_all(asked).await;
        let mut reports: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
        let mut arrived_ms = BTreeMap::new();
        for (node, report, at_ms) in answers.into_iter().flatten() {
            reports.insert(node, report);
            arrived_ms.insert(node, at_ms);
        }
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
        let probed = memory.probed.as_ref().map(|made| Probed {
            reports: made.reports.clone(),
            age_ms: now.saturating_duration_since(made.ended).as_millis() as u64,
        });
        Seen { reports, arrived_ms, steady_ms, unequal: memory.unequal.clone(), probed }
    }

    /// What the guard wants journaled, after a window that has ended.
    fn guard(&self, state: &ClusterState, seen: &Seen) -> Option<Event> {
        let now = Instant::now();
        let memory = &mut *self.inner.memory.lock();
        memory.pace.look(seen, now);
        memory.demand.look(seen, now);
        let op = state.active()?;
        let (level, lag) = (guard::level(seen), guard::lag(state, seen));
        if !memory.watch.look(op, level, lag, now) {
            return None;
        }
        let step = guard::judge(op, memory.watch.windows(), clock_ms());
        let sent_bytes_per_s = memory.pace.busiest_bytes_per_s();
        let event = guard::event(step, state.copy_rate(), sent_bytes_per_s)?;
        memory.watch.acted();
        Some(event)
    }

    /// Before a switch settles, what it did cost its clients is noted.
    fn with_cost(&self, op: &Operation, event: Event) -> Event {
        let settles = event == Event::Settled && op.phase == Phase::Committing;
        match settles && op.actual.write_gap_ms.is_none() {
            true => Event::Measured { write_gap_ms: self.inner.memory.lock().watch.gap_ms() },
            false => event,
        }
    }

    fn note(&self, state: &ClusterState, seen: &Seen, progress: Progress) {
        let mut memory = self.inner.memory.lock();
        let left_bytes = progress.bytes_total.saturating_sub(progress.bytes_done);
        let progress = Progress {
            bytes_per_s: memory.pace.bytes_per_s(),
            limit_bytes_per_s: state.copy_rate(),
            eta_s: memory.pace.eta_s(left_bytes),
            service: guard::level(seen),
            write_gap_ms: memory.watch.gap_ms(),
            revert_left_ms: state.revert_left_ms(clock_ms()),
            ..progress
        };
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

    pub(super) async fn propose(&self, command: MetaCommand) -> Result<()> {
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
        most: usize,
    ) {
        let Some(op) = state.operation() else { return };
        let turn = (op.id, op.turn);
        {
            let mut memory = self.inner.memory.lock();
            let tried = memory.unequal.contains_key(&shard);
            if tried || memory.compared.len() >= most || !memory.compared.insert(shard) {
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

    /// Carries out an order of the user: journaled when this returns. If it names the operation that it means,
    /// it is refused once another one is the latest.
    pub async fn order(
        &self,
        by: &str,
        meant: Option<u64>,
        order: StrategyOrder,
    ) -> Result<Operation> {
        self.require_lead()?;
        let event = match order {
            StrategyOrder::Prepare { to, terms } => {
                return self.begun(self.begin(by, to, false, terms).await);
            }
            StrategyOrder::Switch { to, terms } => {
                return self.begun(self.begin(by, to, true, terms).await);
            }
            StrategyOrder::Commit => Event::CommitAsked,
            StrategyOrder::Abort { reason } => Event::Abort { reason },
            StrategyOrder::Revert { reason } => Event::Revert { reason },
            StrategyOrder::Finalize => Event::Finalize,
            StrategyOrder::Throttle { copy_bytes_per_s } => {
                let bad = |why: String| Error::new(Code::BadRequest, format!("the rate: {why}"));
                copy_bytes_per_s.map_or(Ok(()), copy_rate).map_err(bad)?;
                Event::Throttled { copy_bytes_per_s }
            }
        };
        self.begun(self.steer(meant, event).await)
    }

    /// The operation that an order has led to.
    fn begun(&self, ordered: Result<()>) -> Result<Operation> {
        ordered?;
        self.inner.wake.notify_one();
        let state = self.state();
        let missing = || Error::new(Code::Internal, "the operation is not in the journal");
        state.operation().cloned().ok_or_else(missing)
    }

    /// An event that the user asks for; the coordinator may move the operation on at the same time.
    async fn steer(&self, meant: Option<u64>, event: Event) -> Result<()> {
        let mut refused = Error::new(Code::OperationConflict, "there is no operation");
        for _ in 0..ORDER_TRIES {
            let state = self.state();
            let Some(op) = state.operation() else { return Err(refused) };
            if let Some(meant) = meant.filter(|meant| *meant != op.id) {
                return Err(other_operation(meant, op));
            }
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

/// An order means an operation that is not the latest.
fn other_operation(meant: u64, latest: &Operation) -> Error {
    let (id, phase) = (latest.id, latest.phase.name());
    let message = format!(
        "the order means operation {meant}, and the latest is operation {id}, {phase}; look at \
         `strategy show` and give the order for that one"
    );
    Error::new(Code::OperationConflict, message)
}

/// Whether a test holds back what comes after the commit point.
fn is_held(order: &ShardOrder) -> bool {
    matches!(order.change, ShardChange::Voters(_))
        && crate::faults::planted("hold-voters").is_some()
}
