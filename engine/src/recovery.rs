//! Opening a volume: the index is made anew from the records' headers, and what was torn is cut.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::{Rc, Weak};

use crate::commit::Commits;
use crate::config::{TAKEDOWN_STRETCH_BYTES, VolumeConfig};
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Claim, Damage, Kind, RecordHeader, SegmentHeader};
use crate::host::{Access, File, Host, LockError};
use crate::identity::{SEGMENTS_DIR, SUPERBLOCK_FILE, parse};
use crate::index::{Damaged, Entry, Index};
use crate::scan::{Found, Scan, scan, whole};
use crate::segment::{Segment, number_of, path_of};
use crate::signal::{Permits, Signal};
use crate::takedown::bare;
use crate::volume::{Claims, Inner, Volume, VolumeState};

/// How many segments does a close mark? Each costs a flush; the next start checks the last records of the others.
const MARKS_AT_CLOSE_MAX: usize = 64;

/// What opening a volume handle found and did.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Recovery {
    /// Tracks of this handle.
    pub tracks: u64,
    /// Ids of this handle that were taken down.
    pub takedowns: u64,
    /// Segments looked into.
    pub segments: u64,
    /// Bytes read from the drive.
    pub bytes_read: u64,
    /// Records that were cut: their header was written, and not all of their frames. None of them was acknowledged.
    pub torn: u64,
    /// Headers with a wrong checksum, blocks that could not be read, and records kept though the drive did not give all of
    /// their frames; each was logged. Tracks may be missing.
    pub damaged: u64,
    /// How long it took.
    pub seconds: f64,
}

impl<H: Host> Volume<H> {
    /// Opens the volume. Everything that was acknowledged is there on return, and durable.
    ///
    /// Errors: Invalid (no volume, or bad settings), Foreign, Locked, Unsupported (written by a newer version), Corrupt, Io.
    pub async fn open(host: H, config: VolumeConfig) -> Result<(Self, Recovery), Error> {
        let config = config.validated()?;
        let started = host.now();
        let lock = check_identity(&host, &config).await?;
        let mut opening = Opening {
            host: host.clone(),
            segments_dir: config.dir.join(SEGMENTS_DIR),
            config,
            index: Index::default(),
            segments: BTreeMap::new(),
            number_max: None,
            sequence_max: 0,
            dead: Vec::new(),
            to_mark: Vec::new(),
            recovery: Recovery::default(),
        };
        for number in opening.list().await? {
            opening.number_max = Some(number);
            let damaged_before = opening.recovery.damaged;
            if let Some(segment) = opening.open_segment(number).await? {
                opening.take_in(segment, damaged_before).await?;
            }
        }
        let mut recovery = opening.recovery;
        let volume = opening.finish(lock).await;
        let inner = &volume.inner;
        recovery.tracks = inner.index.borrow().tracks();
        recovery.takedowns = inner.index.borrow().takedowns();
        recovery.seconds = host.now().saturating_sub(started).as_secs_f64();
        tracing::info!(dir = %inner.config.dir.display(), ?recovery, "volume opened");
        Ok((volume, recovery))
    }
}

/// Reads the superblock, compares it with what is expected, and locks the volume.
async fn check_identity<H: Host>(host: &H, config: &VolumeConfig) -> Result<H::Lock, Error> {
    let path = config.dir.join(SUPERBLOCK_FILE);
    // The first file opened on a device must not be empty: see the glommio host.
    let file = host.open(&path, Access::Read).await.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            Error::Invalid(format!("{} is no volume: format it first, or mount its drive", config.dir.display()))
        }
        _ => Error::io("open", &path, source),
    })?;
    let bytes = file.bytes().await.map_err(|source| Error::io("measure", &path, source))?;
    if bytes != BLOCK_BYTES {
        let what = format!("it has {bytes} bytes, not {BLOCK_BYTES}");
        return Err(Error::CorruptFile { path, what });
    }
    let block = file.read_at(0, BLOCK).await.map_err(|source| Error::io("read", &path, source))?;
    let found = parse(&path, &block)?;
    let expected = config.expected;
    if found.node != expected.node {
        return Err(Error::Foreign { path, what: "the volume belongs to another node".to_owned() });
    }
    if found.volume != expected.volume {
        let what = format!("this is volume {}, not {}", found.volume, expected.volume);
        return Err(Error::Foreign { path, what });
    }
    host.lock(&path, config.shard, config.shards).map_err(|error| match error {
        LockError::Io(source) => Error::io("lock", &path, source),
        held => Error::Locked { path: config.dir.clone(), what: held.to_string() },
    })
}

