//! The metadata group: the only source of members, placement, strategy and epoch.
//!
//! `core`, `journal` and `guarded` decide (pure), `placement` places, `plans` keeps the plans of switches, `oplog` what
//! operators did, `runs` what runbooks did, `settings` and `thresholds` are what an operator changes live, `tally` counts operations, `logic`
//! applies it as a replicated state machine, `agent` makes this node's copies what the placement says. `heard` is what
//! peers said of themselves, `breakers` what became of the calls to them. Data never passes here.

pub mod agent;
pub mod breakers;
pub mod core;
mod dropping;
mod guarded;
pub mod heard;
pub mod journal;
pub mod logic;
pub mod members;
mod opening;
pub mod oplog;
pub mod placement;
pub mod plans;
pub mod registry;
pub mod rejoin;
pub mod runs;
pub mod settings;
pub mod tally;
mod thresholds;
pub mod view;

pub use agent::Agent;
pub use breakers::PeerBreakers;
pub use core::{ClusterState, CopyPlacement, Member, MetaCommand, MetaReply, ShardPlacement};
pub use heard::Heard;
pub use journal::Event;
pub use logic::MetaLogic;
pub use registry::{LocalCopy, Registry};
pub use view::StateView;
