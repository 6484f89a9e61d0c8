//! Listings: which records a segment has, so that a start need not walk it.
//!
//! ```text
//!   0  magic "DWXLISTG"    8  version u16   10  role u8   11  0 u8   12  crc u32   16  bytes u32   20  packed bytes u32
//!  24  parts u32   28  records u32   32  segment number u64   40  segment generation u64   48  own offset u64
//!  56  scanned to u64   64  sequence max u64   72  synced sequence u64   80  0 [48]
//! 128  parts: {offset u64, bytes u32, 0 u32} each
//!      packed: zstd of, for each record, {block u32, header blocks u16, kind u8, flags u8, track bytes u32, payload bytes u32}
//!      ids: 32 bytes a record, in the same order; zeros to the end of the last block
//! ```
//!
//! Roles: 1 *part*: a listing among the records, of those written since the one before it; 2 *footer*: at the end of a
//! sealed segment, with the places of all parts and the records that none of them lists; 3 *snapshot*: the same of a
//! segment that is still written to, in the volume's snapshot file.
//!
//! A footer is written when all that it lists is durable. That a listed record is still there, the segment's holes
//! tell: a record is deleted by punching its header. Ids are random and do not shrink; the other fields do.

use deadwax_track::{TRACK_BYTES_MAX, TrackId};

use super::frame::Frames;
use super::record::RecordHeader;
use super::{
    BLOCK, BLOCK_BYTES, Damage, Kind, array_at, check_envelope, put, seal_envelope, u16_at, u32_at, u64_at, zero,
};

const MAGIC: &[u8; 8] = b"DWXLISTG";
/// The first layout.
const VERSION_1: u16 = 1;
const PARTS_AT: usize = 128;
const PART: usize = 16;
const FIELDS: usize = 16;
const ID: usize = 32;
/// The fields are small numbers that repeat: the fastest level takes most of it.
const ZSTD_LEVEL: i32 = 1;
const FLAG_COMPRESSED: u8 = 1;

/// How many records may one listing have? As many as a segment may, where a snapshot was missed all its life.
pub(crate) const LISTED_MAX: usize = 1 << 18;
/// How many parts may a footer name?
const PARTS_MAX: usize = 1 << 16;
const LISTING_BYTES_MAX: usize = 16 << 20;
const _: () = assert!(PARTS_AT + PARTS_MAX * PART + LISTED_MAX * (FIELDS + ID) + (1 << 16) < LISTING_BYTES_MAX);

/// Where a listing stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Part,
    Footer,
    Snapshot,
}

/// A stretch of the segment that holds a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// A record, as far as finding and counting it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    pub(crate) kind: Kind,
    pub(crate) id: TrackId,
    pub(crate) offset: u64,
    pub(crate) header_bytes: u32,
    pub(crate) track_bytes: u64,
    /// What its frames carry: the track, or less where it is compressed.
    pub(crate) payload_bytes: u64,
    pub(crate) compressed: bool,
}

impl Listed {
    pub(crate) fn of(header: &RecordHeader) -> Self {
        Self {
            kind: header.kind,
            id: header.id,
            offset: header.offset,
            header_bytes: u32::try_from(header.bytes()).expect("a header is small"),
            track_bytes: header.track_bytes,
            payload_bytes: header.frames().all_payload_bytes(),
            compressed: header.is_compressed(),
        }
    }

    pub(crate) fn frames(&self) -> Frames {
        Frames::of(self.payload_bytes)
    }

    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.header_bytes) + self.frames().stored_bytes()
    }

    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes()
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listing {
    pub(crate) role: Role,
    pub(crate) number: u64,
    pub(crate) generation: u64,
    /// Where it stands in its file.
    pub(crate) offset: u64,
    /// Every record of the segment that starts before this is listed, or never will be.
    pub(crate) scanned_to: u64,
    /// The highest sequence among the records of the segment so far.
    pub(crate) sequence_max: u64,
    /// All records of the handle up to this sequence are durable.
    pub(crate) synced_sequence: u64,
    pub(crate) parts: Vec<Part>,
    pub(crate) records: Vec<Listed>,
}

/// How many bytes a listing of so many parts and records has at most.
pub(crate) fn listing_bytes_max(parts: usize, records: usize) -> usize {
    let packed = zstd::zstd_safe::compress_bound(records * FIELDS);
    (PARTS_AT + parts * PART + packed + records * ID).next_multiple_of(BLOCK)
}

