//! Which partitions must lie elsewhere than rendezvous puts them, so that every volume has its fair share; and, from
//! one map to the next, so that little more travels than must.
//!
//! A change goes in six steps. Every partition stays where it is if the new rules allow that, else it is repaired.
//! Then what rendezvous would newly give to volumes whose share grew goes there. Volumes that have too many or too few
//! copies give or take one at a time, at first such as travel in any case. Travels beyond what is unavoidable are
//! called off where that leaves everyone within bounds. At last, what comes in the place of lost copies is spread over
//! those that take it. What then differs from rendezvous is the override table.
//! Ceph calls such a table *upmap*. All in integers and in a fixed order: equal on every machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadwax_track::Partition;

use super::arrivals::spread;
use super::assignment::{Assignment, GONE, Step};
use super::fair::{COPY, fair_shares};
use super::roster::Roster;
use super::table::{Holdings, Move, Table, WHOLE_PPM};
use crate::map::{Map, Override, VolumeLists};

/// How far a volume may be off its fair share after a first placement, in thousandths.
const SETTLED_TOLERANCE: u64 = 4;
/// How far after a change: more, so that a change does not at once push over the edge who was left at it.
const CHANGED_TOLERANCE: u64 = 15;
/// How far where more would travel than is unavoidable; less than the 20 thousandths that are promised.
const STRAINED_TOLERANCE: u64 = 18;
/// Travels beyond the unavoidable that are not called off, in thousandths of it: calling off costs overrides.
const SURPLUS: u32 = 5;
/// A share grew if it did by more than this (a 4,096th of a copy): less is rounding.
const GREW: u64 = COPY >> 12;

/// How copies lie after a change.
pub(crate) struct Balanced {
    /// Where rendezvous alone puts the copies.
    pub(crate) assignment: Arc<Assignment>,
    /// Before and after, as indexes into the later map's roster; before, [`GONE`] for volumes that it has no more.
    pub(crate) before: Holdings,
    pub(crate) after: Holdings,
    /// The volumes that are no more, as indexes into the earlier map's roster.
    pub(crate) gone: Vec<u32>,
    /// The fair share of each volume after the change, in parts of a [`COPY`].
    pub(crate) fair: Vec<u64>,
    /// The shares that there were.
    was: Vec<u64>,
    /// Partitions that could not stay as they were: how many copies had to come.
    pub(crate) forced: BTreeMap<u16, u32>,
}

/// Places all copies of a new cluster, which has no tracks yet.
pub(crate) fn settle(map: &Map) -> Vec<Override> {
    let (roster, wanted) = (map.roster(), map.assignment());
    let fair = fair_shares(roster);
    let before = rendezvous(roster, wanted);
    let mut table = Table::new(roster, wanted, &before, before.clone(), &fair, SETTLED_TOLERANCE).settling();
    table.even_out();
    overrides(roster, wanted, &table.held)
}

impl Balanced {
    /// The partitions that lie elsewhere than rendezvous puts them, in the map of after the change.
    pub(crate) fn overrides(&self, map: &Map) -> Vec<Override> {
        overrides(map.roster(), &self.assignment, &self.after)
    }

    /// What must move for shares to be fair again if they were, in parts of a [`COPY`].
    pub(crate) fn due(&self, map: &Map) -> u64 {
        due(map.roster(), &self.before, &self.was, &self.fair)
    }
}

/// Places all copies after a change of the map. The overrides of `after` do not count.
pub(crate) fn rebalance(before: &Map, after: &Map) -> Balanced {
    let step = Step::new(before, after);
    let wanted = before.assignment().advance(before, after, &step);
    let roster = after.roster();
    let had = carried(before, &step);
    let fair = fair_shares(roster);
    let mut was = vec![0; fair.len()];
    for (share, index) in fair_shares(before.roster()).into_iter().zip(&step.index).filter(|(_, at)| **at != GONE) {
        was[*index as usize] = share;
    }
    let (held, forced) = repaired(roster, &wanted, &had);
    let mut table = Table::new(roster, &wanted, &had, held, &fair, CHANGED_TOLERANCE);
    follow(&mut table, &was, before.assignment(), &step);
    table.even_out();
    let unavoidable = forced.values().sum::<u32>().max(whole(due(roster, &had, &was, &fair)));
    table.tolerate(STRAINED_TOLERANCE);
    call_off(&mut table, unavoidable + unavoidable * SURPLUS / 1000);
    table.tolerate(CHANGED_TOLERANCE);
    spread(&mut table);
    let after = table.held;
    let gone = (0..).zip(&step.index).filter(|(_, index)| **index == GONE).map(|(volume, _)| volume).collect();
    Balanced { assignment: wanted, before: had, after, gone, fair, was, forced }
}

