//! Recovery: the index is made anew from footers, the snapshot and the headers behind them, and what was torn is
//! cut.
//!
//! A sealed segment's footer lists its records; the snapshot does so for open segments, up to some place; behind that, and
//! where neither is whole, the segment is walked. Listed records were durable when they were listed, so only their
//! deletion is to be looked for, which the segment's holes tell. Walked ones may be torn.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::budget::Budget;
use crate::commit::Commits;
use crate::config::{LOOKUP_BYTES_MAX, TAKEDOWN_STRETCH_BYTES, VolumeConfig};
use crate::damage::Findings;
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Claim, Kind, Listed, Listing, Part, Role, ScrubPlace, listing_bytes_max};
use crate::guard::Guard;
use crate::holes::Data;
use crate::host::{File, Host, Priority};
use crate::identity::{SEGMENTS_DIR, SNAPSHOTS_DIR};

use crate::index::{Counts, Damaged, Index};
use crate::listings::{Snapshot, read_listing, read_snapshot, snapshot_path};
use crate::load::{Loaded, load};
use crate::lookup::read_header;
use crate::missing::watch_files;
use crate::open::Recovery;
use crate::scan::{Found, Scan, scan, whole};
use crate::scrub::{Scrub, scrub_for_ever};
use crate::segment::{Segment, Segments, number_of};
use crate::signal::{Permits, Signal, Slot as Answer};
use crate::table::{EntryKind, Slot};
use crate::unhurried::Unclaimed;
use crate::upkeep::upkeep;
use crate::volume::{Claims, Inner, VolumeState};

/// Records of a segment that need a listing of their own, and where it goes.
type ToList<H> = (Rc<Segment<<H as Host>::File>>, u64, Vec<Listed>);

/// How many listed records are taken in together? Sorted, they cost the index less; they take some 100 bytes each.
const TAKEN_AT_ONCE: usize = 16 * 1024;

/// A volume handle that is being opened.
pub(crate) struct Opening<H: Host> {
    host: H,
    guard: Rc<Guard>,
    config: VolumeConfig,
    segments_dir: PathBuf,
    /// Whether the file system punches holes, and tells where they are.
    holes: bool,
    /// Of open segments, by number and generation, with the snapshot that each is from.
    snapshot: BTreeMap<(u64, u64), (PathBuf, Listing)>,
    /// Snapshots that were not used, for part of what they say at least. They go before anything is written: believed later,
    /// they would hide it.
    stale: BTreeSet<PathBuf>,
    scrub: ScrubPlace,
    index: Index,
    segments: Segments<H::File>,
    open_segments: BTreeSet<u64>,
    pub(crate) number_max: Option<u64>,
    sequence_max: u64,
    /// Whole records that are not to be kept: second copies, and tracks that were taken down.
    dead: Vec<(Rc<Segment<H::File>>, Listed)>,
    /// Records that are too many for a footer, and where their listing goes.
    to_list: Vec<ToList<H>>,
    /// Whether a record was found that no listing has.
    walked: bool,
    pub(crate) recovery: Recovery,
}

impl<H: Host> Opening<H> {
    pub(crate) async fn new(host: H, guard: Rc<Guard>, config: VolumeConfig) -> Result<Self, Error> {
        let snapshots_dir = config.dir.join(SNAPSHOTS_DIR);
        let holes = host.punches_holes(&config.dir).await;
        if !holes {
            tracing::warn!(dir = %config.dir.display(), "this file system is not known to punch holes of 4 KiB and to tell where they are: each start walks all segments; use ext4 or XFS with blocks of 4 KiB");
        }
        let mut opening = Self {
            holes,
            segments_dir: config.dir.join(SEGMENTS_DIR),
            snapshot: BTreeMap::new(),
            stale: BTreeSet::new(),
            scrub: ScrubPlace::default(),
            index: Index::default(),
            segments: Segments::new(),
            open_segments: BTreeSet::new(),
            number_max: None,
            sequence_max: 0,
            dead: Vec::new(),
            to_list: Vec::new(),
            walked: false,
            recovery: Recovery::default(),
            host,
            guard,
            config,
        };
        // Those of another split count too: its segments may still be open.
        let names = opening.host.list(&snapshots_dir).await;
        let names = match names {
            // A copy of a volume may have left them out.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            names => names.map_err(|source| Error::io("list", &snapshots_dir, source))?,
        };
        for name in names.iter().filter(|name| name.ends_with(".snapshot")) {
            let path = snapshots_dir.join(name);
            if opening.holes {
                opening.take_snapshot(&path).await;
            } else {
                opening.stale.insert(path);
            }
        }
        Ok(opening)
    }

