//! A cluster in memory that switches between strategies, one phase with each look, and that can be told to
//! misbehave: for orders, waiting, comparing and scripts.

use super::caller::Caller;
use crate::client::{CallOptions, Level, OpAnswer, Page, ScanOptions};
use crate::cluster::core::tests::record as formation;
use crate::cluster::runs::RunEntry;
use crate::cluster::{ClusterState, MetaCommand, MetaReply};
use crate::types::{Code, Error, Incarnation, NodeName, Op, OpResult, Result, ShardId, Token};
use crate::wire::client::{Map, MapNode, MapShard, Role, Strategy};
use crate::wire::command::{Answer, Command, CopyDigest, Info, NodeStatus, SafetyInfo, Status};
use crate::wire::guard::Guard;
use crate::wire::operation::{
    Operation, Phase, Progress, SettingView, StrategyOrder, StrategyView, Times,
};
use crate::wire::plan::{Check, Field, Planned, Precheck, Verdict};
use crate::wire::runs::RunOrder;
use crate::wire::terms::{PlanId, Predicted};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A line as the shell reads it.
pub fn parse(line: &str) -> Result<super::args::Cli, clap::Error> {
    super::args::Cli::from_words(shlex::split(line).unwrap().into_iter().map(Into::into))
}

/// A command that was just given, and may take so long.
pub fn call(time: std::time::Duration) -> super::session::Call {
    super::session::Call {
        globals: Default::default(),
        typed: Default::default(),
        deadline: std::time::Instant::now() + time,
        talk: Default::default(),
    }
}

/// From `sharded` to `full`.
pub fn operation(id: u64, phase: Phase) -> Operation {
    Operation {
        id,
        step: 1,
        turn: 1,
        phase,
        from: Strategy::Sharded,
        to: Strategy::Full,
        by: "user ann".into(),
        commit_asked: false,
        reason: None,
        checkpoint: None,
        verified: vec![],
        dropped: false,
        times: Times { started_ms: 1_700_000_000_000, ..Times::default() },
        copy_bytes_per_s: None,
        guard: Guard::default(),
        last_failure: None,
        terms: Default::default(),
        actual: Default::default(),
    }
}

/// So many shards of 1 MiB.
pub fn progress(done: u32, total: u32) -> Progress {
    Progress {
        bytes_total: u64::from(total) << 20,
        bytes_done: u64::from(done) << 20,
        shards_total: total,
        shards_done: done,
        ..Progress::default()
    }
}

pub fn check(name: &str, verdict: Verdict, node: Option<&str>) -> Check {
    Check {
        name: name.into(),
        field: match name {
            "members" => Field::SystemHealthy,
            _ => Field::EnoughResources,
        },
        verdict,
        node: node.map(self::name),
        value: "1 GiB".into(),
        limit: "2 GiB".into(),
        age_ms: 1_500,
        used_percent: node.map(|_| 42),
        skipped: false,
        message: format!("{name} is short; make room"),
    }
}

/// To `full`: two checks, of which the second has that verdict.
pub fn precheck(verdict: Verdict) -> Precheck {
    Precheck {
        to: Strategy::Full,
        verdict,
        checks: vec![check("members", Verdict::Go, None), check("disk", verdict, Some("n2"))],
        predicted: Predicted { copy_bytes: 300 << 20, took_ms: 1_500, ..Predicted::default() },
        plan: (verdict != Verdict::NoGo)
            .then_some(Planned { id: PlanId(17), expires_ms: 1_700_000_900_000 }),
    }
}

/// A node without copies, just started.
pub fn info() -> Info {
    Info {
        node: name("n1"),
        node_id: None,
        disk: crate::types::DiskId(1),
        version: "0".into(),
        pid: 1,
        uptime_s: 1,
        ready: true,
        wal_bytes: 0,
        wal_syncs: 0,
        copies_bytes: 0,
        copies: vec![],
        reads: 0,
        writes: 0,
        safety: SafetyInfo::default(),
        metadata_term: None,
    }
}

pub fn settings() -> Vec<SettingView> {
    let setting = |name: &str, value: &str| SettingView {
        name: name.into(),
        value: value.into(),
        default: value.into(),
        doc: "a setting".into(),
    };
    vec![setting("reads.default", "linearizable"), setting("switch.cool_down", "10m")]
}

/// What happens to the next order.
#[derive(Clone, Debug)]
pub enum Mishap {
    /// It is refused.
    Refused(Error),
    /// It is carried out, and its answer is lost.
    AnswerLost,
    /// It is lost on its way.
    OrderLost,
}

