//! Every event in every state, at a small size: one shard, three primaries, and everything that may happen
//! to it: the coordinator's steps in any order and by an outdated coordinator, the death and return of any
//! node, the orders of a user. In each state that can be reached the promises hold, and from each the
//! operation comes to rest once the nodes are up.
//!
//! The shard's own rules are written down here once more, in their shortest form, as what the coordinator
//! relies on.

use super::core::{Action, Probed, Seen, decide};
use crate::cluster::core::tests::record;
use crate::cluster::{ClusterState, Event, MetaCommand, MetaReply};
use crate::types::{CopyId, Incarnation, NodeId, ShardId};
use crate::wire::client::Strategy;
use crate::wire::codec;
use crate::wire::guard::ServiceLevel;
use crate::wire::operation::{
    CopyReport, Lead, MemberReport, NodeReport, Phase, ShardChange, ShardOrder,
};
use crate::wire::plan::{DiskProbe, LoadReport, PeerProbe, ProbeReport};
use crate::wire::terms::Terms;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

const NOW_MS: u64 = 1_000;
const INDEX: u64 = 10;
/// Rounds in which an undisturbed cluster must come to rest.
const ROUNDS_MAX: usize = 200;

/// A shard's group as it is, whatever anybody believes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    voters: BTreeSet<CopyId>,
    learners: BTreeSet<CopyId>,
    leader: Option<CopyId>,
    fence: (u64, u64),
    /// Two configurations hold, and the new one has no majority: nothing moves any more.
    wedged: bool,
}

#[derive(Clone, Debug)]
struct World {
    state: ClusterState,
    group: Group,
    homes: BTreeMap<CopyId, NodeId>,
    down: Option<NodeId>,
    /// An order decided earlier, that a coordinator who was asleep may still send.
    stale: Option<ShardOrder>,
}

/// Which of the rules are left out, to see that the model notices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Without {
    fence: bool,
    quorum_rules: bool,
}

impl World {
    fn sharded() -> Self {
        let mut state = ClusterState::default();
        let mut form = record(3, 0, 3);
        form.shards = 3;
        state.apply(&MetaCommand::Form(form));
        // One shard is enough for what one shard can do; the others would only multiply the states.
        state.shards.truncate(1);
        let first = state.shards[0].copies[0];
        let group = Group {
            voters: [first.id].into(),
            learners: BTreeSet::new(),
            leader: Some(first.id),
            fence: (0, 0),
            wedged: false,
        };
        let homes = [(first.id, first.node)].into();
        World { state, group, homes, down: None, stale: None }
    }

    /// A cluster that has been switched to `full`, and finalized.
    fn full() -> Self {
        let mut world = Self::sharded();
        world.begin(Strategy::Full, true);
        world = world.rest().expect("it comes to rest");
        world.user(Event::Finalize);
        world = world.rest().expect("it comes to rest");
        assert_eq!(world.state.strategy, Strategy::Full);
        world.state.settings.insert("switch.cool_down".into(), "0s".into());
        world
    }

    fn begin(&mut self, to: Strategy, commit_asked: bool) {
        let (by, terms, now_ms) = ("test".into(), Terms::default(), NOW_MS);
        let command = MetaCommand::Begin { to, by, commit_asked, now_ms, terms };
        assert!(matches!(self.state.apply(&command), MetaReply::Done { .. }));
    }

    fn key(&self) -> Vec<u8> {
        let stale = format!("{:?}{:?}{:?}", self.group, self.down, self.stale);
        [codec::encode(&self.state), stale.into_bytes()].concat()
    }

    fn is_up(&self, copy: CopyId) -> bool {
        self.homes.get(&copy).is_some_and(|node| Some(*node) != self.down)
    }

    fn has_quorum(&self) -> bool {
        let up = self.group.voters.iter().filter(|c| self.is_up(**c)).count();
        up > self.group.voters.len() / 2
    }

