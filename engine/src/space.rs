//! Where new records go: the active segment, a new one, or nowhere.

use std::rc::Rc;

use deadwax_track::TrackId;

use crate::config::{RESERVE_SEGMENT_BYTES, TAKEDOWN_STRETCH_BYTES};
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, SegmentHeader, footer_bytes_for};
use crate::host::{Access, DirectorySpace, File as _, Host, Priority, is_passing};
use crate::segment::{Segment, Space, path_of};
use crate::signal::Slot;
use crate::volume::Inner;

/// What space is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// A track: leaves the reserve alone.
    Put,
    /// A takedown: may use all there is.
    Takedown,
}

/// How large a segment is that just holds a record of `bytes`.
fn segment_bytes_for(bytes: u64) -> u64 {
    let without_footer = BLOCK_BYTES + bytes + TAKEDOWN_STRETCH_BYTES;
    // A footer is at most a 64th of its segment, or one block.
    (without_footer + without_footer / 63 + BLOCK_BYTES).next_multiple_of(BLOCK_BYTES)
}

impl<H: Host> Inner<H> {
    /// Space for a record of `bytes`. Errors: NoSpace, Fenced, Io.
    pub(crate) async fn reserve(self: &Rc<Self>, bytes: u64, purpose: Purpose) -> Result<Space<H::File>, Error> {
        loop {
            self.writable()?;
            if let Some(space) = self.take(bytes, purpose) {
                return Ok(space);
            }
            let Some(creating) = self.creating.try_acquire() else {
                let _other_is_done = self.creating.acquire().await;
                continue;
            };
            // A task of its own: a caller that goes away must not leave half a segment.
            let done = Slot::new();
            let (volume, outcome) = (self.clone(), done.clone());
            self.host.spawn(Priority::Write, async move {
                let space = volume.extend(bytes, purpose).await;
                drop(creating);
                match space {
                    Ok(space) if Rc::strong_count(&outcome) == 1 => volume.release(space, true).await,
                    space => outcome.fill(space),
                }
            });
            return done.take().await;
        }
    }

    /// Space for a record of `bytes` in a new segment.
    async fn extend(&self, bytes: u64, purpose: Purpose) -> Result<Space<H::File>, Error> {
        let segment = match self.create_segment(bytes, purpose).await {
            Ok(segment) => Rc::new(segment),
            Err(error) => {
                // A full drive is not a broken one, nor is one on a machine that is short of files or memory.
                if !matches!(&error, Error::NoSpace { .. })
                    && !matches!(&error, Error::Io { source, .. } if is_passing(source))
                {
                    self.fence_writes(&error.to_string());
                }
                return Err(error);
            }
        };
        self.segments.borrow_mut().insert(segment.clone());
        self.open_segments.borrow_mut().insert(segment.number);
        let keep = if purpose == Purpose::Put { TAKEDOWN_STRETCH_BYTES } else { 0 };
        let space = segment.take(bytes, keep).expect("a new segment holds what it was made for");
        let slot = if segment.reserve { &self.reserve_segment } else { &self.active };
        // A segment made for one large track does not displace one with room for others.
        let room = slot.borrow().as_ref().map_or(0, |current| current.room());
        if segment.room() > room {
            *slot.borrow_mut() = Some(segment);
            // The one before it may be sealed.
            self.upkeep.notify();
        }
        Ok(space)
    }

    fn take(&self, bytes: u64, purpose: Purpose) -> Option<Space<H::File>> {
        let from = |segment: Option<Rc<Segment<H::File>>>, keep| segment?.take(bytes, keep);
        let active = self.active.borrow().clone();
        match purpose {
            Purpose::Put => from(active, TAKEDOWN_STRETCH_BYTES),
            Purpose::Takedown => from(active, 0).or_else(|| from(self.reserve_segment.borrow().clone(), 0)),
        }
    }

