//! Merging the pages of many shards into one page in key order. Pure: pages in, a page out.
//!
//! Holds at most one page of each shard. Asks for the next page of a shard only once its last one is
//! used up, because until then its next key is known.

use super::Page;
use super::cursor;
use crate::types::{Code, Error, Result, ShardId, limits};
use crate::wire::client::ScanReply;
use bytes::Bytes;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

type Entry = (Bytes, Option<Bytes>);

/// A merge under way.
#[derive(Debug)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// First key of each source that has one.
    heads: BinaryHeap<Reverse<(Bytes, usize)>>,
    page: Vec<Entry>,
    page_bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Source {
    shard: ShardId,
    entries: VecDeque<Entry>,
    after: Option<Bytes>,
    more: bool,
}

/// A page of one shard that the merge needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Need {
    pub source: usize,
    pub shard: ShardId,
    pub after: Option<Bytes>,
}

impl Merge {
    /// Starts after a key, or at the beginning.
    pub(crate) fn new(
        shards: impl IntoIterator<Item = ShardId>,
        after: Option<Bytes>,
        limit: usize,
    ) -> Self {
        let source =
            |shard| Source { shard, entries: VecDeque::new(), after: after.clone(), more: true };
        Self {
            sources: shards.into_iter().map(source).collect(),
            heads: BinaryHeap::new(),
            page: vec![],
            page_bytes: 0,
            limit,
        }
    }

    /// Keys worth asking a shard for: its share of what is missing and as much again.
    pub(crate) fn ask_for(&self) -> u32 {
        let missing = self.limit.saturating_sub(self.page.len());
        let share = missing.div_ceil(self.sources.len().max(1));
        (2 * share + 8).min(missing.max(1)).min(limits::SCAN_PAGE_MAX) as u32
    }

    /// The pages without which the next key is not known; empty once the merge can go on or is over.
    pub(crate) fn needs(&self) -> Vec<Need> {
        let hungry = self.sources.iter().enumerate().filter(|(_, s)| s.hungry());
        hungry.map(|(source, s)| Need { source, shard: s.shard, after: s.after.clone() }).collect()
    }

    /// Takes a page of a shard over. One that is out of order or brings nothing on is refused: with it
    /// the scan would lose keys or never end.
    pub(crate) fn feed(&mut self, need: &Need, reply: ScanReply) -> Result<()> {
        let source = &mut self.sources[need.source];
        let mut last = source.after.as_ref();
        for (key, _) in &reply.entries {
            if last.is_some_and(|last| last >= key) {
                return Err(bad_page(source.shard, "keys out of order"));
            }
            last = Some(key);
        }
        // Where keys have expired, the next page may start behind the last key, also of an empty page.
        if let Some(next) = &reply.next_after
            && (last > Some(next) || source.after.as_ref().is_some_and(|after| after >= next))
        {
            return Err(bad_page(source.shard, "a continuation that does not go on"));
        }
        source.more = reply.next_after.is_some();
        source.after = reply.next_after;
        source.entries = reply.entries.into();
        if let Some((key, _)) = source.entries.front() {
            self.heads.push(Reverse((key.clone(), need.source)));
        }
        Ok(())
    }

    /// Moves keys to the page as far as they are known; true once the page is done.
    pub(crate) fn advance(&mut self) -> bool {
        let mut hungry = self.sources.iter().any(Source::hungry);
        while !self.full() {
            if hungry {
                return false;
            }
            let Some(Reverse((_, at))) = self.heads.pop() else { return true };
            let source = &mut self.sources[at];
            if let Some((key, value)) = source.entries.pop_front() {
                self.page_bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
                self.page.push((key, value));
            }
            match source.entries.front() {
                Some((key, _)) => self.heads.push(Reverse((key.clone(), at))),
                None => hungry = source.more,
            }
        }
        true
    }

    fn full(&self) -> bool {
        self.page.len() >= self.limit || self.page_bytes >= limits::SCAN_PAGE_BYTES_MAX
    }

    /// The page, with a cursor if there may be more.
    pub(crate) fn finish(self) -> Page {
        let more = !self.heads.is_empty() || self.sources.iter().any(|s| s.more);
        let last = self.page.last().filter(|_| more);
        Page { cursor: last.map(|(key, _)| cursor::encode(key)), entries: self.page }
    }
}

impl Source {
    fn hungry(&self) -> bool {
        self.entries.is_empty() && self.more
    }
}

