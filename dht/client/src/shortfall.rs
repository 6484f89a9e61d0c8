//! The partitions that lack copies, by name.

use deadwax_dht::{NodeId, VolumeId};
use deadwax_track::Partition;
use serde::{Deserialize, Serialize};

/// The most partitions that a status names.
pub const SHORTFALLS_MAX: usize = 64;

/// A partition that lacks copies of its tracks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Shortfall {
    /// Which: the first 16 bits of its tracks' ids.
    pub partition: u16,
    /// Different tracks that are seen in it.
    pub tracks: u64,
    /// Copies of them that are not seen.
    pub missing: u64,
    /// The holders that have not all of them.
    pub lacking: Vec<Lacking>,
}

/// A holder that has not all tracks of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lacking {
    /// Which volume.
    pub volume: VolumeId,
    /// Its node.
    pub node: NodeId,
    /// How many of the tracks it has; nothing: it did not say, as it is down or does not serve.
    pub has: Option<u64>,
}

/// All that was found, of which the worst are kept.
#[derive(Default)]
pub(crate) struct Shortfalls {
    worst: Vec<Shortfall>,
    partitions: u64,
}

impl Shortfalls {
    /// A partition with so many different tracks, and its holders.
    pub(crate) fn add(&mut self, partition: Partition, tracks: u64, holders: impl Iterator<Item = Lacking>) {
        let lacking: Vec<Lacking> = holders.filter(|holder| holder.has.is_none_or(|has| has < tracks)).collect();
        let missing = lacking.iter().map(|holder| tracks - holder.has.unwrap_or(0)).sum();
        if missing == 0 {
            return;
        }
        self.partitions += 1;
        self.worst.push(Shortfall { partition: partition.0, tracks, missing, lacking });
        if self.worst.len() >= 2 * SHORTFALLS_MAX {
            self.keep_worst();
        }
    }

    fn keep_worst(&mut self) {
        // Most holders that lack something first, as fewest copies are left there.
        self.worst.sort_by_key(|short| (std::cmp::Reverse((short.lacking.len(), short.missing)), short.partition));
        self.worst.truncate(SHORTFALLS_MAX);
    }

    /// The worst, and how many there are.
    pub(crate) fn finish(mut self) -> (Vec<Shortfall>, u64) {
        self.keep_worst();
        (self.worst, self.partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_named_and_all_are_counted() {
        let holder = |digit, has| Lacking {
            volume: VolumeId::from_bytes([digit; 16]),
            node: NodeId::from_bytes([digit; 32]),
            has,
        };
        let mut shortfalls = Shortfalls::default();
        for partition in 0..1000 {
            shortfalls.add(
                Partition(partition),
                5,
                [holder(1, Some(5)), holder(2, Some(4)), holder(3, Some(5))].into_iter(),
            );
        }
        shortfalls.add(Partition(2000), 5, [holder(1, Some(5)), holder(2, None), holder(3, Some(3))].into_iter());
        shortfalls.add(Partition(2001), 5, [holder(1, Some(5)), holder(2, Some(5)), holder(3, Some(5))].into_iter());
        let (worst, partitions) = shortfalls.finish();
        assert_eq!((worst.len(), partitions), (SHORTFALLS_MAX, 1001));
        let lacking = vec![holder(2, None), holder(3, Some(3))];
        assert_eq!(worst[0], Shortfall { partition: 2000, tracks: 5, missing: 7, lacking });
        assert_eq!((worst[1].partition, worst[1].missing), (0, 1));
    }
}
