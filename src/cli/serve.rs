//! `serve`: settings, logs, and then the node until it ends.

use super::args::{Globals, ServeArgs};
use super::config;
use crate::types::{Code, Error, Result};
use crate::{node, telemetry};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Runs a node until SIGTERM or SIGINT. `globals` are the flags as typed.
pub fn run(args: &ServeArgs, globals: &Globals) -> Result<()> {
    if let Some(parent) = args.parent_pid {
        die_with(parent)?;
    }
    let settings = config::resolved(args, globals)?.settings()?;
    let logs = telemetry::init_logs(&settings.log_level, settings.log_format)
        .map_err(|message| Error::new(Code::BadConfig, message))?;
    super::runtime(node::request_threads())?.block_on(node::serve(settings, logs))
}

/// Ties this process to the one that started it: a demo that is killed leaves no nodes behind.
fn die_with(parent: u32) -> Result<()> {
    let failed = |why: String| Error::new(Code::Internal, why);
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| failed(e.to_string()))?;
    // The parent may have died before the line above; then nobody sends the signal.
    let actual = getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    if actual == Some(parent) {
        return Ok(());
    }
    Err(failed(format!("process {parent}, which started this node, is gone")))
}
