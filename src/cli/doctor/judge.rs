//! What was gathered, and the table of checks that judge it. Pure: the same facts are judged the same.

use super::samples::Samples;
use super::{cluster, nodes};
use crate::alarms::Thresholds;
use crate::cluster::ClusterState;
use crate::types::{Error, NodeName, ShardId};
use crate::wire::breaker::PeerBreaker;
use crate::wire::command::{Info, Status};
use crate::wire::load::NodeStats;
use crate::wire::operation::{SettingView, StrategyView};

/// How it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// It should be seen to within the day.
    Warn,
    /// Clients are hurt, or will be soon.
    Bad,
}

impl State {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Bad => "bad",
        }
    }
}

/// All that is known.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The own clock, in milliseconds since 1970.
    pub now_ms: u64,
    /// Version of this program.
    pub version: String,
    /// Who asks.
    pub user: String,
    /// How long its certificate is valid; none if it cannot be read.
    pub own_certificate_days: Option<i64>,
    /// Copies of each shard.
    pub copies: Vec<(ShardId, usize)>,
    /// The cluster, as the node sees it that knows most.
    pub status: Status,
    /// Every member.
    pub nodes: Vec<NodeFacts>,
    /// The live settings; none if nobody answered.
    pub settings: Option<Vec<SettingView>>,
    /// The latest operation; none if nobody answered.
    pub strategy: Option<StrategyView>,
}

/// What one member says of itself.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Why it did not answer something.
    pub error: Option<Error>,
    /// The cluster as it sees it.
    pub status: Option<Status>,
    /// About itself.
    pub info: Option<Info>,
    /// How it does.
    pub stats: Option<NodeStats>,
    /// Whom it does not call.
    pub breakers: Vec<PeerBreaker>,
    /// Its metrics.
    pub samples: Samples,
}

impl NodeFacts {
    /// Nothing is known yet.
    pub fn silent(name: NodeName) -> Self {
        let (breakers, samples) = (Vec::new(), Samples::default());
        Self { name, error: None, status: None, info: None, stats: None, breakers, samples }
    }
}

impl Facts {
    /// From where on something is an alarm, by the settings that hold.
    pub fn thresholds(&self) -> Thresholds {
        let set = self.settings.iter().flatten().map(|s| (s.name.clone(), s.value.clone()));
        ClusterState { settings: set.collect(), ..ClusterState::default() }.alarm_thresholds()
    }
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// What is wrong, and the command that goes on from there.
    pub problems: Vec<(State, String, String)>,
    /// What was seen if nothing is.
    pub fine: String,
}

impl Seen {
    /// Nothing is wrong so far.
    pub fn fine(fine: impl Into<String>) -> Self {
        Self { problems: Vec::new(), fine: fine.into() }
    }

    /// Something is wrong.
    pub fn add(&mut self, state: State, seen: impl Into<String>, fix: impl Into<String>) {
        self.problems.push((state, seen.into(), fix.into()));
    }
}

/// One check.
pub struct Check {
    /// Its code, for good.
    pub code: &'static str,
    /// In a word.
    pub name: &'static str,
    /// What it looks at, and from where on it is not content.
    pub looks_at: &'static str,
    /// The look.
    pub look: fn(&Facts) -> Seen,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code)
    }
}

macro_rules! checks {
    ($($code:literal $name:literal $look:path, $looks_at:literal;)*) => {
        /// All of them, in the order in which they are shown.
        pub const CHECKS: &[Check] =
            &[$(Check { code: $code, name: $name, looks_at: $looks_at, look: $look }),*];
    };
}

checks! {
    "D-01" "members" cluster::members,
        "every member answers; bad if one does not, warns if it does not answer everything";
    "D-02" "leaders" cluster::leaders, "every shard has a leader; bad if one has none: writes to it wait";
    "D-03" "one view" cluster::one_view,
        "all members know the same map and a leader of the metadata; warns of an older map, bad without a leader";
    "D-04" "copies" cluster::copies,
        "every shard has a second copy, and in full replication a primary may fail; warns otherwise";
    "D-05" "lag" cluster::lag, "every copy has what was written a second ago; warns of one that has not";
    "D-06" "alarms" cluster::alarms, "what the nodes themselves call an alarm, as bad as they call it";
    "D-07" "operation" cluster::operation,
        "a change of strategy that waits for something; bad once it is an alarm that it does not move";
    "D-08" "settings" cluster::settings, "live settings that are not their defaults; tells them, and warns of none";
    "D-09" "versions" nodes::versions, "all members and this program are of one version; warns otherwise";
    "D-10" "ready" nodes::ready, "a quorum has confirmed the copies of each node; bad where not: it serves nothing";
    "D-11" "restarts" nodes::restarts,
        "no node has run for less than ten minutes while another runs for an hour; warns of it";
    "D-12" "certificates" nodes::certificates,
        "certificates of nodes and of this user; warns from alarm.certificate on, bad on the last day";
    "D-13" "clocks" nodes::clocks, "clocks of nodes; warns from alarm.clock on";
    "D-14" "disks" nodes::disks, "what is taken of each disk; bad from alarm.disk on, warns ten percent before";
    "D-15" "tables" nodes::tables, "the largest table; bad from alarm.map on, warns ten percent before";
    "D-16" "log" nodes::log, "99 of 100 fdatasyncs of the log since the start; warns from alarm.fsync_p99 on";
    "D-17" "memory" nodes::memory,
        "resident memory; warns of a node that has three times what half of all have, and half a GiB";
    "D-18" "load" nodes::load,
        "load and processors; warns from 70 % and 90 % on, bad from a load of 90 %, where scans are refused";
    "D-19" "refusals" nodes::refusals,
        "requests that were refused or failed in the last seconds; warns, bad from alarm.error_rate on";
    "D-20" "breakers" nodes::breakers, "calls that a node holds back from another; warns of each";
}

/// What a check found: its problems, or that all is well.
#[derive(Debug)]
pub struct Finding {
    /// Which check.
    pub check: &'static Check,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// The command that goes on from there; none where nothing is wrong.
    pub fix: Option<String>,
}

/// All findings in the order of the checks.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for check in CHECKS {
        let seen = (check.look)(facts);
        if seen.problems.is_empty() {
            found.push(Finding { check, state: State::Ok, seen: seen.fine, fix: None });
        }
        found.extend(seen.problems.into_iter().map(|(state, seen, fix)| Finding {
            check,
            state,
            seen,
            fix: Some(fix),
        }));
    }
    found
}
