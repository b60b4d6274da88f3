//! Real sockets on loopback and real handshakes: certificates good and bad, streams whole and broken.

mod handshakes;
mod lifetimes;
mod streams;
mod tls;

use super::*;
use crate::pki::{self, Identity, IssueOptions, Subject};
use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn ca(cluster: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), cluster).unwrap();
    dir
}

fn issue(dir: &Path, subject: Subject, options: IssueOptions) -> Identity {
    let issued = pki::issue(dir, subject, options).unwrap();
    Identity::load(&issued.ca, &issued.cert, &issued.key).unwrap()
}

fn node(dir: &Path, name: &str) -> Identity {
    issue(dir, Subject::node(name).unwrap(), IssueOptions::default())
}

fn user(dir: &Path, name: &str) -> Identity {
    issue(dir, Subject::user(name).unwrap(), IssueOptions::default())
}

/// A server whose accepted connections arrive in the channel.
fn serve(
    identity: &Identity,
    options: Options,
) -> (Endpoint, String, mpsc::UnboundedReceiver<Connection>) {
    accepting(Endpoint::server_with(loopback(), identity, options).unwrap())
}

fn accepting(server: Endpoint) -> (Endpoint, String, mpsc::UnboundedReceiver<Connection>) {
    let (sender, accepted) = mpsc::unbounded_channel();
    let endpoint = server.clone();
    tokio::spawn(async move {
        while let Some(connection) = endpoint.accept().await {
            let _ = sender.send(connection);
        }
    });
    let addr = server.local_addr().to_string();
    (server, addr, accepted)
}

/// Two connected sides: the endpoints stay alive as long as the value.
struct Pair {
    near: Connection,
    far: Connection,
    _endpoints: (Endpoint, Endpoint),
    _dir: TempDir,
}

async fn pair(user_name: Option<&str>, options: Options) -> Pair {
    let dir = ca("shop");
    let (server, addr, mut accepted) = serve(&node(dir.path(), "n1"), options.clone());
    let identity = match user_name {
        Some(name) => user(dir.path(), name),
        None => node(dir.path(), "n2"),
    };
    let client = Endpoint::client_with(&identity, options).unwrap();
    let near = client.connect(&addr).await.unwrap();
    let far = within(accepted.recv()).await.unwrap();
    Pair { near, far, _endpoints: (server, client), _dir: dir }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("took too long")
}

/// What was logged in this process, at level `warn` and above.
fn logged() -> Arc<Mutex<Vec<u8>>> {
    #[derive(Clone)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    let start = || {
        let log = Arc::new(Mutex::new(vec![]));
        let writer = Log(log.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("no other subscriber in tests");
        log
    };
    LOG.get_or_init(start).clone()
}

/// Waits until one line of the log holds all of `parts`.
async fn is_logged(parts: &[&str]) {
    let log = logged();
    let found = timeout(PATIENCE, async {
        loop {
            let text = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
            if text.lines().any(|line| parts.iter().all(|part| line.contains(part))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    if found.await.is_err() {
        let text = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
        panic!("no line with {parts:?} in\n{text}");
    }
}
