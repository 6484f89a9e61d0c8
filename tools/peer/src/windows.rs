//! Where a track's windows lie.

use std::ops::Range;

use deadwax_track::{ByteRange, KIB, PIECE_BYTES, TRACK_BYTES_MAX, piece_count};

/// The windows of a track: runs of whole pieces, each as close as pieces allow to 15 s at the track's bit rate.
///
/// All windows of a track have the same number of pieces but the last, which has what is left. Window 0 is the head:
/// what a listener needs before it hears anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    track_bytes: u64,
    window_pieces: u64,
}

impl Windows {
    /// How long a window plays, in milliseconds, before it is rounded to whole pieces.
    pub const WINDOW_MS: u64 = 15_000;

    /// What 15 s take at 320 kbit/s: assumed of a track whose duration is not known.
    const WINDOW_BYTES_ASSUMED: u64 = 600 * 1000;

    /// The windows of a track of `track_bytes` that plays for `duration_ms`, or nothing where no track has that
    /// length. A duration that is missing or zero counts as not known.
    #[must_use]
    pub const fn new(track_bytes: u64, duration_ms: Option<u64>) -> Option<Self> {
        // Bounds the product below: 2^29 bytes * 15,000 fits u64.
        if track_bytes == 0 || track_bytes > TRACK_BYTES_MAX {
            return None;
        }
        let window_bytes = match duration_ms {
            Some(ms) if ms > 0 => track_bytes * Self::WINDOW_MS / ms,
            _ => Self::WINDOW_BYTES_ASSUMED,
        };
        // To the nearest piece: rounding up would make the windows of a 128 kbit/s track twice as long as meant.
        let nearest = (window_bytes + PIECE_BYTES / 2) / PIECE_BYTES;
        let window_pieces = if nearest == 0 { 1 } else { nearest };
        Some(Self { track_bytes, window_pieces })
    }

    /// How many windows the track has; at least one.
    #[must_use]
    pub const fn count(&self) -> u64 {
        piece_count(self.track_bytes).div_ceil(self.window_pieces)
    }

    /// The pieces of window `index`, or nothing past the last window.
    #[must_use]
    pub fn pieces(&self, index: u64) -> Option<Range<u64>> {
        if index >= self.count() {
            return None;
        }
        let first = index * self.window_pieces;
        Some(first..(first + self.window_pieces).min(piece_count(self.track_bytes)))
    }

    /// The bytes of window `index`, or nothing past the last window.
    #[must_use]
    pub fn bytes(&self, index: u64) -> Option<ByteRange> {
        let pieces = self.pieces(index)?;
        ByteRange::new(pieces.start * PIECE_BYTES, (pieces.end * PIECE_BYTES).min(self.track_bytes))
    }

    /// The window that holds the byte at `offset`, or nothing past the track's end.
    #[must_use]
    pub const fn holding(&self, offset: u64) -> Option<u64> {
        if offset < self.track_bytes { Some(offset / PIECE_BYTES / self.window_pieces) } else { None }
    }
}

// The assumed window is more than one piece, so that an unknown track's head is not starved.
const _: () = assert!(Windows::WINDOW_BYTES_ASSUMED > PIECE_BYTES && PIECE_BYTES == 256 * KIB);

#[cfg(test)]
mod tests {
    use super::*;

    /// A track of `kbit_s` that plays for `seconds`.
    fn track(kbit_s: u64, seconds: u64) -> (u64, Windows) {
        let bytes = kbit_s * 1000 / 8 * seconds;
        (bytes, Windows::new(bytes, Some(seconds * 1000)).expect("a track has that length"))
    }

    #[test]
    fn a_window_plays_about_fifteen_seconds() {
        // Bit rate, pieces a window: 96 kbit/s is 0.7 pieces in 15 s, CD audio is 10.1.
        for (kbit_s, pieces) in [(96, 1), (128, 1), (160, 1), (256, 2), (320, 2), (1411, 10)] {
            let (_, windows) = track(kbit_s, 240);
            assert_eq!(windows.pieces(0), Some(0..pieces), "{kbit_s} kbit/s");
        }
    }

    #[test]
    fn windows_cover_every_byte_once() {
        for (kbit_s, seconds) in [(8, 1), (96, 3), (128, 16), (320, 240), (1411, 200)] {
            let (bytes, windows) = track(kbit_s, seconds);
            let mut next = 0;
            for index in 0..windows.count() {
                let range = windows.bytes(index).expect("within the track");
                assert_eq!(range.start(), next);
                assert_eq!(windows.holding(range.start()), Some(index));
                assert_eq!(windows.holding(range.end() - 1), Some(index));
                next = range.end();
            }
            assert_eq!(next, bytes);
            assert_eq!(windows.bytes(windows.count()), None);
            assert_eq!(windows.holding(bytes), None);
        }
    }

    #[test]
    fn any_length_and_duration_have_an_answer() {
        assert_eq!(Windows::new(0, Some(1000)), None);
        assert_eq!(Windows::new(TRACK_BYTES_MAX + 1, None), None);
        // Not known: 600 kB are 2.3 pieces.
        for duration in [None, Some(0)] {
            let windows = Windows::new(10 * PIECE_BYTES, duration).expect("a track has that length");
            assert_eq!((windows.count(), windows.pieces(0)), (5, Some(0..2)));
        }
        // A claimed duration may be anything: a moment, so that one window is all of it, or an age.
        let moment = Windows::new(TRACK_BYTES_MAX, Some(1)).expect("a track has that length");
        assert_eq!((moment.count(), moment.bytes(0)), (1, ByteRange::whole(TRACK_BYTES_MAX)));
        let age = Windows::new(TRACK_BYTES_MAX, Some(u64::MAX)).expect("a track has that length");
        assert_eq!(age.pieces(0), Some(0..1));
    }
}
