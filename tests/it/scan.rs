//! Scans: by prefix, in key order over all shards, page by page, each key once.

use crate::harness::{Cluster, Shape, anonymous_kib, set, within};
use bytes::Bytes;
use ppdb::client::{CallOptions, Client, ScanOptions};
use std::time::Duration;

/// Writes `count` keys `PREFIX0000000`, … in batches.
pub async fn fill(client: &Client, prefix: &str, count: usize) {
    let options = within(Duration::from_secs(60));
    let keys: Vec<usize> = (0..count).collect();
    for batch in keys.chunks(1_000) {
        let ops = batch.iter().map(|i| set(format!("{prefix}{i:07}"), format!("v{i}"))).collect();
        for answer in client.call(ops, &options).await {
            answer.expect("a write");
        }
    }
}

/// All pages, checked while they come: never more than `limit` keys, strictly ascending, of the prefix.
/// Returns the number of keys.
pub async fn scan_all(client: &Client, prefix: &str, limit: u32, options: &CallOptions) -> usize {
    let prefix = Bytes::copy_from_slice(prefix.as_bytes());
    let mut scan = ScanOptions { prefix: prefix.clone(), limit, ..ScanOptions::default() };
    let (mut count, mut last) = (0, Bytes::new());
    loop {
        let page = client.scan(&scan, options).await.expect("a page");
        assert!(page.entries.len() <= limit as usize);
        for (key, value) in page.entries {
            assert!(key > last && key.starts_with(&prefix), "{key:?} after {last:?}");
            assert_eq!(value.is_some(), !scan.keys_only);
            last = key;
            count += 1;
        }
        match page.cursor {
            Some(cursor) => scan.cursor = Some(cursor),
            None => return count,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_come_in_key_order_and_hold_every_key_once() {
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    let options = within(Duration::from_secs(20));
    fill(&client, "scan:a:", 3_000).await;
    fill(&client, "scan:b:", 50).await;
    fill(&client, "scan{tag}:", 250).await;
    assert_eq!(scan_all(&client, "scan:a:", 100, &options).await, 3_000);
    assert_eq!(scan_all(&client, "scan:a:", 1_000, &options).await, 3_000);
    assert_eq!(scan_all(&client, "scan:a:", 7, &options).await, 3_000);
    assert_eq!(scan_all(&client, "scan:a:00000", 100, &options).await, 100);
    assert_eq!(scan_all(&client, "scan:b:", 100, &options).await, 50);
    assert_eq!(scan_all(&client, "scan:", 100, &options).await, 3_050);
    assert_eq!(scan_all(&client, "scan{", 100, &options).await, 250, "all in one shard");
    assert_eq!(scan_all(&client, "", 500, &options).await, 3_300);
    assert_eq!(scan_all(&client, "nothing", 100, &options).await, 0);

    // Keys that come and go while the pages are read are seen or not; all others exactly once.
    let first = ScanOptions { prefix: "scan:b:".into(), limit: 20, ..ScanOptions::default() };
    let page = client.scan(&first, &options).await.expect("a page");
    fill(&client, "scan:b:0000", 30).await;
    let rest = ScanOptions { cursor: page.cursor, limit: 1_000, ..first.clone() };
    let rest = client.scan(&rest, &options).await.expect("a page");
    let old = |key: &Bytes| key.len() == "scan:b:".len() + 7;
    let seen = page.entries.iter().chain(&rest.entries).filter(|(key, _)| old(key)).count();
    assert_eq!(seen, 50);

    let keys_only = ScanOptions { keys_only: true, ..first.clone() };
    let page = client.scan(&keys_only, &options).await.expect("a page");
    assert!(page.entries.len() == 20 && page.entries.iter().all(|(_, value)| value.is_none()));
    let foreign = ScanOptions { cursor: Some("not a cursor".into()), ..first };
    assert!(client.scan(&foreign, &options).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "some minutes: run it with `cargo test --test it -- --ignored a_million`"]
async fn a_million_keys_are_scanned_in_bounded_memory() {
    const KEYS: usize = 1_000_000;
    let cluster = Cluster::start(Shape::default()).await;
    let client = cluster.client().await;
    fill(&client, "million:", KEYS).await;
    let pids: Vec<u32> =
        cluster.nodes.iter().filter_map(|node| node.pid()).chain([std::process::id()]).collect();
    let before: Vec<u64> = pids.iter().map(|pid| anonymous_kib(*pid).expect("a process")).collect();
    let options = within(Duration::from_secs(30));
    assert_eq!(scan_all(&client, "million:", 100, &options).await, KEYS);
    for (pid, before) in pids.iter().zip(before) {
        let grown = anonymous_kib(*pid).expect("a process").saturating_sub(before);
        assert!(grown < 64 << 10, "process {pid} grew by {grown} KiB during the scan");
    }
}
