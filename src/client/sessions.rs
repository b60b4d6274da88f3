//! Sessions of one shard: which (session, sequence) a write carries, so that it applies at most once.
//!
//! Hands out numbers and takes them back. Opening a session is the caller's work.
//!
//! A node remembers the results of the last `SESSION_WINDOW` sequences of a session. A request that is
//! still being repeated must not fall below that window, so the sequences handed out never span more
//! than `SPAN_MAX`, which leaves room for frames that arrive late. A request that hangs would thus hold
//! back all later ones; they go on in a further session, up to `SESSIONS_PER_SHARD_MAX`.

use crate::types::{SessionId, SessionSeq, limits};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// From the oldest sequence in use to the newest, three quarters of what a node remembers.
const SPAN_MAX: u64 = limits::SESSION_WINDOW / 4 * 3;
/// Sessions of one client in one shard; past it a write waits for a sequence to be given back.
const SESSIONS_PER_SHARD_MAX: usize = 8;

/// The sequences of one session.
#[derive(Debug)]
struct Window {
    id: SessionId,
    next: u64,
    in_use: BTreeSet<u64>,
}

impl Window {
    fn new(id: SessionId) -> Self {
        Self { id, next: 1, in_use: BTreeSet::new() }
    }

    fn take(&mut self) -> Option<SessionSeq> {
        let oldest = self.in_use.first().copied().unwrap_or(self.next);
        if self.next - oldest >= SPAN_MAX {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.in_use.insert(sequence);
        Some(SessionSeq { session: self.id, sequence })
    }
}

/// The sessions of one shard, shared by all tasks of a client.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    windows: Mutex<Vec<Window>>,
    /// Held while a session is being opened, so that one task opens it for all.
    pub(crate) opening: tokio::sync::Mutex<()>,
    given_back: Notify,
}

impl Sessions {
    /// A sequence that was never used, if a session has room for one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Turn> {
        let mut windows = self.windows.lock();
        let seq = windows.iter_mut().find_map(Window::take)?;
        drop(windows);
        // Giving one back can make room for many, but wakes only one: the woken wake the next.
        self.given_back.notify_one();
        Some(Turn { sessions: self.clone(), seq })
    }

    /// True if another session may be opened.
    pub(crate) fn may_open(&self) -> bool {
        self.windows.lock().len() < SESSIONS_PER_SHARD_MAX
    }

    /// Adds a session that was just opened.
    pub(crate) fn opened(&self, id: SessionId) {
        self.windows.lock().push(Window::new(id));
    }

    /// Forgets a session that the shard does not know any more.
    pub(crate) fn expired(&self, id: SessionId) {
        self.windows.lock().retain(|w| w.id != id);
        self.given_back.notify_one();
    }

    /// Returns once there may be room again.
    pub(crate) async fn room(&self) {
        self.given_back.notified().await;
    }
}

/// A sequence in use. Repeats of a request share it; dropping it says that the request is over, after
/// which its sequence is never sent again.
#[derive(Debug)]
pub(crate) struct Turn {
    sessions: Arc<Sessions>,
    seq: SessionSeq,
}

impl Turn {
    /// What the request carries.
    pub(crate) fn seq(&self) -> SessionSeq {
        self.seq
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut windows = self.sessions.windows.lock();
        if let Some(window) = windows.iter_mut().find(|w| w.id == self.seq.session) {
            window.in_use.remove(&self.seq.sequence);
        }
        drop(windows);
        self.sessions.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Incarnation;
    use std::collections::HashSet;

    fn id(index: u64) -> SessionId {
        SessionId { incarnation: Incarnation(0), index }
    }

    fn sessions(count: u64) -> Arc<Sessions> {
        let sessions = Arc::new(Sessions::default());
        (0..count).for_each(|i| sessions.opened(id(i)));
        sessions
    }

    #[test]
    fn a_sequence_is_never_handed_out_twice() {
        let sessions = sessions(2);
        let mut seen = HashSet::new();
        let mut held = vec![];
        for i in 0..5_000 {
            let Some(turn) = sessions.take() else {
                held.clear();
                continue;
            };
            assert!(turn.seq().sequence >= 1);
            assert!(seen.insert(turn.seq()), "{:?}", turn.seq());
            if i % 3 == 0 {
                held.push(turn);
            }
        }
        assert!(seen.len() > 4_000);
    }

    #[test]
    fn the_oldest_in_use_bounds_the_span_and_a_further_session_takes_over() {
        let sessions = sessions(1);
        let oldest = sessions.take().unwrap();
        for _ in 1..SPAN_MAX {
            drop(sessions.take().unwrap());
        }
        assert!(sessions.take().is_none(), "all others are given back, the oldest is not");
        sessions.opened(id(7));
        assert_eq!(sessions.take().unwrap().seq(), SessionSeq { session: id(7), sequence: 1 });
        drop(oldest);
        let next = sessions.take().unwrap().seq();
        assert_eq!(next, SessionSeq { session: id(0), sequence: SPAN_MAX + 1 });
    }

    #[test]
    fn sessions_of_a_shard_are_bounded_and_expired_ones_make_room() {
        let sessions = sessions(SESSIONS_PER_SHARD_MAX as u64);
        assert!(!sessions.may_open());
        let turn = sessions.take().unwrap();
        sessions.expired(turn.seq().session);
        assert!(sessions.may_open());
        let seq = turn.seq();
        drop(turn);
        assert_ne!(sessions.take().unwrap().seq().session, seq.session);
    }

    #[tokio::test]
    async fn those_who_wait_for_room_are_all_woken() {
        let sessions = sessions(1);
        let held: Vec<Turn> = std::iter::from_fn(|| sessions.take()).collect();
        assert_eq!(held.len() as u64, SPAN_MAX);
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let sessions = sessions.clone();
                tokio::spawn(async move {
                    loop {
                        match sessions.take() {
                            Some(turn) => return std::mem::forget(turn),
                            None => sessions.room().await,
                        }
                    }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(held);
        for task in waiting {
            tokio::time::timeout(std::time::Duration::from_secs(5), task).await.unwrap().unwrap();
        }
    }
}
