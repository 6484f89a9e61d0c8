//! What a change of the map would do, before anybody does it.

mod unmet;

use deadwax_track::PARTITIONS;
use serde::{Deserialize, Serialize};

pub use self::unmet::Unmet;
use crate::map::{BadMap, Map, MapSpec};
use crate::placement::{Balanced, COPY, GONE, rebalance, rebalance_on};
use crate::{NodeId, VolumeId};

/// How many bytes the tracks of each partition have, one copy of each track.
#[derive(Clone, Copy, Debug)]
pub enum PartitionBytes<'a> {
    /// So many in each: an estimate. Ids are hashes, so partitions are alike.
    Uniform(u64),
    /// So many in each, by partition: as many numbers as there are partitions.
    Each(&'a [u64]),
}

impl PartitionBytes<'_> {
    fn of(&self, partition: u16) -> u64 {
        match self {
            Self::Uniform(bytes) => *bytes,
            Self::Each(bytes) => bytes[usize::from(partition)],
        }
    }

    /// Those of all partitions.
    fn sum(&self) -> u128 {
        (0..=u16::MAX).map(|partition| u128::from(self.of(partition))).sum()
    }
}

/// One volume's part in a change. Copies are of partitions. The order of the fields is part of the wire format.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeShare {
    /// Which volume.
    pub volume: VolumeId,
    /// On which node: the node that it will be on, or was if it goes.
    pub node: NodeId,
    /// Copies before the change.
    pub copies_before: u32,
    /// Copies after it.
    pub copies_after: u32,
    /// Bytes before the change.
    pub bytes_before: u64,
    /// Bytes after it.
    pub bytes_after: u64,
    /// Bytes that come to the volume. What it gives away is the rest of the difference.
    pub bytes_arriving: u64,
    /// Copies after the change beside the volume's fair share, which is by weight as far as the rules allow: 1,000,000
    /// is exactly it.
    pub fullness_ppm: u64,
}

/// A change of the map that was worked out and not yet made.
#[derive(Debug)]
pub struct Plan {
    map: Map,
    shares: Vec<VolumeShare>,
    bytes_to_move: u128,
    bytes_unavoidable: u128,
    unmet: Vec<Unmet>,
}

impl Plan {
    /// What comes of putting `proposed` in the place of `before`, when partitions have `bytes`. The overrides of
    /// `proposed` do not count: they follow from the change. Deterministic: equal on every machine.
    ///
    /// Takes milliseconds if `before` came out of a plan, else as long as placing all of `before`.
    ///
    /// # Errors
    /// What is wrong with `proposed`, as [`Map::new`] says it.
    ///
    /// # Panics
    /// If `bytes` are given by partition and not for each.
    pub fn new(before: &Map, proposed: MapSpec, bytes: PartitionBytes<'_>) -> Result<Self, BadMap> {
        let map = Map::new(MapSpec { overrides: Vec::new(), ..proposed })?;
        let balanced = rebalance(before, &map);
        Ok(Self::of(before, map, balanced, bytes))
    }

    /// What comes of `proposed` from wherever the copies lie in `before`, whether its shares were fair or not: `before`
    /// may be a change half done. A volume that is within 1.8 % of its share keeps what it has. Else as
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// What is wrong with `proposed`, as [`Map::new`] says it.
    ///
    /// # Panics
    /// If `bytes` are given by partition and not for each.
    pub fn onward(before: &Map, proposed: MapSpec, bytes: PartitionBytes<'_>) -> Result<Self, BadMap> {
        let map = Map::new(MapSpec { overrides: Vec::new(), ..proposed })?;
        let balanced = rebalance_on(before, &map);
        Ok(Self::of(before, map, balanced, bytes))
    }

    fn of(before: &Map, mut map: Map, balanced: Balanced, bytes: PartitionBytes<'_>) -> Self {
        if let PartitionBytes::Each(bytes) = bytes {
            assert_eq!(bytes.len(), PARTITIONS as usize, "a number of bytes for each partition");
        }
        let (shares, bytes_to_move) = shares(before, &map, &balanced, bytes);
        let unmet = unmet::of(&map, &balanced.fair, &shares);
        let due = u128::from(balanced.due(&map)) * bytes.sum() / u128::from(PARTITIONS) / u128::from(COPY);
        let forced = |(partition, copies): (&u16, &u32)| u128::from(bytes.of(*partition)) * u128::from(*copies);
        let bytes_unavoidable = due.max(balanced.forced.iter().map(forced).sum());
        map.put(balanced.overrides(&map));
        map.put_assignment(balanced.assignment);
        Self { map, shares, bytes_to_move, bytes_unavoidable, unmet }
    }