fn bad_page(shard: ShardId, why: &str) -> Error {
    Error::new(Code::Internal, format!("{shard} sent a page with {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Token};
    use std::collections::BTreeMap;

    /// A shard that holds these keys, with pages of at most `page`.
    fn serve(keys: &[String], need: &Need, limit: u32, page: usize) -> ScanReply {
        let after = need.after.clone().unwrap_or_default();
        let mut left = keys.iter().filter(|k| k.as_bytes() > &after[..]);
        let take = page.min(limit as usize);
        let entries: Vec<Entry> = left
            .by_ref()
            .take(take)
            .map(|k| (Bytes::from(k.clone()), Some(Bytes::from_static(b"v"))))
            .collect();
        let token = Token { shard: need.shard, incarnation: Incarnation(0), index: 1 };
        let last = entries.last().map(|(key, _)| key.clone());
        ScanReply { entries, next_after: left.next().and(last), token }
    }

    /// Scans everything; returns the keys and the most entries held at once.
    fn scan_all(shards: &BTreeMap<u16, Vec<String>>, limit: usize, page: usize) -> Vec<String> {
        let (mut all, mut after) = (vec![], None);
        loop {
            let mut merge = Merge::new(shards.keys().map(|s| ShardId(*s)), after.take(), limit);
            while !merge.advance() {
                let ask = merge.ask_for();
                for need in merge.needs() {
                    let reply = serve(&shards[&need.shard.0], &need, ask, page);
                    merge.feed(&need, reply).unwrap();
                }
                let held: usize = merge.sources.iter().map(|s| s.entries.len()).sum();
                assert!(held <= shards.len() * (2 * limit.div_ceil(shards.len()) + 8));
            }
            let done = merge.finish();
            assert!(done.entries.len() <= limit);
            all.extend(done.entries.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()));
            match done.cursor {
                None => return all,
                Some(text) => after = Some(cursor::decode(&text, b"").unwrap().into()),
            }
        }
    }

    #[test]
    fn every_key_comes_once_and_in_order() {
        let keys: Vec<String> = (0..500).map(|i| format!("k{:04}", i * 7 % 500)).collect();
        for shard_count in [1u16, 3, 12] {
            for skew in [1u64, 97] {
                let mut shards: BTreeMap<u16, Vec<String>> =
                    (0..shard_count).map(|s| (s, vec![])).collect();
                for (i, key) in keys.iter().enumerate() {
                    let shard = (i as u64 * i as u64 / skew % shard_count as u64) as u16;
                    shards.get_mut(&shard).unwrap().push(key.clone());
                }
                shards.values_mut().for_each(|v| v.sort());
                let mut expected = keys.clone();
                expected.sort();
                for (limit, page) in [(1, 1), (7, 3), (100, 1_000), (1_000, 10)] {
                    let got = scan_all(&shards, limit, page);
                    assert_eq!(got, expected, "{shard_count} shards, {limit} of {page}");
                }
            }
        }
    }

    #[test]
    fn a_page_ends_early_by_bytes() {
        let mut merge = Merge::new([ShardId(0)], None, 1_000);
        let value = Bytes::from(vec![0; limits::SCAN_PAGE_BYTES_MAX / 2]);
        let entries = (0..5).map(|i| (Bytes::from(vec![i]), Some(value.clone()))).collect();
        let token = Token { shard: ShardId(0), incarnation: Incarnation(0), index: 1 };
        let need = merge.needs().remove(0);
        merge.feed(&need, ScanReply { entries, next_after: None, token }).unwrap();
        assert!(merge.advance());
        let page = merge.finish();
        assert_eq!(page.entries.len(), 2);
        assert_eq!(page.cursor, Some(cursor::encode(&[1])));
    }

    #[test]
    fn pages_that_would_lose_keys_or_never_end_are_refused() {
        let token = Token { shard: ShardId(0), incarnation: Incarnation(0), index: 1 };
        let key = |k: &'static str| (Bytes::from_static(k.as_bytes()), None);
        for (entries, next_after) in [
            (vec![], Some("a")),
            (vec![key("b"), key("c")], Some("b")),
            (vec![key("b"), key("a")], None),
            (vec![key("b"), key("b")], None),
            (vec![key("A")], None),
        ] {
            let mut merge = Merge::new([ShardId(0)], Some(Bytes::from_static(b"a")), 10);
            let need = merge.needs().remove(0);
            let next_after = next_after.map(|k: &str| Bytes::copy_from_slice(k.as_bytes()));
            let error = merge.feed(&need, ScanReply { entries, next_after, token }).unwrap_err();
            assert_eq!(error.code, Code::Internal);
        }
    }

    #[test]
    fn an_empty_page_may_go_on_behind_keys_that_expired() {
        let mut merge = Merge::new([ShardId(0)], None, 10);
        let token = Token { shard: ShardId(0), incarnation: Incarnation(0), index: 1 };
        let behind = Some(Bytes::from_static(b"m"));
        let need = merge.needs().remove(0);
        let passed = ScanReply { entries: vec![], next_after: behind.clone(), token };
        merge.feed(&need, passed).unwrap();
        assert!(!merge.advance());
        let need = merge.needs().remove(0);
        assert_eq!(need.after, behind);
        let entries = vec![(Bytes::from_static(b"z"), None)];
        merge.feed(&need, ScanReply { entries, next_after: None, token }).unwrap();
        assert!(merge.advance());
        assert_eq!(merge.finish().entries.len(), 1);
    }

    #[test]
    fn nothing_found_is_an_empty_page_without_a_cursor() {
        let mut merge = Merge::new([ShardId(0), ShardId(1)], None, 10);
        let token = Token { shard: ShardId(0), incarnation: Incarnation(0), index: 1 };
        for need in merge.needs() {
            merge.feed(&need, ScanReply { entries: vec![], next_after: None, token }).unwrap();
        }
        assert!(merge.advance());
        assert_eq!(merge.finish(), Page { entries: vec![], cursor: None });
    }
}
