//! The private decoders, for fuzzers: `engine/fuzz` drives these with libFuzzer, the tests below with the committed corpus and
//! seeded changes to it.
//!
//! Each takes any bytes, and answers how it went. What holds for all: nothing panics, what is decoded and encoded decodes
//! to the same, and what is decoded is not much larger than the input. Bytes are padded with zeros to whole blocks, and
//! the checksum is made right, so that changes get past it.

use deadwax_track::Tags;

use crate::format::{BLOCK, Damage, Listing, RecordHeader, SegmentHeader, SnapshotHeader, Superblock, seal_checksum};

/// How far a decoder came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is not what the decoder wants, by magic, version or length.
    Alien,
    /// A field is out of bounds.
    Refused,
    /// It was decoded.
    Decoded,
}

/// A decoder under test.
pub type Target = fn(&[u8]) -> Outcome;

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 6] = [
    ("record", record),
    ("segment_header", segment_header),
    ("listing", listing),
    ("snapshot", snapshot),
    ("superblock", superblock),
    ("tags", tags),
];

/// The largest input that is looked at: larger ones say nothing new, and take long.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// Whole blocks with a right checksum.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut blocks = bytes[..bytes.len().min(INPUT_BYTES_MAX)].to_vec();
    blocks.resize(blocks.len().next_multiple_of(BLOCK).max(BLOCK), 0);
    seal_checksum(&mut blocks);
    blocks
}

fn outcome<T>(decoded: &Result<T, Damage>) -> Outcome {
    match decoded {
        Ok(_) => Outcome::Decoded,
        Err(Damage::Checksum) => panic!("the checksum was made right"),
        Err(Damage::Absent | Damage::Version(_)) => Outcome::Alien,
        Err(Damage::Feature(_) | Damage::Field(_)) => Outcome::Refused,
    }
}

/// A record's header, its tags, and what a damaged one claims.
pub fn record(bytes: &[u8]) -> Outcome {
    let blocks = sealed(bytes);
    let (generation, offset) = (RecordHeader::generation_in(&blocks), u64::from_le_bytes(eight(&blocks, 80)));
    // Hints of any bytes must not panic, whatever they say.
    let claim = RecordHeader::claim(&blocks);
    let claimed = RecordHeader::claimed_track(&blocks, offset);
    assert!(claimed.is_none_or(|track| track.id == claim.id && track.frames().stored_bytes() > 0));
    let peeked = RecordHeader::peek(&blocks, generation, offset);
    let decoded = RecordHeader::decode(&blocks);
    if let Ok(header) = &decoded {
        assert_eq!(peeked, Ok(blocks.len()), "the hint is right where the header is");
        assert_eq!(header.bytes(), blocks.len());
        let mut again = vec![0; header.bytes()];
        header.encode(&mut again);
        assert_eq!(RecordHeader::decode(&again).as_ref(), Ok(header));
        assert!(header.pieces.len() * 32 + header.piece_ends.len() * 4 <= blocks.len());
        assert!(header.frames().all_payload_bytes() <= header.track_bytes);
        if let Ok(tags) = header.tags.decode() {
            assert!(tags.encode().len() <= Tags::BYTES_MAX);
        }
    }
    outcome(&decoded)
}

/// A segment's header.
pub fn segment_header(bytes: &[u8]) -> Outcome {
    let decoded = SegmentHeader::decode(&sealed(bytes));
    if let Ok(header) = &decoded {
        let mut again = [0; BLOCK];
        header.encode(&mut again);
        assert_eq!(SegmentHeader::decode(&again), Ok(*header));
        assert!(u64::from(header.footer_bytes) < header.bytes);
    }
    outcome(&decoded)
}

/// A part, a footer, or a snapshot's listing.
pub fn listing(bytes: &[u8]) -> Outcome {
    let blocks = sealed(bytes);
    let peeked = Listing::peek(&blocks);
    let decoded = Listing::decode(&blocks);
    if let Ok(listing) = &decoded {
        assert_eq!(peeked, Ok(blocks.len()));
        assert_eq!(Listing::decode(&listing.encode()).as_ref(), Ok(listing));
        assert!(listing.records.len() * 32 + listing.parts.len() * 16 <= blocks.len());
        // Everybody who reads a listing does this with each record.
        assert!(listing.records.iter().all(|record| record.end() > record.offset));
    }
    outcome(&decoded)
}

/// A snapshot's first block.
pub fn snapshot(bytes: &[u8]) -> Outcome {
    let decoded = SnapshotHeader::decode(&sealed(bytes));
    if let Ok(header) = &decoded {
        assert_eq!(SnapshotHeader::decode(&header.encode()), Ok(*header));
    }
    outcome(&decoded)
}

/// A superblock.
pub fn superblock(bytes: &[u8]) -> Outcome {
    let decoded = Superblock::decode(&sealed(bytes));
    if let Ok(found) = &decoded {
        let again = Superblock::decode(&found.encode()).map(|again| again.0);
        assert_eq!(again, Ok(found.0));
    }
    outcome(&decoded)
}

/// Tags. There is no checksum: the record's covers them.
pub fn tags(bytes: &[u8]) -> Outcome {
    match Tags::decode(bytes) {
        Ok(tags) => {
            // Equal tags give equal bytes, and no other bytes give them.
            assert_eq!(tags.encode(), bytes);
            Outcome::Decoded
        }
        Err(_) => Outcome::Refused,
    }
}

fn eight(bytes: &[u8], at: usize) -> [u8; 8] {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    out
}

#[cfg(test)]
#[path = "fuzz_replay.rs"]
mod replay;
