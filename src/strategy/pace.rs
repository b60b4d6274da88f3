//! How fast copies leave the nodes, and whether clients are being served meanwhile, from what the nodes count; and
//! which shard's turn it is where not all can be seen to at once.
//! Pure; kept by the coordinator between rounds.

use super::core::Seen;
use crate::types::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Shortest time over which a rate is measured.
const MEASURED_MIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    since: Option<Instant>,
    counted: BTreeMap<NodeId, u64>,
    all: u64,
    busiest: u64,
}

impl Pace {
    /// One look at what the nodes have sent so far.
    pub fn look(&mut self, seen: &Seen, now: Instant) {
        let took = now.saturating_duration_since(*self.since.get_or_insert(now));
        if took < MEASURED_MIN && !self.counted.is_empty() {
            return;
        }
        let (mut all, mut busiest) = (0, 0);
        for (node, report) in &seen.reports {
            // Who was not seen before, or has been started anew, begins to count here.
            let before = self.counted.insert(*node, report.copied_bytes);
            let sent = report.copied_bytes.saturating_sub(before.unwrap_or(report.copied_bytes));
            let rate = (sent as f64 / took.as_secs_f64().max(MEASURED_MIN.as_secs_f64())) as u64;
            (all, busiest) = (all + rate, busiest.max(rate));
        }
        self.counted.retain(|node, _| seen.reports.contains_key(node));
        self.since = Some(now);
        // Half of what was: steady enough to read, and gone a few seconds after the last byte.
        (self.all, self.busiest) = ((self.all + all).div_ceil(2), (self.busiest + busiest) / 2);
        if all == 0 && self.all < 1_024 {
            self.all = 0;
        }
    }

    /// Bytes a second that leave all nodes.
    pub fn bytes_per_s(&self) -> u64 {
        self.all
    }

    /// Bytes a second that leave the node that sends most.
    pub fn busiest_bytes_per_s(&self) -> u64 {
        self.busiest
    }

    /// Seconds that so many bytes take at this pace; none while nothing is sent.
    pub fn eta_s(&self, bytes: u64) -> Option<u64> {
        (bytes > 0 && self.all > 0).then(|| bytes.div_ceil(self.all))
    }
}

/// After the last sign of a request nobody is served any more.
const DEMAND_FADES: Duration = Duration::from_millis(500);

/// Whether clients are being served. What nodes report are the requests of the last seconds, which become more
/// only while there are some.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    counted: BTreeMap<NodeId, u64>,
    grew: Option<Instant>,
}

impl Demand {
    /// One look at what the nodes have served in the last seconds.
    pub fn look(&mut self, seen: &Seen, now: Instant) {
        for (node, report) in &seen.reports {
            let requests = report.service.requests();
            let before = self.counted.insert(*node, requests);
            if before.is_some_and(|before| requests > before) {
                self.grew = Some(now);
            }
        }
    }

    /// Whether requests came in just now.
    pub fn is_there(&self, now: Instant) -> bool {
        self.grew.is_some_and(|grew| now.saturating_duration_since(grew) < DEMAND_FADES)
    }
}

/// Whose order goes first, where only a few go out in each round.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    rounds: usize,
}

impl Turns {
    /// Brings the orders of one round into turn. Another one is the first in each, so that a shard that refuses every
    /// order does not hold up the others.
    pub fn order<T>(&mut self, orders: &mut [T]) {
        if !orders.is_empty() {
            orders.rotate_left(self.rounds % orders.len());
            self.rounds = self.rounds.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::guard::ServiceLevel;
    use crate::wire::operation::NodeReport;

    fn seen(sent: &[(u64, u64)]) -> Seen {
        let report = |(node, copied_bytes): &(u64, u64)| {
            let node = NodeId(*node);
            let report = NodeReport {
                node,
                clock_ms: 0,
                disk_free_bytes: 0,
                disk_total_bytes: 0,
                map_bytes_max: 0,
                version: String::new(),
                certificate_expires_ms: 0,
                load: Default::default(),
                copies: vec![],
                service: ServiceLevel::default(),
                copied_bytes: *copied_bytes,
            };
            (node, report)
        };
        Seen { reports: sent.iter().map(report).collect(), ..Seen::default() }
    }

    #[test]
    fn each_order_goes_first_in_its_turn() {
        let mut turns = Turns::default();
        turns.order(&mut Vec::<u8>::new());
        let mut first = || {
            let mut orders = ["a", "b", "c"];
            turns.order(&mut orders);
            orders[0]
        };
        assert_eq!([first(), first(), first(), first()], ["a", "b", "c", "a"]);
    }

    #[test]
    fn rates_follow_what_is_sent_and_a_restart_is_no_burst() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::default();
        pace.look(&seen(&[(1, 5_000_000), (2, 0)]), start);
        assert_eq!((pace.bytes_per_s(), pace.eta_s(1)), (0, None));
        for i in 1..=20 {
            pace.look(
                &seen(&[(1, 5_000_000 + i * 1_000_000), (2, i * 500_000)]),
                start + second * i as u32,
            );
        }
        assert!(pace.bytes_per_s().abs_diff(1_500_000) < 10, "{pace:?}");
        assert!(pace.busiest_bytes_per_s().abs_diff(1_000_000) < 10, "{pace:?}");
        assert_eq!(pace.eta_s(14_000_000), Some(10));
        // Node 1 counts from 0 again, and node 3 was not there before.
        for i in 21..60 {
            pace.look(&seen(&[(1, 7), (3, 1 << 40)]), start + second * i);
        }
        assert_eq!((pace.bytes_per_s(), pace.eta_s(15)), (0, None));
    }

    #[test]
    fn demand_is_there_while_requests_come_in_and_soon_gone() {
        let served = |reads| {
            let mut seen = seen(&[(1, 0), (2, 0)]);
            seen.reports.get_mut(&NodeId(2)).unwrap().service.reads = reads;
            seen
        };
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut demand = Demand::default();
        demand.look(&served(900), at(0));
        assert!(!demand.is_there(at(0)), "they may be of a while ago");
        demand.look(&served(901), at(100));
        assert!(demand.is_there(at(100)));
        // A second of them is looked back at no more, and then the next.
        demand.look(&served(400), at(200));
        assert!(demand.is_there(at(300)));
        demand.look(&served(0), at(700));
        assert!(!demand.is_there(at(700)));
    }
}
