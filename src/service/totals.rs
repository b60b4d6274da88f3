//! Requests since the start of the process, by class and outcome, with how long they took: what metrics are made of.
//!
//! `Totals::note` is called once for each request and does four relaxed additions.

use crate::admission;
use crate::types::histogram::{self, Counted};
use crate::types::{Code, Histogram};
use crate::wire::client::RequestBody;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestClass {
    /// Few keys by name are read.
    Read,
    /// Few keys are changed.
    Write,
    /// Many operations at a time.
    Batch,
    /// A page of keys.
    Scan,
    /// A session for writes.
    Session,
    /// Where the data is.
    Map,
    /// A question or an order about the cluster.
    Command,
}

impl RequestClass {
    /// All of them.
    pub const ALL: [RequestClass; 7] = [
        RequestClass::Read,
        RequestClass::Write,
        RequestClass::Batch,
        RequestClass::Scan,
        RequestClass::Session,
        RequestClass::Map,
        RequestClass::Command,
    ];

    /// As metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            RequestClass::Read => "read",
            RequestClass::Write => "write",
            RequestClass::Batch => "batch",
            RequestClass::Scan => "scan",
            RequestClass::Session => "session",
            RequestClass::Map => "map",
            RequestClass::Command => "command",
        }
    }

    /// Of a request whose operations are not decoded yet.
    pub fn of(body: &RequestBody) -> Self {
        match body {
            RequestBody::Hello | RequestBody::Map => RequestClass::Map,
            RequestBody::Command(_) => RequestClass::Command,
            RequestBody::Kv(_) => RequestClass::Read,
            RequestBody::Scan(_) => RequestClass::Scan,
            RequestBody::OpenSession { .. } => RequestClass::Session,
        }
    }

    /// Of so many operations of which `writes` change a key.
    pub fn of_ops(ops: usize, writes: usize) -> Self {
        match admission::Class::of(ops, writes) {
            admission::Class::Bulk | admission::Class::Copy => RequestClass::Batch,
            admission::Class::Write => RequestClass::Write,
            admission::Class::Read => RequestClass::Read,
        }
    }
}

/// The place of what went well; codes follow.
const OK: usize = 0;

struct ClassTotals {
    outcomes: Box<[AtomicU64]>,
    ok_us: Histogram,
    failed_us: Histogram,
}

impl Default for ClassTotals {
    fn default() -> Self {
        Self {
            outcomes: (0..=Code::ALL.len()).map(|_| AtomicU64::new(0)).collect(),
            ok_us: Histogram::new(histogram::LATENCY_BOUNDS_US),
            failed_us: Histogram::new(histogram::LATENCY_BOUNDS_US),
        }
    }
}

/// Counts every request.
#[derive(Default)]
pub struct Totals {
    classes: [ClassTotals; RequestClass::ALL.len()],
}

impl std::fmt::Debug for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Totals").finish_non_exhaustive()
    }
}

/// The requests of one class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassCounted {
    /// Which.
    pub class: RequestClass,
    /// How many ended well, and with each code that there was.
    pub outcomes: Vec<(Option<Code>, u64)>,
    /// How long those took that went well, in microseconds.
    pub ok_us: Counted,
    /// The same of the others.
    pub failed_us: Counted,
}

impl Totals {
    /// A request that arrived then has just been answered.
    pub fn note(&self, class: RequestClass, arrived: Instant, error: Option<Code>) {
        let totals = &self.classes[class as usize];
        let outcome = error.map_or(OK, |code| code as usize + 1);
        totals.outcomes[outcome].fetch_add(1, Ordering::Relaxed);
        let took_us = arrived.elapsed().as_micros() as u64;
        if error.is_none() { &totals.ok_us } else { &totals.failed_us }.observe(took_us);
    }

    /// What was counted.
    pub fn counted(&self) -> Vec<ClassCounted> {
        RequestClass::ALL.iter().map(|class| self.of_class(*class)).collect()
    }

    fn of_class(&self, class: RequestClass) -> ClassCounted {
        let totals = &self.classes[class as usize];
        let count = |place: usize| totals.outcomes[place].load(Ordering::Relaxed);
        let codes = Code::ALL.iter().map(|code| (Some(*code), count(*code as usize + 1)));
        let mut outcomes = vec![(None, count(OK))];
        outcomes.extend(codes.filter(|(_, count)| *count > 0));
        let (ok_us, failed_us) = (totals.ok_us.counted(), totals.failed_us.counted());
        ClassCounted { class, outcomes, ok_us, failed_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_class_and_outcome() {
        let (totals, arrived) = (Totals::default(), Instant::now());
        totals.note(RequestClass::Read, arrived, None);
        totals.note(RequestClass::Read, arrived, None);
        totals.note(RequestClass::Write, arrived, Some(Code::Overloaded));
        let last = *Code::ALL.last().unwrap();
        totals.note(RequestClass::Command, arrived, Some(last));
        let counted = totals.counted();
        let of = |class: RequestClass| &counted[class as usize];
        assert_eq!(of(RequestClass::Read).outcomes, [(None, 2)]);
        let writes = of(RequestClass::Write);
        assert_eq!(writes.outcomes, [(None, 0), (Some(Code::Overloaded), 1)]);
        assert_eq!((writes.ok_us.total(), writes.failed_us.total()), (0, 1));
        assert_eq!(of(RequestClass::Command).outcomes[1], (Some(last), 1));
        assert_eq!(of(RequestClass::Scan).outcomes, [(None, 0)]);
    }

    #[test]
    fn classes_stand_where_they_are_looked_up() {
        for (place, class) in RequestClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, place, "{}", class.name());
        }
        assert_eq!(RequestClass::of_ops(1_000, 1), RequestClass::Batch);
        assert_eq!(RequestClass::of_ops(2, 1), RequestClass::Write);
    }
}
