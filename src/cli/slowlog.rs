//! `slowlog`: the requests that took longest to be answered, of all nodes or of one.

use super::caller::{Caller, other_answer};
use super::everywhere;
use super::session::Call;
use super::strategy::document::time;
use super::value::{Answered, Doc};
use crate::types::{NodeName, Result};
use crate::wire::command::{Answer, Command};
use crate::wire::slowlog::SlowRequest;
use serde_json::{Map as JsonMap, Value as Json, json};

/// A slow request and the node that answered it.
type Of = (NodeName, SlowRequest);

/// Asks every node, or the one that was named.
pub async fn run<C: Caller>(caller: &C, limit: u32, call: &Call) -> Result<Answered> {
    let nodes = everywhere::nodes(caller, call).await?;
    let answers = everywhere::ask(caller, &nodes, call, |_| Command::SlowLog { limit }).await;
    if let Some(error) = answers.failure() {
        return Err(error.clone());
    }
    let (mut all, note) = (Vec::new(), answers.note());
    for (node, answer) in answers.given {
        let Answer::SlowLog(requests) = answer else { return Err(other_answer()) };
        all.extend(requests.into_iter().map(|request| (node.clone(), request)));
    }
    newest(&mut all, limit);
    let doc = doc(&all, &answers.silent);
    Ok(Answered::doc(Doc { notes: note.into_iter().collect(), ..doc }, None))
}

/// The newest of all nodes, first.
fn newest(all: &mut Vec<Of>, limit: u32) {
    all.sort_by(|(a, one), (b, other)| {
        (other.at_ms, b, other.number).cmp(&(one.at_ms, a, one.number))
    });
    all.truncate(limit as usize);
}

fn doc(all: &[Of], silent: &[NodeName]) -> Doc {
    let silent: Vec<&str> = silent.iter().map(NodeName::as_str).collect();
    let requests: Vec<Json> = all.iter().map(json_of).collect();
    Doc {
        json: json!({ "requests": requests, "no_answer": silent }),
        header: vec!["TIME", "NODE", "KIND", "OPS", "SHARD", "MS", "PHASES", "BY", "FAILED", "KEY"],
        rows: all.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}

fn json_of((node, request): &Of) -> Json {
    let phases: JsonMap<String, Json> = request
        .phases
        .named()
        .into_iter()
        .map(|(name, us)| (format!("{name}_ms"), json!(ms(us))))
        .collect();
    json!({
        "at_ms": request.at_ms, "node": node.as_str(), "number": request.number,
        "kind": request.kind.name(), "operations": request.operations, "key": request.key,
        "by": request.by, "shard": request.shard.0, "total_ms": ms(request.total_us),
        "phases": phases, "code": request.code.map(|code| code.name()),
    })
}

fn row((node, request): &Of) -> Vec<String> {
    let phase = |(name, us): (&str, u64)| format!("{name} {:.1}", ms(us));
    let phases: Vec<String> = request.phases.named().into_iter().map(phase).collect();
    vec![
        time(request.at_ms).unwrap_or_else(|| "-".into()),
        node.to_string(),
        request.kind.name().to_owned(),
        request.operations.to_string(),
        request.shard.to_string(),
        format!("{:.1}", ms(request.total_us)),
        if phases.is_empty() { "-".into() } else { phases.join(" ") },
        request.by.clone(),
        request.code.map_or("-", |code| code.name()).to_owned(),
        request.key.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::name;
    use super::*;
    use crate::types::{Code, ShardId};
    use crate::wire::slowlog::{Phases, SlowKind};

    fn request(at_ms: u64, phases: Phases) -> SlowRequest {
        SlowRequest {
            number: at_ms,
            at_ms,
            kind: SlowKind::Write,
            operations: 3,
            key: "cart:42".into(),
            by: "user ann".into(),
            shard: ShardId(3),
            total_us: 12_300,
            phases,
            code: None,
        }
    }

    #[test]
    fn the_newest_come_first_whoever_answered_them() {
        let mut all = vec![
            (name("n1"), request(1, Phases::Unknown)),
            (name("n2"), request(3, Phases::Unknown)),
            (name("n1"), request(2, Phases::Unknown)),
        ];
        newest(&mut all, 2);
        let times: Vec<u64> = all.iter().map(|(_, request)| request.at_ms).collect();
        assert_eq!(times, [3, 2]);
    }

    #[test]
    fn phases_are_shown_by_name_and_a_failure_by_its_code() {
        let phases =
            Phases::Write { queue_us: 200, wal_us: 11_000, commit_us: 1_000, apply_us: 100 };
        let failed = SlowRequest { code: Some(Code::Unknown), ..request(9, Phases::Unknown) };
        let all = [(name("n1"), request(8, phases)), (name("n1"), failed)];
        let doc = doc(&all, &[name("n3")]);
        assert_eq!(doc.json["requests"][0]["phases"]["wal_ms"], 11.0);
        assert_eq!(doc.json["requests"][1]["code"], "Unknown");
        assert_eq!(doc.json["no_answer"], json!(["n3"]));
        assert_eq!(doc.rows[0][6], "queue 0.2 wal 11.0 commit 1.0 apply 0.1");
        assert_eq!((doc.rows[1][6].as_str(), doc.rows[1][8].as_str()), ("-", "Unknown"));
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }
}
