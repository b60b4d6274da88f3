//! All groups of a node: opens and closes them, and takes messages and snapshots for them.
//!
//! A message reaches a copy only if it names the group, this copy, and a sender this copy listens to. An
//! arriving message creates nothing.

use super::encoding::{MembershipRecord, SnapshotAnswer, is_heartbeat};
use super::flush::Flusher;
use super::inbound::{self, Inbox};
use super::log_store::LogStore;
use super::machine::Machine;
use super::network::{APPEND_ENTRIES_MAX, Network};
use super::peers::{Lane, Peers};
use super::rpc::Callee;
use super::shared::Shared;
use super::types::{Raft, pos};
use super::{Error, Group, GroupSpec, Links, Options, receiving, snapshot, staging};
use crate::storage::{self, Store, wal::Wal};
use crate::transport::{FrameReceiver, FrameSender};
use crate::types::{Code, GroupId, LogPos, NodeId};
use crate::wire::peer::{PeerBody, PeerMessage};
use openraft::async_runtime::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Calls other than appends that are served at a time, over all groups; further ones are refused.
const SERVED_MAX: usize = 4_096;
/// Longest wait for a group to stop.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How often a group is looked at for having failed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the files of a group that has stopped to be released.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// Longest transfer of a snapshot, the wait for the installation included.
const SNAPSHOT_MAX_MS: u64 = 30 * 60 * 1000;

/// All groups of a node. Its tasks run on the runtime it was created in. Clones share everything.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    wal: Wal,
    peers: Arc<Peers>,
    /// The library's settings and the flusher; or why there are none, told by `open`.
    ready: Result<(Arc<Config>, Flusher), String>,
    groups: RwLock<HashMap<GroupId, Opened>>,
    opening: Mutex<HashSet<GroupId>>,
    served: Arc<Semaphore>,
}

#[derive(Clone)]
struct Opened {
    group: Group,
    inbox: Arc<Inbox>,
}

impl Opened {
    /// Without the inbox: its queues keep the tasks that take from them, and these the group.
    fn into_group(self) -> Group {
        self.group
    }
}

