//! What live views have in common: a question to each node again and again, where nobody waits for a node that is slow,
//! until the time is up or Ctrl-C is pressed.
//!
//! What is asked, and what becomes of the answers, is theirs.

use super::args::admin::Admin;
use super::args::load::Keys;
use super::args::{Format, Verb};
use super::caller::Caller;
use super::exit;
use super::session::Call;
use super::talk::Show;
use super::value::Answered;
use crate::types::{NodeName, Result};
use crate::wire::command::{Answer, Command};
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::pin;
use std::time::{Duration, Instant};

/// How long a view goes on unless told otherwise.
pub const VIEW_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
/// How long a node may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// What a view needs after its time is up, for its summary.
const SUMMARY_WITHIN: Duration = Duration::from_secs(3);

/// A question that was asked, and what came of it.
#[derive(Debug)]
pub struct Round {
    /// Who was asked.
    pub node: NodeName,
    /// The answer.
    pub answer: Result<Answer>,
    /// How long that took.
    pub took: Duration,
}

/// Why a view ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was up.
    Time,
    /// It has shown what was asked for.
    Enough,
    /// By Ctrl-C.
    Interrupted,
}

impl End {
    /// The answer of a view that ended so.
    pub fn of(self, answered: Answered) -> Answered {
        let code = (self == End::Interrupted).then_some(exit::INTERRUPTED);
        Answered { code, ..answered }
    }
}

/// Whether a command ends by itself on Ctrl-C, with an answer.
pub fn hears_interrupt(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Admin(
            Admin::Monitor(_) | Admin::Latency(_) | Admin::Top(_) | Admin::Keys(Keys::Big(_))
        )
    )
}

/// Waits for a command to which Ctrl-C was said: a view that has begun ends by itself, with an answer; none if it had not
/// begun, or is no view. Nothing else than Ctrl-C may be waited for so: views do not hear it.
pub async fn ended_after_interrupt<T>(
    ends_itself: bool,
    running: impl Future<Output = T>,
) -> Option<T> {
    match ends_itself {
        true => tokio::time::timeout(SUMMARY_WITHIN, running).await.ok(),
        false => None,
    }
}

/// How long a view may take unless `--timeout` says otherwise: its own time, and that of its summary.
pub fn patience(verb: &Verb) -> Option<Duration> {
    let time = match verb {
        Verb::Admin(Admin::Monitor(args)) => args.time.unwrap_or(VIEW_DEFAULT),
        Verb::Admin(Admin::Top(_)) => VIEW_DEFAULT,
        Verb::Admin(Admin::Latency(args)) => args.time,
        Verb::Admin(Admin::Keys(Keys::Big(args))) => args.time,
        _ => return None,
    };
    Some(time + 2 * SUMMARY_WITHIN)
}

/// Where a view prints its lines.
pub fn shows(verb: &Verb, format: Format) -> Option<Show> {
    match verb {
        Verb::Admin(Admin::Monitor(_)) => Some(Show::Lines(format)),
        Verb::Admin(Admin::Latency(args)) if args.watch => Some(Show::Lines(format)),
        _ => None,
    }
}

/// When a view of that length ends, so that its summary is not too late.
pub fn end(call: &Call, time: Option<Duration>) -> Instant {
    let now = Instant::now();
    let summary = SUMMARY_WITHIN.min(call.deadline.saturating_duration_since(now) / 4);
    let last = call.deadline.checked_sub(summary).unwrap_or(call.deadline);
    time.and_then(|time| now.checked_add(time)).map_or(last, |end| end.min(last))
}

/// Asks each node at these intervals, the first time at once. An answer that takes longer than an interval puts off the
/// next question to that node alone.
pub fn rounds<'a, C: Caller>(
    caller: &'a C,
    nodes: &'a [NodeName],
    every: Duration,
    question: impl Fn(&NodeName) -> Command + Copy + 'a,
) -> impl Stream<Item = Round> + 'a {
    let of_node = |node: &'a NodeName| {
        let asked = stream::unfold(Instant::now(), move |at| async move {
            tokio::time::sleep_until(at.into()).await;
            let began = Instant::now();
            let answer = caller.command(question(node), Some(node), ANSWER_WITHIN).await;
            let took = began.elapsed();
            let answer = answer.map(|(answer, _)| answer);
            Some((Round { node: node.clone(), answer, took }, (at + every).max(began + took)))
        });
        asked.boxed_local()
    };
    stream::select_all(nodes.iter().map(of_node))
}

/// Hands over what comes, until the time is up, Ctrl-C is pressed, or `take` has enough.
pub async fn watch<T>(
    rounds: impl Stream<Item = T>,
    until: Instant,
    mut take: impl FnMut(T) -> bool,
) -> End {
    let mut rounds = pin!(rounds);
    let mut interrupted = pin!(interrupted());
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return End::Interrupted,
            () = tokio::time::sleep_until(until.into()) => return End::Time,
            round = rounds.next() => if !round.is_some_and(&mut take) {
                return End::Enough;
            }
        }
    }
}

/// Until Ctrl-C is pressed.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // It cannot be heard: then it ends the program by itself.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Twin, name};
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_node_that_is_down_holds_nobody_up() {
        let twin = Twin::with(|state| state.down = Some(name("n2")));
        let nodes = [name("n1"), name("n2")];
        let every = Duration::from_millis(10);
        let (answered, failed) = (Cell::new(0), Cell::new(0));
        let rounds = rounds(&twin, &nodes, every, |_| Command::Status);
        let until = Instant::now() + Duration::from_millis(200);
        let end = watch(rounds, until, |round| {
            let count = if round.answer.is_ok() { &answered } else { &failed };
            count.set(count.get() + 1);
            assert_eq!(round.node == name("n2"), round.answer.is_err());
            answered.get() < 5
        });
        assert_eq!(end.await, End::Enough);
        assert!(failed.get() >= 4, "{} and {}", answered.get(), failed.get());
        let never = stream::pending::<()>();
        assert_eq!(watch(never, Instant::now(), |()| true).await, End::Time);
    }
}
