//! PPDB as it is shipped: four `ppdb serve` processes of the release build, three primaries and a replica,
//! twelve shards, default settings.
//!
//! It is driven through the client library, by tasks that share one connection to each node they use (three
//! for writes and linearizable reads, four for local ones), and by tasks that share 63.

use crate::Result;
use crate::data::Data;
use crate::load::Target;
use crate::process::{Process, free_ports};
use bytes::Bytes;
use futures_util::StreamExt as _;
use ppdb::client::{CallOptions, Client, Level, OpAnswer, Options};
use ppdb::pki::{self, Identity, IssueOptions, Subject};
use ppdb::types::{Condition, Error, Expiry, NodeName, Op, OpResult, limits, slots};
use ppdb::wire::client::{Role, Strategy};
use ppdb::wire::command::{Answer, Command, Formation, Info};
use ppdb::wire::operation::{Operation, Phase, StrategyOrder};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CLUSTER: &str = "bench";
const USER: &str = "bench";
const MEMBERS: [(&str, Role); 4] =
    [("n1", Role::Primary), ("n2", Role::Primary), ("n3", Role::Primary), ("r1", Role::Replica)];
/// How long forming may take.
const FORM: Duration = Duration::from_secs(60);
/// How long a switch may take.
const SWITCH: Duration = Duration::from_secs(300);
/// How long applied entries may take until they are in the tables of an idle cluster.
const SETTLE: Duration = Duration::from_secs(60);
/// One request; what takes longer has failed.
const REQUEST: Duration = Duration::from_secs(15);
/// One question.
const ASK: Duration = Duration::from_secs(5);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between looks while a switch runs; its time is known to this much.
const SWITCH_LOOK_EVERY: Duration = Duration::from_millis(10);
/// Sets in one call while the keys are stored.
const FILL_OPS: usize = 200;
/// Calls in flight meanwhile.
const FILL_IN_FLIGHT: usize = 16;

/// The running cluster.
pub struct Cluster {
    program: PathBuf,
    processes: Vec<Process>,
    members: Vec<(NodeName, Role, String)>,
    dir: PathBuf,
    admin: Client,
}

