//! What the bytes of the segments amount to: a decision, without a file in sight.
//!
//! A place without a valid record is a *tear* if nothing of a later batch follows: the batch was being
//! written when the power went, none of its callbacks ran, and the log is cut there. It is *damage* if a
//! later batch or segment follows, for that was begun only after the fdatasync that covers this place. Of
//! a torn batch the records before the tear are kept: they are a prefix of what was submitted.
//!
//! A batch is written only where it fits, into a file whose length is durable. So a file that ends inside a
//! batch is no tear but damage: it has lost its end, and maybe what callers were told. Only if another
//! segment follows may it end there, because a cut made it do so.

use super::Error;
use super::body::{self, Read};
use super::holds::{Holds, Move};
use super::record::{self, ALIGN, BATCH_BYTES, HEAD_BYTES, Head, Kind, Salt};
use super::segment::{self, BLOCK_BYTES, Block, Header, is_zero};
use super::state::{At, Slot, State};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes at the start of a segment that are looked at to tell a blank one.
pub(super) const BLANK_CHECK_BYTES: usize = BLOCK_BYTES + (1 << 20);

/// Which segments hold the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// In order, without a gap.
    pub used: Vec<Header>,
    /// Never used ones that follow.
    pub blank: Vec<u64>,
}

/// Judges the starts of all segment files, which are in order of their numbers.
pub(super) fn layout(found: &[(u64, Block)]) -> Result<Layout, Error> {
    let mut layout = Layout { used: Vec::new(), blank: Vec::new() };
    let mut next = None;
    for (id, block) in found {
        if next.is_some_and(|next| next != Some(*id)) {
            return damage(format!("the segment before {id} is missing"));
        }
        next = Some(id.checked_add(1));
        match block {
            Block::Used(_) if !layout.blank.is_empty() => {
                return damage(format!("segment {id} follows a segment without a header"));
            }
            Block::Used(header) => layout.used.push(*header),
            Block::Blank | Block::Emptied { .. } => layout.blank.push(*id),
            Block::Broken => return damage(format!("segment {id} has lost its header")),
            Block::Foreign(version) => {
                return damage(format!("segment {id} is of the unknown version {version}"));
            }
        }
    }
    match layout.blank.first() {
        // The first segment is used before any other is deleted.
        Some(first) if layout.used.is_empty() && *first != 1 => {
            damage(format!("segment {} is missing", first - 1))
        }
        _ => Ok(layout),
    }
}

fn damage<T>(what: String) -> Result<T, Error> {
    Err(Error::Damage(what))
}

/// The state that the segments read so far amount to.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub groups: BTreeMap<u64, State>,
    pub holds: Holds,
    /// Last record.
    pub sequence: u64,
    /// Last batch.
    pub batch: u64,
    begun: bool,
}

/// Where the log ends in its last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub offset: usize,
    /// The last batch is whole.
    pub whole: bool,
    /// It is, and nothing but zeros follows: the log can go on right here. Behind what was written into a segment
    /// that is used again there are leftovers, which cannot be told from a tear.
    pub clean: bool,
    /// What is kept of the last batch of this segment: no later one proves it durable.
    pub last_batch: Range<usize>,
}

/// How far the records of a segment go.
struct Walked {
    /// Behind the last record that holds.
    at: usize,
    /// The last batch, by what its header says.
    batch: Range<usize>,
    /// Headers that hold tell of bytes up to here.
    reach: usize,
}

/// Where a record stands.
struct Spot<'a> {
    header: &'a Header,
    at: usize,
    batch_end: usize,
}

