//! Following what is stored: again and again only those partitions are read that hold something else than was given of them.
//!
//! **Promise.** Who follows is given each track that is stored, at the latest when its holders are equal, and costs little
//! where nothing changed: 4 questions for each volume that is asked; in a small cluster that is one, or all while there are
//! partitions without a track.
//!
//! **How.** Of each partition a follower remembers the XOR of the first 16 bytes of the ids that it was given
//! ([`SeenTracks`]). A volume tells the same of what it holds, some thousand partitions in one answer (`Digests`), whether the
//! cluster has a log or not. A *pass* compares with the nearest holder of each partition that is up; where that does not
//! have it as it was seen, with the next one. Only a partition which no holder that answers has as it was seen is read,
//! whole; one of which nothing was seen, where any has tracks. Its pages come from holders that may answer for it, and are
//! remembered by the ids that they had, whatever anybody said before: so the memory never stands for more than was given.
//!
//! **Why nothing is missed for good.** A partition is passed over only when the very tracks that were given lie at one of its
//! holders. A track that was acknowledged at two of three may be missing there: until anti-entropy has told that holder, within
//! a minute or so, or another one takes its place. Then it holds more than was seen, as all others do, and the next pass reads
//! it. What is put while a partition is read makes it differ likewise.
//!
//! **Why differences between holders cost little.** One that has less than the others, as a drive that was replaced, is not
//! believed alone: another has the partition as it was seen. Where all differ it is read at each pass: one with a track that
//! was taken down and is not erased yet, since pages leave out such.
//!
//! **What happens on each failure.**
//!
//! - *A holder does not answer:* the next one is asked, in the same pass.
//! - *None of a partition does:* the pass goes on without it, and ends with an error; the next pass asks again.
//! - *Nodes are busy:* it pauses, and asks again for a while.
//! - *The map changes:* the partition's new holders are compared. They hold the same.
//! - *What was kept of it is lost:* everything is given again.
//!
//! **Absent on purpose.** Which tracks are gone ([`Client::takedowns`] tells of them), which of a partition's tracks are new,
//! and when to make a pass: the caller knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use std::vec;

use deadwax_dht::wire::{DIGEST_PARTITIONS_MAX, ListedTrack, Message};
use deadwax_dht::{Failure, FailureKind, Holder, VolumeId};
use deadwax_track::Partition;
use tokio::time::sleep;

use crate::error::{HolderFailure, Holders};
use crate::known::Known;
use crate::read::failure;
use crate::seen_tracks::SeenTracks;
use crate::track_pages::{Page, Pages};
use crate::{Client, Error};

/// How long it pauses where nodes are busy, and how often in a row before that is a failure.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSES_MAX: u32 = 8;
/// So many partitions that cannot be read end a pass: each may have taken its holders' deadlines.
const FAILED_MAX: u32 = 8;
/// So many failures are named in an error.
const FAILURES_MAX: usize = 16;
/// After so many partitions a task lets others run.
const PARTITIONS_PER_TURN: usize = 512;

/// Gives what is stored, and then what changes: see [`Client::follow_tracks`].
#[derive(Debug)]
pub struct TrackFollower {
    client: Client,
    seen: SeenTracks,
    /// The pass that is under way.
    pass: Option<Pass>,
    /// Where the next one begins: behind the partition at which the last one was given up, so that none is never read.
    first: u16,
}

#[derive(Debug)]
struct Pass {
    pages: Pages<vec::IntoIter<u16>>,
    /// What was given of the partition that is being read.
    given: u128,
    /// The first error, and how many partitions could not be read.
    why: Option<Error>,
    failed: u32,
    /// How often it paused since a page came.
    pauses: u32,
}

impl Client {
    /// Follows what is stored, with tags, from what was seen before: with the default all there is comes first. The
    /// follower takes 5 MiB of memory at most, and 8 pages of 256 tracks. It asks one volume at a time how its partitions
    /// are, and reads 8 of them at a time.
    ///
    /// ```no_run
    /// # async fn example(client: deadwax_dht_client::Client, kept: &[u8]) {
    /// use deadwax_dht_client::SeenTracks;
    ///
    /// let mut follower = client.follow_tracks(SeenTracks::decode(kept).unwrap_or_default());
    /// loop {
    ///     match follower.next().await {
    ///         Ok(Some(tracks)) => println!("{} tracks to take up, some for another time", tracks.len()),
    ///         // Once those are safe: keep `follower.seen().encode()`.
    ///         Ok(None) => tokio::time::sleep(std::time::Duration::from_secs(60)).await,
    ///         Err(why) => {
    ///             println!("{why}");
    ///             tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn follow_tracks(&self, seen: SeenTracks) -> TrackFollower {
        TrackFollower { client: self.clone(), seen, pass: None, first: 0 }
    }
}

