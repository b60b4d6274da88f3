//! One connection to one node: a long-lived stream, requests with ids, answers in any order.
//!
//! Says exactly what is known of a request: not sent, sent and lost, sent and unanswered, or answered.
//! Never reconnects.

use super::net::{Failure, frame_deadline_ms};
use crate::pki::Subject;
use crate::transport::{self, Connection, Endpoint, FrameReceiver, FrameSender, StreamClass};
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::client::{Reply, ReplyBody, Request, RequestBody, decode};
use crate::wire::codec;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

/// Requests in flight on one connection; further ones wait for an answer to come.
const IN_FLIGHT_MAX: usize = 4_096;

/// A connection and its stream.
pub(crate) struct Conn {
    /// Who its certificate says it is.
    pub(crate) node: NodeName,
    /// Where it was reached.
    pub(crate) addr: String,
    connection: Connection,
    sender: FrameSender,
    waiting: Arc<Mutex<Waiting>>,
    in_flight: Semaphore,
    next_id: AtomicU64,
    reader: AbortHandle,
}

#[derive(Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<Result<ReplyBody>>>,
    /// Why the stream is over.
    over: Option<String>,
}

impl Conn {
    /// Connects and opens the stream. With `expected`, the node has to prove that name.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        addr: &str,
        expected: Option<&NodeName>,
    ) -> Result<Self> {
        let connection = endpoint.connect(addr).await.map_err(|e| refused(addr, e))?;
        let Subject::Node(node) = connection.principal().subject.clone() else {
            return Err(Error::new(Code::BadCertificate, format!("{addr} is no node")));
        };
        if let Some(expected) = expected.filter(|expected| **expected != node) {
            connection.close("another node was expected here");
            let message = format!("at {addr} is {node}, not {expected}");
            return Err(Error::new(Code::Unreachable, message));
        }
        let (sender, receiver) =
            connection.open(StreamClass::Client).await.map_err(|e| refused(addr, e))?;
        let waiting = Arc::<Mutex<Waiting>>::default();
        let reader =
            tokio::spawn(read(receiver, connection.clone(), waiting.clone())).abort_handle();
        Ok(Self {
            node,
            addr: addr.to_owned(),
            connection,
            sender,
            waiting,
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
            next_id: AtomicU64::new(1),
            reader,
        })
    }

    /// True once nothing can be sent any more.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.is_closed() || self.waiting.lock().over.is_some()
    }

    /// Sends a request and waits for its answer until then.
    pub(crate) async fn request(
        &self,
        body: RequestBody,
        until: Instant,
    ) -> Result<ReplyBody, Failure> {
        let full = || {
            let message = format!("too many requests are in flight to {}", self.node);
            Failure::NotSent(Error::new(Code::Overloaded, message))
        };
        let not_sent = |why: &str| {
            let message = format!("no connection to {}: {why}", self.node);
            Failure::NotSent(Error::new(Code::Unreachable, message))
        };
        let _permit = match self.in_flight.try_acquire() {
            Ok(permit) => permit,
            Err(_) => match timeout_at(until.into(), self.in_flight.acquire()).await {
                Ok(Ok(permit)) => permit,
                Ok(Err(_)) | Err(_) => return Err(full()),
            },
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, mut told) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if let Some(why) = &waiting.over {
                return Err(not_sent(why));
            }
            waiting.answers.insert(id, tell);
        }
        let _forget = Forget { waiting: &self.waiting, id };
        let deadline_ms = frame_deadline_ms(until.saturating_duration_since(Instant::now()));
        let frame = codec::encode(&Request { id, deadline_ms, body }).into();
        if let Err(frame) = self.sender.try_send(frame) {
            match timeout_at(until.into(), self.sender.send(frame)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(not_sent(&error.to_string())),
                // Given up before it returned, `send` has queued nothing.
                Err(_) => return Err(full()),
            }
        }
        match timeout_at(until.into(), &mut told).await {
            Ok(Ok(answer)) => answer.map_err(Failure::Refused),
            Ok(Err(_)) => Err(Failure::Lost(self.why_over())),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    fn why_over(&self) -> String {
        let why = self.waiting.lock().over.clone();
        let why = why.unwrap_or_else(|| "closed".into());
        format!("the connection to {} was lost before the answer came: {why}", self.node)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.reader.abort();
        self.connection.close("not needed any more");
    }
}

/// Takes a request off the list when nobody waits for it any more.
struct Forget<'a> {
    waiting: &'a Mutex<Waiting>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().answers.remove(&self.id);
    }
}

/// Hands out answers until the stream ends; then everybody who waits learns that it did.
async fn read(mut receiver: FrameReceiver, connection: Connection, waiting: Arc<Mutex<Waiting>>) {
    let why = loop {
        let frame = match receiver.recv().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break "the node ended the stream".to_owned(),
            Err(error) => break error.to_string(),
        };
        match decode::<Reply>(&frame) {
            Ok(Reply { id, body }) => {
                let answer = waiting.lock().answers.remove(&id);
                // One whose time is over has left the list; its answer is of no use.
                if let Some(tell) = answer {
                    let _ = tell.send(body);
                }
            }
            Err(error) => {
                connection.close("a reply that does not decode");
                break format!("a reply that does not decode: {error}");
            }
        }
    };
    let mut waiting = waiting.lock();
    waiting.over = Some(why);
    waiting.answers.clear();
}

/// A connection that was not made, in the words of the caller.
pub(crate) fn refused(addr: &str, error: transport::Error) -> Error {
    let code = match &error {
        transport::Error::Refused(_) => Code::BadCertificate,
        transport::Error::Setup(_) => Code::BadConfig,
        transport::Error::Unreachable(_)
        | transport::Error::Lost(_)
        | transport::Error::Protocol(_) => Code::Unreachable,
    };
    let text = error.to_string();
    let message = if text.contains(addr) { text } else { format!("{addr}: {text}") };
    Error::new(code, message)
}
