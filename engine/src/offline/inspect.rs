//! Prints nothing, tells all: what a volume at rest holds, as its own files say it.

use std::path::{Path, PathBuf};

use deadwax_track::TrackId;
use serde::Serialize;

use super::image::{data_stretches, is_hole};
use super::segment::{Footer, Segment};
use super::tree::{SnapshotFile, Tree};
use super::walk::{Met, header_at, walk};
use crate::error::Error;
use crate::format::{BLOCK_BYTES, Kind, Listed, RecordHeader};
use crate::identity::VolumeId;

/// A volume, as its files say.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct VolumeReport {
    /// Where it is.
    pub dir: PathBuf,
    /// A process has it open: what is reported may be half of something.
    pub in_use: bool,
    /// Which volume it is; nothing where its superblock is lost.
    pub volume: Option<VolumeId>,
    /// Whose it is: the node's id, in hexadecimal digits.
    pub node: Option<String>,
    /// What is wrong with the superblock.
    pub superblock_fault: Option<String>,
    /// The snapshots of its handles.
    pub snapshots: Vec<SnapshotReport>,
    /// Its segments, by number.
    pub segments: Vec<SegmentReport>,
}

/// A snapshot: what a handle's open segments held when it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotReport {
    /// Its file.
    pub path: PathBuf,
    /// Why it is not whole; all else is then zero.
    pub fault: Option<String>,
    /// Whose: the handle's shard, of so many.
    pub shard: u32,
    /// How many shards there were.
    pub shards: u32,
    /// Its length.
    pub bytes: u64,
    /// The open segments that it lists: number, records of its own, other listings named, and up to where.
    pub listings: Vec<SnapshotListing>,
    /// The segment at which scrub goes on.
    pub scrub_segment: u64,
    /// The offset in it.
    pub scrub_offset: u64,
    /// How often scrub went through everything.
    pub scrub_passes: u64,
    /// The sequence number that the next record gets.
    pub sequence_next: u64,
}

/// What a snapshot says of an open segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotListing {
    /// The segment's number.
    pub segment: u64,
    /// Records that it lists itself.
    pub records: u64,
    /// Listings among the segment's records that it names.
    pub parts: u64,
    /// Up to where all of the segment's records are listed.
    pub scanned_to: u64,
    /// Up to which sequence number all was durable.
    pub synced_sequence: u64,
}

/// A segment.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SegmentReport {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with its header; shard, shards and bytes are then zero.
    pub header_fault: Option<String>,
    /// Its generation, in hexadecimal digits; from its records where the header is lost.
    pub generation: Option<String>,
    /// The handle that wrote it, of so many.
    pub shard: u32,
    /// How many shards there were.
    pub shards: u32,
    /// Its length, as its header says.
    pub bytes: u64,
    /// The length of its file.
    pub file_bytes: u64,
    /// What the file takes on the drive.
    pub allocated_bytes: u64,
    /// What of it lies in holes, and in how many.
    pub hole_bytes: u64,
    /// How many holes.
    pub holes: u64,
    /// Whether it has a footer.
    pub sealed: bool,
    /// Where the footer stands.
    pub footer_offset: Option<u64>,
    /// What is wrong with its footer and listings, and where.
    pub listing_faults: Vec<(u64, String)>,
    /// The listings among its records.
    pub parts: Vec<PartReport>,
    /// Tracks that it holds.
    pub tracks: u64,
    /// Their bytes.
    pub track_bytes: u64,
    /// Takedowns that it holds.
    pub takedowns: u64,
    /// What both take, headers and all.
    pub live_bytes: u64,
    /// Records that are listed and were deleted.
    pub deleted: u64,
    /// What they took.
    pub deleted_bytes: u64,
    /// Records that are listed, not deleted, and whose header is not whole; and damaged headers that nothing lists.
    pub damaged: u64,
    /// Every record, by offset, where they were asked for.
    pub records: Vec<RecordReport>,
}

/// A listing among a segment's records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PartReport {
    /// Where it stands.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// The records that it lists.
    pub records: u64,
}

/// What a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// Its header is whole. Its frames were not looked at.
    Whole,
    /// It is listed, and was deleted.
    Deleted,
    /// Its header is not whole.
    Damaged,
}

