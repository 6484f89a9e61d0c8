//! Who holds each partition by rendezvous alone, for all partitions; and the same after a change, by drawing again only
//! what it can touch.

use std::sync::Arc;

use deadwax_track::{PARTITIONS, Partition};

use super::roster::Roster;
use crate::VolumeId;
use crate::map::Map;

/// In place of the index of a volume that the map has no more.
pub(crate) const GONE: u32 = u32::MAX;

/// The rendezvous holders of every partition: 4 bytes a copy and 16 a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    copies: usize,
    /// Indexes into [`Roster::volumes`], `copies` a partition, lowest draw first.
    volumes: Vec<u32>,
    /// Each partition's highest draw among its holders: a volume that draws more changes nothing there.
    limits: Vec<u128>,
}

impl Assignment {
    /// Draws everything: every volume for every partition.
    pub(crate) fn of(roster: &Roster) -> Self {
        let mut all = Self {
            copies: roster.copies(),
            volumes: Vec::with_capacity(PARTITIONS as usize * roster.copies()),
            limits: Vec::with_capacity(PARTITIONS as usize),
        };
        for partition in 0..=u16::MAX {
            let picks = roster.place(Partition(partition));
            all.limits.push(picks.last().expect("a map has a node").draw);
            all.volumes.extend(picks.iter().map(|pick| pick.volume));
        }
        all
    }

    /// The holders of `partition`.
    pub(crate) fn holders(&self, partition: u16) -> &[u32] {
        &self.volumes[usize::from(partition) * self.copies..][..self.copies]
    }

    /// What [`of`](Self::of) gives for `after`, where `self` is what it gives for `before`. Equal to it, and cheap: a
    /// volume that is new or changed draws for every partition, and only where it could win, or held before, does every
    /// volume draw.
    pub(crate) fn advance(self: &Arc<Self>, before: &Map, after: &Map, step: &Step) -> Arc<Self> {
        let roster = after.roster();
        if !roster.rules_like(before.roster()) {
            return Arc::new(Self::of(roster));
        }
        if step.is_none() {
            return self.clone();
        }
        let mut next = Self::clone(self);
        let mut touched: Vec<bool> = vec![false; PARTITIONS as usize];
        for (volumes, touched) in next.volumes.chunks_mut(self.copies).zip(&mut touched) {
            for volume in volumes {
                *touched |= step.changed_before[*volume as usize];
                *volume = step.index[*volume as usize];
            }
        }
        for &volume in &step.changed_after {
            let drawer = &roster.seat(volume).drawer;
            for ((partition, limit), touched) in (0..=u16::MAX).zip(&self.limits).zip(&mut touched) {
                *touched |= drawer.draw_up_to(Partition(partition), *limit).is_some_and(|draw| draw <= *limit);
            }
        }
        for partition in (0..=u16::MAX).filter(|partition| touched[usize::from(*partition)]) {
            let (picks, at) = (roster.place(Partition(partition)), usize::from(partition));
            next.limits[at] = picks.last().expect("a map has a node").draw;
            for (slot, pick) in next.volumes[at * self.copies..].iter_mut().zip(&picks) {
                *slot = pick.volume;
            }
        }
        Arc::new(next)
    }
}

/// How the volumes of one map became those of the next.
pub(crate) struct Step {
    /// For each volume of the earlier roster, its index in the later one, or [`GONE`].
    pub(crate) index: Vec<u32>,
    /// For each volume of the earlier roster, whether it is gone or another: in weight, node, rack or zone.
    changed_before: Vec<bool>,
    /// The volumes of the later roster that are new or another.
    changed_after: Vec<u32>,
}

impl Step {
    pub(crate) fn new(before: &Map, after: &Map) -> Self {
        let (old, new) = (by_id(before), by_id(after));
        let (mut index, mut changed_before) = (vec![GONE; old.len()], vec![true; old.len()]);
        let mut changed_after = Vec::new();
        let mut earlier = old.into_iter().peekable();
        for (id, later) in new {
            while earlier.next_if(|(other, _)| *other < id).is_some() {}
            let same = earlier.next_if(|(other, _)| *other == id).map(|(_, volume)| volume);
            if let Some(volume) = same {
                index[volume as usize] = later;
                changed_before[volume as usize] = !alike(before, volume, after, later);
            }
            if same.is_none_or(|volume| changed_before[volume as usize]) {
                changed_after.push(later);
            }
        }
        Self { index, changed_before, changed_after }
    }

    /// Whether the later roster is the earlier one.
    fn is_none(&self) -> bool {
        let stays = |(volume, index): (u32, &u32)| volume == *index;
        (0..).zip(&self.index).all(stays) && !self.changed_before.contains(&true) && self.changed_after.is_empty()
    }
}

/// The volumes of a map's roster, sorted by name.
fn by_id(map: &Map) -> Vec<(VolumeId, u32)> {
    let volumes = map.roster().volumes().iter();
    let mut all: Vec<(VolumeId, u32)> = volumes.map(|seat| seat.holder.volume).zip(0..).collect();
    all.sort_unstable();
    all
}

/// Whether a volume draws the same and lies in the same place.
fn alike(before: &Map, volume: u32, after: &Map, later: u32) -> bool {
    let (old, new) = (before.roster().seat(volume), after.roster().seat(later));
    let (was, is) = (&before.nodes()[old.holder.node], &after.nodes()[new.holder.node]);
    old.weight() == new.weight() && was.id == is.id && was.zone == is.zone && was.rack == is.rack
}
