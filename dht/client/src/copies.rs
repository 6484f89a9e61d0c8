//! How many copies there are, by comparing what co-holders hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deadwax_dht::wire::{DIGEST_PARTITIONS_MAX, IDS_MAX, Message, PartitionDigest};
use deadwax_dht::{Failure, FailureKind, VolumeId};
use deadwax_track::{PARTITIONS, Partition, TrackId};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::Client;
use crate::known::Known;
use crate::read::failure;
use crate::shortfall::{Lacking, Shortfalls};

/// How many copies of tracks there are, by the policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// The tracks that are seen, times the policy's copies.
    pub expected: u64,
    /// The copies that are seen where they belong.
    pub seen: u64,
    /// The difference. What only a node that is down holds is not seen at all.
    pub missing: u64,
    /// Whether all partitions that differ were compared track by track; otherwise the figures are the least that
    /// they can be.
    pub exact: bool,
}

/// What each volume that could be asked holds, by partition.
pub(crate) type VolumeDigests = BTreeMap<VolumeId, BTreeMap<Partition, PartitionDigest>>;

/// What counting came to.
pub(crate) struct Counted {
    pub(crate) tracks: u64,
    pub(crate) copies: Copies,
    pub(crate) shortfalls: Shortfalls,
}

/// How much later a partition in which holders differ is looked at a second time: a put's third copy, and a takedown, come
/// within that.
const SECOND_LOOK: Duration = Duration::from_secs(3);
/// The most that are: those of clients that put now. Where more differ copies are missing.
const DOUBTFUL_MAX: usize = 64;
/// After so many partitions a task lets others run: 65,536 take some milliseconds, in a large cluster seconds.
const PARTITIONS_PER_TURN: u16 = 512;

impl Client {
    /// What a volume holds, by partition; those that are empty are absent.
    pub(crate) async fn digests(
        known: &Known,
        node: usize,
        volume: VolumeId,
    ) -> Result<BTreeMap<Partition, PartitionDigest>, Failure> {
        const { assert!(PARTITIONS.is_multiple_of(DIGEST_PARTITIONS_MAX)) };
        let mut all = BTreeMap::new();
        for turn in 0..PARTITIONS / DIGEST_PARTITIONS_MAX {
            let first = Partition(u16::try_from(turn * DIGEST_PARTITIONS_MAX).expect("below 65,536"));
            let request = Message::Digests { volume, first, count: DIGEST_PARTITIONS_MAX };
            let (lease, reply) = known.ask(node, &request).await?;
            lease.give_back();
            let Message::DigestList(digests) = reply else { return Err(failure(reply)) };
            all.extend(digests.into_iter().filter(|each| each.tracks > 0).map(|each| (each.partition, each)));
        }
        Ok(all)
    }

    /// All ids that a volume holds in a partition.
    async fn list(
        known: &Known,
        node: usize,
        volume: VolumeId,
        partition: Partition,
    ) -> Result<BTreeSet<TrackId>, Failure> {
        let mut all = BTreeSet::<TrackId>::new();
        loop {
            let request = Message::List { volume, partition, after: all.last().copied(), limit: IDS_MAX };
            let (lease, reply) = known.ask(node, &request).await?;
            lease.give_back();
            let Message::Ids(ids) = reply else { return Err(failure(reply)) };
            let (count, before) = (ids.len(), all.len());
            all.extend(ids);
            if count < IDS_MAX as usize {
                return Ok(all);
            }
            if all.len() == before {
                return Err(Failure::new(FailureKind::Internal, "lists the same ids again"));
            }
        }
    }

    /// What those of a partition's holders have, one by one, that said how many they have.
    async fn look(known: &Known, partition: Partition, all: &[Said], deadline: Instant) -> Option<Look> {
        let mut ids = Vec::with_capacity(all.len());
        for said in all.iter().filter(|said| said.digest.is_some()) {
            let listing = Self::list(known, said.node, said.volume, partition);
            ids.push(timeout_at(deadline, listing).await.ok()?.ok()?);
        }
        let union: BTreeSet<TrackId> = ids.iter().flatten().copied().collect();
        let lacking = ids.into_iter().map(|ids| union.difference(&ids).copied().collect()).collect();
        Some(Look { tracks: union.len() as u64, lacking })
    }

