//! One public error: a stable code, the class that tells the caller what to do next, and a message.
//!
//! Modules keep their own error enums; what leaves a node or the client library is this type.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the caller should do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Nothing happened; the same request may succeed later or elsewhere.
    Retry,
    /// Nothing happened and nothing will until the request, the settings or the rights change.
    Fix,
    /// The operation may or may not have taken effect.
    Uncertain,
    /// Our own data or state is in doubt; an operator has to look.
    Stop,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $class:ident,)*) => {
        /// Stable public error codes. On the wire the discriminant counts, so variants are only appended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in wire order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The class is a property of the code, never of the occasion.
            pub const fn class(self) -> Class {
                match self { $(Code::$name => Class::$class,)* }
            }

            /// The name used in JSON, logs and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    /// This node does not lead the shard; the hint names the node that should.
    NotLeader => Retry,
    /// The shard is not on this node in the incarnation asked for; fetch the map again.
    Moved => Retry,
    /// The node has not yet confirmed its copies with a metadata quorum.
    NotReady => Retry,
    /// A bounded queue is full.
    Overloaded => Retry,
    /// Only the disk reserve is left; writes are refused, reads go on.
    NoSpace => Retry,
    /// This copy has not reached the token within the deadline.
    NotYet => Retry,
    /// This copy cannot prove that it is as fresh as asked.
    TooStale => Retry,
    /// No connection could be made, and nothing was sent.
    Unreachable => Retry,
    /// The deadline passed before the operation was proposed.
    DeadlineExceeded => Retry,
    /// The request is malformed or its arguments do not fit.
    BadRequest => Fix,
    /// The key is empty or longer than the limit in the message.
    KeyTooLong => Fix,
    /// The value is longer than the limit in the message.
    ValueTooLong => Fix,
    /// The batch has more operations or bytes than the limit in the message.
    BatchTooLarge => Fix,
    /// A batch that asks for atomicity spans more than one shard.
    CrossShard => Fix,
    /// `incr` met a value that is not a 64-bit decimal integer.
    NotAnInteger => Fix,
    /// `incr` would leave the range of a 64-bit integer.
    IntegerOverflow => Fix,
    /// The identity has no right to do this.
    Denied => Fix,
    /// There is no such command.
    UnknownCommand => Fix,
    /// The node belongs to no cluster yet.
    NotFormed => Fix,
    /// The node, or one of the members named, belongs to another cluster formation.
    AlreadyFormed => Fix,
    /// A token of an incarnation that was superseded.
    TokenLost => Fix,
    /// A setting is unknown, malformed or out of bounds.
    BadConfig => Fix,
    /// A certificate, key or CA does not fit.
    BadCertificate => Fix,
    /// Protocol versions have nothing in common.
    BadVersion => Fix,
    /// The thing named does not exist.
    NotFound => Fix,
    /// The request was sent and its answer was lost.
    Unknown => Uncertain,
    /// The session is unknown or expired: whether the operation was applied earlier cannot be told.
    SessionExpired => Uncertain,
    /// The sequence lies below the window of remembered results.
    SequenceTooOld => Uncertain,
    /// Stored data failed its checksum.
    Corrupt => Stop,
    /// A broken invariant of the program itself.
    Internal => Stop,
    /// The order does not fit what is under way: another operation runs, or this one is past that point.
    OperationConflict => Fix,
    /// A check says no; the message names it and the smallest fix.
    PrecheckFailed => Fix,
    /// An order of a coordinator that was replaced.
    Superseded => Fix,
    /// What the order rests on does not hold at this moment; the message says what is waited for.
    NotSafeNow => Retry,
    /// The operation ended where it began: it was aborted or reverted, and the message says why.
    Undone => Fix,
    /// The plan expired, was used, or the world that it was made for has moved; make another one.
    PlanOutdated => Fix,
    /// The context is protected, and changes were not allowed in it.
    ReadOnly => Fix,
}

impl Code {
    /// What counts as an error of the service: in vain until the deadline, refused for lack of room, or stored data in
    /// doubt. Not what the request itself is to blame for, nor what is taken to another node as a matter of course.
    pub const SERVICE_FAILURES: [Code; 6] = [
        Code::Corrupt,
        Code::DeadlineExceeded,
        Code::Internal,
        Code::NoSpace,
        Code::Overloaded,
        Code::Unknown,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What leaves a node or the client library when something did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// Stable code; its class tells what to do.
    pub code: Code,
    /// One sentence for a person: what was met, with value and limit.
    pub message: String,
    /// The node that should be asked instead (`NotLeader`, `Moved`).
    pub hint: Option<super::NodeName>,
    /// How long to wait before trying again (`Overloaded`, `NoSpace`).
    pub retry_after_ms: Option<u32>,
}

/// Result with the public error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without hints.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, retry_after_ms: None }
    }

    /// Names the node to ask instead.
    pub fn hint(mut self, node: Option<super::NodeName>) -> Self {
        self.hint = node;
        self
    }

    /// Says when to come back.
    pub fn retry_after(mut self, ms: u32) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Class of the code.
    pub fn class(&self) -> Class {
        self.code.class()
    }

    /// `unknown` where the operation may have taken effect, else `fail`.
    pub fn outcome(&self) -> &'static str {
        match self.class() {
            Class::Uncertain => "unknown",
            _ => "fail",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_wire_order() {
        // Golden: the postcard discriminant of each code is its position and never changes.
        let names: Vec<&str> = Code::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names[0], "NotLeader");
        assert_eq!(names[25], "Unknown");
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(postcard::to_allocvec(code).unwrap(), vec![i as u8], "{code}");
        }
    }

    #[test]
    fn only_uncertain_codes_are_unknown_outcomes() {
        for code in Code::ALL {
            let unknown = Error::new(*code, "").outcome() == "unknown";
            assert_eq!(unknown, code.class() == Class::Uncertain, "{code}");
        }
    }
}
