//! What a volume handle holds, in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use deadwax_track::{Partition, TrackId};

use crate::format::Frames;
use crate::scan::CLAIMS_MAX;

/// Where a track's record lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) segment: u64,
    /// Of the record's header in the segment's file.
    pub(crate) offset: u64,
    pub(crate) header_bytes: u32,
    pub(crate) track_bytes: u64,
}

impl Entry {
    pub(crate) fn record_bytes(&self) -> u64 {
        u64::from(self.header_bytes) + Frames::of(self.track_bytes).stored_bytes()
    }
}

#[derive(Clone, Copy)]
struct Takedown {
    number: u64,
    /// A record that the takedown found and whose bytes are still on the drive.
    unerased: Option<Entry>,
}

/// Where a damaged header stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damaged {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Whether it says that it bars the id.
    pub(crate) takedown: bool,
}

/// A track is either present or taken down, never both.
#[derive(Default)]
pub(crate) struct Index {
    tracks: BTreeMap<TrackId, Entry>,
    takedowns: HashMap<TrackId, Takedown>,
    /// Ids that damaged headers claim, of which nothing else is known. At most [`CLAIMS_MAX`].
    damaged: HashMap<TrackId, Damaged>,
    partitions: BTreeMap<u16, (u32, [u8; 16])>,
    track_bytes: u64,
    record_bytes: u64,
}

impl Index {
    pub(crate) fn get(&self, id: &TrackId) -> Option<Entry> {
        self.tracks.get(id).copied()
    }

    /// The number of the takedown that bars the id.
    pub(crate) fn takedown(&self, id: &TrackId) -> Option<u64> {
        self.takedowns.get(id).map(|takedown| takedown.number)
    }

    /// Adds a track that is neither present nor taken down; answers whether it did.
    pub(crate) fn insert(&mut self, id: TrackId, entry: Entry) -> bool {
        if self.tracks.contains_key(&id) || self.takedowns.contains_key(&id) {
            return false;
        }
        self.tracks.insert(id, entry);
        self.damaged.remove(&id);
        self.count(&id, true);
        self.track_bytes += entry.track_bytes;
        self.record_bytes += entry.record_bytes();
        true
    }

    /// Bars the id for ever. The first number stays. The track's record, if there is one, is then
    /// [`unerased`](Self::unerased).
    pub(crate) fn take_down(&mut self, id: TrackId, number: u64) {
        self.damaged.remove(&id);
        let unerased = self.tracks.remove(&id);
        if let Some(entry) = unerased {
            self.count(&id, false);
            self.track_bytes -= entry.track_bytes;
            self.record_bytes -= entry.record_bytes();
        }
        self.takedowns.entry(id).or_insert(Takedown { number, unerased });
    }

    /// Keeps that a damaged header claims the id, where nothing is known of it.
    pub(crate) fn set_damaged(&mut self, id: TrackId, damaged: Damaged) {
        let known = self.tracks.contains_key(&id) || self.takedowns.contains_key(&id);
        if known || self.damaged.len() >= CLAIMS_MAX {
            return;
        }
        // One that may bar the id says more than one that does not.
        let kept = self.damaged.entry(id).or_insert(damaged);
        if damaged.takedown {
            *kept = damaged;
        }
    }

    /// The damaged header that claims the id, where nothing else is known of it.
    pub(crate) fn damaged(&self, id: &TrackId) -> Option<Damaged> {
        self.damaged.get(id).copied()
    }

    /// The record of a track that was taken down, as long as its bytes are on the drive.
    pub(crate) fn unerased(&self, id: &TrackId) -> Option<Entry> {
        self.takedowns.get(id).and_then(|takedown| takedown.unerased)
    }

    /// All ids for which there is an [`unerased`](Self::unerased) record.
    pub(crate) fn all_unerased(&self) -> Vec<TrackId> {
        let unerased = self.takedowns.iter().filter(|(_, takedown)| takedown.unerased.is_some());
        unerased.map(|(id, _)| *id).collect()
    }

