//! Which parts of a segment are holes: a record whose header lies in one was deleted.

use std::io;

use crate::host::File;

/// Tells of rising offsets whether they are data, with few questions to the file system.
pub(crate) struct Holes<'a, F> {
    file: &'a F,
    /// The last stretch of data that was found.
    data: u64,
    hole: u64,
}

impl<'a, F: File> Holes<'a, F> {
    pub(crate) fn new(file: &'a F) -> Self {
        Self { file, data: 0, hole: 0 }
    }

    /// Whether the block at `offset` is data.
    pub(crate) fn is_data(&mut self, offset: u64) -> io::Result<bool> {
        if offset >= self.hole {
            self.data = self.file.data_after(offset)?.unwrap_or(u64::MAX);
            self.hole = if self.data == u64::MAX { u64::MAX } else { self.file.hole_after(self.data)? };
        }
        Ok(offset >= self.data)
    }
}
