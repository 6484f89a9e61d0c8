//! The cache itself: the index, split over shards, and the way a caller gets a chunk.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use deadwax_track::{TRACK_BYTES_MAX, TrackId};

use crate::CHUNK_BYTES;
use crate::arena::Arena;
use crate::entry::{ChunkBytes, Entry, FillPermit, Waiter};
use crate::policy::{Insert, S3Fifo};

/// How many locks the index is split over, at most.
const SHARDS_MAX: usize = 16;
/// A shard with fewer slots would evict by chance rather than by policy.
const SHARD_SLOTS_MIN: usize = 64;
/// The chunks of the largest track.
const TRACK_CHUNKS_MAX: u64 = TRACK_BYTES_MAX.div_ceil(CHUNK_BYTES as u64);

/// A chunk's name: bytes `index * CHUNK_BYTES` and following of track `id`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkKey {
    /// The track.
    pub id: TrackId,
    /// Which of its chunks, from 0.
    pub index: u32,
}

/// How a cache is made.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// Memory for chunks, rounded down to whole slots of [`CHUNK_BYTES`]. Less than one slot switches the cache
    /// off: every chunk is [`Chunk::Bypass`].
    pub bytes: u64,
}

/// What a caller gets for a chunk.
pub enum Chunk {
    /// It is here.
    Hit(ChunkBytes),
    /// It is not, and this caller is the one to fill it.
    Fill(FillPermit),
    /// Another caller fills it: read as that goes on.
    Wait(Waiter),
    /// It is not here and no slot can be had: serve it without the cache.
    Bypass,
}

/// What a cache has done since it was made, and holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Calls answered by a complete chunk.
    pub hits: u64,
    /// Calls that had to fill, or found no slot.
    pub misses: u64,
    /// Calls that joined another's fill.
    pub waits: u64,
    /// Calls that found no slot.
    pub bypasses: u64,
    /// Chunks given up for others.
    pub evictions: u64,
    /// Chunks in the cache, filling ones too.
    pub chunks: u64,
    /// Readable bytes of those chunks.
    pub bytes: u64,
    /// The slots there are.
    pub slots: u64,
}

/// The cache. A cheap handle: clones share one cache, from any thread.
#[derive(Clone)]
pub struct Cache {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    /// Never empty. Nothing but an entry's own lock is taken while one of these is held.
    shards: Box<[Mutex<Shard>]>,
    arena: Arc<Arena>,
}

struct Shard {
    index: S3Fifo<ChunkKey, Arc<Entry>>,
    stats: Stats,
}

