//! What a lost disk makes of the cluster's state, by values and over random stories.

use super::*;
use crate::cluster::core::tests::record;
use crate::cluster::{Event, MetaCommand, MetaReply};
use crate::types::NodeName;
use crate::wire::client::{Role, Strategy};
use rand::{Rng, SeedableRng, rngs::StdRng};

const LOST: NodeId = NodeId(3);
const FRESH: NodeId = NodeId(5);
const DISK: DiskId = DiskId(77);

fn apply(state: &mut ClusterState, command: MetaCommand) {
    let reply = state.apply(&command);
    assert!(matches!(reply, MetaReply::Done { .. }), "{command:?}: {reply:?}");
    state.check().unwrap();
}

fn refused(state: &mut ClusterState, command: MetaCommand) -> Error {
    let before = state.clone();
    let reply = state.apply(&command);
    assert_eq!(*state, before, "a refusal changes nothing");
    match reply {
        MetaReply::Refused(error) => error,
        done => panic!("{command:?}: {done:?}"),
    }
}

/// Primaries 1 to 3, replica 4.
fn formed() -> ClusterState {
    let mut state = ClusterState::default();
    apply(&mut state, MetaCommand::Form(record(3, 1, 12)));
    state
}

fn advance(state: &mut ClusterState, event: Event) {
    let (operation, step) = state.operation().map(|op| (op.id, op.step)).unwrap();
    apply(state, MetaCommand::Advance { operation, step, event, now_ms: 1 });
}

fn begin(state: &mut ClusterState, to: Strategy) {
    let by = "test".to_owned();
    apply(
        state,
        MetaCommand::Begin { to, by, commit_asked: true, now_ms: 1, terms: Default::default() },
    );
    let indexes = vec![1; state.shards.len()];
    advance(state, Event::Checkpoint { indexes, baseline: Default::default() });
    advance(state, Event::CopyStarted);
    advance(state, Event::CaughtUp);
}

fn verify(state: &mut ClusterState) {
    for (shard, copy) in state.unverified() {
        advance(state, Event::Verified { shard, copies: vec![copy], index: 1 });
    }
    advance(state, Event::Prepared { copy_bytes: 0 });
}

fn full() -> ClusterState {
    let mut state = formed();
    begin(&mut state, Strategy::Full);
    verify(&mut state);
    advance(&mut state, Event::Commit);
    advance(&mut state, Event::Settled);
    advance(&mut state, Event::Finalize);
    advance(&mut state, Event::Settled);
    state
}

fn lose(state: &mut ClusterState) {
    apply(state, MetaCommand::Rejoin { node: LOST, disk: DISK });
}

#[test]
fn a_lost_replica_gets_fresh_copies_of_everything() {
    let mut state = formed();
    let before = state.clone();
    apply(&mut state, MetaCommand::Rejoin { node: NodeId(4), disk: DISK });
    assert!(state.is_gone(NodeId(4)) && !before.is_gone(NodeId(4)) && !state.is_gone(FRESH));
    let member = &state.members[&FRESH];
    assert_eq!((member.name.as_str(), member.disk, member.joined), ("n4", DISK, false));
    assert_eq!(member.addr, before.members[&NodeId(4)].addr);
    assert_eq!(state.lost_copies(), []);
    for (now, then) in state.shards.iter().zip(&before.shards) {
        assert_eq!(now.copies[0], then.copies[0], "the owner's copy stays");
        let copy = now.copies[1];
        assert!(copy.id.0 >= before.next_copy && !copy.voter);
        assert_eq!((copy.node, copy.disk), (FRESH, DISK));
    }
    apply(&mut state, MetaCommand::Joined { node: FRESH });
    assert!(state.members[&FRESH].joined);
}

#[test]
fn the_only_voter_of_a_shard_waits_where_it_was() {
    let mut state = formed();
    let before = state.clone();
    lose(&mut state);
    for (now, then) in state.shards.iter().zip(&before.shards) {
        if then.owner != LOST {
            assert_eq!(now, then);
            continue;
        }
        assert_eq!(now.owner, FRESH);
        assert_eq!(now.copies[1], then.copies[1], "the replica keeps its copy");
        // Its id and disk stay, so no node opens it, the one that rejoined included.
        assert_eq!(now.copies[0], CopyPlacement { node: FRESH, ..then.copies[0] });
        assert_ne!(now.copies[0].disk, state.members[&FRESH].disk);
    }
    let lost = state.lost_copies();
    assert_eq!(lost.len(), before.shards.iter().filter(|s| s.owner == LOST).count());
    assert!(lost.len() >= 4);
    // Lost once more: the record still tells the disk that has the data.
    apply(&mut state, MetaCommand::Rejoin { node: FRESH, disk: DiskId(78) });
    let disks = |lost: Vec<(ShardId, CopyPlacement)>| {
        lost.into_iter().map(|(shard, c)| (shard, c.id, c.disk)).collect::<Vec<_>>()
    };
    assert_eq!(disks(state.lost_copies()), disks(lost));
}

