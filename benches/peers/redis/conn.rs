//! One TLS connection to a Redis server, shared by any number of tasks: replies come in the order of the
//! requests, and all requests that wait at a moment go out in one write.

use super::resp::{self, Reply};
use crate::Result;
use crate::certs::Certs;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::client::TlsStream;

type Stream = TlsStream<TcpStream>;

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// A connection; dropping it ends its tasks.
pub struct Conn {
    shared: Arc<Shared>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Notify,
}

/// At most as long as there are requests in flight, as each caller waits for its reply.
#[derive(Default)]
struct Queue {
    /// Requests not yet written.
    out: BytesMut,
    /// Who waits, in the order of the requests.
    waiting: VecDeque<oneshot::Sender<Reply>>,
    /// Why there will be no more replies.
    broken: Option<String>,
}

impl Conn {
    /// Connects.
    pub async fn open(certs: &Certs, port: u16) -> Result<Self> {
        let (reader, writer) = tokio::io::split(certs.connect(port, &[]).await?);
        let shared = Arc::new(Shared::default());
        let writing = tokio::spawn(write(shared.clone(), writer));
        let reading = tokio::spawn(read(shared.clone(), reader));
        Ok(Self { shared, tasks: [writing, reading] })
    }

    /// Sends one request and waits for its reply. An error reply is an `Err`.
    pub async fn ask(&self, words: &[&[u8]]) -> Result<Reply> {
        let (sender, reply) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if let Some(why) = &queue.broken {
                return Err(why.clone().into());
            }
            resp::encode(words, &mut queue.out);
            queue.waiting.push_back(sender);
        }
        self.shared.filled.notify_one();
        match reply.await {
            Ok(Reply::Error(text)) => Err(String::from_utf8_lossy(&text).into()),
            Ok(reply) => Ok(reply),
            Err(_) => Err("the connection to Redis is over".into()),
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| task.abort());
    }
}

impl Shared {
    fn fail(&self, why: String) {
        let mut queue = self.queue.lock();
        queue.broken.get_or_insert(why);
        queue.waiting.clear();
    }
}

async fn write(shared: Arc<Shared>, mut writer: WriteHalf<Stream>) {
    let mut out = BytesMut::new();
    loop {
        shared.filled.notified().await;
        std::mem::swap(&mut out, &mut shared.queue.lock().out);
        let written = match writer.write_all(&out).await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        if let Err(error) = written {
            return shared.fail(error.to_string());
        }
        out.clear();
    }
}

async fn read(shared: Arc<Shared>, mut reader: ReadHalf<Stream>) {
    let mut input = BytesMut::new();
    let mut replies = Vec::new();
    loop {
        input.reserve(READ_BYTES);
        match reader.read_buf(&mut input).await {
            Ok(0) => return shared.fail("Redis closed the connection".into()),
            Ok(_) => {}
            Err(error) => return shared.fail(error.to_string()),
        }
        loop {
            match resp::decode(&mut input) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return shared.fail(error),
            }
        }
        let mut queue = shared.queue.lock();
        for reply in replies.drain(..) {
            match queue.waiting.pop_front() {
                Some(waiting) => drop(waiting.send(reply)),
                None => {
                    queue.broken.get_or_insert_with(|| "a reply without a request".into());
                    return;
                }
            }
        }
    }
}
