//! The store of one copy: overlays in memory over a table, readers beside one applier and one flusher.
//!
//! Lock order: `flush`, `slot`, `state`, `marks`. The table is written without any of the last three, so
//! that neither reads nor the applier wait for a disk; it is read under `state` only by `read`.

use super::digest::{Digest, DigestReader};
use super::lmdb::LmdbTable;
use super::memory::MemoryTable;
use super::overlay::{Overlay, Size, find, merged_scan};
use super::table::{Compacted, Replacement, Snapshot, Table, Visit};
use super::{
    Applied, Error, FLUSH_SHARE_DUE, OVERLAY_BYTES_FLUSH, OVERLAY_BYTES_MAX, OVERLAY_RECORDS_FLUSH,
    OVERLAY_RECORDS_MAX, Options, STORED_KEY_BYTES_MAX, Space, View,
};
use crate::types::LogPos;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};
use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A copy's state machine storage. A cheap handle; clones share the state.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: RwLock<State>,
    marks: Mutex<Marks>,
    /// Whether there is a frozen overlay; `thawed` tells that there is none any more.
    slot: Mutex<bool>,
    thawed: Condvar,
    /// Held by whoever writes or replaces the table; the settings are for the latter.
    flush: Mutex<Options>,
    /// A `Writer` exists.
    writing: AtomicBool,
}

/// What a read has to see as one.
struct State {
    active: Overlay,
    frozen: Option<Arc<Frozen>>,
    table: Arc<dyn Table>,
    /// Counts what left the overlays for the table, or came with another table. A snapshot of the table
    /// taken at the same count completes the overlays.
    moves: u64,
}

struct Frozen {
    overlay: Overlay,
    applied: Applied,
}

/// What is asked often, also from inside of a `read`; so it has a lock of its own.
#[derive(Default)]
struct Marks {
    applied: Applied,
    flushed: Applied,
    active: Size,
    frozen: Size,
}

impl State {
    fn frozen(&self) -> Option<&Overlay> {
        self.frozen.as_deref().map(|frozen| &frozen.overlay)
    }

    fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        std::iter::once(&self.active).chain(self.frozen())
    }
}

impl Store {
    /// Opens the store in `dir`, or creates it (with the folder). The folder belongs to one store of one
    /// process; it must be on a local file system.
    pub fn open(dir: &Path, options: Options) -> Result<Self, Error> {
        Self::over(Arc::new(LmdbTable::open(dir, &options)?), options)
    }

    /// The in-memory twin, for unit tests and simulation. It has no durability: what is flushed lives as
    /// long as the last handle.
    pub fn in_memory(options: Options) -> Self {
        let table: Arc<dyn Table> = Arc::new(MemoryTable::new(&options));
        Self::with(table, Applied::default(), options)
    }

    /// A store over a table that may already hold something.
    pub(super) fn over(table: Arc<dyn Table>, options: Options) -> Result<Self, Error> {
        let applied = table.snapshot()?.applied()?;
        Ok(Self::with(table, applied, options))
    }

    fn with(table: Arc<dyn Table>, applied: Applied, options: Options) -> Self {
        let marks = Marks { applied: applied.clone(), flushed: applied, ..Marks::default() };
        let state = State { active: Overlay::default(), frozen: None, table, moves: 0 };
        Self {
            inner: Arc::new(Inner {
                state: RwLock::new(state),
                marks: Mutex::new(marks),
                slot: Mutex::new(false),
                thawed: Condvar::new(),
                flush: Mutex::new(options),
                writing: AtomicBool::new(false),
            }),
        }
    }

    /// What is applied and visible, overlay included.
    pub fn applied(&self) -> Applied {
        self.inner.marks.lock().applied.clone()
    }

    /// The position in `applied`, for where that is all that counts.
    pub fn applied_pos(&self) -> Option<LogPos> {
        self.inner.marks.lock().applied.pos
    }

    /// What the table holds durably.
    pub fn flushed(&self) -> Option<LogPos> {
        self.inner.marks.lock().flushed.pos
    }

    /// Bytes held in the overlays (active and frozen), overhead included.
    pub fn overlay_bytes(&self) -> usize {
        let marks = self.inner.marks.lock();
        (marks.active + marks.frozen).bytes
    }

    /// Whether the active overlay has reached the size at which it should be frozen and flushed.
    pub fn flush_due(&self) -> bool {
        self.flush_share() >= FLUSH_SHARE_DUE
    }

    /// How much of that size the active overlay has, in parts of `FLUSH_SHARE_DUE`; more where it is larger.
    pub fn flush_share(&self) -> usize {
        let active = self.inner.marks.lock().active;
        let bytes = active.bytes * FLUSH_SHARE_DUE / OVERLAY_BYTES_FLUSH;
        bytes.max(active.records * FLUSH_SHARE_DUE / OVERLAY_RECORDS_FLUSH)
    }

