//! When a copy's overlay is written to its table, and how far its log may be purged afterwards. One
//! thread serves all groups of a host, so that a node writes one table at a time.
//!
//! A frozen overlay is written only after the log is durable to its position. The log is purged only up
//! to what the table holds durably, through the library, which would otherwise not know.

use super::Options;
use super::shared::Shared;
use super::{background, compact, purge};
use crate::faults::{self, Point};
use crate::storage::{self, FLUSH_SHARE_DUE, Store};
use crate::types::LogPos;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The thread looks at every group at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Until the next look while a group waits for its log to become durable.
const DURABLE_LOOK: Duration = Duration::from_millis(2);
/// Age at which a copy is flushed that keeps old parts of a log that is too large.
const PRESSED_MS: u64 = 1_000;
/// Until the next attempt after the disk was full.
const NO_SPACE_WAIT: Duration = Duration::from_secs(1);
/// Copies that are written alike become due one after the other, on one node and over all of them: each by up to so much
/// earlier than it might, drawn by chance once.
const EARLIER_MAX: usize = FLUSH_SHARE_DUE / 2;
/// While clients are served, the next copy is flushed only after a rest of so many times as long as the last flush took:
/// a dozen copies that became due together, on every node at the same time, would else be felt as one long stall.
const REST_TIMES: u32 = 6;
/// The longest such rest.
const REST_MAX: Duration = Duration::from_millis(250);
/// How often it is looked whether somebody waits for the next flush.
const REST_LOOK: Duration = Duration::from_millis(5);
/// What the overlay of a copy may have of the size at which a flush is due before there is no rest any more. Not much
/// more: LMDB keeps the memory of its largest flush.
const HURRY_SHARE: usize = FLUSH_SHARE_DUE * 5 / 4;
/// How long a shutdown waits for the last flush of a group.
const LAST_FLUSH_MAX: Duration = Duration::from_secs(30);

/// What flushing one copy remembers.
pub struct FlushState {
    /// What is due by size or age is due so much earlier, in parts of `FLUSH_SHARE_DUE`.
    earlier: usize,
    /// The frozen overlay, and whether a digest was asked for exactly there. Everybody who freezes holds
    /// this lock while doing so; only the flusher and an install empty it.
    frozen: Mutex<Option<Frozen>>,
    thawed: Condvar,
    /// Appliers that wait for the flush of what is frozen, to freeze again.
    thaw_waits: AtomicU32,
    /// Wakes an applier that waits for room, and a shutdown that waits for the end.
    pub flushed: Notify,
    dirty_since: Mutex<Option<Instant>>,
    not_before: Mutex<Option<Instant>>,
    wanted: AtomicBool,
    pub purging: AtomicBool,
}

impl Default for FlushState {
    fn default() -> Self {
        Self {
            earlier: rand::random_range(0..=EARLIER_MAX),
            frozen: Mutex::default(),
            thawed: Condvar::new(),
            thaw_waits: AtomicU32::new(0),
            flushed: Notify::new(),
            dirty_since: Mutex::default(),
            not_before: Mutex::default(),
            wanted: AtomicBool::new(false),
            purging: AtomicBool::new(false),
        }
    }
}

#[derive(Clone, Copy)]
struct Frozen {
    pos: LogPos,
    digest: bool,
}

