//! Stored bytes of entries, votes and memberships: golden, and refusals of what is not one.

use super::*;
use openraft::errors::Infallible;

fn at(term: u64, leader: u64, index: u64) -> LogPos {
    LogPos { term, leader, index }
}

fn normal(index: u64, payload: &'static [u8]) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from_static(payload)));
    Entry { log_id: log_id(at(2, 1, index)), payload }
}

fn members() -> RaftMembership {
    let nodes = [(1, 10), (300, 20)].map(|(id, n)| (id, Member { node: NodeId(n) }));
    RaftMembership::new(vec![BTreeSet::from([1])], BTreeMap::from(nodes)).unwrap()
}

#[test]
fn a_quorum_is_a_majority_of_each_set_of_voters() {
    let record = |configs: &[&[u64]]| MembershipRecord {
        body: MembershipBody {
            configs: configs.iter().map(|voters| voters.iter().copied().collect()).collect(),
            ..MembershipBody::default()
        },
        ..MembershipRecord::default()
    };
    let three = record(&[&[1, 2, 3]]);
    assert!(
        three.is_quorum(&BTreeSet::from([1, 2]))
            && !three.is_quorum(&BTreeSet::from([1]))
            && !three.is_quorum(&BTreeSet::from([1, 4]))
    );
    assert!(record(&[&[1]]).is_quorum(&BTreeSet::from([1, 4])));
    assert!(!record(&[&[1, 2, 3, 4]]).is_quorum(&BTreeSet::from([1, 2])), "half is no majority");
    assert!(!record(&[&[1, 2, 3, 4, 5]]).is_quorum(&BTreeSet::from([1, 2])));
    let joint = record(&[&[1], &[1, 2, 3]]);
    assert!(
        joint.is_quorum(&BTreeSet::from([1, 2]))
            && !joint.is_quorum(&BTreeSet::from([2, 3]))
            && !joint.is_quorum(&BTreeSet::from([1, 4]))
    );
    assert!(!record(&[]).is_quorum(&BTreeSet::from([1, 2])), "nobody may vote");
}

/// Bytes that an older build wrote. They never change; a new form gets a new test beside them.
#[test]
fn stored_forms_have_golden_bytes() {
    let blank = Entry { log_id: log_id(at(1, 7, 300)), payload: EntryPayload::Blank };
    assert_eq!(&encode_entry(&blank)[..], [1, 1, 7, 0xac, 2, 0]);
    assert_eq!(&encode_entry(&normal(5, b"abc"))[..], [1, 2, 1, 5, 1, 3, b'a', b'b', b'c']);
    let entry = Entry { log_id: log_id(at(2, 1, 6)), payload: EntryPayload::Membership(members()) };
    let body = [1, 1, 1, 1, 2, 1, 10, 0xac, 2, 20];
    assert_eq!(&encode_entry(&entry)[..], [&[1, 2, 1, 6, 2, 10][..], &body].concat());
    let vote = Vote::from(VoteRecord { term: 4, leader: 9, committed: true });
    assert_eq!(&encode_vote(&vote)[..], [1, 4, 9, 1]);
    assert_eq!(&encode_pos(&log_id(at(4, 9, 1)))[..], [1, 4, 9, 1]);
    let record = MembershipRecord::default().next(at(2, 1, 6), &members());
    assert_eq!(&record.encode()[..], [1, 1, 2, 1, 6, 1, 1, 1, 2, 1, 10, 0xac, 2, 20, 0]);
    assert!(MembershipRecord::default().encode().is_empty());
}

