//! Ctrl-C and SIGTERM, heard from the first line to the last of a shell that nobody sits in front of: also between two
//! commands, and behind a view, after which the process would not end by them any more.

use crate::cli::exit;
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
