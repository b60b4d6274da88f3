//! Faults that tests plant in a running process. Release builds have none of this: every call here is empty there.
//!
//! A fault is a file in the folder that `PPDB_FAULT_DIR` names. `point` arms one of the failpoints in `points`
//! (`armed` says how). The others are hooks, asked for where they matter:
//!
//! | file | fault |
//! |---|---|
//! | `hold-voters` | this node, as coordinator, orders no change of voters |
//! | `peer.drop` | nothing is sent to the nodes that are named in it |
//! | `report` | the node reports other values than it knows: `name=value`, a line each |
//! | `installed-table` | `lose` deletes a record of every table that is installed, `flip` changes a byte of one |
//! | `clock.offset` | so many milliseconds are added to this machine's clock; may be negative |
//! | `disk.full` | no file gets longer: tables, segments and snapshots find no space |
//! | `fsync.eio` | the fdatasync of the log and of tables fails |
//! | `fsync.slow` | so many milliseconds pass before each of them |
//! | `bug` | the bug of that name is in force (`tests/it/campaign/bugs.rs`): tests have to notice |
//!
//! The last five are looked at every 10 ms by a thread, and cost one atomic load where they are asked for.

#[cfg(debug_assertions)]
mod armed;
mod hooks;
mod points;

pub use hooks::{clock_offset_ms, disk_full, fsync, has_bug};
pub use points::Point;
#[cfg(debug_assertions)]
pub use points::{Course, OnError, Role, Spec, TABLE, Toward, UNREACHABLE};

use crate::types::{Code, Error};

/// What the fault says, trimmed, if it is planted. Reads the file each time, so it can come and go.
#[cfg(debug_assertions)]
pub fn planted(fault: &str) -> Option<String> {
    let text = std::fs::read_to_string(armed::dir()?.join(fault)).ok()?;
    Some(text.trim().to_owned())
}

/// Nothing is ever planted in a release build.
#[cfg(not(debug_assertions))]
pub fn planted(_fault: &str) -> Option<String> {
    None
}

/// The error of a failpoint. There is none in a release build.
#[cfg(debug_assertions)]
#[derive(Debug)]
pub struct Injected(Point);

/// The error of a failpoint. There is none in a release build.
#[cfg(not(debug_assertions))]
#[derive(Debug)]
pub enum Injected {}

/// Where a failpoint lies. Armed with `kill` the process ends here, with `stop` it stands still here until it
/// is continued, with `error` this returns one; else nothing happens, for the price of one atomic load.
#[cfg(debug_assertions)]
#[inline]
pub fn pass(point: Point) -> Result<(), Injected> {
    armed::pass(point)
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_point: Point) -> Result<(), Injected> {
    Ok(())
}

/// The same where no error can be returned; the table says so of the point, and it cannot be armed with one.
#[inline(always)]
pub fn at(point: Point) {
    let _ = pass(point);
}

/// Names of all failpoints; a release build has none.
pub fn names() -> Vec<&'static str> {
    #[cfg(debug_assertions)]
    {
        TABLE.iter().map(|spec| spec.name).collect()
    }
    #[cfg(not(debug_assertions))]
    {
        Vec::new()
    }
}

impl std::fmt::Display for Injected {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[cfg(debug_assertions)]
        {
            write!(_f, "the failpoint {} returns an error", points::spec(self.0).name)
        }
        #[cfg(not(debug_assertions))]
        match *self {}
    }
}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> Self {
        std::io::Error::other(injected.to_string())
    }
}

impl From<Injected> for String {
    fn from(injected: Injected) -> Self {
        injected.to_string()
    }
}

impl From<Injected> for Error {
    fn from(injected: Injected) -> Self {
        Error::new(Code::NotReady, injected.to_string())
    }
}