    fn leader(&self) -> Option<CopyId> {
        self.group.leader.filter(|c| self.is_up(*c) && self.has_quorum())
    }

    fn seen(&self) -> Seen {
        let lead = |copy: CopyId| {
            (self.leader() == Some(copy)).then(|| Lead {
                fence: self.group.fence,
                joint: false,
                last_index: INDEX,
                members: self.members(),
            })
        };
        let report = |node: &NodeId| NodeReport {
            node: *node,
            clock_ms: NOW_MS,
            disk_free_bytes: 1 << 40,
            disk_total_bytes: 1 << 40,
            map_bytes_max: 1 << 36,
            version: "1".into(),
            certificate_expires_ms: u64::MAX,
            load: LoadReport { window_ms: 1, ..LoadReport::default() },
            copies: self
                .homes
                .iter()
                .filter(|(_, home)| *home == node)
                .map(|(copy, _)| CopyReport {
                    shard: ShardId(0),
                    incarnation: Incarnation(1),
                    copy: *copy,
                    leader: self.leader(),
                    // Nothing, so that what was copied does not tell states apart that are the same.
                    table_bytes: 0,
                    applied: INDEX,
                    installed: 0,
                    arriving_bytes: 0,
                    lead: lead(*copy),
                })
                .collect(),
            service: ServiceLevel::default(),
            copied_bytes: 0,
        };
        let up = self.state.members.keys().filter(|node| Some(**node) != self.down);
        let reports = up.map(|node| (*node, report(node))).collect();
        Seen { reports, probed: Some(self.probed()), ..Seen::default() }
    }

    /// Everybody was measured, and found well.
    fn probed(&self) -> Probed {
        let nodes = || self.state.members.keys().copied();
        let way = |node| PeerProbe {
            node,
            asked: 1,
            lost: 0,
            rtt_us: 1,
            rtt_worst_us: 1,
            bytes_per_s: 1 << 30,
        };
        let disk = DiskProbe { write_bytes_per_s: 1 << 30, sync_us: 1, sync_worst_us: 1 };
        let report = |_| ProbeReport { disk: Ok(disk), peers: nodes().map(way).collect() };
        Probed { reports: nodes().map(|node| (node, report(node))).collect(), age_ms: 0 }
    }

    fn members(&self) -> Vec<MemberReport> {
        let all = self.group.voters.iter().chain(&self.group.learners);
        all.map(|copy| MemberReport {
            copy: *copy,
            node: self.homes[copy],
            voter: self.group.voters.contains(copy),
            matched: if self.is_up(*copy) { INDEX } else { 0 },
            answered_ms: self.is_up(*copy).then_some(0),
            near: self.is_up(*copy),
        })
        .collect()
    }

    /// A transition, refused or not; true if it was taken.
    fn journal(&mut self, event: Event) -> bool {
        let Some((operation, step)) = self.state.operation().map(|op| (op.id, op.step)) else {
            return false;
        };
        let command = MetaCommand::Advance { operation, step, event, now_ms: NOW_MS };
        let taken = matches!(self.state.apply(&command), MetaReply::Done { .. });
        let placed = self.state.shards.iter().flat_map(|s| &s.copies);
        self.homes.extend(placed.map(|c| (c.id, c.node)));
        taken
    }

    fn user(&mut self, event: Event) -> bool {
        self.journal(event)
    }