/// What the twin is and does; tests set it before, and read it after.
pub struct State {
    pub strategy: Strategy,
    pub operations: Vec<Operation>,
    /// It does not leave this phase.
    pub stuck_in: Option<Phase>,
    /// On reaching this phase it aborts, or after the commit point reverts, by itself.
    pub gives_up_in: Option<Phase>,
    pub mishaps: VecDeque<Mishap>,
    /// Looks that are refused before one is answered.
    pub blind_looks: u32,
    pub verdict: Verdict,
    pub settings: Vec<SettingView>,
    pub keys: BTreeMap<Bytes, Bytes>,
    /// Digests that differ, by node and shard.
    pub odd_digests: Vec<(NodeName, ShardId)>,
    /// Digests that copies have yet to miss before they have one.
    pub missed_digests: usize,
    /// The leader says where a digest will be before it is there.
    pub digests_take_long: bool,
    /// A node that answers nothing.
    pub down: Option<NodeName>,
    /// Every command that changes something, in order.
    pub orders: Vec<Command>,
    /// Levels of the reads, in order.
    pub levels: Vec<Option<Level>>,
    /// The records of runs.
    pub records: ClusterState,
    /// What is said of the hour, if anything.
    pub off_peak: Option<Verdict>,
    /// What happens to the next events of runs, if anything.
    pub record_mishaps: VecDeque<Option<Mishap>>,
    /// Every event of a run is answered with this, and not taken, as long as it is set.
    pub records_refused: Option<Error>,
    /// A node whose reads of this key are odd.
    pub odd_reads: Option<(NodeName, Bytes)>,
}

/// The twin.
pub struct Twin(pub Mutex<State>);

impl Twin {
    pub fn new() -> Self {
        Self(Mutex::new(State {
            strategy: Strategy::Sharded,
            operations: vec![],
            stuck_in: None,
            gives_up_in: None,
            mishaps: VecDeque::new(),
            blind_looks: 0,
            verdict: Verdict::Go,
            settings: settings(),
            keys: BTreeMap::new(),
            odd_digests: vec![],
            missed_digests: 0,
            digests_take_long: false,
            down: None,
            orders: vec![],
            levels: vec![],
            records: formed(),
            off_peak: None,
            record_mishaps: VecDeque::new(),
            records_refused: None,
            odd_reads: None,
        }))
    }

    pub fn with(set: impl FnOnce(&mut State)) -> Self {
        let twin = Self::new();
        set(&mut twin.0.lock());
        twin
    }

    pub fn phase(&self) -> Option<Phase> {
        self.0.lock().operations.last().map(|op| op.phase)
    }
}

fn formed() -> ClusterState {
    let mut state = ClusterState::default();
    state.apply(&MetaCommand::Form(formation(3, 1, 12)));
    state
}

fn conflict(text: &str) -> Error {
    Error::new(Code::OperationConflict, text)
}

impl State {
    fn enter(&mut self, phase: Phase) {
        let Some(op) = self.operations.last_mut() else { return };
        (op.phase, op.step) = (phase, op.step + 1);
        match phase {
            Phase::Committing => self.strategy = op.to,
            Phase::Reverting => self.strategy = op.from,
            Phase::Soaking => op.times.soaking_ms = Some(op.times.started_ms + 1_000),
            _ => {}
        }
        if self.gives_up_in == Some(phase) {
            op.reason = Some("the guard said so".into());
            let back = if phase < Phase::Committing { Phase::Aborting } else { Phase::Reverting };
            self.gives_up_in = None;
            self.enter(back);
        }
    }

    /// One phase with each look.
    fn step(&mut self) {
        use Phase::*;
        let Some(op) = self.operations.last() else { return };
        if self.stuck_in == Some(op.phase) {
            return;
        }
        let next = match op.phase {
            Planned => Checkpointed,
            Checkpointed => Copying,
            Copying => CaughtUp,
            CaughtUp => Prepared,
            Prepared if op.commit_asked => Committing,
            Committing => Soaking,
            Finalizing => Finalized,
            Aborting => Aborted,
            Reverting => Reverted,
            Prepared | Soaking | Finalized | Aborted | Reverted => return,
        };
        self.enter(next);
    }

