//! The client over real connections, against small nodes that speak the wire and do as they are told.

use super::testing::{get, name, results, set, token};
use super::{CallOptions, Client, Level, Options, ScanOptions};
use crate::pki::{self, Identity, IssueOptions, Subject};
use crate::transport::{Connection, Endpoint, FrameSender};
use crate::types::{Code, Error, Incarnation, OpResult, Result, SessionId, SessionSeq, ShardId};
use crate::wire::client::{
    Hello, Map, MapNode, MapShard, Reply, ReplyBody, Request, RequestBody, Role, ScanReply,
    Strategy, decode,
};
use crate::wire::codec;
use crate::wire::command::{Answer, Command};
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What a node does with a request.
enum Does {
    Answers(Result<ReplyBody>),
    AnswersAfter(Duration, Result<ReplyBody>),
    SaysNothing,
    Disconnects,
}

type Behaviour = Arc<dyn Fn(RequestBody, usize) -> Does + Send + Sync>;

/// A node of one shard; `behaviour` gets what is neither `Hello` nor `Map`, and how many came before.
struct Node {
    endpoint: Endpoint,
    connections: Arc<AtomicUsize>,
}

struct Certs(TempDir);

impl Certs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path(), "shop").unwrap();
        Self(folder)
    }

    fn issue(&self, subject: Subject) -> Identity {
        let issued = pki::issue(self.0.path(), subject, IssueOptions::default()).unwrap();
        Identity::load(&issued.ca, &issued.cert, &issued.key).unwrap()
    }

    fn options(&self, endpoints: &[&str]) -> Options {
        Options {
            endpoints: endpoints.iter().map(|e| (*e).to_owned()).collect(),
            identity: self.issue(Subject::user(&format!("u{}", rand::random::<u32>())).unwrap()),
            connections_per_node: 1,
        }
    }

    /// A node that calls itself `called` in the map, whatever its certificate says.
    fn serve(
        &self,
        certified: &str,
        called: &str,
        behaviour: impl Fn(RequestBody, usize) -> Does + Send + Sync + 'static,
    ) -> Node {
        let identity = self.issue(Subject::node(certified).unwrap());
        let endpoint = Endpoint::server(([127, 0, 0, 1], 0).into(), &identity).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let map = one_node(called, &endpoint.local_addr().to_string());
        let (accepting, counted) = (endpoint.clone(), connections.clone());
        let (behaviour, requests): (Behaviour, _) =
            (Arc::new(behaviour), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Some(connection) = accepting.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let node = (map.clone(), behaviour.clone(), requests.clone());
                tokio::spawn(serve(connection, node.0, node.1, node.2));
            }
        });
        Node { endpoint, connections }
    }
}

impl Node {
    fn addr(&self) -> String {
        self.endpoint.local_addr().to_string()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn one_node(called: &str, addr: &str) -> Map {
    let node = MapNode { name: name(called), role: Role::Primary, addr: addr.to_owned() };
    let shard = MapShard {
        id: ShardId(0),
        incarnation: Incarnation(0),
        owner: name(called),
        copies: vec![name(called)],
    };
    Map {
        epoch: 1,
        strategy: Strategy::Sharded,
        read_default: Default::default(),
        nodes: vec![node],
        shards: vec![shard],
    }
}

async fn serve(connection: Connection, map: Map, behaviour: Behaviour, requests: Arc<AtomicUsize>) {
    while let Ok((_, sender, mut receiver)) = connection.accept().await {
        while let Ok(Some(frame)) = receiver.recv().await {
            let Request { id, body, .. } = decode(&frame).unwrap();
            let does = match body {
                RequestBody::Hello => {
                    let node = map.nodes[0].name.clone();
                    let hello = Hello { node, version: "0".into(), formed: true };
                    Does::Answers(Ok(ReplyBody::Hello(hello)))
                }
                RequestBody::Map => Does::Answers(Ok(ReplyBody::Map(map.clone()))),
                body => behaviour(body, requests.fetch_add(1, Ordering::Relaxed)),
            };
            match does {
                Does::Answers(body) => answer(&sender, id, body).await,
                Does::AnswersAfter(time, body) => {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        answer(&sender, id, body).await;
                    });
                }
                Does::SaysNothing => {}
                Does::Disconnects => return connection.close("as told"),
            }
        }
    }
}

async fn answer(sender: &FrameSender, id: u64, body: Result<ReplyBody>) {
    let _ = sender.send(codec::encode(&Reply { id, body }).into()).await;
}

fn session() -> Does {
    Does::Answers(Ok(ReplyBody::Session(SessionId { incarnation: Incarnation(0), index: 7 })))
}

fn done() -> Does {
    Does::Answers(Ok(results(0, 1, &[OpResult::Done])))
}

