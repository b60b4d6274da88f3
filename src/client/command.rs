//! Commands: to a named node or to any. One that changes something is sent once; a question goes on to the
//! next node if one does not answer.

use super::exec::Inner;
use super::net::{Failure, Net, Target};
use crate::types::{Class, Code, Error, NodeName, Result};
use crate::wire::client::{ReplyBody, RequestBody, Role};
use crate::wire::command::{Answer, Command, Formation};
use crate::wire::runs::RunEvent;
use std::time::{Duration, Instant};

impl<N: Net> Inner<N> {
    /// Sends a command; another node is tried if none was named, and nothing was sent or nothing can have
    /// happened.
    pub(crate) async fn command(
        &self,
        command: Command,
        node: Option<&NodeName>,
        timeout: Duration,
    ) -> Result<(Answer, NodeName)> {
        let deadline = self.deadline(timeout);
        let targets = match (&command, node) {
            (Command::ClusterInit(formation), _) => vec![founder(formation, node)?],
            (_, Some(name)) => vec![self.named(name, deadline).await?],
            (_, None) => self.any(deadline).await?,
        };
        let mutates = mutates(&command);
        let mut error = Error::new(Code::Unreachable, "no node to ask");
        let last = targets.len().saturating_sub(1);
        for (number, target) in targets.into_iter().enumerate() {
            let body = RequestBody::Command(command.clone());
            let asks_on = !mutates && number < last;
            let until = match asks_on {
                true => deadline.min(self.net.now() + patience(&command)),
                false => deadline,
            };
            let outcome = self.net.exchange(&target, body, until).await;
            self.note(&target, &outcome);
            match outcome {
                Ok(ReplyBody::Command(answer)) => {
                    if let Answer::Formed { map, .. } = &answer {
                        self.adopt(map.clone())?;
                    }
                    return Ok((answer, target.name));
                }
                Err(Failure::NotSent(why)) if why.class() == Class::Retry => error = why,
                silent @ Err(Failure::Lost(_) | Failure::TimedOut) if asks_on => {
                    error = refusal(silent, mutates, &target);
                }
                other => return Err(refusal(other, mutates, &target)),
            }
        }
        Err(error)
    }

    /// A node that did not answer is asked last for a while, so that the next command does not wait for
    /// it again.
    fn note(&self, target: &Target, outcome: &Result<ReplyBody, Failure>) {
        let view = self.view();
        let Some(node) = view.node(&target.name) else { return };
        match outcome {
            Ok(_) | Err(Failure::Refused(_)) => node.health.answered(self.net.now(), None),
            Err(_) => node.health.failed(self.net.now()),
        }
    }

    async fn named(&self, name: &NodeName, deadline: Instant) -> Result<Target> {
        if let Some(node) = self.view().node(name) {
            return Ok(node.target.clone());
        }
        let found = self.net.discover(deadline).await?.target;
        if found.name == *name {
            return Ok(found);
        }
        Err(Error::new(Code::NotFound, format!("no node {name} in the map")))
    }

    async fn any(&self, deadline: Instant) -> Result<Vec<Target>> {
        let view = self.view();
        if view.nodes.is_empty() {
            return Ok(vec![self.net.discover(deadline).await?.target]);
        }
        let now = self.net.now();
        let mut nodes: Vec<_> = view.nodes.iter().collect();
        nodes.sort_by_key(|node| node.health.suspect(now));
        Ok(nodes.into_iter().map(|node| node.target.clone()).collect())
    }
}

/// The node that forms a cluster: the first primary by name, at the address the formation gives.
fn founder(formation: &Formation, node: Option<&NodeName>) -> Result<Target> {
    let members = formation.members.iter();
    let found = match node {
        Some(named) => members.clone().find(|(name, ..)| name == named),
        None => members.filter(|(_, role, _)| *role == Role::Primary).min_by_key(|(name, ..)| name),
    };
    let found = found.map(|(name, _, addr)| Target { name: name.clone(), addr: addr.clone() });
    found.ok_or_else(|| Error::new(Code::BadRequest, "the formation names no such primary"))
}

