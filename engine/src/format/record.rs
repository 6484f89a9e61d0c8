//! The header of a record.
//!
//! ```text
//!   0  magic "DWXRECRD"    8  version u16   10  kind u8   11  filter u8   12  crc u32   16  header bytes u32   20  flags u32
//!  24  track bytes u64    32  stored bytes u64 (all frames)     40  track id [32]
//!  72  segment generation u64   80  own offset in the segment u64   88  sequence u64   96  synced sequence u64
//! 104  takedown number u64   112  tags bytes u32   116  manifest bytes u32   120  piece table bytes u32   124  nonce u32
//! 128  tags, manifest (32 bytes a piece), piece table (4 bytes a piece, or none), zeros to the end of the last block
//! ```
//!
//! Kinds: 1 track; 2 takedown (a header alone; bars the id for ever).
//!
//! Flags: bit 0: the pieces are compressed one by one with zstd, and the piece table holds, for each, the offset of its
//! end among what the frames carry as `u32`; bit 1: the tags are compressed with zstd. A piece that would not shrink is
//! stored as it is: its stored length is then the piece's own.
//!
//! Filters, of the pieces that are stored compressed, applied before zstd; zero where bit 0 is not set: 0 none; 1 *stereo
//! delta*: of the piece's n whole `i16` samples x, e[i] = x[i] - 2 x[i-2] + x[i-4] in wrapping arithmetic, where samples
//! before the piece count as 0; z[i] = (e[i] << 1) ^ (e[i] >> 15), the second an arithmetic shift; then the low bytes of all
//! z, then their high bytes, then the piece's last byte where its length is odd.
//!
//! `sequence` rises by one with each header that a volume handle writes. `synced sequence` is the highest one for which it
//! and all below were durable when this header was made.

use deadwax_track::{BadTags, PIECE_BYTES, TRACK_BYTES_MAX, Tags, TrackId, piece_count};

use super::frame::Frames;
use super::listing::Listed;
use super::{BLOCK, BLOCK_BYTES, Damage, array_at, check_envelope, put, seal_envelope, u32_at, u64_at, zero};

const MAGIC: &[u8; 8] = b"DWXRECRD";
/// The first layout.
const VERSION_1: u16 = 1;
const HEADER_BYTES_AT: usize = 16;
const FILTER_AT: usize = 11;
const FLAGS_AT: usize = 20;
const SECTIONS_AT: usize = 128;
const FLAG_PIECES_COMPRESSED: u32 = 1;
const FLAG_TAGS_COMPRESSED: u32 = 1 << 1;
/// Tags are small and read by people: a middling level.
const TAGS_ZSTD_LEVEL: i32 = 6;
/// Below this length tags stay as they are. A header is whole blocks: the bytes saved would be padding.
const COMPRESSED_TAGS_BYTES_MIN: usize = 512;

/// The largest header: the fixed part, all tags, and the manifest and table of the largest track.
const HEADER_BYTES_MAX: usize = (SECTIONS_AT + Tags::BYTES_MAX + 2048 * 32 + 2048 * 4).next_multiple_of(BLOCK);
const _: () = assert!(deadwax_track::PIECES_MAX == 2048);

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Track,
    Takedown,
}

/// What is done to a piece before zstd, so that it shrinks more. The top of this file says how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Filter {
    #[default]
    None,
    /// For 16-bit stereo PCM.
    StereoDelta,
}

/// Tags as they lie in a header: compressed where that is smaller.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct TagBytes {
    bytes: Vec<u8>,
    compressed: bool,
}

impl TagBytes {
    pub(crate) fn of(tags: &Tags) -> Self {
        let plain = tags.encode();
        // Making a compressor takes some 20 us, a seventh of what a 64 KiB put does, and so few bytes hardly shrink.
        if plain.len() < COMPRESSED_TAGS_BYTES_MIN {
            return Self { bytes: plain, compressed: false };
        }
        match zstd::bulk::compress(&plain, TAGS_ZSTD_LEVEL) {
            Ok(bytes) if bytes.len() < plain.len() => Self { bytes, compressed: true },
            _ => Self { bytes: plain, compressed: false },
        }
    }