impl FlushState {
    /// An entry was applied.
    pub fn dirty(&self) {
        let mut since = self.dirty_since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
        }
    }

    /// Whether somebody waits for a flush of this copy, or soon will.
    fn hurries(&self, store: &Store) -> bool {
        let digest = self.frozen.try_lock().is_some_and(|frozen| frozen.is_some_and(|f| f.digest));
        let waits = self.thaw_waits.load(Ordering::Acquire) > 0;
        digest || waits || self.wanted.load(Ordering::Acquire) || store.flush_share() >= HURRY_SHARE
    }

    /// Freezes exactly at `pos`, which is what is applied, for a digest. Waits for an earlier overlay.
    /// Blocks; false if that takes longer than `wait_max`.
    pub fn freeze_for_digest(&self, store: &Store, pos: LogPos, wait_max: Duration) -> bool {
        let deadline = Instant::now() + wait_max;
        let mut frozen = self.frozen.lock();
        while frozen.is_some() {
            self.thaw_waits.fetch_add(1, Ordering::AcqRel);
            let waited = self.thawed.wait_until(&mut frozen, deadline);
            self.thaw_waits.fetch_sub(1, Ordering::AcqRel);
            if waited.timed_out() && frozen.is_some() {
                return false;
            }
        }
        store.freeze();
        *frozen = Some(Frozen { pos, digest: true });
        *self.dirty_since.lock() = None;
        true
    }

    /// Replaces the store's content while nothing is flushed, and forgets what was frozen.
    pub fn exclusively<R>(&self, replace: impl FnOnce() -> R) -> R {
        let mut frozen = self.frozen.lock();
        let result = replace();
        *frozen = None;
        *self.dirty_since.lock() = None;
        self.thawed.notify_all();
        result
    }
}

/// Whether the active overlay is to be frozen now.
fn due(
    age: Option<Duration>,
    overlay_bytes: usize,
    share: usize,
    wanted: bool,
    earlier: usize,
    options: &Options,
) -> bool {
    let Some(age) = age else { return wanted };
    let parts = FLUSH_SHARE_DUE - earlier;
    wanted
        || share >= parts
        || overlay_bytes >= options.flush_bytes * parts / FLUSH_SHARE_DUE
        || age.as_millis() >= u128::from(options.flush_ms) * parts as u128 / FLUSH_SHARE_DUE as u128
}

/// The thread and what it looks after. Clones share it.
#[derive(Clone)]
pub struct Flusher {
    inner: Arc<Inner>,
}

struct Inner {
    groups: Mutex<Vec<Weak<Shared>>>,
    signal: Mutex<bool>,
    woken: Condvar,
    stop: AtomicBool,
}

/// What became of one look at a group.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Idle,
    Flushed,
    /// The log is not yet durable to the frozen position.
    NotDurable,
}

impl Flusher {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            groups: Mutex::default(),
            signal: Mutex::new(false),
            woken: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let flusher = Self { inner };
        let weak = Arc::downgrade(&flusher.inner);
        background::spawn_low("flush", move || run(&weak))?;
        Ok(flusher)
    }

    /// Looks after a copy from now on, until its last handle is gone.
    pub fn add(&self, shared: &Arc<Shared>) {
        let mut groups = self.inner.groups.lock();
        groups.retain(|group| group.strong_count() > 0);
        groups.push(Arc::downgrade(shared));
    }

    /// Copies looked after.
    pub fn groups(&self) -> u64 {
        self.inner.groups.lock().len() as u64
    }

    /// Asks for a look at the groups now.
    pub fn wake(&self) {
        *self.inner.signal.lock() = true;
        self.inner.woken.notify_one();
    }

    /// Flushes what a copy has applied and resolves when that is done (bounded); false if it was not.
    pub async fn flush_all(&self, shared: &Arc<Shared>) -> bool {
        let target = shared.store.applied().pos;
        let done = async {
            loop {
                let flushed = shared.flush.flushed.notified();
                tokio::pin!(flushed);
                flushed.as_mut().enable();
                if shared.store.flushed() == target {
                    return;
                }
                shared.flush.wanted.store(true, Ordering::Release);
                self.wake();
                flushed.await;
            }
        };
        tokio::time::timeout(LAST_FLUSH_MAX, done).await.is_ok()
    }

    /// Ends the thread after its current flush.
    pub fn stop(&self) {
        self.inner.stop.store(true, Ordering::Release);
        self.wake();
    }
}

impl Inner {
    /// Whether a flush of some copy is waited for, or the log needs one to get smaller.
    fn is_hurried(&self) -> bool {
        // How many there are is asked for below.
        let groups = self.groups.lock().clone();
        let hurries =
            |shared: Arc<Shared>| shared.flush.hurries(&shared.store) || purge::pressed(&shared);
        groups.iter().filter_map(Weak::upgrade).any(hurries)
    }

