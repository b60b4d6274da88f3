//! The table as it is sent: one staged file for each group, kept while a transfer that was cut off may go on
//! with it, and shared by all who wait for a snapshot of the group.
//!
//! It is of use only as long as the log after its position is still here, because that is where the
//! receiver continues. Decides what stays; who copies and sends is `sending`.

use super::encoding::MetaRecord;
use super::holds::{Hold, Holds};
use super::staging::{Identity, Note, StagedFile};
use crate::types::LogPos;
use crate::wire::codec;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a file is kept that nobody asks for while a member lacks what is in it.
const UNUSED_MAX: Duration = Duration::from_secs(10 * 60);
/// And how long if no member does, as far as is known here, or another copy leads, whose business it is then.
const NOT_LACKED_MAX: Duration = Duration::from_secs(5);
/// A file is given up after this many attempts in a row that did not reach their receiver, if nothing
/// arrived for `FRUITLESS_MAX` either: it keeps the log from being purged.
const ATTEMPTS_MAX: u32 = 8;
const FRUITLESS_MAX: Duration = Duration::from_secs(2 * 60);

/// See the module.
#[derive(Default)]
pub struct Outgoing {
    kept: Mutex<Option<Kept>>,
    /// Transfers of this group that are under way or wait for their turn.
    attempts: AtomicUsize,
    /// Held while the file is made: who wants it, too, waits for it and is sent it next.
    pub making: tokio::sync::Mutex<()>,
}

struct Kept {
    file: StagedFile,
    identity: Identity,
    meta: MetaRecord,
    /// Runs out a while after the last progress.
    hold: Hold,
    /// Since the last progress.
    attempts: u32,
    progress: Instant,
}

/// A file that can be sent.
#[derive(Debug, PartialEq)]
pub struct Ready {
    pub path: PathBuf,
    pub identity: Identity,
}

impl Kept {
    fn ready(&self) -> Ready {
        Ready { path: self.file.path().to_owned(), identity: self.identity.clone() }
    }

    /// `purged` is the last index that the log has let go of.
    fn is_useful(&self, purged: Option<u64>) -> bool {
        purged.is_none_or(|purged| purged <= self.meta.last.index)
    }

    fn is_due(
        &self,
        now: Instant,
        purged: Option<u64>,
        wanted: bool,
        is_lacked: impl Fn(u64) -> bool,
    ) -> bool {
        let rest = now.saturating_duration_since(self.progress);
        let fruitless = self.attempts >= ATTEMPTS_MAX && rest >= FRUITLESS_MAX;
        let unused = !wanted
            && (rest >= UNUSED_MAX || (rest >= NOT_LACKED_MAX && !is_lacked(self.meta.last.index)));
        !self.is_useful(purged) || fruitless || unused
    }
}

