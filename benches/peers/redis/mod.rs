//! Redis Cluster as a peer: Debian's `redis-server`, 3 primaries and 3 replicas, TLS everywhere with client
//! certificates, `appendonly yes`, `appendfsync always` on all six.
//!
//! In its favour: no RDB snapshots, and the append-only file is not rewritten. Not in its favour, and the
//! same for PPDB: its replicas run on the same cores.
//!
//! It is driven in up to three ways, and the best of them is the reference: by tasks that share one
//! connection to each primary (what is in flight at a moment goes out in one write, as PPDB's client does
//! it), by tasks spread over 21 connections to each primary, and by Redis' own `redis-benchmark` with 64
//! connections and as many threads as there are cores.

mod benchmark;
mod benchmark_csv;
mod conn;
mod resp;

pub use benchmark::benchmark;

use crate::Result;
use crate::certs::Certs;
use crate::data::Data;
use crate::load::Target;
use crate::process::{Process, free_ports};
use bytes::Bytes;
use conn::Conn;
use futures_util::StreamExt as _;
use ppdb::types::slots::{SLOTS, slot_of};
use resp::Reply;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nodes that take writes; as many replicas beside them.
pub const PRIMARIES: usize = 3;
/// How long forming the cluster may take.
const FORM: Duration = Duration::from_secs(60);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Sets in flight while the keys are stored.
const FILL_IN_FLIGHT: usize = 512;

/// The running cluster.
pub struct Cluster {
    processes: Vec<Process>,
    ports: Vec<u16>,
    certs: Certs,
}

