//! Alarms as rules for Prometheus: the same conditions over the metrics, with the thresholds that hold.
//!
//! Text out of a table; nothing is asked here.

use super::{Held, Kind, RULES, Rule, Thresholds};
use crate::types::Code;
use std::fmt::Write as _;
use std::time::Duration;

/// A file for `rule_files` of Prometheus, in YAML.
pub fn rules(limits: &Thresholds) -> String {
    let mut text = String::from(
        "# Made by `ppdb metrics rules` from the live settings alarm.*; make it anew after a change.\n\
         groups:\n  - name: ppdb\n    rules:\n",
    );
    for rule in &RULES {
        // Writing to a string does not fail.
        let _ = write!(text, "{}", entry(rule, limits));
    }
    text
}

fn entry(rule: &Rule, limits: &Thresholds) -> String {
    let (limit, held) = limit(rule.kind, limits);
    let failures: Vec<&str> = Code::SERVICE_FAILURES.iter().map(|code| code.name()).collect();
    let expr = rule.expr.replace("{limit}", &limit).replace("{failures}", &failures.join("|"));
    let held = match rule.held {
        Held::Threshold => held,
        Held::For(time) => time,
    };
    format!(
        "      - alert: {}\n        expr: {}\n        for: {}s\n        labels:\n          severity: {}\n        \
         annotations:\n          summary: {}\n          description: {}\n",
        camel(rule.name),
        quoted(&expr),
        held.as_secs(),
        rule.severity.name(),
        quoted(&format!("{{{{ $labels.instance }}}}: {}", rule.summary)),
        quoted(rule.fix),
    )
}

/// The limit as it stands in an expression, and as a time that a condition has to hold.
fn limit(kind: Kind, limits: &Thresholds) -> (String, Duration) {
    let time = |time: Duration| (time.as_secs_f64().to_string(), time);
    let share = |share: f64| (share.to_string(), Duration::ZERO);
    match kind {
        Kind::NodeDown => time(limits.node_down),
        Kind::NoLeader => time(limits.no_leader),
        Kind::Lag => time(limits.lag),
        Kind::Disk => share(f64::from(limits.disk_percent) / 100.0),
        Kind::Map => share(f64::from(limits.map_percent) / 100.0),
        Kind::FsyncP99 => time(limits.fsync_p99),
        Kind::ErrorRate => share(limits.error_rate_ppm as f64 / 1e6),
        Kind::BreakerOpen => time(limits.breaker_open),
        Kind::SwitchStuck => time(limits.switch_stuck),
        Kind::Certificate => time(limits.certificate),
        Kind::Clock => time(limits.clock),
    }
}

/// `node_down` as `PpdbNodeDown`.
fn camel(name: &str) -> String {
    let words = ["ppdb"].into_iter().chain(name.split('_'));
    let word = |word: &str| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_uppercase())
    };
    words.map(word).collect()
}

/// As a YAML string in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::judge::tests::limits;
    use crate::telemetry::metrics::METRICS;

    #[test]
    fn every_alarm_is_a_rule_over_metrics_that_exist_with_the_threshold_that_is_set() {
        let node_down = Duration::from_secs(4);
        let text = rules(&Thresholds { disk_percent: 70, node_down, ..limits() });
        assert_eq!(text.matches("- alert: Ppdb").count(), RULES.len(), "{text}");
        assert!(text.contains(">= 0.7'") && text.contains("alert: PpdbNodeDown"));
        assert!(text.contains("'ppdb_node_up == 0'\n        for: 4s"), "{text}");
        assert!(text.contains("code=~\"Corrupt|"), "{text}");
        assert!(!text.contains("{limit}") && !text.contains("{failures}"));
        for rule in &RULES {
            let names = rule.expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for name in names.filter(|name| name.starts_with("ppdb_")) {
                let name = name.trim_end_matches("_bucket");
                assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
            }
        }
    }
}
