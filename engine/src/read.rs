//! Reading a track: one device read a block, every frame checked before a byte of it is shown.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use deadwax_track::{ByteRange, TrackId};

use crate::config::{READ_AHEAD_MAX, READ_BYTES_MAX};
use crate::error::Error;
use crate::format::{FRAME_BYTES, FRAME_PAYLOAD_BYTES, FrameStamp, Frames};
use crate::host::{File as _, Host};
use crate::segment::Segment;
use crate::signal::Slot;
use crate::volume::{Inner, Volume};

const FRAMES_PER_READ: u32 = 16;
const _: () = assert!(FRAMES_PER_READ as u64 * FRAME_BYTES == READ_BYTES_MAX);

/// Gives a range of a track, block by block. Made by [`Volume::read`].
pub struct Reader<H: Host> {
    volume: Rc<Inner<H>>,
    id: TrackId,
    segment: Rc<Segment<H::File>>,
    /// Of frame 0 in the segment's file.
    frames_at: u64,
    frames: Frames,
    stamp: FrameStamp,
    range: ByteRange,
    /// Frames not yet asked for.
    rest: Range<u32>,
    ahead: VecDeque<Ahead<H>>,
}

struct Ahead<H: Host> {
    frames: Range<u32>,
    read: Rc<Slot<std::io::Result<H::ReadBuffer>>>,
}

/// Up to 1 MiB of a track, checked, as it came from the drive.
pub struct Block<H: Host> {
    buffer: H::ReadBuffer,
    first: u32,
    /// The bytes of the track that the block gives.
    bytes: Range<u64>,
}

impl<H: Host> Volume<H> {
    /// A reader of `range` of the track. Errors: NotFound, Corrupt (its header was damaged at the start), TakenDown, Invalid
    /// (the range ends beyond the track).
    #[expect(clippy::unused_async, reason = "later versions look into the drive for what memory does not hold")]
    pub async fn read(&self, id: &TrackId, range: ByteRange) -> Result<Reader<H>, Error> {
        let volume = self.inner.clone();
        let entry = volume.find(id)?;
        if !range.fits(entry.track_bytes) {
            let (start, end, bytes) = (range.start(), range.end(), entry.track_bytes);
            return Err(Error::Invalid(format!("bytes {start} to {end} are not all within the track's {bytes}")));
        }
        let segment = volume.segment(entry.segment);
        let frames = Frames::of(entry.track_bytes);
        Ok(Reader {
            id: *id,
            frames_at: entry.offset + u64::from(entry.header_bytes),
            frames,
            stamp: FrameStamp { id_prefix: id.prefix(), generation: segment.generation, nonce: None },
            range,
            rest: frames.covering(range.start(), range.end()),
            ahead: VecDeque::new(),
            segment,
            volume,
        })
    }
}

impl<H: Host> Reader<H> {
    /// The next block, in order; nothing after the last one, or after an error.
    ///
    /// Errors: Corrupt (read another copy), TakenDown (the track went while it was read), Io.
    pub async fn next(&mut self) -> Option<Result<Block<H>, Error>> {
        let outcome = if self.ahead.is_empty() && self.rest.len() <= FRAMES_PER_READ as usize {
            if self.rest.is_empty() {
                return None;
            }
            let frames = std::mem::replace(&mut self.rest, 0..0);
            let (offset, bytes) = place(self.frames_at, self.frames, &frames);
            let read = self.segment.file.read_at(offset, bytes).await;
            self.block(frames, read)
        } else {
            self.read_ahead();
            let next = self.ahead.pop_front()?;
            let read = next.read.take().await;
            self.block(next.frames, read)
        };
        if outcome.is_err() {
            self.rest = 0..0;
            self.ahead.clear();
        }
        Some(outcome)
    }

    fn read_ahead(&mut self) {
        while self.ahead.len() < READ_AHEAD_MAX && !self.rest.is_empty() {
            let end = self.rest.end.min(self.rest.start + FRAMES_PER_READ);
            let frames = self.rest.start..end;
            self.rest.start = end;
            let (offset, bytes) = place(self.frames_at, self.frames, &frames);
            let (segment, read) = (self.segment.clone(), Slot::new());
            let done = read.clone();
            let task = async move { done.fill(segment.file.read_at(offset, bytes).await) };
            self.volume.host.spawn(task);
            self.ahead.push_back(Ahead { frames, read });
        }
    }

    fn block(&self, frames: Range<u32>, read: std::io::Result<H::ReadBuffer>) -> Result<Block<H>, Error> {
        // Bytes of a track that was taken down while it was read are not shown, whether still whole or not.
        if let Some(number) = self.volume.index.borrow().takedown(&self.id) {
            return Err(Error::TakenDown { id: self.id, number });
        }
        let buffer = read.map_err(|source| Error::io("read", &self.segment.path, source))?;
        for number in frames.clone() {
            let at = usize::try_from(u64::from(number - frames.start) * FRAME_BYTES).expect("at most a read");
            let frame = &buffer[at..at + self.frames.disk_bytes(number)];
            self.stamp.check(frame, number, self.frames.payload_bytes(number)).map_err(|what| Error::Corrupt {
                id: self.id,
                segment: self.segment.number,
                offset: self.frames_at + self.frames.start(number),
                what: format!("frame {number}: {what}"),
            })?;
        }
        let start = (u64::from(frames.start) * FRAME_PAYLOAD_BYTES).max(self.range.start());
        let end = (u64::from(frames.end) * FRAME_PAYLOAD_BYTES).min(self.range.end());
        Ok(Block { buffer, first: frames.start, bytes: start..end })
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

    /// The bytes, in order, in slices of up to a frame's payload, straight from the buffer that was read into.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let first = self.bytes.start / FRAME_PAYLOAD_BYTES;
        let after = self.bytes.end.div_ceil(FRAME_PAYLOAD_BYTES);
        (first..after).map(|number| {
            let frame_start = number * FRAME_PAYLOAD_BYTES;
            let start = self.bytes.start.max(frame_start) - frame_start;
            let end = self.bytes.end.min(frame_start + FRAME_PAYLOAD_BYTES) - frame_start;
            let at = (number - u64::from(self.first)) * FRAME_BYTES;
            let within = |offset: u64| usize::try_from(at + offset).expect("at most a read");
            &self.buffer[within(start)..within(end)]
        })
    }
}
