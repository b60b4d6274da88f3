//! Stories of a group: elect, write, stop, kill, cut off, heal, read.

use super::peers::Lane;
use super::rpc::Callee;
use super::testing::*;
use super::*;
use crate::wire::peer::PeerBody;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_voters_elect_and_keep_what_they_answered_over_restarts() {
    let mut cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.put(leader, 0..2000).await;
    cluster.same(&[leader, 1, 2, 3], 2000).await;

    for node in 1..=3 {
        cluster.stop(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
    }
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.same(&[leader, 1, 2, 3], 2000).await;
    cluster.put(leader, 2000..2500).await;

    // All at once, without a last flush: the log alone brings everything back, and nothing twice.
    for node in 1..=3 {
        cluster.kill(node).await;
    }
    for node in 1..=3 {
        cluster.start(node).await;
    }
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.same(&[leader, 1, 2, 3], 2500).await;
    for node in 1..=3 {
        cluster.group(node).recovered(soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_leads_when_the_leader_dies_and_the_dead_one_catches_up() {
    let mut cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let first = cluster.leader(&[1, 2, 3]).await;
    cluster.put(first, 0..300).await;
    cluster.kill(first).await;
    let others: Vec<u64> = (1..=3).filter(|n| *n != first).collect();
    let second = cluster.leader(&others).await;
    cluster.put(second, 300..600).await;
    cluster.start(first).await;
    cluster.same(&[second, 1, 2, 3], 600).await;
    let state = cluster.group(second).state();
    assert_eq!(state.role, "leader");
    assert_eq!(state.leader, Some((copy(second), NodeId(second))));
    eventually("a quorum is acknowledged", || {
        cluster.group(second).state().quorum_ack_ms.is_some_and(|ms| ms < 1_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_reads_what_was_answered_before() {
    let cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.wires.delay(Duration::from_millis(3));
    let follower = cluster.group(leader % 3 + 1);
    for i in 0..50 {
        cluster.group(leader).propose(format!("k={i}").into()).await.unwrap();
        let asked = Instant::now();
        let index = follower.read_barrier(soon()).await.unwrap();
        assert!(follower.state().applied.unwrap().index >= index);
        assert_eq!(get(follower.store(), "k"), Some(i.to_string()));
        assert!(follower.fresh_as_of().unwrap() >= asked);
    }
    // Many readers at once share the questions.
    let reads = (0..200).map(|_| follower.read_barrier(soon()));
    for read in futures_util::future::join_all(reads).await {
        read.unwrap();
    }
    assert!(
        matches!(follower.propose("a=b".into()).await, Err(Error::NotLeader(Some(n))) if n == NodeId(leader))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_of_three_voters_are_a_quorum_and_ask_nobody_else() {
    const READS: usize = 200;
    let cluster = Cluster::new(4, quick()).await;
    cluster.form(&[1, 2, 3, 4], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let group = cluster.group(leader);
    group.add_learner(group.membership().pos, copy(4), NodeId(4)).await.unwrap();
    cluster.put(leader, 0..10).await;
    cluster.same(&[leader, 1, 2, 3, 4], 10).await;
    let rounds = async |node: u64| {
        let before = cluster.wires.rounds.load(Ordering::Relaxed);
        for _ in 0..READS {
            cluster.group(node).read_barrier(soon()).await.unwrap();
        }
        cluster.wires.rounds.load(Ordering::Relaxed) - before
    };
    // Heartbeats go on meanwhile; a round for each read would be three messages for each.
    let follower = leader % 3 + 1;
    let sent = rounds(follower).await;
    assert!(sent < READS, "{sent} messages for {READS} reads of a follower");
    let sent = rounds(4).await;
    assert!(sent >= READS, "a learner is no part of a quorum: {sent} messages for {READS} reads");

    let shared = |node: u64| Arc::clone(cluster.group(node).shared());
    let vote = shared(leader).log.vote();
    let confirmed = |by: u64, asker: u64, vote: &[u8]| {
        read::committed_for(&shared(by), copy(asker), vote).is_some()
    };
    assert!(confirmed(leader, follower, &vote));
    assert!(!confirmed(leader, 4, &vote), "a learner");
    assert!(!confirmed(leader, leader, &vote), "one copy is no quorum");
    assert!(!confirmed(leader, follower, b""), "no vote");
    let other = encoding::VoteRecord { term: 99, leader: copy(follower), committed: true };
    let other = encoding::encode_vote(&other.into());
    assert!(!confirmed(leader, follower, &other), "another vote");
    assert!(!confirmed(follower, leader, &vote), "it does not lead");

    // Who asks without its vote is answered after a round.
    let callee = Callee { group: GROUP, copy: copy(leader), node: NodeId(leader) };
    let asker = shared(follower);
    let call = asker.peers.call(copy(follower), callee, Lane::Urgent, PeerBody::ReadIndex);
    let answer = call.unwrap().answer(Duration::from_secs(10)).await.unwrap();
    let PeerBody::ReadIndexAnswer(pos) = answer else { panic!("{answer:?}") };
    assert!(pos.index >= shared(leader).store.applied_pos().unwrap().index);

    // A membership that is in the log is in force, and nobody here knows yet who votes by it.
    let applied = shared(leader).store.applied_pos().unwrap().index;
    shared(leader).log.lone().membership_appended(applied + 1_000);
    assert!(!confirmed(leader, follower, &vote), "a newer membership");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_read_shows_what_was_acknowledged_before_whoever_is_cut_off() {
    const NODES: u64 = 3;
    let cluster = Cluster::new(NODES, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let first = cluster.leader(&[1, 2, 3]).await;
    cluster.group(first).propose("n=0".into()).await.unwrap();
    cluster.wires.delay(Duration::from_millis(1));
    let until = Instant::now() + Duration::from_secs(9);
    let (acknowledged, led) = (AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    let within = |time_ms| Instant::now() + Duration::from_millis(time_ms);
    let writing = async {
        // A number of an unknown outcome is not used again, and the log keeps them in order.
        let mut number = 0;
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for node in 1..=NODES {
                let group = cluster.group(node);
                if !group.state().is_leader {
                    continue;
                }
                number += 1;
                let written = group.propose(format!("n={number}").into());
                if let Ok(Ok(_)) = tokio::time::timeout_at(within(300).into(), written).await {
                    acknowledged.fetch_max(number, Ordering::SeqCst);
                    led.lock().insert(node);
                }
            }
        }
    };
    let reading = |node: u64| {
        let (cluster, acknowledged) = (&cluster, &acknowledged);
        async move {
            let mut reads = 0;
            while Instant::now() < until {
                let group = cluster.group(node);
                let least = acknowledged.load(Ordering::SeqCst);
                if group.read_barrier(within(300)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
                let seen: u64 = get(group.store(), "n").unwrap().parse().unwrap();
                assert!(seen >= least, "node {node} shows {seen} after {least}");
                reads += 1;
            }
            reads
        }
    };
    let cutting = async {
        while Instant::now() < until {
            let led_by = (1..=NODES).find(|node| cluster.group(*node).state().is_leader);
            cluster.wires.isolate(led_by.unwrap_or(1), NODES);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            cluster.wires.heal();
            // A question that was lost is given up after a second.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    };
    let readers = (1..=NODES).chain(1..=NODES).map(reading);
    let (reads, (), ()) = tokio::join!(futures_util::future::join_all(readers), writing, cutting);
    assert!(reads.iter().all(|reads| *reads > 10), "{reads:?} reads");
    assert!(led.lock().len() > 1, "one node led all the time");
    assert!(acknowledged.load(Ordering::SeqCst) > 100);
}

/// `Puts` of which the first to apply `held=` waits until it is let go.
#[derive(Default)]
struct Held(Puts);

static HOLDS: AtomicBool = AtomicBool::new(false);
static IS_HELD: AtomicBool = AtomicBool::new(false);

impl Logic for Held {
    fn load(&mut self, view: &dyn storage::View) -> Result<(), storage::Error> {
        self.0.load(view)
    }

    fn apply(
        &mut self,
        pos: LogPos,
        payload: &Bytes,
        writer: &mut storage::Writer<'_>,
    ) -> Result<Effect, storage::Error> {
        if payload.starts_with(b"held=") && !IS_HELD.swap(true, Ordering::SeqCst) {
            let until = Instant::now() + Duration::from_secs(10);
            while HOLDS.load(Ordering::SeqCst) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.0.apply(pos, payload, writer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_copy_shows_what_the_leader_has_not_applied() {
    let cluster = Cluster::with_logic(3, quick(), || Box::<Held>::default()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.put(leader, 0..10).await;
    cluster.same(&[1, 2, 3], 10).await;
    HOLDS.store(true, Ordering::SeqCst);
    let propose = |payload: &'static str| {
        let group = cluster.group(leader);
        tokio::spawn(async move { group.propose(payload.into()).await })
    };
    let held = propose("held=1");
    eventually("it is being applied", || IS_HELD.load(Ordering::SeqCst)).await;
    // What would tell others of it: the next entry, and heartbeats.
    let next = propose("a=b");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let applied = |node: u64| cluster.group(node).state().applied.map(|pos| pos.index);
    let shown: Vec<_> = (1..=3).map(applied).collect();
    assert_eq!(shown, vec![applied(leader); 3], "the leader is {leader}");
    HOLDS.store(false, Ordering::SeqCst);
    held.await.unwrap().unwrap();
    let (last, _) = next.await.unwrap().unwrap();
    eventually("all have applied it", || (1..=3).all(|node| applied(node) >= Some(last.index)))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_of_an_earlier_life_confirms_nothing_before_all_it_had_is_applied() {
    let mut cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let follower = leader % 3 + 1;
    cluster.put(leader, 0..50).await;
    let vote = cluster.group(leader).shared().log.vote();
    let acknowledged = cluster.group(leader).state().applied.unwrap().index;
    // Alone it cannot apply again what it has not flushed.
    cluster.kill(leader).await;
    cluster.wires.isolate(leader, 3);
    cluster.start(leader).await;
    let shared = Arc::clone(cluster.group(leader).shared());
    assert_eq!(shared.log.vote(), vote, "the vote that made it the leader is there still");
    assert_eq!(shared.log.opened_at(), acknowledged);
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        if let Some(pos) = read::committed_for(&shared, copy(follower), &vote) {
            assert!(pos.index >= acknowledged, "{pos:?} after {acknowledged}");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_is_told_with_the_next_entries_and_at_once_to_whoever_waits_for_it() {
    const ENTRIES: usize = 50;
    // So long that no entry has to wait for the next one for as long, however busy the machine is.
    let cluster = Cluster::new(3, Options { commit_gather_ms: 10_000, ..quick() }).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    let (group, follower) = (cluster.group(leader), cluster.group(leader % 3 + 1));
    let before = cluster.wires.appends.load(Ordering::Relaxed);
    for i in 0..ENTRIES {
        group.propose(format!("k={i}").into()).await.unwrap();
        // Time for a request with the commit alone.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = cluster.wires.appends.load(Ordering::Relaxed) - before;
    // Two followers. Now and then the library is asked before it has heard of the entry; with a request for each
    // commit it would be twice as many.
    assert!(sent <= 2 * ENTRIES + ENTRIES / 2, "{sent} appends");
    cluster.wires.delay(Duration::from_millis(3));
    let before = cluster.wires.questions.load(Ordering::Relaxed);
    for i in 0..20 {
        let (pos, _) = group.propose(format!("k={i}").into()).await.unwrap();
        assert!(follower.wait_applied(pos.index, soon()).await);
        assert_eq!(get(follower.store(), "k"), Some(i.to_string()));
    }
    let asked = cluster.wires.questions.load(Ordering::Relaxed) - before;
    assert!((1..=20).contains(&asked), "{asked} questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_cut_off_answers_no_reads_and_its_writes_are_not_lost_twice() {
    let cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let old = cluster.leader(&[1, 2, 3]).await;
    cluster.put(old, 0..100).await;
    cluster.wires.isolate(old, 3);
    // The read arrives after the cut: nothing acknowledged before may answer it.
    let read = cluster.group(old).read_barrier(Instant::now() + Duration::from_secs(2)).await;
    assert!(matches!(read, Err(Error::NoQuorum(_) | Error::NotLeader(_))), "{read:?}");
    let refresh = cluster.group(old).refresh(Instant::now() + Duration::from_millis(300)).await;
    assert!(refresh.is_err());
    let others: Vec<u64> = (1..=3).filter(|n| *n != old).collect();
    let new = cluster.leader(&others).await;
    cluster.put(new, 100..200).await;
    assert_eq!(get(cluster.group(old).store(), "key-150"), None);
    let stale = cluster.group(old).read_barrier(Instant::now() + Duration::from_millis(500)).await;
    assert!(stale.is_err());
    cluster.wires.heal();
    cluster.same(&[new, 1, 2, 3], 200).await;
    eventually("the old leader follows", || !cluster.group(old).state().is_leader).await;
    cluster.group(old).read_barrier(soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lone_voter_leads_again_at_once_and_reads_only_after_an_entry_of_its_term() {
    let mut cluster =
        Cluster::new(1, Options { election_min_ms: 5_000, election_max_ms: 6_000, ..quick() })
            .await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    cluster.put(1, 0..200).await;
    let before = cluster.group(1).state();
    cluster.kill(1).await;
    let started = Instant::now();
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let index = cluster.group(1).read_barrier(soon()).await.unwrap();
    assert!(index > before.last_index.unwrap(), "no entry of the new term");
    assert!(cluster.group(1).state().term > before.term);
    assert_eq!(cluster.group(1).state().quorum_ack_ms, Some(0));
    cluster.same(&[1], 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_agree_on_the_digest_of_an_entry_while_writes_go_on() {
    let cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.put(leader, 0..500).await;
    let writes = cluster.put(leader, 500..1500);
    let digests = async {
        let mut indexes = vec![];
        for _ in 0..3 {
            let (pos, replies) = cluster.group(leader).propose("digest".into()).await.unwrap();
            assert!(replies.is_empty());
            indexes.push(pos.index);
        }
        indexes
    };
    let ((), indexes) = tokio::join!(writes, digests);
    for index in indexes {
        let mut seen = vec![];
        for node in 1..=3 {
            let digest = cluster.group(node).digest(index, Duration::from_secs(20)).await;
            seen.push(digest.expect("no digest").unwrap());
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:?}");
        assert_eq!(seen[0].pos.unwrap().index, index);
        assert!(seen[0].keys >= 500);
    }
    let none = cluster.group(leader).digest(9, Duration::from_secs(20)).await;
    assert_eq!(none, Err(NoDigest::Ever), "that entry asked for none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_of_another_lineage_or_to_another_copy_are_refused() {
    let cluster = Cluster::new(2, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    let host = cluster.host(1);
    let before = cluster.group(1).state().last_index;
    // Node 9 has no host: what is answered to it is kept.
    let body = |n: u8| PeerBody::Append(Bytes::copy_from_slice(&[n]));
    let message = |group, from, to, call, body| PeerMessage { group, from, to, call, body };
    host.deliver(NodeId(9), message(GroupId(GROUP.0 + (1 << 17)), 7, copy(1), 1, body(0)));
    host.deliver(NodeId(9), message(GROUP, 7, copy(1) + 1, 2, body(1)));
    // A member's id from a node it is not on.
    host.deliver(NodeId(9), message(GROUP, copy(1), copy(1), 3, PeerBody::ReadIndex));
    // Garbage from a copy that could be new.
    host.deliver(NodeId(9), message(GROUP, 7, copy(1), 4, body(1)));
    host.deliver(NodeId(9), message(GROUP, 7, copy(1), 5, body(0)));
    host.deliver(NodeId(9), message(GROUP, 7, copy(1), 6, PeerBody::Vote(Bytes::new())));
    // A vote for somebody else.
    let vote = encoding::VoteCall {
        vote: encoding::VoteRecord { term: 99, leader: 8, committed: false },
        last: None,
        transfer: true,
    };
    let vote = crate::wire::codec::encode(&vote).into();
    host.deliver(NodeId(9), message(GROUP, 7, copy(1), 7, PeerBody::Vote(vote)));
    eventually("all are refused", || cluster.wires.stray.lock().len() == 7).await;
    let mut refused: Vec<(u64, PeerBody)> =
        cluster.wires.stray.lock().iter().map(|m| (m.call, m.body.clone())).collect();
    refused.sort_by_key(|(call, _)| *call);
    let codes = [Code::Moved; 3].into_iter().chain([Code::BadRequest; 4]);
    let expected: Vec<(u64, PeerBody)> = (1..).zip(codes.map(PeerBody::Refused)).collect();
    assert_eq!(refused, expected);
    assert_eq!(cluster.group(1).state().last_index, before);
    assert_eq!(host.group(GroupId(GROUP.0 + (1 << 17))).map(|g| g.id()), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_that_is_closed_is_let_go_of_at_once() {
    let cluster = Cluster::new(2, quick()).await;
    cluster.form(&[1, 2], &[1, 2]).await;
    let leader = cluster.leader(&[1, 2]).await;
    cluster.group(leader).propose("a=1".into()).await.unwrap();
    let follower = 3 - leader;
    eventually("it has followed", || cluster.group(follower).state().applied.is_some()).await;
    // A task that still held it would be waited for, in vain, for two seconds.
    let began = Instant::now();
    cluster.host(follower).close(GROUP).await;
    assert!(began.elapsed() < Duration::from_millis(1_500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_is_opened_once_and_started_once() {
    let cluster = Cluster::new(1, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    let voters: BTreeMap<u64, NodeId> = [(copy(1), NodeId(1))].into();
    let again = cluster.group(1).initialize(voters).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    let dir = cluster.copy_dir(1, copy(1));
    let spec = GroupSpec { group: GROUP, raft_id: copy(1), dir, logic: Box::<Puts>::default() };
    let again = cluster.host(1).open(spec).await;
    assert!(matches!(again.err(), Some(Error::Conflict(_))));
    cluster.host(1).close(GROUP).await;
    assert!(cluster.host(1).group(GROUP).is_none());
}
