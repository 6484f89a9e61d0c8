//! The rules of a cluster, each of its machines by itself and in small worlds; whole clusters are in `sim.rs`.
//!
//! One program: each one more would be compiled and linked with the core anew. `golden` and `random` are shared.

mod admission;
mod balance;
mod core;
mod get_plan;
mod golden;
mod liveness;
mod log_codec;
mod log_earlier;
mod log_history;
mod log_refound;
mod log_voter;
mod map_file;
mod map_log;
mod placement;
mod put_quorum;
mod random;
mod rebalance;
mod repair;
mod routing;
mod sync;
mod takedown;
mod wire_fuzz;
mod wire_golden;
