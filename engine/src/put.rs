//! Putting a track: its bytes go to the drive while they arrive, its header last.
//!
//! A track that shrinks is stored compressed, piece by piece. Its first piece decides: it lies in the first write's buffer, framed
//! as it is, when that question comes up, so tracks that do not shrink pay a glance and nothing else. What is reserved is the
//! space of the track as it is; the rest is given back at the end.

use std::cell::RefCell;
use std::rc::Rc;

use deadwax_track::{Manifest, PIECE_BYTES, TRACK_BYTES_MAX, Tags, TrackHasher, TrackId, piece_count};

use crate::budget::Held;
use crate::config::{COMPRESSED_TRACK_BYTES_MIN, PUT_STATE_BYTES, WORK_BYTES_MAX, WRITE_BYTES, WRITES_PER_PUT_MAX};
use crate::error::Error;
use crate::format::{FRAME_PAYLOAD_BYTES, Filter, FrameStamp, Frames, Kind, Listed, RecordHeader, TagBytes};
use crate::guard::Guarded;
use crate::host::{File as _, Host, Priority};
use crate::lookup::Known;
use crate::pieces::{SAVED_PERCENT_MIN, gather, glance, pack};
use crate::recovery::slot_of;
use crate::segment::Space;
use crate::signal::{Permits, Slot};
use crate::space::Purpose;
use crate::volume::{Inner, Volume};

/// A track is stored and durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The track's length.
    pub bytes: u64,
    /// How many pieces its manifest lists.
    pub pieces: u64,
}

/// Takes a track's bytes. Call [`write`](Self::write) until all are in, then [`finish`](Self::finish). Dropping it aborts the put:
/// its space is given back, and nothing of it is ever read.
pub struct PutWriter<H: Host> {
    volume: Rc<Inner<Guarded<H>>>,
    put: Option<Put<Guarded<H>>>,
}

/// A put whose header is not yet written.
pub(crate) struct Put<H: Host> {
    id: TrackId,
    /// Whether it takes the place of what is stored of the track.
    anew: bool,
    tags: TagBytes,
    nonce: u32,
    space: Space<H::File>,
    header_bytes: usize,
    /// Of what is stored. While pieces are compressed, of the most that may come of them.
    frames: Frames,
    form: Form,
    track_bytes: u64,
    received: u64,
    hasher: TrackHasher,
    /// What is gathered for the next write. A record that fits in one write starts with room for its header.
    buffer: Option<H::Buffer>,
    /// How much of the buffer holds finished frames (or the header's room).
    sealed: usize,
    /// Where the buffer will go, counted from the record's start.
    buffer_at: u64,
    frame: u32,
    frame_filled: usize,
    in_flight: Rc<Permits>,
    failure: Rc<RefCell<Option<Error>>>,
    /// The memory that it takes.
    held: Held,
}

/// How the track is stored.
enum Form {
    /// As it is, so far: its first piece is still to come.
    Open,
    /// As it is.
    Plain,
    Compressed(Compressed),
}

impl Form {
    /// The memory that it takes: a piece before it is compressed, and after.
    fn memory_bytes(&self, track_bytes: u64) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Open | Self::Compressed(_) => 2 * track_bytes.min(PIECE_BYTES),
        }
    }
}

struct Compressed {
    filter: Filter,
    /// What came of the piece that is next.
    piece: Vec<u8>,
    /// Where each stored piece ends.
    ends: Vec<u32>,
}

impl Compressed {
    fn stored_bytes(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
    }
}

