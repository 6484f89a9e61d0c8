//! A file of a volume at rest, read plainly; and reading on where the drive does not answer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::format::{BLOCK, BLOCK_BYTES};

/// How much does one read fetch where bytes are read in a row?
pub(super) const READ_BYTES: usize = 1 << 20;

/// What is looked into: a segment's file, or what is left of one. Never written.
pub(super) trait Image {
    /// Its length, as it is; reads end there.
    fn bytes(&self) -> u64;

    /// What it takes on the drive.
    fn allocated_bytes(&self) -> u64;

    /// Fills `out` from `offset`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// The first offset from `offset` on that is not in a hole; nothing where all the rest is. A file system that cannot
    /// tell has no holes.
    fn data_after(&self, offset: u64) -> Option<u64>;

    /// The first offset from `offset` on that is in a hole, or the length.
    fn hole_after(&self, offset: u64) -> u64;
}

/// A file on this machine.
pub(super) struct FileImage {
    file: File,
    bytes: u64,
    allocated_bytes: u64,
}

impl FileImage {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let stat = rustix::fs::fstat(&file)?;
        let allocated_bytes = stat.st_blocks.cast_unsigned() * 512;
        Ok(Self { bytes: stat.st_size.cast_unsigned(), allocated_bytes, file })
    }
}

impl Image for FileImage {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn data_after(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Some(data),
            Err(rustix::io::Errno::NXIO) => None,
            Err(_) => (offset < self.bytes).then_some(offset),
        }
    }

    fn hole_after(&self, offset: u64) -> u64 {
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(offset)).unwrap_or(self.bytes.max(offset))
    }
}

/// Reads as much as there is, block by block where more fails: blocks that cannot be read are left zero and named.
///
/// One block of a drive that is failing may take half a minute; nothing is read twice.
pub(super) fn read_around(image: &dyn Image, offset: u64, bytes: usize) -> (Vec<u8>, Vec<(u64, io::Error)>) {
    let there = usize::try_from(image.bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut out = vec![0; bytes.min(there)];
    let mut unreadable = Vec::new();
    if image.read_at(offset, &mut out).is_err() {
        for (block, at) in out.chunks_mut(BLOCK).zip((offset..).step_by(BLOCK)) {
            block.fill(0);
            if let Err(error) = image.read_at(at, block) {
                block.fill(0);
                unreadable.push((at, error));
            }
        }
    }
    (out, unreadable)
}

/// The stretches of data in `start..end`, rising, each widened to whole blocks.
pub(super) fn data_stretches(image: &dyn Image, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let data = image.data_after(at).filter(|data| *data < end)? / BLOCK_BYTES * BLOCK_BYTES;
        let hole = image.hole_after(data.max(at)).next_multiple_of(BLOCK_BYTES).min(end);
        let stretch = (data.max(at), hole.max(at + 1));
        at = stretch.1;
        Some(stretch)
    })
}

/// Whether the block at `offset` lies in a hole.
pub(super) fn is_hole(image: &dyn Image, offset: u64) -> bool {
    image.data_after(offset).is_none_or(|data| data >= offset + BLOCK_BYTES)
}
