//! Runs the built program once, to its end, within a time.

use serde_json::Value;
use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

/// The program, without any `PPDB_` variable of the machine, its output captured.
pub fn program() -> Command {
    command(env!("CARGO_BIN_EXE_ppdb"))
}

/// Any program in the same surroundings.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PPDB_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    // Nor the contexts of whoever runs the tests.
    command.env("PPDB_CONTEXTS", "/nonexistent/contexts.toml");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `ppdb ARGS`; longer than a minute fails the test.
pub fn ppdb<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    ppdb_within(Duration::from_secs(60), args)
}

/// Runs `ppdb ARGS` to its end; if it takes longer than `timeout` it is killed and the test fails.
pub fn ppdb_within<S: AsRef<OsStr>>(timeout: Duration, args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = program();
    command.args(args);
    let started = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let out = drain(child.stdout.take());
    let err = drain(child.stderr.take());
    let code = wait(&mut child, timeout);
    let took = started.elapsed();
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    match code {
        Some(code) => Ran { code, out, err, took },
        None => panic!("{command:?} did not end within {timeout:?}\n{out}\n{err}"),
    }
}

/// Waits for the end of a child: its exit code. After `timeout` it is killed and the answer is none.
pub fn wait(child: &mut Child, timeout: Duration) -> Option<Option<i32>> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return Some(status.code());
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads a stream to its end, beside everything else.
pub fn drain(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Ran {
    /// The one JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Fails the test unless the exit code is this one.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
