//! One bounded probe of the whole cluster: every node measures its disk and its way to every other one, at the
//! same time. How much, is decided here; how, on the nodes.

use super::driver::{COORDINATOR, Calls};
use crate::types::{Code, Error, NodeId, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::plan::{ProbeOrder, ProbeReport};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longest time for a probe, waiting for busy nodes included; what was not measured by then is not known.
pub const PROBE_MAX: Duration = Duration::from_secs(5);
/// What a node keeps of that time for its answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);
/// A node that measures already is asked again while so much of the time is left: a probe that was not waited for any
/// more ends soon after its time, when the disk has answered.
const PROBE_MIN: Duration = Duration::from_secs(3);
/// Between two questions to such a node.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// A probe that is younger serves again.
pub const FRESH: Duration = Duration::from_secs(30);
/// The same where a plan or a commit is refused for what was measured: that may have passed.
pub const FRESH_WHERE_HELD: Duration = Duration::from_secs(5);
/// Bytes of a probe, over all disks and all ways.
pub const PROBE_BYTES_MAX: u64 = 64 << 20;

/// A probe that was made.
pub struct Made {
    /// When it ended.
    pub ended: Instant,
    /// An operation held the slot meanwhile: copies and digests took their part of disk and network.
    pub amid: bool,
    /// What each node measured.
    pub reports: BTreeMap<NodeId, ProbeReport>,
}

impl Made {
    /// Whether it still serves these members. What was measured amid an operation says nothing of the time after
    /// it: the next plan would take the switch before it for the usual load.
    pub fn serves(&self, nodes: &[NodeId], amid: bool, fresh: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) < fresh
            && (amid || !self.amid)
            && nodes.iter().all(|node| self.reports.contains_key(node))
    }
}

/// What each of so many nodes is ordered to measure: half of the bytes go to disks, half to the network. The
/// nodes have bounds of their own.
pub fn order(nodes: usize) -> ProbeOrder {
    let nodes = nodes.max(1) as u64;
    let ways = nodes * (nodes - 1);
    let half = PROBE_BYTES_MAX / 2;
    ProbeOrder { disk_bytes: half / nodes, peer_bytes: half / ways.max(1) }
}

/// Probes. A node that does not answer is missing in the result; one that goes on measuring for somebody else
/// ends it, because the two would measure each other.
pub async fn run(calls: &dyn Calls, nodes: &[NodeId]) -> Result<BTreeMap<NodeId, ProbeReport>> {
    let order = order(nodes.len());
    let until = Instant::now() + PROBE_MAX;
    let asked =
        nodes.iter().map(|node| async move { (*node, probed(calls, *node, order, until).await) });
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

/// What one node measured by then, however often it has to be asked.
async fn probed(
    calls: &dyn Calls,
    node: NodeId,
    order: ProbeOrder,
    until: Instant,
) -> Result<Answer> {
    loop {
        let answer = probe(calls, node, order, until).await;
        let is_busy = answer.as_ref().is_err_and(|error| error.code == Code::Overloaded);
        let left = until.saturating_duration_since(Instant::now());
        if !is_busy || left < PROBE_MIN + BUSY_PAUSE {
            return answer;
        }
        tokio::time::sleep(BUSY_PAUSE).await;
    }
}

async fn probe(
    calls: &dyn Calls,
    node: NodeId,
    order: ProbeOrder,
    until: Instant,
) -> Result<Answer> {
    let left = until.saturating_duration_since(Instant::now());
    let time = left.saturating_sub(ANSWER_MARGIN);
    let call = calls.call(node, COORDINATOR, Command::Probe(order), time);
    let late = |_| Error::new(Code::Unknown, "it did not measure in time");
    tokio::time::timeout(left, call).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::limits;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use parking_lot::Mutex;

    /// Measures for somebody else the first so many times that it is asked; remembers when it was asked, and the time
    /// that it was given.
    struct Busy {
        times: usize,
        asked: Mutex<Vec<(Instant, Duration)>>,
    }

    impl Calls for Busy {
        fn call(
            &self,
            _node: NodeId,
            _by: &str,
            _command: Command,
            timeout: Duration,
        ) -> BoxFuture<'static, Result<Answer>> {
            let mut asked = self.asked.lock();
            asked.push((Instant::now(), timeout));
            let busy = Error::new(Code::Overloaded, "this node measures already");
            let answer = if asked.len() <= self.times { Err(busy) } else { Ok(Answer::Echoed) };
            std::future::ready(answer).boxed()
        }
    }

    #[tokio::test]
    async fn a_busy_node_is_waited_for_within_the_time_of_one_probe() {
        let began = Instant::now();
        let once = Busy { times: 1, asked: Mutex::default() };
        let answer = probed(&once, NodeId(1), order(3), began + PROBE_MAX).await;
        assert_eq!(answer, Ok(Answer::Echoed));
        let asked = once.asked.into_inner();
        assert_eq!(asked.len(), 2);
        for (at, timeout) in asked {
            assert!(at + timeout <= began + PROBE_MAX - ANSWER_MARGIN + Duration::from_millis(1));
        }
        // One that goes on measuring is asked while there is time for a probe.
        let until = Instant::now() + PROBE_MIN + BUSY_PAUSE * 3 / 2;
        let always = Busy { times: usize::MAX, asked: Mutex::default() };
        let answer = probed(&always, NodeId(1), order(3), until).await;
        assert_eq!(answer.unwrap_err().code, Code::Overloaded);
        let asked = always.asked.into_inner();
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|(at, _)| *at + PROBE_MIN <= until));
    }

    #[test]
    fn what_was_measured_amid_an_operation_serves_no_later_plan() {
        let ended = Instant::now();
        let report = ProbeReport { disk: Err("not measured".into()), peers: vec![] };
        let reports = BTreeMap::from([(NodeId(1), report)]);
        let [quiet, amid] =
            [false, true].map(|amid| Made { ended, amid, reports: reports.clone() });
        let (one, two) = ([NodeId(1)], [NodeId(1), NodeId(2)]);
        assert!(quiet.serves(&one, false, FRESH, ended) && quiet.serves(&one, true, FRESH, ended));
        assert!(amid.serves(&one, true, FRESH, ended), "its own commit rests on it");
        assert!(!amid.serves(&one, false, FRESH, ended));
        assert!(!quiet.serves(&two, false, FRESH, ended), "a member was not measured");
        assert!(!quiet.serves(&one, false, FRESH, ended + FRESH), "too old");
        assert!(!quiet.serves(&one, true, FRESH_WHERE_HELD, ended + FRESH_WHERE_HELD));
    }

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
