//! Live settings: what an operator changes while the cluster runs, the same on every node.
//!
//! The table of names, defaults and bounds. Values are stored as text in the metadata; this file reads them.

use super::core::ClusterState;
use super::thresholds;
use crate::admission;
use crate::telemetry;
use crate::types::{Code, Error, Result, limits, units};
use crate::wire::client::ReadDefault;
use crate::wire::operation::SettingView;
use std::time::Duration;

/// A live setting.
pub struct LiveSetting {
    /// Its name.
    pub name: &'static str,
    /// What holds if nobody sets it.
    pub default: &'static str,
    /// What it does, with unit and bounds.
    pub doc: &'static str,
    pub(super) check: fn(&str) -> std::result::Result<(), String>,
}

/// All live settings, by name.
pub fn live_settings() -> impl Iterator<Item = &'static LiveSetting> {
    thresholds::THRESHOLDS.iter().chain(&LIVE_SETTINGS)
}

/// Those that are no threshold of an alarm.
const LIVE_SETTINGS: [LiveSetting; 11] = [
    LiveSetting {
        name: "copy.bytes_per_s",
        default: "0",
        doc: "rate at which a node sends copies of shards, such as 64MiB; 0 is unlimited, else 64KiB or more",
        check: |text| copy_rate(units::bytes(text)?),
    },
    LiveSetting {
        name: "log.level",
        default: "",
        doc: "filter of log lines on every node, such as info or warn,ppdb::raft=debug, 256 bytes at most; empty \
              leaves each node its own setting log.level",
        check: |text| if text.is_empty() { Ok(()) } else { telemetry::check_filter(text) },
    },
    LiveSetting {
        name: "reads.default",
        default: "linearizable",
        doc: "level of a read that names none: linearizable, session or local",
        check: |text| read_default(text).map(drop),
    },
    LiveSetting {
        name: "safety.load_threshold",
        default: "0.80",
        doc: "load from which on copying makes way, 0.10 to 1.00; from half of the way to 1 on scans and batches are \
              refused, from three quarters on writes",
        check: |text| load_threshold(text).map(drop),
    },
    LiveSetting {
        name: "safety.max_batch_bytes",
        default: "4MiB",
        doc: "bytes of keys and values in one request, 1KiB to 4MiB; more are refused",
        check: |text| {
            between(units::bytes(text)?, 1 << 10, limits::REQUEST_BYTES_MAX as u64, "1KiB to 4MiB")
        },
    },
    LiveSetting {
        name: "safety.max_batch_size",
        default: "1024",
        doc: "operations in one request, 1 to 1024; more are refused",
        check: |text| between(count(text)?, 1, limits::REQUEST_OPS_MAX as u64, "1 to 1024"),
    },
    LiveSetting {
        name: "safety.max_concurrent_ops",
        default: "4096",
        doc: "requests that a node works on at a time, 1 to 65536; more are refused at once",
        check: |text| between(count(text)?, 1, 65_536, "1 to 65536"),
    },
    LiveSetting {
        name: "safety.timeout_ms",
        default: "5000",
        doc: "milliseconds that a node works on a request for keys, whatever time that names, 10 to 60000",
        check: |text| {
            between(count(text)?, 10, limits::DEADLINE_MAX.as_millis() as u64, "10 to 60000")
        },
    },
    LiveSetting {
        name: "slow_log.threshold",
        default: "10ms",
        doc: "requests for keys that take so long, or longer, are kept in the slow log, 0s to 60s; 0s keeps \
              every one, which costs",
        check: |text| within(text, Duration::ZERO, Duration::from_secs(60)),
    },
    LiveSetting {
        name: "switch.cool_down",
        default: "10m",
        doc: "rest between two switches in the same direction, 0s to 24h; never for abort, revert or the way back",
        check: |text| within(text, Duration::ZERO, Duration::from_secs(24 * 3600)),
    },
    LiveSetting {
        name: "switch.revert_window",
        default: "24h",
        doc: "how long after a switch `revert` stays possible, 1m to 30d; then it is finalized",
        check: |text| within(text, Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600)),
    },
];

