//! `del --prefix`: how many keys there are, and deleting them in bounded batches.
//!
//! The keys are read page by page and deleted as they come, so a key that is written behind the place where the deletion
//! is stays. What was deleted is counted exactly, however it ends.

use super::args::Data;
use super::data::Stand;
use super::output::escape;
use super::talk::Talk;
use super::value::{Answered, Doc, Done, Failure, named_bytes};
use crate::client::{CallOptions, Client, Level, Page, ScanOptions};
use crate::types::{Class, Code, Error, Op, OpResult, Result, limits};
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long it may take unless `--timeout` on the same line says otherwise.
pub const SWEEP_DEFAULT: Duration = Duration::from_secs(600);
/// Keys in a page that is counted.
const PAGE_KEYS: u32 = limits::SCAN_PAGE_MAX as u32;
/// Keys deleted at a time; fewer if the cluster takes fewer.
const BATCH_KEYS: usize = 512;
/// Keys counted before somebody is asked: whoever deletes more knows that it is a lot.
const COUNT_MAX: u64 = 100_000;
/// Keys shown before somebody is asked.
const SAMPLES: usize = 3;
/// Between two lines about how far it is, where a line is not written over.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The prefix that a command deletes, and whether it only counts; none if it deletes keys that it names.
pub fn asked(data: &Data, stand: &Stand) -> Option<(Bytes, bool)> {
    match data {
        Data::Del { prefix: Some(prefix), dry_run, .. } => Some((stand.bytes(prefix), *dry_run)),
        _ => None,
    }
}

/// Where keys are: the client, or a twin of it.
pub(super) trait Table {
    /// A page of keys without their values.
    async fn page(&self, scan: &ScanOptions, timeout: Duration) -> Result<Page>;
    /// Deletes keys: whether each was there.
    async fn delete(&self, keys: &[Bytes], timeout: Duration) -> Vec<Result<bool>>;
}

impl Table for Client {
    async fn page(&self, scan: &ScanOptions, timeout: Duration) -> Result<Page> {
        // Whatever the usual level is: what is not seen is not deleted.
        let level = Some(Level::Linearizable);
        self.scan(scan, &CallOptions { level, timeout, ..CallOptions::default() }).await
    }

    async fn delete(&self, keys: &[Bytes], timeout: Duration) -> Vec<Result<bool>> {
        let ops = keys.iter().map(|key| Op::Del { key: key.clone() }).collect();
        let answers = self.call(ops, &CallOptions { timeout, ..CallOptions::default() }).await;
        let existed = |result| match result {
            OpResult::Failed(code) => Err(Error::new(code, "the key could not be deleted")),
            result => Ok(result == OpResult::Bool(true)),
        };
        answers.into_iter().map(|answer| answer.and_then(|answer| existed(answer.result))).collect()
    }
}

/// How many keys have a prefix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// So many were seen.
    pub keys: u64,
    /// There are more.
    pub more: bool,
    /// The first of them.
    pub samples: Vec<Bytes>,
}

impl Count {
    /// For whoever is asked.
    pub fn words(&self, prefix: &Bytes) -> String {
        let samples: Vec<String> =
            self.samples.iter().map(|key| format!("`{}`", escape(key))).collect();
        let at_least = if self.more { "more than " } else { "" };
        let which = match prefix.is_empty() {
            true => "in the whole cluster".to_owned(),
            false => format!("with the prefix `{}`", escape(prefix)),
        };
        format!("{at_least}{} keys {which}, such as {}", self.keys, samples.join(", "))
    }

    fn answer(&self, prefix: &Bytes) -> Answered {
        let mut json = Map::new();
        named_bytes(&mut json, "prefix", prefix);
        let sample = |key: &Bytes| {
            let mut json = Map::new();
            named_bytes(&mut json, "key", key);
            Json::Object(json)
        };
        json.insert("keys".into(), json!(self.keys));
        json.insert("samples".into(), self.samples.iter().map(sample).collect());
        json.insert("deleted".into(), json!(0));
        json.insert("dry_run".into(), json!(true));
        let notes = match self.keys {
            0 => vec![],
            _ => vec![self.words(prefix)],
        };
        let rows = vec![vec![self.keys.to_string()]];
        let doc = Doc { json: Json::Object(json), header: vec!["KEYS"], rows, notes };
        Answered { yes: self.keys > 0, ..Answered::doc(doc, None) }
    }
}

/// How far it is; it outlives whoever stops waiting.
#[derive(Clone, Default)]
pub struct Progress {
    deleted: Arc<AtomicU64>,
    underway: Arc<AtomicU64>,
}

impl Progress {
    /// One that has come so far.
    #[cfg(test)]
    pub fn of(deleted: u64, underway: u64) -> Self {
        let [deleted, underway] = [deleted, underway].map(|count| Arc::new(AtomicU64::new(count)));
        Self { deleted, underway }
    }

    /// A sentence about what was done, for whoever stops waiting; none if nothing was begun.
    pub fn left_early(&self) -> Option<String> {
        let (deleted, underway) =
            (self.deleted.load(Ordering::Relaxed), self.underway.load(Ordering::Relaxed));
        (deleted + underway > 0).then(|| {
            format!(
                "{deleted} keys were deleted; {underway} more were asked for, and may or may not be"
            )
        })
    }
}

/// How one deletion is carried out.
pub struct Sweep<'a> {
    /// Which keys.
    pub prefix: Bytes,
    /// When its time is up.
    pub deadline: Instant,
    /// How far it is.
    pub progress: &'a Progress,
    /// Where a person sees how far it is.
    pub talk: Talk,
    /// Standard error is a file: a line now and then.
    pub log: bool,
}

fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(Error::new(Code::DeadlineExceeded, "the time was over")),
        false => Ok(left),
    }
}

/// Counts the keys, up to `max`.
pub(super) async fn count<T: Table>(
    table: &T,
    prefix: &Bytes,
    max: Option<u64>,
    deadline: Instant,
) -> Result<Count> {
    let mut scan =
        ScanOptions { prefix: prefix.clone(), limit: PAGE_KEYS, keys_only: true, cursor: None };
    let mut count = Count::default();
    loop {
        let page = table.page(&scan, left(deadline)?).await?;
        count.keys += page.entries.len() as u64;
        let wanted = SAMPLES - count.samples.len();
        count.samples.extend(page.entries.into_iter().take(wanted).map(|(key, _)| key));
        count.more = page.cursor.is_some();
        scan.cursor = page.cursor;
        if !count.more || max.is_some_and(|max| count.keys >= max) {
            return Ok(count);
        }
    }
}

/// The keys that somebody is asked about.
pub(super) async fn preview<T: Table>(
    table: &T,
    prefix: &Bytes,
    deadline: Instant,
) -> Result<Count> {
    count(table, prefix, Some(COUNT_MAX), deadline).await
}

/// `--dry-run`: counts all of them and deletes none.
pub async fn dry_run(client: &Client, prefix: &Bytes, deadline: Instant) -> Done {
    Ok(count(client, prefix, None, deadline).await?.answer(prefix))
}

impl Sweep<'_> {
    /// Deletes every key with the prefix; answers how many there were.
    pub(super) async fn run<T: Table>(self, table: &T) -> Done {
        let ended = self.delete(table).await;
        self.talk.close_line();
        let count = self.progress.deleted.load(Ordering::Relaxed);
        let unknown = match &ended {
            Ok(()) => 0,
            Err(_) => self.progress.underway.load(Ordering::Relaxed),
        };
        match ended {
            Ok(()) => Ok(deleted(&self.prefix, count)),
            Err(error) => Err(stopped(error, count, unknown)),
        }
    }

    /// What stays in `underway` when it fails may have been deleted.
    async fn delete<T: Table>(&self, table: &T) -> Result<()> {
        let prefix = self.prefix.clone();
        let mut scan = ScanOptions { prefix, limit: PAGE_KEYS, keys_only: true, cursor: None };
        let (mut batch, mut told) = (BATCH_KEYS, Instant::now());
        loop {
            let page = table.page(&scan, left(self.deadline)?).await?;
            let mut keys: Vec<Bytes> = page.entries.into_iter().map(|(key, _)| key).collect();
            while !keys.is_empty() {
                let size = batch.min(keys.len());
                let rest = self.one_batch(table, &keys[..size]).await?;
                // The cluster takes fewer at a time: these come again.
                if !rest.is_empty() {
                    batch = (batch / 2).max(1);
                }
                keys.splice(..size, rest);
                self.say(&mut told);
            }
            scan.cursor = page.cursor;
            if scan.cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Deletes some keys; answers those that were too many at a time.
    async fn one_batch<T: Table>(&self, table: &T, keys: &[Bytes]) -> Result<Vec<Bytes>> {
        let timeout = left(self.deadline)?;
        self.progress.underway.store(keys.len() as u64, Ordering::Relaxed);
        let results = table.delete(keys, timeout).await;
        let (mut deleted, mut unknown, mut rest, mut failed) = (0, 0, Vec::new(), None);
        for (key, result) in keys.iter().zip(results) {
            match result {
                Ok(existed) => deleted += u64::from(existed),
                Err(error) if error.code == Code::BatchTooLarge && keys.len() > 1 => {
                    rest.push(key.clone())
                }
                Err(error) => {
                    unknown += u64::from(error.class() == Class::Uncertain);
                    failed = Some(error);
                }
            }
        }
        self.progress.deleted.fetch_add(deleted, Ordering::Relaxed);
        self.progress.underway.store(unknown, Ordering::Relaxed);
        failed.map_or(Ok(rest), Err)
    }

    fn say(&self, told: &mut Instant) {
        let text = format!("{} keys deleted", self.progress.deleted.load(Ordering::Relaxed));
        self.talk.progress(&text);
        if self.log && told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            // A file that cannot be written does not end the deletion.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}

/// The answer: so many keys with the prefix were deleted.
pub fn deleted(prefix: &Bytes, deleted: u64) -> Answered {
    let mut json = Map::new();
    named_bytes(&mut json, "prefix", prefix);
    json.insert("deleted".into(), json!(deleted));
    json.insert("dry_run".into(), json!(false));
    let rows = vec![vec![deleted.to_string()]];
    let doc = Doc { json: Json::Object(json), header: vec!["DELETED"], rows, notes: vec![] };
    Answered { yes: deleted > 0, ..Answered::doc(doc, None) }
}

/// It failed in the middle: neither done nor not done, with what was.
fn stopped(error: Error, deleted: u64, unknown: u64) -> Failure {
    if deleted + unknown == 0 {
        return error.into();
    }
    let perhaps = match unknown {
        0 => String::new(),
        _ => format!(", {unknown} more may have been"),
    };
    let message = format!("{deleted} keys were deleted{perhaps}, then it ended: {error}");
    Failure {
        details: Some(Box::new(json!({ "deleted": deleted, "unknown": unknown }))),
        ..Error::new(Code::Unknown, message).into()
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