impl<H: Host> Volume<H> {
    /// Begins to put the track `id` of `bytes`; its space is reserved on return.
    ///
    /// Errors: AlreadyStored and TakenDown (nothing is to be sent), Busy, NoSpace, Fenced, Invalid, Corrupt (a damaged
    /// record may be the id's takedown: take it down, or put elsewhere).
    pub async fn put(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<PutWriter<H>, Error> {
        self.begin_put(id, bytes, tags, false).await
    }

    /// As [`put`](Self::put), for a track whose record is known to be damaged: it is not AlreadyStored. What is left of the
    /// record goes when the new bytes are proved, and not before.
    pub async fn put_anew(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<PutWriter<H>, Error> {
        self.begin_put(id, bytes, tags, true).await
    }

    async fn begin_put(&self, id: TrackId, bytes: u64, tags: &Tags, anew: bool) -> Result<PutWriter<H>, Error> {
        let volume = self.inner.clone();
        if bytes == 0 || bytes > TRACK_BYTES_MAX {
            return Err(Error::Invalid(format!("a track has 1 to {TRACK_BYTES_MAX} bytes, not {bytes}")));
        }
        volume.check_owned(&id)?;
        volume.writable()?;
        volume.check_room_for(&id, anew).await?;
        let tags = TagBytes::of(tags);
        let frames = Frames::of(bytes);
        let header_bytes = RecordHeader::bytes_for(bytes, &tags, false);
        let record_bytes = header_bytes as u64 + frames.stored_bytes();
        let form = if bytes < COMPRESSED_TRACK_BYTES_MIN { Form::Plain } else { Form::Open };
        let wanted = memory_bytes(record_bytes, header_bytes) + form.memory_bytes(bytes);
        let busy = || Error::Busy { what: "puts", max: volume.puts.max() };
        let held = volume.puts.try_acquire(wanted).ok_or_else(busy)?;
        let space = volume.reserve(record_bytes, Purpose::Put).await?;
        let one_write = record_bytes <= WRITE_BYTES;
        let put = Put {
            id,
            anew,
            tags,
            nonce: nonce(volume.host.random_u64()),
            space,
            header_bytes,
            frames,
            form,
            track_bytes: bytes,
            received: 0,
            hasher: TrackHasher::new(),
            buffer: None,
            sealed: if one_write { header_bytes } else { 0 },
            buffer_at: if one_write { 0 } else { header_bytes as u64 },
            frame: 0,
            frame_filled: 0,
            in_flight: Permits::new(WRITES_PER_PUT_MAX),
            failure: Rc::default(),
            held,
        };
        Ok(PutWriter { volume, put: Some(put) })
    }
}

/// The memory that a put takes, its form's aside.
fn memory_bytes(record_bytes: u64, header_bytes: usize) -> u64 {
    record_bytes.min(WRITE_BYTES) + header_bytes as u64 + PUT_STATE_BYTES
}

/// The low half of a random number.
pub(crate) fn nonce(random: u64) -> u32 {
    u32::try_from(random & u64::from(u32::MAX)).expect("32 bits")
}

impl<H: Host> PutWriter<H> {
    /// Takes the next bytes; waits while too many writes are at the drive. On return they are in memory or on their way
    /// to the drive. Any error ends the put, and so does dropping the future before it is ready.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(mut put) = self.put.take() else {
            return Err(Error::Invalid("the put has failed already: begin another".to_owned()));
        };
        let outcome = put.write(&self.volume, bytes).await;
        match outcome {
            Ok(()) => self.put = Some(put),
            Err(_) => self.volume.abandon(put),
        }
        outcome
    }

    /// Checks that the bytes are the track's, and stores it: durable on return. Once called, the put goes on though the
    /// future is dropped.
    ///
    /// Errors: Invalid (too few bytes, or the id of others), AlreadyStored, TakenDown, Fenced, Io. None of them leaves
    /// anything of the put behind.
    pub async fn finish(mut self) -> Result<Stored, Error> {
        let Some(mut put) = self.put.take() else {
            return Err(Error::Invalid("the put has failed already: begin another".to_owned()));
        };
        let manifest = match put.complete(&self.volume).await {
            Ok(manifest) => manifest,
            Err(error) => {
                self.volume.abandon(put);
                return Err(error);
            }
        };
        let slot = Slot::new();
        let (volume, done) = (self.volume.clone(), slot.clone());
        self.volume.host.spawn(Priority::Write, async move { done.fill(volume.store(put, manifest).await) });
        slot.take().await
    }
}

impl<H: Host> Drop for PutWriter<H> {
    fn drop(&mut self) {
        if let Some(put) = self.put.take() {
            self.volume.abandon(put);
        }
    }
}