    fn order(&mut self, order: &StrategyOrder) -> Result<Operation> {
        use Phase::*;
        let phase = self.operations.last().map(|op| op.phase);
        let misfit = || conflict("the order does not fit what is under way");
        match order {
            StrategyOrder::Prepare { to, terms } | StrategyOrder::Switch { to, terms } => {
                if phase.is_some_and(Phase::holds_slot) || *to == self.strategy {
                    return Err(misfit());
                }
                if self.verdict == Verdict::NoGo {
                    return Err(Error::new(Code::PrecheckFailed, "disk: n2 is short; make room"));
                }
                if let Some(op) = self.operations.last_mut().filter(|op| op.phase == Soaking) {
                    op.phase = Finalized;
                }
                let id = self.operations.last().map_or(1, |op| op.id + 1);
                let commit_asked = matches!(order, StrategyOrder::Switch { .. });
                let from = self.strategy;
                let (to, terms) = (*to, terms.clone());
                let op = Operation { from, to, commit_asked, terms, ..operation(id, Planned) };
                self.operations.push(op);
            }
            StrategyOrder::Commit if phase == Some(Prepared) => {
                if let Some(op) = self.operations.last_mut() {
                    op.commit_asked = true;
                }
            }
            StrategyOrder::Abort { reason } if phase.is_some_and(|p| p < Committing) => {
                self.because(reason);
                self.enter(Aborting);
            }
            StrategyOrder::Revert { reason } if matches!(phase, Some(Committing | Soaking)) => {
                self.because(reason);
                self.enter(Reverting);
            }
            StrategyOrder::Finalize if phase == Some(Soaking) => self.enter(Finalizing),
            StrategyOrder::Throttle { copy_bytes_per_s }
                if phase.is_some_and(|p| p < Committing) =>
            {
                if let Some(op) = self.operations.last_mut() {
                    op.copy_bytes_per_s = *copy_bytes_per_s;
                }
            }
            _ => return Err(misfit()),
        }
        self.operations.last().cloned().ok_or_else(misfit)
    }

    fn because(&mut self, reason: &str) {
        if let Some(op) = self.operations.last_mut() {
            op.reason = Some(reason.to_owned());
        }
    }

    fn view(&mut self) -> Result<StrategyView> {
        if self.blind_looks > 0 {
            self.blind_looks -= 1;
            return Err(Error::new(Code::NotReady, "no coordinator"));
        }
        let operation = self.operations.last().cloned();
        let copying = operation.as_ref().is_some_and(|op| op.phase == Phase::Copying);
        let view = StrategyView {
            strategy: self.strategy,
            epoch: 4,
            operation,
            progress: copying.then(|| progress(3, 12)),
        };
        self.step();
        Ok(view)
    }

    fn digest(&mut self, shard: ShardId, at: Option<u64>, node: &NodeName) -> Result<CopyDigest> {
        if at.is_none() && *node != name("n2") {
            let error = Error::new(Code::NotLeader, format!("{node} does not lead {shard}"));
            return Err(error.hint(Some(name("n2"))));
        }
        if at.is_some() && self.missed_digests > 0 {
            self.missed_digests -= 1;
            return Err(Error::new(Code::NotFound, format!("{node} has no digest of {shard}")));
        }
        let odd = self.odd_digests.contains(&(node.clone(), shard));
        Ok(CopyDigest {
            node: node.clone(),
            shard,
            incarnation: Incarnation(1),
            index: at.unwrap_or(90),
            keys: 5,
            sha256: if odd { "bb" } else { "aa" }.repeat(32),
        })
    }

    fn answer(&mut self, command: &Command, node: &NodeName) -> Result<Answer> {
        Ok(match command {
            Command::Strategy(order) => Answer::Operation(Box::new(self.order(order)?)),
            Command::StrategyShow => Answer::StrategyView(Box::new(self.view()?)),
            Command::StrategyHistory => Answer::History(self.operations.clone()),
            Command::Plans => Answer::Plans(vec![]),
            Command::Precheck { to } => {
                let mut told = Precheck { to: *to, ..precheck(self.verdict) };
                told.checks.extend(self.off_peak.map(|verdict| check("off_peak", verdict, None)));
                Answer::Precheck(told)
            }
            Command::Settings => Answer::Settings(self.settings.clone()),
            Command::Set { name, value } => {
                let found = self.settings.iter_mut().find(|s| s.name == *name);
                let setting =
                    found.ok_or_else(|| Error::new(Code::BadConfig, "no such setting"))?;
                setting.value = value.clone();
                Answer::Settings(self.settings.clone())
            }
            Command::Digest { shard, at } => {
                let digest = self.digest(*shard, *at, node)?;
                match (at, self.digests_take_long) {
                    (None, true) => Answer::DigestBegun { node: digest.node, index: digest.index },
                    _ => Answer::Digest(digest),
                }
            }
            Command::Status => Answer::Status(self.status()),
            Command::Info => Answer::Info(Info { node: node.clone(), ..info() }),
            Command::ReplicaLag => Answer::ReplicaLag(vec![]),
            Command::Run(order) => self.event(order)?,
            Command::RunShow { run } => {
                let found = self.records.runs.shown(*run);
                let missing = || Error::new(Code::NotFound, "there is no such record");
                Answer::Run(Box::new(found.ok_or_else(missing)?))
            }
            other => panic!("{other:?} is not part of any test"),
        })
    }

    fn event(&mut self, order: &RunOrder) -> Result<Answer> {
        let (by, from) = ("user ann".to_owned(), "10.0.0.9:5000".to_owned());
        // Before every operation.
        let entry = RunEntry { order: order.clone(), by, from, now_ms: 1_600_000_000_000 };
        match self.records.apply(&MetaCommand::Run(Box::new(entry))) {
            MetaReply::Refused(error) => Err(error),
            MetaReply::Done { .. } => self.records.runs.answer(order),
        }
    }

