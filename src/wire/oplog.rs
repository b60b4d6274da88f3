//! A record of the operation log: who asked for what, from where, when, and what came of it.
//!
//! Data only. What is recorded is decided in `admin`, what the log keeps in `cluster::oplog`.

use super::terms::PlanId;
use crate::types::{Code, Error, NodeName};
use serde::{Deserialize, Serialize};

/// One operation of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Rising, without gaps; given when it is kept, 0 before.
    pub number: u64,
    /// Drawn at random by the node that begins the record: its name from the first moment on, and what makes it
    /// safe to keep it twice.
    pub key: u64,
    /// Who asked: `user ann`, `node n2`.
    pub by: String,
    /// The address that the order came from, `host:port`.
    pub from: String,
    /// The node that was asked and passed the order on; none if it was carried out where it was asked for.
    pub through: Option<NodeName>,
    /// The node that carried it out, or refused it.
    pub node: NodeName,
    /// The order as one would type it.
    pub command: String,
    /// The plan that it rests on.
    pub plan: Option<PlanId>,
    /// The change of strategy that it began or steered.
    pub operation: Option<u64>,
    /// When it began, in milliseconds since 1970 by the clock of `node`.
    pub began_ms: u64,
    /// How long it took, in milliseconds; none while it has no outcome.
    pub took_ms: Option<u64>,
    /// What came of it; none while it is under way.
    pub outcome: Option<Outcome>,
}

/// What came of an operation. Stored, so append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was carried out.
    Ok,
    /// It was refused, or its own answer was that nobody knows.
    Failed { code: Code, message: String },
    /// The node that carried it out went away before it could say.
    Lost,
}

impl Outcome {
    /// Of what was answered.
    pub fn of<T>(done: &Result<T, Error>) -> Self {
        match done {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Failed { code: error.code, message: error.message.clone() },
        }
    }

    /// The word for it in JSON and tables: `ok`, `fail` or `unknown`.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Failed { code, .. } => Error::new(*code, "").outcome(),
            Outcome::Lost => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_ok_fail_or_unknown() {
        let failed = |code| Outcome::of::<()>(&Err(Error::new(code, "why")));
        assert_eq!(Outcome::of(&Ok(7)).name(), "ok");
        assert_eq!(failed(Code::PrecheckFailed).name(), "fail");
        assert_eq!(failed(Code::Unknown).name(), "unknown");
        assert_eq!(Outcome::Lost.name(), "unknown");
    }
}
