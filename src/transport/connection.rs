//! A connection whose other side proved who it is, and the streams on it.

use super::class::{NotAdmitted, StreamClass};
use super::{Error, FrameReceiver, FrameSender, Options, congestion};
use crate::pki::Principal;
use quinn::{ConnectionError, RecvStream, SendStream};
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout, timeout_at},
};

/// A connection whose other side proved who it is. Clones share it. It ends when `close` is called, or
/// when every clone and every stream of it is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    quinn: quinn::Connection,
    principal: Principal,
    options: Arc<Options>,
    /// A stream whose class byte has not arrived. Kept here, so that a dropped `accept` loses nothing.
    arriving: Mutex<Option<Arriving>>,
    /// Why this side closed it.
    closed_because: OnceLock<Error>,
}

struct Arriving {
    send: SendStream,
    recv: RecvStream,
    deadline: Instant,
}

/// An IPv4 address as such, where a socket of both versions shows it within IPv6.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Connection {
    pub(super) fn new(
        quinn: quinn::Connection,
        principal: Principal,
        options: Arc<Options>,
    ) -> Self {
        let (arriving, closed_because) = (Mutex::new(None), OnceLock::new());
        Self(Arc::new(Inner { quinn, principal, options, arriving, closed_because }))
    }

    /// Who the other side is.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// Where it is.
    pub fn remote_addr(&self) -> SocketAddr {
        canonical(self.0.quinn.remote_address())
    }

    /// Opens a stream of a class. Waits at most `Options::open_timeout` while the other side has as many
    /// open as it grants.
    pub async fn open(&self, class: StreamClass) -> Result<(FrameSender, FrameReceiver), Error> {
        let limit = self.0.options.open_timeout;
        let opened = timeout(limit, async {
            let (mut send, recv) = self.0.quinn.open_bi().await?;
            // The other side sees a stream only when something was written to it.
            send.write_all(&[class as u8]).await?;
            Ok((send, recv))
        });
        match opened.await {
            Ok(Ok((send, recv))) => Ok(self.framed(class, send, recv)),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => {
                Err(Error::Lost(format!("the other side granted no stream within {limit:?}")))
            }
        }
    }

    /// The next stream the other side opened. A user that opens a class meant for nodes is refused:
    /// the connection closes with the reason. May be dropped and called again without losing a stream.
    pub async fn accept(&self) -> Result<(StreamClass, FrameSender, FrameReceiver), Error> {
        let mut arriving = self.0.arriving.lock().await;
        loop {
            if arriving.is_none() {
                let accepted = self.0.quinn.accept_bi().await;
                let (send, recv) = accepted.map_err(|error| self.explain(error.into()))?;
                let deadline = Instant::now() + self.0.options.open_timeout;
                *arriving = Some(Arriving { send, recv, deadline });
            }
            let Some(stream) = arriving.as_mut() else { continue };
            let mut byte = [0];
            let read = timeout_at(stream.deadline, stream.recv.read(&mut byte)).await;
            let Some(Arriving { send, recv, .. }) = arriving.take() else { continue };
            match read {
                Ok(Ok(Some(_))) => {
                    let class = self.admit(byte[0])?;
                    let (sender, receiver) = self.framed(class, send, recv);
                    return Ok((class, sender, receiver));
                }
                // Given up before its class was said; that is no offence.
                Ok(Ok(None) | Err(quinn::ReadError::Reset(_))) => {}
                Ok(Err(error)) => return Err(self.explain(error.into())),
                Err(_) => {
                    let why = "a stream did not say its class in time";
                    return Err(self.fail(Error::Protocol(why.to_owned())));
                }
            }
        }
    }

    fn admit(&self, byte: u8) -> Result<StreamClass, Error> {
        StreamClass::admit(byte, &self.0.principal).map_err(|why| {
            self.fail(match why {
                NotAdmitted::Unknown(byte) => {
                    Error::Protocol(format!("there is no stream class {byte}"))
                }
                NotAdmitted::NodesOnly(class) => Error::Refused(format!(
                    "{} may not open a stream of class {class:?}: a node certificate is required",
                    self.0.principal
                )),
            })
        })
    }

    fn framed(
        &self,
        class: StreamClass,
        send: SendStream,
        recv: RecvStream,
    ) -> (FrameSender, FrameReceiver) {
        // Fails only if the stream is over, which the first write finds out.
        let _ = send.set_priority(class.priority());
        let sender = FrameSender::start(class, send, &self.0.options);
        (sender, FrameReceiver::new(class, recv, self.clone()))
    }

    /// Resolves when the connection is over, with why.
    pub async fn closed(&self) -> Error {
        let why = self.0.quinn.closed().await;
        self.explain(why.into())
    }

    /// True once it is over.
    pub fn is_closed(&self) -> bool {
        self.0.quinn.close_reason().is_some()
    }

    /// Ends it, telling the other side why.
    pub fn close(&self, reason: &str) {
        self.end(Error::Lost(reason.to_owned()));
    }

    /// Ends it because of an offence, and logs that. Gives the error back.
    pub(super) fn fail(&self, error: Error) -> Error {
        if !self.is_closed() {
            let (remote, peer) = (self.remote_addr(), &self.0.principal);
            tracing::warn!(%remote, %peer, reason = %error, "connection closed");
        }
        self.end(error.clone());
        error
    }

    fn end(&self, error: Error) {
        let (code, reason) = error.to_close();
        // The first reason stands, as it does on the wire.
        let _ = self.0.closed_because.set(error);
        congestion::prepare_close(&self.0.quinn);
        self.0.quinn.close(code, reason.as_bytes());
    }

    /// The connection below, to do on it what this type would not.
    #[cfg(test)]
    pub(super) fn quinn(&self) -> &quinn::Connection {
        &self.0.quinn
    }

    /// quinn only knows that this side closed it; say why, if that is what happened.
    pub(super) fn explain(&self, error: Error) -> Error {
        match (self.0.quinn.close_reason(), self.0.closed_because.get()) {
            (Some(ConnectionError::LocallyClosed), Some(why)) => why.clone(),
            _ => error,
        }
    }
}
