//! Documents about strategies and operations: the JSON of the contract, and the table beside it. Pure.

use super::super::value::Doc;
use super::cost;
use super::follow::{Change, percent};
use crate::wire::client::Strategy;
use crate::wire::operation::{Operation, Progress, StrategyView, Times};
use serde_json::{Value as Json, json};
use std::time::{Duration, SystemTime};

/// Name of a strategy.
pub fn name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Sharded => "sharded",
        Strategy::Full => "full",
    }
}

/// An operation, as every door shows it.
pub fn operation(op: &Operation) -> Json {
    let Times { started_ms, prepared_ms, committed_ms, soaking_ms, ended_ms } = op.times;
    json!({
        "id": op.id, "phase": op.phase.name(), "over": op.phase.is_over(),
        "from": name(op.from), "to": name(op.to), "by": op.by, "reason": op.reason,
        "commit_asked": op.commit_asked, "copies_verified": op.verified.len(),
        "origin_epoch": op.checkpoint.as_ref().map(|checkpoint| checkpoint.epoch),
        "started_ms": started_ms, "prepared_ms": prepared_ms, "committed_ms": committed_ms,
        "soaking_ms": soaking_ms, "ended_ms": ended_ms,
        "plan": op.terms.plan.map(|plan| plan.to_string()), "skipped": op.terms.skipped,
        "predicted": op.terms.predicted.as_ref().map(cost::predicted), "actual": cost::actual(op),
        "ratio": cost::ratio(op),
    })
}

/// How far an operation is.
pub fn progress(progress: &Progress) -> Json {
    let pending: Vec<u16> = progress.pending.iter().map(|shard| shard.0).collect();
    json!({
        "shards_done": progress.shards_done, "shards_total": progress.shards_total,
        "bytes_done": progress.bytes_done, "bytes_total": progress.bytes_total,
        "percent": percent(progress), "eta_s": progress.eta_s, "blocker": progress.blocker,
        "pending": pending,
    })
}

/// One change of an operation that is followed.
pub fn change(change: &Change) -> Json {
    json!({
        "operation": change.operation, "phase": change.phase.name(), "from": name(change.from),
        "to": name(change.to), "reason": change.reason,
        "progress": change.progress.as_ref().map(progress),
    })
}

/// The same in one line for people.
pub fn change_line(change: &Change) -> String {
    let mut parts = vec![format!(
        "operation {}  {} -> {}  {}",
        change.operation,
        name(change.from),
        name(change.to),
        change.phase.name()
    )];
    parts.extend(change.progress.as_ref().map(progress_line).filter(|line| !line.is_empty()));
    parts.extend(change.reason.as_ref().map(|reason| format!("because: {reason}")));
    parts.join("  ")
}

fn progress_line(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if progress.shards_total > 0 {
        parts.push(format!("{}/{} shards", progress.shards_done, progress.shards_total));
    }
    if let Some(percent) = percent(progress) {
        parts.push(format!("{percent} % of {}", show_size(progress.bytes_total)));
    }
    parts.extend(progress.eta_s.map(|s| format!("{} left", seconds(s))));
    if !progress.pending.is_empty() {
        let names: Vec<String> = progress.pending.iter().map(ToString::to_string).collect();
        parts.push(format!("pending: {}", names.join(" ")));
    }
    parts.extend(progress.blocker.as_ref().map(|what| format!("({what})")));
    parts.join("  ")
}

/// A size for people, to three digits.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / factor as f64),
        None => format!("{bytes} B"),
    }
}

fn seconds(s: u64) -> String {
    humantime::format_duration(Duration::from_secs(s)).to_string()
}

/// What `strategy show` answers. `shards` is their number.
pub fn view(view: &StrategyView, shards: usize) -> Doc {
    let json = json!({
        "strategy": name(view.strategy), "epoch": view.epoch, "shards": shards,
        "operation": view.operation.as_ref().map(operation),
        "progress": view.progress.as_ref().map(progress),
    });
    let mut notes = vec![format!("{}  epoch {}  {shards} shards", name(view.strategy), view.epoch)];
    if let Some(op) = &view.operation {
        notes.push(change_line(&Change::of(op, view.progress.as_ref())));
        notes.extend(cost::lines(op));
        notes.extend(next_order(op).map(|order| format!("next: {order}")));
    }
    Doc {
        json,
        header: vec!["STRATEGY", "EPOCH", "SHARDS", "OPERATION", "PHASE"],
        rows: vec![vec![
            name(view.strategy).to_owned(),
            view.epoch.to_string(),
            shards.to_string(),
            view.operation.as_ref().map_or("-".to_owned(), |op| op.id.to_string()),
            view.operation.as_ref().map_or("-".to_owned(), |op| op.phase.name().to_owned()),
        ]],
        notes,
    }
}