impl Cluster {
    /// Starts six servers in `dir` and makes them a cluster.
    pub async fn start(server: &Path, dir: &Path, certs: &Certs) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let ports = free_ports(4 * PRIMARIES)?;
        let (client_ports, bus_ports) = ports.split_at(2 * PRIMARIES);
        let mut processes = Vec::new();
        for (i, (port, bus)) in client_ports.iter().zip(bus_ports).enumerate() {
            let home = dir.join(format!("redis{i}"));
            std::fs::create_dir(&home)?;
            let file = home.join("redis.conf");
            std::fs::write(&file, settings(*port, *bus, &home, certs))?;
            let args = [file.to_string_lossy().into_owned()];
            processes.push(Process::start(&format!("redis{i}"), server, &args, dir, "REDIS")?);
        }
        let mut cluster = Self { processes, ports: client_ports.to_vec(), certs: certs.clone() };
        let until = Instant::now() + FORM;
        let mut conns = Vec::new();
        for i in 0..cluster.ports.len() {
            conns.push(cluster.answering(i, until).await?);
        }
        cluster.form(&conns, bus_ports, until).await?;
        Ok(cluster)
    }

    async fn answering(&mut self, i: usize, until: Instant) -> Result<Conn> {
        loop {
            self.check()?;
            let error = match Conn::open(&self.certs, self.ports[i]).await {
                Ok(conn) => match conn.ask(&[b"PING"]).await {
                    Ok(_) => return Ok(conn),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if Instant::now() >= until {
                return Err(format!("redis{i} does not answer: {error}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What `redis-cli --cluster create` does: slots, epochs, introductions, replicas.
    async fn form(&mut self, conns: &[Conn], bus_ports: &[u16], until: Instant) -> Result<()> {
        let slots = usize::from(SLOTS);
        for (i, conn) in conns.iter().enumerate() {
            order(conn, &["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]).await?;
            if i < PRIMARIES {
                let first = slots * i / PRIMARIES;
                let last = slots * (i + 1) / PRIMARIES - 1;
                let (first, last) = (first.to_string(), last.to_string());
                order(conn, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
            }
        }
        for (port, bus) in self.ports.iter().zip(bus_ports).skip(1) {
            let (port, bus) = (port.to_string(), bus.to_string());
            order(&conns[0], &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
        }
        let known = format!("cluster_known_nodes:{}", conns.len());
        self.wait(conns, &["CLUSTER", "INFO"], &known, until).await?;
        for i in 0..PRIMARIES {
            let id = text(&conns[i].ask(&[b"CLUSTER", b"MYID"]).await?)?;
            order(&conns[PRIMARIES + i], &["CLUSTER", "REPLICATE", &id]).await?;
        }
        self.wait(conns, &["CLUSTER", "INFO"], "cluster_state:ok", until).await?;
        let replicas = &conns[PRIMARIES..];
        self.wait(replicas, &["INFO", "replication"], "master_link_status:up", until).await
    }

    /// Waits until all nodes answer a question with a text that holds `wanted`.
    async fn wait(
        &mut self,
        conns: &[Conn],
        question: &[&str],
        wanted: &str,
        until: Instant,
    ) -> Result<()> {
        let words: Vec<&[u8]> = question.iter().map(|word| word.as_bytes()).collect();
        for (i, conn) in conns.iter().enumerate() {
            while !text(&conn.ask(&words).await?)?.contains(wanted) {
                self.check()?;
                if Instant::now() >= until {
                    return Err(format!("a Redis node ({i}) never said {wanted}").into());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// An error if one of the servers has ended.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// CPU seconds used by all six.
    pub fn cpu_s(&self) -> Result<f64> {
        self.processes.iter().map(Process::cpu_s).sum()
    }

    /// The port of the first primary.
    pub fn first_port(&self) -> u16 {
        self.ports[0]
    }

    /// A client with so many connections to each primary.
    pub async fn client(&self, per_primary: usize) -> Result<Client> {
        let mut primaries = Vec::new();
        for port in &self.ports[..PRIMARIES] {
            let mut conns = Vec::new();
            for _ in 0..per_primary {
                conns.push(Conn::open(&self.certs, *port).await?);
            }
            primaries.push(conns);
        }
        Ok(Client { primaries })
    }
}

fn settings(port: u16, bus: u16, home: &Path, certs: &Certs) -> String {
    let (home, ca) = (home.display(), certs.ca.display());
    let (cert, key) = (certs.cert.display(), certs.key.display());
    format!(
        "bind 127.0.0.1\nport 0\ntls-port {port}\ndaemonize no\ndir {home}\n\
         tls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {ca}\ntls-auth-clients yes\n\
         tls-replication yes\ntls-cluster yes\n\
         cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout 15000\n\
         appendonly yes\nappendfsync always\nauto-aof-rewrite-percentage 0\nsave \"\"\n"
    )
}

/// Gives an order; anything but `OK` is an error.
async fn order(conn: &Conn, words: &[&str]) -> Result<()> {
    let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    match conn.ask(&bytes).await? {
        Reply::Simple(ok) if &ok[..] == b"OK" => Ok(()),
        other => Err(format!("{} answered {other:?}", words.join(" ")).into()),
    }
}

fn text(reply: &Reply) -> Result<String> {
    match reply {
        Reply::Bulk(bytes) | Reply::Simple(bytes) => Ok(String::from_utf8_lossy(bytes).into()),
        other => Err(format!("expected text, got {other:?}").into()),
    }
}

/// Routes by slot; requests of all lanes share the connections.
pub struct Client {
    primaries: Vec<Vec<Conn>>,
}

impl Client {
    fn conn(&self, lane: usize, key: &[u8]) -> &Conn {
        let slot = usize::from(slot_of(key));
        let primary = (slot * PRIMARIES + PRIMARIES - 1) / usize::from(SLOTS);
        let conns = &self.primaries[primary.min(PRIMARIES - 1)];
        &conns[lane % conns.len()]
    }

    /// Stores every key.
    pub async fn fill(self: &Arc<Self>, data: &Data) -> Result<()> {
        let mut random = crate::data::Random::new(0);
        let sets = data.keys.iter().enumerate().map(|(i, key)| {
            let (client, key, value) = (self.clone(), key.clone(), data.value(&mut random));
            async move { client.set(i, key, value).await }
        });
        let mut sets = futures_util::stream::iter(sets).buffer_unordered(FILL_IN_FLIGHT);
        while let Some(set) = sets.next().await {
            set?;
        }
        Ok(())
    }
}

impl Target for Client {
    async fn set(&self, lane: usize, key: Bytes, value: Bytes) -> Result<()> {
        match self.conn(lane, &key).ask(&[b"SET", &key, &value]).await? {
            Reply::Simple(ok) if &ok[..] == b"OK" => Ok(()),
            other => Err(format!("SET answered {other:?}").into()),
        }
    }

    async fn get(&self, lane: usize, key: Bytes) -> Result<usize> {
        match self.conn(lane, &key).ask(&[b"GET", &key]).await? {
            Reply::Bulk(value) => Ok(value.len()),
            other => Err(format!("GET answered {other:?}").into()),
        }
    }
}
