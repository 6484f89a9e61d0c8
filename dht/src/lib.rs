//! The rules of a Deadwax cluster, without I/O.
//!
//! **Promise.** Every decision about who holds a track, when a put counts as stored and when a track may be called
//! absent is made here, the same on every machine: integers only, no clock, no threads, no sockets, no randomness but
//! what the caller hands in. Decoding is total: any bytes give a value or an error, never a panic.
//!
//! **Where to start.** [`core`] is a node's part in a cluster: one step that composes all the rest. [`Map`] describes a
//! cluster, [`Layout`] who holds what at an epoch, also while it moves, [`Plan`] what a change would move. Of the
//! core's machines, [`log`] is how nodes agree on the next map, [`rebalance`] decides what moves, [`sync`] finds where
//! copies differ, [`repair`] pulls what is missing, [`liveness`] says who is there, [`routing`] finds nodes and the
//! map, [`takedown`] is what may never be served again, [`Admission`] what a node takes on. [`PutQuorum`] and
//! [`GetPlan`] are the rules of a client, which `deadwax-dht-client` drives. [`wire`] is how machines talk.
//!
//! **Absent on purpose.** Sockets (`deadwax-dht-client`, `deadwax-node`) and drives (`deadwax-engine`). The one
//! exception is `map/file.rs`, which loads and saves the map's file.
#![deny(clippy::float_arithmetic)]

mod admission;
pub mod core;
mod failure;
mod get;
mod id;
mod key;
mod layout;
pub mod liveness;
pub mod log;
mod map;
mod partitions;
mod placement;
mod plan;
mod put;
mod random;
mod read;
pub mod rebalance;
pub mod repair;
pub mod routing;
pub mod sync;
pub mod takedown;
mod targets;
mod token;
pub mod wire;

pub use admission::{Admission, AdmissionLimits, Admitted, Class, ClassLimits, Offer};
pub use failure::{Failure, FailureKind, Verdict};
pub use get::{
    GetPlan, GetStep, HEDGE_MS_MIN, HEDGES_SAVED_MAX, HedgeBudget, LATENCY_NODES_MAX, Latency, REQUESTS_PER_HEDGE,
    ReadDeadlines,
};
pub use id::{BadId, ClusterId, IssuerKey, NodeId, VolumeId};
pub use key::NodeKey;
pub use layout::{Layout, LayoutCache, Sets};
pub use map::{BadMap, MAP_VERSION, Map, MapFileError, MapSpec, Node, Override, Policy, Volume};
pub use placement::Holder;
pub use plan::{PartitionBytes, Plan, Unmet, VolumeShare};
pub use put::{Grace, PutQuorum, PutStep};
pub use read::{ReadPlan, ReadStep, Reader, Readers};
pub use targets::{TARGETS_MAX, Targets};
pub use token::{TokenName, TokenSecret};
