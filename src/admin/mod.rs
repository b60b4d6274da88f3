//! The spine of the control plane: one command from its arrival to its answer.
//!
//! 1 who may, 2 carry out here or pass on to the coordinator, 3 answer. Reads the cluster's state and this
//! node's copies; changes nothing by itself: forming a cluster is handed to the node, the strategy to the
//! coordinator, a change of a shard's members to the shard.

mod alarms;
mod disk;
mod load;
mod metrics;
mod oplog;
mod probe;
mod report;
mod stats;
mod status;

pub use alarms::Board;
pub use load::{Meter, SAMPLE_EVERY};
pub use stats::Rates;

use crate::admission::Budget;
use crate::cluster::heard::clock_ms;
use crate::cluster::{Heard, PeerBreakers, Registry, StateView};
use crate::raft::NoDigest;
use crate::request::{Commands, Origin, Served};
use crate::shard;
use crate::slowlog::SlowLog;
use crate::storage::wal::Wal;
use crate::strategy::{Calls, Coordinator};
use crate::telemetry::Logs;
use crate::types::{Code, DiskId, Error, NodeId, NodeName, Result, ShardId};
use crate::wire::client::Map;
use crate::wire::command::{Answer, Command, CopyDigest, Formation};
use crate::wire::operation::ShardOrder;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Forms a cluster; the node implements it.
pub trait Former: Send + Sync + 'static {
    /// Returns the map, and whether the cluster was formed just now.
    fn form(&self, formation: Formation, deadline: Instant) -> BoxFuture<'_, Result<(Map, bool)>>;
}

/// Who asked for a command.
#[derive(Clone, Debug)]
pub struct Asker {
    /// As logs and the journal show it.
    pub name: String,
    /// The connection is a node's: it may ask for what only nodes may.
    pub is_node: bool,
    /// The address that it came from, `host:port`; empty for what a node asks by itself.
    pub from: String,
    /// Another node passed it on, and it is not passed on again.
    pub passed_on: bool,
    /// That node, where it is known.
    pub through: Option<NodeName>,
}

/// The way to other nodes for what an operator asks.
pub trait PassOn: Send + Sync + 'static {
    /// Has a node carry out what the asker asks, as theirs.
    fn pass_on(
        &self,
        node: NodeId,
        asker: &Asker,
        command: Command,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>>;
}

/// What runs once the node belongs to a cluster.
#[derive(Clone)]
pub struct Control {
    /// The metadata group.
    pub metadata: crate::raft::Group,
    /// The coordinator; it acts while this node leads that group.
    pub coordinator: Coordinator,
    /// The way to other nodes.
    pub calls: Arc<dyn Calls>,
    /// The same for what is passed on.
    pub passing: Arc<dyn PassOn>,
}

/// What the control plane works with.
pub struct Admin {
    /// This node's name.
    pub name: NodeName,
    /// Its disk.
    pub disk: DiskId,
    /// When the process started.
    pub started: Instant,
    /// What is known of the cluster.
    pub view: StateView,
    /// The copies held here.
    pub registry: Registry,
    /// Which peers are heard.
    pub heard: Heard,
    /// What became of calls to them.
    pub breakers: PeerBreakers,
    /// Set once the metadata group is open.
    pub control: Arc<parking_lot::RwLock<Option<Control>>>,
    /// The data folder, whose disk is measured.
    pub data_dir: std::path::PathBuf,
    /// The log, for its counters.
    pub wal: Wal,
    /// What the data plane has served.
    pub served: Arc<Served>,
    /// How much of its budget is taken.
    pub budget: Budget,
    /// How busy this node was; `sample_load` feeds it.
    pub meter: Meter,
    /// What an operator should see to; `watch_alarms` feeds it.
    pub alarms: Board,
    /// What it did in the last seconds; the same feeds it.
    pub rates: Rates,
    /// The end of the validity of this node's certificate, in milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// Held while this node measures for the coordinator.
    pub probing: tokio::sync::Mutex<()>,
    /// What this process has said.
    pub logs: Logs,
    /// The requests that took long.
    pub slow: Arc<SlowLog>,
    /// Forms clusters.
    pub former: Arc<dyn Former>,
    /// Set when the node stops: no command starts any more.
    pub stopping: Arc<AtomicBool>,
}

