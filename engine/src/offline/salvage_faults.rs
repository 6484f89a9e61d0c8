//! Salvage from a drive that does not give some blocks.

use std::io;
use std::ops::Range;
use std::path::Path;

use deadwax_track::{Tags, TrackHasher, TrackId};

use super::{Kept, Salvage, SalvageOptions, SalvageReport, Sink};
use crate::format::{BLOCK, BLOCK_BYTES, Filter, FrameStamp, Kind, RecordHeader, TagBytes};
use crate::offline::image::Image;

/// A segment in memory, some of which the drive does not give.
struct Failing {
    bytes: Vec<u8>,
    lost: Range<u64>,
}

impl Image for Failing {
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocated_bytes(&self) -> u64 {
        self.bytes()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset + out.len() as u64;
        if offset < self.lost.end && self.lost.start < end {
            return Err(io::Error::from_raw_os_error(5));
        }
        let start = usize::try_from(offset).expect("fits");
        out.copy_from_slice(self.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn data_after(&self, offset: u64) -> Option<u64> {
        (offset < self.bytes()).then_some(offset)
    }

    fn hole_after(&self, _offset: u64) -> u64 {
        self.bytes()
    }
}

#[derive(Default)]
struct Ids {
    now: Option<TrackId>,
    kept: Vec<TrackId>,
}

impl Sink for Ids {
    fn begin(&mut self, id: &TrackId, _bytes: u64, _tags: &Tags) -> io::Result<()> {
        self.now = Some(*id);
        Ok(())
    }

    fn write(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn keep(&mut self) -> io::Result<Kept> {
        self.kept.extend(self.now.take());
        Ok(Kept::New)
    }

    fn discard(&mut self) -> io::Result<()> {
        self.now = None;
        Ok(())
    }
}

const GENERATION: u64 = 77;

/// Appends a record of a track of 5,000 bytes: a block of header, two of its one frame.
fn append(segment: &mut Vec<u8>, fill: u8) -> TrackId {
    let track = vec![fill; 5000];
    let mut hasher = TrackHasher::new();
    hasher.update(&track);
    let (id, manifest) = hasher.finish().expect("not empty");
    let header = RecordHeader {
        kind: Kind::Track,
        id,
        track_bytes: 5000,
        generation: GENERATION,
        offset: segment.len() as u64,
        sequence: u64::from(fill),
        synced_sequence: 0,
        takedown: 0,
        nonce: 1,
        tags: TagBytes::of(&Tags::default()),
        pieces: manifest.pieces().to_vec(),
        piece_ends: vec![],
        filter: Filter::None,
    };
    let mut block = vec![0; BLOCK];
    header.encode(&mut block);
    let mut frame = track;
    frame.resize(2 * BLOCK, 0);
    FrameStamp { id: id.half(), generation: GENERATION, nonce: Some(1) }.seal(&mut frame, 0, 5000);
    segment.extend(block);
    segment.extend(frame);
    id
}

#[test]
fn a_block_that_cannot_be_read_costs_only_its_own_track() {
    let mut bytes = vec![0; BLOCK];
    let ids: Vec<_> = (1..=3).map(|fill| append(&mut bytes, fill)).collect();
    // Each block in turn; the first is the segment's header, which is lost anyway.
    for lost in 0..10_u64 {
        let image = Failing { bytes: bytes.clone(), lost: lost * BLOCK_BYTES..(lost + 1) * BLOCK_BYTES };
        let (mut sink, mut tell) = (Ids::default(), |_: &_| {});
        let (report, mut progress) = (SalvageReport::default(), |_| {});
        let mut salvage = Salvage::new(SalvageOptions::default(), &mut sink, &mut tell, &mut progress, report);
        salvage.all(&[(Path::new("a"), &image)]).expect("goes on");
        let report = salvage.report;
        let expected: Vec<_> =
            (0..3).filter(|index| lost == 0 || (lost - 1) / 3 != *index as u64).map(|index| ids[index]).collect();
        assert_eq!(sink.kept, expected, "block {lost}: {report:?}");
        let names_it = report
            .findings
            .iter()
            .any(|finding| finding.offset == lost * BLOCK_BYTES || finding.what.contains("cannot be read"));
        assert!(names_it, "block {lost}: {report:?}");
    }
}