/// Lowest rate of copies that may be set: below it they would end after what waits for them.
pub const COPY_BYTES_PER_S_MIN: u64 = 64 << 10;

/// Whether a rate of copies may be set.
pub fn copy_rate(bytes_per_s: u64) -> std::result::Result<(), String> {
    match bytes_per_s {
        0 | COPY_BYTES_PER_S_MIN.. => Ok(()),
        _ => Err("0 is unlimited; else 64KiB or more".into()),
    }
}

pub(super) fn count(text: &str) -> std::result::Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}

pub(super) fn between(
    number: u64,
    min: u64,
    max: u64,
    bounds: &str,
) -> std::result::Result<(), String> {
    match (min..=max).contains(&number) {
        true => Ok(()),
        false => Err(format!("{number} does not lie in {bounds}")),
    }
}

/// In percent.
fn load_threshold(text: &str) -> std::result::Result<u32, String> {
    let share: f64 = text.parse().map_err(|_| format!("`{text}` is no share such as 0.80"))?;
    match (0.1..=1.0).contains(&share) {
        true => Ok((share * 100.0).round() as u32),
        false => Err(format!("{text} does not lie in 0.10 to 1.00")),
    }
}

pub(super) fn within(text: &str, min: Duration, max: Duration) -> std::result::Result<(), String> {
    match units::duration(text)? {
        time if (min..=max).contains(&time) => Ok(()),
        _ => Err(format!("`{text}` does not lie between {min:?} and {max:?}")),
    }
}

fn read_default(text: &str) -> std::result::Result<ReadDefault, String> {
    match text {
        "linearizable" => Ok(ReadDefault::Linearizable),
        "session" => Ok(ReadDefault::Session),
        "local" => Ok(ReadDefault::Local),
        other => Err(format!("`{other}` is no read level: linearizable, session or local")),
    }
}

/// Refuses a name that does not exist and a value out of bounds.
pub fn check(name: &str, value: &str) -> Result<()> {
    let bad = |message: String| Error::new(Code::BadConfig, message);
    let Some(setting) = live_settings().find(|s| s.name == name) else {
        let names: Vec<&str> = live_settings().map(|s| s.name).collect();
        let message = format!("there is no live setting `{name}`; there are: {}", names.join(", "));
        return Err(bad(message));
    };
    (setting.check)(value).map_err(|why| bad(format!("{name}: {why}")))
}

impl ClusterState {
    /// The value of a live setting, set or not.
    pub(super) fn setting(&self, name: &str) -> &str {
        let default = || live_settings().find(|s| s.name == name).map_or("", |s| s.default);
        self.settings.get(name).map_or_else(default, String::as_str)
    }

    /// All live settings with their values.
    pub fn settings_view(&self) -> Vec<SettingView> {
        let view = |s: &LiveSetting| SettingView {
            name: s.name.to_owned(),
            value: self.setting(s.name).to_owned(),
            default: s.default.to_owned(),
            doc: s.doc.to_owned(),
        };
        live_settings().map(view).collect()
    }

    /// Rate of copies in bytes a second; 0 is unlimited.
    pub fn copy_bytes_per_s(&self) -> u64 {
        units::bytes(self.setting("copy.bytes_per_s")).unwrap_or_default()
    }

    /// The filter of log lines; empty leaves each node its own.
    pub fn log_level(&self) -> &str {
        self.setting("log.level")
    }

    /// What a node takes on.
    pub fn safety(&self) -> admission::Limits {
        let usual = admission::Limits::default();
        let number =
            |name, usual| count(self.setting(name)).map_or(usual, |number| number as usize);
        let bytes = units::bytes(self.setting("safety.max_batch_bytes"));
        let timeout_ms = count(self.setting("safety.timeout_ms"));
        let threshold = load_threshold(self.setting("safety.load_threshold"));
        admission::Limits {
            max_concurrent_ops: number("safety.max_concurrent_ops", usual.max_concurrent_ops),
            max_batch_size: number("safety.max_batch_size", usual.max_batch_size),
            max_batch_bytes: bytes.map_or(usual.max_batch_bytes, |bytes| bytes as usize),
            timeout: timeout_ms.map_or(usual.timeout, Duration::from_millis),
            load_threshold_percent: threshold.unwrap_or(usual.load_threshold_percent),
        }
    }

