//! What nodes say to each other. One frame carries the messages of many groups that were waiting for
//! the same peer; the bodies of Raft messages are opaque here, because only `raft` knows their types.
//!
//! Every message names the group (shard and incarnation) and the copies it goes from and to, so that a
//! message of another lineage or to a removed copy is refused by its receiver.

use super::codec;
use crate::types::{Code, DiskId, Error, GroupId, LogPos, NodeId, NodeName, limits};
use crate::wire::client::Role;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Messages that share a frame: at most `limits::PEER_FRAME_MESSAGES_MAX`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerFrame {
    /// The sender's clock when the frame was written, in milliseconds since 1970; for stamps and alarms only.
    pub clock_ms: u64,
    /// In the order they were queued.
    pub messages: Vec<PeerMessage>,
}

/// One message between two copies of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerMessage {
    /// The group.
    pub group: GroupId,
    /// Raft id of the sending copy.
    pub from: u64,
    /// Raft id of the copy it is meant for.
    pub to: u64,
    /// Pairs a reply with its call; unique among the calls in flight from this sender.
    pub call: u64,
    /// What is said.
    pub body: PeerBody,
}

/// Calls and replies between copies. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerBody {
    /// AppendEntries (also the heartbeat), encoded by `raft`.
    Append(Bytes),
    /// RequestVote.
    Vote(Bytes),
    /// Would you vote for me; nothing is stored.
    PreVote(Bytes),
    /// Please take over the leadership.
    TransferLeader(Bytes),
    /// Which log index must be applied before a linearizable read; answered after a quorum has
    /// confirmed the leader, later than this call arrived. Asked by builds that do not know `ReadIndexAs`.
    ReadIndex,
    /// Reply to the four calls above it, encoded by `raft`.
    Answer(Bytes),
    /// Reply to `ReadIndex`, and to `ReadIndexAs`.
    ReadIndexAnswer(LogPos),
    /// The call was not carried out.
    Refused(Code),
    /// The node is there, under the id in `from`. Belongs to no group, and is not answered.
    Beacon,
    /// As `ReadIndex`, with the vote of the copy that asks, encoded by `raft`: where the two are a quorum, nobody else
    /// has to confirm the leader.
    ReadIndexAs(Bytes),
    /// Reply to `ReadIndexAs` where they are: this entry is committed.
    Committed(LogPos),
}

/// First frame of a snapshot stream; raw chunks follow, `data_bytes` in all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The group.
    pub group: GroupId,
    /// Raft id of the sender.
    pub from: u64,
    /// Raft id of the receiver.
    pub to: u64,
    /// The leader's vote, encoded by `raft`.
    pub vote: Bytes,
    /// Snapshot metadata, encoded by `raft`.
    pub meta: Bytes,
    /// Length of the data file.
    pub data_bytes: u64,
    /// CRC-32C of the data file.
    pub crc32c: u32,
}

/// Calls between nodes that belong to no group: forming a cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeCall {
    /// Who are you, and which formation do you belong to.
    Describe,
    /// Join this formation; refused by a node that belongs to another one.
    Join(FormationRecord),
    /// Carry out this command; `by` asked the calling node for it.
    Command { by: String, command: super::command::Command, deadline_ms: u32 },
    /// Carry out this command, which `by` gave to the calling node from that address, `host:port`. It is theirs,
    /// with no right of the calling node.
    PassedOn { by: String, from: String, command: super::command::Command, deadline_ms: u32 },
}

/// Replies to `NodeCall`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeAnswer {
    /// To `Describe`.
    Description(NodeDescription),
    /// To `Join`.
    Joined,
    /// The call was refused.
    Refused(Error),
    /// To `Command`.
    Answer(super::command::Answer),
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Name in its certificate.
    pub name: NodeName,
    /// The role it was started with.
    pub role: Role,
    /// Its disk.
    pub disk: DiskId,
    /// The formation it belongs to.
    pub formation: Option<u128>,
}

/// A cluster as it was formed; every member stores it before the metadata group exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormationRecord {
    /// 128 random bits, drawn once by the first primary.
    pub id: u128,
    /// Cluster name.
    pub cluster: String,
    /// Number of shards.
    pub shards: u16,
    /// Members.
    pub members: Vec<FormationMember>,
}

/// A member in `FormationRecord`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FormationMember {
    /// Its id in the metadata group.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Where it listens.
    pub addr: String,
    /// Its disk.
    pub disk: DiskId,
}

/// Decodes a peer frame and checks its count.
pub fn decode_frame(bytes: &[u8]) -> Result<PeerFrame, Error> {
    let frame: PeerFrame =
        codec::decode(bytes).map_err(|e| Error::new(Code::BadRequest, e.to_string()))?;
    if frame.messages.len() > limits::PEER_FRAME_MESSAGES_MAX {
        let message = format!(
            "a peer frame has at most {} messages, this one has {}",
            limits::PEER_FRAME_MESSAGES_MAX,
            frame.messages.len()
        );
        return Err(Error::new(Code::BadRequest, message));
    }
    Ok(frame)
}
