//! Checks all of a volume at rest: every header, listing and frame, and whether they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use deadwax_track::TrackId;
use serde::Serialize;

use super::finding::{Finding, FindingKind, Progress};
use super::image::{FileImage, Image, is_hole};
use super::segment::{Footer, Segment};
use super::track::{Wanted, check_header, fits};
use super::tree::Tree;
use super::walk::{Met, header_at, walk};
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Kind, Listed, Listing, RecordHeader};
use crate::identity::VolumeId;

/// How many findings does a report name? All are counted, and each is told as it is found.
const FINDINGS_MAX: usize = 65_536;

/// What a check of a volume found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Whose volume it is, where the superblock tells.
    pub volume: Option<VolumeId>,
    /// Segments looked into.
    pub segments: u64,
    /// Of these, those with a footer.
    pub sealed: u64,
    /// Tracks that were proved whole.
    pub tracks: u64,
    /// Their bytes.
    pub track_bytes: u64,
    /// Takedowns that were read.
    pub takedowns: u64,
    /// Records that are listed and were deleted.
    pub deleted: u64,
    /// Bytes of segments that were gone through.
    pub checked_bytes: u64,
    /// How many findings are damage.
    pub damaged: u64,
    /// How many are notices.
    pub notices: u64,
    /// What was found, in the order of the drive; the first 65,536.
    pub findings: Vec<Finding>,
}

/// Checks the volume in `dir`, which nobody may have open. Writes nothing, and keeps others from opening it meanwhile. `tell`
/// gets each finding as it is made, `progress` how far it is. Takes 32 bytes of memory a track, and what one segment lists.
///
/// Errors: Invalid (no volume), Locked (a process has it open), Io (a file cannot be opened or listed).
pub fn verify(
    dir: &Path,
    tell: &mut dyn FnMut(&Finding),
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, Error> {
    let tree = Tree::open(dir)?;
    if tree.in_use {
        let what = "a process has it open: stop that first".to_owned();
        return Err(Error::Locked { path: dir.to_owned(), what });
    }
    let mut check =
        Check { tell, progress, report: VerifyReport::default(), at: Progress::default(), records: Vec::new() };
    check.tree(&tree);
    let open = tree.open_listings();
    let mut paths = BTreeMap::new();
    for (number, path) in &tree.segments {
        check.at.total_bytes += image_of(path)?.allocated_bytes();
        paths.insert(*number, path);
    }
    for (number, path) in &tree.segments {
        let segment = Segment::load(path, *number, &open)?;
        check.segment(&tree, &segment);
    }
    check.across(&paths)?;
    Ok(check.report)
}

fn image_of(path: &Path) -> Result<FileImage, Error> {
    FileImage::open(path).map_err(|source| Error::io("open", path, source))
}

/// A record that is whole, for comparing them across segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    half: [u8; 8],
    rest: u32,
    /// Takedowns first.
    track: bool,
    block: u32,
    segment: u64,
}

struct Check<'a> {
    tell: &'a mut dyn FnMut(&Finding),
    progress: &'a mut dyn FnMut(Progress),
    report: VerifyReport,
    at: Progress,
    records: Vec<Seen>,
}

