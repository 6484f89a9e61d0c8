//! How many copies there are, by comparing what co-holders hold.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::wire::{DIGEST_PARTITIONS_MAX, IDS_MAX, Message, PartitionDigest};
use deadwax_dht::{Failure, FailureKind, VolumeId};
use deadwax_track::{PARTITIONS, Partition, TrackId};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

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

    /// Counts tracks and copies. Partitions in which all holders agree are counted by their digests; only those that
    /// differ are listed, until `deadline`. Of a partition that moves, the first set of holders is counted.
    pub(crate) async fn count_copies(known: &Known, digests: &VolumeDigests, deadline: Instant) -> Counted {
        let per_track = u64::from(known.map().policy().copies);
        let (mut tracks, mut seen, mut exact) = (0, 0, true);
        let mut shortfalls = Shortfalls::default();
        for partition in (0..=u16::MAX).map(Partition) {
            if partition.0.is_multiple_of(PARTITIONS_PER_TURN) {
                tokio::task::yield_now().await;
            }
            let holders = known.sets(partition).first;
            let held: Vec<_> = holders
                .iter()
                .filter_map(|holder| Some((holder, digests.get(&holder.volume)?.get(&partition)?)))
                .collect();
            let Some((_, first)) = held.first() else { continue };
            seen += held.iter().map(|(_, digest)| u64::from(digest.tracks)).sum::<u64>();
            let mut different = u64::from(first.tracks);
            if !held.iter().all(|(_, digest)| digest == first) {
                let mut union = BTreeSet::new();
                for (holder, _) in &held {
                    match timeout_at(deadline, Self::list(known, holder.node, holder.volume, partition)).await {
                        Ok(Ok(ids)) => union.extend(ids),
                        Ok(Err(_)) | Err(_) => exact = false,
                    }
                }
                let most = held.iter().map(|(_, digest)| u64::from(digest.tracks)).max().unwrap_or(0);
                different = (union.len() as u64).max(most);
            }
            tracks += different;
            let said = holders.iter().map(|holder| {
                let digest = digests.get(&holder.volume).map(|held| held.get(&partition));
                let has = digest.map(|digest| digest.map_or(0, |digest| u64::from(digest.tracks)));
                Lacking { volume: holder.volume, node: known.map().nodes()[holder.node].id, has }
            });
            shortfalls.add(partition, different, said);
        }
        let expected = tracks * per_track;
        // A put may end between two answers; then there is a copy more than was expected.
        let copies = Copies { expected, seen, missing: expected.saturating_sub(seen), exact };
        Counted { tracks, copies, shortfalls }
    }
}
