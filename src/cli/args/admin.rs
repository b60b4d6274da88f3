//! Questions and orders to a node, as typed.

use super::live::{self, DoctorArgs, LatencyArgs, MonitorArgs, TopArgs};
use super::load::{Breaker, Keys, Stats};
use super::logs::LogsArgs;
use super::oplog::OpLog;
use super::runs::Runs;
use super::strategy::Strategy;
use crate::slowlog::REQUESTS_MAX;
use crate::types::{NodeName, ShardId, limits};
use crate::wire::client::Role;
use clap::Subcommand;
use std::str::FromStr;

/// Questions and orders to a node.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Admin {
    /// The whole cluster in one view.
    #[command(after_help = "Example:\n  ppdb status -o json")]
    Status,
    /// About one node: version, log, copies.
    #[command(after_help = "Example:\n  ppdb info n2")]
    Info {
        /// The node; without it the one that answers first.
        #[arg(value_parser = NodeName::new)]
        of: Option<NodeName>,
    },
    /// Connects and says to whom; in the shell the session goes on there.
    #[command(after_help = "Example:\n  ppdb connect 10.0.0.1:7101\n  ppdb connect prod")]
    Connect {
        /// A context, or an address; without it the endpoints of the session.
        #[arg(value_name = "CONTEXT|HOST:PORT")]
        addr: Option<String>,
    },
    /// Forms a cluster, lists its nodes.
    #[command(subcommand, after_help = "Example:\n  ppdb cluster nodes")]
    Cluster(Cluster),
    /// Where the data is.
    #[command(subcommand, after_help = "Example:\n  ppdb shard map")]
    Shard(Shard),
    /// Copies and how far they have got.
    #[command(subcommand, after_help = "Example:\n  ppdb replica lag")]
    Replica(Replica),
    /// How data is placed, and the switch between the two ways.
    #[command(subcommand, after_help = super::strategy::EXAMPLES)]
    Strategy(Strategy),
    /// What operators had the cluster do: who, from where, what, and what came of it.
    #[command(subcommand, after_help = "Example:\n  ppdb op list")]
    Op(OpLog),
    /// What runbooks did: who ran which, its steps, and how it ended.
    #[command(subcommand, after_help = "Example:\n  ppdb runs list")]
    Runs(Runs),
    /// The last log lines of all nodes, or of the one of --node, in one place.
    #[command(after_help = super::logs::EXAMPLES)]
    Logs(LogsArgs),
    /// Breakers between nodes: whether a node is asked by the others.
    #[command(subcommand, after_help = super::load::BREAKER_EXAMPLES)]
    Breaker(Breaker),
    /// How each node does at this moment, and all of them together: rates, latencies, load, refusals.
    #[command(
        after_help = "Example:\n  ppdb stats\n  ppdb stats --watch --every 1s\n  ppdb stats --watch -o jsonl"
    )]
    Stats(Stats),
    /// What keys are asked for.
    #[command(subcommand, after_help = "Example:\n  ppdb keys hot --limit 3")]
    Keys(Keys),
    /// The last requests for keys that took long, of all nodes or of the one of --node, newest first, and where their
    /// time went. What counts as long is the live setting slow_log.threshold.
    #[command(
        name = "slowlog",
        after_help = "Example:\n  ppdb slowlog\n  ppdb slowlog --node n2 --limit 5 -o json"
    )]
    SlowLog {
        /// At most so many.
        #[arg(long, default_value_t = 20, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=REQUESTS_MAX as i64))]
        limit: u32,
    },
    /// Operations of all nodes, or of the one of --node, as they come: a sample of them, and a summary at the end.
    #[command(after_help = live::MONITOR_EXAMPLES)]
    Monitor(MonitorArgs),
    /// How long the way to each node, or to the one of --node, and back takes, as this client sees it.
    #[command(after_help = live::LATENCY_EXAMPLES)]
    Latency(LatencyArgs),
    /// What is not as it should be, by checks that have codes: how it is, what was seen, and the command that goes on
    /// from there. The exit code is 1 if something is bad.
    #[command(after_help = live::DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// The whole cluster on a screen that is drawn again and again: nodes, shards, breakers, alarms, and the change of
    /// strategy under way.
    #[command(after_help = live::TOP_EXAMPLES)]
    Top(TopArgs),
}

/// Forms a cluster, lists its nodes.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Cluster {
    /// Forms a cluster of nodes that are running; repeating the same one is harmless.
    #[command(
        after_help = "Example:\n  ppdb cluster init --member n1=primary@127.0.0.1:7101 --member r1=replica@127.0.0.1:7104"
    )]
    Init {
        /// A member: name, role (`primary` or `replica`) and address. 1 to 5 primaries, 0 to 2 replicas.
        #[arg(long = "member", required = true, value_name = "NAME=ROLE@HOST:PORT")]
        members: Vec<Member>,
        /// Number of shards, fixed for ever.
        #[arg(long, default_value_t = limits::SHARDS_DEFAULT, value_name = "N")]
        #[arg(value_parser = clap::value_parser!(u16).range(1..=limits::SHARDS_MAX as i64))]
        shards: u16,
    },
    /// Lists the members.
    #[command(after_help = "Example:\n  ppdb cluster nodes")]
    Nodes,
}

/// Where the data is.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Shard {
    /// Owner and copies of each shard.
    #[command(after_help = "Example:\n  ppdb shard map -o plain")]
    Map,
    /// Compares all copies of a shard, or of every shard, each by its holder's digest of its own stored
    /// bytes at one log index. The exit code is 1 unless all are equal.
    #[command(after_help = "Example:\n  ppdb shard verify\n  ppdb shard verify s3 -o json")]
    Verify {
        /// The shard, such as s3; without it all of them.
        #[arg(value_parser = shard_id)]
        shard: Option<ShardId>,
    },
}

/// `s3`, or `3`.
fn shard_id(text: &str) -> Result<ShardId, String> {
    let number = text.strip_prefix('s').unwrap_or(text).parse::<u16>();
    number.map(ShardId).map_err(|_| format!("`{text}` is not a shard such as s3"))
}

/// Copies and how far they have got.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Replica {
    /// How far each copy is behind its leader, in log entries.
    #[command(after_help = "Example:\n  ppdb replica lag")]
    Lag,
}

/// A member as typed: `n1=primary@127.0.0.1:7101`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its role.
    pub role: Role,
    /// Its address, `host:port`.
    pub addr: String,
}

impl FromStr for Member {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || format!("`{text}` is not a member such as n1=primary@127.0.0.1:7101");
        let (name, rest) = text.split_once('=').ok_or_else(shape)?;
        let (role, addr) = rest.split_once('@').ok_or_else(shape)?;
        let role = match role {
            "primary" => Role::Primary,
            "replica" => Role::Replica,
            other => return Err(format!("`{other}` is no role: primary or replica")),
        };
        let port = addr.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.filter(|port| *port > 0).ok_or_else(shape)?;
        Ok(Member { name: NodeName::new(name)?, role, addr: addr.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_name_role_and_address() {
        let member: Member = "r1=replica@db4.example:7101".parse().unwrap();
        assert_eq!((member.name.as_str(), member.role), ("r1", Role::Replica));
        assert_eq!(member.addr, "db4.example:7101");
        for bad in
            ["n1", "n1=primary", "n1=chief@h:1", "N1=primary@h:1", "n1=primary@h", "n1=primary@h:0"]
        {
            assert!(bad.parse::<Member>().is_err(), "{bad}");
        }
    }
}
