//! Routing: from a shard and what is asked to the node that gets it. Pure, given the map, what was seen
//! of the nodes, and two random numbers.

use super::Level;
use super::health::{CallClass, Health, pick_of_two};
use super::net::Target;
use crate::types::{NodeName, ShardId};
use crate::wire::client::{Map, Role, Strategy};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Who may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The shard's leader.
    Leader,
    /// Any primary with a copy, the linearizable read of `full`.
    AnyPrimary,
    /// Any node with a copy, replicas included.
    AnyCopy,
    /// This node and no other.
    Only(NodeName),
}

/// What a request asks for; `node` is the only one that may answer `Session` and `Local` reads.
pub(crate) fn want(
    is_write: bool,
    strategy: Strategy,
    level: Level,
    node: Option<&NodeName>,
) -> Want {
    match (is_write, level, node) {
        (true, ..) => Want::Leader,
        (_, Level::Linearizable, _) if strategy == Strategy::Full => Want::AnyPrimary,
        (_, Level::Linearizable, _) => Want::Leader,
        (_, _, Some(node)) => Want::Only(node.clone()),
        (_, _, None) => Want::AnyCopy,
    }
}

/// A node of the map and what was seen of it.
#[derive(Debug)]
pub(crate) struct Node {
    pub target: Target,
    pub role: Role,
    pub health: Health,
}

/// A map made ready for routing.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub map: Arc<Map>,
    pub nodes: Vec<Arc<Node>>,
    shards: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    /// Nodes with a copy: the owner, other primaries, replicas.
    copies: Vec<Arc<Node>>,
    /// How many of them are primaries; these come first.
    primaries: usize,
    /// The node last heard to lead.
    leader: Mutex<Option<NodeName>>,
}

impl View {
    /// Prepares a map; keeps what an earlier view has seen of nodes and leaders.
    pub(crate) fn new(map: Arc<Map>, earlier: &View) -> Self {
        let nodes: Vec<Arc<Node>> = map
            .nodes
            .iter()
            .map(|n| {
                let target = Target { name: n.name.clone(), addr: n.addr.clone() };
                let known = earlier.nodes.iter().find(|e| e.target == target && e.role == n.role);
                known.cloned().unwrap_or_else(|| {
                    Arc::new(Node { target, role: n.role, health: Health::default() })
                })
            })
            .collect();
        let by_name = |name: &NodeName| nodes.iter().find(|n| n.target.name == *name);
        let shards = map
            .shards
            .iter()
            .enumerate()
            .map(|(i, shard)| {
                let mut copies: Vec<Arc<Node>> =
                    shard.copies.iter().filter_map(by_name).cloned().collect();
                copies.sort_by_key(|n| (n.target.name != shard.owner, n.role));
                let same = |old: &Map| {
                    old.shards.get(i).is_some_and(|s| {
                        s.incarnation == shard.incarnation && s.owner == shard.owner
                    })
                };
                let leader = same(&earlier.map).then(|| earlier.leader(shard.id)).flatten();
                Route {
                    primaries: copies.iter().filter(|n| n.role == Role::Primary).count(),
                    leader: Mutex::new(
                        leader.filter(|l| copies.iter().any(|n| n.target.name == *l)),
                    ),
                    copies,
                }
            })
            .collect();
        Self { map, nodes, shards }
    }

