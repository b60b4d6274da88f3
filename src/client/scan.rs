//! Scans over all shards: asks the shards for pages, in parallel, and lets `merge` put them in order.

use super::exec::{Inner, level, malformed};
use super::merge::{Merge, Need};
use super::net::Net;
use super::route::want;
use super::{CallOptions, Page, ScanOptions, cursor};
use crate::types::{Code, Error, Result, ShardId, limits, slots};
use crate::wire::client::{ReplyBody, RequestBody, Scan, ScanReply};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use std::time::Instant;

/// Keys in a page of a scan that does not say.
const LIMIT_DEFAULT: usize = 100;
/// Shards asked at a time; with the bytes of a page this bounds what one scan holds.
const SHARDS_AT_A_TIME: usize = 64;

impl<N: Net> Inner<N> {
    /// A page of keys of all shards.
    pub(crate) async fn scan(&self, scan: &ScanOptions, options: &CallOptions) -> Result<Page> {
        let deadline = self.deadline(options.timeout);
        if scan.prefix.len() > limits::KEY_BYTES_MAX {
            let message = format!("a prefix has at most {} bytes", limits::KEY_BYTES_MAX);
            return Err(Error::new(Code::KeyTooLong, message));
        }
        let after = match &scan.cursor {
            Some(text) => Some(Bytes::from(cursor::decode(text, &scan.prefix)?)),
            None => None,
        };
        let limit = match scan.limit as usize {
            0 => LIMIT_DEFAULT,
            limit => limit.min(limits::SCAN_PAGE_MAX),
        };
        let view = self.ensure_map(options.retry, deadline).await?;
        let shards = shards_of_prefix(&scan.prefix, view.map.shards.len() as u16);
        let mut merge = Merge::new(shards, after, limit);
        while !merge.advance() {
            let ask = merge.ask_for();
            let pages = merge.needs().into_iter().map(|need| async move {
                let page = self.shard_page(scan, options, &need, ask, deadline).await;
                page.map(|page| (need, page))
            });
            let mut pages = stream::iter(pages).buffer_unordered(SHARDS_AT_A_TIME);
            while let Some(page) = pages.next().await {
                let (need, page) = page?;
                merge.feed(&need, page)?;
            }
        }
        Ok(merge.finish())
    }

    async fn shard_page(
        &self,
        scan: &ScanOptions,
        options: &CallOptions,
        need: &Need,
        limit: u32,
        deadline: Instant,
    ) -> Result<ScanReply> {
        let view = self.view();
        let asked = level(options, &view);
        let level = self.read_level(need.shard, asked, options.after, &view)?;
        let body = RequestBody::Scan(Scan {
            shard: need.shard,
            prefix: scan.prefix.clone(),
            after: need.after.clone(),
            limit,
            keys_only: scan.keys_only,
            level,
        });
        let want = want(false, view.map.strategy, asked, options.node.as_ref());
        match self.read(need.shard, &want, body, options.retry, deadline).await {
            Ok((ReplyBody::Scan(reply), _)) => {
                self.saw(need.shard, reply.token);
                Ok(reply)
            }
            Ok((_, node)) => Err(malformed(false, "another kind of answer", &node)),
            Err(error) => {
                self.after_refusal(need.shard, level, &error, deadline).await;
                Err(error)
            }
        }
    }
}

/// All shards, or the one that a complete `{tag}` in the prefix names.
fn shards_of_prefix(prefix: &[u8], shards: u16) -> Vec<ShardId> {
    let tag = prefix.iter().position(|b| *b == b'{').and_then(|open| {
        let bytes = prefix[open + 1..].iter().position(|b| *b == b'}')?;
        (bytes > 0).then_some(bytes)
    });
    match tag {
        Some(_) => vec![slots::shard_of(prefix, shards)],
        None => (0..shards).map(ShardId).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_tag_names_the_only_shard() {
        assert_eq!(shards_of_prefix(b"user:", 12).len(), 12);
        assert_eq!(shards_of_prefix(b"{user", 12).len(), 12, "the tag may go on");
        assert_eq!(shards_of_prefix(b"{}user", 12).len(), 12, "an empty tag is none");
        let one = shards_of_prefix(b"x{user1}", 12);
        assert_eq!(one, [slots::shard_of(b"x{user1}", 12)]);
        assert_eq!(one, [slots::shard_of(b"x{user1}anything}{else}", 12)]);
    }
}
