//! Reading everything again, slowly, so that rot is found while other copies are whole.
//!
//! Listings drive it, not headers: a record whose header rotted is still known by its id. Segments go in the order of their
//! numbers, records in the order of their space, in reads of up to 1 MiB. Where a fault shows, the index is asked again
//! before it counts: a record that was deleted or moved meanwhile is no damage.

mod doubt;
mod pass;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use deadwax_track::{Manifest, TrackId};
use serde::{Deserialize, Serialize};

use crate::config::{READ_BYTES_MAX, SNAPSHOT_RECORDS};
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, FrameStamp, Kind, Listed, RecordHeader, ScrubPlace, SegmentHeader};
use crate::host::{Access, File as _, Host, is_passing};
use crate::identity::{SUPERBLOCK_FILE, parse};
use crate::listings::{footer_bytes, read_snapshot, snapshot_path};
use crate::recovery::slot_of;
use crate::scan::scan;
use crate::segment::Segment;
use crate::signal::Signal;
use crate::volume::Inner;

use self::doubt::Doubt;
pub(crate) use self::pass::scrub_for_ever;

/// How many records does scrub know at a time? Some 1.5 MiB; the listings of a segment with more are read again for the rest.
const BATCH_RECORDS: usize = 16_384;
/// Gaps up to this are read over: cheaper than another read.
const GAP_BYTES_MAX: u64 = 64 * 1024;
/// After so many stretches in a row that cannot be read, the drive is what fails, and not the tracks.
const UNREADABLE_MAX: u32 = 256;
/// How often may scrub have its place written down? That much is read again after a crash.
const PLACE_EVERY: Duration = Duration::from_secs(60);

/// How far scrub is, and what it found since the volume was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Whether a pass is under way.
    pub running: bool,
    /// The segment where it goes on.
    pub segment: u64,
    /// Where in that segment's file, in bytes.
    pub offset: u64,
    /// How often everything was gone through, since the volume was made.
    pub passes: u64,
    /// What was there then has been read since: when the last pass to the end began, or when the volume was empty, in Unix
    /// seconds. What is written later was right when it was written. 0: not known, as its snapshot is lost, or it is of an
    /// earlier program: then a pass to the end tells; or as records that were found damaged are there still.
    pub verified_at: u64,
    /// How much of the records the pass has behind it, in bytes. A little less or more: records come and go.
    pub pass_bytes: u64,
    /// What all records take, in bytes.
    pub all_bytes: u64,
    /// Records that the pass under way found damaged, or the last one where there is none.
    pub pass_damaged: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Records that were looked at, damaged ones too.
    pub records_checked: u64,
    /// Records that were found damaged; one that is found in two passes counts twice.
    pub damaged: u64,
    /// Listings, segment headers, snapshots and superblocks that were found damaged: no track is lost with them.
    pub files_damaged: u64,
}

/// What one call of [`Volume::scrub_pass`] did.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ScrubReport {
    /// Bytes read.
    pub bytes_read: u64,
    /// Records that were looked at, damaged ones too.
    pub records_checked: u64,
    /// Records that were found damaged.
    pub damaged: u64,
    /// Other things that were found damaged.
    pub files_damaged: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What a handle keeps of its scrub.
#[derive(Default)]
pub(crate) struct Scrub {
    status: Cell<ScrubStatus>,
    /// Whether something of it is at the drive.
    stepping: Cell<bool>,
    stepped: Signal,
    /// When its place was last to be written down.
    place_asked: Cell<Duration>,
    /// The record that is being checked.
    current: RefCell<Option<Current>>,
    unreadable_in_a_row: Cell<u32>,
    doubt: Doubt,
    /// The rate that somebody asked for, until the pass ends.
    asked_rate: Cell<Option<u64>>,
    /// Whether the pass under way is to begin anew.
    anew: Cell<bool>,
}

/// What is known of the record whose frames come next.
#[derive(Clone, Copy)]
struct Current {
    offset: u64,
    nonce: Option<u32>,
    damaged: bool,
}

