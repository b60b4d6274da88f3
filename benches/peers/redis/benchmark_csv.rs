//! What `redis-benchmark --csv` prints.

/// Requests a second, median and 99th percentile in milliseconds, from its last line:
/// `"SET","13400.53","4.7","1.2","4.5","7.1","9.9","30.1"`, in the order test, requests a second, then
/// milliseconds: mean, least, median, 95th and 99th percentile, most. None if there is no such line.
pub fn parse(text: &str) -> Option<[f64; 3]> {
    let line = text.lines().rev().find(|line| line.starts_with('"') && !line.contains("rps"))?;
    let fields: Option<Vec<f64>> =
        line.split(',').skip(1).map(|field| field.trim().trim_matches('"').parse().ok()).collect();
    match fields?[..] {
        [rate, _mean, _least, p50_ms, _p95, p99_ms, _most] => Some([rate, p50_ms, p99_ms]),
        _ => None,
    }
}