impl Check<'_> {
    fn find(&mut self, kind: FindingKind, path: &Path, segment: Option<u64>, offset: u64, what: impl Into<String>) {
        let finding = Finding { kind, path: path.to_owned(), segment, offset, id: None, what: what.into() };
        self.found(finding);
    }

    fn found(&mut self, finding: Finding) {
        (self.tell)(&finding);
        let count = if finding.kind.is_damage() { &mut self.report.damaged } else { &mut self.report.notices };
        *count += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(finding);
        }
    }

    fn tree(&mut self, tree: &Tree) {
        let superblock = tree.dir.join(crate::identity::SUPERBLOCK_FILE);
        match &tree.identity {
            Ok(identity) => self.report.volume = Some(identity.volume),
            Err(why) => self.find(FindingKind::Superblock, &superblock, None, 0, why),
        }
        for snapshot in &tree.snapshots {
            match &snapshot.contents {
                Err(why) => self.find(FindingKind::Snapshot, &snapshot.path, None, 0, why),
                Ok((header, _)) if self.report.volume.is_some_and(|volume| volume != header.volume) => {
                    self.find(FindingKind::Snapshot, &snapshot.path, None, 0, "it is another volume's");
                }
                Ok(_) => {}
            }
        }
        for path in &tree.strangers {
            self.find(FindingKind::Stranger, path, None, 0, "not a segment, or one that was never finished");
        }
    }

    fn segment(&mut self, tree: &Tree, segment: &Segment) {
        let done_before = self.at.done_bytes;
        let damage_before = self.report.damaged;
        self.report.segments += 1;
        self.report.sealed += u64::from(segment.is_sealed());
        let number = Some(segment.number);
        let mut findings = header_findings(tree, segment);
        for (offset, why) in &segment.problems {
            findings.push((FindingKind::Listing, *offset, None, why.clone()));
        }
        let listings_whole = segment.problems.is_empty();
        let mut found: BTreeMap<u64, Listed> = BTreeMap::new();
        let (mut unproved, mut sequence_max, mut synced) =
            (Vec::new(), 0, segment.listing.as_ref().map_or(0, |listing| listing.synced_sequence));
        let listed: BTreeMap<u64, Listed> = segment.listed.iter().map(|record| (record.offset, *record)).collect();
        let records_end = segment.records_end();
        walk(&*segment.image, BLOCK_BYTES, segment.generation.or(Some(0)), &mut |met| match met {
            Met::Record(header) => {
                synced = synced.max(header.synced_sequence);
                sequence_max = sequence_max.max(header.sequence);
                found.insert(header.offset, Listed::of(&header));
                self.record(segment, &header, &listed, &mut findings, &mut unproved);
                self.at.done_bytes = done_before + header.offset;
                (self.progress)(self.at);
            }
            Met::Listing(_) => {}
            Met::Damaged { offset, damage, id, .. } => {
                // What a listing says of it is better than what a damaged header does.
                let id = listed.get(&offset).map_or(id, |record| record.id);
                findings.push((FindingKind::Header, offset, Some(id), damage.to_string()));
            }
            Met::Unreadable { offset, error } => {
                findings.push((FindingKind::Unreadable, offset, None, error.to_string()));
            }
        });
        for (sequence, mut finding) in unproved {
            let is_listed = listed.contains_key(&finding.1);
            if !is_listed && sequence > synced && !segment.is_sealed() {
                finding.0 = FindingKind::Torn;
            }
            findings.push(finding);
        }
        self.listed(segment, &found, &mut findings);
        if lost_its_footer(tree, segment, sequence_max) {
            let what = "no footer, and the snapshot does not have it as open: each start walks the segment".to_owned();
            findings.push((FindingKind::Listing, records_end, None, what));
        }
        let scanned_to = match &segment.listing {
            Some(_) if segment.is_sealed() => records_end,
            listing => listing.as_ref().map_or(0, |listing: &Listing| listing.scanned_to),
        };
        for (offset, record) in found.range(..scanned_to) {
            if listings_whole && !listed.contains_key(offset) {
                let what = "whole, but the segment's listing does not have it: no start finds it".to_owned();
                findings.push((FindingKind::Unlisted, *offset, Some(record.id), what));
            }
        }
        findings.sort_by_key(|(kind, offset, ..)| (*offset, *kind));
        for (kind, offset, id, what) in findings {
            self.found(Finding { kind, path: segment.path.clone(), segment: number, offset, id, what });
        }
        tracing::debug!(segment = segment.number, damaged = self.report.damaged - damage_before, "segment checked");
        self.at.done_bytes = done_before + segment.image.allocated_bytes();
        self.report.checked_bytes = self.at.done_bytes;
        (self.progress)(self.at);
    }

    /// Checks a record whose header is whole.
    fn record(
        &mut self,
        segment: &Segment,
        header: &RecordHeader,
        listed: &BTreeMap<u64, Listed>,
        findings: &mut Vec<Raw>,
        unproved: &mut Vec<(u64, Raw)>,
    ) {
        let (offset, id) = (header.offset, Some(header.id));
        let record = Listed::of(header);
        if listed.get(&offset).is_some_and(|other| *other != record) {
            findings.push((
                FindingKind::Listing,
                offset,
                id,
                "the listing says something else of this record".to_owned(),
            ));
        }
        if let Err(what) = check_header(header) {
            findings.push((FindingKind::Header, offset, id, what));
            return;
        }
        if header.kind == Kind::Takedown {
            self.report.takedowns += 1;
            self.seen(segment, &record);
            return;
        }
        if !fits(&record, segment.records_end()) {
            let what = "the record goes on behind the end of the file".to_owned();
            unproved.push((header.sequence, (FindingKind::Track, offset, id, what)));
            return;
        }
        let Ok(reading) = Wanted::of(header).read(&*segment.image, |_| Ok::<(), std::convert::Infallible>(()));
        match reading.fault {
            None => {
                self.report.tracks += 1;
                self.report.track_bytes += header.track_bytes;
                self.seen(segment, &record);
            }
            Some((at, what)) => {
                let (intact, all) = (reading.intact_bytes, record.payload_bytes);
                let what = format!("{what} (at {at}; {intact} of {all} stored bytes are intact)");
                unproved.push((header.sequence, (FindingKind::Track, offset, id, what)));
            }
        }
    }

    fn seen(&mut self, segment: &Segment, record: &Listed) {
        let (half, rest) = halves(&record.id);
        self.records.push(Seen {
            half,
            rest,
            track: record.kind == Kind::Track,
            segment: segment.number,
            block: u32::try_from(record.offset / BLOCK_BYTES).expect("a segment has below 2^32 blocks"),
        });
    }

    /// Checks that what is listed is there, or was deleted.
    fn listed(&mut self, segment: &Segment, found: &BTreeMap<u64, Listed>, findings: &mut Vec<Raw>) {
        let told: BTreeSet<u64> = findings.iter().map(|(_, offset, ..)| *offset).collect();
        for record in &segment.listed {
            let (offset, id) = (record.offset, Some(record.id));
            if found.contains_key(&offset) || told.contains(&offset) {
                continue;
            }
            let mut block = [0; BLOCK];
            let finding = if record.end() > segment.records_end() {
                (FindingKind::Listing, offset, id, "it lists a record behind the end".to_owned())
            } else if is_hole(&*segment.image, offset) {
                self.report.deleted += 1;
                continue;
            } else if let Err(error) = segment.image.read_at(offset, &mut block) {
                (FindingKind::Header, offset, id, format!("listed, and its header cannot be read: {error}"))
            } else if header_at(&*segment.image, offset, segment.generation.unwrap_or(0)).is_ok() {
                (FindingKind::Header, offset, id, "listed, but it lies within another record".to_owned())
            } else {
                (FindingKind::Header, offset, id, "listed and not deleted, and there is no header".to_owned())
            };
            findings.push(finding);
        }
    }

    /// Compares records across segments.
    fn across(&mut self, paths: &BTreeMap<u64, &PathBuf>) -> Result<(), Error> {
        let mut records = std::mem::take(&mut self.records);
        records.sort_unstable();
        for same in records.chunk_by(|a, b| (a.half, a.rest) == (b.half, b.rest)) {
            let barred = !same[0].track;
            let tracks = same.iter().filter(|seen| seen.track);
            for seen in tracks.skip(usize::from(!barred)) {
                let (kind, what) = if barred {
                    (FindingKind::TakenDown, "taken down, and still there: the next start erases it")
                } else {
                    (FindingKind::Duplicate, "stored already: the next start erases one of them")
                };
                let (number, offset) = (seen.segment, u64::from(seen.block) * BLOCK_BYTES);
                let path = paths[&number];
                let mut block = [0; BLOCK];
                let read = image_of(path)?.read_at(offset, &mut block);
                let id = read.is_ok().then(|| RecordHeader::claim(&block).id);
                let (path, segment, what) = (path.clone(), Some(number), what.to_owned());
                self.found(Finding { kind, path, segment, offset, id, what });
            }
        }
        Ok(())
    }
}

