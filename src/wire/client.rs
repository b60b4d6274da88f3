//! What a client and a node say to each other. One frame is one `Request` or one `Reply`; replies
//! come in any order and carry the id of their request.
//!
//! Enums are append-only. Operations and results travel as bytes of their own (`encode_ops`,
//! `encode_results`): the log stores the first and a reply carries the second without another pass.

use super::{codec, command};
use crate::types::{
    Code, Error, Incarnation, NodeName, Op, OpResult, ReadLevel, Result, SessionSeq, ShardId,
    Token, limits,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One request frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, unique among its requests in flight on this stream.
    pub id: u64,
    /// How long the client still waits, in milliseconds; checked at every step. 0: the default.
    pub deadline_ms: u32,
    /// What is asked.
    pub body: RequestBody,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RequestBody {
    /// Who are you; answered with `Hello`.
    Hello,
    /// The cluster map as this node knows it.
    Map,
    /// Operations on keys of one shard.
    Kv(Kv),
    /// A page of the keys of one shard.
    Scan(Scan),
    /// Opens a session in a shard, for retries that apply at most once.
    OpenSession { shard: ShardId },
    /// Any other command, carried out by the node asked.
    Command(command::Command),
}

/// Operations on keys of one shard. Writes go to one log entry together (atomic); reads among them
/// see the writes in front of them. A request of reads only does not pass the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kv {
    /// The shard all keys belong to.
    pub shard: ShardId,
    /// `encode_ops`.
    pub ops: Bytes,
    /// How fresh reads have to be; writes ignore it.
    pub level: ReadLevel,
    /// Makes a retry apply at most once. None: the client never retries after sending.
    pub dedup: Option<SessionSeq>,
}

/// A page of one shard's keys, in key order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scan {
    /// The shard.
    pub shard: ShardId,
    /// Only keys that start with this.
    pub prefix: Bytes,
    /// Only keys after this one.
    pub after: Option<Bytes>,
    /// At most this many keys, up to `limits::SCAN_PAGE_MAX`.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
    /// How fresh.
    pub level: ReadLevel,
}

/// One reply frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The id of the request.
    pub id: u64,
    /// The answer.
    pub body: Result<ReplyBody>,
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReplyBody {
    /// To `Hello`.
    Hello(Hello),
    /// To `Map`.
    Map(Map),
    /// To `Kv`.
    Kv(KvReply),
    /// To `Scan`.
    Scan(ScanReply),
    /// To `OpenSession`.
    Session(crate::types::SessionId),
    /// To `Command`.
    Command(command::Answer),
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Name in its certificate.
    pub node: NodeName,
    /// Version of the program.
    pub version: String,
    /// False until `cluster init` reached it.
    pub formed: bool,
}

/// The routing table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// Version of the map; a higher one replaces a lower one.
    pub epoch: u64,
    /// `sharded` or `full`.
    pub strategy: Strategy,
    /// Level of a read that names none.
    pub read_default: ReadDefault,
    /// All members.
    pub nodes: Vec<MapNode>,
    /// All shards, by id.
    pub shards: Vec<MapShard>,
}

/// How data is placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Each shard on its owner, and on the replicas.
    #[default]
    Sharded,
    /// Each shard on every primary, and on the replicas.
    Full,
}

/// Level of a read that names none: the live setting `reads.default`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadDefault {
    /// Real-time order.
    #[default]
    Linearizable,
    /// At least what this client has seen.
    Session,
    /// The nearest copy, however old.
    Local,
}

/// What a member is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Owns shards, votes.
    Primary,
    /// Follows every shard, asynchronously; never votes.
    Replica,
}

/// A member in the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapNode {
    /// Name in its certificate.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Where it listens, `host:port`.
    pub addr: String,
}

/// A shard in the map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapShard {
    /// The shard.
    pub id: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// The primary that takes its writes whenever it is up.
    pub owner: NodeName,
    /// Every node that holds a copy, the owner first.
    pub copies: Vec<NodeName>,
}

/// Answer to `Kv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvReply {
    /// `encode_results`, one for each operation, in order.
    pub results: Bytes,
    /// How far the shard had got.
    pub token: Token,
    /// Age bound of a `local` read in milliseconds, where it is known.
    pub age_ms: Option<u32>,
}

/// Answer to `Scan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanReply {
    /// Keys in order, with their values unless only keys were asked for.
    pub entries: Vec<(Bytes, Option<Bytes>)>,
    /// How far the shard had got.
    pub token: Token,
    /// Where the next page starts: give it back as `after`. None if there is no next page. It may lie behind
    /// the last key in `entries`, and `entries` may be empty, where keys that have expired were passed over.
    pub next_after: Option<Bytes>,
}

/// Operations as they travel and as the log stores them.
pub fn encode_ops(ops: &[Op]) -> Bytes {
    codec::encode(&ops).into()
}

/// The operations of a request, each within its limits.
pub fn decode_ops(bytes: &[u8]) -> Result<Vec<Op>> {
    let ops: Vec<Op> = decode(bytes)?;
    let total: usize = ops.iter().map(Op::bytes).sum();
    if ops.is_empty() || ops.len() > limits::REQUEST_OPS_MAX || total > limits::REQUEST_BYTES_MAX {
        let message = format!(
            "a batch has 1 to {} operations and {} bytes, this one has {} and {total}",
            limits::REQUEST_OPS_MAX,
            limits::REQUEST_BYTES_MAX,
            ops.len()
        );
        return Err(Error::new(Code::BatchTooLarge, message));
    }
    ops.iter().try_for_each(Op::check)?;
    Ok(ops)
}

/// Results as they travel and as a session remembers them.
pub fn encode_results(results: &[OpResult]) -> Bytes {
    codec::encode(&results).into()
}

/// The results of a reply.
pub fn decode_results(bytes: &[u8]) -> Result<Vec<OpResult>> {
    decode(bytes)
}

/// Decodes any client message; what does not fit is `BadRequest`, an unknown version `BadVersion`.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    codec::decode(bytes).map_err(|error| {
        let code = match error {
            codec::Error::Version(_) => Code::BadVersion,
            _ => Code::BadRequest,
        };
        Error::new(code, error.to_string())
    })
}
