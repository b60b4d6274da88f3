//! A terminal with the program in it: tmux with a socket of its own and a fixed size, killed with its value.

use super::program::{command, wait};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Columns and lines.
const SIZE: (&str, &str) = ("110", "40");
/// Between two looks at the screen.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines that have left the screen and are looked at, too.
const SCROLLED: &str = "-1500";

/// A running program and its screen.
pub struct Terminal {
    socket: String,
    /// Every look has to see something else than what was there before this.
    seen: std::cell::RefCell<Vec<String>>,
}

impl Terminal {
    /// Starts the built program with these words, in a folder, with these variables.
    pub fn start(dir: &Path, env: &[(&str, &str)], words: &[&str]) -> Self {
        Self::with(env!("CARGO_BIN_EXE_ppdb"), dir, env, words)
    }

    /// The same with any program.
    pub fn with(program: &str, dir: &Path, env: &[(&str, &str)], words: &[&str]) -> Self {
        let socket = format!("ppdb-it-{}-{:?}", std::process::id(), std::thread::current().id());
        let terminal = Self { socket, seen: Default::default() };
        let mut tmux = terminal.tmux();
        tmux.args(["new-session", "-d", "-x", SIZE.0, "-y", SIZE.1, "-c"]).arg(dir);
        for (name, value) in env {
            tmux.args(["-e", &format!("{name}={value}")]);
        }
        tmux.arg(program).args(words);
        // What the program left on its screen is wanted also when it has ended.
        tmux.args([";", "set-option", "remain-on-exit", "on"]);
        terminal.run(tmux);
        terminal
    }

    fn tmux(&self) -> Command {
        let mut tmux = command("tmux");
        // Whoever runs the tests may sit in a tmux, too.
        tmux.env_remove("TMUX").args(["-L", &self.socket, "-f", "/dev/null"]);
        tmux
    }

    fn run(&self, mut tmux: Command) -> Output {
        let mut child = tmux.stderr(Stdio::piped()).spawn().expect("tmux is installed");
        let code = wait(&mut child, Duration::from_secs(10));
        let output = child.wait_with_output().expect("the output of tmux");
        assert_eq!(code, Some(Some(0)), "{tmux:?}: {output:?}");
        output
    }

    /// Types this text as it is.
    pub fn text(&self, text: &str) {
        // A semicolon at the end would be one of tmux.
        let text = text.strip_suffix(';').map_or(text.to_owned(), |text| format!("{text}\\;"));
        let mut tmux = self.tmux();
        tmux.args(["send-keys", "-l", "--", &text]);
        self.run(tmux);
    }

    /// Presses keys by their names, such as `Tab`, `Enter`, `C-c`.
    pub fn keys(&self, keys: &[&str]) {
        let mut tmux = self.tmux();
        tmux.arg("send-keys").args(keys);
        self.run(tmux);
    }

    /// Types a line and sends it. What is waited for afterwards has to appear after this.
    pub fn line(&self, text: &str) {
        self.mark();
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// What is waited for has to appear after this.
    pub fn mark(&self) {
        *self.seen.borrow_mut() = self.screen();
    }

    /// All lines, those that have left the screen as well, without the empty ones at the end.
    pub fn screen(&self) -> Vec<String> {
        let mut tmux = self.tmux();
        tmux.args(["capture-pane", "-p", "-J", "-S", SCROLLED]);
        let text = String::from_utf8_lossy(&self.run(tmux).stdout).trim_end().to_owned();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// The same with escape sequences, for colors.
    pub fn colored(&self) -> String {
        let mut tmux = self.tmux();
        tmux.args(["capture-pane", "-p", "-e", "-J"]);
        String::from_utf8_lossy(&self.run(tmux).stdout).into_owned()
    }

    /// Waits until the lines since the last mark look so, and answers them. Fails with the screen after that time.
    pub fn wait(
        &self,
        what: &str,
        within: Duration,
        fits: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        let end = Instant::now() + within;
        loop {
            let screen = self.screen();
            let news = self.since_mark(&screen);
            if fits(news) {
                return news.to_vec();
            }
            let all = screen.join("\n");
            assert!(Instant::now() < end, "no {what} within {within:?}; the screen:\n{all}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for a line with this text.
    pub fn see(&self, text: &str, within: Duration) -> Vec<String> {
        self.wait(&format!("`{text}`"), within, |lines| lines.iter().any(|l| l.contains(text)))
    }

    /// Waits for a line with this text that may have appeared at any time.
    pub fn anywhere(&self, text: &str, within: Duration) -> Vec<String> {
        self.seen.borrow_mut().clear();
        self.see(text, within)
    }

    /// Lines from the one that was being typed at the mark on.
    fn since_mark<'a>(&self, screen: &'a [String]) -> &'a [String] {
        let seen = self.seen.borrow().len();
        &screen[seen.saturating_sub(1).min(screen.len())..]
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut tmux = self.tmux();
            tmux.args(["capture-pane", "-p", "-J", "-S", SCROLLED]);
            let screen = tmux.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
            eprintln!("--- the terminal\n{}", screen.unwrap_or_default());
        }
        let _ = self.tmux().arg("kill-server").output();
    }
}
