//! Finding an id: the index names candidates, the drive tells whose they are.

use std::rc::Rc;

use deadwax_track::TrackId;

use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Kind, RecordHeader};
use crate::host::Host;
use crate::index::Damaged;
use crate::segment::Segment;
use crate::table::{EntryKind, Slot};
use crate::unhurried::Unhurried;
use crate::volume::Inner;

/// What is known of an id.
pub(crate) enum Known<H: Host> {
    Nothing,
    Track(Record<H>),
    Takedown(Record<H>),
}

/// A record whose header was read and is the id's.
pub(crate) struct Record<H: Host> {
    pub(crate) slot: Slot,
    pub(crate) segment: Rc<Segment<H::File>>,
    pub(crate) offset: u64,
    pub(crate) header: RecordHeader,
}

impl<H: Host> Record<H> {
    pub(crate) fn bytes(&self) -> u64 {
        self.header.bytes() as u64 + self.header.frames().stored_bytes()
    }
}

/// What an entry of the index stands for.
pub(crate) struct Candidate<H: Host> {
    pub(crate) segment: Rc<Segment<H::File>>,
    pub(crate) offset: u64,
    /// Whoever's it is. Errors: Corrupt, Io.
    pub(crate) header: Result<RecordHeader, Error>,
}

impl<H: Host> Inner<H> {
    /// Reads the header of an entry with the id's key; nothing where the entry is not there any more: its record was deleted or
    /// moved. Its segment may be gone then, too.
    pub(crate) async fn candidate(self: &Rc<Self>, id: &TrackId, slot: Slot) -> Option<Candidate<H>> {
        if !self.index.borrow().has(id, slot) {
            return None;
        }
        let (segment, offset) = self.segments.borrow().at(slot.address);
        let held = self.lookups.acquire(u64::from(slot.header_blocks) * BLOCK_BYTES).await;
        let (there, of) = (segment.clone(), *id);
        let read = async move {
            let header = read_header(&of, &there, offset, slot).await;
            drop(held);
            header
        };
        let header = Unhurried::new(self, read).await;
        self.index.borrow().has(id, slot).then_some(Candidate { segment, offset, header })
    }

    /// Looks the id up: nothing is read where the index knows nothing like it, one header where it knows one entry.
    ///
    /// Errors: Corrupt or Io, where a record that may be the id's cannot be read and no other is it.
    pub(crate) async fn look_up(self: &Rc<Self>, id: &TrackId) -> Result<Known<H>, Error> {
        'again: loop {
            let candidates = self.index.borrow().candidates(id);
            let (mut unreadable, mut track) = (None, None);
            for slot in candidates {
                let Some(Candidate { segment, offset, header }) = self.candidate(id, slot).await else {
                    continue 'again;
                };
                match header {
                    Ok(header) if header.id != *id => {}
                    Ok(header) => {
                        let record = Record { slot, segment, offset, header };
                        if slot.kind == EntryKind::Takedown {
                            return Ok(Known::Takedown(record));
                        }
                        track = Some(record);
                    }
                    Err(error) => {
                        self.report_unreadable(&segment, offset, &error).await;
                        unreadable = Some(error);
                    }
                }
            }
            let damaged = self.index.borrow().damaged(id);
            return match (track, unreadable, damaged) {
                (Some(record), ..) => Ok(Known::Track(record)),
                (None, Some(error), _) => Err(error),
                (None, None, Some(damaged)) => Err(damaged_header(id, damaged)),
                (None, None, None) => Ok(Known::Nothing),
            };
        }
    }

    /// Reports a header that cannot be read. Whose it is only a listing tells: it was not looked up for its sake.
    async fn report_unreadable(&self, segment: &Segment<H::File>, offset: u64, error: &Error) {
        match (self.listed_at(segment, offset).await, error) {
            (Some(listed), Error::Corrupt { segment, offset, what, .. }) => {
                let (segment, offset, what) = (*segment, *offset, what.clone());
                self.report(&Error::Corrupt { id: listed.id, segment, offset, what });
            }
            _ => self.report_of(error, false),
        }
    }

    /// The ids of all tracks that share the key of `id`; those whose header cannot be read are left out.
    pub(crate) async fn ids_of(self: &Rc<Self>, id: &TrackId) -> Vec<TrackId> {
        'again: loop {
            let (candidates, mut ids) = (self.index.borrow().candidates(id), Vec::new());
            for slot in candidates.into_iter().filter(|slot| slot.kind != EntryKind::Takedown) {
                match self.candidate(id, slot).await {
                    None => continue 'again,
                    Some(Candidate { header: Ok(header), .. }) => ids.push(header.id),
                    Some(Candidate { header: Err(error), .. }) => {
                        tracing::warn!(%error, "a track is left out of a list")
                    }
                }
            }
            return ids;
        }
    }

    /// Fails where the id is present or taken down, where a damaged record may be its takedown, and where the drive does not say.
    /// A track whose header is damaged is no hindrance: putting it again heals it. One whose frames are counts as present: delete it first.
    pub(crate) async fn check_absent(self: &Rc<Self>, id: &TrackId) -> Result<(), Error> {
        match self.look_up(id).await {
            Ok(Known::Nothing) => Ok(()),
            Ok(Known::Track(record)) => Err(Error::AlreadyStored { id: *id, bytes: record.header.track_bytes }),
            Ok(Known::Takedown(record)) => Err(Error::TakenDown { id: *id, number: record.header.takedown }),
            Err(error @ Error::Io { .. }) => Err(error),
            Err(error) => {
                let index = self.index.borrow();
                let barred = index.candidates(id).iter().any(|slot| slot.kind == EntryKind::Takedown)
                    || index.damaged(id).is_some_and(|damaged| damaged.takedown);
                if barred { Err(error) } else { Ok(()) }
            }
        }
    }
}

/// Reads the header that an entry names, whoever's it is. Errors: Corrupt, Io.
pub(crate) async fn read_header<F>(
    id: &TrackId,
    segment: &Segment<F>,
    offset: u64,
    slot: Slot,
) -> Result<RecordHeader, Error>
where
    F: crate::host::File,
    F::ReadBuffer: std::ops::Deref<Target = [u8]>,
{
    let bytes = segment.file.read_at(offset, usize::from(slot.header_blocks) * BLOCK).await;
    let bytes = bytes.map_err(|source| Error::io("read", &segment.path, source))?;
    let corrupt = |what: String| Error::Corrupt { id: *id, segment: segment.number, offset, what };
    let header = RecordHeader::decode(&bytes).map_err(|damage| corrupt(damage.to_string()))?;
    let kind = if slot.kind == EntryKind::Takedown { Kind::Takedown } else { Kind::Track };
    let expected = (kind, slot.track_bytes, segment.generation, offset);
    if (header.kind, header.track_bytes, header.generation, header.offset) != expected {
        return Err(corrupt("the header is another record's".to_owned()));
    }
    Ok(header)
}

pub(crate) fn damaged_header(id: &TrackId, damaged: Damaged) -> Error {
    let Damaged { segment, offset, .. } = damaged;
    Error::Corrupt { id: *id, segment, offset, what: "the record's header is damaged".to_owned() }
}
