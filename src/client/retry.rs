//! Retries, decided: an attempt failed, what now?
//!
//! One `Core` accompanies one request to one shard from its first attempt to its end. It is given each
//! failure and the time, and answers with the next step. It sends nothing and knows no addresses.
//!
//! The rule that everything serves: a request that *may* have been applied is either repeated under
//! the same session and sequence, or reported as uncertain. What happens after such an attempt cannot
//! make it certain again, except an answer to the same sequence.

use super::net::Failure;
use crate::types::{Class, Code, Error, NodeName};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Attempts without a pause between two back-offs: hints followed, other nodes tried.
const HOPS_MAX: u32 = 3;
/// Sessions tried for one write. A shard that forgets each at once is not worth more.
const REOPENS_MAX: u32 = 8;
/// First back-off; doubles up to the largest.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Largest back-off, short enough to find a leader soon after its election.
const BACKOFF_MAX: Duration = Duration::from_millis(200);
/// How long the first attempt waits for an answer before another node is asked; doubles with each
/// attempt that brought none. About one election.
const ATTEMPT_MIN: Duration = Duration::from_secs(1);

/// What is being retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No effect: may be repeated anywhere, at any time.
    Read,
    /// No effect, and only this one node may answer.
    PinnedRead,
    /// Takes effect; repeated only under its session and sequence.
    Write,
}

/// What to do after a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// Attempt again.
    Again(Again),
    /// The sequence was certainly not applied and its session is of no use: take a sequence of another
    /// session, then attempt again.
    Reopen,
    /// It is over.
    Report(Error),
}

/// How to attempt again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Again {
    /// Pause before it.
    pub wait: Duration,
    /// Ask this node, unless it failed since the last pause.
    pub to: Option<NodeName>,
    /// Ask for the map first.
    pub refresh: bool,
}

/// The state of one request.
#[derive(Debug)]
pub(crate) struct Core {
    kind: Kind,
    retry: bool,
    deadline: Instant,
    /// Why an attempt may have been applied without our knowing; never taken back.
    uncertain: Option<String>,
    /// The last thing a node said, or failing that the last thing that went wrong on the way.
    refusal: Option<Error>,
    attempts: u32,
    hops: u32,
    backoffs: u32,
    /// The one node that can answer the attempt under way; none if others can as well.
    asked: Option<NodeName>,
    /// Attempts that brought no answer, of each such node and of all others together.
    unanswered: HashMap<Option<NodeName>, u32>,
    reopens: u32,
}

impl Core {
    /// Starts. Without `retry` the first failure is reported.
    pub(crate) fn new(kind: Kind, retry: bool, deadline: Instant) -> Self {
        Self {
            kind,
            retry,
            deadline,
            uncertain: None,
            refusal: None,
            attempts: 0,
            hops: 0,
            backoffs: 0,
            asked: None,
            unanswered: HashMap::new(),
            reopens: 0,
        }
    }

    /// What is being retried.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// When the whole request ends.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// An attempt starts now: when it stops waiting. A request with one attempt or one node waits to the end.
    ///
    /// `only` is the node that is asked, where no other one can answer. That another one was waited for in vain says
    /// nothing about it then: in a failover the next leader would be asked late, because its predecessor and a dead
    /// node were waited for.
    pub(crate) fn attempt(&mut self, only: Option<&NodeName>, now: Instant) -> Instant {
        self.asked = only.cloned();
        if !self.retry || self.kind == Kind::PinnedRead {
            return self.deadline;
        }
        let in_vain = self.unanswered.get(&self.asked).copied().unwrap_or(0);
        let wait = ATTEMPT_MIN.saturating_mul(1 << in_vain.min(6));
        (now + wait).min(self.deadline)
    }

    /// The deadline passed: what is known.
    pub(crate) fn expire(&mut self) -> Error {
        if let Some(why) = &self.uncertain {
            return unknown(why, self.attempts);
        }
        let error = self.refusal.take();
        error.unwrap_or_else(|| Error::new(Code::DeadlineExceeded, "no answer before the deadline"))
    }

    /// An attempt failed. `jitter` is random, 0 to 1.
    pub(crate) fn on(&mut self, failure: Failure, now: Instant, jitter: f64) -> Next {
        self.attempts += 1;
        match failure {
            Failure::NotSent(error) => self.not_sent(error, now, jitter),
            Failure::Lost(why) => self.unanswered(Code::Unreachable, why, now, jitter),
            Failure::TimedOut => {
                let why = "no answer in time".to_owned();
                self.unanswered(Code::DeadlineExceeded, why, now, jitter)
            }
            Failure::Refused(error) => self.refused(error, now, jitter),
        }
    }

