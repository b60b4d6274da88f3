//! The library's state machine over a store and a piece of logic.
//!
//! Applying makes an entry visible at once and durable later: the log holds it until the table does. What
//! this returns as an error stops the group, so it returns only what must.

use super::encoding::MembershipRecord;
use super::holds::Hold;
use super::shared::Shared;
use super::snapshot::{self, SnapshotData};
use super::types::{
    Entry, LogId, Replies, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, log_id, pos,
};
use super::{Effect, Logic};
use crate::faults::{self, Point};
use crate::storage::{self, Applied};
use crate::types::LogPos;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries applied before other tasks of the runtime get a turn.
const APPLY_RUN: usize = 64;
/// How long a digest entry waits for the flush before it. Beyond that the digest is given up, not the group.
const FREEZE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Until an applier that waits for room in the overlay looks again.
const ROOM_LOOK: Duration = Duration::from_millis(100);

/// See the module.
pub struct Machine {
    shared: Arc<Shared>,
    /// In a mutex only because the library wants to share references between threads; nobody else locks it.
    logic: Mutex<Box<dyn Logic>>,
    applied: Option<LogPos>,
    membership: MembershipRecord,
    /// `membership`, encoded.
    membership_bytes: bytes::Bytes,
}

fn stop(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

impl Machine {
    /// Loads the logic from the store.
    pub fn open(shared: Arc<Shared>, logic: Box<dyn Logic>) -> io::Result<Self> {
        let mut machine = Self {
            shared,
            logic: Mutex::new(logic),
            applied: None,
            membership: MembershipRecord::default(),
            membership_bytes: bytes::Bytes::new(),
        };
        machine.load()?;
        Ok(machine)
    }

    fn load(&mut self) -> io::Result<()> {
        let applied = self.shared.store.applied();
        let logic = self.logic.get_mut();
        let loaded = self.shared.store.read(|view| logic.load(view)).and_then(|loaded| loaded);
        loaded.map_err(|e| stop("loading the state", e))?;
        self.membership =
            MembershipRecord::decode(&applied.membership).map_err(|e| stop("membership", e))?;
        self.membership_bytes = applied.membership;
        self.applied = applied.pos;
        Ok(())
    }

    /// Applies one entry and makes it visible.
    fn apply_one(&mut self, entry: Entry) -> io::Result<Effect> {
        let at = pos(&entry.log_id);
        let expected = self.applied.map_or(0, |applied| applied.index + 1);
        if at.index != expected {
            return Err(stop("applying", format!("entry {} where {expected} should be", at.index)));
        }
        if let EntryPayload::Membership(membership) = &entry.payload {
            if membership.get_joint_config().len() > 1 {
                faults::at(Point::JointApply);
            }
            self.membership = self.membership.next(at, membership);
            self.membership_bytes = self.membership.encode();
        }
        let mut writer = self.shared.store.write();
        let effect = match &entry.payload {
            EntryPayload::Normal(payload) => {
                let applied = self.logic.get_mut().apply(at, &payload.0, &mut writer);
                applied.map_err(|e: storage::Error| {
                    self.shared.doubt("applying", &e);
                    stop(&format!("applying entry {}", at.index), e)
                })?
            }
            EntryPayload::Blank | EntryPayload::Membership(_) => Effect::default(),
        };
        if effect.digest {
            self.shared.digests.expect(at.index);
        }
        writer.commit(Applied { pos: Some(at), membership: self.membership_bytes.clone() });
        self.applied = Some(at);
        if self.membership.pos == Some(at) {
            self.shared.membership_applied(self.membership.clone());
        }
        self.shared.flush.dirty();
        self.shared.applied.send_replace(Some(at.index));
        Ok(effect)
    }

    /// Freezes the overlay exactly here, before anything else is applied.
    async fn freeze_for_digest(&self) {
        let Some(at) = self.applied else { return };
        if faults::pass(Point::DigestFreeze).is_err() {
            return self.shared.digests.put(at.index, Err(crate::types::Code::Overloaded));
        }
        let shared = Arc::clone(&self.shared);
        let freeze = move || shared.flush.freeze_for_digest(&shared.store, at, FREEZE_WAIT_MAX);
        // The overlay before this one may wait for its flush.
        self.shared.flusher.wake();
        if !tokio::task::spawn_blocking(freeze).await.unwrap_or(false) {
            self.shared.digests.put(at.index, Err(crate::types::Code::Overloaded));
        }
        self.shared.flusher.wake();
    }

    /// Waits while the overlays are at their bound.
    async fn room(&self) {
        let store = &self.shared.store;
        if store.flush_due() || store.overlay_bytes() >= self.shared.peers.options.flush_bytes {
            self.shared.flusher.wake();
        }
        while store.overlay_full() && self.shared.failure().is_none() {
            let flushed = self.shared.flush.flushed.notified();
            drop(tokio::time::timeout(ROOM_LOOK, flushed).await);
        }
    }

    /// What the table holds durably, as a snapshot that nobody has copied yet.
    fn flushed_meta(&self) -> io::Result<Option<SnapshotMeta>> {
        let Some(flushed) = self.shared.store.flushed() else { return Ok(None) };
        let membership = self.shared.membership_at(flushed).to_raft()?;
        Ok(Some(SnapshotMeta { last_log_id: Some(log_id(flushed)), last_membership: membership }))
    }

    /// What a snapshot that is sent now will be at least: the file that is there, or what a copy made now
    /// would hold. While starting, the library asks for what it may rely on, which is the table.
    fn sendable_meta(&self) -> io::Result<Option<SnapshotMeta>> {
        let shared = &self.shared;
        let staged = shared.raft().and_then(|_| shared.outgoing.offer(shared.purged_index()));
        staged.map_or_else(|| self.flushed_meta(), |meta| meta.to_raft().map(Some))
    }

    fn hold(&self, meta: &SnapshotMeta) -> Option<Hold> {
        // While starting, the library asks for the snapshot only to know its position.
        self.shared.raft()?;
        meta.last_log_id.map(|id| self.shared.holds.hold(id.index))
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied.map(log_id), self.membership.to_raft()?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut run = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            if run == 0 {
                self.shared.log.stages().applying(entry.log_id.index, Instant::now());
            }
            let effect = self.apply_one(entry)?;
            if let Some(responder) = responder {
                responder.send(Replies(effect.replies));
            }
            if effect.digest {
                self.freeze_for_digest().await;
            }
            run += 1;
            if run % APPLY_RUN == 0 {
                self.room().await;
                tokio::task::yield_now().await;
            }
        }
        self.room().await;
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // Taken here, between two batches of entries: the library must not hear of a position that it
        // does not know as applied.
        Builder { meta: self.flushed_meta() }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let SnapshotData::Received(file) = data else {
            return Err(stop("installing a snapshot", "it was not received"));
        };
        let wanted = meta.last_log_id.as_ref().map(pos);
        // What was submitted to the log before (a truncation of a tail that contradicts the snapshot) must
        // not be lost when the snapshot is not.
        self.shared.log.barrier().await?;
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let installed = install(&shared, wanted, file.path());
            installed.inspect_err(|e| shared.doubt("installing a snapshot", e))
        };
        let joined = tokio::task::spawn_blocking(work).await;
        let installed = joined.map_err(|e| stop("installing a snapshot", e))?;
        let applied = installed.map_err(|e| stop("installing a snapshot", e))?;
        if applied.pos != wanted {
            let text = format!("it reflects {:?}, announced was {wanted:?}", applied.pos);
            return Err(stop("installing a snapshot", text));
        }
        self.load()?;
        self.shared.membership_replaced(self.membership.clone());
        self.shared.applied.send_replace(applied.pos.map(|p| p.index));
        // Only now: who waits for a digest is woken by this, and goes by what is applied.
        self.shared.digests.forget_pending();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some(meta) = self.sendable_meta()? else { return Ok(None) };
        let snapshot = SnapshotData::Table { hold: self.hold(&meta) };
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

/// Puts a table that was received in the place of the one that is there, noted before. Blocks.
fn install(
    shared: &Shared,
    wanted: Option<LogPos>,
    file: &std::path::Path,
) -> Result<Applied, storage::Error> {
    let at_mark = |error| storage::Error::Io { what: "noting an installation".into(), error };
    snapshot::mark_install(&shared.dir, wanted).map_err(at_mark)?;
    shared.set_installed(wanted.map_or(0, |pos| pos.index));
    let installed = shared.flush.exclusively(|| shared.store.install(file))?;
    faults::pass(Point::Installed)?;
    Ok(installed)
}

/// Builds the snapshot that costs nothing: it names what the table holds. The file is made only when it
/// is sent.
pub struct Builder {
    meta: io::Result<Option<SnapshotMeta>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let meta = std::mem::replace(&mut self.meta, Ok(None))?.unwrap_or_default();
        Ok(Snapshot { meta, snapshot: SnapshotData::Table { hold: None } })
    }
}
