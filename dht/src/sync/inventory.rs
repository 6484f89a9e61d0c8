//! What this node's volumes hold, by partition, without the ids.

use std::collections::BTreeMap;

use deadwax_track::{Partition, TrackId};

use crate::VolumeId;
use crate::random::mix;
use crate::wire::PartitionDigest;

/// What one partition of a volume holds: [`PartitionDigest`] without the partition.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Contents {
    pub(super) tracks: u32,
    digest: u128,
}

impl Contents {
    /// Adds a track, or takes it away again: XOR is its own inverse. Counts wrap: a caller that tells of one track
    /// twice makes a digest that never is equal, not a panic.
    fn turn(&mut self, track: &TrackId, stored: bool) {
        self.digest ^= u128::from_le_bytes(track.half());
        self.tracks = if stored { self.tracks.wrapping_add(1) } else { self.tracks.wrapping_sub(1) };
    }

    /// What stands for the partition and its contents in the digests of branches. An empty partition counts, too, so
    /// that two volumes which do not mean the same partitions are not called equal. Never zero, which means *not
    /// shared*.
    pub(super) fn cell(self, partition: Partition) -> u64 {
        let bytes = self.digest.to_le_bytes();
        let (words, _) = bytes.as_chunks::<8>();
        let [low, high] = [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])];
        let head = mix(u64::from(partition.0) << 32 | u64::from(self.tracks));
        mix(mix(head ^ low) ^ high).max(1)
    }
}

/// The digests of the partitions of this node's open volumes: some 50 bytes for each partition that is not empty.
#[derive(Clone, Default, Debug)]
pub struct Inventory {
    volumes: BTreeMap<VolumeId, BTreeMap<Partition, Contents>>,
}

impl Inventory {
    pub(super) fn open(&mut self, volume: VolumeId, digests: impl IntoIterator<Item = PartitionDigest>) {
        let contents = digests.into_iter().filter(|digest| digest.tracks > 0).map(|digest| {
            let contents = Contents { tracks: digest.tracks, digest: u128::from_le_bytes(digest.digest) };
            (digest.partition, contents)
        });
        self.volumes.insert(volume, contents.collect());
    }

    pub(super) fn close(&mut self, volume: &VolumeId) {
        self.volumes.remove(volume);
    }

    /// Contents of the track's partition before and after; nothing where the volume is not open.
    pub(super) fn turn(&mut self, volume: &VolumeId, track: &TrackId, stored: bool) -> Option<(Contents, Contents)> {
        let contents = self.volumes.get_mut(volume)?.entry(track.partition()).or_default();
        let before = *contents;
        contents.turn(track, stored);
        let after = *contents;
        if after == Contents::default() {
            self.volumes.get_mut(volume)?.remove(&track.partition());
        }
        Some((before, after))
    }

    pub(super) fn of(&self, volume: &VolumeId, partition: Partition) -> Contents {
        let contents = self.volumes.get(volume).and_then(|volume| volume.get(&partition));
        contents.copied().unwrap_or_default()
    }

    pub(super) fn volume(&self, volume: &VolumeId) -> Option<&BTreeMap<Partition, Contents>> {
        self.volumes.get(volume)
    }

    /// The volumes that are open, in order.
    pub(super) fn volumes(&self) -> impl Iterator<Item = VolumeId> {
        self.volumes.keys().copied()
    }

    /// Whether the volume is open.
    #[must_use]
    pub fn is_open(&self, volume: &VolumeId) -> bool {
        self.volumes.contains_key(volume)
    }

    /// The digests of a volume's partitions, in order, without the empty ones.
    pub fn digests(&self, volume: &VolumeId) -> impl Iterator<Item = PartitionDigest> {
        let digest = |(partition, contents): (&Partition, &Contents)| PartitionDigest {
            partition: *partition,
            tracks: contents.tracks,
            digest: contents.digest.to_le_bytes(),
        };
        self.volumes.get(volume).into_iter().flatten().map(digest)
    }
}
