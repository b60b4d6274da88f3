//! `ppdb bench`: load with measured latency, or the replay of a trace that checks every read.
//!
//! Goes through the client library like any program. Values prove where they belong, so wrong ones are
//! counted as mismatches; failed requests are counted by code and never timed.

mod content;
mod counted;
mod lanes;
mod ledger;
mod load;
mod meter;
mod mix;
mod pace;
mod report;
#[cfg(test)]
mod testing;
mod trace;

pub use mix::Mix;
pub use report::BenchReport;

use super::talk::Talk;
use crate::client::{CallOptions, Client, Level, OpAnswer, Options};
use crate::types::{Code, Error, Op, Result};
use crate::wire::client::{Map, Role};
use clap::Args;
use counted::Counted;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Requests in flight at a time, over all clients.
const LANES_MAX: usize = 65_536;

/// What `ppdb bench` is told.
#[derive(Args, Clone, Debug)]
pub struct BenchOptions {
    /// Clients; each is a task that waits for its answers.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub clients: u32,
    /// Connections shared by all clients, spread evenly over the nodes (at least one to each).
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub connections: u32,
    /// Requests that each client keeps in flight.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub pipeline: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=crate::types::limits::VALUE_BYTES_MAX as i64))]
    pub value_size: u32,
    /// Keys to choose from, all equally likely.
    #[arg(long, value_name = "COUNT", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub keys: u64,
    /// Operations with their weights: get, set, incr, del, exists, append, mget, mset.
    #[arg(long, value_name = "MIX", default_value = "get=50,set=50")]
    pub mix: Mix,
    /// What reads may return: linearizable, session, local, or local:TIME with a staleness bound.
    #[arg(long, value_name = "LEVEL", value_parser = read_level)]
    pub read_level: Option<Level>,
    /// How long to measure [default: 10s; a trace runs to its end].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How long to run before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub warmup: Duration,
    /// Requests started each second, by schedule; latency counts from the intended start
    /// [default: as fast as answers come].
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Replay this trace (.csv or .csv.gz with columns op, size, lbn) and check every read.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Stop after this many requests of the trace.
    #[arg(long, value_name = "COUNT", requires = "trace")]
    pub trace_limit: Option<u64>,
    /// What keys start with; a trace adds something fresh to it.
    #[arg(long, value_name = "TEXT", default_value = "bench")]
    pub prefix: String,
    /// Do not store the keys first; absent ones are then no mismatch.
    #[arg(long)]
    pub skip_load: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

fn read_level(text: &str) -> Result<Level, String> {
    match text.split_once(':') {
        None if text == "linearizable" => Ok(Level::Linearizable),
        None if text == "session" => Ok(Level::Session),
        None if text == "local" => Ok(Level::Local { max_staleness_ms: None }),
        Some(("local", bound)) => {
            let ms = u32::try_from(duration(bound)?.as_millis());
            let ms = ms.ok().filter(|ms| *ms > 0);
            let ms = ms.ok_or_else(|| format!("`{bound}` is not a staleness bound"))?;
            Ok(Level::Local { max_staleness_ms: Some(ms) })
        }
        _ => Err(format!("`{text}` is none of linearizable, session, local, local:TIME")),
    }
}

/// What carries out operations: the client, or a stand-in that tests can make misbehave.
trait Caller: Send + Sync + 'static {
    fn call(
        &self,
        ops: Vec<Op>,
        options: &CallOptions,
    ) -> impl Future<Output = Vec<Result<OpAnswer>>> + Send;
}

impl Caller for Client {
    fn call(
        &self,
        ops: Vec<Op>,
        options: &CallOptions,
    ) -> impl Future<Output = Vec<Result<OpAnswer>>> + Send {
        Client::call(self, ops, options)
    }
}

/// Runs a load. `connect` says where and as whom (its number of connections is replaced by
/// `options.connections`), `call` how each request is carried out, unless `options.read_level` says
/// otherwise. Errors of requests are in the report; an `Err` means that nothing could be measured. `talk` hears how far
/// it is.
pub async fn run(
    connect: Options,
    call: &CallOptions,
    options: &BenchOptions,
    talk: &Talk,
) -> Result<BenchReport> {
    let lanes = options.clients as usize * options.pipeline as usize;
    if lanes > LANES_MAX {
        let message = format!("at most {LANES_MAX} requests in flight, not {lanes}");
        return Err(Error::new(Code::BadRequest, message));
    }
    let first = Client::connect(Options { connections_per_node: 1, ..connect.clone() }).await?;
    let map = first.refresh().await?;
    // What the cluster's setting names holds for the whole run, so that one thing is measured.
    let unnamed = || Level::by_default(map.read_default);
    let level = options.read_level.or(call.level).unwrap_or_else(unnamed);
    let call = CallOptions { level: Some(level), ..call.clone() };
    let nodes = nodes_used(&map, level).max(1);
    let per_node = (options.connections as usize / nodes).max(1);
    let client = match per_node {
        1 => first,
        _ => {
            first.close().await;
            Client::connect(Options { connections_per_node: per_node, ..connect }).await?
        }
    };
    let caller = Arc::new(Counted::new(client.clone()));
    let running = async {
        match &options.trace {
            Some(path) => trace::run(caller.clone(), path, &call, options).await,
            None => load::run(caller.clone(), &call, options).await,
        }
    };
    let measured = caller.tell(talk, running).await;
    client.close().await;
    let mut report = report::report(measured?, options, level);
    report.connections = per_node * nodes;
    Ok(report)
}

/// Nodes that get requests at this level.
fn nodes_used(map: &Map, level: Level) -> usize {
    let used = |role| level != Level::Linearizable || role == Role::Primary;
    map.nodes.iter().filter(|node| used(node.role)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchOptions,
    }

    fn parse(line: &str) -> Result<BenchOptions, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_defaults() {
        let bench = parse("").unwrap();
        assert_eq!((bench.clients, bench.connections, bench.pipeline), (64, 4, 1));
        assert_eq!((bench.value_size, bench.keys), (128, 200_000));
        assert_eq!(bench.mix.to_string(), "get=50,set=50");
        assert_eq!((bench.duration, bench.read_level, bench.rate), (None, None, None));
        let line = "--clients 8 --pipeline 16 --mix incr --read-level local:500ms --rate 100 \
                    --duration 2s --warmup 0s";
        let bench = parse(line).unwrap();
        assert_eq!((bench.clients, bench.pipeline, bench.rate), (8, 16, Some(100)));
        let bounded = Level::Local { max_staleness_ms: Some(500) };
        assert_eq!((bench.read_level, bench.warmup), (Some(bounded), Duration::ZERO));
        for bad in [
            "--clients 0",
            "--read-level stale",
            "--read-level local:0s",
            "--mix put=1",
            "--rate 0",
            "--value-size 1048577",
            "--trace-limit 5",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replicas_count_only_where_they_are_asked() {
        use crate::wire::client::MapNode;
        let node = |name: &str, role| MapNode {
            name: crate::types::NodeName::new(name).unwrap(),
            role,
            addr: String::new(),
        };
        let nodes = vec![node("n1", Role::Primary), node("r1", Role::Replica)];
        let map = Map { nodes, ..Map::default() };
        assert_eq!(nodes_used(&map, Level::Linearizable), 1);
        assert_eq!(nodes_used(&map, Level::Session), 2);
    }
}
