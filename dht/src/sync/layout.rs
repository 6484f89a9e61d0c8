//! Who holds what: which pairs there are, and which partitions they share.

use std::collections::BTreeSet;

use deadwax_track::Partition;

use super::inventory::Contents;
use super::machine::{Holder, Sync, slot};
use super::pair::Pair;
use super::shares::{Share, Shares};
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
        let mut named = BTreeSet::new();
        for (volume, partition, holds, holders) in layout {
            self.set_partition(now, volume, partition, holds, holders);
            named.insert((volume, partition));
        }
        let all = |(volume, shares): (&VolumeId, &Shares)| {
            let volume = *volume;
            shares.partitions().into_iter().map(move |partition| (volume, partition))
        };
        let unnamed: Vec<_> = self.shares.iter().flat_map(all).filter(|place| !named.contains(place)).collect();
        for (volume, partition) in unnamed {
            self.unset(volume, partition);
            self.check_stray(now, volume, partition);
        }
    }

    /// The same as a whole layout that names nothing, and much cheaper.
    pub fn forget_layout(&mut self, now: u64) {
        let volumes: Vec<VolumeId> = self.shares.keys().copied().collect();
        for volume in volumes {
            let shares = std::mem::take(self.shares.get_mut(&volume).expect("a key"));
            for partition in self.strays.of(volume) {
                if shares.get(partition).is_some() {
                    self.strays.remove(volume, partition);
                }
            }
            // A pair goes with its last partition.
            let mut pairs: Vec<(Option<Partition>, usize, u32)> = Vec::new();
            for id in self.pairs_of(volume) {
                let last = self.pairs[slot(id)].as_ref().expect("the index names pairs").partitions.last();
                let ids = match last.and_then(|last| shares.get(last)) {
                    Some(Share::Held(ids)) => ids,
                    _ => &[],
                };
                pairs.push((last, ids.iter().position(|other| *other == id).expect("shares name pairs"), id));
            }
            pairs.sort_unstable();
            pairs.into_iter().for_each(|(_, _, id)| self.drop_pair(id));
            let filled = self.inventory.volume(&volume).into_iter().flatten().map(|(partition, _)| *partition);
            let filled: Vec<Partition> = filled.filter(|partition| shares.get(*partition).is_some()).collect();
            filled.into_iter().for_each(|partition| self.check_stray(now, volume, partition));
        }
    }

    /// All that a volume holds, rising, where nothing of it was told yet: `others` writes a partition's other holders,
    /// `holder` says of one what there is to know. The same as [`set_partition`](Self::set_partition) for each, and much
    /// cheaper.
    pub fn set_volume(
        &mut self,
        now: u64,
        volume: VolumeId,
        held: impl ExactSizeIterator<Item = Partition>,
        mut others: impl FnMut(Partition, &mut Vec<VolumeId>),
        holder: impl Fn(&VolumeId) -> Holder,
    ) {
        let mut names = Vec::new();
        if self.shares.get(&volume).is_some_and(|shares| !shares.is_empty()) {
            for partition in held {
                names.clear();
                others(partition, &mut names);
                let holders: Vec<Holder> = names.iter().map(&holder).collect();
                self.set_partition(now, volume, partition, true, &holders);
            }
            return;
        }
        let (mut known, mut ids): (Vec<(VolumeId, u32)>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut shares = Shares::with_capacity(held.len());
        let filled = self.inventory.volume(&volume).into_iter().flatten();
        let filled: Vec<(Partition, u64)> = filled.map(|(at, contents)| (*at, contents.cell(*at))).collect();
        let mut filled = filled.into_iter().peekable();
        for partition in held {
            names.clear();
            others(partition, &mut names);
            ids.clear();
            while filled.next_if(|(other, _)| *other < partition).is_some() {}
            let cell = filled.next_if(|(other, _)| *other == partition).map(|(_, cell)| cell);
            let cell = cell.unwrap_or_else(|| Contents::default().cell(partition));
            for name in &names {
                let found = known.iter().find(|(other, _)| other == name).map(|(_, id)| *id);
                let id = found.unwrap_or_else(|| {
                    let id = self.pair(now, volume, &holder(name));
                    known.push((*name, id));
                    id
                });
                self.pairs[slot(id)].as_mut().expect("made above").fill(partition, cell);
                ids.push(id);
            }
            if !self.strays.is_empty() {
                self.strays.remove(volume, partition);
            }
            shares.hold(partition, &ids);
        }
        self.shares.insert(volume, shares);
        for (_, id) in known {
            self.pairs[slot(id)].as_mut().expect("made above").seal();
            self.hasten(now, id);
        }
    }

    /// The same for one partition of one volume, as the answer to [`Effect::Holders`](super::Effect::Holders) or when
    /// little changed.
    pub fn set_partition(&mut self, now: u64, volume: VolumeId, partition: Partition, holds: bool, holders: &[Holder]) {
        if let Some(share) = self.shares.get(&volume).and_then(|shares| shares.get(partition)) {
            let pair = |id: &u32| self.pairs[slot(*id)].as_ref().expect("shares name pairs");
            let same = match share {
                Share::Held(ids) => {
                    let is =
                        |(id, holder): (&u32, &Holder)| (pair(id).peer, pair(id).node) == (holder.volume, holder.node);
                    holds && ids.len() == holders.len() && ids.iter().zip(holders).all(is)
                }
                Share::Stray(known) => !holds && *known == *holders,
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
            self.shares.entry(volume).or_default().set_stray(partition, holders);
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
        if let Some(old) = self.shares.entry(volume).or_default().hold(partition, &ids) {
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
                pair.seal();
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
        let Some(ids) = self.shares.get_mut(&volume).and_then(|shares| shares.remove(partition)) else { return };
        let cell = self.inventory.of(&volume, partition).cell(partition);
        ids.iter().for_each(|id| self.leave(*id, partition, cell));
    }

    fn leave(&mut self, id: u32, partition: Partition, cell: u64) {
        let pair = self.pairs[slot(id)].as_mut().expect("shares name pairs");
        pair.remove(partition, cell);
        if pair.partitions.is_empty() {
            self.drop_pair(id);
        }
    }

    fn drop_pair(&mut self, id: u32) {
        let pair = self.pairs[slot(id)].take().expect("the caller knows it");
        self.index.remove(&(pair.own, pair.peer));
        self.by_node.remove(&(pair.node, id));
        pair.timer.map(|timer| self.timers.remove(&(timer, id)));
        self.free.push(id);
    }
}
