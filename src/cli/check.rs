//! `check`: whether all is well, for a monitor: one document, one line, and the exit codes that monitoring plugins have.
//!
//! It judges nothing by itself: what is bad is what the nodes say in `status`.

use super::admin;
use super::args::watching::{CheckArgs, CheckFormat};
use super::caller::Caller;
use super::session::Call;
use super::strategy::document;
use super::value::{Answered, Doc, Value};
use crate::alarms::Kind;
use crate::types::{Code, Error};
use crate::wire::alarm::{Alarm, Severity};
use crate::wire::command::Status;
use serde_json::json;

/// How it is; the number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Ok = 0,
    Warning = 1,
    Critical = 2,
    Unknown = 3,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            State::Ok => "OK",
            State::Warning => "WARNING",
            State::Critical => "CRITICAL",
            State::Unknown => "UNKNOWN",
        }
    }
}

/// What was found.
struct Found {
    state: State,
    /// In a few words.
    summary: String,
    /// What is wrong, the worst first, each with what can be done about it.
    problems: Vec<(State, String, String)>,
    status: Option<Status>,
}

/// Asks a node for the whole cluster.
pub async fn run<C: Caller>(caller: &C, args: CheckArgs, call: &Call) -> Answered {
    match admin::status(caller, call.globals.node.as_ref(), call.left()).await {
        Ok((status, by)) => {
            let answered = answered(args, found(status));
            Answered { served_by: vec![by], ..answered }
        }
        Err(error) => failed(args, &error),
    }
}

/// Nobody could be asked.
pub fn failed(args: CheckArgs, error: &Error) -> Answered {
    let state = match error.code {
        Code::BadCertificate | Code::Denied | Code::BadConfig | Code::BadRequest => State::Unknown,
        _ => State::Critical,
    };
    answered(args, Found { state, summary: error.to_string(), problems: vec![], status: None })
}

fn found(status: Status) -> Found {
    let mut problems = Vec::new();
    if !status.shards_leaderless.is_empty() {
        let shards: Vec<String> =
            status.shards_leaderless.iter().map(ToString::to_string).collect();
        let what = format!("no leader: {}; writes to these shards wait", shards.join(" "));
        problems.push((State::Critical, what, "start the nodes that are down".to_owned()));
    }
    let is_told = |name: &str| {
        let mut alarms = status.alarms.iter();
        alarms.any(|alarm| alarm.name == Kind::NodeDown.rule().name && alarm.subject == name)
    };
    for node in status.nodes.iter().filter(|node| !node.up && !is_told(node.name.as_str())) {
        let what = format!("{} is down", node.name);
        problems.push((State::Warning, what, "start it with `ppdb serve`".to_owned()));
    }
    // Said above, if the node that was asked sees it too.
    let is_said = |alarm: &Alarm| {
        alarm.name == Kind::NoLeader.rule().name && !status.shards_leaderless.is_empty()
    };
    for alarm in status.alarms.iter().filter(|alarm| !is_said(alarm)) {
        let state = match alarm.severity {
            Severity::Warning => State::Warning,
            Severity::Critical => State::Critical,
        };
        problems.push((state, alarm.message.clone(), alarm.fix.clone()));
    }
    problems.sort_by_key(|(state, _, _)| std::cmp::Reverse(*state));
    let (up, all) = (status.nodes.iter().filter(|node| node.up).count(), status.nodes.len());
    let mut summary = format!(
        "{up} of {all} nodes up, {}, epoch {}, {} alarms",
        document::name(status.strategy),
        status.epoch,
        status.alarms.len()
    );
    if let Some((_, what, _)) = problems.first() {
        summary = format!("{what}; {summary}");
    }
    let state = problems.first().map_or(State::Ok, |(state, _, _)| *state);
    Found { state, summary, problems, status: Some(status) }
}

fn answered(args: CheckArgs, found: Found) -> Answered {
    let value = match args.format {
        Some(CheckFormat::Nagios) => Value::Text(nagios(&found)),
        _ => Value::Doc(doc(&found)),
    };
    let code = Some(found.state as u8);
    Answered { yes: found.state == State::Ok, code, ..Answered::of(value) }
}

/// One line, figures behind a bar, then one line for each further problem. A bar would end the text.
fn nagios(found: &Found) -> String {
    let clean = |text: &str| text.replace(['|', '\n'], " ");
    let mut text = format!("PPDB {} - {}", found.state.name(), clean(&found.summary));
    if let Some(status) = &found.status {
        let up = status.nodes.iter().filter(|node| node.up).count();
        text += &format!(
            " | nodes_up={up};;;0;{} shards_leaderless={};;;0 may_fail_without_loss={};;;0 alarms={};;;0",
            status.nodes.len(),
            status.shards_leaderless.len(),
            status.may_fail_without_loss,
            status.alarms.len()
        );
    }
    for (state, what, fix) in &found.problems {
        text += &format!("\n{}: {}; {}", state.name(), clean(what), clean(fix));
    }
    text
}

