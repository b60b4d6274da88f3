//! The mix of operations: `get=50,set=50`.

use rand::Rng;
use std::fmt;
use std::str::FromStr;

/// Keys in one `mget` or `mset`.
pub const BATCH_KEYS: usize = 10;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads a value and checks it.
    Get,
    /// Stores a value.
    Set,
    /// Adds one to a counter.
    Incr,
    /// Removes a key.
    Del,
    /// Asks whether a key exists.
    Exists,
    /// Appends to a value that is reset now and then, so that it stays short.
    Append,
    /// Reads `BATCH_KEYS` values and checks them.
    Mget,
    /// Stores `BATCH_KEYS` values.
    Mset,
}

impl Kind {
    /// Every kind with its name.
    pub const ALL: [(Kind, &'static str); 8] = [
        (Kind::Get, "get"),
        (Kind::Set, "set"),
        (Kind::Incr, "incr"),
        (Kind::Del, "del"),
        (Kind::Exists, "exists"),
        (Kind::Append, "append"),
        (Kind::Mget, "mget"),
        (Kind::Mset, "mset"),
    ];
}

/// Kinds with their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    parts: Vec<(Kind, u32)>,
    total: u32,
}

impl Mix {
    /// Draws a kind.
    pub fn draw(&self, rng: &mut impl Rng) -> Kind {
        let mut left = rng.random_range(0..self.total);
        for (kind, weight) in &self.parts {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        self.parts[0].0
    }

    /// True if any of these is part of the mix.
    pub fn has(&self, kinds: &[Kind]) -> bool {
        self.parts.iter().any(|(kind, _)| kinds.contains(kind))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = vec![];
        for part in text.split(',') {
            let (name, weight) = part.trim().split_once('=').unwrap_or((part.trim(), "1"));
            let kind = Kind::ALL.iter().find(|(_, known)| *known == name);
            let (kind, _) = kind.ok_or_else(|| {
                let names: Vec<&str> = Kind::ALL.iter().map(|(_, name)| *name).collect();
                format!("`{name}` is none of {}", names.join(", "))
            })?;
            let weight: u32 = weight.parse().map_err(|_| format!("`{weight}` is not a weight"))?;
            if weight > 1_000_000 {
                return Err(format!("a weight is at most 1000000, not {weight}"));
            }
            if weight > 0 {
                parts.push((*kind, weight));
            }
        }
        let total = parts.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return Err("a mix needs one operation with a weight above 0".into());
        }
        Ok(Self { parts, total })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, weight)) in self.parts.iter().enumerate() {
            let name = Kind::ALL.iter().find(|(k, _)| k == kind).map_or("", |(_, name)| name);
            write!(f, "{}{name}={weight}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn weights_are_kept() {
        let mix: Mix = "get=30, set=10,del=0,incr=60".parse().unwrap();
        assert_eq!(mix.to_string(), "get=30,set=10,incr=60");
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            match mix.draw(&mut rng) {
                Kind::Get => counts[0] += 1,
                Kind::Set => counts[1] += 1,
                Kind::Incr => counts[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        for (count, expected) in counts.into_iter().zip([3_000, 1_000, 6_000]) {
            assert!(count.abs_diff(expected) < 300, "{counts:?}");
        }
    }

    #[test]
    fn what_is_not_a_mix_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "none of"),
            ("get=50,put=50", "`put` is none of get, set"),
            ("get=x", "`x` is not a weight"),
            ("get=0", "above 0"),
            ("get=4000000000", "at most"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!("get".parse::<Mix>().unwrap().has(&[Kind::Set, Kind::Get]));
    }
}