    /// Makes a segment that holds a record of `bytes` and is durable as a file.
    async fn create_segment(&self, bytes: u64, purpose: Purpose) -> Result<Segment<H::File>, Error> {
        let number = self.next_segment.get();
        self.next_segment.set(number + self.config.shards as u64);
        let needed = segment_bytes_for(bytes);
        let for_puts = self.free_for_segments(Purpose::Put).await? / BLOCK_BYTES * BLOCK_BYTES;
        let (size, reserve) = if needed <= for_puts {
            (self.config.segment_bytes.max(needed).min(for_puts), false)
        } else if purpose == Purpose::Takedown && self.free_for_segments(purpose).await? >= RESERVE_SEGMENT_BYTES {
            (RESERVE_SEGMENT_BYTES, true)
        } else {
            return Err(Error::NoSpace { needed: bytes, free: for_puts });
        };
        let header = SegmentHeader {
            volume: self.config.expected.volume,
            number,
            generation: self.host.random_u64(),
            bytes: size,
            shard: u32::try_from(self.config.shard).expect("bounded by the configuration"),
            shards: u32::try_from(self.config.shards).expect("bounded by the configuration"),
            footer_bytes: footer_bytes_for(size),
        };
        let Some(base) = self.segments.borrow().free_base(size) else {
            return Err(Error::NoSpace { needed: bytes, free: 0 });
        };
        let path = path_of(&self.segments_dir, number);
        let new = path.with_extension("new");
        match self.write_segment(&header, &new, &path).await {
            Ok(file) => {
                tracing::debug!(segment = number, bytes = size, "segment made");
                Ok(Segment::new(&header, base, file, path, true, reserve))
            }
            Err(source) => {
                if let Err(error) = self.host.remove(&new).await {
                    tracing::debug!(%error, path = %new.display(), "unfinished segment stays until the next start");
                }
                Err(if is_full(&source) {
                    Error::NoSpace { needed: bytes, free: 0 }
                } else {
                    Error::io("make segment", &path, source)
                })
            }
        }
    }

    /// A segment has its name only once it has its header: one without is never found.
    async fn write_segment(
        &self,
        header: &SegmentHeader,
        new: &std::path::Path,
        path: &std::path::Path,
    ) -> std::io::Result<H::File> {
        let file = self.host.open(new, Access::Create).await?;
        file.preallocate(header.bytes).await?;
        let mut block = self.host.buffer(BLOCK);
        header.encode(&mut block);
        file.write_at(0, block).await?;
        file.fdatasync().await?;
        self.host.rename(new, path).await?;
        self.host.sync_directory(&self.segments_dir).await?;
        // For the next status; what is wrong with the drive others say.
        drop(self.host.space(&self.segments_dir).await);
        Ok(file)
    }

    /// What new segments may take, measured.
    async fn free_for_segments(&self, purpose: Purpose) -> Result<u64, Error> {
        let space = self.host.space(&self.segments_dir).await;
        let space = space.map_err(|source| Error::io("measure", &self.segments_dir, source))?;
        Ok(self.free_of(space, purpose))
    }

    fn free_of(&self, space: DirectorySpace, purpose: Purpose) -> u64 {
        let reserve = if purpose == Purpose::Put { self.config.reserve_bytes } else { 0 };
        let mut free = space.free_bytes.saturating_sub(reserve);
        if let Some(capacity) = self.config.capacity_bytes_max {
            let taken = self.disk_bytes() + self.config.share(reserve);
            free = free.min(self.config.share(capacity).saturating_sub(taken));
        }
        free
    }

    /// The capacity of this handle's share of the volume and what puts may still take of it, as far as can be told.
    pub(crate) fn capacity(&self) -> (u64, u64) {
        let space = self.guard.space();
        let total = space.total_bytes;
        let total = self.config.capacity_bytes_max.map_or(total, |capacity| capacity.min(total));
        let active = self.active.borrow().as_ref().map_or(0, |segment| segment.room());
        let new = self.free_of(space, Purpose::Put);
        // The file system's free space is everybody's; a set capacity was divided already.
        let new = if self.config.capacity_bytes_max.is_some() { new } else { self.config.share(new) };
        (self.config.share(total), new + active.saturating_sub(TAKEDOWN_STRETCH_BYTES))
    }