    /// Counts tracks and copies. Partitions in which all holders agree are counted by their digests; only those that
    /// differ are listed, until `deadline`, and a second time some seconds later: what one lacked both times is missing, as what
    /// was being put or taken down is on all by then. Where very many differ once must do. Of a partition that moves, the first
    /// set of holders is counted.
    pub(crate) async fn count_copies(known: &Known, digests: &VolumeDigests, deadline: Instant) -> Counted {
        let mut count = Count::default();
        let mut doubtful = Vec::new();
        for partition in (0..=u16::MAX).map(Partition) {
            if partition.0.is_multiple_of(PARTITIONS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            let all: Vec<Said> = known
                .sets(partition)
                .first
                .iter()
                .map(|holder| Said {
                    volume: holder.volume,
                    node: holder.node,
                    digest: digests.get(&holder.volume).map(|held| held.get(&partition).copied()),
                })
                .collect();
            let mut said = all.iter().filter_map(|said| said.digest);
            let first = said.next().flatten();
            if said.all(|digest| digest == first) {
                count.agreed(known, partition, &all, first.map_or(0, |digest| u64::from(digest.tracks)));
                continue;
            }
            let mut filled = all.iter().filter_map(|said| said.digest.flatten());
            let one = filled.next();
            if doubtful.len() >= DOUBTFUL_MAX && filled.all(|digest| Some(digest) == one) {
                // The others are empty, as a new drive is: nothing is to be learnt from lists.
                count.by_digests(known, partition, &all);
                continue;
            }
            match Self::look(known, partition, &all, deadline).await {
                Some(look) if look.lacks() && doubtful.len() < DOUBTFUL_MAX => doubtful.push((partition, all, look)),
                look => count.differed(known, partition, &all, look),
            }
        }
        if !doubtful.is_empty() {
            sleep_until(deadline.min(Instant::now() + SECOND_LOOK)).await;
        }
        for (partition, all, before) in doubtful {
            let look = match Self::look(known, partition, &all, deadline).await {
                Some(again) => again.and(&before),
                None => before,
            };
            count.differed(known, partition, &all, Some(look));
        }
        count.counted(u64::from(known.map().policy().copies))
    }
}

/// What a holder of a partition said that it has in it.
struct Said {
    volume: VolumeId,
    node: usize,
    /// Nothing: it did not say, and nothing within: it has none.
    digest: Option<Option<PartitionDigest>>,
}

/// What was seen of a partition.
struct Look {
    /// Different tracks.
    tracks: u64,
    /// What each holder that said what it has does not have of them.
    lacking: Vec<BTreeSet<TrackId>>,
}

impl Look {
    fn lacks(&self) -> bool {
        self.lacking.iter().any(|lacking| !lacking.is_empty())
    }

    /// What lacked both times.
    fn and(mut self, before: &Self) -> Self {
        for (now, before) in self.lacking.iter_mut().zip(&before.lacking) {
            now.retain(|id| before.contains(id));
        }
        self
    }
}

#[derive(Default)]
struct Count {
    tracks: u64,
    seen: u64,
    inexact: bool,
    shortfalls: Shortfalls,
}

impl Count {
    /// All that said what they have have the same.
    fn agreed(&mut self, known: &Known, partition: Partition, all: &[Said], tracks: u64) {
        self.add(known, partition, all, tracks, |said| said.digest.map(|_| tracks));
    }

    /// They have not; `look`: what was seen, if they could be asked.
    fn differed(&mut self, known: &Known, partition: Partition, all: &[Said], look: Option<Look>) {
        let Some(look) = look else {
            self.inexact = true;
            return self.by_digests(known, partition, all);
        };
        let mut lacking = look.lacking.iter();
        self.add(known, partition, all, look.tracks, |said| {
            said.digest.map(|_| look.tracks - lacking.next().map_or(0, |lacking| lacking.len() as u64))
        });
    }

    /// By how many each has: exact where those that have any have the same.
    fn by_digests(&mut self, known: &Known, partition: Partition, all: &[Said]) {
        let has = |said: &Said| said.digest.map(|digest| digest.map_or(0, |digest| u64::from(digest.tracks)));
        let most = all.iter().filter_map(has).max().unwrap_or(0);
        self.add(known, partition, all, most, has);
    }

    fn add(
        &mut self,
        known: &Known,
        partition: Partition,
        all: &[Said],
        tracks: u64,
        mut has: impl FnMut(&Said) -> Option<u64>,
    ) {
        let holders = all.iter().map(|said| Lacking {
            volume: said.volume,
            node: known.map().nodes()[said.node].id,
            has: has(said),
        });
        let holders: Vec<Lacking> = holders.collect();
        self.tracks += tracks;
        self.seen += holders.iter().filter_map(|holder| holder.has).sum::<u64>();
        self.shortfalls.add(partition, tracks, holders.into_iter());
    }

    fn counted(self, per_track: u64) -> Counted {
        let expected = self.tracks * per_track;
        let (seen, exact) = (self.seen, !self.inexact);
        let copies = Copies { expected, seen, missing: expected.saturating_sub(seen), exact };
        Counted { tracks: self.tracks, copies, shortfalls: self.shortfalls }
    }
}
