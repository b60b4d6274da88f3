//! Commands as an operator would type them: the text of the operation log.
//!
//! Only those that change something have one. A command that is added has to say here which kind it is.

use super::breaker::BreakerOrder;
use super::client::{Role, Strategy};
use super::command::{Command, Formation};
use super::operation::StrategyOrder;
use super::terms::Terms;
use crate::types::units::show_bytes;
use std::time::Duration;

/// The text of a command that changes something; none for a question. It holds no key, no value of one, and
/// nothing that is secret.
pub fn typed(command: &Command) -> Option<String> {
    match command {
        Command::ClusterInit(formation) => Some(init(formation)),
        Command::Strategy(order) => Some(strategy(order, None)),
        Command::StrategyOf { operation, order } => Some(strategy(order, Some(*operation))),
        Command::Set { name, value } => Some(format!("config set {} {}", word(name), word(value))),
        Command::Breaker(order) => Some(breaker(order)),
        // Nobody types it: only a node may give it, and only the attempt of somebody else is recorded.
        Command::Shard(order) => Some(format!("an order of nodes to {}", order.shard)),
        Command::Status
        | Command::Info
        | Command::ReplicaLag
        | Command::Digest { .. }
        | Command::Precheck { .. }
        | Command::StrategyShow
        | Command::StrategyHistory
        | Command::Settings
        | Command::Report
        | Command::Probe(_)
        | Command::Echo(_)
        | Command::OperationLog { .. }
        | Command::Record(_)
        | Command::Logs(_)
        | Command::Alarms
        | Command::Metrics
        | Command::Breakers
        | Command::Stats
        | Command::HotKeys { .. }
        | Command::SlowLog { .. }
        | Command::Monitor(_)
        | Command::Ping
        // A run has a record of its own, and its orders have theirs.
        | Command::Run(_)
        | Command::Runs { .. }
        | Command::RunShow { .. }
        | Command::Plans => None,
    }
}

fn init(formation: &Formation) -> String {
    let mut text = format!("cluster init --shards {}", formation.shards);
    for (name, role, addr) in &formation.members {
        let role = match role {
            Role::Primary => "primary",
            Role::Replica => "replica",
        };
        text.push_str(&format!(" --member {}", word(&format!("{name}={role}@{addr}"))));
    }
    text
}

fn breaker(order: &BreakerOrder) -> String {
    let word = if order.open { "open" } else { "close" };
    let class = order.class.map(|class| format!(" --class {}", class.name())).unwrap_or_default();
    let time = humantime::format_duration(Duration::from_millis(order.for_ms)).to_string();
    format!("breaker {word} {}{class} --for {}", order.peer, time.replace(' ', ""))
}

fn strategy(order: &StrategyOrder, meant: Option<u64>) -> String {
    let mut text = match order {
        StrategyOrder::Prepare { to, terms } => format!("prepare {}{}", name(*to), asked(terms)),
        StrategyOrder::Switch { to, terms } => format!("switch {}{}", name(*to), asked(terms)),
        StrategyOrder::Commit => "commit".to_owned(),
        StrategyOrder::Abort { reason } => format!("abort --reason {}", word(reason)),
        StrategyOrder::Revert { reason } => format!("revert --reason {}", word(reason)),
        StrategyOrder::Finalize => "finalize".to_owned(),
        StrategyOrder::Throttle { copy_bytes_per_s } => {
            format!("throttle {}", copy_bytes_per_s.map_or("default".into(), show_bytes))
        }
    };
    if let Some(operation) = meant {
        text.push_str(&format!(" --operation {operation}"));
    }
    format!("strategy {text}")
}

fn name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Sharded => "sharded",
        Strategy::Full => "full",
    }
}

/// The flags of terms, each with a space in front.
fn asked(terms: &Terms) -> String {
    let time = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    let time = |ms: &Option<u64>| ms.map(|ms| time(ms).replace(' ', ""));
    let share = terms.max_error_rate_ppm.map(|ppm| format!("{}%", ppm as f64 / 10_000.0));
    let mut flags = vec![("plan", terms.plan.map(|plan| plan.to_string()))];
    flags.extend(terms.skipped.iter().map(|check| ("skip", Some(word(check)))));
    flags.extend([
        ("max-p99", time(&terms.max_p99_ms)),
        ("max-error-rate", share),
        ("max-write-gap", time(&terms.max_write_gap_ms)),
        ("auto-revert-within", time(&terms.auto_revert_within_ms)),
    ]);
    let given = flags.into_iter().filter_map(|(flag, value)| Some(format!(" --{flag} {}", value?)));
    given.collect()
}

/// A word for a shell; what no shell could take, such as a zero byte, is escaped.
fn word(text: &str) -> String {
    match shlex::try_quote(text) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeName;
    use crate::wire::terms::PlanId;

    fn text(command: Command) -> String {
        typed(&command).expect("an order")
    }

    #[test]
    fn an_order_reads_as_it_is_typed() {
        let terms = Terms {
            plan: Some(PlanId(17)),
            skipped: vec!["load".into(), "disk".into()],
            max_p99_ms: Some(50),
            max_error_rate_ppm: Some(5_000),
            auto_revert_within_ms: Some(5_400_000),
            ..Terms::default()
        };
        let to = Strategy::Full;
        assert_eq!(
            text(Command::Strategy(StrategyOrder::Switch { to, terms })),
            "strategy switch full --plan P-17 --skip load --skip disk --max-p99 50ms \
             --max-error-rate 0.5% --auto-revert-within 1h30m"
        );
        let order = StrategyOrder::Abort { reason: "the sale's off".into() };
        assert_eq!(
            text(Command::StrategyOf { operation: 7, order }),
            "strategy abort --reason \"the sale's off\" --operation 7"
        );
        let set = Command::Set { name: "log.level".into(), value: String::new() };
        assert_eq!(text(set), "config set log.level ''");
        let throttle = |copy_bytes_per_s| {
            text(Command::Strategy(StrategyOrder::Throttle { copy_bytes_per_s }))
        };
        assert_eq!(throttle(Some(8 << 20)), "strategy throttle 8MiB");
        assert_eq!(throttle(None), "strategy throttle default");
        let peer = NodeName::new("n2").unwrap();
        let order = BreakerOrder { peer, class: None, open: true, for_ms: 90_000 };
        assert_eq!(text(Command::Breaker(order)), "breaker open n2 --for 1m30s");
    }

    #[test]
    fn forming_names_every_member_and_a_question_has_no_text() {
        let members = vec![
            (NodeName::new("n1").unwrap(), Role::Primary, "h:1".to_owned()),
            (NodeName::new("r1").unwrap(), Role::Replica, "h:2".to_owned()),
        ];
        let formation = Formation { cluster: "c".into(), shards: 12, members };
        assert_eq!(
            text(Command::ClusterInit(formation)),
            "cluster init --shards 12 --member 'n1=primary@h:1' --member 'r1=replica@h:2'"
        );
        assert_eq!(typed(&Command::Status), None);
        assert_eq!(typed(&Command::OperationLog { limit: 1 }), None);
    }

    #[test]
    fn no_text_breaks_the_line() {
        let set = Command::Set { name: "a\0b".into(), value: "x y".into() };
        assert_eq!(text(set), "config set \"a\\0b\" 'x y'");
    }
}
