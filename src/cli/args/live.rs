//! Live views, as typed: what is watched, how closely, and for how long.

use crate::types::{limits, units};
use crate::wire::monitor::{ONE_IN_MAX, OpKind, PATTERN_BYTES_MAX};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Under `ppdb monitor --help`.
pub const MONITOR_EXAMPLES: &str = "\
Example:
  ppdb monitor
  ppdb monitor --sample 100% --match 'cart:*' --op set,del --for 3s
  ppdb monitor --node n1 --sample 1/1000 -o jsonl

Each line is one operation: when, at which node, who asked, what, on which key, what came of it, how many
milliseconds. Values are never shown. A node keeps 1024 operations for whoever watches; what does not fit is dropped
and counted. At the end, or at Ctrl-C, there is a summary.";

/// Under `ppdb latency --help`.
pub const LATENCY_EXAMPLES: &str = "\
Example:
  ppdb latency
  ppdb latency --node n2 --interval 10ms --for 2s
  ppdb latency --watch -o jsonl";

/// Under `ppdb keys big --help`.
pub const BIG_EXAMPLES: &str = "\
Example:
  ppdb keys big
  ppdb keys big --prefix cart: --limit 5 --max-keys 1000000 --for 10m -o json";

/// Under `ppdb doctor --help`.
pub const DOCTOR_EXAMPLES: &str = "\
Example:
  ppdb doctor
  ppdb doctor --list
  ppdb doctor -o json";

/// Under `ppdb top --help`.
pub const TOP_EXAMPLES: &str = "\
Example:
  ppdb top
  ppdb top --interval 500ms

Keys: q or Ctrl-C ends it, Tab and the arrows left and right turn pages, 1 to 4 name one, the arrows up and down and
the page keys scroll.";

/// Operations as they come.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct MonitorArgs {
    /// How many of them: a share such as 1% or 100%, or one in so many, such as 1/64.
    #[arg(long, default_value = "1%", value_parser = one_in, value_name = "SHARE")]
    pub sample: u32,
    /// Only keys like this: `*` stands for anything, `?` for one byte, `\` before either takes its meaning.
    #[arg(long = "match", value_parser = clap::builder::OsStringValueParser::new(), value_name = "PATTERN")]
    pub pattern: Option<OsString>,
    /// Only these operations; repeat it, or separate them by commas.
    #[arg(long = "op", value_delimiter = ',', value_name = "OP")]
    pub kinds: Vec<OpKind>,
    /// For how long; without it until Ctrl-C.
    #[arg(long = "for", value_parser = view_time, value_name = "TIME")]
    pub time: Option<Duration>,
    /// Ends after so many lines.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub limit: Option<u64>,
}

impl MonitorArgs {
    /// The pattern in bytes, within its bounds.
    pub fn pattern(&self) -> Result<Option<bytes::Bytes>, String> {
        let Some(pattern) = &self.pattern else { return Ok(None) };
        match pattern.as_bytes() {
            long if long.len() > PATTERN_BYTES_MAX => {
                Err(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"))
            }
            fits => Ok(Some(bytes::Bytes::copy_from_slice(fits))),
        }
    }
}

/// How long the way to each node and back takes.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct LatencyArgs {
    /// Between two questions to a node, 1ms to 10s.
    #[arg(long, default_value = "100ms", value_parser = question_interval, value_name = "TIME")]
    pub interval: Duration,
    /// For how long.
    #[arg(long = "for", default_value = "10s", value_parser = view_time, value_name = "TIME")]
    pub time: Duration,
    /// Also prints a line for each node every second.
    #[arg(long)]
    pub watch: bool,
}

/// The largest values.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct BigArgs {
    /// Only keys that start with this.
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<OsString>,
    /// How many of the largest are shown, 1 to 1000.
    #[arg(long, default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// Looks at no more keys.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub max_keys: u64,
    /// Looks no longer.
    #[arg(long = "for", default_value = "1m", value_parser = view_time, value_name = "TIME")]
    pub time: Duration,
    /// Keys in a page, 1 to 1000; between two pages it rests as long as the last one took.
    #[arg(long, default_value_t = 200, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=limits::SCAN_PAGE_MAX as i64))]
    pub page: u32,
    /// Where an earlier look ended.
    #[arg(long)]
    pub cursor: Option<String>,
}

