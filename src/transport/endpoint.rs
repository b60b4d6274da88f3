//! A UDP socket that accepts and makes connections, each side knowing who the other is.

use super::connection::{Connection, canonical};
use super::newcomer::{self, Admission, principal_of};
use super::options::Side;
use super::{Error, Options, errors::code, socket, tls};
use crate::pki::Identity;
use crate::types::NodeName;
use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::TokioRuntime;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Mutex, task::JoinSet, time};

/// Addresses of one host name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Head start of an address over the next one of the same name. UDP gives no sign that nobody listens.
const HEAD_START: Duration = Duration::from_millis(100);
/// The name in the handshake. The other side's identity counts, not the name it is called by.
const SERVER_NAME: &str = "ppdb.internal";

/// A bound UDP socket that accepts and makes connections. Clones share it.
#[derive(Clone)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    quinn: quinn::Endpoint,
    local_addr: SocketAddr,
    identity: Identity,
    options: Arc<Options>,
    /// Set when every connection is about to be closed.
    all_leaving: Arc<AtomicBool>,
    /// Handshakes that others began; whoever calls `accept` drives them.
    handshakes: Mutex<JoinSet<Option<Connection>>>,
}

impl Endpoint {
    /// Binds and accepts. Must run inside the tokio runtime that shall drive the connections.
    pub fn server(addr: SocketAddr, identity: &Identity) -> Result<Self, Error> {
        Self::server_with(addr, identity, Options::default())
    }

    /// The same with other bounds and times. Only a node may serve.
    pub fn server_with(
        addr: SocketAddr,
        identity: &Identity,
        options: Options,
    ) -> Result<Self, Error> {
        if !identity.principal().subject.is_node() {
            let who = identity.principal();
            return Err(Error::Setup(format!("only a node's certificate may serve, not {who}")));
        }
        Self::serve(addr, identity, options, tls::accepting(identity)?)
    }

    pub(super) fn serve(
        addr: SocketAddr,
        identity: &Identity,
        options: Options,
        tls: rustls::ServerConfig,
    ) -> Result<Self, Error> {
        options.check()?;
        let all_leaving = Arc::default();
        let mut server = tls::quic_accepting(tls)?;
        server.transport_config(Arc::new(options.transport(Side::Accepting, &all_leaving)?));
        options.bound_server(&mut server);
        let socket = socket::bind(addr, &options)?;
        // The address that was bound: with port 0 no two endpoints may derive the same keys.
        let bound = socket.local_addr().map_err(unusable)?;
        let config = socket::lasting_config(identity, bound, &options)?;
        Self::start(config, Some(server), socket, identity, options, all_leaving)
    }

    /// Binds a free port for outgoing connections only.
    pub fn client(identity: &Identity) -> Result<Self, Error> {
        Self::client_with(identity, Options::default())
    }

    /// The same with other bounds and times.
    pub fn client_with(identity: &Identity, options: Options) -> Result<Self, Error> {
        options.check()?;
        let socket = socket::bind_any(&options)?;
        let config = socket::fresh_config(&options)?;
        Self::start(config, None, socket, identity, options, Arc::default())
    }

