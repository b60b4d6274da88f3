//! A cluster of real nodes. Only one exists at a time.

use super::certs::Certs;
use super::net::free_addr;
use super::node::{Node, Wrap};
use super::program::{Ran, ppdb};
use super::shell::Shell;
use super::wait_until;
use ppdb::client::{Client, Options};
use ppdb::types::{Error, NodeName, Result, ShardId, slots};
use ppdb::wire::client::Role;
use ppdb::wire::command::{Answer, Command, CopyDigest, Info, Status};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

static TURN: Mutex<()> = Mutex::new(());

/// The turn of a test that starts nodes by other means.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longest wait for a cluster to form or to come back.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The user that tests are.
const USER: &str = "tester";

/// What to start.
#[derive(Clone, Debug)]
pub struct Shape {
    /// `n1`, `n2`, …
    pub primaries: usize,
    /// `r1`, …
    pub replicas: usize,
    /// Shards.
    pub shards: u16,
    /// What every node is run under.
    pub wrap: Wrap,
}

impl Default for Shape {
    /// Three primaries and a replica with twelve shards, run as they are.
    fn default() -> Self {
        Self { primaries: 3, replicas: 1, shards: 12, wrap: Wrap::default() }
    }
}

/// Nodes, certificates and a client.
pub struct Cluster {
    /// Primaries first, then replicas.
    pub nodes: Vec<Node>,
    /// The CA and what it issued.
    pub certs: Certs,
    shards: u16,
    dir: TempDir,
    // Given back last, after the processes and the folder are gone.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Processes that run and belong to no cluster yet.
    pub fn unformed(shape: Shape) -> Self {
        let turn = turn();
        let dir = tempfile::Builder::new().prefix("ppdb-it-").tempdir().expect("a folder");
        let certs = Certs::init(&dir.path().join("certs"), "it");
        certs.user(USER);
        let primaries = (1..=shape.primaries).map(|i| (format!("n{i}"), Role::Primary));
        let replicas = (1..=shape.replicas).map(|i| (format!("r{i}"), Role::Replica));
        let mut nodes: Vec<Node> = primaries
            .chain(replicas)
            .map(|(name, role)| {
                Node::new(&name, role, free_addr(), dir.path(), &certs, shape.wrap.clone())
            })
            .collect();
        nodes.iter_mut().for_each(Node::start);
        Self { nodes, certs, shards: shape.shards, dir, _turn: turn }
    }

    /// A cluster that serves.
    pub async fn start(shape: Shape) -> Self {
        let cluster = Self::unformed(shape);
        cluster.wait_up().await;
        cluster.init().expect(0);
        cluster.wait_ready().await;
        cluster
    }

    /// The words of `ppdb cluster init` for this cluster.
    pub fn init_words(&self) -> Vec<String> {
        let mut words: Vec<String> = ["cluster", "init", "--shards"].map(str::to_owned).into();
        words.push(self.shards.to_string());
        for node in &self.nodes {
            let role = match node.role {
                Role::Primary => "primary",
                Role::Replica => "replica",
            };
            words.extend(["--member".into(), format!("{}={role}@{}", node.name, node.addr)]);
        }
        words
    }

    /// Runs `ppdb cluster init`.
    pub fn init(&self) -> Ran {
        self.ppdb(&self.init_words())
    }

    /// Flags that say where the cluster is and who asks.
    pub fn flags(&self) -> Vec<String> {
        let dir = self.certs.dir().to_str().expect("a folder with a plain name").to_owned();
        let mut flags = vec!["--certs".into(), dir, "--user".into(), USER.into()];
        for endpoint in self.endpoints() {
            flags.extend(["--endpoint".into(), endpoint]);
        }
        flags
    }

    /// Runs `ppdb WORDS -o json` against this cluster.
    pub fn ppdb<S: AsRef<str>>(&self, words: &[S]) -> Ran {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        ppdb(words.chain(self.flags()).chain([
            "-o".into(),
            "json".into(),
            "--timeout".into(),
            "30s".into(),
        ]))
    }

    /// A shell with the cluster's flags and some more.
    pub fn shell(&self, more: &[&str]) -> Shell {
        Shell::start(self.flags().into_iter().chain(more.iter().map(|s| s.to_string())))
    }

