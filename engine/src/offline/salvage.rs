//! Copies every track that is whole from a volume, or from what is left of one.
//!
//! Nothing but the records themselves is needed: a header is known by its checksum and by its own place, frames by their
//! trailers, and a track by its id. Listings and damaged headers help to find tracks whose header is lost.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deadwax_track::{Tags, TrackId};
use serde::Serialize;

use super::finding::{Finding, FindingKind, Progress};
use super::image::{FileImage, Image, is_hole};
use super::track::{Wanted, fits};
use super::tree::{files_in, hold};
use super::walk::{Met, header_at, likely_generation, walk};
use crate::error::Error;
use crate::format::{BLOCK, Kind, Listed, SegmentHeader};
use crate::identity::{SEGMENTS_DIR, SUPERBLOCK_FILE};

/// How many findings does a report name? All are counted, and each is told as it is found.
const FINDINGS_MAX: usize = 65_536;

/// What became of a track that was offered to a [`Sink`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It is there now, durable.
    New,
    /// The same track was there already.
    Present,
    /// Something else was there under its name, and was left as it is.
    Conflict,
}

/// Where salvaged tracks go. For each track: [`begin`](Self::begin), [`write`](Self::write) until all is there, then
/// [`keep`](Self::keep) if it was proved, or [`discard`](Self::discard). An error ends the salvage.
pub trait Sink {
    /// A track comes, with the tags of its record where they are whole. Its bytes are not proved yet.
    fn begin(&mut self, id: &TrackId, bytes: u64, tags: &Tags) -> io::Result<()>;

    /// The next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// All were written, and they are the track's.
    fn keep(&mut self) -> io::Result<Kept>;

    /// The track is not whole: nothing of it is to stay.
    fn discard(&mut self) -> io::Result<()>;
}

/// What to salvage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SalvageOptions {
    /// Also tracks that a takedown bars.
    pub taken_down_too: bool,
}

/// What a salvage found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SalvageReport {
    /// A process has the volume open.
    pub in_use: bool,
    /// Files looked into.
    pub files: u64,
    /// Records of tracks that were found.
    pub found: u64,
    /// Tracks that were copied.
    pub salvaged: u64,
    /// Of these, how many had lost their header, and so have no tags.
    pub without_header: u64,
    /// Their bytes.
    pub salvaged_bytes: u64,
    /// Tracks that were there already, from another salvage.
    pub present: u64,
    /// Tracks that were left out, because something else is there under their name.
    pub conflicts: u64,
    /// Records of tracks that are not whole, and of which no other record was.
    pub damaged: u64,
    /// How many of their bytes are as they were written.
    pub damaged_intact_bytes: u64,
    /// Further records of tracks that were copied.
    pub duplicates: u64,
    /// Tracks that were left out because they were taken down.
    pub taken_down: u64,
    /// Blocks that the drive did not give.
    pub unreadable_blocks: u64,
    /// What is not whole, in the order of the drive; the first 65,536.
    pub findings: Vec<Finding>,
}

/// Copies the tracks of `source`, a volume's directory, a folder of segments' files, or one such file, whole or not. `tell` gets
/// what is not whole, as it is found, `progress` how far it is. Takes some 64 bytes of memory a track, and what one
/// segment lists.
///
/// Errors: Invalid (there is nothing to look into), Io (the source cannot be listed, or the sink failed).
pub fn salvage(
    source: &Path,
    options: SalvageOptions,
    sink: &mut dyn Sink,
    tell: &mut dyn FnMut(&Finding),
    progress: &mut dyn FnMut(Progress),
) -> Result<SalvageReport, Error> {
    let paths = files_of(source)?;
    let (_lock, in_use) = hold(&source.join(SUPERBLOCK_FILE));
    let mut files = Vec::new();
    let report = SalvageReport { in_use, ..SalvageReport::default() };
    let mut salvage = Salvage::new(options, sink, tell, progress, report);
    for path in paths {
        match FileImage::open(&path) {
            Ok(image) => files.push((path, image)),
            Err(error) => salvage.find(FindingKind::Unreadable, &path, 0, None, error.to_string()),
        }
    }
    let images: Vec<_> = files.iter().map(|(path, image)| (path.as_path(), image as &dyn Image)).collect();
    salvage.all(&images)?;
    Ok(salvage.report)
}

/// The files that may hold records.
fn files_of(source: &Path) -> Result<Vec<PathBuf>, Error> {
    if source.is_file() {
        return Ok(vec![source.to_owned()]);
    }
    let segments = source.join(SEGMENTS_DIR);
    let paths = files_in(if segments.is_dir() { &segments } else { source })?;
    if paths.is_empty() {
        return Err(Error::Invalid(format!("{} has no files to look into", source.display())));
    }
    Ok(paths)
}