impl Replay {
    /// Reads one segment. `end` is where the next segment says that it continues; none for the last one.
    pub fn segment(
        &mut self,
        header: &Header,
        bytes: &[u8],
        end: Option<u64>,
    ) -> Result<Ending, Error> {
        self.enter(header)?;
        let bytes = match end {
            Some(end) => usize::try_from(end).ok().and_then(|end| bytes.get(..end)),
            None => Some(bytes),
        };
        let id = header.segment;
        let Some(bytes) = bytes else { return damage(format!("segment {id} is cut short")) };
        let Walked { at, batch, reach } = self.walk(header, bytes)?;
        if end.is_some() && at != bytes.len() {
            return damage(format!("bad record at {at} in segment {id}, which others follow"));
        }
        if end.is_none() && (bytes.len() < reach || splits_a_header(bytes, at)) {
            return damage(format!("segment {id} is cut short at {}", bytes.len()));
        }
        let last_batch = batch.start..at;
        let torn = if at < batch.end { self.batch } else { self.batch.saturating_add(1) };
        if let Some(later) = later_batch(bytes, at, header.salt(), torn) {
            return damage(format!(
                "bad record at {at} in segment {id}, before a later batch at {later}"
            ));
        }
        let whole = at >= batch.end;
        let clean = whole && bytes.get(at..).is_none_or(is_zero);
        Ok(Ending { offset: at, whole, clean, last_batch })
    }

    /// Takes in records up to the first that does not hold.
    fn walk(&mut self, header: &Header, bytes: &[u8]) -> Result<Walked, Error> {
        let salt = header.salt();
        let (mut at, mut batch, mut reach) = (BLOCK_BYTES, BLOCK_BYTES..BLOCK_BYTES, BLOCK_BYTES);
        while let Some(head) = record::head(bytes, at, salt) {
            let spot = Spot { header, at, batch_end: batch.end };
            self.expect(&spot, &head)?;
            let end = at.saturating_add(head.record_bytes());
            reach = reach.max(end);
            let Some(body) = record::body(bytes, at, &head, salt) else { break };
            if let Some(batch_bytes) = self.apply(&spot, &head, body)? {
                batch = at..at.saturating_add(batch_bytes);
                reach = reach.max(batch.end);
            }
            at = end;
        }
        Ok(Walked { at, batch, reach })
    }

    /// A segment goes on exactly where the one before ended.
    fn enter(&mut self, header: &Header) -> Result<(), Error> {
        let before = (header.sequence_before, header.batch_before);
        if self.begun && before != (self.sequence, self.batch) {
            return damage(format!(
                "segment {} continues from record {} and batch {}, but {} and {} were read",
                header.segment, before.0, before.1, self.sequence, self.batch
            ));
        }
        (self.sequence, self.batch) = before;
        self.begun = true;
        Ok(())
    }

    /// A header whose checksum holds says what comes next, also if the body behind it is torn: one that
    /// says something else was not written by this log.
    fn expect(&self, spot: &Spot<'_>, head: &Head) -> Result<(), Error> {
        let Spot { header, at, batch_end } = *spot;
        let end = at.saturating_add(head.record_bytes());
        let (in_place, batch, sequence) = match Kind::of(head.kind) {
            Some(Kind::Batch) => (at == batch_end, self.batch.checked_add(1), Some(self.sequence)),
            _ => (end <= batch_end, Some(self.batch), self.sequence.checked_add(1)),
        };
        if !in_place || Some(head.batch) != batch || Some(head.sequence) != sequence {
            return damage(format!("record at {at} in segment {} is out of order", header.segment));
        }
        Ok(())
    }

    /// Takes in a record that is expected and whose checksums hold. Answers the bytes of the batch that it
    /// opens, if it does.
    fn apply(&mut self, spot: &Spot<'_>, head: &Head, body: &[u8]) -> Result<Option<usize>, Error> {
        let (segment, at) = (spot.header.segment, spot.at);
        let wrong = |what: &str| damage(format!("record at {at} in segment {segment} {what}"));
        let Some(read) = body::read(head, body) else {
            return wrong("is of an unknown kind or version");
        };
        if let Read::Batch { bytes, .. } = read {
            if bytes < BATCH_BYTES as u64 {
                return wrong("opens a batch that ends before it");
            }
            self.batch = head.batch;
            return Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX)));
        }
        self.sequence = head.sequence;
        let state = self.groups.entry(head.group).or_default();
        let Some(change) = replay(state, segment, at, read) else { return wrong("leaves a hole") };
        self.holds.apply(head.group, change, segment);
        Ok(None)
    }

    /// All segments are read: every group must be whole.
    pub fn finish(&mut self) -> Result<(), Error> {
        for (group, state) in &mut self.groups {
            if state.misses_entries() {
                return damage(format!("entries of group {group} are missing"));
            }
            state.settle();
        }
        Ok(())
    }
}