/// A transfer that wants the file, from its start to its end.
pub struct Attempt<'a> {
    outgoing: &'a Outgoing,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.outgoing.attempts.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Outgoing {
    /// Takes over what an earlier process left, if this copy made it and the log still continues it.
    pub fn restore(
        &self,
        found: Option<(StagedFile, Note)>,
        raft_id: u64,
        purged: Option<u64>,
        holds: &Holds,
        now: Instant,
    ) {
        let Some((file, Note { identity, have_bytes, .. })) = found else { return };
        let own = identity.copy == raft_id && have_bytes == identity.data_bytes;
        match codec::decode::<MetaRecord>(&identity.meta) {
            Ok(meta) if own => self.put(file, identity, meta, holds, now),
            _ => file.remove(),
        }
        // Who lacks it is known only once the group runs.
        self.tidy(now, purged, |_| true);
    }

    /// A transfer begins to want the file.
    pub fn attempt(&self) -> Attempt<'_> {
        self.attempts.fetch_add(1, Ordering::AcqRel);
        if let Some(kept) = &mut *self.kept.lock() {
            kept.attempts = kept.attempts.saturating_add(1);
        }
        Attempt { outgoing: self }
    }

    /// What can be announced without copying anything.
    pub fn offer(&self, purged: Option<u64>) -> Option<MetaRecord> {
        let kept = self.kept.lock();
        kept.as_ref().filter(|kept| kept.is_useful(purged)).map(|kept| kept.meta.clone())
    }

    /// The file, if it is of use to somebody who was announced that position.
    pub fn ready(&self, announced: Option<LogPos>, purged: Option<u64>) -> Option<Ready> {
        let kept = self.kept.lock();
        let reaches = |kept: &&Kept| announced.is_none_or(|a| a.index <= kept.meta.last.index);
        kept.as_ref().filter(|kept| kept.is_useful(purged)).filter(reaches).map(Kept::ready)
    }

    /// A fresh copy takes the place of what is there.
    pub fn replace(
        &self,
        file: StagedFile,
        identity: Identity,
        meta: MetaRecord,
        holds: &Holds,
        now: Instant,
    ) -> Ready {
        let ready = Ready { path: file.path().to_owned(), identity: identity.clone() };
        self.remove();
        self.put(file, identity, meta, holds, now);
        ready
    }

    fn put(
        &self,
        file: StagedFile,
        identity: Identity,
        meta: MetaRecord,
        holds: &Holds,
        now: Instant,
    ) {
        let hold = holds.hold(meta.last.index);
        hold.linger(now);
        *self.kept.lock() = Some(Kept { file, identity, meta, hold, attempts: 0, progress: now });
    }

    /// The receiver has taken something.
    pub fn progress(&self, now: Instant) {
        if let Some(kept) = &mut *self.kept.lock() {
            (kept.attempts, kept.progress) = (0, now);
            kept.hold.linger(now);
        }
    }

    /// It was installed; it stays only if somebody else waits for it.
    pub fn arrived(&self, attempt: &Attempt<'_>) {
        debug_assert!(std::ptr::eq(attempt.outgoing, self));
        if self.attempts.load(Ordering::Acquire) <= 1 {
            self.remove();
        }
    }

    /// Gives the file up.
    pub fn remove(&self) {
        let kept = self.kept.lock().take();
        kept.into_iter().for_each(|kept| kept.file.remove());
    }

    /// Gives the file up if it is of no use any more. `is_lacked` tells whether this copy leads and a member is
    /// not known to have everything up to an index. Cheap; called all the time.
    pub fn tidy(&self, now: Instant, purged: Option<u64>, is_lacked: impl Fn(u64) -> bool) {
        let wanted = self.attempts.load(Ordering::Acquire) > 0;
        let due = self.kept.lock().take_if(|kept| kept.is_due(now, purged, wanted, is_lacked));
        due.into_iter().for_each(|kept| kept.file.remove());
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoding::MembershipRecord;
    use super::super::staging::{Way, take_stock};
    use super::*;
    use crate::types::GroupId;
    use std::path::Path;

    const COPY: u64 = 3;

    fn at(index: u64) -> LogPos {
        LogPos { term: 1, leader: COPY, index }
    }

    fn staged(dir: &Path, index: u64) -> (StagedFile, Identity, MetaRecord) {
        let meta = MetaRecord { last: at(index), membership: MembershipRecord::default() };
        let file = StagedFile::new(dir, Way::Out).unwrap();
        std::fs::write(file.path(), b"data").unwrap();
        let identity = Identity {
            group: GroupId(1),
            copy: COPY,
            meta: codec::encode(&meta).into(),
            data_bytes: 4,
            crc32c: crc32c::crc32c(b"data"),
        };
        file.write_note(&Note::whole(identity.clone())).unwrap();
        (file, identity, meta)
    }

    struct World {
        dir: tempfile::TempDir,
        out: Outgoing,
        holds: Holds,
        now: Instant,
    }

    impl World {
        /// A file at entry 50.
        fn new() -> Self {
            let world = Self {
                dir: tempfile::tempdir().unwrap(),
                out: Outgoing::default(),
                holds: Holds::default(),
                now: Instant::now(),
            };
            world.fresh(50);
            world
        }

        fn fresh(&self, index: u64) -> Ready {
            let (file, identity, meta) = staged(self.dir.path(), index);
            self.out.replace(file, identity, meta, &self.holds, self.now)
        }

        fn files(&self) -> usize {
            std::fs::read_dir(self.dir.path().join("transfer")).unwrap().count()
        }
    }

    #[test]
    fn it_is_offered_as_long_as_the_log_continues_it() {
        let world = World::new();
        for purged in [None, Some(20), Some(50)] {
            assert_eq!(world.out.offer(purged).unwrap().last, at(50));
        }
        assert_eq!(world.out.offer(Some(51)), None);
        assert!(world.out.ready(Some(at(50)), Some(50)).is_some());
        assert!(world.out.ready(Some(at(51)), Some(50)).is_none(), "older than what was announced");
        assert!(world.out.ready(None, Some(51)).is_none());
        assert_eq!(world.holds.limit(world.now), Some(50));
        world.out.tidy(world.now, Some(50), |_| true);
        assert_eq!(world.files(), 2);
        world.out.tidy(world.now, Some(51), |_| true);
        assert_eq!(world.files(), 0);
    }

    #[test]
    fn there_is_one_at_a_time_and_it_goes_with_its_last_user() {
        let world = World::new();
        let (first, second) = (world.out.attempt(), world.out.attempt());
        let ready = world.fresh(60);
        assert_eq!(world.files(), 2);
        assert_eq!(world.out.ready(Some(at(55)), None), Some(ready));
        world.out.arrived(&first);
        drop(first);
        assert_eq!(world.files(), 2, "somebody waits for it");
        world.out.arrived(&second);
        assert_eq!((world.files(), world.out.offer(None)), (0, None));
    }

    #[test]
    fn nobody_reached_for_long_or_nobody_asking_gives_it_up() {
        let world = World::new();
        let later = |s| world.now + Duration::from_secs(s);
        for _ in 0..ATTEMPTS_MAX {
            world.out.tidy(later(500), None, |_| true);
            drop(world.out.attempt());
        }
        world.out.tidy(later(119), None, |_| true);
        assert_eq!(world.files(), 2);
        world.out.progress(later(119));
        world.out.tidy(later(300), None, |_| true);
        assert_eq!(world.files(), 2, "it went on");
        let waiting = world.out.attempt();
        world.out.tidy(later(3_000), None, |_| true);
        assert_eq!(world.files(), 2, "it waits for its turn");
        drop(waiting);
        for _ in 0..ATTEMPTS_MAX {
            drop(world.out.attempt());
        }
        world.out.tidy(later(300), None, |_| true);
        assert_eq!(world.files(), 0);
        world.fresh(60);
        world.out.tidy(later(601), None, |_| true);
        assert_eq!(world.files(), 0);
    }

    #[test]
    fn what_nobody_lacks_goes_soon_unless_somebody_waits_for_it() {
        let world = World::new();
        let later = |s| world.now + Duration::from_secs(s);
        world.out.tidy(later(4), None, |_| false);
        assert_eq!(world.files(), 2, "a leader that just started hears of its members first");
        let waiting = world.out.attempt();
        world.out.tidy(later(100), None, |_| false);
        assert_eq!(world.files(), 2);
        drop(waiting);
        world.out.tidy(later(100), None, |index| index > 50);
        assert_eq!(world.files(), 0);
    }

    #[test]
    fn what_an_earlier_process_left_is_offered_again_or_removed() {
        let restored = |raft_id, purged| {
            let world = World::new();
            let found = take_stock(world.dir.path(), GroupId(1)).unwrap().outgoing;
            let again = Outgoing::default();
            let holds = Holds::default();
            again.restore(found, raft_id, purged, &holds, world.now);
            let limit = holds.limit(world.now);
            (again.offer(purged).map(|m| m.last), world.files(), limit)
        };
        assert_eq!(restored(COPY, Some(50)), (Some(at(50)), 2, Some(50)));
        assert_eq!(restored(COPY, Some(51)).1, 0);
        assert_eq!(restored(COPY + 1, None), (None, 0, None));
    }
}
