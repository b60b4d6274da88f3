//! Breakers of a node towards its peers, one for each peer and class of calls, so that whoever asks all nodes does not
//! wait for one that is down. When one opens is decided in `crate::breaker`; here is what counts.
//!
//! Held back are questions and orders from node to node, and copies that have not begun. Messages of consensus pass none
//! of this: a quorum must not depend on it, and they are what a peer is heard by. As soon as it is heard again, an open
//! breaker may be tried. So a peer that is heard and does not answer is tried twice a second, which costs one call.

use super::core::Member;
use super::heard::{Heard, clock_ms};
use super::view::StateView;
use crate::breaker::{Breaker, Call, Options, Outcome, State};
use crate::types::{Code, Error, NodeId, NodeName, Result};
use crate::wire::breaker::{BreakerOrder, FORCE_MAX, FORCE_MIN, PeerBreaker, PeerClass};
use crate::wire::command::Command;
use crate::wire::peer::{NodeAnswer, NodeCall};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An unanswered call says something about a peer only if it waited this long.
const UNANSWERED_MIN: Duration = Duration::from_millis(500);
/// Whoever gives up so short before the end of a call's time has waited for all of it: clocks tick in milliseconds.
const END_MARGIN: Duration = Duration::from_millis(20);

/// When a breaker of that class opens. Nodes make fewer calls than clients: the coordinator asks each of them twice a
/// second while nothing is to be done, and copies are rare. While much is to be done it asks twenty times a second; that
/// the last calls of a peer that has just died did well must not keep the breaker closed for seconds.
fn options(class: PeerClass) -> Options {
    let usual = Options {
        calls_min: 5,
        failed_row: 5,
        slow_min: Duration::from_millis(500),
        open_min: Duration::from_secs(1),
        open_max: Duration::from_secs(5),
        probes: 3,
    };
    match class {
        PeerClass::Control => usual,
        PeerClass::Copy => Options { calls_min: 3, failed_row: 3, probes: 1, ..usual },
    }
}

/// The breakers of a node; clones share them.
#[derive(Clone)]
pub struct PeerBreakers {
    inner: Arc<Inner>,
}

struct Inner {
    me: NodeName,
    view: StateView,
    heard: Heard,
    peers: Mutex<BTreeMap<NodeId, [Breaker; PeerClass::ALL.len()]>>,
}

impl PeerBreakers {
    /// All closed.
    pub fn new(me: NodeName, view: StateView, heard: Heard) -> Self {
        Self { inner: Arc::new(Inner { me, view, heard, peers: Mutex::default() }) }
    }

    /// A call is about to be made that may take so long. Refused while the breaker is open (`Unreachable`, nothing was
    /// sent).
    pub fn begin(
        &self,
        node: NodeId,
        what: Asked,
        timeout: Duration,
        now: Instant,
    ) -> Result<Begun> {
        let class = what.class();
        let begun = self.inner.with(node, class, now, |breaker| match breaker.admits(now) {
            true => Ok(breaker.begin(now)),
            false => Err(breaker.seen(now)),
        });
        let call = begun.map_err(|seen| {
            let (name, class) = (self.inner.name(node), class.name());
            let state = seen.at(clock_ms()).state.name();
            let why = seen.reason.unwrap_or_default();
            let message =
                format!("{name} is not asked: its breaker for {class} is {state} ({why})");
            Error::new(Code::Unreachable, message).retry_after(UNANSWERED_MIN.as_millis() as u32)
        })?;
        let (breakers, sent) = (self.clone(), AtomicBool::new(false));
        let fate = Fate::UnderWay;
        Ok(Begun { breakers, node, what, call, began: now, timeout, sent, fate })
    }