/// Brings a record into its group's state; none if it does not fit.
fn replay(state: &mut State, segment: u64, at: usize, read: Read<'_>) -> Option<Move> {
    let copy = |body: &[u8]| Some(Bytes::copy_from_slice(body));
    Some(match read {
        Read::Append { first, entries } => {
            let end = first.checked_add(entries.len() as u64)?;
            let slots = entries.map(|(offset, body)| Slot {
                serial: 0,
                bytes: body.len() as u32,
                at: At {
                    segment,
                    offset: (at + HEAD_BYTES + offset) as u64,
                    crc: crc32c::crc32c(body),
                },
                body: None,
            });
            state.replay(first, slots).ok()?;
            Move::Append { first, end }
        }
        Read::Truncate { from } => {
            state.truncate(from);
            Move::Truncate { from }
        }
        Read::Purge { upto, body } => {
            state.purge(upto, Bytes::copy_from_slice(body)).then_some(())?;
            Move::Purge { upto }
        }
        Read::Vote(body) => {
            state.vote = copy(body);
            Move::Small(Kind::Vote)
        }
        Read::Committed(body) => {
            state.committed = copy(body);
            Move::Small(Kind::Committed)
        }
        Read::Create(body) => {
            state.created = copy(body);
            Move::Small(Kind::Create)
        }
        Read::Remove => {
            state.remove(0);
            Move::Remove
        }
        Read::Batch { .. } => return None,
    })
}

/// True if the bytes end inside what can only be the header of a record at `at`: where no record fits nothing
/// is ever written, and the end of a segment is zero also if it is used again.
fn splits_a_header(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).is_some_and(|rest| rest.len() < HEAD_BYTES && !is_zero(rest))
}

/// Offset of the first valid header of a batch after `torn`, at or behind `from`.
fn later_batch(bytes: &[u8], from: usize, salt: Salt, torn: u64) -> Option<usize> {
    let end = bytes.len().checked_sub(HEAD_BYTES)?;
    (from..=end)
        .step_by(ALIGN)
        .find(|at| record::head(bytes, *at, salt).is_some_and(|head| head.batch > torn))
}

/// What `recover_bytes` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Groups that left a trace.
    pub groups: usize,
    /// Entries that can be read.
    pub entries: u64,
    /// Records in all segments.
    pub records: u64,
    /// True if the log was cut at a tear, or at leftovers.
    pub cut: bool,
}

/// Recovery on bytes in memory: the same decisions as when a log is opened, for fuzzing. `segments` are
/// (number, content of the file), in order. Never panics, and needs memory in proportion to the input.
pub fn recover_bytes(segments: &[(u64, &[u8])]) -> Result<Summary, Error> {
    let found: Vec<(u64, Block)> = segments
        .iter()
        .map(|(id, bytes)| (*id, segment::block(*id, &bytes[..bytes.len().min(BLANK_CHECK_BYTES)])))
        .collect();
    let used = layout(&found)?.used;
    let mut replay = Replay::default();
    let mut summary = Summary::default();
    for (at, header) in used.iter().enumerate() {
        let end = used.get(at + 1).map(|next| next.end_before);
        summary.cut = !replay.segment(header, segments[at].1, end)?.clean;
    }
    replay.finish()?;
    let first = used.first().map_or(0, |header| header.sequence_before);
    summary.groups = replay.groups.len();
    summary.records = replay.sequence - first;
    summary.entries = replay
        .groups
        .values()
        .map(|state| state.range())
        .map(|range| range.end - range.start)
        .sum();
    Ok(summary)
}
