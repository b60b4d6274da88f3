//! What is bad at this moment, from what one node knows. How long it has been so is not looked at here.

use super::{Kind, Thresholds};
use crate::types::{NodeName, ShardId};
use std::time::Duration;

/// Requests from which on a share of failures means something.
pub const REQUESTS_MIN: u64 = 100;
/// How long a share of failures has to be bad: a leader that changes is no alarm.
const ERRORS_HELD: Duration = Duration::from_secs(10);

/// What a node knows of itself and of what it sees of others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// This node.
    pub node: Option<NodeName>,
    /// Every other member, with the time since it was heard.
    pub silent: Vec<(NodeName, Duration)>,
    /// Shards without a leader, as far as this node can tell.
    pub leaderless: Vec<ShardId>,
    /// Copies that are not near the leader, of the shards that are led here.
    pub lagging: Vec<(ShardId, NodeName)>,
    /// Share of the disk that is taken, in percent; none if it cannot be measured.
    pub disk_percent: Option<u32>,
    /// Share of the largest possible size that the largest table has, in percent.
    pub map_percent: u32,
    /// How long 99 of 100 fdatasyncs took at most in the last minute; none if there were too few.
    pub fsync_p99: Option<Duration>,
    /// Requests of the last seconds, and those that failed for no fault of their own.
    pub requests: (u64, u64),
    /// Breakers of this node that are open: the peer, and the class of calls.
    pub breakers_open: Vec<(NodeName, String)>,
    /// The operation that should move and a number that changes when it does.
    pub moving: Option<(u64, u64)>,
    /// What is left of this node's certificate.
    pub certificate: Option<Duration>,
    /// How far this node's clock is off the middle of all that it hears, in milliseconds; none if it hears none.
    pub clock_off_ms: Option<i64>,
}

/// Something bad.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// What it is.
    pub kind: Kind,
    /// What it is about.
    pub subject: String,
    /// Value and limit, for people.
    pub message: String,
    /// How long it has to last before it is an alarm.
    pub hold: Duration,
    /// How long it has lasted already, where that is known.
    pub lasted: Duration,
    /// If this changes, it begins anew.
    pub marker: u64,
}

impl Condition {
    fn new(kind: Kind, subject: impl ToString, message: String) -> Self {
        let (hold, lasted) = (Duration::ZERO, Duration::ZERO);
        Self { kind, subject: subject.to_string(), message, hold, lasted, marker: 0 }
    }

    fn held(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }
}

/// Everything that is bad.
pub fn conditions(facts: &Facts, limits: &Thresholds) -> Vec<Condition> {
    let Some(me) = &facts.node else { return Vec::new() };
    let mut found: Vec<Condition> = silent(facts, limits).collect();
    found.extend(facts.leaderless.iter().map(|shard| {
        Condition::new(Kind::NoLeader, shard, format!("{shard} has no leader, writes to it wait"))
            .held(limits.no_leader)
    }));
    found.extend(facts.lagging.iter().map(|(shard, node)| {
        let message = format!("the copy of {shard} on {node} is not within a second of its leader");
        Condition::new(Kind::Lag, format!("{shard} on {node}"), message).held(limits.lag)
    }));
    found.extend(facts.breakers_open.iter().map(|(peer, class)| {
        let message = format!("{me} does not call {peer} ({class})");
        Condition::new(Kind::BreakerOpen, format!("{me} to {peer}, {class}"), message)
            .held(limits.breaker_open)
    }));
    found.extend(stuck(facts, limits));
    found.extend(own(facts, me, limits));
    found
}

fn silent<'a>(facts: &'a Facts, limits: &'a Thresholds) -> impl Iterator<Item = Condition> + 'a {
    let bad = facts.silent.iter().filter(|(_, lasted)| *lasted >= limits.node_down);
    bad.map(|(node, lasted)| {
        let message = format!("{node} is not heard");
        Condition { lasted: *lasted, ..Condition::new(Kind::NodeDown, node, message) }
    })
}

fn stuck(facts: &Facts, limits: &Thresholds) -> Option<Condition> {
    let (operation, marker) = facts.moving?;
    let message = format!("operation {operation} is under way and nothing moves");
    let condition = Condition::new(Kind::SwitchStuck, format!("operation {operation}"), message);
    Some(Condition { marker, ..condition.held(limits.switch_stuck) })
}

