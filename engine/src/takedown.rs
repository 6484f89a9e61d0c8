//! Legal deletes: a small record that bars an id for ever, then the bytes go.

use deadwax_track::TrackId;

use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Kind, RecordHeader, TagBytes};
use crate::host::Host;
use crate::space::Purpose;
use crate::volume::{Inner, Volume};

use std::rc::Rc;

use crate::signal::Slot;

impl<H: Host> Volume<H> {
    /// Bars the id: durable on return, and the bytes that were stored of it are erased. Whether the track is stored makes no
    /// difference. Answers the number first recorded for the id, which is `number` unless it was taken down before. Once
    /// called it goes on though the future is dropped.
    ///
    /// Errors: Io (also where the bytes could not be erased: call again), NoSpace, Fenced.
    pub async fn take_down(&self, id: &TrackId, number: u64) -> Result<u64, Error> {
        self.inner.check_owned(id)?;
        let slot = Slot::new();
        let (volume, done, id) = (self.inner.clone(), slot.clone(), *id);
        self.inner.host.spawn(async move { done.fill(volume.take_down(id, number).await) });
        slot.take().await
    }
}

impl<H: Host> Inner<H> {
    async fn take_down(self: Rc<Self>, id: TrackId, number: u64) -> Result<u64, Error> {
        let _claim = self.claim(id).await;
        let recorded = self.index.borrow().takedown(&id);
        let number = match recorded {
            Some(first) => first,
            None => {
                self.record_takedown(id, number).await?;
                self.index.borrow_mut().take_down(id, number);
                number
            }
        };
        self.erase(&id).await?;
        Ok(number)
    }

    async fn record_takedown(self: &Rc<Self>, id: TrackId, number: u64) -> Result<(), Error> {
        let space = self.reserve(BLOCK_BYTES, Purpose::Takedown).await?;
        let (sequence, synced_sequence) = self.commits.begin();
        let header = RecordHeader {
            kind: Kind::Takedown,
            takedown: number,
            ..bare(id, space.segment.generation, space.offset, sequence, synced_sequence)
        };
        let mut buffer = self.host.buffer(BLOCK);
        header.encode(&mut buffer);
        let outcome = self.write_header(&space, sequence, buffer).await;
        if outcome.is_err() {
            self.release(space, false).await;
        }
        outcome
    }

    /// Erases the record of a track that was taken down, if it is still there.
    pub(crate) async fn erase(&self, id: &TrackId) -> Result<(), Error> {
        let Some(entry) = self.index.borrow().unerased(id) else { return Ok(()) };
        self.segment(entry.segment).punch(entry.offset, entry.record_bytes()).await?;
        self.index.borrow_mut().set_erased(id);
        Ok(())
    }
}

/// A header with nothing behind it.
pub(crate) fn bare(id: TrackId, generation: u64, offset: u64, sequence: u64, synced_sequence: u64) -> RecordHeader {
    RecordHeader {
        kind: Kind::Mark,
        id,
        track_bytes: 0,
        generation,
        offset,
        sequence,
        synced_sequence,
        takedown: 0,
        nonce: 0,
        tags: TagBytes::default(),
        pieces: Vec::new(),
    }
}
