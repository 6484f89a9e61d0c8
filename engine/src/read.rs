//! Reading a track: one device read a block, every frame checked before a byte of it is shown.
//!
//! What a reader goes through are *units*: the frames of a track that is stored as it is, the pieces of a compressed one. Pieces
//! need not start with frames: where one read ends and the next begins, both fetch the frame between them.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use deadwax_track::{ByteRange, PIECE_BYTES, TrackId};

use crate::budget::{Budget, Held};
use crate::config::{READ_AHEAD_MAX, READ_BYTES_MAX};
use crate::error::Error;
use crate::format::{
    BLOCK_BYTES, FRAME_BYTES, FRAME_PAYLOAD_BYTES, Filter, FrameFault, FrameStamp, Frames, RecordHeader,
};
use crate::guard::{Guarded, GuardedFile};
use crate::host::{File, Host, Priority};
use crate::lookup::Known;
use crate::pieces::{gather, payloads, restore};
use crate::segment::Segment;
use crate::signal::Slot as Answer;
use crate::table::{EntryKind, Slot};
use crate::unhurried::Unhurried;
use crate::volume::{Inner, Volume};

const FRAMES_PER_READ: u32 = 16;
const _: () = assert!(FRAMES_PER_READ as u64 * FRAME_BYTES == READ_BYTES_MAX);
/// As many as a block may hold when they are whole again.
const PIECES_PER_READ: u32 = 4;
const _: () = assert!(PIECES_PER_READ as u64 * PIECE_BYTES == READ_BYTES_MAX);

/// Gives a range of a track, block by block. Made by [`Volume::read`].
pub struct Reader<H: Host> {
    volume: Rc<Inner<Guarded<H>>>,
    id: TrackId,
    place: Place<GuardedFile<H>>,
    range: ByteRange,
    /// Units not yet asked for.
    rest: Range<u32>,
    ahead: VecDeque<Ahead<H>>,
    /// Memory for the block that the caller has and for the next one, whatever others take: a part of the volume's.
    own: Rc<Budget>,
    /// While a block is read: where the caller leaves then, it is not known what comes next.
    midway: bool,
}

/// Where a track's frames lie.
struct Place<F> {
    slot: Slot,
    segment: Rc<Segment<F>>,
    /// Of frame 0 in the segment's file.
    frames_at: u64,
    frames: Frames,
    stamp: FrameStamp,
    /// Of a compressed track.
    pieces: Option<Pieces>,
}

/// Where the pieces of a compressed track end, among what its frames carry, and how they were filtered.
struct Pieces {
    ends: Vec<u32>,
    filter: Filter,
}

struct Ahead<H: Host> {
    units: Range<u32>,
    /// With the memory that it takes, which is the drive's until it is there, whatever becomes of the reader.
    read: Rc<Answer<Fetch<H>>>,
}

/// What was read, or not, and the memory that it is in.
type Fetch<H> = (std::io::Result<<H as Host>::ReadBuffer>, Held);
/// The same, and of which units.
type Fetched<H> = (Range<u32>, std::io::Result<<H as Host>::ReadBuffer>, Held);

/// Up to 1 MiB of a track, checked.
pub struct Block<H: Host> {
    content: Content<H>,
    /// The bytes of the track that the block gives.
    bytes: Range<u64>,
    /// Of the track's bytes, where the content starts.
    start: u64,
    _held: Held,
}

enum Content<H: Host> {
    /// Frames, as they came from the drive.
    Frames(H::ReadBuffer),
    /// Pieces that were compressed. All but the track's last are whole.
    Pieces(Vec<Vec<u8>>),
}

