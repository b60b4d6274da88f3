//! The one figure of many latencies: the value that a share of them does not exceed.

/// The value that this share of the values does not exceed, which are sorted for it. None of none.
pub fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied()
}
