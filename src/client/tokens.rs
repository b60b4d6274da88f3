//! What this client has seen of one shard: the highest token, behind reads of level `Session`.

use crate::types::{Incarnation, ReadLevel, Token};
use parking_lot::Mutex;

/// The highest token over all replies of one shard.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Option<(Incarnation, u64)>>);

impl Seen {
    /// A reply carried this token. A later lineage replaces an earlier one.
    pub(crate) fn saw(&self, token: Token) {
        let mut seen = self.0.lock();
        *seen = (*seen).max(Some((token.incarnation, token.index)));
    }

    /// The shard said that this lineage is lost. What was seen of it can never be read again; once
    /// that has been reported, reads go on from the lineage that lives.
    pub(crate) fn lost(&self, incarnation: Incarnation) {
        let mut seen = self.0.lock();
        if seen.is_some_and(|(of, _)| of == incarnation) {
            *seen = None;
        }
    }

    /// The level of a session read: at least what was seen, and at least the caller's own token.
    /// A caller's token of an earlier lineage than ours is sent as it is, because only the shard may
    /// say what became of it. `current` is the lineage in the map.
    pub(crate) fn level(&self, after: Option<Token>, current: Incarnation) -> ReadLevel {
        let seen = *self.0.lock();
        let (incarnation, index) = match (seen, after) {
            (Some((of, index)), Some(token)) if of == token.incarnation => {
                (of, index.max(token.index))
            }
            (_, Some(token)) => (token.incarnation, token.index),
            (Some(seen), None) => seen,
            (None, None) => (current, 0),
        };
        ReadLevel::Session { incarnation, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ShardId;

    fn token(incarnation: u32, index: u64) -> Token {
        Token { shard: ShardId(0), incarnation: Incarnation(incarnation), index }
    }

    fn session(incarnation: u32, index: u64) -> ReadLevel {
        ReadLevel::Session { incarnation: Incarnation(incarnation), index }
    }

    #[test]
    fn the_highest_token_counts_whatever_the_order_of_replies() {
        let seen = Seen::default();
        assert_eq!(seen.level(None, Incarnation(4)), session(4, 0));
        seen.saw(token(0, 9));
        seen.saw(token(0, 5));
        assert_eq!(seen.level(None, Incarnation(0)), session(0, 9));
        assert_eq!(seen.level(Some(token(0, 20)), Incarnation(0)), session(0, 20));
        assert_eq!(seen.level(Some(token(0, 2)), Incarnation(0)), session(0, 9));
        seen.saw(token(1, 3));
        seen.saw(token(0, 30));
        assert_eq!(seen.level(None, Incarnation(1)), session(1, 3));
    }

    #[test]
    fn a_token_of_another_lineage_is_the_shards_to_judge() {
        let seen = Seen::default();
        seen.saw(token(1, 3));
        assert_eq!(seen.level(Some(token(0, 30)), Incarnation(1)), session(0, 30));
        assert_eq!(seen.level(Some(token(2, 1)), Incarnation(1)), session(2, 1));
    }

    #[test]
    fn a_lost_lineage_is_forgotten_once() {
        let seen = Seen::default();
        seen.saw(token(0, 30));
        seen.lost(Incarnation(1));
        assert_eq!(seen.level(None, Incarnation(1)), session(0, 30));
        seen.lost(Incarnation(0));
        assert_eq!(seen.level(None, Incarnation(1)), session(1, 0));
    }
}