impl Commands for Admin {
    fn run(
        &self,
        origin: Origin,
        command: Command,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Answer>> {
        let asker = Asker {
            name: origin.who.subject.label(),
            is_node: origin.who.subject.is_node(),
            from: origin.from.to_string(),
            passed_on: false,
            through: None,
        };
        Box::pin(self.handle(asker, command, deadline))
    }
}

impl Admin {
    /// Carries out one command.
    pub async fn handle(
        &self,
        asker: Asker,
        command: Command,
        deadline: Instant,
    ) -> Result<Answer> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::new(Code::NotReady, format!("{} is stopping", self.name)));
        }
        match command {
            Command::ClusterInit(ref formation) => {
                tracing::info!(by = asker.name, cluster = %formation.cluster, "cluster init");
                let (record, began) = (self.record_of(&asker, &command), Instant::now());
                let formed = self.former.form(formation.clone(), deadline).await;
                let done = formed.map(|(map, created)| Answer::Formed { map, created });
                self.record_ended(record, began, &done).await;
                done
            }
            Command::Status => self.status().map(Answer::Status),
            Command::Info => Ok(Answer::Info(self.info())),
            Command::ReplicaLag => self.replica_lag().map(Answer::ReplicaLag),
            Command::Alarms => Ok(Answer::Alarms(self.own_alarms())),
            Command::Metrics => self.metrics().await.map(Answer::Metrics),
            Command::StrategyHistory => {
                self.formed()?;
                Ok(Answer::History(self.view.state().operations.clone()))
            }
            Command::OperationLog { limit } => {
                self.formed()?;
                Ok(Answer::OperationLog(self.view.state().oplog.latest(limit as usize)))
            }
            Command::Runs { limit } => {
                self.formed()?;
                Ok(Answer::Runs(self.view.state().runs.latest(limit as usize)))
            }
            Command::RunShow { run } => {
                self.formed()?;
                let found = self.view.state().runs.shown(run);
                let found = found.map(|run| Answer::Run(Box::new(run)));
                let missing = || format!("there is no record of RUN-{run}; see `runs list`");
                found.ok_or_else(|| Error::new(Code::NotFound, missing()))
            }
            Command::Plans => {
                self.formed()?;
                Ok(Answer::Plans(self.view.state().plan_heads(clock_ms())))
            }
            Command::Logs(question) => Ok(Answer::Logs(self.logs.page(&question))),
            Command::SlowLog { limit } => Ok(Answer::SlowLog(self.slow.latest(limit as usize))),
            Command::Monitor(question) => {
                self.served.monitor.answer(&question, Instant::now()).map(Answer::Monitor)
            }
            Command::Ping => Ok(Answer::Pong),
            Command::Settings => {
                self.formed()?;
                Ok(Answer::Settings(self.view.state().settings_view()))
            }
            Command::Stats => Ok(Answer::Stats(Box::new(self.stats()))),
            Command::HotKeys { limit } => Ok(Answer::HotKeys(self.hot_keys(limit))),
            Command::Breakers => {
                self.formed()?;
                Ok(Answer::Breakers(self.breakers.all(Instant::now())))
            }
            Command::Breaker(order) => {
                self.formed()?;
                let command = Command::Breaker(order.clone());
                let (record, began) = (self.record_of(&asker, &command), Instant::now());
                let forced = self.breakers.force(&asker.name, &order, began);
                let done = forced.map(Answer::Breakers);
                self.record_ended(record, began, &done).await;
                done
            }
            Command::Report
            | Command::Shard(_)
            | Command::Probe(_)
            | Command::Echo(_)
            | Command::Record(_)
                if !asker.is_node =>
            {
                let (record, began) = (self.record_of(&asker, &command), Instant::now());
                let message = "only nodes of the cluster may ask for this";
                let denied = Err(Error::new(Code::Denied, message));
                self.record_ended(record, began, &denied).await;
                denied
            }
            Command::Report => self.report().map(Answer::Report),
            Command::Probe(order) => {
                let calls = self.formed()?.calls;
                self.probe(order, &*calls, deadline).await.map(Answer::Probed)
            }
            Command::Echo(_) => Ok(Answer::Echoed),
            Command::Record(record) => {
                let coordinator = self.formed()?.coordinator;
                coordinator.keep(*record).await.map(|()| Answer::Ordered)
            }
            Command::Shard(order) => self.order(order, deadline).await.map(|()| Answer::Ordered),
            Command::Precheck { .. }
            | Command::Strategy(_)
            | Command::StrategyOf { .. }
            | Command::StrategyShow
            | Command::Run(_)
            | Command::Set { .. } => self.coordinate(asker, command, deadline).await,
            Command::Digest { shard, at } => self.digest(shard, at, deadline).await,
        }
    }

    fn formed(&self) -> Result<Control> {
        let control = self.control.read().clone().filter(|_| self.view.state().is_formed());
        control.ok_or_else(|| {
            Error::new(Code::NotFormed, "this node belongs to no cluster; run `ppdb cluster init`")
        })
    }

    /// Carries out what only the coordinator can, here or on the node that leads the metadata group.
    async fn coordinate(
        &self,
        asker: Asker,
        command: Command,
        deadline: Instant,
    ) -> Result<Answer> {
        let Control { metadata, coordinator, passing, .. } = self.formed()?;
        let leader = metadata.state().leader.map(|(_, node)| node);
        if let Some(node) = leader
            && !metadata.state().is_leader
            && !asker.passed_on
        {
            let left = deadline.saturating_duration_since(Instant::now());
            return passing.pass_on(node, &asker, command, left).await;
        }
        let act = coordinate_here(&coordinator, &asker, command.clone());
        match self.record_of(&asker, &command) {
            Some(record) => coordinator.recorded(record, act).await,
            None => act.await,
        }
    }

    /// An order of the coordinator to a shard that this node leads.
    async fn order(&self, order: ShardOrder, deadline: Instant) -> Result<()> {
        let shard = order.shard;
        let copy = self.registry.get(shard).filter(|c| c.incarnation == order.incarnation);
        let copy = copy.ok_or_else(|| {
            Error::new(Code::NotFound, format!("{} holds no copy of {shard}", self.name))
        })?;
        copy.shard
            .order(order.fence, order.change, deadline)
            .await
            .map_err(|e| self.public(shard, e))
    }

    fn public(&self, shard: ShardId, error: shard::Error) -> Error {
        match error {
            shard::Error::NotLeader(leader) => {
                let hint = leader.and_then(|node| self.view.name(node));
                Error::new(Code::NotLeader, format!("{} does not lead {shard}", self.name))
                    .hint(hint)
            }
            shard::Error::Public(error) => error,
        }
    }

    async fn digest(&self, shard: ShardId, at: Option<u64>, deadline: Instant) -> Result<Answer> {
        let copy = self.registry.get(shard).ok_or_else(|| {
            Error::new(Code::NotFound, format!("{} holds no copy of {shard}", self.name))
        })?;
        let index = match at {
            Some(index) => index,
            None => copy
                .shard
                .propose_digest(deadline)
                .await
                .map_err(|error| self.public(shard, error))?,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // Who asked for the entry has to hear in time where it is, or would ask for another one.
        let wait = if at.is_none() { left / 2 } else { left };
        let found = copy.shard.group().digest(index, wait).await;
        if let (Err(NoDigest::Yet), None) = (&found, at) {
            return Ok(Answer::DigestBegun { node: self.name.clone(), index });
        }
        let found = found.map_err(|missing| match missing {
            NoDigest::Yet => {
                Error::new(Code::NotYet, format!("no digest of {shard} at {index} yet"))
                    .retry_after(100)
            }
            NoDigest::Ever => {
                let name = &self.name;
                let why = "it has passed that entry without one, or lost it";
                Error::new(
                    Code::NotFound,
                    format!("{name} has no digest of {shard} at {index}: {why}"),
                )
            }
        })?;
        let digest = found.map_err(|code| {
            Error::new(code, format!("the digest of {shard} on {} failed", self.name))
        })?;
        Ok(Answer::Digest(CopyDigest {
            node: self.name.clone(),
            shard,
            incarnation: copy.incarnation,
            index,
            keys: digest.keys,
            sha256: digest.sha256.iter().map(|b| format!("{b:02x}")).collect(),
        }))
    }
}

