//! The master daemon: one node of the cluster, where the storage engine and the wire protocol meet.
//!
//! **Promise.** `Stored` is sent when the track is durable on the volume, and never before. No byte is sent that
//! failed its checksum. A connection that sends nonsense, stalls or breaks harms no other one, and nothing stored.
//! Every queue, buffer and count has a bound; beyond it the answer is Busy. A panic anywhere ends the process: there
//! is never half a node.
//!
//! **Where to start.** [`Config`] is what an operator sets, [`init`] makes a node, [`run`] runs it, [`fitness`] says
//! whether the machine can. Inside: `run` checks and starts, `executor` is one shard's thread, `connection` one
//! connection, `transfer` the bytes of a put or get on their way to or from a volume of this shard or another's,
//! `shard` the way between shards, `volumes` the edge to the engine, `layout` which volumes there are, `reload` how
//! they change while the node runs, `accord` how shards agree on a drive that fails, `revival` how one that hung comes
//! back, `ending` how the process ends whatever hangs, `driver` the core of the cluster's
//! rules, `system` what it remembers, [`found`] how a cluster begins and [`Refounding`] how anew, `admission` who may connect, `operators` what they
//! may ask, `issuers` who may take tracks down, `takedowns` what clients ask of their log.
//!
//! **Absent on purpose.** Tokens of clients, who are named by their keys. Without [`Config::tls`] nobody is asked who he is, and
//! other than loopback is refused (see [`Config::insecure_listen`]).

mod accord;
mod admission;
mod answers;
mod buffers;
mod config;
mod connection;
mod counters;
mod drain;
mod driver;
mod ending;
mod error;
mod events;
mod executor;
pub mod fitness;
mod founding;
mod init;
mod issuers;
mod layout;
mod operators;
mod parcel;
mod refounding;
mod refusal;
mod reload;
mod revival;
mod rotation;
mod run;
mod scrubs;
mod shard;
mod socket;
mod system;
mod takedowns;
mod transfer;
mod volumes;

pub use config::{Config, Rotating, SHARDS_MAX};
pub use error::Error;
pub use founding::{found, founding_voters, rejoin};
pub use init::{Place, init};
pub use issuers::make_issuer;
pub use refounding::Refounding;
pub use run::{Ready, Stopper, run};
pub use volumes::VolumeRecovery;
