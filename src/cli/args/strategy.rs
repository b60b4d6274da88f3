//! The switch between strategies, as typed.

use crate::wire::client;
use crate::wire::terms::{PlanId, Terms};
use clap::{Args, Subcommand, ValueEnum};

/// Under `ppdb strategy --help`: a switch from beginning to end.
pub const EXAMPLES: &str = "\
Example:
  ppdb strategy plan full            may it start now, and what will it cost? changes nothing
  ppdb strategy prepare full         copy, compare, hold warm; clients notice nothing
  ppdb strategy commit               the new strategy holds
  ppdb strategy revert               back within seconds, until it is finalized

Orders are carried out by the cluster, whoever waits. They wait until the phase asked for is reached, ten
minutes unless --timeout says otherwise; --no-wait returns when the order is journaled. Ctrl-C ends the
waiting and nothing else.";

/// How data is placed, and the switch between the two ways.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Strategy {
    /// The strategy that holds, and the latest operation.
    #[command(after_help = "Example:\n  ppdb strategy show")]
    Show,
    /// Whether a switch may start now, and what it will cost: measures the cluster for a few seconds and
    /// answers with named checks, a forecast and the name of a plan, good for 15 minutes. Changes nothing.
    /// The exit code is 1 if a check says no-go.
    #[command(
        after_help = "Example:\n  ppdb strategy plan full\n  ppdb strategy switch full --plan P-17"
    )]
    Plan {
        /// Where to.
        to: To,
    },
    /// Phase one: makes the copies, verifies them and holds them warm. Nothing changes for clients.
    #[command(
        after_help = "Example:\n  ppdb strategy prepare full\n  ppdb strategy prepare full --timeout 2h"
    )]
    Prepare {
        /// Where to.
        to: To,
        /// On which terms.
        #[command(flatten)]
        terms: Asked,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Phase two: what is prepared becomes the strategy.
    #[command(after_help = "Example:\n  ppdb strategy commit")]
    Commit {
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Both phases in one.
    #[command(after_help = "Example:\n  ppdb strategy switch full")]
    Switch {
        /// Where to.
        to: To,
        /// On which terms.
        #[command(flatten)]
        terms: Asked,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Gives up before the commit point: extra copies are dropped, the origin holds.
    #[command(after_help = "Example:\n  ppdb strategy abort --reason 'the sale is off'")]
    Abort {
        /// Why; kept in the journal.
        #[arg(long, default_value = "by order", value_name = "TEXT")]
        reason: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Goes back after the commit point, to the strategy before.
    #[command(after_help = "Example:\n  ppdb strategy revert --reason 'p99 doubled'")]
    Revert {
        /// Why; kept in the journal.
        #[arg(long, default_value = "by order", value_name = "TEXT")]
        reason: String,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Closes the way back: what only it needed is dropped.
    #[command(after_help = "Example:\n  ppdb strategy finalize")]
    Finalize {
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Follows the latest operation until it rests, a line for each change; with -o jsonl an object each.
    #[command(
        after_help = "Example:\n  ppdb strategy watch\n  ppdb strategy watch --timeout 30m -o jsonl"
    )]
    Watch,
    /// The operations that the journal remembers, the latest last.
    #[command(after_help = "Example:\n  ppdb strategy history -o json")]
    History,
}

/// Where a switch leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum To {
    /// Every primary holds everything.
    Full,
    /// Every key lives on one primary.
    Sharded,
}

impl From<To> for client::Strategy {
    fn from(to: To) -> Self {
        match to {
            To::Full => client::Strategy::Full,
            To::Sharded => client::Strategy::Sharded,
        }
    }
}

/// On which terms a switch is asked for.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The plan that `strategy plan` named. Refused if it expired or the world has moved since. Without one
    /// the switch makes its own.
    #[arg(long, value_name = "P-N")]
    pub plan: Option<PlanId>,
    /// A check whose no-go does not count, such as `load`. Kept in the journal, with who asked. Repeatable.
    #[arg(long = "skip", value_name = "CHECK")]
    pub skip: Vec<String>,
}

impl From<Asked> for Terms {
    fn from(asked: Asked) -> Self {
        Terms { plan: asked.plan, skipped: asked.skip, ..Terms::default() }
    }
}

/// Whether to wait.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Return as soon as the order is journaled.
    #[arg(long)]
    pub no_wait: bool,
}

impl Strategy {
    /// True if the command waits for an operation.
    pub fn waits(&self) -> bool {
        match self {
            Strategy::Show | Strategy::Plan { .. } | Strategy::History => false,
            Strategy::Watch => true,
            Strategy::Prepare { wait, .. }
            | Strategy::Commit { wait }
            | Strategy::Switch { wait, .. }
            | Strategy::Abort { wait, .. }
            | Strategy::Revert { wait, .. }
            | Strategy::Finalize { wait } => !wait.no_wait,
        }
    }

    /// True if the command gives an order.
    pub fn orders(&self) -> bool {
        !matches!(
            self,
            Strategy::Show | Strategy::Plan { .. } | Strategy::History | Strategy::Watch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admin, Cli, Verb};
    use super::*;
    use std::ffi::OsString;

    fn parse(line: &str) -> Result<Strategy, String> {
        let words = shlex::split(&format!("strategy {line}")).unwrap();
        match Cli::from_words(words.into_iter().map(OsString::from)).map(|cli| cli.verb) {
            Ok(Verb::Admin(Admin::Strategy(verb))) => Ok(verb),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_word_of_the_switch_parses_and_only_two_targets_exist() {
        let wait = Wait { no_wait: true };
        let terms = Asked::default();
        let prepare = Strategy::Prepare { to: To::Full, terms, wait };
        assert_eq!(parse("prepare full --no-wait"), Ok(prepare));
        let skip = vec!["load".to_owned(), "disk".to_owned()];
        let terms = Asked { plan: Some(PlanId(17)), skip };
        let switch = Strategy::Switch { to: To::Full, terms, wait: Wait::default() };
        assert_eq!(parse("switch full --plan P-17 --skip load --skip disk"), Ok(switch));
        assert!(parse("switch full --plan 17").is_err());
        assert_eq!(parse("plan sharded"), Ok(Strategy::Plan { to: To::Sharded }));
        let abort = Strategy::Abort { reason: "no sale".into(), wait: Wait::default() };
        assert_eq!(parse("abort --reason 'no sale'"), Ok(abort));
        for bad in ["prepare", "prepare half", "switch", "commit full", "plan"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_orders_and_watch_wait() {
        for (line, waits, orders) in [
            ("show", false, false),
            ("plan full", false, false),
            ("history", false, false),
            ("watch", true, false),
            ("switch full", true, true),
            ("finalize", true, true),
            ("revert --no-wait", false, true),
        ] {
            let verb = parse(line).unwrap();
            assert_eq!((verb.waits(), verb.orders()), (waits, orders), "{line}");
        }
    }
}
