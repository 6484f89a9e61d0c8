//! The segment store of one node's volumes: tracks go in, and the same bytes come out.
//!
//! **The promise.** [`PutWriter::finish`] returns after the track is durable: it survives the end of the process, of
//! the power, and a torn tail. No read ever returns bytes that fail their checksum. A failing drive harms only itself:
//! what it holds stays readable where it can be read, and puts are refused with a reason.
//!
//! Start with [`Volume`]: one handle for a volume (a drive's directory) and an executor. A volume that is split over
//! several executors is opened once on each, with a *shard* number; nothing is shared between the handles but the
//! directory. [`format_volume`] makes a volume, [`read_identity`] says whose it is.
//!
//! A track lies in a *segment* file as one *record*: a header and frames, each with its own checksum. The bytes are
//! described in `src/format/`, and nowhere else. Everything that the engine asks of the machine (files, time, chance,
//! tasks) goes through [`Host`]; [`GlommioHost`] is the real one, [`sim`] one that fails on purpose.
//!
//! [`offline`] looks into volumes at rest, without an executor: inspect, verify, salvage.
//!
//! Absent on purpose: networks, copies on other nodes, and what a track sounds like.

mod budget;
mod commit;
mod compact;
mod config;
mod damage;
mod digests;
mod erase;
mod error;
mod format;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod health;
mod holes;
mod host;
mod identity;
mod index;
#[cfg(test)]
mod index_memory;
mod listings;
mod load;
mod lookup;
mod missing;
pub mod offline;
mod open;
mod pieces;
mod put;
mod read;
mod recovery;
mod scan;
mod scrub;
mod segment;
mod signal;
mod space;
mod table;
mod takedown;
mod unhurried;
mod unlisted;
mod upkeep;
mod volume;

pub use config::VolumeConfig;
pub use damage::Damage;
pub use error::{Error, ErrorKind};
pub use health::HealthLimits;
pub use host::sim;
pub use host::{
    Access, Beat, DirectorySpace, Executor, File, FileKey, GlommioHost, Host, LockError, Priority, Pulse, STRETCHES_MAX,
};
pub use identity::{BadVolumeId, VolumeId, VolumeIdentity, format_volume, read_identity};
pub use index::Change;
pub use open::Recovery;
pub use put::{PutWriter, Stored};
pub use read::{Block, Reader};
pub use scrub::{ScrubReport, ScrubStatus};
pub use volume::{PartitionDigest, Presence, TrackInfo, Usage, Volume, VolumeState};
