//! The nodes of a demo: processes of this same program, started, killed and stopped.
//!
//! They are started from the main thread only: the kernel ends a child when the *thread* that made it
//! ends, and no other thread lives as long as the demo.

use super::place::Place;
use crate::cli::session::Crew;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::client::Role;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Port of the first node, without an offset.
pub const PORT_BASE: u16 = 7101;
/// Who takes part.
const MEMBERS: [(&str, Role); 4] =
    [("n1", Role::Primary), ("n2", Role::Primary), ("n3", Role::Primary), ("r1", Role::Replica)];
/// How long a clean stop may take before it is ended with force.
const STOP_WAIT: Duration = Duration::from_secs(12);
/// Between looks at a process.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Log lines shown of a node that failed.
const TAIL_LINES: usize = 5;

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Its address.
    pub addr: String,
    /// Where its output goes.
    pub log: PathBuf,
    child: Option<Child>,
}

/// All nodes of a demo; what still runs is killed when this is dropped.
#[derive(Debug)]
pub struct Nodes {
    exe: PathBuf,
    dir: PathBuf,
    /// In the order of their ports.
    pub all: Vec<Node>,
}

impl Nodes {
    /// The nodes of a place; none runs yet.
    pub fn new(place: &Place, port_offset: u16) -> Result<Self> {
        let exe = std::env::current_exe()
            .map_err(|error| Error::new(Code::Internal, format!("own program: {error}")))?;
        let mut all = Vec::with_capacity(MEMBERS.len());
        for (port, (name, role)) in (PORT_BASE + port_offset..).zip(MEMBERS) {
            let log = place.dir.join(format!("{name}.log"));
            let name =
                NodeName::new(name).map_err(|message| Error::new(Code::Internal, message))?;
            all.push(Node { name, role, addr: format!("127.0.0.1:{port}"), log, child: None });
        }
        Ok(Self { exe, dir: place.dir.clone(), all })
    }

    /// Addresses of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.all.iter().map(|node| node.addr.clone()).collect()
    }

    /// Starts the nodes that do not run.
    pub fn start(&mut self) -> Result<()> {
        for node in self.all.iter_mut().filter(|node| node.child.is_none()) {
            node.child = Some(spawn(&self.exe, &self.dir, node)?);
        }
        Ok(())
    }

    /// `kill -9`s the nodes named and waits until they are gone.
    pub fn kill(&mut self, which: impl Fn(&Node) -> bool) {
        for node in self.all.iter_mut().filter(|node| which(node)) {
            if let Some(child) = &mut node.child {
                let _ = child.kill();
            }
        }
        for node in self.all.iter_mut().filter(|node| which(node)) {
            if let Some(mut child) = node.child.take() {
                let _ = child.wait();
            }
        }
    }

    /// Says which node has ended by itself, and what it wrote last.
    pub fn check(&mut self) -> Result<()> {
        for node in &mut self.all {
            let Some(child) = &mut node.child else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                let message = format!("node {} ended: {status}\n{}", node.name, tail(&node.log));
                return Err(Error::new(Code::Internal, message));
            }
        }
        Ok(())
    }

    /// Stops all nodes cleanly; those that do not stop in time are killed. False if there was one.
    pub async fn stop(&mut self) -> bool {
        for child in self.all.iter().filter_map(|node| node.child.as_ref()) {
            if let Some(pid) = Pid::from_raw(child.id() as i32) {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let until = Instant::now() + STOP_WAIT;
        while self.runs() && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let clean = !self.runs();
        self.kill(|_| true);
        clean
    }

    fn runs(&mut self) -> bool {
        self.all.iter_mut().any(Node::runs)
    }
}

impl Nodes {
    fn named(&mut self, name: &NodeName) -> Result<&mut Node> {
        let names: Vec<String> = self.all.iter().map(|node| node.name.to_string()).collect();
        let found = self.all.iter_mut().find(|node| node.name == *name);
        found.ok_or_else(|| {
            let message = format!("there is no node {name}; there are {}", names.join(", "));
            Error::new(Code::BadRequest, message)
        })
    }
}

impl Crew for Nodes {
    fn kill_node(&mut self, name: &NodeName) -> Result<()> {
        if !self.named(name)?.runs() {
            return Err(Error::new(Code::BadRequest, format!("{name} does not run")));
        }
        self.kill(|node| node.name == *name);
        Ok(())
    }

    fn start_node(&mut self, name: &NodeName) -> Result<()> {
        if self.named(name)?.runs() {
            return Err(Error::new(Code::BadRequest, format!("{name} runs already")));
        }
        // One that ended by itself is collected first.
        self.kill(|node| node.name == *name);
        let Self { exe, dir, .. } = self;
        let (exe, dir) = (exe.clone(), dir.clone());
        let node = self.named(name)?;
        node.child = Some(spawn(&exe, &dir, node)?);
        Ok(())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.kill(|_| true);
    }
}

impl Node {
    /// The process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

fn spawn(exe: &Path, dir: &Path, node: &Node) -> Result<Child> {
    let failed =
        |error: std::io::Error| Error::new(Code::Internal, format!("node {}: {error}", node.name));
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&node.log);
    let log = log.map_err(failed)?;
    let role = match node.role {
        Role::Primary => "--primary",
        Role::Replica => "--replica",
    };
    let mut command = Command::new(exe);
    for (name, _) in std::env::vars_os() {
        if is_users_own(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
        .arg("serve")
        .args([
            role,
            "--name",
            node.name.as_str(),
            "--listen",
            &node.addr,
            "--advertise",
            &node.addr,
        ])
        .arg("--data-dir")
        .arg(dir.join(node.name.as_str()))
        .arg("--certs")
        .arg(dir.join("certs"))
        .args(["--parent-pid", &std::process::id().to_string()])
        // A `ppdb.toml` that lies where the demo is started is not meant for it.
        .current_dir(dir)
        // Ctrl-C in the demo's terminal is for the shell.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)
}

/// Variables that set up the user's own nodes and clients: none of them may reach a demo. Switches that
/// tests plant do.
fn is_users_own(name: &str) -> bool {
    name.starts_with("PPDB_") && !name.starts_with("PPDB_TEST_") && !name.starts_with("PPDB_FAULT_")
}

/// The last lines of a log, with its path.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    format!("{}:\n{}", log.display(), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_knows_nothing_of_the_users_settings() {
        for (name, own) in [("PPDB_DATA_DIR", true), ("PPDB_TEST_X", false), ("PATH", false)] {
            assert_eq!(is_users_own(name), own, "{name}");
        }
    }

    #[test]
    fn a_tail_is_the_end_of_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("n1.log");
        std::fs::write(&log, "1\n2\n3\n4\n5\n6\n7\n").unwrap();
        assert!(tail(&log).ends_with(":\n3\n4\n5\n6\n7"));
        assert!(tail(&folder.path().join("none")).ends_with(":\n"));
    }
}
