//! The library's log storage over a group's part of the write-ahead log.
//!
//! Appended entries are readable when `append` returns, from a decoded tail in memory or from the log
//! itself; the library's callback runs on the log's thread once they are durable. The order of votes and
//! entries is that of the log's queue. Nothing here decides what may be purged.

use super::encoding::{
    corrupt, decode_entry, decode_pos, decode_vote, encode_entry, encode_pos, encode_vote,
};
use super::lone::Lone;
use super::stages::Stages;
use super::tail::Tail;
use super::types::{Entry, LogId, TypeConfig, Vote};
use crate::faults::{self, Point};
use crate::storage::wal::{self, GroupLog};
use bytes::Bytes;
use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{oneshot, watch};

/// Bytes of entries in one AppendEntries request. Small enough that a retry is cheap and that a window of
/// them to a slow peer stays small; one entry larger than this travels alone.
pub const APPEND_BYTES_MAX: usize = 512 << 10;
/// Bytes read at a time for applying.
const APPLY_BYTES_MAX: usize = 1 << 20;
/// Decoded bytes kept of the newest entries of a group.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// A handle; clones share the tail. The library holds one for writing and one for each reader.
#[derive(Clone)]
pub struct LogStore {
    log: GroupLog,
    tail: Arc<Mutex<Tail>>,
    lone: Arc<Lone>,
    stages: Arc<Stages>,
    /// Index of the last entry.
    end: Arc<watch::Sender<u64>>,
    /// The same when it was opened.
    opened_at: u64,
}

fn stopped(error: wal::Error) -> io::Error {
    io::Error::other(error.to_string())
}

async fn durable(submit: impl FnOnce(wal::Done)) -> io::Result<()> {
    let (done, durable) = oneshot::channel();
    submit(Box::new(move |result| drop(done.send(result))));
    durable.await.map_err(|_| stopped(wal::Error::Stopped))?.map_err(stopped)
}

impl LogStore {
    /// Takes over what the log recovered.
    pub fn open(log: GroupLog) -> io::Result<Self> {
        let purged = log.purged().map(|bytes| decode_pos(&bytes)).transpose()?;
        let range = log.range();
        let mut last = purged;
        if !range.is_empty() {
            let newest = log.entries(range.end - 1..range.end, usize::MAX).map_err(stopped)?;
            let newest =
                newest.first().ok_or_else(|| corrupt("log", "the last entry is missing"))?;
            last = Some(decode_entry(newest)?.log_id);
        }
        let tail = Tail::new(TAIL_BYTES_MAX, range.end, last, purged, log.live_bytes());
        let opened_at = last.map_or(0, |id| id.index);
        let end = Arc::new(watch::Sender::new(opened_at));
        let (tail, lone, stages) = (Arc::new(Mutex::new(tail)), Arc::default(), Arc::default());
        Ok(Self { log, tail, lone, stages, end, opened_at })
    }

    /// How far the newest entries have got, and when.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// The vote saved last, encoded; nothing if there is none. Who grants a vote has saved it.
    pub fn vote(&self) -> Bytes {
        self.log.vote().unwrap_or_default()
    }

    /// Index of the last entry when the log was opened: up to here entries may have been answered for by an earlier
    /// life of this copy.
    pub fn opened_at(&self) -> u64 {
        self.opened_at
    }

    /// Whether this copy leads alone, as far as the log can tell.
    pub fn lone(&self) -> &Lone {
        &self.lone
    }

    /// The newest entry, or the base after a purge.
    pub fn last(&self) -> Option<LogId> {
        self.tail.lock().last()
    }

    /// Resolves once the log ends behind that index.
    pub async fn grown_beyond(&self, index: u64) {
        // The sender lives as long as this handle.
        let _ = self.end.subscribe().wait_for(|end| *end > index).await;
    }

    /// The newest entry that was purged.
    pub fn purged(&self) -> Option<LogId> {
        self.tail.lock().purged()
    }

    /// True once `index` is durable here or lies below the base.
    pub fn is_durable(&self, index: u64) -> bool {
        self.purged().is_some_and(|base| index <= base.index) || self.log.durable_end() > index
    }