    async fn take_snapshot(&mut self, path: &Path) {
        let own = *path == snapshot_path(&self.config.dir.join(SNAPSHOTS_DIR), self.config.shard);
        let snapshot = read_snapshot(&self.host, path).await;
        let Some(Snapshot { header, listings }) =
            snapshot.filter(|snapshot| snapshot.header.volume == self.config.expected.volume)
        else {
            self.stale.insert(path.to_owned());
            return;
        };
        self.recovery.bytes_read += header.bytes;
        let known_at = self.scrub.verified_at;
        if own {
            self.scrub = header.scrub;
        }
        // Of another split count its segments are now others': what was gone through last longest ago counts for all.
        if own || header.shards as usize != self.config.shards {
            let both = [known_at, header.scrub.verified_at];
            self.scrub.verified_at = both.into_iter().filter(|at| *at > 0).min().unwrap_or(0);
        }
        self.sequence_max = self.sequence_max.max(header.sequence_next - 1);
        for listing in listings.into_iter().filter(|listing| listing.role == Role::Snapshot) {
            self.snapshot.insert((listing.number, listing.generation), (path.to_owned(), listing));
        }
    }

    /// Removes the snapshots that were not used, and makes the names of the others durable: what a process that was killed
    /// replaced, and did not flush, must not come back either.
    pub(crate) async fn remove_stale(&self) -> Result<(), Error> {
        for path in &self.stale {
            match self.host.remove(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| Error::io("remove", path, source))?,
            }
        }
        let path = self.config.dir.join(SNAPSHOTS_DIR);
        match self.host.sync_directory(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            flushed => flushed.map_err(|source| Error::io("flush", &path, source)),
        }
    }

    /// The numbers of all segments, rising. Removes segments of our own that were never finished.
    pub(crate) async fn list(&self) -> Result<Vec<u64>, Error> {
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
        // A process that was killed may have left a segment whose name was never flushed: what is put into it from now on
        // must not go with its name.
        let flushed = self.host.sync_directory(&self.segments_dir).await;
        flushed.map_err(|source| Error::io("flush", &self.segments_dir, source))?;
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether this handle, of all of the volume's, cuts and seals the segment.
    fn answers_for(&self, number: u64) -> bool {
        number % self.config.shards as u64 == self.config.shard as u64
    }

    pub(crate) fn load_ahead(&self, number: u64) -> Rc<Answer<Result<Option<Loaded<H>>, Error>>> {
        let (host, config, done) = (self.host.clone(), self.config.clone(), Answer::new());
        let (answer, footers) = (done.clone(), self.holes);
        self.host.spawn(Priority::Read, async move { done.fill(load(&host, &config, number, footers).await) });
        answer
    }

    /// Takes in a segment: what its listings have, and what a walk finds behind them.
    pub(crate) async fn take_in(&mut self, loaded: Loaded<H>) -> Result<(), Error> {
        let Loaded {
            header,
            file,
            path,
            file_bytes,
            allocated_bytes,
            footer,
            footer_written,
            filled,
            bytes_read,
            damaged,
        } = loaded;
        self.recovery.bytes_read += bytes_read;
        self.recovery.segments += 1;
        let shards = header.shards as usize;
        // A file that was cut off is read, and not continued.
        let own = shards == self.config.shards && file_bytes >= header.bytes;
        let base = self.segments.free_base(header.bytes).ok_or_else(|| Error::Unsupported {
            path: path.clone(),
            what: "the volume is larger than 4 PiB".to_owned(),
        })?;
        let segment = Rc::new(Segment::new(&header, base, file, path, own, false));
        segment.count_punched(header.bytes.saturating_sub(allocated_bytes));
        self.segments.insert(segment.clone());
        if damaged {
            self.recovery.damaged += 1;
            segment.damaged.set(true);
        }
        // A footer that could not be read now may be whole the next time: nothing must be written that it does not list.
        segment.closed.set(footer_written);
        // All that a footer lists was durable, whether its records are still there or not.
        let listed_sequence = footer.as_ref().map_or(0, |footer| footer.sequence_max);
        if let Some(footer) = footer
            && !filled
            && self.take_listing(&segment, &footer).await?
        {
            self.sequence_max = self.sequence_max.max(footer.sequence_max);
            segment.sealed.set(true);
            self.recovery.sealed += 1;
            return Ok(());
        }
        let mut start = (BLOCK_BYTES, listed_sequence, Vec::new(), Vec::new());
        if let Some((path, listing)) = self.snapshot.remove(&(header.number, header.generation)) {
            if !filled && listing.scanned_to <= segment.footer_at && self.take_listing(&segment, &listing).await? {
                self.sequence_max = self.sequence_max.max(listing.sequence_max);
                start = (listing.scanned_to, listing.synced_sequence, listing.parts, listing.records);
            } else {
                start.1 = start.1.max(listing.synced_sequence);
                self.stale.insert(path);
            }
        }
        self.walk(&segment, start).await
    }

    /// Takes in the records of a listing and its parts that are still there; answers whether all parts were whole.
    async fn take_listing(&mut self, segment: &Rc<Segment<H::File>>, listing: &Listing) -> Result<bool, Error> {
        let name = (segment.number, segment.generation);
        let mut records = Vec::new();
        for part in &listing.parts {
            let read = read_listing(&segment.file, name, Role::Part, *part).await;
            self.recovery.bytes_read += u64::from(part.bytes);
            match read {
                Ok(Some(part)) => records.extend(part.records),
                Ok(None) => return Ok(false),
                Err(error) => {
                    tracing::warn!(%error, segment = segment.number, offset = part.offset, "listing cannot be read, segment is walked");
                    return Ok(false);
                }
            }
            if records.len() >= TAKEN_AT_ONCE {
                self.take_listed(segment, std::mem::take(&mut records)).await?;
            }
        }
        records.extend(&listing.records);
        self.take_listed(segment, records).await?;
        Ok(true)
    }

    async fn take_listed(&mut self, segment: &Rc<Segment<H::File>>, mut records: Vec<Listed>) -> Result<(), Error> {
        records.sort_unstable_by_key(|record| record.offset);
        // Bounds all arithmetic with them.
        if let Some(record) = records.iter().find(|record| record.end() > segment.footer_at) {
            let what = format!("a listing names a record beyond the segment's end, at {}", record.offset);
            return Err(Error::CorruptFile { path: segment.path.clone(), what });
        }
        let range = records.first().map_or(0, |first| first.offset)..records.last().map_or(0, |last| last.end());
        let data = Data::of(&segment.file, range).await;
        let data = data.map_err(|source| Error::io("look for holes in", &segment.path, source))?;
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for record in records {
            if !data.is_at(record.offset) {
                gone.push(record);
                continue;
            }
            if record.id.shard(self.config.shards) == self.config.shard {
                kept.push(record);
            }
            self.host.yield_if_needed().await;
        }
        // Neighbours in the index one after the other: its leaves are in the processor's cache then.
        kept.sort_unstable_by_key(|record| record.id);
        for record in kept {
            self.take_record(segment, record).await?;
            self.host.yield_if_needed().await;
        }
        if gone.is_empty() {
            return Ok(());
        }
        // Before more of them goes: a process that was killed may have erased a header without a flush, and if that comes back,
        // its frames must be there.
        flush(segment).await?;
        if self.answers_for(segment.number) {
            for record in gone {
                if data.is_in(record.offset..record.end()) {
                    self.forget_rest(segment, &record).await;
                }
            }
        }
        Ok(())
    }

    /// Erases what is left of a deleted record. Best effort.
    async fn forget_rest(&self, segment: &Segment<H::File>, record: &Listed) {
        if let Err(error) = segment.punch(record.offset, record.bytes()).await {
            tracing::warn!(%error, offset = record.offset, "bytes of a deleted record keep their space until the next start");
        }
    }

    /// Walks what no listing covers: checks records that may be torn, cuts what is, and makes the rest durable.
    async fn walk(
        &mut self,
        segment: &Rc<Segment<H::File>>,
        (start, synced_before, parts, mut records): (u64, u64, Vec<Part>, Vec<Listed>),
    ) -> Result<(), Error> {
        let answers = self.answers_for(segment.number);
        let Scan { records: found, synced, sequence_max, bytes_read, damaged, claims, salvage_end, data_end } =
            scan(segment, start).await?;
        self.sequence_max = self.sequence_max.max(sequence_max);
        self.recovery.bytes_read += bytes_read;
        self.recovery.bytes_walked += bytes_read;
        self.recovery.damaged += damaged;
        segment.damaged.set(segment.damaged.get() || damaged > 0);
        let synced = synced.max(synced_before);
        let (mut tail, mut kept) = (salvage_end.max(start), Vec::new());
        let parts_end = parts.iter().map(|part| part.offset + u64::from(part.bytes)).max();
        tail = records.iter().map(Listed::end).max().unwrap_or(0).max(parts_end.unwrap_or(0)).max(tail);
        let listed: BTreeSet<u64> = records.iter().map(|record| record.offset).collect();
        for found in found {
            let record = found.record;
            let ours = record.id.shard(self.config.shards) == self.config.shard;
            let suspect = found.sequence > synced && !listed.contains(&record.offset);
            // Behind torn records too: their frames are punched.
            tail = tail.max(record.end());
            if suspect && (ours || answers) && self.is_torn(segment, &found).await {
                self.cut(segment, &found, answers).await?;
                continue;
            }
            kept.push(record.offset..record.end());
            if !listed.contains(&record.offset) {
                self.walked = true;
                records.push(record);
                if ours {
                    self.take_record(segment, record).await?;
                }
            }
        }
        self.keep_claims(segment, &claims);
        // Behind whatever else a crash left there: a header that tears over other bytes would pass for a damaged one.
        tail = tail.max(data_end);
        segment.set_tail(tail.min(segment.footer_at));
        // A header that was erased, or cut, is gone for good before its frames go.
        flush(segment).await?;
        // Where something is damaged, a gap may hold what can be salvaged.
        if answers && !segment.damaged.get() {
            punch_gaps(segment, start, &kept, tail.min(segment.footer_at)).await;
            if self.holes {
                self.list_walked(segment, parts, records).await;
            }
        }
        Ok(())
    }

    /// Keeps what an open segment holds for its footer. What is too much for that is listed at its tail now; where there
    /// is no room, the segment stays open, and each start walks it.
    async fn list_walked(&mut self, segment: &Rc<Segment<H::File>>, parts: Vec<Part>, records: Vec<Listed>) {
        let groups = segment.unlisted.borrow_mut().found(parts, records);
        for group in groups {
            let bytes = listing_bytes_max(0, group.len()) as u64;
            match segment.take_for_listing(bytes) {
                Some(offset) => self.to_list.push((segment.clone(), offset, group)),
                None => segment.unlisted.borrow_mut().keep(group),
            }
        }
        self.open_segments.insert(segment.number);
    }

    /// Whether the record's frames were read and are not what was written. Where the drive does not give them, the record
    /// stays: it may have been acknowledged, and reading it says what is wrong.
    async fn is_torn(&mut self, segment: &Segment<H::File>, found: &Found) -> bool {
        match whole(segment, found, &mut self.recovery.bytes_read).await {
            Ok(whole) => !whole,
            Err(error) => {
                self.recovery.damaged += 1;
                // No listing may vouch for it: the next start checks it again.
                segment.damaged.set(true);
                let Listed { offset, id, .. } = found.record;
                tracing::error!(%error, segment = segment.number, offset, %id, "record cannot be checked, kept");
                false
            }
        }
    }

    fn keep_claims(&mut self, segment: &Segment<H::File>, claims: &[(u64, Claim)]) {
        for (offset, Claim { id, takedown, .. }) in claims.iter().copied() {
            if id.shard(self.config.shards) == self.config.shard && self.index.candidates(&id).is_empty() {
                self.index.set_damaged(id, Damaged { segment: segment.number, offset, takedown });
            }
        }
    }

    /// Takes in a record of ours, unless another one of the id is better.
    async fn take_record(&mut self, segment: &Rc<Segment<H::File>>, record: Listed) -> Result<(), Error> {
        let slot = slot_of(segment, &record);
        for other in self.index.candidates(&record.id) {
            if other == slot {
                return Ok(());
            }
            let (at, offset) = self.segments.at(other.address);
            let Ok(header) = read_header(&record.id, &at, offset, other).await else { continue };
            if header.id != record.id {
                continue;
            }
            if other.kind == EntryKind::Takedown || record.kind == Kind::Track {
                self.dead.push((segment.clone(), record));
                return Ok(());
            }
            let bytes = header.bytes() as u64 + header.frames().stored_bytes();
            self.index.remove_track(&record.id, other, bytes);
            at.remove_live(bytes);
            self.dead.push((at, Listed::of(&header)));
        }
        segment.add_live(record.bytes());
        match record.kind {
            Kind::Track => self.index.insert_track(&record.id, slot, record.bytes()),
            Kind::Takedown => self.index.insert_takedown(&record.id, slot),
        }
        Ok(())
    }

    /// Erases a record whose frames were never all written. What follows is flushed before anything is written over it.
    async fn cut(&mut self, segment: &Segment<H::File>, found: &Found, answers: bool) -> Result<(), Error> {
        let Listed { offset, id, .. } = found.record;
        tracing::warn!(segment = segment.number, offset, %id, "torn record cut");
        self.recovery.torn += 1;
        if !answers {
            return Ok(());
        }
        let mut zeros = self.host.buffer(BLOCK);
        zeros.fill(0);
        let written = segment.file.write_at(offset, zeros).await;
        written.map_err(|source| Error::io("cut torn record in", &segment.path, source))
    }

    pub(crate) async fn finish(self, lock: H::Lock) -> Rc<Inner<H>> {
        let shards = self.config.shards as u64;
        let after = self.number_max.map_or(0, |number| number + 1);
        let next_segment = after + (self.config.shard as u64 + shards - after % shards) % shards;
        let active = self.segments.iter().rev().max_by_key(|segment| segment.room()).cloned();
        let active = active.filter(|segment| segment.room() > TAKEDOWN_STRETCH_BYTES);
        let volume = Rc::new(Inner {
            commits: Commits::new(self.sequence_max + 1),
            puts: Budget::new(self.config.put_bytes_max),
            writes: Budget::new(self.config.write_bytes_max),
            reads: Budget::new(self.config.read_bytes_max),
            lookups: Budget::new(LOOKUP_BYTES_MAX),
            creating: Permits::new(1),
            host: self.host,
            guard: self.guard,
            snapshots_dir: self.config.dir.join(SNAPSHOTS_DIR),
            config: self.config,
            segments_dir: self.segments_dir,
            lock: RefCell::new(Some(lock)),
            state: RefCell::new(VolumeState::Open),
            holes: Cell::new(self.holes),
            index: RefCell::new(self.index),
            segments: RefCell::new(self.segments),
            open_segments: RefCell::new(self.open_segments),
            active: RefCell::new(active),
            reserve_segment: RefCell::new(None),
            next_segment: Cell::new(next_segment),
            failures: Cell::new(0),
            claims: Claims::default(),
            abandoned: RefCell::default(),
            unclaimed: Unclaimed::default(),
            ghosts: RefCell::default(),
            since_snapshot: Cell::new((0, 0)),
            scrub_place: Cell::new(self.scrub),
            scrub: Scrub::default(),
            keeping: Permits::new(1),
            compacting: Cell::new(false),
            compacted: Signal::default(),
            findings: Findings::default(),
            upkeep: Rc::new(Signal::default()),
        });
        let is_empty = volume.index.borrow().counts() == Counts::default();
        if is_empty {
            // What is written from now on is right when it is written. Of what was there nothing would be known.
            let verified_at = volume.host.unix_seconds();
            volume.set_scrub_place(ScrubPlace { verified_at, ..volume.scrub_place.get() });
        }
        // For the first status.
        drop(volume.host.space(&volume.segments_dir).await);
        let inner = &volume;
        inner.list_found(self.to_list).await;
        inner.erase_dead(self.dead).await;
        // A volume that was empty must not seem to be of an unknown age at the next start.
        if (self.walked || is_empty) && self.holes {
            inner.snapshot().await;
        }
        inner.host.spawn(Priority::Repair, upkeep(Rc::downgrade(inner), inner.upkeep.clone()));
        inner.unclaimed.finish_on(&inner.host);
        if let Some(limits) = inner.config.health {
            let watch = watch_files(Rc::downgrade(inner), inner.host.clone(), limits.check_period);
            inner.host.spawn(Priority::Repair, watch);
        }
        let rate = inner.config.scrub_bytes_per_second;
        if rate > 0 {
            inner.host.spawn(Priority::Scrub, scrub_for_ever(Rc::downgrade(inner), inner.host.clone(), rate));
        }
        volume
    }
}

