//! Gives the blocks of large files back to the file system a little at a time.
//!
//! The names go at once, as with any removal; only the blocks follow slowly. Otherwise a file system frees, and with
//! `discard` also trims, all of them in one transaction of its journal, and every fsync waits for that: removing
//! 2.4 GB at once let the log of a busy node wait for 0.3 s. What is still held when the process dies the operating
//! system frees. Nothing here knows what the files held.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes given back in one step.
const STEP_BYTES: u64 = 8 << 20;
/// Between two steps: 400 MB/s at most, because the nodes of a machine do this at the same time.
const REST: Duration = Duration::from_millis(20);
/// How long to wait until nobody uses a file any more.
const UNUSED_WAIT_MAX: Duration = Duration::from_secs(10);
/// Files held open at a time; more are left to the file system.
const FILES_MAX: usize = 256;

/// Threads that give blocks back at this moment.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

struct Work;

impl Work {
    fn begin() -> Self {
        AT_WORK.fetch_add(1, Ordering::AcqRel);
        Work
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits at most so long until no blocks are given back, for who wants to measure the disk. Blocks.
pub fn wait_idle(wait_max: Duration) {
    const LOOK: Duration = Duration::from_millis(20);
    let until = Instant::now() + wait_max;
    while AT_WORK.load(Ordering::Acquire) > 0 && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
}

/// Shortens files that have no name any more until nothing is left of them, on a thread of its own. `is_unused` waits
/// at most so long and answers whether nobody reads or maps them: who does would be killed by a file that shrinks.
/// If that stays false they are only closed.
pub fn shrink(mut files: Vec<File>, is_unused: impl Fn(Duration) -> bool + Send + 'static) {
    files.truncate(FILES_MAX);
    files.retain(|file| file.metadata().is_ok_and(|meta| meta.len() > STEP_BYTES));
    if files.is_empty() {
        return;
    }
    let at_work = Work::begin();
    let work = move || {
        let _at_work = at_work;
        if !is_unused(UNUSED_WAIT_MAX) {
            return tracing::debug!("removed files are in use: their blocks are freed at once");
        }
        for file in files {
            if let Err(error) = shrink_one(&file) {
                tracing::debug!(%error, "the blocks of a removed file are freed at once");
            }
        }
    };
    // Without a thread the files are closed, which frees them.
    if let Err(error) = std::thread::Builder::new().name("reclaim".into()).spawn(work) {
        tracing::debug!(%error, "the blocks of removed files are freed at once");
    }
}

fn shrink_one(file: &File) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    while left > 0 {
        left = left.saturating_sub(STEP_BYTES);
        file.set_len(left)?;
        // So that each transaction frees one step.
        file.sync_all()?;
        std::thread::sleep(REST);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    fn len(file: &File) -> u64 {
        file.metadata().unwrap().len()
    }

    #[test]
    fn large_files_shrink_to_nothing_once_they_are_unused() {
        let (large, small) = (file(3 * STEP_BYTES + 1), file(STEP_BYTES));
        let (tell, unused) = mpsc::channel();
        let files = [&large, &small].map(|file| file.try_clone().unwrap());
        shrink(files.into(), move |wait| unused.recv_timeout(wait).is_ok());
        wait_idle(Duration::from_millis(50));
        assert_eq!(len(&large), 3 * STEP_BYTES + 1, "in use");
        tell.send(()).unwrap();
        wait_idle(Duration::from_secs(20));
        assert_eq!((len(&large), len(&small)), (0, STEP_BYTES));
    }

    #[test]
    fn what_stays_in_use_is_left_alone() {
        let large = file(2 * STEP_BYTES);
        let (ended, end) = mpsc::channel::<()>();
        shrink(vec![large.try_clone().unwrap()], move |_| {
            let _ = &ended;
            false
        });
        // The thread has ended when it lets go of its end of the channel.
        assert!(end.recv().is_err());
        assert_eq!(len(&large), 2 * STEP_BYTES);
    }
}