    /// The proposed map with its overrides: what to publish if the plan is liked.
    #[must_use]
    pub const fn map(&self) -> &Map {
        &self.map
    }

    /// The proposed map with its overrides.
    #[must_use]
    pub fn into_map(self) -> Map {
        self.map
    }

    /// Every volume's part: those of the proposed map, then those that go.
    #[must_use]
    pub fn shares(&self) -> &[VolumeShare] {
        &self.shares
    }

    /// Bytes that come to volumes which do not have them.
    #[must_use]
    pub const fn bytes_to_move(&self) -> u128 {
        self.bytes_to_move
    }

    /// What any balanced placement would have to move if the one before was balanced: the bytes by which fair shares
    /// grow (with what makes up for copies that must leave a zone), or those of copies that are lost or must not stay
    /// where they are, whichever are more. Volumes that are off their fair shares by some thousandths need a little
    /// less, or more.
    #[must_use]
    pub const fn bytes_unavoidable(&self) -> u128 {
        self.bytes_unavoidable
    }

    /// What of the policy and the weights the proposed map cannot satisfy, the gravest first. Empty: all is well.
    #[must_use]
    pub fn unmet(&self) -> &[Unmet] {
        &self.unmet
    }
}

/// Every volume's part, and all bytes that move.
fn shares(before: &Map, after: &Map, balanced: &Balanced, bytes: PartitionBytes<'_>) -> (Vec<VolumeShare>, u128) {
    let named = |map: &Map, seat: usize| {
        let holder = map.roster().volumes()[seat].holder();
        VolumeShare {
            volume: holder.volume,
            node: map.nodes()[holder.node].id,
            copies_before: 0,
            copies_after: 0,
            bytes_before: 0,
            bytes_after: 0,
            bytes_arriving: 0,
            fullness_ppm: 0,
        }
    };
    let mut shares: Vec<VolumeShare> = (0..after.roster().volumes().len()).map(|seat| named(after, seat)).collect();
    let mut moved = 0;
    for partition in 0..=u16::MAX {
        let (had, has, size) = (balanced.before.of(partition), balanced.after.of(partition), bytes.of(partition));
        for volume in had.iter().filter(|volume| **volume != GONE) {
            let share = &mut shares[*volume as usize];
            share.copies_before += 1;
            share.bytes_before += size;
        }
        for volume in has {
            let share = &mut shares[*volume as usize];
            share.copies_after += 1;
            share.bytes_after += size;
            if !had.contains(volume) {
                share.bytes_arriving += size;
                moved += u128::from(size);
            }
        }
    }
    for (share, fair) in shares.iter_mut().zip(&balanced.fair) {
        share.fullness_ppm = u64::from(share.copies_after) * COPY * 1_000_000 / (*fair).max(1);
    }
    shares.extend(leavers(before, balanced, bytes, named));
    (shares, moved)
}

/// The volumes of `before` that the next map has no more.
fn leavers(
    before: &Map,
    balanced: &Balanced,
    bytes: PartitionBytes<'_>,
    named: impl Fn(&Map, usize) -> VolumeShare,
) -> Vec<VolumeShare> {
    let mut gone: std::collections::BTreeMap<VolumeId, VolumeShare> =
        balanced.gone.iter().map(|seat| named(before, *seat as usize)).map(|share| (share.volume, share)).collect();
    for partition in (0..=u16::MAX).filter(|partition| balanced.before.of(*partition).contains(&GONE)) {
        for volume in before.held(partition) {
            if let Some(share) = gone.get_mut(&before.roster().volumes()[*volume as usize].holder().volume) {
                share.copies_before += 1;
                share.bytes_before += bytes.of(partition);
            }
        }
    }
    gone.into_values().collect()
}
