//! What a log entry of a shard holds, and what applying one answers to each of its items.
//!
//! Formats only. Entries are stored for long and replayed by later builds: items are only appended to,
//! and a new layout is a new version byte. Nothing here decides what an item does.

use crate::types::{Code, OpResult, SessionSeq};
use crate::wire::codec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One log entry: everything that waited when it was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// The leader's stamp in milliseconds since 1970; shard time is the highest one applied.
    pub stamp_ms: u64,
    /// What to do, in order; each item gets one reply.
    #[serde(borrow)]
    pub items: Vec<Item<'a>>,
}

/// One request, or one thing the leader wants. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item<'a> {
    /// Operations that become visible together.
    Ops {
        /// Applies at most once under this name.
        dedup: Option<SessionSeq>,
        /// `wire::client::encode_ops`.
        #[serde(borrow, with = "serde_bytes")]
        ops: &'a [u8],
    },
    /// Opens a session named by the index of the entry; at most one in an entry.
    Open,
    /// Only moves shard time on.
    Tick,
    /// Every copy flushes exactly here and computes its digest.
    Digest,
    /// Orders of a lower (operation, turn) are refused from here on. Refused itself (`Superseded`) if a higher
    /// one was applied before.
    Fence {
        /// Number of the operation.
        operation: u64,
        /// The step at which its direction was chosen last.
        turn: u64,
    },
}

impl<'a> Entry<'a> {
    /// The payload of the log entry.
    pub fn encode(&self) -> Bytes {
        let ops_bytes: usize = self.items.iter().map(Item::bytes).sum();
        codec::encode_into(self, Vec::with_capacity(ops_bytes + 32 * self.items.len() + 16)).into()
    }

    /// Reads a payload without copying the operations.
    pub fn decode(payload: &'a [u8]) -> Result<Self, codec::Error> {
        codec::decode(payload)
    }
}

impl Item<'_> {
    fn bytes(&self) -> usize {
        match self {
            Item::Ops { ops, .. } => ops.len(),
            Item::Open | Item::Tick | Item::Digest | Item::Fence { .. } => 0,
        }
    }
}

/// What applying an item answers. Crosses from the logic to the handle on one node and is stored
/// nowhere, so it has no version: one byte of kind, then the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `wire::client::encode_results`, handed to the client untouched.
    Results(Bytes),
    /// The item as a whole was not carried out (again), for this reason.
    Refused(Code),
    /// Carried out; there is nothing to tell but the position of the entry.
    Done,
}

const RESULTS: u8 = 0;
const REFUSED: u8 = 1;
const DONE: u8 = 2;

impl Reply {
    /// A `Reply::Results` in its encoded form, built in one buffer.
    pub fn encode_results(results: &[OpResult]) -> Bytes {
        codec::encode_into(&results, vec![RESULTS]).into()
    }

    /// The encoded form.
    pub fn encode(&self) -> Bytes {
        match self {
            Reply::Results(results) => [&[RESULTS], &results[..]].concat().into(),
            Reply::Refused(code) => codec::encode_into(code, vec![REFUSED]).into(),
            Reply::Done => Bytes::from_static(&[DONE]),
        }
    }

    /// Reads the encoded form; the results are a slice of it.
    pub fn decode(bytes: &Bytes) -> Option<Self> {
        match *bytes.first()? {
            RESULTS => Some(Reply::Results(bytes.slice(1..))),
            REFUSED => codec::decode(&bytes[1..]).ok().map(Reply::Refused),
            DONE if bytes.len() == 1 => Some(Reply::Done),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Incarnation, Op, SessionId};
    use crate::wire::client::{encode_ops, encode_results};

    fn check_golden(entry: Entry<'_>, golden: &[u8]) {
        assert_eq!(&entry.encode()[..], golden);
        assert_eq!(Entry::decode(golden), Ok(entry));
    }

    #[test]
    fn entries_keep_their_bytes() {
        let ops = encode_ops(&[Op::Get { key: Bytes::from_static(b"k") }]);
        assert_eq!(&ops[..], [1, 1, 0, 1, b'k']);
        let session = SessionId { incarnation: Incarnation(2), index: 300 };
        let dedup = Some(SessionSeq { session, sequence: 5 });
        check_golden(
            Entry {
                stamp_ms: 1_000,
                items: vec![
                    Item::Ops { dedup: None, ops: &ops },
                    Item::Ops { dedup, ops: &ops },
                    Item::Open,
                    Item::Tick,
                    Item::Digest,
                    Item::Fence { operation: 300, turn: 7 },
                ],
            },
            &[
                1, // version
                0xe8, 7, // stamp
                6, // items
                0, 0, 5, 1, 1, 0, 1, b'k', // ops without a name
                0, 1, 2, 0xac, 2, 5, 5, 1, 1, 0, 1, b'k', // ops with one
                1, 2, 3, // open, tick, digest
                4, 0xac, 2, 7, // fence
            ],
        );
        check_golden(Entry { stamp_ms: 0, items: vec![] }, &[1, 0, 0]);
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        let golden = Entry { stamp_ms: 7, items: vec![Item::Ops { dedup: None, ops: b"xyz" }] };
        let bytes = golden.encode();
        for cut in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert_eq!(Entry::decode(&[2, 0, 0]), Err(codec::Error::Version(2)));
        // A sixth kind of item is not known.
        assert!(Entry::decode(&[1, 0, 1, 5, 0, 0]).is_err());
        assert!(Entry::decode(&[1, 0, 1, 5]).is_err());
    }

    #[test]
    fn replies_survive_and_share_the_results() {
        let results = [OpResult::Int(-3), OpResult::Nil];
        let encoded = Reply::encode_results(&results);
        let reply = Reply::Results(encode_results(&results));
        assert_eq!(reply.encode(), encoded);
        for reply in [reply, Reply::Refused(Code::SessionExpired), Reply::Done] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        for bad in [&[][..], &[3], &[REFUSED], &[REFUSED, 1, 200], &[DONE, 0]] {
            assert_eq!(Reply::decode(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}