impl<H: Host> Put<H> {
    async fn write(&mut self, volume: &Rc<Inner<H>>, mut bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() as u64 > self.track_bytes - self.received {
            let announced = self.track_bytes;
            return Err(Error::Invalid(format!("the track has more bytes than the {announced} that were announced")));
        }
        self.received += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(self.room()));
            // Hashed in long runs, not frame by frame: BLAKE3 is fast on many whole chunks at once.
            self.hasher.update(now);
            match &mut self.form {
                Form::Compressed(compressed) => {
                    compressed.piece.extend_from_slice(now);
                    self.pack_piece(volume).await?;
                }
                Form::Open | Form::Plain => self.frame_up(volume, now).await?,
            }
            if matches!(self.form, Form::Open) && self.framed_bytes() == self.track_bytes.min(PIECE_BYTES) {
                self.decide(volume).await?;
            }
            bytes = later;
            if !bytes.is_empty() {
                volume.host.yield_if_needed().await;
            }
        }
        Ok(())
    }

    /// How many bytes may be taken at once? Never more than the piece's, where pieces matter.
    fn room(&self) -> usize {
        let taken = match &self.form {
            Form::Open => self.framed_bytes(),
            Form::Plain => return WORK_BYTES_MAX,
            Form::Compressed(compressed) => compressed.piece.len() as u64,
        };
        usize::try_from(PIECE_BYTES - taken).expect("at most a piece").min(WORK_BYTES_MAX)
    }

    /// What the frames so far carry. The last one may be short.
    fn framed_bytes(&self) -> u64 {
        let whole = u64::from(self.frame) * FRAME_PAYLOAD_BYTES + self.frame_filled as u64;
        whole.min(self.frames.all_payload_bytes())
    }

    /// Decides how the track is stored, when its first piece is framed and nothing was written yet.
    async fn decide(&mut self, volume: &Rc<Inner<H>>) -> Result<(), Error> {
        let Some((filter, stored)) = self.first_piece_packed() else {
            self.form = Form::Plain;
            self.held.shrink(memory_bytes(self.space.bytes, self.header_bytes));
            return Ok(());
        };
        let end = u32::try_from(stored.len()).expect("at most a piece");
        let left = self.track_bytes - self.track_bytes.min(PIECE_BYTES);
        self.frames = Frames::of(u64::from(end) + left);
        self.header_bytes = RecordHeader::bytes_for(self.track_bytes, &self.tags, true);
        self.form = Form::Compressed(Compressed { filter, piece: Vec::new(), ends: vec![end] });
        // All over again, in the same buffer: how long the record is shows only at the end, so the header goes alone.
        (self.buffer_at, self.sealed, self.frame, self.frame_filled) = (self.header_bytes as u64, 0, 0, 0);
        self.frame_up(volume, &stored).await
    }

    /// The first piece compressed, where storing the track like that pays and is sure to fit the space.
    fn first_piece_packed(&self) -> Option<(Filter, Vec<u8>)> {
        let first = self.track_bytes.min(PIECE_BYTES);
        let frames = &self.buffer.as_ref().expect("the first piece is in it")[self.first_frame_at()..];
        let filter = glance(frames, usize::try_from(first).expect("at most a piece"))?;
        let stored = pack(&gather(frames, 0..first), filter)?;
        let header_bytes = RecordHeader::bytes_for(self.track_bytes, &self.tags, true) as u64;
        let frames = Frames::of(stored.len() as u64 + self.track_bytes - first);
        // In whole blocks: a few bytes less that leave as many blocks save nothing.
        let saved = self.space.bytes.checked_sub(header_bytes + frames.stored_bytes())?;
        (saved > 0 && saved * 100 >= first * SAVED_PERCENT_MIN).then_some((filter, stored))
    }

    /// Where frames start in the first buffer.
    fn first_frame_at(&self) -> usize {
        if self.one_write() { self.header_bytes } else { 0 }
    }

    /// Compresses the piece that was gathered and frames it, if all of it is there.
    async fn pack_piece(&mut self, volume: &Rc<Inner<H>>) -> Result<(), Error> {
        let Form::Compressed(compressed) = &mut self.form else { return Ok(()) };
        let before = compressed.ends.len() as u64 * PIECE_BYTES;
        if (compressed.piece.len() as u64) < (self.track_bytes - before).min(PIECE_BYTES) {
            return Ok(());
        }
        let piece = std::mem::take(&mut compressed.piece);
        let stored = pack(&piece, compressed.filter);
        let stored = stored.as_deref().unwrap_or(&piece);
        let end = compressed.stored_bytes() + u32::try_from(stored.len()).expect("at most a piece");
        compressed.ends.push(end);
        self.frame_up(volume, stored).await?;
        if let Form::Compressed(compressed) = &mut self.form {
            // Its memory serves the next one.
            compressed.piece = piece;
            compressed.piece.clear();
        }
        volume.host.yield_if_needed().await;
        Ok(())
    }

    /// Copies the bytes into frames, and sends full buffers to the drive.
    async fn frame_up(&mut self, volume: &Rc<Inner<H>>, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let one_write = self.one_write();
            let left = self.header_bytes as u64 + self.frames.stored_bytes() - self.buffer_at;
            let buffer = self.buffer.get_or_insert_with(|| {
                volume.host.buffer(usize::try_from(left.min(WRITE_BYTES)).expect("at most a write"))
            });
            let payload_bytes = self.frames.payload_bytes(self.frame);
            let (now, later) = bytes.split_at(bytes.len().min(payload_bytes - self.frame_filled));
            let at = self.sealed + self.frame_filled;
            buffer[at..at + now.len()].copy_from_slice(now);
            self.frame_filled += now.len();
            bytes = later;
            if self.frame_filled == payload_bytes {
                let buffer_bytes = buffer.len();
                self.seal_frame();
                if self.sealed == buffer_bytes && !one_write {
                    self.submit(volume).await?;
                }
            }
        }
        Ok(())
    }

    /// Seals the frame that was filled.
    fn seal_frame(&mut self) {
        let buffer = self.buffer.as_mut().expect("the frame is in it");
        let disk_bytes = self.frames.disk_bytes(self.frame);
        let stamp =
            FrameStamp { id: self.id.half(), generation: self.space.segment.generation, nonce: Some(self.nonce) };
        stamp.seal(&mut buffer[self.sealed..self.sealed + disk_bytes], self.frame, self.frame_filled);
        self.sealed += disk_bytes;
        self.frame += 1;
        self.frame_filled = 0;
    }

    /// Ends the frames of a compressed track, whose length shows only now.
    fn seal_last(&mut self) {
        let Form::Compressed(compressed) = &self.form else { return };
        self.frames = Frames::of(u64::from(compressed.stored_bytes()));
        if self.frame_filled > 0 {
            assert_eq!(self.frame_filled, self.frames.payload_bytes(self.frame), "it is the last frame");
            self.seal_frame();
        }
        assert_eq!(self.frame, self.frames.count(), "all frames are sealed");
    }

    fn one_write(&self) -> bool {
        self.buffer_at == 0
    }

    /// Sends what is sealed of the buffer to the drive; nothing else is in it.
    async fn submit(&mut self, volume: &Rc<Inner<H>>) -> Result<(), Error> {
        let permits = (self.in_flight.acquire().await, volume.writes.acquire(self.sealed as u64).await);
        self.check(volume)?;
        let mut buffer = self.buffer.take().expect("a sealed buffer");
        assert_eq!(self.frame_filled, 0, "a frame goes out when it is sealed");
        if buffer.len() > self.sealed {
            // The last one of a compressed track: what would follow is not the record's.
            let mut cut = volume.host.buffer(self.sealed);
            cut.copy_from_slice(&buffer[..self.sealed]);
            buffer = cut;
        }
        let offset = self.space.offset + self.buffer_at;
        self.buffer_at += self.sealed as u64;
        self.sealed = 0;
        let (segment, failure, volume) = (self.space.segment.clone(), self.failure.clone(), volume.clone());
        let host = volume.host.clone();
        // A task of its own: the buffer and the space are the kernel's until the write is done, whatever the caller does.
        host.spawn(Priority::Write, async move {
            let bytes = buffer.len() as u64;
            if let Err(source) = segment.file.write_at(offset, buffer).await {
                *failure.borrow_mut() = Some(volume.write_failed(&segment, bytes, source));
            }
            drop(permits);
        });
        Ok(())
    }

    /// Whether nothing of it went to the drive yet.
    fn is_blank(&self) -> bool {
        self.one_write() || self.buffer_at == self.header_bytes as u64
    }

    fn check(&self, volume: &Inner<H>) -> Result<(), Error> {
        volume.writable()?;
        self.failure.borrow().clone().map_or(Ok(()), Err)?;
        self.space.segment.writable()
    }

    /// Checks length and id, and waits until all frames are written.
    async fn complete(&mut self, volume: &Rc<Inner<H>>) -> Result<Manifest, Error> {
        if self.received < self.track_bytes {
            let (got, announced) = (self.received, self.track_bytes);
            return Err(Error::Invalid(format!("the track ended after {got} of the {announced} bytes announced")));
        }
        let (id, manifest) = std::mem::take(&mut self.hasher).finish().expect("a track has at least a byte");
        if id != self.id {
            return Err(Error::Invalid(format!("the bytes are those of track {id}, not of {}", self.id)));
        }
        self.seal_last();
        if self.buffer.is_some() && !self.one_write() {
            self.submit(volume).await?;
        }
        self.in_flight.all_back().await;
        self.check(volume)?;
        Ok(manifest)
    }
}

