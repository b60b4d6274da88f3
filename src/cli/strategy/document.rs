//! Documents about strategies and operations: the JSON of the contract, and the table beside it. Pure.

use super::super::value::Doc;
use super::cost;
use super::follow::{Change, percent};
use crate::wire::client::Strategy;
use crate::wire::guard::{Failure, Guard, ServiceLevel, Stage};
use crate::wire::operation::{NodeProgress, Operation, Phase, Progress, StrategyView, Times};
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
        "soaking_ms": soaking_ms, "ended_ms": ended_ms, "copy_bytes_per_s": op.copy_bytes_per_s,
        "plan": op.terms.plan.map(|plan| plan.to_string()), "skipped": op.terms.skipped,
        "predicted": op.terms.predicted.as_ref().map(cost::predicted), "actual": cost::actual(op),
        "ratio": cost::ratio(op),
        "guard": guard(&op.guard), "last_failure": op.last_failure.as_ref().map(failure),
    })
}

fn guard(guard: &Guard) -> Json {
    json!({
        "stage": guard.stage.name(), "holds": guard.holds, "alarm": guard.alarm,
        "baseline": guard.baseline.as_ref().map(service),
    })
}

fn failure(failure: &Failure) -> Json {
    json!({ "at_ms": failure.at_ms, "what": failure.what })
}

/// How well the cluster serves, by the worst of its nodes.
fn service(level: &ServiceLevel) -> Json {
    let ms = |us: Option<u64>| us.map(|us| us as f64 / 1_000.0);
    json!({
        "reads": level.reads, "writes": level.writes, "errors": level.errors,
        "read_p99_ms": ms(level.read_p99_us), "write_p99_ms": ms(level.write_p99_us),
        "write_gap_ms": level.write_gap_ms,
    })
}

/// How far an operation is.
pub fn progress(progress: &Progress) -> Json {
    let pending: Vec<u16> = progress.pending.iter().map(|shard| shard.0).collect();
    let node = |n: &NodeProgress| json!({ "node": n.node, "bytes_done": n.bytes_done, "bytes_total": n.bytes_total });
    json!({
        "shards_done": progress.shards_done, "shards_total": progress.shards_total,
        "bytes_done": progress.bytes_done, "bytes_total": progress.bytes_total,
        "percent": percent(progress), "eta_s": progress.eta_s, "blocker": progress.blocker,
        "pending": pending, "nodes": progress.nodes.iter().map(node).collect::<Vec<_>>(),
        "bytes_per_s": progress.bytes_per_s, "limit_bytes_per_s": progress.limit_bytes_per_s,
        "service": service(&progress.service), "write_gap_ms": progress.write_gap_ms,
        "revert_left_s": progress.revert_left_ms.map(|ms| ms / 1_000),
    })
}