/// Which orders fit an operation where it stands.
fn next_order(op: &Operation) -> Option<&'static str> {
    use crate::wire::operation::Phase::*;
    match op.phase {
        Prepared if !op.commit_asked => Some("`strategy commit`, or `strategy abort`"),
        Prepared => Some("the commit follows as soon as it is safe; `strategy abort` gives it up"),
        Planned | Checkpointed | Copying | CaughtUp => {
            Some("`strategy watch` follows it, `strategy abort` gives it up")
        }
        Committing => Some("`strategy watch` follows it, `strategy revert` goes back"),
        Soaking => Some("`strategy revert` goes back, `strategy finalize` closes the way back"),
        Finalizing | Aborting | Reverting => Some("`strategy watch` follows it"),
        Finalized | Aborted | Reverted => None,
    }
}

/// What an order answers: its operation.
pub fn ordered(op: &Operation) -> Doc {
    let line = change_line(&Change::of(op, None));
    let mut notes = vec![line];
    notes.extend(cost::lines(op));
    notes.extend(next_order(op).map(|order| format!("next: {order}")));
    Doc { json: operation(op), notes, rows: vec![row(op)], ..Doc::default() }
}

/// The journal.
pub fn history(all: &[Operation]) -> Doc {
    Doc {
        json: all.iter().map(operation).collect(),
        header: vec![
            "ID", "FROM", "TO", "PHASE", "STARTED", "TOOK", "PLAN", "FORECAST", "COPIED", "BY",
            "SKIPPED", "REASON",
        ],
        rows: all.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn row(op: &Operation) -> Vec<String> {
    let started = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(op.times.started_ms));
    let started = started.and_then(|at| {
        // The formatter refuses years that no clock of ours has.
        (op.times.started_ms < 253_402_300_800_000)
            .then(|| humantime::format_rfc3339_seconds(at).to_string())
    });
    let settled = op.times.soaking_ms.or(op.times.ended_ms);
    let took = settled.map(|end| end.saturating_sub(op.times.started_ms));
    vec![
        op.id.to_string(),
        name(op.from).to_owned(),
        name(op.to).to_owned(),
        op.phase.name().to_owned(),
        started.unwrap_or_else(|| "-".to_owned()),
        took.map_or("-".to_owned(), |ms| format!("{:.1}s", ms as f64 / 1000.0)),
        op.terms.plan.map_or("-".to_owned(), |plan| plan.to_string()),
        cost::forecast_cell(op),
        cost::copied_cell(op),
        op.by.clone(),
        op.terms.skipped.join(" "),
        op.reason.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{operation as op, progress as far};
    use super::*;
    use crate::types::ShardId;
    use crate::wire::operation::Phase;

    #[test]
    fn an_operation_has_the_fields_of_the_contract() {
        let json = operation(&op(7, Phase::Soaking));
        for field in [
            "id",
            "phase",
            "over",
            "from",
            "to",
            "by",
            "reason",
            "commit_asked",
            "copies_verified",
            "origin_epoch",
            "started_ms",
            "prepared_ms",
            "committed_ms",
            "soaking_ms",
            "ended_ms",
            "plan",
            "skipped",
            "predicted",
            "actual",
            "ratio",
        ] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["phase"], "soaking");
        assert_eq!(
            (&json["id"], &json["to"], &json["over"]),
            (&json!(7), &json!("full"), &json!(false))
        );
    }

    #[test]
    fn a_view_tells_what_holds_what_runs_and_what_may_be_ordered() {
        let told = StrategyView {
            strategy: Strategy::Sharded,
            epoch: 4,
            operation: Some(op(7, Phase::Copying)),
            progress: Some(far(3, 12)),
        };
        let doc = view(&told, 12);
        assert_eq!(doc.json["operation"]["id"], 7);
        assert_eq!(doc.json["progress"]["percent"], 25);
        assert_eq!(doc.json["shards"], 12);
        assert!(doc.notes[1].contains("3/12 shards  25 % of"), "{:?}", doc.notes);
        assert!(doc.notes[2].contains("strategy abort"), "{:?}", doc.notes);
        let idle = StrategyView { operation: None, progress: None, ..told };
        assert_eq!(view(&idle, 12).json["operation"], Json::Null);
    }

    #[test]
    fn a_line_names_what_is_waited_for_and_why_it_ended() {
        let mut far = far(11, 12);
        far.blocker = Some("n2 is away".into());
        far.pending = vec![ShardId(3)];
        let line = change_line(&Change::of(&op(7, Phase::Committing), Some(&far)));
        assert!(line.contains("pending: s3") && line.contains("(n2 is away)"), "{line}");
        let mut ended = op(7, Phase::Aborted);
        ended.reason = Some("the sale is off".into());
        let line = change_line(&Change::of(&ended, Some(&far)));
        assert!(line.ends_with("because: the sale is off"), "{line}");
        assert!(!line.contains("shards"), "what is over has no progress: {line}");
    }

    #[test]
    fn a_journal_of_any_clock_can_be_printed() {
        let mut odd = op(1, Phase::Finalized);
        odd.times.started_ms = u64::MAX;
        let doc = history(&[op(7, Phase::Aborted), odd]);
        assert_eq!(doc.rows.len(), 2);
        assert_eq!(doc.rows[1][4], "-");
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
    }
}
