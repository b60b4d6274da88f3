//! What the parts can do on this machine: the ceilings that PPDB's own figures are compared with.
//!
//! `cargo bench --bench limits -- [--seconds N] [--rounds N] [--only TEXT] [-o table|json] [--dir DIR]`
//!
//! Each row runs alone, through PPDB's own code: the write-ahead log (`log`), the store over LMDB (`table`),
//! the transport (`echo`), and the file system by hand (`files`). Rows take turns, round after round, so
//! that a slow minute of the machine hits all of them; medians are printed. Values are 128 bytes;
//! records of the log and frames 160, about what a set of such a value takes. There are 200,000 keys.

#[path = "../common/data.rs"]
mod data;
mod echo;
mod files;
mod log;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/stats.rs"]
mod stats;
mod table;
#[path = "../common/text.rs"]
mod text;

use clap::{Parser, ValueEnum};
use serde_json::json;
use stats::{median, range};
use std::path::PathBuf;
use std::time::Duration;
use text::number;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Bytes of a record of the log, and of a small frame.
const RECORD_BYTES: usize = 160;
/// Keys in the table.
const KEYS: usize = 200_000;

/// What is asked for.
#[derive(Parser)]
#[command(name = "limits", about = "What log, table, transport and disk can do on this machine")]
struct Args {
    /// Seconds of each row in each round.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Only rows with this in their name.
    #[arg(long)]
    only: Option<String>,
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

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Something that can be measured for a time.
struct Row {
    name: String,
    unit: &'static str,
    measure: Box<dyn FnMut(Duration) -> Result<f64>>,
    figures: Vec<f64>,
}

impl Row {
    fn new(
        name: impl Into<String>,
        unit: &'static str,
        measure: impl FnMut(Duration) -> Result<f64> + 'static,
    ) -> Self {
        Self { name: name.into(), unit, measure: Box::new(measure), figures: Vec::new() }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = tempfile::Builder::new().prefix("ppdb-limits-").tempdir_in(parent)?;
    eprintln!("the table gets {KEYS} keys");
    let mut rows = log::rows(dir.path())?;
    rows.extend(table::rows(dir.path())?);
    rows.extend(echo::rows(dir.path())?);
    rows.extend(files::rows(dir.path())?);
    if let Some(only) = &args.only {
        rows.retain(|row| row.name.contains(only.as_str()));
    }
    for round in 0..args.rounds {
        for row in &mut rows {
            let figure = (row.measure)(Duration::from_secs(args.seconds))?;
            eprintln!("round {} of {}, {}: {}", round + 1, args.rounds, row.name, number(figure));
            row.figures.push(figure);
        }
    }
    match args.output {
        Format::Table => print!("\n{}", table_of(&rows)),
        Format::Json => println!("{}", json_of(&rows)),
    }
    Ok(())
}

fn table_of(rows: &[Row]) -> String {
    let lines = rows.iter().map(|row| {
        let (least, most) = range(&row.figures).unwrap_or_default();
        vec![
            row.name.clone(),
            row.unit.to_owned(),
            number(median(&row.figures).unwrap_or_default()),
            format!("{} - {}", number(least), number(most)),
        ]
    });
    text::table(&["LIMIT", "UNIT", "MEDIAN", "LEAST - MOST"], &lines.collect::<Vec<_>>(), 2)
}

fn json_of(rows: &[Row]) -> serde_json::Value {
    let rows = rows.iter().map(|row| {
        json!({
            "limit": row.name, "unit": row.unit, "median": median(&row.figures),
            "rounds": row.figures,
        })
    });
    json!({ "v": 1, "rows": rows.collect::<Vec<_>>() })
}