/// Places all copies so that `after`'s rules are kept and its volumes have their shares, from wherever the copies are
/// in `before`: for a change that is half done, or done to the map with all copies pinned to where they were. Where
/// each volume is within bounds nothing is moved for the sake of shares: doing again what was done changes nothing.
///
/// What is unavoidable is measured from the copies that there are, and not from earlier shares.
pub(crate) fn rebalance_on(before: &Map, after: &Map) -> Balanced {
    let step = Step::new(before, after);
    let wanted = before.assignment().advance(before, after, &step);
    let roster = after.roster();
    let had = carried(before, &step);
    let fair = fair_shares(roster);
    let mut was = vec![0; fair.len()];
    for volume in had.volumes.iter().filter(|volume| **volume != GONE) {
        was[*volume as usize] += COPY;
    }
    let (held, forced) = repaired(roster, &wanted, &had);
    let mut table = Table::new(roster, &wanted, &had, held.clone(), &fair, STRAINED_TOLERANCE);
    let off = table.off();
    if off > 0 {
        table.tolerate(CHANGED_TOLERANCE);
        mend(&mut table);
        table.even_out();
        let unavoidable = forced.values().sum::<u32>().max(whole(due(roster, &had, &was, &fair)));
        table.tolerate(STRAINED_TOLERANCE);
        call_off(&mut table, unavoidable + unavoidable * SURPLUS / 1000);
        // Where the rules forbid fair shares, moving on and on would not bring them: only what helps is worth it.
        if table.off() >= off {
            table = Table::new(roster, &wanted, &had, held, &fair, STRAINED_TOLERANCE);
        }
    }
    table.tolerate(CHANGED_TOLERANCE);
    spread(&mut table);
    let after = table.held;
    let gone = (0..).zip(&step.index).filter(|(_, index)| **index == GONE).map(|(volume, _)| volume).collect();
    Balanced { assignment: wanted, before: had, after, gone, fair, was, forced }
}

/// Gives volumes that have too few copies such as rendezvous puts there, within everyone's bounds, until they have
/// their fair share: each is needed in any case, and most take an override away.
fn mend(table: &mut Table<'_>) {
    let few: Vec<bool> = table.counts.iter().zip(&table.floors).map(|(count, floor)| count < floor).collect();
    for partition in 0..=u16::MAX {
        if !table.overridden[usize::from(partition)] {
            continue;
        }
        let wanted = table.wanted.holders(partition);
        for &to in wanted.iter().filter(|to| few[**to as usize]) {
            let mut givers = table.held.of(partition).iter().filter(|from| !wanted.contains(from));
            let give = |from: &u32| Move { partition, from: *from, to };
            let change = givers.find(|from| table.can_spare(**from) && table.may(give(from))).map(give);
            if let Some(change) = change.filter(|_| table.fullness(to) < WHOLE_PPM) {
                table.make(change);
            }
        }
    }
}

fn whole(share: u64) -> u32 {
    u32::try_from(share.div_ceil(COPY)).expect("all copies together are fewer than 2^32")
}

fn rendezvous(roster: &Roster, wanted: &Assignment) -> Holdings {
    let volumes = (0..=u16::MAX).flat_map(|partition| wanted.holders(partition)).copied().collect();
    Holdings { copies: roster.copies(), volumes }
}

/// Where the copies are in `map`, by the indexes of the next.
fn carried(map: &Map, step: &Step) -> Holdings {
    let held = (0..=u16::MAX).flat_map(|partition| map.held(partition));
    let volumes = held.map(|volume| step.index[*volume as usize]).collect();
    Holdings { copies: map.roster().copies(), volumes }
}

/// Every partition as it was if the rules allow that, else with as few new holders as may be; of equally few, as
/// rendezvous wants it. Also, how many new ones those got.
fn repaired(roster: &Roster, wanted: &Assignment, had: &Holdings) -> (Holdings, BTreeMap<u16, u32>) {
    let mut held = Holdings { copies: roster.copies(), volumes: Vec::with_capacity(had.volumes.len()) };
    let mut forced = BTreeMap::new();
    for partition in 0..=u16::MAX {
        let had = had.of(partition);
        if !had.contains(&GONE) && roster.allows(had) {
            held.volumes.extend_from_slice(had);
            continue;
        }
        let here: Vec<u32> = had.iter().copied().filter(|volume| *volume != GONE).collect();
        let kept: Vec<u32> =
            roster.place_keeping(Partition(partition), &here).into_iter().map(|pick| pick.volume).collect();
        let new = |volumes: &[u32]| volumes.iter().map(|volume| u32::from(!here.contains(volume))).sum::<u32>();
        let wanted = wanted.holders(partition);
        held.volumes.extend_from_slice(if new(wanted) <= new(&kept) { wanted } else { &kept });
        if new(&kept) > 0 {
            forced.insert(partition, new(&kept));
        }
    }
    (held, forced)
}

