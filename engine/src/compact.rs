//! Freeing hollow segments: what little is left of one is moved, and its file goes.
//!
//! Deleted records are punched at once, so a segment that is mostly holes costs little but its file, its footer and its
//! entry here. So only those are moved that are nearly all holes, and the bytes that moving writes stay a small part of
//! the bytes that puts wrote.
//!
//! A segment that was made for another number of shards has tracks of several handles, which share nothing but the
//! directory. Each moves its own when they are few for its share, and lets go of the segment. One of them removes the file
//! once nothing but listings is left in it: nobody adds to such a segment, and a header that is gone from it was deleted, or
//! its record is durable elsewhere. It looks when it is busy with something itself: the file may outlive its tracks by as long as
//! nobody writes or deletes by that handle.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::config::{COMPACT_LIVE_PERCENT, READ_BYTES_MAX};
use crate::error::Error;
use crate::format::{BLOCK_BYTES, FrameStamp, Kind, Listed, Part, RecordHeader};
use crate::host::{File, Host, Priority, is_passing};
use crate::lookup::{Record, read_header};
use crate::recovery::slot_of;
use crate::segment::{Segment, Space};
use crate::signal::Slot as Answer;
use crate::space::Purpose;
use crate::volume::{Inner, Volume};

impl<H: Host> Volume<H> {
    /// Moves what is left in sealed segments that are nearly all holes, and removes them. The volume does so by itself; this
    /// waits for it. Answers how many segments were freed.
    ///
    /// Errors: NoSpace (there is no room to move to), Fenced, Io.
    pub async fn compact(&self) -> Result<u64, Error> {
        let inner = &self.inner;
        inner.compaction_done().await;
        inner.check_open()?;
        inner.compacting.set(true);
        let answer = Answer::new();
        let (volume, done) = (inner.clone(), answer.clone());
        inner.host.spawn(Priority::Repair, async move {
            let freed = volume.free_hollow().await;
            volume.compacting.set(false);
            volume.compacted.notify();
            done.fill(freed);
        });
        answer.take().await
    }
}

impl<H: Host> Inner<H> {
    /// Starts to free hollow segments, where there are any and nobody does it yet.
    pub(crate) fn start_compaction(self: &Rc<Self>) {
        if self.compacting.get() || self.hollow(&BTreeSet::new()).is_none() {
            return;
        }
        self.compacting.set(true);
        let volume = self.clone();
        self.host.spawn(Priority::Repair, async move {
            if let Err(error) = volume.free_hollow().await {
                tracing::warn!(%error, "hollow segments stay until the next try");
            }
            volume.compacting.set(false);
            volume.compacted.notify();
        });
    }

    /// Waits until nobody compacts.
    pub(crate) async fn compaction_done(&self) {
        while self.compacting.get() {
            self.compacted.wait().await;
        }
    }

    /// A sealed segment that is nearly all holes, as far as this handle knows what is in it; none of `but`.
    fn hollow(&self, but: &BTreeSet<u64>) -> Option<Rc<Segment<H::File>>> {
        let segments = self.segments.borrow();
        let is_hollow = |segment: &&Rc<Segment<H::File>>| {
            // All handles together move no more out of one than is moved out of a segment of one handle's.
            let handles = if segment.own { 1 } else { self.config.shards as u64 };
            segment.sealed.get()
                && !segment.damaged.get()
                && !but.contains(&segment.number)
                && segment.live_bytes() * 100 * handles <= segment.bytes * COMPACT_LIVE_PERCENT
        };
        segments.iter().find(is_hollow).cloned()
    }

    async fn free_hollow(self: &Rc<Self>) -> Result<u64, Error> {
        let (mut freed, mut left, mut first) = (0, BTreeSet::new(), None);
        while let Some(segment) = self.hollow(&left) {
            self.writable()?;
            match self.free_segment(&segment).await {
                Ok(gone) => freed += u64::from(gone),
                // It is left for another time, and holds up no other.
                Err(error) => {
                    tracing::warn!(%error, segment = segment.number, "a hollow segment stays");
                    first.get_or_insert(error);
                }
            }
            left.insert(segment.number);
        }
        first.filter(|_| freed == 0).map_or(Ok(freed), Err)
    }

