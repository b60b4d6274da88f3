//! PPDB against its peers, in the same run on the same machine.
//!
//! `cargo bench --bench peers -- [--seconds N] [--rounds N] [--keys N] [--only ROW,...] [-o table|json]`
//!
//! What runs: Redis Cluster (`redis`), etcd (`etcd`) and PPDB (`ppdb`, the release build), each as real
//! processes on 127.0.0.1 with mutual TLS, data in a temporary folder, every write fsynced before it is
//! acknowledged. All get the same keys and values (`data`) from the same loop of 64 tasks (`load`); the
//! clients run in this process, on the same cores as the servers. Each module says in its head how its
//! system is set up and driven. One peer runs at a time, beside PPDB, which is first sharded and then, by a
//! real switch, in full replication; rounds alternate between the systems (`contest`), and medians are
//! compared (`report`) with what is demanded (`rows`). A system that is not being driven costs what it costs
//! idle, for PPDB the row `idle`.
//!
//! Whatever was started is killed at the end, however the bench ends.

mod certs;
#[path = "../common/client.rs"]
mod client;
mod contest;
#[path = "../common/data.rs"]
mod data;
mod driver;
mod etcd;
mod events;
mod load;
#[path = "../common/ppdb.rs"]
mod ppdb;
#[path = "../common/proc_files.rs"]
mod proc_files;
#[path = "../common/process.rs"]
mod process;
#[path = "../common/quantile.rs"]
mod quantile;
#[path = "../common/random.rs"]
mod random;
mod redis;
mod report;
mod rows;
#[path = "../common/stage.rs"]
mod stage;
#[path = "../common/stats.rs"]
mod stats;
#[path = "../common/switch.rs"]
mod switch;
#[path = "../common/text.rs"]
mod text;

