//! The connections of a client: a few for each node, made when first needed, shared by all tasks.
//!
//! One task connects while the others wait for it. After a failed attempt nobody tries for a while:
//! requests learn at once that the node cannot be reached, and can go elsewhere.

use super::Options;
use super::conn::{Conn, refused};
use super::net::{Failure, Found, Net, Target};
use super::retry::back_off;
use crate::transport::Endpoint;
use crate::types::{Class, Code, Error, NodeName, Result};
use crate::wire::client::{ReplyBody, RequestBody};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{timeout, timeout_at};

/// How long one attempt to connect may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long other endpoints are given to come up with a map once one has answered without.
const MAP_WAIT: Duration = Duration::from_millis(300);
/// Endpoints a user may give.
const ENDPOINTS_MAX: usize = 64;
/// Connections to one node.
const CONNECTIONS_PER_NODE_MAX: usize = 256;

/// The connections of a client.
pub(crate) struct Pool {
    endpoint: Endpoint,
    endpoints: Vec<String>,
    per_node: usize,
    /// One for each node ever named by a map or found at an endpoint: a handful.
    peers: RwLock<HashMap<NodeName, Arc<Peer>>>,
}

struct Peer {
    slots: Vec<Arc<Slot>>,
    next: AtomicUsize,
}

#[derive(Default)]
struct Slot {
    conn: RwLock<Option<Arc<Conn>>>,
    /// Held while connecting.
    connecting: Arc<tokio::sync::Mutex<Attempts>>,
}

/// What became of the last attempts to connect.
#[derive(Default)]
struct Attempts {
    failures: u32,
    last: Option<(Instant, Error)>,
}

impl Pool {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let count = options.endpoints.len();
        if count == 0 || count > ENDPOINTS_MAX {
            let message = format!("1 to {ENDPOINTS_MAX} endpoints are needed, not {count}");
            return Err(Error::new(Code::BadConfig, message));
        }
        let endpoint = Endpoint::client(&options.identity).map_err(|e| refused("socket", e))?;
        Ok(Self {
            endpoint,
            endpoints: options.endpoints.clone(),
            per_node: options.connections_per_node.clamp(1, CONNECTIONS_PER_NODE_MAX),
            peers: RwLock::default(),
        })
    }

    pub(crate) async fn close(&self) {
        self.endpoint.close("the client was closed").await;
        self.peers.write().clear();
    }

    fn peer(&self, name: &NodeName) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(name) {
            return peer.clone();
        }
        let new = || {
            let slots = (0..self.per_node).map(|_| Arc::default()).collect();
            Arc::new(Peer { slots, next: AtomicUsize::new(0) })
        };
        self.peers.write().entry(name.clone()).or_insert_with(new).clone()
    }

    /// A live connection to a node: the next one in turn, or any other if that one cannot be made.
    async fn conn(&self, to: &Target, until: Instant) -> Result<Arc<Conn>> {
        let peer = self.peer(&to.name);
        let at = peer.next.fetch_add(1, Ordering::Relaxed) % peer.slots.len();
        match self.connected(&peer.slots[at], to, until).await {
            Ok(conn) => Ok(conn),
            Err(error) => peer.slots.iter().find_map(|slot| slot.live(to)).ok_or(error),
        }
    }

    async fn connected(&self, slot: &Arc<Slot>, to: &Target, until: Instant) -> Result<Arc<Conn>> {
        if let Some(conn) = slot.live(to) {
            return Ok(conn);
        }
        let late =
            |_| Error::new(Code::Unreachable, format!("not connected to {} in time", to.name));
        let attempts = slot.connecting.clone().lock_owned();
        let attempts = timeout_at(until.into(), attempts).await.map_err(late)?;
        if let Some(conn) = slot.live(to) {
            return Ok(conn);
        }
        if let Some((not_before, error)) = &attempts.last
            && Instant::now() < *not_before
        {
            return Err(error.clone());
        }
        // A task of its own: a caller with little time must not end the attempt that others wait for.
        let connecting =
            tokio::spawn(connect(self.endpoint.clone(), slot.clone(), to.clone(), attempts));
        match timeout_at(until.into(), connecting).await.map_err(late)? {
            Ok(connected) => connected,
            Err(error) => Err(Error::new(Code::Internal, error.to_string())),
        }
    }

    /// Asks one endpoint who it is and for its map; keeps the connection.
    async fn ask(&self, addr: &str, until: Instant) -> Result<Found> {
        let known = || {
            let peers = self.peers.read();
            let mut slots = peers.values().flat_map(|peer| &peer.slots);
            slots.find_map(|slot| {
                slot.conn.read().clone().filter(|c| c.addr == addr && !c.is_over())
            })
        };
        let conn = match known() {
            Some(conn) => conn,
            None => {
                let conn = Conn::open(&self.endpoint, addr, None).await?;
                self.peer(&conn.node.clone()).slots[0].keep(conn)
            }
        };
        let target = Target { name: conn.node.clone(), addr: addr.to_owned() };
        let hello = conn.request(RequestBody::Hello, until).await;
        let formed = match hello.map_err(|failure| unanswered(addr, failure))? {
            ReplyBody::Hello(hello) => hello.formed,
            _ => return Err(Error::new(Code::BadVersion, format!("{addr} did not say hello"))),
        };
        if !formed {
            return Ok(Found { target, map: None });
        }
        // A node that cannot tell the map yet is still one that answers.
        let map = match conn.request(RequestBody::Map, until).await {
            Ok(ReplyBody::Map(map)) if !map.shards.is_empty() => Some(map),
            _ => None,
        };
        Ok(Found { target, map })
    }
}

