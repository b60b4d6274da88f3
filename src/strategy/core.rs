//! What the coordinator does next: a pure function of the journaled state and of what the nodes reported.
//!
//! It keeps nothing between two calls, so a coordinator that dies is replaced by calling it elsewhere. It
//! may repeat itself: events are compare-and-set on (operation, step), orders are refused by a shard that
//! has seen a higher (operation, turn), and both are harmless twice.
//!
//! One idea carries all phases: *a shard's group follows the placement*. The journal changes the placement
//! at once, at the commit point of a switch or of the way back; here the groups are brought there.

use super::{checks, guard};
use crate::cluster::{ClusterState, CopyPlacement, Event, ShardPlacement};
use crate::types::{CopyId, NodeId, ShardId};
use crate::wire::client::Strategy;
use crate::wire::operation::{
    CopyReport, Lead, MemberReport, NodeProgress, NodeReport, Operation, Phase, Progress,
    ShardChange, ShardOrder,
};
use crate::wire::plan::ProbeReport;
use std::collections::{BTreeMap, BTreeSet};

/// A member that answered its leader within this time counts as answering.
pub const ANSWERS_WITHIN_MS: u64 = 1_000;
/// How long an owner must have answered without a gap before leadership returns to it by itself.
pub const STEADY_MS: u64 = 60_000;

/// What the coordinator sees at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// What each node said; a node that did not answer in time is missing.
    pub reports: BTreeMap<NodeId, NodeReport>,
    /// What the coordinator's clock showed when each of them arrived; those of one look may be most of a second
    /// apart. Without it a report is taken for one of this moment.
    pub arrived_ms: BTreeMap<NodeId, u64>,
    /// For how long each node has answered without a gap.
    pub steady_ms: BTreeMap<NodeId, u64>,
    /// Shards whose last comparison found a difference, or could not be made, with the reason.
    pub unequal: BTreeMap<ShardId, String>,
    /// The last probe of all nodes, if there was one.
    pub probed: Option<Probed>,
}

/// A probe of all nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probed {
    /// What each node measured.
    pub reports: BTreeMap<NodeId, ProbeReport>,
    /// How long ago.
    pub age_ms: u64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Journal this event of the operation under way.
    Journal(Event),
    /// Send this order to the node that leads the shard.
    Order {
        /// The node.
        node: NodeId,
        /// The order.
        order: ShardOrder,
    },
    /// Compare the digests of these copies with the leader's.
    Compare {
        /// The shard.
        shard: ShardId,
        /// The node that leads it.
        leader: NodeId,
        /// The leader's own copy.
        reference: CopyId,
        /// The others.
        copies: Vec<(CopyId, NodeId)>,
    },
}

/// What to do, and how far it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// In any order; each is conditional.
    pub actions: Vec<Action>,
    /// For display.
    pub progress: Progress,
}

/// A shard with its leader's report.
struct View<'a> {
    placed: &'a ShardPlacement,
    /// The node that leads, its copy, and what it knows.
    lead: Option<(NodeId, &'a CopyReport, &'a Lead)>,
}

/// Decides.
pub fn decide(state: &ClusterState, seen: &Seen, now_ms: u64) -> Decision {
    let views: Vec<View<'_>> = state.shards.iter().map(|s| view(s, seen)).collect();
    let round = Round { state, seen, views, now_ms };
    match state.active() {
        None => round.keep(),
        Some(op) => match op.phase {
            Phase::Planned => round.checkpoint(),
            Phase::Checkpointed | Phase::Copying => round.copy(op),
            Phase::CaughtUp => round.verify(op),
            Phase::Prepared => round.commit(op),
            Phase::Soaking => round.soak(op),
            Phase::Committing | Phase::Reverting | Phase::Aborting | Phase::Finalizing => {
                round.follow(op)
            }
            Phase::Finalized | Phase::Aborted | Phase::Reverted => round.keep(),
        },
    }
}

