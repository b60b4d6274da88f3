//! Pages and counts over live, expired and large records.

use super::*;
use crate::shard::scan::{Limits, Page, count, page};
use crate::types::ReadLevel;
use crate::wire::client::Scan;

fn scan(prefix: &str, after: Option<&str>, limit: u32) -> Scan {
    Scan {
        shard: ShardId(3),
        prefix: bytes(prefix),
        after: after.map(bytes),
        limit,
        keys_only: false,
        level: ReadLevel::Linearizable,
    }
}

/// A copy with `k00` to `k29`; those not divisible by ten expire at 2,000 and are not removed.
fn mostly_expired() -> Copy {
    let mut copy = Copy::new();
    let ops: Vec<Op> = (0..30)
        .map(|i| match i % 10 {
            0 => set(&format!("k{i:02}"), "v"),
            _ => set_ttl(&format!("k{i:02}"), "v", 1_000),
        })
        .collect();
    copy.request(1_000, &ops);
    copy
}

fn take(copy: &Copy, scan: &Scan, limits: &Limits, now_ms: u64) -> Page {
    copy.store.read(|view| page(view, scan, limits, now_ms)).unwrap().unwrap()
}

fn keys(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

fn limits() -> Limits {
    Limits { keys_max: 4, bytes_max: 1_000, visited_max: 7 }
}

#[test]
fn pages_end_by_limit_and_go_on_where_they_ended() {
    let copy = mostly_expired();
    let first = take(&copy, &scan("k", None, 3), &limits(), 1_000);
    assert_eq!(
        (keys(&first), first.next_after.clone()),
        (vec!["k00", "k01", "k02"], Some(bytes("k02")))
    );
    // The page's own bound holds whatever is asked for, and zero asks for one.
    assert_eq!(take(&copy, &scan("k", None, 99), &limits(), 1_000).entries.len(), 4);
    assert_eq!(take(&copy, &scan("k", None, 0), &limits(), 1_000).entries.len(), 1);
    let last = take(&copy, &scan("k", Some("k27"), 3), &limits(), 1_000);
    assert_eq!((keys(&last), last.next_after.clone()), (vec!["k28", "k29"], None));
    // Exactly as many as asked for, and no more behind them.
    let exact = take(&copy, &scan("k2", Some("k26"), 3), &limits(), 1_000);
    assert_eq!((exact.entries.len(), exact.next_after), (3, None));
    assert_eq!(take(&copy, &scan("x", None, 3), &limits(), 1_000), Page::default());
}

#[test]
fn a_run_of_expired_keys_ends_a_page_without_ending_the_scan() {
    let copy = mostly_expired();
    let (mut after, mut found, mut pages) = (None::<Bytes>, Vec::new(), 0);
    loop {
        let mut scan = scan("k", None, 4);
        scan.after = after.clone();
        let page = take(&copy, &scan, &limits(), 2_000);
        found.extend(page.entries.iter().map(|(key, _)| key.clone()));
        pages += 1;
        match page.next_after {
            None => break,
            Some(next) => {
                assert!(after.as_ref().is_none_or(|after| next > *after), "no progress");
                after = Some(next);
            }
        }
    }
    assert_eq!(found, ["k00", "k10", "k20"].map(bytes));
    // Thirty records, seven looked at for each page.
    assert_eq!(pages, 5);
}

#[test]
fn bytes_end_a_page_and_one_record_always_fits() {
    let mut copy = Copy::new();
    let large = "x".repeat(600);
    copy.request(
        1,
        &[set("a", &large), set("b", &large), set("c", &"x".repeat(2_000)), set("d", "")],
    );
    let one = take(&copy, &scan("", None, 4), &limits(), 1);
    assert_eq!((keys(&one), one.next_after.clone()), (vec!["a"], Some(bytes("a"))));
    let large = take(&copy, &scan("", Some("b"), 4), &limits(), 1);
    assert_eq!((keys(&large), large.next_after.clone()), (vec!["c"], Some(bytes("c"))));
    // Values that are left out do not count.
    let mut keys_only = scan("", None, 4);
    keys_only.keys_only = true;
    let page = take(&copy, &keys_only, &limits(), 1);
    assert_eq!(keys(&page), ["a", "b", "c", "d"]);
    assert!(page.entries.iter().all(|(_, value)| value.is_none()));
}

#[test]
fn counting_goes_in_steps_and_leaves_out_what_expired() {
    let copy = mostly_expired();
    for (now_ms, expected) in [(1_999, 30), (2_000, 3)] {
        for step in [1, 7, 30, 31] {
            let (mut total, mut after) = (0, None::<Vec<u8>>);
            loop {
                let counted =
                    |view: &dyn crate::storage::View| count(view, after.as_deref(), step, now_ms);
                let (keys, next) = copy.store.read(counted).unwrap().unwrap();
                total += keys;
                if next.is_none() {
                    break;
                }
                after = next;
            }
            assert_eq!(total, expected, "steps of {step} at {now_ms}");
        }
    }
}