impl Cache {
    /// A cache with nothing in it. Fails where the system will not map that much.
    pub fn new(config: CacheConfig) -> io::Result<Self> {
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, "a cache larger than memory can be");
        let slots = usize::try_from(config.bytes / CHUNK_BYTES as u64).map_err(too_large)?;
        let shards = (slots / SHARD_SLOTS_MIN).clamp(1, SHARDS_MAX);
        let counts: Vec<usize> = (0..shards).map(|n| slots / shards + usize::from(n < slots % shards)).collect();
        let arena = Arc::new(Arena::new(&counts)?);
        let shard = |slots: &usize| {
            let stats = Stats { slots: *slots as u64, ..Stats::default() };
            Mutex::new(Shard { index: S3Fifo::new(*slots), stats })
        };
        let shards = counts.iter().map(shard).collect();
        Ok(Self { shared: Arc::new(Shared { shards, arena }) })
    }

    /// The chunk `key`, which has `bytes` bytes, for someone who reads it now.
    ///
    /// # Panics
    /// If `bytes` is 0 or more than [`CHUNK_BYTES`].
    #[must_use]
    pub fn chunk(&self, key: ChunkKey, bytes: usize) -> Chunk {
        check(bytes);
        let number = self.shared.shard_of(&key);
        let mut shard = self.shared.lock(number);
        let Shard { index, stats } = &mut *shard;
        let Some(entry) = index.get(&key) else {
            stats.misses += 1;
            let Some(permit) = self.begin(number, &mut shard, key, bytes, Insert::Asked) else {
                shard.stats.bypasses += 1;
                return Chunk::Bypass;
            };
            return Chunk::Fill(permit);
        };
        if entry.bytes() != bytes {
            // The caller has the track's length wrong; whoever holds the track will say so.
            return Chunk::Bypass;
        }
        if let Some(chunk) = entry.complete() {
            stats.hits += 1;
            return Chunk::Hit(chunk);
        }
        if let Some(permit) = entry.adopt(&self.shared) {
            stats.misses += 1;
            return Chunk::Fill(permit);
        }
        stats.waits += 1;
        Chunk::Wait(Waiter::new(Arc::clone(entry), Arc::clone(&self.shared)))
    }

    /// The right to fill the chunk `key` before anyone asks for it, or nothing where it is here, being filled, or no
    /// slot can be had. Counts neither as a request nor as a miss.
    ///
    /// # Panics
    /// If `bytes` is 0 or more than [`CHUNK_BYTES`].
    #[must_use]
    pub fn fill_ahead(&self, key: ChunkKey, bytes: usize) -> Option<FillPermit> {
        check(bytes);
        let number = self.shared.shard_of(&key);
        let mut shard = self.shared.lock(number);
        if let Some(entry) = shard.index.peek(&key) {
            return if entry.bytes() == bytes { entry.adopt(&self.shared) } else { None };
        }
        self.begin(number, &mut shard, key, bytes, Insert::Ahead)
    }

    fn begin(&self, number: usize, shard: &mut Shard, key: ChunkKey, bytes: usize, why: Insert) -> Option<FillPermit> {
        let arena = &self.shared.arena;
        let mut slot = arena.take(number);
        if slot.is_none() {
            let (_, given_up) = shard.index.evict(Entry::is_pinned)?;
            shard.stats.evictions += 1;
            // Nobody else holds it, so this frees its slot, and no other thread takes from this shard meanwhile.
            drop(given_up);
            slot = arena.take(number);
        }
        let entry = Arc::new(Entry::new(key, bytes, slot?));
        let permit = entry.adopt(&self.shared);
        shard.index.insert(key, entry, why);
        permit
    }

    /// Takes every chunk of `id` out. No call that begins after this returned sees one of them, and those that are
    /// being filled are ended: their readers get [`Stretch::Failed`](crate::Stretch::Failed). Bytes handed out before
    /// stay readable.
    ///
    /// A fill that begins later is the caller's matter: call this after the holders of the track refuse it.
    pub fn remove_track(&self, id: &TrackId) {
        for index in 0..u32::try_from(TRACK_CHUNKS_MAX).expect("1,024") {
            let key = ChunkKey { id: *id, index };
            let removed = self.shared.lock(self.shared.shard_of(&key)).index.remove(&key);
            if let Some(entry) = removed {
                entry.kill();
            }
        }
    }

    /// Takes every chunk out, as [`remove_track`](Self::remove_track) does those of one track. Figures stay.
    pub fn clear(&self) {
        for number in 0..self.shared.shards.len() {
            let mut shard = self.shared.lock(number);
            let keys: Vec<ChunkKey> = shard.index.values().map(|entry| entry.key()).collect();
            let removed: Vec<Arc<Entry>> = keys.iter().filter_map(|key| shard.index.remove(key)).collect();
            drop(shard);
            removed.iter().for_each(|entry| entry.kill());
        }
    }

    /// Figures, summed over shards: each shard's are of one moment, the sum is not. Looks at every chunk.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for number in 0..self.shared.shards.len() {
            let shard = self.shared.lock(number);
            sum.hits += shard.stats.hits;
            sum.misses += shard.stats.misses;
            sum.waits += shard.stats.waits;
            sum.bypasses += shard.stats.bypasses;
            sum.evictions += shard.stats.evictions;
            sum.slots += shard.stats.slots;
            sum.chunks += shard.index.len() as u64;
            sum.bytes += shard.index.values().map(|entry| entry.published() as u64).sum::<u64>();
        }
        sum
    }
}

impl Shared {
    /// Ends a fill: out of the index, unless another entry has taken its place, and its waiters are told.
    pub(crate) fn forget(&self, entry: &Arc<Entry>) {
        let key = entry.key();
        let mut shard = self.lock(self.shard_of(&key));
        let removed = match shard.index.peek(&key) {
            Some(known) if Arc::ptr_eq(known, entry) => shard.index.remove(&key),
            _ => None,
        };
        drop(shard);
        drop(removed);
        entry.kill();
    }

