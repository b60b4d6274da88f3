//! What streams are for, who may open them, and how they share a connection.

use crate::pki::Principal;
use crate::types::limits;
use crate::wire::frame::HEADER_BYTES;

/// What a stream is for; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamClass {
    /// Requests and replies of a client.
    Client = 0,
    /// Votes, heartbeats, read-index: small and urgent. Node certificates only, as all below.
    Urgent = 1,
    /// Log entries.
    Append = 2,
    /// One snapshot: a header frame, chunks, one answer.
    Snapshot = 3,
    /// Calls between nodes outside any group.
    Node = 4,
    /// Such calls that may wait for everything else.
    Background = 5,
}

/// What a snapshot's frames may hold besides a chunk: its header, with digest and membership.
const SNAPSHOT_EXTRA_BYTES: usize = 64 << 10;

/// Why a stream that the other side opened is not taken. Either ends the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// The byte names no class.
    Unknown(u8),
    /// The class is for nodes, and this is a user.
    NodesOnly(StreamClass),
}

impl StreamClass {
    /// Every class.
    pub const ALL: [StreamClass; 6] =
        [Self::Client, Self::Urgent, Self::Append, Self::Snapshot, Self::Node, Self::Background];

    /// The class that the first byte of a stream names, if `peer` may open it.
    pub(super) fn admit(byte: u8, peer: &Principal) -> Result<Self, NotAdmitted> {
        let class = Self::ALL.into_iter().find(|class| *class as u8 == byte);
        match class {
            None => Err(NotAdmitted::Unknown(byte)),
            Some(class) if class != Self::Client && !peer.subject.is_node() => {
                Err(NotAdmitted::NodesOnly(class))
            }
            Some(class) => Ok(class),
        }
    }

    /// Bytes of a payload, at most. A longer one is refused by the sender, and ends the connection of a
    /// sender that does not refuse it.
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Self::Client => limits::CLIENT_FRAME_BYTES_MAX - HEADER_BYTES,
            Self::Urgent | Self::Append | Self::Node | Self::Background => {
                limits::PEER_FRAME_BYTES_MAX - HEADER_BYTES
            }
            Self::Snapshot => limits::SNAPSHOT_CHUNK_BYTES + SNAPSHOT_EXTRA_BYTES,
        }
    }

    /// Which stream's bytes leave first when several on one connection wait. A heartbeat behind a
    /// snapshot would start an election.
    pub(super) const fn priority(self) -> i32 {
        match self {
            Self::Urgent => 1,
            Self::Client | Self::Append | Self::Node => 0,
            Self::Snapshot => -1,
            Self::Background => -2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_open_client_streams_only() {
        let node: Principal = "spiffe://shop/node/n1".parse().unwrap();
        let user: Principal = "spiffe://shop/user/n1".parse().unwrap();
        for byte in 0..=u8::MAX {
            let class = StreamClass::ALL.get(byte as usize).copied();
            assert_eq!(StreamClass::admit(byte, &node).ok(), class);
            let for_user = class.filter(|class| *class == StreamClass::Client);
            assert_eq!(StreamClass::admit(byte, &user).ok(), for_user);
        }
    }

    #[test]
    fn every_class_has_room_for_its_largest_message() {
        let chunk = StreamClass::Snapshot.frame_bytes_max();
        assert!(chunk > limits::SNAPSHOT_CHUNK_BYTES);
        assert!(StreamClass::Client.frame_bytes_max() > limits::REQUEST_BYTES_MAX);
        assert!(StreamClass::Append.frame_bytes_max() > limits::REQUEST_BYTES_MAX);
    }
}
