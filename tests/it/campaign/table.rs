//! Every run of the campaign: each point, with each thing that may happen at it, on each node that reaches it, on
//! each way that leads there.

use ppdb::faults::{Course, OnError, Role, Spec, TABLE, Toward};
use ppdb::wire::client::Strategy;
use std::fmt;

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The process kills itself and is started again.
    Kill,
    /// The process stands still for five seconds.
    Stop,
    /// The point returns an error; where that is fatal the process ends, and is started again.
    Error,
}

impl Action {
    /// As it is written to `point`.
    pub const fn word(self) -> &'static str {
        match self {
            Action::Kill => "kill",
            Action::Stop => "stop",
            Action::Error => "error",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The point.
    pub spec: &'static Spec,
    /// What happens there.
    pub action: Action,
    /// Who it happens to.
    pub role: Role,
    /// Where the switch goes.
    pub toward: Toward,
    /// What is ordered.
    pub course: Course,
}

impl Run {
    /// Where the switch goes.
    pub const fn to(&self) -> Strategy {
        match self.toward {
            Toward::Full => Strategy::Full,
            Toward::Sharded => Strategy::Sharded,
        }
    }

    /// Where it begins.
    pub const fn from(&self) -> Strategy {
        match self.toward {
            Toward::Full => Strategy::Sharded,
            Toward::Sharded => Strategy::Full,
        }
    }

    /// True if the process is gone after the strike.
    pub fn ends_process(&self) -> bool {
        match self.action {
            Action::Kill => true,
            Action::Stop => false,
            Action::Error => self.spec.on_error == OnError::Fatal,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, action) = (self.spec.name, self.action.word());
        let lower = |debug: String| debug.to_lowercase();
        let (role, toward) = (format!("{:?}", self.role), format!("{:?}", self.toward));
        let course = lower(format!("{:?}", self.course));
        write!(f, "{name} {action} {} {} {course}", lower(role), lower(toward))
    }
}

/// All of them.
pub fn all() -> Vec<Run> {
    let mut runs = vec![];
    for spec in TABLE {
        for (toward, course) in spec.ways {
            for role in spec.roles {
                for action in [Action::Kill, Action::Stop, Action::Error] {
                    if action != Action::Error || spec.on_error != OnError::Impossible {
                        let (role, toward, course) = (*role, *toward, *course);
                        runs.push(Run { spec, action, role, toward, course });
                    }
                }
            }
        }
    }
    runs
}

/// The runs of the gate: every role, every action, every course and both directions.
const SAMPLE: &[&str] = &[
    "journal.commit.before kill coordinator full switch",
    "demote.before kill owner sharded switch",
    "installed kill target full switch",
    "wal.written kill replica sharded busy",
    "receive.chunk error target full switch",
    "transfer.after kill owner sharded astray",
    "snapshot.chunk stop owner full switch",
    "journal.finalized.before kill coordinator sharded finalize",
    "drop.stopped kill target full abort",
    "journal.revert.after error coordinator full revert",
    "digest.scan error owner full commit",
    "flush.commit error target sharded busy",
];

/// See `SAMPLE`. A run of it may go to its point by another course than the table's.
pub fn sample() -> Vec<Run> {
    let by_course = |word: &str| {
        let all = all().into_iter().map(|run| run.course);
        all.into_iter().find(|course| format!("{course:?}").to_lowercase() == word)
    };
    SAMPLE
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let head =
                |run: &Run| format!("{run}").split(' ').take(4).eq(words.iter().copied().take(4));
            let run = all().into_iter().find(head).unwrap_or_else(|| panic!("no run is `{line}`"));
            Run { course: by_course(words[4]).expect("a course"), ..run }
        })
        .collect()
}

/// The next run of those that are left: one that starts from the strategy that holds, if there is any, because
/// everything else costs a switch that nobody looks at.
pub fn next(left: &mut Vec<Run>, holds: Strategy) -> Option<Run> {
    let fitting = left.iter().position(|run| run.from() == holds);
    match (fitting, left.is_empty()) {
        (_, true) => None,
        (at, false) => Some(left.remove(at.unwrap_or(0))),
    }
}

mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_point_is_struck_in_every_way_it_can_be() {
        let runs = all();
        let names: BTreeSet<String> = runs.iter().map(Run::to_string).collect();
        assert_eq!(names.len(), runs.len(), "no run twice");
        for spec in TABLE {
            for action in [Action::Kill, Action::Stop] {
                let struck = runs.iter().filter(|r| r.spec.name == spec.name && r.action == action);
                assert_eq!(struck.count(), spec.roles.len() * spec.ways.len(), "{}", spec.name);
            }
        }
        println!("{} runs over {} points", runs.len(), TABLE.len());
    }

    #[test]
    fn the_sample_has_every_role_action_course_and_direction() {
        let runs = sample();
        assert_eq!(runs.len(), 12);
        let roles: BTreeSet<_> = runs.iter().map(|run| run.role).collect();
        let actions: BTreeSet<_> = runs.iter().map(|run| run.action).collect();
        let courses: BTreeSet<_> = runs.iter().map(|run| run.course).collect();
        let toward: BTreeSet<_> = runs.iter().map(|run| run.toward).collect();
        assert_eq!((roles.len(), actions.len(), courses.len(), toward.len()), (4, 3, 7, 2));
    }
}