use certs::Certs;
use clap::Parser;
use contest::{Contest, Driver, Systems, Way};
use data::Data;
use process::find;
use report::{Counts, Report};
use rows::{Peer, Row};
use stage::Format;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Connections to each primary where 64 clients have connections of their own: 63 in all.
const SEPARATE: usize = 21;
/// Switches without load, of which the one in the middle counts.
const SWITCHES: usize = 5;
/// Switches under load, of which the medians count.
const LOADED_SWITCHES: usize = 3;
/// How long the idle cluster is watched at most.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// And at least.
const IDLE_MIN: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Parser)]
#[command(name = "peers", about = "PPDB against Redis Cluster and etcd, in the same run")]
struct Args {
    /// Seconds of each round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds of each row and way of driving it.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Keys that are stored first.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    keys: u64,
    /// Only these rows.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,
    /// How the result is printed.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Where the data goes: a fresh folder in this one [default: the system's folder for such].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // What was started belongs to `run`: it is killed when that ends or is given up.
    let outcome = tokio::select! {
        report = run(&args) => report,
        Err(error) = stage::interrupted() => Err(error),
    };
    match outcome {
        Ok(report) => {
            match args.output {
                Format::Table => print!("\n{}", report.text()),
                Format::Json => println!("{}", report.json()),
            }
            if report.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Report> {
    let dir = stage::fresh_dir(args.dir.as_deref(), "ppdb-peers-")?;
    let mut report = Report::default();
    let rows = wanted(args, &mut report);
    let contest = Contest {
        data: Arc::new(Data::new(args.keys as usize)),
        time: Duration::from_secs(args.seconds),
        rounds: args.rounds as usize,
    };
    let certs = Certs::make(dir.path())?;
    let program = Path::new(env!("CARGO_BIN_EXE_ppdb"));
    eprintln!("PPDB starts and gets {} keys", args.keys);
    let mut own = ppdb::Cluster::start(program, &dir.path().join("ppdb")).await?;
    let filler = driver::Driver::of(&own, 1).await?;
    filler.fill(&contest.data).await?;
    filler.close().await;

    if rows.contains(&Row::Idle) {
        let window = (contest.time * contest.rounds as u32).clamp(IDLE_MIN, IDLE_MAX);
        report.idle = Some(idle(&mut own, window).await?);
    }
    let sharded: Vec<Row> = of_peer(&rows, Peer::Redis);
    if let (false, Some(server)) = (sharded.is_empty(), find("redis-server")) {
        let dir = dir.path().join("redis");
        report
            .samples
            .extend(against_redis(&contest, &sharded, &mut own, &server, &dir, &certs).await?);
    }
    if rows.contains(&Row::SwitchLoaded) {
        eprintln!("PPDB is switched under load");
        let times = LOADED_SWITCHES.min(contest.rounds);
        let loaded = events::switch_under_load(&mut own, &contest.data, contest.time, times);
        report.loaded = Some(loaded.await?);
    }
    let full: Vec<Row> = rows.iter().copied().filter(|row| row.is_full()).collect();
    if !full.is_empty() {
        eprintln!("PPDB is switched to full replication");
        let times = if full.contains(&Row::Switch) { SWITCHES } else { 1 };
        match events::switch_without_load(&mut own, dir.path(), times).await {
            Ok(found) => report.switch = Some(found).filter(|_| full.contains(&Row::Switch)),
            Err(error) => {
                report.left_out.extend(full.into_iter().map(|row| (row, error.to_string())));
                return Ok(report);
            }
        }
    }
    let full = of_peer(&rows, Peer::Etcd);
    if let (false, Some(server)) = (full.is_empty(), find("etcd")) {
        let dir = dir.path().join("etcd");
        report
            .samples
            .extend(against_etcd(&contest, &full, &mut own, &server, &dir, &certs).await?);
    }
    if rows.contains(&Row::Failover) {
        eprintln!("PPDB loses a primary");
        let times = events::FAILOVERS.min(contest.rounds * 4);
        report.failovers_s = events::failovers(&mut own, times).await?;
    }
    Ok(report)
}

fn of_peer(rows: &[Row], peer: Peer) -> Vec<Row> {
    rows.iter().copied().filter(|row| row.peer() == peer).collect()
}

/// The rows asked for whose peer is there; what is missing is noted with the package that has it.
fn wanted(args: &Args, report: &mut Report) -> Vec<Row> {
    let asked = |row: &Row| args.only.is_empty() || args.only.contains(row);
    let mut rows = Vec::new();
    for row in Row::ALL.into_iter().filter(asked) {
        let needed = match row.peer() {
            Peer::Redis => Some(("redis-server", "redis-server")),
            Peer::Etcd => Some(("etcd", "etcd-server")),
            Peer::Files | Peer::Itself | Peer::Nobody => None,
        };
        match needed.filter(|(program, _)| find(program).is_none()) {
            None => rows.push(row),
            Some((program, package)) => {
                let why = format!("`{program}` is not installed: apt-get install {package}");
                eprintln!("left out: {} ({why})", row.name());
                report.left_out.push((row, why));
            }
        }
    }
    rows
}

/// CPU in percent of a core, and anonymous memory of the largest process in MiB.
async fn idle(own: &mut ppdb::Cluster, window: Duration) -> Result<(f64, f64)> {
    if !own.settled().await? {
        eprintln!("the tables of PPDB did not catch up with its log within a minute");
    }
    eprintln!("PPDB is left alone for {} s", window.as_secs());
    let before_s = own.cpu_s()?;
    tokio::time::sleep(window).await;
    own.check()?;
    let percent = (own.cpu_s()? - before_s) * 100.0 / window.as_secs_f64();
    Ok((percent, own.anon_mib_max()?))
}

async fn against_redis(
    contest: &Contest,
    rows: &[Row],
    own: &mut ppdb::Cluster,
    server: &Path,
    dir: &Path,
    certs: &Certs,
) -> Result<Vec<report::Sample>> {
    eprintln!("Redis starts and gets the same keys");
    let mut redis = redis::Cluster::start(server, dir, certs).await?;
    let shared = Arc::new(redis.client(1).await?);
    shared.fill(&contest.data).await?;
    let separate = driver::Driver::of(own, SEPARATE).await?;
    let mut ways = ways_of_ppdb(driver::Driver::of(own, 1).await?, separate);
    ways.push(Way {
        name: "Redis, 3 connections",
        counts: Counts::Reference,
        takes_part: |_| true,
        driver: Driver::Redis(shared),
    });
    ways.push(Way {
        name: "Redis, 63 connections",
        counts: Counts::Reference,
        takes_part: |_| true,
        driver: Driver::Redis(Arc::new(redis.client(SEPARATE).await?)),
    });
    match find("redis-benchmark") {
        Some(program) => ways.push(Way {
            name: "redis-benchmark, 64 connections",
            counts: Counts::Reference,
            takes_part: |_| true,
            driver: Driver::RedisBenchmark(program),
        }),
        None => eprintln!("`redis-benchmark` is not installed: apt-get install redis-tools"),
    }
    let mut systems = Systems { ppdb: own, redis: Some(&mut redis), etcd: None };
    contest.run(rows, &ways, &mut systems).await
}

async fn against_etcd(
    contest: &Contest,
    rows: &[Row],
    own: &mut ppdb::Cluster,
    server: &Path,
    dir: &Path,
    certs: &Certs,
) -> Result<Vec<report::Sample>> {
    eprintln!("etcd starts and gets the same keys");
    let mut etcd = etcd::Cluster::start(server, dir, certs).await?;
    let shared = Arc::new(etcd.client(3).await?);
    shared.fill(&contest.data).await?;
    let separate = Arc::new(etcd.client(3 * SEPARATE).await?);
    let own_separate = driver::Driver::of(own, SEPARATE).await?.local();
    let mut ways = ways_of_ppdb(driver::Driver::of(own, 1).await?.local(), own_separate);
    ways.push(Way {
        name: "etcd, 3 connections",
        counts: Counts::Reference,
        takes_part: |_| true,
        driver: Driver::Etcd(shared),
    });
    ways.push(Way {
        name: "etcd, 63 connections",
        counts: Counts::Reference,
        takes_part: |_| true,
        driver: Driver::Etcd(separate),
    });
    let mut systems = Systems { ppdb: own, redis: None, etcd: Some(&mut etcd) };
    contest.run(rows, &ways, &mut systems).await
}

fn ways_of_ppdb(shared: driver::Driver, separate: driver::Driver) -> Vec<Way> {
    vec![
        Way {
            name: "PPDB, a connection to each node",
            counts: Counts::Own,
            takes_part: |_| true,
            driver: Driver::Ppdb(Arc::new(shared)),
        },
        Way {
            name: "PPDB, 21 connections to each node",
            counts: Counts::Aside,
            takes_part: |row| row != Row::SetShardedPipelined,
            driver: Driver::Ppdb(Arc::new(separate)),
        },
    ]
}
