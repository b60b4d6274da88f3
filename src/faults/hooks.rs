//! Conditions of the surroundings that tests bring about: a clock that is wrong, a disk that is full, slow or
//! broken. None of them in a release build.

#[cfg(debug_assertions)]
mod planted {
    use super::super::armed;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

    pub static CLOCK_OFFSET_MS: AtomicI64 = AtomicI64::new(0);
    pub static DISK_FULL: AtomicBool = AtomicBool::new(false);
    pub static FSYNC_EIO: AtomicBool = AtomicBool::new(false);
    pub static FSYNC_SLOW_MS: AtomicU64 = AtomicU64::new(0);

    /// Takes over what is planted now.
    pub fn refresh(dir: &Path) {
        let text = |fault: &str| std::fs::read_to_string(dir.join(fault)).ok();
        let offset_ms = text("clock.offset").and_then(|text| text.trim().parse().ok());
        CLOCK_OFFSET_MS.store(offset_ms.unwrap_or(0), Relaxed);
        DISK_FULL.store(text("disk.full").is_some(), Relaxed);
        FSYNC_EIO.store(text("fsync.eio").is_some(), Relaxed);
        let slow_ms = text("fsync.slow").and_then(|text| text.trim().parse().ok());
        FSYNC_SLOW_MS.store(slow_ms.unwrap_or(0), Relaxed);
    }

    /// Makes sure that somebody looks.
    pub fn watched() {
        let _ = armed::dir();
    }
}

#[cfg(debug_assertions)]
pub(super) use planted::refresh;

/// How far this machine's clock is said to be wrong.
#[inline(always)]
pub fn clock_offset_ms() -> i64 {
    #[cfg(debug_assertions)]
    {
        planted::watched();
        planted::CLOCK_OFFSET_MS.load(std::sync::atomic::Ordering::Relaxed)
    }
    #[cfg(not(debug_assertions))]
    0
}

/// An error if the disk is said to be full.
#[inline(always)]
pub fn disk_full() -> std::io::Result<()> {
    #[cfg(debug_assertions)]
    {
        planted::watched();
        if planted::DISK_FULL.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
    }
    Ok(())
}

/// Stands before an fdatasync: waits if the disk is said to be slow, fails if it is said to be broken.
#[inline(always)]
pub fn fsync() -> std::io::Result<()> {
    #[cfg(debug_assertions)]
    {
        use std::sync::atomic::Ordering::Relaxed;
        planted::watched();
        let slow_ms = planted::FSYNC_SLOW_MS.load(Relaxed);
        if slow_ms > 0 {
            std::thread::sleep(std::time::Duration::from_millis(slow_ms));
        }
        if planted::FSYNC_EIO.load(Relaxed) {
            return Err(rustix::io::Errno::IO.into());
        }
    }
    Ok(())
}

/// Whether the bug of that name is in force; never in a release build. Reads a file: not for hot paths.
pub fn has_bug(name: &str) -> bool {
    super::planted("bug").is_some_and(|bug| bug == name)
}
