//! Legal deletes: a small record that bars an id for ever, then the bytes go.

use std::rc::Rc;

use deadwax_track::TrackId;

use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Filter, Kind, Listed, RecordHeader, TagBytes};
use crate::host::{Host, Priority};
use crate::lookup::{Candidate, Known, Record};
use crate::signal::Slot as Answer;
use crate::space::Purpose;
use crate::table::{EntryKind, Slot};
use crate::volume::{Inner, Volume};

/// How many segments are tried for a takedown's record?
const TRIES: usize = 3;

impl<H: Host> Volume<H> {
    /// Bars the id: durable on return, and the bytes that were stored of it are erased. Whether the track is stored makes no
    /// difference. Answers the number first recorded for the id, which is `number` unless it was taken down before. Once
    /// called it goes on though the future is dropped.
    ///
    /// Errors: Io (also where the bytes could not be erased: call again), NoSpace, Fenced.
    pub async fn take_down(&self, id: &TrackId, number: u64) -> Result<u64, Error> {
        self.inner.check_owned(id)?;
        let answer = Answer::new();
        let (volume, done, id) = (self.inner.clone(), answer.clone(), *id);
        self.inner.host.spawn(Priority::Write, async move { done.fill(volume.take_down(id, number).await) });
        answer.take().await
    }
}

impl<H: Host> Inner<H> {
    async fn take_down(self: Rc<Self>, id: TrackId, number: u64) -> Result<u64, Error> {
        self.writable()?;
        let _claim = self.claim(id).await;
        let (track, number) = match self.look_up(&id).await {
            Ok(Known::Takedown(record)) => (self.stored_track(&id).await, record.header.takedown),
            Ok(Known::Track(record)) => {
                self.record_takedown(id, number).await?;
                (Some(record), number)
            }
            Ok(Known::Nothing) => {
                self.record_takedown(id, number).await?;
                (None, number)
            }
            Err(_) => {
                self.record_takedown(id, number).await?;
                self.erase_unreadable(&id).await?;
                (None, number)
            }
        };
        if let Some(track) = track {
            self.erase(&id, &track).await?;
        }
        Ok(number)
    }

    /// The record of a track that was taken down and could not be erased.
    async fn stored_track(self: &Rc<Self>, id: &TrackId) -> Option<Record<H>> {
        let candidates = self.index.borrow().candidates(id);
        for slot in candidates.into_iter().filter(|slot| slot.kind != EntryKind::Takedown) {
            if let Some(Candidate { segment, offset, header: Ok(header) }) = self.candidate(id, slot).await
                && header.id == *id
            {
                return Some(Record { slot, segment, offset, header });
            }
        }
        None
    }

    /// Erases what a takedown found and could not read.
    async fn erase_unreadable(self: &Rc<Self>, id: &TrackId) -> Result<(), Error> {
        let candidates = self.index.borrow().candidates(id);
        for slot in candidates {
            let Some(Candidate { segment, offset, header: Err(_) }) = self.candidate(id, slot).await else { continue };
            let ours = self.listed_at(&segment, offset).await.is_none_or(|listed| listed.id == *id);
            if ours && slot.kind == EntryKind::Takedown {
                self.index.borrow_mut().remove_takedown(id, slot);
            }
        }
        self.erase_damaged(id).await
    }

    async fn record_takedown(self: &Rc<Self>, id: TrackId, number: u64) -> Result<(), Error> {
        // On a full drive a segment may turn out to have no room; the next one, or the reserve, has.
        for _ in 1..TRIES {
            match self.try_record_takedown(id, number).await {
                Err(Error::NoSpace { .. }) => {}
                outcome => return outcome,
            }
        }
        self.try_record_takedown(id, number).await
    }

    async fn try_record_takedown(self: &Rc<Self>, id: TrackId, number: u64) -> Result<(), Error> {
        let space = self.reserve(BLOCK_BYTES, Purpose::Takedown).await?;
        let (sequence, synced_sequence) = self.commits.begin();
        let header = RecordHeader {
            kind: Kind::Takedown,
            id,
            track_bytes: 0,
            generation: space.segment.generation,
            offset: space.offset,
            sequence,
            synced_sequence,
            takedown: number,
            nonce: 0,
            tags: TagBytes::default(),
            pieces: Vec::new(),
            piece_ends: Vec::new(),
            filter: Filter::None,
        };
        let mut buffer = self.host.buffer(BLOCK);
        header.encode(&mut buffer);
        if let Err(error) = self.write_header(&space, sequence, buffer).await {
            self.release(space, false).await;
            return Err(error);
        }
        let slot = Slot {
            address: space.segment.address(space.offset),
            track_bytes: 0,
            header_blocks: 1,
            kind: EntryKind::Takedown,
        };
        self.index.borrow_mut().insert_takedown(&id, slot);
        space.segment.add_live(BLOCK_BYTES);
        self.settle(space, Listed::of(&header));
        Ok(())
    }
}
