//! What the index takes of the heap, and how much more while it grows and while a start makes it anew: counted by the
//! allocator, not reckoned. This file has unsafe code.
//!
//! The allocator counts for all of the crate's unit tests, each thread for itself, so that what other tests do meanwhile
//! changes nothing. A block counts with what glibc's malloc sets aside for it, and one that is resized counts twice while
//! its bytes may be copied: more than it ever takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use crate::format::{
    BLOCK, BLOCK_BYTES, Filter, FrameStamp, Kind, Listed, Listing, Part, RecordHeader, Role, SegmentHeader, TagBytes,
    footer_bytes_for,
};
use crate::host::{Access, File, Host};
use crate::index::Index;
use crate::segment::path_of;
use crate::sim::lives::{DIRECTORY, config, formatted};
use crate::sim::{Dice, Life, SimHost, SimSettings, segments_of};
use crate::table::{EntryKind, Slot, allocated_bytes};
use crate::volume::Volume;
use deadwax_track::{MIB, TrackId};

/// How much of memory may a track take, all counted?
const TRACK_MEMORY_MAX: usize = 24;
/// How much may it be for a while, in percent of what it is in the end?
const PEAK_PERCENT_MAX: usize = 125;

thread_local! {
    /// Bytes that this thread holds, or those that it gave to others less those that it gave back for them.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that it held since [`measured`] began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize, sign: isize) {
    let bytes = isize::try_from(allocated_bytes(bytes)).expect("a block is smaller than half of memory");
    // Neither has a destructor, so that they are there for as long as the thread is.
    HELD.set(HELD.get() + sign * bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: all memory is the system's, asked for and given back with what the caller says of it. Counting allocates nothing
// and does not unwind: no block is as large as half of memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are the ones that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above; `at` came from the system.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes, 1);
        count(layout.size(), -1);
        // SAFETY: as above; `at` came from the system.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

/// What this thread holds more than it did, and the most that it was.
struct Measured {
    before: isize,
}

impl Measured {
    fn begin() -> Self {
        PEAK.set(HELD.get());
        Self { before: HELD.get() }
    }

    fn held(&self) -> usize {
        usize::try_from(HELD.get() - self.before).expect("what was made is still there")
    }

    fn peak(&self) -> usize {
        usize::try_from(PEAK.get() - self.before).expect("a peak is not below the start")
    }

    /// Asserts both bounds. `tracks`: how many are held.
    fn hold(&self, what: &str, tracks: usize) {
        let (held, peak) = (self.held(), self.peak());
        println!("{what}: {tracks} tracks take {held} bytes, at most {peak}");
        assert!(held <= tracks * TRACK_MEMORY_MAX, "{what}: {held} bytes for {tracks} tracks");
        assert!(peak * 100 <= held * PEAK_PERCENT_MAX, "{what}: {peak} bytes for a while, {held} in the end");
    }
}

fn id(dice: &mut Dice) -> TrackId {
    let mut bytes = [0; 32];
    bytes.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&dice.number().to_le_bytes()));
    TrackId::from_bytes(bytes)
}

#[test]
fn an_index_that_grows_stays_within_its_bytes_a_track_all_the_way() {
    let mut dice = Dice::new(7);
    let measured = Measured::begin();
    let mut index = Index::default();
    for number in 1..=1_000_000_u64 {
        let slot = Slot { address: number * 2, track_bytes: 64, header_blocks: 1, kind: EntryKind::Track };
        index.insert_track(&id(&mut dice), slot, 2 * BLOCK_BYTES);
        let tracks = usize::try_from(number).expect("fits");
        if tracks >= 300_000 && tracks.is_multiple_of(1000) {
            let held = measured.held();
            assert!(held <= tracks * TRACK_MEMORY_MAX, "{held} bytes for {tracks} tracks");
        }
        if [300_000, 1_000_000].contains(&tracks) {
            measured.hold("growth", tracks);
        }
    }
}

/// How many records a listing has.
const LISTED_EACH: usize = 1260;
/// What the record of a small track takes: its header and one frame.
const RECORD_BLOCKS: u64 = 2;

fn small_track(id: TrackId, offset: u64) -> Listed {
    let (header_bytes, track_bytes) = (4096, 64);
    let payload_bytes = track_bytes;
    Listed { kind: Kind::Track, id, offset, header_bytes, track_bytes, payload_bytes, compressed: false }
}

/// A segment that small tracks have filled, and what a start reads of it: its header, and the listings of its records.
struct Filled {
    number: u64,
    generation: u64,
    /// Where listings may stand.
    tail: u64,
    listings: Vec<(u64, Vec<u8>)>,
    parts: Vec<Part>,
}

impl Filled {
    /// `tail`: where the records end.
    fn new(number: u64, tail: u64, dice: &mut Dice) -> Self {
        Self { number, generation: dice.number(), tail, listings: Vec::new(), parts: Vec::new() }
    }

    fn list(&mut self, role: Role, parts: Vec<Part>, records: Vec<Listed>) {
        let (number, generation, offset) = (self.number, self.generation, self.tail);
        let (scanned_to, sequence_max, synced_sequence) = (u64::MAX, 1, 1);
        let listing =
            Listing { role, number, generation, offset, scanned_to, sequence_max, synced_sequence, parts, records };
        let bytes = listing.encode();
        self.parts.push(Part { offset, bytes: u32::try_from(bytes.len()).expect("small") });
        self.tail += bytes.len() as u64;
        self.listings.push((offset, bytes));
    }

