//! What is stored, with tags: for whoever builds an index.

use std::collections::VecDeque;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use deadwax_dht::wire::{Feed, ListedTrack, Message, TRACKS_MAX};
use deadwax_dht::{Failure, FailureKind, Holder};
use deadwax_track::{Partition, TrackId};
use tokio::task::JoinHandle;

use crate::error::Holders;
use crate::read::failure;
use crate::takedown_log::BadCursor;
use crate::{Client, Error};

/// How many partitions are asked for at a time: an empty one costs no more than the way there and back.
const AHEAD_MAX: usize = 8;
/// How much longer than another answer a page may take: a slow drive reads the tags of each track.
const PAGE_MS: u64 = 8_000;

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

/// What a holder lists: tracks, and the id after which the next page begins, if there is more.
type Listed = Result<(Vec<ListedTrack>, Option<TrackId>), Error>;

/// Reads tracks page by page: see [`Client::feed`].
#[derive(Debug)]
pub struct TrackFeed {
    client: Client,
    /// Which partitions are to be read still; none: all were begun.
    rest: Option<RangeInclusive<u16>>,
    /// Those that are asked for, rising. Of the first one pages may have been given.
    ahead: VecDeque<Asked>,
    /// Of the first one what was read already.
    after: Option<TrackId>,
}

/// A partition whose next page is asked for.
#[derive(Debug)]
struct Asked {
    partition: Partition,
    /// None: it is to be asked for.
    answer: Option<JoinHandle<Listed>>,
}

impl Asked {
    fn give_up(&mut self) {
        if let Some(answer) = self.answer.take() {
            answer.abort();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Client {
    /// Reads all tracks of these partitions, with their tags, from the cursor on: each once, whatever holders are down, and
    /// across calls with the cursor of the last page. Of each partition one holder is asked that may answer for it, as
    /// it was equal with the others; what is stored meanwhile may be missed, and what is taken down meanwhile may be given:
    /// [`Client::takedowns`] tells of that.
    #[must_use]
    pub fn feed(&self, partitions: RangeInclusive<u16>, cursor: TrackCursor) -> TrackFeed {
        let first = cursor.partition().0.max(*partitions.start());
        let rest = (first <= *partitions.end()).then(|| first..=*partitions.end());
        let after = if let TrackCursor::After(track) = cursor { Some(track) } else { None };
        TrackFeed { client: self.clone(), rest, ahead: VecDeque::new(), after }
    }

    /// A page of a partition, and the id after which the next one begins, if there is more.
    async fn page(&self, partition: Partition, after: Option<TrackId>) -> Listed {
        let mut course = self.course();
        loop {
            let known = &course.known;
            let mut holders: Vec<Holder> = known.sets(partition).first;
            holders.sort_by_key(|holder| known.pool(holder.node).is_suspect());
            let mut failures: Vec<(usize, Failure)> = Vec::new();
            for (index, holder) in holders.iter().enumerate() {
                let tracks = Feed::Tracks { volume: holder.volume, partition, after, limit: TRACKS_MAX };
                match known.ask_patiently(holder.node, &Message::Feed(tracks), PAGE_MS).await {
                    Ok((lease, reply)) => {
                        lease.give_back();
                        match reply {
                            Message::Feed(Feed::TrackList { tracks, next }) => {
                                if goes_on(partition, after, &tracks, next) {
                                    return Ok((tracks, next));
                                }
                                let why = "lists tracks of another partition, or that come before what was asked for";
                                failures.push((index, Failure::new(FailureKind::Internal, why)));
                            }
                            other => failures.push((index, failure(other))),
                        }
                    }
                    Err(failure) => failures.push((index, failure)),
                }
            }
            let told = known.told();
            let holders = Holders::of(known.map(), &holders, failures.iter().map(|(index, why)| (*index, why)));
            if !course.follow(self, told, None).await {
                let what = format!("list partition {:04x}: no holder may answer for it now", partition.0);
                return Err(Error::Unavailable { what, holders });
            }
        }
    }
}

/// Whether a page is of the partition, rises, and lies behind `after`: a holder whose page does not would be asked for ever,
/// or tracks be missed.
fn goes_on(partition: Partition, after: Option<TrackId>, tracks: &[ListedTrack], next: Option<TrackId>) -> bool {
    let is_behind = |id: &TrackId| id.partition() == partition && after.is_none_or(|after| after < *id);
    let rises = tracks.is_sorted_by(|one, other| one.id < other.id);
    rises
        && tracks.iter().all(|track| is_behind(&track.id))
        && next.is_none_or(|next| is_behind(&next) && tracks.last().is_none_or(|last| last.id <= next))
}

impl TrackFeed {
    /// The next tracks; none: that was all.
    ///
    /// # Errors
    /// `Unavailable`: no holder of a partition may answer for it now. Call it again: it goes on from there.
    pub async fn next(&mut self) -> Result<Option<TrackPage>, Error> {
        loop {
            self.ask_ahead();
            let Some(first) = self.ahead.front_mut() else { return Ok(None) };
            let (partition, answer) = (first.partition, first.answer.as_mut().expect("all are asked for"));
            // Where the caller goes away meanwhile, the question runs on.
            let listed = answer.await.unwrap_or_else(|why| {
                let what = format!("list partition {:04x}: {why}", partition.0);
                Err(Error::Unavailable { what, holders: Holders::default() })
            });
            first.answer = None;
            let (tracks, next) = match listed {
                Ok(listed) => listed,
                Err(why) => {
                    // The caller may take its time: then what is found now is of the past.
                    self.ahead.iter_mut().for_each(Asked::give_up);
                    return Err(why);
                }
            };
            self.after = next;
            if next.is_none() {
                self.ahead.pop_front();
            }
            if let Some(last) = tracks.last() {
                let cursor = TrackCursor::After(next.unwrap_or(last.id));
                return Ok(Some(TrackPage { tracks, cursor }));
            }
        }
    }

    /// Has as many partitions asked for as may be, each by a task of its own.
    fn ask_ahead(&mut self) {
        while self.ahead.len() < AHEAD_MAX {
            let Some(partition) = self.begin_next() else { break };
            self.ahead.push_back(Asked { partition, answer: None });
        }
        for asked in self.ahead.iter_mut().filter(|asked| asked.answer.is_none()) {
            let (client, partition) = (self.client.clone(), asked.partition);
            let after = self.after.filter(|after| after.partition() == partition);
            asked.answer = Some(tokio::spawn(async move { client.page(partition, after).await }));
        }
    }

    /// Takes the next partition from those that are to be read.
    fn begin_next(&mut self) -> Option<Partition> {
        let rest = self.rest.take()?;
        let (first, last) = rest.into_inner();
        self.rest = first.checked_add(1).filter(|next| *next <= last).map(|next| next..=last);
        Some(Partition(first))
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
