//! The hot cache: chunks of tracks in memory, ignorant of HTTP and of where chunks come from.
//!
//! **Promises.** A chunk is fetched once, however many ask for it ([`Chunk::Fill`] is given to one caller at a time,
//! the others [`Chunk::Wait`]) and is readable up to where its filler has published it. Bytes that were handed out stay
//! as they are for as long as any [`Bytes`](bytes::Bytes) of them lives: a slot is reused only after the last one is
//! dropped. After [`Cache::remove_track`] returns no later call sees that track's old chunks, not even those that were
//! being filled. A hit takes one short lock and copies nothing.
//!
//! Memory is one anonymous mapping cut into [`CHUNK_BYTES`] slots, made at start, never grown, truncated or unmapped
//! while a chunk of it is held. Where every slot that could be taken is being read, the answer is [`Chunk::Bypass`]:
//! serve without the cache.
//!
//! Start with [`Cache::chunk`]; `policy.rs` decides what stays (S3-FIFO), `arena.rs` owns the memory and holds all
//! unsafe code, `entry.rs` is the life of one chunk.
//!
//! Absent on purpose: proving bytes (whoever fills proves before it publishes), expiry (tracks are immutable), and, for
//! now, a warm restart: the arena is memory of this process, so a restarted cache begins empty.

mod arena;
mod cache;
mod entry;
mod policy;
#[cfg(test)]
mod stress;

pub use cache::{Cache, CacheConfig, Chunk, ChunkKey, Stats};
pub use entry::{ChunkBytes, FillPermit, Removed, Stretch, Waiter};

/// The bytes of a slot and of every chunk but a track's last: two pieces, so a chunk is proved without its neighbours.
pub const CHUNK_BYTES: usize = 512 * 1024;

const _: () = assert!(CHUNK_BYTES as u64 == 2 * deadwax_track::PIECE_BYTES);
