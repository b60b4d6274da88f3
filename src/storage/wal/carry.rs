//! Keeps idle groups from pinning segments: what is live in the oldest full segment is written again at
//! the end of the log. `holds` decides whether; here it is done, on the writer's thread.

use super::body::Change;
use super::group::Group;
use super::holds::{self, Holder, Verdict};
use super::read::read;
use super::record::Kind;
use super::state::State;
use super::writer::Writer;
use crate::types::GroupId;
use std::sync::Arc;

/// What became of carrying a group forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    Queued,
    /// The group changed meanwhile; it is tried again after the next batch.
    Moved,
    /// Its entries cannot be read back; only flushing and purging the group frees the segment.
    Unreadable,
}

impl Writer {
    /// Carries the live content of the oldest full segment forward, or names the group that pins it.
    pub fn see_to_the_oldest(&mut self) {
        let Some((oldest, _)) = self.sealed.front().copied() else {
            *self.shared.pinning.lock() = None;
            return;
        };
        if self.carried == oldest {
            return;
        }
        let holders: Vec<Holder> = self
            .holds
            .of(oldest)
            .map(|(id, hold)| self.holder(id, hold.entries_in(oldest)))
            .collect();
        let verdict = holds::judge(&holders, self.sealed.len(), self.shared.limits.carry);
        *self.shared.pinning.lock() = match verdict {
            Verdict::Pinned(group) => Some(GroupId(group)),
            Verdict::Carry | Verdict::Wait => None,
        };
        if verdict == Verdict::Carry {
            self.carried = oldest;
            for holder in holders {
                match self.carry(&holder, oldest) {
                    Carried::Queued => {}
                    Carried::Moved => self.carried = 0,
                    Carried::Unreadable => {
                        *self.shared.pinning.lock() = Some(GroupId(holder.group));
                    }
                }
            }
        }
    }

    fn holder(&self, id: u64, entries: bool) -> Holder {
        let group = self.shared.group(GroupId(id));
        let state = group.state.lock();
        let (live_bytes, small_bytes) = (state.live_bytes(), state.small_bytes());
        Holder { group: id, entries, live_bytes, small_bytes, settled: state.is_settled() }
    }

    /// Queues the group's live content of segment `oldest` once more. Each record is read from the state
    /// under its lock and queued at once, so that it cannot overtake or undo anything.
    fn carry(&self, holder: &Holder, oldest: u64) -> Carried {
        let group = self.shared.group(GroupId(holder.group));
        let carried = if holder.entries { self.carry_entries(&group) } else { Carried::Queued };
        let hold = self.holds.of(oldest).find(|(id, _)| *id == holder.group);
        let (Some((_, hold)), Carried::Queued) = (hold, carried) else { return carried };
        type Again = fn(&State) -> Option<Change>;
        let again: [(Kind, Again); 4] = [
            (Kind::Create, |state| state.created.clone().map(Change::Create)),
            (Kind::Vote, |state| state.vote.clone().map(Change::Vote)),
            (Kind::Committed, |state| state.committed.clone().map(Change::Committed)),
            (Kind::Purge, |state| {
                let upto = state.range().start.checked_sub(1)?;
                state.purged.clone().map(|body| Change::Purge { upto, body })
            }),
        ];
        for (kind, change) in again {
            if hold.small_in(kind, oldest) {
                self.shared.queue.submit(&group, 0, None, |state, _| Ok(change(state)));
            }
        }
        Carried::Queued
    }

    /// Writes all entries of a group again, as one record that overwrites them with themselves.
    fn carry_entries(&self, group: &Arc<Group>) -> Carried {
        let range = group.state.lock().range();
        let entries = match read(&self.shared, group, range.clone(), usize::MAX) {
            Ok(entries) => entries,
            Err(error) => {
                // They stay where they are; whoever reads them gets this error and acts on it.
                tracing::error!(%error, group = %group.id, "entries cannot be carried forward");
                return Carried::Unreadable;
            }
        };
        let mut carried = Carried::Moved;
        self.shared.queue.submit(group, 0, None, |state, _| {
            // Only this thread makes entries durable, so a state that is settled and has the same range
            // as before holds the same entries.
            let same = state.is_settled() && state.range() == range && !range.is_empty();
            if !same {
                return Ok(None);
            }
            carried = Carried::Queued;
            Ok(Some(Change::Append { first: range.start, entries }))
        });
        carried
    }
}
