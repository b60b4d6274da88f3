//! Runbooks: Rhai scripts that give the same orders as the command line, over the same wire.
//!
//! `engine` and `meter` are the fence (what a script may cost and cannot do), `bridge` carries a call from the script's
//! thread to the client and back, `steps` is how a runbook goes, `record` what is kept of it, and `telling` waits for that. `objects`, `orders`,
//! `waits`, `samples`, `keys` and `stage` are the functions a script sees, `table` lists them; `failure` turns whatever ended a
//! script into one error. `console` is the same language line by line. Nothing here knows what a switch is.

mod bridge;
pub mod console;
mod convert;
mod engine;
mod failure;
mod keys;
mod meter;
mod objects;
mod orders;
mod params;
mod record;
mod rehearsal;
mod run;
mod samples;
mod stage;
mod steps;
mod table;
mod telling;
mod waits;

#[cfg(test)]
mod console_tests;
#[cfg(test)]
mod doors_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod tests;

use crate::cli::runbook::ScriptDoor;
use std::sync::Arc;

pub use console::Console;

/// The door for `cli::main`.
pub const DOOR: ScriptDoor = ScriptDoor {
    check: run::check,
    run: |client, book, stage, stop| Box::pin(run::run(Arc::new(client), book, stage, stop)),
    sha256: record::sha256,
    definitions: table::definitions,
};
