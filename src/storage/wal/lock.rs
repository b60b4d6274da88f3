//! The lock between whoever appends and the writer: of the queue, and of each group's state.
//!
//! Not for what is rarely wanted twice: that is `parking_lot`'s. Its lock gives the processor away (`sched_yield`)
//! before it waits, and these two are wanted by two threads in the same microseconds, for each entry anew: with every
//! processor busy, whoever asked second lost its turn, thousands of times a second. The standard library's spins for
//! as long as such a lock is held, and then sleeps.
//!
//! A panic while it is locked poisons nothing: what that means for the log is decided where its threads are started.

use std::sync::{self, MutexGuard, PoisonError};

/// As `std::sync::Mutex`, without poison.
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As `std::sync::Condvar`, without poison.
#[derive(Debug, Default)]
pub(super) struct Condvar(sync::Condvar);

impl Condvar {
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
