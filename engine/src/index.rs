//! What a volume handle holds, in memory: 16 bytes a track, and a little around them.
//!
//! The index knows six bytes of each id. So a hit is only a candidate until the drive has shown the rest: in the record's
//! header, or in the trailers of the frames that were read. A miss is certain.

use std::collections::HashMap;
use std::rc::Rc;

use deadwax_track::{PARTITIONS, Partition, TrackId};

use crate::digests::Digests;
use crate::scan::CLAIMS_MAX;
use crate::table::{EntryKind, Key, Slot, Table};

/// What became of a track here: one more is counted, or one less.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is stored, durably.
    Stored(TrackId),
    /// It is no more, durably.
    Erased(TrackId),
}

/// Whoever hears of changes, while the index is being changed.
pub(crate) type Observer = Rc<dyn Fn(Change)>;

/// Where a damaged header stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Damaged {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Whether it says that it bars the id.
    pub(crate) takedown: bool,
}

/// Sums over what is present.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tracks: u64,
    pub(crate) takedowns: u64,
    pub(crate) track_bytes: u64,
    pub(crate) record_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Index {
    table: Table,
    digests: Digests,
    counts: Counts,
    /// Tracks that are not found any more and not yet durably gone: few, one an erasure under way.
    leaving: Vec<TrackId>,
    observer: Option<Observer>,
    /// Ids that damaged headers claim, of which nothing else is known. At most [`CLAIMS_MAX`].
    damaged: HashMap<TrackId, Damaged>,
}

impl Index {
    /// The entries that may be the id's.
    pub(crate) fn candidates(&self, id: &TrackId) -> Vec<Slot> {
        self.table.candidates(id).collect()
    }

    /// Whether the entry is still there.
    pub(crate) fn has(&self, id: &TrackId, slot: Slot) -> bool {
        self.table.candidates(id).any(|candidate| candidate == slot)
    }

    /// Adds a track whose record takes `record_bytes`. The caller knows that the id is neither present nor taken down.
    pub(crate) fn insert_track(&mut self, id: &TrackId, slot: Slot, record_bytes: u64) {
        self.count_track(id, slot, record_bytes);
        self.tell(Change::Stored(*id));
    }

    fn count_track(&mut self, id: &TrackId, slot: Slot, record_bytes: u64) {
        self.damaged.remove(id);
        self.table.insert(id, slot);
        self.digests.add(id);
        self.counts.tracks += 1;
        self.counts.track_bytes += slot.track_bytes;
        self.counts.record_bytes += record_bytes;
    }

    /// A track is to be erased: it is not found from here on. Answers whether it was there; then one of
    /// [`erased`](Self::erased) and [`stays`](Self::stays) follows.
    pub(crate) fn begin_erasure(&mut self, id: &TrackId, slot: Slot, record_bytes: u64) -> bool {
        let removed = self.remove_track(id, slot, record_bytes);
        if removed {
            self.leaving.push(*id);
        }
        removed
    }

    /// It is durably gone.
    pub(crate) fn erased(&mut self, id: &TrackId) {
        self.forget_leaving(id);
        self.tell(Change::Erased(*id));
    }

    /// It may still be on the drive, so whoever asks again must find it.
    pub(crate) fn stays(&mut self, id: &TrackId, slot: Slot, record_bytes: u64) {
        self.forget_leaving(id);
        self.count_track(id, slot, record_bytes);
    }

    fn forget_leaving(&mut self, id: &TrackId) {
        let at = self.leaving.iter().position(|leaving| leaving == id).expect("its erasure has begun");
        self.leaving.swap_remove(at);
    }

    fn tell(&self, change: Change) {
        if let Some(observer) = &self.observer {
            observer(change);
        }
    }

    /// Tells `observer` of all changes from here on. What it hears adds up with the digests that this answers, in which a
    /// track counts until it is durably gone.
    pub(crate) fn observe(&mut self, observer: Observer) -> Vec<(Partition, u32, [u8; 16])> {
        self.observer = Some(observer);
        self.leaving.iter().for_each(|id| self.digests.add(id));
        let digests = self.digests(Partition(0), PARTITIONS);
        self.leaving.iter().for_each(|id| self.digests.remove(id));
        digests
    }

    /// Removes a track; answers whether it was there. For who erases it, see [`begin_erasure`](Self::begin_erasure).
    pub(crate) fn remove_track(&mut self, id: &TrackId, slot: Slot, record_bytes: u64) -> bool {
        let removed = self.table.remove(id, slot);
        if removed {
            self.digests.remove(id);
            self.counts.tracks -= 1;
            self.counts.track_bytes -= slot.track_bytes;
            self.counts.record_bytes -= record_bytes;
        }
        removed
    }

    pub(crate) fn insert_takedown(&mut self, id: &TrackId, slot: Slot) {
        self.damaged.remove(id);
        self.table.insert(id, slot);
        self.counts.takedowns += 1;
    }

    /// A takedown's record that is another one's second copy goes.
    pub(crate) fn remove_takedown(&mut self, id: &TrackId, slot: Slot) {
        if self.table.remove(id, slot) {
            self.counts.takedowns -= 1;
        }
    }

    /// The record was moved; answers whether it was still there.
    pub(crate) fn replace(&mut self, id: &TrackId, old: Slot, new: Slot) -> bool {
        assert_eq!((old.track_bytes, old.kind), (new.track_bytes, new.kind), "a move changes no more than the place");
        self.table.replace(id, old, new)
    }

    /// Keeps that a damaged header claims the id.
    pub(crate) fn set_damaged(&mut self, id: TrackId, damaged: Damaged) {
        if self.damaged.len() >= CLAIMS_MAX {
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

    pub(crate) fn forget_damaged(&mut self, id: &TrackId) {
        self.damaged.remove(id);
    }

    /// What the entries take of memory, with malloc's overhead.
    pub(crate) fn heap_bytes(&self) -> u64 {
        self.table.heap_bytes()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// For each partition from `first` on that holds tracks: how many, and the XOR of the ids' first 16 bytes.
    pub(crate) fn digests(&self, first: Partition, count: u32) -> Vec<(Partition, u32, [u8; 16])> {
        self.digests.range(first, count).collect()
    }

    /// The tracks of a partition, by what is known of their ids, rising; those from the key of `after` on.
    pub(crate) fn tracks_of(&self, partition: Partition, after: Option<&TrackId>) -> impl Iterator<Item = (Key, Slot)> {
        let entries = self.table.of_partition(partition, after);
        entries.filter(|(_, slot)| slot.kind != EntryKind::Takedown)
    }
}
