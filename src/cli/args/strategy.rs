//! The switch between strategies, as typed.

use super::Consent;
use crate::cluster::settings::copy_rate;
use crate::types::units;
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
  ppdb strategy throttle 8MiB        while it copies: slower, or faster, at once

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
    /// The plans that are kept, and which of them may still start a switch.
    #[command(after_help = "Example:\n  ppdb strategy plans")]
    Plans,
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
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Phase two: what is prepared becomes the strategy.
    #[command(after_help = "Example:\n  ppdb strategy commit")]
    Commit {
        /// Which operation is meant.
        #[command(flatten)]
        meant: Meant,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Both phases in one.
    #[command(
        after_help = "Example:\n  ppdb strategy switch full\n  ppdb strategy switch full --max-p99 50ms --auto-revert-within 10m"
    )]
    Switch {
        /// Where to.
        to: To,
        /// On which terms.
        #[command(flatten)]
        terms: Asked,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Gives up before the commit point: extra copies are dropped, the origin holds.
    #[command(after_help = "Example:\n  ppdb strategy abort --reason 'the sale is off'")]
    Abort {
        /// Why; kept in the journal.
        #[arg(long, default_value = "by order", value_name = "TEXT")]
        reason: String,
        /// Which operation is meant.
        #[command(flatten)]
        meant: Meant,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// Nothing is asked; whoever types it out of habit, in a hurry, is not refused for it.
        #[command(flatten)]
        consent: Consent,
    },
    /// Goes back after the commit point, to the strategy before.
    #[command(after_help = "Example:\n  ppdb strategy revert --reason 'p99 doubled'")]
    Revert {
        /// Why; kept in the journal.
        #[arg(long, default_value = "by order", value_name = "TEXT")]
        reason: String,
        /// Which operation is meant.
        #[command(flatten)]
        meant: Meant,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// Nothing is asked; whoever types it out of habit, in a hurry, is not refused for it.
        #[command(flatten)]
        consent: Consent,
    },
    /// Closes the way back: what only it needed is dropped.
    #[command(after_help = "Example:\n  ppdb strategy finalize")]
    Finalize {
        /// Which operation is meant.
        #[command(flatten)]
        meant: Meant,
        /// Whether to wait.
        #[command(flatten)]
        wait: Wait,
        /// Whether to ask.
        #[command(flatten)]
        consent: Consent,
    },
    /// Sets the rate at which each node sends copies for the operation under way; a copy that runs follows at
    /// once. It holds for this operation alone and until its commit point or its abort; the rate of every other
    /// one is the setting copy.bytes_per_s.
    #[command(
        after_help = "Example:\n  ppdb strategy throttle 8MiB\n  ppdb strategy throttle default"
    )]
    Throttle {
        /// Bytes a second, such as 8MiB; 0 is unlimited, `default` goes back to the setting.
        #[arg(value_parser = rate)]
        rate: Rate,
        /// Which operation is meant.
        #[command(flatten)]
        meant: Meant,
    },
    /// Follows the latest operation until it rests: at a terminal one line that is written over, elsewhere a line
    /// for each change, with -o jsonl an object each. Ctrl-C ends the following and nothing else.
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
    /// What its guard holds it to.
    #[command(flatten)]
    pub bounds: Bounds,
}

impl From<Asked> for Terms {
    fn from(asked: Asked) -> Self {
        Terms { plan: asked.plan, skipped: asked.skip, ..asked.bounds.terms() }
    }
}

/// Whether to wait.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// Return as soon as the order is journaled.
    #[arg(long)]
    pub no_wait: bool,
}

/// What the guard of a switch holds it to. Before the commit point three bad windows of 5 s in a row halve the rate
/// of copying, three more hold it, three more abort; after it there is an alarm.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Bad: 99 of 100 requests take longer than this, at some node. Without it: longer than twice what they took
    /// before, and than 50 ms.
    #[arg(long, value_name = "TIME", value_parser = ms)]
    pub max_p99: Option<u64>,
    /// Bad: a larger share of requests fails. Without it: 0.5%.
    #[arg(long, value_name = "PERCENT", value_parser = ppm)]
    pub max_error_rate: Option<u64>,
    /// Bad: a write waits longer than this, at some node. Without it no write gap is bad.
    #[arg(long, value_name = "TIME", value_parser = ms)]
    pub max_write_gap: Option<u64>,
    /// For this long after the commit point the guard takes the switch back by itself. Without it, it never does.
    #[arg(long, value_name = "TIME", value_parser = ms)]
    pub auto_revert_within: Option<u64>,
}

impl Bounds {
    /// The usual terms with these bounds.
    pub fn terms(self) -> Terms {
        Terms {
            max_p99_ms: self.max_p99,
            max_error_rate_ppm: self.max_error_rate,
            max_write_gap_ms: self.max_write_gap,
            auto_revert_within_ms: self.auto_revert_within,
            ..Terms::default()
        }
    }
}

fn ms(text: &str) -> Result<u64, String> {
    units::duration(text).map(|time| time.as_millis() as u64)
}

/// A share such as `0.5%`, in millionths.
fn ppm(text: &str) -> Result<u64, String> {
    let percent: Option<f64> = text.strip_suffix('%').and_then(|number| number.parse().ok());
    let percent = percent.filter(|percent| (0.0001..=100.0).contains(percent));
    let percent = percent.ok_or_else(|| format!("`{text}` is not a share from 0.0001% to 100%"))?;
    Ok((percent * 10_000.0).round() as u64)
}

