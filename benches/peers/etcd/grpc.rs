//! One gRPC connection over mutual TLS, shared by any number of tasks: a stream of HTTP/2 for each call.

use super::proto;
use crate::Result;
use crate::certs::Certs;
use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, Method, Request, Version};

/// Flow control windows: larger than everything in flight, so that they never hold an answer up.
const WINDOW_BYTES: u32 = 8 << 20;

/// A connection; dropping it ends its task.
pub struct Conn {
    requests: SendRequest<Bytes>,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Conn {
    /// Connects.
    pub async fn open(certs: &Certs, port: u16) -> Result<Self> {
        let stream = certs.connect(port, &[b"h2"]).await?;
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
        let (requests, connection) = builder.handshake(stream).await?;
        // What ends a connection is seen by the calls on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, port, task })
    }

    /// A call with one message each way.
    pub async fn call(&self, method: &str, message: &[u8]) -> Result<Bytes> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("https://127.0.0.1:{}{method}", self.port))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut stream) = requests.send_request(request, false)?;
        stream.send_data(proto::framed(message), true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut answer = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            answer.extend_from_slice(&chunk);
        }
        match body.trailers().await? {
            Some(trailers) => status(&trailers)?,
            None => status(&head.headers)?,
        }
        let length = proto::unframed(&answer)?.len();
        let start = answer.len() - length;
        Ok(answer.freeze().slice(start..))
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            Err(format!("etcd refused: status {code} {message}").into())
        }
        None => Err("an answer of etcd without a status".into()),
    }
}