impl<H: Host> Volume<H> {
    /// A reader of `range` of the track; the whole track where no range is given. A track that is stored as it is takes no device
    /// read here, a compressed one takes that of its header.
    ///
    /// Errors: NotFound, Corrupt (a record that may be the track's cannot be read), TakenDown, Busy, Fenced, Io, Invalid (the range
    /// ends beyond the track).
    pub async fn read(&self, id: &TrackId, range: Option<ByteRange>) -> Result<Reader<H>, Error> {
        let volume = self.inner.clone();
        volume.check_readable(id)?;
        let candidates = volume.index.borrow().candidates(id);
        let place = match candidates[..] {
            // Its frames will show whose they are.
            [slot] if slot.kind == EntryKind::Track => {
                let (segment, offset) = volume.segments.borrow().at(slot.address);
                Place::new(id, slot, segment, offset, Frames::of(slot.track_bytes), None)
            }
            _ => volume.place_of(id).await?,
        };
        let bytes = place.slot.track_bytes;
        let range = range.unwrap_or_else(|| ByteRange::new(0, bytes).expect("a track has at least a byte"));
        if !range.fits(bytes) {
            let (start, end) = (range.start(), range.end());
            return Err(Error::Invalid(format!("bytes {start} to {end} are not all within the track's {bytes}")));
        }
        let rest = place.units(range.start(), range.end());
        let wanted = place.memory_bytes(&rest);
        let busy = || Error::Busy { what: "reads", max: volume.reads.max() };
        let reserved = volume.reads.try_acquire(wanted).ok_or_else(busy)?;
        let own = Budget::part(reserved);
        Ok(Reader { volume, id: *id, place, range, rest, ahead: VecDeque::new(), own, midway: false })
    }
}

impl Pieces {
    fn of(header: RecordHeader) -> Option<Self> {
        header.is_compressed().then_some(Self { ends: header.piece_ends, filter: header.filter })
    }

    /// Where the pieces lie among what the frames carry.
    fn stored(&self, pieces: &Range<u32>) -> Range<u64> {
        let end = |piece: u32| u64::from(self.ends[piece as usize]);
        let start = pieces.start.checked_sub(1).map_or(0, end);
        start..end(pieces.end - 1)
    }
}

impl<F: File> Place<F> {
    fn new(
        id: &TrackId,
        slot: Slot,
        segment: Rc<Segment<F>>,
        offset: u64,
        frames: Frames,
        pieces: Option<Pieces>,
    ) -> Self {
        let stamp = FrameStamp { id: id.half(), generation: segment.generation, nonce: None };
        let frames_at = offset + u64::from(slot.header_blocks) * BLOCK_BYTES;
        Self { slot, segment, frames_at, frames, stamp, pieces }
    }

    /// What each unit but the last holds of the track.
    fn unit_bytes(&self) -> u64 {
        if self.pieces.is_some() { PIECE_BYTES } else { FRAME_PAYLOAD_BYTES }
    }

    /// The units that hold the track's bytes from `start` to `end`.
    fn units(&self, start: u64, end: u64) -> Range<u32> {
        let unit = |number: u64| u32::try_from(number).expect("a unit's number");
        unit(start / self.unit_bytes())..unit(end.div_ceil(self.unit_bytes()))
    }

    /// The first of these units, as many as one read fetches.
    fn first_of(&self, units: &Range<u32>) -> Range<u32> {
        let per_read = if self.pieces.is_some() { PIECES_PER_READ } else { FRAMES_PER_READ };
        let mut end = units.end.min(units.start + per_read);
        while end > units.start + 1 && self.frames_of(&(units.start..end)).len() > FRAMES_PER_READ as usize {
            end -= 1;
        }
        units.start..end
    }

    /// The memory that a block of these units takes: what is read, and the pieces that come of it.
    fn block_bytes(&self, units: &Range<u32>) -> u64 {
        let (_, bytes) = place(self.frames_at, self.frames, &self.frames_of(units));
        let restored = if self.pieces.is_some() { units.len() as u64 * PIECE_BYTES } else { 0 };
        bytes as u64 + restored
    }

