//! Who is there: SWIM without I/O, and what follows from it.
//!
//! **Promise.** A hint, and no more: [`Liveness`] says which nodes are up, so that reads ask them first and puts find
//! stand-ins; it moves no data. Only a node that is *dead* is to be protected anew: because the map's log says so, or
//! after [`SILENCE_MS`] of silence. Where a mass of a zone vanishes at once, the [`Brake`] holds: nobody there becomes
//! dead by silence.
//!
//! **What silence is.** Time counts only while this node itself hears from somebody. A process that was stopped, a
//! clock that jumps and a cable that was pulled here thus make nobody dead.
//!
//! **What is believed.** Only nodes of the map, and only what comes under the name of the node that sent it. Addresses
//! come from the map, never from gossip: no datagram can turn traffic on a third party.
//!
//! **Sources.** Das, Gupta and Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group Membership
//! Protocol", 2002, with suspicion, round-robin probes and infection-style spreading (the crate `foca`). Of Dadgar,
//! Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2017, the buddy
//! system: whoever writes to a suspect tells it so. In place of its self-awareness, time that this node missed does not
//! pass.
//!
//! **Where to start.** [`Liveness`]; it composes SWIM, the [`Standing`] of each node, and a [`Brake`] for a zone. Drives that
//! are out while their nodes live are by themselves (`outages.rs`): they are out by their nodes' own word.
//!
//! **Absent on purpose.** Sockets, and proof of who sent a datagram: the driver has that (a connection's key).

mod brake;
mod cells;
mod contact;
mod datagram;
mod herald;
mod identity;
mod machine;
mod others;
mod outages;
mod peer;
mod report;
mod runtime;
mod summary;
mod swim;
mod watch;

pub use brake::{Brake, MASS_WINDOW_MS, mass};
pub use cells::{CELL_NODES_MAX, Cells};
pub use datagram::{BadDatagram, DATAGRAM_BYTES_MAX, check};
pub use machine::{Effect, Liveness, LivenessSettings, SILENCE_MS};
pub(crate) use outages::{LAPSE_MS, Outages, TOLD_MS};
pub use peer::{FAILING_MS, FAILURES_MAX};
pub use report::{DeadBy, DownBy, NodeReport, Report, Standing};
