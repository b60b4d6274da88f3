//! What a lane of a replay knows of its keys: which values a read may return.
//!
//! Each key belongs to one lane, which works on it one request after the other, so a read has one right
//! answer. Writes whose outcome is unknown may take effect at any later time, once; until a read shows
//! one of them, either answer is right.

use super::content;
use std::collections::HashMap;

/// A value as written: its version and length. Absence is `None`.
pub type Written = Option<(u64, usize)>;

/// The keys of one lane.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: HashMap<u64, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    last_version: u64,
    /// What the last answer proved to be there.
    current: Written,
    /// Writes that may have taken effect, or may yet.
    unknown: Vec<(u64, usize)>,
}

impl Ledger {
    /// A version that was never used for this key; a value of it is about to be written.
    pub fn next_version(&mut self, key: u64) -> u64 {
        let entry = self.keys.entry(key).or_default();
        entry.last_version += 1;
        entry.last_version
    }

    /// A write was acknowledged.
    pub fn written(&mut self, key: u64, version: u64, bytes: usize) {
        self.keys.entry(key).or_default().current = Some((version, bytes));
    }

    /// A write ended without our knowing whether it took effect.
    pub fn unknown(&mut self, key: u64, version: u64, bytes: usize) {
        self.keys.entry(key).or_default().unknown.push((version, bytes));
    }

    /// A read ended: `Err` says what would have been right.
    pub fn read(&mut self, key: u64, found: Option<&[u8]>) -> Result<(), String> {
        let entry = self.keys.entry(key).or_default();
        let matches = |(version, bytes): (u64, usize)| {
            found.is_some_and(|f| f.len() == bytes && content::is_value(key, version, f))
        };
        let is_current = match entry.current {
            Some(current) => matches(current),
            None => found.is_none(),
        };
        if is_current {
            return Ok(());
        }
        if let Some(at) = entry.unknown.iter().position(|unknown| matches(*unknown)) {
            // It took effect after what we took for current, which can never come back.
            entry.current = Some(entry.unknown.swap_remove(at));
            return Ok(());
        }
        Err(format!(
            "key {key}: expected {}{}, found {}",
            describe(entry.current),
            if entry.unknown.is_empty() { "" } else { " or a write of unknown outcome" },
            describe(found.map(|f| (content::version_of(f).unwrap_or(0), f.len()))),
        ))
    }

    /// A read of a copy that may be behind ended: any version up to the last one, or absence, is right.
    pub fn read_stale(&mut self, key: u64, found: Option<&[u8]>) -> Result<(), String> {
        let last = self.keys.get(&key).map_or(0, |entry| entry.last_version);
        let Some(found) = found else { return Ok(()) };
        let version = content::version_of(found).unwrap_or(0);
        if (1..=last).contains(&version) && content::is_value(key, version, found) {
            return Ok(());
        }
        let bytes = found.len();
        Err(format!("key {key}: {bytes} bytes that are no version up to {last}"))
    }
}

fn describe(written: Written) -> String {
    match written {
        None => "nothing".into(),
        Some((version, bytes)) => format!("version {version} of {bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::content::value;

    #[test]
    fn a_read_has_one_right_answer() {
        let mut ledger = Ledger::default();
        assert!(ledger.read(1, None).is_ok());
        assert!(ledger.read(1, Some(&value(1, 1, 64))).is_err(), "never set");
        for version in 1..=3 {
            assert_eq!(ledger.next_version(1), version);
            ledger.written(1, version, 64);
        }
        assert!(ledger.read(1, Some(&value(1, 3, 64))).is_ok());
        for wrong in [value(1, 2, 64), value(2, 3, 64), value(1, 3, 63), value(1, 4, 64)] {
            assert!(ledger.read(1, Some(&wrong)).is_err());
        }
        assert!(ledger.read(1, None).is_err(), "lost");
    }

    #[test]
    fn an_unknown_write_may_show_once_and_replaces_what_was_before() {
        let mut ledger = Ledger::default();
        let (first, second) = (ledger.next_version(1), ledger.next_version(1));
        ledger.written(1, first, 16);
        ledger.unknown(1, second, 32);
        let (old, new) = (value(1, first, 16), value(1, second, 32));
        assert!(ledger.read(1, Some(&old)).is_ok() && ledger.read(1, Some(&old)).is_ok());
        assert!(ledger.read(1, Some(&new)).is_ok());
        assert!(ledger.read(1, Some(&old)).is_err(), "it cannot come back");
        let third = ledger.next_version(1);
        ledger.written(1, third, 16);
        assert!(ledger.read(1, Some(&new)).is_err(), "it takes effect once");
    }

    #[test]
    fn a_stale_read_returns_something_that_was_written() {
        let mut ledger = Ledger::default();
        for _ in 0..2 {
            let version = ledger.next_version(1);
            ledger.written(1, version, 16);
        }
        assert!(ledger.read_stale(1, None).is_ok());
        assert!(ledger.read_stale(1, Some(&value(1, 1, 16))).is_ok());
        assert!(ledger.read_stale(1, Some(&value(1, 3, 16))).is_err());
        assert!(ledger.read_stale(1, Some(&value(2, 1, 16))).is_err());
    }
}