    /// The memory that a reader of these units needs: for one block, or for two where there are more.
    fn memory_bytes(&self, units: &Range<u32>) -> u64 {
        let block_bytes_max = if self.pieces.is_some() { 2 * READ_BYTES_MAX } else { READ_BYTES_MAX };
        if self.first_of(units) == *units { self.block_bytes(units) } else { 2 * block_bytes_max }
    }

    /// The frames that hold these units.
    fn frames_of(&self, units: &Range<u32>) -> Range<u32> {
        let Some(pieces) = &self.pieces else { return units.clone() };
        let stored = pieces.stored(units);
        self.frames.covering(stored.start, stored.end)
    }
}

impl<H: Host> Inner<H> {
    /// Where the track is, whatever it takes to find out. Errors: NotFound, TakenDown, Corrupt, Io.
    async fn place_of(self: &Rc<Self>, id: &TrackId) -> Result<Place<H::File>, Error> {
        match self.look_up(id).await? {
            Known::Nothing => Err(Error::NotFound(*id)),
            Known::Takedown(record) => Err(Error::TakenDown { id: *id, number: record.header.takedown }),
            Known::Track(record) => {
                let frames = record.header.frames();
                let pieces = Pieces::of(record.header);
                Ok(Place::new(id, record.slot, record.segment, record.offset, frames, pieces))
            }
        }
    }
}

impl<H: Host> Reader<H> {
    /// The whole track's length, whatever the range.
    #[must_use]
    pub fn track_bytes(&self) -> u64 {
        self.place.slot.track_bytes
    }

    /// The reader of another range of the track, which lies within it; this one gives nothing more.
    ///
    /// # Panics
    /// Where the range ends beyond the track.
    #[must_use]
    pub fn narrowed(mut self, range: ByteRange) -> Self {
        assert!(range.fits(self.track_bytes()), "{range:?} of {} bytes", self.track_bytes());
        self.rest = self.place.units(range.start(), range.end());
        self.range = range;
        self.ahead.clear();
        self.own.narrow(self.place.memory_bytes(&self.rest));
        self
    }

    /// The next block, in order; nothing after the last one, or after an error. Waits where the caller holds more than the one
    /// block before it and the volume's readers have no memory left: drop blocks as they are used.
    ///
    /// Errors: Corrupt (read another copy), NotFound and TakenDown (the track went while it was read, or was never here),
    /// Io, Fenced; Invalid where an earlier call was dropped before it had answered.
    pub async fn next(&mut self) -> Option<Result<Block<H>, Error>> {
        if std::mem::replace(&mut self.midway, true) {
            return Some(Err(Error::Invalid("the call for a block before was dropped: begin another read".to_owned())));
        }
        let next = self.next_block().await;
        self.midway = false;
        next
    }

    async fn next_block(&mut self) -> Option<Result<Block<H>, Error>> {
        loop {
            let (units, read, held) = self.read_next().await?;
            let from = (u64::from(units.start) * self.place.unit_bytes()).max(self.range.start());
            let outcome = match self.block(units, read, held).await {
                Ok(Some(block)) => Ok(block),
                Ok(None) => {
                    // The track was moved: from here on it is read in its new place.
                    self.ahead.clear();
                    self.range = ByteRange::new(from, self.range.end()).expect("bytes that are still to come");
                    self.rest = self.place.units(self.range.start(), self.range.end());
                    continue;
                }
                Err(error) => {
                    self.rest = 0..0;
                    self.ahead.clear();
                    Err(error)
                }
            };
            return Some(outcome);
        }
    }

    /// The next units, and what was read of them; nothing after the last ones.
    async fn read_next(&mut self) -> Option<Fetched<Guarded<H>>> {
        if self.rest.is_empty() && self.ahead.is_empty() {
            return None;
        }
        // A read that is all there is goes without a task of its own, which would cost a third of the rate.
        if self.ahead.is_empty() && self.place.first_of(&self.rest) == self.rest {
            let units = self.rest.clone();
            self.rest.start = self.rest.end;
            let held = self.memory_for(&units).await;
            let (read, held) = Unhurried::new(&self.volume, self.fetch(&units, held)).await;
            return Some((units, read, held));
        }
        self.read_ahead().await;
        let next = self.ahead.pop_front()?;
        let (read, held) = next.read.take().await;
        Some((next.units, read, held))
    }

