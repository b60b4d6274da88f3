//! A node put together: data folder, log, endpoint, groups, data plane, control plane.
//!
//! Two runtimes: one drives the network and consensus, the other carries out requests. What the parts do
//! is in their modules; here they are started in order and stopped in reverse.

mod calls;
mod disk;
mod formation;
mod links;
mod rejoin;
mod scrape;
mod server;

use crate::admin::{Admin, Board, Control, Meter, Rates};
use crate::admission::{Budget, Pressure};
use crate::cluster::{Agent, Heard, PeerBreakers, Registry, StateView};
use crate::config::ServeSettings;
use crate::pki::{Identity, Subject};
use crate::raft::{self, Host};
use crate::request::{Plane, Served};
use crate::slowlog::SlowLog;
use crate::storage::{
    self,
    wal::{self, Wal},
};
use crate::strategy::{Calls, Coordinator};
use crate::telemetry::Logs;
use crate::transport::Endpoint;
use crate::types::{Code, DiskId, Error, NodeId, NodeName, Result, limits};
use crate::wire::client::Role;
use crate::wire::peer::FormationRecord;
use disk::Disk;
use links::PeerLinks;
use parking_lot::{Mutex, RwLock};
use scrape::Scrape;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Cores for each thread that drives the network and consensus. On a small machine a second such thread costs
/// more in waking each other than it brings.
const CORES_PER_CONSENSUS_THREAD: usize = 4;
/// How often it is looked whether clients are being served, and from how many operations in that time on they are.
const DEMAND_LOOK: Duration = Duration::from_millis(100);
const DEMAND_MIN: u64 = limits::SERVING_OPS_PER_S * DEMAND_LOOK.as_millis() as u64 / 1_000;
/// How long a clean stop may take before what is left is abandoned (nothing acknowledged is lost by it).
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Threads that drive the network and consensus.
fn consensus_threads() -> usize {
    cores().div_ceil(CORES_PER_CONSENSUS_THREAD)
}

/// Threads that carry out requests.
pub fn request_threads() -> usize {
    cores().saturating_sub(consensus_threads()).max(1)
}

/// A running node.
pub(crate) struct Node {
    name: NodeName,
    role: Role,
    cluster: String,
    disk_id: DiskId,
    disk: Mutex<Disk>,
    wal: Wal,
    endpoint: Endpoint,
    view: StateView,
    registry: Registry,
    heard: Heard,
    breakers: PeerBreakers,
    plane: Plane,
    /// The runtime that drives the network and consensus.
    consensus: Handle,
    /// The runtime that carries out requests.
    requests: Handle,
    raft_options: raft::Options,
    admin: Arc<Admin>,
    control: Arc<RwLock<Option<Control>>>,
    started: RwLock<Option<Started>>,
    forming: tokio::sync::Mutex<()>,
    stopping: Arc<AtomicBool>,
    /// Where a part reports that the node cannot go on.
    fatal: mpsc::Sender<Error>,
}

/// What runs once the node belongs to a cluster.
#[derive(Clone)]
struct Started {
    host: Host,
    agent: Arc<Agent>,
}

/// Runs a node until SIGTERM or SIGINT, or until it must stop: then the error says why.
/// `logs` is what this process says.
pub async fn serve(settings: ServeSettings, logs: Logs) -> Result<()> {
    let requests = Handle::current();
    let consensus = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(consensus_threads())
        .thread_name("ppdb-consensus")
        .enable_all()
        .build()
        .map_err(|e| Error::new(Code::Internal, format!("consensus runtime: {e}")))?;
    let (fatal, failed) = mpsc::channel(8);
    let handle = consensus.handle().clone();
    let ran = handle.spawn(run(settings, logs, requests, fatal, failed)).await;
    // The runtime is not dropped here: dropping it blocks, which an async thread must not do.
    consensus.shutdown_background();
    ran.unwrap_or_else(|e| Err(Error::new(Code::Internal, format!("the node panicked: {e}"))))
}

