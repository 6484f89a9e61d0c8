//! The first block of `snapshots/SHARD.snapshot`: what a handle's open segments hold, and how far scrub is.
//!
//! ```text
//!  0  magic "DWXSNAPS"   8  version u16   10  0 u16   12  crc u32   16  volume [16]   32  shard u32   36  shards u32
//! 40  bytes of the file u64   48  listings u32   52  0 u32   56  scrub segment u64   64  scrub offset u64
//! 72  scrub passes u64   80  sequence next u64   and from version 2 on:   88  verified at u64   96  pass began at u64
//! 104  0 ...4096
//! ```
//!
//! Behind it, one after the other, a [`Listing`](super::Listing) with the role *snapshot* for each open segment.

use super::{BLOCK, BLOCK_BYTES, Damage, array_at, check_envelope, put, seal_envelope, u32_at, u64_at, zero};
use crate::identity::VolumeId;

const MAGIC: &[u8; 8] = b"DWXSNAPS";
/// The first layout: it does not say when everything was gone through. Read, and written no more.
const VERSION_1: u16 = 1;
/// It says when.
const VERSION_2: u16 = 2;
/// How large may a snapshot be? Far more than the listings of the few segments that are open.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Where scrub goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ScrubPlace {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// How often all segments were gone through.
    pub(crate) passes: u64,
    /// What was there then has been read since, or written anew: when the last pass to the end began, or when the volume was
    /// empty. Unix seconds. 0: not known.
    pub(crate) verified_at: u64,
    /// When the pass began that is under way. 0: not known, or there is none.
    pub(crate) began_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SnapshotHeader {
    pub(crate) volume: VolumeId,
    pub(crate) shard: u32,
    pub(crate) shards: u32,
    pub(crate) bytes: u64,
    pub(crate) listings: u32,
    pub(crate) scrub: ScrubPlace,
    /// Above every sequence that was given out.
    pub(crate) sequence_next: u64,
}

impl SnapshotHeader {
    pub(crate) fn encode(&self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        put(&mut bytes, 16, &self.volume.0);
        put(&mut bytes, 32, &self.shard.to_le_bytes());
        put(&mut bytes, 36, &self.shards.to_le_bytes());
        put(&mut bytes, 40, &self.bytes.to_le_bytes());
        put(&mut bytes, 48, &self.listings.to_le_bytes());
        let ScrubPlace { segment, offset, passes, verified_at, began_at } = self.scrub;
        let numbers = [segment, offset, passes, self.sequence_next, verified_at, began_at];
        for (number, at) in numbers.iter().zip((56..).step_by(8)) {
            put(&mut bytes, at, &number.to_le_bytes());
        }
        seal_envelope(&mut bytes, MAGIC, VERSION_2);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let written = if bytes.get(8..10) == Some(&VERSION_1.to_le_bytes()) { VERSION_1 } else { VERSION_2 };
        check_envelope(bytes, MAGIC, written)?;
        if bytes.len() != BLOCK {
            return Err(Damage::Field("length"));
        }
        zero(&bytes[10..12], "reserved bytes")?;
        zero(&bytes[52..56], "reserved bytes")?;
        zero(&bytes[if written == VERSION_1 { 88 } else { 104 }..], "reserved bytes")?;
        let header = Self {
            volume: VolumeId(array_at(bytes, 16)),
            shard: u32_at(bytes, 32),
            shards: u32_at(bytes, 36),
            bytes: u64_at(bytes, 40),
            listings: u32_at(bytes, 48),
            scrub: ScrubPlace {
                segment: u64_at(bytes, 56),
                offset: u64_at(bytes, 64),
                passes: u64_at(bytes, 72),
                verified_at: u64_at(bytes, 88),
                began_at: u64_at(bytes, 96),
            },
            sequence_next: u64_at(bytes, 80),
        };
        // Bounds what is read.
        if !header.bytes.is_multiple_of(BLOCK_BYTES) || !(BLOCK_BYTES..=SNAPSHOT_BYTES_MAX).contains(&header.bytes) {
            return Err(Damage::Field("size"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SnapshotHeader = SnapshotHeader {
        volume: VolumeId([0x11; 16]),
        shard: 1,
        shards: 2,
        bytes: 8192,
        listings: 1,
        scrub: ScrubPlace { segment: 5, offset: 4096, passes: 3, verified_at: 1_700_000_000, began_at: 258 },
        sequence_next: 77,
    };

    #[test]
    fn golden_bytes() {
        let bytes = HEADER.encode();
        let mut golden = b"DWXSNAPS\x02\0\0\0....".to_vec();
        golden.extend([0x11; 16]);
        golden.extend(b"\x01\0\0\0\x02\0\0\0\0\x20\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        golden.extend(
            b"\0\x10\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0\0\xf1\x53\x65\0\0\0\0\x02\x01\0\0\0\0\0\0",
        );
        golden[12..16].copy_from_slice(&bytes[12..16]);
        assert_eq!(&bytes[..104], golden);
        assert_eq!(SnapshotHeader::decode(&bytes), Ok(HEADER));
    }

    #[test]
    fn the_first_version_is_read_and_does_not_say_when() {
        let mut bytes = HEADER.encode();
        put(&mut bytes, 88, &[0; 16]);
        seal_envelope(&mut bytes, MAGIC, VERSION_1);
        let scrub = ScrubPlace { verified_at: 0, began_at: 0, ..HEADER.scrub };
        assert_eq!(SnapshotHeader::decode(&bytes), Ok(SnapshotHeader { scrub, ..HEADER }));
        put(&mut bytes, 88, &[1]);
        seal_envelope(&mut bytes, MAGIC, VERSION_1);
        assert_eq!(SnapshotHeader::decode(&bytes), Err(Damage::Field("reserved bytes")));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let whole = HEADER.encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SnapshotHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
