//! Every volume of a map as placement sees it, and how many copies each zone takes.
//!
//! Copies are spread over zones as evenly as the zones' nodes allow: each zone takes `least` copies of every partition,
//! and `extras` zones a partition take one more. So three copies in two zones lie 2 + 1, and which zone takes two is
//! drawn for each partition. An extra copy goes to a zone that has a rack left for it, if there is one.
//!
//! Within a zone, copies lie on different nodes, and on as many racks as there are, up to one a rack.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use deadwax_track::Partition;

use super::Holder;
use super::draw::Drawer;
use crate::VolumeId;
use crate::map::{COPIES_MAX, Node};

/// A volume. [`Roster::volumes`] has its index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(super) holder: Holder,
    /// The same number for volumes on one rack. A node that names no rack is its own.
    pub(super) rack: usize,
    pub(super) drawer: Drawer,
}

impl Seat {
    pub(crate) const fn holder(&self) -> Holder {
        self.holder
    }

    pub(crate) const fn weight(&self) -> u32 {
        self.drawer.weight()
    }

    pub(crate) const fn rack(&self) -> usize {
        self.rack
    }
}

/// How many copies of a partition a zone takes, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ZoneRule {
    pub(crate) nodes: usize,
    pub(crate) racks: usize,
    /// Copies of every partition.
    pub(crate) least: usize,
    /// `least`, or one more for a zone that may take an extra.
    pub(crate) most: usize,
    /// Copies that a rack may have: 1 where racks suffice.
    pub(crate) per_rack: usize,
    /// How many volumes are looked at in the end: what the zone may take, with spares where racks do not suffice.
    pub(super) shortlist: usize,
    pub(super) volumes: Range<usize>,
}

/// Every volume of a map, zone by zone.
#[derive(Clone, Debug)]
pub(crate) struct Roster {
    volumes: Vec<Seat>,
    zones: Vec<ZoneRule>,
    /// Copies of each partition: as the policy says, or one a node where nodes are fewer.
    copies: usize,
    /// Zones of a partition that take one more than their least.
    extras: usize,
}

impl Roster {
    /// The `count` volumes of each zone with the lowest draws for `partition` that lie on none of `nodes`, one a node,
    /// zone by zone: who stands in for a holder.
    pub(crate) fn stand_ins(&self, partition: Partition, nodes: &[usize], count: usize) -> Vec<Holder> {
        let mut chosen = Vec::new();
        for zone in &self.zones {
            let seats = self.volumes[zone.volumes.clone()].iter().filter(|seat| !nodes.contains(&seat.holder.node));
            let mut drawn: Vec<(u128, VolumeId, Holder)> =
                seats.map(|seat| (seat.drawer.draw(partition), seat.holder.volume, seat.holder)).collect();
            drawn.sort_unstable_by_key(|(draw, volume, _)| (*draw, *volume));
            let mut taken: Vec<usize> = Vec::new();
            for (_, _, holder) in drawn {
                if taken.len() < count && !taken.contains(&holder.node) {
                    taken.push(holder.node);
                    chosen.push(holder);
                }
            }
        }
        chosen
    }