async fn run(
    settings: ServeSettings,
    logs: Logs,
    requests: Handle,
    fatal: mpsc::Sender<Error>,
    mut failed: mpsc::Receiver<Error>,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let metrics = scrape(&settings).await?;
    let node = Node::open(settings, logs, requests, fatal).await?;
    let joined = node.disk.lock().formation().cloned();
    if let Some(record) = joined {
        node.start_cluster(record).await?;
    }
    tracing::info!(node = %node.name, addr = %node.endpoint.local_addr(), disk = %node.disk_id, "serving");
    tokio::spawn(node.clone().accept());
    node.requests.spawn(node.admin.clone().sample_load());
    node.requests.spawn(node.admin.clone().watch_alarms());
    if let Some(metrics) = metrics {
        node.requests.spawn(metrics.run(node.admin.clone()));
    }
    let ended = tokio::select! {
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        Some(error) = failed.recv() => Err(error),
        error = node.wal.failed() => Err(Error::new(Code::Corrupt, error.to_string())),
    };
    match &ended {
        Ok(()) => node.stop().await,
        Err(error) => tracing::error!(%error, "stopping at once"),
    }
    ended
}

/// The endpoint of metrics, if there shall be one. Bound first: a node that cannot be watched as it shall be does not
/// start.
async fn scrape(settings: &ServeSettings) -> Result<Option<Scrape>> {
    let Some(metrics) = settings.metrics else { return Ok(None) };
    let identity = Identity::load(&settings.ca, &settings.cert, &settings.key)?;
    Scrape::bind(metrics.listen, metrics.tls.then_some(&identity)).await.map(Some)
}

impl Node {
    async fn open(
        settings: ServeSettings,
        logs: Logs,
        requests: Handle,
        fatal: mpsc::Sender<Error>,
    ) -> Result<Arc<Self>> {
        let identity = Identity::load(&settings.ca, &settings.cert, &settings.key)?;
        check_name(&identity, &settings.name)?;
        let opening = settings.clone();
        let (disk, wal) = tokio::task::spawn_blocking(move || open_storage(&opening))
            .await
            .map_err(|e| Error::new(Code::Internal, e.to_string()))??;
        let endpoint = Endpoint::server(settings.listen, &identity)
            .map_err(|e| Error::new(Code::BadConfig, e.to_string()))?;
        let (view, registry, heard) = (StateView::default(), Registry::default(), Heard::default());
        let breakers = PeerBreakers::new(settings.name.clone(), view.clone(), heard.clone());
        let control = Arc::new(RwLock::new(None));
        let stopping = Arc::new(AtomicBool::new(false));
        let served = Arc::new(Served::default());
        let (budget, slow) = (Budget::default(), Arc::new(SlowLog::default()));
        let certificate_expires_ms = expires_ms(&identity);
        Ok(Arc::new_cyclic(|me: &Weak<Node>| {
            let admin = Arc::new(Admin {
                name: settings.name.clone(),
                disk: disk.id(),
                started: Instant::now(),
                view: view.clone(),
                registry: registry.clone(),
                heard: heard.clone(),
                breakers: breakers.clone(),
                control: control.clone(),
                data_dir: disk.dir().to_owned(),
                wal: wal.clone(),
                served: served.clone(),
                budget: budget.clone(),
                meter: Meter::default(),
                alarms: Board::default(),
                rates: Rates::default(),
                certificate_expires_ms,
                probing: Default::default(),
                logs: logs.clone(),
                slow: slow.clone(),
                former: Arc::new(formation::NodeFormer(me.clone())),
                stopping: stopping.clone(),
            });
            let plane = Plane {
                name: settings.name.clone(),
                view: view.clone(),
                registry: registry.clone(),
                budget,
                commands: admin.clone(),
                served,
                slow,
            };
            Node {
                name: settings.name.clone(),
                role: settings.role,
                cluster: identity.principal().cluster.clone(),
                disk_id: disk.id(),
                disk: Mutex::new(disk),
                wal,
                endpoint,
                view,
                registry,
                heard,
                breakers,
                plane,
                consensus: Handle::current(),
                requests,
                raft_options: raft_options(&settings),
                admin,
                control,
                started: RwLock::new(None),
                forming: tokio::sync::Mutex::new(()),
                stopping,
                fatal,
            }
        }))
    }

