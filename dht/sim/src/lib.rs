//! A whole Deadwax cluster in virtual time: every node is the real [`Core`](deadwax_dht::core::Core), every client the real
//! rules of puts and gets, and one seed decides all else.
//!
//! **Promise.** Equal seeds give equal runs, bit for bit, on every machine: [`Report::trace`] shows it. A broken rule is reported
//! with its seed, and with the last events in words.
//!
//! **Where to start.** [`run`] runs one seed; [`Summary::of`] many, on several threads. [`FaultKind`] lists what goes wrong, [`Probe`]
//! the rare states that runs must come to. Inside, `world/` is time, hosts and the driver of a core, the template of a daemon;
//! `network/` and `drive/` are the models; `client/` gateways and what they were promised; `faults/` the schedule; `check/` the
//! rules, each with its bound.
//!
//! **What is modelled.** Wires with latency, loss, cuts and bandwidth; drives with service times, of which a crash loses what
//! was not flushed; clocks that drift and jump. A track is an id and a length; its bytes are a function of the id, so that
//! wrong ones are seen. Messages are moved, and a share of them goes through its bytes.
//!
//! **Absent on purpose.** The engine's own format (it has a simulator of its own), TLS, HTTP.

mod check;
mod client;
mod clock;
mod drive;
mod faults;
mod network;
mod operator;
#[cfg(feature = "planted")]
mod planted;
mod probe;
mod queue;
mod random;
mod run;
mod slab;
mod slip;
mod summary;
mod topology;
mod trace;
mod world;

pub use check::{Rule, Violation};
pub use faults::FaultKind;
#[cfg(feature = "planted")]
pub use planted::{PLANTED_SEEDS_MAX, Search};
pub use probe::{Probe, Probes};
pub use run::{Report, Scale, Scenario, run};
pub use summary::Summary;
