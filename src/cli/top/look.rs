//! One look at the whole cluster. A node that does not answer in time is shown as such; nobody waits for it twice.

use super::super::caller::Caller;
use crate::cluster::heard::clock_ms;
use crate::types::NodeName;
use crate::wire::breaker::PeerBreaker;
use crate::wire::client::Map;
use crate::wire::command::{Answer, Command, CopyLag, Status};
use crate::wire::load::NodeStats;
use crate::wire::operation::StrategyView;
use futures_util::future::{join, join_all, join3};
use std::sync::Arc;
use std::time::Duration;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When, in milliseconds since 1970 by the own clock.
    pub at_ms: u64,
    /// The cluster; none if nobody answers.
    pub status: Option<Status>,
    /// Why nobody does.
    pub error: Option<String>,
    /// Where the data is.
    pub map: Option<Arc<Map>>,
    /// How each node does that has answered.
    pub stats: Vec<NodeStats>,
    /// What each holds back.
    pub breakers: Vec<(NodeName, PeerBreaker)>,
    /// How far copies are behind.
    pub lag: Vec<CopyLag>,
    /// The latest operation.
    pub strategy: Option<StrategyView>,
}

/// Asks everybody.
pub async fn look<C: Caller>(caller: &C) -> Snapshot {
    let at_ms = clock_ms();
    let status = match caller.command(Command::Status, None, ANSWER_WITHIN).await {
        Ok((Answer::Status(status), _)) => status,
        Ok(_) => return Snapshot { at_ms, ..Snapshot::default() },
        Err(error) => {
            return Snapshot { at_ms, error: Some(error.message), ..Snapshot::default() };
        }
    };
    let up: Vec<&NodeName> =
        status.nodes.iter().filter(|node| node.up).map(|node| &node.name).collect();
    let ask = async |node: &NodeName, command| {
        caller.command(command, Some(node), ANSWER_WITHIN).await.map(|(answer, _)| answer)
    };
    let of_node = async |node: &NodeName| {
        let (stats, breakers, lag) = join3(
            ask(node, Command::Stats),
            ask(node, Command::Breakers),
            ask(node, Command::ReplicaLag),
        )
        .await;
        [stats, breakers, lag].into_iter().flatten().collect::<Vec<_>>()
    };
    let strategy = caller.command(Command::StrategyShow, None, ANSWER_WITHIN);
    let map = tokio::time::timeout(ANSWER_WITHIN, caller.map());
    let nodes = join_all(up.iter().map(|node| of_node(node)));
    let ((strategy, map), nodes) = join(join(strategy, map), nodes).await;
    let mut seen = Snapshot {
        at_ms,
        map: map.ok().and_then(Result::ok),
        strategy: match strategy {
            Ok((Answer::StrategyView(view), _)) => Some(*view),
            _ => None,
        },
        ..Snapshot::default()
    };
    for (node, answers) in up.into_iter().zip(nodes) {
        for answer in answers {
            match answer {
                Answer::Stats(stats) => seen.stats.push(*stats),
                Answer::Breakers(told) => {
                    seen.breakers.extend(told.into_iter().map(|breaker| (node.clone(), breaker)));
                }
                Answer::ReplicaLag(told) => seen.lag.extend(told),
                _ => {}
            }
        }
    }
    seen.status = Some(status);
    seen
}