/// Answers everything with success.
fn obliging(body: RequestBody, _: usize) -> Does {
    match body {
        RequestBody::OpenSession { .. } => session(),
        RequestBody::Scan(scan) => {
            let key = |i: u8| (bytes::Bytes::from(vec![b'a' + i]), None);
            let after = scan.after.map_or(0, |after| after[0] - b'a' + 1);
            let entries: Vec<_> = (after..26).take(scan.limit as usize).map(key).collect();
            let next_after = entries.last().map(|(k, _)| k.clone()).filter(|k| k[0] < b'z');
            let page = ScanReply { entries, token: token(0, 1), next_after };
            Does::Answers(Ok(ReplyBody::Scan(page)))
        }
        RequestBody::Command(_) => {
            Does::Answers(Ok(ReplyBody::Command(Answer::ReplicaLag(vec![]))))
        }
        _ => done(),
    }
}

#[tokio::test]
async fn any_endpoint_that_answers_is_enough() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", obliging);
    let started = Instant::now();
    let endpoints = ["127.0.0.1:9", &node.addr(), "no-such-host.invalid:1"];
    let client = Client::connect(certs.options(&endpoints)).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "nobody waits for the silent ones");
    assert_eq!(client.map().epoch, 1);
    let wrote = client.call(vec![set("k", "v")], &CallOptions::default()).await.remove(0).unwrap();
    assert_eq!((wrote.result, wrote.served_by), (OpResult::Done, name("n1")));
    let lag = client.command(Command::ReplicaLag, None, Duration::from_secs(2)).await;
    assert_eq!(lag.unwrap(), (Answer::ReplicaLag(vec![]), name("n1")));
    assert_eq!(node.connections(), 1, "the first contact is kept and used");
    client.close().await;
    let closed = client.call(vec![get("k")], &CallOptions::default()).await.remove(0);
    assert_eq!(closed.unwrap_err().code, Code::Unreachable);
}

#[tokio::test]
async fn when_nobody_answers_the_reason_is_said() {
    let (certs, others) = (Certs::new(), Certs::new());
    let node = certs.serve("n1", "n1", obliging);
    let error = Client::connect(others.options(&[&node.addr()])).await.err().unwrap();
    assert_eq!(error.code, Code::BadCertificate, "{error}");
    let error = Client::connect(certs.options(&[])).await.err().unwrap();
    assert_eq!(error.code, Code::BadConfig, "{error}");
}

#[tokio::test]
async fn many_tasks_share_few_connections_and_answers_come_in_any_order() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", |body, count| match body {
        RequestBody::Kv(_) => {
            let wait = Duration::from_millis(if count == 0 { 300 } else { 0 });
            Does::AnswersAfter(wait, Ok(results(0, 1, &[OpResult::Int(count as i64)])))
        }
        other => obliging(other, count),
    });
    let options = Options { connections_per_node: 2, ..certs.options(&[&node.addr()]) };
    let client = Client::connect(options).await.unwrap();
    let ask = || async {
        let started = Instant::now();
        let answer = client.call(vec![get("k")], &CallOptions::default()).await.remove(0);
        (answer.unwrap().result, started.elapsed())
    };
    let answers = join_all((0..200).map(|_| ask())).await;
    let mut seen: Vec<i64> = answers
        .iter()
        .map(|(result, _)| match result {
            OpResult::Int(count) => *count,
            other => panic!("{other:?}"),
        })
        .collect();
    seen.sort();
    assert!(seen.into_iter().eq(0..200), "each got its own answer");
    let late = answers.iter().filter(|(_, took)| *took >= Duration::from_millis(300)).count();
    assert_eq!(late, 1, "one slow answer holds nobody back");
    assert_eq!(node.connections(), 2);
}