    /// Whether the overlays have reached the size at which the applier has to wait for a flush. The store
    /// does not refuse: entries that are committed have to be applied somewhere.
    pub fn overlay_full(&self) -> bool {
        let marks = self.inner.marks.lock();
        let both = marks.active + marks.frozen;
        both.bytes >= OVERLAY_BYTES_MAX || both.records >= OVERLAY_RECORDS_MAX
    }

    /// How much of the room for the overlays is taken, in percent; 100 is `overlay_full`.
    pub fn overlay_percent(&self) -> u32 {
        let marks = self.inner.marks.lock();
        let both = marks.active + marks.frozen;
        let bytes = both.bytes * 100 / OVERLAY_BYTES_MAX;
        bytes.max(both.records * 100 / OVERLAY_RECORDS_MAX).min(100) as u32
    }

    /// Bytes that the table occupies on disk.
    pub fn table_bytes(&self) -> u64 {
        self.table().disk_bytes()
    }

    /// Keys in `Space::Data`, cheaply: the table's count and the overlays'. Keys that are overwritten or
    /// deleted in an overlay count twice until they are flushed; 0 for a table that cannot be read.
    pub fn keys_estimate(&self) -> u64 {
        let in_table = self.table().records(Space::Data).unwrap_or(0);
        let marks = self.inner.marks.lock();
        in_table + (marks.active + marks.frozen).data_records as u64
    }

