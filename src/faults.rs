//! Faults that tests plant in a running process. Release builds have none of this.
//!
//! A fault is a file in the folder that `PPDB_FAULT_DIR` names; what it means is said where it is asked for:
//!
//! | file | fault |
//! |---|---|
//! | `hold-voters` | this node, as coordinator, orders no change of voters |
//! | `cut` | nothing is sent to the nodes that are named in it |
//! | `report` | the node reports other values than it knows: `name=value`, a line each |
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