/// The leader of a shard as reported. Of two that claim it, the one that more voters answer.
fn view<'a>(placed: &'a ShardPlacement, seen: &'a Seen) -> View<'a> {
    let claims = seen.reports.iter().flat_map(|(node, report)| {
        report
            .copies
            .iter()
            .filter(|c| c.shard == placed.id && c.incarnation == placed.incarnation)
            .filter_map(|c| Some((*node, c, c.lead.as_ref()?)))
    });
    let answering = |lead: &Lead| lead.members.iter().filter(|m| m.voter && answers(m)).count();
    let lead = claims.max_by_key(|(_, _, lead)| (answering(lead), lead.last_index));
    View { placed, lead }
}

fn answers(member: &MemberReport) -> bool {
    member.answered_ms.is_some_and(|ms| ms <= ANSWERS_WITHIN_MS)
}

impl View<'_> {
    fn member(&self, copy: CopyId) -> Option<&MemberReport> {
        self.lead.and_then(|(_, _, lead)| lead.members.iter().find(|m| m.copy == copy))
    }

    /// Answers, and has everything that was written more than a second ago.
    fn is_near(&self, copy: CopyId) -> bool {
        self.member(copy).is_some_and(|m| answers(m) && m.near)
    }

    fn voters(&self) -> BTreeSet<CopyId> {
        let members = self.lead.map_or(&[][..], |(_, _, lead)| &lead.members);
        members.iter().filter(|m| m.voter).map(|m| m.copy).collect()
    }

    fn wanted(&self) -> BTreeSet<CopyId> {
        self.placed.copies.iter().filter(|c| c.voter).map(|c| c.id).collect()
    }

    /// Copies that shall vote and do not yet.
    fn entering(&self) -> BTreeSet<CopyId> {
        self.wanted().difference(&self.voters()).copied().collect()
    }

    fn is_placed(&self, copy: CopyId) -> bool {
        self.placed.copies.iter().any(|c| c.id == copy)
    }

    /// Members that the placement does not list, and that do not vote.
    fn strangers(&self) -> Vec<CopyId> {
        let members = self.lead.map_or(&[][..], |(_, _, lead)| &lead.members);
        members.iter().filter(|m| !m.voter && !self.is_placed(m.copy)).map(|m| m.copy).collect()
    }

    /// The owner's copy that shall vote.
    fn owners_copy(&self) -> Option<CopyId> {
        let owner = self.placed.owner;
        self.placed.copies.iter().find(|c| c.node == owner && c.voter).map(|c| c.id)
    }

    /// True once the group is what the placement says, under a fence at least that high.
    fn is_settled(&self, fence: (u64, u64)) -> bool {
        self.lead.is_some_and(|(_, _, lead)| !lead.joint && lead.fence >= fence)
            && self.voters() == self.wanted()
            && self.strangers().is_empty()
    }
}

struct Round<'a> {
    state: &'a ClusterState,
    seen: &'a Seen,
    views: Vec<View<'a>>,
    now_ms: u64,
}

