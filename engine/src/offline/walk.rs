//! Walks a segment's file block by block and tells what stands where, whatever state the file is in.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;

use deadwax_track::TrackId;

use super::image::{Image, READ_BYTES, read_around};
use crate::format::{BLOCK, BLOCK_BYTES, Damage, Listed, Listing, RecordHeader};

/// What is read where one record follows another: headers are small.
const AMONG_RECORDS_BYTES: usize = 16 * 1024;

/// What a walk comes upon, by rising offset.
pub(super) enum Met {
    /// A header that is whole, and of this segment.
    Record(Box<RecordHeader>),
    /// A whole listing of this segment.
    Listing(Box<Listing>),
    /// Something that is, or was, a header of this segment; and the track that it claims, where it says enough.
    Damaged { offset: u64, damage: Damage, id: TrackId, track: Option<Listed> },
    /// A block that the drive does not give.
    Unreadable { offset: u64, error: io::Error },
}

/// Calls `met` for all that is found from `start` to the end of the file. `generation` is the segment's; without it any
/// whole header that says its own place is taken.
pub(super) fn walk(image: &dyn Image, start: u64, generation: Option<u64>, met: &mut dyn FnMut(Met)) {
    let end = image.bytes() / BLOCK_BYTES * BLOCK_BYTES;
    let mut window = Window { image, start: 0, bytes: Vec::new() };
    let (mut at, mut among_records) = (start, true);
    while at < end {
        if !window.holds(at, BLOCK) {
            let Some(data) = image.data_after(at) else { break };
            at = at.max(data / BLOCK_BYTES * BLOCK_BYTES);
            if at >= end {
                break;
            }
            let bytes = if among_records { AMONG_RECORDS_BYTES } else { READ_BYTES };
            for (offset, error) in window.read(at, bytes, end) {
                met(Met::Unreadable { offset, error });
            }
        }
        at = match window.look(at, generation, end) {
            Look::Nothing => {
                among_records = false;
                at + BLOCK_BYTES
            }
            Look::Record(header) => {
                among_records = true;
                let after = Listed::of(&header).end();
                met(Met::Record(header));
                after
            }
            Look::Listing(listing, bytes) => {
                among_records = true;
                met(Met::Listing(listing));
                at + bytes
            }
            Look::Damaged(damage) => {
                among_records = false;
                let block = window.slice(at, BLOCK);
                let (id, track) = (RecordHeader::claim(block).id, RecordHeader::claimed_track(block, at));
                met(Met::Damaged { offset: at, damage, id, track });
                at + BLOCK_BYTES
            }
        };
    }
}

/// The generation that a segment without a readable header has: the one that most of its records and listings name. A
/// track's own bytes may look like records, but are seen only where the header before them is lost.
pub(super) fn likely_generation(image: &dyn Image) -> Option<u64> {
    // With how often each is named, and which was first.
    let mut counts: BTreeMap<u64, (u64, Reverse<u64>)> = BTreeMap::new();
    walk(image, 0, None, &mut |met| {
        let (generation, offset) = match met {
            Met::Record(header) => (header.generation, header.offset),
            Met::Listing(listing) => (listing.generation, listing.offset),
            Met::Damaged { .. } | Met::Unreadable { .. } => return,
        };
        if counts.len() < GENERATIONS_MAX || counts.contains_key(&generation) {
            counts.entry(generation).or_insert((0, Reverse(offset))).0 += 1;
        }
    });
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(generation, _)| generation)
}

/// How many generations are told apart where a segment's header is lost? There should be one.
const GENERATIONS_MAX: usize = 1024;

/// What stands at a block.
enum Look {
    Nothing,
    Record(Box<RecordHeader>),
    Listing(Box<Listing>, u64),
    Damaged(Damage),
}

/// A stretch of the file in memory.
struct Window<'a> {
    image: &'a dyn Image,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn holds(&self, at: u64, bytes: usize) -> bool {
        at >= self.start && at + bytes as u64 <= self.start + self.bytes.len() as u64
    }

    fn slice(&self, at: u64, bytes: usize) -> &[u8] {
        let from = usize::try_from(at - self.start).expect("at most a read");
        &self.bytes[from..from + bytes]
    }

    fn read(&mut self, at: u64, bytes: usize, end: u64) -> Vec<(u64, io::Error)> {
        let bytes = usize::try_from(end - at).map_or(bytes, |left| bytes.min(left));
        let (read, unreadable) = read_around(self.image, at, bytes);
        (self.start, self.bytes) = (at, read);
        unreadable
    }

    /// The `bytes` at `at`, which may go beyond the window: a header or listing of several blocks.
    fn fetch(&self, at: u64, bytes: usize) -> Option<Vec<u8>> {
        if self.holds(at, bytes) {
            return Some(self.slice(at, bytes).to_vec());
        }
        let mut out = vec![0; bytes];
        self.image.read_at(at, &mut out).ok().map(|()| out)
    }

    fn look(&self, at: u64, generation: Option<u64>, end: u64) -> Look {
        let block = self.slice(at, BLOCK);
        if block.iter().all(|byte| *byte == 0) {
            return Look::Nothing;
        }
        if let Some(found) = self.listing(at, generation, end) {
            return found;
        }
        let expected = generation.unwrap_or_else(|| RecordHeader::generation_in(block));
        let outcome = RecordHeader::peek(block, expected, at).and_then(|bytes| {
            if at + bytes as u64 > end {
                return Err(Damage::Field("length"));
            }
            let header = RecordHeader::decode(&self.fetch(at, bytes).ok_or(Damage::Checksum)?);
            // All but the magic says that it is one.
            header.map_err(|damage| if damage == Damage::Absent { Damage::Checksum } else { damage })
        });
        match outcome {
            Ok(header) => Look::Record(Box::new(header)),
            Err(Damage::Absent) => Look::Nothing,
            // Without the generation nothing but a checksum tells a header from a track's bytes.
            Err(_) if generation.is_none() => Look::Nothing,
            Err(damage) => Look::Damaged(damage),
        }
    }

    fn listing(&self, at: u64, generation: Option<u64>, end: u64) -> Option<Look> {
        let bytes = Listing::peek(self.slice(at, BLOCK)).ok()?;
        if at + bytes as u64 > end {
            return None;
        }
        let listing = Listing::decode(&self.fetch(at, bytes)?).ok()?;
        let ours = listing.offset == at && generation.is_none_or(|generation| listing.generation == generation);
        ours.then(|| Look::Listing(Box::new(listing), bytes as u64))
    }
}

/// The header of the record at `offset`, if a whole one of this segment is there.
pub(super) fn header_at(image: &dyn Image, offset: u64, generation: u64) -> Result<RecordHeader, Damage> {
    let mut block = [0; BLOCK];
    image.read_at(offset, &mut block).map_err(|_| Damage::Absent)?;
    let bytes = RecordHeader::peek(&block, generation, offset)?;
    let mut whole = vec![0; bytes];
    image.read_at(offset, &mut whole).map_err(|_| Damage::Checksum)?;
    RecordHeader::decode(&whole)
}
