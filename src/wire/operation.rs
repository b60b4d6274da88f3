//! A change of strategy as it is journaled and shown, and what the coordinator and the nodes say to each
//! other while it runs. Data only: what a transition does is decided in `cluster::journal`.

use super::client::Strategy;
use super::guard::{Failure, Guard, ServiceLevel};
use super::plan::LoadReport;
use super::terms::{Actual, Terms};
use crate::types::{CopyId, Incarnation, NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// Where an operation stands. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Asked for and prechecked; nothing was done.
    Planned,
    /// The origin is recorded: epoch, placement, a log index for each shard.
    Checkpointed,
    /// Targets receive their copies; shards whose copies have all arrived are compared.
    Copying,
    /// Every target follows the log; the shards that are left are compared.
    CaughtUp,
    /// Every copy is verified and held warm. Nothing has changed for clients.
    Prepared,
    /// The commit point has passed: shards change their voters one by one.
    Committing,
    /// The new strategy holds everywhere; the way back is open.
    Soaking,
    /// The way back is being closed: what only it needed is dropped.
    Finalizing,
    /// Ended in the new strategy.
    Finalized,
    /// Given up before the commit point: copies are dropped.
    Aborting,
    /// Ended in the old strategy; the commit point was never reached.
    Aborted,
    /// On the way back from after the commit point.
    Reverting,
    /// Ended in the old strategy, by the way back.
    Reverted,
}

impl Phase {
    /// True once nothing will happen any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Phase::Finalized | Phase::Aborted | Phase::Reverted)
    }

    /// True while no other operation may start. Soaking holds nothing up.
    pub const fn holds_slot(self) -> bool {
        !self.is_over() && !matches!(self, Phase::Soaking)
    }

    /// The name in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Planned => "planned",
            Phase::Checkpointed => "checkpointed",
            Phase::Copying => "copying",
            Phase::CaughtUp => "caught_up",
            Phase::Prepared => "prepared",
            Phase::Committing => "committing",
            Phase::Soaking => "soaking",
            Phase::Finalizing => "finalizing",
            Phase::Finalized => "finalized",
            Phase::Aborting => "aborting",
            Phase::Aborted => "aborted",
            Phase::Reverting => "reverting",
            Phase::Reverted => "reverted",
        }
    }
}

/// One change of strategy, from its start to its end: a record in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Number, rising, never used again.
    pub id: u64,
    /// Raised by every transition; the condition for the next one.
    pub step: u64,
    /// The step at which the direction was chosen last: the start, the commit point, abort, revert,
    /// finalize. A shard refuses orders of a lower (operation, turn) than it has seen.
    pub turn: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Strategy before: the origin, to which abort and revert go back.
    pub from: Strategy,
    /// Strategy after.
    pub to: Strategy,
    /// Who asked for it.
    pub by: String,
    /// The user has asked for the commit; it follows as soon as it is safe.
    pub commit_asked: bool,
    /// Why it was aborted or reverted.
    pub reason: Option<String>,
    /// The origin, once recorded.
    pub checkpoint: Option<Checkpoint>,
    /// Copies proven equal to their owner's.
    pub verified: Vec<Verified>,
    /// Copies that the new strategy does not need are no longer placed.
    pub dropped: bool,
    /// When each part was reached, by the leader's clock.
    pub times: Times,
    /// Rate at which a node sends copies for this operation, in bytes a second, 0 is unlimited; none while the
    /// setting holds.
    pub copy_bytes_per_s: Option<u64>,
    /// What the guard remembers.
    pub guard: Guard,
    /// What went wrong last, whether it ended the operation or not.
    pub last_failure: Option<Failure>,
    /// On which terms it was asked for.
    pub terms: Terms,
    /// What it did cost, as far as it was measured.
    pub actual: Actual,
}

