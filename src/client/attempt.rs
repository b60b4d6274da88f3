//! One request to one shard, from its first attempt to its answer.
//!
//! `drive` is the only loop that attempts anything. What follows a failure is decided by `retry::Core`,
//! which node is asked by `route::View`; this file carries out what they say.

use super::exec::{Inner, ShardState, malformed};
use super::health::CallClass;
use super::net::{Failure, Net};
use super::retry::{Core, Kind, Next};
use super::route::{Node, View, Want};
use super::sessions::Turn;
use crate::breaker::Outcome;
use crate::types::{Code, Error, NodeName, Result, SessionSeq, ShardId};
use crate::wire::client::{ReplyBody, RequestBody};
use futures_util::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An unanswered attempt says something about the node only if it waited this long.
const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// Why a request ended without an answer.
enum Stop {
    /// Never applied; its session is of no use.
    Reopen,
    Report(Error),
}

impl<N: Net> Inner<N> {
    /// A write: under a session, so that it may be repeated, or once and without.
    pub(crate) async fn write(
        &self,
        shard: ShardId,
        state: &ShardState,
        kv: impl Fn(Option<SessionSeq>) -> RequestBody,
        retry: bool,
        deadline: Instant,
    ) -> Result<(ReplyBody, Arc<Node>)> {
        let mut core = Core::new(Kind::Write, retry, deadline);
        loop {
            let turn = match retry {
                true => Some(self.turn(shard, state, deadline).await?),
                false => None,
            };
            let dedup = turn.as_ref().map(Turn::seq);
            match self.drive(shard, &Want::Leader, &mut core, &kv(dedup)).await {
                Ok(reply) => return Ok(reply),
                Err(Stop::Report(error)) => return Err(error),
                Err(Stop::Reopen) => {
                    if let Some(seq) = dedup {
                        state.sessions.expired(seq.session);
                    }
                }
            }
        }
    }

    pub(crate) async fn read(
        &self,
        shard: ShardId,
        want: &Want,
        body: RequestBody,
        retry: bool,
        deadline: Instant,
    ) -> Result<(ReplyBody, Arc<Node>)> {
        let kind = if matches!(want, Want::Only(_)) { Kind::PinnedRead } else { Kind::Read };
        let mut core = Core::new(kind, retry, deadline);
        match self.drive(shard, want, &mut core, &body).await {
            Ok(reply) => Ok(reply),
            Err(Stop::Report(error)) => Err(error),
            Err(Stop::Reopen) => Err(Error::new(Code::Internal, "a read has no session")),
        }
    }

    /// A sequence for one write; opens a session if none has room.
    async fn turn(&self, shard: ShardId, state: &ShardState, deadline: Instant) -> Result<Turn> {
        let sessions = &state.sessions;
        let full = || Error::new(Code::Overloaded, "too many writes of this client are in flight");
        loop {
            if let Some(turn) = sessions.take() {
                return Ok(turn);
            }
            if !sessions.may_open() {
                self.within(deadline, sessions.room()).await.ok_or_else(full)?;
                continue;
            }
            let Some(_opening) = self.within(deadline, sessions.opening.lock()).await else {
                return Err(Error::new(Code::DeadlineExceeded, "no session opened in time"));
            };
            if let Some(turn) = sessions.take() {
                return Ok(turn);
            }
            if !sessions.may_open() {
                continue;
            }
            // An entry without effect: it may be repeated like a read.
            let body = RequestBody::OpenSession { shard };
            match self.read(shard, &Want::Leader, body, true, deadline).await? {
                (ReplyBody::Session(id), _) => sessions.opened(id),
                (_, node) => return Err(malformed(false, "not a session", &node)),
            }
        }
    }