#[test]
fn in_full_replication_every_copy_is_replaced_and_votes() {
    let mut state = full();
    let before = state.clone();
    lose(&mut state);
    let lost: Vec<CopyId> = state.lost_copies().into_iter().map(|(_, c)| c.id).collect();
    assert_eq!(lost.len(), 12);
    apply(&mut state, MetaCommand::Replace { copies: lost[..5].to_vec() });
    apply(&mut state, MetaCommand::Replace { copies: lost.clone() });
    assert_eq!(state.lost_copies(), []);
    for (now, then) in state.shards.iter().zip(&before.shards) {
        assert_eq!(now.founder, then.founder, "who replaces never founds");
        let fresh: Vec<_> = now.copies.iter().filter(|c| c.node == FRESH).collect();
        assert_eq!(fresh.len(), 1);
        assert!(fresh[0].voter && fresh[0].id.0 >= before.next_copy && fresh[0].disk == DISK);
        assert_eq!(now.owner == FRESH, then.owner == LOST);
    }
    let error = refused(&mut state, MetaCommand::Replace { copies: lost });
    assert_eq!(error.code, Code::NotFound);
}

/// Demoted to its owner alone by placement, while the others still vote in its group: the owner's fresh
/// copy is the only voter placed, is empty, and must not take itself for the first.
#[test]
fn only_the_first_copy_of_a_shard_starts_its_group() {
    let mut state = full();
    state.settings.insert("switch.cool_down".into(), "0s".into());
    begin(&mut state, Strategy::Sharded);
    verify(&mut state);
    advance(&mut state, Event::Commit);
    let first = state.shards[0].founder;
    assert!(state.shards[0].may_start(first));
    assert!(!full().shards[0].may_start(first), "not while others shall vote");
    let (owner, shard) = (state.shards[0].owner, state.shards[0].id);
    apply(&mut state, MetaCommand::Rejoin { node: owner, disk: DISK });
    let lost = state.lost_copies().into_iter().find(|(id, _)| *id == shard).map(|(_, c)| c.id);
    apply(&mut state, MetaCommand::Replace { copies: vec![lost.expect("its only voter")] });
    let voters: Vec<CopyId> =
        state.shards[0].copies.iter().filter(|c| c.voter).map(|c| c.id).collect();
    assert_eq!(voters.len(), 1);
    assert!(!state.shards[0].may_start(voters[0]));
}

#[test]
fn what_was_prepared_is_compared_again() {
    let mut state = formed();
    begin(&mut state, Strategy::Full);
    verify(&mut state);
    let step = state.operation().unwrap().step;
    lose(&mut state);
    let op = state.operation().unwrap();
    assert_eq!((op.phase, op.step), (Phase::CaughtUp, step + 1));
    let open = state.unverified();
    assert!(!open.is_empty() && open.iter().all(|(_, copy)| copy.0 > 24));
    verify(&mut state);
    advance(&mut state, Event::Commit);
}

#[test]
fn a_lost_disk_is_registered_once_and_never_again() {
    let mut state = formed();
    let old = state.members[&LOST].disk;
    let rejoin = |node, disk| MetaCommand::Rejoin { node, disk };
    let code = |state: &mut ClusterState, command| refused(state, command).code;
    assert_eq!(code(&mut state, rejoin(NodeId(9), DISK)), Code::NotFound);
    assert_eq!(code(&mut state, rejoin(LOST, old)), Code::BadRequest);
    assert_eq!(code(&mut state, rejoin(LOST, state_disk(1))), Code::BadRequest);
    lose(&mut state);
    assert_eq!(code(&mut state, rejoin(LOST, DiskId(78))), Code::NotFound);
    // The old disk has copies that are recorded, so it is not an empty one.
    assert_eq!(code(&mut state, rejoin(FRESH, old)), Code::BadRequest);
    assert_eq!(code(&mut state, MetaCommand::Joined { node: LOST }), Code::NotFound);
    let mut last = formed();
    last.next_node = u64::MAX;
    assert_eq!(code(&mut last, rejoin(LOST, DISK)), Code::BadRequest);
    assert_eq!(code(&mut ClusterState::default(), rejoin(LOST, DISK)), Code::NotFound);
}

fn state_disk(node: u64) -> DiskId {
    formed().members[&NodeId(node)].disk
}

#[test]
fn a_node_is_told_to_join_what_the_cluster_is() {
    let mut state = formed();
    lose(&mut state);
    let record = state.record();
    crate::cluster::core::check_formation(&record).unwrap();
    assert_eq!((record.id, record.shards, record.members.len()), (42, 12, 4));
    let me = record.members.iter().find(|m| m.name.as_str() == "n3").unwrap();
    assert_eq!((me.id, me.disk), (FRESH, DISK));
}

