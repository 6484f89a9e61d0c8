//! The memory: one anonymous mapping cut into slots. All unsafe code of the crate is here.
//!
//! Why it is sound, in whole. A slot number is in exactly one place: in its shard's free list, or in one [`Slot`]
//! value, which puts it back when its last `Arc` is dropped. So two `Slot`s never share memory. Within one slot, bytes
//! below `published` are only read and bytes from `published` on are only touched by the one [`SlotWriter`] that
//! `writer_taken` admits; `published` only grows, and only the writer moves it, with `Release`, after the bytes below
//! it are written; readers load it with `Acquire`. The mapping outlives every slot: each holds the arena.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapMut, MmapOptions};

use crate::CHUNK_BYTES;

/// Huge pages are 2 MiB on the machines this serves; slots are aligned so that four share one.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The mapping and what of it is free.
pub(crate) struct Arena {
    /// Start of slot 0, aligned to a huge page, inside `_mapping`.
    base: NonNull<u8>,
    /// Owns the memory; never touched through this field once `base` is taken.
    _mapping: MmapMut,
    /// Free slot numbers by shard. A leaf lock: nothing else is locked while one is held.
    free: Box<[Mutex<Vec<u32>>]>,
}

// SAFETY: `base` is the only field that is not Send and Sync by itself. It points into `_mapping`, which moves with it
// and may be used from any thread; who may touch which bytes is argued at the top of the file.
unsafe impl Send for Arena {}
// SAFETY: as above; a shared `Arena` alone gives no access to bytes, `Slot` and `SlotWriter` do.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena with `slots[n]` slots for shard `n`. Memory is taken from the system on first touch.
    pub(crate) fn new(slots: &[usize]) -> io::Result<Self> {
        let total: usize = slots.iter().sum();
        let too_large =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("a cache of {total} slots is too large"));
        let bytes = total.checked_mul(CHUNK_BYTES).and_then(|bytes| bytes.checked_add(HUGE_PAGE_BYTES));
        u32::try_from(total).map_err(|_| too_large())?;
        let mut mapping = MmapOptions::new().len(bytes.ok_or_else(too_large)?).map_anon()?;
        // A refusal costs speed, not correctness: kernels without transparent huge pages still serve.
        let _ = mapping.advise(Advice::HugePage);
        let start = mapping.as_mut_ptr();
        let skip = start.align_offset(HUGE_PAGE_BYTES);
        assert!(skip < HUGE_PAGE_BYTES, "a byte pointer can be aligned, got offset {skip}");
        // SAFETY: `skip` is below the huge page that was mapped beyond the slots, so the result is inside the mapping.
        let base = NonNull::new(unsafe { start.add(skip) }).expect("a mapping is not at address 0");
        let mut next = 0;
        let free = slots.iter().map(|&count| {
            let first = next;
            next += u32::try_from(count).expect("the total fits");
            // Reversed so that low slots are used first: a cache that never fills touches few huge pages.
            Mutex::new((first..next).rev().collect())
        });
        let free = free.collect();
        Ok(Self { base, _mapping: mapping, free })
    }

    /// Takes a free slot of `shard`, if there is one.
    pub(crate) fn take(self: &Arc<Self>, shard: usize) -> Option<Arc<Slot>> {
        let number = self.free_of(shard).pop()?;
        Some(Arc::new(Slot {
            arena: Arc::clone(self),
            shard,
            number,
            published: AtomicUsize::new(0),
            writer_taken: AtomicBool::new(false),
        }))
    }

    fn free_of(&self, shard: usize) -> MutexGuard<'_, Vec<u32>> {
        // A push or pop leaves the list whole even where a thread panicked.
        self.free[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One slot while it is in use. Shared by the index, the writer and everyone who holds bytes of it; free again after
/// the last of them.
pub(crate) struct Slot {
    arena: Arc<Arena>,
    shard: usize,
    number: u32,
    /// Bytes below this are final and readable.
    published: AtomicUsize,
    /// Guards against two writers.
    writer_taken: AtomicBool,
}

impl Slot {
    /// How many bytes, from the slot's start, can be read.
    pub(crate) fn published(&self) -> usize {
        self.published.load(Ordering::Acquire)
    }

    /// The right to write, if nobody has it.
    pub(crate) fn writer(self: &Arc<Self>) -> Option<SlotWriter> {
        let taken = self.writer_taken.swap(true, Ordering::Acquire);
        // What an earlier writer wrote and did not publish is written again.
        (!taken).then(|| SlotWriter { slot: Arc::clone(self), written: self.published() })
    }

    /// The bytes of `range`, which must be published. They hold the slot until they are dropped.
    pub(crate) fn bytes(self: &Arc<Self>, range: Range<usize>) -> Bytes {
        let published = self.published();
        assert!(range.start <= range.end && range.end <= published, "{range:?} of {published} published bytes");
        Bytes::from_owner(Pinned { slot: Arc::clone(self), range })
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: slot numbers are below the total, and the mapping holds that many slots from `base` on.
        unsafe { self.arena.base.add(self.number as usize * CHUNK_BYTES) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.arena.free_of(self.shard).push(self.number);
    }
}

/// What a handed-out [`Bytes`] owns: its slot, and which part of it.
struct Pinned {
    slot: Arc<Slot>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Slot::bytes` checked that the range is published, so nobody writes it again while the slot is in
        // use, which it is while `self` holds it; bytes below `published` were written, so they are initialised.
        unsafe { std::slice::from_raw_parts(self.slot.start().as_ptr().add(self.range.start), self.range.len()) }
    }
}

/// The one writer of a slot.
pub(crate) struct SlotWriter {
    slot: Arc<Slot>,
    written: usize,
}

impl SlotWriter {
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Copies `bytes` behind those written so far. Not readable before they are published.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let room = CHUNK_BYTES - self.written;
        assert!(bytes.len() <= room, "{} bytes into {room}", bytes.len());
        // SAFETY: the target is inside this slot (asserted) and at or above `published`, where only this writer is;
        // `bytes` is a live borrow of other memory: no reference to unpublished bytes outlives `&mut self`.
        unsafe {
            let to = self.slot.start().as_ptr().add(self.written);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        self.written += bytes.len();
    }

    /// The bytes that are written and not published: what is to be proved.
    pub(crate) fn unpublished(&self) -> &[u8] {
        let published = self.slot.published();
        // SAFETY: these bytes were written by this writer (`written` starts at `published`), and nobody can write
        // while `self` is borrowed: writing needs `&mut self`, and this is the slot's one writer.
        unsafe { std::slice::from_raw_parts(self.slot.start().as_ptr().add(published), self.written - published) }
    }

    /// Forgets what is not published, to write it again.
    pub(crate) fn rewind(&mut self) {
        self.written = self.slot.published();
    }

    /// Makes all that is written readable.
    pub(crate) fn publish(&mut self) {
        self.slot.published.store(self.written, Ordering::Release);
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        self.slot.writer_taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_only_after_its_last_bytes() {
        let arena = Arc::new(Arena::new(&[1]).expect("memory"));
        let slot = arena.take(0).expect("free");
        let mut writer = slot.writer().expect("first");
        assert!(slot.writer().is_none());
        writer.write(b"needle");
        writer.publish();
        let bytes = slot.bytes(0..6);
        let part = bytes.slice(1..3);
        drop((writer, slot, bytes));
        assert!(arena.take(0).is_none());
        assert_eq!(&part[..], b"ee");
        drop(part);
        assert!(arena.take(0).is_some());
    }

    #[test]
    fn a_second_writer_starts_at_what_is_published() {
        let arena = Arc::new(Arena::new(&[0, 2]).expect("memory"));
        assert!(arena.take(0).is_none());
        let slot = arena.take(1).expect("free");
        let mut first = slot.writer().expect("first");
        first.write(b"abc");
        first.publish();
        first.write(b"wrong");
        assert_eq!(first.unpublished(), b"wrong");
        drop(first);
        let mut second = slot.writer().expect("the first is gone");
        assert_eq!(second.written(), 3);
        second.write(b"d");
        second.rewind();
        second.write(b"def");
        second.publish();
        assert_eq!(slot.bytes(0..6), "abcdef");
    }

    #[test]
    #[should_panic(expected = "0..1 of 0 published bytes")]
    fn unpublished_bytes_are_not_handed_out() {
        let arena = Arc::new(Arena::new(&[1]).expect("memory"));
        let slot = arena.take(0).expect("free");
        drop(slot.bytes(0..1));
    }
}
