//! Runbooks: Rhai scripts that give the same orders as the command line, over the same wire.
//!
//! `engine` is the fence (what a script may cost and cannot do), `bridge` carries a call from the script's
//! thread to the client and back, `orders`, `data` and `stage` are the functions a script sees, `failure`
//! turns whatever ended a script into one error. Nothing here knows what a switch is.

mod bridge;
pub mod console;
mod convert;
mod data;
mod engine;
mod failure;
mod orders;
mod params;
mod rehearsal;
mod run;
mod stage;

#[cfg(test)]
mod tests;

use crate::cli::runbook::ScriptDoor;
use std::sync::Arc;

/// The door for `cli::main`.
pub const DOOR: ScriptDoor = ScriptDoor {
    check: run::check,
    run: |client, book, stage, stop| Box::pin(run::run(Arc::new(client), book, stage, stop)),
};
