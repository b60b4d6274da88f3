//! Keys that this shell has seen, typed or answered: what completion offers first. Bounded, in memory only.

use crate::cli::args::{Data, Verb};
use crate::cli::value::{Done, Value};
use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;

/// Keys that are remembered; the oldest makes room.
pub const KEYS_MAX: usize = 1_000;
/// Bytes of a key that is remembered: nobody completes a longer one.
const KEY_BYTES_MAX: usize = 256;

/// Keys, in the order they were seen last.
#[derive(Debug, Default)]
pub struct SeenKeys {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl SeenKeys {
    /// Remembers a key, if it is one that can be typed.
    pub fn note(&mut self, key: &str) {
        let odd = key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control);
        if odd || !self.known.insert(key.to_owned()) {
            return;
        }
        self.order.push_back(key.to_owned());
        if self.order.len() > KEYS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Remembers the keys of a command and of its answer.
    pub fn note_all(&mut self, typed: &[OsString], done: &Done) {
        if let Ok(answered) = done {
            typed.iter().filter_map(|key| key.to_str()).for_each(|key| self.note(key));
            if let Value::Page { entries, .. } = &answered.value {
                let keys = entries.iter().filter_map(|(key, _)| std::str::from_utf8(key).ok());
                keys.for_each(|key| self.note(key));
            }
        }
    }

    /// Those that start so.
    pub fn starting_with(&self, prefix: &str) -> Vec<String> {
        self.order.iter().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

/// The keys in a command.
pub fn typed(verb: &Verb) -> Vec<OsString> {
    let Verb::Data(data) = verb else { return Vec::new() };
    match data {
        Data::Get { key }
        | Data::Set { key, .. }
        | Data::Incr { key, .. }
        | Data::Append { key, .. }
        | Data::Cas { key, .. }
        | Data::Ttl { key }
        | Data::Expire { key, .. }
        | Data::Persist { key } => vec![key.clone()],
        Data::Del { keys, .. } | Data::Exists { keys } | Data::Mget { keys, .. } => keys.clone(),
        Data::Mset { pairs, .. } => pairs.iter().step_by(2).cloned().collect(),
        Data::Scan { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Cli;
    use crate::cli::value::Answered;
    use crate::types::{Code, Error};
    use bytes::Bytes;

    fn keys_of(line: &str) -> Vec<OsString> {
        let words = shlex::split(line).unwrap().into_iter().map(OsString::from);
        typed(&Cli::from_words(words).unwrap().verb)
    }

    #[test]
    fn keys_of_every_command_are_found_and_nothing_else() {
        assert_eq!(keys_of("set a secret"), ["a"]);
        assert_eq!(keys_of("mset a 1 b 2"), ["a", "b"]);
        assert_eq!(keys_of("cas a old new"), ["a"]);
        assert_eq!(keys_of("del a b"), ["a", "b"]);
        assert!(keys_of("status").is_empty() && keys_of("scan us").is_empty());
    }

    #[test]
    fn what_was_answered_is_remembered_and_what_failed_is_not() {
        let mut seen = SeenKeys::default();
        let entry = |key: &'static [u8]| (Bytes::from_static(key), None);
        let entries = vec![entry(b"user:1"), entry(b"\xff"), entry(b"user:\n")];
        let page = Value::Page { entries, cursor: None };
        seen.note_all(&["user:7".into()], &Ok(Answered::of(page)));
        seen.note_all(&["user:8".into()], &Err(Error::new(Code::Unknown, "lost").into()));
        assert_eq!(seen.starting_with("user"), ["user:7", "user:1"]);
        assert!(seen.starting_with("cart").is_empty());
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut seen = SeenKeys::default();
        for i in 0..KEYS_MAX + 10 {
            seen.note(&format!("k{i}"));
            seen.note("k3");
        }
        assert_eq!(seen.order.len(), KEYS_MAX);
        assert_eq!(seen.known.len(), KEYS_MAX);
        assert!(seen.starting_with("k5").iter().all(|key| key != "k5"));
        seen.note(&"x".repeat(KEY_BYTES_MAX + 1));
        assert!(seen.starting_with("x").is_empty());
    }
}
