//! Commands from node to node: the coordinator's questions and orders, and what is passed on to it.
//!
//! A call to this very node takes the short way. Nothing is decided here.

use super::Node;
use super::links::PeerLinks;
use crate::admin::{Asker, PassOn};
use crate::strategy::Calls;
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::peer::{NodeAnswer, NodeCall};
use futures_util::future::BoxFuture;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The way to all nodes.
pub(super) struct NodeCalls {
    pub(super) me: NodeId,
    pub(super) links: PeerLinks,
    pub(super) node: Weak<Node>,
}

impl Calls for NodeCalls {
    fn call(
        &self,
        node: NodeId,
        by: &str,
        command: Command,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>> {
        let by = by.to_owned();
        if node == self.me {
            let (from, through) = (String::new(), None);
            return self.here(
                Asker { name: by, is_node: true, from, passed_on: true, through },
                command,
                timeout,
            );
        }
        let call = NodeCall::Command { by, command, deadline_ms: whole_ms(timeout) };
        self.there(node, call, timeout)
    }
}

impl PassOn for NodeCalls {
    fn pass_on(
        &self,
        node: NodeId,
        asker: &Asker,
        command: Command,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>> {
        if node == self.me {
            return self.here(Asker { passed_on: true, ..asker.clone() }, command, timeout);
        }
        let (by, from) = (asker.name.clone(), asker.from.clone());
        let call = NodeCall::PassedOn { by, from, command, deadline_ms: whole_ms(timeout) };
        self.there(node, call, timeout)
    }
}

impl NodeCalls {
    fn here(
        &self,
        asker: Asker,
        command: Command,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>> {
        let here = self.node.upgrade();
        Box::pin(async move {
            let here = here.ok_or_else(stopping)?;
            here.carry_out(asker, command, timeout).await
        })
    }

    fn there(
        &self,
        node: NodeId,
        call: NodeCall,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer>> {
        let links = self.links.clone();
        Box::pin(async move {
            match links.call(node, call, timeout).await? {
                NodeAnswer::Answer(answer) => Ok(answer),
                NodeAnswer::Refused(error) => Err(error),
                NodeAnswer::Description(_) | NodeAnswer::Joined => {
                    Err(Error::new(Code::Internal, "the node answered another question"))
                }
            }
        })
    }
}

fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn stopping() -> Error {
    Error::new(Code::NotReady, "this node is stopping")
}

impl Node {
    /// Carries out a command that a node asked for, or passed on.
    pub(super) async fn carry_out(
        self: Arc<Self>,
        asker: Asker,
        command: Command,
        timeout: Duration,
    ) -> Result<Answer> {
        let deadline = Instant::now() + timeout.min(crate::types::limits::DEADLINE_MAX);
        self.admin.handle(asker, command, deadline).await
    }
}
