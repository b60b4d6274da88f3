//! How nodes do, as typed: breakers between them, rates, hot keys.

use super::Consent;
use super::live::{self, BigArgs};
use crate::types::{NodeName, units};
use crate::wire::breaker::{FORCE_MAX, FORCE_MIN, PeerClass};
use crate::wire::load::HOT_KEYS_MAX;
use clap::{Args, Subcommand};
use std::time::Duration;

/// Under `ppdb breaker --help`.
pub const BREAKER_EXAMPLES: &str = "\
Example:
  ppdb breaker list
  ppdb breaker open n2 --for 10m
  ppdb breaker close n2 --class copy --for 1h --node n1";

/// Breakers between nodes: whether a node is asked by the others.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Breaker {
    /// Each breaker of each node, or of the one that --node names: what was counted in the last ten seconds, whether
    /// it is open, and why. In a shell those of its own client, too.
    #[command(after_help = "Example:\n  ppdb breaker list\n  ppdb breaker list --node n1 -o json")]
    List,
    /// Holds back calls to a node for a time, whatever becomes of them.
    #[command(after_help = "Example:\n  ppdb breaker open n2 --for 10m")]
    Open(Force),
    /// Lets calls to a node pass for a time, whatever becomes of them.
    #[command(after_help = "Example:\n  ppdb breaker close n2 --class control --for 10m")]
    Close(Force),
}

/// An order about the breakers towards a node: those of every other node, or of the one that --node names.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Force {
    /// The node that is called.
    #[arg(value_parser = NodeName::new, value_name = "NODE")]
    pub peer: NodeName,
    /// Questions and orders (`control`) or copies of shards (`copy`); without it both.
    #[arg(long, value_parser = class, value_name = "CLASS")]
    pub class: Option<PeerClass>,
    /// For how long, 1s to 24h; it ends by itself.
    #[arg(long = "for", value_parser = force_time, value_name = "TIME")]
    pub time: Duration,
    /// Whether to ask.
    #[command(flatten)]
    pub consent: Consent,
}

fn class(text: &str) -> Result<PeerClass, String> {
    let found = PeerClass::ALL.into_iter().find(|class| class.name() == text);
    found.ok_or_else(|| format!("`{text}` is no class of calls: control or copy"))
}

fn force_time(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        time if (FORCE_MIN..=FORCE_MAX).contains(&time) => Ok(time),
        _ => Err("a breaker is forced for 1s to 24h".into()),
    }
}

/// Bounds of the time between two looks.
const EVERY_MIN: Duration = Duration::from_millis(200);
const EVERY_MAX: Duration = Duration::from_secs(3_600);

/// How nodes do at this moment.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Stats {
    /// Shows it again and again, until Ctrl-C.
    #[arg(long)]
    pub watch: bool,
    /// How often, 200ms to 1h.
    #[arg(long, requires = "watch", default_value = "2s", value_parser = every, value_name = "TIME")]
    pub every: Duration,
}

fn every(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        time if (EVERY_MIN..=EVERY_MAX).contains(&time) => Ok(time),
        _ => Err("a look every 200ms to 1h".into()),
    }
}

/// What keys are asked for.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Keys {
    /// The keys that were asked for most in the last ten to thirty seconds, with estimated rates: each node samples one
    /// in 64 operations. Begins anew when a node is restarted.
    #[command(
        after_help = "Example:\n  ppdb keys hot\n  ppdb keys hot --limit 3 --node n1 -o json"
    )]
    Hot {
        /// How many, 1 to 128.
        #[arg(long, default_value_t = 10, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=HOT_KEYS_MAX as i64))]
        limit: u16,
    },
    /// The largest values, and how many keys and bytes each prefix up to the first colon has, by a scan that gives way
    /// to everything else and says how far it looked.
    #[command(after_help = live::BIG_EXAMPLES)]
    Big(BigArgs),
}

#[cfg(test)]
mod tests {
    use crate::cli::testing;

    #[test]
    fn times_and_counts_have_bounds_and_a_breaker_is_never_forced_for_good() {
        let parse = |line: &str| testing::parse(line).is_ok();
        assert!(parse("breaker open n2 --for 1s"));
        assert!(parse("breaker close n2 --class copy --for 24h"));
        assert!(parse("stats") && parse("stats --watch --every 200ms"));
        assert!(parse("keys hot --limit 128"));
        for bad in [
            "breaker open n2",
            "breaker open n2 --for 999ms",
            "breaker open n2 --for 25h",
            "breaker open n2 --for 10",
            "breaker open n2 --class votes --for 1m",
            "breaker open --for 1m",
            "stats --watch --every 100ms",
            "stats --every 2s",
            "keys hot --limit 0",
            "keys hot --limit 129",
        ] {
            assert!(!parse(bad), "{bad}");
        }
    }
}
