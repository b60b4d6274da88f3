//! One node process: started, killed, stopped, continued and asked to end.

use super::certs::Certs;
use super::program::{command, program, wait};
use ppdb::types::NodeName;
use ppdb::wire::client::Role;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What a node is run under.
#[derive(Clone, Debug, Default)]
pub struct Wrap {
    /// A program and its arguments that get the node's command line, such as `strace … --`. It must
    /// leave the node as the direct child.
    pub under: Vec<String>,
    /// Variables of the environment.
    pub env: Vec<(String, String)>,
}

/// A node; its process may or may not be running.
pub struct Node {
    /// Name in the certificate.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Where it listens.
    pub addr: SocketAddr,
    dir: PathBuf,
    certs: Certs,
    wrap: Wrap,
    child: Option<Child>,
    /// Where the log of the running process begins.
    log_from: usize,
}

impl Node {
    /// A node that is not running yet, with its certificate issued.
    pub fn new(
        name: &str,
        role: Role,
        addr: SocketAddr,
        dir: &Path,
        certs: &Certs,
        wrap: Wrap,
    ) -> Self {
        certs.node(name);
        Self {
            name: NodeName::new(name).expect("a node name"),
            role,
            addr,
            dir: dir.to_path_buf(),
            certs: certs.clone(),
            wrap,
            child: None,
            log_from: 0,
        }
    }

    /// The command line of `ppdb serve` for this node with any certificate.
    pub fn serve(&self, cert: &Path, key: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a path with a plain name").to_owned();
        let role = match self.role {
            Role::Primary => "--primary",
            Role::Replica => "--replica",
        };
        let mut args: Vec<String> =
            ["serve", role, "--name", self.name.as_str()].map(str::to_owned).into();
        args.extend(["--listen".into(), self.addr.to_string()]);
        args.extend(["--data-dir".into(), text(&self.data_dir())]);
        args.extend(["--ca".into(), text(&self.certs.ca())]);
        args.extend(["--cert".into(), text(cert), "--key".into(), text(key)]);
        args.extend(["--log-level".into(), "info,openraft=warn".into()]);
        // If the test process itself is killed, the node ends with it.
        args.extend(["--parent-pid".into(), std::process::id().to_string()]);
        args
    }

    /// Starts the process. Its output is appended to the node's log file.
    pub fn start(&mut self) {
        let (cert, key) = self.certs.pair(&format!("node-{}", self.name));
        self.start_as(&cert, &key);
    }

    /// The same with another certificate.
    pub fn start_as(&mut self, cert: &Path, key: &Path) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let args = self.serve(cert, key);
        let mut run: Command = match self.wrap.under.split_first() {
            None => program(),
            Some((wrapper, rest)) => {
                let mut run = command(wrapper);
                run.args(rest).arg(env!("CARGO_BIN_EXE_ppdb"));
                run
            }
        };
        self.log_from = self.log().len();
        let log =
            File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        run.args(args).env("PPDB_FAULT_DIR", self.fault_dir());
        run.envs(self.wrap.env.iter().cloned());
        run.stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.child = Some(run.spawn().unwrap_or_else(|e| panic!("{run:?}: {e}")));
    }

    /// Where its faults are planted, and where it says which were met.
    pub fn fault_dir(&self) -> PathBuf {
        self.dir.join(format!("faults-{}", self.name))
    }

    /// Plants a fault (`ppdb::faults`), whether the process runs or not.
    pub fn plant(&self, fault: &str, what: &str) {
        std::fs::create_dir_all(self.fault_dir()).expect("a folder for faults");
        // Renamed into place: a fault is never half there.
        let fresh = self.fault_dir().join("fresh");
        std::fs::write(&fresh, what).expect("a fault");
        std::fs::rename(fresh, self.fault_dir().join(fault)).expect("a fault");
    }

    /// Takes a fault away.
    pub fn mend(&self, fault: &str) {
        std::fs::remove_file(self.fault_dir().join(fault)).expect("a planted fault");
    }

    /// True while the process is there, stopped or not.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Process id, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`.
    pub fn send_kill(&self) {
        self.signal(Signal::KILL);
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.send_kill();
        if let Some(mut child) = self.child.take() {
            wait(&mut child, Duration::from_secs(20));
        }
    }

    /// `SIGSTOP`: the process stands still with all its connections open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// `SIGCONT`.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// `SIGTERM`, and waits: exit code and how long it took. None if it had to be killed.
    pub fn stop(&mut self, timeout: Duration) -> Option<(Option<i32>, Duration)> {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let mut child = self.child.take()?;
        wait(&mut child, timeout).map(|code| (code, started.elapsed()))
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            // A process that has ended by itself is not there to be signalled; that is no fault here.
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// What it printed since its last start, if it has ended by itself.
    pub fn ended_with_log(&mut self) -> Option<String> {
        (!self.is_running()).then(|| self.log().split_off(self.log_from))
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join(format!("data-{}", self.name))
    }

    /// Its output since the test began.
    pub fn log(&self) -> String {
        std::fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too, so nothing is left behind.
        self.kill();
    }
}
