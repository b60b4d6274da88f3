//! A cluster of hosts in one process: real logs and tables in a temporary folder, messages by hand with
//! links that can be cut and slowed, snapshots over real QUIC on loopback.

use super::*;
use crate::pki::{self, Identity, IssueOptions, Subject};
use crate::storage::wal::{self, Wal};
use crate::storage::{Space, Store};
use crate::transport::{Endpoint, FrameReceiver, FrameSender, StreamClass};
use crate::wire::peer::PeerBody;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Lead nowhere: a lone voter has nobody to talk to.
pub struct NoLinks;

impl Links for NoLinks {
    fn send_urgent(&self, _: NodeId, _: PeerMessage) {}
    fn send_append(&self, _: NodeId, _: PeerMessage) {}
    fn open_snapshot(
        &self,
        _: NodeId,
    ) -> BoxFuture<'static, Result<(FrameSender, FrameReceiver), String>> {
        Box::pin(async { Err("nobody".to_owned()) })
    }
}

/// The group of all tests.
pub const GROUP: GroupId = GroupId(1 << 16);
/// The raft id of the first copy on a node; fresh ones are made by hand.
pub fn copy(node: u64) -> u64 {
    100 + node
}

/// `key=value` puts, `digest` asks for one; the reply is the number of puts so far, so that an entry
/// applied twice shows.
#[derive(Default)]
pub struct Puts {
    count: u64,
}

impl Logic for Puts {
    fn load(&mut self, view: &dyn View) -> Result<(), storage::Error> {
        let stored = view.get(Space::Meta, b"count")?;
        self.count = stored.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        Ok(())
    }

    fn apply(
        &mut self,
        _: LogPos,
        payload: &Bytes,
        writer: &mut Writer<'_>,
    ) -> Result<Effect, storage::Error> {
        if &payload[..] == b"digest" {
            return Ok(Effect { replies: vec![], digest: true });
        }
        let split = payload.iter().position(|b| *b == b'=').unwrap();
        writer.put(Space::Data, &payload[..split], payload.slice(split + 1..));
        self.count += 1;
        let count = Bytes::copy_from_slice(&self.count.to_be_bytes());
        writer.put(Space::Meta, b"count", count.clone());
        Ok(Effect { replies: vec![count], digest: false })
    }
}

pub fn count(store: &Store) -> u64 {
    let mut logic = Puts::default();
    store.read(|view| logic.load(view)).unwrap().unwrap();
    logic.count
}

