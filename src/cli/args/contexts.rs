//! Contexts, and what may be changed in a protected one, as typed.

use crate::cli::contexts::{Color, check_name};
use crate::types::units;
use clap::Subcommand;
use std::time::Duration;

/// Under `ppdb context --help`.
pub const EXAMPLES: &str = "\
Example:
  ppdb context add prod --endpoint 10.0.0.1:7101 --certs /etc/ppdb/certs --user alice --protected --color red
  ppdb context use prod
  ppdb status                        goes to prod
  ppdb --context test get a          this once to another one

A context says where a cluster is, and who we are there. It lies below the environment, and that below the flags;
one that --context names replaces what the environment says. In a protected one nothing is changed unless --writes,
or `writes on` in a shell, allows it.";

/// Connections with a name.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ContextVerb {
    /// Keeps the connection of --endpoint, --certs, --user, --ca, --cert and --key, or of their variables, under a
    /// name. Paths are kept as absolute ones.
    #[command(
        after_help = "Example:\n  ppdb context add test --endpoint 127.0.0.1:7101 --certs certs --user admin\n  ppdb context add prod --endpoint 10.0.0.1:7101 --certs /etc/ppdb/certs --protected --color red"
    )]
    Add {
        /// Its name.
        #[arg(value_parser = check_name)]
        name: String,
        /// Change nothing there unless --writes, or `writes on` in a shell, allows it.
        #[arg(long)]
        protected: bool,
        /// Its color in the prompt: red, green, yellow, blue, magenta or cyan.
        #[arg(long, value_enum, value_name = "COLOR", hide_possible_values = true)]
        color: Option<Color>,
        /// Take the place of one that exists.
        #[arg(long)]
        replace: bool,
    },
    /// Makes a context the one that holds where none is named.
    #[command(after_help = "Example:\n  ppdb context use prod\n  ppdb context use --none")]
    Use {
        /// Its name.
        #[arg(required_unless_present = "none", value_name = "NAME")]
        context: Option<String>,
        /// None shall hold.
        #[arg(long, conflicts_with = "context")]
        none: bool,
    },
    /// Lists the contexts.
    #[command(after_help = "Example:\n  ppdb context list -o json")]
    List,
    /// Forgets a context; its certificates stay.
    #[command(after_help = "Example:\n  ppdb context remove test")]
    Remove {
        /// Its name.
        #[arg(value_name = "NAME")]
        context: String,
    },
    /// Tries a context, or all of them: whether its files are there and only ours, how long the certificate is valid,
    /// whether a node answers. The exit code is 1 if anything is wrong.
    #[command(
        after_help = "Example:\n  ppdb context validate\n  ppdb context validate prod -o json"
    )]
    Validate {
        /// Its name; without it all of them.
        #[arg(value_name = "NAME")]
        context: Option<String>,
    },
}

/// Longest time that changes are allowed for.
const WRITES_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether a shell may change something in a protected context.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum WritesVerb {
    /// Allows changes, until `writes off`, another context, or the end of a time.
    #[command(after_help = "Example:\n  ppdb shell -e 'writes on --for 10m; set a 1'")]
    On {
        /// For how long, 1s to 24h; without it until the shell ends.
        #[arg(long = "for", value_parser = writes_time, value_name = "TIME")]
        time: Option<Duration>,
    },
    /// Allows none any more.
    #[command(after_help = "Example:\n  ppdb shell -e 'writes off'")]
    Off,
}

fn writes_time(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        time if (Duration::from_secs(1)..=WRITES_MAX).contains(&time) => Ok(time),
        _ => Err("changes are allowed for 1s to 24h".into()),
    }
}