impl<H: Host> Inner<H> {
    /// Writes the header of a put whose frames are written, and waits until it is durable. Runs to its end.
    async fn store(self: Rc<Self>, mut put: Put<H>, manifest: Manifest) -> Result<Stored, Error> {
        let _claim = self.claim(put.id).await;
        // Another put or a takedown of the id may have come first, or the volume may have failed.
        if let Err(error) = self.make_room_for(&put).await {
            let blank = put.is_blank();
            self.release(put.space, blank).await;
            return Err(error);
        }
        // What cannot be read of the track, a damaged record, makes room for this one: the two would count as two.
        if let Err(error) = self.erase_candidates(&put.id).await {
            let blank = put.is_blank();
            self.release(put.space, blank).await;
            return Err(error);
        }
        let (piece_ends, filter) = match std::mem::replace(&mut put.form, Form::Plain) {
            Form::Compressed(compressed) => (compressed.ends, compressed.filter),
            Form::Open | Form::Plain => (Vec::new(), Filter::None),
        };
        let (sequence, synced_sequence) = self.commits.begin();
        let pieces = piece_count(put.track_bytes);
        let header = RecordHeader {
            kind: Kind::Track,
            id: put.id,
            track_bytes: put.track_bytes,
            generation: put.space.segment.generation,
            offset: put.space.offset,
            sequence,
            synced_sequence,
            takedown: 0,
            nonce: put.nonce,
            tags: std::mem::take(&mut put.tags),
            pieces: manifest.pieces().to_vec(),
            piece_ends,
            filter,
        };
        assert_eq!(header.bytes(), put.header_bytes, "a header fits the space that was reserved");
        // In one write, the header is as good as last: recovery believes no frames that were not flushed.
        let mut buffer = put.buffer.take().unwrap_or_else(|| self.host.buffer(put.header_bytes));
        header.encode(&mut buffer[..put.header_bytes]);
        if let Err(error) = self.write_header(&put.space, sequence, buffer).await {
            self.release_failed(put.space, put.id).await;
            return Err(error);
        }
        let listed = Listed::of(&header);
        self.trim(&mut put.space, listed.bytes()).await;
        let segment = &put.space.segment;
        self.index.borrow_mut().insert_track(&put.id, slot_of(segment, &listed), listed.bytes());
        segment.add_live(listed.bytes());
        self.settle(put.space, listed);
        Ok(Stored { bytes: put.track_bytes, pieces })
    }