pub fn get(store: &Store, key: &str) -> Option<String> {
    let found = store.read(|view| view.get(Space::Data, key.as_bytes())).unwrap().unwrap();
    found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// What connects the hosts.
#[derive(Default)]
pub struct Wires {
    hosts: Mutex<HashMap<u64, Host>>,
    addrs: Mutex<HashMap<u64, SocketAddr>>,
    cut: Mutex<HashSet<(u64, u64)>>,
    delay: Mutex<Duration>,
    /// Appends that were sent, without heartbeats,
    pub appends: AtomicUsize,
    /// urgent ones: heartbeats, and rounds that confirm a leader,
    pub rounds: AtomicUsize,
    /// and questions for the index to read at.
    pub questions: AtomicUsize,
    /// Answers that no host took.
    pub stray: Mutex<Vec<PeerMessage>>,
}

impl Wires {
    /// Messages between these nodes are lost, both ways.
    pub fn cut(&self, a: u64, b: u64) {
        self.cut.lock().extend([(a, b), (b, a)]);
    }

    /// Cuts a node off from all others.
    pub fn isolate(&self, node: u64, nodes: u64) {
        (1..=nodes).filter(|n| *n != node).for_each(|n| self.cut(node, n));
    }

    pub fn heal(&self) {
        self.cut.lock().clear();
    }

    pub fn delay(&self, delay: Duration) {
        *self.delay.lock() = delay;
    }

    fn host(&self, from: u64, to: u64) -> Option<Host> {
        if self.cut.lock().contains(&(from, to)) {
            return None;
        }
        self.hosts.lock().get(&to).cloned()
    }
}

struct Link {
    wires: Arc<Wires>,
    from: u64,
    queues: Mutex<HashMap<u64, tokio::sync::mpsc::UnboundedSender<PeerMessage>>>,
    endpoint: Endpoint,
}

impl Link {
    /// In order, each message after the delay.
    fn send(&self, to: u64, message: PeerMessage) {
        let mut queues = self.queues.lock();
        let queue = queues.entry(to).or_insert_with(|| {
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<PeerMessage>();
            let (wires, from) = (self.wires.clone(), self.from);
            tokio::spawn(async move {
                while let Some(message) = receiver.recv().await {
                    let delay = *wires.delay.lock();
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    match wires.host(from, to) {
                        Some(host) => host.deliver(NodeId(from), message),
                        None if matches!(
                            message.body,
                            PeerBody::Refused(_) | PeerBody::Answer(_)
                        ) =>
                        {
                            wires.stray.lock().push(message);
                        }
                        None => {}
                    }
                }
            });
            sender
        });
        let _ = queue.send(message);
    }
}

impl Links for Link {
    fn send_urgent(&self, to: NodeId, message: PeerMessage) {
        match message.body {
            PeerBody::ReadIndexAs(_) => self.wires.questions.fetch_add(1, Ordering::Relaxed),
            PeerBody::Append(_) => self.wires.rounds.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        self.send(to.0, message);
    }

    fn send_append(&self, to: NodeId, message: PeerMessage) {
        if matches!(message.body, PeerBody::Append(_)) {
            self.wires.appends.fetch_add(1, Ordering::Relaxed);
        }
        self.send(to.0, message);
    }

    fn open_snapshot(
        &self,
        to: NodeId,
    ) -> BoxFuture<'static, Result<(FrameSender, FrameReceiver), String>> {
        let addr = self
            .wires
            .host(self.from, to.0)
            .and_then(|_| self.wires.addrs.lock().get(&to.0).copied());
        let endpoint = self.endpoint.clone();
        Box::pin(async move {
            let addr = addr.ok_or("cut off")?;
            let connection =
                endpoint.connect(&addr.to_string()).await.map_err(|e| e.to_string())?;
            let (sender, receiver) =
                connection.open(StreamClass::Snapshot).await.map_err(|e| e.to_string())?;
            // Keeps the connection for the length of the stream.
            tokio::spawn(async move { drop(connection.closed().await) });
            Ok((sender, receiver))
        })
    }
}

/// The cluster.
pub struct Cluster {
    folder: tempfile::TempDir,
    pub wires: Arc<Wires>,
    identities: HashMap<u64, Identity>,
    endpoints: HashMap<u64, Endpoint>,
    pub options: Options,
    wal_options: wal::Options,
    logic: fn() -> Box<dyn Logic>,
}

/// Small and quick: what happens once a minute in production happens all the time here.
pub fn quick() -> Options {
    Options {
        heartbeat_ms: 100,
        election_min_ms: 400,
        election_max_ms: 700,
        flush_bytes: 64 << 10,
        flush_ms: 300,
        log_keep_bytes: 1 << 20,
        commit_gather_ms: 10,
        learner_tick_ms: 20,
        further_tick_ms: 100,
    }
}

impl Cluster {
    /// Nodes 1 to `nodes` without copies, whose entries are `Puts`.
    pub async fn new(nodes: u64, options: Options) -> Self {
        Self::with_logic(nodes, options, || Box::<Puts>::default()).await
    }

    /// The same with entries of another meaning.
    pub async fn with_logic(nodes: u64, options: Options, logic: fn() -> Box<dyn Logic>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("certs");
        pki::init(&ca, "test").unwrap();
        let mut identities = HashMap::new();
        for node in 1..=nodes {
            let name = format!("n{node}");
            pki::issue(&ca, Subject::node(&name).unwrap(), IssueOptions::default()).unwrap();
            identities.insert(node, Identity::from_dir(&ca, &format!("node-{name}")).unwrap());
        }
        let wal_options =
            wal::Options { segment_bytes: 4 << 20, segments_reserved: 1, ..Default::default() };
        let mut cluster = Self {
            folder,
            wires: Arc::default(),
            identities,
            endpoints: HashMap::new(),
            options,
            wal_options,
            logic,
        };
        for node in 1..=nodes {
            cluster.start(node).await;
        }
        cluster
    }

    fn dir(&self, node: u64) -> std::path::PathBuf {
        self.folder.path().join(format!("n{node}"))
    }

    pub fn copy_dir(&self, node: u64, raft_id: u64) -> std::path::PathBuf {
        self.dir(node).join(format!("copy-{raft_id}"))
    }

    pub fn host(&self, node: u64) -> Host {
        self.wires.hosts.lock()[&node].clone()
    }

    pub fn group(&self, node: u64) -> Group {
        self.host(node).group(GROUP).unwrap()
    }

    /// Starts a node, with the copies its log knows.
    pub async fn start(&mut self, node: u64) {
        let endpoint =
            Endpoint::server("127.0.0.1:0".parse().unwrap(), &self.identities[&node]).unwrap();
        self.wires.addrs.lock().insert(node, endpoint.local_addr());
        let wal = open_wal(&self.dir(node).join("wal"), self.wal_options.clone()).await;
        let link = Link {
            wires: self.wires.clone(),
            from: node,
            queues: Mutex::default(),
            endpoint: endpoint.clone(),
        };
        let host = Host::new(wal.clone(), Arc::new(link), self.options.clone());
        tokio::spawn(accept(endpoint.clone(), host.clone(), self.wires.clone()));
        self.endpoints.insert(node, endpoint);
        self.wires.hosts.lock().insert(node, host);
        for (group, body) in wal.groups() {
            let raft_id = u64::from_be_bytes(body[..].try_into().unwrap());
            assert_eq!(group, GROUP);
            self.open(node, raft_id).await.unwrap();
        }
    }

    async fn open(&self, node: u64, raft_id: u64) -> Result<Group, Error> {
        let dir = self.copy_dir(node, raft_id);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let logic = (self.logic)();
            let spec = GroupSpec { group: GROUP, raft_id, dir: dir.clone(), logic };
            match self.host(node).open(spec).await {
                // The environment of the copy that was stopped is still going away.
                Err(Error::Stopped(text)) if text.contains("LOCK") && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    /// Creates a copy on a node.
    pub async fn create(&self, node: u64, raft_id: u64, wal: &Wal) -> Group {
        let (done, durable) = tokio::sync::oneshot::channel();
        let body = Bytes::copy_from_slice(&raft_id.to_be_bytes());
        wal.group(GROUP).create(body, Box::new(move |result| drop(done.send(result))));
        durable.await.unwrap().unwrap();
        self.open(node, raft_id).await.unwrap()
    }

    /// A group with a copy on each node and these voters; the others are outside of it.
    pub async fn form(&self, copies: &[u64], voters: &[u64]) {
        for node in copies {
            let wal = self.host(*node).wal();
            self.create(*node, copy(*node), &wal).await;
        }
        let members = voters.iter().map(|node| (copy(*node), NodeId(*node))).collect();
        self.group(voters[0]).initialize(members).await.unwrap();
    }

    /// The node that leads and is applied; waits for it.
    pub async fn leader(&self, among: &[u64]) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for node in among {
                let group = self.group(*node);
                let soon = Instant::now() + Duration::from_millis(500);
                if group.state().is_leader && group.read_barrier(soon).await.is_ok() {
                    return *node;
                }
            }
            assert!(Instant::now() < deadline, "no leader among {among:?}: {:?}", self.states());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn states(&self) -> Vec<(u64, State)> {
        let hosts = self.wires.hosts.lock();
        let state = |(node, host): (&u64, &Host)| Some((*node, host.group(GROUP)?.state()));
        hosts.iter().filter_map(state).collect()
    }

    /// Writes `key-i = value-i` for the range from 32 tasks; every write must succeed.
    pub async fn put(&self, node: u64, range: std::ops::Range<u64>) {
        let group = self.group(node);
        let lanes = (0..32u64).map(|lane| {
            let (group, range) = (group.clone(), range.clone());
            tokio::spawn(async move {
                for i in range.skip(lane as usize).step_by(32) {
                    group.propose(format!("key-{i}=value-{i}").into()).await.unwrap();
                }
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await.unwrap();
        }
    }

    /// Waits until these nodes have applied what the first has, and compares everything.
    pub async fn same(&self, nodes: &[u64], puts: u64) {
        let index = self.group(nodes[0]).state().applied.unwrap().index;
        for node in nodes {
            let group = self.group(*node);
            let reached = group.wait_applied(index, Instant::now() + Duration::from_secs(20)).await;
            assert!(reached, "node {node} did not reach {index}: {:?}", self.states());
            assert_eq!(count(group.store()), puts, "node {node}");
            for i in 0..puts {
                assert_eq!(get(group.store(), &format!("key-{i}")), Some(format!("value-{i}")));
            }
        }
    }

    /// Stops a node as a process ends on SIGTERM.
    pub async fn stop(&mut self, node: u64) {
        let host = self.wires.hosts.lock().remove(&node).unwrap();
        host.shutdown_and_release().await;
        self.endpoints.remove(&node).unwrap().close("stop").await;
    }

    /// Stops a node without the flush at the end: what is only in memory is lost, as with `kill -9`.
    pub async fn kill(&mut self, node: u64) {
        let host = self.wires.hosts.lock().remove(&node).unwrap();
        host.abandon().await;
        self.endpoints.remove(&node).unwrap().close("kill").await;
    }
}

async fn accept(endpoint: Endpoint, host: Host, wires: Arc<Wires>) {
    while let Some(connection) = endpoint.accept().await {
        let (host, wires) = (host.clone(), wires.clone());
        let name = connection.principal().subject.name().to_owned();
        let from: u64 = name.trim_start_matches('n').parse().unwrap();
        let _ = &wires;
        tokio::spawn(async move {
            while let Ok((class, sender, receiver)) = connection.accept().await {
                assert_eq!(class, StreamClass::Snapshot);
                host.deliver_snapshot(NodeId(from), sender, receiver).await;
            }
        });
    }
}

/// The log of a node that was stopped may take a moment to go away.
async fn open_wal(dir: &Path, options: wal::Options) -> Wal {
    std::fs::create_dir_all(dir).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Wal::open(dir, options.clone()) {
            Err(wal::Error::Io { detail, .. })
                if detail.contains("open") && Instant::now() < deadline =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.unwrap(),
        }
    }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