    /// What can be seen of all of them.
    pub fn all(&self, now: Instant) -> Vec<PeerBreaker> {
        let inner = &self.inner;
        let state = inner.view.state();
        let others = state.members.iter().filter(|(_, member)| member.name != inner.me);
        let of_peer = |(id, member): (&NodeId, &Member)| {
            PeerClass::ALL.map(|class| inner.seen(*id, &member.name, class, now))
        };
        others.flat_map(of_peer).collect()
    }

    /// Carries out an order of an operator.
    pub fn force(&self, by: &str, order: &BreakerOrder, now: Instant) -> Result<Vec<PeerBreaker>> {
        let inner = &self.inner;
        let (node, time) = checked(order, inner)?;
        let word = if order.open { "open" } else { "closed" };
        let time_text = humantime::format_duration(time).to_string();
        tracing::info!(by, peer = %order.peer, class = ?order.class, word, time_text, "breaker forced");
        let classes = PeerClass::ALL.into_iter().filter(|c| order.class.is_none_or(|of| of == *c));
        let forced = classes.map(|class| {
            let reason = format!("forced {word} by {by}");
            inner.with(node, class, now, |b| b.force(now, order.open, time, reason));
            inner.seen(node, &order.peer, class, now)
        });
        Ok(forced.collect())
    }
}

/// The peer of an order and its time, if it can be carried out here.
fn checked(order: &BreakerOrder, inner: &Inner) -> Result<(NodeId, Duration)> {
    let bad = |message: String| Err(Error::new(Code::BadRequest, message));
    let time = Duration::from_millis(order.for_ms);
    if !(FORCE_MIN..=FORCE_MAX).contains(&time) {
        return bad(format!("a breaker is forced for 1s to 24h, not for {time:?}"));
    }
    if order.peer == inner.me {
        return bad(format!("{} has no breaker towards itself", inner.me));
    }
    match inner.view.state().member(&order.peer) {
        Some((id, _)) => Ok((id, time)),
        None => Err(Error::new(Code::NotFound, format!("no node {} in the map", order.peer))),
    }
}

impl Inner {
    fn with<T>(
        &self,
        node: NodeId,
        class: PeerClass,
        now: Instant,
        act: impl FnOnce(&mut Breaker) -> T,
    ) -> T {
        let mut peers = self.peers.lock();
        if !peers.contains_key(&node) {
            // A member whose disk was replaced goes on under another id, and the old one is called no more.
            let members = self.view.members();
            peers.retain(|id, _| members.contains(id));
        }
        let new = || PeerClass::ALL.map(|class| Breaker::new(options(class)));
        let breaker = &mut peers.entry(node).or_insert_with(new)[class as usize];
        if let Some(at) = self.heard.last(node).filter(|at| *at <= now) {
            breaker.heard(at);
        }
        act(breaker)
    }

    fn seen(&self, node: NodeId, peer: &NodeName, class: PeerClass, now: Instant) -> PeerBreaker {
        let seen = self.with(node, class, now, |breaker| breaker.seen(now)).at(clock_ms());
        PeerBreaker { peer: peer.clone(), class, seen }
    }

    fn name(&self, node: NodeId) -> String {
        self.view.name(node).map_or_else(|| node.to_string(), |name| name.to_string())
    }

    fn end(&self, begun: &Begun, outcome: Option<Outcome>, now: Instant) {
        let class = begun.what.class();
        let [before, after] = self.with(begun.node, class, now, |breaker| {
            let before = breaker.seen(now);
            breaker.end(now, begun.call, outcome);
            [before, breaker.seen(now)]
        });
        let (peer, class) = (self.name(begun.node), class.name());
        let reason = after.reason.as_deref().unwrap_or_default();
        let has_opened = after.opened_total > before.opened_total;
        if has_opened && before.state == State::Closed {
            tracing::warn!(peer, class, reason, "breaker opened");
        } else if has_opened {
            tracing::debug!(peer, class, reason, "breaker stays open");
        } else if before.state == State::HalfOpen && after.state == State::Closed {
            tracing::info!(peer, class, "breaker closed");
        }
    }
}