    pub(crate) fn decode(&self) -> Result<Tags, BadTags> {
        if !self.compressed {
            return Tags::decode(&self.bytes);
        }
        let plain = zstd::bulk::decompress(&self.bytes, Tags::BYTES_MAX);
        Tags::decode(&plain.map_err(|_| BadTags::Encoding("the compressed tags are cut off or too long"))?)
    }
}

/// What a damaged header says of its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    pub(crate) id: TrackId,
    /// Whether it says that it bars the id.
    pub(crate) takedown: bool,
    /// The record's length, where its fields agree on one.
    pub(crate) bytes: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordHeader {
    pub(crate) kind: Kind,
    pub(crate) id: TrackId,
    pub(crate) track_bytes: u64,
    pub(crate) generation: u64,
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) synced_sequence: u64,
    pub(crate) takedown: u64,
    pub(crate) nonce: u32,
    pub(crate) tags: TagBytes,
    pub(crate) pieces: Vec<[u8; 32]>,
    /// Where each stored piece ends among what the frames carry; empty where the track is stored as it is.
    pub(crate) piece_ends: Vec<u32>,
    /// What the compressed pieces went through before zstd; none where the track is stored as it is.
    pub(crate) filter: Filter,
}

impl RecordHeader {
    /// What the header of such a track's record takes on the drive, with or without a table of compressed pieces.
    pub(crate) fn bytes_for(track_bytes: u64, tags: &TagBytes, compressed: bool) -> usize {
        let pieces = usize::try_from(piece_count(track_bytes)).expect("at most 2,048 pieces");
        let piece = if compressed { 32 + 4 } else { 32 };
        (SECTIONS_AT + tags.bytes.len() + pieces * piece).next_multiple_of(BLOCK)
    }

    /// The record's frames.
    pub(crate) fn frames(&self) -> Frames {
        Frames::of(self.piece_ends.last().map_or(self.track_bytes, |end| u64::from(*end)))
    }

