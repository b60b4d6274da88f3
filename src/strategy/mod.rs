//! The switch between `sharded` and `full`: whether it may start, what happens next, and who does it.
//!
//! `core`, `checks` and `guard` decide, `forecast` tells the cost, `plan` binds both to the world they were made for
//! (pure); `driver` asks the nodes, journals and sends orders while this node leads the metadata group, `planner`
//! makes plans with what `probing` measures, `pace` measures its copying, `compare` is the digest gate, `around` has
//! the failpoints of the journal, `recorder` keeps the operation log. What a transition does to the state is in `cluster::journal`; how a shard changes
//! its voters is in `shard`.

mod around;
pub mod checks;
pub mod compare;
pub mod core;
pub mod driver;
pub mod forecast;
pub mod guard;
pub mod pace;
pub mod plan;
pub mod planner;
pub mod probing;
pub mod recorder;

#[cfg(test)]
mod model_test;

pub use driver::{COORDINATOR, Calls, Coordinator};
