//! Where the copies should be, beside where they are; and the next set of holders on the way there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deadwax_track::Partition;

use super::command::effective;
use super::facts::Facts;
use crate::log::State;
use crate::placement::{Balanced, GONE, rebalance_on};
use crate::{BadMap, Map, MapSpec, Override, VolumeId};

/// Why a partition is to move, the most urgent first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// A holder is dead: there are fewer copies than the policy wants.
    Copies,
    /// Copies lie on other zones or racks than they could.
    Zones,
    /// A holder is leaving.
    Leaving,
    /// A volume has more than its share.
    Balance,
}

/// In which order partitions move: fewest live copies first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) live: u8,
    pub(super) reason: Reason,
    pub(super) partition: Partition,
}

/// A partition that is to move.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: Key,
    /// Who holds it, in the map's order.
    pub(super) from: Vec<VolumeId>,
    /// Who shall.
    pub(super) to: Vec<VolumeId>,
}

/// What came of planning.
pub(super) struct Target {
    /// The map as it will be when all that moves has arrived. It knows all its holders.
    pub(super) base: Arc<Map>,
    pub(super) rules: Rules,
    pub(super) wanted: Vec<Wanted>,
}

/// The map of `state` as it will be when its transitions are done: who will hold what. Takes from `known`, an earlier
/// map, what it knows of holders.
pub(super) fn arrived(state: &State, facts: &Facts, known: &Map) -> Result<Map, BadMap> {
    let kept = |each: &&crate::log::Transition| !facts.is_doomed(each);
    let moving = state.transitions().iter().filter(|(_, each)| kept(each));
    let mut spec = state.spec().clone();
    spec.overrides.retain(|over| state.transitions().get(&over.partition).filter(kept).is_none());
    spec.overrides
        .extend(moving.map(|(partition, each)| Override { partition: *partition, volumes: each.new.clone() }));
    let map = Map::new(spec)?;
    map.learn_from(known);
    Ok(map)
}

/// What is to move so that neither the dead nor the leaving hold anything, and all others their fair shares. None where
/// too few nodes are left to hold all copies.
pub(super) fn target(state: &State, facts: &Facts, known: &Map) -> Option<Target> {
    let next: MapSpec = effective(state.spec(), state.dead(), state.leaving());
    if next.nodes.len() < usize::from(next.policy.copies) {
        return None;
    }
    // Either would break a rule of the state, which was checked.
    let base = arrived(state, facts, known).expect("new holders keep the rules of overrides");
    let next = Map::new(next).expect("fewer nodes of a good map, enough for all copies");
    let balanced = rebalance_on(&base, &next);
    let rules = Rules::new(Arc::new(base), &next);
    let differing = (0..=u16::MAX).filter(|partition| {
        let had = balanced.before.of(*partition);
        balanced.after.of(*partition).iter().any(|volume| !had.contains(volume))
    });
    let wanted = differing.map(|partition| wanted(partition, &balanced, &rules, &next, facts)).collect();
    Some(Target { base: rules.base.clone(), rules, wanted })
}

fn wanted(partition: u16, balanced: &Balanced, rules: &Rules, next: &Map, facts: &Facts) -> Wanted {
    let number = Partition(partition);
    let held = rules.base.held(partition);
    let from: Vec<VolumeId> = held.iter().map(|volume| rules.volume(*volume)).collect();
    let mut to = balanced.after.of(partition).to_vec();
    next.roster().sort_by_draw(number, &mut to);
    let to = to.iter().map(|volume| next.roster().volumes()[*volume as usize].holder().volume).collect();
    let live = from.iter().filter(|volume| facts.is_live(volume)).count();
    let had = balanced.before.of(partition);
    let leaves = had.contains(&GONE);
    let reason = if live < from.len() {
        Reason::Copies
    } else if rules.lacks_zone(held) || (!leaves && rules.badness(held) != Some(0)) {
        Reason::Zones
    } else if leaves {
        Reason::Leaving
    } else {
        Reason::Balance
    };
    let live = u8::try_from(live).expect("at most 16 copies");
    Wanted { key: Key { live, reason, partition: number }, from, to }
}

/// How many copies a zone should have, once the dead and the leaving hold none.
#[derive(Clone, Copy, Default, Debug)]
struct Quota {
    least: usize,
    most: usize,
    racks: usize,
}

/// The rules that sets of holders are to keep, for all volumes: the dead and the leaving, too.
#[derive(Debug)]
pub(super) struct Rules {
    base: Arc<Map>,
    /// Indexes into the base's roster.
    index: BTreeMap<VolumeId, u32>,
    /// By the base's zones.
    quotas: Vec<Quota>,
}

