//! Threads for long work on whole tables, which no request waits for directly. They leave the processor to whatever
//! answers requests, as far as the operating system can do that.
//!
//! What holds a lock that requests come to wait for must not be `spawn_idle`: who does not get the processor does not
//! let go of it either.

use std::io;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Pieces of work that wait for a worker: its owner waits for each of them, but may have given one up.
const JOBS_MAX: usize = 4;

/// Runs `work` on a thread of its own, which runs only where nobody else wants the processor.
pub fn spawn_idle(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(name, yield_to_others, work)
}

/// Runs `work` on a thread of its own, which has a smaller share of the processor than what answers requests, but has
/// one at any time.
pub fn spawn_low(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    spawn(name, take_less, work)
}

fn spawn(name: &str, make_way: fn(), work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let yielding = move || {
        make_way();
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(yielding).map(drop)
}

/// Whoever wakes takes the processor from this thread at once. A lower niceness would not do: a thread that runs is
/// let run to the end of its slice of some milliseconds, and a request waits for its turn a dozen times.
#[cfg(target_os = "linux")]
fn yield_to_others() {
    use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let me = thread_priority::thread_native_id();
    let set = thread_priority::set_thread_priority_and_policy(me, ThreadPriority::Min, policy);
    if let Err(error) = set {
        tracing::debug!(%error, "a thread has the priority of all others");
    }
}

#[cfg(not(target_os = "linux"))]
fn yield_to_others() {}

/// Added to the niceness of a thread that has a share at any time.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 5;

fn take_less() {
    // Here it is the thread's; elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread has the priority of all others");
    }
}

/// One idle thread for several pieces of work, one after the other. Ends when this is dropped, after what it is at.
pub struct Worker {
    name: String,
    jobs: mpsc::SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    /// Starts the thread.
    pub fn start(name: &str) -> Result<Self, String> {
        let (jobs, taken) = mpsc::sync_channel::<Job>(JOBS_MAX);
        spawn_idle(name, move || taken.iter().for_each(|job| job())).map_err(|e| e.to_string())?;
        Ok(Self { name: name.to_owned(), jobs })
    }

    /// What the work returns.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let ended = || format!("the thread for {} has ended", self.name);
        let (done, result) = oneshot::channel();
        // Nobody is there to take the result when the transfer was given up.
        let job = Box::new(move || drop(done.send(work())));
        self.jobs.try_send(job).map_err(|_| ended())?;
        result.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_the_thread_itself_yields() {
        use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy};
        let policy = || thread_priority::thread_schedule_policy().map_err(|e| e.to_string());
        let before = policy().unwrap();
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_ne!(before, idle);
        assert_eq!(Worker::start("test").unwrap().run(policy).await, Ok(idle));
        assert_eq!(policy(), Ok(before));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_low_thread_takes_less_and_no_other_does() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let before = niceness();
        let (tell, told) = mpsc::channel();
        spawn_low("test", move || tell.send(niceness()).unwrap()).unwrap();
        assert_eq!(told.recv(), Ok((before + NICENESS).min(19)));
        assert_eq!(niceness(), before);
    }

    #[tokio::test]
    async fn a_worker_works_until_a_panic_which_is_an_error() {
        let worker = Worker::start("test").unwrap();
        assert_eq!(worker.run(|| Ok(1)).await, Ok(1));
        assert_eq!(worker.run::<()>(|| Err("no".to_owned())).await, Err("no".to_owned()));
        let ended = Err("the thread for test has ended".to_owned());
        assert_eq!(worker.run::<()>(|| panic!("planted")).await, ended);
        assert_eq!(worker.run(|| Ok(())).await, ended);
    }
}
