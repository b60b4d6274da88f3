//! Exit codes: one number for each kind of end, as `ppdb --help` lists them.

use super::value::{Answered, Done};
use crate::types::Code;

/// Yes, or done.
pub const YES: u8 = 0;
/// A negative answer.
pub const NO: u8 = 1;
/// The command is wrong.
pub const USAGE: u8 = 2;
/// The cluster cannot be reached.
pub const UNREACHABLE: u8 = 3;
/// A certificate or a permission is missing.
pub const IDENTITY: u8 = 4;
/// Refused, nothing was changed.
pub const REFUSED: u8 = 5;
/// Failed, and undone: the operation ended in the strategy it came from.
pub const UNDONE: u8 = 6;
/// Failed, an operator has to look.
pub const OPERATOR: u8 = 7;
/// Out of time, or the outcome is unknown.
pub const UNKNOWN: u8 = 124;
/// Interrupted by Ctrl-C.
pub const INTERRUPTED: u8 = 130;
/// Ended by SIGTERM.
pub const TERMINATED: u8 = 143;

/// The exit code of an ended command.
pub fn of(done: &Done) -> u8 {
    match done {
        Ok(Answered { code: Some(code), .. }) => *code,
        Ok(answered) if answered.yes => YES,
        Ok(_) => NO,
        Err(failure) => of_code(failure.error.code),
    }
}

/// The exit code of an error.
pub fn of_code(code: Code) -> u8 {
    match code {
        Code::NotFound => NO,
        Code::BadRequest | Code::UnknownCommand | Code::BadConfig => USAGE,
        Code::Unreachable => UNREACHABLE,
        Code::Denied | Code::BadCertificate => IDENTITY,
        Code::Unknown
        | Code::SessionExpired
        | Code::SequenceTooOld
        | Code::DeadlineExceeded
        | Code::NotYet => UNKNOWN,
        Code::Corrupt | Code::Internal => OPERATOR,
        Code::Undone => UNDONE,
        Code::OperationConflict
        | Code::PrecheckFailed
        | Code::PlanOutdated
        | Code::Superseded
        | Code::NotSafeNow
        | Code::NotLeader
        | Code::Moved
        | Code::NotReady
        | Code::Overloaded
        | Code::NoSpace
        | Code::TooStale
        | Code::KeyTooLong
        | Code::ValueTooLong
        | Code::BatchTooLarge
        | Code::CrossShard
        | Code::NotAnInteger
        | Code::IntegerOverflow
        | Code::NotFormed
        | Code::AlreadyFormed
        | Code::TokenLost
        | Code::ReadOnly
        | Code::BadVersion => REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::value::Value;
    use crate::types::{Class, Error};

    #[test]
    fn every_uncertain_outcome_is_124_and_no_error_looks_like_success() {
        for code in Code::ALL {
            let exit = of_code(*code);
            assert_ne!(exit, YES, "{code}");
            match code.class() {
                Class::Uncertain => assert_eq!(exit, UNKNOWN, "{code}"),
                Class::Stop => assert_eq!(exit, OPERATOR, "{code}"),
                Class::Retry | Class::Fix => assert_ne!(exit, OPERATOR, "{code}"),
            }
        }
    }

    #[test]
    fn answers_are_yes_or_no() {
        let yes = Answered::of(Value::Bool(true));
        assert_eq!(of(&Ok(yes.clone())), 0);
        assert_eq!(of(&Ok(Answered { yes: false, ..yes })), 1);
        for (code, exit) in [
            (Code::BadRequest, 2),
            (Code::Unreachable, 3),
            (Code::Denied, 4),
            (Code::BadCertificate, 4),
            (Code::CrossShard, 5),
            (Code::PrecheckFailed, 5),
            (Code::PlanOutdated, 5),
            (Code::OperationConflict, 5),
            (Code::NotSafeNow, 5),
            (Code::ReadOnly, 5),
            (Code::Undone, 6),
            (Code::Corrupt, 7),
            (Code::DeadlineExceeded, 124),
        ] {
            assert_eq!(of(&Err(Error::new(code, "").into())), exit, "{code}");
        }
    }
}
