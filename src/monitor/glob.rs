//! Patterns of keys, as a watch has them. No classes of characters, and nothing that takes long.

/// Whether a key is like a pattern: `*` stands for any bytes, `?` for one, a backslash takes the meaning of the next.
/// It goes back to the last `*` only, so it takes at most as many steps as the product of the lengths.
pub fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut p, mut k) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while k < key.len() {
        let (width, fits) = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, k));
                p += 1;
                continue;
            }
            Some(b'?') => (1, true),
            Some(b'\\') if p + 1 < pattern.len() => (2, pattern[p + 1] == key[k]),
            Some(byte) => (1, *byte == key[k]),
            None => (0, false),
        };
        match (fits, star) {
            (true, _) => (p, k) = (p + width, k + 1),
            (false, Some((after, from))) => {
                star = Some((after, from + 1));
                (p, k) = (after, from + 1);
            }
            (false, None) => return false,
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_star_is_any_bytes_a_question_mark_is_one_and_a_backslash_takes_their_meaning() {
        for (pattern, fits, others) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a:b"], &[]),
            ("cart:*", &["cart:", "cart:42"], &["cart", "my cart:1"]),
            ("*:42", &[":42", "cart:42", "a:42:42"], &["cart:421", "42"]),
            ("a*b*c", &["abc", "a-b-b-c", "abbcc"], &["ac", "abcd", "acb"]),
            ("user:?", &["user:1"], &["user:", "user:12"]),
            ("?*", &["a", "ab"], &[""]),
            ("a\\*b", &["a*b"], &["axb", "ab"]),
            ("a\\?", &["a?"], &["ab"]),
            ("a\\\\*", &["a\\", "a\\b"], &["a*"]),
            ("a\\", &["a\\"], &["a"]),
        ] {
            for key in fits {
                assert!(matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
            }
            for key in others {
                assert!(!matches(pattern.as_bytes(), key.as_bytes()), "{pattern} {key}");
            }
        }
        assert!(matches(b"\xff*\x00", &[0xff, 0xfe, 0]));
    }

    #[test]
    fn no_pattern_takes_long() {
        let (pattern, key) = ("a*".repeat(63) + "b", "a".repeat(480));
        let began = Instant::now();
        assert!(!matches(pattern.as_bytes(), key.as_bytes()));
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }
}