/// Milliseconds since 1970, for display and for the revert window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Asked for.
    pub started_ms: u64,
    /// Prepared.
    pub prepared_ms: Option<u64>,
    /// The commit point.
    pub committed_ms: Option<u64>,
    /// The new strategy held everywhere.
    pub soaking_ms: Option<u64>,
    /// Over.
    pub ended_ms: Option<u64>,
}

impl Times {
    /// From the start until the new strategy held everywhere, without the time it was held prepared; none of what
    /// did not get there.
    pub fn took_ms(&self) -> Option<u64> {
        let prepared = self.prepared_ms?.saturating_sub(self.started_ms);
        Some(prepared + self.soaking_ms?.saturating_sub(self.committed_ms?))
    }
}

/// What abort and revert go back to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Version of the map at that moment.
    pub epoch: u64,
    /// Copies with this id and above were made for it.
    pub next_copy: CopyId,
    /// Each shard, by id.
    pub shards: Vec<Origin>,
}

/// A shard in a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Its owner.
    pub owner: NodeId,
    /// The copies that voted.
    pub voters: Vec<CopyId>,
    /// Last log index of its leader.
    pub index: u64,
}

/// A copy whose digest, computed by its holder from its own stored bytes, equals the owner's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// The shard.
    pub shard: ShardId,
    /// The copy.
    pub copy: CopyId,
    /// At this log index.
    pub index: u64,
}

/// An order of the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StrategyOrder {
    /// Phase one: copies are made, verified and held warm.
    Prepare { to: Strategy, terms: Terms },
    /// Phase two, of what is prepared.
    Commit,
    /// Both in one.
    Switch { to: Strategy, terms: Terms },
    /// Gives up before the commit point.
    Abort { reason: String },
    /// Goes back after the commit point.
    Revert { reason: String },
    /// Closes the way back.
    Finalize,
    /// Sets the rate at which a node sends copies for the operation under way, in bytes a second, 0 is unlimited;
    /// none goes back to the setting.
    Throttle { copy_bytes_per_s: Option<u64> },
}

impl StrategyOrder {
    /// Phase one on the usual terms.
    pub fn prepare(to: Strategy) -> Self {
        StrategyOrder::Prepare { to, terms: Terms::default() }
    }

    /// Both phases on the usual terms.
    pub fn switch(to: Strategy) -> Self {
        StrategyOrder::Switch { to, terms: Terms::default() }
    }
}

/// What `strategy show` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyView {
    /// The strategy that holds.
    pub strategy: Strategy,
    /// Version of the map.
    pub epoch: u64,
    /// The latest operation, over or not.
    pub operation: Option<Operation>,
    /// How far it is, while it runs, as the coordinator sees it.
    pub progress: Option<Progress>,
}

/// How far an operation is. Known to the coordinator only, not journaled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that had to be copied, as estimated from the tables of the owners.
    pub bytes_total: u64,
    /// Of these, bytes of shards that have arrived.
    pub bytes_done: u64,
    /// Shards to be done in this phase, and done.
    pub shards_total: u32,
    /// Of these, done.
    pub shards_done: u32,
    /// Seconds left, where it can be told.
    pub eta_s: Option<u64>,
    /// What it waits for.
    pub blocker: Option<String>,
    /// Shards whose voters are not yet those of the strategy.
    pub pending: Vec<ShardId>,
    /// The bytes by node that receives, by name.
    pub nodes: Vec<NodeProgress>,
    /// Bytes of copies that left all nodes, a second, of late.
    pub bytes_per_s: u64,
    /// Rate at which a node may send them at this moment; 0 is unlimited.
    pub limit_bytes_per_s: u64,
    /// How well the cluster serves at this moment, by the worst of its nodes.
    pub service: ServiceLevel,
    /// Longest write gap of the operation since this coordinator has led it.
    pub write_gap_ms: u64,
    /// Milliseconds until the way back is closed, while it is open.
    pub revert_left_ms: Option<u64>,
}

