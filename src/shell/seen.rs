//! What the shell has heard of its cluster, for the prompt, for notices and for completion. Data, made from
//! answers; it does not ask.

use crate::alarms::Kind;
use crate::cli::strategy::follow;
use crate::types::{NodeName, ShardId};
use crate::wire::client::Strategy;
use crate::wire::command::Status;
use crate::wire::operation::{Phase, StrategyView};
use std::collections::{BTreeMap, BTreeSet};

/// The cluster at one moment, as one node told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Placement of the data.
    pub strategy: Strategy,
    /// Version of the map.
    pub epoch: u64,
    /// Members that are not heard.
    pub down: BTreeSet<NodeName>,
    /// Shards without a leader.
    pub leaderless: BTreeSet<ShardId>,
    /// Alarms by name and subject, with what they say.
    pub alarms: BTreeMap<(String, String), String>,
    /// The latest change of strategy; none if there never was one, or if nobody told.
    pub operation: Option<Running>,
}

/// A change of strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Its number.
    pub id: u64,
    /// Strategy before.
    pub from: Strategy,
    /// Strategy after.
    pub to: Strategy,
    /// Where it stands.
    pub phase: Phase,
    /// Whole percent of what has to be copied.
    pub percent: Option<u64>,
    /// Who asked for it.
    pub by: String,
    /// The commit is asked for: it does not stay prepared.
    pub commit_asked: bool,
    /// Why it was aborted or reverted.
    pub reason: Option<String>,
}

/// What became of the last question.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Heard {
    /// None was asked yet.
    #[default]
    NotYet,
    /// No node answered.
    Silence,
    /// A node answered, and does not serve: it starts, or belongs to no cluster.
    NotReady,
    /// This is how it is.
    Answer(Box<Snapshot>),
}

impl Heard {
    /// The cluster as it was when last asked, if somebody answered.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match self {
            Heard::Answer(snapshot) => Some(snapshot),
            Heard::NotYet | Heard::Silence | Heard::NotReady => None,
        }
    }
}

impl Snapshot {
    /// Of two answers. The second is the coordinator's; without it the operation is what it was before.
    pub fn of(status: &Status, view: Option<&StrategyView>, before: Option<&Snapshot>) -> Self {
        let down = status.nodes.iter().filter(|node| !node.up);
        let alarms = status
            .alarms
            .iter()
            .map(|alarm| ((alarm.name.clone(), alarm.subject.clone()), alarm.message.clone()));
        Snapshot {
            strategy: status.strategy,
            epoch: status.epoch,
            down: down.map(|node| node.name.clone()).collect(),
            leaderless: status.shards_leaderless.iter().copied().collect(),
            alarms: alarms.collect(),
            operation: match view {
                Some(view) => Running::of(view),
                None => before.and_then(|before| before.operation.clone()),
            },
        }
    }

    /// Copies that are not within a second of their leader, as far as there is an alarm about them.
    pub fn lagging(&self) -> usize {
        self.count(Kind::Lag)
    }

    /// Alarms that nothing else in the prompt stands for.
    pub fn other_alarms(&self) -> usize {
        let told = [Kind::Lag, Kind::NodeDown, Kind::NoLeader].map(|kind| self.count(kind));
        self.alarms.len() - told.iter().sum::<usize>()
    }

    fn count(&self, kind: Kind) -> usize {
        self.alarms.keys().filter(|(of, _)| of == kind.rule().name).count()
    }
}

impl Running {
    fn of(view: &StrategyView) -> Option<Self> {
        let op = view.operation.as_ref()?;
        Some(Running {
            id: op.id,
            from: op.from,
            to: op.to,
            phase: op.phase,
            percent: view.progress.as_ref().and_then(follow::percent),
            by: op.by.clone(),
            commit_asked: op.commit_asked,
            reason: op.reason.clone(),
        })
    }
}

#[cfg(test)]
pub mod testing {
    //! A healthy cluster to change.

    use super::*;

    pub fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    pub fn healthy() -> Snapshot {
        Snapshot {
            strategy: Strategy::Sharded,
            epoch: 41,
            down: BTreeSet::new(),
            leaderless: BTreeSet::new(),
            alarms: BTreeMap::new(),
            operation: None,
        }
    }

    pub fn running(phase: Phase) -> Running {
        Running {
            id: 7,
            from: Strategy::Sharded,
            to: Strategy::Full,
            phase,
            percent: None,
            by: "user ann".into(),
            commit_asked: true,
            reason: None,
        }
    }

    pub fn alarm(snapshot: &mut Snapshot, kind: Kind, subject: &str) {
        let message = format!("{subject} is in trouble");
        snapshot.alarms.insert((kind.rule().name.into(), subject.into()), message);
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::cli::testing::{operation, progress};

    #[test]
    fn the_latest_operation_comes_with_how_far_it_is() {
        let view = StrategyView {
            strategy: Strategy::Sharded,
            epoch: 4,
            operation: Some(operation(7, Phase::Copying)),
            progress: Some(progress(3, 12)),
        };
        let running = Running::of(&view).unwrap();
        assert_eq!((running.id, running.percent), (7, Some(25)));
        assert!(Running::of(&StrategyView { operation: None, ..view }).is_none());
    }

    #[test]
    fn a_coordinator_that_says_nothing_changes_nothing() {
        let status = Status {
            cluster: "c".into(),
            epoch: 41,
            strategy: Strategy::Sharded,
            answered_by: node("n1"),
            metadata_leader: None,
            nodes: vec![],
            shards_leaderless: vec![],
            may_fail_without_loss: 1,
            messages: vec![],
            alarms: vec![],
            switches: Default::default(),
        };
        let before = Snapshot { operation: Some(running(Phase::Copying)), ..healthy() };
        assert_eq!(Snapshot::of(&status, None, Some(&before)), before);
        assert_eq!(Snapshot::of(&status, None, None), healthy());
    }

    #[test]
    fn alarms_are_counted_once() {
        let mut snapshot = healthy();
        alarm(&mut snapshot, Kind::Lag, "s3 on r1");
        alarm(&mut snapshot, Kind::NodeDown, "n2");
        alarm(&mut snapshot, Kind::Disk, "n1");
        assert_eq!((snapshot.lagging(), snapshot.other_alarms()), (1, 1));
    }
}
