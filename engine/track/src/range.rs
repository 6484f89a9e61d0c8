//! A stretch of a track's bytes.

use serde::{Deserialize, Serialize};

/// The bytes from `start` up to but not including `end` of a track. Never empty: `start < end` always holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The range, or nothing where `start >= end`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start < end { Some(Self { start, end }) } else { None }
    }

    /// All of a track of `track_bytes`, or nothing where that is zero.
    #[must_use]
    pub const fn whole(track_bytes: u64) -> Option<Self> {
        Self::new(0, track_bytes)
    }

    /// The first byte's index.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The index after the last byte's.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes the range covers; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether all of the range lies within a track of `track_bytes`.
    #[must_use]
    pub const fn fits(&self, track_bytes: u64) -> bool {
        self.end <= track_bytes
    }
}

impl TryFrom<(u64, u64)> for ByteRange {
    type Error = &'static str;

    fn try_from((start, end): (u64, u64)) -> Result<Self, Self::Error> {
        Self::new(start, end).ok_or("a byte range must start before it ends")
    }
}

impl From<ByteRange> for (u64, u64) {
    fn from(range: ByteRange) -> Self {
        (range.start, range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_never_empty() {
        assert_eq!(ByteRange::new(5, 5), None);
        assert_eq!(ByteRange::new(6, 5), None);
        assert_eq!(ByteRange::whole(0), None);
        let range = ByteRange::new(5, 9).expect("5 < 9");
        assert_eq!((range.start(), range.end(), range.len()), (5, 9, 4));
        assert!(range.fits(9) && !range.fits(8));
    }
}