impl Listing {
    /// The listing's blocks.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.records.len() <= LISTED_MAX && self.parts.len() <= PARTS_MAX, "a listing is bounded");
        let fields: Vec<u8> = self.records.iter().flat_map(fields_of).collect();
        let packed = zstd::bulk::compress(&fields, ZSTD_LEVEL).expect("zstd takes any bytes");
        let bytes = PARTS_AT + self.parts.len() * PART + packed.len() + self.records.len() * ID;
        let mut out = vec![0; bytes.next_multiple_of(BLOCK)];
        out[10] = match self.role {
            Role::Part => 1,
            Role::Footer => 2,
            Role::Snapshot => 3,
        };
        let count = |count: usize| u32::try_from(count).expect("bounded above").to_le_bytes();
        let bytes = count(out.len());
        put(&mut out, 16, &bytes);
        put(&mut out, 20, &count(packed.len()));
        put(&mut out, 24, &count(self.parts.len()));
        put(&mut out, 28, &count(self.records.len()));
        let numbers =
            [self.number, self.generation, self.offset, self.scanned_to, self.sequence_max, self.synced_sequence];
        for (number, at) in numbers.iter().zip((32..).step_by(8)) {
            put(&mut out, at, &number.to_le_bytes());
        }
        let mut at = PARTS_AT;
        for part in &self.parts {
            put(&mut out, at, &part.offset.to_le_bytes());
            put(&mut out, at + 8, &part.bytes.to_le_bytes());
            at += PART;
        }
        put(&mut out, at, &packed);
        at += packed.len();
        for record in &self.records {
            put(&mut out, at, record.id.as_bytes());
            at += ID;
        }
        seal_envelope(&mut out, MAGIC, VERSION_1);
        out
    }

    /// How many bytes the listing that starts with this block says it has; only a hint until [`decode`](Self::decode)
    /// has checked it.
    pub(crate) fn peek(block: &[u8]) -> Result<usize, Damage> {
        if block.len() < BLOCK || block[..8] != MAGIC[..] {
            return Err(Damage::Absent);
        }
        let bytes = u32_at(block, 16) as usize;
        let plausible = (BLOCK..=LISTING_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK);
        if plausible { Ok(bytes) } else { Err(Damage::Field("length")) }
    }

    /// The listing that `bytes`, all of its blocks, hold.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        check_envelope(bytes, MAGIC, VERSION_1)?;
        let role = match bytes[10] {
            1 => Role::Part,
            2 => Role::Footer,
            3 => Role::Snapshot,
            _ => return Err(Damage::Feature("unknown kind of listing")),
        };
        zero(&bytes[11..12], "reserved bytes")?;
        zero(&bytes[80..PARTS_AT], "reserved bytes")?;
        let [length, packed, parts, records] = [16, 20, 24, 28].map(|at| u32_at(bytes, at) as usize);
        // Bounds what is allocated, and the sums and slices below.
        if length != bytes.len() || records > LISTED_MAX || parts > PARTS_MAX || packed > length {
            return Err(Damage::Field("counts"));
        }
        let packed_at = PARTS_AT + parts * PART;
        let ids_at = packed_at + packed;
        let end = ids_at + records * ID;
        if end.next_multiple_of(BLOCK) != length {
            return Err(Damage::Field("length"));
        }
        zero(&bytes[end..], "reserved bytes")?;
        let fields = zstd::bulk::decompress(&bytes[packed_at..ids_at], records * FIELDS);
        let fields = fields.map_err(|_| Damage::Field("packed records"))?;
        if fields.len() != records * FIELDS {
            return Err(Damage::Field("packed records"));
        }
        let listed = fields.chunks_exact(FIELDS).zip(bytes[ids_at..end].chunks_exact(ID));
        Ok(Self {
            role,
            number: u64_at(bytes, 32),
            generation: u64_at(bytes, 40),
            offset: u64_at(bytes, 48),
            scanned_to: u64_at(bytes, 56),
            sequence_max: u64_at(bytes, 64),
            synced_sequence: u64_at(bytes, 72),
            parts: bytes[PARTS_AT..packed_at].chunks_exact(PART).map(part_of).collect::<Result<_, _>>()?,
            records: listed.map(|(fields, id)| listed_of(fields, id)).collect::<Result<_, _>>()?,
        })
    }
}

fn part_of(bytes: &[u8]) -> Result<Part, Damage> {
    let part = Part { offset: u64_at(bytes, 0), bytes: u32_at(bytes, 8) };
    let plausible = (BLOCK..=LISTING_BYTES_MAX).contains(&(part.bytes as usize));
    // Makes reading it safe.
    if !plausible || !part.offset.is_multiple_of(BLOCK_BYTES) || part.offset >= 1 << 48 || u32_at(bytes, 12) != 0 {
        return Err(Damage::Field("parts"));
    }
    Ok(part)
}

fn fields_of(record: &Listed) -> [u8; FIELDS] {
    let mut out = [0; FIELDS];
    let small = |bytes: u64| u32::try_from(bytes).expect("a track's length is below 2^32").to_le_bytes();
    put(&mut out, 0, &small(record.offset / BLOCK_BYTES));
    let header_blocks = u16::try_from(u64::from(record.header_bytes) / BLOCK_BYTES).expect("a header is small");
    put(&mut out, 4, &header_blocks.to_le_bytes());
    out[6] = match record.kind {
        Kind::Track => 1,
        Kind::Takedown => 2,
    };
    out[7] = if record.compressed { FLAG_COMPRESSED } else { 0 };
    put(&mut out, 8, &small(record.track_bytes));
    put(&mut out, 12, &small(record.payload_bytes));
    out
}

