//! Questions about the operation log, as typed.

use crate::cluster::oplog::RECORDS_MAX;
use clap::Subcommand;

/// What operators had the cluster do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum OpLog {
    /// The latest operations, newest first: when, who, from where, what, and what came of it.
    #[command(after_help = "Example:\n  ppdb op list\n  ppdb op list --limit 5 -o json")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=RECORDS_MAX as i64))]
        limit: u32,
    },
    /// One operation with everything that is known of it.
    #[command(after_help = "Example:\n  ppdb op show 17\n  ppdb op show 3fa9c1")]
    Show {
        /// Its number, or the beginning of its id, of at least four characters.
        id: String,
    },
}