    /// Attempts a request until it is answered or over.
    async fn drive(
        &self,
        shard: ShardId,
        want: &Want,
        core: &mut Core,
        body: &RequestBody,
    ) -> Result<(ReplyBody, Arc<Node>), Stop> {
        let class = match (core.kind(), body) {
            (Kind::Write, _) | (_, RequestBody::OpenSession { .. }) => CallClass::Write,
            (Kind::Read | Kind::PinnedRead, _) => CallClass::Read,
        };
        let mut tried: Vec<NodeName> = vec![];
        let mut to: Option<NodeName> = None;
        let mut map_asked = false;
        loop {
            let start = self.net.now();
            if start >= core.deadline() {
                return Err(Stop::Report(core.expire()));
            }
            if self.is_closed() {
                let closed = Error::new(Code::Unreachable, "this client was closed");
                return Err(stop(core.on(Failure::NotSent(closed), core.deadline(), 0.0)));
            }
            let view = self.view();
            let random = (rand::random(), rand::random());
            let Some(node) = view.choose(shard, want, to.as_ref(), &tried, start, random) else {
                if std::mem::replace(&mut map_asked, true) {
                    return Err(Stop::Report(nobody(shard, want)));
                }
                self.try_refresh(core.deadline()).await;
                continue;
            };
            let only = (*want == Want::Leader).then_some(&node.target.name);
            let until = core.attempt(only, start);
            let in_flight = node.health.begin(class, start);
            let outcome = self.net.exchange(&node.target, body.clone(), until).await;
            let end = self.net.now();
            in_flight.ended(end, counted(&outcome, end.saturating_duration_since(start)));
            let failure = match outcome {
                Ok(reply) => {
                    let choice = *want != Want::Leader;
                    node.health.answered(end, choice.then(|| end - start));
                    if !choice {
                        view.set_leader(shard, &node.target.name);
                    }
                    return Ok((reply, node));
                }
                Err(failure) => failure,
            };
            learn(&view, shard, want, &node, &failure, end, end - start);
            tried.push(node.target.name.clone());
            match core.on(failure, end, rand::random()) {
                Next::Again(again) => {
                    if again.refresh {
                        self.try_refresh(core.deadline()).await;
                    }
                    if !again.wait.is_zero() {
                        tried.clear();
                        self.net.sleep_until(self.net.now() + again.wait).await;
                    }
                    to = again.to;
                }
                over => return Err(stop(over)),
            }
        }
    }

    /// Waits for something, at most until the deadline.
    pub(crate) async fn within<F: Future>(&self, deadline: Instant, what: F) -> Option<F::Output> {
        let end = pin!(self.net.sleep_until(deadline));
        match select(pin!(what), end).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

/// What a node's breaker counts of an attempt. What it refuses for a reason, such as a planned pause, does not count,
/// nor does a caller who had little time.
fn counted(outcome: &Result<ReplyBody, Failure>, waited: Duration) -> Option<Outcome> {
    match outcome {
        Ok(_) => Some(Outcome::Answered(waited)),
        Err(Failure::Refused(error)) => {
            matches!(error.code, Code::Internal | Code::Corrupt).then_some(Outcome::Failed)
        }
        Err(Failure::TimedOut) if waited < SUSPECT_AFTER => None,
        Err(Failure::NotSent(_) | Failure::Lost(_) | Failure::TimedOut) => Some(Outcome::Failed),
    }
}

/// What a failure says about the node and the leader.
fn learn(
    view: &View,
    shard: ShardId,
    want: &Want,
    node: &Node,
    failure: &Failure,
    now: Instant,
    waited: Duration,
) {
    match failure {
        Failure::NotSent(error) if error.code != Code::Unreachable => {}
        Failure::TimedOut if waited < SUSPECT_AFTER => {}
        Failure::NotSent(_) | Failure::TimedOut => node.health.failed(now),
        Failure::Lost(_) => node.health.lost(now),
        // Asked again at once it would say the same; others may serve.
        Failure::Refused(error) if error.code == Code::NotReady && *want != Want::Leader => {
            node.health.failed(now)
        }
        Failure::Refused(error) => {
            node.health.answered(now, None);
            if let (Code::NotLeader, Some(hint)) = (error.code, &error.hint) {
                view.set_leader(shard, hint);
            }
        }
    }
}

fn stop(next: Next) -> Stop {
    match next {
        Next::Report(error) => Stop::Report(error),
        Next::Reopen => Stop::Reopen,
        Next::Again(_) => Stop::Report(Error::new(Code::DeadlineExceeded, "no time is left")),
    }
}

fn nobody(shard: ShardId, want: &Want) -> Error {
    match want {
        Want::Only(name) => Error::new(Code::NotFound, format!("no node {name} in the map")),
        _ => Error::new(Code::Unreachable, format!("the map names no node for {shard}")),
    }
}