pub(super) struct Salvage<'a> {
    options: SalvageOptions,
    sink: &'a mut dyn Sink,
    tell: &'a mut dyn FnMut(&Finding),
    progress: &'a mut dyn FnMut(Progress),
    at: Progress,
    pub(super) report: SalvageReport,
    barred: HashSet<TrackId>,
    done: HashSet<TrackId>,
    /// Tracks of which no whole record was found yet.
    broken: Vec<(Finding, u64)>,
}

/// A record of a file whose header is whole.
struct Found {
    listed: Listed,
    generation: u64,
}

impl<'a> Salvage<'a> {
    pub(super) fn new(
        options: SalvageOptions,
        sink: &'a mut dyn Sink,
        tell: &'a mut dyn FnMut(&Finding),
        progress: &'a mut dyn FnMut(Progress),
        report: SalvageReport,
    ) -> Self {
        let (at, barred, done, broken) = (Progress::default(), HashSet::new(), HashSet::new(), Vec::new());
        Self { options, sink, tell, progress, at, report, barred, done, broken }
    }

    /// Salvages from all `images`, takedowns first: they may stand anywhere.
    pub(super) fn all(&mut self, images: &[(&Path, &dyn Image)]) -> Result<(), Error> {
        self.report.files = images.len() as u64;
        let mut generations = Vec::new();
        for (_, image) in images {
            self.at.total_bytes += image.allocated_bytes();
            let generation = generation_of(*image);
            generations.push(generation);
            if generation.is_some() && !self.options.taken_down_too {
                walk(*image, 0, generation, &mut |met| {
                    if let Met::Record(header) = met
                        && header.kind == Kind::Takedown
                    {
                        self.barred.insert(header.id);
                    }
                });
            }
        }
        for ((path, image), generation) in images.iter().zip(generations) {
            let done_before = self.at.done_bytes;
            if let Some(generation) = generation {
                self.image(path, *image, generation)?;
            }
            self.at.done_bytes = done_before + image.allocated_bytes();
            (self.progress)(self.at);
        }
        for (finding, intact_bytes) in std::mem::take(&mut self.broken) {
            // Another record of it may have been whole.
            if finding.id.is_none_or(|id| !self.done.contains(&id)) {
                self.report.damaged += 1;
                self.report.damaged_intact_bytes += intact_bytes;
                self.found(finding);
            }
        }
        Ok(())
    }

    fn image(&mut self, path: &Path, image: &dyn Image, generation: u64) -> Result<(), Error> {
        let (mut records, mut lost, mut listings, mut unreadable) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        walk(image, 0, Some(generation), &mut |met| match met {
            Met::Record(header) if header.kind == Kind::Track => {
                records.push(Found { listed: Listed::of(&header), generation: header.generation });
            }
            Met::Record(_) => {}
            Met::Listing(listing) => listings.extend(listing.records),
            Met::Damaged { offset, damage, id, track } => lost.push((offset, damage.to_string(), id, track)),
            Met::Unreadable { offset, error } => unreadable.push((offset, error.to_string())),
        });
        for (offset, what) in unreadable {
            self.report.unreadable_blocks += 1;
            self.find(FindingKind::Unreadable, path, offset, None, what);
        }
        let known: BTreeSet<u64> = records.iter().map(|found| found.listed.offset).collect();
        let done_before = self.at.done_bytes;
        for found in records {
            self.report.found += 1;
            self.record(path, image, &found)?;
            self.at.done_bytes = done_before + found.listed.end();
            (self.progress)(self.at);
        }
        // Listings tell more surely than damaged headers.
        let mut headless: Vec<_> = listings.into_iter().filter(|listed| listed.kind == Kind::Track).collect();
        let listed_at: BTreeSet<u64> = headless.iter().map(|listed| listed.offset).collect();
        headless.retain(|listed| !known.contains(&listed.offset) && !was_deleted(image, listed.offset));
        for (offset, what, id, track) in lost.into_iter().filter(|(offset, ..)| !listed_at.contains(offset)) {
            match track {
                Some(track) => headless.push(track),
                None => {
                    self.report.found += 1;
                    self.broken(path, offset, id, format!("header: {what}"), 0);
                }
            }
        }
        headless.sort_by_key(|listed| listed.offset);
        headless.dedup_by_key(|listed| listed.offset);
        for listed in headless {
            self.report.found += 1;
            self.headless(path, image, listed, generation)?;
        }
        Ok(())
    }