    /// Lists the records, all in parts but for the last ones, which the footer has. Without a footer, a start walks it.
    fn seal(&mut self, records: Vec<Listed>) {
        let mut groups = records.chunks(LISTED_EACH).map(<[_]>::to_vec).peekable();
        while let Some(group) = groups.next() {
            if groups.peek().is_some() {
                self.list(Role::Part, Vec::new(), group);
            } else {
                let (parts, footer_at) = (std::mem::take(&mut self.parts), self.tail);
                self.list(Role::Footer, parts, group);
                self.tail = footer_at;
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.tail + u64::from(Self::footer_bytes())
    }

    fn footer_bytes() -> u32 {
        footer_bytes_for(1024 * MIB)
    }

    fn header(&self) -> Vec<u8> {
        let (volume, number, generation) = (config(MIB).expected.volume, self.number, self.generation);
        let (bytes, footer_bytes) = (self.bytes(), Self::footer_bytes());
        let mut block = vec![0; BLOCK];
        SegmentHeader { volume, number, generation, bytes, shard: 0, shards: 1, footer_bytes }.encode(&mut block);
        block
    }

    /// Puts it on the drive: its header, its listings and these `blocks`, with holes between.
    async fn write(self, host: &SimHost, blocks: impl Iterator<Item = (u64, Vec<u8>)>) {
        let directory = segments_of(Path::new(DIRECTORY));
        let file = host.open(&path_of(&directory, self.number), Access::Create).await.expect("makes");
        file.preallocate(self.bytes()).await.expect("takes space");
        for (offset, bytes) in [(0, self.header())].into_iter().chain(self.listings).chain(blocks) {
            let mut buffer = host.buffer(bytes.len());
            buffer.copy_from_slice(&bytes);
            file.write_at(offset, buffer).await.expect("writes");
        }
        file.fdatasync().await.expect("flushes");
        host.sync_directory(&directory).await.expect("flushes");
    }
}

/// The records of a start's segments that are full, whose data it only asks the file system for, are all the same one
/// here, so that they fit into memory.
async fn write_full(host: &SimHost, number: u64, tracks: usize, dice: &mut Dice) {
    let mut segment = Filled::new(number, BLOCK_BYTES * (1 + RECORD_BLOCKS), dice);
    segment.seal((0..tracks).map(|_| small_track(id(dice), BLOCK_BYTES)).collect());
    segment.write(host, [(BLOCK_BYTES, vec![1; 2 * BLOCK])].into_iter()).await;
}

fn places(tracks: usize) -> impl Iterator<Item = u64> {
    (0..tracks as u64).map(|index| BLOCK_BYTES * (1 + RECORD_BLOCKS * index))
}

/// Every second of its records was deleted. Of the others just the headers are there: the rest tells a start nothing.
async fn write_half_deleted(host: &SimHost, number: u64, tracks: usize, dice: &mut Dice) {
    let mut segment = Filled::new(number, BLOCK_BYTES * (1 + RECORD_BLOCKS * tracks as u64), dice);
    segment.seal(places(tracks).map(|offset| small_track(id(dice), offset)).collect());
    segment.write(host, places(tracks).step_by(2).map(|offset| (offset, vec![1; BLOCK]))).await;
}

/// Every second of its records was deleted, and nothing lists them.
async fn write_walked(host: &SimHost, number: u64, tracks: usize, dice: &mut Dice) {
    let segment = Filled::new(number, BLOCK_BYTES * (1 + RECORD_BLOCKS * tracks as u64), dice);
    let generation = segment.generation;
    let records = places(tracks).step_by(2).zip(1..).map(|(offset, sequence)| {
        let header = RecordHeader {
            kind: Kind::Track,
            id: id(dice),
            track_bytes: 64,
            generation,
            offset,
            sequence,
            synced_sequence: sequence - 1,
            takedown: 0,
            nonce: 0,
            tags: TagBytes::default(),
            pieces: vec![[0; 32]],
            piece_ends: Vec::new(),
            filter: Filter::None,
        };
        let mut record = vec![0; 2 * BLOCK];
        let (block, frame) = record.split_at_mut(BLOCK);
        header.encode(block);
        FrameStamp { id: header.id.half(), generation, nonce: Some(0) }.seal(frame, 0, 64);
        (offset, record)
    });
    segment.write(host, records).await;
}

#[test]
fn a_start_takes_little_more_for_a_while_than_the_index_that_it_makes() {
    const FULL: usize = 8;
    const FULL_TRACKS: usize = 125_000;
    // Two maps of holes as large as any that a start asks for at once of a sealed segment.
    const HALF_DELETED_TRACKS: usize = 40_000;
    const WALKED_TRACKS: usize = 16_000;
    const TRACKS: usize = FULL * FULL_TRACKS + (HALF_DELETED_TRACKS + WALKED_TRACKS) / 2;
    let mut disk = formatted(SimSettings { capacity_bytes: 4096 * MIB, ..SimSettings::new(1) });
    let life = disk.run(|host| async move {
        let mut dice = Dice::new(8);
        for number in 0..FULL as u64 {
            write_full(&host, number, FULL_TRACKS, &mut dice).await;
        }
        write_half_deleted(&host, FULL as u64, HALF_DELETED_TRACKS, &mut dice).await;
        write_walked(&host, FULL as u64 + 1, WALKED_TRACKS, &mut dice).await;
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
    let life = disk.run(|host| async move {
        let measured = Measured::begin();
        let (volume, recovery) = Volume::open(host, config(MIB)).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.sealed, recovery.damaged), (TRACKS as u64, FULL as u64 + 1, 0));
        assert!(recovery.bytes_walked > 0 && recovery.torn == 0, "{recovery:?}");
        measured.hold("start", TRACKS);
        drop(volume);
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
}
