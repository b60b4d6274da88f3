//! Replays a block trace: key = block number, `2a` = set a value of that many bytes, `28` = get.
//!
//! Each key belongs to one lane, which works on it in the order of the trace, so every read has one
//! right answer. Keys start with something fresh, so that a key never set has to be absent.

use super::lanes::SharedMeter;
use super::ledger::Ledger;
use super::pace::Pace;
use super::report::Measured;
use super::{BenchOptions, Caller, content, lanes};
use crate::client::{CallOptions, Level};
use crate::types::{Class, Code, Condition, Error, Expiry, Op, OpResult, Result, limits};
use bytes::Bytes;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Requests that wait for one lane; the reader of the file waits with them.
const LANE_QUEUE: usize = 64;
/// SCSI READ(10) and WRITE(10), as the trace names them.
const READ: &str = "28";
const WRITE: &str = "2a";

/// One request of the trace.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Record {
    /// Its place in the trace, from 0.
    number: u64,
    key: u64,
    /// Bytes to write; none is a read.
    write_bytes: Option<usize>,
}

/// Replays the whole file, or as far as the options say.
pub async fn run<C: Caller>(
    caller: Arc<C>,
    path: &Path,
    call: &CallOptions,
    options: &BenchOptions,
) -> Result<Measured> {
    let count = options.clients as usize * options.pipeline as usize;
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(LANE_QUEUE)).unzip();
    let mut receivers = receivers.into_iter();
    let start = Instant::now();
    let end = options.duration.map(|duration| start + duration);
    let reader = read(path.to_owned(), options.trace_limit, end, senders);
    let shared = Arc::new(Shared {
        prefix: format!("{}:{:016x}", options.prefix, rand::random::<u64>()),
        caller,
        call: call.clone(),
        rate: options.rate,
        start,
    });
    let lanes = lanes::run(options, |_, meter| {
        let records = receivers.next().unwrap_or_else(|| mpsc::channel(1).1);
        Lane { shared: shared.clone(), ledger: Ledger::default(), meter }.run(records)
    });
    let (meter, read) = tokio::join!(lanes, reader);
    read?;
    Ok(Measured { meter: meter?, elapsed: start.elapsed() })
}

/// Reads the file on a thread of its own and gives each record to the lane of its key.
async fn read(
    path: PathBuf,
    limit: Option<u64>,
    end: Option<Instant>,
    lanes: Vec<mpsc::Sender<Record>>,
) -> Result<()> {
    let read = tokio::task::spawn_blocking(move || {
        for record in records(open(&path)?, limit) {
            let record = record.map_err(|error| Error {
                message: format!("{}: {}", path.display(), error.message),
                ..error
            })?;
            if end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
            let lane = &lanes[(content::mix(record.key) % lanes.len() as u64) as usize];
            if lane.blocking_send(record).is_err() {
                break;
            }
        }
        Ok(())
    });
    read.await.map_err(|error| Error::new(Code::Internal, error.to_string()))?
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path)
        .map_err(|error| Error::new(Code::NotFound, format!("{}: {error}", path.display())))?;
    let file = BufReader::new(file);
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    Ok(if packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The records of a file with a header line; columns `op`, `size` and `lbn` in any place.
fn records(file: impl Read, limit: Option<u64>) -> impl Iterator<Item = Result<Record>> {
    let mut csv = csv::ReaderBuilder::new().flexible(false).from_reader(file);
    let bad = |message: String| Error::new(Code::BadRequest, message);
    let columns = csv.headers().map_err(|error| bad(error.to_string())).and_then(|header| {
        let at = |name: &str| {
            let found = header.iter().position(|column| column.trim() == name);
            found.ok_or_else(|| bad(format!("no column `{name}` in the first line")))
        };
        Ok([at("op")?, at("size")?, at("lbn")?])
    });
    let limit = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let rows = csv.into_records().take(limit).zip(0u64..).map(move |(row, number)| {
        let row = row.map_err(|error| bad(error.to_string()))?;
        let [op, size, lbn] = columns.clone()?;
        let field = |at: usize| row.get(at).unwrap_or_default().trim();
        let number_in = |at: usize| {
            let text = field(at);
            let parsed = text.parse::<u64>();
            parsed.map_err(|_| bad(format!("request {number}: `{text}` is not a number")))
        };
        let bytes = number_in(size)?.min(limits::VALUE_BYTES_MAX as u64) as usize;
        let write_bytes = match field(op) {
            READ => None,
            WRITE => Some(bytes),
            other => return Err(bad(format!("request {number}: operation `{other}` is unknown"))),
        };
        Ok(Record { number, key: number_in(lbn)?, write_bytes })
    });
    // After something that is not a request, what follows would not be what it seems.
    let mut over = false;
    rows.take_while(move |row| !std::mem::replace(&mut over, row.is_err()))
}

struct Shared<C> {
    prefix: String,
    caller: Arc<C>,
    call: CallOptions,
    rate: Option<u64>,
    start: Instant,
}

/// One lane: its keys, what it knows of them, and where it counts.
struct Lane<C> {
    shared: Arc<Shared<C>>,
    ledger: Ledger,
    meter: SharedMeter,
}

impl<C: Caller> Lane<C> {
    async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            let (start, rate) = (self.shared.start, self.shared.rate);
            let intended = Pace::wait_for(start, rate, record.number).await;
            let error = match record.write_bytes {
                Some(bytes) => self.write(record.key, bytes).await.err(),
                None => self.read(record.key).await.err(),
            };
            let error = error.map(|error| (error.code, error.message));
            self.meter.lock().ended(intended.elapsed(), 1, error);
        }
    }

    async fn write(&mut self, number: u64, bytes: usize) -> Result<()> {
        let version = self.ledger.next_version(number);
        let value = content::value(number, version, bytes);
        let (key, condition, expiry) = (self.key(number), Condition::Always, Expiry::Never);
        let written = self.call(Op::Set { key, value, condition, expiry }).await;
        match &written {
            Ok(_) => self.ledger.written(number, version, bytes),
            Err(error) if error.class() == Class::Uncertain => {
                self.ledger.unknown(number, version, bytes)
            }
            Err(_) => {}
        }
        let result = written?;
        if result != OpResult::Done {
            self.mismatch(format!("set of key {number} answered {result:?}"));
        }
        Ok(())
    }

    async fn read(&mut self, number: u64) -> Result<()> {
        let result = self.call(Op::Get { key: self.key(number) }).await?;
        let found = match &result {
            OpResult::Value(value) => Some(&value[..]),
            OpResult::Nil => None,
            other => {
                self.mismatch(format!("get of key {number} answered {other:?}"));
                return Ok(());
            }
        };
        let checked = match self.shared.call.level {
            Some(Level::Local { .. }) => self.ledger.read_stale(number, found),
            _ => self.ledger.read(number, found),
        };
        if let Err(what) = checked {
            self.mismatch(what);
        }
        Ok(())
    }

    fn key(&self, number: u64) -> Bytes {
        format!("{}:{number}", self.shared.prefix).into()
    }

    fn mismatch(&self, what: String) {
        self.meter.lock().mismatch(|| what);
    }

    async fn call(&self, op: Op) -> Result<OpResult> {
        let answer = self.shared.caller.call(vec![op], &self.shared.call).await.pop();
        let missing = || Err(Error::new(Code::Internal, "an operation without an answer"));
        answer.unwrap_or_else(missing).map(|answer| answer.result)
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
