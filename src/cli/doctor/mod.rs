//! `doctor`: what is not as it should be, by checks that have codes, each with a command that goes on from there.
//!
//! It asks every node for what it knows, and `judge` says what that means. It changes nothing.

mod cluster;
mod judge;
mod nodes;
mod samples;
#[cfg(test)]
mod tests;

use super::args::globals::USER_DEFAULT;
use super::args::live::DoctorArgs;
use super::caller::Caller;
use super::session::{self, Call};
use super::value::{Answered, Doc};
use crate::cluster::heard::clock_ms;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command, Status};
use futures_util::future::{join, join_all};
use judge::{CHECKS, Check, Facts, Finding, NodeFacts, State};
use samples::Samples;
use serde_json::{Value as Json, json};
use std::time::Duration;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The checks, without asking anybody.
pub fn list() -> Answered {
    let json = CHECKS
        .iter()
        .map(|check| json!({ "code": check.code, "name": check.name, "looks_at": check.looks_at }));
    let row = |check: &Check| [check.code, check.name, check.looks_at].map(str::to_owned).to_vec();
    Answered::doc(
        Doc {
            json: json!({ "checks": json.collect::<Vec<_>>() }),
            header: vec!["CODE", "CHECK", "LOOKS AT"],
            rows: CHECKS.iter().map(row).collect(),
            notes: Vec::new(),
        },
        None,
    )
}

/// Asks and judges. The exit code is 1 if something is bad.
pub async fn run<C: Caller>(caller: &C, args: &DoctorArgs, call: &Call) -> Result<Answered> {
    if args.list {
        return Ok(list());
    }
    let facts = gather(caller, call).await?;
    let findings = judge::judge(&facts);
    let is_bad = findings.iter().any(|finding| finding.state == State::Bad);
    Ok(Answered { yes: !is_bad, ..Answered::doc(doc(&findings), None) })
}

async fn gather<C: Caller>(caller: &C, call: &Call) -> Result<Facts> {
    let map = caller.map().await?;
    let names: Vec<NodeName> = map.nodes.iter().map(|node| node.name.clone()).collect();
    let timeout = call.left().min(ANSWER_WITHIN);
    let strategy = caller.command(Command::StrategyShow, None, timeout);
    let settings = caller.command(Command::Settings, None, timeout);
    let asked = join_all(names.iter().map(|name| of_node(caller, name, timeout)));
    let ((strategy, settings), nodes) = join(join(strategy, settings), asked).await;
    let told = nodes.iter().filter_map(|node| node.status.clone());
    let Some(status) = told.max_by_key(knowledge) else {
        let error = nodes.iter().find_map(|node| node.error.clone());
        return Err(error.unwrap_or_else(|| Error::new(Code::Unreachable, "no node answers")));
    };
    let own_certificate_days = session::client_options(&call.globals)
        .ok()
        .map(|options| options.identity.expires_in_days());
    Ok(Facts {
        now_ms: clock_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        user: call.globals.user.as_deref().unwrap_or(USER_DEFAULT).to_owned(),
        own_certificate_days,
        copies: map.shards.iter().map(|shard| (shard.id, shard.copies.len())).collect(),
        status,
        nodes,
        settings: match settings {
            Ok((Answer::Settings(settings), _)) => Some(settings),
            _ => None,
        },
        strategy: match strategy {
            Ok((Answer::StrategyView(view), _)) => Some(*view),
            _ => None,
        },
    })
}

/// Who knows most: who has the newest map, hears a leader, and hears the most nodes. One that is cut off from the others
/// may still answer, and takes its own view for that of all.
fn knowledge(status: &Status) -> (u64, bool, usize) {
    let up = status.nodes.iter().filter(|node| node.up).count();
    (status.epoch, status.metadata_leader.is_some(), up)
}

/// All that one node knows. Its questions are under way at the same time, so one that is down costs one wait.
async fn of_node<C: Caller>(caller: &C, name: &NodeName, timeout: Duration) -> NodeFacts {
    let questions =
        [Command::Status, Command::Info, Command::Stats, Command::Breakers, Command::Metrics];
    let answers = questions.map(|command| caller.command(command, Some(name), timeout));
    let mut facts = NodeFacts::silent(name.clone());
    for answer in join_all(answers).await {
        match answer {
            Ok((Answer::Status(status), _)) => facts.status = Some(status),
            Ok((Answer::Info(info), _)) => facts.info = Some(info),
            Ok((Answer::Stats(stats), _)) => facts.stats = Some(*stats),
            Ok((Answer::Breakers(breakers), _)) => facts.breakers = breakers,
            Ok((Answer::Metrics(text), _)) => facts.samples = Samples::of(&text),
            Ok(_) => {}
            Err(error) => facts.error = Some(error),
        }
    }
    facts
}

fn doc(findings: &[Finding]) -> Doc {
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (bad, warn) = (count(State::Bad), count(State::Warn));
    let worst = match (bad, warn) {
        (0, 0) => State::Ok,
        (0, _) => State::Warn,
        _ => State::Bad,
    };
    let json: Vec<Json> = findings
        .iter()
        .map(|finding| {
            json!({
                "code": finding.check.code, "check": finding.check.name,
                "state": finding.state.name(), "seen": finding.seen, "fix": finding.fix,
            })
        })
        .collect();
    let row = |finding: &Finding| {
        vec![
            finding.check.code.to_owned(),
            finding.check.name.to_owned(),
            finding.state.name().to_owned(),
            finding.seen.clone(),
            finding.fix.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    Doc {
        json: json!({ "state": worst.name(), "bad": bad, "warn": warn, "findings": json }),
        header: vec!["CODE", "CHECK", "STATE", "SEEN", "GO ON WITH"],
        rows: findings.iter().map(row).collect(),
        notes: vec![format!("{} checks: {bad} bad, {warn} warnings", CHECKS.len())],
    }
}
