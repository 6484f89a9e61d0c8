//! Putting a track: its bytes go to the drive while they arrive, its header last.

use std::cell::RefCell;
use std::rc::Rc;

use deadwax_track::{Manifest, TRACK_BYTES_MAX, Tags, TrackHasher, TrackId, piece_count};

use crate::config::{WORK_BYTES_MAX, WRITE_BYTES, WRITES_PER_PUT_MAX};
use crate::error::Error;
use crate::format::{FrameStamp, Frames, Kind, RecordHeader, TagBytes};
use crate::host::{File as _, Host};
use crate::index::Entry;
use crate::segment::Space;
use crate::signal::{Permit, Permits, Slot};
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
    volume: Rc<Inner<H>>,
    put: Option<Put<H>>,
}

/// A put whose header is not yet written.
pub(crate) struct Put<H: Host> {
    id: TrackId,
    tags: TagBytes,
    nonce: u32,
    space: Space<H::File>,
    header_bytes: usize,
    frames: Frames,
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
    _slot: Permit,
}

impl<H: Host> Volume<H> {
    /// Begins to put the track `id` of `bytes`; its space is reserved on return.
    ///
    /// Errors: AlreadyStored and TakenDown (nothing is to be sent), Busy, NoSpace, Fenced, Invalid, Corrupt (a damaged
    /// record may be the id's takedown: take it down, or put elsewhere).
    pub async fn put(&self, id: TrackId, bytes: u64, tags: &Tags) -> Result<PutWriter<H>, Error> {
        let volume = self.inner.clone();
        if bytes == 0 || bytes > TRACK_BYTES_MAX {
            return Err(Error::Invalid(format!("a track has 1 to {TRACK_BYTES_MAX} bytes, not {bytes}")));
        }
        volume.check_owned(&id)?;
        volume.check_absent(&id)?;
        volume.writable()?;
        let slot = volume.puts.try_acquire().ok_or(Error::Busy { max: volume.puts.max() })?;
        let tags = TagBytes::of(tags);
        let frames = Frames::of(bytes);
        let header_bytes = RecordHeader::bytes_for(bytes, &tags);
        let record_bytes = header_bytes as u64 + frames.stored_bytes();
        let space = volume.reserve(record_bytes, Purpose::Put).await?;
        let one_write = record_bytes <= WRITE_BYTES;
        let put = Put {
            id,
            tags,
            nonce: nonce(volume.host.random_u64()),
            space,
            header_bytes,
            frames,
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
            _slot: slot,
        };
        Ok(PutWriter { volume, put: Some(put) })
    }
}

/// The low half of a random number.
fn nonce(random: u64) -> u32 {
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
        self.volume.host.spawn(async move { done.fill(volume.store(put, manifest).await) });
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
            let (now, later) = bytes.split_at(bytes.len().min(WORK_BYTES_MAX));
            // Hashed in long runs, not frame by frame: BLAKE3 is fast on many whole chunks at once.
            self.hasher.update(now);
            self.frame_up(volume, now).await?;
            bytes = later;
            if !bytes.is_empty() {
                volume.host.yield_if_needed().await;
            }
        }
        Ok(())
    }

    /// Copies the bytes into frames, and sends full buffers to the drive.
    async fn frame_up(&mut self, volume: &Rc<Inner<H>>, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let one_write = self.one_write();
            let left = self.space.bytes - self.buffer_at;
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
                let disk_bytes = self.frames.disk_bytes(self.frame);
                let stamp = FrameStamp {
                    id_prefix: self.id.prefix(),
                    generation: self.space.segment.generation,
                    nonce: Some(self.nonce),
                };
                stamp.seal(&mut buffer[self.sealed..self.sealed + disk_bytes], self.frame, payload_bytes);
                self.sealed += disk_bytes;
                self.frame += 1;
                self.frame_filled = 0;
                if self.sealed == buffer.len() && !one_write {
                    self.submit(volume).await?;
                }
            }
        }
        Ok(())
    }

    fn one_write(&self) -> bool {
        self.buffer_at == 0
    }

    /// Sends the buffer, all of it sealed, to the drive.
    async fn submit(&mut self, volume: &Rc<Inner<H>>) -> Result<(), Error> {
        let permits = (self.in_flight.acquire().await, volume.writes.acquire().await);
        self.check(volume)?;
        let buffer = self.buffer.take().expect("a sealed buffer");
        assert_eq!(buffer.len(), self.sealed, "a buffer goes out when it is full");
        let offset = self.space.offset + self.buffer_at;
        self.buffer_at += self.sealed as u64;
        self.sealed = 0;
        let (segment, failure, volume) = (self.space.segment.clone(), self.failure.clone(), volume.clone());
        let host = volume.host.clone();
        // A task of its own: the buffer and the space are the kernel's until the write is done, whatever the caller does.
        host.spawn(async move {
            if let Err(source) = segment.file.write_at(offset, buffer).await {
                let error = Error::io("write", &segment.path, source);
                volume.segment_failed(&segment, &error);
                *failure.borrow_mut() = Some(error);
            }
            drop(permits);
        });
        Ok(())
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
        if let Err(error) = self.check_absent(&put.id).and_then(|()| put.check(&self)) {
            self.release(put.space, true).await;
            return Err(error);
        }
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
        };
        assert_eq!(header.bytes(), put.header_bytes, "a header fits the space that was reserved");
        // In one write, the header is as good as last: recovery believes no frames that were not flushed.
        let mut buffer = put.buffer.take().unwrap_or_else(|| self.host.buffer(put.header_bytes));
        header.encode(&mut buffer[..put.header_bytes]);
        if let Err(error) = self.write_header(&put.space, sequence, buffer).await {
            self.release(put.space, false).await;
            return Err(error);
        }
        let entry = Entry {
            segment: put.space.segment.number,
            offset: put.space.offset,
            header_bytes: u32::try_from(put.header_bytes).expect("a header is small"),
            track_bytes: put.track_bytes,
        };
        let inserted = self.index.borrow_mut().insert(put.id, entry);
        assert!(inserted, "the id {} is claimed by this put alone", put.id);
        Ok(Stored { bytes: put.track_bytes, pieces })
    }

    /// Writes a header (and what lies behind it in `buffer`) and returns when it is durable.
    pub(crate) async fn write_header(
        self: &Rc<Self>,
        space: &Space<H::File>,
        sequence: u64,
        buffer: H::Buffer,
    ) -> Result<(), Error> {
        let permit = self.writes.acquire().await;
        space.segment.unmarked.set(true);
        let written = space.segment.file.write_at(space.offset, buffer).await;
        drop(permit);
        if let Err(source) = written {
            let error = Error::io("write", &space.segment.path, source);
            self.segment_failed(&space.segment, &error);
            self.commits.abandon(sequence);
            return Err(error);
        }
        self.flushed(&space.segment, sequence).await
    }

    /// Hands an unfinished put to the janitor, which gives its space back. May be called from a drop, outside the executor.
    fn abandon(&self, put: Put<H>) {
        self.abandoned.borrow_mut().push(put);
        self.janitor.notify();
    }

    /// Gives back the space of all puts that were abandoned.
    pub(crate) async fn clean_up(&self) {
        loop {
            let Some(put) = self.abandoned.borrow_mut().pop() else { break };
            put.in_flight.all_back().await;
            self.release(put.space, true).await;
        }
    }
}
