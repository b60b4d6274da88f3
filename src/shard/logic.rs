//! What the entries of a shard mean: the deterministic heart, the same on every copy.
//!
//! A function of the entry, its position and what the store holds. No clock, no randomness, no order of
//! a hash map. Entries are applied in order and once; what they changed is written with them.

use super::entry::{Entry, Item, Reply};
use super::expiry::{Expiry, REMOVALS_MAX, TICK_REMOVALS_MAX};
use super::fence::Fence;
use super::keys::Keys;
use super::records::{STATE_KEY, State};
use super::sessions::{Limits, Moment, Sessions, Verdict};
use crate::raft::{self, Effect};
use crate::storage::{self, Space, View, Writer};
use crate::types::{Code, Incarnation, LogPos, Op, SessionId, SessionSeq, ShardId};
use crate::wire::client;
use bytes::Bytes;

/// The logic of one copy of a shard.
pub struct Logic {
    shard: ShardId,
    incarnation: Incarnation,
    limits: Limits,
    state: State,
    expiry: Expiry,
    sessions: Sessions,
}

impl Logic {
    /// The logic of a copy whose store is loaded later.
    pub fn new(shard: ShardId, incarnation: Incarnation, limits: Limits) -> Self {
        Self {
            shard,
            incarnation,
            limits,
            state: State::default(),
            expiry: Expiry::default(),
            sessions: Sessions::default(),
        }
    }

    fn moment(&self) -> Moment {
        Moment { now_ms: self.state.now_ms, index: self.state.index }
    }

    /// An entry that this build cannot read was written by a build that can: going on without it would
    /// make this copy differ from the others, so the copy stops.
    fn unreadable(&self, pos: LogPos, error: impl std::fmt::Display) -> storage::Error {
        let what = format!("log entry {pos} of shard {}", self.shard);
        storage::Error::Corrupt { what, detail: error.to_string() }
    }

    fn apply_item(
        &mut self,
        pos: LogPos,
        item: &Item<'_>,
        opened: &mut bool,
        writer: &mut Writer<'_>,
    ) -> Result<Bytes, storage::Error> {
        match item {
            Item::Ops { dedup, ops } => {
                let ops: Vec<Op> =
                    client::decode(ops).map_err(|error| self.unreadable(pos, error))?;
                match dedup {
                    None => self.apply_ops(&ops, writer),
                    Some(name) => self.apply_named(*name, &ops, writer),
                }
            }
            // The session is named by the entry, which can name only one.
            Item::Open if *opened => Ok(Reply::Refused(Code::Internal).encode()),
            Item::Open => {
                *opened = true;
                let id = SessionId { incarnation: self.incarnation, index: pos.index };
                self.sessions.open(writer, id, self.moment())?;
                Ok(Reply::Done.encode())
            }
            Item::Tick | Item::Digest => Ok(Reply::Done.encode()),
            Item::Fence { operation, turn } => {
                let fence = Fence { operation: *operation, turn: *turn };
                Ok(match fence.raise(writer)? {
                    true => Reply::Done.encode(),
                    false => Reply::Refused(Code::Superseded).encode(),
                })
            }
        }
    }

    fn apply_ops(&mut self, ops: &[Op], writer: &mut Writer<'_>) -> Result<Bytes, storage::Error> {
        let results = self.keys(writer).apply(ops)?;
        Ok(Reply::encode_results(&results))
    }

    fn apply_named(
        &mut self,
        name: SessionSeq,
        ops: &[Op],
        writer: &mut Writer<'_>,
    ) -> Result<Bytes, storage::Error> {
        let moment = self.moment();
        match self.sessions.judge(writer, name, moment)? {
            Verdict::Refused(code) => Ok(Reply::Refused(code).encode()),
            Verdict::Seen(reply) => Ok(reply.encode()),
            Verdict::Fresh => {
                let results = self.keys(writer).apply(ops)?;
                let reply = Reply::encode_results(&results);
                self.sessions.remember(writer, name, &results, &reply.slice(1..));
                Ok(reply)
            }
        }
    }

    fn keys<'a, 'w>(&'a mut self, writer: &'a mut Writer<'w>) -> Keys<'a, 'w> {
        Keys { writer, expiry: &mut self.expiry, now_ms: self.state.now_ms }
    }
}

impl raft::Logic for Logic {
    fn load(&mut self, view: &dyn View) -> Result<(), storage::Error> {
        self.state = State::of(view)?;
        self.expiry = Expiry::load(view)?;
        self.sessions = Sessions::load(view, self.limits.clone())?;
        Ok(())
    }

    fn apply(
        &mut self,
        pos: LogPos,
        payload: &Bytes,
        writer: &mut Writer<'_>,
    ) -> Result<Effect, storage::Error> {
        let entry = Entry::decode(payload).map_err(|error| self.unreadable(pos, error))?;
        self.state = State { now_ms: self.state.now_ms.max(entry.stamp_ms), index: pos.index };

        let mut replies = Vec::with_capacity(entry.items.len());
        let mut opened = false;
        for item in &entry.items {
            replies.push(self.apply_item(pos, item, &mut opened, writer)?);
        }

        let has_tick = entry.items.contains(&Item::Tick);
        let removals_max = if has_tick { TICK_REMOVALS_MAX } else { REMOVALS_MAX };
        self.expiry.remove_due(writer, self.state.now_ms, removals_max)?;
        self.sessions.finish(writer, self.moment())?;
        writer.put(Space::Meta, STATE_KEY, self.state.encode());
        Ok(Effect { replies, digest: entry.items.contains(&Item::Digest) })
    }
}
