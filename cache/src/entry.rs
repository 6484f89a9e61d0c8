//! The life of one chunk: being filled, complete, or given up; who fills it and who waits.
//!
//! A chunk has at most one filler. A filler that is dropped half-way leaves the chunk *orphaned* with what it had
//! published: the first waiter to look, or the next caller, becomes the filler and goes on from there. A filler that
//! *fails* says so to everyone who waits, so that no queue of waiters repeats a failure one after the other.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::ChunkKey;
use crate::arena::{Slot, SlotWriter};
use crate::cache::Shared;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A filler is at work, or the chunk is complete.
    Owned,
    /// The filler went away.
    Orphaned,
    /// The filler failed or the track was removed: out of the index, never published further.
    Dead,
}

struct Progress {
    phase: Phase,
    wakers: Vec<Waker>,
}

/// One chunk in the cache.
pub(crate) struct Entry {
    key: ChunkKey,
    bytes: usize,
    slot: Arc<Slot>,
    progress: Mutex<Progress>,
}

impl Entry {
    /// An entry that has no filler yet.
    pub(crate) fn new(key: ChunkKey, bytes: usize, slot: Arc<Slot>) -> Self {
        Self { key, bytes, slot, progress: Mutex::new(Progress { phase: Phase::Orphaned, wakers: Vec::new() }) }
    }