impl Scrub {
    fn count(&self, change: impl FnOnce(&mut ScrubStatus)) {
        let mut status = self.status.get();
        change(&mut status);
        self.status.set(status);
    }

    /// Returns when nothing of it is at the drive.
    pub(crate) async fn idle(&self) {
        while self.stepping.get() {
            self.stepped.wait().await;
        }
    }
}

/// What is next.
enum Work<F> {
    /// The superblock and the snapshot, where the pass is at its start.
    Files,
    /// The segment at the place, or the end.
    Segment,
    /// Records in the order of their space, from `next` on.
    Records { segment: Rc<Segment<F>>, records: Vec<Listed>, next: Unit, more: bool },
}

/// A header, or a frame: what is read and checked as one.
#[derive(Clone, Copy)]
struct Unit {
    /// Which of the records.
    record: usize,
    frame: Option<u32>,
}

impl Unit {
    /// Where it lies in the segment's file, and its length.
    fn place(self, records: &[Listed]) -> (u64, u64) {
        let record = &records[self.record];
        let header_bytes = u64::from(record.header_bytes);
        match self.frame {
            None => (record.offset, header_bytes),
            Some(number) => {
                let frames = record.frames();
                (record.offset + header_bytes + frames.start(number), frames.disk_bytes(number) as u64)
            }
        }
    }

    fn after(self, records: &[Listed]) -> Self {
        let frame = self.frame.map_or(0, |frame| frame + 1);
        if frame < records[self.record].frames().count() {
            Self { frame: Some(frame), ..self }
        } else {
            Self { record: self.record + 1, frame: None }
        }
    }
}

impl<H: Host> Inner<H> {
    async fn step(&self, work: Work<H::File>) -> Result<Option<Work<H::File>>, Error> {
        let place = self.scrub_place.get();
        match work {
            Work::Files => {
                if (place.segment, place.offset) == (0, 0) {
                    self.set_scrub_place(ScrubPlace { began_at: self.host.unix_seconds(), ..place });
                    self.check_files().await?;
                }
                Ok(Some(Work::Segment))
            }
            Work::Segment => {
                let Some(segment) = self.segments.borrow().from(place.segment) else {
                    // Of one that an earlier program began it is not known when.
                    let verified_at =
                        if place.began_at > 0 { self.pass_verified(place.began_at) } else { place.verified_at };
                    let passes = place.passes + 1;
                    self.set_scrub_place(ScrubPlace { segment: 0, offset: 0, passes, verified_at, began_at: 0 });
                    self.scrub.place_asked.set(Duration::ZERO);
                    self.ask_for_snapshot();
                    return Ok(None);
                };
                let from = if segment.number == place.segment { place.offset } else { 0 };
                if from == 0 {
                    self.check_segment_header(&segment).await?;
                }
                let (records, more) = self.records_from(&segment, from).await?;
                Ok(Some(Work::Records { segment, records, next: Unit { record: 0, frame: None }, more }))
            }
            Work::Records { segment, records, next, more } => {
                let next = self.check_stretch(&segment, &records, next).await?;
                // It may have found that nobody knows when the volume was verified.
                let place = self.scrub_place.get();
                let at = |offset| ScrubPlace { segment: segment.number, offset, ..place };
                if let Some(record) = records.get(next.record) {
                    // A record that is half checked is checked again after a restart.
                    self.set_scrub_place(at(record.offset));
                    return Ok(Some(Work::Records { segment, records, next, more }));
                }
                if more {
                    self.set_scrub_place(at(records.last().map_or(0, |last| last.offset + BLOCK_BYTES)));
                } else {
                    self.set_scrub_place(ScrubPlace { segment: segment.number + 1, offset: 0, ..place });
                    self.ask_for_snapshot();
                }
                Ok(Some(Work::Segment))
            }
        }
    }

    /// Has the place written down, unless that was done a short while ago. Upkeep does it, as one at a time must.
    fn ask_for_snapshot(&self) {
        let now = self.host.now();
        if now < self.scrub.place_asked.get() + PLACE_EVERY && self.scrub.place_asked.get() > Duration::ZERO {
            return;
        }
        self.scrub.place_asked.set(now);
        self.since_snapshot.set((SNAPSHOT_RECORDS, self.since_snapshot.get().1));
        self.upkeep.notify();
    }

