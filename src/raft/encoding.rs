//! Bytes of ours for everything of Raft that is stored or sent, so that an upgrade of the library
//! changes neither the disk nor the wire. Every form starts with `codec::VERSION` and is append-only.
//!
//! Decoding is strict: whole buffer, consecutive entries. It does not judge who sent something.

use super::types::{
    AppendRequest, AppendResult, Entry, LeaderId, LogId, Member, Payload, RaftMembership,
    SnapshotMeta, StoredMembership, TransferRequest, Vote, VoteRequest, VoteResponse, log_id, pos,
};
use crate::types::{Code, LogPos, NodeId};
use crate::wire::codec::{self, Error};
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::raft::StreamAppendError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Removed raft ids that a copy remembers; the lowest, that is the oldest, are forgotten first.
const REMOVED_MAX: usize = 1_024;

/// Turns a decoding error into the library's.
pub fn corrupt(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}"))
}

/// Decodes the whole buffer, borrowing from it.
fn borrow<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    let (version, body) = bytes.split_first().ok_or(Error::Empty)?;
    if *version != codec::VERSION {
        return Err(Error::Version(*version));
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(Error::Malformed)?;
    if rest.is_empty() { Ok(value) } else { Err(Error::Trailing(rest.len())) }
}

/// A vote: who may lead in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    pub term: u64,
    pub leader: u64,
    pub committed: bool,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            leader: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(record: VoteRecord) -> Self {
        let leader_id = LeaderId { term: record.term, node_id: record.leader };
        Vote { leader_id, committed: record.committed }
    }
}

/// Voters (two sets while joint) and the nodes of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipBody {
    pub configs: Vec<BTreeSet<u64>>,
    pub nodes: BTreeMap<u64, NodeId>,
}

impl From<&RaftMembership> for MembershipBody {
    fn from(membership: &RaftMembership) -> Self {
        Self {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.node)).collect(),
        }
    }
}

impl MembershipBody {
    fn into_raft(self) -> Result<RaftMembership, String> {
        if self.configs.is_empty() && self.nodes.is_empty() {
            return Ok(RaftMembership::default());
        }
        let nodes: BTreeMap<u64, Member> =
            self.nodes.into_iter().map(|(id, node)| (id, Member { node })).collect();
        RaftMembership::new(self.configs, nodes).map_err(|e| e.to_string())
    }
}

/// The membership in force where a store has got, with the raft ids that were members and are no more:
/// a message from one of them is refused, whatever its term.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRecord {
    pub pos: Option<LogPos>,
    pub body: MembershipBody,
    pub removed: BTreeSet<u64>,
}

impl MembershipRecord {
    /// Whether that copy is the only voter of the only configuration.
    pub fn has_only_voter(&self, copy: u64) -> bool {
        matches!(&self.body.configs[..], [voters] if voters.len() == 1 && voters.contains(&copy))
    }

    /// Whether these copies are a majority of the voters, of both sets while joint.
    pub fn is_quorum(&self, copies: &BTreeSet<u64>) -> bool {
        let majority =
            |voters: &BTreeSet<u64>| 2 * voters.intersection(copies).count() > voters.len();
        !self.body.configs.is_empty() && self.body.configs.iter().all(majority)
    }

    /// The record after a membership entry. A function of the log alone, so equal on every copy.
    pub fn next(&self, pos: LogPos, membership: &RaftMembership) -> Self {
        let body = MembershipBody::from(membership);
        let mut removed = self.removed.clone();
        removed.extend(self.body.nodes.keys());
        removed.retain(|id| !body.nodes.contains_key(id));
        while removed.len() > REMOVED_MAX {
            removed.pop_first();
        }
        Self { pos: Some(pos), body, removed }
    }

    /// As stored beside the data; the empty record is no bytes.
    pub fn encode(&self) -> Bytes {
        if self.pos.is_none() { Bytes::new() } else { codec::encode(self).into() }
    }

    /// The reverse of `encode`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.is_empty() { Ok(Self::default()) } else { codec::decode(bytes) }
    }

    /// As the library wants it.
    pub fn to_raft(&self) -> io::Result<StoredMembership> {
        let inner = self.body.clone().into_raft().map_err(|e| corrupt("membership", e))?;
        Ok(StoredMembership::new(self.pos.map(log_id), inner))
    }
}

