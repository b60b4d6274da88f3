//! Whether this copy leads as the only voter, so that it may answer a linearizable read without asking anybody.
//!
//! A leader that is its group's only voter is its own quorum: nobody else can have committed anything, and what
//! was acknowledged is applied here. That is proven once, by a read barrier on the leader, and holds until the
//! log hears of anything that could end it: a vote, a membership, a truncation. The log hears of these before
//! they can take effect anywhere, so a proof is void in time. Plain state; the proof is made in `group`.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. The orderings are all `SeqCst`: what voids a proof must be seen by every reader before the
/// log entry or the vote it came with is sent or made durable.
#[derive(Default)]
pub struct Lone {
    /// Votes, memberships and truncations so far.
    changes: AtomicU64,
    /// One more than the count of changes at which it was proven; 0 if it never was.
    proven: AtomicU64,
    /// The same for the count at which it was found not to be so.
    refuted: AtomicU64,
    /// Index of the newest membership appended since the start.
    membership: AtomicU64,
}

impl Lone {
    /// Something happened that voids every proof.
    pub fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// A membership is about to be appended at this index.
    pub fn membership_appended(&self, index: u64) {
        self.membership.fetch_max(index, Ordering::SeqCst);
        self.changed();
    }

    /// Whether every membership that was appended since the start is applied, if everything up to `applied` is.
    pub fn knows_membership(&self, applied: u64) -> bool {
        self.membership.load(Ordering::SeqCst) <= applied
    }

    /// True while a proof holds.
    pub fn holds(&self) -> bool {
        self.proven.load(Ordering::SeqCst) == self.changes.load(Ordering::SeqCst) + 1
    }

    /// The count of changes, for `settle`; none if nothing changed since it was found not to be so.
    pub fn question(&self) -> Option<u64> {
        let changes = self.changes.load(Ordering::SeqCst);
        (self.refuted.load(Ordering::SeqCst) != changes + 1).then_some(changes)
    }

    /// Answers a question: after it was asked, a quorum confirmed this copy as the leader, and the entries up to
    /// `applied`, among them one of its own term, are applied here. `alone` says whether the membership that is
    /// applied there has no other voter. Worth nothing if anything changed meanwhile.
    pub fn settle(&self, question: u64, applied: u64, alone: bool) {
        // A newer membership is in force as soon as it is appended.
        if !self.knows_membership(applied) {
            return;
        }
        let answer = if alone { &self.proven } else { &self.refuted };
        answer.store(question + 1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proven() -> Lone {
        let lone = Lone::default();
        lone.settle(lone.question().unwrap(), 10, true);
        assert!(lone.holds());
        lone
    }

    #[test]
    fn it_is_not_so_until_proven() {
        assert!(!Lone::default().holds());
        proven();
    }

    #[test]
    fn every_change_voids_the_proof() {
        let lone = proven();
        lone.changed();
        assert!(!lone.holds());
        let lone = proven();
        lone.membership_appended(11);
        assert!(!lone.holds());
    }

    #[test]
    fn what_changed_meanwhile_makes_an_answer_worthless() {
        let lone = Lone::default();
        let question = lone.question().unwrap();
        lone.changed();
        lone.settle(question, 10, true);
        assert!(!lone.holds());
    }

    #[test]
    fn a_membership_that_is_not_applied_yet_settles_nothing() {
        let lone = Lone::default();
        lone.membership_appended(11);
        let question = lone.question().unwrap();
        lone.settle(question, 10, true);
        assert!(!lone.holds());
        lone.settle(question, 10, false);
        assert_eq!(lone.question(), Some(question), "it may be asked again");
        lone.settle(question, 11, true);
        assert!(lone.holds());
    }

    #[test]
    fn what_was_refuted_is_asked_again_only_after_a_change() {
        let lone = Lone::default();
        lone.settle(lone.question().unwrap(), 10, false);
        assert_eq!(lone.question(), None);
        assert!(!lone.holds());
        lone.changed();
        assert!(lone.question().is_some());
    }
}