#[test]
fn what_answers_is_told_apart() {
    let mut state = formed();
    let says = |disk, formation| NodeDescription {
        name: NodeName::new("n3").unwrap(),
        role: Role::Primary,
        disk,
        formation,
    };
    let old = state.members[&LOST].disk;
    assert_eq!(judge(&state, LOST, &says(old, Some(42))), Finding::Itself);
    assert_eq!(judge(&state, LOST, &says(DISK, None)), Finding::Empty(DISK));
    let stranger = |found: &Finding| matches!(found, Finding::Stranger(_));
    for found in [
        says(DISK, Some(43)),
        // It ran with this disk, and the folder does not know it.
        says(old, None),
        NodeDescription { role: Role::Replica, ..says(DISK, None) },
        NodeDescription { name: NodeName::new("n2").unwrap(), ..says(DISK, None) },
    ] {
        assert!(stranger(&judge(&state, LOST, &found)), "{found:?}");
    }
    lose(&mut state);
    assert!(stranger(&judge(&state, LOST, &says(DISK, None))));
    assert_eq!(judge(&state, FRESH, &says(DISK, None)), Finding::Invited);
    assert_eq!(judge(&state, FRESH, &says(DISK, Some(42))), Finding::Itself);
    assert_eq!(judge(&state, FRESH, &says(old, Some(42))), Finding::Replaced);
    assert_eq!(judge(&state, FRESH, &says(DiskId(78), None)), Finding::Empty(DiskId(78)));
    apply(&mut state, MetaCommand::Joined { node: FRESH });
    assert!(stranger(&judge(&state, FRESH, &says(DISK, None))));
}

#[test]
fn silence_counts_from_when_somebody_listened() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    assert_eq!(silent_for(None, at(5), at(9)), Duration::from_secs(4));
    assert_eq!(silent_for(Some(at(1)), at(5), at(9)), Duration::from_secs(4));
    assert_eq!(silent_for(Some(at(8)), at(5), at(9)), Duration::from_secs(1));
    assert_eq!(silent_for(Some(at(9)), at(5), at(8)), Duration::ZERO);
}

#[test]
fn a_quorum_does_not_count_the_lost() {
    let voters = |n: u64| (1..=n).map(|id| (id, NodeId(id))).collect::<BTreeMap<_, _>>();
    let all = |_| true;
    assert!(quorum_without(&voters(3), LOST, all));
    assert!(quorum_without(&voters(2), LOST, all), "a replica is no voter");
    assert!(!quorum_without(&voters(2), NodeId(2), all));
    assert!(!quorum_without(&voters(1), NodeId(1), all));
    assert!(!quorum_without(&voters(3), LOST, |node| node == NodeId(1)));
}

/// Random stories of lost disks, lost again, replaced and joined, in both strategies and during a switch.
#[test]
fn the_state_stays_sound_whatever_is_lost() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = match seed % 3 {
            0 => formed(),
            1 => full(),
            _ => {
                let mut state = formed();
                begin(&mut state, Strategy::Full);
                verify(&mut state);
                state
            }
        };
        let founders: Vec<CopyId> = state.shards.iter().map(|s| s.founder).collect();
        for _ in 0..40 {
            let before = state.clone();
            let random = rng.random_range(0..10);
            let command = match rng.random_range(0..5) {
                0 | 1 => {
                    let disk = DiskId(rng.random_range(70..110));
                    MetaCommand::Rejoin { node: NodeId(rng.random_range(1..30)), disk }
                }
                2 => MetaCommand::Joined { node: NodeId(random) },
                3 => {
                    let some = |_: &CopyId| rng.random_bool(0.3);
                    let copies = (0..before.next_copy).map(CopyId).filter(some).collect();
                    MetaCommand::Replace { copies }
                }
                _ => {
                    let events = [
                        Event::Commit,
                        Event::Settled,
                        Event::Finalize,
                        Event::Prepared { copy_bytes: 0 },
                        Event::Abort { reason: String::new() },
                        Event::Revert { reason: String::new() },
                    ];
                    let event = events[random as usize % events.len()].clone();
                    let (operation, step) = state.operation().map_or((0, 0), |op| (op.id, op.step));
                    MetaCommand::Advance { operation, step, event, now_ms: 1 }
                }
            };
            let reply = state.apply(&command);
            let told = || format!("seed {seed}, {command:?}");
            state.check().unwrap_or_else(|why| panic!("{why}: {}", told()));
            if matches!(reply, MetaReply::Refused(_)) {
                assert_eq!(state, before, "{}", told());
            }
            assert!(state.next_node >= before.next_node && state.next_copy >= before.next_copy);
            assert_eq!(state.members.len(), 4, "{}", told());
            // A copy keeps its disk for life, and what is placed on a member's disk is that member's.
            for copy in state.placed() {
                if let Some(then) = before.placed().find(|c| c.id == copy.id) {
                    assert_eq!(then.disk, copy.disk, "{}", told());
                }
                let holder = state.members.iter().find(|(_, m)| m.disk == copy.disk);
                assert!(holder.is_none_or(|(id, _)| *id == copy.node), "{}", told());
            }
            let gone = before.members.keys().filter(|id| !state.members.contains_key(id));
            assert!(gone.into_iter().all(|id| state.is_gone(*id)));
            assert_eq!(state.shards.iter().map(|s| s.founder).collect::<Vec<_>>(), founders);
        }
    }
}
