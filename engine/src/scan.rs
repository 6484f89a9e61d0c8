//! Walks a segment and finds its records.

use crate::config::READ_BYTES_MAX;
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Claim, Damage, FrameStamp, Listed, Listing, RecordHeader};
use crate::holes::Data;
use crate::host::File;
use crate::read::place;
use crate::segment::Segment;

/// What a walk reads where one record follows another: a header is small, and so may its record be.
const WINDOW_BYTES: u64 = 64 * 1024;
/// How many unreadable blocks may a segment have before the walk gives up?
const UNREADABLE_MAX: u64 = 256;
/// How many claims of damaged headers are kept, of a segment and of a volume handle?
pub(crate) const CLAIMS_MAX: usize = 65_536;

/// A record whose header is whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) record: Listed,
    pub(crate) sequence: u64,
    pub(crate) nonce: u32,
}

/// What a walk found.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Found>,
    /// The highest sequence that any header calls synced: records up to it need no look at their frames.
    pub(crate) synced: u64,
    pub(crate) sequence_max: u64,
    pub(crate) bytes_read: u64,
    /// Headers with a wrong checksum, and blocks that cannot be read.
    pub(crate) damaged: u64,
    /// What damaged headers claim, and where they stand. At most [`CLAIMS_MAX`].
    pub(crate) claims: Vec<(u64, Claim)>,
    /// Where what may be salvaged ends: nothing new may be written before it.
    pub(crate) salvage_end: u64,
    /// Where the last block ends that holds anything.
    pub(crate) data_end: u64,
}

impl Scan {
    /// Takes in a record. Gives its end.
    fn found(&mut self, header: &RecordHeader) -> u64 {
        self.synced = self.synced.max(header.synced_sequence);
        self.sequence_max = self.sequence_max.max(header.sequence);
        let record = Listed::of(header);
        self.records.push(Found { record, sequence: header.sequence, nonce: header.nonce });
        record.end()
    }

    /// Keeps what a damaged header claims; its record may reach up to `end`.
    fn claimed(&mut self, at: u64, end: u64, claim: Claim) {
        let claimed_end = claim.bytes.map(|bytes| at + bytes).filter(|claimed| *claimed <= end);
        self.salvage_end = self.salvage_end.max(at + BLOCK_BYTES).max(claimed_end.unwrap_or(0));
        if self.claims.len() < CLAIMS_MAX {
            self.claims.push((at, claim));
        }
    }
}

/// Finds the segment's records from `start` on, up to where its footer would be. Where there is no header it goes on block by
/// block: records are not written in the order of their space, and some never are. Errors: Unsupported (a newer version's
/// record), Io.
pub(crate) async fn scan<F>(segment: &Segment<F>, start: u64) -> Result<Scan, Error>
where
    F: File,
    F::ReadBuffer: std::ops::Deref<Target = [u8]>,
{
    let io = |what| move |source| Error::io(what, &segment.path, source);
    let file_bytes = segment.file.bytes().await.map_err(io("measure"))?;
    // A file that was cut off ends earlier than its header says.
    let end = file_bytes.min(segment.footer_at) / BLOCK_BYTES * BLOCK_BYTES;
    let data = Data::of(&segment.file, start..end).await.map_err(io("look for holes in"))?;
    let mut scan = Scan::default();
    let mut window = Window { segment, end, start: 0, buffer: None, bytes_read: 0 };
    let (mut at, mut among_records, mut after_damage) = (start, true, false);
    while at < end {
        if !window.holds(at, BLOCK) {
            let Some(next) = data.next(at) else { break };
            at = at.max(next / BLOCK_BYTES * BLOCK_BYTES);
            let bytes = if among_records { WINDOW_BYTES } else { READ_BYTES_MAX };
            if let Err(error) = window.read(at, bytes).await {
                scan.damaged += 1;
                tracing::error!(%error, segment = segment.number, offset = at, "block cannot be read");
                if scan.damaged > UNREADABLE_MAX {
                    return Err(error);
                }
                at += BLOCK_BYTES;
                scan.salvage_end = scan.salvage_end.max(at);
                after_damage = true;
                continue;
            }
        }
        if window.slice(at, BLOCK).iter().any(|byte| *byte != 0) {
            scan.data_end = at + BLOCK_BYTES;
            // Up to the next record, what is written may be a damaged one's.
            if after_damage {
                scan.salvage_end = scan.salvage_end.max(at + BLOCK_BYTES);
            }
        }
        match window.header(at).await {
            Ok(header) => {
                at = scan.found(&header);
                (among_records, after_damage) = (true, false);
                continue;
            }
            Err((Damage::Absent, _)) => {
                if let Some(listing_bytes) = window.listing(at).await {
                    at += listing_bytes;
                    (among_records, after_damage) = (true, false);
                    continue;
                }
            }
            Err((damage @ (Damage::Version(_) | Damage::Feature(_)), _)) => {
                let what = format!("record at offset {at} was {damage}");
                return Err(Error::Unsupported { path: segment.path.clone(), what });
            }
            Err((damage, claim)) => {
                scan.damaged += 1;
                after_damage = true;
                tracing::error!(%damage, segment = segment.number, offset = at, claimed = %claim.id, "record header is damaged");
                scan.claimed(at, end, claim);
            }
        }
        at += BLOCK_BYTES;
        among_records = false;
    }
    scan.bytes_read += window.bytes_read;
    Ok(scan)
}

