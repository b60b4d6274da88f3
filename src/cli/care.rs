//! Care: which commands change something, how much they may touch, and who has to agree before they do.
//!
//! | danger | commands | at a terminal | elsewhere |
//! |---|---|---|---|
//! | mild | `set`, `del KEY`, `strategy abort`, `strategy revert`, … | done | done |
//! | moderate | `strategy prepare`, `switch`, `commit`, `finalize`, `breaker open` | what it will touch, and `y/N` | the exact command is the consent |
//! | wide | `del --prefix P` | a count, three samples, and `y/N` | needs `--yes` |
//! | severe | `del --prefix ''`: every key | the same, and the name of the cluster has to be typed | needs `--confirm NAME` |
//!
//! `abort` and `revert` are the way out of a switch that hurts, and are never held up by a question. What is decided here
//! is pure, up to `ask`, which reads one line from a terminal.

use super::args::admin::{Admin, Cluster};
use super::args::load::Breaker;
use super::args::strategy::Strategy;
use super::args::{ConfigVerb, Data, Verb};
use super::data::{self, Plan, Stand};
use super::sweep;
use super::value::{Answered, Doc};
use crate::types::{Code, Error, Op, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;
use std::io::Write;
use std::time::Duration;

/// Bytes of an answer; what is longer is no answer to any question here.
const ANSWER_BYTES_MAX: usize = 256;
/// Between two looks whether somebody has answered.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much a command may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Danger {
    /// What it names, and nothing that could not be done again.
    Mild,
    /// Data moves, or the strategy changes, or a node is left out.
    Moderate,
    /// More than it names.
    Wide,
    /// Everything.
    Severe,
}

/// The consent that came with the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given<'a> {
    /// `--yes`.
    pub yes: bool,
    /// `--confirm NAME`.
    pub confirm: Option<&'a str>,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It may be carried out.
    Go,
    /// A yes is needed.
    AskYes,
    /// The name of the cluster is needed.
    AskName,
    /// It may not.
    Refuse(Error),
}

/// True for commands after whose time nobody can say whether they took effect.
pub fn changes(verb: &Verb) -> bool {
    match verb {
        Verb::Data(Data::Del { prefix: Some(_), dry_run, .. }) => !dry_run,
        Verb::Data(data) => match data::plan(data, &Stand::default()) {
            Ok(Plan::Ops { ops, .. }) => ops.iter().any(Op::is_write),
            _ => false,
        },
        Verb::Admin(Admin::Cluster(Cluster::Init { .. })) => true,
        Verb::Admin(Admin::Strategy(verb)) => verb.orders(),
        Verb::Admin(Admin::Breaker(Breaker::Open(_) | Breaker::Close(_))) => true,
        Verb::Config(ConfigVerb::Set { .. }) => true,
        _ => false,
    }
}

/// How much a command may touch. What is judged is the bytes that it would touch, which a word may only stand for.
pub fn danger(verb: &Verb, stand: &Stand) -> Danger {
    match verb {
        Verb::Data(data) => match sweep::asked(data, stand) {
            None | Some((_, true)) => Danger::Mild,
            Some((prefix, false)) if prefix.is_empty() => Danger::Severe,
            Some(_) => Danger::Wide,
        },
        Verb::Admin(Admin::Strategy(
            Strategy::Prepare { .. }
            | Strategy::Switch { .. }
            | Strategy::Commit { .. }
            | Strategy::Finalize { .. },
        )) => Danger::Moderate,
        Verb::Admin(Admin::Breaker(Breaker::Open(_))) => Danger::Moderate,
        _ => Danger::Mild,
    }
}

/// The consent that came with the command.
pub fn given(verb: &Verb) -> Given<'_> {
    let yes = |yes: bool| Given { yes, confirm: None };
    match verb {
        Verb::Data(Data::Del { consent, confirm, .. }) => {
            Given { yes: consent.yes, confirm: confirm.as_deref() }
        }
        Verb::Admin(Admin::Strategy(
            Strategy::Prepare { consent, .. }
            | Strategy::Switch { consent, .. }
            | Strategy::Commit { consent, .. }
            | Strategy::Finalize { consent, .. },
        )) => yes(consent.yes),
        Verb::Admin(Admin::Breaker(Breaker::Open(force))) => yes(force.consent.yes),
        _ => Given::default(),
    }
}

/// Whether a command may be carried out. `attended`: a person at a terminal typed it and can be asked.
pub fn decide(danger: Danger, given: Given, attended: bool, cluster: &str) -> Decision {
    let refuse = |message: String| Decision::Refuse(Error::new(Code::BadRequest, message));
    match (danger, given) {
        (Danger::Mild, _) => Decision::Go,
        (Danger::Moderate | Danger::Wide, Given { yes: true, .. }) => Decision::Go,
        (Danger::Severe, Given { confirm: Some(name), .. }) if name == cluster => Decision::Go,
        (Danger::Severe, Given { confirm: Some(name), .. }) => refuse(format!(
            "--confirm names `{name}`, and this is cluster `{cluster}`; nothing was changed"
        )),
        (Danger::Moderate, _) if !attended => Decision::Go,
        (Danger::Wide, _) if !attended => refuse(
            "this deletes every key with that prefix, and nobody is there to be asked: --dry-run counts them, --yes \
             agrees"
                .to_owned(),
        ),
        (Danger::Severe, _) if !attended => refuse(format!(
            "this deletes every key of the cluster, and nobody is there to be asked: `--confirm {cluster}` agrees"
        )),
        (Danger::Moderate | Danger::Wide, _) => Decision::AskYes,
        (Danger::Severe, _) => Decision::AskName,
    }
}

/// The answer of a command that was not agreed to.
pub fn declined() -> Answered {
    let note = "nothing was changed".to_owned();
    let doc = Doc {
        json: json!({ "declined": true }),
        header: vec!["DECLINED"],
        rows: vec![vec![note]],
        notes: Vec::new(),
    };
    Answered { yes: false, ..Answered::doc(doc, None) }
}

/// Whether an answer is a yes. Everything else is none.
pub fn is_yes(answer: &str) -> bool {
    matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES")
}

/// Asks at the terminal and waits for one line, as long as it takes. Whoever stops waiting leaves nothing behind: no
/// thread goes on reading what is typed later.
pub async fn ask(question: &str) -> Result<String> {
    let failed =
        |error: Errno| Error::new(Code::BadRequest, format!("the answer cannot be read: {error}"));
    let mut err = std::io::stderr();
    let _ = write!(err, "{question} ").and_then(|()| err.flush());
    let input = std::io::stdin();
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        // A terminal is ready once a whole line is there.
        let mut look = [PollFd::new(&input, PollFlags::IN)];
        let ready = match poll(&mut look, Some(&Timespec::default())) {
            Err(Errno::INTR) => 0,
            ready => ready.map_err(failed)?,
        };
        if ready == 0 {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let read = rustix::io::read(&input, &mut bytes).map_err(failed)?;
        if read == 0 {
            let _ = writeln!(err);
            break;
        }
        answer.extend_from_slice(&bytes[..read]);
    }
    Ok(String::from_utf8_lossy(&answer).trim().to_owned())
}

#[cfg(test)]
#[path = "care_tests.rs"]
mod tests;