    /// Starts what a member of a cluster runs, on the runtime for it, whoever asks.
    async fn start_cluster(self: &Arc<Self>, record: FormationRecord) -> Result<()> {
        let node = self.clone();
        let started = self.consensus.spawn(async move { node.start_groups(record).await }).await;
        started.unwrap_or_else(|e| Err(Error::new(Code::Internal, e.to_string())))
    }

    /// Its groups, and the agent that keeps them as placed. Their tasks run where this does.
    async fn start_groups(self: &Arc<Self>, record: FormationRecord) -> Result<()> {
        let me = record.members.iter().find(|m| m.name == self.name).map(|m| m.id);
        let id: NodeId = me.ok_or_else(|| {
            Error::new(Code::Corrupt, format!("the data folder's formation lacks {}", self.name))
        })?;
        self.view.set_formation(record.clone());
        let (endpoint, view) = (self.endpoint.clone(), self.view.clone());
        let links = PeerLinks::new(endpoint, view, self.breakers.clone(), Handle::current());
        tokio::spawn(links.clone().beacon(id));
        let host = Host::new(self.wal.clone(), Arc::new(links.clone()), self.raft_options.clone());
        tokio::spawn(self.clone().keep_watch(host.clone()));
        let agent = Arc::new(Agent {
            node: id,
            disk: self.disk_id,
            data_dir: self.disk.lock().dir().to_owned(),
            wal: self.wal.clone(),
            host: host.clone(),
            view: self.view.clone(),
            registry: self.registry.clone(),
            clock: Arc::new(self.heard.clone()),
            filling: tokio::sync::Mutex::default(),
        });
        let meta = agent.open_metadata().await?;
        let passing = Arc::new(calls::NodeCalls { me: id, links, node: Arc::downgrade(self) });
        let calls: Arc<dyn Calls> = passing.clone();
        let coordinator = Coordinator::new(self.view.clone(), meta.clone(), calls.clone());
        tokio::spawn(coordinator.clone().run());
        *self.control.write() =
            Some(Control { metadata: meta.clone(), coordinator, calls, passing });
        *self.started.write() = Some(Started { host, agent: agent.clone() });
        let (fatal, stopping) = (self.fatal.clone(), self.stopping.clone());
        let driven = meta.clone();
        tokio::spawn(async move {
            let error = agent.run(driven).await;
            if !stopping.load(Ordering::Acquire) {
                let _ = fatal.send(error).await;
            }
        });
        tokio::spawn(self.clone().watch_members(id, meta));
        if rejoin::founds(&record, &self.name) {
            tokio::spawn(self.clone().complete_formation(Arc::new(record)));
        }
        Ok(())
    }

    /// Sees for ever to what the node takes on and says: what an operator has set, how full the log's queue and the overlays
    /// are, and whether copies have to make way, because clients are being served or something runs out.
    async fn keep_watch(self: Arc<Self>, host: Host) {
        let (budget, served) = (&self.plane.budget, &self.plane.served);
        let mut ticks = tokio::time::interval(DEMAND_LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut before, mut filter) = (0, String::new());
        loop {
            let due = ticks.tick().await;
            self.set_log_filter(&mut filter);
            let state = self.view.state();
            self.plane.slow.set_threshold(state.slow_log_threshold());
            let wanted = state.safety();
            if wanted != budget.limits() {
                tracing::info!(?wanted, "the safety net is set");
                budget.set_limits(wanted);
            }
            budget.set_pressure(&self.pressure(due.elapsed()));
            let now = served.reads.load(Ordering::Relaxed) + served.writes.load(Ordering::Relaxed);
            let is_serving = now.saturating_sub(before) >= DEMAND_MIN;
            host.make_way(budget.sheds_copies() || is_serving);
            before = now;
        }
    }