    pub(crate) fn key(&self) -> ChunkKey {
        self.key
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn published(&self) -> usize {
        self.slot.published()
    }

    /// Someone besides the index holds the entry or bytes of it. The caller holds the index: nobody else can begin to.
    pub(crate) fn is_pinned(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1 || Arc::strong_count(&self.slot) > 1
    }

    /// The whole chunk, if it is complete.
    pub(crate) fn complete(&self) -> Option<ChunkBytes> {
        (self.published() == self.bytes).then(|| ChunkBytes { slot: Arc::clone(&self.slot), bytes: self.bytes })
    }

    /// The right to fill the entry, if it is orphaned.
    pub(crate) fn adopt(self: &Arc<Self>, cache: &Arc<Shared>) -> Option<FillPermit> {
        let mut progress = self.progress();
        self.adopt_locked(&mut progress, cache)
    }

    fn adopt_locked(self: &Arc<Self>, progress: &mut Progress, cache: &Arc<Shared>) -> Option<FillPermit> {
        if progress.phase != Phase::Orphaned || self.published() == self.bytes {
            return None;
        }
        // A filler gives its writer back before it calls itself gone, so an orphan always has its writer free.
        let writer = self.slot.writer().expect("an orphan has no writer");
        progress.phase = Phase::Owned;
        Some(FillPermit { entry: Arc::clone(self), writer: Some(writer), cache: Arc::clone(cache) })
    }

    /// Ends the entry: nothing more is published and those who wait are told. The index drops it.
    pub(crate) fn kill(&self) {
        let mut progress = self.progress();
        progress.phase = Phase::Dead;
        wake_all(progress);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change below is one assignment, so a panic elsewhere leaves it whole.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake_all(mut progress: MutexGuard<'_, Progress>) {
    let wakers = std::mem::take(&mut progress.wakers);
    drop(progress);
    wakers.into_iter().for_each(Waker::wake);
}

/// A complete chunk. Holds its slot.
#[derive(Clone)]
pub struct ChunkBytes {
    slot: Arc<Slot>,
    bytes: usize,
}

impl ChunkBytes {
    /// The chunk's length.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// The bytes of `range`, without a copy; they hold the slot until dropped.
    ///
    /// # Panics
    /// If the range reaches beyond [`len`](Self::len).
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> Bytes {
        self.slot.bytes(range)
    }
}

/// What a [`Waiter`] got.
pub enum Stretch {
    /// The published bytes from where it asked.
    Bytes(Bytes),
    /// The filler went away and the waiter is the filler now.
    Promoted(FillPermit),
    /// The filler failed, or the track was removed: ask whoever holds the track why.
    Failed,
}

/// Reads a chunk while another fills it.
pub struct Waiter {
    entry: Arc<Entry>,
    cache: Arc<Shared>,
}

impl Waiter {
    pub(crate) fn new(entry: Arc<Entry>, cache: Arc<Shared>) -> Self {
        Self { entry, cache }
    }

    /// The chunk's length once complete.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.entry.bytes
    }

    /// What is published from byte `from` of the chunk on, as soon as that is anything.
    ///
    /// # Panics
    /// If `from` is not below [`len`](Self::len).
    pub fn poll_read(&self, context: &mut Context<'_>, from: usize) -> Poll<Stretch> {
        assert!(from < self.entry.bytes, "byte {from} of a chunk of {}", self.entry.bytes);
        let mut progress = self.entry.progress();
        if progress.phase == Phase::Dead {
            return Poll::Ready(Stretch::Failed);
        }
        // Under the lock that a publish takes before it wakes: no publish is missed.
        let published = self.entry.published();
        if published > from {
            return Poll::Ready(Stretch::Bytes(self.entry.slot.bytes(from..published)));
        }
        if let Some(permit) = self.entry.adopt_locked(&mut progress, &self.cache) {
            return Poll::Ready(Stretch::Promoted(permit));
        }
        let waker = context.waker();
        if !progress.wakers.iter().any(|known| known.will_wake(waker)) {
            progress.wakers.push(waker.clone());
        }
        Poll::Pending
    }

    /// [`poll_read`](Self::poll_read) as a future.
    pub async fn read(&self, from: usize) -> Stretch {
        poll_fn(|context| self.poll_read(context, from)).await
    }
}

/// The track was removed while this chunk of it was filled: stop, nothing of it is read any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removed;

/// The right and the duty to fill a chunk. Write, prove, [`publish`](Self::publish), until the chunk is complete.
///
/// Dropping it earlier hands the duty to a waiter; [`fail`](Self::fail) tells the waiters that there is no point.
pub struct FillPermit {
    entry: Arc<Entry>,
    /// Taken only by `drop`, which must give it back before the next filler may start.
    writer: Option<SlotWriter>,
    cache: Arc<Shared>,
}

impl FillPermit {
    /// Which chunk is to be filled.
    #[must_use]
    pub fn key(&self) -> ChunkKey {
        self.entry.key
    }

    /// The chunk's length.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a chunk is never empty")]
    pub fn len(&self) -> usize {
        self.entry.bytes
    }

    /// How many bytes are written, from the chunk's start: where the next [`write`](Self::write) goes. Not zero
    /// where an earlier filler went away after it had published some.
    #[must_use]
    pub fn written(&self) -> usize {
        self.writer_ref().written()
    }

    /// Copies the chunk's next bytes in. Nobody reads them before they are published.
    ///
    /// # Panics
    /// If more comes than the chunk has.
    pub fn write(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.entry.bytes - self.written(), "a chunk of {} overflows", self.entry.bytes);
        self.writer_mut().write(bytes);
    }

    /// What is written and not published yet: what is to be proved now.
    #[must_use]
    pub fn unpublished(&self) -> &[u8] {
        self.writer_ref().unpublished()
    }

    /// Forgets what is written and not published, because it was not what it should be.
    pub fn rewind(&mut self) {
        self.writer_mut().rewind();
    }

    /// Makes all that is written readable. Bytes that are readable never change again, so prove them first.
    pub fn publish(&mut self) -> Result<(), Removed> {
        let Self { entry, writer, .. } = self;
        let progress = entry.progress();
        if progress.phase == Phase::Dead {
            return Err(Removed);
        }
        writer.as_mut().expect("taken only by drop").publish();
        wake_all(progress);
        Ok(())
    }

    /// Ends the chunk: those who wait get [`Stretch::Failed`], the next caller begins anew.
    pub fn fail(self) {
        self.cache.forget(&self.entry);
    }

    /// A reader of the chunk that this permit fills.
    #[must_use]
    pub fn waiter(&self) -> Waiter {
        Waiter::new(Arc::clone(&self.entry), Arc::clone(&self.cache))
    }

    fn writer_ref(&self) -> &SlotWriter {
        self.writer.as_ref().expect("taken only by drop")
    }

    fn writer_mut(&mut self) -> &mut SlotWriter {
        self.writer.as_mut().expect("taken only by drop")
    }
}

impl Drop for FillPermit {
    fn drop(&mut self) {
        drop(self.writer.take());
        if self.entry.published() == self.entry.bytes {
            return;
        }
        let mut progress = self.entry.progress();
        if progress.phase == Phase::Owned {
            progress.phase = Phase::Orphaned;
            wake_all(progress);
        }
    }
}
