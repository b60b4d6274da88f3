//! When the writer waits for company before the next batch. Plain code; it does not wait itself.
//!
//! Each batch costs an fdatasync, which wakes the disk, the writer, and whoever waits for the records in it, whether
//! there is one or twenty. A writer that begins the next batch the moment the last one is durable makes as many as the
//! disk allows, and takes the processor from those whose records they are. So where many records come, batches begin
//! some time apart. Where few come, nobody would share it, and nothing is waited for; nor is there more to wait for
//! once as many are there as in the largest batch of late: clients that each wait for an answer have all come back.

use std::time::{Duration, Instant};

/// From the beginning of a batch to that of the next one.
const APART: Duration = Duration::from_millis(2);
/// Over how long records are counted, at least.
const WINDOW: Duration = Duration::from_millis(20);
/// Records in that time from which on batches are apart: two for each batch.
const RECORDS_MIN: u32 = 20;
/// A queue with so many bytes is not waited with,
const BYTES_ENOUGH: usize = 1 << 20;
/// nor one with so many records.
const RECORDS_ENOUGH: usize = 8;

/// What ends the wait for the next batch, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// This moment,
    pub until: Instant,
    /// or so many bytes in the queue,
    pub bytes: usize,
    /// or so many records.
    pub records: usize,
}

/// Counts records.
#[derive(Debug)]
pub struct Gather {
    since: Instant,
    records: u32,
    many: bool,
    /// Records of the largest batch since then, and of the largest in the time before.
    largest: usize,
    largest_before: usize,
}

impl Gather {
    /// Nothing has come yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, records: 0, many: false, largest: 0, largest_before: 0 }
    }

    /// What the next batch waits for, after one of so many records that began then.
    pub fn after(&mut self, began: Instant, records: usize) -> Option<Wait> {
        let passed = began.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let windows = passed.as_micros() as f64 / WINDOW.as_micros() as f64;
            self.many = f64::from(self.records) >= f64::from(RECORDS_MIN) * windows;
            (self.since, self.records) = (began, 0);
            self.largest_before = std::mem::take(&mut self.largest);
        }
        self.records += records as u32;
        self.largest = self.largest.max(records);
        let records = self.largest.max(self.largest_before).min(RECORDS_ENOUGH);
        self.many.then_some(Wait { until: began + APART, bytes: BYTES_ENOUGH, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `batches` are followed by a pause, if they are so far apart and have so many records.
    fn pauses(
        gather: &mut Gather,
        start: Instant,
        batches: u32,
        every_us: u64,
        records: usize,
    ) -> u32 {
        let at = |batch| start + Duration::from_micros(every_us) * batch;
        let waited = (0..batches).filter(|batch| gather.after(at(*batch), records).is_some());
        waited.count() as u32
    }

    #[test]
    fn batches_are_apart_where_many_records_come_and_only_there() {
        let start = Instant::now();
        let gather = || Gather::new(start);
        // One client after the other, at 900 records a second, and at 100.
        assert_eq!(pauses(&mut gather(), start, 100, 1_111, 1), 0);
        assert_eq!(pauses(&mut gather(), start, 100, 10_000, 1), 0);
        // From the second window on.
        assert_eq!(pauses(&mut gather(), start, 100, 500, 1), 60);
        assert_eq!(pauses(&mut gather(), start, 100, 2_000, 3), 90);
    }

    #[test]
    fn it_ends_when_fewer_come() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        assert!(pauses(&mut gather, start, 100, 500, 1) > 0);
        let later = start + Duration::from_secs(1);
        assert_eq!(gather.after(later, 1), None);
        assert_eq!(pauses(&mut gather, later, 100, 1_500, 1), 0);
    }

    #[test]
    fn the_next_batch_begins_so_long_after_the_one_before() {
        let start = Instant::now();
        let mut gather = Gather::new(start);
        pauses(&mut gather, start, 50, 500, 2);
        let began = start + Duration::from_micros(25_000);
        let wait = Wait { until: began + APART, bytes: BYTES_ENOUGH, records: 2 };
        assert_eq!(gather.after(began, 2), Some(wait));
    }

    #[test]
    fn as_many_as_of_late_are_enough() {
        let start = Instant::now();
        let enough = |sizes: &[usize]| {
            let mut gather = Gather::new(start);
            let at = |batch: usize| start + Duration::from_micros(500) * batch as u32;
            let waits = sizes.iter().enumerate().filter_map(|(i, size)| gather.after(at(i), *size));
            waits.last().unwrap().records
        };
        // One client, one after the other.
        assert_eq!(enough(&[1; 100]), 1);
        assert_eq!(enough(&[5; 100]), 5);
        assert_eq!(enough(&[50; 100]), RECORDS_ENOUGH);
        // One that was large lately, and one that was long ago.
        let mut sizes = [1; 130];
        sizes[60] = 6;
        assert_eq!((enough(&sizes[..100]), enough(&sizes)), (6, 1));
    }
}