    /// The node of that name.
    pub(crate) fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|n| n.target.name == *name)
    }

    fn leader(&self, shard: ShardId) -> Option<NodeName> {
        self.shards.get(shard.0 as usize)?.leader.lock().clone()
    }

    /// Remembers who leads a shard, as a hint or an answer told.
    pub(crate) fn set_leader(&self, shard: ShardId, name: &NodeName) {
        let Some(route) = self.shards.get(shard.0 as usize) else { return };
        let mut leader = route.leader.lock();
        if leader.as_ref() != Some(name) {
            *leader = Some(name.clone());
        }
    }

    /// The node to ask: `to` if it was neither tried nor is suspected, else whoever the want allows, first those
    /// neither tried nor suspected whose breaker is not open, then those not tried, then anyone. For the leader, a
    /// primary that answers is asked again before one that is suspected: it will know the next leader first. None if no
    /// node may answer.
    pub(crate) fn choose(
        &self,
        shard: ShardId,
        want: &Want,
        to: Option<&NodeName>,
        tried: &[NodeName],
        now: Instant,
        random: (u32, u32),
    ) -> Option<Arc<Node>> {
        let route = self.shards.get(shard.0 as usize)?;
        if let Want::Only(name) = want {
            return self.node(name).cloned();
        }
        let untried = |n: &&Arc<Node>| !tried.contains(&n.target.name);
        // Only one node leads, however it answers.
        let admits = |n: &Node| *want == Want::Leader || n.health.admits(CallClass::Read, now);
        let fit = |n: &&Arc<Node>| untried(n) && !n.health.suspect(now) && admits(n);
        // A hint to a node that has just not answered comes from one that has not noticed yet.
        let named = to.and_then(|name| self.node(name)).filter(untried);
        if let Some(node) = named.filter(|node| node.health.may_lead(now)) {
            return Some(node.clone());
        }
        let candidates = match want {
            Want::AnyPrimary => &route.copies[..route.primaries],
            _ => &route.copies[..],
        };
        match want {
            Want::Leader => {
                let known = route.leader.lock().clone();
                let known = known.and_then(|name| self.node(&name));
                let in_order = || known.into_iter().chain(candidates);
                let alert = |n: &&Arc<Node>| n.role == Role::Primary && !n.health.suspect(now);
                let found = in_order().find(fit).or_else(|| in_order().find(alert));
                let found = found.or_else(|| in_order().find(untried));
                found.or_else(|| in_order().next()).cloned()
            }
            _ => {
                let pick = |allowed: Vec<&Arc<Node>>| {
                    let scores: Vec<f64> = allowed.iter().map(|n| n.health.score(now)).collect();
                    pick_of_two(&scores, random.0, random.1).map(|i| allowed[i].clone())
                };
                pick(candidates.iter().filter(fit).collect())
                    .or_else(|| pick(candidates.iter().filter(untried).collect()))
                    .or_else(|| pick(candidates.iter().collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{map, name};
    use std::time::Duration;

    fn view(strategy: Strategy) -> View {
        View::new(Arc::new(map(1, strategy)), &View::default())
    }

    fn names(view: &View, shard: u16, want: &Want, tried: &[&str]) -> Vec<String> {
        let tried: Vec<NodeName> = tried.iter().map(|n| name(n)).collect();
        let mut all: Vec<String> = (0..24)
            .filter_map(|i| {
                let random = (i, i / 4);
                view.choose(ShardId(shard), want, None, &tried, Instant::now(), random)
            })
            .map(|n| n.target.name.to_string())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn a_suspected_leader_is_asked_last_and_its_replica_knows_another() {
        let now = Instant::now();
        let ask = |view: &View, to: Option<&str>, tried: &[&str]| {
            let tried: Vec<NodeName> = tried.iter().map(|n| name(n)).collect();
            let to = to.map(name);
            let chosen = view.choose(ShardId(0), &Want::Leader, to.as_ref(), &tried, now, (0, 0));
            chosen.expect("a node").target.name.to_string()
        };
        let full = view(Strategy::Full);
        let owner = ask(&full, None, &[]);
        full.node(&name(&owner)).expect("it is there").health.failed(now);
        // While it is suspected, no hint and no round of refusals leads back to it.
        assert_ne!(ask(&full, Some(&owner), &[]), owner);
        let others: Vec<&str> =
            ["n1", "n2", "n3", "r1"].into_iter().filter(|n| *n != owner).collect();
        assert_ne!(ask(&full, Some(&owner), &others), owner);
        // Who still names it once an election would be over has heard of it since.
        let chosen_later = |full: &View, tried: &[NodeName]| {
            let later = now + Duration::from_millis(1_500);
            let named = name(&owner);
            let chosen = full.choose(ShardId(0), &Want::Leader, Some(&named), tried, later, (0, 0));
            chosen.expect("a node").target.name.to_string()
        };
        (0..9).for_each(|_| full.node(&name(&owner)).expect("it is there").health.failed(now));
        assert_eq!(chosen_later(&full, &[]), owner);
        assert_ne!(chosen_later(&full, &[name(&owner)]), owner);
        // In sharded only the owner can lead, unless its replica has heard of another leader.
        let sharded = view(Strategy::Sharded);
        sharded.node(&name(&owner)).expect("it is there").health.failed(now);
        assert_eq!(ask(&sharded, None, &[]), "r1");
        assert_eq!(ask(&sharded, Some("n3"), &["r1"]), "n3");
        assert_eq!(ask(&sharded, Some(&owner), &["r1"]), owner);
    }

    #[test]
    fn what_is_asked_decides_who_may_answer() {
        use Level::{Linearizable, Session};
        use Strategy::{Full, Sharded};
        let r1 = name("r1");
        assert_eq!(want(true, Full, Session, Some(&r1)), Want::Leader);
        assert_eq!(want(false, Sharded, Linearizable, None), Want::Leader);
        assert_eq!(want(false, Full, Linearizable, None), Want::AnyPrimary);
        assert_eq!(want(false, Sharded, Linearizable, Some(&r1)), Want::Leader);
        assert_eq!(want(false, Sharded, Session, None), Want::AnyCopy);
        assert_eq!(want(false, Full, Session, Some(&r1)), Want::Only(r1));
    }

    #[test]
    fn reads_are_spread_over_the_copies_that_may_serve() {
        let sharded = view(Strategy::Sharded);
        assert_eq!(names(&sharded, 0, &Want::Leader, &[]), ["n1"]);
        assert_eq!(names(&sharded, 0, &Want::AnyCopy, &[]), ["n1", "r1"]);
        assert_eq!(names(&sharded, 1, &Want::AnyCopy, &[]), ["n2", "r1"]);
        let full = view(Strategy::Full);
        assert_eq!(names(&full, 0, &Want::AnyPrimary, &[]), ["n1", "n2", "n3"]);
        assert_eq!(names(&full, 0, &Want::AnyCopy, &[]), ["n1", "n2", "n3", "r1"]);
        assert_eq!(names(&full, 0, &Want::AnyPrimary, &["n1"]), ["n2", "n3"]);
        assert_eq!(names(&full, 0, &Want::Only(name("n3")), &["n3"]), ["n3"]);
        assert!(names(&full, 0, &Want::Only(name("n9")), &[]).is_empty());
        assert!(names(&full, 99, &Want::Leader, &[]).is_empty());
    }

    #[test]
    fn a_leader_that_fails_is_followed_by_those_who_may_know_the_next_one() {
        let view = view(Strategy::Full);
        assert_eq!(names(&view, 1, &Want::Leader, &[]), ["n2"]);
        view.set_leader(ShardId(1), &name("n3"));
        assert_eq!(names(&view, 1, &Want::Leader, &[]), ["n3"]);
        assert_eq!(names(&view, 1, &Want::Leader, &["n3"]), ["n2"]);
        assert_eq!(names(&view, 1, &Want::Leader, &["n3", "n2"]), ["n1"]);
        assert_eq!(names(&view, 1, &Want::Leader, &["n1", "n2", "n3", "r1"]), ["n3"]);
        view.node(&name("n3")).unwrap().health.failed(Instant::now());
        assert_eq!(names(&view, 1, &Want::Leader, &[]), ["n2"], "suspected");
    }

    #[test]
    fn a_suspected_node_is_asked_only_if_nobody_else_can_be() {
        let view = view(Strategy::Sharded);
        let now = Instant::now() + Duration::from_secs(60);
        view.node(&name("r1")).unwrap().health.failed(now);
        assert_eq!(names(&view, 0, &Want::AnyCopy, &[]), ["n1"]);
        assert_eq!(names(&view, 0, &Want::AnyCopy, &["n1"]), ["r1"]);
    }

    #[test]
    fn reads_go_around_an_open_breaker_where_others_may_answer() {
        use crate::breaker::Outcome::{Answered, Failed};
        let (full, now) = (view(Strategy::Full), Instant::now());
        let health = &full.node(&name("n2")).unwrap().health;
        let end = |class, now, outcome| health.begin(class, now).ended(now, Some(outcome));
        (0..20).for_each(|_| end(CallClass::Write, now, Failed));
        assert_eq!(names(&full, 1, &Want::AnyPrimary, &[]), ["n1", "n2", "n3"], "of writes");
        end(CallClass::Read, now, Answered(Duration::from_millis(1)));
        (0..20).for_each(|_| end(CallClass::Read, now, Answered(Duration::from_secs(1))));
        assert_eq!(names(&full, 1, &Want::AnyPrimary, &[]), ["n1", "n3"]);
        assert_eq!(names(&full, 1, &Want::AnyPrimary, &["n1", "n3"]), ["n2"], "nobody else");
        assert_eq!(names(&full, 1, &Want::Leader, &[]), ["n2"], "nobody else leads");
        assert_eq!(names(&full, 1, &Want::Only(name("n2")), &[]), ["n2"]);
        // It is tried after five seconds, and is one of them again after ten good calls.
        let later = now + Duration::from_secs(5);
        let choices = |view: &View| {
            let ask = |i| view.choose(ShardId(1), &Want::AnyPrimary, None, &[], later, (i, i / 4));
            let chosen = (0..24).filter_map(ask).map(|node| node.target.name.to_string());
            chosen.collect::<std::collections::BTreeSet<_>>()
        };
        assert!(choices(&full).contains("n2"));
        (0..10).for_each(|_| end(CallClass::Read, later, Answered(Duration::from_millis(1))));
        assert!(choices(&full).contains("n2"));
        assert_eq!(health.breaker(CallClass::Read, later).state, crate::breaker::State::Closed);
    }

    #[test]
    fn a_hint_goes_first_unless_it_was_tried() {
        let view = view(Strategy::Full);
        let choose = |tried: &[NodeName]| {
            let to = name("n2");
            let now = Instant::now();
            let node = view.choose(ShardId(0), &Want::Leader, Some(&to), tried, now, (0, 0));
            node.unwrap().target.name.to_string()
        };
        assert_eq!(choose(&[]), "n2");
        assert_eq!(choose(&[name("n2")]), "n1");
    }

    #[test]
    fn a_new_map_keeps_what_was_seen_and_forgets_what_no_longer_holds() {
        let first = view(Strategy::Full);
        first.set_leader(ShardId(0), &name("n2"));
        first.set_leader(ShardId(1), &name("n3"));
        let mut next = map(2, Strategy::Full);
        next.shards[1].owner = name("n1");
        next.nodes[1].addr = "elsewhere:1".into();
        let second = View::new(Arc::new(next), &first);
        assert_eq!(second.leader(ShardId(0)), Some(name("n2")));
        assert_eq!(second.leader(ShardId(1)), None, "another owner");
        let same = |n: &str| {
            let [a, b] = [&first, &second].map(|v| v.node(&name(n)).unwrap().clone());
            Arc::ptr_eq(&a, &b)
        };
        assert!(same("n1") && !same("n2") && same("n3"));
    }
}