fn doc(found: &Found) -> Doc {
    let problems = found
        .problems
        .iter()
        .map(|(state, what, fix)| json!({ "state": state.name(), "what": what, "fix": fix }));
    let figures = found.status.as_ref().map(|status| {
        json!({
            "nodes": status.nodes.len(),
            "nodes_up": status.nodes.iter().filter(|node| node.up).count(),
            "shards_leaderless": status.shards_leaderless.len(),
            "may_fail_without_loss": status.may_fail_without_loss,
            "alarms": status.alarms.len(),
            "strategy": status.strategy,
            "epoch": status.epoch,
        })
    });
    let json = json!({
        "state": found.state.name(), "summary": found.summary,
        "problems": problems.collect::<Vec<_>>(), "figures": figures,
    });
    let rows = found
        .problems
        .iter()
        .map(|(state, what, fix)| vec![state.name().to_owned(), what.clone(), fix.clone()]);
    Doc {
        json,
        header: vec!["STATE", "WHAT", "FIX"],
        rows: rows.collect(),
        notes: vec![format!("{}: {}", found.state.name(), found.summary)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, ShardId};
    use crate::wire::client::{Role, Strategy};
    use crate::wire::command::NodeStatus;

    fn status(down: &[&str], alarms: &[(&str, Severity)]) -> Status {
        let name = |text: &str| NodeName::new(text).unwrap();
        let node = |text: &&str| NodeStatus {
            name: name(text),
            role: Role::Primary,
            addr: String::new(),
            up: !down.contains(text),
            shards_owned: 1,
            copies: 1,
        };
        let alarm = |(subject, severity): &(&str, Severity)| Alarm {
            name: "disk".to_owned(),
            severity: *severity,
            subject: (*subject).to_owned(),
            message: format!("{subject} | is bad"),
            fix: "mend it".to_owned(),
            since_ms: 1,
            seen_by: vec![],
        };
        Status {
            cluster: "c".into(),
            epoch: 4,
            strategy: Strategy::Full,
            answered_by: name("n1"),
            metadata_leader: None,
            nodes: ["n1", "n2", "n3"].iter().map(node).collect(),
            shards_leaderless: vec![],
            may_fail_without_loss: 1,
            messages: vec![],
            alarms: alarms.iter().map(alarm).collect(),
            switches: Default::default(),
        }
    }

    fn nagios_of(status: Status) -> (Option<u8>, String) {
        let args = CheckArgs { format: Some(CheckFormat::Nagios) };
        let answered = answered(args, found(status));
        let Value::Text(text) = answered.value else { panic!("no text") };
        (answered.code, text)
    }

    #[test]
    fn all_is_well_in_one_line_with_figures() {
        let (code, text) = nagios_of(status(&[], &[]));
        assert_eq!(code, Some(0));
        let expected = "PPDB OK - 3 of 3 nodes up, full, epoch 4, 0 alarms | nodes_up=3;;;0;3 \
                        shards_leaderless=0;;;0 may_fail_without_loss=1;;;0 alarms=0;;;0";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_worst_comes_first_and_decides_the_exit_code() {
        let (code, text) = nagios_of(status(&["n2"], &[("n3", Severity::Critical)]));
        assert_eq!(code, Some(2));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("PPDB CRITICAL - n3   is bad; 2 of 3 nodes up"), "{text}");
        assert_eq!(lines[1], "CRITICAL: n3   is bad; mend it");
        assert_eq!(lines[2], "WARNING: n2 is down; start it with `ppdb serve`");
        let mut elsewhere = status(&[], &[("s3", Severity::Critical)]);
        elsewhere.alarms[0].name = Kind::NoLeader.rule().name.to_owned();
        assert_eq!(nagios_of(elsewhere).0, Some(2), "another node sees it");
        let leaderless = Status { shards_leaderless: vec![ShardId(3)], ..status(&["n2"], &[]) };
        assert_eq!(nagios_of(leaderless).0, Some(2));
        assert_eq!(nagios_of(status(&["n2"], &[])).0, Some(1));
        // What an alarm says already is not said twice; another one of the same node does not hide it.
        let disk = status(&["n2"], &[("n2", Severity::Warning)]);
        let mut down = disk.clone();
        down.alarms[0].name = Kind::NodeDown.rule().name.to_owned();
        for (status, lines) in [(disk, 3), (down, 2)] {
            let (code, text) = nagios_of(status);
            assert_eq!((code, text.lines().count()), (Some(1), lines), "{text}");
        }
    }

    #[test]
    fn nobody_to_ask_is_critical_and_a_wrong_certificate_is_unknown() {
        let args = CheckArgs::default();
        for (code, expected) in
            [(Code::Unreachable, 2), (Code::DeadlineExceeded, 2), (Code::BadCertificate, 3)]
        {
            let answered = failed(args, &Error::new(code, "why"));
            assert_eq!((answered.code, answered.yes), (Some(expected), false), "{code}");
        }
    }
}