    /// Moves what is left in the segment, and removes it; answers whether it is gone from the drive. One of which something
    /// cannot be read stays, and is marked damaged.
    async fn free_segment(self: &Rc<Self>, segment: &Rc<Segment<H::File>>) -> Result<bool, Error> {
        let others_at = segment.others_at.get();
        let waits = others_at > 0 && segment.live_bytes() == 0;
        // Asked at every turn of upkeep: one look at where they were is enough.
        if waits && data_before(segment, others_at, others_at + 1).await?.is_some() {
            return Ok(false);
        }
        let moved = if waits { Ok(()) } else { self.move_all(segment).await };
        let unreadable = matches!(moved, Err(Error::CorruptFile { .. }));
        if unreadable || (moved.is_ok() && segment.live_bytes() > 0) {
            // Scrub reports it, and the next start walks it.
            segment.damaged.set(true);
        }
        moved?;
        // Every id of ours in it was claimed once, so that no delete is still at it.
        if segment.live_bytes() > 0 {
            return Ok(false);
        }
        if !segment.own {
            // One handle of all removes the file.
            if segment.number % self.config.shards as u64 != self.config.shard as u64 {
                self.segments.borrow_mut().remove(segment.number);
                return Ok(false);
            }
            if let Some(data) = self.data_beside_listings(segment).await? {
                segment.others_at.set(data);
                return Ok(false);
            }
        }
        self.remove_segment(segment).await?;
        Ok(true)
    }

    /// Where the first data of a sealed segment is that is no listing.
    async fn data_beside_listings(&self, segment: &Segment<H::File>) -> Result<Option<u64>, Error> {
        let (mut parts, _) = self.sealed_contents(segment).await?;
        parts.sort_unstable_by_key(|part| part.offset);
        let mut from = BLOCK_BYTES;
        for Part { offset, bytes } in parts {
            if let Some(data) = data_before(segment, from, offset).await? {
                return Ok(Some(data));
            }
            from = offset + u64::from(bytes);
        }
        data_before(segment, from, segment.footer_at).await
    }

    async fn move_all(self: &Rc<Self>, segment: &Rc<Segment<H::File>>) -> Result<(), Error> {
        let (parts, last) = self.sealed_contents(segment).await?;
        self.move_records(segment, last).await?;
        // Part by part: a segment of small tracks has very many.
        for part in parts {
            let records = self.part_of(segment, part).await?;
            self.move_records(segment, records).await?;
        }
        Ok(())
    }

    async fn move_records(self: &Rc<Self>, segment: &Rc<Segment<H::File>>, records: Vec<Listed>) -> Result<(), Error> {
        for listed in records.into_iter().filter(|listed| self.owns(&listed.id)) {
            self.writable()?;
            self.move_record(segment, listed).await?;
        }
        Ok(())
    }

    async fn remove_segment(&self, segment: &Segment<H::File>) -> Result<(), Error> {
        let io = |source| Error::io("remove", &segment.path, source);
        // Some file systems take their time over a removed file's space. Of one that others may just be reading, only listings
        // are left, and those stay whole.
        segment.freed.set(true);
        if segment.own {
            segment.punch(BLOCK_BYTES, segment.bytes - BLOCK_BYTES).await?;
        }
        match self.host.remove(&segment.path).await {
            // Removed before, when making that durable failed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(io)?,
        }
        if let Err(source) = self.host.sync_directory(&self.segments_dir).await {
            let passing = is_passing(&source);
            let error = io(source);
            if !passing {
                // Flushes that succeed later say nothing of a new segment's name: what is put there could go with it.
                self.fence_writes(&error.to_string());
            }
            return Err(error);
        }
        self.segments.borrow_mut().remove(segment.number);
        tracing::debug!(segment = segment.number, "segment freed");
        Ok(())
    }

    /// Moves a record, if it is still there. Durable in its new place before the index names that.
    async fn move_record(self: &Rc<Self>, segment: &Rc<Segment<H::File>>, listed: Listed) -> Result<(), Error> {
        let slot = slot_of(segment, &listed);
        let _claim = self.claim(listed.id).await;
        if !self.index.borrow().has(&listed.id, slot) {
            return Ok(());
        }
        let header = match read_header(&listed.id, segment, listed.offset, slot).await {
            Ok(header) => header,
            Err(error) => {
                self.report(&error);
                return Ok(());
            }
        };
        let purpose = if header.kind == Kind::Takedown { Purpose::Takedown } else { Purpose::Put };
        let space = self.reserve(listed.bytes(), purpose).await?;
        let old = Record { slot, segment: segment.clone(), offset: listed.offset, header };
        match self.copy_record(&old, &space).await {
            Ok((sequence, header)) => {
                if let Err(error) = self.flushed(&space.segment, Some(sequence)).await {
                    self.release_failed(space, header.id).await;
                    return Err(error);
                }
                self.moved(&old, space, &header);
                // Before anybody can delete the new one: the old one would come back.
                let erased = self.erase_stretch(segment, old.offset, old.header.bytes() as u64, old.bytes()).await;
                if let Err(error) = &erased {
                    self.fence_writes(&format!("what was moved cannot be erased in its old place: {error}"));
                }
                erased
            }
            Err(error) => {
                self.release_failed(space, old.header.id).await;
                if matches!(error, Error::Corrupt { .. }) {
                    self.report(&error);
                    return Ok(());
                }
                Err(error)
            }
        }
    }