/// A finding within a segment.
type Raw = (FindingKind, u64, Option<TrackId>, String);

fn header_findings(tree: &Tree, segment: &Segment) -> Vec<Raw> {
    let damage = |what: String| vec![(FindingKind::Segment, 0, None, what)];
    let header = match &segment.header {
        Ok(header) => header,
        Err(why) => return damage(format!("header: {why}")),
    };
    if header.number != segment.number {
        return damage(format!("this is segment {}, not {}", header.number, segment.number));
    }
    if tree.identity.as_ref().is_ok_and(|identity| identity.volume != header.volume) {
        return damage(format!("it belongs to volume {}", header.volume));
    }
    if segment.image.bytes() < header.bytes {
        return damage(format!("cut off: {} of {} bytes", segment.image.bytes(), header.bytes));
    }
    Vec::new()
}

/// Whether a segment without a footer was sealed: a snapshot that came after its last record would else list it. Where no
/// record is left, nothing tells whether the segment was there before the snapshot.
fn lost_its_footer(tree: &Tree, segment: &Segment, sequence_max: u64) -> bool {
    let Ok(header) = &segment.header else { return false };
    let mut whole = tree.snapshots.iter().filter_map(|snapshot| snapshot.contents.as_ref().ok());
    let is_open = segment.footer == Footer::None && segment.listing.is_none();
    is_open
        && sequence_max > 0
        && !is_hole(&*segment.image, segment.records_end())
        && whole.any(|(snapshot, _)| {
            (snapshot.shard, snapshot.shards) == (header.shard, header.shards) && snapshot.sequence_next > sequence_max
        })
}

/// The first twelve bytes of an id: nobody has so many tracks that two share them by chance.
fn halves(id: &TrackId) -> ([u8; 8], u32) {
    let bytes = id.as_bytes();
    let (mut half, mut rest) = ([0; 8], [0; 4]);
    half.copy_from_slice(&bytes[..8]);
    rest.copy_from_slice(&bytes[8..12]);
    (half, u32::from_le_bytes(rest))
}