/// Carries out what only the coordinator can, on it.
async fn coordinate_here(
    coordinator: &Coordinator,
    asker: &Asker,
    command: Command,
) -> Result<Answer> {
    match command {
        Command::Precheck { to } => {
            coordinator.precheck(&asker.name, to).await.map(Answer::Precheck)
        }
        Command::Strategy(order) => {
            tracing::info!(by = asker.name, ?order, "strategy");
            let ordered = coordinator.order(&asker.name, None, order).await;
            ordered.map(|op| Answer::Operation(Box::new(op)))
        }
        Command::StrategyOf { operation, order } => {
            tracing::info!(by = asker.name, operation, ?order, "strategy");
            let ordered = coordinator.order(&asker.name, Some(operation), order).await;
            ordered.map(|op| Answer::Operation(Box::new(op)))
        }
        Command::StrategyShow => {
            coordinator.show().map(|view| Answer::StrategyView(Box::new(view)))
        }
        Command::Set { name, value } => {
            tracing::info!(by = asker.name, name, value, "setting");
            coordinator.set(name, value).await.map(Answer::Settings)
        }
        Command::Run(order) => coordinator.keep_run(&asker.name, &asker.from, *order).await,
        _ => Err(Error::new(Code::Internal, "not a command of the coordinator")),
    }
}
