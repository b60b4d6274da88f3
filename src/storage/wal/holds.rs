//! Which segments each group still needs, as of what is durable; and what to do about the oldest one.
//!
//! The running log may delete a segment only when records that are *durable* made its content dead. This
//! is that durable view: the writer feeds it each record after its fdatasync, recovery each record it
//! finds. Pure.

use super::record::Kind;
use std::collections::{BTreeMap, VecDeque};

/// What one record means for the segments a group needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    /// Entries `first..end`; what stood there and behind is overwritten.
    Append {
        first: u64,
        end: u64,
    },
    Truncate {
        from: u64,
    },
    Purge {
        upto: u64,
    },
    /// A small record of which only the last counts.
    Small(Kind),
    Remove,
}

/// What a group needs.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// The segment of the last record of each small kind.
    small: BTreeMap<u8, u64>,
    /// Index ranges and the segment they lie in, in order of index.
    runs: VecDeque<(u64, u64, u64)>,
}

impl Hold {
    fn apply(&mut self, change: Move, segment: u64) {
        match change {
            Move::Append { first, end } => {
                self.truncate(first);
                match self.runs.back_mut() {
                    Some(run) if run.1 == first && run.2 == segment => run.1 = end,
                    _ if first < end => self.runs.push_back((first, end, segment)),
                    _ => {}
                }
            }
            Move::Truncate { from } => self.truncate(from),
            Move::Purge { upto } => {
                let base = upto.saturating_add(1);
                self.runs.retain(|run| run.1 > base);
                if let Some(run) = self.runs.front_mut() {
                    run.0 = run.0.max(base);
                }
                self.small.insert(Kind::Purge as u8, segment);
            }
            Move::Small(kind) => {
                self.small.insert(kind as u8, segment);
            }
            Move::Remove => *self = Hold::default(),
        }
    }

    fn truncate(&mut self, from: u64) {
        self.runs.retain(|run| run.0 < from);
        if let Some(run) = self.runs.back_mut() {
            run.1 = run.1.min(from);
        }
    }

    /// True if the last record of this kind lies in the segment.
    pub fn small_in(&self, kind: Kind, segment: u64) -> bool {
        self.small.get(&(kind as u8)) == Some(&segment)
    }

    /// True if entries lie in the segment.
    pub fn entries_in(&self, segment: u64) -> bool {
        self.runs.iter().any(|run| run.2 == segment)
    }

    /// The oldest segment it needs.
    fn oldest(&self) -> Option<u64> {
        self.small.values().copied().chain(self.runs.iter().map(|run| run.2)).min()
    }
}

/// What all groups need.
#[derive(Debug, Default)]
pub(super) struct Holds(BTreeMap<u64, Hold>);

impl Holds {
    /// A record of `group` in `segment` is durable.
    pub fn apply(&mut self, group: u64, change: Move, segment: u64) {
        let hold = self.0.entry(group).or_default();
        hold.apply(change, segment);
        if hold.oldest().is_none() {
            self.0.remove(&group);
        }
    }

    /// The oldest segment that any group needs.
    pub fn oldest(&self) -> Option<u64> {
        self.0.values().filter_map(Hold::oldest).min()
    }

    /// Groups that need the segment.
    pub fn of(&self, segment: u64) -> impl Iterator<Item = (u64, &Hold)> {
        let needs = move |hold: &&Hold| hold.oldest().is_some_and(|oldest| oldest <= segment);
        self.0.iter().map(|(group, hold)| (*group, hold)).filter(move |(_, hold)| needs(hold))
    }
}

/// A group that needs the oldest segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub group: u64,
    /// Some of its entries lie there, not only small records.
    pub entries: bool,
    /// Bytes of all its entries.
    pub live_bytes: u64,
    /// Bytes of its small records.
    pub small_bytes: u64,
    /// Every entry is durable.
    pub settled: bool,
}

/// When live content may be carried forward.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Entries are carried only while more full segments than this exist: an active group purges them
    /// itself soon.
    pub sealed_min: usize,
    /// Entries of a group with more live bytes are not carried; its owner has to flush and purge.
    pub group_bytes_max: u64,
    /// Bytes carried out of one segment at most: carrying costs at most this part of the writing.
    pub total_bytes_max: u64,
}

/// What to do about the oldest full segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write again what is live in it; then nobody needs it.
    Carry,
    /// The owner of this group should flush and purge.
    Pinned(u64),
    /// A group is in motion, look again after the next batch.
    Wait,
}