    /// Lets the logs say what an operator has set; `filter` is what was set last.
    fn set_log_filter(&self, filter: &mut String) {
        let state = self.view.state();
        if state.log_level() == filter {
            return;
        }
        *filter = state.log_level().to_owned();
        match self.admin.logs.set_filter(filter) {
            Ok(()) => tracing::info!(filter, "the log filter is set"),
            Err(error) => tracing::warn!(error, "the log filter is not set"),
        }
    }

    /// What can run out beside the budget for requests; `late` is how late this task got its turn.
    fn pressure(&self, late: Duration) -> Pressure {
        let copies = self.registry.all();
        let groups = || copies.iter().map(|(_, copy)| copy.shard.group());
        let unflushed = groups().map(|group| group.store().overlay_percent());
        Pressure {
            log_queue_percent: self.wal.queue_percent(),
            fsync_wait: self.wal.writing_for(),
            cpu_wait: late,
            unapplied_entries: groups().map(|group| group.unapplied()).max().unwrap_or_default(),
            unflushed_percent: unflushed.max().unwrap_or_default(),
        }
    }

    fn host(&self) -> Option<Host> {
        self.started.read().as_ref().map(|s| s.host.clone())
    }

    fn agent(&self) -> Option<Arc<Agent>> {
        self.started.read().as_ref().map(|s| s.agent.clone())
    }

    /// A clean stop: no new requests, connections told, everything applied flushed.
    async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let orderly = async {
            self.endpoint.close("the node is stopping").await;
            if let Some(host) = self.host() {
                host.shutdown().await;
            }
        };
        match tokio::time::timeout(STOP_TIMEOUT, orderly).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped without flushing everything; the log has it"),
        }
    }
}

/// The data folder and the log in it. Blocks.
fn open_storage(settings: &ServeSettings) -> Result<(Disk, Wal)> {
    let disk = Disk::open(&settings.data_dir)?;
    let copies = settings.data_dir.join("copies");
    if copies.exists() {
        storage::sweep_removed(&copies)
            .map_err(|e| Error::new(Code::Corrupt, format!("{}: {e}", copies.display())))?;
    }
    let options =
        wal::Options { segment_bytes: settings.wal_segment_bytes, ..wal::Options::default() };
    let wal = Wal::open(&settings.data_dir.join("wal"), options)
        .map_err(|e| Error::new(Code::Corrupt, e.to_string()))?;
    Ok((disk, wal))
}

fn raft_options(settings: &ServeSettings) -> raft::Options {
    raft::Options {
        heartbeat_ms: settings.raft_heartbeat.as_millis() as u64,
        election_min_ms: settings.raft_election_min.as_millis() as u64,
        election_max_ms: settings.raft_election_max.as_millis() as u64,
        log_keep_bytes: log_keep_bytes(),
        ..raft::Options::default()
    }
}

/// The end of a certificate's validity, in milliseconds since 1970.
fn expires_ms(identity: &Identity) -> u64 {
    u64::try_from(identity.not_after().unix_timestamp()).unwrap_or_default() * 1_000
}

/// Tests let copies need a snapshot with little data: `PPDB_TEST_LOG_KEEP_BYTES`, in a debug build.
fn log_keep_bytes() -> u64 {
    let usual = raft::Options::default().log_keep_bytes;
    #[cfg(debug_assertions)]
    if let Ok(text) = std::env::var("PPDB_TEST_LOG_KEEP_BYTES") {
        return text.parse().unwrap_or(usual);
    }
    usual
}

/// A node serves under the name in its certificate, or not at all.
fn check_name(identity: &Identity, name: &NodeName) -> Result<()> {
    match &identity.principal().subject {
        Subject::Node(certified) if certified == name => Ok(()),
        Subject::Node(certified) => Err(Error::new(
            Code::BadCertificate,
            format!("the certificate is for node {certified}, the settings say {name}"),
        )),
        Subject::User(user) => Err(Error::new(
            Code::BadCertificate,
            format!(
                "the certificate is for user {user}; a node needs `ppdb cert issue node {name}`"
            ),
        )),
    }
}

/// The signals that ask for a clean stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|e| Error::new(Code::Internal, format!("signal handler: {e}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
