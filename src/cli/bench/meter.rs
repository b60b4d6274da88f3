//! What a run measured: latencies of what succeeded, errors by code, values that were wrong.

use crate::types::{Code, Result};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest latency told apart, in microseconds; longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Counts of one worker; they are added up at the end.
#[derive(Debug)]
pub struct Meter {
    latency_us: Histogram<u64>,
    /// Keys operated on by requests that succeeded.
    pub keys: u64,
    /// Reads that found what nobody wrote, or missed what was written.
    pub mismatches: u64,
    /// The first of them, in words.
    pub first_mismatch: Option<String>,
    /// The first error, in words.
    pub first_error: Option<String>,
    errors: BTreeMap<&'static str, u64>,
}

impl Meter {
    /// Nothing measured yet.
    pub fn new() -> Self {
        // Bounds and digits are constants that the constructor accepts; tests cover it.
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .unwrap_or_else(|error| unreachable!("constant bounds of a histogram: {error}"));
        Self {
            latency_us,
            keys: 0,
            mismatches: 0,
            first_mismatch: None,
            first_error: None,
            errors: BTreeMap::new(),
        }
    }

    /// A request on this many keys ended. An error is counted, not timed.
    pub fn ended(&mut self, took: Duration, keys: u64, error: Option<(Code, String)>) {
        match error {
            None => {
                self.latency_us.saturating_record((took.as_micros() as u64).max(1));
                self.keys += keys;
            }
            Some((code, message)) => {
                *self.errors.entry(code.name()).or_default() += 1;
                self.first_error.get_or_insert(format!("{code}: {message}"));
            }
        }
    }

    /// A read brought something wrong.
    pub fn mismatch(&mut self, what: impl FnOnce() -> String) {
        self.mismatches += 1;
        self.first_mismatch.get_or_insert_with(what);
    }

    /// Takes another worker's counts over.
    pub fn add(&mut self, other: &Meter) -> Result<()> {
        let added = self.latency_us.add(&other.latency_us);
        added.map_err(|e| crate::types::Error::new(Code::Internal, e.to_string()))?;
        self.keys += other.keys;
        self.mismatches += other.mismatches;
        self.first_mismatch = self.first_mismatch.take().or_else(|| other.first_mismatch.clone());
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        for (code, count) in &other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        Ok(())
    }

    /// Requests that succeeded.
    pub fn requests(&self) -> u64 {
        self.latency_us.len()
    }

    /// The latency that this share of the requests did not exceed, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.latency_us.value_at_quantile(share) as f64 / 1e3
    }

    /// The longest latency in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.latency_us.max() as f64 / 1e3
    }

    /// Requests that failed, by code.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let mut all = Meter::new();
        for worker in 0..4u64 {
            let mut meter = Meter::new();
            for i in 1..=25 {
                meter.ended(Duration::from_millis(worker * 25 + i), 2, None);
            }
            meter.ended(Duration::ZERO, 2, Some((Code::Overloaded, "full".into())));
            meter.mismatch(|| format!("worker {worker}"));
            all.add(&meter).unwrap();
        }
        assert_eq!((all.requests(), all.keys, all.mismatches), (100, 200, 4));
        assert_eq!(all.errors(), BTreeMap::from([("Overloaded".to_owned(), 4)]));
        assert_eq!(all.first_mismatch.as_deref(), Some("worker 0"));
        let near = |ms: f64, expected: f64| (ms - expected).abs() / expected < 0.01;
        assert!(near(all.quantile_ms(0.5), 50.0) && near(all.quantile_ms(0.99), 99.0));
        assert!(near(all.max_ms(), 100.0));
    }

    #[test]
    fn latencies_outside_the_scale_are_kept_at_its_ends() {
        let mut meter = Meter::new();
        meter.ended(Duration::ZERO, 1, None);
        meter.ended(Duration::from_secs(3_600), 1, None);
        assert_eq!(meter.requests(), 2);
        assert!(meter.max_ms() >= 119_000.0);
    }
}