impl Cluster {
    /// Starts four nodes in `dir` and forms a cluster of them.
    pub async fn start(program: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir(dir)?;
        let certs = dir.join("certs");
        pki::init(&certs, CLUSTER)?;
        pki::issue(&certs, Subject::User(USER.into()), IssueOptions::default())?;
        let ports = free_ports(MEMBERS.len())?;
        let (mut processes, mut members) = (Vec::new(), Vec::new());
        for ((name, role), port) in MEMBERS.into_iter().zip(ports) {
            pki::issue(&certs, Subject::node(name)?, IssueOptions::default())?;
            let addr = format!("127.0.0.1:{port}");
            let args = arguments(name, role, &addr, dir, &certs);
            processes.push(Process::start(name, program, &args, dir, "PPDB_")?);
            members.push((NodeName::new(name)?, role, addr));
        }
        let until = Instant::now() + FORM;
        let admin = loop {
            processes.iter_mut().try_for_each(Process::check)?;
            match connect(dir, &members, 1).await {
                Ok(admin) => break admin,
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let (program, dir) = (program.to_owned(), dir.to_owned());
        let mut cluster = Self { program, processes, members, dir, admin };
        cluster.form(until).await?;
        Ok(cluster)
    }

    /// Forming the same cluster again is harmless, so it is repeated until all nodes are there.
    async fn form(&mut self, until: Instant) -> Result<()> {
        let members = self.members.clone();
        let shards = limits::SHARDS_DEFAULT;
        let formation =
            Command::ClusterInit(Formation { cluster: CLUSTER.into(), shards, members });
        loop {
            self.check()?;
            let waits_for = match self.admin.command(formation.clone(), None, ASK).await {
                Ok(_) => match self.not_ready().await {
                    None => return Ok(()),
                    Some(what) => what,
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(format!("PPDB does not serve: {waits_for}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn not_ready(&self) -> Option<String> {
        for (name, ..) in &self.members {
            match self.info(name).await {
                Ok(info) if info.ready => {}
                Ok(_) => return Some(format!("{name} is not ready")),
                Err(error) => return Some(format!("{name}: {error}")),
            }
        }
        match self.admin.command(Command::Status, None, ASK).await {
            Ok((Answer::Status(status), _)) if status.shards_leaderless.is_empty() => None,
            Ok(_) => Some("a shard has no leader".into()),
            Err(error) => Some(error.to_string()),
        }
    }

    async fn info(&self, node: &NodeName) -> Result<Info> {
        match self.admin.command(Command::Info, Some(node), ASK).await? {
            (Answer::Info(info), _) => Ok(info),
            _ => Err("another kind of answer".into()),
        }
    }

    /// An error if one of the nodes has ended.
    pub fn check(&mut self) -> Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// CPU seconds used by all four.
    pub fn cpu_s(&self) -> Result<f64> {
        self.processes.iter().map(Process::cpu_s).sum()
    }

    /// Anonymous memory of the largest process, in MiB.
    pub fn anon_mib_max(&self) -> Result<f64> {
        let all: Vec<f64> = self.processes.iter().map(Process::anon_mib).collect::<Result<_>>()?;
        Ok(all.into_iter().fold(0.0, f64::max))
    }

    /// Waits until every copy has written what it has applied to its table; false if that takes too long.
    pub async fn settled(&self) -> Result<bool> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            let mut behind = false;
            for (name, ..) in &self.members {
                behind |= self.info(name).await?.copies.iter().any(|c| c.flushed != c.applied);
            }
            if !behind {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY * 5).await;
        }
        Ok(false)
    }

    /// A client with so many connections to each node.
    pub async fn client(&self, per_node: usize) -> Result<Driver> {
        let client = connect(&self.dir, &self.members, per_node).await?;
        Ok(Driver { client, call: CallOptions { timeout: REQUEST, ..CallOptions::default() } })
    }

    /// Switches to full replication and waits until it holds everywhere. How long it took.
    pub async fn switch_to_full(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let order = Command::Strategy(StrategyOrder::switch(Strategy::Full));
        let ordered = self.admin.command(order, None, ASK).await;
        ordered.map_err(|error| format!("`strategy switch full` was not taken: {error}"))?;
        loop {
            self.check()?;
            // A node that cannot tell at this moment may be able to at the next.
            let seen = self.strategy().await;
            if let Ok((Some(operation), strategy)) = &seen {
                if operation.phase == Phase::Soaking && *strategy == Strategy::Full {
                    return Ok(started.elapsed());
                }
                if operation.phase.is_over() {
                    let reason = operation.reason.as_deref().unwrap_or("no reason is given");
                    return Err(
                        format!("the switch is {}: {reason}", operation.phase.name()).into()
                    );
                }
            }
            if started.elapsed() > SWITCH {
                let (seconds, last) = (SWITCH.as_secs(), seen.map(|seen| format!("{seen:?}")));
                let last = last.unwrap_or_else(|error| error.to_string());
                return Err(format!("the switch takes more than {seconds} s: {last}").into());
            }
            tokio::time::sleep(SWITCH_LOOK_EVERY).await;
        }
    }

    /// Goes back to where the switch came from, and waits until that is done.
    pub async fn revert(&mut self) -> Result<()> {
        let reason = "the bench goes on".to_owned();
        self.admin.command(Command::Strategy(StrategyOrder::Revert { reason }), None, ASK).await?;
        let until = Instant::now() + SWITCH;
        while Instant::now() < until {
            self.check()?;
            if let Ok((Some(operation), _)) = self.strategy().await
                && operation.phase == Phase::Reverted
            {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err("the way back takes too long".into())
    }

    /// Sets a live setting.
    pub async fn set_live(&self, name: &str, value: &str) -> Result<()> {
        let command = Command::Set { name: name.to_owned(), value: value.to_owned() };
        self.admin.command(command, None, ASK).await?;
        Ok(())
    }

    /// The primary that leads most shards, by its position, and how many it leads.
    pub async fn first_leader(&self) -> Result<(usize, usize)> {
        let mut most = (0, 0);
        for (i, (name, role, _)) in self.members.iter().enumerate() {
            if *role == Role::Primary {
                let copies = self.info(name).await?.copies;
                let led = copies.iter().filter(|copy| copy.state == "leader").count();
                if led > most.1 {
                    most = (i, led);
                }
            }
        }
        Ok(most)
    }

    /// `kill -9`s a node.
    pub fn kill(&mut self, node: usize) {
        self.processes[node].kill();
    }

    /// Starts a node that was killed, and waits until everything is served again.
    pub async fn start_again(&mut self, node: usize) -> Result<()> {
        let (name, role, addr) = &self.members[node];
        let certs = self.dir.join("certs");
        let args = arguments(name.as_str(), *role, addr, &self.dir, &certs);
        self.processes[node] =
            Process::start(name.as_str(), &self.program, &args, &self.dir, "PPDB_")?;
        let until = Instant::now() + FORM;
        while let Some(waits_for) = self.not_ready().await {
            self.check()?;
            if Instant::now() >= until {
                return Err(format!("PPDB does not serve again: {waits_for}").into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn strategy(&self) -> Result<(Option<Operation>, Strategy)> {
        match self.admin.command(Command::StrategyShow, None, ASK).await? {
            (Answer::StrategyView(view), _) => Ok((view.operation, view.strategy)),
            _ => Err("another kind of answer".into()),
        }
    }

    /// The table files of the primaries: what a switch to full has to copy, twice.
    pub fn tables(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for (name, role, _) in &self.members {
            if *role == Role::Primary {
                collect(&self.dir.join(name.as_str()), &mut files)?;
            }
        }
        Ok(files)
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.file_name().is_some_and(|name| name == "data.mdb") {
            files.push(path);
        }
    }
    Ok(())
}

fn arguments(name: &str, role: Role, addr: &str, dir: &Path, certs: &Path) -> Vec<String> {
    let role = match role {
        Role::Primary => "--primary",
        Role::Replica => "--replica",
    };
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut args = vec!["serve".to_owned(), role.to_owned()];
    for (flag, value) in [
        ("--name", name.to_owned()),
        ("--listen", addr.to_owned()),
        ("--advertise", addr.to_owned()),
        ("--data-dir", path(&dir.join(name))),
        ("--certs", path(certs)),
    ] {
        args.extend([flag.to_owned(), value]);
    }
    args
}

async fn connect(
    dir: &Path,
    members: &[(NodeName, Role, String)],
    connections_per_node: usize,
) -> Result<Client> {
    let identity = Identity::from_dir(&dir.join("certs"), &format!("user-{USER}"))?;
    let endpoints = members.iter().map(|(.., addr)| addr.clone()).collect();
    let options = Options { endpoints, identity, connections_per_node };
    Ok(Client::connect(options).await?)
}

/// The client library, asked to read at one level.
pub struct Driver {
    client: Client,
    call: CallOptions,
}

impl Driver {
    /// The same, reading the nearest copy.
    pub fn local(self) -> Self {
        let level = Some(Level::Local { max_staleness_ms: None });
        Self { call: CallOptions { level, ..self.call }, ..self }
    }

    /// Stores every key.
    pub async fn fill(&self, data: &Data) -> Result<()> {
        let mut random = crate::data::Random::new(0);
        let calls = data.keys.chunks(FILL_OPS).map(|keys| {
            let ops = keys.iter().map(|key| set(key.clone(), data.value(&mut random))).collect();
            self.client.call(ops, &self.call)
        });
        let mut calls = futures_util::stream::iter(calls).buffer_unordered(FILL_IN_FLIGHT);
        while let Some(answers) = calls.next().await {
            answers.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        }
        Ok(())
    }

    /// Ends its connections.
    pub async fn close(&self) {
        self.client.close().await;
    }

    /// A key for each shard.
    pub async fn key_of_each_shard(&self) -> Result<Vec<Bytes>> {
        let shards = self.client.refresh().await?.shards.len() as u16;
        let names = (0u32..).map(|i| Bytes::from(format!("shard:{i}")));
        let mut keys = vec![None; shards.into()];
        for name in names {
            let shard = usize::from(slots::shard_of(&name, shards).0);
            keys[shard].get_or_insert(name);
            if keys.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(keys.into_iter().flatten().collect())
    }

    async fn one(&self, op: Op) -> Result<OpResult> {
        let answer: Option<std::result::Result<OpAnswer, Error>> =
            self.client.call(vec![op], &self.call).await.pop();
        Ok(answer.ok_or("no answer")??.result)
    }
}

fn set(key: Bytes, value: Bytes) -> Op {
    Op::Set { key, value, condition: Condition::Always, expiry: Expiry::Never }
}

impl Target for Driver {
    async fn set(&self, _lane: usize, key: Bytes, value: Bytes) -> Result<()> {
        match self.one(set(key, value)).await? {
            OpResult::Done => Ok(()),
            other => Err(format!("set answered {other:?}").into()),
        }
    }

    async fn get(&self, _lane: usize, key: Bytes) -> Result<usize> {
        match self.one(Op::Get { key }).await? {
            OpResult::Value(value) => Ok(value.len()),
            other => Err(format!("get answered {other:?}").into()),
        }
    }
}