/// What is asked of a peer, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A question that is answered from what the peer knows: it may be slow.
    Question,
    /// Work that takes its time: a digest, a probe, an order that waits for a quorum. How long it takes, and that it was
    /// not done in time, says nothing.
    Work,
    /// A stream for a copy.
    Copy,
}

impl Asked {
    /// What a call asks for.
    pub fn of(call: &NodeCall) -> Self {
        match call {
            NodeCall::Describe => Asked::Question,
            NodeCall::Join(_) => Asked::Work,
            NodeCall::Command { command, .. } | NodeCall::PassedOn { command, .. } => match command
            {
                Command::Echo(bytes) if bytes.is_empty() => Asked::Question,
                Command::Report
                | Command::Status
                | Command::Info
                | Command::ReplicaLag
                | Command::Stats
                | Command::Alarms
                | Command::StrategyShow
                | Command::StrategyHistory
                | Command::Settings => Asked::Question,
                _ => Asked::Work,
            },
        }
    }

    fn class(self) -> PeerClass {
        match self {
            Asked::Question | Asked::Work => PeerClass::Control,
            Asked::Copy => PeerClass::Copy,
        }
    }

    fn answered(self, took: Duration) -> Outcome {
        match self {
            Asked::Question => Outcome::Answered(took),
            Asked::Work | Asked::Copy => Outcome::Worked,
        }
    }

    /// What it says that nobody answered in so much time. Who was asked for work and was reached may be at it.
    fn unanswered(self, waited: Duration, is_sent: bool) -> Option<Outcome> {
        let is_at_it = is_sent && self == Asked::Work;
        (waited >= UNANSWERED_MIN && !is_at_it).then_some(Outcome::Failed)
    }
}

/// What a call says about a peer. What it refuses says nothing, but for faults of its own. Nor does a call that was under
/// way when the connection ended: a peer that stops in good order does that, and whoever asks next finds out.
fn counted(what: Asked, ended: &Result<NodeAnswer>, took: Duration) -> Option<Outcome> {
    match ended {
        Ok(NodeAnswer::Refused(error)) => is_fault(error.code).then_some(Outcome::Failed),
        Ok(_) => Some(what.answered(took)),
        Err(error) => (error.code == Code::Unreachable).then_some(Outcome::Failed),
    }
}

fn is_fault(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Corrupt)
}

/// A call under way. If it is dropped its caller went away, which says something only at the end of the call's time.
pub struct Begun {
    breakers: PeerBreakers,
    node: NodeId,
    what: Asked,
    call: Call,
    began: Instant,
    timeout: Duration,
    sent: AtomicBool,
    fate: Fate,
}

/// What is known of a call.
enum Fate {
    UnderWay,
    /// With what it says about the peer.
    Over(Option<Outcome>),
}

impl Begun {
    /// From here on it may have been carried out.
    pub fn sent(&self) {
        self.sent.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub fn is_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// It has ended with an answer, or an error before its time was up.
    pub fn ended(mut self, ended: &Result<NodeAnswer>) {
        self.fate = Fate::Over(counted(self.what, ended, self.began.elapsed()));
    }

    /// A stream was opened, or could not be.
    pub fn opened(mut self, is_open: bool) {
        let outcome = if is_open { self.what.answered(Duration::ZERO) } else { Outcome::Failed };
        self.fate = Fate::Over(Some(outcome));
    }

    /// The outcome at that moment.
    fn outcome(&self, waited: Duration) -> Option<Outcome> {
        match self.fate {
            Fate::Over(outcome) => outcome,
            Fate::UnderWay if waited + END_MARGIN < self.timeout => None,
            Fate::UnderWay => self.what.unanswered(waited, self.is_sent()),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let now = Instant::now();
        let outcome = self.outcome(now.saturating_duration_since(self.began));
        self.breakers.inner.end(self, outcome, now);
    }
}

#[cfg(test)]
#[path = "breakers_test.rs"]
mod tests;
