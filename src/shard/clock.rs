//! Where the stamps of entries come from, and how far a single clock can move them.
//!
//! Decides from numbers; reading clocks and hearing those of others is the node's work.

/// How far a stamp may run ahead of the median of the clocks heard, in milliseconds.
pub const AHEAD_MS_MAX: u64 = 500;

/// Fewer clocks than this say nothing about which one is wrong.
const HEARD_MIN: usize = 3;

/// Where the stamps of entries come from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970: min(own clock, median of the clocks heard + 500 ms), or the own clock if
    /// fewer than three are heard. May go backwards; the stamps of entries do not.
    fn stamp_ms(&self) -> u64;
}

/// The own clock, held back to the median of the clocks heard + 500 ms where at least three are heard.
/// Of an even number the lower of the two in the middle counts.
pub fn held_back(own_ms: u64, heard_ms: &[u64]) -> u64 {
    if heard_ms.len() < HEARD_MIN {
        return own_ms;
    }
    let mut sorted_ms = heard_ms.to_vec();
    sorted_ms.sort_unstable();
    let median_ms = sorted_ms[(sorted_ms.len() - 1) / 2];
    own_ms.min(median_ms.saturating_add(AHEAD_MS_MAX))
}

/// The stamp of the next entry: never before the last one.
pub fn stamp(last_ms: u64, own_ms: u64, heard_ms: &[u64]) -> u64 {
    last_ms.max(held_back(own_ms, heard_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fast_clock_cannot_run_away() {
        assert_eq!(stamp(0, 9_000, &[1_000, 1_010, 1_020]), 1_510);
        assert_eq!(stamp(0, 9_000, &[1_000, 9_000, 1_020]), 1_520);
        // Two of four agree with the fast one; the lower middle still holds it.
        assert_eq!(stamp(0, 9_000, &[1_000, 1_020, 9_000, 9_000]), 1_520);
        assert_eq!(stamp(0, 9_000, &[u64::MAX; 3]), 9_000);
    }

    #[test]
    fn a_slow_clock_stays_slow_and_a_stamp_never_goes_back() {
        assert_eq!(stamp(0, 700, &[1_000, 1_010, 1_020]), 700);
        assert_eq!(stamp(1_200, 700, &[1_000, 1_010, 1_020]), 1_200);
        assert_eq!(stamp(9_999, 9_000, &[1_000, 1_010, 1_020]), 9_999);
    }

    #[test]
    fn fewer_than_three_clocks_say_nothing() {
        for heard in [&[][..], &[1], &[1, 2]] {
            assert_eq!(stamp(0, 9_000, heard), 9_000);
        }
    }
}
