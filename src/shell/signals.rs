//! Ctrl-C and SIGTERM, heard from the first line to the last of a shell: also between two commands, and behind a view,
//! after which the process would not end by them any more.
//!
//! `Signals` is for a shell that nobody sits in front of. `Terminate` is for a person, whose Ctrl-C leaves one command.

use crate::cli::{exit, live};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// See the module.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// None, and a word about it, if they cannot be heard.
    pub fn hear() -> Option<Self> {
        let both = || {
            let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
            Ok::<_, std::io::Error>((signal(interrupt)?, signal(terminate)?))
        };
        let heard = both().inspect_err(|error| eprintln!("no signals can be heard: {error}"));
        heard.ok().map(|(interrupt, terminate)| Self { interrupt, terminate })
    }

    /// Until one of them comes: the exit code that follows.
    pub async fn come(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => exit::INTERRUPTED,
            _ = self.terminate.recv() => exit::TERMINATED,
        }
    }

    /// The exit code if one came while nobody waited.
    pub async fn came(&mut self) -> Option<u8> {
        tokio::select! {
            biased;
            code = self.come() => Some(code),
            () = std::future::ready(()) => None,
        }
    }
}

/// SIGTERM, for as long as a person's shell is open.
pub struct Terminate {
    signal: Signal,
    left: bool,
}

impl Terminate {
    /// None, and a word about it, if it cannot be heard.
    pub fn hear() -> Option<Self> {
        let heard = signal(SignalKind::terminate())
            .inspect_err(|error| eprintln!("no signals can be heard: {error}"));
        heard.ok().map(|signal| Self { signal, left: false })
    }

    /// Until it comes.
    pub async fn come(&mut self) {
        self.signal.recv().await;
    }

    /// True if it came while nobody waited.
    pub async fn came(&mut self) -> bool {
        tokio::select! {
            biased;
            () = self.come() => true,
            () = std::future::ready(()) => false,
        }
    }

    /// Until a command has to be left, by SIGTERM or Ctrl-C: the exit code that would follow.
    pub async fn leave(&mut self) -> u8 {
        tokio::select! {
            () = self.come() => {
                self.left = true;
                exit::TERMINATED
            }
            () = live::interrupted() => exit::INTERRUPTED,
        }
    }

    /// Whether a command was left by it.
    pub fn has_left(&self) -> bool {
        self.left
    }
}