pub(crate) fn slot_of<F: File>(segment: &Segment<F>, record: &Listed) -> Slot {
    Slot {
        address: segment.address(record.offset),
        track_bytes: record.track_bytes,
        header_blocks: u8::try_from(u64::from(record.header_bytes) / BLOCK_BYTES).expect("a header is small"),
        kind: match (record.kind, record.compressed) {
            (Kind::Takedown, _) => EntryKind::Takedown,
            (Kind::Track, false) => EntryKind::Track,
            (Kind::Track, true) => EntryKind::CompressedTrack,
        },
    }
}

/// Makes durable what was found: a process that was killed may have written, or erased, without a flush.
async fn flush<F: File>(segment: &Segment<F>) -> Result<(), Error> {
    segment.file.fdatasync().await.map_err(|source| Error::io("flush", &segment.path, source))
}

/// Gives back what lies between the records: erased ones, puts that a crash cut off, torn records. Best effort.
async fn punch_gaps<F: File>(segment: &Segment<F>, start: u64, kept: &[Range<u64>], tail: u64) {
    let mut from = start;
    for (start, end) in kept.iter().map(|record| (record.start, record.end)).chain([(tail, tail)]) {
        if start > from
            && let Err(error) = segment.punch(from, start - from).await
        {
            tracing::warn!(%error, offset = from, bytes = start - from, "a gap keeps its space until the next start");
        }
        from = end.max(from);
    }
}

impl<H: Host> Inner<H> {
    /// Writes listings of what a start found. Best effort: a segment that has none is walked.
    async fn list_found(&self, to_list: Vec<ToList<H>>) {
        for (segment, offset, records) in to_list {
            match self.write_part(&segment, offset, records).await {
                Ok(part) => segment.unlisted.borrow_mut().add_part(part),
                Err(source) => self.segment_failed(&segment, &Error::io("write listing to", &segment.path, source)),
            }
        }
    }

    /// Erases whole records that are not to be read: second copies, and tracks whose erasure was cut off.
    async fn erase_dead(self: &Rc<Self>, dead: Vec<(Rc<Segment<H::File>>, Listed)>) {
        for (segment, record) in dead {
            let header_bytes = u64::from(record.header_bytes);
            if let Err(error) = self.erase_stretch(&segment, record.offset, header_bytes, record.bytes()).await {
                tracing::warn!(%error, id = %record.id, "second copy, or bytes of a track that was taken down, stay until the next start");
            }
        }
    }
}

impl<H: Host> Drop for Inner<H> {
    fn drop(&mut self) {
        // Upkeep sees that the volume is gone.
        self.upkeep.notify();
    }
}