    fn not_sent(&mut self, error: Error, now: Instant, jitter: f64) -> Next {
        if error.class() != Class::Retry {
            return self.end(error);
        }
        if !matches!(&self.refusal, Some(told) if told.code != Code::Unreachable) {
            self.refusal = Some(error.clone());
        }
        if !self.retry {
            return self.end(error);
        }
        let again = Again { refresh: self.hops + 1 >= HOPS_MAX, ..Again::default() };
        match error.code {
            Code::Unreachable => self.hop(again, now, jitter),
            _ => self.back_off(again, &error, now, jitter),
        }
    }

    /// It was sent, and what became of it is not known.
    fn unanswered(&mut self, code: Code, why: String, now: Instant, jitter: f64) -> Next {
        self.count_unanswered();
        if self.kind == Kind::Write {
            self.uncertain = Some(why.clone());
        } else if self.refusal.is_none() {
            self.refusal = Some(Error::new(code, why));
        }
        if !self.retry {
            return Next::Report(self.expire());
        }
        self.hop(Again::default(), now, jitter)
    }

    fn refused(&mut self, error: Error, now: Instant, jitter: f64) -> Next {
        match error.code {
            Code::Unknown => {
                return self.unanswered(Code::Unreachable, error.message, now, jitter);
            }
            // The node knows nothing of the session, or has forgotten this part of it: it was not
            // applied just now. Whether it was applied earlier depends on whether it was sent earlier.
            Code::SessionExpired | Code::SequenceTooOld => {
                let fresh = self.kind == Kind::Write && self.uncertain.is_none() && self.retry;
                if !fresh {
                    return Next::Report(error);
                }
                self.reopens += 1;
                if self.reopens <= REOPENS_MAX {
                    return Next::Reopen;
                }
                let message = "this shard forgets every session at once; nothing was applied";
                return Next::Report(Error::new(Code::NotReady, message));
            }
            Code::TooStale | Code::NotYet if self.kind == Kind::PinnedRead => {
                return Next::Report(error);
            }
            _ if error.class() != Class::Retry || !self.retry => return self.end(error),
            _ => self.refusal = Some(error.clone()),
        }
        let again = Again { to: error.hint.clone(), ..Again::default() };
        match error.code {
            Code::NotLeader | Code::TooStale | Code::NotYet => self.hop(again, now, jitter),
            Code::Moved => self.hop(Again { refresh: true, ..again }, now, jitter),
            Code::NotReady if self.kind == Kind::Read => self.hop(again, now, jitter),
            Code::DeadlineExceeded => {
                self.count_unanswered();
                self.hop(again, now, jitter)
            }
            _ => self.back_off(again, &error, now, jitter),
        }
    }

    fn count_unanswered(&mut self) {
        *self.unanswered.entry(self.asked.clone()).or_default() += 1;
    }

    /// Reports a final refusal, unless an earlier attempt may have been applied.
    fn end(&mut self, error: Error) -> Next {
        Next::Report(match &self.uncertain {
            Some(why) => unknown(&format!("{why}; then {error}"), self.attempts),
            None => error,
        })
    }

    /// At once, a few times; then with a pause.
    fn hop(&mut self, again: Again, now: Instant, jitter: f64) -> Next {
        if self.hops < HOPS_MAX && now < self.deadline {
            self.hops += 1;
            return Next::Again(again);
        }
        // Whoever sent us around in circles may know an old map, as we may.
        let again = Again { refresh: true, ..again };
        self.back_off(again, &Error::new(Code::Unreachable, ""), now, jitter)
    }

    fn back_off(&mut self, again: Again, error: &Error, now: Instant, jitter: f64) -> Next {
        let asked = Duration::from_millis(error.retry_after_ms.unwrap_or(0).into());
        let wait = asked + back_off(self.backoffs, jitter);
        let remaining = self.deadline.saturating_duration_since(now);
        // Half of what remains is kept for a last attempt, but nobody is asked earlier than they said.
        let wait = wait.min(remaining / 2).max(asked);
        if wait >= remaining || remaining < Duration::from_millis(2) {
            return Next::Report(self.expire());
        }
        self.backoffs += 1;
        self.hops = 0;
        Next::Again(Again { wait, ..again })
    }
}

/// Pause number `count`: exponential, between half and all of it.
pub(crate) fn back_off(count: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(1 << count.min(16)).min(BACKOFF_MAX);
    whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

fn unknown(why: &str, attempts: u32) -> Error {
    let plural = if attempts == 1 { "" } else { "s" };
    Error::new(
        Code::Unknown,
        format!("{why}; whether it took effect is not known ({attempts} attempt{plural})"),
    )
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
