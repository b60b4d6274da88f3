//! A seeded life of one log: groups at work, a store for each that flushes when it likes, power cuts.
//!
//! The oracle: what is recovered equals, for all groups at once, the state after *some* prefix of
//! everything that was submitted, and that prefix covers all whose callback ran. So nothing
//! acknowledged is missing, no vote goes back, and no phantom appears.

use super::super::record;
use super::super::segment::{self, BLOCK_BYTES, Block};
use super::super::sim::Dice;
use super::*;
use crate::types::GroupId;
use std::collections::{BTreeMap, BTreeSet};

const GROUPS: u64 = 5;
const OPS_PER_LIFE_MAX: u64 = 120;

/// What one group should hold.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Image {
    created: Option<Bytes>,
    vote: Option<Bytes>,
    purged: Option<Bytes>,
    base: u64,
    entries: Vec<Bytes>,
}

#[derive(Clone)]
enum Act {
    Create(Bytes),
    Remove,
    Append(u64, Vec<Bytes>),
    Truncate(u64),
    Purge(u64, Bytes),
    Vote(Bytes),
}

/// Bodies by their unique number only: a failure should fit a screen.
impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |body: &Option<Bytes>| body.as_ref().map(|body| number(body));
        let (created, vote, purged) = (name(&self.created), name(&self.vote), name(&self.purged));
        let entries: Vec<u64> = self.entries.iter().map(|entry| number(entry)).collect();
        write!(f, "c{created:?} v{vote:?} p{purged:?} {}: {entries:?}", self.base)
    }
}

impl Image {
    fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    fn apply(&mut self, act: &Act) {
        match act.clone() {
            Act::Create(body) => self.created = Some(body),
            Act::Remove => *self = Image::default(),
            Act::Append(first, entries) => {
                assert_eq!(first, self.end());
                self.entries.extend(entries);
            }
            Act::Truncate(from) => self.entries.truncate((from - self.base) as usize),
            Act::Purge(upto, body) => {
                let gone = (upto + 1 - self.base).min(self.entries.len() as u64);
                self.entries.drain(..gone as usize);
                self.base = upto + 1;
                self.purged = Some(body);
            }
            Act::Vote(vote) => self.vote = Some(vote),
        }
    }

    fn read(log: &GroupLog) -> Result<Self, String> {
        let range = log.range();
        let entries = log.entries(range.clone(), usize::MAX).map_err(|error| error.to_string())?;
        if entries.len() as u64 != range.end - range.start || log.durable_end() != range.end {
            return Err(format!("{range:?}: {} entries", entries.len()));
        }
        let (created, vote, purged) = (log.created(), log.vote(), log.purged());
        Ok(Image { created, vote, purged, base: range.start, entries })
    }
}

type Images = BTreeMap<u64, Image>;

/// The durable state of the store of one copy. It lives through every cut and moves by itself.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Last index whose effect it holds durably.
    applied: Option<u64>,
    /// Snapshots up to these lie ready; the purge record in the log makes one current.
    staged: Vec<u64>,
}

/// What a campaign met, so that it can be seen to have met everything.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub cuts: u64,
    pub kills: u64,
    pub cuts_while_opening: u64,
    /// Lives that ended inside a batch.
    pub tears: u64,
    /// Lives that ended with a segment that is to be used again.
    pub recycled: u64,
    /// Operations that were submitted, not acknowledged, and found.
    pub unacked_found: u64,
    pub unacked_gone: u64,
    pub segments_deleted: u64,
    pub damage_told: u64,
    pub last_batch_rotten: u64,
    pub installs: u64,
    pub removals: u64,
    pub sealed_max: u64,
    pub ways: BTreeSet<String>,
}

pub(super) struct World {
    dice: Dice,
    fs: SimFs,
    options: Options,
    /// Everything that ever counted, in order: `known` is what it comes to.
    history: Vec<(u64, Act)>,
    /// What was recovered last, and everything submitted since, in order.
    known: Images,
    acts: Vec<(u64, Act)>,
    /// Acts whose callback ran, at least.
    acked: usize,
    tables: BTreeMap<(u64, Option<Bytes>), Table>,
    /// Highest index that is committed; lost in a crash.
    committed: BTreeMap<u64, Option<u64>>,
    unique: u64,
    pub tally: Tally,
}

