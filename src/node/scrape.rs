//! The endpoint that Prometheus scrapes: `GET /metrics` over HTTPS with a certificate of the cluster, or, if an operator
//! chooses that, over plain HTTP on a loopback address. Off unless set.
//!
//! It shows metrics and nothing else, takes few connections at a time, and does not outlive the node.

use crate::admin::Admin;
use crate::pki::Identity;
use crate::transport;
use crate::types::{Code, Error, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection may take to say what it wants, and to live.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_MAX: Duration = Duration::from_secs(300);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Rest after the system could not take a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What the text is, as Prometheus wants to hear it.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A bound endpoint.
pub(super) struct Scrape {
    listener: TcpListener,
    /// None over plain HTTP.
    tls: Option<TlsAcceptor>,
}

impl Scrape {
    /// Binds; `BadConfig` if that address cannot be had. `identity` is none for plain HTTP.
    pub(super) async fn bind(addr: SocketAddr, identity: Option<&Identity>) -> Result<Self> {
        let bad =
            |why: String| Error::new(Code::BadConfig, format!("metrics.listen {addr}: {why}"));
        let tls = identity.map(transport::https_accepting).transpose();
        let tls = tls.map_err(|e| bad(e.to_string()))?.map(|c| TlsAcceptor::from(Arc::new(c)));
        let listener = TcpListener::bind(addr).await.map_err(|e| bad(e.to_string()))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let bound = listener.local_addr().map_err(|e| bad(e.to_string()))?;
        tracing::info!("metrics at {scheme}://{bound}/metrics");
        Ok(Self { listener, tls })
    }

    /// Serves for ever.
    pub(super) async fn run(self, admin: Arc<Admin>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(permit) = room.clone().acquire_owned().await {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "metrics: connection not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (admin, tls) = (admin.clone(), self.tls.clone());
            tokio::spawn(async move {
                let served = tokio::time::timeout(CONNECTION_MAX, connection(stream, tls, admin));
                if let Ok(Err(error)) = served.await {
                    tracing::debug!(error, "metrics: connection over");
                }
                drop(permit);
            });
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    admin: Arc<Admin>,
) -> std::result::Result<(), String> {
    let Some(tls) = tls else { return talk(stream, admin).await };
    let shaken = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await;
    match shaken {
        Ok(Ok(stream)) => talk(stream, admin).await,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no handshake in time".to_owned()),
    }
}

async fn talk<S>(stream: S, admin: Arc<Admin>) -> std::result::Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(answer(&request, admin).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(|error| error.to_string())
}

async fn answer(request: &Request<Incoming>, admin: Arc<Admin>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "there is only /metrics\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match admin.metrics().await {
        Ok(text) => plain(StatusCode::OK, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(TEXT);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
