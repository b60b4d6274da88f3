//! The failpoints: one table that says what each is called, where it is, who reaches it, on which way, and what
//! an error there leads to. `tests/it/campaign` makes its runs from it.
//!
//! A name says where the process is: `journal.commit.before` before the entry is proposed, `.after` when its
//! answer has come; `wal.written` between write and fdatasync. Every primary is owner of some shards and target
//! of the others; a point that both reach in the same way is listed for the owner alone.

/// Makes the list of points, and in a debug build the table.
macro_rules! points {
    ($($point:ident: $name:literal, $place:literal, $roles:expr, $ways:expr, $on_error:ident;)*) => {
        /// A failpoint.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Point { $($point,)* }

        /// Every failpoint.
        #[cfg(debug_assertions)]
        pub const TABLE: &[Spec] = &[$(Spec {
            point: Point::$point,
            name: $name,
            place: $place,
            roles: $roles,
            ways: $ways,
            on_error: OnError::$on_error,
        },)*];
    };
}

/// Who reaches a point.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The primary that leads the metadata group.
    Coordinator,
    /// A primary, for the shards it leads.
    Owner,
    /// A primary, for the shards of others.
    Target,
    /// A replica.
    Replica,
}

/// Where a switch goes.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toward {
    /// To full replication.
    Full,
    /// Back to shards.
    Sharded,
}

/// What is ordered so that a point is reached.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// A switch.
    Switch,
    /// A switch; the point is armed when it runs, because it is reached all the time.
    Busy,
    /// Prepare, then commit.
    Commit,
    /// Prepare, then abort.
    Abort,
    /// A switch, then back.
    Revert,
    /// A switch, then finalize.
    Finalize,
    /// A switch while some shard is led by another than its owner.
    Astray,
}

/// What an error at a point leads to.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The caller gets it, and tries again or gives up what it did.
    Returned,
    /// The node ends: what is on its disk is in doubt, or may be. Down is better than wrong.
    Fatal,
    /// There is no way to return one.
    Impossible,
}

/// A row of the table.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The point.
    pub point: Point,
    /// What it is called.
    pub name: &'static str,
    /// The module it lies in.
    pub place: &'static str,
    /// Who reaches it.
    pub roles: &'static [Role],
    /// On which ways it is reached.
    pub ways: &'static [(Toward, Course)],
    /// What an error there leads to.
    pub on_error: OnError,
}

#[cfg(debug_assertions)]
use Role::*;

#[cfg(debug_assertions)]
mod ways {
    use super::{Course::*, Toward, Toward::*};

    pub type Ways = &'static [(Toward, super::Course)];
    pub const BOTH: Ways = &[(Full, Switch), (Sharded, Switch)];
    pub const BUSY: Ways = &[(Full, Busy), (Sharded, Busy)];
    pub const COMMIT: Ways = &[(Full, Commit), (Sharded, Commit)];
    pub const ABORT: Ways = &[(Full, Abort), (Sharded, Abort)];
    pub const REVERT: Ways = &[(Full, Revert), (Sharded, Revert)];
    pub const FINALIZE: Ways = &[(Full, Finalize), (Sharded, Finalize)];
    /// Copies are made.
    pub const TO_FULL: Ways = &[(Full, Switch)];
    /// Copies are dropped.
    pub const DROPS: Ways = &[(Full, Abort), (Full, Revert), (Sharded, Finalize)];
    pub const PROMOTES: Ways = &[(Full, Switch), (Sharded, Revert)];
    pub const DEMOTES: Ways = &[(Sharded, Switch), (Full, Revert)];
    pub const ASTRAY: Ways = &[(Sharded, Astray)];
}
#[cfg(debug_assertions)]
use ways::*;

