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
//! tasks) goes through [`Host`]; [`GlommioHost`] is the real one.
//!
//! Absent on purpose: networks, copies on other nodes, and what a track sounds like. Not yet here: footers that list a
//! sealed segment's records, compaction, scrub, track bytes stored compressed.

mod commit;
mod config;
mod error;
mod format;
mod host;
mod identity;
mod index;
mod put;
mod read;
mod recovery;
mod scan;
mod segment;
mod signal;
mod space;
mod takedown;
mod volume;

pub use config::VolumeConfig;
pub use error::{Error, ErrorKind};
pub use host::{Access, DirectorySpace, File, GlommioHost, Host, LockError};
pub use identity::{BadVolumeId, VolumeId, VolumeIdentity, format_volume, read_identity};
pub use put::{PutWriter, Stored};
pub use read::{Block, Reader};
pub use recovery::Recovery;
pub use volume::{PartitionDigest, Presence, TrackInfo, Usage, Volume, VolumeState};