/// A volume handle that is being opened.
struct Opening<H: Host> {
    host: H,
    config: VolumeConfig,
    segments_dir: std::path::PathBuf,
    index: Index,
    segments: BTreeMap<u64, Rc<Segment<H::File>>>,
    number_max: Option<u64>,
    sequence_max: u64,
    /// Whole records that are not to be kept: second copies, and tracks that were taken down.
    dead: Vec<(Rc<Segment<H::File>>, Found)>,
    /// Segments whose records were checked and flushed, which the next start need not do again.
    to_mark: Vec<Rc<Segment<H::File>>>,
    recovery: Recovery,
}

impl<H: Host> Opening<H> {
    /// The numbers of all segments, rising. Removes segments of our own that were never finished.
    async fn list(&self) -> Result<Vec<u64>, Error> {
        let names = self.host.list(&self.segments_dir).await;
        let names = names.map_err(|source| Error::io("list", &self.segments_dir, source))?;
        let mut numbers = Vec::new();
        for name in names {
            if let Some(number) = number_of(&name) {
                numbers.push(number);
            } else if let Some(number) = name.strip_suffix(".new").and_then(|name| name.parse().ok())
                && self.answers_for(number)
            {
                let path = self.segments_dir.join(&name);
                self.host.remove(&path).await.map_err(|source| Error::io("remove", &path, source))?;
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether this handle, of all of the volume's, cuts and marks the segment.
    fn answers_for(&self, number: u64) -> bool {
        number % self.config.shards as u64 == self.config.shard as u64
    }

    /// Opens a segment that may hold tracks of ours.
    async fn open_segment(&mut self, number: u64) -> Result<Option<Rc<Segment<H::File>>>, Error> {
        let path = path_of(&self.segments_dir, number);
        let io = |what| {
            let path = path.clone();
            move |source| Error::io(what, &path, source)
        };
        let file = self.host.open(&path, Access::Write).await.map_err(io("open"))?;
        let bytes = file.bytes().await.map_err(io("measure"))? / BLOCK_BYTES * BLOCK_BYTES;
        let block = file.read_at(0, BLOCK).await.map_err(io("read"))?;
        self.recovery.bytes_read += BLOCK_BYTES;
        let header = match SegmentHeader::decode(&block) {
            Ok(header) => header,
            Err(damage @ (Damage::Version(_) | Damage::Feature(_))) => {
                return Err(Error::Unsupported { path, what: format!("segment was {damage}") });
            }
            Err(damage) => {
                tracing::error!(path = %path.display(), %damage, "segment header is damaged, trying its first record");
                self.recovery.damaged += 1;
                let first = file.read_at(BLOCK_BYTES, BLOCK).await.map_err(io("read"))?;
                self.header_from_record(number, bytes, &first).ok_or_else(|| Error::CorruptFile {
                    path: path.clone(),
                    what: format!("{damage}: move the file out of the volume to go on without its tracks"),
                })?
            }
        };
        if header.volume != self.config.expected.volume || header.number != number {
            let what = format!("this is segment {} of volume {}: move it away", header.number, header.volume);
            return Err(Error::Foreign { path, what });
        }
        let (shard, shards) = (header.shard as usize, header.shards as usize);
        if shards == self.config.shards && shard != self.config.shard {
            return Ok(None);
        }
        // A file that was cut off is read, and not continued.
        let own = shards == self.config.shards && bytes >= header.bytes;
        let segment = Rc::new(Segment::new(&header, file, path, own, false));
        self.segments.insert(number, segment.clone());
        self.recovery.segments += 1;
        Ok(Some(segment))
    }

    /// The header of a segment that lost its own, from the record behind it. No split: nobody continues it.
    fn header_from_record(&self, number: u64, bytes: u64, block: &[u8]) -> Option<SegmentHeader> {
        let record = RecordHeader::decode(block).ok().filter(|record| record.offset == BLOCK_BYTES)?;
        let volume = self.config.expected.volume;
        Some(SegmentHeader { volume, number, generation: record.generation, bytes, shard: 0, shards: u32::MAX })
    }

    /// Takes in a segment's records: checks those that may be torn, cuts what is, and makes the rest durable.
    async fn take_in(&mut self, segment: Rc<Segment<H::File>>, damaged_before: u64) -> Result<(), Error> {
        let Scan { records, synced, sequence_max, bytes_read, damaged, claims, salvage_end } = scan(&segment).await?;
        self.sequence_max = self.sequence_max.max(sequence_max);
        self.recovery.bytes_read += bytes_read;
        self.recovery.damaged += damaged;
        let answers = self.answers_for(segment.number);
        let (mut tail, mut kept, mut unsynced) = (salvage_end.max(BLOCK_BYTES), Vec::new(), false);
        for found in records {
            let ours = found.id.shard(self.config.shards) == self.config.shard;
            let suspect = found.sequence > synced;
            // Behind torn records too: their frames are punched.
            tail = tail.max(found.end());
            if suspect && (ours || answers) && self.is_torn(&segment, &found).await {
                self.cut(&segment, &found, answers).await?;
                unsynced |= answers;
                continue;
            }
            // A mark that is lost does no harm.
            unsynced |= suspect && found.kind != Kind::Mark;
            kept.push(found.offset..found.end());
            match found.kind {
                Kind::Track if ours => self.take_in_track(&segment, found),
                Kind::Takedown if ours => self.index.take_down(found.id, found.takedown),
                Kind::Track | Kind::Takedown | Kind::Mark => {}
            }
        }
        self.keep_claims(&segment, &claims);
        segment.set_tail(tail.min(segment.bytes));
        // Where something is damaged, a gap may hold what can be salvaged.
        if answers && self.recovery.damaged == damaged_before {
            punch_gaps(&segment, &kept, tail.min(segment.bytes)).await;
        }
        if unsynced {
            let flushed = segment.file.fdatasync().await;
            flushed.map_err(|source| Error::io("flush", &segment.path, source))?;
        }
        if unsynced && answers {
            self.to_mark.push(segment);
        }
        Ok(())
    }

    /// Whether the record's frames were read and are not what was written. Where the drive does not give them, the record
    /// stays: it may have been acknowledged, and reading it says what is wrong.
    async fn is_torn(&mut self, segment: &Segment<H::File>, found: &Found) -> bool {
        match whole(segment, found, &mut self.recovery.bytes_read).await {
            Ok(whole) => !whole,
            Err(error) => {
                self.recovery.damaged += 1;
                tracing::error!(%error, segment = segment.number, offset = found.offset, id = %found.id, "record cannot be checked, kept");
                false
            }
        }
    }

    fn keep_claims(&mut self, segment: &Segment<H::File>, claims: &[(u64, Claim)]) {
        for (offset, Claim { id, takedown, .. }) in claims.iter().copied() {
            if id.shard(self.config.shards) == self.config.shard {
                self.index.set_damaged(id, Damaged { segment: segment.number, offset, takedown });
            }
        }
    }

    fn take_in_track(&mut self, segment: &Rc<Segment<H::File>>, found: Found) {
        let entry = Entry {
            segment: segment.number,
            offset: found.offset,
            header_bytes: found.header_bytes,
            track_bytes: found.track_bytes,
        };
        if !self.index.insert(found.id, entry) {
            self.dead.push((segment.clone(), found));
        }
    }

    /// Erases a record whose frames were never all written. What follows is flushed before anything is written over it.
    async fn cut(&mut self, segment: &Segment<H::File>, found: &Found, answers: bool) -> Result<(), Error> {
        tracing::warn!(segment = segment.number, offset = found.offset, id = %found.id, "torn record cut");
        self.recovery.torn += 1;
        if !answers {
            return Ok(());
        }
        let mut zeros = self.host.buffer(BLOCK);
        zeros.fill(0);
        let written = segment.file.write_at(found.offset, zeros).await;
        written.map_err(|source| Error::io("cut torn record in", &segment.path, source))
    }

    async fn finish(self, lock: H::Lock) -> Volume<H> {
        let shards = self.config.shards as u64;
        let after = self.number_max.map_or(0, |number| number + 1);
        let next_segment = after + (self.config.shard as u64 + shards - after % shards) % shards;
        let with_room = |segment: &&Rc<Segment<H::File>>| segment.room() > TAKEDOWN_STRETCH_BYTES;
        let active = self.segments.values().rev().find(with_room).cloned();
        let volume = Volume {
            inner: Rc::new(Inner {
                commits: Commits::new(self.sequence_max + 1),
                puts: Permits::new(self.config.puts_in_flight_max),
                writes: Permits::new(self.config.writes_in_flight_max),
                creating: Permits::new(1),
                host: self.host,
                config: self.config,
                segments_dir: self.segments_dir,
                lock: RefCell::new(Some(lock)),
                state: RefCell::new(VolumeState::Open),
                index: RefCell::new(self.index),
                segments: RefCell::new(self.segments),
                active: RefCell::new(active),
                reserve_segment: RefCell::new(None),
                next_segment: Cell::new(next_segment),
                failures: Cell::new(0),
                claims: Claims::default(),
                abandoned: RefCell::default(),
                janitor: Rc::new(Signal::default()),
            }),
        };
        volume.inner.mark(self.to_mark).await;
        volume.inner.erase_dead(self.dead).await;
        let (host, janitor) = (volume.inner.host.clone(), volume.inner.janitor.clone());
        host.spawn(clean_up(Rc::downgrade(&volume.inner), janitor));
        volume
    }
}

/// Gives back what lies between the records: erased ones, puts that a crash cut off, torn records. Best effort.
async fn punch_gaps<F: File>(segment: &Segment<F>, kept: &[Range<u64>], tail: u64) {
    let mut from = BLOCK_BYTES;
    for (start, end) in kept.iter().map(|record| (record.start, record.end)).chain([(tail, tail)]) {
        if start > from
            && let Err(error) = segment.punch(from, start - from).await
        {
            tracing::warn!(%error, offset = from, bytes = start - from, "a gap keeps its space until the next start");
        }
        from = end;
    }
}

impl<H: Host> Inner<H> {
    /// Marks the segments that were written to since the volume was opened, the newest first.
    pub(crate) async fn mark_written(self: &Rc<Self>) {
        let written = {
            let segments = self.segments.borrow();
            let written = segments.values().rev().filter(|segment| segment.own && segment.unmarked.get());
            written.take(MARKS_AT_CLOSE_MAX).cloned().collect()
        };
        self.mark(written).await;
    }

    /// Says in each segment that its records are durable. Without it, rot in one of the last records would pass for a torn tail at
    /// a later start. Best effort: without a mark the next start checks them again.
    async fn mark(self: &Rc<Self>, segments: Vec<Rc<Segment<H::File>>>) {
        for segment in segments {
            let Some(offset) = segment.take_for_mark() else { continue };
            let (sequence, synced) = self.commits.begin();
            let id = deadwax_track::TrackId::from_bytes([0; 32]);
            let mut buffer = self.host.buffer(BLOCK);
            bare(id, segment.generation, offset, sequence, synced).encode(&mut buffer);
            let space = crate::segment::Space { segment, offset, bytes: BLOCK_BYTES };
            match self.write_header(&space, sequence, buffer).await {
                Ok(()) => space.segment.unmarked.set(false),
                Err(error) => tracing::warn!(%error, "segment could not be marked as synced"),
            }
        }
    }

    /// Erases whole records that are not to be read: second copies, and tracks whose erasure was cut off.
    async fn erase_dead(&self, dead: Vec<(Rc<Segment<H::File>>, Found)>) {
        for (segment, found) in dead {
            if let Err(error) = segment.punch(found.offset, found.bytes()).await {
                tracing::warn!(%error, id = %found.id, "second copy stays on the drive");
            }
        }
        let unerased = self.index.borrow().all_unerased();
        for id in unerased {
            if let Err(error) = self.erase(&id).await {
                tracing::warn!(%error, %id, "bytes of a track that was taken down stay on the drive until the next start");
            }
        }
    }
}

impl<H: Host> Drop for Inner<H> {
    fn drop(&mut self) {
        // The janitor sees that the volume is gone.
        self.janitor.notify();
    }
}

/// Gives back the space of puts that are dropped, for as long as the volume is open.
async fn clean_up<H: Host>(volume: Weak<Inner<H>>, janitor: Rc<Signal>) {
    loop {
        let woken = janitor.wait();
        let Some(volume) = volume.upgrade() else { break };
        volume.clean_up().await;
        let closed = *volume.state.borrow() == VolumeState::Closed;
        drop(volume);
        if closed {
            break;
        }
        woken.await;
    }
}
