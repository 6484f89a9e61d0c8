//! Reads a record's track and proves it: every frame against its trailer, all of it against the id.

use std::borrow::Cow;

use deadwax_track::{Manifest, PIECE_BYTES, TrackHasher};

use super::image::{Image, read_around};
use crate::format::{BLOCK_BYTES, Filter, FrameStamp, Frames, Kind, Listed, RecordHeader};
use crate::pieces::restore;
use crate::read::place;

/// How many frames does one read fetch? A megabyte.
const FRAMES_PER_READ: u32 = 16;

/// A record whose track is to be read.
pub(super) struct Wanted {
    pub(super) listed: Listed,
    pub(super) generation: u64,
    /// Nothing where the record's header is lost.
    pub(super) nonce: Option<u32>,
    /// Of a compressed track.
    pub(super) piece_ends: Vec<u32>,
    /// What its pieces went through before they were packed.
    pub(super) filter: Filter,
}

/// What reading a track showed.
#[derive(Default)]
pub(super) struct Reading {
    /// How much of what the frames carry is as it was written.
    pub(super) intact_bytes: u64,
    /// What is wrong first, and where; nothing where the track is proved.
    pub(super) fault: Option<(u64, String)>,
}

impl Wanted {
    pub(super) fn of(header: &RecordHeader) -> Self {
        Self {
            listed: Listed::of(header),
            generation: header.generation,
            nonce: Some(header.nonce),
            piece_ends: header.piece_ends.clone(),
            filter: header.filter,
        }
    }

    /// What a listing or a damaged header says of a track whose header is lost. Its frames prove whether it is so; one that
    /// is compressed needs the table in its header.
    pub(super) fn without_header(listed: Listed, generation: u64) -> Option<Self> {
        let possible = !listed.compressed && listed.track_bytes > 0;
        possible.then(|| Self { listed, generation, nonce: None, piece_ends: Vec::new(), filter: Filter::None })
    }

    /// Reads the track and proves it. `out` gets its bytes as they come, up to the first fault: only after a reading without one
    /// are they the track's. An error of `out` ends the reading.
    pub(super) fn read<E>(&self, image: &dyn Image, mut out: impl FnMut(&[u8]) -> Result<(), E>) -> Result<Reading, E> {
        let frames = self.listed.frames();
        let frames_at = self.listed.offset + u64::from(self.listed.header_bytes);
        let mut reading = Reading::default();
        let mut pieces = Pieces::new(&self.piece_ends, self.filter, self.listed.track_bytes);
        let mut hasher = TrackHasher::new();
        let mut first = 0;
        while first < frames.count() {
            let group = first..frames.count().min(first + FRAMES_PER_READ);
            first = group.end;
            let (offset, bytes) = place(frames_at, frames, &group);
            let (read, unreadable) = read_around(image, offset, bytes);
            for number in group {
                let at = usize::try_from(frames.start(number) + frames_at - offset).expect("at most a read");
                let (start, end) = (offset + at as u64, offset + at as u64 + frames.disk_bytes(number) as u64);
                let lost = unreadable.iter().find(|(block, _)| (start..end).contains(block));
                let outcome = match (lost, read.get(at..at + frames.disk_bytes(number))) {
                    (Some((_, error)), _) => Err(format!("cannot be read: {error}")),
                    (None, Some(frame)) => self.check(frame, number, frames).map(|payload| &frame[..payload]),
                    (None, None) => Err("lies beyond the end of the file".to_owned()),
                };
                match outcome {
                    Ok(payload) => {
                        reading.intact_bytes += payload.len() as u64;
                        if reading.fault.is_none() {
                            let whole = pieces.take(payload, |bytes| {
                                hasher.update(bytes);
                                out(bytes)
                            })?;
                            if !whole {
                                reading.fault = Some((start, format!("frame {number}: a piece does not unpack")));
                            }
                        }
                    }
                    Err(what) => {
                        reading.fault.get_or_insert_with(|| (start, format!("frame {number}: {what}")));
                    }
                }
            }
        }
        let proved = hasher.finish().is_some_and(|(id, _)| id == self.listed.id);
        if reading.fault.is_none() && !proved {
            reading.fault = Some((self.listed.offset, "the bytes are not those that the id names".to_owned()));
        }
        Ok(reading)
    }

    /// How much the frame carries, if it is as it was written.
    fn check(&self, frame: &[u8], number: u32, frames: Frames) -> Result<usize, String> {
        let stamp = FrameStamp { id: self.listed.id.half(), generation: self.generation, nonce: self.nonce };
        let payload = frames.payload_bytes(number);
        stamp.check(frame, number, payload).map(|()| payload).map_err(|fault| fault.to_string())
    }
}

/// Whether the header's manifest is the id's, and its tags are tags; else what is wrong.
pub(super) fn check_header(header: &RecordHeader) -> Result<(), String> {
    if header.kind == Kind::Takedown {
        return Ok(());
    }
    let manifest = Manifest::proved(&header.id, header.track_bytes, header.pieces.clone());
    manifest.map_err(|error| format!("manifest: {error}"))?;
    header.tags.decode().map(drop).map_err(|error| format!("tags: {error}"))
}

/// Makes a track of what its frames carry.
struct Pieces<'a> {
    /// Where each stored piece ends; empty where the track is stored as it is.
    ends: &'a [u32],
    filter: Filter,
    /// What of the track is still to come.
    left: u64,
    /// Where the piece that is being gathered starts among what is stored.
    start: u32,
    raw: Vec<u8>,
}

impl<'a> Pieces<'a> {
    fn new(ends: &'a [u32], filter: Filter, track_bytes: u64) -> Self {
        Self { ends, filter, left: track_bytes, start: 0, raw: Vec::new() }
    }

    /// Takes the next stored bytes; answers whether they are what packing gives.
    fn take<E>(&mut self, mut bytes: &[u8], mut out: impl FnMut(&[u8]) -> Result<(), E>) -> Result<bool, E> {
        if self.ends.is_empty() && self.raw.is_empty() && self.start == 0 {
            return out(bytes).map(|()| true);
        }
        while let Some((end, later)) = self.ends.split_first()
            && !bytes.is_empty()
        {
            let stored = (end - self.start) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(stored - self.raw.len()));
            self.raw.extend_from_slice(now);
            bytes = rest;
            if self.raw.len() == stored {
                let whole = self.left.min(PIECE_BYTES);
                match piece(&self.raw, self.filter, usize::try_from(whole).expect("at most a piece")) {
                    Some(plain) => out(&plain)?,
                    None => return Ok(false),
                }
                self.left -= whole;
                (self.start, self.ends) = (*end, later);
                self.raw.clear();
            }
        }
        Ok(true)
    }
}

/// The piece of `piece_bytes` that was stored as `raw`: as it is where that is as long, packed otherwise.
fn piece(raw: &[u8], filter: Filter, piece_bytes: usize) -> Option<Cow<'_, [u8]>> {
    if raw.len() == piece_bytes {
        return Some(Cow::Borrowed(raw));
    }
    restore(raw, piece_bytes, filter).ok().map(Cow::Owned)
}

/// Whether the record lies within a file of `file_bytes`.
pub(super) fn fits(listed: &Listed, file_bytes: u64) -> bool {
    listed.offset >= BLOCK_BYTES && listed.end() <= file_bytes
}
