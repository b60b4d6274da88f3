//! What a switch was predicted to cost beside what it did cost, in JSON, in a table and in lines. Pure.

use super::document::show_size;
use crate::wire::operation::Operation;
use crate::wire::terms::{NodePredicted, Predicted};
use serde_json::{Value as Json, json};

/// A prediction.
pub fn predicted(told: &Predicted) -> Json {
    let node = |node: &NodePredicted| {
        json!({
            "node": node.node.as_str(), "in_bytes": node.in_bytes, "out_bytes": node.out_bytes,
            "disk_peak_bytes": node.disk_peak_bytes,
        })
    };
    let nodes: Vec<Json> = told.nodes.iter().map(node).collect();
    json!({
        "copy_bytes": told.copy_bytes, "took_ms": told.took_ms, "write_gap_ms": told.write_gap_ms,
        "nodes": nodes,
    })
}

/// What it cost so far, where it is known.
pub fn actual(op: &Operation) -> Json {
    json!({
        "copy_bytes": op.actual.copy_bytes, "took_ms": op.times.took_ms(),
        "write_gap_ms": op.actual.write_gap_ms,
    })
}

/// Actual by predicted, where both are known.
pub fn ratio(op: &Operation) -> Json {
    let told = op.terms.predicted.as_ref();
    json!({
        "copy_bytes": of(op.actual.copy_bytes, told.map(|told| told.copy_bytes)),
        "took": of(op.times.took_ms(), told.map(|told| told.took_ms)),
        "write_gap": of(op.actual.write_gap_ms, told.map(|told| told.write_gap_ms)),
    })
}

/// To two digits after the point; none of nothing.
fn of(actual: Option<u64>, predicted: Option<u64>) -> Option<f64> {
    let (actual, predicted) = (actual?, predicted.filter(|predicted| *predicted > 0)?);
    Some((actual as f64 * 100.0 / predicted as f64).round() / 100.0)
}

/// What was predicted for the time.
pub fn forecast_cell(op: &Operation) -> String {
    let told = op.terms.predicted.as_ref();
    told.map_or("-".to_owned(), |told| seconds(told.took_ms))
}

/// What was copied, and what was predicted for that.
pub fn copied_cell(op: &Operation) -> String {
    let told = op.terms.predicted.as_ref().map(|told| show_size(told.copy_bytes));
    match (op.actual.copy_bytes.map(show_size), told) {
        (Some(copied), Some(told)) => format!("{copied} of {told}"),
        (Some(copied), None) => copied,
        (None, Some(told)) => format!("- of {told}"),
        (None, None) => "-".to_owned(),
    }
}

/// Lines for people: the terms, and the forecast beside what came of it.
pub fn lines(op: &Operation) -> Vec<String> {
    let mut lines = vec![];
    if let Some(plan) = op.terms.plan {
        let skipped = match op.terms.skipped.as_slice() {
            [] => String::new(),
            names => format!(", checks skipped by {}: {}", op.by, names.join(" ")),
        };
        lines.push(format!("plan {plan}{skipped}"));
    }
    let Some(told) = &op.terms.predicted else { return lines };
    let line = |what: &str, told: String, actual: Option<String>, ratio: Option<f64>| {
        let actual = actual.unwrap_or("not known yet".to_owned());
        let ratio = ratio.map_or(String::new(), |ratio| format!(" ({ratio:.2}x)"));
        format!("{what}: predicted {told}, actual {actual}{ratio}")
    };
    lines.push(line(
        "copied",
        show_size(told.copy_bytes),
        op.actual.copy_bytes.map(show_size),
        of(op.actual.copy_bytes, Some(told.copy_bytes)),
    ));
    let took = op.times.took_ms();
    lines.push(line(
        "took",
        seconds(told.took_ms),
        took.map(seconds),
        of(took, Some(told.took_ms)),
    ));
    if let Some(gap) = op.actual.write_gap_ms {
        lines.push(line(
            "longest gap between writes",
            format!("{} ms", told.write_gap_ms),
            Some(format!("{gap} ms")),
            of(Some(gap), Some(told.write_gap_ms)),
        ));
    }
    lines
}

/// Seconds for people.
pub fn seconds(ms: u64) -> String {
    format!("{:.1}s", ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::operation;
    use super::*;
    use crate::wire::operation::{Phase, Times};
    use crate::wire::terms::{Actual, PlanId, Terms};

    fn done() -> Operation {
        Operation {
            times: Times {
                started_ms: 1_000,
                prepared_ms: Some(3_000),
                committed_ms: Some(60_000),
                soaking_ms: Some(60_500),
                ended_ms: None,
            },
            terms: Terms {
                plan: Some(PlanId(17)),
                skipped: vec!["load".into(), "disk".into()],
                predicted: Some(Predicted {
                    copy_bytes: 200 << 20,
                    took_ms: 2_000,
                    ..Predicted::default()
                }),
                ..Terms::default()
            },
            actual: Actual { copy_bytes: Some(210 << 20), write_gap_ms: None },
            ..operation(7, Phase::Soaking)
        }
    }

    #[test]
    fn predicted_and_actual_stand_side_by_side() {
        let op = done();
        assert_eq!(actual(&op)["took_ms"], 2_500, "the time it was held prepared does not count");
        assert_eq!((&ratio(&op)["took"], &ratio(&op)["copy_bytes"]), (&json!(1.25), &json!(1.05)));
        assert_eq!(ratio(&op)["write_gap"], Json::Null);
        let lines = lines(&op);
        assert_eq!(lines[0], "plan P-17, checks skipped by user ann: load disk");
        assert_eq!(lines[1], "copied: predicted 200.0 MiB, actual 210.0 MiB (1.05x)");
        assert_eq!(lines[2], "took: predicted 2.0s, actual 2.5s (1.25x)");
        assert_eq!(lines.len(), 3);
        assert_eq!(copied_cell(&op), "210.0 MiB of 200.0 MiB");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let begun = Operation { times: Times::default(), actual: Actual::default(), ..done() };
        assert_eq!(
            (&actual(&begun)["took_ms"], &ratio(&begun)["took"]),
            (&Json::Null, &Json::Null)
        );
        assert!(lines(&begun)[2].ends_with("actual not known yet"), "{:?}", lines(&begun));
        let bare = operation(7, Phase::Soaking);
        assert!(lines(&bare).is_empty());
        assert_eq!((forecast_cell(&bare), copied_cell(&bare)), ("-".into(), "-".into()));
        let mut nothing = done();
        nothing.terms.predicted = Some(Predicted::default());
        assert_eq!(ratio(&nothing)["copy_bytes"], Json::Null, "nothing is no measure");
    }
}
