//! Who holds what: which pairs there are, and which partitions they share.

use std::collections::BTreeMap;

use deadwax_track::Partition;

use super::machine::{Holder, Marked, Share, Sync, slot};
use super::pair::Pair;
use crate::VolumeId;

impl Sync {
    /// Whom a volume shares a partition with, everything at once: own volume, partition, whether the volume holds it
    /// (in any set of a transition, at any stage), and the other holders. Where it does not hold it, but has tracks of
    /// it, name its holders; what is not named and is not empty is asked for by
    /// [`Effect::Holders`](super::Effect::Holders). What did not change costs a comparison.
    pub fn set_layout<'a>(
        &mut self,
        now: u64,
        layout: impl IntoIterator<Item = (VolumeId, Partition, bool, &'a [Holder])>,
    ) {
        self.mark = self.mark.wrapping_add(1);
        for (volume, partition, holds, holders) in layout {
            self.set_partition(now, volume, partition, holds, holders);
        }
        let unnamed = |(volume, shares): (&VolumeId, &BTreeMap<Partition, Marked>)| {
            let old = shares.iter().filter(|(_, marked)| marked.mark != self.mark);
            old.map(|(partition, _)| (*volume, *partition)).collect::<Vec<_>>()
        };
        let unnamed: Vec<_> = self.shares.iter().flat_map(unnamed).collect();
        for (volume, partition) in unnamed {
            self.unset(volume, partition);
            self.check_stray(now, volume, partition);
        }
    }

    /// All that a volume holds, rising, where nothing of it was told yet: `others` writes a partition's other holders. The
    /// same as [`set_partition`](Self::set_partition) for each, and much cheaper.
    pub fn set_volume(
        &mut self,
        now: u64,
        volume: VolumeId,
        held: impl Iterator<Item = Partition>,
        mut others: impl FnMut(Partition, &mut Vec<Holder>),
    ) {
        let mut holders = Vec::new();
        if self.shares.get(&volume).is_some_and(|shares| !shares.is_empty()) {
            for partition in held {
                holders.clear();
                others(partition, &mut holders);
                self.set_partition(now, volume, partition, true, &holders);
            }
            return;
        }
        let (mut known, mut ids): (Vec<(Holder, u32)>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut shares: Vec<(Partition, Marked)> = Vec::new();
        for partition in held {
            holders.clear();
            others(partition, &mut holders);
            ids.clear();
            let cell = self.inventory.of(&volume, partition).cell(partition);
            for holder in &holders {
                let same = |(other, _): &&(Holder, u32)| (other.volume, other.node) == (holder.volume, holder.node);
                let found = known.iter().find(same).map(|(_, id)| *id);
                let id = found.unwrap_or_else(|| self.pair(now, volume, holder));
                if found.is_none() {
                    known.push((*holder, id));
                }
                self.pairs[slot(id)].as_mut().expect("made above").add(partition, cell);
                ids.push(id);
            }
            if !self.strays.is_empty() {
                self.strays.remove(volume, partition);
            }
            shares.push((partition, Marked { share: Share::Held(ids.as_slice().into()), mark: self.mark }));
        }
        self.shares.insert(volume, shares.into_iter().collect());
        known.into_iter().for_each(|(_, id)| self.hasten(now, id));
    }

    /// The same for one partition of one volume, as the answer to [`Effect::Holders`](super::Effect::Holders) or when
    /// little changed.
    pub fn set_partition(&mut self, now: u64, volume: VolumeId, partition: Partition, holds: bool, holders: &[Holder]) {
        let mark = self.mark;
        if let Some(marked) = self.shares.get_mut(&volume).and_then(|shares| shares.get_mut(&partition)) {
            marked.mark = mark;
            let pair = |id: &u32| self.pairs[slot(*id)].as_ref().expect("shares name pairs");
            let same = match &marked.share {
                Share::Held(ids) => {
                    let is =
                        |(id, holder): (&u32, &Holder)| (pair(id).peer, pair(id).node) == (holder.volume, holder.node);
                    holds && ids.len() == holders.len() && ids.iter().zip(holders).all(is)
                }
                Share::Stray(known) => !holds && **known == *holders,
            };
            if same {
                return;
            }
        }
        if holds {
            self.hold(now, volume, partition, holders);
            self.strays.remove(volume, partition);
        } else {
            self.unset(volume, partition);
            if self.inventory.of(&volume, partition).tracks == 0 {
                return;
            }
            let marked = Marked { share: Share::Stray(holders.into()), mark };
            self.shares.entry(volume).or_default().insert(partition, marked);
            self.strays.restart(volume, partition);
            self.check_stray(now, volume, partition);
        }
    }

    /// Pairs that stay keep what they know to be equal.
    fn hold(&mut self, now: u64, volume: VolumeId, partition: Partition, holders: &[Holder]) {
        let cell = self.inventory.of(&volume, partition).cell(partition);
        let mut ids = Vec::new();
        for holder in holders.iter().filter(|holder| holder.volume != volume) {
            let id = self.pair(now, volume, holder);
            self.pairs[slot(id)].as_mut().expect("made above").add(partition, cell);
            ids.push(id);
        }
        let marked = Marked { share: Share::Held(ids.as_slice().into()), mark: self.mark };
        let old = self.shares.entry(volume).or_default().insert(partition, marked);
        if let Some(Marked { share: Share::Held(old), .. }) = old {
            old.iter().filter(|id| !ids.contains(id)).for_each(|id| self.leave(*id, partition, cell));
        }
        for id in ids {
            if self.pairs[slot(id)].as_ref().is_some_and(|pair| !pair.is_equal(partition)) {
                self.hasten(now, id);
            }
        }
    }

    fn pair(&mut self, now: u64, own: VolumeId, holder: &Holder) -> u32 {
        if let Some(&id) = self.index.get(&(own, holder.volume)) {
            let pair = self.pairs[slot(id)].as_mut().expect("the index names pairs");
            if pair.node != holder.node {
                self.by_node.remove(&(pair.node, id));
                self.by_node.insert((holder.node, id));
                pair.node = holder.node;
                pair.end();
                pair.unequal.clone_from(&pair.partitions);
            }
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            u32::try_from(self.pairs.len() - 1).expect("pairs are few")
        });
        let mut pair = Pair::new(own, holder.volume, holder.node);
        pair.compare_at = now + self.random.draw() % self.settings.settle_ms.max(1);
        self.pairs[slot(id)] = Some(pair);
        self.index.insert((own, holder.volume), id);
        self.by_node.insert((holder.node, id));
        id
    }

    pub(super) fn unset(&mut self, volume: VolumeId, partition: Partition) {
        self.strays.remove(volume, partition);
        let Some(marked) = self.shares.get_mut(&volume).and_then(|shares| shares.remove(&partition)) else { return };
        let cell = self.inventory.of(&volume, partition).cell(partition);
        if let Share::Held(ids) = marked.share {
            ids.iter().for_each(|id| self.leave(*id, partition, cell));
        }
    }

    fn leave(&mut self, id: u32, partition: Partition, cell: u64) {
        let pair = self.pairs[slot(id)].as_mut().expect("shares name pairs");
        pair.remove(partition, cell);
        if pair.partitions.is_empty() {
            self.index.remove(&(pair.own, pair.peer));
            self.by_node.remove(&(pair.node, id));
            pair.timer.map(|timer| self.timers.remove(&(timer, id)));
            self.pairs[slot(id)] = None;
            self.free.push(id);
        }
    }
}