#[tokio::test]
async fn a_connection_lost_after_sending_is_unknown_or_repeated_under_the_same_name() {
    let certs = Certs::new();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<Option<SessionSeq>>();
    // The second write of three is cut off: 0 is the session.
    let node = certs.serve("n1", "n1", move |body, count| match body {
        RequestBody::Kv(kv) => {
            tell.send(kv.dedup).unwrap();
            if count == 2 { Does::Disconnects } else { done() }
        }
        other => obliging(other, count),
    });
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let started = Instant::now();
    for _ in 0..2 {
        let answer = client.call(vec![set("k", "v")], &CallOptions::default()).await.remove(0);
        assert_eq!(answer.unwrap().result, OpResult::Done);
    }
    assert!(started.elapsed() < Duration::from_millis(900), "the loss is noticed, not waited for");
    let mut next = || told.try_recv().unwrap().unwrap().sequence;
    assert_eq!([next(), next(), next()], [1, 2, 2]);
    assert_eq!(node.connections(), 2);

    let node = certs.serve("n2", "n2", |_, _| Does::Disconnects);
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let once = CallOptions { retry: false, ..CallOptions::default() };
    let error = client.call(vec![set("k", "v")], &once).await.remove(0).unwrap_err();
    assert_eq!(error.code, Code::Unknown, "{error}");
    assert!(error.message.contains("lost before the answer"), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline_and_not_later() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", |body, count| match body {
        RequestBody::OpenSession { .. } => obliging(body, count),
        _ => Does::SaysNothing,
    });
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let short = CallOptions { timeout: Duration::from_millis(200), ..CallOptions::default() };
    for (op, code) in [(get("k"), Code::DeadlineExceeded), (set("k", "v"), Code::Unknown)] {
        let started = Instant::now();
        let error = client.call(vec![op], &short).await.remove(0).unwrap_err();
        assert_eq!(error.code, code);
        let took = started.elapsed();
        assert!((200..700).contains(&(took.as_millis() as u64)), "{took:?}");
    }
    let error = client.command(Command::Status, None, short.timeout).await.unwrap_err();
    assert_eq!(error.code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn the_wait_a_node_gets_is_a_little_shorter_than_ours() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", |_, _| {
        let refusal = Error::new(Code::NotYet, "waited all the time");
        Does::AnswersAfter(Duration::from_millis(460), Err(refusal))
    });
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let pinned = CallOptions {
        level: Some(Level::Session),
        node: Some(name("n1")),
        timeout: Duration::from_millis(500),
        ..CallOptions::default()
    };
    let error = client.call(vec![get("k")], &pinned).await.remove(0).unwrap_err();
    assert_eq!(error.code, Code::NotYet, "it still gets through");
}

#[tokio::test]
async fn a_node_that_is_not_the_one_in_the_map_gets_no_request() {
    let certs = Certs::new();
    let node = certs.serve("n2", "n1", |_, _| panic!("asked"));
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let short = CallOptions { timeout: Duration::from_millis(300), ..CallOptions::default() };
    let error = client.call(vec![set("k", "v")], &short).await.remove(0).unwrap_err();
    assert_eq!((error.code, error.outcome()), (Code::Unreachable, "fail"));
    assert!(error.message.contains("is n2, not n1"), "{error}");
}

#[tokio::test]
async fn a_scan_goes_through_all_pages() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", obliging);
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let mut scan = ScanOptions { limit: 7, keys_only: true, ..ScanOptions::default() };
    let (mut keys, mut pages) = (vec![], 0);
    loop {
        let page = client.scan(&scan, &CallOptions::default()).await.unwrap();
        assert!(page.entries.len() <= 7);
        keys.extend(page.entries.into_iter().map(|(key, _)| key[0]));
        pages += 1;
        scan.cursor = page.cursor;
        if scan.cursor.is_none() {
            break;
        }
    }
    assert_eq!((keys, pages), ((b'a'..=b'z').collect(), 4));
}

#[tokio::test]
async fn calls_that_are_given_up_leave_nothing_behind() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", |body, count| match body {
        RequestBody::OpenSession { .. } => obliging(body, count),
        RequestBody::Kv(_) if count <= 5_000 => Does::SaysNothing,
        other => obliging(other, count),
    });
    let client = Client::connect(certs.options(&[&node.addr()])).await.unwrap();
    let options = CallOptions::default();
    // More than a connection or the sessions of a shard would hold if they were kept.
    for _ in 0..10 {
        let calls = join_all((0..500).map(|_| client.call(vec![set("k", "v")], &options)));
        let _ = tokio::time::timeout(Duration::from_millis(100), calls).await;
    }
    let answer = client.call(vec![set("k", "v")], &options).await.remove(0);
    assert!(answer.is_ok(), "{answer:?}");
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_spoil_the_connecting_for_others() {
    let certs = Certs::new();
    let node = certs.serve("n1", "n1", obliging);
    // A name in front of the address: the first contact cannot serve as the connection to the node.
    let port = node.endpoint.local_addr().port();
    let client = Client::connect(certs.options(&[&format!("localhost:{port}")])).await.unwrap();
    let hurried = CallOptions { timeout: Duration::from_micros(300), ..CallOptions::default() };
    let mut succeeded = false;
    for _ in 0..200 {
        succeeded |= client.call(vec![get("k")], &hurried).await.remove(0).is_ok();
        tokio::time::sleep(Duration::from_millis(2)).await;
        if node.connections() == 2 {
            break;
        }
    }
    assert!(!succeeded && node.connections() == 2, "{succeeded} {}", node.connections());
    assert!(client.call(vec![get("k")], &CallOptions::default()).await.remove(0).is_ok());
    assert_eq!(node.connections(), 2);
}
