//! A segment's file while it is open.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::Error;
use crate::format::{BLOCK_BYTES, Listed, SegmentHeader};
use crate::host::File;
use crate::unlisted::Unlisted;

/// One segment. Space in it is handed out from the tail; nothing is ever written twice but what was given back.
pub(crate) struct Segment<F> {
    pub(crate) number: u64,
    pub(crate) generation: u64,
    pub(crate) bytes: u64,
    pub(crate) file: F,
    pub(crate) path: PathBuf,
    /// Whether this handle may write records into it; others only erase and read.
    pub(crate) own: bool,
    /// Made of the volume's reserve: for takedowns alone.
    pub(crate) reserve: bool,
    /// Of its first block among all blocks of the handle's segments.
    pub(crate) base: u64,
    /// Where records end and the footer's place begins.
    pub(crate) footer_at: u64,
    tail: Cell<u64>,
    punched: Cell<u64>,
    /// What the records of the index take in it.
    live_bytes: Cell<u64>,
    pub(crate) sealed: Cell<bool>,
    /// No more records go into it, though it is not sealed yet.
    pub(crate) closed: Cell<bool>,
    /// Something in it is damaged, which only a walk tells: never sealed, so that each start walks it.
    pub(crate) damaged: Cell<bool>,
    /// Nothing of it is in use, and its file is being removed: what is read of it now may be holes.
    pub(crate) freed: Cell<bool>,
    /// Where compaction last found tracks of other handles that kept the segment, or 0.
    pub(crate) others_at: Cell<u64>,
    /// What no listing on the drive has yet.
    pub(crate) unlisted: RefCell<Unlisted>,
    /// Where spaces start that were handed out and have not ended.
    outstanding: RefCell<BTreeSet<u64>>,
    /// Set by the first failed write or flush: nothing more is written, reading goes on.
    poisoned: RefCell<Option<Error>>,
}

impl<F: File> Segment<F> {
    pub(crate) fn new(header: &SegmentHeader, base: u64, file: F, path: PathBuf, own: bool, reserve: bool) -> Self {
        let SegmentHeader { number, generation, bytes, footer_bytes, .. } = *header;
        Self {
            number,
            generation,
            bytes,
            file,
            path,
            own,
            reserve,
            base,
            footer_at: bytes - u64::from(footer_bytes),
            tail: Cell::new(BLOCK_BYTES),
            punched: Cell::new(0),
            live_bytes: Cell::new(0),
            sealed: Cell::new(false),
            closed: Cell::new(false),
            damaged: Cell::new(false),
            freed: Cell::new(false),
            others_at: Cell::new(0),
            unlisted: RefCell::new(Unlisted::new(footer_bytes as usize)),
            outstanding: RefCell::default(),
            poisoned: RefCell::new(None),
        }
    }

    /// Takes `bytes` from the tail if `keep` are left behind them; answers where they start.
    pub(crate) fn take(self: &Rc<Self>, bytes: u64, keep: u64) -> Option<Space<F>> {
        if self.room() < bytes + keep {
            return None;
        }
        let mut unlisted = self.unlisted.borrow_mut();
        let listing_bytes = unlisted.due_listing_bytes();
        if self.room() < listing_bytes + bytes + keep {
            return None;
        }
        let offset = self.tail.get() + listing_bytes;
        let group = unlisted.hand_out(self.tail.get());
        self.tail.set(offset + bytes);
        self.outstanding.borrow_mut().insert(offset);
        Some(Space { segment: self.clone(), offset, bytes, group })
    }

    /// Takes a stretch for a listing of records that a start found.
    pub(crate) fn take_for_listing(&self, bytes: u64) -> Option<u64> {
        let offset = self.tail.get();
        let fits = self.writable().is_ok() && offset + bytes <= self.footer_at;
        fits.then(|| self.tail.replace(offset + bytes))
    }

    pub(crate) fn room(&self) -> u64 {
        let closed = self.sealed.get() || self.closed.get() || self.damaged.get();
        let open = self.own && !closed && self.poisoned.borrow().is_none();
        if open { self.footer_at.saturating_sub(self.tail.get()) } else { 0 }
    }

    pub(crate) fn tail(&self) -> u64 {
        self.tail.get()
    }

    pub(crate) fn set_tail(&self, tail: u64) {
        assert!(tail <= self.bytes, "tail {tail} beyond the segment's {} bytes", self.bytes);
        self.tail.set(tail);
    }

    /// Everything before this was written and listed, or never will be.
    pub(crate) fn settled_to(&self) -> u64 {
        self.outstanding.borrow().first().copied().unwrap_or(self.tail.get())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.outstanding.borrow().is_empty()
    }

