//! Stories of a changing membership: learners catch up by log and by snapshot, voters come and go.

use super::testing::*;
use super::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

async fn retry<T, F: Future<Output = Result<T, Error>>>(mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Adds the copy on a node as a learner.
async fn add(cluster: &Cluster, leader: u64, node: u64) {
    let wal = cluster.host(node).wal();
    cluster.create(node, copy(node), &wal).await;
    let group = cluster.group(leader);
    retry(|| group.add_learner(group.membership().pos, copy(node), NodeId(node))).await;
}

async fn caught_up(cluster: &Cluster, leader: u64, node: u64) {
    let group = cluster.group(leader);
    eventually("the learner matches", || {
        let state = group.state();
        state.matched.get(&copy(node)).copied().flatten() == state.last_index
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn learners_become_voters_and_learners_again_under_load() {
    let cluster = Cluster::new(4, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    let story = async {
        for node in 2..=4 {
            add(&cluster, 1, node).await;
            caught_up(&cluster, 1, node).await;
        }
        let group = cluster.group(1);
        let voters = BTreeSet::from([copy(1), copy(2), copy(3)]);
        retry(|| group.change_voters(group.membership().pos, voters.clone())).await;
        let membership = group.membership();
        assert!(!membership.joint);
        assert_eq!(membership.voters.keys().copied().collect::<BTreeSet<_>>(), voters);
        assert_eq!(membership.learners, BTreeMap::from([(copy(4), NodeId(4))]));
        retry(|| group.change_voters(group.membership().pos, BTreeSet::from([copy(1)]))).await;
        assert_eq!(group.membership().voters.len(), 1);
        assert_eq!(group.membership().learners.len(), 3);
    };
    let ((), ()) = tokio::join!(cluster.put(1, 0..3000), story);
    cluster.same(&[1, 2, 3, 4], 3000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_is_seen_by_whoever_looks_after_it() {
    let cluster = Cluster::new(1, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    let group = cluster.group(1);
    let story = async {
        for round in 0..300 {
            let pos = group.membership().pos;
            let learner = 500 + round;
            group.add_learner(pos, learner, NodeId(9)).await.expect("nobody else changes it");
            let seen = group.membership();
            assert!(seen.learners.contains_key(&learner), "round {round}: {seen:?}");
            let gone = BTreeSet::from([learner]);
            group.remove_learners(seen.pos, gone).await.expect("nobody else changes it");
            assert!(group.membership().learners.is_empty(), "round {round}");
        }
    };
    let ((), ()) = tokio::join!(cluster.put(1, 0..3000), story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_on_top_of_another_membership_is_refused() {
    let cluster = Cluster::new(2, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    let group = cluster.group(1);
    let first = group.membership().pos;
    add(&cluster, 1, 2).await;
    assert_ne!(group.membership().pos, first);
    let stale = group.change_voters(first, BTreeSet::from([copy(1), copy(2)])).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let stale = group.remove_learners(first, BTreeSet::from([copy(2)])).await;
    assert!(matches!(stale, Err(Error::Conflict(_))), "{stale:?}");
    let none = group.add_learner(None, 999, NodeId(9)).await;
    assert!(matches!(none, Err(Error::Conflict(_))), "{none:?}");
    assert_eq!(group.membership().voters.len(), 1);
    let voter = group.remove_learners(group.membership().pos, BTreeSet::from([copy(1)])).await;
    assert!(matches!(voter, Err(Error::Conflict(_))), "{voter:?}");
    let unknown = group.change_voters(group.membership().pos, BTreeSet::from([555])).await;
    assert!(matches!(unknown, Err(Error::Conflict(_))), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_removed_copy_is_not_listened_to_any_more_also_after_a_restart() {
    let mut cluster = Cluster::new(2, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    add(&cluster, 1, 2).await;
    caught_up(&cluster, 1, 2).await;
    let ask = || async {
        // What copy 2 would ask, from its own node.
        let deadline = Instant::now() + Duration::from_millis(700);
        cluster_read(&cluster, 2, deadline).await
    };
    assert!(ask().await.is_ok());
    let group = cluster.group(1);
    retry(|| group.remove_learners(group.membership().pos, BTreeSet::from([copy(2)]))).await;
    assert!(ask().await.is_err());
    drop(group);
    cluster.stop(1).await;
    cluster.start(1).await;
    cluster.leader(&[1]).await;
    let deadline = Instant::now() + Duration::from_millis(700);
    assert!(cluster_read(&cluster, 2, deadline).await.is_err());
}

async fn cluster_read(cluster: &Cluster, node: u64, deadline: Instant) -> Result<u64, Error> {
    cluster.group(node).read_barrier(deadline).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn few_entries_for_a_learner_are_sent_once_in_a_tick() {
    const ENTRIES: u64 = 100;
    let cluster = Cluster::new(2, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    add(&cluster, 1, 2).await;
    caught_up(&cluster, 1, 2).await;
    let sent = || cluster.wires.appends.load(Ordering::Relaxed);
    let (before, begun) = (sent(), Instant::now());
    for i in 0..ENTRIES {
        cluster.put(1, i..i + 1).await;
    }
    cluster.same(&[1, 2], ENTRIES).await;
    // At most one with entries and one with a commit alone in each tick that has begun, however slow the machine is.
    let ticks = begun.elapsed().as_millis() / u128::from(quick().learner_tick_ms) + 2;
    let sent = sent() - before;
    assert!(sent as u128 <= 2 * ticks, "{sent} appends in {ticks} ticks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_clients_are_served_learners_beside_several_voters_are_sent_to_rarely() {
    const NEVER_MS: u64 = 600_000;
    let cluster = Cluster::new(3, Options { further_tick_ms: NEVER_MS, ..quick() }).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    cluster.host(1).make_way(true);
    for node in [2, 3] {
        add(&cluster, 1, node).await;
    }
    cluster.put(1, 0..100).await;
    cluster.same(&[1, 2, 3], 100).await;
    let group = cluster.group(1);
    let has = |node| group.state().matched.get(&copy(node)).copied().flatten();
    let vote = async |nodes: &[u64]| {
        let voters: BTreeSet<u64> = nodes.iter().copied().map(copy).collect();
        let changed = retry(|| group.change_voters(group.membership().pos, voters.clone()));
        tokio::time::timeout(Duration::from_secs(20), changed).await.unwrap();
    };
    vote(&[1, 2]).await;
    // What is sent first begins a pause, and then it lags for longer than any other.
    let mut put = 100;
    loop {
        cluster.put(1, put..put + 1).await;
        put += 1;
        cluster.same(&[1, 2], put).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        if has(3) < has(2) {
            break;
        }
        assert!(put < 110, "a learner beside two voters has {:?}", has(3));
    }
    // Whoever shall vote is not waited for.
    vote(&[1, 3]).await;
    cluster.same(&[1, 3], put).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_learner_gets_a_snapshot_where_the_log_was_purged() {
    let options = Options { log_keep_bytes: 0, flush_bytes: 16 << 10, flush_ms: 100, ..quick() };
    let mut cluster = Cluster::new(2, options).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    cluster.put(1, 0..3000).await;
    let log = cluster.host(1).wal().group(GROUP);
    eventually("the log is purged", || log.range().start > 2000).await;
    // Writes go on while the snapshot travels.
    let ((), ()) = tokio::join!(cluster.put(1, 3000..5000), add(&cluster, 1, 2));
    caught_up(&cluster, 1, 2).await;
    cluster.same(&[1, 2], 5000).await;
    assert!(cluster.host(2).wal().group(GROUP).range().start > 2000, "it came by log");
    let staging = cluster.copy_dir(2, copy(2)).join("transfer");
    let left = std::fs::read_dir(staging).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a staged file stayed");
    // What was installed survives, with what followed.
    drop(log);
    cluster.kill(2).await;
    cluster.start(2).await;
    cluster.put(1, 5000..5100).await;
    cluster.same(&[1, 2], 5100).await;
    let membership = cluster.group(2).membership();
    assert_eq!(membership, cluster.group(1).membership());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_follower_that_was_away_for_long_gets_a_snapshot_and_votes_again() {
    let options = Options { log_keep_bytes: 0, flush_bytes: 16 << 10, flush_ms: 100, ..quick() };
    let mut cluster = Cluster::new(3, options).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.put(leader, 0..500).await;
    let away = leader % 3 + 1;
    let other = away % 3 + 1;
    cluster.stop(away).await;
    cluster.put(leader, 500..4000).await;
    let log = cluster.host(leader).wal().group(GROUP);
    eventually("the log is purged", || log.range().start > 3000).await;
    drop(log);
    cluster.start(away).await;
    cluster.same(&[leader, away, other], 4000).await;
    cluster.kill(other).await;
    let leads = cluster.leader(&[leader, away]).await;
    cluster.put(leads, 4000..4200).await;
    cluster.same(&[leader, away], 4200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn leadership_goes_where_it_is_asked_to_without_a_failed_write() {
    let cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1, 2, 3], &[1, 2, 3]).await;
    let leader = cluster.leader(&[1, 2, 3]).await;
    cluster.put(leader, 0..100).await;
    let to = leader % 3 + 1;
    let term = cluster.group(leader).state().term;
    let nobody = cluster.group(leader).transfer_leader(999).await;
    assert!(matches!(nobody, Err(Error::Conflict(_))), "{nobody:?}");
    cluster.group(leader).transfer_leader(copy(to)).await.unwrap();
    eventually("the other leads", || cluster.group(to).state().is_leader).await;
    assert!(cluster.group(to).state().term > term);
    assert_eq!(cluster.leader(&[to]).await, to);
    cluster.put(to, 100..200).await;
    cluster.same(&[to, 1, 2, 3], 200).await;
    let follower = cluster.group(leader).transfer_leader(copy(leader)).await;
    assert!(
        matches!(follower, Err(Error::NotLeader(Some(node))) if node == NodeId(to)),
        "{follower:?}"
    );
}

/// Asks until the copy answers alone, or not, as expected: each question is a chance to prove it.
async fn answers_alone(cluster: &Cluster, node: u64) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    cluster.group(node).read_barrier(deadline).await.unwrap();
    cluster.group(node).reads_alone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_a_leader_without_other_voters_answers_alone() {
    let mut cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    assert!(answers_alone(&cluster, 1).await);

    // A learner takes nothing from it, but every change of the membership voids the proof.
    for node in 2..=3 {
        add(&cluster, 1, node).await;
        assert!(!cluster.group(1).reads_alone());
        assert!(answers_alone(&cluster, 1).await);
        caught_up(&cluster, 1, node).await;
        assert!(!answers_alone(&cluster, node).await, "a learner asks the leader");
    }

    let group = cluster.group(1);
    let voters = BTreeSet::from([copy(1), copy(2), copy(3)]);
    retry(|| group.change_voters(group.membership().pos, voters.clone())).await;
    assert!(!group.reads_alone());
    assert!(!answers_alone(&cluster, 1).await, "there are other voters");

    retry(|| group.change_voters(group.membership().pos, BTreeSet::from([copy(1)]))).await;
    assert!(!group.reads_alone());
    assert!(answers_alone(&cluster, 1).await);

    // The proof is of this process.
    drop(group);
    cluster.stop(1).await;
    cluster.start(1).await;
    assert!(!cluster.group(1).reads_alone());
    cluster.leader(&[1]).await;
    assert!(answers_alone(&cluster, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_was_replaced_never_answers_alone_before_it_has_read_what_others_wrote() {
    let cluster = Cluster::new(3, quick()).await;
    cluster.form(&[1], &[1]).await;
    cluster.leader(&[1]).await;
    assert!(answers_alone(&cluster, 1).await);
    for node in 2..=3 {
        add(&cluster, 1, node).await;
        caught_up(&cluster, 1, node).await;
    }
    let voters = BTreeSet::from([copy(1), copy(2), copy(3)]);
    let group = cluster.group(1);
    retry(|| group.change_voters(group.membership().pos, voters.clone())).await;
    cluster.wires.isolate(1, 3);
    assert!(!group.reads_alone(), "it cannot know that it is cut off, and must ask");
    let deadline = Instant::now() + Duration::from_millis(500);
    assert!(group.read_barrier(deadline).await.is_err());
    cluster.leader(&[2, 3]).await;
    assert!(!group.reads_alone());
}
