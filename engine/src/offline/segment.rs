//! One segment at rest: its header, its footer, and what listings say that it holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::image::{FileImage, Image, is_hole};
use super::tree::read_listing;
use super::walk::likely_generation;
use crate::error::Error;
use crate::format::{BLOCK, BLOCK_BYTES, Listed, Listing, Part, Role, SegmentHeader};

/// How far from the end is a footer looked for where the segment's header does not say? Farther than any is long.
const FOOTER_SEARCH_BYTES: u64 = 256 * 1024;

/// A segment's file, looked into.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) image: Box<dyn Image>,
    /// Its header, or what is wrong with it.
    pub(super) header: Result<SegmentHeader, String>,
    /// Of its header, or of what lies in it; nothing where no record of it is whole either.
    pub(super) generation: Option<u64>,
    pub(super) footer: Footer,
    /// Of the footer, or else of a snapshot.
    pub(super) listing: Option<Listing>,
    /// The listings among the records that it names, with those that are not whole left out.
    pub(super) parts: Vec<(Part, usize)>,
    /// All that is listed, by offset.
    pub(super) listed: Vec<Listed>,
    /// What is wrong with listings, and where.
    pub(super) problems: Vec<(u64, String)>,
}

/// Whether a segment is sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Footer {
    /// It has none: it is open.
    None,
    /// A whole one stands here.
    At(u64),
    /// Something stands in its place that is none.
    Damaged,
}

impl Segment {
    /// Opens a segment's file. `open` are the snapshots' listings. Errors: Io.
    pub(super) fn load(path: &Path, number: u64, open: &BTreeMap<(u64, u64), &Listing>) -> Result<Self, Error> {
        let image = FileImage::open(path).map_err(|source| Error::io("open", path, source))?;
        let mut segment = Self {
            number,
            path: path.to_owned(),
            header: header_of(&image),
            image: Box::new(image),
            generation: None,
            footer: Footer::None,
            listing: None,
            parts: Vec::new(),
            listed: Vec::new(),
            problems: Vec::new(),
        };
        segment.generation = match &segment.header {
            Ok(header) => Some(header.generation),
            Err(_) => likely_generation(&*segment.image),
        };
        segment.find_footer();
        if let (None, Some(generation)) = (&segment.listing, segment.generation) {
            segment.listing = open.get(&(number, generation)).map(|listing| (*listing).clone());
        }
        segment.gather();
        Ok(segment)
    }

    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.footer, Footer::At(_))
    }

    /// Where records end: before the footer's place, as far as that can be told.
    pub(super) fn records_end(&self) -> u64 {
        let by_header = self.header.as_ref().ok().map(|header| header.bytes - u64::from(header.footer_bytes));
        by_header.unwrap_or(self.image.bytes()).min(self.image.bytes())
    }

    fn find_footer(&mut self) {
        let Some(generation) = self.generation else { return };
        let end = self.image.bytes() / BLOCK_BYTES * BLOCK_BYTES;
        let ours = |listing: &Listing, at: u64| {
            listing.role == Role::Footer
                && (listing.number, listing.generation, listing.offset) == (self.number, generation, at)
        };
        if let Ok(header) = &self.header {
            let at = header.bytes - u64::from(header.footer_bytes);
            if header.footer_bytes == 0 || end < header.bytes {
                return;
            }
            match read_listing(&*self.image, at, header.bytes) {
                Ok((listing, _)) if ours(&listing, at) => {
                    (self.footer, self.listing) = (Footer::At(at), Some(listing));
                }
                outcome => {
                    let mut block = [0; BLOCK];
                    let read = self.image.read_at(at, &mut block).is_ok();
                    // Never written, or not to be told from that: space that was only allocated is a hole until somebody
                    // reads it through the page cache.
                    if is_hole(&*self.image, at) || read && block.iter().all(|byte| *byte == 0) {
                        return;
                    }
                    self.footer = Footer::Damaged;
                    let why = outcome.err().unwrap_or_else(|| "it is another segment's".to_owned());
                    self.problems.push((at, format!("footer: {why}: each start walks the segment")));
                }
            }
            return;
        }
        let mut at = end;
        while at >= BLOCK_BYTES && at + FOOTER_SEARCH_BYTES > end {
            at -= BLOCK_BYTES;
            if let Ok((listing, _)) = read_listing(&*self.image, at, end)
                && ours(&listing, at)
            {
                (self.footer, self.listing) = (Footer::At(at), Some(listing));
                return;
            }
        }
    }

    /// Gathers what the listing and its parts list.
    fn gather(&mut self) {
        let Some(listing) = &self.listing else { return };
        let mut listed = listing.records.clone();
        for part in &listing.parts {
            let read = read_listing(&*self.image, part.offset, self.image.bytes()).and_then(|(found, _)| {
                let ours = found.role == Role::Part
                    && (found.number, found.offset) == (self.number, part.offset)
                    && Some(found.generation) == self.generation;
                if ours { Ok(found) } else { Err("another listing stands there".to_owned()) }
            });
            match read {
                Ok(found) => {
                    self.parts.push((*part, found.records.len()));
                    listed.extend(found.records);
                }
                Err(why) => self.problems.push((part.offset, format!("listing: {why}"))),
            }
        }
        listed.sort_by_key(|record| record.offset);
        listed.dedup_by_key(|record| record.offset);
        self.listed = listed;
    }
}

fn header_of(image: &FileImage) -> Result<SegmentHeader, String> {
    let mut block = [0; BLOCK];
    image.read_at(0, &mut block).map_err(|error| error.to_string())?;
    SegmentHeader::decode(&block).map_err(|damage| damage.to_string())
}
