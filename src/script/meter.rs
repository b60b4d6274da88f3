//! What a script has used: processor time of its thread, memory of its process, calls to the cluster, and what it
//! printed; and whether that is too much.
//!
//! The limits are for what a loop does by mistake. A script that waits for hours stays far below them, because what it
//! may use grows with the time.

use super::failure::Stopped;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Processor time that a script may use at once.
pub const CPU_BURST: Duration = Duration::from_millis(500);
/// What may be used to clean up after a failure, beside that.
pub const CPU_CLOSING: Duration = Duration::from_millis(150);
/// Share of the time since its start that is added to it.
const CPU_SHARE: f64 = 0.03;
/// Bytes by which the memory of the process may grow while it runs.
pub const MEMORY_BYTES_MAX: u64 = 28 << 20;
/// Calls to the cluster, and pauses, at once.
pub const CALLS_BURST: u32 = 500;
/// As many more in each second.
pub const CALLS_PER_S: f64 = 20.0;
/// Bytes of all that it prints, logs and notes.
pub const PRINT_BYTES_MAX: usize = 4 << 20;

/// Measures the thread that it was started on.
pub struct Meter {
    started: Instant,
    cpu_before: Duration,
    cpu_burst: Duration,
    memory: Option<Memory>,
}

impl Meter {
    /// From here on, with so much at once. Memory is measured if nothing else runs in this process.
    pub fn start(alone: bool, cpu_burst: Duration) -> Self {
        let memory = alone.then(Memory::start).flatten();
        Self { started: Instant::now(), cpu_before: cpu_of_thread(), cpu_burst, memory }
    }

    /// What was used up, if anything.
    pub fn look(&self) -> Option<Stopped> {
        let used = cpu_of_thread().saturating_sub(self.cpu_before);
        if used > cpu_allowed(self.cpu_burst, self.started.elapsed()) {
            return Some(Stopped::Limit(format!(
                "it has used {:.1} s of processor time without a pause; `wait_until` and `sleep` use none",
                used.as_secs_f64()
            )));
        }
        let grown = self.memory.as_ref().map_or(0, Memory::grown_bytes);
        (grown > MEMORY_BYTES_MAX).then(|| {
            Stopped::Limit(format!("its values take more than {} MiB", MEMORY_BYTES_MAX >> 20))
        })
    }
}

/// What a script may have used that long after its start.
fn cpu_allowed(burst: Duration, since_start: Duration) -> Duration {
    burst + since_start.mul_f64(CPU_SHARE)
}

fn cpu_of_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0).unsigned_abs(), time.tv_nsec.max(0).unsigned_abs() as u32)
}

/// Resident memory of this process, without what it shares with others.
struct Memory {
    statm: File,
    page_bytes: u64,
    before_bytes: u64,
}

impl Memory {
    /// None where the system does not tell.
    fn start() -> Option<Self> {
        let page_bytes = rustix::param::page_size() as u64;
        let mut memory =
            Self { statm: File::open("/proc/self/statm").ok()?, page_bytes, before_bytes: 0 };
        memory.before_bytes = memory.now_bytes()?;
        Some(memory)
    }

    fn now_bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let read = self.statm.read_at(&mut text, 0).ok()?;
        let mut pages = std::str::from_utf8(text.get(..read)?).ok()?.split_whitespace().skip(1);
        let mut next = || pages.next()?.parse::<u64>().ok();
        let (resident, shared) = (next()?, next()?);
        Some(resident.saturating_sub(shared) * self.page_bytes)
    }

    fn grown_bytes(&self) -> u64 {
        self.now_bytes().unwrap_or(0).saturating_sub(self.before_bytes)
    }
}

/// So many at once, and so many more in each second.
pub struct Bucket {
    left: f64,
    burst: f64,
    per_s: f64,
    looked: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: u32, per_s: f64, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self { left: burst, burst, per_s, looked: now }
    }

    /// Takes one; false if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.looked).as_secs_f64();
        self.looked = now;
        self.left = (self.left + seconds * self.per_s).min(self.burst);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_may_use_grows_with_the_time() {
        assert_eq!(cpu_allowed(CPU_BURST, Duration::ZERO), CPU_BURST);
        assert_eq!(
            cpu_allowed(CPU_BURST, Duration::from_secs(100)),
            CPU_BURST + Duration::from_secs(3)
        );
    }

    #[test]
    fn a_loop_is_noticed_and_a_pause_is_not() {
        let meter = Meter::start(false, CPU_BURST);
        std::thread::sleep(Duration::from_millis(50));
        assert!(meter.look().is_none());
        let started = Instant::now();
        while meter.look().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20), "never noticed");
        }
        assert!(cpu_of_thread() >= CPU_BURST);
    }

    #[test]
    fn memory_is_that_of_this_process() {
        let memory = Memory::start().unwrap();
        let before = memory.grown_bytes();
        let taken = vec![1u8; 64 << 20];
        assert!(memory.grown_bytes() >= before + (32 << 20), "{} {}", before, memory.grown_bytes());
        drop(taken);
    }

    #[test]
    fn a_bucket_is_empty_after_a_burst_and_fills_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2.0, start);
        let taken: Vec<bool> = (0..4).map(|_| bucket.take(start)).collect();
        assert_eq!(taken, [true, true, true, false]);
        assert!(!bucket.take(start + Duration::from_millis(100)));
        assert!(bucket.take(start + Duration::from_millis(600)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| bucket.take(later)).count(), 3, "never more than full");
    }
}