    /// First index that must stay if `keep_bytes` of entries are to be kept.
    pub fn keep_from(&self, keep_bytes: u64) -> u64 {
        self.tail.lock().keep_from(keep_bytes)
    }

    /// Resolves when everything submitted so far is durable.
    pub async fn barrier(&self) -> io::Result<()> {
        durable(|done| self.log.barrier(done)).await
    }

    /// Clips a range to what is in the log.
    fn clip(&self, range: impl RangeBounds<u64>) -> Range<u64> {
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        let held = self.log.range();
        from.max(held.start)..to.min(held.end)
    }

    /// Entries from the start of a clipped range, at most `bytes_max`, at least one.
    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(vec![]);
        }
        if let Some(entries) = self.tail.lock().read(&range, bytes_max) {
            return Ok(entries);
        }
        let stored = self.log.entries(range.clone(), bytes_max).map_err(stopped)?;
        let entries: Vec<Entry> = stored.iter().map(decode_entry).collect::<io::Result<_>>()?;
        // A hole, or a start that was purged meanwhile, must never look like a shorter log.
        let follows = |(entry, index): (&Entry, u64)| entry.log_id.index == index;
        if entries.is_empty() || !entries.iter().zip(range.start..).all(follows) {
            return Err(corrupt("log", format!("no entries from index {}", range.start)));
        }
        Ok(entries)
    }

    /// All entries of a clipped range.
    fn read_all(&self, mut range: Range<u64>) -> io::Result<Vec<Entry>> {
        let mut all = vec![];
        while !range.is_empty() {
            let part = self.read(range.clone(), usize::MAX)?;
            range.start += part.len() as u64;
            all.extend(part);
        }
        Ok(all)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read_all(self.clip(range))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let range = self.clip(start..end);
        // Below the base: the library then sends an empty append and takes the snapshot path.
        if range.start != start { Ok(vec![]) } else { self.read(range, APPEND_BYTES_MAX) }
    }

    /// For applying: in parts, so that a copy that restarts far behind does not hold its whole log in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let parts =
            stream::try_unfold((self.clone(), self.clip(range)), |(log, mut range)| async move {
                if range.is_empty() {
                    return Ok::<_, io::Error>(None);
                }
                let part = log.read(range.clone(), APPLY_BYTES_MAX)?;
                range.start += part.len() as u64;
                Ok(Some((stream::iter(part.into_iter().map(Ok)), (log, range))))
            });
        Box::pin(futures_util::TryStreamExt::try_flatten(parts))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.vote().map(|bytes| decode_vote(&bytes)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged(), last_log_id: tail.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.lone.changed();
        faults::at(Point::VoteSave);
        durable(|done| self.log.save_vote(encode_vote(vote), done)).await?;
        faults::at(Point::VoteSaved);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.save_committed(encode_pos(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.log.committed().map(|bytes| decode_pos(&bytes)).transpose()
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        for entry in &entries {
            if matches!(entry.payload, EntryPayload::Membership(_)) {
                self.lone.membership_appended(entry.log_id.index);
            }
        }
        faults::at(Point::Append);
        let encoded: Vec<bytes::Bytes> = entries.iter().map(encode_entry).collect();
        let sizes: Vec<usize> = encoded.iter().map(bytes::Bytes::len).collect();
        let (stages, last) = (self.stages.clone(), first + entries.len() as u64 - 1);
        let done = move |result: Result<(), wal::Error>| {
            if result.is_ok() {
                stages.durable(last, Instant::now());
            }
            callback.io_completed(result.map_err(stopped));
        };
        self.log.append(first, encoded, Box::new(done));
        self.tail.lock().append(entries.into_iter().zip(sizes));
        self.end.send_replace(last);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.lone.changed();
        // The tail first: a reader must not find there what the log has forgotten.
        self.tail.lock().truncate(last);
        self.end.send_replace(last.map_or(0, |id| id.index));
        self.log.truncate(last.map_or(0, |id| id.index + 1));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.tail.lock().purge(upto);
        self.log.purge(upto.index, encode_pos(&upto));
        Ok(())
    }
}