    fn shard_of(&self, key: &ChunkKey) -> usize {
        // An id is a hash already. Its first bytes are what partitions are cut by, so others choose the shard; a
        // track's chunks go round the shards.
        let bytes = key.id.as_bytes();
        (usize::from(bytes[16]) + key.index as usize) % self.shards.len()
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, Shard> {
        self.shards[number].lock().expect("a panic under this lock broke the index: going on could serve wrong bytes")
    }
}

fn check(bytes: usize) {
    assert!((1..=CHUNK_BYTES).contains(&bytes), "a chunk has 1 to {CHUNK_BYTES} bytes, not {bytes}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Removed, Stretch};

    fn key(track: u8, index: u32) -> ChunkKey {
        ChunkKey { id: TrackId::of(&[track]), index }
    }

    fn cache(slots: usize) -> Cache {
        Cache::new(CacheConfig { bytes: (slots * CHUNK_BYTES) as u64 }).expect("memory")
    }

    fn permit(cache: &Cache, key: ChunkKey, bytes: usize) -> FillPermit {
        match cache.chunk(key, bytes) {
            Chunk::Fill(permit) => permit,
            _ => panic!("{key:?} is there already, or no slot is"),
        }
    }

    fn fill(cache: &Cache, key: ChunkKey, bytes: &[u8]) {
        let mut permit = permit(cache, key, bytes.len());
        permit.write(bytes);
        permit.publish().expect("not removed");
    }

    fn hit(cache: &Cache, key: ChunkKey, bytes: usize) -> Option<ChunkBytes> {
        match cache.chunk(key, bytes) {
            Chunk::Hit(chunk) => Some(chunk),
            _ => None,
        }
    }

    fn waiter(cache: &Cache, key: ChunkKey, bytes: usize) -> Waiter {
        match cache.chunk(key, bytes) {
            Chunk::Wait(waiter) => waiter,
            _ => panic!("{key:?} is not being filled"),
        }
    }

    #[tokio::test]
    async fn one_fills_and_the_others_read_as_it_goes_on() {
        let cache = cache(4);
        let mut permit = permit(&cache, key(1, 0), 6);
        let waiter = waiter(&cache, key(1, 0), 6);
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            while got.len() < waiter.len() {
                match waiter.read(got.len()).await {
                    Stretch::Bytes(bytes) => got.extend_from_slice(&bytes),
                    Stretch::Promoted(_) | Stretch::Failed => panic!("the filler is at work"),
                }
            }
            got
        });
        for part in [b"abc", b"def"] {
            permit.write(part);
            permit.publish().expect("not removed");
            tokio::task::yield_now().await;
        }
        assert_eq!(reading.await.expect("no panic"), b"abcdef");
        assert_eq!(hit(&cache, key(1, 0), 6).expect("complete").bytes(2..4), "cd");
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.waits, stats.bytes), (1, 1, 1, 6));
    }

    #[tokio::test]
    async fn a_filler_that_goes_away_leaves_its_work_to_a_waiter() {
        let cache = cache(4);
        let mut permit = permit(&cache, key(1, 0), 6);
        let waiter = waiter(&cache, key(1, 0), 6);
        permit.write(b"abc");
        permit.publish().expect("not removed");
        permit.write(b"zz");
        let promoted = tokio::spawn(async move {
            match waiter.read(3).await {
                Stretch::Promoted(permit) => permit,
                _ => panic!("nothing follows byte 3"),
            }
        });
        tokio::task::yield_now().await;
        drop(permit);
        let mut permit = promoted.await.expect("no panic");
        assert_eq!(permit.written(), 3);
        permit.write(b"def");
        assert_eq!(permit.unpublished(), b"def");
        permit.publish().expect("not removed");
        assert_eq!(hit(&cache, key(1, 0), 6).expect("complete").bytes(0..6), "abcdef");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_and_the_next_caller_begins_anew() {
        let cache = cache(4);
        let permit = permit(&cache, key(1, 0), 6);
        let waiters = [waiter(&cache, key(1, 0), 6), waiter(&cache, key(1, 0), 6)];
        permit.fail();
        for waiter in waiters {
            assert!(matches!(waiter.read(0).await, Stretch::Failed));
        }
        fill(&cache, key(1, 0), b"abcdef");
        assert!(hit(&cache, key(1, 0), 6).is_some());
    }

    #[tokio::test]
    async fn a_removed_track_is_gone_and_its_fills_never_show() {
        let cache = cache(8);
        fill(&cache, key(1, 0), b"old");
        fill(&cache, key(2, 0), b"other");
        let held = hit(&cache, key(1, 0), 3).expect("complete").bytes(0..3);
        let mut filling = permit(&cache, key(1, 1), 6);
        filling.write(b"abc");
        filling.publish().expect("not removed yet");
        let waiter = waiter(&cache, key(1, 1), 6);
        cache.remove_track(&key(1, 0).id);
        filling.write(b"def");
        assert_eq!(filling.publish(), Err(Removed));
        assert!(matches!(waiter.read(0).await, Stretch::Failed));
        // A new fill of the same chunk is another entry, which the end of the old one leaves alone.
        let again = permit(&cache, key(1, 1), 6);
        filling.fail();
        drop(waiter);
        assert!(matches!(cache.chunk(key(1, 1), 6), Chunk::Wait(_)));
        drop(again);
        drop(permit(&cache, key(1, 0), 3));
        assert!(hit(&cache, key(2, 0), 5).is_some());
        assert_eq!(held, "old");
    }

    #[tokio::test]
    async fn a_cleared_cache_has_nothing_and_fills_never_show() {
        let cache = cache(8);
        fill(&cache, key(1, 0), b"old");
        fill(&cache, key(2, 0), b"other");
        let held = hit(&cache, key(1, 0), 3).expect("complete").bytes(0..3);
        let mut filling = permit(&cache, key(3, 0), 6);
        let waiter = waiter(&cache, key(3, 0), 6);
        cache.clear();
        filling.write(b"abcdef");
        assert_eq!(filling.publish(), Err(Removed));
        assert!(matches!(waiter.read(0).await, Stretch::Failed));
        assert_eq!(cache.stats().chunks, 0);
        fill(&cache, key(1, 0), b"new");
        assert!(hit(&cache, key(1, 0), 3).is_some_and(|chunk| chunk.bytes(0..3) == "new"));
        assert_eq!(held, "old");
    }

    #[test]
    fn a_cache_of_pins_is_bypassed_and_serves_again_later() {
        let cache = cache(2);
        fill(&cache, key(1, 0), b"a");
        fill(&cache, key(1, 1), b"b");
        let held = [0, 1].map(|index| hit(&cache, key(1, index), 1).expect("complete").bytes(0..1));
        assert!(matches!(cache.chunk(key(2, 0), 1), Chunk::Bypass));
        assert!(cache.fill_ahead(key(2, 0), 1).is_none());
        drop(held);
        fill(&cache, key(2, 0), b"c");
        assert_eq!(cache.stats().evictions, 1);
        assert_eq!(cache.stats().chunks, 2);
    }

    #[test]
    fn what_is_filled_ahead_is_filled_once() {
        let cache = cache(2);
        let ahead = cache.fill_ahead(key(1, 0), 4).expect("nobody fills it");
        assert!(cache.fill_ahead(key(1, 0), 4).is_none());
        assert!(matches!(cache.chunk(key(1, 0), 4), Chunk::Wait(_)));
        drop(ahead);
        assert!(matches!(cache.chunk(key(1, 0), 4), Chunk::Fill(_)));
    }

    #[test]
    fn a_cache_of_no_slots_is_off() {
        let cache = cache(0);
        assert!(matches!(cache.chunk(key(1, 0), 1), Chunk::Bypass));
        assert!(cache.fill_ahead(key(1, 0), 1).is_none());
        cache.remove_track(&key(1, 0).id);
        assert!(Cache::new(CacheConfig { bytes: u64::MAX }).is_err());
    }

    #[test]
    fn a_chunk_of_another_length_is_not_mixed_in() {
        let cache = cache(2);
        fill(&cache, key(1, 0), b"abc");
        assert!(matches!(cache.chunk(key(1, 0), 2), Chunk::Bypass));
    }
}
