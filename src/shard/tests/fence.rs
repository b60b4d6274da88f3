//! The fence as a part of the state: what raises it, what is refused, and where it lives.

use super::*;
use crate::shard::fence::Fence;

fn fence(operation: u64, turn: u64) -> Item<'static> {
    Item::Fence { operation, turn }
}

fn highest(copy: &Copy) -> (u64, u64) {
    copy.store.read(Fence::highest).unwrap().unwrap().into()
}

#[test]
fn a_lower_fence_is_refused_and_an_equal_one_accepted() {
    let mut copy = Copy::new();
    assert_eq!(highest(&copy), (0, 0));
    let refused = Reply::Refused(Code::Superseded);
    let story = [
        ((1, 1), Reply::Done, (1, 1)),
        ((1, 1), Reply::Done, (1, 1)),
        ((1, 7), Reply::Done, (1, 7)),
        ((1, 6), refused.clone(), (1, 7)),
        ((0, 9), refused.clone(), (1, 7)),
        ((2, 1), Reply::Done, (2, 1)),
        ((1, 8), refused.clone(), (2, 1)),
        ((2, 1), Reply::Done, (2, 1)),
    ];
    for ((operation, turn), reply, after) in story {
        assert_eq!(copy.apply(0, vec![fence(operation, turn)]), [reply], "{operation}, {turn}");
        assert_eq!(highest(&copy), after, "{operation}, {turn}");
        // Nothing of it is only in memory.
        copy.reload();
        assert_eq!(highest(&copy), after, "{operation}, {turn}");
    }
}

#[test]
fn fences_that_share_an_entry_are_judged_in_order() {
    let mut copy = Copy::new();
    let replies = copy.apply(0, vec![fence(3, 1), fence(2, 9), Item::Tick, fence(3, 2)]);
    let refused = Reply::Refused(Code::Superseded);
    assert_eq!(replies, [Reply::Done, refused, Reply::Done, Reply::Done]);
    assert_eq!(highest(&copy), (3, 2));
}

#[test]
fn the_fence_is_in_the_table_and_in_the_digest() {
    let mut copies = [Copy::new(), Copy::new()];
    copies[0].apply(5, vec![fence(1, 1)]);
    copies[1].apply(5, vec![Item::Tick]);
    let digests = copies.each_ref().map(|copy| copy.digest().sha256);
    assert_ne!(digests[0], digests[1]);
    assert_eq!(highest(&copies[0]), (1, 1));
    let keys = copies.each_ref().map(|copy| copy.records(Space::Meta).len());
    assert_eq!(keys, [2, 1]);
    // A fence that is refused leaves no trace.
    copies[1].apply(6, vec![fence(4, 1)]);
    let before = copies[1].records(Space::Meta);
    copies[1].apply(6, vec![fence(3, 9)]);
    let after = copies[1].records(Space::Meta);
    let of_fence = |records: &[(Vec<u8>, Bytes)]| records[0].clone();
    assert_eq!(of_fence(&before).0, b"fence");
    assert_eq!(of_fence(&before), of_fence(&after));
}