points! {
    BeforeBegin: "journal.begin.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterBegin: "journal.begin.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeCheckpoint: "journal.checkpoint.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterCheckpoint: "journal.checkpoint.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeCopyStarted: "journal.copy_started.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterCopyStarted: "journal.copy_started.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeCaughtUp: "journal.caught_up.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterCaughtUp: "journal.caught_up.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeVerified: "journal.verified.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterVerified: "journal.verified.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforePrepared: "journal.prepared.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterPrepared: "journal.prepared.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeCommitAsked: "journal.commit_asked.before", "strategy/around", &[Coordinator], COMMIT, Returned;
    AfterCommitAsked: "journal.commit_asked.after", "strategy/around", &[Coordinator], COMMIT, Returned;
    BeforeCommit: "journal.commit.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterCommit: "journal.commit.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeSoaking: "journal.soaking.before", "strategy/around", &[Coordinator], BOTH, Returned;
    AfterSoaking: "journal.soaking.after", "strategy/around", &[Coordinator], BOTH, Returned;
    BeforeAbort: "journal.abort.before", "strategy/around", &[Coordinator], ABORT, Returned;
    AfterAbort: "journal.abort.after", "strategy/around", &[Coordinator], ABORT, Returned;
    BeforeAborted: "journal.aborted.before", "strategy/around", &[Coordinator], ABORT, Returned;
    AfterAborted: "journal.aborted.after", "strategy/around", &[Coordinator], ABORT, Returned;
    BeforeRevert: "journal.revert.before", "strategy/around", &[Coordinator], REVERT, Returned;
    AfterRevert: "journal.revert.after", "strategy/around", &[Coordinator], REVERT, Returned;
    BeforeReverted: "journal.reverted.before", "strategy/around", &[Coordinator], REVERT, Returned;
    AfterReverted: "journal.reverted.after", "strategy/around", &[Coordinator], REVERT, Returned;
    BeforeFinalize: "journal.finalize.before", "strategy/around", &[Coordinator], FINALIZE, Returned;
    AfterFinalize: "journal.finalize.after", "strategy/around", &[Coordinator], FINALIZE, Returned;
    BeforeFinalized: "journal.finalized.before", "strategy/around", &[Coordinator], FINALIZE, Returned;
    AfterFinalized: "journal.finalized.after", "strategy/around", &[Coordinator], FINALIZE, Returned;
    OrderBefore: "order.before", "strategy/around", &[Coordinator], BOTH, Returned;
    OrderAfter: "order.after", "strategy/around", &[Coordinator], BOTH, Impossible;
    CompareBefore: "compare.before", "strategy/compare", &[Coordinator], BOTH, Returned;
    CompareAfter: "compare.after", "strategy/compare", &[Coordinator], BOTH, Returned;
    CommitApply: "commit.apply", "cluster/logic", &[Coordinator, Owner, Replica], BOTH, Fatal;
    CommitApplied: "commit.applied", "cluster/logic", &[Coordinator, Owner, Replica], BOTH, Fatal;
    CopyRecord: "copy.record", "cluster/agent", &[Target], TO_FULL, Fatal;
    CopyRecorded: "copy.recorded", "cluster/agent", &[Target], TO_FULL, Fatal;
    CopyOpened: "copy.opened", "cluster/agent", &[Target], TO_FULL, Fatal;
    CopyServe: "copy.serve", "cluster/agent", &[Target], TO_FULL, Impossible;
    LearnerAdd: "learner.add", "cluster/agent", &[Owner], TO_FULL, Returned;
    LearnerAdded: "learner.added", "cluster/agent", &[Owner], TO_FULL, Impossible;
    DropBegin: "drop.begin", "cluster/dropping", &[Target], DROPS, Fatal;
    DropStopped: "drop.stopped", "cluster/dropping", &[Target], DROPS, Fatal;
    DropForgotten: "drop.forgotten", "cluster/dropping", &[Target], DROPS, Fatal;
    DropFolder: "drop.folder", "cluster/dropping", &[Target], DROPS, Returned;
    FenceBefore: "fence.before", "shard/lead", &[Owner], BOTH, Returned;
    FenceAfter: "fence.after", "shard/lead", &[Owner], BOTH, Returned;
    PromoteBefore: "promote.before", "shard/lead", &[Owner], PROMOTES, Returned;
    PromoteAfter: "promote.after", "shard/lead", &[Owner], PROMOTES, Returned;
    DemoteBefore: "demote.before", "shard/lead", &[Owner], DEMOTES, Returned;
    DemoteAfter: "demote.after", "shard/lead", &[Owner], DEMOTES, Returned;
    RemoveBefore: "remove.before", "shard/lead", &[Owner], DROPS, Returned;
    RemoveAfter: "remove.after", "shard/lead", &[Owner], DROPS, Returned;
    TransferBefore: "transfer.before", "shard/lead", &[Owner], ASTRAY, Returned;
    TransferAfter: "transfer.after", "shard/lead", &[Owner], ASTRAY, Returned;
    JointApply: "joint.apply", "raft/machine", &[Owner, Target], BOTH, Impossible;
    VoteSave: "vote.save", "raft/log_store", &[Target], TO_FULL, Impossible;
    VoteSaved: "vote.saved", "raft/log_store", &[Target], TO_FULL, Impossible;
    Append: "append", "raft/log_store", &[Owner, Target, Replica], BUSY, Impossible;
    WalWrite: "wal.write", "storage/wal/writer", &[Coordinator, Owner, Replica], BUSY, Fatal;
    WalWritten: "wal.written", "storage/wal/writer", &[Coordinator, Owner, Replica], BUSY, Fatal;
    WalSynced: "wal.synced", "storage/wal/writer", &[Coordinator, Owner, Replica], BUSY, Fatal;
    FlushFrozen: "flush.frozen", "raft/flush", &[Owner, Target, Replica], BUSY, Fatal;
    FlushCommit: "flush.commit", "storage/lmdb", &[Owner, Target, Replica], BUSY, Fatal;
    FlushWritten: "flush.written", "raft/flush", &[Owner, Target, Replica], BUSY, Fatal;
    DigestPropose: "digest.propose", "shard", &[Owner], BOTH, Returned;
    DigestFreeze: "digest.freeze", "raft/machine", &[Owner, Target, Replica], BOTH, Returned;
    DigestScan: "digest.scan", "raft/digests", &[Owner, Target, Replica], BOTH, Returned;
    DigestDone: "digest.done", "raft/digests", &[Owner, Target, Replica], BOTH, Returned;
    SnapshotOpened: "snapshot.opened", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotCopy: "snapshot.copy", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotCopied: "snapshot.copied", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotNoted: "snapshot.noted", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotHeader: "snapshot.header", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotChunk: "snapshot.chunk", "raft/sending", &[Owner], TO_FULL, Returned;
    SnapshotSent: "snapshot.sent", "raft/sending", &[Owner], TO_FULL, Returned;
    ReceiveBegin: "receive.begin", "raft/receiving", &[Target], TO_FULL, Returned;
    ReceiveChunk: "receive.chunk", "raft/incoming", &[Target], TO_FULL, Returned;
    ReceiveSync: "receive.sync", "raft/incoming", &[Target], TO_FULL, Returned;
    ReceiveSynced: "receive.synced", "raft/incoming", &[Target], TO_FULL, Returned;
    ReceiveWhole: "receive.whole", "raft/receiving", &[Target], TO_FULL, Returned;
    InstallMark: "install.mark", "raft/snapshot", &[Target], TO_FULL, Fatal;
    InstallMarked: "install.marked", "raft/snapshot", &[Target], TO_FULL, Fatal;
    TablePlace: "table.place", "storage/lmdb/home", &[Target], TO_FULL, Fatal;
    TablePlaced: "table.placed", "storage/lmdb/home", &[Target], TO_FULL, Fatal;
    TableSwitch: "table.switch", "storage/lmdb/home", &[Target], TO_FULL, Fatal;
    TableSwitched: "table.switched", "storage/lmdb/home", &[Target], TO_FULL, Fatal;
    Installed: "installed", "raft/machine", &[Target], TO_FULL, Fatal;
    ReplyBefore: "reply.before", "request", &[Owner], BUSY, Impossible;
}