impl World {
    pub fn new(seed: u64, options: Options) -> Self {
        Self {
            dice: Dice(seed),
            fs: SimFs::new(seed ^ 0x5eed),
            options,
            history: Vec::new(),
            known: nothing(),
            acts: Vec::new(),
            acked: 0,
            tables: BTreeMap::new(),
            committed: BTreeMap::new(),
            unique: 0,
            tally: Tally::default(),
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.dice.below(100) < percent
    }

    /// One life: recover, check, work until the power goes. Errors are what the log did wrong.
    pub fn live(&mut self) -> Result<(), String> {
        let patience = [20, 60, 300][self.dice.below(3) as usize];
        let ops = self.dice.below(patience);
        self.fs.cut_after(ops);
        let opened = Driven::open(&self.fs, self.options.clone());
        if self.fs.is_cut() {
            self.tally.cuts_while_opening += 1;
        } else {
            let mut log = opened.map_err(|error| format!("not damaged, yet: {error}"))?;
            self.check(&log)?;
            self.work(&mut log);
            let acked = log.done.lock().iter().filter(|(_, ok)| *ok).map(|(name, _)| *name).max();
            self.acked = acked.map_or(0, |last| last as usize + 1);
        }
        self.end();
        self.rot()
    }

    fn end(&mut self) {
        if !self.fs.is_cut() && self.chance(20) {
            self.tally.kills += 1;
            self.fs = self.fs.restart();
            return;
        }
        let (cut, fs) = self.fs.reboot();
        self.tally.ways.insert(format!("{cut:?}"));
        self.tally.cuts += 1;
        self.fs = fs;
    }

    /// The log was recovered: is it what it has to be? From here on all of it counts as acknowledged.
    fn check(&mut self, log: &Driven) -> Result<(), String> {
        let found = read_all(log)?;
        let acked = self.acked;
        let prefix = self.prefix_of(&found, acked).ok_or_else(|| self.explain(&found))?;
        self.tally.unacked_found += (prefix - acked) as u64;
        self.tally.unacked_gone += (self.acts.len() - prefix) as u64;
        for (group, image) in &found {
            let log = log.group(*group);
            let table = self.tables.entry((*group, image.created.clone())).or_default();
            let current = table.staged.drain(..).filter(|staged| *staged < image.base).max();
            table.applied = table.applied.max(current);
            let applied = table.applied;
            if let Some(applied) = applied {
                log.require(applied).map_err(|error| format!("group {group}: {error}"))?;
            }
            if image.base > applied.map_or(0, |applied| applied + 1) {
                return Err(format!(
                    "group {group}: {applied:?} is stored, log from {}",
                    image.base
                ));
            }
            let committed = log.committed().map(|body| number(&body));
            if committed.is_some_and(|committed| committed >= image.end()) {
                return Err(format!("group {group}: {committed:?} of {}", image.end()));
            }
            self.committed.insert(*group, committed.max(applied));
        }
        (self.known, self.acked) = (found, 0);
        self.history.extend(self.acts.drain(..).take(prefix));
        Ok(())
    }

    /// The prefix of what was submitted since, at least `from` long, that explains `found`.
    fn prefix_of(&self, found: &Images, from: usize) -> Option<usize> {
        explained(self.known.clone(), self.acts.iter(), found, from)
    }

    /// What is wrong, group by group, against what was acknowledged and all that was submitted.
    fn explain(&self, found: &Images) -> String {
        let mut text = format!("no prefix of {} acts from {} on fits", self.acts.len(), self.acked);
        let (mut acked, mut all) = (self.known.clone(), self.known.clone());
        for (at, (group, act)) in self.acts.iter().enumerate() {
            all.entry(*group).or_default().apply(act);
            if at < self.acked {
                acked.entry(*group).or_default().apply(act);
            }
        }
        for (group, image) in found {
            text += &format!("\n{group} found {image:?}");
            text += &format!("\n{group} acked {:?}\n{group}   all {:?}", acked[group], all[group]);
        }
        text
    }

    fn work(&mut self, log: &mut Driven) {
        let mut images = self.known.clone();
        // Seldom makes long batches.
        let steps_percent = [8, 40, 90][self.dice.below(3) as usize];
        for _ in 0..OPS_PER_LIFE_MAX {
            if self.fs.is_cut() {
                break;
            }
            let group = self.dice.below(GROUPS).min(self.dice.below(GROUPS));
            self.act(log, group, &mut images);
            self.flush(log, group, &images);
            if self.chance(steps_percent) {
                log.writer.step(false);
            }
            if let Some(GroupId(group)) = log.wal.oldest_pinning_group() {
                self.committed.insert(group, images[&group].end().checked_sub(1));
                (0..9).for_each(|_| self.flush(log, group, &images));
                self.purge(log, group, &mut images);
            }
            self.tally.sealed_max = self.tally.sealed_max.max(log.wal.stats().segments_sealed);
        }
    }

    fn unique(&mut self) -> u64 {
        self.unique += 1;
        self.unique
    }

    /// A body that no other has.
    fn body(&mut self, bytes: u64) -> Bytes {
        let fill = self.dice.below(bytes + 1) as usize;
        Bytes::from([&self.unique().to_le_bytes()[..], &vec![0xa5; fill]].concat())
    }

    fn submit(&mut self, log: &Driven, group: u64, act: Act, images: &mut Images) {
        let to = log.group(group);
        images.entry(group).or_default().apply(&act);
        match &act {
            // A long append is several records, any number of which may make it to the disk.
            Act::Append(first, entries) => self.acts.extend(
                (*first..)
                    .zip(entries)
                    .map(|(at, entry)| (group, Act::Append(at, vec![entry.clone()]))),
            ),
            act => self.acts.push((group, act.clone())),
        }
        let done = log.done(self.acts.len() as u64 - 1);
        match act {
            Act::Create(body) => to.create(body, done),
            Act::Remove => to.remove(done),
            Act::Append(first, entries) => to.append(first, entries, done),
            Act::Truncate(from) => to.truncate(from),
            Act::Purge(upto, body) => to.purge(upto, body),
            Act::Vote(vote) => to.save_vote(vote, done),
        }
    }

    fn act(&mut self, log: &Driven, group: u64, images: &mut Images) {
        let image = images[&group].clone();
        let committed = self.committed.get(&group).copied().flatten();
        if group > 0 && image.created.is_none() {
            let body = self.body(9);
            return self.submit(log, group, Act::Create(body), images);
        }
        let act = match self.dice.below(100) {
            0..=49 => {
                let count = 1 + self.dice.below(4);
                let size = [9, 60, 400, 3_000, 20_000][self.dice.below(501).min(4) as usize % 5];
                let size = if size > 400 && !self.chance(10) { 200 } else { size };
                Act::Append(image.end(), (0..count).map(|_| self.body(size)).collect())
            }
            50..=64 => Act::Vote(self.body(20)),
            65..=74 => {
                let free = committed.map_or(image.base, |committed| committed + 1).max(image.base);
                let open = image.end().saturating_sub(free);
                Act::Truncate((free + self.dice.below(open + 1)).min(image.end()))
            }
            75..=79 => {
                let Some(last) = image.end().checked_sub(1) else { return };
                let committed = last.max(committed.unwrap_or(0));
                self.committed.insert(group, Some(committed));
                let body = Bytes::copy_from_slice(&committed.to_le_bytes());
                return log.group(group).save_committed(body);
            }
            80..=89 => return self.purge(log, group, images),
            90..=92 => {
                let upto = image.end() + self.dice.below(50);
                let key = (group, image.created.clone());
                self.tables.entry(key).or_default().staged.push(upto);
                self.committed.insert(group, Some(upto));
                self.tally.installs += 1;
                Act::Purge(upto, self.body(9))
            }
            93..=95 if group > 0 => {
                self.committed.insert(group, None);
                self.tally.removals += 1;
                Act::Remove
            }
            _ => return,
        };
        self.submit(log, group, act, images);
    }

    /// The store writes what it has applied, as far as the log says it may.
    fn flush(&mut self, log: &Driven, group: u64, images: &Images) {
        let durable = log.group(group).durable_end().checked_sub(1);
        let committed = self.committed.get(&group).copied().flatten();
        let upto = durable.min(committed);
        let key = (group, images[&group].created.clone());
        let table = self.tables.entry(key).or_default();
        // Installed once the log is based behind it; until then the old table is the current one.
        if let Some(last) = table.staged.last().copied() {
            if Some(last) <= durable {
                table.staged.clear();
                table.applied = table.applied.max(Some(last));
            }
            return;
        }
        if upto > table.applied {
            let ahead = upto.unwrap_or(0) - table.applied.unwrap_or(0);
            let applied = table.applied.unwrap_or(0) + self.dice.below(ahead + 1);
            table.applied = Some(applied);
        }
    }

    /// The log follows the store.
    fn purge(&mut self, log: &Driven, group: u64, images: &mut Images) {
        let image = &images[&group];
        let table = self.tables.entry((group, image.created.clone())).or_default();
        let Some(applied) = table.applied.filter(|_| table.staged.is_empty()) else { return };
        if applied >= image.base && applied < image.end() {
            let body = self.body(9);
            self.submit(log, group, Act::Purge(applied, body), images);
        }
    }

    /// On a copy of the disk, one bit rots: before a later batch that is damage; in the last
    /// batch it may look like a tear, and then what is left is still a prefix.
    fn rot(&mut self) -> Result<(), String> {
        let records = records(&self.fs);
        if let Some(first) = records.first().and_then(|record| segment::id(&record.name)) {
            self.tally.segments_deleted = self.tally.segments_deleted.max(first - 1);
        }
        let Some(last) = records.iter().map(|record| record.batch).max() else { return Ok(()) };
        let record = &records[self.dice.below(records.len() as u64) as usize];
        let fs = self.fs.copy(self.dice.roll());
        let offset = record.offset + self.dice.below(record.bytes as u64) as usize;
        fs.flip(&record.name, offset, self.dice.roll() as u32);
        let opened = Driven::open(&fs, self.options.clone());
        match opened {
            Err(Error::Damage(_)) if record.batch < last => self.tally.damage_told += 1,
            Err(Error::Damage(_)) => {}
            Err(error) => return Err(format!("rot at {offset} of {record:?}: {error}")),
            Ok(_) if record.batch < last => {
                return Err(format!("rot at {offset} of {record:?} was taken for a tear"));
            }
            Ok(log) => {
                let found = read_all(&log)?;
                // The last batch may be older than this life.
                let all = self.history.iter().chain(&self.acts);
                explained(nothing(), all, &found, 0)
                    .ok_or_else(|| format!("rot in {record:?} made a phantom"))?;
                self.tally.last_batch_rotten += 1;
            }
        }
        self.tally.tears += is_torn(&self.fs, &records) as u64;
        self.tally.recycled += leftovers(&self.fs) as u64;
        Ok(())
    }
}

fn nothing() -> Images {
    (0..GROUPS).map(|group| (group, Image::default())).collect()
}

/// How many of the acts, at least `from`, lead from `images` to `found`.
fn explained<'a>(
    mut images: Images,
    acts: impl Iterator<Item = &'a (u64, Act)>,
    found: &Images,
    from: usize,
) -> Option<usize> {
    let mut acts = acts;
    let mut at = 0;
    loop {
        if at >= from && images == *found {
            return Some(at);
        }
        let (group, act) = acts.next()?;
        images.get_mut(group)?.apply(act);
        at += 1;
    }
}