    /// How long a request takes at least that is kept in the slow log.
    pub fn slow_log_threshold(&self) -> Duration {
        units::duration(self.setting("slow_log.threshold")).unwrap_or(Duration::from_secs(60))
    }

    /// Level of a read that names none.
    pub fn read_default(&self) -> ReadDefault {
        read_default(self.setting("reads.default")).unwrap_or_default()
    }

    /// Rest between two switches in the same direction.
    pub fn cool_down(&self) -> Duration {
        units::duration(self.setting("switch.cool_down")).unwrap_or_default()
    }

    /// How long after a switch the way back stays open.
    pub fn revert_window(&self) -> Duration {
        units::duration(self.setting("switch.revert_window")).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_bounds_and_what_is_not_is_refused() {
        let names: Vec<&str> = live_settings().map(|s| s.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for setting in live_settings() {
            check(setting.name, setting.default).unwrap();
        }
        for (name, value) in [
            ("reads.default", "stale"),
            ("reads.defaults", "local"),
            ("switch.cool_down", "25h"),
            ("switch.cool_down", "-1s"),
            ("switch.revert_window", "0s"),
            ("copy.bytes_per_s", "1kB"),
            ("log.level", "loud"),
            ("log.level", "info,ppdb=loud"),
            ("safety.load_threshold", "0.05"),
            ("safety.load_threshold", "80"),
            ("safety.load_threshold", "NaN"),
            ("safety.max_batch_bytes", "5MiB"),
            ("safety.max_batch_size", "0"),
            ("safety.max_concurrent_ops", "many"),
            ("safety.timeout_ms", "0"),
            ("safety.timeout_ms", "5s"),
            ("slow_log.threshold", "61s"),
            ("slow_log.threshold", "10"),
        ] {
            assert_eq!(check(name, value).unwrap_err().code, Code::BadConfig, "{name} {value}");
        }
    }

    #[test]
    fn the_safety_net_is_what_is_set() {
        let mut state = ClusterState::default();
        assert_eq!(state.safety(), admission::Limits::default());
        for (name, value) in [
            ("safety.load_threshold", "0.5"),
            ("safety.max_batch_bytes", "64KiB"),
            ("safety.max_batch_size", "7"),
            ("safety.max_concurrent_ops", "16"),
            ("safety.timeout_ms", "250"),
        ] {
            check(name, value).unwrap();
            state.settings.insert(name.into(), value.into());
        }
        let expected = admission::Limits {
            max_concurrent_ops: 16,
            max_batch_size: 7,
            max_batch_bytes: 64 << 10,
            timeout: Duration::from_millis(250),
            load_threshold_percent: 50,
        };
        assert_eq!(state.safety(), expected);
    }

    #[test]
    fn what_is_set_holds() {
        let mut state = ClusterState::default();
        assert_eq!(state.cool_down(), Duration::from_secs(600));
        state.settings.insert("switch.cool_down".into(), "0s".into());
        state.settings.insert("reads.default".into(), "local".into());
        state.settings.insert("copy.bytes_per_s".into(), "8MiB".into());
        state.settings.insert("log.level".into(), "debug".into());
        assert_eq!(state.cool_down(), Duration::ZERO);
        assert_eq!(state.log_level(), "debug");
        assert_eq!(state.slow_log_threshold(), Duration::from_millis(10));
        state.settings.insert("slow_log.threshold".into(), "0s".into());
        assert_eq!(state.slow_log_threshold(), Duration::ZERO);
        assert_eq!(state.read_default(), ReadDefault::Local);
        assert_eq!(state.copy_bytes_per_s(), 8 << 20);
        assert_eq!(state.revert_window(), Duration::from_secs(24 * 3600));
    }
}