/// Which operation an order means.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Refuse unless this is the latest operation; without it the one that is the latest when the command begins.
    #[arg(long, value_name = "ID")]
    pub operation: Option<u64>,
}

/// A rate of copies in bytes a second, 0 is unlimited; none is the setting's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

fn rate(text: &str) -> Result<Rate, String> {
    if text == "default" {
        return Ok(Rate(None));
    }
    let rate = units::bytes(text)?;
    copy_rate(rate).map(|()| Rate(Some(rate)))
}

impl Strategy {
    /// True if the command waits for an operation.
    pub fn waits(&self) -> bool {
        match self {
            Strategy::Show | Strategy::Plan { .. } | Strategy::Plans | Strategy::History => false,
            Strategy::Throttle { .. } => false,
            Strategy::Watch => true,
            Strategy::Prepare { wait, .. }
            | Strategy::Commit { wait, .. }
            | Strategy::Switch { wait, .. }
            | Strategy::Abort { wait, .. }
            | Strategy::Revert { wait, .. }
            | Strategy::Finalize { wait, .. } => !wait.no_wait,
        }
    }

    /// True if the command gives an order.
    pub fn orders(&self) -> bool {
        !matches!(
            self,
            Strategy::Show
                | Strategy::Plan { .. }
                | Strategy::Plans
                | Strategy::History
                | Strategy::Watch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admin, Verb};
    use super::*;
    use crate::cli::testing;

    fn parse(line: &str) -> Result<Strategy, String> {
        match testing::parse(&format!("strategy {line}")).map(|cli| cli.verb) {
            Ok(Verb::Admin(Admin::Strategy(verb))) => Ok(verb),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn every_word_of_the_switch_parses_and_only_two_targets_exist() {
        let wait = Wait { no_wait: true };
        let terms = Asked::default();
        let consent = Consent::default();
        let prepare = Strategy::Prepare { to: To::Full, terms, wait, consent };
        assert_eq!(parse("prepare full --no-wait"), Ok(prepare));
        let skip = vec!["load".to_owned(), "disk".to_owned()];
        let terms = Asked { plan: Some(PlanId(17)), skip, ..Asked::default() };
        let switch = Strategy::Switch { to: To::Full, terms, wait: Wait::default(), consent };
        assert_eq!(parse("switch full --plan P-17 --skip load --skip disk"), Ok(switch));
        assert!(matches!(
            parse("switch full --plan 17"),
            Ok(Strategy::Switch { terms: Asked { plan: Some(PlanId(17)), .. }, .. })
        ));
        assert!(parse("switch full --plan Q-17").is_err());
        assert_eq!(parse("plan sharded"), Ok(Strategy::Plan { to: To::Sharded }));
        let reason = "no sale".to_owned();
        let (meant, wait) = (Meant { operation: Some(7) }, Wait::default());
        let abort = Strategy::Abort { reason, meant, wait, consent };
        assert_eq!(parse("abort --reason 'no sale' --operation 7"), Ok(abort));
        let consent = Consent { yes: true };
        let finalize = Strategy::Finalize { meant: Meant::default(), wait, consent };
        assert_eq!(parse("finalize -y"), Ok(finalize));
        assert!(parse("revert --yes").is_ok() && parse("abort --yes").is_ok());
        for bad in ["prepare", "prepare half", "switch", "commit full", "plan"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bounds_of_the_guard_have_units_and_become_terms() {
        let line = "switch full --max-p99 50ms --max-error-rate 0.5% --max-write-gap 0.3s \
                    --auto-revert-within 10m";
        let Ok(Strategy::Switch { terms, .. }) = parse(line) else { panic!("{line}") };
        let terms = Terms::from(terms);
        assert_eq!((terms.max_p99_ms, terms.max_error_rate_ppm), (Some(50), Some(5_000)));
        assert_eq!(
            (terms.max_write_gap_ms, terms.auto_revert_within_ms),
            (Some(300), Some(600_000))
        );
        terms.check().unwrap();
        for bad in
            ["--max-p99 50", "--max-error-rate 0.5", "--max-error-rate 0%", "--max-error-rate 101%"]
        {
            assert!(parse(&format!("prepare full {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_is_one_that_may_be_set_or_the_setting() {
        let rate = |text: &str| match parse(&format!("throttle {text}")) {
            Ok(Strategy::Throttle { rate, .. }) => Ok(rate.0),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
        assert_eq!(rate("8MiB"), Ok(Some(8 << 20)));
        assert_eq!(rate("0"), Ok(Some(0)));
        assert_eq!(rate("default"), Ok(None));
        for bad in ["", "1kB", "1KiB", "fast", "-1"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_orders_and_watch_wait() {
        for (line, waits, orders) in [
            ("show", false, false),
            ("plan full", false, false),
            ("plans", false, false),
            ("history", false, false),
            ("watch", true, false),
            ("switch full", true, true),
            ("finalize", true, true),
            ("revert --no-wait", false, true),
            ("throttle 1MiB", false, true),
        ] {
            let verb = parse(line).unwrap();
            assert_eq!((verb.waits(), verb.orders()), (waits, orders), "{line}");
        }
    }
}
