//! A volume: which tracks lie on it, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::VolumeId;
use deadwax_dht::wire::PartitionDigest;
use deadwax_track::{Partition, TrackId};

use crate::clock::{MILLI, Micros};
use crate::random::{Random, mix};

/// Of a write, its flush included, and of a seek.
const FLUSH: Micros = 4 * MILLI;
const SEEK: Micros = 2 * MILLI;
/// A drive moves 200 bytes a microsecond: 200 MB/s.
const BYTES_PER_MICRO: u64 = 200;

/// What a track's bytes are: a function of its id, so that bytes under a wrong name are seen.
pub(crate) fn tag_of(id: &TrackId) -> u64 {
    let bytes = id.as_bytes();
    bytes.chunks_exact(8).fold(0, |tag, chunk| mix(tag ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes"))))
}

/// A copy on a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Copy {
    pub(crate) bytes: u64,
    pub(crate) tag: u64,
    /// The drive's checksum fails. Where it holds and the tag is another, only who proves the bytes against the id sees it.
    pub(crate) rotten: bool,
    /// The core of this life counts it.
    pub(crate) told: bool,
    /// A stand-in took it.
    pub(crate) stand_in: bool,
}

impl Copy {
    /// Whether it is what its id says.
    pub(crate) fn is_good(&self, id: &TrackId) -> bool {
        !self.rotten && self.tag == tag_of(id)
    }

    /// Bits of it change. `unseen`: so that the drive's checksum holds.
    pub(crate) fn rot(&mut self, id: &TrackId, unseen: bool) {
        if unseen {
            self.tag = !tag_of(id);
        } else {
            self.rotten = true;
        }
    }
}

/// Whether a drive is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Serving,
    /// It hangs and is fenced, or its cable is out. What is on it stays.
    Out,
    /// It is gone with all that was on it.
    Lost,
}

/// A drive with its volume.
#[derive(Clone, Debug)]
pub(crate) struct Drive {
    pub(crate) id: VolumeId,
    pub(crate) tracks: BTreeMap<TrackId, Copy>,
    /// It takes these no more.
    pub(crate) barred: BTreeSet<TrackId>,
    pub(crate) state: State,
    /// How many times slower than it should be.
    pub(crate) slow: u64,
    /// In millionths, of operations that fail.
    pub(crate) errors: u64,
    pub(crate) full: bool,
    busy_until: Micros,
    /// What was on it once, for a restart with an old disk.
    pub(crate) image: Option<BTreeMap<TrackId, Copy>>,
    /// Writes under way: operations of the world.
    pub(crate) writing: Vec<u64>,
}

impl Drive {
    pub(crate) const fn new(id: VolumeId) -> Self {
        Self {
            id,
            tracks: BTreeMap::new(),
            barred: BTreeSet::new(),
            state: State::Serving,
            slow: 1,
            errors: 0,
            full: false,
            busy_until: 0,
            image: None,
            writing: Vec::new(),
        }
    }

    /// When an operation that is given now is done: one after the other.
    pub(crate) fn finish(&mut self, now: Micros, bytes: u64, write: bool) -> Micros {
        let work = if write { FLUSH } else { SEEK } + bytes / BYTES_PER_MICRO;
        self.busy_until = self.busy_until.max(now) + work * self.slow;
        self.busy_until
    }

    /// A new process finds the drive idle.
    pub(crate) fn reset(&mut self) {
        self.busy_until = 0;
        self.writing.clear();
    }

    pub(crate) fn fails(&self, random: &mut Random) -> bool {
        random.million(self.errors)
    }

    /// What the drive tells of itself when it comes up; all copies count then.
    pub(crate) fn digests(&mut self) -> Vec<PartitionDigest> {
        let mut digests: BTreeMap<Partition, (u32, [u8; 16])> = BTreeMap::new();
        for (id, copy) in &mut self.tracks {
            copy.told = true;
            let (tracks, digest) = digests.entry(id.partition()).or_default();
            *tracks += 1;
            digest.iter_mut().zip(id.half()).for_each(|(sum, byte)| *sum ^= byte);
        }
        let digest = |(partition, (tracks, digest))| PartitionDigest { partition, tracks, digest };
        digests.into_iter().map(digest).collect()
    }

    /// The ids of a partition, rising, that the core counts.
    pub(crate) fn list(&self, partition: Partition) -> Vec<TrackId> {
        let mut first = [0; 32];
        first[..2].copy_from_slice(&partition.0.to_be_bytes());
        let from = self.tracks.range(TrackId::from_bytes(first)..);
        let within = from.take_while(|(id, _)| id.partition() == partition);
        within.filter(|(_, copy)| copy.told).map(|(id, _)| *id).collect()
    }

    /// Takes a copy in. Whether the core is to be told: not of one that it counts already.
    pub(crate) fn store(&mut self, id: TrackId, bytes: u64, tag: u64) -> bool {
        let told = self.tracks.get(&id).is_some_and(|copy| copy.told);
        self.tracks.insert(id, Copy { bytes, tag, rotten: false, told: true, stand_in: false });
        !told
    }

    /// A stand-in's copy that was taken in.
    pub(crate) fn mark_stand_in(&mut self, id: &TrackId) {
        if let Some(copy) = self.tracks.get_mut(id) {
            copy.stand_in = true;
        }
    }

    /// Whether the track lies here and is good.
    pub(crate) fn has_good(&self, id: &TrackId) -> bool {
        self.state != State::Lost && self.tracks.get(id).is_some_and(|copy| copy.is_good(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partition: u16, number: u8) -> TrackId {
        let mut bytes = [number; 32];
        bytes[..2].copy_from_slice(&partition.to_be_bytes());
        TrackId::from_bytes(bytes)
    }

    #[test]
    fn a_drive_lists_and_sums_what_is_on_it() {
        let mut drive = Drive::new(VolumeId::from_bytes([1; 16]));
        for (partition, number) in [(7, 1), (7, 2), (8, 3), (6, 4)] {
            assert!(drive.store(id(partition, number), 10, tag_of(&id(partition, number))));
        }
        assert!(!drive.store(id(7, 1), 10, tag_of(&id(7, 1))), "told already");
        assert_eq!(drive.list(Partition(7)), [id(7, 1), id(7, 2)]);
        let digests = drive.digests();
        assert_eq!(
            digests.iter().map(|digest| (digest.partition.0, digest.tracks)).collect::<Vec<_>>(),
            [(6, 1), (7, 2), (8, 1)]
        );
        assert_eq!(digests[1].digest[2..], [3; 14]);
        assert!(drive.has_good(&id(8, 3)) && !drive.has_good(&id(8, 4)));
    }

    #[test]
    fn operations_queue() {
        let mut drive = Drive::new(VolumeId::from_bytes([1; 16]));
        let first = drive.finish(1_000, 200_000, true);
        assert_eq!(first, 1_000 + FLUSH + 1_000);
        drive.slow = 10;
        assert_eq!(drive.finish(1_000, 0, false), first + 10 * SEEK);
    }
}