/// A record.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RecordReport {
    /// Where it starts.
    pub offset: u64,
    /// The track.
    pub id: TrackId,
    /// Whether it bars the id; else it is a track.
    pub takedown: bool,
    /// The takedown's number.
    pub takedown_number: Option<u64>,
    /// Its state.
    pub state: RecordState,
    /// Whether a listing has it.
    pub listed: bool,
    /// The header's length.
    pub header_bytes: u64,
    /// The track's length.
    pub track_bytes: u64,
    /// What its frames carry: less where it is compressed.
    pub payload_bytes: u64,
    /// What its frames take on the drive.
    pub stored_bytes: u64,
    /// Whether it is compressed.
    pub compressed: bool,
    /// Its sequence number; nothing where its header is not whole.
    pub sequence: Option<u64>,
    /// Its title tag.
    pub title: Option<String>,
}

/// Looks into all segments of the volume in `dir`, and changes nothing. Records are counted, not listed: see
/// [`inspect_segment`]. Reads listings, and walks what no footer covers.
///
/// Errors: Invalid (no volume), Io.
pub fn inspect(dir: &Path) -> Result<VolumeReport, Error> {
    let tree = Tree::open(dir)?;
    let mut report = volume(&tree);
    let open = tree.open_listings();
    for (number, path) in &tree.segments {
        report.segments.push(look_into(&Segment::load(path, *number, &open)?, false));
    }
    Ok(report)
}

/// Looks into one segment, and lists its records.
///
/// Errors: Invalid (no volume, or no such segment), Io.
pub fn inspect_segment(dir: &Path, number: u64) -> Result<SegmentReport, Error> {
    let tree = Tree::open(dir)?;
    let path = tree.segments.iter().find(|(found, _)| *found == number).map(|(_, path)| path);
    let path = path.ok_or_else(|| Error::Invalid(format!("{} has no segment {number}", dir.display())))?;
    Ok(look_into(&Segment::load(path, number, &tree.open_listings())?, true))
}

fn volume(tree: &Tree) -> VolumeReport {
    let identity = tree.identity.as_ref();
    let digits = |node: &[u8; 32]| node.iter().map(|byte| format!("{byte:02x}")).collect();
    VolumeReport {
        dir: tree.dir.clone(),
        in_use: tree.in_use,
        volume: identity.ok().map(|identity| identity.volume),
        node: identity.ok().map(|identity| digits(&identity.node)),
        superblock_fault: identity.err().cloned(),
        snapshots: tree.snapshots.iter().map(snapshot).collect(),
        segments: Vec::new(),
    }
}

fn snapshot(file: &SnapshotFile) -> SnapshotReport {
    let mut report = SnapshotReport {
        path: file.path.clone(),
        fault: file.contents.as_ref().err().cloned(),
        shard: 0,
        shards: 0,
        bytes: 0,
        listings: Vec::new(),
        scrub_segment: 0,
        scrub_offset: 0,
        scrub_passes: 0,
        sequence_next: 0,
    };
    if let Ok((header, listings)) = &file.contents {
        (report.shard, report.shards, report.bytes) = (header.shard, header.shards, header.bytes);
        (report.scrub_segment, report.scrub_offset) = (header.scrub.segment, header.scrub.offset);
        (report.scrub_passes, report.sequence_next) = (header.scrub.passes, header.sequence_next);
        let listing = listings.iter().map(|listing| SnapshotListing {
            segment: listing.number,
            records: listing.records.len() as u64,
            parts: listing.parts.len() as u64,
            scanned_to: listing.scanned_to,
            synced_sequence: listing.synced_sequence,
        });
        report.listings = listing.collect();
    }
    report
}

