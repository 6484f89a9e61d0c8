//! The rules of a Deadwax cluster, without I/O.
//!
//! **Promise.** Every decision about who holds a track, when a put counts as stored and when a track may be called
//! absent is made here, the same on every machine: integers only, no clock, no threads, no sockets, no randomness but
//! what the caller hands in. Decoding is total: any bytes give a value or an error, never a panic.
//!
//! **Where to start.** [`Map`] describes a cluster, [`Map::holders`] says who holds what, [`Plan`] what a change of the
//! map would move; [`log`] is how nodes agree on the next map, [`wire`] how machines talk; [`PutQuorum`] and [`GetPlan`]
//! are the rules of a put and a get, which `deadwax-dht-client` drives; [`routing`] finds nodes, the map and a partition's
//! holders where one has no map yet; [`liveness`] says who is there; [`takedown`] is what may never be served again, and
//! who may serve at all.
//!
//! **Absent on purpose.** Sockets (`deadwax-dht-client`, `deadwax-node`) and drives (`deadwax-engine`). The one
//! exception is `map/file.rs`, which loads and saves the map's file. Not yet: repair.
#![deny(clippy::float_arithmetic)]

mod failure;
mod get;
mod id;
mod key;
pub mod liveness;
pub mod log;
mod map;
mod placement;
mod plan;
mod put;
mod random;
mod read;
pub mod routing;
pub mod takedown;
pub mod wire;

pub use failure::{Failure, FailureKind, Verdict};
pub use get::{GetPlan, GetStep, ReadDeadlines};
pub use id::{BadId, ClusterId, NodeId, VolumeId};
pub use key::NodeKey;
pub use map::{BadMap, MAP_VERSION, Map, MapFileError, MapSpec, Node, Override, Policy, Volume};
pub use placement::Holder;
pub use plan::{PartitionBytes, Plan, Unmet, VolumeShare};
pub use put::{Grace, PutQuorum, PutStep};
pub use read::{ReadPlan, ReadStep};
