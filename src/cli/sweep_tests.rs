//! Deleting by prefix, on a table in memory that takes few keys at a time and can be told to fail.

use super::super::exit;
use super::super::preview::{self, Seen};
use super::super::talk::Show;
use super::super::value::envelope;
use super::*;
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Pages of this twin are short, so that there are many.
const TWIN_PAGE: usize = 7;

struct Twin {
    keys: Mutex<BTreeSet<Bytes>>,
    /// More at a time are refused.
    batch_max: usize,
    /// Deletions that succeed before one fails, and how.
    fails_after: Option<(usize, Code)>,
    deletions: Mutex<usize>,
    /// Whether this showed a line when a page was read.
    seen_by: Option<Talk>,
    told: Mutex<Vec<bool>>,
}

fn twin(keys: usize) -> Twin {
    let of = |i| Bytes::from(format!("user:{i:03}"));
    let mut all: BTreeSet<Bytes> = (0..keys).map(of).collect();
    all.extend(["a", "use", "user;", "z"].map(Bytes::from_static_str));
    Twin {
        keys: Mutex::new(all),
        batch_max: 1_000,
        fails_after: None,
        deletions: Mutex::new(0),
        seen_by: None,
        told: Mutex::default(),
    }
}

trait Static {
    fn from_static_str(text: &'static str) -> Self;
}

impl Static for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes())
    }
}

impl Table for Twin {
    async fn page(&self, scan: &ScanOptions, _: Duration) -> Result<Page> {
        assert!(scan.keys_only);
        self.told.lock().extend(self.seen_by.as_ref().map(Talk::has_open_line));
        let after = scan.cursor.clone().map(Bytes::from);
        let keys = self.keys.lock();
        let fitting = keys.iter().filter(|key| key.starts_with(&scan.prefix));
        let fitting = fitting.filter(|key| after.as_ref().is_none_or(|after| *key > after));
        let mut entries: Vec<_> = fitting.map(|key| (key.clone(), None)).collect();
        let more = entries.len() > TWIN_PAGE;
        entries.truncate(TWIN_PAGE);
        let last = entries.last().map(|(key, _)| String::from_utf8(key.to_vec()).unwrap());
        Ok(Page { cursor: last.filter(|_| more), entries })
    }

    async fn delete(&self, keys: &[Bytes], _: Duration) -> Vec<Result<bool>> {
        let one = |key: &Bytes| {
            if keys.len() > self.batch_max {
                return Err(Error::new(Code::BatchTooLarge, "too many"));
            }
            let mut done = self.deletions.lock();
            if let Some((after, code)) = self.fails_after
                && *done >= after
            {
                return Err(Error::new(code, "it broke"));
            }
            *done += 1;
            Ok(self.keys.lock().remove(key))
        };
        keys.iter().map(one).collect()
    }
}

async fn sweep(twin: &Twin, prefix: &'static str, progress: &Progress) -> Done {
    let deadline = Instant::now() + Duration::from_secs(10);
    let prefix = Bytes::from_static(prefix.as_bytes());
    let talk = Talk::default();
    Sweep { prefix, deadline, progress, talk, log: false }.run(twin).await
}

#[tokio::test]
async fn every_key_with_the_prefix_goes_and_no_other() {
    let twin = twin(50);
    let done = sweep(&twin, "user:", &Progress::default()).await;
    let json = envelope(&done, 1.0);
    assert_eq!((&json["value"]["deleted"], exit::of(&done)), (&json!(50), exit::YES), "{json}");
    let left: Vec<Bytes> = twin.keys.lock().iter().cloned().collect();
    assert_eq!(left, ["a", "use", "user;", "z"]);
    let none = sweep(&twin, "user:", &Progress::default()).await;
    assert_eq!(
        (envelope(&none, 1.0)["value"]["deleted"].clone(), exit::of(&none)),
        (json!(0), exit::NO)
    );
}

#[tokio::test]
async fn fewer_at_a_time_if_the_cluster_takes_fewer() {
    let twin = Twin { batch_max: 3, ..twin(40) };
    let done = sweep(&twin, "user:", &Progress::default()).await.unwrap();
    assert_eq!(envelope(&Ok(done), 1.0)["value"]["deleted"], 40);
    let twin = Twin { batch_max: 0, ..self::twin(40) };
    let failure = sweep(&twin, "user:", &Progress::default()).await.unwrap_err();
    assert_eq!(failure.error.code, Code::BatchTooLarge, "one at a time is the end of it");
}

