//! The thresholds of alarms: live settings with their defaults and bounds, one for each kind of alarm.

use super::core::ClusterState;
use super::settings::{LiveSetting, between, count, within};
use crate::alarms::Thresholds;
use crate::types::units;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The settings, by name: `alarm.` and the name of the alarm.
pub(super) const THRESHOLDS: [LiveSetting; 11] = [
    LiveSetting {
        name: "alarm.breaker_open",
        default: "1m",
        doc: "alarm when a breaker between nodes was open for so long, 1s to 1d",
        check: |text| within(text, Duration::from_secs(1), DAY),
    },
    LiveSetting {
        name: "alarm.certificate",
        default: "14d",
        doc: "alarm when a node's certificate is valid for no longer than this, 1h to 90d",
        check: |text| within(text, HOUR, 90 * DAY),
    },
    LiveSetting {
        name: "alarm.clock",
        default: "500ms",
        doc: "alarm when a node's clock is so far off the middle of all, 10ms to 1h",
        check: |text| within(text, Duration::from_millis(10), HOUR),
    },
    LiveSetting {
        name: "alarm.disk",
        default: "85",
        doc: "alarm when so much of a node's disk is taken, in percent, 1 to 100",
        check: percent,
    },
    LiveSetting {
        name: "alarm.error_rate",
        default: "1",
        doc: "alarm when so many of a node's requests fail for no fault of their own, in percent, 0.01 to 100",
        check: |text| error_rate(text).map(drop),
    },
    LiveSetting {
        name: "alarm.fsync_p99",
        default: "250ms",
        doc: "alarm when one in a hundred fdatasyncs of a node's log takes so long, 1ms to 1m",
        check: |text| within(text, Duration::from_millis(1), Duration::from_secs(60)),
    },
    LiveSetting {
        name: "alarm.lag",
        default: "30s",
        doc: "alarm when a copy was more than a second behind its leader for so long, 1s to 1d",
        check: |text| within(text, Duration::from_secs(1), DAY),
    },
    LiveSetting {
        name: "alarm.map",
        default: "80",
        doc: "alarm when a node's largest table has so much of the largest size it may have, in percent, 1 to 100",
        check: percent,
    },
    LiveSetting {
        name: "alarm.no_leader",
        default: "5s",
        doc: "alarm when a shard had no leader for so long, 1s to 1h",
        check: |text| within(text, Duration::from_secs(1), HOUR),
    },
    LiveSetting {
        name: "alarm.node_down",
        default: "10s",
        doc: "alarm when a node was not heard for so long, 2s to 1h",
        check: |text| within(text, Duration::from_secs(2), HOUR),
    },
    LiveSetting {
        name: "alarm.switch_stuck",
        default: "10m",
        doc: "alarm when an operation is under way and has not moved for so long, 10s to 1d",
        check: |text| within(text, Duration::from_secs(10), DAY),
    },
];

fn percent(text: &str) -> Result<(), String> {
    between(count(text)?, 1, 100, "1 to 100")
}

/// In millionths.
fn error_rate(text: &str) -> Result<u64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("`{text}` is no number of percent"))?;
    match (0.01..=100.0).contains(&percent) {
        true => Ok((percent * 10_000.0).round() as u64),
        false => Err(format!("{text} does not lie in 0.01 to 100")),
    }
}

impl ClusterState {
    /// From where on something is an alarm.
    pub fn alarm_thresholds(&self) -> Thresholds {
        // What is stored was checked when it was set.
        let time = |name| units::duration(self.setting(name)).unwrap_or_default();
        let percent = |name| count(self.setting(name)).unwrap_or(100) as u32;
        Thresholds {
            node_down: time("alarm.node_down"),
            no_leader: time("alarm.no_leader"),
            lag: time("alarm.lag"),
            disk_percent: percent("alarm.disk"),
            map_percent: percent("alarm.map"),
            fsync_p99: time("alarm.fsync_p99"),
            error_rate_ppm: error_rate(self.setting("alarm.error_rate")).unwrap_or(1_000_000),
            breaker_open: time("alarm.breaker_open"),
            switch_stuck: time("alarm.switch_stuck"),
            certificate: time("alarm.certificate"),
            clock: time("alarm.clock"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarms::RULES;
    use crate::cluster::settings::check;

    #[test]
    fn every_alarm_has_a_threshold_and_every_threshold_an_alarm() {
        assert_eq!(RULES.len(), THRESHOLDS.len());
        for rule in &RULES {
            let name = format!("alarm.{}", rule.name);
            assert!(THRESHOLDS.iter().any(|setting| setting.name == name), "{name}");
        }
    }

    #[test]
    fn what_is_set_is_what_is_judged_by() {
        let mut state = ClusterState::default();
        let usual = state.alarm_thresholds();
        assert_eq!((usual.disk_percent, usual.error_rate_ppm), (85, 10_000));
        assert_eq!(usual.certificate, 14 * DAY);
        let set = [
            ("alarm.breaker_open", "2m"),
            ("alarm.certificate", "30d"),
            ("alarm.clock", "1s"),
            ("alarm.disk", "70"),
            ("alarm.error_rate", "0.5"),
            ("alarm.fsync_p99", "40ms"),
            ("alarm.lag", "3s"),
            ("alarm.map", "50"),
            ("alarm.no_leader", "2s"),
            ("alarm.node_down", "4s"),
            ("alarm.switch_stuck", "20s"),
        ];
        for (name, value) in set {
            check(name, value).unwrap();
            state.settings.insert(name.into(), value.into());
        }
        let secs = Duration::from_secs;
        let expected = Thresholds {
            node_down: secs(4),
            no_leader: secs(2),
            lag: secs(3),
            disk_percent: 70,
            map_percent: 50,
            fsync_p99: Duration::from_millis(40),
            error_rate_ppm: 5_000,
            breaker_open: secs(120),
            switch_stuck: secs(20),
            certificate: 30 * DAY,
            clock: secs(1),
        };
        assert_eq!(state.alarm_thresholds(), expected);
        for (name, value) in [
            ("alarm.disk", "0"),
            ("alarm.disk", "85%"),
            ("alarm.error_rate", "NaN"),
            ("alarm.error_rate", "101"),
            ("alarm.node_down", "1s"),
            ("alarm.certificate", "91d"),
        ] {
            check(name, value).unwrap_err();
        }
    }
}