impl TrackFollower {
    /// Some tracks, at least one, of one partition and by rising id: of a partition that changed all come, in one or more
    /// such pages. None: the pass is over, and all that could be found was given. The call after it begins another pass, so
    /// wait a while.
    ///
    /// # Errors
    /// `Unavailable`: some partitions could not be compared or read. `Busy`: nodes were for some seconds. The pass is over,
    /// what was given stays seen, and the next one begins with the next call: wait a moment.
    pub async fn next(&mut self) -> Result<Option<Vec<ListedTrack>>, Error> {
        loop {
            let pass = match &mut self.pass {
                Some(pass) => pass,
                None => self.pass.insert(self.client.pass(&self.seen, self.first).await),
            };
            match pass.pages.next().await {
                Ok(Some(Page { partition, tracks, next })) => {
                    pass.pauses = 0;
                    pass.given =
                        tracks.iter().fold(pass.given, |sum, track| sum ^ u128::from_le_bytes(track.id.half()));
                    if next.is_none() {
                        self.seen.set(partition, std::mem::take(&mut pass.given));
                    }
                    if !tracks.is_empty() {
                        return Ok(Some(tracks));
                    }
                }
                Ok(None) => {
                    self.first = 0;
                    return self.pass.take().and_then(|pass| pass.why).map_or(Ok(None), Err);
                }
                Err(Error::Busy(_)) if pass.pauses < PAUSES_MAX => {
                    pass.pauses += 1;
                    sleep(PAUSE).await;
                }
                Err(why) => {
                    let partition = pass.pages.pass_over();
                    pass.why.get_or_insert(why);
                    (pass.given, pass.failed) = (0, pass.failed + 1);
                    if pass.failed == FAILED_MAX {
                        self.first = partition.map_or(0, |partition| partition.0.wrapping_add(1));
                        return self.pass.take().and_then(|pass| pass.why).map_or(Ok(None), Err);
                    }
                }
            }
        }
    }

    /// What was given so far, a partition at a time: of one that is being given nothing new counts. Keep it when what was
    /// given is kept.
    #[must_use]
    pub const fn seen(&self) -> &SeenTracks {
        &self.seen
    }
}

/// What was found of the partitions.
#[derive(Default)]
struct Compared {
    /// Those that are to be read.
    changed: Vec<u16>,
    /// How many there are of which no holder answered.
    unheard: usize,
    failures: Holders,
    is_busy: bool,
    /// Nodes that were out of reach.
    out: BTreeSet<usize>,
    /// How often it paused.
    pauses: u32,
}

impl Compared {
    fn failed(&mut self, known: &Known, node: usize, Failure { kind, why }: Failure) {
        self.is_busy |= kind == FailureKind::Busy;
        if matches!(kind, FailureKind::Unreachable | FailureKind::Stalled) {
            self.out.insert(node);
        }
        if self.failures.0.len() < FAILURES_MAX {
            let address = known.map().nodes()[node].address.clone();
            self.failures.0.push(HolderFailure { node: known.node_id(node), address, why });
        }
    }
}

impl Client {
    /// Finds out what is to be read, beginning with a partition.
    async fn pass(&self, seen: &SeenTracks, first: u16) -> Pass {
        let mut course = self.course();
        let mut compared = self.compare(&course.known, seen).await;
        while course.follow(self, course.known.told(), None).await {
            compared = self.compare(&course.known, seen).await;
        }
        let Compared { mut changed, unheard, failures, is_busy, .. } = compared;
        let why = (unheard > 0).then(|| {
            let what = format!("compare {unheard} partitions: no holder said what it holds");
            if is_busy { Error::Busy(failures) } else { Error::Unavailable { what, holders: failures } }
        });
        let before = changed.partition_point(|partition| *partition < first);
        changed.rotate_left(before);
        let pages = Pages::new(self.clone(), changed.into_iter(), None);
        Pass { pages, given: 0, why, failed: 0, pauses: 0 }
    }

