//! Commands on keys, as typed. Keys and values are bytes: on the command line whatever the system
//! passes, in a shell line what stands between the quotes.

use super::Consent;
use crate::types::limits;
use crate::types::units;
use clap::Subcommand;
use std::ffi::OsString;

/// Keys and values.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Data {
    /// Value of a key.
    #[command(
        after_help = "Example:\n  ppdb get user:1\n  ppdb get user:1 --level local --max-staleness 500ms"
    )]
    Get {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
    },
    /// Stores a value.
    #[command(
        after_help = "Example:\n  ppdb set user:1 ann --ttl 30s\n  ppdb set lock:7 me --nx\n  ppdb set photo - < photo.jpg"
    )]
    Set {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// The value; on the command line `-` reads it from standard input.
        #[arg(allow_negative_numbers = true)]
        value: OsString,
        /// Only if the key does not exist.
        #[arg(long, conflicts_with = "xx")]
        nx: bool,
        /// Only if the key exists.
        #[arg(long)]
        xx: bool,
        /// Time to live; without it the key lasts.
        #[arg(long, value_name = "TIME", value_parser = ttl_ms, conflicts_with = "keep_ttl")]
        ttl: Option<u64>,
        /// Keep the time to live that the key has.
        #[arg(long)]
        keep_ttl: bool,
    },
    /// Removes keys; answers how many of them existed.
    #[command(
        after_help = "Example:\n  ppdb del user:1 user:2\n  ppdb del --prefix cart: --dry-run\n  ppdb del --prefix cart: --yes"
    )]
    Del {
        /// The keys.
        #[arg(
            required_unless_present = "prefix",
            value_name = "KEY",
            allow_negative_numbers = true
        )]
        keys: Vec<OsString>,
        /// All or none: refused unless the keys share a shard.
        #[arg(long)]
        atomic: bool,
        /// Every key that starts with this. A person is asked, with a count and three of the keys; elsewhere it takes
        /// --yes, and for an empty prefix, which is every key, --confirm. Ends after ten minutes unless --timeout says
        /// otherwise; keys written meanwhile may stay.
        #[arg(long, conflicts_with_all = ["keys", "atomic"], allow_negative_numbers = true)]
        prefix: Option<OsString>,
        /// Count them and delete none.
        #[arg(long, requires = "prefix")]
        dry_run: bool,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
        /// The name of the cluster whose every key shall be deleted.
        #[arg(long, requires = "prefix", value_name = "CLUSTER")]
        confirm: Option<String>,
    },
    /// How many of some keys exist.
    #[command(after_help = "Example:\n  ppdb exists user:1")]
    Exists {
        /// The keys.
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<OsString>,
    },
    /// Values of some keys, in order.
    #[command(after_help = "Example:\n  ppdb mget user:1 user:2 -o json")]
    Mget {
        /// The keys.
        #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
        keys: Vec<OsString>,
        /// One view of all keys: refused unless they share a shard.
        #[arg(long)]
        atomic: bool,
    },
    /// Stores some values.
    #[command(after_help = "Example:\n  ppdb mset {ann}.name Ann {ann}.age 7 --atomic")]
    Mset {
        /// Key, value, key, value, and so on.
        #[arg(required = true, value_names = ["KEY", "VALUE"], num_args = 2.., allow_negative_numbers = true)]
        pairs: Vec<OsString>,
        /// All or none: refused unless the keys share a shard.
        #[arg(long)]
        atomic: bool,
    },
    /// Keys that start with a prefix, in order, with their values.
    #[command(
        after_help = "Example:\n  ppdb scan user: --limit 20\n  ppdb scan user: --keys-only --cursor CURSOR"
    )]
    Scan {
        /// Only keys that start with this; without it all keys.
        #[arg(allow_negative_numbers = true)]
        prefix: Option<OsString>,
        /// Keys in a page, 1 to 1000.
        #[arg(long, default_value_t = 100, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=limits::SCAN_PAGE_MAX as i64))]
        limit: u32,
        /// Where the last page ended.
        #[arg(long)]
        cursor: Option<String>,
        /// Leave the values out.
        #[arg(long)]
        keys_only: bool,
    },
    /// Adds to a whole number (an absent key counts as 0); answers the sum.
    #[command(after_help = "Example:\n  ppdb incr visits\n  ppdb incr stock -3")]
    Incr {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// How much.
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Appends to a value (an absent key counts as empty); answers its length in bytes.
    #[command(after_help = "Example:\n  ppdb append log:1 'one more line'")]
    Append {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// What is appended; on the command line `-` reads it from standard input.
        #[arg(allow_negative_numbers = true)]
        value: OsString,
    },
    /// Replaces a value if it is the one expected.
    #[command(after_help = "Example:\n  ppdb cas leader n1 n2\n  ppdb cas leader --absent n1")]
    Cas {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// The value expected (not with --absent), and the one to store.
        #[arg(required = true, num_args = 1..=2, value_name = "EXPECTED> <VALUE", allow_negative_numbers = true)]
        words: Vec<OsString>,
        /// Expect that the key does not exist.
        #[arg(long)]
        absent: bool,
    },
    /// Milliseconds that a key has left to live, -1 if it lasts.
    #[command(after_help = "Example:\n  ppdb ttl user:1")]
    Ttl {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
    },
    /// Gives a key a time to live.
    #[command(after_help = "Example:\n  ppdb expire user:1 10m")]
    Expire {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
        /// How long, from the write.
        #[arg(value_name = "TIME", value_parser = ttl_ms)]
        after: u64,
    },
    /// Takes the time to live away.
    #[command(after_help = "Example:\n  ppdb persist user:1")]
    Persist {
        /// The key.
        #[arg(allow_negative_numbers = true)]
        key: OsString,
    },
}

/// A time to live in milliseconds, with its unit.
fn ttl_ms(text: &str) -> Result<u64, String> {
    let ms = u64::try_from(units::duration(text)?.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 || ms > limits::TTL_MS_MAX {
        return Err(format!("a time to live is 1ms to {} days", limits::TTL_MS_MAX / 86_400_000));
    }
    Ok(ms)
}
