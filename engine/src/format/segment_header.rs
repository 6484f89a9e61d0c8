//! The first block of a segment's file.
//!
//! ```text
//!  0  magic "DWXSEGMT"   8  version u16   10  0 u16      12  crc u32      16  volume [16]
//! 32  number u64        40  generation u64   48  bytes of the file u64   56  shard u32   60  shards u32
//! 64  footer bytes u32  68  0 ...4096
//! ```
//!
//! The last `footer bytes` of the file hold the footer once the segment is sealed, and nothing before.
//!
//! `shard` of `shards` wrote every record in it: a segment is never continued by another split of the volume, so a
//! handle need not look into segments of the same split that are not its own.

use super::{BLOCK, BLOCK_BYTES, Damage, array_at, check_envelope, put, seal_envelope, u32_at, u64_at, zero};
use crate::identity::VolumeId;

const MAGIC: &[u8; 8] = b"DWXSEGMT";
/// The first layout.
const VERSION_1: u16 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) volume: VolumeId,
    pub(crate) number: u64,
    pub(crate) generation: u64,
    pub(crate) bytes: u64,
    pub(crate) shard: u32,
    pub(crate) shards: u32,
    pub(crate) footer_bytes: u32,
}

/// What a new segment of `bytes` keeps for its footer: a little, so that small segments are not all footer.
pub(crate) fn footer_bytes_for(bytes: u64) -> u32 {
    let wanted = (bytes / 64).clamp(BLOCK_BYTES, FOOTER_BYTES_MAX) / BLOCK_BYTES * BLOCK_BYTES;
    u32::try_from(wanted).expect("at most 128 KiB")
}

/// How much of a large segment is kept for its footer? Room for some 1,300 records, and the places of 4,000 parts.
const FOOTER_BYTES_MAX: u64 = 128 * 1024;

impl SegmentHeader {
    /// Fills the block `out`.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), BLOCK, "a segment header is one block");
        out.fill(0);
        put(out, 16, &self.volume.0);
        put(out, 32, &self.number.to_le_bytes());
        put(out, 40, &self.generation.to_le_bytes());
        put(out, 48, &self.bytes.to_le_bytes());
        put(out, 56, &self.shard.to_le_bytes());
        put(out, 60, &self.shards.to_le_bytes());
        put(out, 64, &self.footer_bytes.to_le_bytes());
        seal_envelope(out, MAGIC, VERSION_1);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        check_envelope(bytes, MAGIC, VERSION_1)?;
        if bytes.len() != BLOCK {
            return Err(Damage::Field("length"));
        }
        zero(&bytes[10..12], "reserved bytes")?;
        zero(&bytes[68..], "reserved bytes")?;
        let header = Self {
            volume: VolumeId(array_at(bytes, 16)),
            number: u64_at(bytes, 32),
            generation: u64_at(bytes, 40),
            bytes: u64_at(bytes, 48),
            shard: u32_at(bytes, 56),
            shards: u32_at(bytes, 60),
            footer_bytes: u32_at(bytes, 64),
        };
        // Makes the offset arithmetic of a scan safe.
        if !header.bytes.is_multiple_of(BLOCK_BYTES) || !(BLOCK_BYTES..=1 << 48).contains(&header.bytes) {
            return Err(Damage::Field("size"));
        }
        let footer_bytes = u64::from(header.footer_bytes);
        if !footer_bytes.is_multiple_of(BLOCK_BYTES) || footer_bytes + BLOCK_BYTES > header.bytes {
            return Err(Damage::Field("footer"));
        }
        if header.shard >= header.shards {
            return Err(Damage::Field("shard"));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        volume: VolumeId([0x11; 16]),
        number: 7,
        generation: 0x0123_4567_89ab_cdef,
        bytes: 1 << 30,
        shard: 1,
        shards: 2,
        footer_bytes: 128 * 1024,
    };

    #[test]
    fn golden_bytes() {
        let mut bytes = [0xff; BLOCK];
        HEADER.encode(&mut bytes);
        let golden =
            b"DWXSEGMT\x01\0\0\0\x5e\x93\x02\x51\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\x11\
            \x07\0\0\0\0\0\0\0\xef\xcd\xab\x89\x67\x45\x23\x01\0\0\0\x40\0\0\0\0\x01\0\0\0\x02\0\0\0\0\0\x02\0";
        assert_eq!(&bytes[..68], golden, "{:02x?}", &bytes[12..16]);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let mut whole = [0; BLOCK];
        HEADER.encode(&mut whole);
        for bit in 0..BLOCK * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
