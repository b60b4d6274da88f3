//! Takes connections and hands each stream to whom its class is for.
//!
//! Peer streams stay on the runtime that drives consensus; requests of clients run on the other one, so
//! that slow reads cannot start an election. Nothing is decided here.

use super::Node;
use crate::admin::Asker;
use crate::pki::{Principal, Subject};
use crate::request::Origin;
use crate::transport::{Connection, FrameReceiver, FrameSender, StreamClass};
use crate::types::{Code, Error, GroupId, NodeId, NodeName, limits};
use crate::wire::codec;
use crate::wire::command::Command;
use crate::wire::peer::{self, NodeAnswer, NodeCall, PeerBody};
use bytes::Bytes;
use futures_util::FutureExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::Semaphore;

/// Requests of one stream worked on at a time; the stream is not read further meanwhile.
const STREAM_REQUESTS_MAX: usize = limits::CONCURRENT_REQUESTS_MAX;

impl Node {
    /// Accepts until the endpoint closes.
    pub(super) async fn accept(self: Arc<Self>) {
        while let Some(connection) = self.endpoint.accept().await {
            tokio::spawn(self.clone().serve_connection(connection));
        }
    }

    async fn serve_connection(self: Arc<Self>, connection: Connection) {
        loop {
            let (class, sender, receiver) = match connection.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(remote = %connection.remote_addr(), %error, "connection over");
                    return;
                }
            };
            let node = self.clone();
            let who = connection.principal().clone();
            match class {
                StreamClass::Client => {
                    let origin = Origin { who, from: connection.remote_addr() };
                    self.requests.spawn(node.serve_client(origin, sender, receiver));
                }
                StreamClass::Node | StreamClass::Background => {
                    tokio::spawn(node.serve_node_calls(who, sender, receiver));
                }
                StreamClass::Urgent | StreamClass::Append => {
                    tokio::spawn(node.serve_peer(who, receiver));
                }
                StreamClass::Snapshot => {
                    tokio::spawn(async move {
                        if let (Some(from), Some(host)) = (node.peer_id(&who), node.host()) {
                            host.deliver_snapshot(from, sender, receiver).await;
                        }
                    });
                }
            }
        }
    }

    async fn serve_client(
        self: Arc<Self>,
        origin: Origin,
        sender: FrameSender,
        mut receiver: FrameReceiver,
    ) {
        let room = Arc::new(Semaphore::new(STREAM_REQUESTS_MAX));
        let origin = Arc::new(origin);
        while let Some(frame) = next_frame(&mut receiver, &origin.who).await {
            let (node, asker) = (self.clone(), origin.clone());
            let mut answering = Box::pin(async move { node.plane.answer(&asker, frame).await });
            // What need not wait, most reads, is answered here: a task for each would cost more than the read.
            if let Some(answer) = (&mut answering).now_or_never() {
                reply(&origin.who, &sender, answer).await;
                continue;
            }
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (origin, sender) = (origin.clone(), sender.clone());
            tokio::spawn(async move {
                reply(&origin.who, &sender, answering.await).await;
                drop(permit);
            });
        }
    }

    async fn serve_peer(self: Arc<Self>, who: Principal, mut receiver: FrameReceiver) {
        while let Some(bytes) = next_frame(&mut receiver, &who).await {
            let frame = match peer::decode_frame(&bytes) {
                Ok(frame) => frame,
                Err(error) => {
                    tracing::warn!(by = ?who, %error, "peer frame refused");
                    return;
                }
            };
            let (Some(from), Some(host)) = (self.peer_id(&who), self.host()) else { continue };
            for message in frame.messages {
                match message.body {
                    PeerBody::Beacon if message.from == from.0 => {
                        self.heard.note(from, frame.clock_ms);
                    }
                    // From a disk that was replaced, or from one that is not known here yet.
                    PeerBody::Beacon => {}
                    // A copy of the metadata has the id of its member; who is gone is not listened to.
                    _ if message.group == GroupId::META
                        && self.view.state().is_gone(NodeId(message.from)) => {}
                    _ => host.deliver(from, message),
                }
            }
        }
    }

    async fn serve_node_calls(
        self: Arc<Self>,
        who: Principal,
        sender: FrameSender,
        mut receiver: FrameReceiver,
    ) {
        while let Some(bytes) = next_frame(&mut receiver, &who).await {
            let answer = match codec::decode::<NodeCall>(&bytes) {
                Ok(call) => self.answer_node_call(&who, call).await,
                Err(error) => NodeAnswer::Refused(Error::new(Code::BadRequest, error.to_string())),
            };
            if sender.send(codec::encode(&answer).into()).await.is_err() {
                return;
            }
        }
    }

    async fn answer_node_call(self: &Arc<Self>, who: &Principal, call: NodeCall) -> NodeAnswer {
        if self.stopping.load(Ordering::Acquire) {
            return NodeAnswer::Refused(Error::new(Code::NotReady, "this node is stopping"));
        }
        match call {
            NodeCall::Describe => NodeAnswer::Description(self.describe()),
            NodeCall::Command { by, command, deadline_ms } => {
                let (from, through) = (String::new(), None);
                let asker = Asker { name: by, is_node: true, from, passed_on: true, through };
                self.answer_command(who, asker, command, deadline_ms).await
            }
            NodeCall::PassedOn { by, from, command, deadline_ms } => {
                let through = NodeName::new(who.subject.name()).ok();
                let asker = Asker { name: by, is_node: false, from, passed_on: true, through };
                self.answer_command(who, asker, command, deadline_ms).await
            }
            NodeCall::Join(record) => match self.join(record).await {
                Ok(()) => NodeAnswer::Joined,
                Err(error) => NodeAnswer::Refused(error),
            },
        }
    }

    async fn answer_command(
        self: &Arc<Self>,
        who: &Principal,
        asker: Asker,
        command: Command,
        deadline_ms: u32,
    ) -> NodeAnswer {
        if self.peer_id(who).is_none() {
            let message = "only members of the cluster may ask for this";
            return NodeAnswer::Refused(Error::new(Code::Denied, message));
        }
        // The disk of this process may have been replaced, and whoever asks may mean its successor.
        if self.agent().is_none_or(|agent| !self.view.counts(agent.node)) {
            let message = "no metadata quorum has confirmed this node yet";
            return NodeAnswer::Refused(Error::new(Code::NotReady, message));
        }
        let timeout = std::time::Duration::from_millis(deadline_ms.into());
        match self.clone().carry_out(asker, command, timeout).await {
            Ok(answer) => NodeAnswer::Answer(answer),
            Err(error) => NodeAnswer::Refused(error),
        }
    }

    /// The member that a node certificate speaks for.
    fn peer_id(&self, who: &Principal) -> Option<NodeId> {
        match &who.subject {
            Subject::Node(name) => self.view.node(name),
            Subject::User(_) => None,
        }
    }
}

/// Queues an answer; a frame that could not be read has none.
async fn reply(who: &Principal, sender: &FrameSender, answer: Result<Bytes, Error>) {
    match answer {
        Ok(reply) => {
            if let Err(reply) = sender.try_send(reply) {
                // The queue is full, or the stream is over.
                let _ = sender.send(reply).await;
            }
        }
        Err(error) => tracing::warn!(by = ?who, %error, "frame refused"),
    }
}

/// The next frame, or none when the stream is over; a violation is logged here.
async fn next_frame(receiver: &mut FrameReceiver, who: &Principal) -> Option<Bytes> {
    match receiver.recv().await {
        Ok(frame) => frame,
        Err(error) => {
            tracing::debug!(by = ?who, %error, "stream over");
            None
        }
    }
}