fn number(body: &[u8]) -> u64 {
    record::u64_at(body, 0)
}

fn read_all(log: &Driven) -> Result<Images, String> {
    (0..GROUPS).map(|group| Ok((group, Image::read(&log.group(group))?))).collect()
}

#[derive(Debug)]
struct Record {
    name: String,
    offset: usize,
    bytes: usize,
    batch: u64,
    opens_batch: bool,
}

/// Every record that belongs to the log, as it lies on disk.
fn records(fs: &SimFs) -> Vec<Record> {
    let mut names = super::super::WalFs::list(fs).unwrap();
    names.sort();
    let segments: Vec<_> = names
        .into_iter()
        .filter_map(|name| {
            let content = fs.content(&name)?;
            match segment::block(segment::id(&name)?, &content) {
                Block::Used(header) => Some((name, header, content)),
                _ => None,
            }
        })
        .collect();
    let mut records = Vec::new();
    for (at, (name, header, content)) in segments.iter().enumerate() {
        let end = segments.get(at + 1).map_or(usize::MAX, |next| next.1.end_before as usize);
        let mut offset = BLOCK_BYTES;
        while offset < end {
            let Some((head, _)) = record_at(content, offset, header.salt()) else { break };
            let bytes = head.record_bytes();
            let (batch, opens_batch) = (head.batch, head.kind == record::Kind::Batch as u8);
            records.push(Record { name: name.clone(), offset, bytes, batch, opens_batch });
            offset += bytes;
        }
    }
    records
}

