//! Names and numbers that identify things: nodes, disks, shards, copies, log positions, tokens.
//!
//! No id here is ever reused. Nothing allocates ids; that is the metadata group's work.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// The name an operator gives a node; it is in the node's certificate. 1 to 63 of `[a-z0-9-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks the alphabet and the length.
    pub fn new(name: &str) -> Result<Self, String> {
        let fits = (1..=63).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits {
            Ok(Self(name.into()))
        } else {
            Err(format!("`{name}` is not a node name: 1 to 63 of a-z, 0-9 and `-`"))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for NodeName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(&name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> String {
        name.0.as_ref().to_owned()
    }
}

impl FromStr for NodeName {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        Self::new(name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// A member of the metadata group for as long as its disk lives; never reused.
    NodeId(u64), "m"
);
number!(
    /// A shard: a fixed, contiguous range of slots.
    ShardId(u16), "s"
);
number!(
    /// A shard on a node, one attempt of it; never reused.
    CopyId(u64), "c"
);
number!(
    /// The lineage of one shard; only promotion raises it.
    Incarnation(u32), "i"
);

/// 128 random bits written into a data folder when it is first used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiskId(pub u128);

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One Raft group: the metadata group, or a shard in one incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The metadata group.
    pub const META: GroupId = GroupId(0);

    /// The group of a shard's incarnation.
    pub const fn of(shard: ShardId, incarnation: Incarnation) -> Self {
        Self(((incarnation.0 as u64) << 17) | (1 << 16) | shard.0 as u64)
    }

    /// The shard and incarnation, or none for the metadata group.
    pub const fn shard(self) -> Option<(ShardId, Incarnation)> {
        if self.0 & (1 << 16) == 0 {
            return None;
        }
        Some((ShardId(self.0 as u16), Incarnation((self.0 >> 17) as u32)))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            None => f.write_str("meta"),
            Some((shard, incarnation)) => write!(f, "{shard}.{incarnation}"),
        }
    }
}

/// A position in a Raft log: leader term, leader id, index. Ordered by index within one lineage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogPos {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Raft id of that leader.
    pub leader: u64,
    /// Index, from 0 (the first membership entry).
    pub index: u64,
}

impl fmt::Display for LogPos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.term, self.leader, self.index)
    }
}

/// What a reply tells about how far its shard had got; given back by a `session` read.
/// Text form: `s3.1.2048` (shard, incarnation, log index).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// The shard that answered.
    pub shard: ShardId,
    /// Its lineage.
    pub incarnation: Incarnation,
    /// Log index that the answer reflects.
    pub index: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.incarnation.0, self.index)
    }
}

impl FromStr for Token {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.strip_prefix('s')?.splitn(3, '.');
            Some(Token {
                shard: ShardId(parts.next()?.parse().ok()?),
                incarnation: Incarnation(parts.next()?.parse().ok()?),
                index: parts.next()?.parse().ok()?,
            })
        };
        parse().ok_or_else(|| format!("`{text}` is not a token such as s3.1.2048"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_ids_tell_shard_and_incarnation() {
        assert_eq!(GroupId::META.shard(), None);
        for (s, i) in [(0, 0), (11, 1), (u16::MAX, u32::MAX)] {
            let group = GroupId::of(ShardId(s), Incarnation(i));
            assert_eq!(group.shard(), Some((ShardId(s), Incarnation(i))));
            assert_ne!(group, GroupId::META);
        }
    }

    #[test]
    fn tokens_survive_text() {
        let token = Token { shard: ShardId(3), incarnation: Incarnation(1), index: 2048 };
        assert_eq!(token.to_string(), "s3.1.2048");
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in ["", "s", "3.1.2", "s3.1", "s3.1.x", "s70000.1.1", "s3.1.2.4"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn node_names_have_an_alphabet() {
        assert!(NodeName::new("n1").is_ok());
        for bad in ["", "N1", "a/b", "a b", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }
}
