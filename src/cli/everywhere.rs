//! One question to every node, or to the one that was named: who does not answer is named, not left out.

use super::caller::Caller;
use super::session::Call;
use crate::types::{Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use std::time::Duration;

/// How long one node may take to answer; one that is slower has nothing to say.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What the nodes answered.
pub struct Answers {
    /// Each that did.
    pub given: Vec<(NodeName, Answer)>,
    /// Those that did not, or refused.
    pub silent: Vec<NodeName>,
    error: Option<Error>,
}

impl Answers {
    /// Why nobody has answered; none if somebody has.
    pub fn failure(&self) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.given.is_empty())
    }

    /// A sentence about who is missing; none if nobody is.
    pub fn note(&self) -> Option<String> {
        let names: Vec<&str> = self.silent.iter().map(NodeName::as_str).collect();
        (!names.is_empty()).then(|| format!("no answer from {}", names.join(", ")))
    }
}

/// The node that was named, or every member.
pub async fn nodes<C: Caller>(caller: &C, call: &Call) -> Result<Vec<NodeName>> {
    match &call.globals.node {
        Some(node) => Ok(vec![node.clone()]),
        None => Ok(caller.map().await?.nodes.iter().map(|node| node.name.clone()).collect()),
    }
}

/// Asks these nodes at the same time, each its own question.
pub async fn ask<C: Caller>(
    caller: &C,
    nodes: &[NodeName],
    call: &Call,
    question: impl Fn(&NodeName) -> Command,
) -> Answers {
    let timeout = call.left().min(ANSWER_WITHIN);
    let asked = nodes.iter().map(|node| {
        let command = question(node);
        async move { (node, caller.command(command, Some(node), timeout).await) }
    });
    let mut answers = Answers { given: Vec::new(), silent: Vec::new(), error: None };
    for (node, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok((answer, _)) => answers.given.push((node.clone(), answer)),
            Err(error) => {
                answers.silent.push(node.clone());
                answers.error = Some(error);
            }
        }
    }
    answers
}
