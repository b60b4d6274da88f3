//! Shard time, visibility and removal.

use super::*;
use crate::shard::expiry::{REMOVALS_MAX, TICK_REMOVALS_MAX, first_due_ms};
use crate::shard::keys;

fn visible(copy: &Copy, key: &str) -> bool {
    let now_ms = copy.state().now_ms;
    copy.store.read(|view| keys::live(view, key.as_bytes(), now_ms)).unwrap().unwrap().is_some()
}

#[test]
fn shard_time_is_the_highest_stamp_and_survives_a_restart() {
    let mut copy = Copy::new();
    copy.request(2_000, &[set_ttl("k", "v", 100)]);
    copy.apply(1_000, vec![Item::Tick]);
    assert_eq!(copy.state(), State { now_ms: 2_000, index: 2 });
    copy.reload();
    // A leader with a slow clock does not bring a key back, nor does it give one more time.
    copy.request(1_500, &[set_ttl("late", "v", 100)]);
    assert_eq!(copy.stored("late"), "v@2100");
    assert!(visible(&copy, "k"));
    copy.apply(2_100, vec![Item::Tick]);
    assert!(!visible(&copy, "k"));
    copy.apply(1, vec![Item::Tick]);
    assert!(!visible(&copy, "k"));
}

#[test]
fn a_key_is_gone_exactly_at_its_time_and_removed_with_that_entry() {
    let mut copy = Copy::new();
    copy.request(1_000, &[set_ttl("k", "v", 100)]);
    copy.apply(1_099, vec![Item::Tick]);
    assert!(visible(&copy, "k"));
    copy.apply(1_100, vec![Item::Tick]);
    assert!(!visible(&copy, "k"));
    assert_eq!(copy.stored("k"), "-");
    assert!(copy.records(Space::Expiry).is_empty());
}

#[test]
fn removal_is_bounded_ordered_and_goes_on_after_a_restart() {
    let mut copy = Copy::new();
    let count = REMOVALS_MAX + TICK_REMOVALS_MAX + 10;
    let ops: Vec<Op> =
        (0..count).map(|i| set_ttl(&format!("k{i:05}"), "v", 5_000 - i as u64)).collect();
    for ops in ops.chunks(1_000) {
        copy.request(1_000, ops);
    }
    copy.request(10_000, &[set("other", "v")]);
    assert_eq!(copy.records(Space::Data).len(), count - REMOVALS_MAX + 1);
    // Those that expired first are the last ones written; all are out of sight.
    assert_eq!(copy.stored(&format!("k{:05}", count - REMOVALS_MAX)), "-");
    assert_eq!(
        copy.stored(&format!("k{:05}", count - REMOVALS_MAX - 1)),
        format!("v@{}", 6_000 - count + REMOVALS_MAX + 1)
    );
    assert!((0..count).all(|i| !visible(&copy, &format!("k{i:05}"))));
    copy.check_index();

    copy.reload();
    copy.apply(10_000, vec![Item::Tick]);
    assert_eq!(copy.records(Space::Data).len(), 11);
    copy.apply(10_000, vec![Item::Tick]);
    assert_eq!(copy.records(Space::Data).len(), 1);
    assert!(copy.records(Space::Expiry).is_empty());
}

#[test]
fn a_set_reads_what_it_replaces_only_where_that_may_be_in_the_index() {
    let mut copy = Copy::new();
    // A record that nobody can read any more.
    let mut writer = copy.store.write();
    writer.put(Space::Data, b"bad", Bytes::from_static(b"\xff"));
    writer.commit(Applied::default());
    assert_eq!(copy.request(1_000, &[set("bad", "1")]), [OpResult::Done]);
    assert_eq!(copy.stored("bad"), "1");

    // From the first key with an expiry on, also across a restart, what is replaced counts.
    copy.request(1_000, &[set_ttl("k", "1", 500)]);
    copy.request(1_000, &[set_ttl("k", "2", 700)]);
    copy.check_index();
    copy.reload();
    copy.request(1_000, &[set("k", "3")]);
    copy.check_index();
    copy.request(2_000, &[set("other", "1")]);
    assert_eq!(copy.stored("k"), "3");

    // The index is known to be empty again once its last time has passed.
    let mut writer = copy.store.write();
    writer.put(Space::Data, b"bad", Bytes::from_static(b"\xff"));
    writer.commit(Applied::default());
    assert_eq!(copy.request(2_000, &[set("bad", "2")]), [OpResult::Done]);
}

#[test]
fn a_key_written_again_is_not_removed_by_its_old_time() {
    let mut copy = Copy::new();
    copy.request(1_000, &[set_ttl("a", "1", 100), set_ttl("b", "1", 100), set_ttl("c", "1", 100)]);
    copy.request(1_050, &[set("a", "2"), set_ttl("b", "2", 500), Op::Persist { key: bytes("c") }]);
    // Written in the very entry that would remove it.
    copy.request(1_100, &[set_ttl("d", "1", 10)]);
    copy.request(1_200, &[set("d", "2")]);
    assert_eq!(["a", "b", "c", "d"].map(|key| copy.stored(key)), ["2", "2@1550", "1", "2"]);
    copy.check_index();
}

#[test]
fn the_first_time_due_is_known() {
    let mut copy = Copy::new();
    let first = |copy: &Copy| copy.store.read(first_due_ms).unwrap().unwrap();
    assert_eq!(first(&copy), None);
    copy.request(1_000, &[set_ttl("a", "1", 500), set_ttl("b", "1", 100)]);
    assert_eq!(first(&copy), Some(1_100));
    copy.request(1_200, &[]);
    assert_eq!(first(&copy), Some(1_500));
    copy.request(2_000, &[]);
    assert_eq!(first(&copy), None);
}
