//! Faults that tests plant in a running process. Release builds have none of this.
//!
//! A fault is a file in the folder that `PPDB_FAULT_DIR` names; what it means is said where it is asked for:
//!
//! | file | fault |
//! |---|---|
//! | `hold-voters` | this node, as coordinator, orders no change of voters |
//! | `cut` | nothing is sent to the nodes that are named in it |
//! | `report` | the node reports other values than it knows: `name=value`, a line each |
//! | `fsync-slow` | each fdatasync of this node's log takes so many milliseconds longer |
//! | `installed-table` | `lose` deletes a record of every table that is installed, `flip` changes a byte of one |

/// What the fault says, trimmed, if it is planted. Reads the file each time, so it can come and go.
#[cfg(debug_assertions)]
pub fn planted(fault: &str) -> Option<String> {
    static DIR: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let dir = DIR.get_or_init(|| std::env::var_os("PPDB_FAULT_DIR")).as_ref()?;
    let text = std::fs::read_to_string(std::path::Path::new(dir).join(fault)).ok()?;
    Some(text.trim().to_owned())
}

/// Nothing is ever planted in a release build.
#[cfg(not(debug_assertions))]
pub fn planted(_fault: &str) -> Option<String> {
    None
}

/// How much longer an fdatasync of the log shall take. Asked for often, so the file is looked at now and then.
#[cfg(debug_assertions)]
pub fn fsync_delay() -> std::time::Duration {
    use std::time::{Duration, Instant};
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    static LAST: parking_lot::Mutex<Option<(Instant, Duration)>> = parking_lot::Mutex::new(None);
    let mut last = LAST.lock();
    match *last {
        Some((at, delay)) if at.elapsed() < LOOK_EVERY => delay,
        _ => {
            let ms = planted("fsync-slow").and_then(|text| text.parse().ok()).unwrap_or(0);
            let delay = Duration::from_millis(ms);
            *last = Some((Instant::now(), delay));
            delay
        }
    }
}
