//! `keys big`: the largest values, and which prefixes have most, by a scan at the pace of the background.
//!
//! It rests as long as each page took, reads what the nearest copy has unless told otherwise, and says how far it looked.
//! A node that is busy refuses scans first of all; then it waits.

use super::args::live::BigArgs;
use super::live;
use super::output::escape;
use super::session::Call;
use super::strategy::document::show_size;
use super::value::{Answered, Doc, named_bytes};
use crate::client::{CallOptions, Client, Level, Page, ScanOptions};
use crate::types::{Class, Error, Result};
use bytes::Bytes;
use serde_json::{Map as JsonMap, Value as Json, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// Prefixes that are told apart, and the bytes of one; all others count as one.
const PREFIXES_MAX: usize = 1_000;
const PREFIX_BYTES_MAX: usize = 64;
/// Prefixes that are shown.
const PREFIXES_SHOWN: usize = 10;
/// Between two pages it rests at least and at most so long.
const REST_MIN: Duration = Duration::from_millis(5);
const REST_MAX: Duration = Duration::from_secs(2);
/// Pages in a row that may be refused.
const REFUSALS_MAX: u32 = 20;
/// The longest wait for a page: a shard that nobody answers for is told, and does not use up all the time.
const PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Where pages come from.
pub trait Pages {
    /// The next page.
    fn page(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
    ) -> impl Future<Output = Result<Page>> + Send;
}

impl Pages for Client {
    fn page(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
    ) -> impl Future<Output = Result<Page>> + Send {
        self.scan(scan, options)
    }
}

/// Looks until all keys were seen, a bound is reached, or Ctrl-C.
pub async fn run<P: Pages>(pages: &P, args: &BigArgs, call: &Call) -> Result<Answered> {
    let mut looked = Looked::new(args.limit.into(), args.cursor.clone());
    let until = live::end(call, Some(args.time));
    let looking = look(pages, args, call, until, &mut looked);
    let ended = tokio::select! {
        ended = looking => ended.inspect_err(|_| call.talk.ended())?,
        () = live::interrupted() => Stop::Interrupted,
    };
    call.talk.ended();
    let end = match ended {
        Stop::Interrupted => live::End::Interrupted,
        _ => live::End::Time,
    };
    Ok(end.of(Answered::doc(looked.doc(ended), None)))
}

/// Why it looked no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// There is nothing more.
    All,
    Keys,
    Time,
    Interrupted,
}

impl Stop {
    fn name(self) -> &'static str {
        match self {
            Stop::All => "all",
            Stop::Keys => "max_keys",
            Stop::Time => "time",
            Stop::Interrupted => "interrupted",
        }
    }
}

