//! Tracks of partitions, page by page, each from a holder that may answer for its partition.

use std::collections::VecDeque;

use deadwax_dht::wire::{Feed, ListedTrack, Message, TRACKS_MAX};
use deadwax_dht::{Failure, FailureKind, Holder};
use deadwax_track::{Partition, TrackId};
use tokio::task::JoinHandle;

use crate::error::Holders;
use crate::read::failure;
use crate::{Client, Error};

/// How many partitions are asked for at a time: an empty one costs no more than the way there and back.
const AHEAD_MAX: usize = 8;
/// How much longer than another answer a page may take: a slow drive reads the tags of each track.
const PAGE_MS: u64 = 8_000;

/// What a holder lists: tracks, and the id after which the next page begins, if there is more.
type Listed = Result<(Vec<ListedTrack>, Option<TrackId>), Error>;

/// Reads these partitions, one after the other, and asks for the next ones meanwhile.
#[derive(Debug)]
pub(crate) struct Pages<I> {
    client: Client,
    /// Which partitions are to be read still.
    rest: I,
    /// Those that are asked for, in that order. Of the first one pages may have been given.
    ahead: VecDeque<Asked>,
    /// Of the first one what was read already.
    after: Option<TrackId>,
}

/// A page of a partition.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) partition: Partition,
    /// By rising id, behind those of the page before; there may be none.
    pub(crate) tracks: Vec<ListedTrack>,
    /// The partition's next page comes after this id; none: this was the last one.
    pub(crate) next: Option<TrackId>,
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

impl<I: Iterator<Item = u16>> Pages<I> {
    /// Of the partitions of these numbers; the first one's pages begin after an id, if one of it is given.
    pub(crate) const fn new(client: Client, partitions: I, after: Option<TrackId>) -> Self {
        Self { client, rest: partitions, ahead: VecDeque::new(), after }
    }

    /// The next page; none: that was all. After an error the same page is asked for again.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, Error> {
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
        Ok(Some(Page { partition, tracks, next }))
    }

    /// Goes on with the partition after the one of which a page could not be had.
    pub(crate) fn pass_over(&mut self) -> Option<Partition> {
        self.after = None;
        self.ahead.pop_front().map(|asked| asked.partition)
    }

    /// Has as many partitions asked for as may be, each by a task of its own.
    fn ask_ahead(&mut self) {
        while self.ahead.len() < AHEAD_MAX {
            let Some(partition) = self.rest.next().map(Partition) else { break };
            self.ahead.push_back(Asked { partition, answer: None });
        }
        for asked in self.ahead.iter_mut().filter(|asked| asked.answer.is_none()) {
            let (client, partition) = (self.client.clone(), asked.partition);
            let after = self.after.filter(|after| after.partition() == partition);
            asked.answer = Some(tokio::spawn(async move { client.page(partition, after).await }));
        }
    }
}

impl Client {
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
            let is_busy = failures.iter().any(|(_, failure)| failure.kind == FailureKind::Busy);
            let holders = Holders::of(known.map(), &holders, failures.iter().map(|(index, why)| (*index, why)));
            if !course.follow(self, told, None).await {
                let what = format!("list partition {:04x}: no holder may answer for it now", partition.0);
                return Err(if is_busy { Error::Busy(holders) } else { Error::Unavailable { what, holders } });
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