fn config(options: &Options) -> Result<Config, String> {
    let config = Config {
        cluster_name: "ppdb".into(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_min_ms,
        election_timeout_max: options.election_max_ms,
        enable_pre_vote: Some(true),
        // A leader that restarts resumes with a state machine that may be older than what it had answered:
        // its commit index is written lazily. It has to be elected, and commit an entry of its new term.
        enable_leader_restore: Some(false),
        // Nothing is purged and no snapshot built but on our demand.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        install_snapshot_timeout: SNAPSHOT_MAX_MS,
        max_payload_entries: APPEND_ENTRIES_MAX,
        // An applier may wait for a flush, and the library's core must not wait with it.
        state_machine_channel_size: Some(65_536),
        // `broadcast_submitted_on_append` and `heartbeat_min_interval` stay as they are: measured, neither
        // gained anything beyond noise.
        ..Config::default()
    };
    config.validate().map_err(|e| format!("timing of the groups: {e}"))
}

/// Whether a log fits the table beside it; else a sentence that says what is missing. `installed` is the
/// position of a table that replaced the one before, where the log may not have its new base yet.
fn fits(
    table: Option<LogPos>,
    purged: Option<LogPos>,
    last: Option<LogPos>,
    installed: Option<LogPos>,
) -> Result<(), String> {
    let index = |pos: Option<LogPos>| pos.map_or(0, |p| p.index + 1);
    if index(purged) > index(table) {
        return Err(format!("the log begins after entry {}, the table ends before", index(purged)));
    }
    if index(last) < index(table) && installed != table {
        return Err(format!("the log ends before entry {}, the table has it", index(table)));
    }
    Ok(())
}

impl Host {
    /// A host without groups. `wal` is shared by all of them. Must be called inside the runtime that is to
    /// drive the groups; give it a runtime of its own, so that slow reads cannot start an election.
    /// Settings that do not fit each other are told by `open`.
    pub fn new(wal: Wal, links: Arc<dyn Links>, options: Options) -> Self {
        let ready = config(&options).and_then(|config| {
            let flusher = Flusher::start().map_err(|e| format!("flush thread: {e}"))?;
            Ok((Arc::new(config), flusher))
        });
        let peers = Arc::new(Peers::new(links, options, Handle::current()));
        let inner = Inner {
            wal,
            peers,
            ready,
            groups: RwLock::default(),
            opening: Mutex::default(),
            served: Arc::new(Semaphore::new(SERVED_MAX)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Opens a group whose copy exists: recovers log and store, starts following. `Stopped` says what does
    /// not fit or cannot be read; the copy is then as it was.
    pub async fn open(&self, spec: GroupSpec) -> Result<Group, Error> {
        let group = spec.group;
        let open = self.group(group).is_some() || !self.inner.opening.lock().insert(group);
        if open {
            return Err(Error::Conflict(format!("group {group} is open")));
        }
        let inner = Arc::clone(&self.inner);
        let opened = self.inner.peers.handle.spawn(async move { inner.open(spec).await }).await;
        let opened = opened.unwrap_or_else(|error| Err(error.to_string()));
        let result = opened.map(|opened| {
            let group = opened.group.clone();
            self.inner.groups.write().insert(group.id(), opened);
            group
        });
        self.inner.opening.lock().remove(&group);
        result.map_err(Error::Stopped)
    }

    /// The group, if it is open here.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.inner.groups.read().get(&group).map(|opened| opened.group.clone())
    }

    /// Stops a group after flushing what is applied. Its copy stays on the disk.
    pub async fn close(&self, group: GroupId) {
        let closed = self.inner.groups.write().remove(&group).map(Opened::into_group);
        if let Some(group) = closed {
            stop(&group).await;
            release(group).await;
        }
    }

    /// Stops a group whose copy is about to be deleted: nothing is flushed. False if it did not stop in
    /// time: then what is left of it may still write to its log, and the log must not be given to another
    /// copy by this process.
    pub async fn discard(&self, group: GroupId) -> bool {
        let closed = self.inner.groups.write().remove(&group).map(Opened::into_group);
        let Some(group) = closed else { return true };
        let stopped = halt(&group).await;
        release(group).await;
        stopped
    }

    /// Bytes a second at which snapshots are sent from here, those under way included; 0 is unlimited.
    pub fn set_copy_rate(&self, bytes_per_s: u64) {
        self.inner.peers.set_copy_rate(bytes_per_s);
    }

    /// Whether copies make way for others from now on, those under way included: clients are being served, and
    /// notice what a copy takes of the processor.
    pub fn make_way(&self, makes_way: bool) {
        self.inner.peers.make_way(makes_way);
    }

    /// Whether it does.
    pub fn makes_way(&self) -> bool {
        self.inner.peers.makes_way()
    }

    /// Whether further snapshots would only wait for those that are under way.
    pub fn has_transfers_enough(&self) -> bool {
        self.inner.peers.has_transfers_enough()
    }

    /// Whether tables may be compacted in the background: there is time for it.
    pub fn allow_compaction(&self, allowed: bool) {
        self.inner.peers.compactions.allow(allowed);
    }

    /// Bytes of snapshots that left from here since the start; what was sent again counts again.
    pub fn copied_bytes(&self) -> u64 {
        self.inner.peers.copied_bytes()
    }

    /// Hands over a message that arrived from a node. Never blocks; work is spawned.
    pub fn deliver(&self, from: NodeId, message: PeerMessage) {
        match &message.body {
            PeerBody::Answer(_)
            | PeerBody::ReadIndexAnswer(_)
            | PeerBody::Committed(_)
            | PeerBody::Refused(_) => {
                self.inner.peers.calls.complete(from, message);
            }
            _ => self.inner.serve(from, message),
        }
    }

    /// Serves one incoming snapshot stream.
    pub async fn deliver_snapshot(
        &self,
        from: NodeId,
        sender: FrameSender,
        mut receiver: FrameReceiver,
    ) {
        let inner = Arc::clone(&self.inner);
        let served = self.inner.peers.handle.spawn(async move {
            inner.serve_snapshot(from, &sender, &mut receiver).await;
        });
        if let Err(error) = served.await {
            tracing::warn!(%from, %error, "a snapshot stream broke off");
        }
    }

    /// Stops every group after flushing what is applied. Its files stay open where somebody holds a group: the
    /// process ends next, and nobody is to wait for that.
    pub async fn shutdown(&self) {
        let opened = std::mem::take(&mut *self.inner.groups.write());
        let groups: Vec<Group> = opened.into_values().map(Opened::into_group).collect();
        futures_util::future::join_all(groups.iter().map(stop)).await;
        if let Ok((_, flusher)) = &self.inner.ready {
            flusher.stop();
        }
    }
}

#[cfg(test)]
impl Host {
    /// The log of the node.
    pub fn wal(&self) -> Wal {
        self.inner.wal.clone()
    }

    /// Stops every group, for a process that opens their files again.
    pub async fn shutdown_and_release(&self) {
        let shared = |opened: &Opened| Arc::downgrade(opened.group.shared());
        let left: Vec<_> = self.inner.groups.read().values().map(shared).collect();
        self.shutdown().await;
        futures_util::future::join_all(left.iter().map(released)).await;
    }

    /// Stops without the last flush: what is only in memory is lost, as when a process is killed.
    pub async fn abandon(&self) {
        let groups: Vec<Opened> =
            self.inner.groups.write().drain().map(|(_, opened)| opened).collect();
        for opened in groups {
            opened.group.shared().incoming.close().await;
            if let Some(raft) = opened.group.shared().raft() {
                raft.shutdown().await.unwrap();
            }
        }
        if let Ok((_, flusher)) = &self.inner.ready {
            flusher.stop();
        }
    }
}

/// Stops the library first, so that nothing is applied any more, then flushes.
async fn stop(group: &Group) {
    halt(group).await;
    let shared = group.shared();
    if shared.failure().is_none() && !group.flush().await {
        tracing::warn!(group = %shared.group, "stopped without a last flush; the log has it");
    }
}

/// Ends what writes to the copy; false if that did not happen in time.
async fn halt(group: &Group) -> bool {
    let shared = group.shared();
    shared.incoming.close().await;
    let Some(raft) = shared.raft() else { return true };
    match tokio::time::timeout(STOP_MAX, raft.shutdown()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(group = %shared.group, %error, "the group ended badly");
            true
        }
        Err(_) => {
            tracing::warn!(group = %shared.group, "the group did not stop in time");
            false
        }
    }
}

/// Tasks that were just told to end still hold the store and the log open; whoever stops a group wants
/// to open or delete its files next. Handles of the caller keep them open, so this is bounded.
async fn release(group: Group) {
    let left = Arc::downgrade(group.shared());
    drop(group);
    released(&left).await;
}

async fn released(left: &Weak<Shared>) {
    let deadline = tokio::time::Instant::now() + RELEASE_MAX;
    while left.strong_count() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    if left.strong_count() > 0 {
        tracing::debug!("a group that was stopped is still held");
    }
}

impl Inner {
    async fn open(&self, spec: GroupSpec) -> Result<Opened, String> {
        let (config, flusher) = self.ready.clone()?;
        let GroupSpec { group, raft_id, dir, logic } = spec;
        let (wal, log) = (self.wal.clone(), self.wal.group(group));
        let (peers, keep) = (Arc::clone(&self.peers), flusher.clone());
        let recover = move || {
            let found =
                staging::take_stock(&dir, group).map_err(|e| format!("staging folder: {e}"))?;
            let store =
                Store::open(&dir, storage::Options::default()).map_err(|e| e.to_string())?;
            let log = LogStore::open(log).map_err(|e| e.to_string())?;
            let applied = store.applied();
            let [purged, last] = [log.purged(), log.last()].map(|id| id.as_ref().map(pos));
            fits(applied.pos, purged, last, snapshot::marked_install(&dir))?;
            let membership =
                MembershipRecord::decode(&applied.membership).map_err(|e| e.to_string())?;
            let spec = (group, raft_id, dir);
            let shared =
                Arc::new(Shared::new(spec, store, (log.clone(), wal), peers, flusher, membership));
            shared.restore_staged(found, Instant::now());
            let machine = Machine::open(Arc::clone(&shared), logic).map_err(|e| e.to_string())?;
            Ok::<_, String>((shared, log, machine))
        };
        let recovered = tokio::task::spawn_blocking(recover).await.map_err(|e| e.to_string())?;
        let (shared, log, machine) = recovered?;
        // Before the library starts: entries it applies again may ask for a flush.
        keep.add(&shared);
        let network = Network { shared: Arc::clone(&shared) };
        let raft =
            Raft::new(raft_id, config, network, log, machine).await.map_err(|e| e.to_string())?;
        shared.started(raft.clone());
        elect_if_alone(&raft, raft_id).await;
        self.peers.handle.spawn(notice_failure(Arc::downgrade(&shared)));
        self.peers.handle.spawn(note_leaders(group, shared.raft().cloned()));
        Ok(Opened { group: Group::new(shared), inbox: Arc::default() })
    }

    fn opened(&self, from: NodeId, group: GroupId, copy: u64, to: u64) -> Option<Opened> {
        let opened = self.groups.read().get(&group).cloned()?;
        let shared = opened.group.shared();
        // A group that has failed looks unreachable.
        let works = shared.failure().is_none();
        (works && shared.raft_id == to && shared.listens_to(copy, from)).then_some(opened)
    }

    fn serve(&self, from: NodeId, message: PeerMessage) {
        let PeerMessage { group, from: copy, to, call, body } = message;
        let callee = Callee { group, copy, node: from };
        let Some(opened) = self.opened(from, group, copy, to) else {
            return self.peers.answer(
                callee,
                to,
                call,
                Lane::Urgent,
                PeerBody::Refused(Code::Moved),
            );
        };
        let shared = opened.group.shared();
        match body {
            PeerBody::Append(body) if !is_heartbeat(&body) => {
                if !opened.inbox.push(shared, callee, call, body) {
                    inbound::refuse(shared, callee, call, Code::Overloaded);
                }
            }
            body => match Arc::clone(&self.served).try_acquire_owned() {
                Ok(permit) => {
                    let serve = inbound::serve(Arc::clone(shared), callee, call, body);
                    self.peers.handle.spawn(async move {
                        serve.await;
                        drop(permit);
                    });
                }
                Err(_) => inbound::refuse(shared, callee, call, Code::Overloaded),
            },
        }
    }

    async fn serve_snapshot(
        &self,
        from: NodeId,
        sender: &impl snapshot::FramesOut,
        receiver: &mut impl snapshot::FramesIn,
    ) {
        let header = match receiving::header(receiver).await {
            Ok(header) => header,
            Err(error) => return tracing::warn!(%from, error, "a snapshot without a header"),
        };
        let answer = match self.opened(from, header.group, header.from, header.to) {
            Some(Opened { group, .. }) => {
                receiving::receive(group.shared(), &header, sender, receiver).await
            }
            None => SnapshotAnswer::Refused(Code::Moved),
        };
        receiving::answer(sender, &answer).await;
    }
}

/// Notes when the library has ended on its own: its log or state machine failed. Ends with the group.
async fn notice_failure(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let Some(raft) = shared.raft() else { return };
        let ended = raft.metrics().borrow_watched().running_state.clone();
        match ended {
            Ok(()) => {}
            // An orderly stop.
            Err(openraft::errors::Fatal::Stopped) => return,
            Err(error) => return shared.stop(error.to_string()),
        }
    }
}

/// Logs who leads, each time that this copy itself comes to lead or ceases to. Ends with the group.
async fn note_leaders(group: GroupId, raft: Option<Raft>) {
    let Some(mut seen) = raft.map(|raft| raft.server_metrics()) else { return };
    let mut led = false;
    loop {
        let (leads, term) = {
            let now = seen.borrow_watched();
            (now.state.is_leader(), now.vote.leader_id.term)
        };
        if leads != led {
            match leads {
                true => tracing::info!(%group, term, "leads"),
                false => tracing::info!(%group, term, "leads no more"),
            }
            led = leads;
        }
        if seen.changed().await.is_err() {
            return;
        }
    }
}

/// A lone voter disturbs nobody and need not wait for anybody's lease: it stands for election at once.
async fn elect_if_alone(raft: &Raft, raft_id: u64) {
    let me = raft_id;
    // Asked of the core itself: what it publishes may not tell its state yet.
    let alone = raft.with_raft_state(move |state| {
        let membership = state.membership_state.effective().membership();
        membership.get_joint_config().len() == 1 && membership.voter_ids().eq([me])
    });
    let alone = alone.await.unwrap_or(false);
    if alone && let Err(error) = raft.trigger().elect(false).await {
        tracing::warn!(%error, "the lone voter could not stand for election");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_are_told() {
        assert!(config(&Options::default()).is_ok());
        let late = Options { heartbeat_ms: 900, ..Options::default() };
        assert!(config(&late).unwrap_err().contains("timing"));
        let inverted = Options { election_min_ms: 1300, ..Options::default() };
        assert!(config(&inverted).is_err());
    }

    #[test]
    fn a_log_that_lost_entries_is_told_from_an_installed_snapshot() {
        let at = |index| Some(LogPos { term: 1, leader: 1, index });
        assert_eq!(fits(None, None, None, None), Ok(()));
        assert_eq!(fits(None, None, at(9), None), Ok(()));
        assert_eq!(fits(at(5), at(3), at(9), None), Ok(()));
        assert_eq!(fits(at(5), at(5), at(5), None), Ok(()));
        // The log was cut behind the table's back, at either end.
        assert!(fits(at(5), at(6), at(9), None).is_err());
        assert!(fits(None, at(0), at(9), None).is_err());
        assert!(fits(at(5), None, at(4), None).is_err());
        assert!(fits(at(0), None, None, None).is_err());
        // A snapshot was installed at 5, and the process died before the log had its new base.
        assert_eq!(fits(at(5), None, at(4), at(5)), Ok(()));
        assert!(fits(at(6), None, at(4), at(5)).is_err());
    }
}
