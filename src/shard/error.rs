//! Why a shard did not do what it was asked, and how failures of the layers below become that.

use crate::raft;
use crate::storage;
use crate::types::{self, Code, NodeId};

/// Why a shard did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This copy does not lead the shard, and nothing happened. Which node does, if one is known: the
    /// caller has the map that turns it into a hint.
    #[error("not the leader")]
    NotLeader(Option<NodeId>),
    /// Any other reason, as it leaves the node.
    #[error(transparent)]
    Public(#[from] types::Error),
}

impl Error {
    /// A public error without hints.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self::Public(types::Error::new(code, message))
    }
}

/// The error of a proposal. What is not known to have been without effect is uncertain.
pub(super) fn of_proposal(error: raft::Error) -> Error {
    match error {
        raft::Error::NotLeader(leader) => Error::NotLeader(leader),
        raft::Error::NoQuorum(detail) => no_quorum(detail),
        raft::Error::Uncertain => {
            uncertain("the leader changed, or stopped, before it was applied")
        }
        raft::Error::Stopped(detail) => uncertain(&format!("the shard has stopped here: {detail}")),
        raft::Error::Conflict(detail) => uncertain(&format!("an unexpected answer: {detail}")),
    }
}

/// The error of a read; a read has no effect, so nothing is uncertain.
pub(super) fn of_read(error: raft::Error) -> Error {
    match error {
        raft::Error::NotLeader(leader) => Error::NotLeader(leader),
        raft::Error::NoQuorum(detail) => no_quorum(detail),
        raft::Error::Uncertain => no_quorum("the leader changed".to_owned()),
        raft::Error::Stopped(detail) | raft::Error::Conflict(detail) => {
            Error::new(Code::NotReady, format!("the shard has stopped here: {detail}"))
        }
    }
}

/// The error of stored data that cannot be read.
pub(super) fn of_store(error: storage::Error) -> Error {
    let code = match error {
        storage::Error::Corrupt { .. } => Code::Corrupt,
        _ => Code::Internal,
    };
    Error::new(code, error.to_string())
}

/// An answer that was lost.
pub(super) fn uncertain(detail: &str) -> Error {
    Error::new(
        Code::Unknown,
        format!("the write was proposed and its outcome is not known: {detail}"),
    )
}

/// The error of a change of the members. What rests on an earlier state of them may be asked again.
pub(super) fn of_change(error: raft::Error) -> Error {
    match error {
        raft::Error::NotLeader(leader) => Error::NotLeader(leader),
        raft::Error::NoQuorum(detail) => no_quorum(detail),
        raft::Error::Uncertain => {
            uncertain_change("the leader changed, or no quorum answered in time")
        }
        raft::Error::Conflict(detail) => {
            Error::new(Code::NotSafeNow, format!("the members have changed meanwhile: {detail}"))
        }
        raft::Error::Stopped(detail) => {
            Error::new(Code::NotReady, format!("the shard has stopped here: {detail}"))
        }
    }
}

/// An order whose answer was lost.
pub(super) fn uncertain_change(detail: &str) -> Error {
    Error::new(
        Code::Unknown,
        format!("the change was proposed and its outcome is not known: {detail}"),
    )
}

fn no_quorum(detail: String) -> Error {
    Error::new(Code::NotReady, format!("no quorum of the shard answers: {detail}"))
}

/// What applying an item as a whole refused, in words.
pub(super) fn refused(code: Code) -> Error {
    let message = match code {
        Code::SessionExpired => {
            "the session is unknown or expired; nothing was applied by this try"
        }
        Code::SequenceTooOld => "the sequence lies below the window of remembered results",
        Code::Unknown => "an earlier try was applied, once; its results were too large to be kept",
        Code::BadRequest => "sequences of a session start at 1",
        Code::Superseded => "an order of a later operation or turn was seen before it was applied",
        _ => "refused while it was applied",
    };
    Error::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    fn class(error: Error) -> Option<Class> {
        match error {
            Error::NotLeader(_) => None,
            Error::Public(error) => Some(error.class()),
        }
    }

    #[test]
    fn a_failed_proposal_is_uncertain_unless_nothing_was_proposed() {
        let leader = Some(NodeId(3));
        assert_eq!(of_proposal(raft::Error::NotLeader(leader)), Error::NotLeader(leader));
        assert_eq!(class(of_proposal(raft::Error::NoQuorum(String::new()))), Some(Class::Retry));
        for error in [
            raft::Error::Uncertain,
            raft::Error::Stopped(String::new()),
            raft::Error::Conflict(String::new()),
        ] {
            assert_eq!(class(of_proposal(error)), Some(Class::Uncertain));
        }
    }

    #[test]
    fn a_failed_read_is_never_uncertain() {
        let leader = Some(NodeId(3));
        assert_eq!(of_read(raft::Error::NotLeader(leader)), Error::NotLeader(leader));
        for error in [
            raft::Error::Uncertain,
            raft::Error::NoQuorum(String::new()),
            raft::Error::Stopped(String::new()),
        ] {
            assert_eq!(class(of_read(error)), Some(Class::Retry));
        }
    }

    #[test]
    fn a_failed_change_is_uncertain_only_if_it_was_proposed() {
        let leader = Some(NodeId(3));
        assert_eq!(of_change(raft::Error::NotLeader(leader)), Error::NotLeader(leader));
        assert_eq!(class(of_change(raft::Error::Uncertain)), Some(Class::Uncertain));
        for error in [
            raft::Error::NoQuorum(String::new()),
            raft::Error::Conflict(String::new()),
            raft::Error::Stopped(String::new()),
        ] {
            assert_eq!(class(of_change(error)), Some(Class::Retry));
        }
    }

    #[test]
    fn damage_is_told_apart() {
        let damage = storage::Error::Corrupt { what: "x".into(), detail: "y".into() };
        assert_eq!(of_store(damage), Error::new(Code::Corrupt, "corrupt x: y"));
        assert_eq!(class(of_store(storage::Error::Lmdb("z".into()))), Some(Class::Stop));
    }
}
