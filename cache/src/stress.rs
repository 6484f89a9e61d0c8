//! Many threads at once on a cache that is too small for them: every byte read is the byte that belongs there, and a
//! removed track never comes back. Schedules differ from run to run; the seeds of what is asked for do not.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use bytes::Bytes;
use deadwax_track::TrackId;

use crate::{CHUNK_BYTES, Cache, CacheConfig, Chunk, ChunkKey, FillPermit, Stretch};

const THREADS: u64 = 4;
const ROUNDS: u64 = 4_000;
const TRACKS: u64 = 12;
const CHUNKS: u32 = 4;
const SLOTS: u64 = 24;

/// A small generator (xorshift64*, Vigna 2016): the test's only randomness.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// The word that repeats through a chunk: its key and the track's version (removals so far).
fn word(track: u64, version: u32, index: u32) -> [u8; 8] {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(track, version, index), &mut hasher);
    std::hash::Hasher::finish(&hasher).to_le_bytes()
}

fn chunk_bytes(index: u32) -> usize {
    // The last chunk is short; the others are kept short enough for a test to check every byte of.
    if index == CHUNKS - 1 { 4096 + 8 } else { 32 * 1024 }
}

struct World {
    cache: Cache,
    /// What a fetch of the track gives now.
    versions: Vec<AtomicU32>,
    /// The oldest version that a read which begins now may still see: removals that are over.
    oldest: Vec<AtomicU32>,
    served: AtomicU64,
}

impl World {
    fn key(track: u64, index: u32) -> ChunkKey {
        ChunkKey { id: TrackId::of(&track.to_le_bytes()), index }
    }

    /// Fills a chunk in stretches; sometimes gives up, fails, or writes rubbish and takes it back.
    fn fill(&self, track: u64, mut permit: FillPermit, random: &mut Random) {
        // As in a gateway: what a fill fetches is no newer than its permit.
        let version = self.versions[usize::try_from(track).expect("small")].load(Ordering::SeqCst);
        let index = permit.key().index;
        let word = word(track, version, index);
        if permit.written() > 0 {
            // What is there may be of this version only: a removal would have ended the entry.
            return permit.fail();
        }
        while permit.written() < permit.len() {
            match random.next(40) {
                0 => return,
                1 => return permit.fail(),
                2 => {
                    let room = permit.len() - permit.written();
                    permit.write(&vec![0xee; room.min(999)]);
                    permit.rewind();
                }
                _ => {}
            }
            let stretch = (permit.len() - permit.written()).min(8 * 1024);
            permit.write(&word.repeat(stretch / 8));
            if permit.publish().is_err() {
                return;
            }
        }
    }

    /// Each byte must be of the chunk, and of a version no older than the track had when the read began.
    fn check(&self, track: u64, index: u32, oldest: u32, bytes: &[u8]) {
        let newest = self.versions[usize::try_from(track).expect("small")].load(Ordering::SeqCst);
        let version = (oldest..=newest).find(|&version| bytes.starts_with(&word(track, version, index)));
        let version = version.unwrap_or_else(|| panic!("track {track} chunk {index}: none of {oldest}..={newest}"));
        let word = word(track, version, index);
        assert!(bytes.chunks(8).all(|part| part == word), "track {track} chunk {index} is mixed");
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, runtime: &tokio::runtime::Runtime, random: &mut Random, held: &mut Vec<Held>) {
        let track = random.next(TRACKS).min(random.next(TRACKS));
        let index = u32::try_from(random.next(u64::from(CHUNKS))).expect("small");
        let oldest = self.oldest[usize::try_from(track).expect("small")].load(Ordering::SeqCst);
        let bytes = chunk_bytes(index);
        match self.cache.chunk(Self::key(track, index), bytes) {
            Chunk::Hit(chunk) => {
                let bytes = chunk.bytes(0..chunk.len());
                self.check(track, index, oldest, &bytes);
                held.push(Held { track, index, oldest, bytes });
            }
            Chunk::Fill(permit) => self.fill(track, permit, random),
            Chunk::Wait(waiter) => match runtime.block_on(waiter.read(0)) {
                Stretch::Bytes(bytes) => self.check(track, index, oldest, &bytes),
                Stretch::Promoted(permit) => self.fill(track, permit, random),
                Stretch::Failed => {}
            },
            Chunk::Bypass => held.clear(),
        }
        if held.len() > 3 {
            // Held across evictions and removals: still the bytes they were.
            let Held { track, index, oldest, bytes } = held.remove(0);
            self.check(track, index, oldest, &bytes);
        }
    }

    fn remove(&self, track: u64) {
        // The order of a takedown: first the holders have the new state, then the cache is emptied.
        let number = usize::try_from(track).expect("small");
        let version = self.versions[number].fetch_add(1, Ordering::SeqCst) + 1;
        self.cache.remove_track(&Self::key(track, 0).id);
        self.oldest[number].fetch_max(version, Ordering::SeqCst);
    }
}

struct Held {
    track: u64,
    index: u32,
    oldest: u32,
    bytes: Bytes,
}

#[test]
fn threads_that_fill_read_evict_and_remove_see_only_right_bytes() {
    let cache = Cache::new(CacheConfig { bytes: SLOTS * CHUNK_BYTES as u64 }).expect("memory");
    let zeros = || (0..TRACKS).map(|_| AtomicU32::new(0)).collect();
    let world = Arc::new(World { cache, versions: zeros(), oldest: zeros(), served: AtomicU64::new(0) });
    let start = Arc::new(Barrier::new(usize::try_from(THREADS).expect("small")));
    let threads = (0..THREADS).map(|number| {
        let (world, start) = (Arc::clone(&world), Arc::clone(&start));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
            let mut held = Vec::new();
            start.wait();
            for _ in 0..ROUNDS {
                if random.next(200) == 0 {
                    world.remove(random.next(TRACKS));
                }
                world.read(&runtime, &mut random, &mut held);
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no thread found a wrong byte"));
    let stats = world.cache.stats();
    assert!(world.served.load(Ordering::Relaxed) > ROUNDS / 2, "{stats:?}");
    assert!(stats.evictions > 100 && stats.hits > 100, "{stats:?}");
    // Everything is given back: all slots can be filled at once.
    for track in 0..TRACKS {
        world.cache.remove_track(&World::key(track, 0).id);
    }
    let permits: Vec<_> = (0..SLOTS).filter_map(|n| world.cache.fill_ahead(World::key(1_000 + n, 0), 1)).collect();
    assert_eq!(permits.len() as u64, SLOTS);
}
