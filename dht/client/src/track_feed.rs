//! What is stored, with tags: for whoever builds an index.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use deadwax_dht::wire::ListedTrack;
use deadwax_track::{Partition, TrackId};

use crate::takedown_log::BadCursor;
use crate::track_pages::{Page, Pages};
use crate::{Client, Error};

/// How far somebody has read what is stored: the next page begins after a track, or with a partition. As text it is the
/// partition's four hexadecimal digits, and where a track was read the 64 of its id instead. Good for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrackCursor {
    /// From the beginning of this partition.
    From(Partition),
    /// After this track, in its partition.
    After(TrackId),
}

impl TrackCursor {
    fn partition(&self) -> Partition {
        match self {
            Self::From(partition) => *partition,
            Self::After(track) => track.partition(),
        }
    }
}

impl fmt::Display for TrackCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(partition) => write!(f, "{:04x}", partition.0),
            Self::After(track) => write!(f, "{track}"),
        }
    }
}

impl FromStr for TrackCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return u16::from_str_radix(text, 16)
                .map(|partition| Self::From(Partition(partition)))
                .map_err(|_| BadCursor);
        }
        text.parse().map(Self::After).map_err(|_| BadCursor)
    }
}

/// Some tracks, by rising id, and where the next page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrackPage {
    /// At least one.
    pub tracks: Vec<ListedTrack>,
    /// Behind them.
    pub cursor: TrackCursor,
}

/// Reads tracks page by page: see [`Client::feed`].
#[derive(Debug)]
pub struct TrackFeed {
    pages: Pages<RangeInclusive<u16>>,
}

impl Client {
    /// Reads all tracks of these partitions, with their tags, from the cursor on: each once, whatever holders are down, and
    /// across calls with the cursor of the last page. Of each partition one holder is asked that may answer for it, as
    /// it was equal with the others; what is stored meanwhile may be missed, and what is taken down meanwhile may be given:
    /// [`Client::takedowns`] tells of that. Whoever wants what is stored later as well, [follows](Client::follow_tracks).
    #[must_use]
    pub fn feed(&self, partitions: RangeInclusive<u16>, cursor: TrackCursor) -> TrackFeed {
        let first = cursor.partition().0.max(*partitions.start());
        let after = if let TrackCursor::After(track) = cursor { Some(track) } else { None };
        TrackFeed { pages: Pages::new(self.clone(), first..=*partitions.end(), after) }
    }
}

impl TrackFeed {
    /// The next tracks; none: that was all.
    ///
    /// # Errors
    /// `Unavailable`: no holder of a partition may answer for it now. `Busy`: nor may one that is busy. Call it again: it
    /// goes on from there.
    pub async fn next(&mut self) -> Result<Option<TrackPage>, Error> {
        while let Some(Page { tracks, next, .. }) = self.pages.next().await? {
            if let Some(last) = tracks.last() {
                let cursor = TrackCursor::After(next.unwrap_or(last.id));
                return Ok(Some(TrackPage { tracks, cursor }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_text_and_comes_back() {
        for cursor in [TrackCursor::From(Partition(0x00af)), TrackCursor::After(TrackId::of(b"a"))] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "00a", "+0af", "00a\u{e9}", "00afx", &"f".repeat(63)] {
            assert_eq!(bad.parse::<TrackCursor>(), Err(BadCursor), "{bad}");
        }
    }
}