/// Whether a command may have changed something when its answer is lost. What is not listed as
/// harmless counts as a change.
pub(super) fn mutates(command: &Command) -> bool {
    !matches!(
        command,
        Command::Status
            | Command::Info
            | Command::ReplicaLag
            | Command::Digest { .. }
            | Command::Precheck { .. }
            | Command::StrategyShow
            | Command::StrategyHistory
            | Command::Settings
            | Command::Report
            | Command::OperationLog { .. }
            | Command::Logs(_)
            | Command::Breakers
            | Command::Stats
            | Command::HotKeys { .. }
            | Command::Alarms
            | Command::Metrics
            | Command::SlowLog { .. }
            | Command::Monitor(_)
            | Command::Ping
            | Command::Runs { .. }
            | Command::RunShow { .. }
            | Command::Plans
    )
}

/// Whether a command needs the right to change something. Whoever may only look may still have it kept that a runbook
/// looked, but takes up no run: that would stop whoever is about it.
pub(super) fn needs_writes(command: &Command) -> bool {
    match command {
        Command::Run(order) => matches!(order.event, RunEvent::Resume(_)),
        command => mutates(command),
    }
}

/// How long a node may take to answer a question before the next one is asked: the first kind is answered
/// from what the node knows, the others after it has asked around.
fn patience(command: &Command) -> Duration {
    match command {
        Command::Status | Command::Info | Command::ReplicaLag | Command::OperationLog { .. } => {
            Duration::from_millis(500)
        }
        // The cluster is measured first.
        Command::Precheck { .. } => Duration::from_secs(10),
        _ => Duration::from_secs(3),
    }
}

