//! Tests of what the benches decide and decode by themselves: without these, a wrong parser would look like
//! a slow peer.