    fn start(
        config: quinn::EndpointConfig,
        server: Option<quinn::ServerConfig>,
        socket: std::net::UdpSocket,
        identity: &Identity,
        options: Options,
        all_leaving: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Setup("an endpoint needs a tokio runtime to run in".to_owned()));
        }
        let local_addr = socket.local_addr().map_err(unusable)?;
        let quinn = quinn::Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
            .map_err(unusable)?;
        let (identity, options) = (identity.clone(), Arc::new(options));
        let handshakes = Mutex::new(JoinSet::new());
        Ok(Self(Arc::new(Inner { quinn, local_addr, identity, options, all_leaving, handshakes })))
    }

    /// The port bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// The next connection whose handshake succeeded; none after `close`. Refused ones are logged.
    /// Handshakes run side by side, and begin only while someone waits here. May be dropped and called
    /// again without losing a connection.
    pub async fn accept(&self) -> Option<Connection> {
        let mut handshakes = self.0.handshakes.lock().await;
        loop {
            tokio::select! {
                incoming = self.0.quinn.accept() => self.admit(incoming?, &mut handshakes),
                Some(finished) = handshakes.join_next() => {
                    if let Ok(Some(connection)) = finished {
                        return Some(connection);
                    }
                }
            }
        }
    }

    fn admit(&self, incoming: quinn::Incoming, handshakes: &mut JoinSet<Option<Connection>>) {
        let (open, under_way) = (self.0.quinn.open_connections(), handshakes.len());
        let proven = incoming.remote_address_validated();
        match Admission::decide(&self.0.options, open, under_way, proven) {
            Admission::Take => {
                let (identity, options) = (self.0.identity.clone(), self.0.options.clone());
                handshakes.spawn(newcomer::take(incoming, identity, options));
            }
            Admission::ProveAddress => drop(incoming.retry()),
            Admission::Refuse => {
                let remote = canonical(incoming.remote_address());
                tracing::warn!(%remote, open, under_way, "connection refused: too many");
                incoming.refuse();
            }
        }
    }

    /// Connects to `host:port`; the other side must be a node of our own cluster. Bounded by
    /// `Options::connect_timeout`. `Refused` says which check failed, there or here.
    pub async fn connect(&self, addr: &str) -> Result<Connection, Error> {
        self.reach(addr, None).await
    }

    /// The same, and the other side must be this very node.
    pub async fn connect_node(&self, addr: &str, name: &NodeName) -> Result<Connection, Error> {
        self.reach(addr, Some(name.clone())).await
    }

    async fn reach(&self, addr: &str, expected: Option<NodeName>) -> Result<Connection, Error> {
        let limit = self.0.options.connect_timeout;
        let reached = time::timeout(limit, async {
            let found = tokio::net::lookup_host(addr).await;
            let found = found.map_err(|error| Error::Unreachable(error.to_string()))?;
            let is_v4 = self.0.local_addr.is_ipv4();
            // A socket of IPv4 cannot send to IPv6; the other way round is mapped.
            let usable = found.filter(|addr| addr.is_ipv4() || !is_v4).take(ADDRESSES_MAX);
            self.race(usable.collect(), expected).await
        });
        match reached.await {
            Ok(result) => result.map_err(|error| error.about(addr)),
            Err(_) => Err(Error::Unreachable(format!("{addr}: no answer within {limit:?}"))),
        }
    }

    /// Tries every address, the first with a head start; the first that answers wins.
    async fn race(
        &self,
        addresses: Vec<SocketAddr>,
        expected: Option<NodeName>,
    ) -> Result<Connection, Error> {
        let config = self.quic(tls::connecting(&self.0.identity, expected)?)?;
        let mut attempts: FuturesUnordered<_> = (0u32..)
            .zip(addresses)
            .map(|(place, address)| {
                let config = config.clone();
                async move {
                    time::sleep(HEAD_START * place).await;
                    self.dial(config, address).await
                }
            })
            .collect();
        let mut failure = Error::Unreachable("the name has no usable address".to_owned());
        while let Some(result) = attempts.next().await {
            match result {
                Ok(connection) => return Ok(connection),
                // A refusal says more than silence from another address.
                Err(error) if matches!(failure, Error::Refused(_)) => drop(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn quic(&self, tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, Error> {
        let mut config = tls::quic_connecting(tls)?;
        config.transport_config(Arc::new(
            self.0.options.transport(Side::Connecting, &self.0.all_leaving)?,
        ));
        Ok(config)
    }

    async fn dial(
        &self,
        config: quinn::ClientConfig,
        address: SocketAddr,
    ) -> Result<Connection, Error> {
        let connecting = self
            .0
            .quinn
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        let quinn = connecting.await?;
        // Our side of the handshake ends before the other side has seen our certificate.
        let mut stream = quinn.accept_uni().await?;
        let mut welcome = [0];
        let read = stream.read(&mut welcome).await?;
        if read != Some(1) || welcome != newcomer::WELCOME {
            let violation = Error::Protocol("the welcome is not one of version 1".to_owned());
            let (code, reason) = violation.to_close();
            quinn.close(code, reason.as_bytes());
            return Err(violation);
        }
        let principal = principal_of(&quinn)?;
        Ok(Connection::new(quinn, principal, self.0.options.clone()))
    }

    /// Connects with TLS settings that a well-behaved client would not have.
    #[cfg(test)]
    pub(super) async fn dial_with(
        &self,
        tls: rustls::ClientConfig,
        address: SocketAddr,
    ) -> Result<Connection, Error> {
        self.dial(self.quic(tls)?, address).await
    }

    /// Closes every connection, telling the reason, and waits until that is sent (bounded by
    /// `Options::close_timeout`).
    pub async fn close(&self, reason: &str) {
        self.0.all_leaving.store(true, Ordering::Release);
        self.0.quinn.close(code::CLOSED, reason.as_bytes());
        let _ = time::timeout(self.0.options.close_timeout, self.0.quinn.wait_idle()).await;
    }
}

fn unusable(error: std::io::Error) -> Error {
    Error::Setup(format!("the UDP socket is not usable: {error}"))
}
