//! The bytes on the drive. This folder owns them; nothing else knows an offset.
//!
//! ```text
//! DIR/volume.deadwax                 the superblock: one block, whose volume this is
//! DIR/segments/0000000000.segment    block 0: segment header; then records and listings, each on a block boundary, and
//!                                    holes; where sealed, a footer in the last blocks
//! DIR/snapshots/0000.snapshot        the listings of a handle's open segments
//!
//! record:  | header: whole 4 KiB blocks, written last | frame 0: 64 KiB | frame 1: 64 KiB | ... | last frame |
//! frame:   | payload: 65,496 bytes | trailer: 40 bytes |
//! last:    | payload: what is left | zeros to the end of a 4 KiB block less 40 bytes | trailer: 40 bytes |
//! ```
//!
//! All numbers are little-endian and of fixed width. Reserved bytes are zero and checked. Every header starts with
//! the same four fields, in every version that will ever be: magic (8 bytes), version (`u16`), two bytes, CRC-32 over all of
//! the header but the CRC itself (`u32`). A header of an unknown version is refused, not guessed at.
//!
//! **What the medium may do.** A write may tear at any 512-byte sector, and writes may reach the medium in any order,
//! until fdatasync returns; after that, they stay. So a valid header proves nothing of its frames unless a later
//! header names its sequence as synced: recovery checks every frame of the others. A read may return another block's
//! bytes or old bytes: frames carry their number, the track's prefix and the segment's random generation.
//!
//! **Generation.** A segment's random number, never shown to clients, is in each record header and frame: bytes that a
//! track itself contains, or that an earlier life of the space left, never pass for a record or frame. A record's
//! nonce does the same between two puts into the same space: frames left by an aborted put never pass for those of the
//! next.

mod frame;
mod listing;
mod record;
mod segment_header;
mod snapshot;
mod superblock;

pub(crate) use frame::{FRAME_BYTES, FRAME_PAYLOAD_BYTES, FrameFault, FrameStamp, Frames};
pub(crate) use listing::{LISTED_MAX, Listed, Listing, Part, Role, listing_bytes_max};
pub(crate) use record::{Claim, Filter, Kind, RecordHeader, TagBytes};
pub(crate) use segment_header::{SegmentHeader, footer_bytes_for};
pub(crate) use snapshot::{ScrubPlace, SnapshotHeader};
pub(crate) use superblock::Superblock;

/// Everything on the drive starts at a multiple of this, as O_DIRECT and 4 KiB sectors ask.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// The same, as a length in memory.
pub(crate) const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

/// Why bytes are no header of the kind asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Damage {
    /// Zeros, or something else altogether.
    #[error("no header is here")]
    Absent,
    /// The magic is right, the checksum is not.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// Whole, but of a version that came later.
    #[error("written by a newer version ({0})")]
    Version(u16),
    /// Whole, but with a feature that this version cannot read.
    #[error("uses a feature that this version cannot read ({0})")]
    Feature(&'static str),
    /// The checksum is right and a field's value is not: written by something else, or a bug.
    #[error("the header's {0} is out of bounds")]
    Field(&'static str),
}

const VERSION_AT: usize = 8;
const CRC_AT: usize = 12;

/// Checks what all headers share: magic, checksum, version. `bytes` is the whole header.
fn check_envelope(bytes: &[u8], magic: &[u8; 8], version: u16) -> Result<(), Damage> {
    if bytes.len() < BLOCK || bytes[..8] != magic[..] {
        return Err(Damage::Absent);
    }
    if u32_at(bytes, CRC_AT) != checksum(bytes) {
        return Err(Damage::Checksum);
    }
    match u16_at(bytes, VERSION_AT) {
        found if found == version => Ok(()),
        found => Err(Damage::Version(found)),
    }
}

/// Writes what all headers share, over a header whose other fields are in place.
fn seal_envelope(bytes: &mut [u8], magic: &[u8; 8], version: u16) {
    assert!(bytes.len() >= BLOCK, "a header has at least one block, not {} bytes", bytes.len());
    bytes[..8].copy_from_slice(magic);
    put(bytes, VERSION_AT, &version.to_le_bytes());
    let crc = checksum(bytes);
    put(bytes, CRC_AT, &crc.to_le_bytes());
}

/// Makes the checksum of any blocks right: fuzzers want to get past it.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn seal_checksum(blocks: &mut [u8]) {
    let crc = checksum(blocks);
    put(blocks, CRC_AT, &crc.to_le_bytes());
}

fn checksum(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..CRC_AT]);
    crc.update(&header[CRC_AT + 4..]);
    crc.finalize()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn zero(bytes: &[u8], name: &'static str) -> Result<(), Damage> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Damage::Field(name)) }
}