    /// Compares what was seen with what is held: at the nearest holder of each partition, and where that decides nothing at the
    /// next.
    async fn compare(&self, known: &Known, seen: &SeenTracks) -> Compared {
        let (distances, mut compared) = (distances(known), Compared::default());
        // Those that are undecided, and whether a holder answered.
        let mut open: Vec<(u16, bool)> = (0..=u16::MAX).map(|partition| (partition, false)).collect();
        for rank in 0.. {
            // By volume, at which places those stand that are to be compared with it.
            let mut asks = BTreeMap::<(usize, VolumeId), Vec<usize>>::new();
            for (at, (partition, _)) in open.iter().enumerate() {
                if at.is_multiple_of(PARTITIONS_PER_TURN) {
                    tokio::task::yield_now().await;
                }
                let mut holders = known.sets(Partition(*partition)).first;
                holders.sort_by_key(|Holder { node, .. }| distances[*node]);
                if let Some(holder) = holders.get(rank) {
                    asks.entry((holder.node, holder.volume)).or_default().push(at);
                }
            }
            if asks.is_empty() {
                break;
            }
            let mut decided = vec![false; open.len()];
            for ((node, volume), places) in asks {
                if compared.out.contains(&node) {
                    continue;
                }
                let partitions: Vec<u16> = places.iter().map(|at| open[*at].0).collect();
                let (digests, ended) = held(known, (node, volume), &partitions, &mut compared.pauses).await;
                for (at, digest) in places.into_iter().zip(digests) {
                    let (partition, heard) = &mut open[at];
                    let seen = seen.digest(Partition(*partition));
                    *heard = true;
                    // One that is empty is no witness of what is not there: it may be new.
                    decided[at] = if seen == 0 { digest != 0 } else { digest == seen };
                    if decided[at] && seen == 0 {
                        compared.changed.push(*partition);
                    }
                }
                ended.unwrap_or_else(|failure| compared.failed(known, node, failure));
            }
            let mut decided = decided.into_iter();
            open.retain(|_| !decided.next().expect("one for each"));
        }
        for (partition, heard) in open {
            compared.unheard += usize::from(!heard);
            if heard && seen.digest(Partition(partition)) != 0 {
                compared.changed.push(partition);
            }
        }
        compared.changed.sort_unstable();
        compared
    }
}

/// The digests of these partitions, which rise, at a volume: as many as it told, and why not all.
async fn held(
    known: &Known,
    (node, volume): (usize, VolumeId),
    partitions: &[u16],
    pauses: &mut u32,
) -> (Vec<u128>, Result<(), Failure>) {
    let mut digests = Vec::with_capacity(partitions.len());
    while let Some(first) = partitions.get(digests.len()).copied() {
        let rest = &partitions[digests.len()..];
        let run = rest.partition_point(|partition| u32::from(partition - first) < DIGEST_PARTITIONS_MAX);
        let count = u32::from(rest[run - 1] - first) + 1;
        match told(known, node, &Message::Digests { volume, first: Partition(first), count }).await {
            // What it does not name is empty.
            Ok(told) => digests.extend(rest[..run].iter().map(|partition| told.get(partition).copied().unwrap_or(0))),
            Err(Failure { kind: FailureKind::Busy, .. }) if *pauses < PAUSES_MAX => {
                *pauses += 1;
                sleep(PAUSE).await;
            }
            Err(failure) => return (digests, Err(failure)),
        }
    }
    (digests, Ok(()))
}

/// A node's answer to a question for digests.
async fn told(known: &Known, node: usize, request: &Message) -> Result<BTreeMap<u16, u128>, Failure> {
    let (lease, reply) = known.ask(node, request).await?;
    lease.give_back();
    let Message::DigestList(told) = reply else { return Err(failure(reply)) };
    Ok(told.into_iter().map(|each| (each.partition.0, u128::from_le_bytes(each.digest))).collect())
}

/// How far each of the map's nodes is, the nearest first: those out of reach a moment ago last, those of another zone than the
/// client's before them. No two are equal, so that few volumes are asked where each holds all.
fn distances(known: &Known) -> Vec<(bool, bool, usize)> {
    let nodes = known.map().nodes().iter().enumerate();
    let zone = known.zone().map(|zone| &known.map().zones()[zone]);
    nodes
        .map(|(index, node)| (known.pool(index).is_suspect(), zone.is_some_and(|zone| *zone != node.zone), index))
        .collect()
}
