//! `metrics list`, `show` and `rules`: what can be measured, what a node has measured, and what to watch for.

use super::args::watching::MetricsVerb;
use super::caller::{Caller, other_answer};
use super::session::Call;
use super::settings;
use super::value::{Answered, Doc, Value};
use crate::alarms;
use crate::cluster::ClusterState;
use crate::telemetry::metrics::METRICS;
use crate::types::Result;
use crate::wire::command::{Answer, Command};
use crate::wire::operation::SettingView;
use serde_json::{Value as Json, json};

/// What needs no cluster; none for the rest.
pub fn offline(verb: &MetricsVerb) -> Option<Answered> {
    match verb {
        MetricsVerb::List => Some(Answered::doc(list(), None)),
        MetricsVerb::Rules { defaults: true } => Some(rules_of(&[])),
        MetricsVerb::Rules { defaults: false } | MetricsVerb::Show => None,
    }
}

/// Asks a node.
pub async fn run<C: Caller>(caller: &C, verb: &MetricsVerb, call: &Call) -> Result<Answered> {
    match verb {
        MetricsVerb::Show => {
            let node = call.globals.node.as_ref();
            match caller.command(Command::Metrics, node, call.left()).await? {
                (Answer::Metrics(text), by) => {
                    Ok(Answered { served_by: vec![by], ..Answered::of(Value::Text(text)) })
                }
                _ => Err(other_answer()),
            }
        }
        MetricsVerb::Rules { .. } => {
            Ok(rules_of(&settings::ask(caller, Command::Settings, call.left()).await?))
        }
        MetricsVerb::List => Ok(Answered::doc(list(), None)),
    }
}

fn rules_of(settings: &[SettingView]) -> Answered {
    let set = settings.iter().map(|setting| (setting.name.clone(), setting.value.clone()));
    let state = ClusterState { settings: set.collect(), ..ClusterState::default() };
    Answered::of(Value::Text(alarms::rules(&state.alarm_thresholds())))
}

fn list() -> Doc {
    let json = METRICS.iter().map(
        |m| json!({ "name": m.name, "kind": m.kind.name(), "labels": m.labels, "help": m.help }),
    );
    let rows = METRICS
        .iter()
        .map(|m| [m.name, m.kind.name(), &m.labels.join(","), m.help].map(str::to_owned).to_vec());
    Doc {
        json: Json::Array(json.collect()),
        header: vec!["METRIC", "KIND", "LABELS", "MEANING"],
        rows: rows.collect(),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answered: Answered) -> String {
        match answered.value {
            Value::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rules_have_the_thresholds_that_are_set() {
        let usual = text(offline(&MetricsVerb::Rules { defaults: true }).unwrap());
        assert!(usual.contains(">= 0.85'"), "{usual}");
        let set = SettingView {
            name: "alarm.disk".into(),
            value: "60".into(),
            default: "85".into(),
            doc: String::new(),
        };
        assert!(text(rules_of(&[set])).contains(">= 0.6'"));
    }

    #[test]
    fn every_metric_is_listed_with_its_meaning() {
        let doc = list();
        assert_eq!(doc.rows.len(), METRICS.len());
        assert_eq!(doc.json[0]["name"], METRICS[0].name);
    }
}
