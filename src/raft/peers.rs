//! What all groups of a host share to reach other copies: the links, the calls in flight, and how much
//! may be on its way to one node.

use super::compact::Turns;
use super::rpc::{Call, Callee, Calls, Error};
use super::{Links, Options};
use crate::types::{GroupId, NodeId};
use crate::wire::peer::{PeerBody, PeerMessage};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB of entries that may be on their way to one node, over all groups: enough to fill a fast network
/// with the delay of an fsync in it, little enough that no queue behind the links overflows.
const WINDOW_KIB: usize = 8 << 10;

/// Snapshots that are copied, sent or installed at a time keep all of that busy. Where clients are served, no more are
/// begun: whoever waits for its turn keeps the whole log of the node from being purged, and many would wait long.
const TRANSFERS_ENOUGH: usize = 3;

/// See the module.
pub struct Peers {
    pub links: Arc<dyn Links>,
    pub calls: Calls,
    pub options: Options,
    /// The runtime that everything of this host runs on.
    pub handle: Handle,
    /// One snapshot is sent at a time,
    pub send_slot: Semaphore,
    /// and one table is copied meanwhile, which is the next to be sent.
    pub copy_slot: Semaphore,
    /// One table is compacted at a time.
    pub compactions: Turns,
    /// Bytes a second at which a snapshot is sent; 0 is unlimited.
    copy_bytes_per_s: AtomicU64,
    /// Bytes of snapshots that left since the start.
    copied_bytes: AtomicU64,
    /// Clients are being served: copying makes way for them.
    makes_way: AtomicBool,
    transfers: Arc<AtomicUsize>,
    windows: Mutex<HashMap<NodeId, Arc<Semaphore>>>,
    started: Instant,
}

/// A snapshot on its way.
pub struct Transfer(Arc<AtomicUsize>);

impl Drop for Transfer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Which of the two queues of a link a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Urgent,
    Append,
}

impl Peers {
    pub fn new(links: Arc<dyn Links>, options: Options, handle: Handle) -> Self {
        let (calls, windows) = (Calls::new(), Mutex::default());
        Self {
            links,
            calls,
            options,
            handle,
            send_slot: Semaphore::new(1),
            copy_slot: Semaphore::new(1),
            compactions: Turns::default(),
            copy_bytes_per_s: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            makes_way: AtomicBool::new(false),
            transfers: Arc::default(),
            windows,
            started: Instant::now(),
        }
    }

    /// When few entries of a group leave next for learners that are sent to once in `tick`. Groups send at the same
    /// times, so that what they have shares packets on the way, and a batch of the log where it arrives; but if they do
    /// so rarely then in turns, because much at once is felt by who shares the processor.
    pub fn next_tick(&self, group: GroupId, tick: Duration) -> Instant {
        let begun = self.started + turn(group, tick, self.options.learner_tick_ms);
        tick_after(begun, tick, Instant::now())
    }

