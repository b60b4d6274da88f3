//! Processes of other programs: started, looked at, killed. Nothing outlives the bench.
//!
//! Each is killed when its `Process` is dropped, which a panic and Ctrl-C lead to as well. Against a bench
//! that is killed itself, they are started through `setpriv --pdeathsig` (util-linux) where there is one:
//! the kernel then kills them with the thread that started them, which is the main one.

use crate::Result;
use crate::proc_files::{anon_kib, ticks};
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Clock ticks of `/proc/PID/stat` in a second: fixed at 100 for all programs on Linux.
const TICKS_PER_S: f64 = 100.0;
/// Lines of a log that are shown.
const TAIL_LINES: usize = 8;
/// Ports are looked for from here on, below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 21_000..31_000;

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` in `dir`, its output in `dir/NAME.log`. Variables that start with one of `hidden` do
    /// not reach it: the user's own settings are not meant for it.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[String],
        dir: &Path,
        hidden: &str,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let mut command = match find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(hidden) {
                command.env_remove(variable);
            }
        }
        let child = command
            .args(args)
            .current_dir(dir)
            // Ctrl-C at the terminal is for the bench, which then ends what it has started.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// An error with the end of its log, if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let text = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
                Err(format!("{} ended: {status}\n{tail}", self.name).into())
            }
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// CPU seconds used since its start, by all its threads.
    pub fn cpu_s(&self) -> Result<f64> {
        cpu_s(self.child.id())
    }

    /// Anonymous memory, in MiB.
    pub fn anon_mib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path)?;
        Ok(anon_kib(&status).ok_or("no RssAnon in /proc/PID/status")? / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// CPU seconds that a process has used, by all its threads.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(ticks(&stat).ok_or("an unexpected /proc/PID/stat")? / TICKS_PER_S)
}

/// Where a program is, by `PATH`, and where Debian puts servers.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/bin".into(), "/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// So many ports of 127.0.0.1 that nobody uses at this moment, for TCP and for UDP.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let size = PORTS.end - PORTS.start;
    let start = rand::random_range(0..size);
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    for i in 0..size {
        let port = PORTS.start + (start + i) % size;
        if held.len() == count {
            break;
        }
        let tcp = TcpListener::bind(("127.0.0.1", port));
        if let (Ok(tcp), Ok(udp)) = (tcp, UdpSocket::bind(("127.0.0.1", port))) {
            held.push((port, tcp, udp));
        }
    }
    if held.len() < count {
        return Err(
            format!("no {count} free ports between {} and {}", PORTS.start, PORTS.end).into()
        );
    }
    Ok(held.into_iter().map(|(port, ..)| port).collect())
}