    /// Whether the pieces are compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        !self.piece_ends.is_empty()
    }

    /// What this header takes on the drive.
    pub(crate) fn bytes(&self) -> usize {
        let sections = self.tags.bytes.len() + self.pieces.len() * 32 + self.piece_ends.len() * 4;
        (SECTIONS_AT + sections).next_multiple_of(BLOCK)
    }

    /// Fills `out`, which is [`bytes`](Self::bytes) long.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        assert_eq!(out.len(), self.bytes(), "a header fills its blocks");
        assert!(self.offset.is_multiple_of(BLOCK_BYTES), "a record starts on a block, not at {}", self.offset);
        assert!(self.synced_sequence < self.sequence, "{} synced, {} written", self.synced_sequence, self.sequence);
        out.fill(0);
        out[10] = match self.kind {
            Kind::Track => 1,
            Kind::Takedown => 2,
        };
        let length = |bytes: usize| u32::try_from(bytes).expect("a header is small").to_le_bytes();
        let mut flags = if self.tags.compressed { FLAG_TAGS_COMPRESSED } else { 0 };
        if self.is_compressed() {
            assert_eq!(self.piece_ends.len(), self.pieces.len(), "an end for each piece");
            flags |= FLAG_PIECES_COMPRESSED;
        }
        out[FILTER_AT] = match self.filter {
            Filter::None => 0,
            Filter::StereoDelta => 1,
        };
        put(out, HEADER_BYTES_AT, &length(self.bytes()));
        put(out, FLAGS_AT, &flags.to_le_bytes());
        put(out, 24, &self.track_bytes.to_le_bytes());
        put(out, 32, &self.frames().stored_bytes().to_le_bytes());
        put(out, 40, self.id.as_bytes());
        put(out, 72, &self.generation.to_le_bytes());
        put(out, 80, &self.offset.to_le_bytes());
        put(out, 88, &self.sequence.to_le_bytes());
        put(out, 96, &self.synced_sequence.to_le_bytes());
        put(out, 104, &self.takedown.to_le_bytes());
        put(out, 112, &length(self.tags.bytes.len()));
        put(out, 116, &length(self.pieces.len() * 32));
        put(out, 120, &length(self.piece_ends.len() * 4));
        put(out, 124, &self.nonce.to_le_bytes());
        put(out, SECTIONS_AT, &self.tags.bytes);
        let manifest_at = SECTIONS_AT + self.tags.bytes.len();
        put(out, manifest_at, self.pieces.as_flattened());
        for (end, place) in self.piece_ends.iter().zip((manifest_at + self.pieces.len() * 32..).step_by(4)) {
            put(out, place, &end.to_le_bytes());
        }
        seal_envelope(out, MAGIC, VERSION_1);
    }

    /// How many bytes the header that starts with this block says it has, where it may be a header of the segment with this
    /// generation that stands at `offset`: nobody else knows the generation, so the magic may have rotted. Only a hint
    /// until [`decode`](Self::decode) has checked it.
    pub(crate) fn peek(block: &[u8], generation: u64, offset: u64) -> Result<usize, Damage> {
        if block.len() < BLOCK || u64_at(block, 72) != generation || u64_at(block, 80) != offset {
            return Err(Damage::Absent);
        }
        let bytes = u32_at(block, HEADER_BYTES_AT) as usize;
        let plausible = (BLOCK..=HEADER_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK);
        if plausible { Ok(bytes) } else { Err(Damage::Field("length")) }
    }

    /// The generation that a header which starts with this block names; for a segment that lost its own header.
    pub(crate) fn generation_in(block: &[u8]) -> u64 {
        u64_at(block, 72)
    }

    /// What the first block of a damaged header claims. Any of it may be wrong.
    pub(crate) fn claim(block: &[u8]) -> Claim {
        let (header_bytes, track_bytes) = (u64::from(u32_at(block, HEADER_BYTES_AT)), u64_at(block, 24));
        // Three fields that agree were hardly all hit.
        let compressed = u32_at(block, FLAGS_AT) & FLAG_PIECES_COMPRESSED != 0;
        let agreed = header_bytes <= HEADER_BYTES_MAX as u64
            && track_bytes <= TRACK_BYTES_MAX
            && (u64_at(block, 32) == Frames::of(track_bytes).stored_bytes()
                || compressed && u64_at(block, 32) < Frames::of(track_bytes).stored_bytes());
        Claim {
            id: TrackId::from_bytes(array_at(block, 40)),
            takedown: block[10] == 2,
            bytes: agreed.then(|| (header_bytes + u64_at(block, 32)).next_multiple_of(BLOCK_BYTES)),
        }
    }

    /// What the first block of a damaged header, which stands at `offset`, says of a track that is stored as it is, where
    /// that is possible. Any of it may be wrong: frames prove it.
    pub(crate) fn claimed_track(block: &[u8], offset: u64) -> Option<Listed> {
        let claim = Self::claim(block);
        let header_bytes = u32_at(block, HEADER_BYTES_AT);
        let track_bytes = u64_at(block, 24);
        let plain = u32_at(block, FLAGS_AT) & FLAG_PIECES_COMPRESSED == 0 && !claim.takedown && track_bytes > 0;
        let possible =
            plain && claim.bytes.is_some() && header_bytes > 0 && (header_bytes as usize).is_multiple_of(BLOCK);
        possible.then_some(Listed {
            kind: Kind::Track,
            id: claim.id,
            offset,
            header_bytes,
            track_bytes,
            payload_bytes: track_bytes,
            compressed: false,
        })
    }

    /// The header that `bytes`, all of its blocks, hold.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        check_envelope(bytes, MAGIC, VERSION_1)?;
        let flags = u32_at(bytes, FLAGS_AT);
        if flags & !(FLAG_TAGS_COMPRESSED | FLAG_PIECES_COMPRESSED) != 0 {
            return Err(Damage::Feature("unknown flags"));
        }
        let kind = match bytes[10] {
            1 => Kind::Track,
            2 => Kind::Takedown,
            _ => return Err(Damage::Feature("unknown kind of record")),
        };
        let filter = match bytes[FILTER_AT] {
            0 => Filter::None,
            1 if flags & FLAG_PIECES_COMPRESSED == 0 => return Err(Damage::Field("filter")),
            1 => Filter::StereoDelta,
            _ => return Err(Damage::Feature("unknown filter")),
        };
        let (tags_bytes, manifest_bytes) = (u32_at(bytes, 112) as usize, u32_at(bytes, 116) as usize);
        let track_bytes = u64_at(bytes, 24);
        // Bounds the piece and frame arithmetic.
        if track_bytes > TRACK_BYTES_MAX || (track_bytes == 0) != (kind != Kind::Track) {
            return Err(Damage::Field("track length"));
        }
        // Bounds the slices below.
        if tags_bytes > Tags::BYTES_MAX || manifest_bytes as u64 != piece_count(track_bytes) * 32 {
            return Err(Damage::Field("section lengths"));
        }
        let table_bytes = u32_at(bytes, 120) as usize;
        let table_bytes_expected = if flags & FLAG_PIECES_COMPRESSED == 0 { 0 } else { manifest_bytes / 8 };
        if table_bytes != table_bytes_expected {
            return Err(Damage::Field("piece table"));
        }
        let manifest_at = SECTIONS_AT + tags_bytes;
        let table_at = manifest_at + manifest_bytes;
        let end = table_at + table_bytes;
        if bytes.len() != end.next_multiple_of(BLOCK) || u32_at(bytes, HEADER_BYTES_AT) as usize != bytes.len() {
            return Err(Damage::Field("header length"));
        }
        zero(&bytes[end..], "reserved bytes")?;
        // What is durable when a header is made came before it.
        if !u64_at(bytes, 80).is_multiple_of(BLOCK_BYTES) || u64_at(bytes, 96) >= u64_at(bytes, 88) {
            return Err(Damage::Field("place or sequence"));
        }
        let piece_ends = piece_ends(&bytes[table_at..end], track_bytes)?;
        let frames = Frames::of(piece_ends.last().map_or(track_bytes, |end| u64::from(*end)));
        if u64_at(bytes, 32) != frames.stored_bytes() {
            return Err(Damage::Field("stored length"));
        }
        Ok(Self {
            kind,
            id: TrackId::from_bytes(array_at(bytes, 40)),
            track_bytes,
            generation: u64_at(bytes, 72),
            offset: u64_at(bytes, 80),
            sequence: u64_at(bytes, 88),
            synced_sequence: u64_at(bytes, 96),
            takedown: u64_at(bytes, 104),
            nonce: u32_at(bytes, 124),
            tags: TagBytes {
                bytes: bytes[SECTIONS_AT..manifest_at].to_vec(),
                compressed: flags & FLAG_TAGS_COMPRESSED != 0,
            },
            pieces: bytes[manifest_at..table_at].chunks_exact(32).map(|hash| array_at(hash, 0)).collect(),
            piece_ends,
            filter,
        })
    }
}

