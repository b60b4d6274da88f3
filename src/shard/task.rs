//! A background task that ends with its owner.

use std::future::Future;

/// Aborts the task when dropped.
pub struct Task(tokio::task::JoinHandle<()>);

impl Task {
    /// Starts a task. Needs a runtime.
    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
