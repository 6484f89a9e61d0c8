//! What the index takes of the heap, and how much more while it grows and while a start makes it anew: counted by the
//! allocator, not reckoned. This file has unsafe code.
//!
//! The allocator counts for all of the crate's unit tests, each thread for itself, so that what other tests do meanwhile
//! changes nothing. A block counts with what glibc's malloc sets aside for it, and one that is resized counts twice while
//! its bytes may be copied: more than it ever takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use crate::format::{BLOCK, BLOCK_BYTES, Kind, Listed, Listing, Part, Role, SegmentHeader, footer_bytes_for};
use crate::index::Index;
use crate::segment::path_of;
use crate::sim::lives::{DIRECTORY, config, formatted};
use crate::sim::{Dice, Life, SimDisk, SimSettings, segments_of};
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

/// Of a segment of 1 GiB that small tracks have filled, what a start reads: its header, and the listings of its records. The
/// records themselves, which it only asks the file system for, are all the same one here, so that they fit into memory.
fn install_segment(disk: &mut SimDisk, number: u64, tracks: usize, dice: &mut Dice) {
    const LISTED_EACH: usize = 1260;
    let (parts_count, generation) = (tracks.div_ceil(LISTED_EACH), dice.number());
    let mut records = (0..tracks).map(|_| Listed {
        kind: Kind::Track,
        id: id(dice),
        offset: BLOCK_BYTES,
        header_bytes: 4096,
        track_bytes: 64,
        payload_bytes: 64,
        compressed: false,
    });
    let listing = |role, offset, parts, records| Listing {
        role,
        number,
        generation,
        offset,
        scanned_to: u64::MAX,
        sequence_max: tracks as u64,
        synced_sequence: tracks as u64,
        parts,
        records,
    };
    // Its header, and the record's two blocks.
    let mut bytes = vec![1; 3 * BLOCK];
    let mut parts = Vec::new();
    for _ in 1..parts_count {
        let offset = bytes.len() as u64;
        let part = listing(Role::Part, offset, Vec::new(), records.by_ref().take(LISTED_EACH).collect()).encode();
        parts.push(Part { offset, bytes: u32::try_from(part.len()).expect("small") });
        bytes.extend(part);
    }
    let (footer_at, footer_bytes) = (bytes.len(), footer_bytes_for(1024 * MIB));
    bytes.extend(listing(Role::Footer, footer_at as u64, parts, records.collect()).encode());
    bytes.resize(footer_at + footer_bytes as usize, 0);
    let volume = config(MIB).expected.volume;
    let header =
        SegmentHeader { volume, number, generation, bytes: bytes.len() as u64, shard: 0, shards: 1, footer_bytes };
    header.encode(&mut bytes[..BLOCK]);
    disk.install(&path_of(&segments_of(Path::new(DIRECTORY)), number), &bytes);
}

#[test]
fn a_start_takes_little_more_for_a_while_than_the_index_that_it_makes() {
    const SEGMENT_TRACKS: usize = 125_000;
    let (mut disk, mut dice) = (formatted(SimSettings::new(1)), Dice::new(8));
    (0..8).for_each(|number| install_segment(&mut disk, number, SEGMENT_TRACKS, &mut dice));
    let life = disk.run(|host| async move {
        let measured = Measured::begin();
        let (volume, recovery) = Volume::open(host, config(MIB)).await.expect("opens");
        assert_eq!((recovery.tracks, recovery.sealed, recovery.damaged), (8 * SEGMENT_TRACKS as u64, 8, 0));
        measured.hold("start", 8 * SEGMENT_TRACKS);
        drop(volume);
    });
    assert!(matches!(life, Life::Ended(())), "{life:?}");
}