    fn file_damaged(&self, path: &std::path::Path, what: &dyn std::fmt::Display) {
        tracing::error!(path = %path.display(), %what, "damaged file found by scrub");
        self.scrub.count(|status| status.files_damaged += 1);
    }

    /// The superblock and the snapshot. A damaged snapshot is written anew.
    async fn check_files(&self) -> Result<(), Error> {
        let path = self.config.dir.join(SUPERBLOCK_FILE);
        let read = async { self.host.open(&path, Access::Read).await?.read_at(0, BLOCK).await };
        let read = passing(read.await).map_err(|source| Error::io("read", &path, source))?;
        self.scrub.count(|status| status.bytes_read += BLOCK_BYTES);
        match read {
            Ok(block) => match parse(&path, &block) {
                Ok(found) if found == self.config.expected => {}
                Ok(_) => self.file_damaged(&path, &"it is another volume's"),
                Err(error) => self.file_damaged(&path, &error),
            },
            Err(error) => self.file_damaged(&path, &error),
        }
        let path = snapshot_path(&self.snapshots_dir, self.config.shard);
        if self.holes.get()
            && !matches!(self.host.open(&path, Access::Read).await, Err(error) if error.kind() == io::ErrorKind::NotFound)
        {
            match read_snapshot(&self.host, &path).await {
                Some(snapshot) => self.scrub.count(|status| status.bytes_read += snapshot.header.bytes),
                None => {
                    self.file_damaged(&path, &"it is not whole: it is written anew");
                    self.scrub.place_asked.set(Duration::ZERO);
                    self.ask_for_snapshot();
                }
            }
        }
        Ok(())
    }

    async fn check_segment_header(&self, segment: &Segment<H::File>) -> Result<(), Error> {
        let read = passing(segment.file.read_at(0, BLOCK).await);
        let read = read.map_err(|source| Error::io("read", &segment.path, source))?;
        self.scrub.count(|status| status.bytes_read += BLOCK_BYTES);
        match read {
            _ if segment.freed.get() => {}
            Ok(block) => match SegmentHeader::decode(&block) {
                Ok(header) if (header.number, header.generation) == (segment.number, segment.generation) => {}
                Ok(_) => self.file_damaged(&segment.path, &"its header is another segment's"),
                Err(damage) => self.file_damaged(&segment.path, &format!("its header: {damage}")),
            },
            Err(error) => self.file_damaged(&segment.path, &format!("its header cannot be read: {error}")),
        }
        Ok(())
    }

    /// Our records of the segment that are settled, from `from` on in the order of their space, at most a batch; and whether there
    /// are more.
    async fn records_from(&self, segment: &Rc<Segment<H::File>>, from: u64) -> Result<(Vec<Listed>, bool), Error> {
        let mut batch = Batch { from, records: Vec::new(), more: false };
        let is_listed = self.open_segments.borrow().contains(&segment.number) && !segment.damaged.get();
        let listed = if segment.sealed.get() || is_listed {
            let whole = self.take_listed_records(segment, &mut batch).await;
            match whole {
                Ok(()) => true,
                Err(_) if segment.freed.get() => return Ok((Vec::new(), false)),
                // Sealed meanwhile, or rotten.
                Err(Error::CorruptFile { path, what }) => {
                    self.file_damaged(&path, &what);
                    segment.damaged.set(true);
                    false
                }
                Err(Error::Io { source, path, .. }) if !is_passing(&source) => {
                    self.file_damaged(&path, &format!("a listing cannot be read: {source}"));
                    segment.damaged.set(true);
                    false
                }
                Err(error) => return Err(error),
            }
        } else {
            false
        };
        if !listed {
            batch = Batch { from, records: Vec::new(), more: false };
            self.take_walked_records(segment, &mut batch).await?;
        }
        let Batch { mut records, more, .. } = batch;
        records.sort_unstable_by_key(|record| record.offset);
        Ok((records, more))
    }

