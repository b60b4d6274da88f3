//! etcd as a peer: Debian's `etcd-server`, 3 nodes, client and peer traffic with TLS client certificates,
//! its own settings otherwise (every commit is fsynced).
//!
//! It is driven over real gRPC, by tasks that share 3 connections and by tasks spread over 63; the better
//! one is the reference. In its favour: puts go to the leader, so that none is forwarded. Serializable gets
//! go to all three nodes in turn.

mod grpc;
mod proto;

use crate::Result;
use crate::certs::Certs;
use crate::data::Data;
use crate::load::Target;
use crate::process::{Process, free_ports};
use bytes::Bytes;
use futures_util::StreamExt as _;
use grpc::Conn;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes.
pub const NODES: usize = 3;
/// How long forming the cluster may take.
const FORM: Duration = Duration::from_secs(60);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Puts in a transaction while the keys are stored; etcd takes 128.
const FILL_PUTS: usize = 100;
/// Transactions in flight meanwhile.
const FILL_IN_FLIGHT: usize = 16;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";

/// The running cluster.
pub struct Cluster {
    processes: Vec<Process>,
    ports: Vec<u16>,
    certs: Certs,
}

impl Cluster {
    /// Starts three servers in `dir` and waits until they have a leader.
    pub async fn start(server: &Path, dir: &Path, certs: &Certs) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let ports = free_ports(2 * NODES)?;
        let (client_ports, peer_ports) = ports.split_at(NODES);
        let mut processes = Vec::new();
        for i in 0..NODES {
            let args = arguments(i, client_ports, peer_ports, dir, certs);
            processes.push(Process::start(&format!("etcd{i}"), server, &args, dir, "ETCD_")?);
        }
        let mut cluster = Self { processes, ports: client_ports.to_vec(), certs: certs.clone() };
        cluster.leader().await?;
        Ok(cluster)
    }

    /// An error if one of the servers has ended.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// CPU seconds used by all three.
    pub fn cpu_s(&self) -> Result<f64> {
        self.processes.iter().map(Process::cpu_s).sum()
    }

    /// Which node leads; waits for one.
    async fn leader(&mut self) -> Result<usize> {
        let until = Instant::now() + FORM;
        let mut last = String::from("no node leads");
        loop {
            self.check()?;
            for i in 0..NODES {
                match self.leads(i).await {
                    Ok(true) => return Ok(i),
                    Ok(false) => {}
                    Err(error) => last = error.to_string(),
                }
            }
            if Instant::now() >= until {
                return Err(format!("etcd has no leader: {last}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn leads(&self, node: usize) -> Result<bool> {
        let conn = Conn::open(&self.certs, self.ports[node]).await?;
        let status = conn.call(STATUS, &[]).await?;
        Ok(proto::is_leader(&status).unwrap_or(false))
    }

    /// A client with so many connections to the leader, and as many in all to the three nodes.
    pub async fn client(&mut self, connections: usize) -> Result<Client> {
        let leader = self.leader().await?;
        let leader = self.ports[leader];
        let (mut to_leader, mut to_all) = (Vec::new(), Vec::new());
        for i in 0..connections {
            to_leader.push(Conn::open(&self.certs, leader).await?);
            to_all.push(Conn::open(&self.certs, self.ports[i % NODES]).await?);
        }
        Ok(Client { to_leader, to_all })
    }
}

fn arguments(
    i: usize,
    client_ports: &[u16],
    peer_ports: &[u16],
    dir: &Path,
    certs: &Certs,
) -> Vec<String> {
    let client = format!("https://127.0.0.1:{}", client_ports[i]);
    let peer = format!("https://127.0.0.1:{}", peer_ports[i]);
    let members: Vec<String> = (0..NODES)
        .map(|node| format!("etcd{node}=https://127.0.0.1:{}", peer_ports[node]))
        .collect();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut args = vec!["--client-cert-auth".into(), "--peer-client-cert-auth".into()];
    for (flag, value) in [
        ("--name", format!("etcd{i}")),
        ("--data-dir", path(&dir.join(format!("etcd{i}")))),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", members.join(",")),
        ("--initial-cluster-state", "new".into()),
        ("--trusted-ca-file", path(&certs.ca)),
        ("--cert-file", path(&certs.cert)),
        ("--key-file", path(&certs.key)),
        ("--peer-trusted-ca-file", path(&certs.ca)),
        ("--peer-cert-file", path(&certs.cert)),
        ("--peer-key-file", path(&certs.key)),
        ("--logger", "zap".into()),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args
}

/// Calls of all lanes share the connections.
pub struct Client {
    to_leader: Vec<Conn>,
    to_all: Vec<Conn>,
}

impl Client {
    /// Stores every key.
    pub async fn fill(self: &Arc<Self>, data: &Data) -> Result<()> {
        let mut random = crate::data::Random::new(0);
        let txns = data.keys.chunks(FILL_PUTS).enumerate().map(|(i, keys)| {
            let values: Vec<Bytes> = keys.iter().map(|_| data.value(&mut random)).collect();
            let puts = keys.iter().zip(&values);
            let txn = proto::txn(puts.map(|(key, value)| (&key[..], &value[..])));
            let client = self.clone();
            async move {
                let conn = &client.to_leader[i % client.to_leader.len()];
                conn.call(TXN, &txn).await
            }
        });
        let mut txns = futures_util::stream::iter(txns).buffer_unordered(FILL_IN_FLIGHT);
        while let Some(txn) = txns.next().await {
            txn?;
        }
        Ok(())
    }
}

impl Target for Client {
    async fn set(&self, lane: usize, key: Bytes, value: Bytes) -> Result<()> {
        let conn = &self.to_leader[lane % self.to_leader.len()];
        conn.call(PUT, &proto::put(&key, &value)).await.map(drop)
    }

    async fn get(&self, lane: usize, key: Bytes) -> Result<usize> {
        let conn = &self.to_all[lane % self.to_all.len()];
        let answer = conn.call(RANGE, &proto::range_serializable(&key)).await?;
        Ok(proto::first_value(&answer).ok_or("no such key in etcd")?.len())
    }
}
