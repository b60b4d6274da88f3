//! Synthetic load: random keys, a mix of operations, closed or open loop.

use super::lanes::SharedMeter;
use super::mix::{BATCH_KEYS, Kind};
use super::pace::Pace;
use super::report::Measured;
use super::{BenchOptions, Caller, content, lanes};
use crate::client::{CallOptions, Level};
use crate::types::{Condition, Error, Expiry, Op, OpResult, Result};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measured time unless told otherwise.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Keys in one request while loading, and requests in flight.
const LOAD_KEYS: u64 = 100;
const LOAD_IN_FLIGHT: usize = 32;
/// An appended value is emptied once it is this long.
const APPENDED_BYTES_MAX: i64 = 64 << 10;

/// What all lanes share.
struct Plan<C> {
    caller: Arc<C>,
    call: CallOptions,
    options: BenchOptions,
    pace: Pace,
    measure_from: Instant,
    end: Instant,
    /// An absent key is a mismatch.
    all_present: bool,
}

/// Loads the keys if reads need them, then runs for the time given.
pub async fn run<C: Caller>(
    caller: Arc<C>,
    call: &CallOptions,
    options: &BenchOptions,
) -> Result<Measured> {
    let reads = [Kind::Get, Kind::Exists, Kind::Mget, Kind::Del];
    let loaded = !options.skip_load && options.mix.has(&reads);
    if loaded {
        load(&*caller, call, options).await?;
    }
    let start = Instant::now();
    let measure_from = start + options.warmup;
    let local = matches!(call.level, Some(Level::Local { .. }));
    let plan = Arc::new(Plan {
        caller,
        call: call.clone(),
        options: options.clone(),
        pace: Pace::new(start, options.rate),
        measure_from,
        end: measure_from + options.duration.unwrap_or(DURATION_DEFAULT),
        all_present: loaded && !local && !options.mix.has(&[Kind::Del]),
    });
    let meter = lanes::run(options, |_, meter| lane(plan.clone(), meter)).await?;
    Ok(Measured { meter, elapsed: measure_from.elapsed() })
}

/// Stores every key once. Errors end the run: what follows would measure nothing.
async fn load<C: Caller>(caller: &C, call: &CallOptions, options: &BenchOptions) -> Result<()> {
    let starts = (0..options.keys).step_by(LOAD_KEYS as usize);
    let requests = stream::iter(starts.map(|from| async move {
        let keys = from..(from + LOAD_KEYS).min(options.keys);
        let ops = keys.map(|number| set(options, number, 1)).collect();
        caller.call(ops, call).await.into_iter().try_for_each(|answer| answer.map(|_| ()))
    }));
    let loaded = requests.buffer_unordered(LOAD_IN_FLIGHT).try_collect::<()>().await;
    loaded.map_err(|error| Error { message: format!("while loading: {}", error.message), ..error })
}

async fn lane<C: Caller>(plan: Arc<Plan<C>>, meter: SharedMeter) {
    let mut rng = SmallRng::from_os_rng();
    while let Some(intended) = plan.pace.next(Some(plan.end)).await {
        let kind = plan.options.mix.draw(&mut rng);
        let ops = ops(&plan.options, kind, &mut rng);
        let numbers: Vec<u64> = ops.iter().map(|(number, _)| *number).collect();
        let keys = ops.len() as u64;
        let ops = ops.into_iter().map(|(_, op)| op).collect();
        let answers = plan.caller.call(ops, &plan.call).await;
        let took = intended.elapsed();
        let counts = intended >= plan.measure_from;
        let mut error = None;
        for (number, answer) in numbers.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    if let Err(what) = check(&plan, kind, number, &answer.result) {
                        meter.lock().mismatch(|| what);
                    }
                    if kind == Kind::Append
                        && let OpResult::Int(APPENDED_BYTES_MAX..) = answer.result
                    {
                        let empty = set_to(key(&plan.options, 'a', number), Bytes::new());
                        // Not measured; if it fails, the next append that finds it too long does it.
                        let _ = plan.caller.call(vec![empty], &plan.call).await;
                    }
                }
                Err(failed) => error = Some((failed.code, failed.message)),
            }
        }
        if counts {
            meter.lock().ended(took, keys, error);
        }
    }
}

/// The operations of one request with the numbers of their keys.
fn ops(options: &BenchOptions, kind: Kind, rng: &mut SmallRng) -> Vec<(u64, Op)> {
    let mut one = || {
        let number = rng.random_range(0..options.keys);
        let value_key = || key(options, 'v', number);
        let op = match kind {
            Kind::Get | Kind::Mget => Op::Get { key: value_key() },
            Kind::Exists => Op::Exists { key: value_key() },
            Kind::Del => Op::Del { key: value_key() },
            Kind::Set | Kind::Mset => set(options, number, rng.random()),
            Kind::Incr => Op::Incr { key: key(options, 'c', number), by: 1 },
            Kind::Append => {
                let value = content::value(number, 1, options.value_size as usize);
                Op::Append { key: key(options, 'a', number), value }
            }
        };
        (number, op)
    };
    let count = if matches!(kind, Kind::Mget | Kind::Mset) { BATCH_KEYS } else { 1 };
    (0..count).map(|_| one()).collect()
}

fn key(options: &BenchOptions, space: char, number: u64) -> Bytes {
    format!("{}:{space}:{number}", options.prefix).into()
}

fn set(options: &BenchOptions, number: u64, version: u64) -> Op {
    let value = content::value(number, version, options.value_size as usize);
    set_to(key(options, 'v', number), value)
}

fn set_to(key: Bytes, value: Bytes) -> Op {
    Op::Set { key, value, condition: Condition::Always, expiry: Expiry::Never }
}

/// Whether an answer can be right, whoever wrote last.
fn check<C>(plan: &Plan<C>, kind: Kind, number: u64, result: &OpResult) -> Result<(), String> {
    let fits = match (kind, result) {
        (Kind::Get | Kind::Mget, OpResult::Nil) => !plan.all_present,
        (Kind::Get | Kind::Mget, OpResult::Value(found)) => match content::version_of(found) {
            Some(version) => content::is_value(number, version, found),
            // Too short to prove anything but its length.
            None => found.len() == plan.options.value_size as usize,
        },
        (Kind::Exists, OpResult::Bool(exists)) => *exists || !plan.all_present,
        (Kind::Set | Kind::Mset, OpResult::Done) | (Kind::Del, OpResult::Bool(_)) => true,
        (Kind::Incr, OpResult::Int(sum)) => *sum >= 1,
        (Kind::Append, OpResult::Int(bytes)) => *bytes >= i64::from(plan.options.value_size),
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{kind:?} of key {number} answered {}", short(result))) }
}

fn short(result: &OpResult) -> String {
    match result {
        OpResult::Value(value) => format!("{} bytes that are not its value", value.len()),
        OpResult::Failed(code) => format!("{}", Error::new(*code, "refused")),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