async fn look<P: Pages>(
    pages: &P,
    args: &BigArgs,
    call: &Call,
    until: Instant,
    looked: &mut Looked,
) -> Result<Stop> {
    let prefix = args.prefix.as_ref().map_or(&[][..], |prefix| prefix.as_bytes());
    let mut scan = ScanOptions {
        prefix: Bytes::copy_from_slice(prefix),
        cursor: args.cursor.clone(),
        limit: args.page,
        keys_only: false,
    };
    let usual = call.options(false)?;
    let nearest = Level::Local { max_staleness_ms: None };
    let level = usual.level.or(Some(nearest));
    let mut refusals = 0;
    loop {
        let began = Instant::now();
        let Some(left) = until.checked_duration_since(began).filter(|left| !left.is_zero()) else {
            return looked.out_of_time();
        };
        let room = args.max_keys.saturating_sub(looked.keys);
        scan.limit = args.page.min(u32::try_from(room).unwrap_or(u32::MAX));
        let options =
            CallOptions { level, timeout: left.min(call.left()).min(PAGE_WITHIN), ..usual.clone() };
        let rest = match pages.page(&scan, &options).await {
            Ok(page) => {
                refusals = 0;
                looked.add(&page);
                call.talk.progress(&format!("{} keys looked at", looked.keys));
                scan.cursor = page.cursor;
                if scan.cursor.is_none() {
                    return Ok(Stop::All);
                }
                if looked.keys >= args.max_keys {
                    return Ok(Stop::Keys);
                }
                began.elapsed().clamp(REST_MIN, REST_MAX)
            }
            Err(error) => {
                refusals += 1;
                looked.refused = Some(error.clone());
                rest_after(error, refusals)?
            }
        };
        tokio::time::sleep(rest.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// How long to wait after a refusal; an error if waiting does not help.
fn rest_after(error: Error, refusals: u32) -> Result<Duration> {
    if error.class() != Class::Retry || refusals > REFUSALS_MAX {
        return Err(error);
    }
    let asked = Duration::from_millis(error.retry_after_ms.unwrap_or_default().into());
    Ok(asked.max(REST_MIN * 2u32.saturating_pow(refusals.min(10))).min(REST_MAX))
}

/// What was seen.
#[derive(Debug)]
struct Looked {
    limit: usize,
    keys: u64,
    bytes: u64,
    /// The largest, the least of them on top.
    largest: BinaryHeap<Reverse<(u64, Bytes)>>,
    /// By prefix: keys and bytes. None is a key without a colon.
    prefixes: BTreeMap<Option<Bytes>, (u64, u64)>,
    /// Of prefixes for which there was no place.
    others: (u64, u64),
    /// For the next page; at first where the look began.
    cursor: Option<String>,
    /// Why that one is not there yet, where it was asked for.
    refused: Option<Error>,
}

impl Looked {
    fn new(limit: usize, cursor: Option<String>) -> Self {
        Self {
            limit,
            keys: 0,
            bytes: 0,
            largest: BinaryHeap::new(),
            prefixes: BTreeMap::new(),
            others: (0, 0),
            cursor,
            refused: None,
        }
    }

    /// What was seen is the answer. Where nothing was, what kept it from looking is told, and not passed off as the end of
    /// its time.
    fn out_of_time(&self) -> Result<Stop> {
        match &self.refused {
            Some(error) if self.keys == 0 => Err(error.clone()),
            _ => Ok(Stop::Time),
        }
    }

    fn add(&mut self, page: &Page) {
        for (key, value) in &page.entries {
            let bytes = value.as_ref().map_or(0, Bytes::len) as u64;
            self.keys += 1;
            self.bytes += bytes;
            let place = self.place(key);
            *place = (place.0 + 1, place.1 + bytes);
            let is_large = self.largest.len() < self.limit
                || self.largest.peek().is_some_and(|Reverse((least, _))| *least < bytes);
            if is_large {
                // Copied: a slice of the page would keep all of it in memory.
                self.largest.push(Reverse((bytes, Bytes::copy_from_slice(key))));
                if self.largest.len() > self.limit {
                    self.largest.pop();
                }
            }
        }
        (self.cursor, self.refused) = (page.cursor.clone(), None);
    }

    fn place(&mut self, key: &Bytes) -> &mut (u64, u64) {
        let colon = key.iter().position(|byte| *byte == b':');
        let prefix = colon.map(|at| &key[..=at]);
        if prefix.is_some_and(|prefix| prefix.len() > PREFIX_BYTES_MAX) {
            return &mut self.others;
        }
        let prefix = prefix.map(Bytes::copy_from_slice);
        match self.prefixes.len() < PREFIXES_MAX || self.prefixes.contains_key(&prefix) {
            true => self.prefixes.entry(prefix).or_default(),
            false => &mut self.others,
        }
    }

    fn doc(mut self, stop: Stop) -> Doc {
        let mut largest: Vec<(u64, Bytes)> =
            std::mem::take(&mut self.largest).into_iter().map(|Reverse(of)| of).collect();
        largest.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.cmp(other)));
        let mut prefixes: Vec<(&Option<Bytes>, &(u64, u64))> = self.prefixes.iter().collect();
        prefixes.sort_by_key(|(_, (_, bytes))| Reverse(*bytes));
        let keys: Vec<Json> = largest.iter().map(|(bytes, key)| key_json(key, *bytes)).collect();
        let by_prefix: Vec<Json> =
            prefixes.iter().map(|(prefix, of)| prefix_json(prefix, **of)).collect();
        let (others_keys, others_bytes) = self.others;
        let json = json!({
            "keys": keys, "looked_at": self.keys, "bytes": self.bytes, "stopped_by": stop.name(),
            "cursor": self.cursor, "prefixes": by_prefix,
            "refused": self.refused.as_ref().map(|error| error.message.as_str()),
            "other_prefixes": { "keys": others_keys, "bytes": others_bytes },
        });
        Doc {
            json,
            header: vec!["KEY", "BYTES"],
            rows: largest.iter().map(|(bytes, key)| vec![escape(key), bytes.to_string()]).collect(),
            notes: self.notes(stop, &prefixes),
        }
    }

    fn notes(&self, stop: Stop, prefixes: &[(&Option<Bytes>, &(u64, u64))]) -> Vec<String> {
        let all = format!("{} keys looked at, with {} bytes of values", self.keys, self.bytes);
        let from = self.cursor.as_deref();
        let from = from.map_or("from the start".into(), |cursor| format!("--cursor {cursor}"));
        let mut notes = vec![match stop {
            Stop::All => format!("{all}: all there are"),
            Stop::Keys => format!("{all}; there are more (--max-keys): {from}"),
            Stop::Time => format!("{all}; there are more (--for): {from}"),
            Stop::Interrupted => format!("{all}; there are more: {from}"),
        }];
        notes.extend(self.refused.as_ref().map(|error| format!("the next page: {error}")));
        for (prefix, (keys, bytes)) in prefixes.iter().take(PREFIXES_SHOWN) {
            let name = prefix.as_ref().map_or("(no colon)".to_owned(), |prefix| escape(prefix));
            let mean = bytes / (*keys).max(1);
            notes.push(format!("{name}  {keys} keys, {}, {mean} bytes each", show_size(*bytes)));
        }
        let (mut keys, mut bytes) = self.others;
        for (_, (more, of)) in prefixes.iter().skip(PREFIXES_SHOWN) {
            (keys, bytes) = (keys + more, bytes + of);
        }
        if keys > 0 {
            notes.push(format!("(others)  {keys} keys, {}", show_size(bytes)));
        }
        notes.push(String::new());
        notes
    }
}

fn key_json(key: &Bytes, bytes: u64) -> Json {
    let mut object = JsonMap::new();
    named_bytes(&mut object, "key", key);
    object.insert("bytes".into(), json!(bytes));
    Json::Object(object)
}

fn prefix_json(prefix: &Option<Bytes>, (keys, bytes): (u64, u64)) -> Json {
    let mut object = JsonMap::new();
    match prefix {
        Some(prefix) => named_bytes(&mut object, "prefix", prefix),
        None => drop(object.insert("prefix".into(), Json::Null)),
    }
    object.insert("keys".into(), json!(keys));
    object.insert("bytes".into(), json!(bytes));
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use crate::types::Code;
    use parking_lot::Mutex;

    /// Pages of so many keys, and what was asked.
    struct Keys {
        entries: Vec<(Bytes, Option<Bytes>)>,
        refused: Mutex<Vec<Error>>,
        /// What every page but the first ends with when its time is over.
        late: Mutex<Option<Error>>,
        asked: Mutex<Vec<(u32, Option<Level>)>>,
    }

    impl Keys {
        fn of(entries: impl IntoIterator<Item = (String, usize)>) -> Self {
            let entry = |(key, bytes): (String, usize)| {
                (Bytes::from(key), Some(Bytes::from(vec![b'v'; bytes])))
            };
            let entries = entries.into_iter().map(entry).collect();
            Self {
                entries,
                refused: Mutex::default(),
                late: Mutex::default(),
                asked: Mutex::default(),
            }
        }
    }

    impl Pages for Keys {
        async fn page(&self, scan: &ScanOptions, options: &CallOptions) -> Result<Page> {
            if let Some(error) = self.refused.lock().pop() {
                return Err(error);
            }
            let late = self.late.lock().clone().filter(|_| scan.cursor.is_some());
            if let Some(error) = late {
                tokio::time::sleep(options.timeout).await;
                return Err(error);
            }
            self.asked.lock().push((scan.limit, options.level));
            let from: usize = scan.cursor.as_ref().map_or(0, |at| at.parse().unwrap());
            let to = (from + scan.limit as usize).min(self.entries.len());
            let cursor = (to < self.entries.len()).then(|| to.to_string());
            Ok(Page { entries: self.entries[from..to].to_vec(), cursor })
        }
    }

    fn args(limit: u16, max_keys: u64) -> BigArgs {
        let time = Duration::from_secs(5);
        BigArgs { prefix: None, limit, max_keys, time, page: 7, cursor: None }
    }

    async fn found(keys: &Keys, args: &BigArgs) -> Result<Json> {
        let answered = run(keys, args, &testing::call(Duration::from_secs(20))).await?;
        let super::super::value::Value::Doc(doc) = answered.value else { panic!("no document") };
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
        Ok(doc.json)
    }

    #[tokio::test]
    async fn the_largest_are_found_and_prefixes_add_up() {
        let sizes = (0..40).map(|i| (format!("{}:{i}", ["cart", "user"][i % 2]), i));
        let keys = Keys::of(sizes.chain([("plain".to_owned(), 30)]));
        let json = found(&keys, &args(3, 1_000)).await.unwrap();
        let largest = json!([
            { "key": "user:39", "bytes": 39 }, { "key": "cart:38", "bytes": 38 },
            { "key": "user:37", "bytes": 37 },
        ]);
        assert_eq!(json["keys"], largest);
        assert_eq!((&json["looked_at"], &json["bytes"]), (&json!(41), &json!(810)));
        assert_eq!((&json["stopped_by"], &json["cursor"]), (&json!("all"), &Json::Null));
        assert_eq!(json["prefixes"][0], json!({ "prefix": "user:", "keys": 20, "bytes": 400 }));
        assert_eq!(json["prefixes"][2], json!({ "prefix": null, "keys": 1, "bytes": 30 }));
        let nearest = Some(Level::Local { max_staleness_ms: None });
        assert!(keys.asked.lock().iter().all(|asked| *asked == (7, nearest)));
    }

    #[tokio::test]
    async fn it_stops_where_it_was_told_to_and_says_where() {
        let keys = Keys::of((0..40).map(|i| (format!("k{i}"), i)));
        let json = found(&keys, &args(2, 10)).await.unwrap();
        assert_eq!((&json["looked_at"], &json["stopped_by"]), (&json!(10), &json!("max_keys")));
        assert_eq!(json["cursor"], "10");
        let rest = BigArgs { cursor: Some("10".into()), ..args(1, 1_000) };
        let json = found(&keys, &rest).await.unwrap();
        assert_eq!((&json["looked_at"], &json["keys"][0]["key"]), (&json!(30), &json!("k39")));
        let no_time = BigArgs { time: Duration::ZERO, ..args(1, 1_000) };
        assert_eq!(found(&keys, &no_time).await.unwrap()["stopped_by"], "time");
        let no_time = BigArgs { cursor: Some("10".into()), ..no_time };
        assert_eq!(found(&keys, &no_time).await.unwrap()["cursor"], "10", "nothing was looked at");
    }

    #[tokio::test]
    async fn it_waits_for_a_busy_node_and_not_for_what_does_not_pass() {
        let keys = Keys::of([("a".to_owned(), 1)]);
        let busy = || Error::new(Code::Overloaded, "busy").retry_after(1);
        *keys.refused.lock() = vec![busy(), busy()];
        assert_eq!(found(&keys, &args(1, 9)).await.unwrap()["looked_at"], 1);
        *keys.refused.lock() = vec![Error::new(Code::Denied, "no")];
        assert_eq!(found(&keys, &args(1, 9)).await.unwrap_err().code, Code::Denied);
        // What kept it from looking at anything is told, and is no end of its time.
        *keys.refused.lock() = (0..REFUSALS_MAX).map(|_| busy().retry_after(200)).collect();
        let short = BigArgs { time: Duration::from_millis(300), ..args(1, 9) };
        assert_eq!(found(&keys, &short).await.unwrap_err().code, Code::Overloaded);
        // What was looked at by then is not lost to a page that did not come in time.
        let keys = Keys::of((0..40).map(|i| (format!("k{i}"), i)));
        *keys.late.lock() = Some(Error::new(Code::DeadlineExceeded, "no answer in time"));
        let json = found(&keys, &short).await.unwrap();
        assert_eq!((&json["looked_at"], &json["stopped_by"]), (&json!(7), &json!("time")));
        assert_eq!((&json["cursor"], &json["refused"]), (&json!("7"), &json!("no answer in time")));
        assert!(rest_after(busy(), REFUSALS_MAX).is_ok());
        assert!(rest_after(busy(), REFUSALS_MAX + 1).is_err());
    }

    #[test]
    fn prefixes_are_bounded() {
        let mut looked = Looked::new(1, None);
        let entry = |key: String| (Bytes::from(key), Some(Bytes::from_static(b"vv")));
        let entries = (0..PREFIXES_MAX + 5).map(|i| entry(format!("p{i}:x"))).collect();
        looked.add(&Page { entries, cursor: None });
        let long = format!("{}:x", "p".repeat(PREFIX_BYTES_MAX));
        looked.add(&Page { entries: vec![entry(long), entry("p0:y".into())], cursor: None });
        assert_eq!((looked.prefixes.len(), looked.others), (PREFIXES_MAX, (6, 12)));
        assert_eq!(looked.prefixes[&Some("p0:".into())], (2, 4));
        let doc = looked.doc(Stop::All);
        assert_eq!(doc.notes.len(), 1 + PREFIXES_SHOWN + 1 + 1);
    }
}
