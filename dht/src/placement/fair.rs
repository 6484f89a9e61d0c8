//! How many copies each volume should hold: its share by weight, as far as the rules allow.
//!
//! Shares are levelled as water is: all volumes are filled to one level (copies for each unit of weight), but a node
//! takes at most one copy of a partition, a rack and a zone what the roster's rules say, and what those cannot take is
//! spread over the others, level again. So no volume could be relieved but at the cost of a fuller one (max-min
//! fairness; Bertsekas and Gallager, "Data Networks", 6.5.2).

use std::collections::BTreeMap;

use deadwax_track::PARTITIONS;

use super::roster::Roster;

/// One copy of one partition; shares are counted in parts of 2^-20.
pub(crate) const COPY: u64 = 1 << 20;
/// One copy of every partition: what a node can take.
const EVERY: u64 = COPY * PARTITIONS as u64;
/// Fractional bits of a level.
const LEVEL_BITS: u32 = 48;

/// The fair share of each volume of `roster`, in parts of a [`COPY`]; their sum is all copies, but for rounding.
pub(crate) fn fair_shares(roster: &Roster) -> Vec<u64> {
    let mut shares = vec![0; roster.volumes().len()];
    let root = tree(roster);
    root.fill(EVERY * roster.copies() as u64, &mut shares);
    shares
}

/// What shares a limit: a node, a rack, a zone, or all.
struct Group {
    weight: u64,
    least: u64,
    most: u64,
    members: Vec<Group>,
    /// A node's volumes with their weights. Without limits of their own: `members` is empty.
    volumes: Vec<(usize, u32)>,
}

impl Group {
    fn over(members: Vec<Self>, least: u64, most: u64) -> Self {
        let weight = members.iter().map(|member| member.weight).sum();
        Self { weight, least, most, members, volumes: Vec::new() }
    }

    /// What the group takes at this level. It rises with the level, evenly and without a jump.
    fn takes(&self, level: u128) -> u64 {
        let free = if self.members.is_empty() {
            // A level is at most EVERY << LEVEL_BITS (2^84) and a node's weight below 2^40: the product fits. Whatever
            // is above what a node may take is cut to it.
            u64::try_from((level * u128::from(self.weight)) >> LEVEL_BITS).unwrap_or(u64::MAX)
        } else {
            self.members.iter().map(|member| member.takes(level)).sum()
        };
        free.clamp(self.least, self.most)
    }

    /// Spreads `total` over the volumes below.
    fn fill(&self, total: u64, shares: &mut [u64]) {
        for &(volume, weight) in &self.volumes {
            let share = u128::from(total) * u128::from(weight) / u128::from(self.weight);
            shares[volume] = u64::try_from(share).expect("a part of a share");
        }
        if let [only] = &self.members[..] {
            return only.fill(total, shares);
        }
        let level = self.level(total);
        for member in &self.members {
            member.fill(member.takes(level), shares);
        }
    }

    /// The lowest level, to within a part in 2^32, at which the members take `total`.
    fn level(&self, total: u64) -> u128 {
        let taken = |level: u128| self.members.iter().map(|member| member.takes(level)).sum::<u64>();
        let top = u128::from(EVERY) << LEVEL_BITS;
        let even = (u128::from(total) << LEVEL_BITS) / u128::from(self.weight.max(1));
        let (mut low, mut high) = (0, (even + 1).min(top));
        while taken(high) < total && high < top {
            (low, high) = (high, (high * 2).min(top));
        }
        while high - low > 1 + (high >> 32) {
            let middle = low.midpoint(high);
            if taken(middle) < total { low = middle } else { high = middle }
        }
        high
    }
}

fn tree(roster: &Roster) -> Group {
    let mut nodes = BTreeMap::<(usize, usize, usize), Vec<(usize, u32)>>::new();
    for (index, seat) in roster.volumes().iter().enumerate() {
        nodes.entry((seat.holder.zone, seat.rack, seat.holder.node)).or_default().push((index, seat.weight()));
    }
    let mut racks = BTreeMap::<(usize, usize), Vec<Group>>::new();
    for ((zone, rack, _), volumes) in nodes {
        let weight = volumes.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let node = Group { weight, least: 0, most: EVERY, members: Vec::new(), volumes };
        racks.entry((zone, rack)).or_default().push(node);
    }
    let mut zones: Vec<Vec<Group>> = roster.zones().iter().map(|_| Vec::new()).collect();
    for ((zone, _), nodes) in racks {
        let rule = &roster.zones()[zone];
        // Where racks do not suffice, each has a copy of every partition, and some have more.
        let least = if rule.racks <= rule.least { EVERY } else { 0 };
        let most = (EVERY * rule.per_rack as u64).min(EVERY * nodes.len() as u64);
        zones[zone].push(Group::over(nodes, least, most));
    }
    let zone = |(racks, rule): (Vec<Group>, &super::roster::ZoneRule)| {
        Group::over(racks, EVERY * rule.least as u64, EVERY * rule.most as u64)
    };
    let zones = zones.into_iter().zip(roster.zones()).map(zone).collect();
    Group::over(zones, 0, u64::MAX)
}
