//! What a snapshot is to the library here, the streams it travels on, and the durable mark of an
//! installation. `sending` and `receiving` are the two ends of a transfer, `outgoing` and `incoming` their
//! files, `staging` the folder that these lie in.

use super::holds::Hold;
use super::staging::Staged;
use crate::faults::{self, Point};
use crate::transport::{FrameReceiver, FrameSender};
use crate::types::LogPos;
use crate::wire::codec;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the other side to take a chunk or to send one.
pub const STALL_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a stream to the other side.
pub const OPEN_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a received snapshot to be installed.
pub const INSTALL_MAX: Duration = Duration::from_secs(300);

/// What the library passes around as the data of a snapshot.
pub enum SnapshotData {
    /// The table as it will be when it is copied; meanwhile the log that follows the announced position stays.
    Table { hold: Option<Hold> },
    /// A file that was received and checked.
    Received(Staged),
}

fn install_mark(dir: &Path) -> PathBuf {
    dir.join("install.base")
}

/// Notes durably, before the table is replaced, at which position it will stand. If the process dies
/// before the log has its new base, the copy then opens with a log that ends before its table, and only
/// this note tells that from a log that was lost. The note before stays whole until this one is. The folder itself
/// is made durable by the store, before it makes another table the current one (`storage::Store::install`).
pub fn mark_install(dir: &Path, base: Option<LogPos>) -> io::Result<()> {
    faults::pass(Point::InstallMark)?;
    let fresh = dir.join("install.base-new");
    let mut file = File::create(&fresh)?;
    file.write_all(&codec::encode(&base))?;
    file.sync_all()?;
    std::fs::rename(fresh, install_mark(dir))?;
    Ok(faults::pass(Point::InstallMarked)?)
}

/// The position noted by `mark_install`; none if there is no whole note.
pub fn marked_install(dir: &Path) -> Option<LogPos> {
    let bytes = std::fs::read(install_mark(dir)).ok()?;
    codec::decode::<Option<LogPos>>(&bytes).ok()?
}

/// Frames out, one after the other.
pub trait FramesOut: Send + Sync {
    fn send(&self, frame: Bytes) -> impl Future<Output = Result<(), String>> + Send;
}

/// Frames in.
pub trait FramesIn: Send {
    fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

impl FramesOut for FrameSender {
    async fn send(&self, frame: Bytes) -> Result<(), String> {
        FrameSender::send(self, frame).await.map_err(|e| e.to_string())
    }
}

impl FramesIn for FrameReceiver {
    async fn recv(&mut self) -> Result<Option<Bytes>, String> {
        FrameReceiver::recv(self).await.map_err(|e| e.to_string())
    }
}

/// The result of something that goes over a stream, or that it took too long.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result.map_err(|e| format!("{what}: {e}")),
        Err(_) => Err(format!("{what}: nothing for {limit:?}")),
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
