//! A sale: the cluster is switched to full replication and back under load, and what was promised of that is
//! checked.
//!
//! `cargo bench --bench sale -- [--bytes SIZE] [--runs N] [--seconds N] [--dir DIR] [-o table|json]`
//!
//! A real cluster of the release build (`ppdb`) gets values of 128 B to 64 KiB (`values`). Without load it is
//! switched to full, beside a copy of the same files by hand (`switch`). The rates that it can bear are measured in
//! both strategies, and half of the lower one is the load from then on, by schedule (`load`, `window`). Under it,
//! again and again (`story`): `sharded -> full -> revert -> full -> finalize -> sharded -> finalize`, each run after
//! a baseline of its own. Demands are judged in `demands` and printed by `report`.
//!
//! Whatever was started is killed at the end, however the bench ends.

#[path = "../common/client.rs"]
mod client;
mod demands;
mod findings;
mod load;
// The loss of a node is not a part of a sale.
#[allow(dead_code)]
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
mod report;
#[path = "../common/stage.rs"]
mod stage;
#[path = "../common/stats.rs"]
mod stats;
mod store;
mod story;
#[path = "../common/switch.rs"]
mod switch;
#[path = "../common/text.rs"]
mod text;
mod values;
mod window;

use ::ppdb::types::units;
use clap::Parser;
use findings::{Findings, Unloaded};
use stage::Format;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use text::number;
use values::Values;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The load is this share of the lower rate.
const LOAD_SHARE: f64 = 0.5;

/// What is asked for.
#[derive(Parser)]
#[command(name = "sale", about = "Switches PPDB under load, and checks what was promised of that")]
struct Args {
    /// Bytes of all values, such as 1GiB.
    #[arg(long, default_value = "1GiB", value_parser = units::bytes)]
    bytes: u64,
    /// Times through the sequence.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Seconds of each rate that is measured, and of the baseline of each run.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
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
        findings = run(&args) => findings,
        Err(error) = stage::interrupted() => Err(error),
    };
    match outcome {
        Ok(findings) => {
            match args.output {
                Format::Table => print!("\n{}", report::text(&findings)),
                Format::Json => println!("{}", report::json(&findings)),
            }
            if findings.failed() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("sale: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<Findings> {
    let dir = stage::fresh_dir(args.dir.as_deref(), "ppdb-sale-")?;
    let time = Duration::from_secs(args.seconds);
    let values = Values::new(args.bytes);
    let mut findings =
        Findings { keys: values.keys(), bytes: values.bytes(), ..Findings::default() };
    eprintln!("PPDB starts and gets {} keys", number(values.keys() as f64));
    let program = Path::new(env!("CARGO_BIN_EXE_ppdb"));
    let mut own = ppdb::Cluster::start(program, &dir.path().join("ppdb")).await?;
    own.set_live("switch.cool_down", "0s").await?;
    let store = Arc::new(Store::new(own.client(1).await?, values));
    store.fill().await?;

    eprintln!("its tables are copied by hand, and by a switch without load");
    findings.unloaded = unloaded(&mut own, dir.path()).await?;
    findings.full_rate = rate(&store, "in full replication", time).await?;
    own.revert().await?;
    settle(&own).await?;
    findings.sharded_rate = rate(&store, "sharded", time).await?;
    findings.rate = findings.full_rate.min(findings.sharded_rate) * LOAD_SHARE;
    for i in 1..=args.runs {
        settle(&own).await?;
        eprintln!("run {i} of {}, at {}/s", args.runs, number(findings.rate));
        let run = story::run(&mut own, &store, findings.rate, time).await?;
        eprintln!("  before: {}", story::line(&run.base));
        eprintln!("  during: {}", story::line(&run.whole));
        findings.runs.push(run);
    }
    Ok(findings)
}

async fn unloaded(own: &mut ppdb::Cluster, dir: &Path) -> Result<Unloaded> {
    settle(own).await?;
    let (bytes, switch_s, copy_s) = switch::measure(own, dir).await?;
    let operation = own.operation().await?.ok_or("the switch is not in the journal")?;
    Ok(Unloaded { bytes, switch_s, copy_s, cost: story::cost(&operation)? })
}

async fn rate(store: &Arc<Store>, how: &str, time: Duration) -> Result<f64> {
    let rate = load::saturated(store, time).await?;
    eprintln!("{how}: at most {} requests/s", number(rate));
    Ok(rate)
}

/// Waits until what was written is in the tables: otherwise the next figure would pay for it.
async fn settle(own: &ppdb::Cluster) -> Result<()> {
    if !own.settled().await? {
        eprintln!("the tables of PPDB did not catch up with its log within a minute");
    }
    Ok(())
}