/// A stretch of the segment in memory.
struct Window<'a, F: File> {
    segment: &'a Segment<F>,
    end: u64,
    start: u64,
    buffer: Option<F::ReadBuffer>,
    bytes_read: u64,
}

impl<F> Window<'_, F>
where
    F: File,
    F::ReadBuffer: std::ops::Deref<Target = [u8]>,
{
    fn holds(&self, at: u64, bytes: usize) -> bool {
        let held = self.buffer.as_ref().map_or(0, |buffer| buffer.len() as u64);
        at >= self.start && at + bytes as u64 <= self.start + held
    }

    /// Bytes that it holds.
    fn slice(&self, at: u64, bytes: usize) -> &[u8] {
        let from = usize::try_from(at - self.start).expect("at most a read");
        &self.buffer.as_deref().expect("held")[from..from + bytes]
    }

    /// Reads `bytes` from `at`, or as much as there is; just a block where more cannot be read.
    async fn read(&mut self, at: u64, bytes: u64) -> Result<(), Error> {
        let bytes = usize::try_from(bytes.min(self.end - at)).expect("at most a read");
        self.buffer = None;
        let mut read = self.segment.file.read_at(at, bytes).await;
        if read.is_err() && bytes > BLOCK {
            read = self.segment.file.read_at(at, BLOCK).await;
        }
        let buffer = read.map_err(|source| Error::io("read", &self.segment.path, source))?;
        self.bytes_read += buffer.len() as u64;
        self.start = at;
        self.buffer = Some(buffer);
        Ok(())
    }

    /// How long the listing at `at` is, if a whole one of this segment stands there.
    async fn listing(&mut self, at: u64) -> Option<u64> {
        let bytes = Listing::peek(self.slice(at, BLOCK)).ok()?;
        if at + bytes as u64 > self.end || bytes as u64 > READ_BYTES_MAX {
            return None;
        }
        if !self.holds(at, bytes) {
            self.read(at, bytes as u64).await.ok()?;
        }
        if !self.holds(at, bytes) {
            return None;
        }
        let listing = Listing::decode(self.slice(at, bytes)).ok()?;
        (listing.generation == self.segment.generation && listing.offset == at).then_some(bytes as u64)
    }

    /// The header at `at`, whose first block it holds.
    async fn header(&mut self, at: u64) -> Result<RecordHeader, (Damage, Claim)> {
        let block = self.slice(at, BLOCK);
        let claim = RecordHeader::claim(block);
        let bytes = RecordHeader::peek(block, self.segment.generation, at).map_err(|damage| (damage, claim))?;
        if at + bytes as u64 > self.end {
            return Err((Damage::Field("length"), claim));
        }
        if !self.holds(at, bytes) {
            if let Err(error) = self.read(at, bytes as u64).await {
                tracing::error!(%error, offset = at, "record header cannot be read");
            }
            if !self.holds(at, bytes) {
                return Err((Damage::Checksum, claim));
            }
        }
        RecordHeader::decode(self.slice(at, bytes)).map_err(|damage| match damage {
            // All but the magic says that it is one.
            Damage::Absent => (Damage::Checksum, claim),
            damage => (damage, claim),
        })
    }
}

/// Whether every frame of a record is what was written with its header. Errors: Io, where the drive does not say.
pub(crate) async fn whole<F>(segment: &Segment<F>, found: &Found, bytes_read: &mut u64) -> Result<bool, Error>
where
    F: File,
    F::ReadBuffer: std::ops::Deref<Target = [u8]>,
{
    let io = |what| move |source| Error::io(what, &segment.path, source);
    let record = &found.record;
    // Of a file that was cut off, what is missing cannot be asked for again.
    let file_bytes = segment.file.bytes().await.map_err(io("measure"))?;
    if record.end() > segment.bytes.min(file_bytes) {
        return Ok(false);
    }
    let frames = record.frames();
    let stamp = FrameStamp { id: record.id.half(), generation: segment.generation, nonce: Some(found.nonce) };
    let frames_at = record.offset + u64::from(record.header_bytes);
    let mut first = 0;
    while first < frames.count() {
        let group = first..frames.count().min(first + 16);
        first = group.end;
        let (offset, bytes) = place(frames_at, frames, &group);
        let read = segment.file.read_at(offset, bytes).await.map_err(io("read"))?;
        *bytes_read += bytes as u64;
        let mut rest = &read[..];
        for number in group {
            let (frame, later) = rest.split_at(frames.disk_bytes(number));
            rest = later;
            if stamp.check(frame, number, frames.payload_bytes(number)).is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