    /// The value of a key at an instant between call and return. About a microsecond, and it delays nobody.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let table = {
            let state = self.inner.state.read();
            if let Some(found) = find(state.overlays(), space, key) {
                return Ok(found.cloned());
            }
            Arc::clone(&state.table)
        };
        // Whatever leaves the overlays from here on is in the table before it does.
        table.get(space, key)
    }

    /// Runs `f` over the state at one instant. `f` must be short (a page of a scan): it delays applying.
    /// It may ask `applied` and the other marks of the store, but must not read, write, freeze or flush it
    /// except through the view: a writer that waits would lock both out for ever.
    pub fn read<R>(&self, f: impl FnOnce(&dyn View) -> R) -> Result<R, Error> {
        // The overlays are pinned by the lock, the table's snapshot is taken after: a flush that ends in
        // between only doubles what the pinned overlays hold as well.
        let state = self.inner.state.read();
        let view = Pinned { state: &state, snapshot: OnceCell::new() };
        Ok(f(&view))
    }

    /// Starts the writes of one log entry. There is one writer at a time (the applier).
    pub fn write(&self) -> Writer<'_> {
        let second = self.inner.writing.swap(true, Ordering::Acquire);
        debug_assert!(!second, "a second writer");
        Writer { store: self, own: Overlay::default(), snapshot: RefCell::new(None) }
    }

    /// Makes the active overlay the frozen one, at exactly what is applied; waits until an earlier
    /// frozen overlay is flushed. Returns the position frozen, or none if there is nothing to flush.
    /// Blocks: not for async threads. Whoever froze must flush, and try again after `NoSpace`: until
    /// then the next one waits here. Where that can last, use `freeze_within`.
    pub fn freeze(&self) -> Option<LogPos> {
        let mut slot = self.inner.slot.lock();
        while *slot {
            self.inner.thawed.wait(&mut slot);
        }
        self.freeze_now(&mut slot)
    }

    /// As `freeze`, but gives up (none outside) if the earlier overlay is still frozen after `wait_max`.
    pub fn freeze_within(&self, wait_max: Duration) -> Option<Option<LogPos>> {
        let deadline = Instant::now() + wait_max;
        let mut slot = self.inner.slot.lock();
        while *slot {
            if self.inner.thawed.wait_until(&mut slot, deadline).timed_out() && *slot {
                return None;
            }
        }
        Some(self.freeze_now(&mut slot))
    }

    fn freeze_now(&self, slot: &mut bool) -> Option<LogPos> {
        let mut state = self.inner.state.write();
        let mut marks = self.inner.marks.lock();
        // An entry without writes moves the position too, and lets the log be purged.
        if state.active.is_empty() && marks.applied == marks.flushed {
            return None;
        }
        let (overlay, applied) = (std::mem::take(&mut state.active), marks.applied.clone());
        let pos = applied.pos;
        (marks.frozen, marks.active) = (marks.active, Size::default());
        state.frozen = Some(Arc::new(Frozen { overlay, applied }));
        *slot = true;
        pos
    }

    /// Writes the frozen overlay, sorted, in one transaction, and drops it. The caller has made sure that
    /// the log is durable to the frozen position. Blocks. A no-op without a frozen overlay. After an error
    /// the overlay stays frozen and visible, and the call can be repeated.
    pub fn flush_frozen(&self) -> Result<Option<LogPos>, Error> {
        let _flush = self.inner.flush.lock();
        let (table, frozen) = {
            let state = self.inner.state.read();
            let Some(frozen) = state.frozen.clone() else { return Ok(None) };
            (Arc::clone(&state.table), frozen)
        };
        table.write(&frozen.overlay, &frozen.applied)?;
        self.inner.thaw(|state, marks| {
            state.frozen = None;
            (marks.frozen, marks.flushed) = (Size::default(), frozen.applied.clone());
        });
        // The overlay itself goes with the last handle, here or in a reader, outside of the locks.
        Ok(frozen.applied.pos)
    }

    /// Scans the table (not the overlay) in one read transaction, with a call of `pause` after every slice
    /// of 1,024 records or 1 MiB. Blocks.
    pub fn digest(&self, pause: &mut dyn FnMut()) -> Result<Digest, Error> {
        self.digest_reader()?.scan(pause)
    }

    /// Fixes what the table holds at this moment, to be digested later while flushes go on.
    pub fn digest_reader(&self) -> Result<DigestReader, Error> {
        DigestReader::new(self.table().snapshot()?)
    }

    /// Copies the table (not the overlay) to `file`, which is not made durable. What the copy reflects is
    /// read from the copy. Blocks, but neither reads nor flushes. `NoSpace` and every other error leave no file.
    pub fn copy_to(&self, file: &Path) -> Result<Applied, Error> {
        self.table().copy_to(file)
    }

    /// Replaces everything by the table in `file` (moved into place, crash-safe: after a crash the old or
    /// the new table is opened, never a mixture). The overlays are dropped; readers that have begun go on with
    /// the old table. There must be no `Writer`. Blocks. After an `Io` error about the folder the switch may
    /// have been made without being durable: the node has to stop.
    pub fn install(&self, file: &Path) -> Result<Applied, Error> {
        let options = self.inner.flush.lock();
        let replacement = self.table().replace(file, &options)?;
        self.take_over(replacement, |state, marks, applied| {
            state.active = Overlay::default();
            state.frozen = None;
            *marks = Marks { applied: applied.clone(), flushed: applied, ..Marks::default() };
        })
    }

    /// Copies the table without its gaps into a new file and goes on with that one, crash-safe; the overlays
    /// stay. `options` may give the table a larger map. Needs room for both files. Blocks, and flushes with it.
    pub fn rebuild(&self, options: Options) -> Result<Applied, Error> {
        let mut kept = self.inner.flush.lock();
        let replacement = self.table().rebuild(&options)?;
        *kept = options;
        self.take_over(replacement, |_, _, _| ())
    }

    /// Bytes of the table on disk that hold nothing; they are used again, but not given back.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        self.table().free_bytes()
    }

    /// Copies the table without its gaps, proves that the copy holds the same, and goes on with that one, made
    /// the current one as `install` does; the overlays stay. False if there was a flush meanwhile: the copy is
    /// thrown away then. Reads, applying and flushes go on; only a flush at the very end waits for the swap.
    /// Needs room for both files. Blocks, for as long as copying and scanning the table twice takes.
    pub fn compact(&self) -> Result<bool, Error> {
        self.compact_with(|| ())
    }

    /// The same; `before_swap` is called where everything else may go on.
    pub(super) fn compact_with(&self, before_swap: impl FnOnce()) -> Result<bool, Error> {
        let table = self.table();
        let Some(Compacted { file, applied }) = table.compacted()? else { return Ok(false) };
        before_swap();
        let options = self.inner.flush.lock();
        let is_same = Arc::ptr_eq(&table, &self.table());
        if !is_same || self.inner.marks.lock().flushed.pos != applied.pos {
            drop(options);
            let _ = std::fs::remove_file(file);
            return Ok(false);
        }
        let replaced = table.replace(&file, &options).inspect_err(|_| {
            let _ = std::fs::remove_file(&file);
        });
        self.take_over(replaced?, |_, _, _| ()).map(|_| true)
    }

    /// Deletes the store with its folder. Other handles must not be used any more, but do no harm: their
    /// files are gone. A crash in the middle leaves a folder that `sweep_removed` knows.
    pub fn destroy(self) -> Result<(), Error> {
        let _flush = self.inner.flush.lock();
        self.table().destroy()
    }

    pub(super) fn table(&self) -> Arc<dyn Table> {
        Arc::clone(&self.inner.state.read().table)
    }

    fn take_over(
        &self,
        replacement: Replacement,
        adopt: impl FnOnce(&mut State, &mut Marks, Applied),
    ) -> Result<Applied, Error> {
        let Replacement { table, applied, unsynced } = replacement;
        let mut old = table;
        self.inner.thaw(|state, marks| {
            std::mem::swap(&mut state.table, &mut old);
            adopt(state, marks, applied.clone());
        });
        match unsynced {
            Some(error) => Err(error),
            None => {
                old.retire();
                Ok(applied)
            }
        }
    }
}

