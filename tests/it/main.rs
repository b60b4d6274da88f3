//! One test binary for everything that is seen from outside: real processes of the built `ppdb`, real
//! certificates, real sockets; and the rules of the repository.
//!
//! Tests that run a cluster take turns (`harness::Cluster` holds a lock), because on a small machine two
//! clusters at a time would measure each other.

/// Starts, stops, kills and asks real nodes.
mod harness;
/// Nodes that answer slowly or not at all, as a client's breakers see them.
mod breakers;
/// A switch that is struck at every failpoint, at every node that passes it. A release build has none.
#[cfg(debug_assertions)]
mod campaign;
/// Is a history of one key linearizable? And would we notice if it were not?
mod checker;

/// Bad certificates are refused, by real processes, with an error that says which.
mod certificates;
/// A cluster is formed once; every data command and its edges, through the shell's JSON lines.
mod commands;
/// Every documented command, and the shape of every answer.
mod documented;
/// Contexts, protected ones, questions at a terminal, and what errors mean.
mod contexts;
/// The switch by commands and runbooks.
mod doors;
/// `kill -9` under load loses nothing that was acknowledged.
mod durability;
/// The guard of a switch, the rate of its copying, and orders that mean one operation.
mod guard;
/// Scripts that mean harm.
mod hostile;
/// Histories recorded while nodes are killed and stopped.
mod linearizability;
/// Live views: operations as they come, ways, large values, the doctor, the screen.
mod live;
/// What nodes say, and how much.
mod logs;
/// Who had the cluster do what.
mod oplog;
/// Four times the load that a cluster bears.
mod overload;
/// Nodes that are cut off, as the breakers of the others see them.
mod peer_breakers;
/// Rates of nodes and hot keys, under a skewed load.
mod rates;
/// What a switch is planned, refused, bound and held by.
mod plan;
/// A node that lost its disk comes back under fresh ids.
mod rejoin;
/// The runbooks that are shipped, whole, struck and rehearsed.
mod runbooks;
/// Pages of a scan.
mod scan;
/// What monitors see: metrics, alarms, the check, the rules.
mod seen;
/// The committed fuzz seeds are what the code encodes.
mod seeds;
/// A whole shard sent to a replica, in bounded memory.
mod snapshot;
/// Bounded `local` reads while the owner stands still.
mod staleness;
/// Where the time of slow requests went.
mod slowlog;
/// No write is acknowledged before its `fdatasync` returned.
mod strace;
/// From `sharded` to `full` and back.
mod switch;
/// Faults planted in the middle of a switch.
mod switch_faults;
/// Switches while the processes that carry them out are killed.
mod switch_kills;
/// The shell, in a real terminal.
mod terminal;
/// Rules of the repository.
mod tidy;
/// Disk space is given back.
mod upkeep;
/// A real trace, replayed and verified.
mod trace;