#[tokio::test]
async fn what_was_deleted_is_told_exactly_however_it_ends() {
    let fails = |after, code| Twin { fails_after: Some((after, code)), ..twin(40) };
    // In the middle of the third page: five of seven.
    let failure =
        sweep(&fails(19, Code::NoSpace), "user:", &Progress::default()).await.unwrap_err();
    let json = envelope(&Err(failure), 1.0);
    assert_eq!((&json["code"], &json["outcome"]), (&json!("Unknown"), &json!("unknown")), "{json}");
    assert_eq!(json["details"], json!({ "deleted": 19, "unknown": 0 }));
    assert!(json["message"].as_str().unwrap().starts_with("19 keys were deleted, then"), "{json}");
    // Answers that were lost may be either way.
    let progress = Progress::default();
    let failure = sweep(&fails(19, Code::Unknown), "user:", &progress).await.unwrap_err();
    assert_eq!(failure.details, Some(Box::new(json!({ "deleted": 19, "unknown": 2 }))));
    assert!(progress.left_early().is_some_and(|text| text.starts_with("19 keys")));
    // Before anything was deleted it is the error itself.
    let failure = sweep(&fails(0, Code::NoSpace), "user:", &Progress::default()).await.unwrap_err();
    assert_eq!((failure.error.code, failure.details), (Code::NoSpace, None));
    assert_eq!(Progress::default().left_early(), None);
}

#[tokio::test]
async fn a_person_sees_how_far_it_is_and_nothing_of_that_stays() {
    let talk = Talk::new(Show::Progress);
    let watched = Twin { seen_by: Some(talk.clone()), ..twin(20) };
    let (deadline, progress) = (Instant::now() + Duration::from_secs(10), &Progress::default());
    let prefix = Bytes::from_static(b"user:");
    let sweep = Sweep { prefix, deadline, progress, talk: talk.clone(), log: false };
    sweep.run(&watched).await.unwrap();
    assert_eq!(*watched.told.lock(), [false, true, true], "before each of three pages");
    assert!(!talk.has_open_line());
}

#[tokio::test]
async fn what_is_not_there_is_not_asked_about_and_not_looked_for_again() {
    let twin = twin(40);
    let deadline = Instant::now() + Duration::from_secs(10);
    let look = async |prefix| preview::of_sweep(&twin, &Bytes::from_static(prefix), deadline).await;
    let Seen::Nothing(answered) = look(b"x").await.unwrap() else { panic!() };
    let done = Ok(*answered);
    let json = envelope(&done, 1.0);
    assert_eq!(json["value"], json!({ "prefix": "x", "deleted": 0, "dry_run": false }));
    assert_eq!(exit::of(&done), exit::NO);
    let Seen::Ask(preview) = look(b"user:").await.unwrap() else { panic!() };
    assert!(preview.shown.starts_with("40 keys"), "{preview:?}");
}

#[tokio::test]
async fn keys_are_counted_with_three_samples_and_up_to_a_bound() {
    let twin = twin(40);
    let deadline = Instant::now() + Duration::from_secs(10);
    let prefix = Bytes::from_static(b"user:");
    let all = count(&twin, &prefix, None, deadline).await.unwrap();
    assert_eq!((all.keys, all.more, all.samples.len()), (40, false, 3));
    let expected = "40 keys with the prefix `user:`, such as `user:000`, `user:001`, `user:002`";
    assert_eq!(all.words(&prefix), expected);
    let some = count(&twin, &prefix, Some(10), deadline).await.unwrap();
    assert_eq!((some.keys, some.more), (14, true));
    assert!(some.words(&prefix).starts_with("more than 14 keys"));
    let none = count(&twin, &Bytes::from_static(b"x"), None, deadline).await.unwrap();
    assert_eq!((none.keys, none.answer(&prefix).yes), (0, false));
    let late = count(&twin, &prefix, None, Instant::now()).await.unwrap_err();
    assert_eq!(late.code, Code::DeadlineExceeded);
    assert_eq!(twin.keys.lock().len(), 44, "nothing was deleted");
}