/// Whether the last batch is not whole.
fn is_torn(fs: &SimFs, records: &[Record]) -> bool {
    let (Some(last), Some(open)) = (records.last(), records.iter().rfind(|r| r.opens_batch)) else {
        return false;
    };
    let content = fs.content(&open.name).unwrap_or_default();
    let batch_bytes = record::u64_at(&content, open.offset + record::HEAD_BYTES);
    open.offset as u64 + batch_bytes > (last.offset + last.bytes) as u64
}

/// Whether a segment holds what another one has left behind.
fn leftovers(fs: &SimFs) -> bool {
    let names = super::super::WalFs::list(fs).unwrap();
    names.iter().any(|name| {
        let content = fs.content(name).unwrap_or_default();
        let id = segment::id(name);
        id.is_some_and(|id| matches!(segment::block(id, &content), Block::Emptied { .. }))
    })
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.cuts_while_opening += other.cuts_while_opening;
        self.tears += other.tears;
        self.recycled += other.recycled;
        self.unacked_found += other.unacked_found;
        self.unacked_gone += other.unacked_gone;
        self.segments_deleted += other.segments_deleted;
        self.damage_told += other.damage_told;
        self.last_batch_rotten += other.last_batch_rotten;
        self.installs += other.installs;
        self.removals += other.removals;
        self.sealed_max = self.sealed_max.max(other.sealed_max);
        self.ways.extend(other.ways.iter().cloned());
    }
}