    /// Memory for a block, which may be long in coming only where the caller holds other ones.
    async fn memory_for(&self, units: &Range<u32>) -> Held {
        match self.spare_memory_for(units) {
            Some(held) => held,
            None => self.own.acquire(self.place.block_bytes(units).min(self.own.max())).await,
        }
    }

    /// Memory for a block where there is some: of our own, or of all readers'.
    fn spare_memory_for(&self, units: &Range<u32>) -> Option<Held> {
        let bytes = self.place.block_bytes(units);
        let own = self.own.try_acquire(bytes.min(self.own.max()));
        own.or_else(|| self.volume.reads.try_acquire_spare(bytes))
    }

    async fn read_ahead(&mut self) {
        while self.ahead.len() < READ_AHEAD_MAX && !self.rest.is_empty() {
            let units = self.place.first_of(&self.rest);
            let held = if self.ahead.is_empty() {
                self.memory_for(&units).await
            } else if let Some(held) = self.spare_memory_for(&units) {
                held
            } else {
                break;
            };
            self.rest.start = units.end;
            let (fetch, read) = (self.fetch(&units, held), Answer::new());
            let done = read.clone();
            self.volume.host.spawn(Priority::Read, async move { done.fill(fetch.await) });
            self.ahead.push_back(Ahead { units, read });
        }
    }

    /// Reads these units from the drive, into the memory that is held.
    fn fetch(&self, units: &Range<u32>, held: Held) -> impl Future<Output = Fetch<H>> + use<H> {
        let (offset, bytes) = place(self.place.frames_at, self.place.frames, &self.place.frames_of(units));
        let segment = self.place.segment.clone();
        async move { (segment.file.read_at(offset, bytes).await, held) }
    }

    /// The block of what was read, checked; nothing where the track has another place now.
    async fn block(
        &mut self,
        units: Range<u32>,
        read: std::io::Result<H::ReadBuffer>,
        held: Held,
    ) -> Result<Option<Block<H>>, Error> {
        if self.is_elsewhere().await? {
            return Ok(None);
        }
        let buffer = read.map_err(|source| Error::io("read", &self.place.segment.path, source))?;
        let frames = self.place.frames_of(&units);
        for number in frames.clone() {
            let at = usize::try_from(u64::from(number - frames.start) * FRAME_BYTES).expect("at most a read");
            let frame = &buffer[at..at + self.place.frames.disk_bytes(number)];
            if let Err(fault) = self.place.stamp.check(frame, number, self.place.frames.payload_bytes(number)) {
                return Err(self.explain(number, fault).await);
            }
        }
        let start = u64::from(units.start) * self.place.unit_bytes();
        let end = u64::from(units.end) * self.place.unit_bytes();
        let content = if self.place.pieces.is_some() {
            let pieces = self.restored(units, &buffer, frames.start).await?;
            // It took its time, and others were let run.
            if self.is_elsewhere().await? {
                return Ok(None);
            }
            Content::Pieces(pieces)
        } else {
            Content::Frames(buffer)
        };
        let bytes = start.max(self.range.start())..end.min(self.range.end());
        Ok(Some(Block { content, bytes, start, _held: held }))
    }

    /// Whether the track has another place now, which the reader then knows. Bytes of a track that went while it was read are
    /// not shown, whether still whole or not. Errors: as [`Inner::place_of`].
    async fn is_elsewhere(&mut self) -> Result<bool, Error> {
        if self.volume.index.borrow().has(&self.id, self.place.slot) {
            return Ok(false);
        }
        self.place = self.volume.place_of(&self.id).await?;
        Ok(true)
    }