    /// What the leader of the shard does with an order; its own rules protect it.
    fn order(&mut self, order: &ShardOrder, without: Without) {
        let Some(leader) = self.leader() else { return };
        if order.fence < self.group.fence && !without.fence {
            return;
        }
        self.group.fence = self.group.fence.max(order.fence);
        match &order.change {
            ShardChange::Fence => {}
            ShardChange::Transfer(copy) => {
                if self.group.voters.contains(copy) && self.is_up(*copy) {
                    self.group.leader = Some(*copy);
                }
            }
            ShardChange::Remove(copies) => {
                self.group.learners.retain(|c| !copies.contains(c));
            }
            ShardChange::Voters(voters) => {
                let voters: BTreeSet<CopyId> = voters.iter().copied().collect();
                let up = voters.iter().filter(|c| self.is_up(**c)).count();
                let safe = match voters.len() {
                    1 => {
                        voters.contains(&leader) && self.group.voters.iter().all(|c| self.is_up(*c))
                    }
                    n => voters.contains(&leader) && up > n / 2,
                };
                let members: BTreeSet<CopyId> =
                    self.group.voters.union(&self.group.learners).copied().collect();
                if !(safe || without.quorum_rules) || !voters.is_subset(&members) {
                    return;
                }
                if up <= voters.len() / 2 {
                    self.group.wedged = true;
                } else {
                    self.group.learners = members.difference(&voters).copied().collect();
                    self.group.voters = voters;
                    self.group.leader = Some(leader).filter(|l| self.group.voters.contains(l));
                }
            }
        }
    }

    fn act(&mut self, action: &Action, without: Without) {
        match action {
            Action::Journal(event) => {
                self.journal(event.clone());
            }
            Action::Order { order, .. } => self.order(order, without),
            Action::Compare { shard, reference, copies, .. } => {
                let up = copies.iter().filter(|(_, node)| Some(*node) != self.down);
                let copies = up.map(|(copy, _)| *copy).chain([*reference]).collect();
                self.journal(Event::Verified { shard: *shard, copies, index: INDEX });
            }
        }
    }

    fn actions(&self) -> Vec<Action> {
        decide(&self.state, &self.seen(), NOW_MS).actions
    }

    /// The leader's node adds the learners that are placed.
    fn add_learners(&mut self) {
        if self.leader().is_none() {
            return;
        }
        for copy in &self.state.shards[0].copies {
            if !self.group.voters.contains(&copy.id) {
                self.group.learners.insert(copy.id);
            }
        }
    }

    fn elect(&mut self) {
        if self.leader().is_none() && self.has_quorum() {
            let able = self.group.voters.iter().copied().find(|c| self.is_up(*c));
            self.group.leader = able;
        }
    }

    /// Everything that can happen next.
    fn next(&self, without: Without) -> Vec<World> {
        let mut next = vec![];
        let mut with = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        for action in self.actions() {
            with(&|w| w.act(&action, without));
            if let (Action::Order { order, .. }, None) = (&action, &self.stale) {
                with(&|w| w.stale = Some(order.clone()));
            }
        }
        if let Some(order) = &self.stale {
            with(&|w| {
                w.stale = None;
                w.order(order, without);
            });
        }
        match self.down {
            Some(_) => with(&|w| w.down = None),
            None => self.state.members.keys().for_each(|node| with(&|w| w.down = Some(*node))),
        }
        with(&World::add_learners);
        with(&World::elect);
        for event in [
            Event::CommitAsked,
            Event::Abort { reason: "a".into() },
            Event::Revert { reason: "r".into() },
            Event::Finalize,
        ] {
            with(&|w| {
                w.user(event.clone());
            });
        }
        next
    }

    /// Runs on undisturbed, with all nodes up, until nothing is left to do.
    fn rest(mut self) -> Result<World, String> {
        self.down = None;
        for _ in 0..ROUNDS_MAX {
            let before = self.key();
            self.elect();
            self.add_learners();
            for action in self.actions() {
                self.act(&action, Without::default());
                if matches!(action, Action::Journal(_)) {
                    break;
                }
            }
            if self.key() == before {
                return Ok(self);
            }
        }
        Err(format!("no rest after {ROUNDS_MAX} rounds: {self:#?}"))
    }