    pub(crate) fn set_erased(&mut self, id: &TrackId) {
        if let Some(takedown) = self.takedowns.get_mut(id) {
            takedown.unerased = None;
        }
    }

    fn count(&mut self, id: &TrackId, added: bool) {
        let key = id.partition().0;
        let (tracks, digest) = self.partitions.entry(key).or_default();
        *tracks = if added { *tracks + 1 } else { *tracks - 1 };
        digest.iter_mut().zip(id.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
        if *tracks == 0 {
            self.partitions.remove(&key);
        }
    }

    pub(crate) fn tracks(&self) -> u64 {
        self.tracks.len() as u64
    }

    pub(crate) fn takedowns(&self) -> u64 {
        self.takedowns.len() as u64
    }

    pub(crate) fn track_bytes(&self) -> u64 {
        self.track_bytes
    }

    pub(crate) fn record_bytes(&self) -> u64 {
        self.record_bytes
    }

    /// For each partition from `first` on that holds tracks: how many, and the XOR of the ids' first 16 bytes.
    pub(crate) fn digests(&self, first: Partition, count: u32) -> Vec<(Partition, u32, [u8; 16])> {
        let end = u32::from(first.0).saturating_add(count);
        let rest = self.partitions.range(first.0..).take_while(|(key, _)| u32::from(**key) < end);
        rest.map(|(key, (tracks, digest))| (Partition(*key), *tracks, *digest)).collect()
    }

    /// The partition's tracks after `after`, in order, at most `limit`.
    pub(crate) fn list(&self, partition: Partition, after: Option<TrackId>, limit: usize) -> Vec<TrackId> {
        let mut lowest = [0; 32];
        lowest[..2].copy_from_slice(&partition.0.to_be_bytes());
        let lowest = TrackId::from_bytes(lowest);
        let start = match after {
            Some(after) if after >= lowest => Bound::Excluded(after),
            _ => Bound::Included(lowest),
        };
        let rest = self.tracks.range((start, Bound::Unbounded)).map(|(id, _)| *id);
        rest.take_while(|id| id.partition() == partition).take(limit).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(partition: u16, rest: u8) -> TrackId {
        let mut bytes = [rest; 32];
        bytes[..2].copy_from_slice(&partition.to_be_bytes());
        TrackId::from_bytes(bytes)
    }

    const ENTRY: Entry = Entry { segment: 0, offset: 4096, header_bytes: 4096, track_bytes: 5 };

    #[test]
    fn digests_and_lists_follow_what_is_present() {
        let mut index = Index::default();
        for track in [id(7, 1), id(7, 2), id(7, 3), id(8, 1), id(0xffff, 9)] {
            assert!(index.insert(track, ENTRY));
        }
        assert!(!index.insert(id(7, 1), ENTRY));
        index.take_down(id(7, 2), 40);
        index.take_down(id(7, 2), 41);
        index.take_down(id(9, 2), 42);
        assert_eq!(index.takedown(&id(7, 2)), Some(40));
        assert_eq!((index.unerased(&id(7, 2)), index.unerased(&id(9, 2))), (Some(ENTRY), None));
        assert!(!index.insert(id(7, 2), ENTRY));
        let mut digest = [1 ^ 3; 16];
        digest[..2].fill(0);
        let digests = index.digests(Partition(0), 65_536);
        assert_eq!(digests.len(), 3);
        assert_eq!(digests[0], (Partition(7), 2, digest));
        assert_eq!(index.digests(Partition(8), 1).len(), 1);
        assert_eq!(index.digests(Partition(0xffff), 1).len(), 1);
        assert_eq!(index.list(Partition(7), None, 10), [id(7, 1), id(7, 3)]);
        assert_eq!(index.list(Partition(7), Some(id(7, 1)), 10), [id(7, 3)]);
        assert_eq!(index.list(Partition(8), Some(id(7, 1)), 10), [id(8, 1)]);
        assert_eq!(index.list(Partition(7), None, 1), [id(7, 1)]);
        assert_eq!((index.tracks(), index.takedowns()), (4, 2));
        assert_eq!((index.track_bytes(), index.record_bytes()), (20, 4 * 8192));
    }
}
