//! What was written and what may be read back: the judge of `demo --exit`. Pure.
//!
//! Every write of a key carries a rising number. Acknowledged writes have to be there; a write of unknown
//! outcome may be there, at any time later; a write that failed never may.

/// What is known of one key.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Number of the last acknowledged write.
    acked: Option<u64>,
    /// Numbers of all writes of unknown outcome: each may take effect at any time after it was sent.
    maybe: Vec<u64>,
    /// Number of the last write that was sent.
    sent: u64,
}

/// What a value read back means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it has to be.
    Held,
    /// An acknowledged write is missing.
    Lost,
    /// Something is there that never took effect.
    Phantom,
}

impl Entry {
    /// The number of the next write.
    pub fn next(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    /// A write was acknowledged. Writes of one key follow each other, so it is the newest.
    pub fn acked(&mut self, number: u64) {
        self.acked = Some(number);
    }

    /// Nobody knows whether a write took effect.
    pub fn unknown(&mut self, number: u64) {
        self.maybe.push(number);
    }

    /// Judges what was read, when no write is under way.
    pub fn judge(&self, key: u32, read: Option<&[u8]>) -> Verdict {
        let Some(bytes) = read else {
            return if self.acked.is_some() { Verdict::Lost } else { Verdict::Held };
        };
        match number_of(key, bytes) {
            Some(number) if self.acked == Some(number) || self.maybe.contains(&number) => {
                Verdict::Held
            }
            Some(number) if self.acked.is_some_and(|acked| number < acked) => Verdict::Lost,
            _ => Verdict::Phantom,
        }
    }
}

/// The name of a key.
pub fn key(key: u32) -> String {
    format!("demo:{key:07}")
}

/// The value of a write: key, number, and padding that makes it 128 bytes.
pub fn value(key: u32, number: u64) -> String {
    format!("{:-<128}", format!("{key}:{number}:"))
}

/// The number in a value, if it is one of this key.
fn number_of(key: u32, bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.split(':').nth(1)?.parse().ok()?;
    (text == value(key, number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(entry: &Entry, number: u64) -> Verdict {
        entry.judge(5, Some(value(5, number).as_bytes()))
    }

    #[test]
    fn the_last_acknowledged_write_has_to_be_there() {
        let mut entry = Entry::default();
        assert_eq!(entry.judge(5, None), Verdict::Held);
        for _ in 0..2 {
            let number = entry.next();
            entry.acked(number);
        }
        assert_eq!(judged(&entry, 2), Verdict::Held);
        assert_eq!(judged(&entry, 1), Verdict::Lost);
        assert_eq!(entry.judge(5, None), Verdict::Lost);
    }

    #[test]
    fn unknown_writes_may_be_there_and_failed_ones_may_not() {
        let mut entry = Entry::default();
        let (first, unknown, failed) = (entry.next(), entry.next(), entry.next());
        entry.acked(first);
        entry.unknown(unknown);
        assert_eq!(judged(&entry, first), Verdict::Held);
        assert_eq!(judged(&entry, unknown), Verdict::Held);
        assert_eq!(judged(&entry, failed), Verdict::Phantom);
        let last = entry.next();
        entry.acked(last);
        assert_eq!(judged(&entry, unknown), Verdict::Held);
        assert_eq!(judged(&entry, first), Verdict::Lost);
    }

    #[test]
    fn a_torn_or_foreign_value_is_no_write_of_the_key() {
        let mut entry = Entry::default();
        let number = entry.next();
        entry.acked(number);
        assert_eq!(value(5, 1).len(), 128);
        assert_eq!(entry.judge(5, Some(&value(5, 1).as_bytes()[..127])), Verdict::Phantom);
        assert_eq!(entry.judge(5, Some(value(6, 1).as_bytes())), Verdict::Phantom);
        assert_eq!(entry.judge(5, Some(b"")), Verdict::Phantom);
    }
}
