//! How long a command may take, and what it comes to if it takes longer.

use crate::cli::args::admin::{Admin, Cluster, Shard};
use crate::cli::args::load::Stats;
use crate::cli::args::{Data, Globals, Verb};
use crate::cli::{live, logs, stats, strategy, sweep, verify};
use crate::types::{Code, Error, limits};
use std::time::Duration;

/// Time for `cluster init` unless asked otherwise: several nodes start their groups.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a command may take. What waits for an operation goes by the flag on its own line: a short
/// timeout that is meant for keys would end every such waiting.
pub fn timeout(verb: &Verb, typed: &Globals, all: &Globals) -> Duration {
    let usual = match verb {
        Verb::Admin(Admin::Strategy(verb)) => {
            if let Some(patience) = strategy::patience(verb) {
                return typed.timeout.unwrap_or(patience);
            }
            limits::DEADLINE_DEFAULT
        }
        Verb::Data(Data::Del { prefix: Some(_), .. }) => {
            return typed.timeout.unwrap_or(sweep::SWEEP_DEFAULT);
        }
        Verb::Admin(Admin::Shard(Shard::Verify { .. })) => {
            return typed.timeout.unwrap_or(verify::VERIFY_DEFAULT);
        }
        Verb::Admin(Admin::Logs(args)) if args.follow => {
            return typed.timeout.unwrap_or(logs::FOLLOW_DEFAULT);
        }
        Verb::Admin(Admin::Stats(Stats { watch: true, .. })) => {
            return typed.timeout.unwrap_or(stats::WATCH_DEFAULT);
        }
        Verb::Admin(Admin::Cluster(Cluster::Init { .. })) => INIT_TIMEOUT,
        view if let Some(patience) = live::patience(view) => {
            return typed.timeout.unwrap_or(patience);
        }
        _ => limits::DEADLINE_DEFAULT,
    };
    all.timeout.unwrap_or(usual)
}

/// A command did not end in time.
pub fn out_of_time(changes: bool, timeout: Duration) -> Error {
    let within = humantime::format_duration(timeout);
    if changes {
        return Error::new(
            Code::Unknown,
            format!("no answer within {within}; it may have happened"),
        );
    }
    Error::new(Code::DeadlineExceeded, format!("no answer within {within}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::parse;

    #[test]
    fn only_what_changes_something_ends_unknown() {
        let time = Duration::from_secs(2);
        assert_eq!(out_of_time(true, time).outcome(), "unknown");
        assert_eq!(out_of_time(false, time).outcome(), "fail");
    }

    #[test]
    fn a_timeout_for_keys_does_not_end_the_waiting_for_an_operation() {
        let base = Globals { timeout: Some(Duration::from_secs(2)), ..Globals::default() };
        let of = |line: &str| {
            let cli = parse(line).unwrap();
            timeout(&cli.verb, &cli.globals, &base.overlaid_by(&cli.globals))
        };
        let s = Duration::from_secs;
        assert_eq!(of("get k"), s(2));
        assert_eq!(of("strategy show"), s(2));
        assert_eq!(of("strategy prepare full --no-wait"), s(2));
        assert_eq!(of("strategy prepare full"), strategy::WAIT_DEFAULT);
        assert_eq!(of("strategy prepare full --timeout 2h"), s(7_200));
        assert_eq!(of("strategy watch"), strategy::WATCH_DEFAULT);
        assert_eq!(of("logs"), s(2));
        assert_eq!(of("logs --follow"), logs::FOLLOW_DEFAULT);
        assert_eq!(of("shard verify --timeout 3s"), s(3));
        assert_eq!(of("shard verify"), verify::VERIFY_DEFAULT);
        assert_eq!(of("stats"), s(2));
        assert_eq!(of("del k"), s(2));
        assert_eq!(of("del --prefix k"), sweep::SWEEP_DEFAULT);
        assert_eq!(of("stats --watch"), stats::WATCH_DEFAULT);
    }
}