fn listed_of(fields: &[u8], id: &[u8]) -> Result<Listed, Damage> {
    let kind = match fields[6] {
        1 => Kind::Track,
        2 => Kind::Takedown,
        _ => return Err(Damage::Feature("unknown kind of record")),
    };
    let record = Listed {
        kind,
        id: TrackId::from_bytes(array_at(id, 0)),
        offset: u64::from(u32_at(fields, 0)) * BLOCK_BYTES,
        header_bytes: u32::from(u16_at(fields, 4)) * u32::try_from(BLOCK).expect("small"),
        track_bytes: u64::from(u32_at(fields, 8)),
        payload_bytes: u64::from(u32_at(fields, 12)),
        compressed: fields[7] == FLAG_COMPRESSED,
    };
    let lengths_agree = if record.compressed {
        record.payload_bytes <= record.track_bytes && record.payload_bytes > 0
    } else {
        record.payload_bytes == record.track_bytes
    };
    // Makes the arithmetic of frames safe.
    let plausible = record.track_bytes <= TRACK_BYTES_MAX
        && lengths_agree
        && (record.track_bytes == 0) == (kind == Kind::Takedown)
        && record.header_bytes > 0
        && fields[7] <= FLAG_COMPRESSED;
    if plausible { Ok(record) } else { Err(Damage::Field("record")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let track = Listed {
            kind: Kind::Track,
            id: TrackId::from_bytes([0x33; 32]),
            offset: 8192,
            header_bytes: 4096,
            track_bytes: 300_000,
            payload_bytes: 210_000,
            compressed: true,
        };
        let takedown = Listed {
            kind: Kind::Takedown,
            id: TrackId::from_bytes([0x44; 32]),
            offset: 4096,
            track_bytes: 0,
            payload_bytes: 0,
            compressed: false,
            ..track
        };
        Listing {
            role: Role::Footer,
            number: 7,
            generation: 0x0102_0304_0506_0708,
            offset: 1 << 20,
            scanned_to: 1 << 19,
            sequence_max: 9,
            synced_sequence: 8,
            parts: vec![Part { offset: 65_536, bytes: 8192 }],
            records: vec![track, takedown],
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = listing().encode();
        let mut golden = Vec::new();
        golden.extend(b"DWXLISTG\x01\0\x02\0\0\0\0\0\0\x10\0\0....\x01\0\0\0\x02\0\0\0");
        golden.extend(b"\x07\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\0\0\x10\0\0\0\0\0\0\0\x08\0\0\0\0\0");
        golden.extend(b"\x09\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0");
        golden.resize(128, 0);
        golden.extend(b"\0\0\x01\0\0\0\0\0\0\x20\0\0\0\0\0\0");
        // What zstd makes of the fields, and how long it is, is its own matter.
        golden[12..16].copy_from_slice(&bytes[12..16]);
        golden[20..24].copy_from_slice(&bytes[20..24]);
        assert_eq!(&bytes[..144], golden, "{:02x?}", &bytes[..144]);
        assert_eq!(Listing::decode(&bytes), Ok(listing()));
        assert_eq!(Listing::peek(&bytes), Ok(4096));
        assert_eq!(fields_of(&listing().records[0]), *b"\x02\0\0\0\x01\0\x01\x01\xe0\x93\x04\0\x50\x34\x03\0");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let whole = listing().encode();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Listing::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_listing_fits_what_is_kept_for_it() {
        for records in [0, 1, 40, 1365, 5000] {
            let mut full = listing();
            full.records = (0..records).map(|n| Listed { offset: n * 4096, ..full.records[0] }).collect();
            let bytes = full.encode().len();
            assert!(bytes <= listing_bytes_max(1, full.records.len()), "{records} records took {bytes}");
            assert_eq!(Listing::decode(&full.encode()), Ok(full));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_though_its_checksum_is_right() {
        let resealed = |change: &dyn Fn(&mut Listing)| {
            let mut changed = listing();
            change(&mut changed);
            Listing::decode(&changed.encode()).err()
        };
        assert_eq!(resealed(&|listing| listing.parts[0].offset = 5), Some(Damage::Field("parts")));
        assert_eq!(resealed(&|listing| listing.parts[0].bytes = 5), Some(Damage::Field("parts")));
        assert_eq!(resealed(&|listing| listing.records[0].track_bytes = 1 << 30), Some(Damage::Field("record")));
        assert_eq!(resealed(&|listing| listing.records[0].track_bytes = 5), Some(Damage::Field("record")));
        assert_eq!(resealed(&|listing| listing.records[1].track_bytes = 5), Some(Damage::Field("record")));
        let mut bytes = listing().encode();
        bytes[10] = 9;
        seal_envelope(&mut bytes, MAGIC, VERSION_1);
        assert_eq!(Listing::decode(&bytes).err(), Some(Damage::Feature("unknown kind of listing")));
    }
}