    /// Changes the rate of snapshots, that under way included.
    pub fn set_copy_rate(&self, bytes_per_s: u64) {
        self.copy_bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Bytes a second at which a snapshot is sent; 0 is unlimited.
    pub fn copy_rate(&self) -> u64 {
        self.copy_bytes_per_s.load(Ordering::Relaxed)
    }

    /// Whether copying makes way for others from now on.
    pub fn make_way(&self, makes_way: bool) {
        self.makes_way.store(makes_way, Ordering::Relaxed);
    }

    /// Whether copying makes way for others.
    pub fn makes_way(&self) -> bool {
        self.makes_way.load(Ordering::Relaxed)
    }

    /// A transfer begins, which lasts until this is dropped.
    pub fn transfer(&self) -> Transfer {
        self.transfers.fetch_add(1, Ordering::AcqRel);
        Transfer(Arc::clone(&self.transfers))
    }

    /// Whether further transfers would only wait for those that are under way.
    pub fn has_transfers_enough(&self) -> bool {
        self.transfers.load(Ordering::Acquire) >= TRANSFERS_ENOUGH
    }

    /// So many bytes of a snapshot left.
    pub fn count_copied(&self, bytes: u64) {
        self.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of snapshots that left since the start.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    /// Sends a call.
    pub fn call(&self, me: u64, to: Callee, lane: Lane, body: PeerBody) -> Result<Call, Error> {
        let call = self.calls.begin(to)?;
        self.send(
            to.node,
            lane,
            PeerMessage { group: to.group, from: me, to: to.copy, call: call.id, body },
        );
        Ok(call)
    }

    /// Answers a call.
    pub fn answer(&self, to: Callee, me: u64, call: u64, lane: Lane, body: PeerBody) {
        self.send(
            to.node,
            lane,
            PeerMessage { group: to.group, from: me, to: to.copy, call, body },
        );
    }

    fn send(&self, node: NodeId, lane: Lane, message: PeerMessage) {
        match lane {
            Lane::Urgent => self.links.send_urgent(node, message),
            Lane::Append => self.links.send_append(node, message),
        }
    }

    /// Waits until `bytes` more may be on their way to a node. A single message larger than the window
    /// takes all of it.
    pub async fn window(&self, node: NodeId, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let window = {
            let mut windows = self.windows.lock();
            let new = || Arc::new(Semaphore::new(WINDOW_KIB));
            Arc::clone(windows.entry(node).or_insert_with(new))
        };
        let kib = (bytes / 1024 + 1).min(WINDOW_KIB) as u32;
        window.acquire_many_owned(kib).await.ok()
    }
}

/// How much later than others a group sends: so many short ticks as there are in a tick share its groups.
fn turn(group: GroupId, tick: Duration, short_ms: u64) -> Duration {
    let turns = (tick.as_millis() as u64 / short_ms).max(1);
    Duration::from_millis(group.0 % turns * short_ms)
}

/// The first multiple of the tick since `started` that is later than `now`.
fn tick_after(started: Instant, tick: Duration, now: Instant) -> Instant {
    let past = now.saturating_duration_since(started).as_nanos() % tick.as_nanos();
    now + tick - Duration::from_nanos(past as u64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::NoLinks;
    use super::*;

    #[test]
    fn whoever_waits_for_a_tick_waits_for_the_same_one() {
        let started = Instant::now();
        let us = Duration::from_micros;
        let wakes = |past| tick_after(started, us(20_000), started + us(past)) - started;
        assert_eq!([wakes(0), wakes(1), wakes(19_999)], [us(20_000); 3]);
        assert_eq!([wakes(20_000), wakes(39_999)], [us(40_000); 2]);
    }

    #[tokio::test]
    async fn groups_take_turns_in_a_long_tick() {
        let ms = Duration::from_millis;
        let turns = |tick| [0, 1, 4, 5, 9].map(|group| turn(GroupId(group), ms(tick), 20));
        assert_eq!(turns(20), [ms(0); 5]);
        assert_eq!(turns(100), [0, 20, 80, 0, 80].map(ms));
        let peers = Peers::new(Arc::new(NoLinks), Options::default(), Handle::current());
        let leaves = |group| peers.next_tick(GroupId(group), ms(100)) - peers.started;
        let in_tick = |group| Duration::from_nanos((leaves(group).as_nanos() % 100_000_000) as u64);
        std::thread::sleep(ms(100));
        assert_eq!([in_tick(0), in_tick(1), in_tick(4)], [0, 20, 80].map(ms));
    }

    #[tokio::test]
    async fn transfers_are_enough_while_they_are_on_their_way() {
        let peers = Peers::new(Arc::new(NoLinks), Options::default(), Handle::current());
        let mut under_way: Vec<Transfer> =
            (1..TRANSFERS_ENOUGH).map(|_| peers.transfer()).collect();
        assert!(!peers.has_transfers_enough());
        under_way.push(peers.transfer());
        assert!(peers.has_transfers_enough());
        under_way.pop();
        assert!(!peers.has_transfers_enough());
    }
}
