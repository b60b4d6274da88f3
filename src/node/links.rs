//! How messages of all groups reach other nodes: one connection for each peer, one stream for urgent
//! messages and one for log entries, and whatever waits together leaves in one frame.
//!
//! Messages may be dropped (a full queue, a peer that is down) and are then lost: consensus repeats them.

use crate::cluster::StateView;
use crate::cluster::breakers::{Asked, PeerBreakers};
use crate::cluster::heard::clock_ms;
use crate::raft::Links;
use crate::transport::{Connection, Endpoint, FrameReceiver, FrameSender, StreamClass};
use crate::types::{Code, Error, GroupId, NodeId, Result, limits};
use crate::wire::codec;
use crate::wire::command::Command;
use crate::wire::peer::{NodeAnswer, NodeCall, PeerBody, PeerFrame, PeerMessage};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Messages that wait for one peer and class; further ones are dropped.
const QUEUE_MAX: usize = 8_192;
/// Bytes of bodies put into one frame.
const FRAME_FILL_BYTES: usize = 4 << 20;
/// Pause after a connection attempt that failed.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often each peer is told that this node is there, and what its clock says. Followers of a group do
/// not talk to each other, so without it they would take each other for down.
const BEACON_EVERY: Duration = Duration::from_millis(500);
/// How long one connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Outgoing side of the peer network. Clones share it.
#[derive(Clone)]
pub struct PeerLinks {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    view: StateView,
    breakers: PeerBreakers,
    runtime: Handle,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

#[derive(Clone)]
struct Peer {
    connection: Arc<tokio::sync::Mutex<Option<Connection>>>,
    urgent: mpsc::Sender<PeerMessage>,
    append: mpsc::Sender<PeerMessage>,
}

impl PeerLinks {
    /// Links that run their tasks on `runtime`.
    pub fn new(
        endpoint: Endpoint,
        view: StateView,
        breakers: PeerBreakers,
        runtime: Handle,
    ) -> Self {
        let peers = Mutex::default();
        Self { inner: Arc::new(Inner { endpoint, view, breakers, runtime, peers }) }
    }

    /// Tells every other member, again and again, that `me` is there. It names the id, because the
    /// certificate names the node only, and another disk of the same node is another member.
    pub async fn beacon(self, me: NodeId) {
        let mut ticks = tokio::time::interval(BEACON_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for node in self.inner.view.members().into_iter().filter(|node| *node != me) {
                let beacon = PeerMessage {
                    group: GroupId::META,
                    from: me.0,
                    to: node.0,
                    call: 0,
                    body: PeerBody::Beacon,
                };
                let _ = self.peer(node).urgent.try_send(beacon);
            }
        }
    }

    /// One call, on a stream of its own of the connection that is there; refused at once while the breaker is open.
    pub async fn call(
        &self,
        node: NodeId,
        call: NodeCall,
        timeout: Duration,
    ) -> Result<NodeAnswer> {
        let name =
            || self.inner.view.name(node).map_or_else(|| node.to_string(), |n| n.to_string());
        let unreachable = |why: String| Error::new(Code::Unreachable, format!("{}: {why}", name()));
        let peer = self.peer(node);
        let class = class_of(&call);
        let begun = self.inner.breakers.begin(node, Asked::of(&call), timeout, Instant::now())?;
        let talk = async {
            let connection = self.connect(node, &peer.connection).await.map_err(unreachable)?;
            let stream = connection.open(class).await;
            let (sender, mut receiver) = stream.map_err(|e| unreachable(e.to_string()))?;
            begun.sent();
            let lost = |why: String| Error::new(Code::Unknown, format!("{}: {why}", name()));
            let asked = sender.send(codec::encode(&call).into()).await;
            asked.map_err(|e| lost(e.to_string()))?;
            let answer = receiver.recv().await.map_err(|e| lost(e.to_string()))?;
            let answer = answer.ok_or_else(|| lost("it hung up".into()))?;
            codec::decode(&answer).map_err(|e| Error::new(Code::BadVersion, e.to_string()))
        };
        match tokio::time::timeout(timeout, talk).await {
            Ok(result) => {
                begun.ended(&result);
                result
            }
            Err(_) if begun.is_sent() => {
                Err(Error::new(Code::Unknown, format!("{} did not answer in time", name())))
            }
            Err(_) => Err(unreachable("not reached in time".into())),
        }
    }

    /// Whether a test has cut the way to this node.
    fn is_cut(&self, node: NodeId) -> bool {
        let Some(cut) = crate::faults::planted("peer.drop") else { return false };
        let name = self.inner.view.name(node);
        name.is_some_and(|name| cut.split_whitespace().any(|cut| cut == name.as_str()))
    }

    fn peer(&self, node: NodeId) -> Peer {
        let mut peers = self.inner.peers.lock();
        peers.entry(node).or_insert_with(|| self.start(node)).clone()
    }

    fn start(&self, node: NodeId) -> Peer {
        let connection = Arc::new(tokio::sync::Mutex::new(None));
        let sender = |class| {
            let (tx, rx) = mpsc::channel(QUEUE_MAX);
            let writer =
                Writer { links: self.clone(), node, class, connection: connection.clone() };
            self.inner.runtime.spawn(writer.run(rx));
            tx
        };
        Peer {
            urgent: sender(StreamClass::Urgent),
            append: sender(StreamClass::Append),
            connection: connection.clone(),
        }
    }

