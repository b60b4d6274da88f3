//! `op list` and `op show`: the operation log as any node knows it.

use super::args::oplog::OpLog;
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::strategy::document::time;
use super::value::{Answered, Doc};
use crate::cluster::oplog::RECORDS_MAX;
use crate::types::{Code, Error, NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::oplog::{Outcome, Record};
use serde_json::{Value as Json, json};

/// Characters of an id that name a record at least: fewer are too easily another one's.
const ID_CHARS_MIN: usize = 4;

/// Carries out one question.
pub async fn run<C: Caller>(caller: &C, question: OpLog, call: &Call) -> Result<Answered> {
    let limit = match question {
        OpLog::List { limit } => limit,
        OpLog::Show { .. } => RECORDS_MAX as u32,
    };
    let (node, command) = (call.globals.node.as_ref(), Command::OperationLog { limit });
    let (answer, by) = caller.command(command, node, call.left()).await?;
    let Answer::OperationLog(records) = answer else { return Err(other_answer()) };
    let doc = match question {
        OpLog::List { .. } => list(&records),
        OpLog::Show { id } => show(find(&records, &id)?),
    };
    Ok(Answered::doc(doc, Some(by)))
}

/// The record with that number, or else the only one whose id begins so.
fn find<'a>(records: &'a [Record], text: &str) -> Result<&'a Record> {
    let number = text.parse::<u64>().ok();
    if let Some(found) = records.iter().find(|record| Some(record.number) == number) {
        return Ok(found);
    }
    let lower = text.to_ascii_lowercase();
    let mut fitting = records.iter().filter(|record| id(record).starts_with(&lower));
    match (fitting.next(), fitting.next()) {
        (Some(_), _) if text.len() < ID_CHARS_MIN => Err(Error::new(
            Code::BadRequest,
            format!("`{text}` is too short: an id is named by {ID_CHARS_MIN} characters or more"),
        )),
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Error::new(
            Code::BadRequest,
            format!("more than one operation has an id that begins with `{text}`"),
        )),
        (None, _) => Err(Error::new(
            Code::NotFound,
            format!(
                "the log has no operation `{text}`; it keeps the last {RECORDS_MAX}, see `op list`"
            ),
        )),
    }
}

/// The key, as people see it.
fn id(record: &Record) -> String {
    format!("{:016x}", record.key)
}

fn outcome(record: &Record) -> &'static str {
    record.outcome.as_ref().map_or("running", Outcome::name)
}

fn refusal(record: &Record) -> (Option<&'static str>, Option<&str>) {
    match &record.outcome {
        Some(Outcome::Failed { code, message }) => (Some(code.name()), Some(message)),
        Some(Outcome::Lost) => (None, Some("its node went away before it could say")),
        _ => (None, None),
    }
}

fn json(record: &Record) -> Json {
    let (code, message) = refusal(record);
    json!({
        "number": record.number, "id": id(record), "began_ms": record.began_ms, "by": record.by,
        "from": record.from, "through": record.through.as_ref().map(NodeName::as_str),
        "node": record.node.as_str(), "command": record.command,
        "plan": record.plan.map(|plan| plan.to_string()), "operation": record.operation,
        "outcome": outcome(record), "code": code, "message": message, "took_ms": record.took_ms,
    })
}