fn refusal(outcome: Result<ReplyBody, Failure>, mutates: bool, target: &Target) -> Error {
    let name = &target.name;
    let lost = |harmless: Code, why: String| {
        let code = if mutates { Code::Unknown } else { harmless };
        Error::new(code, why)
    };
    match outcome {
        Ok(_) => lost(Code::Internal, format!("{name} sent another kind of answer")),
        Err(Failure::NotSent(error) | Failure::Refused(error)) => error,
        Err(Failure::Lost(why)) => lost(Code::Unreachable, format!("{name}: {why}")),
        Err(Failure::TimedOut) => {
            lost(Code::DeadlineExceeded, format!("{name} did not answer in time"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::{Fake, Step, map, name};
    use crate::wire::client::Strategy;
    use crate::wire::runs::{Book, RunOrder};

    fn formation(members: &[(&str, Role)]) -> Formation {
        let members = members.iter().map(|(n, role)| (name(n), *role, format!("{n}:1"))).collect();
        Formation { cluster: "c".into(), shards: 2, members }
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn forming_goes_to_the_first_primary_by_name_and_brings_the_map() {
        let formed = Answer::Formed { map: map(1, Strategy::Sharded), created: true };
        let inner = Inner::new(Fake::new([Step::reply("n1", ReplyBody::Command(formed.clone()))]));
        let members = [("a0", Role::Replica), ("n2", Role::Primary), ("n1", Role::Primary)];
        let command = Command::ClusterInit(formation(&members));
        let answer = inner.command(command, None, TIMEOUT).await.unwrap();
        assert_eq!(answer, (formed, name("n1")));
        assert_eq!(inner.view().map.shards.len(), 2);
        let none = Command::ClusterInit(formation(&[("r1", Role::Replica)]));
        assert_eq!(inner.command(none, None, TIMEOUT).await.unwrap_err().code, Code::BadRequest);
    }

    #[tokio::test]
    async fn a_command_that_changes_something_is_never_sent_twice() {
        let switch = crate::wire::operation::StrategyOrder::switch(Strategy::Full);
        for command in
            [Command::ClusterInit(formation(&[("n1", Role::Primary)])), Command::Strategy(switch)]
        {
            let inner = Inner::new(Fake::new([Step::lost("*")]));
            inner.adopt(map(1, Strategy::Sharded)).unwrap();
            let error = inner.command(command, None, TIMEOUT).await.unwrap_err();
            assert_eq!(error.code, Code::Unknown);
            assert_eq!(inner.net.sent().len(), 1);
        }
    }

    #[test]
    fn only_questions_are_harmless() {
        use crate::wire::operation::StrategyOrder;
        let to = Strategy::Full;
        for question in [
            Command::Precheck { to },
            Command::StrategyShow,
            Command::StrategyHistory,
            Command::Settings,
            Command::OperationLog { limit: 9 },
            Command::Breakers,
            Command::Stats,
            Command::HotKeys { limit: 10 },
            Command::Alarms,
            Command::Metrics,
            Command::Runs { limit: 9 },
            Command::RunShow { run: 1 },
            Command::Plans,
            Command::Digest { shard: crate::types::ShardId(0), at: None },
        ] {
            assert!(!mutates(&question), "{question:?}");
        }
        for order in [
            Command::Strategy(StrategyOrder::prepare(to)),
            Command::Strategy(StrategyOrder::Commit),
            Command::StrategyOf { operation: 7, order: StrategyOrder::Finalize },
            Command::Set { name: "reads.default".into(), value: "local".into() },
        ] {
            assert!(mutates(&order), "{order:?}");
        }
    }

    #[test]
    fn whoever_may_only_look_keeps_a_record_and_takes_up_none() {
        let event =
            |event| Command::Run(Box::new(RunOrder { runner: 1, run: 1, sequence: 1, event }));
        assert!(needs_writes(&event(RunEvent::Resume(Book::default()))));
        assert!(needs_writes(&Command::Set { name: "a".into(), value: "b".into() }));
        for harmless in [
            event(RunEvent::Begin(Book::default())),
            event(RunEvent::StepBegan { index: 0, name: "a".into(), line: 1 }),
            event(RunEvent::Note("a".into())),
            event(RunEvent::End(None)),
            Command::Status,
        ] {
            assert!(!needs_writes(&harmless), "{harmless:?}");
        }
    }

    #[tokio::test]
    async fn a_question_goes_on_to_the_next_node_and_the_silent_one_is_asked_last() {
        let reply = |node| Step::reply(node, ReplyBody::Command(Answer::ReplicaLag(vec![])));
        let inner = Inner::new(Fake::new([Step::timed_out("n1"), reply("n2"), reply("n2")]));
        inner.adopt(map(1, Strategy::Sharded)).unwrap();
        for _ in 0..2 {
            let (_, by) = inner.command(Command::ReplicaLag, None, TIMEOUT).await.unwrap();
            assert_eq!(by, name("n2"));
        }
    }

    #[tokio::test]
    async fn any_node_is_tried_until_one_takes_it_but_a_named_one_is_the_only_one() {
        let answer = Answer::ReplicaLag(vec![]);
        let reply = || Step::reply("*", ReplyBody::Command(answer.clone()));
        let inner = Inner::new(Fake::new([Step::not_sent("n1"), Step::not_sent("n2"), reply()]));
        inner.adopt(map(1, Strategy::Sharded)).unwrap();
        let (got, by) = inner.command(Command::ReplicaLag, None, TIMEOUT).await.unwrap();
        assert_eq!((got, by), (answer.clone(), name("n3")));

        let inner = Inner::new(Fake::new([Step::not_sent("n2")]));
        inner.adopt(map(1, Strategy::Sharded)).unwrap();
        let named = inner.command(Command::Info, Some(&name("n2")), TIMEOUT).await;
        assert_eq!(named.unwrap_err().code, Code::Unreachable);
        let absent = inner.command(Command::Info, Some(&name("n9")), TIMEOUT).await;
        assert_eq!(absent.unwrap_err().code, Code::NotFound);
    }
}
