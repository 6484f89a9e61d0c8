//! The nouns that every part of Deadwax shares. No I/O.
//!
//! A **track** is immutable bytes with tags; its name, [`TrackId`], is the BLAKE3-256 of those bytes. A [`Manifest`]
//! lists the hashes of a track's 256 KiB **pieces**; each piece is a full BLAKE3 subtree, so the list proves itself
//! against the id and any piece can be proved alone.
//!
//! Start with [`TrackId`], then [`Manifest`]. Absent on purpose: how a track lies on a drive (the engine's matter) or
//! travels (the dht's).

mod id;
mod manifest;
mod range;
mod tags;

pub use id::{BadTrackId, Partition, TrackId};
pub use manifest::{BadManifest, Manifest, TrackHasher, piece_count};
pub use range::ByteRange;
pub use tags::{BadTags, Tags};

/// One binary kilobyte.
pub const KIB: u64 = 1024;
/// One binary megabyte.
pub const MIB: u64 = 1024 * KIB;

/// The largest track that is accepted, in bytes. The smallest is one byte.
pub const TRACK_BYTES_MAX: u64 = 512 * MIB;
/// The bytes of a piece. The last piece of a track may be shorter.
pub const PIECE_BYTES: u64 = 256 * KIB;
/// The pieces of the largest track.
pub const PIECES_MAX: u64 = TRACK_BYTES_MAX / PIECE_BYTES;
/// How many partitions the id space is cut into.
pub const PARTITIONS: u32 = 1 << 16;

// A piece must be a full BLAKE3 subtree: a power of two of 1 KiB chunks.
const _: () = assert!((PIECE_BYTES / 1024).is_power_of_two());