/// What is about this node alone.
fn own(facts: &Facts, me: &NodeName, limits: &Thresholds) -> Vec<Condition> {
    let mut found = Vec::new();
    let mut say = |kind, bad: bool, message: String| {
        if bad {
            found.push(Condition::new(kind, me, message));
        }
    };
    let (disk, map) = (facts.disk_percent, facts.map_percent);
    let message = match disk {
        Some(disk) => {
            format!("{disk} % of the disk of {me} is taken, limit {} %", limits.disk_percent)
        }
        None => format!("the disk of {me} cannot be measured"),
    };
    say(Kind::Disk, disk.is_none_or(|disk| disk >= limits.disk_percent), message);
    let message = format!(
        "the largest table of {me} has {map} % of what it may, limit {} %",
        limits.map_percent
    );
    say(Kind::Map, map >= limits.map_percent, message);
    if let Some(p99) = facts.fsync_p99 {
        let message = format!(
            "one in a hundred fdatasyncs of {me} takes up to {p99:?}, limit {:?}",
            limits.fsync_p99
        );
        say(Kind::FsyncP99, p99 >= limits.fsync_p99, message);
    }
    if let Some(left) = facts.certificate {
        let message = format!("the certificate of {me} is valid for {}", days(left));
        say(Kind::Certificate, left <= limits.certificate, message);
    }
    if let Some(off_ms) = facts.clock_off_ms {
        let message = format!("the clock of {me} is {off_ms} ms off, limit {:?}", limits.clock);
        say(Kind::Clock, u128::from(off_ms.unsigned_abs()) >= limits.clock.as_millis(), message);
    }
    let (requests, errors) = facts.requests;
    let failed_ppm = (errors.saturating_mul(1_000_000)).checked_div(requests).unwrap_or_default();
    if requests >= REQUESTS_MIN && failed_ppm >= limits.error_rate_ppm {
        let message = format!(
            "{:.1} % of the requests to {me} fail, limit {:.1} %",
            failed_ppm as f64 / 10_000.0,
            limits.error_rate_ppm as f64 / 10_000.0
        );
        found.push(Condition::new(Kind::ErrorRate, me, message).held(ERRORS_HELD));
    }
    found
}

fn days(left: Duration) -> String {
    match left.as_secs() / 86_400 {
        0 => "less than a day".to_owned(),
        days => format!("{days} days"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::alarms) fn limits() -> Thresholds {
        let secs = Duration::from_secs;
        Thresholds {
            node_down: secs(10),
            no_leader: secs(5),
            lag: secs(30),
            disk_percent: 85,
            map_percent: 80,
            fsync_p99: Duration::from_millis(250),
            error_rate_ppm: 10_000,
            breaker_open: secs(60),
            switch_stuck: secs(600),
            certificate: secs(14 * 86_400),
            clock: Duration::from_millis(500),
        }
    }

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn kinds(facts: &Facts) -> Vec<Kind> {
        let facts = Facts { node: Some(name("n1")), ..facts.clone() };
        conditions(&facts, &limits()).iter().map(|c| c.kind).collect()
    }

    #[test]
    fn each_fact_is_bad_from_its_limit_on_and_not_before() {
        let secs = Duration::from_secs;
        let usual = Facts { disk_percent: Some(1), ..Facts::default() };
        assert_eq!(kinds(&usual), []);
        assert_eq!(kinds(&Facts { disk_percent: None, ..usual.clone() }), [Kind::Disk]);
        for (good, bad, kind) in [
            (
                Facts { silent: vec![(name("n2"), secs(9))], ..usual.clone() },
                Facts { silent: vec![(name("n2"), secs(10))], ..usual.clone() },
                Kind::NodeDown,
            ),
            (
                Facts { disk_percent: Some(84), ..usual.clone() },
                Facts { disk_percent: Some(85), ..usual.clone() },
                Kind::Disk,
            ),
            (
                Facts { map_percent: 79, ..usual.clone() },
                Facts { map_percent: 80, ..usual.clone() },
                Kind::Map,
            ),
            (
                Facts { fsync_p99: Some(Duration::from_millis(249)), ..usual.clone() },
                Facts { fsync_p99: Some(Duration::from_millis(250)), ..usual.clone() },
                Kind::FsyncP99,
            ),
            (
                Facts { requests: (99, 99), ..usual.clone() },
                Facts { requests: (100, 1), ..usual.clone() },
                Kind::ErrorRate,
            ),
            (
                Facts { requests: (1_000, 9), ..usual.clone() },
                Facts { requests: (1_000, 10), ..usual.clone() },
                Kind::ErrorRate,
            ),
            (
                Facts { certificate: Some(secs(14 * 86_400 + 1)), ..usual.clone() },
                Facts { certificate: Some(Duration::ZERO), ..usual.clone() },
                Kind::Certificate,
            ),
            (
                Facts { clock_off_ms: Some(-499), ..usual.clone() },
                Facts { clock_off_ms: Some(-500), ..usual.clone() },
                Kind::Clock,
            ),
        ] {
            assert_eq!((kinds(&good), kinds(&bad)), (vec![], vec![kind]));
        }
    }

    #[test]
    fn what_is_seen_of_others_is_told_with_what_it_is_about() {
        let facts = Facts {
            node: Some(name("n1")),
            leaderless: vec![ShardId(3)],
            lagging: vec![(ShardId(4), name("r1"))],
            breakers_open: vec![(name("n2"), "copy".to_owned())],
            moving: Some((7, 99)),
            disk_percent: Some(1),
            ..Facts::default()
        };
        let found = conditions(&facts, &limits());
        let said: Vec<_> = found.iter().map(|c| (c.subject.as_str(), c.hold.as_secs())).collect();
        let expected = [("s3", 5), ("s4 on r1", 30), ("n1 to n2, copy", 60), ("operation 7", 600)];
        assert_eq!(said, expected);
        assert_eq!(found[3].marker, 99);
    }
}