    /// What this handle's segments take on the drive.
    fn disk_bytes(&self) -> u64 {
        // Of segments that were made for another number of shards, each counts for one of today's.
        let (shard, shards) = (self.config.shard as u64, self.config.shards as u64);
        let ours = |segment: &&Rc<Segment<H::File>>| segment.own || segment.number % shards == shard;
        self.segments.borrow().iter().filter(ours).map(|segment| segment.disk_bytes()).sum()
    }

    /// Gives a record's space back. `blank`: nothing was written there, so it may be handed out again: over other bytes, a
    /// header that tears would pass for a damaged one. Nothing may be in flight to it.
    pub(crate) async fn release(&self, mut space: Space<H::File>, blank: bool) {
        if blank && space.shrink(0) {
            return;
        }
        let (offset, bytes) = (space.offset, space.bytes);
        if let Err(error) = space.segment.punch(offset, bytes).await
            && self.guard.out().is_none()
        {
            tracing::warn!(%error, offset, bytes, "space of an unfinished put is lost until compaction");
        }
        // The segment may have waited for it.
        drop(space);
        self.upkeep.notify();
    }

    /// Gives back the space of a record whose header may have reached the drive, though writing or flushing it failed. It must
    /// not be found by the next start, after the track was put elsewhere and deleted: where that is not certain, no delete of
    /// the track is acknowledged before that start.
    pub(crate) async fn release_failed(&self, space: Space<H::File>, id: TrackId) {
        let (offset, bytes) = (space.offset, space.bytes);
        let erased = async {
            space.segment.punch(offset, bytes).await?;
            // Past the queue of those who wait for a flush: the segment takes no more writes, and erasing is none.
            let flushed = space.segment.file.fdatasync().await;
            flushed.map_err(|source| Error::io("flush", &space.segment.path, source))
        };
        if let Err(error) = erased.await {
            tracing::warn!(%error, %id, offset, bytes, "what a failed put wrote may be found by the next start");
            self.ghosts.borrow_mut().insert(id);
        }
        drop(space);
        self.upkeep.notify();
    }

    /// Gives back what a record did not need of its space. Nothing may be in flight to it.
    pub(crate) async fn trim(&self, space: &mut Space<H::File>, bytes: u64) {
        let (end, rest) = (space.offset + bytes, space.bytes - bytes);
        if rest > 0
            && !space.shrink(bytes)
            && let Err(error) = space.segment.punch(end, rest).await
        {
            tracing::warn!(%error, offset = end, bytes = rest, "space behind a compressed track is lost until compaction");
        }
    }

    /// What a write to `segment` that failed means. Space that was erased is not taken before it is written again, so a full
    /// drive may show here: the segment gets no more records then, and nothing is wrong with it. Else it failed.
    pub(crate) fn write_failed(&self, segment: &Rc<Segment<H::File>>, bytes: u64, source: std::io::Error) -> Error {
        if is_full(&source) {
            segment.closed.set(true);
            self.leave(segment);
            self.upkeep.notify();
            return Error::NoSpace { needed: bytes, free: 0 };
        }
        let error = Error::io("write", &segment.path, source);
        self.segment_failed(segment, &error);
        error
    }

    /// Puts no more records into the segment.
    fn leave(&self, segment: &Segment<H::File>) {
        for slot in [&self.active, &self.reserve_segment] {
            slot.borrow_mut().take_if(|current| current.number == segment.number);
        }
    }

    /// A write or flush of `segment` failed: it is closed for writing. A second segment that fails fences the volume.
    pub(crate) fn segment_failed(&self, segment: &Rc<Segment<H::File>>, error: &Error) {
        if !segment.poison(error) || self.guard.out().is_some() {
            return;
        }
        tracing::error!(%error, segment = segment.number, "segment closed for writing; reads go on");
        self.leave(segment);
        self.failures.set(self.failures.get() + 1);
        if self.failures.get() >= FAILURES_MAX {
            self.fence_writes(&error.to_string());
        }
    }
}

/// How many segments may fail, with no flush that succeeds between them, before the volume takes no more writes?
const FAILURES_MAX: u32 = 2;

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