impl Rules {
    fn new(base: Arc<Map>, next: &Map) -> Self {
        let index = base.roster().volumes().iter().map(|seat| seat.holder().volume).zip(0..).collect();
        let quota = |zone: &String| {
            let rule = next.zones().binary_search(zone).ok().map(|zone| &next.roster().zones()[zone]);
            rule.map_or_else(Quota::default, |rule| Quota { least: rule.least, most: rule.most, racks: rule.racks })
        };
        let quotas = base.zones().iter().map(quota).collect();
        Self { index, quotas, base }
    }

    fn volume(&self, index: u32) -> VolumeId {
        self.base.roster().volumes()[index as usize].holder().volume
    }

    fn in_zone(&self, set: &[u32], zone: usize) -> impl Iterator<Item = usize> {
        let seats = set.iter().map(|volume| &self.base.roster().volumes()[*volume as usize]);
        seats.filter(move |seat| seat.holder().zone == zone).map(|seat| seat.rack())
    }

    /// Whether a zone that should have a copy has none.
    fn lacks_zone(&self, set: &[u32]) -> bool {
        let mut quotas = self.quotas.iter().enumerate();
        quotas.any(|(zone, quota)| quota.least > 0 && self.in_zone(set, zone).next().is_none())
    }

    /// How many copies lie where they should not, or are missing where they should. None: two are on one node.
    fn badness(&self, set: &[u32]) -> Option<usize> {
        let node = |volume: &u32| self.base.roster().volumes()[*volume as usize].holder().node;
        if set.iter().map(node).collect::<BTreeSet<_>>().len() < set.len() {
            return None;
        }
        let mut bad = 0;
        for (zone, quota) in self.quotas.iter().enumerate() {
            let racks: Vec<usize> = self.in_zone(set, zone).collect();
            bad += quota.least.saturating_sub(racks.len()) + racks.len().saturating_sub(quota.most);
            let distinct = racks.iter().collect::<BTreeSet<_>>().len();
            bad += racks.len().min(quota.racks).saturating_sub(distinct);
        }
        Some(bad)
    }

    /// The set that comes after `from` on the way to `to`: it has one volume that `from` has not if there is such a set
    /// that is no worse than both, else two, else it is `to`. The dead go first, then the leaving.
    pub(super) fn next(
        &self,
        partition: Partition,
        from: &[VolumeId],
        to: &[VolumeId],
        facts: &Facts,
    ) -> Vec<VolumeId> {
        let indexes = |set: &[VolumeId]| set.iter().map(|volume| self.index[volume]).collect::<Vec<u32>>();
        let mut going: Vec<VolumeId> = from.iter().filter(|volume| !to.contains(volume)).copied().collect();
        going.sort_by_key(|volume| (facts.is_live(volume), !facts.is_leaving(volume)));
        let coming: Vec<VolumeId> = to.iter().filter(|volume| !from.contains(volume)).copied().collect();
        let (is, goal, going, coming) = (indexes(from), indexes(to), indexes(&going), indexes(&coming));
        let worst = self.badness(&is).max(self.badness(&goal)).unwrap_or(0);
        let fits = |set: &Vec<u32>| self.badness(set).is_some_and(|bad| bad <= worst);
        let one = || pairs(&going, &coming).map(|pair| swap(&is, &[pair])).find(fits);
        let two = || {
            let more = |first| pairs(&going, &coming).map(move |second| [first, second]);
            let distinct = |[one, two]: &[(u32, u32); 2]| one.0 < two.0 && one.1 != two.1;
            pairs(&going, &coming).flat_map(more).filter(distinct).map(|both| swap(&is, &both)).find(fits)
        };
        let steps = coming.len();
        let first = (steps > 1).then(one).flatten().or_else(|| (steps > 2).then(two).flatten());
        let Some(mut next) = first else { return to.to_vec() };
        self.base.roster().sort_by_draw(partition, &mut next);
        next.into_iter().map(|volume| self.volume(volume)).collect()
    }
}

fn pairs<'a>(going: &'a [u32], coming: &'a [u32]) -> impl Iterator<Item = (u32, u32)> + 'a {
    going.iter().flat_map(|out| coming.iter().map(|into| (*out, *into)))
}

fn swap(set: &[u32], swaps: &[(u32, u32)]) -> Vec<u32> {
    let swapped = |volume: &u32| swaps.iter().find(|(out, _)| out == volume).map_or(*volume, |(_, into)| *into);
    set.iter().map(swapped).collect()
}