/// One change of an operation that is followed.
pub fn change(change: &Change) -> Json {
    json!({
        "operation": change.operation, "phase": change.phase.name(), "from": name(change.from),
        "to": name(change.to), "reason": change.reason, "guard": guard(&change.guard),
        "last_failure": change.last_failure.as_ref().map(failure),
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
    parts.extend(
        change
            .progress
            .as_ref()
            .and_then(|progress| service_line(progress, change.guard.baseline.as_ref())),
    );
    parts.extend(match change.guard.stage {
        _ if change.phase > Phase::Prepared => None,
        Stage::Free => None,
        stage => Some(format!("{} by the guard", stage.name())),
    });
    parts.extend(change.guard.alarm.as_ref().map(|why| format!("ALARM: {why}")));
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
    if progress.bytes_done < progress.bytes_total {
        let limit = match progress.limit_bytes_per_s {
            0 => String::new(),
            limit => format!(" (at most {}/s from each node)", show_size(limit)),
        };
        parts.push(format!("{}/s{limit}", show_size(progress.bytes_per_s)));
    }
    parts.extend(progress.eta_s.map(|s| format!("{} left", seconds(s))));
    if !progress.pending.is_empty() {
        let names: Vec<String> = progress.pending.iter().map(ToString::to_string).collect();
        parts.push(format!("pending: {}", names.join(" ")));
    }
    parts.extend(progress.blocker.as_ref().map(|what| format!("({what})")));
    parts.join("  ")
}

/// How well clients are served beside how it was before; none if nobody asks for anything.
fn service_line(progress: &Progress, baseline: Option<&ServiceLevel>) -> Option<String> {
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1_000.0);
    let now = progress.service.p99_us()?;
    let before = baseline.and_then(ServiceLevel::p99_us);
    let before = before.map_or("not known".to_owned(), ms);
    let gap_ms = progress.write_gap_ms;
    Some(format!("p99 {} (before {before})  longest write gap {gap_ms} ms", ms(now)))
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
        notes.extend(view.progress.iter().filter(|_| !op.phase.is_over()).flat_map(node_lines));
        notes.extend(failure_line(op));
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

/// How far each node is, and how long the way back is open.
fn node_lines(progress: &Progress) -> Vec<String> {
    let node = |n: &NodeProgress| {
        let (done, total) = (show_size(n.bytes_done), show_size(n.bytes_total));
        format!("  {}  {done} of {total}", n.node)
    };
    let open = progress.revert_left_ms.map(|ms| {
        format!("  the way back is open for {} more, then it is finalized", seconds(ms / 1_000))
    });
    progress.nodes.iter().map(node).chain(open).collect()
}

/// What went wrong last, unless the line before said so.
fn failure_line(op: &Operation) -> Option<String> {
    let failure = op.last_failure.as_ref()?;
    let told = op.reason.as_ref() == Some(&failure.what);
    let at = time(failure.at_ms).unwrap_or_default();
    (!told).then(|| format!("last failure: {} {at}", failure.what))
}

/// Which orders fit an operation where it stands.
fn next_order(op: &Operation) -> Option<String> {
    use crate::wire::operation::Phase::*;
    if op.guard.alarm.is_some() {
        let verb = if op.phase < Committing { "abort" } else { "revert" };
        return Some(format!("`ppdb strategy {verb} --operation {}` goes back", op.id));
    }
    let usual = match op.phase {
        Prepared if !op.commit_asked => Some("`strategy commit`, or `strategy abort`"),
        Prepared => Some("the commit follows as soon as it is safe; `strategy abort` gives it up"),
        Planned | Checkpointed | Copying | CaughtUp => Some(
            "`strategy watch` follows it, `strategy throttle RATE` sets its pace, `strategy abort` gives it up",
        ),
        Committing => Some("`strategy watch` follows it, `strategy revert` goes back"),
        Soaking => Some("`strategy revert` goes back, `strategy finalize` closes the way back"),
        Finalizing | Aborting | Reverting => Some("`strategy watch` follows it"),
        Finalized | Aborted | Reverted => None,
    };
    usual.map(str::to_owned)
}

/// What an order answers: its operation.
pub fn ordered(op: &Operation) -> Doc {
    let line = change_line(&Change::of(op, None));
    let mut notes = vec![line];
    notes.extend(cost::lines(op));
    notes.extend(next_order(op).map(|order| format!("next: {order}")));
    Doc { json: operation(op), notes, rows: vec![row(op)], header: HEADER.into() }
}

/// Columns of operations.
const HEADER: [&str; 13] = [
    "ID",
    "FROM",
    "TO",
    "PHASE",
    "STARTED",
    "TOOK",
    "PLAN",
    "FORECAST",
    "COPIED",
    "BY",
    "SKIPPED",
    "REASON",
    "LAST FAILURE",
];

/// The journal.
pub fn history(all: &[Operation]) -> Doc {
    Doc {
        json: all.iter().map(operation).collect(),
        header: HEADER.into(),
        rows: all.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn row(op: &Operation) -> Vec<String> {
    let settled = op.times.soaking_ms.or(op.times.ended_ms);
    let took = settled.map(|end| end.saturating_sub(op.times.started_ms));
    vec![
        op.id.to_string(),
        name(op.from).to_owned(),
        name(op.to).to_owned(),
        op.phase.name().to_owned(),
        time(op.times.started_ms).unwrap_or_else(|| "-".to_owned()),
        took.map_or("-".to_owned(), |ms| format!("{:.1}s", ms as f64 / 1000.0)),
        op.terms.plan.map_or("-".to_owned(), |plan| plan.to_string()),
        cost::forecast_cell(op),
        cost::copied_cell(op),
        op.by.clone(),
        op.terms.skipped.join(" "),
        op.reason.clone().unwrap_or_default(),
        op.last_failure.as_ref().map_or(String::new(), |failure| failure.what.clone()),
    ]
}

/// A time for people; none for years that no clock of ours has.
pub fn time(ms: u64) -> Option<String> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
    let at = at.filter(|_| ms < 253_402_300_800_000)?;
    Some(humantime::format_rfc3339_seconds(at).to_string())
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{operation as op, progress as far};
    use super::*;
    use crate::types::ShardId;

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
            "copy_bytes_per_s",
            "guard",
            "last_failure",
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
    fn an_alarm_comes_with_its_way_back_and_a_failure_with_its_time() {
        let level = |us| ServiceLevel { write_p99_us: Some(us), ..ServiceLevel::default() };
        let mut bad = op(7, Phase::Soaking);
        bad.guard.baseline = Some(level(3_000));
        bad.guard.alarm = Some("p99 of writes is 70.0 ms".into());
        bad.last_failure = Some(Failure { at_ms: 1_700_000_000_000, what: "it was slow".into() });
        let progress = Progress {
            service: level(70_000),
            write_gap_ms: 310,
            revert_left_ms: Some(3_600_000),
            ..Progress::default()
        };
        let told = StrategyView {
            strategy: Strategy::Full,
            epoch: 5,
            operation: Some(bad),
            progress: Some(progress),
        };
        let doc = view(&told, 12);
        let text = doc.notes.join("\n");
        for part in [
            "p99 70.0 ms (before 3.0 ms)  longest write gap 310 ms",
            "ALARM: p99 of writes is 70.0 ms",
            "last failure: it was slow 2023-11-14T22:13:20Z",
            "open for 1h more",
            "`ppdb strategy revert --operation 7` goes back",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(doc.json["operation"]["guard"]["baseline"]["write_p99_ms"], 3.0);
        assert_eq!(doc.json["operation"]["last_failure"]["what"], "it was slow");
        assert_eq!(doc.json["progress"]["revert_left_s"], 3_600);
    }

    #[test]
    fn each_node_is_shown_with_its_bytes_and_the_rate_with_its_limit() {
        let node = |node: &str, mib: u64| NodeProgress {
            node: node.into(),
            bytes_total: 8 << 20,
            bytes_done: mib << 20,
        };
        let progress = Progress {
            nodes: vec![node("n1", 8), node("n2", 2)],
            bytes_per_s: 3 << 20,
            limit_bytes_per_s: 2 << 20,
            eta_s: Some(4),
            ..far(3, 12)
        };
        let (operation, progress) = (Some(op(7, Phase::Copying)), Some(progress));
        let told = StrategyView { strategy: Strategy::Sharded, epoch: 4, operation, progress };
        let doc = view(&told, 12);
        let text = doc.notes.join("\n");
        for part in
            ["3.0 MiB/s (at most 2.0 MiB/s from each node)  4s left", "  n2  2.0 MiB of 8.0 MiB"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(doc.json["progress"]["nodes"][1]["bytes_done"], 2 << 20);
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