/// The table of a compressed track: rising, and no stored piece larger than the piece itself, which bounds what reading
/// one takes.
fn piece_ends(table: &[u8], track_bytes: u64) -> Result<Vec<u32>, Damage> {
    let ends: Vec<u32> = table.chunks_exact(4).map(|end| u32_at(end, 0)).collect();
    let (mut start, mut left) = (0, track_bytes);
    for end in &ends {
        let piece = left.min(PIECE_BYTES);
        left -= piece;
        if *end <= start || u64::from(end - start) > piece {
            return Err(Damage::Field("piece table"));
        }
        start = *end;
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            kind: Kind::Track,
            id: TrackId::from_bytes([0x33; 32]),
            track_bytes: 300_000,
            generation: 0x0102_0304_0506_0708,
            offset: 8192,
            sequence: 9,
            synced_sequence: 7,
            takedown: 0,
            nonce: 0x2122_2324,
            tags: TagBytes { bytes: b"\x01\0\x01a\x01\0\0\0b".to_vec(), compressed: false },
            pieces: vec![[0x44; 32], [0x55; 32]],
            piece_ends: vec![],
            filter: Filter::None,
        }
    }

    fn encoded(header: &RecordHeader) -> Vec<u8> {
        let mut bytes = vec![0xff; header.bytes()];
        header.encode(&mut bytes);
        bytes
    }

    #[test]
    fn golden_bytes() {
        let bytes = encoded(&header());
        let mut golden = Vec::new();
        golden.extend(b"DWXRECRD\x01\0\x01\0\x36\xd4\x0a\x2d\0\x10\0\0\0\0\0\0");
        golden.extend(b"\xe0\x93\x04\0\0\0\0\0\0\xa0\x04\0\0\0\0\0");
        golden.extend([0x33; 32]);
        golden.extend(b"\x08\x07\x06\x05\x04\x03\x02\x01\0\x20\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        golden.extend(b"\0\0\0\0\0\0\0\0\x09\0\0\0\x40\0\0\0\0\0\0\0\x24\x23\x22\x21");
        golden.extend(b"\x01\0\x01a\x01\0\0\0b");
        golden.extend([0x44; 32]);
        golden.extend([0x55; 32]);
        assert_eq!(bytes[..golden.len()], golden, "{:02x?}", &bytes[12..16]);
        assert!(bytes[golden.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(RecordHeader::decode(&bytes), Ok(header()));
        assert_eq!(RecordHeader::peek(&bytes, header().generation, 8192), Ok(4096));
        assert_eq!(RecordHeader::peek(&bytes, header().generation, 4096), Err(Damage::Absent));
        assert_eq!(RecordHeader::peek(&bytes, 1, 8192), Err(Damage::Absent));
        let claim = Claim { id: header().id, takedown: false, bytes: Some(4096 + 303_104) };
        assert_eq!(RecordHeader::claim(&bytes), claim);
        let mut rotten = bytes;
        rotten[24] ^= 1 << 7;
        rotten[29] = 1;
        assert_eq!(RecordHeader::claim(&rotten), Claim { bytes: None, ..claim });
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let whole = encoded(&header());
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn newer_versions_and_unknown_features_are_refused() {
        let resealed = |at: usize, value: u8, version: u16| {
            let mut bytes = encoded(&header());
            bytes[at] = value;
            seal_envelope(&mut bytes, MAGIC, version);
            RecordHeader::decode(&bytes).err()
        };
        assert_eq!(resealed(11, 0, 2), Some(Damage::Version(2)));
        assert_eq!(resealed(FLAGS_AT, 1, 1), Some(Damage::Field("piece table")));
        assert_eq!(resealed(FLAGS_AT, 4, 1), Some(Damage::Feature("unknown flags")));
        assert_eq!(resealed(10, 9, 1), Some(Damage::Feature("unknown kind of record")));
        assert_eq!(resealed(FILTER_AT, 1, 1), Some(Damage::Field("filter")));
        assert_eq!(resealed(FILTER_AT, 2, 1), Some(Damage::Feature("unknown filter")));
        assert_eq!(resealed(4000, 1, 1), Some(Damage::Field("reserved bytes")));
        assert_eq!(resealed(120, 1, 1), Some(Damage::Field("piece table")));
        assert_eq!(resealed(31, 1, 1), Some(Damage::Field("track length")));
        assert_eq!(resealed(32, 1, 1), Some(Damage::Field("stored length")));
        assert_eq!(resealed(115, 1, 1), Some(Damage::Field("section lengths")));
        assert_eq!(resealed(17, 0x20, 1), Some(Damage::Field("header length")));
    }

    #[test]
    fn a_compressed_track_has_an_end_for_each_piece() {
        let plain = RecordHeader { piece_ends: vec![200_000, 210_000], ..header() };
        assert_eq!(RecordHeader::decode(&encoded(&plain)), Ok(plain.clone()));
        let compressed = RecordHeader { filter: Filter::StereoDelta, ..plain };
        let bytes = encoded(&compressed);
        assert_eq!((bytes[FILTER_AT], bytes[FLAGS_AT]), (1, 1));
        assert_eq!(RecordHeader::decode(&bytes), Ok(compressed.clone()));
        assert_eq!(compressed.frames(), Frames::of(210_000));
        assert_eq!(compressed.bytes(), RecordHeader::bytes_for(300_000, &compressed.tags, true));
        for wrong in [vec![200_000, 200_000], vec![0, 5], vec![262_145, 262_146], vec![200_000, 200_000 + 37_857]] {
            let bytes = encoded(&RecordHeader { piece_ends: wrong.clone(), ..header() });
            assert_eq!(RecordHeader::decode(&bytes), Err(Damage::Field("piece table")), "{wrong:?}");
        }
        let whole = encoded(&compressed);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(RecordHeader::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn tags_come_back_from_either_form() {
        let pair = |value: &str| Tags::new([("title".to_owned(), value.to_owned())]).expect("within limits");
        for (tags, compressed) in [(pair("x"), false), (pair(&"Side B ".repeat(2000)), true)] {
            let bytes = TagBytes::of(&tags);
            assert_eq!(bytes.compressed, compressed);
            assert_eq!(bytes.decode(), Ok(tags));
        }
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).expect("compresses");
        assert!(TagBytes { bytes: bomb, compressed: true }.decode().is_err());
        assert!(TagBytes { bytes: vec![1, 2, 3], compressed: true }.decode().is_err());
    }
}
