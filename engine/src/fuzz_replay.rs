//! Runs the committed corpus, and seeded changes to it, through the fuzzers' targets; and keeps the corpus's samples what
//! the encoders make.

use std::fs;
use std::path::{Path, PathBuf};

use deadwax_track::{Tags, TrackId};

use super::{Outcome, TARGETS, Target};
use crate::format::{
    BLOCK, Filter, Kind, Listed, Listing, Part, RecordHeader, Role, ScrubPlace, SegmentHeader, SnapshotHeader,
    Superblock, TagBytes,
};
use crate::identity::{VolumeId, VolumeIdentity};

/// How many changed samples does each target get?
const CHANGED: u64 = 20_000;
/// Where what is committed is written anew, when the format has changed: set it, run the test, look at what changed.
const WRITE: &str = "DEADWAX_WRITE_CORPUS";

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder(target)).expect("a corpus").map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("readable")).collect()
}

fn some_tags(value: &str) -> Tags {
    let pairs = [("title", value), ("artist", "x"), ("duration_ms", "1000")];
    Tags::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))).expect("within limits")
}

/// What the encoders make, without the zeros at the end.
fn samples() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut samples = Vec::new();
    let id = TrackId::from_bytes([0x33; 32]);
    let track = RecordHeader {
        kind: Kind::Track,
        id,
        track_bytes: 300_000,
        generation: 0x0102_0304_0506_0708,
        offset: 8192,
        sequence: 9,
        synced_sequence: 7,
        takedown: 0,
        nonce: 0x2122_2324,
        tags: TagBytes::of(&some_tags("x")),
        pieces: vec![[0x44; 32], [0x55; 32]],
        piece_ends: vec![],
        filter: Filter::None,
    };
    let takedown = RecordHeader {
        kind: Kind::Takedown,
        track_bytes: 0,
        takedown: 5,
        nonce: 0,
        tags: TagBytes::default(),
        pieces: vec![],
        ..track.clone()
    };
    let packed = RecordHeader { piece_ends: vec![200_000, 210_000], ..track.clone() };
    let tagged = RecordHeader { tags: TagBytes::of(&some_tags(&"Side B ".repeat(1000))), ..track.clone() };
    let large = RecordHeader { track_bytes: 200 * 262_144, pieces: vec![[0x66; 32]; 200], ..track.clone() };
    for (name, header) in
        [("track", track), ("takedown", takedown), ("packed", packed), ("tagged", tagged), ("large", large)]
    {
        let mut bytes = vec![0; header.bytes()];
        header.encode(&mut bytes);
        samples.push(("record", name, bytes));
    }
    let segment = SegmentHeader {
        volume: VolumeId([0x11; 16]),
        number: 7,
        generation: 0x0123_4567_89ab_cdef,
        bytes: 1 << 30,
        shard: 1,
        shards: 2,
        footer_bytes: 128 * 1024,
    };
    let mut bytes = vec![0; BLOCK];
    segment.encode(&mut bytes);
    samples.push(("segment_header", "header", bytes));
    samples.extend(listings().into_iter().map(|(name, listing)| ("listing", name, listing.encode())));
    let scrub = ScrubPlace { segment: 5, offset: 4096, passes: 3, verified_at: 1_700_000_000, began_at: 0 };
    let (volume, shard, shards, bytes, listings, sequence_next) = (VolumeId([0x11; 16]), 1, 2, 8192, 1, 77);
    let header = SnapshotHeader { volume, shard, shards, bytes, listings, scrub, sequence_next };
    samples.push(("snapshot", "header", header.encode().to_vec()));
    samples.push(("superblock", "block", Superblock(VolumeIdentity { volume, node: [0x22; 32] }).encode().to_vec()));
    for (_, _, bytes) in &mut samples {
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    }
    // After that: here, zeros at the end count.
    samples.push(("tags", "none", Tags::default().encode()));
    samples.push(("tags", "some", some_tags("Grüße").encode()));
    samples.push(("tags", "long", some_tags(&"Side B ".repeat(100)).encode()));
    samples
}