#[test]
fn entries_come_back_and_share_the_buffer() {
    for entry in [
        Entry { log_id: log_id(at(1, 7, 300)), payload: EntryPayload::Blank },
        normal(5, b"abc"),
        normal(6, b""),
        Entry { log_id: log_id(at(2, 1, 6)), payload: EntryPayload::Membership(members()) },
    ] {
        let bytes = encode_entry(&entry);
        assert_eq!(decode_entry(&bytes).unwrap(), entry);
        for cut in 0..bytes.len() {
            assert!(decode_entry(&bytes.slice(..cut)).is_err(), "{cut} of {}", bytes.len());
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(decode_entry(&longer).is_err());
    }
    let bytes = encode_entry(&normal(5, b"abc"));
    let EntryPayload::Normal(payload) = decode_entry(&bytes).unwrap().payload else { panic!() };
    assert_eq!(payload.0.as_ptr(), bytes[6..].as_ptr());
}

#[test]
fn appends_come_back_and_holes_are_refused() {
    let mut request = AppendRequest {
        vote: VoteRecord { term: 2, leader: 1, committed: true }.into(),
        prev_log_id: Some(log_id(at(2, 1, 4))),
        leader_commit: Some(log_id(at(2, 1, 3))),
        entries: vec![normal(5, b"abc"), normal(6, b"d")],
    };
    for heartbeat in [false, true] {
        let body = encode_append(&request, heartbeat);
        assert_eq!(is_heartbeat(&body), heartbeat);
        let back = decode_append(&body).unwrap();
        assert_eq!(back.entries, request.entries);
        assert_eq!(
            (back.vote, back.prev_log_id, back.leader_commit),
            (request.vote, request.prev_log_id, request.leader_commit)
        );
    }
    request.entries.remove(0);
    assert!(decode_append(&encode_append(&request, false)).is_err());
    assert!(decode_append(&Bytes::new()).is_err());
    assert!(decode_append(&Bytes::from_static(&[1])).is_err());
}

#[test]
fn removed_members_are_remembered_until_there_are_too_many() {
    let of = |ids: &[u64]| {
        let nodes: BTreeMap<u64, Member> = ids.iter().map(|id| (*id, Member::default())).collect();
        RaftMembership::new(vec![BTreeSet::from([ids[0]])], nodes).unwrap()
    };
    let first = MembershipRecord::default().next(at(1, 1, 0), &of(&[1, 2, 3]));
    assert!(first.removed.is_empty());
    let second = first.next(at(1, 1, 4), &of(&[1, 3]));
    assert_eq!(second.removed, BTreeSet::from([2]));
    let mut many = second.clone();
    for id in 10..(10 + REMOVED_MAX as u64 + 5) {
        many = many.next(at(1, 1, id), &of(&[1, id]));
    }
    assert_eq!(many.removed.len(), REMOVED_MAX);
    assert!(!many.removed.contains(&2) && many.removed.contains(&1_030));
    assert_eq!(MembershipRecord::decode(&second.encode()).unwrap(), second);
}

#[test]
fn small_messages_survive_the_round_trip() {
    let mut request =
        VoteRequest::new(VoteRecord { term: 3, leader: 2, committed: false }.into(), None);
    request.leadership_transfer = true;
    assert_eq!(VoteRequest::from(VoteCall::from(&request)), request);
    let response = VoteResponse::new(
        Vote::from(VoteRecord { term: 3, leader: 2, committed: false }),
        Some(log_id(at(1, 1, 1))),
        true,
    );
    assert_eq!(VoteResponse::from(VoteAnswer::from(&response)), response);
    let transfer = TransferRequest::new(request.vote, 5, Some(log_id(at(1, 2, 3))));
    assert_eq!(TransferRequest::from(TransferCall::from(&transfer)), transfer);
    let answers: [Result<AppendResult, Infallible>; 3] = [
        Ok(Ok(None)),
        Ok(Err(StreamAppendError::Conflict(log_id(at(1, 1, 9))))),
        Ok(Err(StreamAppendError::HigherVote(request.vote))),
    ];
    for answer in answers.into_iter().flatten() {
        let back = AppendResult::from(AppendAnswer::from(&answer));
        assert_eq!(format!("{back:?}"), format!("{answer:?}"));
    }
}