/// One attempt to connect, for all who wait for it.
async fn connect(
    endpoint: Endpoint,
    slot: Arc<Slot>,
    to: Target,
    mut attempts: OwnedMutexGuard<Attempts>,
) -> Result<Arc<Conn>> {
    let open = timeout(CONNECT_WAIT, Conn::open(&endpoint, &to.addr, Some(&to.name))).await;
    let late = || Error::new(Code::Unreachable, format!("not connected to {} in time", to.name));
    match open.unwrap_or_else(|_| Err(late())) {
        Ok(conn) => {
            *attempts = Attempts::default();
            Ok(slot.put(conn))
        }
        Err(error) => {
            let pause = back_off(attempts.failures, rand::random());
            attempts.failures = attempts.failures.saturating_add(1);
            attempts.last = Some((Instant::now() + pause, error.clone()));
            Err(error)
        }
    }
}

impl Slot {
    fn live(&self, to: &Target) -> Option<Arc<Conn>> {
        let conn = self.conn.read();
        conn.as_ref().filter(|conn| conn.addr == to.addr && !conn.is_over()).cloned()
    }

    /// Keeps a connection for later unless there is one; the node may be known by another address.
    fn keep(&self, conn: Conn) -> Arc<Conn> {
        let taken = self.conn.read().as_ref().is_some_and(|conn| !conn.is_over());
        if taken { Arc::new(conn) } else { self.put(conn) }
    }

    fn put(&self, conn: Conn) -> Arc<Conn> {
        let conn = Arc::new(conn);
        *self.conn.write() = Some(conn.clone());
        conn
    }
}

impl Net for Pool {
    fn now(&self) -> Instant {
        Instant::now()
    }

    async fn sleep_until(&self, at: Instant) {
        tokio::time::sleep_until(at.into()).await;
    }

    async fn exchange(
        &self,
        to: &Target,
        body: RequestBody,
        until: Instant,
    ) -> Result<ReplyBody, Failure> {
        let conn = self.conn(to, until).await.map_err(Failure::NotSent)?;
        conn.request(body, until).await
    }

    async fn discover(&self, until: Instant) -> Result<Found> {
        let ask = |addr: &String| {
            let addr = addr.clone();
            async move {
                let asked = timeout_at(until.into(), self.ask(&addr, until)).await;
                let late = format!("{addr} did not answer in time");
                asked.unwrap_or_else(|_| Err(Error::new(Code::Unreachable, late)))
            }
        };
        let mut asked: FuturesUnordered<_> = self.endpoints.iter().map(ask).collect();
        let (mut without_map, mut errors) = (None, vec![]);
        let mut end = until;
        while let Ok(Some(answer)) = timeout_at(end.into(), asked.next()).await {
            match answer {
                Ok(found) if found.map.is_some() => return Ok(found),
                Ok(found) => {
                    end = until.min(Instant::now() + MAP_WAIT);
                    without_map = without_map.or(Some(found));
                }
                Err(error) => errors.push(error),
            }
        }
        without_map.ok_or_else(|| nobody(errors))
    }
}

/// What to say when no endpoint answered: a refusal, which somebody has to mend, before silence.
fn nobody(errors: Vec<Error>) -> Error {
    let mut errors = errors;
    errors.sort_by_key(|error| error.class() == Class::Retry);
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    let code = errors.first().map_or(Code::Unreachable, |error| error.code);
    Error::new(code, messages.join("; "))
}

fn unanswered(addr: &str, failure: Failure) -> Error {
    match failure {
        Failure::NotSent(error) | Failure::Refused(error) => error,
        Failure::Lost(why) => Error::new(Code::Unreachable, why),
        Failure::TimedOut => {
            Error::new(Code::Unreachable, format!("{addr} did not answer in time"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_certificate_is_said_before_silence() {
        let error = nobody(vec![
            Error::new(Code::Unreachable, "a:1 is silent"),
            Error::new(Code::BadCertificate, "another CA"),
        ]);
        assert_eq!(error.code, Code::BadCertificate);
        assert_eq!(error.message, "another CA; a:1 is silent");
        assert_eq!(nobody(vec![]).code, Code::Unreachable);
    }
}