fn list(records: &[Record]) -> Doc {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let row = |record: &Record| {
        let outcome = match refusal(record).0 {
            Some(code) => format!("{}: {code}", outcome(record)),
            None => outcome(record).to_owned(),
        };
        vec![
            record.number.to_string(),
            or_dash(time(record.began_ms)),
            record.by.clone(),
            record.from.clone(),
            record.node.to_string(),
            outcome,
            or_dash(record.took_ms.map(|ms| ms.to_string())),
            record.command.clone(),
        ]
    };
    Doc {
        json: records.iter().map(json).collect(),
        header: vec!["N", "BEGAN", "BY", "FROM", "NODE", "OUTCOME", "MS", "COMMAND"],
        rows: records.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn show(record: &Record) -> Doc {
    let (code, message) = refusal(record);
    let through = record.through.as_ref().map(|node| format!("{node}, which passed it on"));
    let fields = [
        ("number", Some(record.number.to_string())),
        ("id", Some(id(record))),
        ("began", time(record.began_ms)),
        ("by", Some(record.by.clone())),
        ("from", Some(record.from.clone())),
        ("through", through),
        ("node", Some(record.node.to_string())),
        ("command", Some(record.command.clone())),
        ("plan", record.plan.map(|plan| plan.to_string())),
        ("operation", record.operation.map(|operation| operation.to_string())),
        ("outcome", Some(outcome(record).to_owned())),
        ("code", code.map(str::to_owned)),
        ("message", message.map(str::to_owned)),
        ("took ms", record.took_ms.map(|ms| ms.to_string())),
    ];
    let row = |(name, value): (&str, Option<String>)| Some(vec![name.to_owned(), value?]);
    Doc {
        json: json(record),
        header: vec!["FIELD", "VALUE"],
        rows: fields.into_iter().filter_map(row).collect(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::{Cli, Verb};
    use super::*;
    use crate::wire::client::{Role, Strategy};
    use crate::wire::command::Formation;
    use crate::wire::operation::StrategyOrder;
    use crate::wire::terms::{PlanId, Terms};
    use crate::wire::typed::typed;
    use std::ffi::OsString;

    fn record(number: u64, key: u64, outcome: Option<Outcome>) -> Record {
        Record {
            number,
            key,
            by: "user ann".into(),
            from: "10.0.0.9:5000".into(),
            through: NodeName::new("n3").ok(),
            node: NodeName::new("n1").unwrap(),
            command: "strategy commit".into(),
            plan: Some(PlanId(3)),
            operation: Some(7),
            began_ms: 1_700_000_000_000,
            took_ms: outcome.as_ref().map(|_| 4),
            outcome,
        }
    }

    #[test]
    fn an_operation_is_named_by_its_number_or_the_beginning_of_its_id() {
        let all = [
            record(12, 0xabcd_ef00_0000_0000, None),
            record(11, 0xabcd_0000_0000_0000, None),
            record(3, 0x12ff_0000_0000_0000, None),
        ];
        let found = |text: &str| find(&all, text).map(|record| record.number);
        assert_eq!(found("12"), Ok(12));
        assert_eq!(found("abcde"), Ok(12));
        assert_eq!(found("ABCD0"), Ok(11));
        assert_eq!(found("12ff"), Ok(3));
        for (text, code) in [
            ("abcd", Code::BadRequest),
            ("abc", Code::BadRequest),
            ("13", Code::NotFound),
            ("ffff", Code::NotFound),
            ("", Code::BadRequest),
        ] {
            assert_eq!(found(text).unwrap_err().code, code, "{text}");
        }
    }

    #[test]
    fn every_way_to_end_has_a_word() {
        let failed = Outcome::Failed { code: Code::PrecheckFailed, message: "no room".into() };
        let all = [
            record(4, 4, None),
            record(3, 3, Some(Outcome::Lost)),
            record(2, 2, Some(failed.clone())),
            record(1, 1, Some(Outcome::Ok)),
        ];
        let doc = list(&all);
        let words: Vec<&str> = doc.rows.iter().map(|row| row[5].as_str()).collect();
        assert_eq!(words, ["running", "unknown", "fail: PrecheckFailed", "ok"]);
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
        assert_eq!(doc.json[2]["message"], "no room");
        assert_eq!((&doc.json[3]["code"], &doc.json[0]["took_ms"]), (&Json::Null, &Json::Null));
        let one = show(&record(2, 2, Some(failed)));
        assert_eq!((&one.json["plan"], &one.json["through"]), (&json!("P-3"), &json!("n3")));
        let message = ["message", "no room"].map(str::to_owned).to_vec();
        assert!(one.rows.contains(&message), "{:?}", one.rows);
    }

    /// What the log shows may be typed again.
    #[test]
    fn the_text_of_an_order_parses() {
        let terms = Terms {
            plan: Some(PlanId(17)),
            skipped: vec!["load".into()],
            max_p99_ms: Some(50),
            max_error_rate_ppm: Some(5_000),
            max_write_gap_ms: Some(300),
            auto_revert_within_ms: Some(5_400_000),
            ..Terms::default()
        };
        let (to, reason) = (Strategy::Full, "the 'sale' is off".to_owned());
        let orders = [
            StrategyOrder::Prepare { to, terms: terms.clone() },
            StrategyOrder::Switch { to: Strategy::Sharded, terms },
            StrategyOrder::Commit,
            StrategyOrder::Abort { reason: reason.clone() },
            StrategyOrder::Revert { reason },
            StrategyOrder::Finalize,
            StrategyOrder::Throttle { copy_bytes_per_s: Some(8 << 20) },
            StrategyOrder::Throttle { copy_bytes_per_s: Some(0) },
            StrategyOrder::Throttle { copy_bytes_per_s: None },
        ];
        let member = |n: &str, role| (NodeName::new(n).unwrap(), role, format!("{n}.example:7101"));
        let members = vec![member("n1", Role::Primary), member("r1", Role::Replica)];
        let mut commands = vec![
            Command::Set { name: "log.level".into(), value: String::new() },
            Command::ClusterInit(Formation { cluster: "c".into(), shards: 12, members }),
        ];
        commands.extend(orders.clone().map(Command::Strategy));
        let begins = |order: &StrategyOrder| {
            matches!(order, StrategyOrder::Prepare { .. } | StrategyOrder::Switch { .. })
        };
        let steers = orders.into_iter().filter(|order| !begins(order));
        commands.extend(steers.map(|order| Command::StrategyOf { operation: 7, order }));
        for command in commands {
            let text = typed(&command).expect("an order");
            let words = shlex::split(&text).expect("balanced quotes");
            let parsed = Cli::from_words(words.into_iter().map(OsString::from));
            let verb = parsed.unwrap_or_else(|error| panic!("{text}: {error}")).verb;
            assert!(!matches!(verb, Verb::Data(_)), "{text}");
        }
    }
}