/// Judges the oldest full segment by who needs it.
pub(super) fn judge(holders: &[Holder], sealed: usize, limits: Limits) -> Verdict {
    let heaviest = holders
        .iter()
        .filter(|holder| holder.entries)
        .max_by_key(|holder| (holder.live_bytes, holder.group));
    let entries: u64 = holders.iter().filter(|holder| holder.entries).map(|h| h.live_bytes).sum();
    let small: u64 = holders.iter().map(|holder| holder.small_bytes).sum();
    let fits = entries + small <= limits.total_bytes_max;
    match heaviest {
        Some(heavy) if heavy.live_bytes > limits.group_bytes_max || !fits => {
            Verdict::Pinned(heavy.group)
        }
        Some(heavy) if sealed <= limits.sealed_min => Verdict::Pinned(heavy.group),
        Some(_) if holders.iter().any(|holder| holder.entries && !holder.settled) => Verdict::Wait,
        None if !fits => Verdict::Wait,
        _ => Verdict::Carry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_needed_until_every_record_in_it_is_dead() {
        let mut holds = Holds::default();
        holds.apply(1, Move::Small(Kind::Vote), 1);
        holds.apply(1, Move::Append { first: 0, end: 10 }, 1);
        holds.apply(1, Move::Append { first: 10, end: 20 }, 2);
        holds.apply(2, Move::Append { first: 0, end: 5 }, 2);
        assert_eq!(holds.oldest(), Some(1));
        holds.apply(1, Move::Purge { upto: 9 }, 3);
        assert_eq!(holds.oldest(), Some(1), "the vote is still there");
        holds.apply(1, Move::Small(Kind::Vote), 3);
        assert_eq!(holds.oldest(), Some(2));
        holds.apply(2, Move::Truncate { from: 0 }, 3);
        assert_eq!(holds.of(2).map(|(group, _)| group).collect::<Vec<_>>(), [1]);
        holds.apply(1, Move::Append { first: 10, end: 20 }, 4);
        assert_eq!(holds.oldest(), Some(3));
        holds.apply(1, Move::Remove, 4);
        assert_eq!(holds.oldest(), None);
    }

    #[test]
    fn overwriting_and_truncating_trim_the_runs() {
        let mut hold = Hold::default();
        hold.apply(Move::Append { first: 0, end: 10 }, 1);
        hold.apply(Move::Append { first: 10, end: 20 }, 2);
        hold.apply(Move::Append { first: 20, end: 30 }, 2);
        assert_eq!(hold.runs, [(0, 10, 1), (10, 30, 2)]);
        hold.apply(Move::Append { first: 5, end: 6 }, 3);
        assert_eq!(hold.runs, [(0, 5, 1), (5, 6, 3)]);
        hold.apply(Move::Purge { upto: 3 }, 4);
        assert_eq!(hold.runs, [(4, 5, 1), (5, 6, 3)]);
        hold.apply(Move::Append { first: 6, end: 6 }, 5);
        assert_eq!(hold.runs, [(4, 5, 1), (5, 6, 3)]);
    }

    const LIMITS: Limits = Limits { sealed_min: 2, group_bytes_max: 100, total_bytes_max: 400 };

    fn holder(group: u64, live_bytes: u64) -> Holder {
        Holder { group, entries: live_bytes > 0, live_bytes, small_bytes: 10, settled: true }
    }

    #[test]
    fn small_things_are_carried_and_large_ones_are_named() {
        let vote_only = holder(1, 0);
        assert_eq!(judge(&[vote_only], 1, LIMITS), Verdict::Carry);
        assert_eq!(judge(&[vote_only, holder(2, 50)], 3, LIMITS), Verdict::Carry);
        assert_eq!(judge(&[vote_only, holder(2, 50)], 2, LIMITS), Verdict::Pinned(2));
        assert_eq!(judge(&[holder(2, 50), holder(3, 101)], 9, LIMITS), Verdict::Pinned(3));
        let many: Vec<Holder> = (0..9).map(|group| holder(group, 90)).collect();
        assert_eq!(judge(&many, 9, LIMITS), Verdict::Pinned(8));
        let moving = Holder { settled: false, ..holder(2, 50) };
        assert_eq!(judge(&[moving], 3, LIMITS), Verdict::Wait);
        let crowd: Vec<Holder> = (0..99).map(|group| holder(group, 0)).collect();
        assert_eq!(judge(&crowd, 3, LIMITS), Verdict::Wait);
    }
}
