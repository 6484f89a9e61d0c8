//! Which parts of a segment are holes: a record whose header lies in one was deleted.

use std::io;
use std::ops::Range;

use crate::host::{File, STRETCHES_MAX};

/// Where there is data in a part of a file, asked for once: 16 bytes a stretch.
pub(crate) struct Data(Vec<Range<u64>>);

impl Data {
    pub(crate) async fn of(file: &impl File, range: Range<u64>) -> io::Result<Self> {
        let (mut stretches, mut from) = (Vec::new(), range.start);
        loop {
            let more = file.data(from..range.end).await?;
            let all = more.len() < STRETCHES_MAX;
            from = more.last().map_or(range.end, |last| last.end);
            stretches.extend(more);
            if all {
                return Ok(Self(stretches));
            }
        }
    }

    /// The first offset from `offset` on that is data.
    pub(crate) fn next(&self, offset: u64) -> Option<u64> {
        let ahead = self.0.partition_point(|stretch| stretch.end <= offset);
        Some(self.0.get(ahead)?.start.max(offset))
    }

    /// Whether the block at `offset` is data.
    pub(crate) fn is_at(&self, offset: u64) -> bool {
        self.next(offset) == Some(offset)
    }

    /// Whether any of `range` is data.
    pub(crate) fn is_in(&self, range: Range<u64>) -> bool {
        self.next(range.start).is_some_and(|data| data < range.end)
    }
}
