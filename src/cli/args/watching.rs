//! Commands for those who watch a cluster with programs: metrics and the check of a monitor.

use clap::{Args, Subcommand, ValueEnum};

/// Under `ppdb check --help`.
pub const CHECK_EXAMPLES: &str = "\
Example:
  ppdb check
  ppdb check --format nagios
  ppdb check --format json

The exit codes are those of monitoring plugins, not those of other commands:
  0  all is well
  1  something should be seen to within the day
  2  clients are hurt or will be soon, or no node can be reached
  3  it cannot be told: wrong certificate or settings";

/// Metrics: their names, their values, rules for Prometheus.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum MetricsVerb {
    /// Every metric with its kind, its labels and what it says. Needs no cluster.
    #[command(after_help = "Example:\n  ppdb metrics list\n  ppdb metrics list -o json")]
    List,
    /// The values of a node's metrics, as Prometheus reads them; --node says whose.
    #[command(after_help = "Example:\n  ppdb metrics show --node n2")]
    Show,
    /// The alarms as a file of rules for Prometheus, with the thresholds that are set: the live settings alarm.*.
    #[command(
        after_help = "Example:\n  ppdb metrics rules > ppdb.rules.yml\n  ppdb metrics rules --defaults"
    )]
    Rules {
        /// With the thresholds that hold if nobody sets any; needs no cluster.
        #[arg(long)]
        defaults: bool,
    },
}

/// Whether all is well.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckArgs {
    /// `nagios`: one line with figures behind a bar, as plugins of Nagios, Icinga and their kin print it; `json`: the
    /// same as -o json.
    #[arg(long, value_enum)]
    pub format: Option<CheckFormat>,
}

/// For whom a check is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For monitoring plugins.
    Nagios,
    /// For programs.
    Json,
}
