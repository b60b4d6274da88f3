//! Threads for long work on whole tables, which no request waits for. They leave the processor to whatever
//! answers requests, as far as the operating system can do that.

use std::io;

/// Added to the niceness of such a thread: about a tenth of a processor while others want all of it, all of it
/// otherwise.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Runs `work` on a thread of its own.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let yielding = move || {
        // Here it is the thread's; elsewhere it would be the whole process's. Without it all goes on as well.
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "a thread has the priority of all others");
        }
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(yielding).map(drop)
}

/// As `spawn`; what the work returns.
pub async fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = tokio::sync::oneshot::channel();
    // Nobody is there to take it when the transfer was given up.
    spawn(name, move || drop(done.send(work()))).map_err(|e| e.to_string())?;
    result.await.unwrap_or_else(|_| Err(format!("the thread for {name} ended early")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn only_the_thread_itself_yields() {
        let niceness = || rustix::process::getpriority_process(None).map_err(|e| e.to_string());
        let before = niceness().unwrap();
        let inside = run("test", niceness).await.unwrap();
        assert_eq!((inside, niceness().unwrap()), ((before + NICENESS).min(19), before));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let ended = run::<()>("test", || panic!("planted")).await;
        assert_eq!(ended, Err("the thread for test ended early".to_owned()));
    }
}
