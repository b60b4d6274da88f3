//! The library's types as PPDB uses them, and how they turn into positions and memberships of ours.
//!
//! What is stored or sent is in `encoding`; nothing here has a layout that outlives the process.

use super::machine::Machine;
use super::snapshot::SnapshotData;
use crate::types::{LogPos, NodeId};
use bytes::Bytes;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};
use std::fmt;

openraft::declare_raft_types!(
    /// What openraft is instantiated with: opaque payloads, opaque replies, copies that know their node.
    pub TypeConfig: D = Payload, R = Replies, NodeId = u64, Node = Member
);

pub type Raft = openraft::Raft<TypeConfig, Machine>;
pub type Entry = alias::EntryOf<TypeConfig>;
pub type LogId = alias::LogIdOf<TypeConfig>;
pub type LeaderId = alias::LeaderIdOf<TypeConfig>;
pub type Vote = alias::VoteOf<TypeConfig>;
pub type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub type RaftMembership = openraft::Membership<u64, Member>;
pub type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub type Snapshot = alias::SnapshotOf<TypeConfig, SnapshotData>;
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub type Metrics = openraft::RaftMetrics<TypeConfig>;
pub type Fatal = openraft::errors::Fatal<TypeConfig>;
pub type RpcError = openraft::errors::RPCError<TypeConfig>;
pub type WriteError =
    openraft::errors::RaftError<TypeConfig, openraft::errors::ClientWriteError<TypeConfig>>;

/// What an entry carries. Opaque; printing it tells only the size, because the library prints entries.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload(pub Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry answers to each request that shared it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Bytes>);

/// What the library keeps about a copy besides its raft id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node the copy is on.
    pub node: NodeId,
}

/// The library's log id of a position.
pub fn log_id(pos: LogPos) -> LogId {
    LogId::new(LeaderId { term: pos.term, node_id: pos.leader }, pos.index)
}

/// The position of a log id.
pub fn pos(id: &LogId) -> LogPos {
    LogPos { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

/// The public form of a membership.
pub fn membership(stored: &StoredMembership) -> super::Membership {
    let inner = stored.membership();
    let voters: std::collections::BTreeSet<u64> = inner.voter_ids().collect();
    let (mut of_voters, mut of_learners) =
        (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for (id, member) in inner.nodes() {
        let group = if voters.contains(id) { &mut of_voters } else { &mut of_learners };
        group.insert(*id, member.node);
    }
    super::Membership {
        pos: stored.log_id().as_ref().map(pos),
        joint: inner.get_joint_config().len() > 1,
        voters: of_voters,
        learners: of_learners,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn positions_and_log_ids_are_the_same_thing() {
        let p = LogPos { term: 3, leader: 9, index: 77 };
        assert_eq!(pos(&log_id(p)), p);
    }

    #[test]
    fn a_membership_tells_voters_learners_and_joint() {
        let nodes: BTreeMap<u64, Member> =
            [(1, 10), (2, 20), (3, 30)].map(|(id, n)| (id, Member { node: NodeId(n) })).into();
        let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
        let joint = RaftMembership::new(configs, nodes).unwrap();
        let p = LogPos { term: 1, leader: 1, index: 5 };
        let public = membership(&StoredMembership::new(Some(log_id(p)), joint));
        assert_eq!(public.pos, Some(p));
        assert!(public.joint);
        assert_eq!(public.voters, BTreeMap::from([(1, NodeId(10)), (2, NodeId(20))]));
        assert_eq!(public.learners, BTreeMap::from([(3, NodeId(30))]));
    }

    #[test]
    fn printing_a_payload_costs_nothing() {
        assert_eq!(format!("{:?}", Payload(Bytes::from(vec![7; 1 << 20]))), "1048576 bytes");
    }
}