fn listings() -> [(&'static str, Listing); 3] {
    let record = |index: u8| Listed {
        kind: if index.is_multiple_of(5) { Kind::Takedown } else { Kind::Track },
        id: TrackId::of(&[index]),
        offset: (1 + u64::from(index)) << 19,
        header_bytes: 4096,
        track_bytes: if index.is_multiple_of(5) { 0 } else { 300_000 },
        payload_bytes: match index % 5 {
            0 => 0,
            1 => 210_000,
            _ => 300_000,
        },
        compressed: index % 5 == 1,
    };
    let listing = |role, parts, records: std::ops::Range<u8>| Listing {
        role,
        number: 7,
        generation: 0x0102_0304_0506_0708,
        offset: 1 << 20,
        scanned_to: 1 << 19,
        sequence_max: 9,
        synced_sequence: 8,
        parts,
        records: records.map(record).collect(),
    };
    let parts = vec![Part { offset: 1 << 20, bytes: 8192 }, Part { offset: 1 << 21, bytes: 4096 }];
    [
        ("part", listing(Role::Part, vec![], 0..200)),
        ("footer", listing(Role::Footer, parts, 0..3)),
        ("empty", listing(Role::Snapshot, vec![], 0..0)),
    ]
}

#[test]
fn samples_are_what_the_encoders_make() {
    for (target, name, bytes) in samples() {
        let path = folder(target).join(format!("sample-{name}"));
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(folder(target)).expect("made");
            fs::write(&path, &bytes).expect("written");
        }
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: set {WRITE}", path.display()));
        // Another version of zstd may pack otherwise: what counts is that both decode.
        let (_, run) = TARGETS.iter().find(|(found, _)| *found == target).expect("a target");
        assert_eq!((run(&committed), run(&bytes)), (Outcome::Decoded, Outcome::Decoded), "{}", path.display());
    }
}

/// SplitMix64: one seed replays all.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((value ^ (value >> 31)) % below.max(1) as u64).expect("fits")
    }

    /// A sample, changed in some places; mostly where fields are.
    fn changed(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        const VALUES: [u64; 12] =
            [0, 1, 2, 3, 4095, 4096, 0xffff, 1 << 20, u32::MAX as u64, 1 << 40, u64::MAX - 4095, u64::MAX];
        let mut bytes = corpus[self.roll(corpus.len())].clone();
        for _ in 0..=self.roll(4) {
            let length = bytes.len();
            let at = if self.roll(4) == 0 { self.roll(length) } else { self.roll(length.min(160)) };
            match self.roll(6) {
                0 if at < length => bytes[at] ^= 1 << self.roll(8),
                1 if at < length => bytes[at] = u8::try_from(self.roll(256)).expect("a byte"),
                2 | 3 => {
                    let value = VALUES[self.roll(VALUES.len())].to_le_bytes();
                    let (at, width) = (at / 4 * 4, [1, 2, 4, 8][self.roll(4)]);
                    if let Some(field) = bytes.get_mut(at..at + width) {
                        field.copy_from_slice(&value[..width]);
                    }
                }
                4 => bytes.truncate(at),
                _ => {
                    let other = &corpus[self.roll(corpus.len())];
                    let from = self.roll(other.len());
                    bytes.extend_from_slice(&other[from..(from + self.roll(5000)).min(other.len())]);
                }
            }
        }
        bytes
    }
}

#[test]
fn the_corpus_and_changes_to_it_harm_no_decoder() {
    for (index, (name, run)) in TARGETS.into_iter().enumerate() {
        let corpus = corpus(name);
        let mut decoded = 0;
        for bytes in &corpus {
            run(bytes);
        }
        for seed in 0..CHANGED {
            let bytes = Dice(seed * TARGETS.len() as u64 + index as u64).changed(&corpus);
            decoded += u64::from(guarded(name, run, seed, &bytes) == Outcome::Decoded);
        }
        // Else the changes are too wild to say anything.
        assert!(decoded > CHANGED / 100, "{name}: {decoded} of {CHANGED} were decoded");
        assert!(decoded < CHANGED, "{name}: nothing was ever refused");
    }
}

fn guarded(name: &str, run: Target, seed: u64, bytes: &[u8]) -> Outcome {
    let outcome = std::panic::catch_unwind(|| run(bytes));
    outcome.unwrap_or_else(|_| panic!("{name}: seed {seed}: {} bytes harm it", bytes.len()))
}