    fn is_ours(&self, segment: &Segment<H::File>, record: &Listed) -> bool {
        self.owns(&record.id) && self.index.borrow().has(&record.id, slot_of(segment, record))
    }

    async fn take_listed_records(&self, segment: &Rc<Segment<H::File>>, batch: &mut Batch) -> Result<(), Error> {
        let (parts, records) = if segment.sealed.get() {
            self.scrub.count(|status| status.bytes_read += u64::from(footer_bytes(segment)));
            self.sealed_contents(segment).await?
        } else {
            segment.unlisted.borrow().contents()
        };
        batch.add(records, |record| self.is_ours(segment, record));
        for part in parts {
            self.scrub.count(|status| status.bytes_read += u64::from(part.bytes));
            let records = self.part_of(segment, part).await?;
            batch.add(records, |record| self.is_ours(segment, record));
            self.host.yield_if_needed().await;
        }
        Ok(())
    }

    /// Walks a segment that has no whole listing: headers tell what is in it.
    async fn take_walked_records(&self, segment: &Segment<H::File>, batch: &mut Batch) -> Result<(), Error> {
        let found = match scan(segment, BLOCK_BYTES).await {
            Ok(found) => found,
            Err(error) => {
                self.file_damaged(&segment.path, &error);
                return Ok(());
            }
        };
        self.scrub.count(|status| status.bytes_read += found.bytes_read);
        for (offset, claim) in found.claims {
            let address = segment.address(offset);
            let (known, claimed) = {
                let index = self.index.borrow();
                let known = index.candidates(&claim.id).iter().any(|slot| slot.address == address);
                (known, index.damaged(&claim.id).is_some_and(|at| (at.segment, at.offset) == (segment.number, offset)))
            };
            if offset >= batch.from && (known || claimed) && self.owns(&claim.id) {
                self.scrub.count(|status| status.records_checked += 1);
                let what = "the record's header is damaged".to_owned();
                self.found_damaged((claim.id, known), segment, (offset, offset), what);
            }
        }
        let records = found.records.into_iter().map(|found| found.record).collect();
        batch.add(records, |record| self.is_ours(segment, record));
        Ok(())
    }

    /// `counted`: see [`Damage`](crate::Damage). `record`: where that begins, `offset`: where it is damaged.
    fn found_damaged(
        &self,
        (id, counted): (TrackId, bool),
        segment: &Segment<H::File>,
        (record, offset): (u64, u64),
        what: String,
    ) {
        self.scrub.count(|status| {
            status.damaged += 1;
            status.pass_damaged += 1;
        });
        if counted {
            self.doubt(id, segment.address(record));
        }
        self.report_of(&Error::Corrupt { id, segment: segment.number, offset, what }, counted);
    }

    /// Reads and checks from `next` on what one read gives. Answers what follows.
    async fn check_stretch(
        &self,
        segment: &Segment<H::File>,
        records: &[Listed],
        mut next: Unit,
    ) -> Result<Unit, Error> {
        while next.record < records.len() && !self.is_ours(segment, &records[next.record]) {
            next = Unit { record: next.record + 1, frame: None };
        }
        if next.record == records.len() {
            return Ok(next);
        }
        let (start, bytes) = next.place(records);
        let (mut units, mut end, mut after) = (vec![next], start + bytes, next.after(records));
        while after.record < records.len() {
            let (offset, bytes) = after.place(records);
            if offset < end || offset > end + GAP_BYTES_MAX || offset + bytes > start + READ_BYTES_MAX {
                break;
            }
            units.push(after);
            end = offset + bytes;
            after = after.after(records);
        }
        let length = |bytes: u64| usize::try_from(bytes).expect("at most a read");
        let read = passing(segment.file.read_at(start, length(end - start)).await);
        self.scrub.count(|status| status.bytes_read += end - start);
        match read.map_err(|source| Error::io("read", &segment.path, source))? {
            Ok(buffer) => {
                self.scrub.unreadable_in_a_row.set(0);
                for unit in units {
                    let (offset, bytes) = unit.place(records);
                    let slice = &buffer[length(offset - start)..length(offset + bytes - start)];
                    self.check(segment, &records[unit.record], unit, offset, Ok(slice));
                    self.host.yield_if_needed().await;
                }
            }
            // Somewhere in it: one by one.
            Err(_) => {
                for unit in units {
                    let (offset, bytes) = unit.place(records);
                    let read = passing(segment.file.read_at(offset, length(bytes)).await);
                    self.scrub.count(|status| status.bytes_read += bytes);
                    let read = read.map_err(|source| Error::io("read", &segment.path, source))?;
                    let failures = if read.is_ok() { 0 } else { self.scrub.unreadable_in_a_row.get() + 1 };
                    self.scrub.unreadable_in_a_row.set(failures);
                    let read = match read {
                        Err(source) if failures > UNREADABLE_MAX => {
                            return Err(Error::io("read", &segment.path, source));
                        }
                        read => read,
                    };
                    self.check(segment, &records[unit.record], unit, offset, read.as_deref());
                }
            }
        }
        Ok(after)
    }

