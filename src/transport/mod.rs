//! QUIC with mutual TLS 1.3: endpoints, connections whose peer is known, and streams of frames.
//!
//! One UDP port serves clients and peers; the first byte of a stream says its class. Nothing here knows
//! what a frame means.

use crate::pki::{Identity, Principal};
use bytes::Bytes;
use std::net::SocketAddr;

/// What a stream is for; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamClass {
    /// Requests and replies of a client.
    Client = 0,
    /// Votes, heartbeats, read-index: small and urgent. Node certificates only, as all below.
    Urgent = 1,
    /// Log entries.
    Append = 2,
    /// One snapshot: a header frame, chunks, one answer.
    Snapshot = 3,
    /// Calls between nodes outside any group.
    Node = 4,
}

/// Why a connection or stream does not work. `Refused` carries the sentence that says which check failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A certificate was refused, here or by the other side.
    #[error("{0}")]
    Refused(String),
    /// Nobody answered.
    #[error("cannot reach {0}")]
    Unreachable(String),
    /// The connection or stream ended.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other side broke the framing.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// Binding the socket or building the TLS settings failed.
    #[error("{0}")]
    Setup(String),
}

/// A bound UDP socket that accepts and makes connections.
#[derive(Clone)]
pub struct Endpoint {}

/// A connection whose other side proved who it is.
#[derive(Clone)]
pub struct Connection {}

/// Queues frames for one stream. Clones share the queue and the writer task behind it.
#[derive(Clone)]
pub struct FrameSender {}

/// Frames that arrive on one stream.
pub struct FrameReceiver {}

impl Endpoint {
    /// Binds and accepts. Must run inside the tokio runtime that shall drive the connections.
    pub fn server(_addr: SocketAddr, _identity: &Identity) -> Result<Self, Error> {
        unimplemented!()
    }

    /// Binds a free port for outgoing connections only.
    pub fn client(_identity: &Identity) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The port bound.
    pub fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// The next connection whose handshake succeeded; none after `close`. Refused ones are logged.
    pub async fn accept(&self) -> Option<Connection> {
        unimplemented!()
    }

    /// Connects to `host:port`; the other side must be a node of our own cluster.
    pub async fn connect(&self, _addr: &str) -> Result<Connection, Error> {
        unimplemented!()
    }

    /// Closes every connection, telling the reason, and waits until that is sent (bounded).
    pub async fn close(&self, _reason: &str) {
        unimplemented!()
    }
}

impl Connection {
    /// Who the other side is.
    pub fn principal(&self) -> &Principal {
        unimplemented!()
    }

    /// Where it is.
    pub fn remote_addr(&self) -> SocketAddr {
        unimplemented!()
    }

    /// Opens a stream of a class.
    pub async fn open(&self, _class: StreamClass) -> Result<(FrameSender, FrameReceiver), Error> {
        unimplemented!()
    }

    /// The next stream the other side opened. A user that opens a class meant for nodes is refused:
    /// the connection closes with the reason.
    pub async fn accept(&self) -> Result<(StreamClass, FrameSender, FrameReceiver), Error> {
        unimplemented!()
    }

    /// Resolves when the connection is over, with why.
    pub async fn closed(&self) -> Error {
        unimplemented!()
    }

    /// True once it is over.
    pub fn is_closed(&self) -> bool {
        unimplemented!()
    }

    /// Ends it, telling the other side why.
    pub fn close(&self, _reason: &str) {
        unimplemented!()
    }
}

impl FrameSender {
    /// Queues a frame, waiting while the queue is full (bounded by count and bytes). Frames that wait
    /// together leave in one write.
    pub async fn send(&self, _payload: Bytes) -> Result<(), Error> {
        unimplemented!()
    }

    /// Queues a frame, or gives it back if the queue is full or the stream is over.
    pub fn try_send(&self, _payload: Bytes) -> Result<(), Bytes> {
        unimplemented!()
    }
}

impl FrameReceiver {
    /// The next frame; none when the other side finished the stream.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        unimplemented!()
    }
}