    fn record(&mut self, path: &Path, image: &dyn Image, found: &Found) -> Result<(), Error> {
        let Found { listed, generation } = found;
        if !self.is_wanted(&listed.id) {
            return Ok(());
        }
        match header_at(image, listed.offset, *generation) {
            Ok(header) => {
                let tags = header.tags.decode().unwrap_or_default();
                self.copy(path, image, &Wanted::of(&header), &tags)?;
            }
            Err(damage) => self.broken(path, listed.offset, listed.id, format!("header: {damage}"), 0),
        }
        Ok(())
    }

    /// A track whose header is lost: its frames may be whole all the same.
    fn headless(&mut self, path: &Path, image: &dyn Image, listed: Listed, generation: u64) -> Result<(), Error> {
        if !self.is_wanted(&listed.id) {
            return Ok(());
        }
        let wanted = Wanted::without_header(listed, generation);
        match wanted.filter(|wanted| fits(&wanted.listed, image.bytes())) {
            Some(wanted) => {
                if self.copy(path, image, &wanted, &Tags::default())? {
                    self.report.without_header += 1;
                }
            }
            None => self.broken(path, listed.offset, listed.id, "its header is lost".to_owned(), 0),
        }
        Ok(())
    }

    /// Whether the track is to be copied; counts it where not.
    fn is_wanted(&mut self, id: &TrackId) -> bool {
        let barred = self.barred.contains(id);
        self.report.taken_down += u64::from(barred);
        let again = !barred && self.done.contains(id);
        self.report.duplicates += u64::from(again);
        !barred && !again
    }

    /// Copies a track to the sink if it proves to be whole; answers whether.
    fn copy(&mut self, path: &Path, image: &dyn Image, wanted: &Wanted, tags: &Tags) -> Result<bool, Error> {
        let listed = &wanted.listed;
        let failed = |source: io::Error| Error::Io {
            what: "write salvaged track",
            path: PathBuf::from(listed.id.to_string()),
            source: Arc::new(source),
        };
        self.sink.begin(&listed.id, listed.track_bytes, tags).map_err(failed)?;
        let sink = &mut *self.sink;
        let reading = wanted.read(image, |bytes| sink.write(bytes)).map_err(failed)?;
        if let Some((at, what)) = reading.fault {
            self.sink.discard().map_err(failed)?;
            let (intact, all) = (reading.intact_bytes, listed.payload_bytes);
            let what = format!("{what} (at {at}; {intact} of {all} stored bytes are intact)");
            self.broken(path, listed.offset, listed.id, what, intact);
            return Ok(false);
        }
        match self.sink.keep().map_err(failed)? {
            Kept::New => {
                self.report.salvaged += 1;
                self.report.salvaged_bytes += listed.track_bytes;
            }
            Kept::Present => self.report.present += 1,
            Kept::Conflict => {
                self.report.conflicts += 1;
                let what = "whole, but another file is there under its name".to_owned();
                self.find(FindingKind::Stranger, path, listed.offset, Some(listed.id), what);
            }
        }
        self.done.insert(listed.id);
        Ok(true)
    }

    fn broken(&mut self, path: &Path, offset: u64, id: TrackId, what: String, intact_bytes: u64) {
        if self.barred.contains(&id) {
            self.report.taken_down += 1;
            return;
        }
        let (kind, path) = (FindingKind::Track, path.to_owned());
        self.broken.push((Finding { kind, path, segment: None, offset, id: Some(id), what }, intact_bytes));
    }

    fn find(&mut self, kind: FindingKind, path: &Path, offset: u64, id: Option<TrackId>, what: String) {
        self.found(Finding { kind, path: path.to_owned(), segment: None, offset, id, what });
    }

    fn found(&mut self, finding: Finding) {
        (self.tell)(&finding);
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }
}

/// The generation of the segment that the file is, or was.
fn generation_of(image: &dyn Image) -> Option<u64> {
    let mut block = [0; BLOCK];
    let header = image.read_at(0, &mut block).ok().and_then(|()| SegmentHeader::decode(&block).ok());
    header.map(|header| header.generation).or_else(|| likely_generation(image))
}

/// Whether a record that is listed was deleted: that punches its header. Where the file was copied and lost its holes, zeros
/// are taken for one, so that nothing that was deleted comes back.
fn was_deleted(image: &dyn Image, offset: u64) -> bool {
    let mut block = [0; BLOCK];
    let read = image.read_at(offset, &mut block).is_ok();
    is_hole(image, offset) || read && block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
#[path = "salvage_faults.rs"]
mod faults;
