//! Tests of the whole log; each file of it has its own beside its code.

mod golden;
mod log;
mod power_loss;
mod recycle;
mod world;

use super::record;
use super::sim::SimFs;
use super::writer::{Step, Writer};
use super::{Done, Error, GroupLog, Options, Wal};
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;

/// Small enough that segments, batches and caches are full every day.
fn tiny() -> Options {
    Options {
        segment_bytes: 16 << 10,
        segments_reserved: 1,
        batch_bytes_max: 2 << 10,
        queue_bytes_max: 1 << 20,
        cache_bytes_per_group: 512,
        ..Options::default()
    }
}

/// A log over the twin whose writer the test drives.
struct Driven {
    wal: Wal,
    writer: Writer,
    /// (name, went well) of the callbacks that ran, in order.
    done: Arc<Mutex<Vec<(u64, bool)>>>,
}

impl Driven {
    fn open(fs: &SimFs, options: Options) -> Result<Self, Error> {
        let (wal, writer) = Wal::open_driven(Arc::new(fs.clone()), options)?;
        Ok(Self { wal, writer, done: Arc::default() })
    }

    fn group(&self, group: u64) -> GroupLog {
        self.wal.group(crate::types::GroupId(group))
    }

    /// A callback that notes `name`.
    fn done(&self, name: u64) -> Done {
        let done = self.done.clone();
        Box::new(move |result| done.lock().push((name, result.is_ok())))
    }

    /// Writes all that waits.
    fn drain(&mut self) -> Step {
        loop {
            match self.writer.step(false) {
                Step::Worked => {}
                step => return step,
            }
        }
    }
}

/// The record at `at`, if its checksums hold: its header and its body without padding.
fn record_at(bytes: &[u8], at: usize, salt: record::Salt) -> Option<(record::Head, &[u8])> {
    let head = record::head(bytes, at, salt)?;
    Some((head, record::body(bytes, at, &head, salt)?))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn ignore() -> Done {
    Box::new(|_| {})
}
