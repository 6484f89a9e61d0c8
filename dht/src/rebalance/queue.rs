//! The partitions that are to move and wait for their turn, or for room.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_track::Partition;

use super::target::{Key, Reason, Wanted};
use crate::VolumeId;

/// At most one entry a partition. One that is in motion, or proposed, stays known but has no turn.
#[derive(Default, Debug)]
pub(super) struct Queue {
    entries: BTreeMap<Partition, Wanted>,
    /// Those that may have their turn.
    runnable: BTreeSet<Key>,
    /// Those that wait for a volume that has too much to do.
    parked: BTreeMap<VolumeId, BTreeSet<Key>>,
    /// Those that a brake holds.
    braked: BTreeSet<Key>,
    /// Those of which no copy is left.
    lost: BTreeSet<Key>,
}

impl Queue {
    /// Takes `wanted` in the place of what was there. `moves`: whether a partition moves already.
    pub(super) fn fill(&mut self, wanted: Vec<Wanted>, moves: impl Fn(Partition) -> bool) {
        *self = Self::default();
        for each in wanted {
            if each.key.live == 0 {
                self.lost.insert(each.key);
            } else if !moves(each.key.partition) {
                self.runnable.insert(each.key);
            }
            self.entries.insert(each.key.partition, each);
        }
    }

    /// The next that may have its turn.
    pub(super) fn next(&mut self) -> Option<Wanted> {
        let key = self.runnable.pop_first()?;
        Some(self.entries[&key.partition].clone())
    }

    pub(super) fn park(&mut self, key: Key, volume: VolumeId) {
        self.parked.entry(volume).or_default().insert(key);
    }

    pub(super) fn brake(&mut self, key: Key) {
        self.braked.insert(key);
    }

    /// The brakes are others: all that were held may try again.
    pub(super) fn release(&mut self) {
        self.runnable.append(&mut self.braked);
    }

    /// As many of those that wait for a volume may try again as it has `room` for.
    pub(super) fn unpark(&mut self, room: impl Fn(&VolumeId) -> u32) {
        let runnable = &mut self.runnable;
        self.parked.retain(|volume, keys| {
            for _ in 0..room(volume) {
                let Some(key) = keys.pop_first() else { break };
                runnable.insert(key);
            }
            !keys.is_empty()
        });
    }

    /// Nothing is left to do for a partition but what was begun.
    pub(super) fn done(&mut self, partition: Partition) {
        self.entries.remove(&partition);
    }

    /// A partition is not in motion any more: `holders` hold it now. Where that is not what is wanted it has another
    /// turn.
    pub(super) fn returned(&mut self, partition: Partition, holders: impl FnOnce() -> Vec<VolumeId>) {
        let Some(entry) = self.entries.get_mut(&partition) else { return };
        entry.from = holders();
        let key = entry.key;
        if entry.to.iter().all(|volume| entry.from.contains(volume)) {
            self.entries.remove(&partition);
        } else if key.live > 0 {
            self.runnable.insert(key);
        }
    }

    pub(super) fn has_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Whether all is done but what nobody can help now.
    pub(super) fn is_idle(&self) -> bool {
        self.runnable.is_empty() && self.parked.is_empty()
    }

    pub(super) fn count(&self, reason: Reason) -> usize {
        let waiting = self.runnable.iter().chain(self.parked.values().flatten());
        waiting.filter(|key| key.reason == reason).count()
    }

    pub(super) fn braked(&self) -> usize {
        self.braked.len()
    }

    pub(super) fn lost(&self) -> usize {
        self.lost.len()
    }
}