#[derive(Serialize, Deserialize)]
struct StoredEntry<'a> {
    pos: LogPos,
    #[serde(borrow)]
    body: Body<'a>,
}

/// What an entry is. Stored, so append-only.
#[derive(Serialize, Deserialize)]
enum Body<'a> {
    Blank,
    Normal(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    Membership(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
}

/// An entry as it stands in the write-ahead log and in an append.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let members;
    let body = match &entry.payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(payload) => Body::Normal(&payload.0),
        EntryPayload::Membership(membership) => {
            members = codec::encode(&MembershipBody::from(membership));
            Body::Membership(&members)
        }
    };
    let hint = if let Body::Normal(payload) = &body { payload.len() } else { 0 };
    let stored = StoredEntry { pos: pos(&entry.log_id), body };
    codec::encode_into(&stored, Vec::with_capacity(48 + hint)).into()
}

/// The reverse of `encode_entry`. The payload shares the buffer.
pub fn decode_entry(bytes: &Bytes) -> io::Result<Entry> {
    let stored: StoredEntry<'_> = borrow(bytes).map_err(|e| corrupt("log entry", e))?;
    let payload = match stored.body {
        Body::Blank => EntryPayload::Blank,
        Body::Normal(payload) => EntryPayload::Normal(Payload(bytes.slice_ref(payload))),
        Body::Membership(body) => {
            let body: MembershipBody = codec::decode(body).map_err(|e| corrupt("log entry", e))?;
            EntryPayload::Membership(body.into_raft().map_err(|e| corrupt("log entry", e))?)
        }
    };
    Ok(Entry { log_id: log_id(stored.pos), payload })
}

/// First byte of an encoded append: tells the receiver, without decoding it, whether the message has to
/// keep its place among the others or may overtake them.
const HEARTBEAT: u8 = 0;
const ORDERED: u8 = 1;

#[derive(Serialize, Deserialize)]
struct AppendWire<'a> {
    vote: VoteRecord,
    prev: Option<LogPos>,
    commit: Option<LogPos>,
    #[serde(borrow)]
    entries: Vec<&'a serde_bytes::Bytes>,
}

/// True if an encoded append is a heartbeat.
pub fn is_heartbeat(body: &[u8]) -> bool {
    body.first() == Some(&HEARTBEAT)
}

/// An AppendEntries request as sent.
pub fn encode_append(request: &AppendRequest, heartbeat: bool) -> Bytes {
    let entries: Vec<Bytes> = request.entries.iter().map(encode_entry).collect();
    let size: usize = entries.iter().map(|e| e.len() + 5).sum();
    let wire = AppendWire {
        vote: (&request.vote).into(),
        prev: request.prev_log_id.as_ref().map(pos),
        commit: request.leader_commit.as_ref().map(pos),
        entries: entries.iter().map(|e| serde_bytes::Bytes::new(e)).collect(),
    };
    let mut out = Vec::with_capacity(96 + size);
    out.push(if heartbeat { HEARTBEAT } else { ORDERED });
    codec::encode_into(&wire, out).into()
}

/// The reverse of `encode_append`; entries must follow each other and `prev`, because the library
/// takes that for granted.
pub fn decode_append(body: &Bytes) -> io::Result<AppendRequest> {
    let bytes = if body.is_empty() { Bytes::new() } else { body.slice(1..) };
    let wire: AppendWire<'_> = borrow(&bytes).map_err(|e| corrupt("append", e))?;
    let mut next = wire.prev.map_or(0, |p| p.index.saturating_add(1));
    let mut entries = Vec::with_capacity(wire.entries.len());
    for entry in wire.entries {
        let entry = decode_entry(&bytes.slice_ref(entry.as_ref()))?;
        if entry.log_id.index != next {
            let found = entry.log_id.index;
            return Err(corrupt("append", format!("entry {found} where {next} should be")));
        }
        next = next.saturating_add(1);
        entries.push(entry);
    }
    Ok(AppendRequest {
        vote: wire.vote.into(),
        prev_log_id: wire.prev.map(log_id),
        leader_commit: wire.commit.map(log_id),
        entries,
    })
}

/// Answer to an append.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AppendAnswer {
    /// The log matches up to here, durably.
    Matched(Option<LogPos>),
    /// There is something else at the position before the entries.
    Conflict(LogPos),
    /// The receiver has seen a higher vote.
    HigherVote(VoteRecord),
}