    /// What the segment takes on the drive.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.punched.get())
    }

    /// What the records of the index take in it.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.get()
    }

    pub(crate) fn add_live(&self, bytes: u64) {
        self.live_bytes.set(self.live_bytes.get() + bytes);
    }

    pub(crate) fn remove_live(&self, bytes: u64) {
        self.live_bytes.set(self.live_bytes.get().saturating_sub(bytes));
    }

    /// The address of a block of it.
    pub(crate) fn address(&self, offset: u64) -> u64 {
        self.base + offset / BLOCK_BYTES
    }

    /// Erases a stretch and gives its space to the file system. Durable with the next flush.
    pub(crate) async fn punch(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        assert!(offset >= BLOCK_BYTES && offset + bytes <= self.bytes, "punch {offset}+{bytes} in {}", self.bytes);
        if bytes > 0 {
            self.file.punch_hole(offset, bytes).await.map_err(|source| Error::io("erase in", &self.path, source))?;
            self.count_punched(bytes);
        }
        Ok(())
    }

    pub(crate) fn count_punched(&self, bytes: u64) {
        self.punched.set(self.punched.get() + bytes);
    }

    /// Stops all writing; answers whether it was allowed until now.
    pub(crate) fn poison(&self, why: &Error) -> bool {
        let mut poisoned = self.poisoned.borrow_mut();
        let first = poisoned.is_none();
        poisoned.get_or_insert_with(|| why.clone());
        first
    }

    pub(crate) fn writable(&self) -> Result<(), Error> {
        self.poisoned.borrow().clone().map_or(Ok(()), Err)
    }
}

/// `segments/0000000007.segment`.
pub(crate) fn path_of(segments: &Path, number: u64) -> PathBuf {
    segments.join(format!("{number:010}.segment"))
}

/// The number in a segment file's name; nothing where it is another name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    let number = digits.parse().ok()?;
    (digits.len() >= 10 && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(number)
}

/// Stretch of a segment that a record was given. It ends when it is dropped, with a record or without.
pub(crate) struct Space<F: File> {
    pub(crate) segment: Rc<Segment<F>>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    group: u64,
}

impl<F: File> Space<F> {
    /// The record in it is durable.
    pub(crate) fn holds(self, record: Listed) {
        self.segment.unlisted.borrow_mut().add(self.group, record);
    }

    /// Gives back what lies behind the first `bytes`, if nothing was handed out behind it; answers whether. Nothing may
    /// be in flight to it.
    pub(crate) fn shrink(&mut self, bytes: u64) -> bool {
        let last = self.offset + self.bytes == self.segment.tail.get();
        if last {
            self.segment.tail.set(self.offset + bytes);
            self.bytes = bytes;
        }
        last
    }
}

impl<F: File> Drop for Space<F> {
    fn drop(&mut self) {
        self.segment.outstanding.borrow_mut().remove(&self.offset);
        self.segment.unlisted.borrow_mut().end(self.group);
    }
}

/// The segments of a handle, by number and by address.
pub(crate) struct Segments<F> {
    by_number: BTreeMap<u64, Rc<Segment<F>>>,
    by_base: BTreeMap<u64, Rc<Segment<F>>>,
}

/// How many blocks may be addressed? What an index entry has room for: 4 PiB.
const ADDRESSES_MAX: u64 = 1 << 40;

impl<F: File> Segments<F> {
    pub(crate) fn new() -> Self {
        Self { by_number: BTreeMap::new(), by_base: BTreeMap::new() }
    }

    /// Addresses for a segment of `bytes`. Those of segments that are gone are used again when the rest is.
    pub(crate) fn free_base(&self, bytes: u64) -> Option<u64> {
        let blocks = bytes / BLOCK_BYTES;
        let end = |segment: &Rc<Segment<F>>| segment.base + segment.bytes / BLOCK_BYTES;
        let after = self.by_base.values().next_back().map_or(0, end);
        if after + blocks <= ADDRESSES_MAX {
            return Some(after);
        }
        let mut from = 0;
        for segment in self.by_base.values() {
            if segment.base - from >= blocks {
                return Some(from);
            }
            from = end(segment);
        }
        None
    }

    pub(crate) fn insert(&mut self, segment: Rc<Segment<F>>) {
        self.by_base.insert(segment.base, segment.clone());
        self.by_number.insert(segment.number, segment);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(segment) = self.by_number.remove(&number) {
            self.by_base.remove(&segment.base);
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<Rc<Segment<F>>> {
        self.by_number.get(&number).cloned()
    }

    /// The first segment whose number is `number` or more.
    pub(crate) fn from(&self, number: u64) -> Option<Rc<Segment<F>>> {
        self.by_number.range(number..).next().map(|(_, segment)| segment.clone())
    }

    /// By number, rising.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Rc<Segment<F>>> {
        self.by_number.values()
    }

    /// The segment and the offset in it that an address of the index means.
    pub(crate) fn at(&self, address: u64) -> (Rc<Segment<F>>, u64) {
        let (base, segment) = self.by_base.range(..=address).next_back().expect("an entry's segment is open");
        let offset = (address - base) * BLOCK_BYTES;
        assert!(offset < segment.bytes, "address {address} beyond segment {}", segment.number);
        (segment.clone(), offset)
    }
}