    /// True when it is time to stop.
    fn rest(&self, at_most: Duration) -> bool {
        let mut signal = self.signal.lock();
        if !*signal {
            self.woken.wait_for(&mut signal, at_most);
        }
        *signal = false;
        self.stop.load(Ordering::Acquire)
    }
}

fn run(weak: &Weak<Inner>) {
    let mut wait = LOOK_EVERY;
    while let Some(inner) = weak.upgrade() {
        if inner.rest(wait) {
            return;
        }
        let groups = inner.groups.lock().clone();
        drop(inner);
        wait = LOOK_EVERY;
        for shared in groups.iter().filter_map(Weak::upgrade) {
            let began = Instant::now();
            let looked = look(&shared, began);
            let rests = matches!(looked, Ok(Outcome::Flushed)) && shared.peers.makes_way();
            match looked {
                Ok(Outcome::NotDurable) => wait = DURABLE_LOOK,
                Ok(_) => {}
                Err(error) => failed(&shared, &error),
            }
            let round = Duration::from_millis(shared.peers.options.flush_ms);
            // Whoever closes a copy waits until nobody holds it.
            drop(shared);
            if rests {
                rest(weak, rest_for(began.elapsed(), round, groups.len()));
            }
        }
    }
}

/// After a flush that took so long. All copies together are rested for no longer than a flush may be put off.
fn rest_for(took: Duration, round: Duration, copies: usize) -> Duration {
    (took * REST_TIMES).min(REST_MAX).min(round / copies.max(1) as u32)
}

/// Leaves the disk and the processor to others for a time, but not while somebody waits for a flush.
fn rest(weak: &Weak<Inner>, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        let Some(inner) = weak.upgrade() else { return };
        if inner.stop.load(Ordering::Acquire) || inner.is_hurried() {
            return;
        }
        drop(inner);
        std::thread::sleep(REST_LOOK);
    }
}

fn failed(shared: &Arc<Shared>, error: &storage::Error) {
    match error {
        storage::Error::NoSpace(_) => {
            tracing::error!(group = %shared.group, %error, "a flush waits for space");
            *shared.flush.not_before.lock() = Some(Instant::now() + NO_SPACE_WAIT);
        }
        // What is applied cannot be made durable, or what is stored cannot be trusted.
        _ => {
            shared.doubt("a flush", error);
            shared.stop(format!("flush: {error}"));
        }
    }
}

/// One look at one group: freezes if it is due, flushes if something is frozen and the log allows it.
fn look(shared: &Arc<Shared>, now: Instant) -> Result<Outcome, storage::Error> {
    let state = &shared.flush;
    if shared.failure().is_some() || state.not_before.lock().is_some_and(|at| now < at) {
        return Ok(Outcome::Idle);
    }
    // Held to the end: neither a digest's freeze nor an install may come in between.
    let mut slot = state.frozen.lock();
    if slot.is_none() {
        *slot = freeze(shared, now);
    }
    let Some(frozen) = *slot else {
        drop(slot);
        purge::consider(shared, now);
        compact::consider(shared, now);
        return Ok(Outcome::Idle);
    };
    if !shared.log.is_durable(frozen.pos.index) {
        return Ok(Outcome::NotDurable);
    }
    faults::pass(Point::FlushFrozen)?;
    shared.store.flush_frozen()?;
    faults::pass(Point::FlushWritten)?;
    if frozen.digest {
        // Opened before anything else can be flushed, so that it sees exactly this position.
        let peers = Arc::clone(&shared.peers);
        let makes_way = move || peers.makes_way();
        shared.digests.compute(frozen.pos, shared.store.digest_reader(), makes_way);
    }
    *slot = None;
    drop(slot);
    *state.not_before.lock() = None;
    state.thawed.notify_all();
    state.flushed.notify_waiters();
    purge::consider(shared, now);
    Ok(Outcome::Flushed)
}

