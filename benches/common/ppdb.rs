//! PPDB as it is shipped: four `ppdb serve` processes of the release build, three primaries and a replica,
//! twelve shards, default settings.
//!
//! Starts it, asks it and gives it orders, as an operator does. Load is not its subject: whoever makes some gets
//! a client here.

use crate::Result;
use crate::process::{Process, free_ports};
use ppdb::client::{Client, Options};
use ppdb::pki::{self, Identity, IssueOptions, Subject};
use ppdb::types::{NodeName, limits};
use ppdb::wire::client::{Role, Strategy};
use ppdb::wire::command::{Answer, Command, Formation, Info};
use ppdb::wire::operation::{Operation, Phase, StrategyOrder};
use ppdb::wire::plan::Precheck;
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
/// One question.
const ASK: Duration = Duration::from_secs(5);
/// One order: in front of a switch the cluster is measured.
const ORDER: Duration = Duration::from_secs(10);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between looks while an operation runs, at first. Later a hundredth of the time that has passed: known to that much,
/// and seldom enough not to be felt.
const SWITCH_LOOK_EVERY: Duration = Duration::from_millis(10);

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
    pub async fn client(&self, per_node: usize) -> Result<Client> {
        connect(&self.dir, &self.members, per_node).await
    }

    /// What a switch will cost and whether it may start, for which the cluster is measured.
    pub async fn plan(&self, to: Strategy) -> Result<Precheck> {
        match self.admin.command(Command::Precheck { to }, None, ORDER).await? {
            (Answer::Precheck(plan), _) => Ok(plan),
            _ => Err("another kind of answer".into()),
        }
    }

    /// Gives an order; its operation, as journaled.
    pub async fn order(&self, order: StrategyOrder) -> Result<Operation> {
        match self.admin.command(Command::Strategy(order), None, ORDER).await {
            Ok((Answer::Operation(operation), _)) => Ok(*operation),
            Ok(_) => Err("another kind of answer".into()),
            Err(error) => Err(format!("the order was not taken: {error}").into()),
        }
    }

    /// Waits until the latest operation is in this phase.
    pub async fn reached(&mut self, phase: Phase) -> Result<Operation> {
        let began = Instant::now();
        loop {
            self.check()?;
            // A node that cannot tell at this moment may be able to at the next.
            let seen = self.operation().await;
            if let Ok(Some(operation)) = &seen {
                if operation.phase == phase {
                    return Ok(operation.clone());
                }
                if operation.phase.is_over() {
                    let reason = operation.reason.as_deref().unwrap_or("no reason is given");
                    let (found, wanted) = (operation.phase.name(), phase.name());
                    return Err(format!("the operation is {found}, not {wanted}: {reason}").into());
                }
            }
            let waited = began.elapsed();
            if waited >= SWITCH {
                let last = seen.map_or_else(|error| error.to_string(), |seen| format!("{seen:?}"));
                let (seconds, wanted) = (SWITCH.as_secs(), phase.name());
                return Err(format!("not {wanted} within {seconds} s: {last}").into());
            }
            tokio::time::sleep((waited / 100).clamp(SWITCH_LOOK_EVERY, LOOK_EVERY)).await;
        }
    }

    /// Switches to full replication and waits until it holds everywhere. How long it took, without the plan,
    /// for which the cluster is measured.
    pub async fn switch_to_full(&mut self) -> Result<Duration> {
        self.plan(Strategy::Full).await?;
        let started = Instant::now();
        self.order(StrategyOrder::switch(Strategy::Full)).await?;
        self.reached(Phase::Soaking).await?;
        Ok(started.elapsed())
    }

    /// Goes back to where the switch came from, and waits until that is done.
    pub async fn revert(&mut self) -> Result<()> {
        let reason = "the bench goes on".to_owned();
        self.order(StrategyOrder::Revert { reason }).await?;
        self.reached(Phase::Reverted).await?;
        Ok(())
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

    /// The latest operation.
    pub async fn operation(&self) -> Result<Option<Operation>> {
        match self.admin.command(Command::StrategyShow, None, ASK).await? {
            (Answer::StrategyView(view), _) => Ok(view.operation),
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