    /// The volumes of `nodes`, whose zones are indexes into a list of `zones`, each of which has a node.
    pub(crate) fn new(nodes: &[Node], zones: usize, zone_of: impl Fn(&Node) -> usize, copies: usize) -> Self {
        let mut racks = BTreeMap::new();
        let mut volumes = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let zone = zone_of(node);
            let own = node.rack.is_none().then_some(index);
            let next = racks.len();
            let rack = *racks.entry((zone, node.rack.as_deref(), own)).or_insert(next);
            volumes.extend(node.volumes.iter().map(|volume| Seat {
                holder: Holder { node: index, volume: volume.id, zone },
                rack,
                drawer: Drawer::new(&volume.id, volume.weight),
            }));
        }
        volumes.sort_by_key(|seat| seat.holder.zone);
        let copies = copies.min(nodes.len());
        let (zones, extras) = quotas((0..zones).map(|zone| rule(&volumes, zone)).collect(), copies);
        Self { volumes, zones, copies, extras }
    }

    pub(crate) fn volumes(&self) -> &[Seat] {
        &self.volumes
    }

    pub(super) fn seat(&self, volume: u32) -> &Seat {
        &self.volumes[volume as usize]
    }

    /// Puts the holders of `partition` into the order in which the map names them.
    pub(crate) fn sort_by_draw(&self, partition: Partition, volumes: &mut [u32]) {
        volumes.sort_by_cached_key(|volume| {
            let seat = self.seat(*volume);
            (seat.drawer.draw(partition), seat.holder.volume)
        });
    }

    pub(crate) fn zones(&self) -> &[ZoneRule] {
        &self.zones
    }

    pub(crate) const fn copies(&self) -> usize {
        self.copies
    }

    pub(super) const fn extras(&self) -> usize {
        self.extras
    }

    /// Whether the rules are those of `other`, so that a volume with a higher draw than all holders changes nothing.
    pub(super) fn rules_like(&self, other: &Self) -> bool {
        let rules = |roster: &Self| -> Vec<_> {
            let rule = |zone: &ZoneRule| (zone.least, zone.most, zone.racks.min(zone.most));
            roster.zones.iter().map(rule).collect()
        };
        (self.copies, self.extras, rules(self)) == (other.copies, other.extras, rules(other))
    }

    /// Whether `volumes` may hold a partition together: right in number, each on its own node, and on zones and racks
    /// as the rules want.
    pub(super) fn allows(&self, volumes: &[u32]) -> bool {
        if volumes.len() != self.copies {
            return false;
        }
        // Node, zone and rack of each: this is asked for every partition of a map.
        let mut places = [(0, 0, 0); COPIES_MAX as usize];
        for (at, volume) in volumes.iter().enumerate() {
            let seat = self.seat(*volume);
            if places[..at].iter().any(|(node, ..)| *node == seat.holder.node) {
                return false;
            }
            places[at] = (seat.holder.node, seat.holder.zone, seat.rack);
        }
        let places = &places[..volumes.len()];
        self.zones.iter().enumerate().all(|(zone, rule)| {
            let (mut count, mut racks) = (0, 0);
            for (at, (_, _, rack)) in places.iter().enumerate().filter(|(_, place)| place.1 == zone) {
                count += 1;
                racks += usize::from(!places[..at].iter().any(|(_, _, other)| other == rack));
            }
            (rule.least..=rule.most).contains(&count) && racks >= count.min(rule.racks)
        })
    }
}

/// A zone's volumes, nodes and racks; its quota is still to come.
fn rule(volumes: &[Seat], zone: usize) -> ZoneRule {
    let start = volumes.partition_point(|seat| seat.holder.zone < zone);
    let end = volumes.partition_point(|seat| seat.holder.zone <= zone);
    let nodes: BTreeSet<usize> = volumes[start..end].iter().map(|seat| seat.holder.node).collect();
    let racks: BTreeSet<usize> = volumes[start..end].iter().map(|seat| seat.rack).collect();
    let (nodes, racks) = (nodes.len(), racks.len());
    ZoneRule { nodes, racks, least: 0, most: 0, per_rack: 1, shortlist: 0, volumes: start..end }
}

/// Gives each zone its quota of `copies`, which the nodes suffice for. Also, how many zones take an extra.
fn quotas(mut zones: Vec<ZoneRule>, copies: usize) -> (Vec<ZoneRule>, usize) {
    let taken = |level: usize| zones.iter().map(|zone| zone.nodes.min(level)).sum::<usize>();
    let level = (0..=copies).rev().find(|level| taken(*level) <= copies).expect("no zone takes a copy at level 0");
    let mut extras = copies - taken(level);
    let may = |zone: &ZoneRule, needs_rack: bool| zone.nodes > level && (!needs_rack || zone.racks > level);
    let with_rack = zones.iter().filter(|zone| may(zone, true)).count();
    let all_with_rack_take_one = with_rack < extras;
    for zone in &mut zones {
        let base = zone.nodes.min(level);
        (zone.least, zone.most) = match (may(zone, true), may(zone, false)) {
            (true, _) if extras > 0 => (base + usize::from(all_with_rack_take_one), base + 1),
            (false, true) if all_with_rack_take_one => (base, base + 1),
            _ => (base, base),
        };
        zone.per_rack = (zone.most + 1).saturating_sub(zone.racks).max(1);
        // Where racks do not suffice, each gives its best so many; they are few.
        zone.shortlist = if zone.racks >= zone.most { zone.most } else { zone.racks * zone.per_rack };
    }
    if all_with_rack_take_one {
        extras -= with_rack;
    }
    (zones, extras)
}
