//! The switch between `sharded` and `full`: whether it may start, what happens next, and who does it.
//!
//! `precheck`, `core` and `guard` decide (pure), `driver` asks the nodes, journals and sends orders while this node
//! leads the metadata group, `pace` measures its copying, `compare` is the digest gate. What a transition does to
//! the state is in `cluster::journal`; how a shard changes its voters is in `shard`.

pub mod compare;
pub mod core;
pub mod driver;
pub mod guard;
pub mod pace;
pub mod precheck;

#[cfg(test)]
mod model_test;

pub use driver::{COORDINATOR, Calls, Coordinator};
