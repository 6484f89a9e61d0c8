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

    /// The next that may have its turn. `moves`: whether a partition is in motion, or proposed. What another voter began when
    /// it led may come to be after this one made its plan: what was done so is forgotten here, and what is under way so
    /// [returns](Self::returned).
    pub(super) fn next(&mut self, moves: impl Fn(Partition) -> bool) -> Option<Wanted> {
        while let Some(key) = self.runnable.pop_first() {
            if let Some(wanted) = self.entries.get(&key.partition).filter(|_| !moves(key.partition)) {
                return Some(wanted.clone());
            }
        }
        None
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
            self.runnable.remove(&key);
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

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(7);

    fn volumes(numbers: [u8; 3]) -> Vec<VolumeId> {
        numbers.map(|number| VolumeId::from_bytes([number; 16])).to_vec()
    }

    fn filled() -> (Queue, Key) {
        let key = Key { live: 3, reason: Reason::Balance, partition: P };
        let mut queue = Queue::default();
        queue.fill(vec![Wanted { key, from: volumes([1, 2, 3]), to: volumes([1, 2, 4]) }], |_| false);
        (queue, key)
    }

    #[test]
    fn what_another_voter_moved_meanwhile_has_no_turn() {
        for waits in [false, true] {
            let (mut queue, key) = filled();
            if waits {
                assert!(queue.next(|_| false).is_some());
                queue.park(key, volumes([4; 3])[0]);
            }
            queue.returned(P, || volumes([1, 2, 4]));
            queue.unpark(|_| 1);
            assert!(queue.next(|_| false).is_none() && queue.is_idle(), "it waited: {waits}");
        }
    }

    #[test]
    fn what_is_in_motion_has_its_turn_when_it_returns() {
        let (mut queue, _) = filled();
        assert!(queue.next(|partition| partition == P).is_none());
        queue.returned(P, || volumes([1, 2, 3]));
        assert!(queue.next(|_| false).is_some());
    }
}
