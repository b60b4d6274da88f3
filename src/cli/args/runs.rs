//! Questions about runs of runbooks, as typed.

use crate::cluster::runs::RUNS_MAX;
use clap::Subcommand;

/// What runbooks did.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Runs {
    /// The latest runs, newest first: when, who, which script, how far, and how it ended.
    #[command(after_help = "Example:\n  ppdb runs list\n  ppdb runs list --limit 5 -o json")]
    List {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=RUNS_MAX as i64))]
        limit: u32,
    },
    /// One run with its parameters, steps and notes.
    #[command(after_help = "Example:\n  ppdb runs show RUN-12\n  ppdb runs show 12 -o json")]
    Show {
        /// Its number.
        #[arg(value_parser = number)]
        run: u64,
    },
}

/// `RUN-12`, or `12`.
pub fn number(text: &str) -> Result<u64, String> {
    let digits = text
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("run-"))
        .map_or(text, |_| &text[4..]);
    let number = digits.parse::<u64>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("`{text}` is not a run such as RUN-12"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_with_or_without_its_prefix() {
        for good in ["RUN-12", "run-12", "12"] {
            assert_eq!(number(good), Ok(12), "{good}");
        }
        for bad in ["RUN-", "0", "RUN-x", "", "ü12é", "-1"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