impl Inner {
    /// Changes what is in the overlays and what is in the table at once, and wakes who waits for the frozen
    /// overlay to go.
    fn thaw(&self, change: impl FnOnce(&mut State, &mut Marks)) {
        let mut slot = self.slot.lock();
        let mut state = self.state.write();
        change(&mut state, &mut self.marks.lock());
        state.moves += 1;
        *slot = state.frozen.is_some();
        self.thawed.notify_all();
    }
}

/// The state of a store while its lock is held.
struct Pinned<'a> {
    state: &'a State,
    snapshot: OnceCell<Box<dyn Snapshot>>,
}

impl Pinned<'_> {
    /// Taken at the first need: what can leave the overlays meanwhile stays in them for this view.
    fn snapshot(&self) -> Result<&dyn Snapshot, Error> {
        if self.snapshot.get().is_none() {
            let _ = self.snapshot.set(self.state.table.snapshot()?);
        }
        match self.snapshot.get() {
            Some(snapshot) => Ok(&**snapshot),
            None => Err(Error::Lmdb("a snapshot was lost".into())),
        }
    }
}

impl View for Pinned<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match find(self.state.overlays(), space, key) {
            Some(found) => Ok(found.cloned()),
            None => self.snapshot()?.get(space, key),
        }
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let layers: Vec<&Overlay> = self.state.overlays().collect();
        merged_scan(&layers, self.snapshot()?, space, prefix, after, visit)
    }
}

/// Writes of one log entry; its own reads see them at once, other readers after `commit`.
pub struct Writer<'a> {
    store: &'a Store,
    own: Overlay,
    /// The table at a count of moves, kept for the length of the entry.
    snapshot: RefCell<Option<(u64, Box<dyn Snapshot>)>>,
}

impl Writer<'_> {
    /// Stores a value.
    ///
    /// # Panics
    /// If the key is empty or longer than `STORED_KEY_BYTES_MAX`. Requests are refused long before that;
    /// a record that can never be flushed must not get into the overlay.
    pub fn put(&mut self, space: Space, key: &[u8], value: Bytes) {
        // A slice of a larger buffer would keep all of it in memory, unseen by the overlay's bound.
        let value = if value.is_unique() { value } else { Bytes::copy_from_slice(&value) };
        self.set(space, key, Some(value));
    }

    /// Removes a key.
    ///
    /// # Panics
    /// As `put`.
    pub fn delete(&mut self, space: Space, key: &[u8]) {
        self.set(space, key, None);
    }

    fn set(&mut self, space: Space, key: &[u8], value: Option<Bytes>) {
        assert!((1..=STORED_KEY_BYTES_MAX).contains(&key.len()), "a key of {} bytes", key.len());
        self.own.set(space, key.into(), value);
    }

    /// Makes the writes visible together with how far the store has got. Dropping without it discards them.
    pub fn commit(mut self, applied: Applied) {
        let inner = &self.store.inner;
        let mut state = inner.state.write();
        state.active.absorb(std::mem::take(&mut self.own));
        let mut marks = inner.marks.lock();
        (marks.active, marks.applied) = (state.active.size(), applied);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.store.inner.writing.store(false, Ordering::Release);
    }
}

impl View for Writer<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if let Some(found) = self.own.get(space, key) {
            return Ok(found.cloned());
        }
        let (moves, table) = {
            let state = self.store.inner.state.read();
            if let Some(found) = find(state.overlays(), space, key) {
                return Ok(found.cloned());
            }
            (state.moves, Arc::clone(&state.table))
        };
        // A snapshot of before the last move lacks what moved, and the overlays lack it as well.
        let mut kept = self.snapshot.borrow_mut();
        if let Some((at, snapshot)) = &*kept
            && *at == moves
        {
            return snapshot.get(space, key);
        }
        let (_, snapshot) = kept.insert((moves, table.snapshot()?));
        snapshot.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let state = self.store.inner.state.read();
        let layers: Vec<&Overlay> = std::iter::once(&self.own).chain(state.overlays()).collect();
        let snapshot = state.table.snapshot()?;
        merged_scan(&layers, &*snapshot, space, prefix, after, visit)
    }
}