    /// The connection to a peer, made if there is none; one attempt at a time.
    async fn connect(
        &self,
        node: NodeId,
        slot: &tokio::sync::Mutex<Option<Connection>>,
    ) -> std::result::Result<Connection, String> {
        if self.is_cut(node) {
            return Err("the way there is cut".to_owned());
        }
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref().filter(|c| !c.is_closed()) {
            return Ok(connection.clone());
        }
        let addr = self.inner.view.addr(node).ok_or("its address is not known")?;
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, self.inner.endpoint.connect(&addr));
        let connection = match attempt.await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("{addr} did not answer")),
        };
        // The address may have been taken over by another node of the cluster.
        match &connection.principal().subject {
            crate::pki::Subject::Node(name) if self.inner.view.node(name) == Some(node) => {}
            other => {
                connection.close("not the node expected at this address");
                return Err(format!("{addr} is {other:?}"));
            }
        }
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

/// What only measures the network waits for everything else.
fn class_of(call: &NodeCall) -> StreamClass {
    match call {
        NodeCall::Command { command: Command::Echo(bytes), .. } if !bytes.is_empty() => {
            StreamClass::Background
        }
        _ => StreamClass::Node,
    }
}

/// Writes the messages of one class to one peer.
struct Writer {
    links: PeerLinks,
    node: NodeId,
    class: StreamClass,
    connection: Arc<tokio::sync::Mutex<Option<Connection>>>,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<PeerMessage>) {
        let mut stream: Option<(FrameSender, FrameReceiver)> = None;
        let mut silent = false;
        while let Some(first) = queue.recv().await {
            // One turn for the messages of other groups that belong to the same moment.
            tokio::task::yield_now().await;
            let frame = collect(first, &mut queue);
            if stream.is_none() {
                match self.open().await {
                    Ok(opened) => stream = Some(opened),
                    Err(error) => {
                        if !silent {
                            tracing::info!(peer = %self.node, class = ?self.class, %error, "peer not reachable");
                        }
                        silent = true;
                        // What waited meanwhile is stale by now; consensus repeats what matters.
                        while queue.try_recv().is_ok() {}
                        tokio::time::sleep(RETRY_AFTER).await;
                        continue;
                    }
                }
                silent = false;
            }
            let Some((sender, _)) = &stream else { continue };
            if self.links.is_cut(self.node) {
                continue;
            }
            if sender.send(codec::encode(&frame).into()).await.is_err() {
                stream = None;
            }
        }
    }

    async fn open(&self) -> std::result::Result<(FrameSender, FrameReceiver), String> {
        let connection = self.links.connect(self.node, &self.connection).await?;
        connection.open(self.class).await.map_err(|e| e.to_string())
    }
}

/// Everything that waits, up to the bounds of a frame.
fn collect(first: PeerMessage, queue: &mut mpsc::Receiver<PeerMessage>) -> PeerFrame {
    let mut bytes = body_bytes(&first.body);
    let mut messages = vec![first];
    while messages.len() < limits::PEER_FRAME_MESSAGES_MAX && bytes < FRAME_FILL_BYTES {
        match queue.try_recv() {
            Ok(next) => {
                bytes += body_bytes(&next.body);
                messages.push(next);
            }
            Err(_) => break,
        }
    }
    PeerFrame { clock_ms: clock_ms(), messages }
}

fn body_bytes(body: &PeerBody) -> usize {
    match body {
        PeerBody::Append(bytes)
        | PeerBody::Vote(bytes)
        | PeerBody::PreVote(bytes)
        | PeerBody::TransferLeader(bytes)
        | PeerBody::Answer(bytes)
        | PeerBody::ReadIndexAs(bytes) => bytes.len(),
        PeerBody::ReadIndex
        | PeerBody::ReadIndexAnswer(_)
        | PeerBody::Committed(_)
        | PeerBody::Refused(_)
        | PeerBody::Beacon => 0,
    }
}

impl Links for PeerLinks {
    fn send_urgent(&self, to: NodeId, message: PeerMessage) {
        let _ = self.peer(to).urgent.try_send(message);
    }

    fn send_append(&self, to: NodeId, message: PeerMessage) {
        let _ = self.peer(to).append.try_send(message);
    }

    fn open_snapshot(
        &self,
        to: NodeId,
    ) -> BoxFuture<'static, std::result::Result<(FrameSender, FrameReceiver), String>> {
        let (links, peer) = (self.clone(), self.peer(to));
        async move {
            let begun = links.inner.breakers.begin(to, Asked::Copy, Duration::MAX, Instant::now());
            let begun = begun.map_err(|error| error.message)?;
            let opened = async {
                let connection = links.connect(to, &peer.connection).await?;
                connection.open(StreamClass::Snapshot).await.map_err(|e| e.to_string())
            };
            let opened = opened.await;
            begun.opened(opened.is_ok());
            opened
        }
        .boxed()
    }
}