fn look_into(segment: &Segment, with_records: bool) -> SegmentReport {
    let header = segment.header.as_ref();
    let image = &*segment.image;
    let file_bytes = image.bytes();
    let (mut data_bytes, mut holes, mut data_end) = (0, 0, 0);
    for (start, end) in data_stretches(image, 0, file_bytes) {
        holes += u64::from(start > data_end);
        data_bytes += end - start;
        data_end = end;
    }
    let mut report = SegmentReport {
        number: segment.number,
        path: segment.path.clone(),
        header_fault: header.err().cloned(),
        generation: segment.generation.map(|generation| format!("{generation:016x}")),
        shard: header.map_or(0, |header| header.shard),
        shards: header.map_or(0, |header| header.shards),
        bytes: header.map_or(0, |header| header.bytes),
        file_bytes,
        allocated_bytes: image.allocated_bytes(),
        hole_bytes: file_bytes.saturating_sub(data_bytes),
        holes: holes + u64::from(data_end < file_bytes),
        sealed: segment.is_sealed(),
        footer_offset: if let Footer::At(offset) = segment.footer { Some(offset) } else { None },
        listing_faults: segment.problems.clone(),
        parts: Vec::new(),
        tracks: 0,
        track_bytes: 0,
        takedowns: 0,
        live_bytes: 0,
        deleted: 0,
        deleted_bytes: 0,
        damaged: 0,
        records: Vec::new(),
    };
    report.parts = segment
        .parts
        .iter()
        .map(|(part, records)| PartReport {
            offset: part.offset,
            bytes: u64::from(part.bytes),
            records: *records as u64,
        })
        .collect();
    count(&mut report, segment, with_records);
    report
}

/// Counts records: the listed ones, and those that a walk finds behind them.
fn count(report: &mut SegmentReport, segment: &Segment, with_records: bool) {
    let image = &*segment.image;
    for listed in &segment.listed {
        let mut header = None;
        let state = if is_hole(image, listed.offset) {
            RecordState::Deleted
        } else if !with_records && segment.is_sealed() {
            RecordState::Whole
        } else {
            header = header_at(image, listed.offset, segment.generation.unwrap_or(0)).ok();
            if header.is_some() { RecordState::Whole } else { RecordState::Damaged }
        };
        add(report, listed, header.as_ref(), state, true, with_records);
    }
    // A sealed segment is all listed, unless a listing is lost.
    if segment.is_sealed() && segment.problems.is_empty() && !with_records {
        return;
    }
    let is_listed = |offset: u64| segment.listed.binary_search_by_key(&offset, |listed| listed.offset).is_ok();
    walk(image, BLOCK_BYTES, segment.generation.or(Some(0)), &mut |met| match met {
        Met::Record(header) if !is_listed(header.offset) => {
            add(report, &Listed::of(&header), Some(&header), RecordState::Whole, false, with_records);
        }
        Met::Damaged { offset, id, track, .. } if !is_listed(offset) => {
            let header_bytes = u32::try_from(BLOCK_BYTES).expect("small");
            let (kind, payload_bytes, track_bytes) = (Kind::Track, 0, 0);
            let unknown = Listed { kind, id, offset, header_bytes, track_bytes, payload_bytes, compressed: false };
            add(report, &track.unwrap_or(unknown), None, RecordState::Damaged, false, with_records);
        }
        _ => {}
    });
    report.records.sort_by_key(|record| record.offset);
}

fn add(
    report: &mut SegmentReport,
    listed: &Listed,
    header: Option<&RecordHeader>,
    state: RecordState,
    is_listed: bool,
    with_records: bool,
) {
    let takedown = listed.kind == Kind::Takedown;
    match state {
        RecordState::Whole => {
            report.live_bytes += listed.bytes();
            report.track_bytes += listed.track_bytes;
            *(if takedown { &mut report.takedowns } else { &mut report.tracks }) += 1;
        }
        RecordState::Deleted => {
            report.deleted += 1;
            report.deleted_bytes += listed.bytes();
        }
        RecordState::Damaged => report.damaged += 1,
    }
    if !with_records {
        return;
    }
    let tags = header.and_then(|header| header.tags.decode().ok());
    report.records.push(RecordReport {
        offset: listed.offset,
        id: listed.id,
        takedown,
        takedown_number: header.filter(|_| takedown).map(|header| header.takedown),
        state,
        listed: is_listed,
        header_bytes: u64::from(listed.header_bytes),
        track_bytes: listed.track_bytes,
        payload_bytes: listed.payload_bytes,
        stored_bytes: listed.frames().stored_bytes(),
        compressed: listed.compressed,
        sequence: header.map(|header| header.sequence),
        title: tags.and_then(|tags| tags.get("title").map(str::to_owned)),
    });
}