/// How far one node has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeProgress {
    /// Its name.
    pub node: String,
    /// Bytes that it receives.
    pub bytes_total: u64,
    /// Of these, arrived.
    pub bytes_done: u64,
}

/// What a node knows about itself and its copies; asked for by the coordinator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The node.
    pub node: NodeId,
    /// Its clock, in milliseconds since 1970.
    pub clock_ms: u64,
    /// Bytes free on the disk of its data folder.
    pub disk_free_bytes: u64,
    /// Size of that disk.
    pub disk_total_bytes: u64,
    /// Largest size a table may grow to.
    pub map_bytes_max: u64,
    /// Version of the program.
    pub version: String,
    /// The end of its certificate's validity, in milliseconds since 1970.
    pub certificate_expires_ms: u64,
    /// How busy it is.
    pub load: LoadReport,
    /// Its copies.
    pub copies: Vec<CopyReport>,
    /// How well it serves clients.
    pub service: ServiceLevel,
    /// Bytes of copies that it has sent since it started.
    pub copied_bytes: u64,
}

/// What a node knows about one of its copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyReport {
    /// The shard.
    pub shard: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// This copy.
    pub copy: CopyId,
    /// The copy that leads, as far as this one knows.
    pub leader: Option<CopyId>,
    /// Bytes that its table uses, without those on disk that hold nothing, with those that wait to be written.
    pub table_bytes: u64,
    /// Last entry applied here.
    pub applied: u64,
    /// A snapshot was installed here at that log index; what was verified before says nothing any more.
    pub installed: u64,
    /// Bytes that have arrived of a table on its way to this copy.
    pub arriving_bytes: u64,
    /// Known on the leader only.
    pub lead: Option<Lead>,
}

/// What the leader of a shard knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    /// Highest (operation, turn) whose fence is applied.
    pub fence: (u64, u64),
    /// Two configurations hold at this moment.
    pub joint: bool,
    /// Last log index.
    pub last_index: u64,
    /// Every member.
    pub members: Vec<MemberReport>,
}

/// A member of a shard's group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The copy.
    pub copy: CopyId,
    /// Its node.
    pub node: NodeId,
    /// Whether it votes.
    pub voter: bool,
    /// Log index it acknowledged.
    pub matched: u64,
    /// Milliseconds since it answered last; none if it never did.
    pub answered_ms: Option<u64>,
    /// It has everything that was written more than a second ago.
    pub near: bool,
}

/// An order of the coordinator to the leader of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardOrder {
    /// The shard.
    pub shard: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// The operation and its turn. Refused if the shard has seen a higher one.
    pub fence: (u64, u64),
    /// What to do.
    pub change: ShardChange,
}

/// What the leader of a shard shall do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ShardChange {
    /// Only the fence: orders of a lower one are refused from now on.
    Fence,
    /// Make exactly these the voters. To one: only its own, and only while every voter answers and is near.
    /// To more: only while a majority of them answers and is near.
    Voters(Vec<CopyId>),
    /// Remove these learners.
    Remove(Vec<CopyId>),
    /// Hand the leadership to this voter.
    Transfer(CopyId),
}

/// A live setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SettingView {
    /// Its name.
    pub name: String,
    /// What holds.
    pub value: String,
    /// What holds if nobody sets it.
    pub default: String,
    /// What it does, with its unit and bounds.
    pub doc: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_over_or_soaks_leaves_the_slot() {
        use Phase::*;
        for phase in [Planned, Checkpointed, Copying, CaughtUp, Prepared, Committing, Finalizing] {
            assert!(phase.holds_slot() && !phase.is_over(), "{}", phase.name());
        }
        assert!(Aborting.holds_slot() && Reverting.holds_slot());
        assert!(!Soaking.holds_slot() && !Soaking.is_over());
        for phase in [Finalized, Aborted, Reverted] {
            assert!(phase.is_over() && !phase.holds_slot());
        }
    }
}