impl From<&AppendResult> for AppendAnswer {
    fn from(result: &AppendResult) -> Self {
        match result {
            Ok(matched) => Self::Matched(matched.as_ref().map(pos)),
            Err(StreamAppendError::Conflict(at)) => Self::Conflict(pos(at)),
            Err(StreamAppendError::HigherVote(vote)) => Self::HigherVote(vote.into()),
        }
    }
}

impl From<AppendAnswer> for AppendResult {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Matched(matched) => Ok(matched.map(log_id)),
            AppendAnswer::Conflict(at) => Err(StreamAppendError::Conflict(log_id(at))),
            AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        }
    }
}

/// RequestVote, and the question before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteCall {
    pub vote: VoteRecord,
    pub last: Option<LogPos>,
    pub transfer: bool,
}

impl From<&VoteRequest> for VoteCall {
    fn from(r: &VoteRequest) -> Self {
        Self {
            vote: (&r.vote).into(),
            last: r.last_log_id.as_ref().map(pos),
            transfer: r.leadership_transfer,
        }
    }
}

impl From<VoteCall> for VoteRequest {
    fn from(call: VoteCall) -> Self {
        let mut request = VoteRequest::new(call.vote.into(), call.last.map(log_id));
        request.leadership_transfer = call.transfer;
        request
    }
}

/// Answer to `VoteCall`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoteAnswer {
    pub vote: VoteRecord,
    pub granted: bool,
    pub last: Option<LogPos>,
}

impl From<&VoteResponse> for VoteAnswer {
    fn from(r: &VoteResponse) -> Self {
        let last = r.last_log_id.as_ref().map(pos);
        Self { vote: (&r.vote).into(), granted: r.vote_granted, last }
    }
}

impl From<VoteAnswer> for VoteResponse {
    fn from(answer: VoteAnswer) -> Self {
        VoteResponse::new(Vote::from(answer.vote), answer.last.map(log_id), answer.granted)
    }
}

/// A leader asks to be relieved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferCall {
    pub vote: VoteRecord,
    pub to: u64,
    pub last: Option<LogPos>,
}

impl From<&TransferRequest> for TransferCall {
    fn from(r: &TransferRequest) -> Self {
        Self { vote: r.from_leader().into(), to: *r.to_node_id(), last: r.last_log_id().map(pos) }
    }
}

impl From<TransferCall> for TransferRequest {
    fn from(call: TransferCall) -> Self {
        TransferRequest::new(call.vote.into(), call.to, call.last.map(log_id))
    }
}

/// Answer to `TransferCall`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum TransferAnswer {
    /// An election was started.
    Accepted,
    /// Another leader came in between.
    VoteChanged { expected: VoteRecord, actual: VoteRecord },
    /// The log is not complete here.
    NotFlushed { expected: Option<LogPos>, actual: Option<LogPos> },
}

/// What a snapshot reflects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetaRecord {
    pub last: LogPos,
    pub membership: MembershipRecord,
}

impl MetaRecord {
    /// As the library wants it.
    pub fn to_raft(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta {
            last_log_id: Some(log_id(self.last)),
            last_membership: self.membership.to_raft()?,
        })
    }
}

/// What the receiver of a snapshot says: `Continue` to the header and once more when it has everything, then
/// one of the others; or at any time one of the others, which ends the transfer. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SnapshotAnswer {
    /// Installed, or not needed; with the vote of the receiver.
    Done(VoteRecord),
    /// Not taken.
    Refused(Code),
    /// So many bytes of this very file are here: send what follows, if anything does.
    Continue { from_bytes: u64 },
}

/// A log id as stored (the base after a purge, what is committed).
pub fn encode_pos(id: &LogId) -> Bytes {
    codec::encode(&pos(id)).into()
}

/// The reverse of `encode_pos`.
pub fn decode_pos(bytes: &[u8]) -> io::Result<LogId> {
    codec::decode(bytes).map(log_id).map_err(|e| corrupt("log position", e))
}

/// A vote as stored.
pub fn encode_vote(vote: &Vote) -> Bytes {
    codec::encode(&VoteRecord::from(vote)).into()
}

/// The reverse of `encode_vote`.
pub fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    codec::decode::<VoteRecord>(bytes).map(Vote::from).map_err(|e| corrupt("vote", e))
}

#[cfg(test)]
#[path = "encoding_test.rs"]
mod tests;
