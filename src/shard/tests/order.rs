//! Orders to the leader of a real group, with links that are cut and writes under way.

use super::shards::*;
use super::*;
use crate::raft;
use crate::raft::testing::{GROUP, copy, eventually, quick};
use crate::shard::Error;
use crate::shard::fence::Fence;
use crate::types::{CopyId, NodeId};
use crate::wire::operation::{Lead, MemberReport, ShardChange};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_voter_becomes_three_and_one_again_while_writes_go_on() {
    let mut shards = Shards::new(4, &[1], quick()).await;
    shards.leader().await;
    for node in 2..=4 {
        shards.learn(1, node).await;
    }
    let stop = AtomicBool::new(false);
    let shard = shards.shards[&1].clone();
    let story = async {
        shards.insist(1, (1, 2), voters(&[1, 2, 3])).await;
        let full = shards.membership(1);
        assert!(!full.joint);
        assert_eq!(full.voters.keys().copied().collect::<Vec<_>>(), [copy(1), copy(2), copy(3)]);
        assert_eq!(full.learners, BTreeMap::from([(copy(4), NodeId(4))]));
        // What holds needs no entry of the membership.
        shards.order(1, (1, 2), voters(&[3, 2, 1])).await.unwrap();
        assert_eq!(shards.membership(1), full);
        shards.insist(1, (1, 3), voters(&[1])).await;
        let lone = shards.membership(1);
        assert_eq!((lone.joint, lone.voters.len(), lone.learners.len()), (false, 1, 3));
        shards.insist(1, (1, 3), ShardChange::Remove(vec![CopyId(copy(2)), CopyId(999)])).await;
        assert_eq!(shards.membership(1).learners.len(), 2);
        stop.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(count_up(&shard, &stop), story);
    assert!(written > 0);
    let (results, token, _) = shard.write(encode_ops(&[get("n")]), None, soon()).await.unwrap();
    assert_eq!(decode_results(&results).unwrap(), [value(&written.to_string())]);
    for node in [3, 4] {
        assert!(shards.cluster.group(node).wait_applied(token.index, soon()).await, "node {node}");
        assert_eq!(shards.shards[&node].fence(), Ok((1, 3)), "node {node}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_demotion_while_a_voter_is_silent_and_none_by_another_than_the_leader() {
    let shards = Shards::new(3, &[1, 2, 3], quick()).await;
    let leader = shards.leader().await;
    let (silent, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let wires = &shards.cluster.wires;
    wires.isolate(silent, 3);
    let is_silent = || shards.member(leader, silent).answered_ms.is_none_or(|ms| ms > 1_000);
    eventually("it is noticed", is_silent).await;
    let before = shards.membership(leader);
    for _ in 0..3 {
        assert_eq!(code(shards.order(leader, (1, 1), voters(&[leader])).await), Code::NotSafeNow);
    }
    // The leader never makes another copy the lone voter, and a follower makes nobody anything.
    assert_eq!(code(shards.order(leader, (1, 1), voters(&[other])).await), Code::NotSafeNow);
    let asked = shards.order(other, (1, 1), voters(&[other])).await;
    assert_eq!(asked, Err(Error::NotLeader(Some(NodeId(leader)))));
    let transfer = ShardChange::Transfer(CopyId(copy(silent)));
    assert_eq!(code(shards.order(leader, (1, 1), transfer).await), Code::NotSafeNow);
    assert_eq!(shards.membership(leader), before);
    // The two that are left go on.
    let write = shards.shards[&leader].write(encode_ops(&[set("k", "v")]), None, soon());
    write.await.unwrap();

    wires.heal();
    // An election may come of it; the order then waits for this copy to lead again.
    retry(|| async {
        let leads = shards.leader().await;
        let change = match leads == leader {
            true => voters(&[leader]),
            false => ShardChange::Transfer(CopyId(copy(leader))),
        };
        shards.order(leads, (1, 1), change).await.map_err(|error| error.to_string())?;
        match shards.membership(leader).voters.len() {
            1 => Ok(()),
            voters => Err(format!("{voters} voters")),
        }
    })
    .await;
    let lone = shards.membership(leader);
    assert_eq!(lone.voters, BTreeMap::from([(copy(leader), NodeId(leader))]));
    assert!(!lone.joint);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_of_a_coordinator_that_was_replaced_is_refused_by_every_leader() {
    let shards = Shards::new(3, &[1, 2, 3], quick()).await;
    let leader = shards.leader().await;
    shards.order(leader, (2, 5), ShardChange::Fence).await.unwrap();
    let before = (shards.membership(leader), shards.cluster.group(leader).state().last_index);
    for stale in [(2, 4), (1, 99), (0, 0)] {
        for change in [ShardChange::Fence, voters(&[leader]), ShardChange::Remove(vec![])] {
            assert_eq!(code(shards.order(leader, stale, change).await), Code::Superseded);
        }
    }
    // An equal one is the same coordinator again: no entry is needed.
    shards.order(leader, (2, 5), ShardChange::Fence).await.unwrap();
    assert_eq!(before.1, shards.cluster.group(leader).state().last_index);
    assert_eq!(before.0, shards.membership(leader));
    assert_eq!(shards.shards[&leader].lead().unwrap().fence, (2, 5));

    let next = leader % 3 + 1;
    shards.insist(leader, (2, 5), ShardChange::Transfer(CopyId(copy(next)))).await;
    eventually("the other leads", || shards.cluster.group(next).is_leader()).await;
    retry(|| async {
        match shards.order(next, (2, 4), voters(&[next])).await {
            Err(Error::Public(error)) if error.code == Code::Superseded => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(shards.membership(next).voters.len(), 3);
    shards.insist(next, (2, 6), voters(&[next])).await;
    assert_eq!(shards.shards[&next].fence(), Ok((2, 6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_rests_on_the_members_that_were_read() {
    let mut shards = Shards::new(3, &[1], quick()).await;
    shards.leader().await;
    shards.learn(1, 2).await;
    shards.insist(1, (1, 1), voters(&[1, 2])).await;
    eventually("it is near", || shards.member(1, 2).near).await;
    let seen = shards.shards[&1].read_members(soon()).await.unwrap();
    // Between the reading and the change somebody else adds a member.
    shards.learn(1, 3).await;
    let between = shards.membership(1);
    for change in [voters(&[1]), ShardChange::Remove(vec![CopyId(copy(3))])] {
        let done = shards.shards[&1].change_members(&seen, &change, soon()).await;
        match change {
            // It was no member when the members were read.
            ShardChange::Remove(_) => assert_eq!(done, Ok(())),
            _ => match done {
                Err(Error::Public(error)) if error.message.contains("changed meanwhile") => {
                    assert_eq!(error.code, Code::NotSafeNow);
                }
                other => panic!("{other:?}"),
            },
        }
        assert_eq!(shards.membership(1), between);
    }
    shards.insist(1, (1, 1), voters(&[1])).await;
    assert_eq!(shards.membership(1).learners.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn answers_to_what_was_sent_before_the_question_count_for_nothing() {
    let mut shards = Shards::new(2, &[1], quick()).await;
    shards.leader().await;
    shards.learn(1, 2).await;
    eventually("it has answered", || shards.member(1, 2).answered_ms.is_some()).await;
    let shard = &shards.shards[&1];
    shards.cluster.wires.isolate(1, 2);
    let asked = Instant::now();
    let answered = |since| {
        let members = shard.look(since).unwrap().unwrap().lead.members;
        members.iter().map(|member| member.answered_ms.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(answered(None), [true, true]);
    // Also within the same millisecond.
    assert_eq!(answered(Some(asked)), [true, false]);
    shards.cluster.wires.heal();
    eventually("it answers anew", || answered(Some(asked)) == [true, true]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_was_cut_off_half_way_is_finished_or_taken_back() {
    let mut shards = Shards::new(3, &[1], quick()).await;
    shards.leader().await;
    shards.learn(1, 2).await;
    shards.learn(1, 3).await;
    let shard = shards.shards[&1].clone();
    for (goal, count) in [(voters(&[1]), 1), (voters(&[1, 2, 3]), 3)] {
        let is_well = |node| {
            let member = shards.member(1, node);
            member.near && member.answered_ms.is_some_and(|ms| ms < 1_000)
        };
        eventually("both are well", || is_well(2) && is_well(3)).await;
        let before = shards.membership(1);
        shards.cluster.wires.isolate(1, 3);
        // They answered a moment ago, and would not any more: nothing is proposed.
        let refused = shard.order((1, 1), voters(&[1, 2, 3]), soon()).await;
        assert_eq!(code(refused), Code::NotSafeNow);
        assert_eq!(shards.membership(1), before);
        // As if they had been cut off right after they were asked.
        let three = [copy(1), copy(2), copy(3)].into();
        let cut_off = shard.inner.group.change_voters(before.pos, three);
        tokio::time::timeout(Duration::from_millis(300), cut_off).await.unwrap_err();
        assert!(shards.membership(1).joint);
        // Neither way is open while the voters of both configurations cannot confirm this leader.
        let late = Instant::now() + Duration::from_millis(300);
        let refused = shard.order((1, 1), goal.clone(), late).await;
        assert_eq!(code(refused), Code::NotReady);

        shards.cluster.wires.heal();
        shards.insist(1, (1, 1), goal).await;
        let settled = shards.membership(1);
        assert_eq!((settled.joint, settled.voters.len()), (false, count));
        assert_eq!(settled.voters.len() + settled.learners.len(), 3);
    }
    shard.write(encode_ops(&[set("k", "v")]), None, soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn orders_pass_one_after_the_other_and_only_so_many_wait() {
    let shards = Shards::new(1, &[1], quick()).await;
    shards.leader().await;
    let shard = &shards.shards[&1];
    let turn = shard.inner.orders.turn(soon()).await.unwrap();
    let late = shard.order((1, 1), ShardChange::Fence, Instant::now() + Duration::from_millis(50));
    assert_eq!(code(late.await), Code::DeadlineExceeded);
    let waiting: Vec<_> = (0..20)
        .map(|i| {
            let shard = shard.clone();
            tokio::spawn(async move { shard.order((1, i), ShardChange::Fence, soon()).await })
        })
        .collect();
    let is_overloaded = |done: &Result<(), Error>| matches!(done, Err(Error::Public(error)) if error.code == Code::Overloaded);
    eventually("four are refused", || {
        waiting.iter().filter(|order| order.is_finished()).count() == 4
    })
    .await;
    assert_eq!(shard.fence(), Ok((0, 0)));
    drop(turn);
    let mut refused = 0;
    for order in waiting {
        refused += u64::from(is_overloaded(&order.await.unwrap()));
    }
    assert_eq!(refused, 4);
    assert!(shard.fence().unwrap() > (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_tells_its_members_apart_and_the_fence_travels_in_a_snapshot() {
    let options =
        raft::Options { log_keep_bytes: 0, flush_bytes: 16 << 10, flush_ms: 100, ..quick() };
    let mut shards = Shards::new(2, &[1], options).await;
    shards.leader().await;
    assert_eq!(shards.shards[&1].fence(), Ok((0, 0)));
    shards.order(1, (7, 3), ShardChange::Fence).await.unwrap();
    let shard = shards.shards[&1].clone();
    for i in 0..300 {
        let ops = [set(&format!("key-{i}"), &"v".repeat(500))];
        shard.write(encode_ops(&ops), None, soon()).await.unwrap();
    }
    let log = shards.cluster.host(1).wal().group(GROUP);
    eventually("the log is purged", || log.range().start > 100).await;

    shards.learn(1, 2).await;
    eventually("the learner is near", || shards.member(1, 2).near).await;
    let Lead { fence, joint, last_index, members } = shard.lead().unwrap();
    assert_eq!((fence, joint), ((7, 3), false));
    let me = MemberReport {
        copy: CopyId(copy(1)),
        node: NodeId(1),
        voter: true,
        matched: last_index,
        answered_ms: Some(0),
        near: true,
    };
    assert_eq!(members[0], me);
    assert_eq!((members[1].copy, members[1].node), (CopyId(copy(2)), NodeId(2)));
    assert!(!members[1].voter && members[1].answered_ms.unwrap() < 1_000);
    // It came by snapshot, not by the entry, which is gone.
    assert!(shards.cluster.host(2).wal().group(GROUP).range().start > 100, "it came by log");
    let stored = shards.cluster.group(2).store().read(Fence::highest).unwrap().unwrap();
    assert_eq!(stored, Fence { operation: 7, turn: 3 });
    assert_eq!(shards.shards[&2].lead(), None);

    // A learner that is cut off stays behind, and is seen to.
    shards.cluster.wires.cut(1, 2);
    let stop = AtomicBool::new(false);
    let watch = async {
        eventually("it falls behind", || !shards.member(1, 2).near).await;
        let is_silent = || shards.member(1, 2).answered_ms.is_some_and(|ms| ms > 1_000);
        eventually("it falls silent", is_silent).await;
        assert_eq!(code(shards.order(1, (7, 3), voters(&[1, 2])).await), Code::NotSafeNow);
        shards.cluster.wires.heal();
        shards.insist(1, (7, 3), voters(&[1, 2])).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(count_up(&shard, &stop), watch);
    assert_eq!(shards.membership(1).voters.len(), 2);
}
