//! Questions about log lines, as typed.

use crate::telemetry::ring::PAGE_LINES_MAX;
use crate::types::units;
use clap::Args;
use std::time::Duration;

/// Under `ppdb logs --help`.
pub const EXAMPLES: &str = "\
Example:
  ppdb logs --level warn
  ppdb logs --since 10m --node n2
  ppdb logs --follow -o jsonl

A node keeps its last 4096 lines, 1 MiB at most, since its start. How much it says is the live setting
log.level; --level (error, warn, info, debug or trace) only chooses among what was said.";

/// Which log lines are shown.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct LogsArgs {
    /// No older ones.
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    pub since: Option<Duration>,
    /// At most so many, the newest of all nodes together.
    #[arg(long, default_value_t = 100, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=PAGE_LINES_MAX as i64))]
    pub limit: u32,
    /// Go on with the lines that come, until Ctrl-C or --timeout.
    #[arg(long)]
    pub follow: bool,
}