impl Round<'_> {
    fn name(&self, node: NodeId) -> String {
        self.state.name(node).map_or_else(|| node.to_string(), |name| name.to_string())
    }

    fn leaderless(&self) -> Option<String> {
        let missing = self.views.iter().find(|v| v.lead.is_none())?;
        Some(format!("{} has no leader that answers", missing.placed.id))
    }

    /// Copies of primaries that are not the owner's: those a switch makes, verifies and promotes.
    fn targets<'b>(&'b self, view: &'b View<'_>) -> impl Iterator<Item = &'b CopyPlacement> {
        let primaries = self.state.primaries();
        let owner = view.placed.owner;
        view.placed.copies.iter().filter(move |c| primaries.contains(&c.node) && c.node != owner)
    }

    fn checkpoint(self) -> Decision {
        if let Some(blocker) = self.leaderless() {
            return waiting(blocker);
        }
        let last = |v: &View<'_>| v.lead.map_or(0, |(_, _, lead)| lead.last_index);
        let indexes = self.views.iter().map(last).collect();
        journal(Event::Checkpoint { indexes, baseline: guard::level(self.seen) })
    }

    /// Copies; a shard that has arrived everywhere is compared while the others are still on their way.
    fn copy(self, op: &Operation) -> Decision {
        if let Some(gives_up) = self.unequal() {
            return gives_up;
        }
        let origin = |shard: ShardId| {
            let at = |c: &crate::wire::operation::Checkpoint| {
                c.shards.get(shard.0 as usize)?.index.into()
            };
            op.checkpoint.as_ref().and_then(at).unwrap_or(u64::MAX)
        };
        let mut progress = Progress::default();
        let mut arrived: BTreeSet<ShardId> = BTreeSet::new();
        let mut nodes: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for view in &self.views {
            let bytes = view.lead.map_or(0, |(_, copy, _)| copy.table_bytes);
            let behind = self.targets(view).filter(|target| {
                let arrived = view.member(target.id).is_some_and(|m| {
                    m.matched >= origin(view.placed.id) && view.is_near(target.id)
                });
                let here = if arrived { bytes } else { self.arriving(target).min(bytes) };
                let (done, total) = nodes.entry(target.node).or_default();
                (*done, *total) = (*done + here, *total + bytes);
                if !arrived && progress.blocker.is_none() {
                    let (shard, node) = (view.placed.id, self.name(target.node));
                    progress.blocker = Some(format!("{shard} is being copied to {node}"));
                }
                !arrived
            });
            let is_behind = behind.count() > 0 || view.lead.is_none();
            progress.shards_total += 1;
            if !is_behind {
                progress.shards_done += 1;
                arrived.insert(view.placed.id);
            }
        }
        progress.bytes_done = nodes.values().map(|(done, _)| done).sum();
        progress.bytes_total = nodes.values().map(|(_, total)| total).sum();
        let by_node = |(node, (bytes_done, bytes_total)): (NodeId, (u64, u64))| NodeProgress {
            node: self.name(node),
            bytes_total,
            bytes_done,
        };
        progress.nodes = nodes.into_iter().map(by_node).collect();
        progress.blocker = self.leaderless().or(progress.blocker);
        let actions = match op.phase {
            Phase::Checkpointed => vec![Action::Journal(Event::CopyStarted)],
            _ if progress.shards_done == progress.shards_total => {
                vec![Action::Journal(Event::CaughtUp)]
            }
            _ => self.comparisons(|view| arrived.contains(&view.placed.id)),
        };
        Decision { actions, progress }
    }

    /// Bytes that are there of a table on its way to a copy.
    fn arriving(&self, target: &CopyPlacement) -> u64 {
        let report = self.seen.reports.get(&target.node);
        let copy = report.and_then(|r| r.copies.iter().find(|c| c.copy == target.id));
        copy.map_or(0, |c| c.arriving_bytes)
    }

    /// Copies whose proof is void: a snapshot was installed in them since.
    fn doubted(&self, op: &Operation) -> Vec<CopyId> {
        let installed = |copy: CopyId| {
            let reports = self.seen.reports.values().flat_map(|r| &r.copies);
            reports.filter(|c| c.copy == copy).map(|c| c.installed).max().unwrap_or(0)
        };
        let void = |v: &&crate::wire::operation::Verified| installed(v.copy) > v.index;
        op.verified.iter().filter(void).map(|v| v.copy).collect()
    }

    /// Comparisons that are still owed, for the shards given.
    fn comparisons(&self, wanted: impl Fn(&View<'_>) -> bool) -> Vec<Action> {
        let open = self.state.unverified();
        let mut actions = vec![];
        for view in self.views.iter().filter(|v| wanted(v)) {
            let Some((leader, copy, _)) = view.lead else { continue };
            let of_shard = |(shard, id): &&(ShardId, CopyId)| {
                *shard == view.placed.id && (*id == copy.copy || view.is_near(*id))
            };
            let due: Vec<CopyId> = open.iter().filter(of_shard).map(|(_, id)| *id).collect();
            if due.is_empty() {
                continue;
            }
            let others =
                view.placed.copies.iter().filter(|c| c.id != copy.copy && due.contains(&c.id));
            actions.push(Action::Compare {
                shard: view.placed.id,
                leader,
                reference: copy.copy,
                copies: others.map(|c| (c.id, c.node)).collect(),
            });
        }
        actions
    }

    /// A copy that does not equal its owner's ends the operation.
    fn unequal(&self) -> Option<Decision> {
        let (shard, why) = self.seen.unequal.first_key_value()?;
        Some(journal(Event::GaveUp { why: format!("{shard}: {why}") }))
    }

    fn verify(self, op: &Operation) -> Decision {
        let doubted = self.doubted(op);
        if !doubted.is_empty() {
            return journal(Event::Doubted { copies: doubted });
        }
        if let Some(gives_up) = self.unequal() {
            return gives_up;
        }
        let open = self.state.unverified();
        let shards: BTreeSet<ShardId> = open.iter().map(|(shard, _)| *shard).collect();
        if shards.is_empty() {
            return journal(Event::Prepared { copy_bytes: self.copied_bytes(op) });
        }
        let total = self.views.len() as u32;
        let progress = Progress {
            shards_total: total,
            shards_done: total - shards.len() as u32,
            blocker: shards.first().map(|shard| format!("{shard} is being compared")),
            ..Progress::default()
        };
        Decision { actions: self.comparisons(|_| true), progress }
    }

    /// Bytes of the copies that were made for the operation.
    fn copied_bytes(&self, op: &Operation) -> u64 {
        let Some(checkpoint) = &op.checkpoint else { return 0 };
        let copies = self.seen.reports.values().flat_map(|report| &report.copies);
        copies.filter(|c| c.copy >= checkpoint.next_copy).map(|c| c.table_bytes).sum()
    }

    /// Held warm; once the commit is asked for, committed as soon as every condition holds at one moment.
    fn commit(self, op: &Operation) -> Decision {
        let doubted = self.doubted(op);
        if !doubted.is_empty() {
            return journal(Event::Doubted { copies: doubted });
        }
        if !op.commit_asked {
            let total = self.views.len() as u32;
            let progress =
                Progress { shards_total: total, shards_done: total, ..Progress::default() };
            return Decision { actions: vec![], progress };
        }
        match (self.not_ready().or_else(|| self.held(op)), op.to) {
            (Some(blocker), Strategy::Full) => waiting(blocker),
            (Some(blocker), Strategy::Sharded) => {
                Decision { actions: self.transfers(op), ..waiting(blocker) }
            }
            (None, _) => journal(Event::Commit),
        }
    }

    /// Why the commit point must wait: every primary has to answer, every copy that will count has to be
    /// near its leader, and towards `sharded` each owner has to lead.
    fn not_ready(&self) -> Option<String> {
        let primaries = self.state.primaries();
        if let Some(silent) = primaries.iter().find(|p| !self.seen.reports.contains_key(p)) {
            return Some(format!("{} does not answer", self.name(*silent)));
        }
        let far = |view: &View<'_>| {
            let copy = view
                .placed
                .copies
                .iter()
                .find(|c| primaries.contains(&c.node) && !view.is_near(c.id))?;
            Some(format!("{} is not close behind on {}", view.placed.id, self.name(copy.node)))
        };
        let astray = |view: &View<'_>| {
            let (leader, ..) = view.lead?;
            let to = self.state.operation()?.to;
            (to == Strategy::Sharded && leader != view.placed.owner).then(|| {
                format!("{} is led by {}, not its owner", view.placed.id, self.name(leader))
            })
        };
        self.leaderless()
            .or_else(|| self.views.iter().find_map(far))
            .or_else(|| self.views.iter().find_map(astray))
    }

    /// What the checks say against it. The copies are held, and nothing is thrown away.
    fn held(&self, op: &Operation) -> Option<String> {
        checks::at_commit(self.state, self.seen, op.to, &op.terms.skipped, self.now_ms)
    }

    /// Leadership goes to the owners, where they can take it.
    fn transfers(&self, op: &Operation) -> Vec<Action> {
        let fence = (op.id, op.turn);
        self.views.iter().filter_map(|view| self.transfer(view, fence)).collect()
    }

    fn transfer(&self, view: &View<'_>, fence: (u64, u64)) -> Option<Action> {
        let (leader, ..) = view.lead?;
        let copy = view.owners_copy().filter(|_| leader != view.placed.owner)?;
        let able = view.voters().contains(&copy) && view.is_near(copy);
        able.then(|| order(view, fence, ShardChange::Transfer(copy))).flatten()
    }

    fn soak(self, op: &Operation) -> Decision {
        let since = op.times.soaking_ms.unwrap_or(self.now_ms);
        let window_ms = self.state.revert_window().as_millis() as u64;
        if self.now_ms.saturating_sub(since) >= window_ms {
            return journal(Event::Finalize);
        }
        self.keep()
    }

    /// After a turn: every shard's group is brought to what the placement says, one that is there is done.
    fn follow(self, op: &Operation) -> Decision {
        let doubted = self.doubted(op);
        if !doubted.is_empty() && matches!(op.phase, Phase::Committing | Phase::Reverting) {
            return journal(Event::Doubted { copies: doubted });
        }
        let fence = (op.id, op.turn);
        let open: Vec<&View<'_>> = self.views.iter().filter(|v| !v.is_settled(fence)).collect();
        if open.is_empty() {
            return journal(Event::Settled);
        }
        let mut actions = vec![];
        let mut blocker = None;
        for view in &open {
            match self.approach(view, fence) {
                Ok(action) => actions.push(action),
                Err(why) => blocker = blocker.or(Some(why)),
            }
        }
        actions.extend(self.comparisons(|v| !v.is_settled(fence) && !v.entering().is_empty()));
        let total = self.views.len() as u32;
        let progress = Progress {
            shards_total: total,
            shards_done: total - open.len() as u32,
            blocker,
            pending: open.iter().map(|v| v.placed.id).collect(),
            ..Progress::default()
        };
        Decision { actions, progress }
    }

    /// The next step of one shard towards its placement, or why there is none now.
    fn approach(&self, view: &View<'_>, fence: (u64, u64)) -> Result<Action, String> {
        let shard = view.placed.id;
        let Some((leader, _, lead)) = view.lead else {
            let owner = self.name(view.placed.owner);
            return Err(format!("{shard} has no leader that answers; its owner is {owner}"));
        };
        let send = |change| {
            order(view, fence, change).ok_or_else(|| format!("{shard} has no leader that answers"))
        };
        if lead.fence < fence {
            return send(ShardChange::Fence);
        }
        let (now, wanted) = (view.voters(), view.wanted());
        if now == wanted && !lead.joint {
            return send(ShardChange::Remove(view.strangers()));
        }
        match (wanted.len(), view.owners_copy()) {
            (1, Some(owner)) => {
                let far = || {
                    let name = self.name(view.placed.owner);
                    Err(format!("{shard} waits for its owner {name}"))
                };
                if leader == view.placed.owner && now.contains(&owner) {
                    let staying: BTreeSet<CopyId> =
                        now.iter().copied().filter(|copy| !self.is_gone(view, *copy)).collect();
                    if staying.len() > 1 && staying.len() < now.len() {
                        // Who never comes back cannot be waited for; the others see that it goes.
                        return send(ShardChange::Voters(staying.into_iter().collect()));
                    }
                    return match now.iter().find(|copy| !view.is_near(**copy)) {
                        // Dying in the middle of leaving a silent voter behind would wedge the shard.
                        Some(silent) => Err(format!("{shard} waits for the voter {silent}")),
                        None => send(ShardChange::Voters(vec![owner])),
                    };
                }
                if !view.is_near(owner) {
                    return far();
                }
                if now.contains(&owner) {
                    return send(ShardChange::Transfer(owner));
                }
                self.proven(view)?;
                // The owner came back under a fresh id: it votes with the others before it takes over.
                let mut voters: BTreeSet<CopyId> =
                    now.into_iter().filter(|copy| view.is_placed(*copy)).collect();
                voters.insert(owner);
                send(ShardChange::Voters(voters.into_iter().collect()))
            }
            _ => self.promote(view, &wanted).and_then(send),
        }
    }

    /// A copy that will never answer again: on a disk that was lost, or not placed any more.
    fn is_gone(&self, view: &View<'_>, copy: CopyId) -> bool {
        let placed = view.placed.copies.iter().find(|c| c.id == copy);
        placed.is_none_or(|placed| self.state.is_lost(placed))
    }

    fn promote(&self, view: &View<'_>, wanted: &BTreeSet<CopyId>) -> Result<ShardChange, String> {
        let shard = view.placed.id;
        let near = wanted.iter().filter(|copy| view.is_near(**copy)).count();
        if near <= wanted.len() / 2 {
            return Err(format!("{shard} waits for a majority of its new voters"));
        }
        if let Some(absent) = wanted.iter().find(|copy| view.member(**copy).is_none()) {
            return Err(format!("{shard} waits until {absent} follows it"));
        }
        self.proven(view)?;
        Ok(ShardChange::Voters(wanted.iter().copied().collect()))
    }

    /// Nobody votes before its digest was equal, whether a switch made the copy or a member that rejoined.
    fn proven(&self, view: &View<'_>) -> Result<(), String> {
        let (shard, entering) = (view.placed.id, view.entering());
        if let Some(why) = self.seen.unequal.get(&shard) {
            return Err(format!("{shard}: {why}"));
        }
        match self.state.unverified().iter().any(|(_, copy)| entering.contains(copy)) {
            true => Err(format!("{shard} is being compared")),
            false => Ok(()),
        }
    }

    /// Between operations: groups keep to the placement (a member that rejoined, one that is gone), and in
    /// `full` leadership returns to owners that have been well for a while, one shard at a time.
    fn keep(self) -> Decision {
        let fence = self.state.operation().map_or((0, 0), |op| (op.id, op.turn));
        let open: Vec<&View<'_>> =
            self.views.iter().filter(|v| v.lead.is_some() && !v.is_settled((0, 0))).collect();
        let entering: BTreeSet<CopyId> = open.iter().flat_map(|view| view.entering()).collect();
        let mut doubted = self.state.operation().map_or_else(Vec::new, |op| self.doubted(op));
        doubted.retain(|copy| entering.contains(copy));
        if !doubted.is_empty() {
            return journal(Event::Doubted { copies: doubted });
        }
        let mut actions = self.comparisons(|v| v.lead.is_some() && !v.entering().is_empty());
        let mut blocker = None;
        for view in &open {
            match self.approach(view, fence) {
                Ok(action) => actions.push(action),
                Err(why) => blocker = blocker.or(Some(why)),
            }
        }
        if actions.is_empty() && self.state.strategy == Strategy::Full {
            let steady =
                |node: NodeId| self.seen.steady_ms.get(&node).is_some_and(|ms| *ms >= STEADY_MS);
            let back = self.views.iter().filter(|v| steady(v.placed.owner));
            actions.extend(back.filter_map(|view| self.transfer(view, fence)).take(1));
        }
        let pending = open.iter().map(|v| v.placed.id).collect();
        Decision { actions, progress: Progress { blocker, pending, ..Progress::default() } }
    }
}

fn order(view: &View<'_>, fence: (u64, u64), change: ShardChange) -> Option<Action> {
    let (node, ..) = view.lead?;
    let (shard, incarnation) = (view.placed.id, view.placed.incarnation);
    Some(Action::Order { node, order: ShardOrder { shard, incarnation, fence, change } })
}

fn journal(event: Event) -> Decision {
    Decision { actions: vec![Action::Journal(event)], progress: Progress::default() }
}

fn waiting(blocker: String) -> Decision {
    Decision {
        actions: vec![],
        progress: Progress { blocker: Some(blocker), ..Progress::default() },
    }
}