/// What is not as it should be.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct DoctorArgs {
    /// Lists the checks instead: their codes, and what each of them looks at.
    #[arg(long)]
    pub list: bool,
}

/// The whole cluster on a screen.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct TopArgs {
    /// Between two looks, 200ms to 1m.
    #[arg(long, default_value = "1s", value_parser = screen_interval, value_name = "TIME")]
    pub interval: Duration,
}

/// Bounds of the time that a view may last.
const VIEW_MIN: Duration = Duration::from_millis(100);
const VIEW_MAX: Duration = Duration::from_secs(24 * 3_600);

fn view_time(text: &str) -> Result<Duration, String> {
    within(text, VIEW_MIN, VIEW_MAX, "100ms to 24h")
}

fn question_interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(1), Duration::from_secs(10), "1ms to 10s")
}

fn screen_interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(200), Duration::from_secs(60), "200ms to 1m")
}

fn within(text: &str, least: Duration, most: Duration, bounds: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        time if (least..=most).contains(&time) => Ok(time),
        _ => Err(format!("a time of {bounds}")),
    }
}

/// How far a share may be off the nearest one in a whole number.
const SHARE_OFF_MAX: f64 = 0.15;

/// One in how many: `1%` is 100, `1/64` is 64, `100%` is 1.
fn one_in(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no share such as 1%, 100% or 1/64");
    if let Some(number) = text.strip_prefix("1/") {
        let fits = |number: &u32| (1..=ONE_IN_MAX).contains(number);
        return number.parse().ok().filter(fits).ok_or_else(wrong);
    }
    let percent: f64 = text.strip_suffix('%').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    if !(percent > 0.0 && percent <= 100.0) {
        return Err(wrong());
    }
    let whole = (100.0 / percent).round().clamp(1.0, f64::from(ONE_IN_MAX));
    let is_near = (100.0 / whole / percent - 1.0).abs() <= SHARE_OFF_MAX;
    match is_near {
        true => Ok(whole as u32),
        false => Err(format!("{text} is not one in a whole number: 100%, 50%, 33%, 25%, 1/10 …")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing;

    #[test]
    fn a_share_is_one_in_so_many() {
        for (text, expected) in
            [("1%", 100), ("100%", 1), ("50%", 2), ("33%", 3), ("0.5%", 200), ("1/64", 64)]
        {
            assert_eq!(one_in(text), Ok(expected), "{text}");
        }
        assert_eq!((one_in("1/1"), one_in("0.0001%")), (Ok(1), Ok(ONE_IN_MAX)));
        for bad in ["", "1", "0%", "-1%", "101%", "70%", "1/0", "1/1000001", "2/3", "NaN%", "x%"] {
            assert!(one_in(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn views_have_bounds() {
        let parse = |line: &str| testing::parse(line).is_ok();
        assert!(parse("monitor --op set,del --op scan --match 'a*' --for 24h --limit 1"));
        assert!(parse("latency --watch --interval 1ms --for 100ms") && parse("doctor --list"));
        assert!(parse("keys big --max-keys 1 --page 1000") && parse("top --interval 200ms"));
        for bad in [
            "monitor --op mget",
            "monitor --sample 0",
            "monitor --for 99ms",
            "monitor --limit 0",
            "latency --interval 0ms",
            "latency --for 25h",
            "keys big --limit 1001",
            "keys big --page 0",
            "top --interval 100ms",
            "top now",
        ] {
            assert!(!parse(bad), "{bad}");
        }
    }

    #[test]
    fn a_pattern_has_a_bound() {
        let args = |pattern: String| MonitorArgs {
            sample: 1,
            pattern: Some(pattern.into()),
            kinds: vec![],
            time: None,
            limit: None,
        };
        assert_eq!(args("a*".into()).pattern(), Ok(Some("a*".into())));
        assert!(args("a".repeat(PATTERN_BYTES_MAX + 1)).pattern().is_err());
    }
}