/// What must come to the zones for shares to be `fair`, if they `were` fair before: what the shares of a zone's volumes
/// grow by, or what its partitions lack, or what makes up for the copies that must leave it.
fn due(roster: &Roster, had: &Holdings, was: &[u64], fair: &[u64]) -> u64 {
    let zone_of = |volume: u32| roster.seat(volume).holder.zone;
    let mut arriving: Vec<[u64; 3]> = vec![[0; 3]; roster.zones().len()];
    // The shares of each zone before and after.
    let mut sums: Vec<[u64; 2]> = vec![[0; 2]; roster.zones().len()];
    for ((volume, was), fair) in (0..).zip(was).zip(fair) {
        let zone = zone_of(volume);
        arriving[zone][0] += fair.saturating_sub(*was);
        (sums[zone][0], sums[zone][1]) = (sums[zone][0] + was, sums[zone][1] + fair);
    }
    for partition in 0..=u16::MAX {
        for (zone, (rule, arriving)) in roster.zones().iter().zip(&mut arriving).enumerate() {
            let had = had.of(partition).iter().filter(|volume| **volume != GONE && zone_of(**volume) == zone).count();
            arriving[1] += COPY * rule.least.saturating_sub(had) as u64;
            arriving[2] += COPY * had.saturating_sub(rule.most) as u64;
        }
    }
    let most = |([grown, lacking, leaving], [was, fair]): ([u64; 3], [u64; 2])| {
        grown.max(lacking).max((fair + leaving).saturating_sub(was))
    };
    arriving.into_iter().zip(sums).map(most).sum()
}

/// Gives what rendezvous puts elsewhere since the change to volumes whose share is more than it `was`, within
/// everyone's bounds.
fn follow(table: &mut Table<'_>, was: &[u64], old: &Assignment, step: &Step) {
    // A volume that has much to get stops at its fair share: so it has room for what others have too many.
    let few: Vec<bool> = table.counts.iter().zip(&table.floors).map(|(count, floor)| count < floor).collect();
    for partition in 0..=u16::MAX {
        let wanted = table.wanted.holders(partition);
        if old.holders(partition).iter().all(|volume| wanted.contains(&step.index[*volume as usize])) {
            continue;
        }
        for &to in wanted.iter().filter(|to| table.fair[**to as usize] > was[**to as usize] + GREW) {
            let full = few[to as usize] && table.fullness(to) >= WHOLE_PPM;
            let mut givers = table.held.of(partition).iter().filter(|from| !wanted.contains(from));
            let give = |from: &u32| Move { partition, from: *from, to };
            let change = givers.find(|from| table.can_spare(**from) && table.may(give(from))).map(give);
            if let Some(change) = change.filter(|_| !full && table.has_room(to)) {
                table.make(change);
            }
        }
    }
}

/// Lets copies stay where they were until at most `allowed` travel, within everyone's bounds.
fn call_off(table: &mut Table<'_>, allowed: u32) {
    let moving: Vec<u16> = table.moving.iter().copied().collect();
    for partition in moving {
        for at in 0..table.before.copies {
            let to = table.before.of(partition)[at];
            if table.moved <= allowed {
                return;
            }
            if to == GONE || !table.has_room(to) {
                continue;
            }
            let new = |from: &&u32| table.is_new(partition, **from) && table.can_spare(**from);
            let give = |from: &u32| Move { partition, from: *from, to };
            let change = table.held.of(partition).iter().filter(new).map(give).find(|change| table.may(*change));
            if let Some(change) = change {
                table.make(change);
            }
        }
    }
}

/// What differs from rendezvous, each partition's holders in the order of their draws.
fn overrides(roster: &Roster, wanted: &Assignment, held: &Holdings) -> Vec<Override> {
    let differing = (0..=u16::MAX).filter(|partition| {
        let wanted = wanted.holders(*partition);
        held.of(*partition).iter().any(|volume| !wanted.contains(volume))
    });
    let mut lists = VolumeLists::default();
    differing
        .map(|partition| {
            let mut volumes: Vec<_> = held.of(partition).iter().map(|volume| roster.seat(*volume)).collect();
            volumes.sort_by_cached_key(|seat| (seat.drawer.draw(Partition(partition)), seat.holder.volume));
            let volumes: Vec<_> = volumes.into_iter().map(|seat| seat.holder.volume).collect();
            Override { partition: Partition(partition), volumes: lists.one(&volumes) }
        })
        .collect()
}