/// What is not a point, or not on every way, and why.
#[cfg(debug_assertions)]
pub const UNREACHABLE: &[(&str, &str)] = &[
    (
        "journal.doubted",
        "only where a copy got a snapshot after it was compared, which a leader sends to nobody who follows",
    ),
    (
        "copy.*, learner.*, snapshot.*, receive.*, install.*, table.* to sharded",
        "nothing is copied on the way to shards",
    ),
    ("drop.*, remove.* at the end of a switch to full", "everything that is placed is needed"),
    ("promote.* and demote.* of the replica", "a replica never votes"),
    ("transfer.* to full", "the owner leads: no other voter exists"),
    (
        "vote.save to sharded",
        "an owner that leads is not voted on; with others leading see transfer.*",
    ),
    ("a new segment of the log", "a run writes far less than a segment holds"),
];

/// The row of a point.
#[cfg(debug_assertions)]
pub fn spec(point: Point) -> &'static Spec {
    &TABLE[point as usize]
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_stand_where_their_point_counts_and_names_are_unique() {
        for (row, spec) in TABLE.iter().enumerate() {
            assert_eq!(spec.point as usize, row, "{}", spec.name);
            assert!(!spec.roles.is_empty() && !spec.ways.is_empty(), "{} is reached", spec.name);
        }
        let names: BTreeSet<&str> = TABLE.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(names.len() >= 40, "{} points", names.len());
    }

    #[test]
    fn every_point_is_passed_in_the_module_that_the_table_names() {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for spec in TABLE {
            let (file, module) = (src.join(format!("{}.rs", spec.place)), src.join(spec.place));
            let text = std::fs::read_to_string(file)
                .or_else(|_| std::fs::read_to_string(module.join("mod.rs")))
                .unwrap_or_else(|e| panic!("{}: {}: {e}", spec.name, spec.place));
            let passed = format!("Point::{:?}", spec.point);
            let is_passed = text.contains(&format!("{passed})"))
                || text.contains(&format!("{passed},"))
                || text.contains(&format!("{passed};"));
            assert!(is_passed, "{} is not passed in {}", spec.name, spec.place);
        }
    }
}