    /// The record in `space` takes the place of the old one.
    fn moved(&self, old: &Record<H>, space: Space<H::File>, header: &RecordHeader) {
        let bytes = old.bytes();
        let listed = Listed::of(header);
        let new = slot_of(&space.segment, &listed);
        let replaced = self.index.borrow_mut().replace(&header.id, old.slot, new);
        assert!(replaced, "the id {} is claimed by this move alone", header.id);
        old.segment.remove_live(bytes);
        space.segment.add_live(bytes);
        self.settle(space, listed);
    }

    /// Copies a record's frames, each checked and stamped anew, and then its header. Gives the sequence to wait for.
    async fn copy_record(
        self: &Rc<Self>,
        old: &Record<H>,
        space: &Space<H::File>,
    ) -> Result<(u64, RecordHeader), Error> {
        let header = &old.header;
        let frames = header.frames();
        let nonce = crate::put::nonce(self.host.random_u64());
        let was = FrameStamp { id: header.id.half(), generation: header.generation, nonce: Some(header.nonce) };
        let now = FrameStamp { id: header.id.half(), generation: space.segment.generation, nonce: Some(nonce) };
        let header_bytes = header.bytes() as u64;
        let mut first = 0;
        while first < frames.count() {
            let group = first..frames.count().min(first + FRAMES_PER_MOVE);
            first = group.end;
            let (offset, bytes) = crate::read::place(old.offset + header_bytes, frames, &group);
            let read = old.segment.file.read_at(offset, bytes).await;
            let read = read.map_err(|source| Error::io("read", &old.segment.path, source))?;
            let mut buffer = self.host.buffer(bytes);
            buffer.copy_from_slice(&read);
            let mut at = 0;
            for number in group {
                let frame = &mut buffer[at..at + frames.disk_bytes(number)];
                let payload_bytes = frames.payload_bytes(number);
                was.check(frame, number, payload_bytes).map_err(|fault| Error::Corrupt {
                    id: header.id,
                    segment: old.segment.number,
                    offset: offset + at as u64,
                    what: format!("frame {number}: {fault}"),
                })?;
                at += frame.len();
                now.seal(frame, number, payload_bytes);
            }
            let to = offset - old.offset + space.offset;
            let _held = self.writes.acquire(bytes as u64).await;
            let written = space.segment.file.write_at(to, buffer).await;
            written.map_err(|source| self.write_failed(&space.segment, space.bytes, source))?;
            self.host.yield_if_needed().await;
        }
        let (sequence, synced_sequence) = self.commits.begin();
        let header = RecordHeader {
            generation: space.segment.generation,
            offset: space.offset,
            sequence,
            synced_sequence,
            nonce,
            ..header.clone()
        };
        let mut buffer = self.host.buffer(header.bytes());
        header.encode(&mut buffer);
        if let Err(source) = space.segment.file.write_at(space.offset, buffer).await {
            self.commits.abandon(sequence);
            return Err(self.write_failed(&space.segment, space.bytes, source));
        }
        Ok((sequence, header))
    }
}

/// Where the first data from `from` on starts, if that is before `end`.
async fn data_before<F: File>(segment: &Segment<F>, from: u64, end: u64) -> Result<Option<u64>, Error> {
    let data = segment.file.data(from..end).await;
    let data = data.map_err(|source| Error::io("look for holes in", &segment.path, source))?;
    Ok(data.first().map(|first| first.start))
}

/// As many as one read fetches.
const FRAMES_PER_MOVE: u32 = 16;
const _: () = assert!(FRAMES_PER_MOVE as u64 * crate::format::FRAME_BYTES == READ_BYTES_MAX);
