//! Log that must stay because a snapshot is on its way: the receiver continues where the snapshot ends,
//! and if that is purged meanwhile the snapshot was for nothing.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the log stays after a snapshot was sent, or the transfer was cut off: the time the receiver has
/// to fetch what follows, or to come back for the rest.
const LINGER: Duration = Duration::from_secs(30);

/// See the module. Clones share the state.
#[derive(Clone, Default)]
pub struct Holds {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Index up to which may be purged, and when that ends to matter.
    held: BTreeMap<u64, (u64, Option<Instant>)>,
}

/// While it lives the log after its index stays.
pub struct Hold {
    id: u64,
    index: u64,
    state: Arc<Mutex<State>>,
}

impl Holds {
    /// Keeps everything after `index`.
    pub fn hold(&self, index: u64) -> Hold {
        let mut state = self.state.lock();
        let id = state.next;
        state.next += 1;
        state.held.insert(id, (index, None));
        Hold { id, index, state: Arc::clone(&self.state) }
    }

    /// Index up to which may be purged, if that is limited.
    pub fn limit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        state.held.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        state.held.values().map(|(index, _)| *index).min()
    }
}

impl Hold {
    /// From here on it runs out by itself, a while after now; dropping it does not end it earlier. May be
    /// repeated to put off the end.
    pub fn linger(&self, now: Instant) {
        let mut state = self.state.lock();
        let index = self.index;
        state.held.insert(self.id, (index, Some(now + LINGER)));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.held.get(&self.id).is_some_and(|(_, until)| until.is_none()) {
            state.held.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_hold_counts_until_it_is_over() {
        let (holds, now) = (Holds::default(), Instant::now());
        assert_eq!(holds.limit(now), None);
        let (a, b, c) = (holds.hold(10), holds.hold(7), holds.hold(5));
        assert_eq!(holds.limit(now), Some(5));
        // It never arrived: nobody will continue from there.
        drop(c);
        assert_eq!(holds.limit(now), Some(7));
        b.linger(now);
        assert_eq!(holds.limit(now), Some(7));
        assert_eq!(holds.limit(now + LINGER), Some(10));
        // Put off, also after it had run out.
        b.linger(now + LINGER);
        drop(b);
        assert_eq!(holds.limit(now + LINGER), Some(7));
        assert_eq!(holds.limit(now + 2 * LINGER), Some(10));
        drop(a);
        assert_eq!(holds.limit(now), None);
    }
}