    /// Whether a put of the id may begin: where it does not come anew, nothing of it is stored.
    async fn check_room_for(self: &Rc<Self>, id: &TrackId, anew: bool) -> Result<(), Error> {
        match self.check_absent(id).await {
            Err(Error::AlreadyStored { .. }) if anew => Ok(()),
            other => other,
        }
    }

    /// Whether a put whose bytes are proved may be stored. Called with its claim. What it takes the place of is erased: it
    /// is damaged, and a good copy stands behind the put.
    async fn make_room_for(self: &Rc<Self>, put: &Put<H>) -> Result<(), Error> {
        self.check_room_for(&put.id, put.anew).await?;
        put.check(self)?;
        if !put.anew {
            return Ok(());
        }
        match self.look_up(&put.id).await {
            Ok(Known::Track(record)) => self.erase(&put.id, &record).await,
            // What cannot be read of it goes next.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Writes a header (and what lies behind it in `buffer`) and returns when it is durable.
    pub(crate) async fn write_header(
        self: &Rc<Self>,
        space: &Space<H::File>,
        sequence: u64,
        buffer: H::Buffer,
    ) -> Result<(), Error> {
        let held = self.writes.acquire(buffer.len() as u64).await;
        let written = space.segment.file.write_at(space.offset, buffer).await;
        drop(held);
        if let Err(source) = written {
            self.commits.abandon(sequence);
            return Err(self.write_failed(&space.segment, space.bytes, source));
        }
        self.flushed(&space.segment, Some(sequence)).await
    }

    /// Hands an unfinished put to upkeep, which gives its space back. May be called from a drop, outside the executor.
    fn abandon(&self, put: Put<H>) {
        self.abandoned.borrow_mut().push(put);
        self.upkeep.notify();
    }

    /// Gives back the space of all puts that were abandoned.
    pub(crate) async fn clean_up(&self) {
        loop {
            let Some(put) = self.abandoned.borrow_mut().pop() else { break };
            put.in_flight.all_back().await;
            let blank = put.is_blank();
            self.release(put.space, blank).await;
        }
    }
}