    /// The pieces that lie in these frames, the first of which is `first`, whole again.
    async fn restored(&self, units: Range<u32>, frames: &[u8], first: u32) -> Result<Vec<Vec<u8>>, Error> {
        let pieces = self.place.pieces.as_ref().expect("a compressed track");
        let frames_start = u64::from(first) * FRAME_PAYLOAD_BYTES;
        let mut restored = Vec::with_capacity(units.len());
        for number in units {
            let stored = pieces.stored(&(number..number + 1));
            let raw_bytes = (self.track_bytes() - u64::from(number) * PIECE_BYTES).min(PIECE_BYTES);
            let raw_bytes = usize::try_from(raw_bytes).expect("at most a piece");
            let bytes = gather(frames, stored.start - frames_start..stored.end - frames_start);
            let frame = self.place.frames.covering(stored.start, stored.end).start;
            let piece = restore(&bytes, raw_bytes, pieces.filter);
            restored.push(piece.map_err(|what| self.corrupt(frame, format!("piece {number}: {what}")))?);
            self.volume.host.yield_if_needed().await;
        }
        Ok(restored)
    }

    /// Why a frame is not what it should be. The index knows no whole ids: a frame of another track is no damage where the
    /// header says that the record is another track's.
    async fn explain(&self, number: u32, fault: FrameFault) -> Error {
        if fault == FrameFault::Track {
            match self.volume.look_up(&self.id).await {
                Ok(Known::Nothing) => return Error::NotFound(self.id),
                Ok(Known::Takedown(record)) => {
                    return Error::TakenDown { id: self.id, number: record.header.takedown };
                }
                Ok(Known::Track(_)) | Err(_) => {}
            }
        }
        self.corrupt(number, format!("frame {number}: {fault}"))
    }

    /// What is wrong in or from this frame on, which is reported.
    fn corrupt(&self, frame: u32, what: String) -> Error {
        let error = Error::Corrupt {
            id: self.id,
            segment: self.place.segment.number,
            offset: self.place.frames_at + self.place.frames.start(frame),
            what,
        };
        self.volume.report(&error);
        error
    }
}

/// Where `frames` lie in the segment's file, as one stretch.
pub(crate) fn place(frames_at: u64, all: Frames, frames: &Range<u32>) -> (u64, usize) {
    let start = all.start(frames.start);
    let last = frames.end - 1;
    let bytes = all.start(last) - start + all.disk_bytes(last) as u64;
    (frames_at + start, usize::try_from(bytes).expect("at most a read"))
}

impl<H: Host> Block<H> {
    /// How many bytes of the track it gives; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        usize::try_from(self.bytes.end - self.bytes.start).expect("at most 1 MiB")
    }

    /// The bytes, in order: of a track that is stored as it is in slices of up to a frame's payload, straight from the buffer
    /// that was read into; of a compressed one in slices of up to a piece.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let within = self.bytes.start - self.start..self.bytes.end - self.start;
        let (frames, pieces) = match &self.content {
            Content::Frames(buffer) => (Some(payloads(buffer, within.clone())), None),
            Content::Pieces(pieces) => (None, Some(pieces_within(pieces, within))),
        };
        frames.into_iter().flatten().chain(pieces.into_iter().flatten())
    }
}

/// What `pieces` hold at `range`, counted from the first one's start.
fn pieces_within(pieces: &[Vec<u8>], range: Range<u64>) -> impl Iterator<Item = &[u8]> {
    (range.start / PIECE_BYTES..range.end.div_ceil(PIECE_BYTES)).map(move |number| {
        let piece_start = number * PIECE_BYTES;
        let within = |offset: u64| usize::try_from(offset - piece_start).expect("at most a piece");
        let piece = &pieces[usize::try_from(number).expect("a piece of the block")];
        &piece[within(range.start.max(piece_start))..within(range.end.min(piece_start + PIECE_BYTES))]
    })
}
