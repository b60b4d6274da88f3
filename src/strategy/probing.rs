//! One bounded probe of the whole cluster: every node measures its disk and its way to every other one, at the
//! same time. How much, is decided here; how, on the nodes.

use super::driver::{COORDINATOR, Calls};
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::plan::{ProbeOrder, ProbeReport};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time for a probe; what was not measured by then is not known.
pub const PROBE_MAX: Duration = Duration::from_secs(5);
/// What a node keeps of that time for its answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);
/// Bytes of a probe, over all disks and all ways.
pub const PROBE_BYTES_MAX: u64 = 64 << 20;

/// What each of so many nodes is ordered to measure: half of the bytes go to disks, half to the network. The
/// nodes have bounds of their own.
pub fn order(nodes: usize) -> ProbeOrder {
    let nodes = nodes.max(1) as u64;
    let ways = nodes * (nodes - 1);
    let half = PROBE_BYTES_MAX / 2;
    ProbeOrder { disk_bytes: half / nodes, peer_bytes: half / ways.max(1) }
}

/// Probes. A node that does not answer is missing in the result; one that measures for somebody else already
/// ends it, because the two would measure each other.
pub async fn run(calls: &dyn Calls, nodes: &[NodeId]) -> Result<BTreeMap<NodeId, ProbeReport>> {
    let order = order(nodes.len());
    let asked = nodes.iter().map(|node| async move {
        let call = calls.call(*node, COORDINATOR, Command::Probe(order), PROBE_MAX - ANSWER_MARGIN);
        match tokio::time::timeout(PROBE_MAX, call).await {
            Ok(answer) => (*node, answer),
            Err(_) => (*node, Err(Error::new(Code::Unknown, "it did not measure in time"))),
        }
    });
    let mut reports = BTreeMap::new();
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(Answer::Probed(report)) => {
                reports.insert(node, report);
            }
            Ok(_) => tracing::warn!(%node, "a probe was answered with something else"),
            Err(error) if error.code == Code::Overloaded => return Err(error),
            Err(error) => tracing::info!(%node, %error, "a node was not measured"),
        }
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::limits;

    #[test]
    fn a_probe_stays_within_its_bytes_however_many_nodes_there_are() {
        for nodes in 1..=limits::PRIMARIES_MAX + limits::REPLICAS_MAX {
            let order = order(nodes);
            let nodes = nodes as u64;
            let all = nodes * (order.disk_bytes + (nodes - 1) * order.peer_bytes);
            assert!(all <= PROBE_BYTES_MAX, "{nodes} nodes: {all}");
            assert!(order.disk_bytes > 0 && order.peer_bytes > 0);
        }
    }
}
