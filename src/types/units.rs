//! Sizes and durations as people write them: `64MiB`, `30s`.

use std::time::Duration;

/// Units of a size, longest suffix first.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A size in bytes: a whole number, alone or with `B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), *factor)))
        .unwrap_or((text, 1));
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size such as 512, 64KiB or 1GiB"))
}

/// A duration with its unit: `500ms`, `30s`, `2h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration such as 500ms, 30s or 2h: {error}"))
}

/// A size in the largest unit that divides it without a rest.
pub fn show_bytes(bytes: u64) -> String {
    let exact = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    match exact {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", 0),
            ("512", 512),
            ("64KiB", 65_536),
            ("1 MiB", 1 << 20),
            ("2kB", 2_000),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "MiB", "1.5MiB", "-1", "1TiB", "99999999999GiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(show_bytes(64 << 20), "64MiB");
        assert_eq!(show_bytes(1_000), "1000");
        assert_eq!(show_bytes(0), "0");
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "5 apples", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
