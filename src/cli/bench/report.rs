//! What a run ends with: one object for programs, a short table for people.

use super::BenchOptions;
use super::meter::Meter;
use crate::client::Level;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What the lanes brought back.
#[derive(Debug)]
pub struct Measured {
    pub meter: Meter,
    /// From the start of measuring to the last answer.
    pub elapsed: Duration,
}

/// Result of a run. Latencies are of requests that succeeded, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Version of this layout.
    pub v: u32,
    /// True if no request failed and no read was wrong.
    pub ok: bool,
    /// The trace replayed; none for a mix.
    pub trace: Option<String>,
    /// The mix of operations; none for a trace.
    pub mix: Option<String>,
    /// Tasks that made requests.
    pub clients: u32,
    /// Connections they shared.
    pub connections: usize,
    /// Requests in flight of each.
    pub pipeline: u32,
    /// Bytes of a value; none for a trace.
    pub value_size: Option<u32>,
    /// Keys to choose from; none for a trace.
    pub keys: Option<u64>,
    /// What reads might return.
    pub read_level: String,
    /// Requests meant to start each second; none: as fast as answers came.
    pub target_rate: Option<u64>,
    /// Measured time.
    pub seconds: f64,
    /// Requests that succeeded.
    pub requests: u64,
    /// Requests that succeeded, each second.
    pub rate: f64,
    /// Keys they operated on, each second; more than `rate` with `mget` and `mset`.
    pub keys_rate: f64,
    /// Half of the requests took at most this long.
    pub p50_ms: f64,
    /// 99 % took at most this long.
    pub p99_ms: f64,
    /// 99.9 % took at most this long.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Requests that failed.
    pub errors: u64,
    /// The same by code.
    pub errors_by_code: BTreeMap<String, u64>,
    /// The first error met.
    pub first_error: Option<String>,
    /// Reads that found what nobody wrote, or missed what was written.
    pub mismatches: u64,
    /// The first of them.
    pub first_mismatch: Option<String>,
}

/// Puts it together; the caller knows the connections.
pub fn report(measured: Measured, options: &BenchOptions, level: Level) -> BenchReport {
    let Measured { meter, elapsed } = measured;
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let is_mix = options.trace.is_none();
    let errors_by_code = meter.errors();
    let errors = errors_by_code.values().sum();
    BenchReport {
        v: 1,
        ok: errors == 0 && meter.mismatches == 0,
        trace: options.trace.as_ref().map(|path| path.display().to_string()),
        mix: is_mix.then(|| options.mix.to_string()),
        clients: options.clients,
        connections: 0,
        pipeline: options.pipeline,
        value_size: is_mix.then_some(options.value_size),
        keys: is_mix.then_some(options.keys),
        read_level: match level {
            Level::Linearizable => "linearizable".into(),
            Level::Session => "session".into(),
            Level::Local { max_staleness_ms: None } => "local".into(),
            Level::Local { max_staleness_ms: Some(ms) } => format!("local:{ms}ms"),
        },
        target_rate: options.rate,
        seconds,
        requests: meter.requests(),
        rate: meter.requests() as f64 / seconds,
        keys_rate: meter.keys as f64 / seconds,
        p50_ms: meter.quantile_ms(0.5),
        p99_ms: meter.quantile_ms(0.99),
        p999_ms: meter.quantile_ms(0.999),
        max_ms: meter.max_ms(),
        errors,
        errors_by_code,
        mismatches: meter.mismatches,
        first_error: meter.first_error,
        first_mismatch: meter.first_mismatch,
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.trace, &self.mix) {
            (Some(trace), _) => format!("replay of {trace}"),
            (None, mix) => format!(
                "{}, {} keys, {} byte values",
                mix.as_deref().unwrap_or_default(),
                self.keys.unwrap_or_default(),
                self.value_size.unwrap_or_default()
            ),
        };
        let mut row = |name: &str, value: String| writeln!(f, "{name:<12} {value}");
        row("load", format!("{what}, {} reads", self.read_level))?;
        row(
            "clients",
            format!("{} x {}, {} connections", self.clients, self.pipeline, self.connections),
        )?;
        if let Some(target) = self.target_rate {
            row("target", format!("{target} requests/s; latency from the intended start"))?;
        }
        row("requests", format!("{} in {:.2} s", self.requests, self.seconds))?;
        row("rate", format!("{:.0} requests/s, {:.0} keys/s", self.rate, self.keys_rate))?;
        row("p50", format!("{:.3} ms", self.p50_ms))?;
        row("p99", format!("{:.3} ms", self.p99_ms))?;
        row("p99.9", format!("{:.3} ms", self.p999_ms))?;
        row("max", format!("{:.3} ms", self.max_ms))?;
        let by_code: Vec<String> =
            self.errors_by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
        let by_code =
            if by_code.is_empty() { String::new() } else { format!(" ({})", by_code.join(", ")) };
        row("errors", format!("{}{by_code}", self.errors))?;
        if let Some(first) = &self.first_error {
            row("", format!("first: {first}"))?;
        }
        row("mismatches", self.mismatches.to_string())?;
        if let Some(first) = &self.first_mismatch {
            row("", format!("first: {first}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::options;
    use super::*;
    use crate::types::Code;

    fn sample() -> BenchReport {
        let mut meter = Meter::new();
        for ms in 1..=1_000 {
            meter.ended(Duration::from_millis(ms), 2, None);
        }
        meter.ended(Duration::ZERO, 2, Some((Code::Overloaded, "full".into())));
        let elapsed = Duration::from_secs(4);
        report(Measured { meter, elapsed }, &options("--rate 300"), Level::Linearizable)
    }

    #[test]
    fn the_figures_follow_from_what_was_measured() {
        let report = sample();
        assert!(!report.ok);
        assert_eq!((report.requests, report.errors), (1_000, 1));
        assert!((report.rate - 250.0).abs() < 1e-6 && (report.keys_rate - 500.0).abs() < 1e-6);
        let near = |ms: f64, expected: f64| (ms - expected).abs() / expected < 0.01;
        assert!(near(report.p50_ms, 500.0) && near(report.p99_ms, 990.0));
        assert!(near(report.p999_ms, 999.0) && near(report.max_ms, 1_000.0));
    }

    #[test]
    fn json_and_table_carry_the_same_figures() {
        let report = sample();
        let json = serde_json::to_value(&report).unwrap();
        for field in ["v", "ok", "rate", "p50_ms", "p99_ms", "p999_ms", "max_ms", "mismatches"] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json["errors_by_code"]["Overloaded"], 1);
        let table = report.to_string();
        for line in ["rate         250 requests/s, 500 keys/s", "errors       1 (Overloaded 1)"] {
            assert!(table.contains(line), "{table}");
        }
    }
}
