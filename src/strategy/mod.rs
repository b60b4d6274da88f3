//! The switch between `sharded` and `full`: whether it may start, what happens next, and who does it.
//!
//! `precheck` and `core` decide (pure), `driver` asks the nodes, journals and sends orders while this node
//! leads the metadata group, `compare` is the digest gate, `around` has the failpoints of the journal. What a transition does to the state is in
//! `cluster::journal`; how a shard changes its voters is in `shard`.

mod around;
pub mod compare;
pub mod core;
pub mod driver;
pub mod precheck;

#[cfg(test)]
mod model_test;

pub use driver::{COORDINATOR, Calls, Coordinator};