    /// Addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addr.to_string()).collect()
    }

    /// A folder for what else a test needs.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// A client of its own connections, as soon as any node answers.
    pub async fn client(&self) -> Client {
        self.connect(self.endpoints()).await
    }

    async fn connect(&self, endpoints: Vec<String>) -> Client {
        let end = Instant::now() + READY_WITHIN;
        loop {
            let (identity, endpoints) = (self.certs.identity(USER), endpoints.clone());
            match Client::connect(Options { endpoints, identity, connections_per_node: 1 }).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < end, "no node answers: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every node answers, formed or not.
    pub async fn wait_up(&self) {
        for endpoint in self.endpoints() {
            self.connect(vec![endpoint]).await.close().await;
        }
    }

    /// Waits until every node is ready and every shard has a leader.
    pub async fn wait_ready(&self) {
        let client = self.client().await;
        for node in &self.nodes {
            let ask = async || info(&client, &node.name).await;
            let ready = |i: &Result<Info>| i.as_ref().is_ok_and(|i| i.ready);
            let _ = wait_until("ready node", READY_WITHIN, ask, ready).await;
        }
        let led = |s: &Result<Status>| {
            s.as_ref().is_ok_and(|s| s.shards_leaderless.is_empty() && s.nodes.iter().all(|n| n.up))
        };
        let ask = async || status(&client).await;
        let _ = wait_until("leader of every shard", READY_WITHIN, ask, led).await;
        client.close().await;
    }

    /// Prints the last lines of each node's log.
    pub fn show_logs(&self, last: usize) {
        for node in &self.nodes {
            let log = node.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(last)..];
            let (name, all) = (&node.name, lines.len());
            eprintln!("--- {name} ({all} lines of log, the last)\n{}", tail.join("\n"));
        }
    }

    /// The node of that name.
    pub fn node(&mut self, name: &str) -> &mut Node {
        let found = self.nodes.iter_mut().find(|node| node.name.as_str() == name);
        found.unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// Every process at once: `kill -9`.
    pub fn kill_all(&mut self) {
        // The signals go out first, so that the last node does not work on while the first is awaited.
        self.nodes.iter().for_each(Node::send_kill);
        self.nodes.iter_mut().for_each(Node::kill);
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.kill();
                node.start();
            }
        }
    }

    /// The primary that takes a key's writes.
    pub async fn owner(&self, client: &Client, key: &[u8]) -> NodeName {
        let map = client.refresh().await.expect("a map");
        let shard = slots::shard_of(key, map.shards.len() as u16);
        map.shards[shard.0 as usize].owner.clone()
    }

    /// Compares, shard by shard, what the owner and the replicas store, at one log index each. Returns
    /// the number of keys.
    pub async fn assert_copies_equal(&self, client: &Client) -> u64 {
        let map = client.refresh().await.expect("a map");
        let mut keys = 0;
        for shard in &map.shards {
            let ask = async || digests(client, shard.id, &shard.copies).await;
            let found = wait_until("digests", READY_WITHIN, ask, |d| d.is_ok()).await;
            let digests = found.expect("just checked");
            let first = digests.values().next().expect("a shard has a copy");
            let equal = digests.values().all(|d| d.sha256 == first.sha256 && d.keys == first.keys);
            assert!(equal, "{}: copies differ: {digests:#?}", shard.id);
            keys += first.keys;
        }
        keys
    }
}

/// Whoever leads makes the entry; that may be another than the owner for a while.
async fn leaders_digest(
    client: &Client,
    shard: ShardId,
    copies: &[NodeName],
) -> Result<CopyDigest> {
    let mut last = Err(Error::new(ppdb::types::Code::NotFound, "a shard without copies"));
    for node in copies {
        last = digest(client, node, shard, None).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Digests of all copies at one index. A copy that is sent as a table meanwhile never computes one for an entry
/// that is in the table already: whoever asks again asks at a new index.
async fn digests(
    client: &Client,
    shard: ShardId,
    copies: &[NodeName],
) -> Result<BTreeMap<NodeName, CopyDigest>> {
    let first = leaders_digest(client, shard, copies).await?;
    let at = Some(first.index);
    let mut digests = BTreeMap::from([(first.node.clone(), first)]);
    for node in copies {
        if !digests.contains_key(node) {
            digests.insert(node.clone(), digest(client, node, shard, at).await?);
        }
    }
    Ok(digests)
}

const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// What a node says of itself.
pub async fn info(client: &Client, node: &NodeName) -> Result<Info> {
    match client.command(Command::Info, Some(node), COMMAND_TIMEOUT).await? {
        (Answer::Info(info), _) => Ok(info),
        (other, _) => Err(unexpected(&other)),
    }
}

async fn status(client: &Client) -> Result<Status> {
    match client.command(Command::Status, None, COMMAND_TIMEOUT).await? {
        (Answer::Status(status), _) => Ok(status),
        (other, _) => Err(unexpected(&other)),
    }
}

async fn digest(
    client: &Client,
    node: &NodeName,
    shard: ShardId,
    at: Option<u64>,
) -> Result<CopyDigest> {
    let ask = async |at| {
        let command = Command::Digest { shard, at };
        client.command(command, Some(node), Duration::from_secs(10)).await
    };
    let answer = match ask(at).await? {
        (Answer::DigestBegun { index, .. }, _) => ask(Some(index)).await?,
        answer => answer,
    };
    match answer {
        (Answer::Digest(digest), _) => Ok(digest),
        (other, _) => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::new(ppdb::types::Code::Internal, format!("another answer: {answer:?}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::kill);
        if std::thread::panicking() {
            self.show_logs(40);
        }
    }
}