    fn status(&self) -> Status {
        let node = |n: &str| NodeStatus {
            name: name(n),
            role: Role::Primary,
            addr: format!("{n}:1"),
            up: self.down != Some(name(n)),
            shards_owned: 1,
            copies: 2,
        };
        Status {
            cluster: "c".into(),
            epoch: 4,
            strategy: self.strategy,
            answered_by: name("n1"),
            metadata_leader: Some(name("n1")),
            nodes: vec![node("n1"), node("n2")],
            shards_leaderless: vec![],
            may_fail_without_loss: 0,
            messages: vec![],
            alarms: vec![],
            switches: Default::default(),
        }
    }
}

impl Caller for Twin {
    async fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        _timeout: Duration,
    ) -> Result<(Answer, NodeName)> {
        tokio::task::yield_now().await;
        let mut state = self.0.lock();
        let by = node.cloned().unwrap_or_else(|| name("n1"));
        if state.down.as_ref() == Some(&by) {
            return Err(Error::new(Code::Unreachable, format!("{by} is down")));
        }
        let command = match command {
            Command::StrategyOf { operation, order } => {
                let latest = state.operations.last().map(|op| op.id);
                if latest != Some(operation) {
                    return Err(conflict("the order means another operation"));
                }
                Command::Strategy(order)
            }
            command => command,
        };
        let (is_order, is_event) = (
            matches!(command, Command::Strategy(_) | Command::Set { .. }),
            matches!(command, Command::Run(_)),
        );
        if is_order {
            state.orders.push(command.clone());
        }
        if let (true, Some(error)) = (is_event, &state.records_refused) {
            return Err(error.clone());
        }
        if is_order || is_event {
            let lost = Error::new(Code::Unknown, "the answer was lost");
            let mishap = match is_event {
                true => state.record_mishaps.pop_front().flatten(),
                false => state.mishaps.pop_front(),
            };
            match mishap {
                None => {}
                Some(Mishap::Refused(error)) => return Err(error),
                Some(Mishap::OrderLost) => return Err(lost),
                Some(Mishap::AnswerLost) => {
                    state.answer(&command, &by)?;
                    return Err(lost);
                }
            }
        }
        Ok((state.answer(&command, &by)?, by))
    }

    async fn call(&self, ops: Vec<Op>, options: &CallOptions) -> Vec<Result<OpAnswer>> {
        let mut state = self.0.lock();
        let answer = |result| OpAnswer {
            result,
            token: Token { shard: ShardId(0), incarnation: Incarnation(1), index: 1 },
            served_by: name("n1"),
            age_ms: None,
        };
        let mut apply = |op: Op| {
            Ok(answer(match op {
                Op::Get { key } => {
                    state.levels.push(options.level);
                    let asked = options.node.clone().map(|node| (node, key.clone()));
                    if asked.is_some() && state.odd_reads == asked {
                        return Ok(answer(OpResult::Nil));
                    }
                    state.keys.get(&key).cloned().map_or(OpResult::Nil, OpResult::Value)
                }
                Op::Set { key, value, .. } => {
                    state.keys.insert(key, value);
                    OpResult::Done
                }
                Op::Del { key } => OpResult::Bool(state.keys.remove(&key).is_some()),
                Op::Exists { key } => OpResult::Bool(state.keys.contains_key(&key)),
                Op::Incr { by, .. } => OpResult::Int(by),
                other => panic!("{other:?} is not part of any test"),
            }))
        };
        ops.into_iter().map(&mut apply).collect()
    }

    async fn scan(&self, scan: &ScanOptions, _options: &CallOptions) -> Result<Page> {
        let state = self.0.lock();
        let found = state.keys.iter().filter(|(key, _)| key.starts_with(&scan.prefix));
        let found = found.take(scan.limit as usize);
        let entries = found.map(|(k, v)| (k.clone(), (!scan.keys_only).then(|| v.clone())));
        Ok(Page { entries: entries.collect(), cursor: None })
    }

    async fn map(&self) -> Result<Arc<Map>> {
        let node = |n: &str| MapNode { name: name(n), role: Role::Primary, addr: format!("{n}:1") };
        let shard = |id| MapShard {
            id: ShardId(id),
            incarnation: Incarnation(1),
            // Not the leader: whoever asks has to follow a hint.
            owner: name("n1"),
            copies: vec![name("n1"), name("n2"), name("n3")],
        };
        let (nodes, shards) = (vec![node("n1"), node("n2"), node("n3")], vec![shard(0), shard(1)]);
        Ok(Arc::new(Map { epoch: 4, nodes, shards, ..Map::default() }))
    }
}