    /// What holds in every state.
    fn check(&self) -> Result<(), String> {
        self.state.check()?;
        if self.group.voters.is_empty() {
            return Err("a shard without a voter".into());
        }
        if self.group.wedged {
            return Err(format!("wedged between two configurations: {:?}", self.group));
        }
        let op = self.state.operation().ok_or("no operation")?;
        // S3: nobody votes who was not the origin's voter or proven equal.
        let origin = op.checkpoint.iter().flat_map(|c| &c.shards[0].voters);
        let proven: BTreeSet<CopyId> =
            origin.chain(op.verified.iter().map(|v| &v.copy)).copied().collect();
        if op.checkpoint.is_some() && !self.group.voters.is_subset(&proven) {
            return Err(format!(
                "voters {:?} of which only {proven:?} are proven",
                self.group.voters
            ));
        }
        // Rule 7.3: with one node down a shard either keeps a majority, or it is the owner's alone.
        let owner = self.state.shards[0].owner;
        if !self.has_quorum() {
            let lone = self.group.voters.len() == 1
                && self.group.voters.iter().all(|c| self.homes[c] == owner);
            if !lone {
                return Err(format!("{:?} is wedged by the loss of {:?}", self.group, self.down));
            }
        }
        Ok(())
    }

    /// What holds where nothing is left to do.
    fn check_rest(&self) -> Result<(), String> {
        let op = self.state.operation().ok_or("no operation")?;
        let rests = op.phase.is_over()
            || op.phase == Phase::Soaking
            || (op.phase == Phase::Prepared && !op.commit_asked);
        if !rests {
            return Err(format!("rests while {}", op.phase.name()));
        }
        let wanted: BTreeSet<CopyId> =
            self.state.shards[0].copies.iter().filter(|c| c.voter).map(|c| c.id).collect();
        if self.group.voters != wanted {
            return Err(format!("voters {:?}, wanted {wanted:?}", self.group.voters));
        }
        let placed: BTreeSet<CopyId> = self.state.shards[0].copies.iter().map(|c| c.id).collect();
        let members: BTreeSet<CopyId> =
            self.group.voters.union(&self.group.learners).copied().collect();
        match members.is_subset(&placed) {
            true => Ok(()),
            false => Err(format!("members {members:?}, placed {placed:?}")),
        }
    }
}

/// Visits every state that can be reached; the number of them, or the first fault.
fn explore(start: World, without: Without) -> Result<usize, String> {
    let mut known = HashSet::from([start.key()]);
    let mut open = VecDeque::from([start]);
    while let Some(world) = open.pop_front() {
        world.check().map_err(|why| format!("{why}: {world:#?}"))?;
        let rest = world.clone().rest()?;
        rest.check_rest().map_err(|why| format!("{why}: {rest:#?}\nfrom {world:#?}"))?;
        // A coordinator that slept through all of it must not undo it.
        let mut woken = rest.clone();
        if let Some(order) = rest.stale {
            woken.stale = None;
            woken.order(&order, without);
            woken.check_rest().map_err(|why| format!("{why}, after {order:?}: {woken:#?}"))?;
        }
        for next in world.next(without) {
            if known.insert(next.key()) {
                open.push_back(next);
            }
        }
    }
    Ok(known.len())
}

fn explore_both(without: Without) -> Result<usize, String> {
    let mut to_full = World::sharded();
    to_full.begin(Strategy::Full, false);
    let mut to_sharded = World::full();
    to_sharded.begin(Strategy::Sharded, false);
    Ok(explore(to_full, without)? + explore(to_sharded, without)?)
}

#[test]
fn every_event_in_every_state_keeps_the_promises() {
    let states = explore_both(Without::default()).unwrap();
    println!("{states} states");
    assert!(states > 1_000, "{states} states are too few to have tried everything");
}

#[test]
fn without_the_fence_an_outdated_coordinator_is_caught() {
    let found = explore_both(Without { fence: true, ..Without::default() });
    assert!(found.is_err());
}

#[test]
fn without_the_rules_for_voters_a_wedged_shard_is_caught() {
    let found = explore_both(Without { quorum_rules: true, ..Without::default() });
    assert!(found.is_err());
}
