//! What `strategy plan` answers: the verdict, the four questions, the forecast, each check. Pure.

use super::super::value::Doc;
use super::cost;
use super::document::{name, show_size, time};
use crate::wire::plan::{Check, Field, PlanHead, Precheck, Verdict};
use crate::wire::terms::NodePredicted;
use serde_json::{Map, Value as Json, json};

/// The document.
pub fn document(precheck: &Precheck) -> Doc {
    Doc {
        json: json(precheck),
        header: vec!["CHECK", "NODE", "VALUE", "LIMIT", "AGE", "VERDICT", "MESSAGE"],
        rows: precheck.checks.iter().map(row).collect(),
        notes: notes(precheck),
    }
}

fn json(precheck: &Precheck) -> Json {
    let yes = |field| precheck.field(field) != Verdict::NoGo;
    let questions: [Field; 3] =
        [Field::SystemHealthy, Field::NetworkStable, Field::EnoughResources];
    let mut fields: Map<String, Json> =
        questions.into_iter().map(|field| (field.name().to_owned(), json!(yes(field)))).collect();
    let impact = f64::from(precheck.impact_percent()) / 100.0;
    fields.insert(Field::EstimatedImpact.name().to_owned(), json!(impact));
    json!({
        "to": name(precheck.to), "verdict": precheck.verdict.name(),
        "may_start": precheck.verdict != Verdict::NoGo,
        "plan": precheck.plan.map(|plan| plan.id.to_string()),
        "expires_ms": precheck.plan.map(|plan| plan.expires_ms),
        "copy_bytes": precheck.predicted.copy_bytes, "fields": fields,
        "predicted": cost::predicted(&precheck.predicted),
        "checks": precheck.checks.iter().map(check).collect::<Vec<_>>(),
    })
}

fn check(check: &Check) -> Json {
    json!({
        "name": check.name, "field": check.field.name(), "verdict": check.verdict.name(),
        "skipped": check.skipped, "node": check.node.as_ref().map(|node| node.as_str()),
        "value": check.value, "limit": check.limit, "age_ms": check.age_ms,
        "used_percent": check.used_percent, "message": check.message,
    })
}

fn row(check: &Check) -> Vec<String> {
    let verdict = match check.skipped {
        true => format!("{}, skipped", check.verdict.name()),
        false => check.verdict.name().to_owned(),
    };
    vec![
        check.name.clone(),
        check.node.as_ref().map_or("-".to_owned(), |node| node.to_string()),
        check.value.clone(),
        check.limit.clone(),
        cost::seconds(check.age_ms),
        verdict,
        check.message.clone(),
    ]
}

fn notes(precheck: &Precheck) -> Vec<String> {
    let verdict = match precheck.verdict {
        Verdict::Go => "GO",
        Verdict::Warn => "WARN: possible, at the price the messages name",
        Verdict::NoGo => "NO-GO: nothing was changed",
    };
    let told = &precheck.predicted;
    let to = name(precheck.to);
    let mut notes = vec![
        format!("to {to}: {verdict}"),
        format!(
            "forecast: {} to copy, {} in all, at most {} ms without a write",
            show_size(told.copy_bytes),
            cost::seconds(told.took_ms),
            told.write_gap_ms
        ),
    ];
    let moves = |node: &&NodePredicted| node.in_bytes + node.out_bytes + node.disk_peak_bytes > 0;
    notes.extend(told.nodes.iter().filter(moves).map(|node| {
        format!(
            "forecast for {}: {} in, {} out, {} more on its disk at the peak",
            node.node,
            show_size(node.in_bytes),
            show_size(node.out_bytes),
            show_size(node.disk_peak_bytes)
        )
    }));
    let fields = Field::ALL.map(|field| format!("{} {}", field.name(), answer(precheck, field)));
    notes.push(fields.join("  "));
    notes.extend(precheck.plan.map(|plan| {
        format!("plan {}, good for 15 minutes: `strategy switch {to} --plan {}`", plan.id, plan.id)
    }));
    notes
}

/// The plans that are kept.
pub fn list(all: &[PlanHead]) -> Doc {
    let json = |plan: &PlanHead| {
        json!({
            "plan": plan.id.to_string(), "to": name(plan.to), "by": plan.by,
            "expires_ms": plan.expires_ms, "copy_bytes": plan.copy_bytes,
            "took_ms": plan.took_ms, "may_start": plan.outdated.is_none(),
            "outdated": plan.outdated,
        })
    };
    let row = |plan: &PlanHead| {
        vec![
            plan.id.to_string(),
            name(plan.to).to_owned(),
            show_size(plan.copy_bytes),
            cost::seconds(plan.took_ms),
            time(plan.expires_ms).unwrap_or_else(|| "-".to_owned()),
            plan.by.clone(),
            plan.outdated.clone().unwrap_or_else(|| "may start a switch".to_owned()),
        ]
    };
    Doc {
        json: all.iter().map(json).collect(),
        header: vec!["PLAN", "TO", "COPY", "TAKES", "EXPIRES", "BY", "STATE"],
        rows: all.iter().map(row).collect(),
        notes: Vec::new(),
    }
}

fn answer(precheck: &Precheck, field: Field) -> String {
    match (field, precheck.field(field)) {
        (Field::EstimatedImpact, _) => format!("{} %", precheck.impact_percent()),
        (_, Verdict::NoGo) => "no".to_owned(),
        (_, _) => "yes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::precheck;
    use super::*;

    #[test]
    fn a_plan_shows_each_check_with_value_and_limit() {
        let told = precheck(Verdict::NoGo);
        let doc = document(&told);
        assert_eq!(doc.json["may_start"], false);
        assert_eq!((&doc.json["plan"], &doc.json["expires_ms"]), (&Json::Null, &Json::Null));
        let disk = &doc.json["checks"][1];
        assert_eq!((&disk["node"], &disk["verdict"]), (&json!("n2"), &json!("no_go")));
        assert_eq!((&disk["field"], &disk["age_ms"]), (&json!("enough_resources"), &json!(1_500)));
        assert!(doc.rows.iter().all(|row| row.len() == doc.header.len()));
        assert!(doc.notes[0].contains("NO-GO") && doc.notes[1].contains("300.0 MiB"), "{doc:?}");
        let warn = document(&precheck(Verdict::Warn));
        assert_eq!((&warn.json["may_start"], &warn.json["plan"]), (&json!(true), &json!("P-17")));
        assert!(warn.notes.iter().any(|note| note.contains("--plan P-17")), "{warn:?}");
    }

    #[test]
    fn the_four_questions_are_answered_by_the_checks() {
        let mut told = precheck(Verdict::NoGo);
        let doc = document(&told);
        let fields = &doc.json["fields"];
        assert_eq!(fields["system_healthy"], true);
        assert_eq!(
            (&fields["network_stable"], &fields["enough_resources"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(fields["estimated_impact"], 0.42);
        told.checks[1].skipped = true;
        let doc = document(&told);
        assert_eq!(
            doc.json["fields"]["enough_resources"], true,
            "who skips a check answers for it"
        );
        assert_eq!(doc.rows[1][5], "no_go, skipped");
    }
}