    /// Checks a header or a frame. A record is reported once.
    fn check(
        &self,
        segment: &Segment<H::File>,
        record: &Listed,
        unit: Unit,
        offset: u64,
        read: Result<&[u8], &io::Error>,
    ) {
        let mut current = self.scrub.current.take().filter(|current| current.offset == record.offset);
        let known = current.get_or_insert(Current { offset: record.offset, nonce: None, damaged: false });
        if unit.frame.is_none() {
            *known = Current { offset: record.offset, nonce: None, damaged: false };
            self.scrub.count(|status| status.records_checked += 1);
        }
        let fault = match (read, unit.frame) {
            (Err(error), _) => Some(format!("it cannot be read: {error}")),
            (Ok(bytes), None) => match header_fault(segment, record, bytes) {
                Ok(nonce) => {
                    known.nonce = Some(nonce);
                    None
                }
                Err(fault) => Some(fault),
            },
            (Ok(bytes), Some(number)) => {
                let generation = segment.generation;
                let stamp = FrameStamp { id: record.id.half(), generation, nonce: known.nonce };
                let fault = stamp.check(bytes, number, record.frames().payload_bytes(number)).err();
                fault.map(|fault| format!("frame {number}: {fault}"))
            }
        };
        if let Some(fault) = fault
            && !known.damaged
            && self.is_ours(segment, record)
        {
            known.damaged = true;
            self.found_damaged((record.id, true), segment, (record.offset, offset), fault);
        }
        *self.scrub.current.borrow_mut() = current;
    }
}

/// The lowest records of a segment, as many as scrub holds.
struct Batch {
    from: u64,
    records: Vec<Listed>,
    more: bool,
}

impl Batch {
    fn add(&mut self, records: Vec<Listed>, keep: impl Fn(&Listed) -> bool) {
        self.records.extend(records.into_iter().filter(|record| record.offset >= self.from && keep(record)));
        if self.records.len() > BATCH_RECORDS {
            self.records.sort_unstable_by_key(|record| record.offset);
            self.records.truncate(BATCH_RECORDS);
            self.more = true;
        }
    }
}

/// An error of the machine ends the pass; one of the drive says something of the drive.
fn passing<T>(read: io::Result<T>) -> io::Result<io::Result<T>> {
    match read {
        Err(error) if is_passing(&error) => Err(error),
        read => Ok(read),
    }
}

/// What is wrong with a record's header; its nonce where nothing is.
fn header_fault<F>(segment: &Segment<F>, record: &Listed, bytes: &[u8]) -> Result<u32, String> {
    let header = RecordHeader::decode(bytes).map_err(|damage| damage.to_string())?;
    if header.generation != segment.generation || Listed::of(&header) != *record {
        return Err("the header is another record's".to_owned());
    }
    if header.kind == Kind::Track {
        header.tags.decode().map_err(|error| error.to_string())?;
        let proved = Manifest::proved(&record.id, header.track_bytes, header.pieces);
        proved.map_err(|error| error.to_string())?;
    }
    Ok(header.nonce)
}