fn freeze(shared: &Shared, now: Instant) -> Option<Frozen> {
    let state = &shared.flush;
    let age = state.dirty_since.lock().map(|since| now.saturating_duration_since(since));
    let wanted = state.wanted.swap(false, Ordering::AcqRel);
    let (bytes, share) = (shared.store.overlay_bytes(), shared.store.flush_share());
    let old = age.is_some_and(|age| age >= Duration::from_millis(PRESSED_MS));
    let wanted = wanted || (old && purge::pressed(shared));
    if !due(age, bytes, share, wanted, state.earlier, &shared.peers.options) {
        return None;
    }
    // Before the freeze: an entry applied right after it must not be forgotten.
    *state.dirty_since.lock() = None;
    let pos = shared.store.freeze()?;
    Some(Frozen { pos, digest: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_are_due_by_bytes_by_age_and_on_demand() {
        let options = Options { flush_bytes: 25_600, flush_ms: 1000, ..Options::default() };
        let age = |ms| Some(Duration::from_millis(ms));
        let due = |age, bytes, share, wanted| due(age, bytes, share, wanted, 0, &options);
        assert!(!due(age(0), 25_599, FLUSH_SHARE_DUE - 1, false));
        assert!(due(age(0), 25_600, 0, false));
        assert!(due(age(0), 0, FLUSH_SHARE_DUE, false));
        assert!(!due(age(999), 0, 0, false));
        assert!(due(age(1000), 0, 0, false));
        assert!(due(age(0), 0, 0, true));
        assert!(!due(None, 25_600, FLUSH_SHARE_DUE, false));
        // Half as much, or half as old, for the one that is first.
        let first = |age, bytes, share| super::due(age, bytes, share, false, EARLIER_MAX, &options);
        assert!(first(age(0), 12_800, 0) && !first(age(0), 12_799, 0));
        assert!(first(age(500), 0, 0) && !first(age(499), 0, 0));
        assert!(
            first(age(0), 0, FLUSH_SHARE_DUE / 2) && !first(age(0), 0, FLUSH_SHARE_DUE / 2 - 1)
        );
        assert!((0..64).all(|_| FlushState::default().earlier <= EARLIER_MAX));
    }

    #[test]
    fn rests_are_short_and_shorter_where_there_are_many_copies() {
        let (ms, round) = (Duration::from_millis, Duration::from_secs(10));
        assert_eq!(rest_for(ms(20), round, 12), ms(120));
        assert_eq!(rest_for(ms(200), round, 12), REST_MAX);
        assert_eq!(rest_for(ms(200), round, 1_000), ms(10));
    }

    #[test]
    fn there_is_no_rest_while_somebody_waits_for_a_flush_or_soon_will() {
        use crate::storage::{Applied, OVERLAY_BYTES_FLUSH, Space};
        let (state, store) = (FlushState::default(), Store::in_memory(storage::Options::default()));
        let write = |index: u64, bytes: usize| {
            let mut writer = store.write();
            writer.put(Space::Data, &index.to_be_bytes(), vec![1; bytes].into());
            let pos = LogPos { term: 1, leader: 1, index };
            writer.commit(Applied { pos: Some(pos), ..Applied::default() });
            pos
        };
        let pos = write(1, OVERLAY_BYTES_FLUSH);
        assert!(!state.hurries(&store));
        state.wanted.store(true, Ordering::Release);
        assert!(state.hurries(&store));
        state.wanted.store(false, Ordering::Release);
        assert!(state.freeze_for_digest(&store, pos, Duration::ZERO));
        assert!(state.hurries(&store));
        state.exclusively(|| store.flush_frozen()).unwrap();
        assert!(!state.hurries(&store));
        let pos = write(2, OVERLAY_BYTES_FLUSH * 5 / 4);
        assert!(state.hurries(&store), "it has grown past what is due");
        store.freeze();
        store.flush_frozen().unwrap();
        assert!(!state.hurries(&store));
        // An applier that wants to freeze waits for an overlay that is frozen already.
        let (state, waiting) = (Arc::new(state), store.clone());
        *state.frozen.lock() = Some(Frozen { pos, digest: false });
        let applier = state.clone();
        let thread = std::thread::spawn(move || {
            applier.freeze_for_digest(&waiting, pos, Duration::from_secs(60))
        });
        while state.thaw_waits.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        assert!(state.hurries(&store));
        state.exclusively(|| ());
        assert!(thread.join().unwrap());
        assert_eq!(state.thaw_waits.load(Ordering::Acquire), 0);
    }
}
