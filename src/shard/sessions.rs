//! Retries that apply at most once: which sessions exist, and what their last requests answered.
//!
//! Everything is in `Space::Sessions`, written with the entry that changed it; the cache of session
//! records is rebuilt from there, results stay in the store. What is forgotten, and when, follows from
//! the entries alone, so every copy forgets the same.

mod stored;

use super::entry::Reply;
use crate::storage::{self, Space, View, Writer};
use crate::types::{Code, OpResult, SessionId, SessionSeq, limits};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use stored::{Kept, Session};

/// Bounds of the table. Part of the meaning of entries: a change needs a new entry version.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Sequences remembered, up to 65,536.
    pub window: u64,
    /// Shard time without use after which a session is forgotten.
    pub expiry_ms: u64,
    /// Sessions; for a new one the least recently used one is forgotten.
    pub sessions_max: usize,
    /// Bytes of a remembered result.
    pub result_bytes_max: usize,
    /// Records of expired sessions removed with one entry; one session is always removed whole.
    pub removals_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window: limits::SESSION_WINDOW,
            expiry_ms: limits::SESSION_EXPIRY_MS,
            sessions_max: limits::SESSIONS_MAX,
            result_bytes_max: limits::SESSION_RESULT_BYTES_MAX,
            removals_max: 256,
        }
    }
}

/// Where a use stands in the log: shard time and index of its entry.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Shard time.
    pub now_ms: u64,
    /// Log index.
    pub index: u64,
}

/// Whether a named request is to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not applied before: apply and remember it.
    Fresh,
    /// It was applied; this was the answer.
    Seen(Reply),
    /// It is not applied, for this reason.
    Refused(Code),
}

/// The sessions of a shard.
#[derive(Debug, Default)]
pub struct Sessions {
    limits: Limits,
    sessions: HashMap<SessionId, Session>,
    /// The same by last use, the oldest first. Shard time and index only grow, so this is also the order
    /// of expiry; sessions used by the same entry are ordered by id.
    by_use: BTreeSet<(u64, u64, SessionId)>,
    /// Changed by the entry that is being applied and not yet written.
    changed: BTreeSet<SessionId>,
}

impl Sessions {
    /// The sessions of a store.
    pub fn load(view: &dyn View, limits: Limits) -> Result<Self, storage::Error> {
        let mut table = Self { limits, ..Self::default() };
        let mut damage = None;
        view.scan(Space::Sessions, stored::SESSION_PREFIX, None, &mut |key, value| {
            let read =
                stored::parse_session_key(key).and_then(|id| Ok((id, Session::decode(value)?)));
            match read {
                Ok((id, session)) => table.insert(id, session),
                Err(error) => {
                    damage = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        damage.map_or(Ok(table), Err)
    }

    /// Number of sessions, expired ones that were not yet removed included.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Opens a session; the caller makes sure that the id is new.
    pub fn open(
        &mut self,
        writer: &mut Writer<'_>,
        id: SessionId,
        at: Moment,
    ) -> Result<(), storage::Error> {
        while self.len() >= self.limits.sessions_max
            && let Some((_, _, oldest)) = self.by_use.first().copied()
        {
            self.forget(writer, oldest)?;
        }
        self.insert(id, Session { used_ms: at.now_ms, used_index: at.index, high: 0 });
        self.changed.insert(id);
        Ok(())
    }

    /// Judges a named request. Naming a live session uses it, whatever the verdict.
    pub fn judge(
        &mut self,
        view: &dyn View,
        name: SessionSeq,
        at: Moment,
    ) -> Result<Verdict, storage::Error> {
        let SessionSeq { session: id, sequence } = name;
        let live = self.sessions.get(&id).filter(|session| !self.is_expired(session.used_ms, at));
        let Some(session) = live.copied() else {
            return Ok(Verdict::Refused(Code::SessionExpired));
        };
        let high = session.high.max(sequence);
        self.remove(id);
        self.insert(id, Session { used_ms: at.now_ms, used_index: at.index, high });
        self.changed.insert(id);

        if sequence == 0 {
            Ok(Verdict::Refused(Code::BadRequest))
        } else if sequence > session.high {
            Ok(Verdict::Fresh)
        } else if session.high - sequence >= self.limits.window {
            Ok(Verdict::Refused(Code::SequenceTooOld))
        } else {
            self.recall(view, name)
        }
    }

    /// Within the window a slot holds this sequence or an older one, or nothing.
    fn recall(&self, view: &dyn View, name: SessionSeq) -> Result<Verdict, storage::Error> {
        let key = stored::slot_key(name.session, name.sequence, self.limits.window);
        let Some(slot) = view.get(Space::Sessions, &key)? else { return Ok(Verdict::Fresh) };
        let (sequence, kept) = Kept::decode(&slot)?;
        if sequence != name.sequence {
            return Ok(Verdict::Fresh);
        }
        Ok(Verdict::Seen(kept.reply()?))
    }

    /// Remembers what a fresh request answered; `encoded` is `encode_results(results)`.
    pub fn remember(
        &self,
        writer: &mut Writer<'_>,
        name: SessionSeq,
        results: &[OpResult],
        encoded: &Bytes,
    ) {
        let key = stored::slot_key(name.session, name.sequence, self.limits.window);
        let kept = Kept::of(results, encoded, self.limits.result_bytes_max);
        writer.put(Space::Sessions, &key, kept.encode(name.sequence));
    }

    /// Ends an entry: removes expired sessions, a bounded number, and writes the changed ones.
    pub fn finish(&mut self, writer: &mut Writer<'_>, at: Moment) -> Result<(), storage::Error> {
        let mut removed = 0;
        while let Some((used_ms, _, id)) = self.by_use.first().copied()
            && self.is_expired(used_ms, at)
            && removed < self.limits.removals_max
        {
            removed += self.forget(writer, id)?;
        }
        for id in std::mem::take(&mut self.changed) {
            if let Some(session) = self.sessions.get(&id) {
                writer.put(Space::Sessions, &stored::session_key(id), session.encode());
            }
        }
        Ok(())
    }

    fn is_expired(&self, used_ms: u64, at: Moment) -> bool {
        used_ms.saturating_add(self.limits.expiry_ms) <= at.now_ms
    }

    /// Removes a session with its slots; returns the number of records.
    fn forget(&mut self, writer: &mut Writer<'_>, id: SessionId) -> Result<usize, storage::Error> {
        let mut keys = vec![stored::session_key(id)];
        writer.scan(Space::Sessions, &stored::slot_prefix(id), None, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for key in &keys {
            writer.delete(Space::Sessions, key);
        }
        self.remove(id);
        self.changed.remove(&id);
        Ok(keys.len())
    }

    fn insert(&mut self, id: SessionId, session: Session) {
        self.by_use.insert((session.used_ms, session.used_index, id));
        self.sessions.insert(id, session);
    }

    fn remove(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_use.remove(&(session.used_ms, session.used_index, id));
        }
    }
}
