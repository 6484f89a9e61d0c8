//! A segment's file while it is open.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::format::{BLOCK_BYTES, SegmentHeader};
use crate::host::File;

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
    tail: Cell<u64>,
    punched: Cell<u64>,
    /// Set where a header was written that no later one there calls synced.
    pub(crate) unmarked: Cell<bool>,
    /// Set by the first failed write or flush: nothing more is written, reading goes on.
    poisoned: RefCell<Option<Error>>,
}

impl<F: File> Segment<F> {
    pub(crate) fn new(header: &SegmentHeader, file: F, path: PathBuf, own: bool, reserve: bool) -> Self {
        let SegmentHeader { number, generation, bytes, .. } = *header;
        Self {
            number,
            generation,
            bytes,
            file,
            path,
            own,
            reserve,
            tail: Cell::new(BLOCK_BYTES),
            punched: Cell::new(0),
            unmarked: Cell::new(false),
            poisoned: RefCell::new(None),
        }
    }

    /// Takes `bytes` from the tail if `keep` are left behind them; answers where they start.
    pub(crate) fn take(&self, bytes: u64, keep: u64) -> Option<u64> {
        let offset = self.tail.get();
        if !self.own || self.poisoned.borrow().is_some() || offset + bytes + keep > self.bytes {
            return None;
        }
        self.tail.set(offset + bytes);
        Some(offset)
    }

    /// Takes a block for a mark, in a segment of another split as well: its one writer now is the handle that answers for it.
    pub(crate) fn take_for_mark(&self) -> Option<u64> {
        let offset = self.tail.get();
        if self.poisoned.borrow().is_some() || offset + BLOCK_BYTES > self.bytes {
            return None;
        }
        self.tail.set(offset + BLOCK_BYTES);
        Some(offset)
    }

    /// Takes back what [`take`](Self::take) handed out last, if it is that; answers whether. Nothing may be in flight to
    /// it, and no header may have been written there.
    pub(crate) fn give_back(&self, offset: u64, bytes: u64) -> bool {
        let last = offset + bytes == self.tail.get();
        if last {
            self.tail.set(offset);
        }
        last
    }

    pub(crate) fn room(&self) -> u64 {
        if self.own && self.poisoned.borrow().is_none() { self.bytes - self.tail.get() } else { 0 }
    }

    pub(crate) fn set_tail(&self, tail: u64) {
        assert!(tail <= self.bytes, "tail {tail} beyond the segment's {} bytes", self.bytes);
        self.tail.set(tail);
    }

    /// What the segment takes on the drive.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.punched.get())
    }

    /// Erases a stretch and gives its space to the file system. Durable with the next flush; recovery does it again.
    pub(crate) async fn punch(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        assert!(offset >= BLOCK_BYTES && offset + bytes <= self.bytes, "punch {offset}+{bytes} in {}", self.bytes);
        self.file.punch_hole(offset, bytes).await.map_err(|source| Error::io("erase in", &self.path, source))?;
        self.punched.set(self.punched.get() + bytes);
        Ok(())
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

/// Stretch of a segment that a record was given.
pub(crate) struct Space<F> {
    pub(crate) segment: std::rc::Rc<Segment<F>>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}
