//! Deleting: a record goes by punching its header, and its space returns at once.

use deadwax_track::TrackId;

use crate::error::Error;
use crate::host::{Host, Priority};
use crate::index::Damaged;
use crate::lookup::{Candidate, Known, Record};
use crate::signal::Slot as Answer;
use crate::table::EntryKind;
use crate::volume::{Inner, Volume};

use std::rc::Rc;

impl<H: Host> Volume<H> {
    /// Deletes the track: it stays deleted from the return on, and its space is free. Works on a full volume. A record of it that
    /// is damaged goes too, so that the track can be put again. Once called it goes on though the future is dropped.
    ///
    /// This is no takedown: the same track may be put again.
    ///
    /// Errors: NotFound, TakenDown, Fenced, Io (the track may be deleted or not: call again).
    pub async fn delete(&self, id: &TrackId) -> Result<(), Error> {
        self.inner.check_owned(id)?;
        let answer = Answer::new();
        let (volume, done, id) = (self.inner.clone(), answer.clone(), *id);
        self.inner.host.spawn(Priority::Write, async move { done.fill(volume.delete(id).await) });
        answer.take().await
    }
}

impl<H: Host> Inner<H> {
    async fn delete(self: Rc<Self>, id: TrackId) -> Result<(), Error> {
        let _claim = self.claim(id).await;
        self.writable()?;
        if self.ghosts.borrow().contains(&id) {
            let what =
                format!("a put of {id} failed, and what it wrote cannot be erased: reopen the volume, then delete");
            return Err(Error::Fenced(what));
        }
        match self.look_up(&id).await {
            Ok(Known::Track(record)) => self.erase(&id, &record).await,
            Ok(Known::Takedown(record)) => Err(Error::TakenDown { id, number: record.header.takedown }),
            Ok(Known::Nothing) => Err(Error::NotFound(id)),
            Err(error) => {
                let candidates = self.index.borrow().candidates(&id);
                if candidates.iter().any(|slot| slot.kind == EntryKind::Takedown) {
                    // It may bar the id: only another takedown heals it.
                    return Err(error);
                }
                self.erase_damaged(&id).await
            }
        }
    }

    /// Erases a track's record. Durable on return: first the header goes, alone, so that a crash leaves all or nothing.
    pub(crate) async fn erase(self: &Rc<Self>, id: &TrackId, record: &Record<H>) -> Result<(), Error> {
        let bytes = record.bytes();
        if !self.index.borrow_mut().begin_erasure(id, record.slot, bytes) {
            return Ok(());
        }
        record.segment.remove_live(bytes);
        let header_bytes = record.header.bytes() as u64;
        let erased = self.erase_stretch(&record.segment, record.offset, header_bytes, bytes).await;
        self.end_erasure(id, &record.segment, (record.slot, bytes), &erased);
        erased
    }

    /// The erasure of a record, so many bytes long, came to this end.
    fn end_erasure(
        &self,
        id: &TrackId,
        segment: &crate::segment::Segment<H::File>,
        (slot, bytes): (crate::table::Slot, u64),
        erased: &Result<(), Error>,
    ) {
        let mut index = self.index.borrow_mut();
        if erased.is_ok() {
            index.erased(id);
        } else {
            index.stays(id, slot, bytes);
            segment.add_live(bytes);
        }
    }

    /// Erases a stretch that starts with a header of `header_bytes`.
    pub(crate) async fn erase_stretch(
        self: &Rc<Self>,
        segment: &Rc<crate::segment::Segment<H::File>>,
        offset: u64,
        header_bytes: u64,
        bytes: u64,
    ) -> Result<(), Error> {
        if self.holes.get() {
            segment.punch(offset, header_bytes).await?;
            self.flushed(segment, None).await?;
            segment.punch(offset + header_bytes, bytes - header_bytes).await?;
        } else {
            // Each start walks all segments then, and finds no header here.
            let zeros = vec![0; usize::try_from(header_bytes).expect("a header is small")];
            let written = self.write_stretch(&segment.file, offset, &zeros).await;
            written.map_err(|source| Error::io("erase in", &segment.path, source))?;
            self.flushed(segment, None).await?;
        }
        if !segment.own || segment.sealed.get() {
            self.upkeep.notify();
        }
        Ok(())
    }

    /// Erases what may be the track's record and cannot be read: all that the index has for the id, and what a damaged header
    /// claims.
    pub(crate) async fn erase_damaged(self: &Rc<Self>, id: &TrackId) -> Result<(), Error> {
        self.erase_candidates(id).await?;
        let claim = self.index.borrow().damaged(id);
        if let Some(Damaged { segment, offset, .. }) = claim {
            if let Some(segment) = self.segment(segment) {
                let block = crate::format::BLOCK_BYTES;
                self.erase_stretch(&segment, offset, block, block).await?;
            }
            self.index.borrow_mut().forget_damaged(id);
        }
        Ok(())
    }

    /// Erases the entries that may be the track's record and cannot be read. Those that can be, and are other tracks', stay.
    pub(crate) async fn erase_candidates(self: &Rc<Self>, id: &TrackId) -> Result<(), Error> {
        let candidates = self.index.borrow().candidates(id);
        for slot in candidates.into_iter().filter(|slot| slot.kind != EntryKind::Takedown) {
            // What is moved meanwhile is another id's: this one is claimed.
            let Some(Candidate { segment, offset, header }) = self.candidate(id, slot).await else { continue };
            if header.is_ok_and(|header| header.id != *id) {
                continue;
            }
            let listed = self.listed_at(&segment, offset).await;
            if let Some(listed) = &listed
                && listed.id != *id
            {
                continue;
            }
            let header_bytes = u64::from(slot.header_blocks) * crate::format::BLOCK_BYTES;
            // Where no listing tells, the header goes, and with it all that a reader could find.
            let bytes = listed.map_or(header_bytes, |listed| listed.bytes());
            if self.index.borrow_mut().begin_erasure(id, slot, bytes) {
                segment.remove_live(bytes);
                let erased = self.erase_stretch(&segment, offset, header_bytes, bytes).await;
                self.end_erasure(id, &segment, (slot, bytes), &erased);
                erased?;
            }
        }
        Ok(())
    }
}
