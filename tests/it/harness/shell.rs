//! `ppdb shell -o jsonl` as a long-lived child: one line in, one JSON line out.

use super::program::program;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// A running shell.
pub struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Shell {
    /// Starts `ppdb shell -o jsonl ARGS`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Self {
        Self::start_as(&[], args)
    }

    /// The same with some variables.
    pub fn start_as<S: AsRef<std::ffi::OsStr>>(
        envs: &[(&str, &str)],
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let mut command = program();
        command.envs(envs.iter().copied());
        command.args(["shell", "-o", "jsonl"]).args(args).stdin(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::inherit());
        let mut child = command.spawn().expect("the shell starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (send, lines) = sync_channel(1_024);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, input, lines }
    }

    /// Sends one line, as it is.
    pub fn send(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the shell reads");
    }

    /// The next line of output, parsed.
    pub fn receive(&mut self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).expect("an answer within 30 s");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Sends one line and returns its answer.
    pub fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        let answer = self.receive();
        assert_eq!(answer["v"], 1, "{line}: {answer}");
        answer
    }

    /// The value of a command that has to work.
    pub fn value(&mut self, line: &str) -> Value {
        let answer = self.ask(line);
        assert_eq!(
            (&answer["ok"], &answer["outcome"]),
            (&true.into(), &"ok".into()),
            "{line}: {answer}"
        );
        answer["value"].clone()
    }

    /// The code of a command that has to fail, after checking that its outcome is certain.
    pub fn code(&mut self, line: &str) -> String {
        let answer = self.ask(line);
        assert_eq!(
            (&answer["ok"], &answer["outcome"]),
            (&false.into(), &"fail".into()),
            "{line}: {answer}"
        );
        assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "{line}: {answer}");
        answer["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Closes the input and waits for the end: every line was answered and nothing more was printed.
    pub fn finish(mut self) -> Option<i32> {
        self.input = None;
        let code = super::program::wait(&mut self.child, Duration::from_secs(20));
        let rest: Vec<String> = self.lines.try_iter().collect();
        assert!(rest.is_empty(), "more lines than questions: {rest:?}");
        code.expect("the shell ends with its input")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
