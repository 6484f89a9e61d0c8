//! What a map cannot give of what its policy and weights ask.

use std::collections::BTreeMap;
use std::fmt;

use deadwax_track::PARTITIONS;

use super::VolumeShare;
use crate::map::Map;
use crate::placement::{COPY, Seat};
use crate::{NodeId, VolumeId};

/// Shares that are off by no more than this many millionths are as asked.
const TOLERANCE_PPM: u64 = 20_000;
const WHOLE_PPM: u64 = 1_000_000;

/// A wish of the policy or the weights that a map cannot satisfy. Displays as a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Unmet {
    /// Tracks have fewer copies than the policy says: one a node.
    TooFewNodes {
        /// How many nodes there are.
        nodes: usize,
        /// How many copies the policy wants.
        copies: u8,
    },
    /// No put can be acknowledged: a write quorum has more nodes than there are.
    NoQuorum {
        /// How many nodes there are.
        nodes: usize,
        /// How many copies must be durable.
        write_quorum: u8,
    },
    /// Copies lie in fewer zones than the policy wants: what fails with a zone may take all copies.
    TooFewZones {
        /// How many zones there are.
        zones: usize,
        /// How many the policy wants.
        zones_min: u8,
    },
    /// A zone has nodes enough for its copies but not racks: some partitions have two copies on a rack.
    TooFewRacks {
        /// The zone's name.
        zone: String,
        /// How many racks it has.
        racks: usize,
        /// How many copies of a partition it takes.
        copies: usize,
    },
    /// Copies are spread over zones and nodes more evenly than weights are: this zone's drives are fuller, or emptier,
    /// than the average.
    Zone {
        /// The zone's name.
        zone: String,
        /// Its fair share beside its share by weight, in millionths: above 1,000,000 it is fuller.
        fullness_ppm: u64,
    },
    /// A node, or a rack, is so heavy that its share by weight would be more than the one copy of each partition that
    /// it may hold: the rest of its drives stays empty.
    TooHeavy {
        /// The heaviest node there, or the only one.
        node: NodeId,
        /// The rack, if it is not the node by itself that is too heavy.
        rack: Option<String>,
        /// How much of its share by weight, within its zone, it can use, in millionths.
        used_ppm: u64,
    },
    /// The rules leave a volume fuller or emptier than its fair share by over 2 % and a copy.
    Uneven {
        /// Which volume.
        volume: VolumeId,
        /// Copies beside the fair share, in millionths.
        fullness_ppm: u64,
    },
}

impl Unmet {
    /// What nodes and zones are too few for.
    pub(crate) fn of_policy(map: &Map) -> Vec<Unmet> {
        let (policy, nodes, zones) = (map.policy(), map.nodes().len(), map.zones().len());
        let mut unmet = Vec::new();
        if nodes < usize::from(policy.write_quorum) {
            unmet.push(Unmet::NoQuorum { nodes, write_quorum: policy.write_quorum });
        }
        if nodes < usize::from(policy.copies) {
            unmet.push(Unmet::TooFewNodes { nodes, copies: policy.copies });
        }
        if zones < usize::from(policy.zones_min) && policy.copies > 1 {
            unmet.push(Unmet::TooFewZones { zones, zones_min: policy.zones_min });
        }
        unmet
    }
}

/// Millionths as a percentage with one decimal.
struct Percent(u64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} %", self.0 / 10_000, self.0 / 1_000 % 10)
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooFewNodes { nodes, copies } => write!(f, "{nodes} nodes cannot hold {copies} copies of each track"),
            Self::NoQuorum { nodes, write_quorum } => {
                write!(f, "{nodes} nodes cannot acknowledge a put, which needs {write_quorum}")
            }
            Self::TooFewZones { zones, zones_min } => {
                write!(f, "the nodes are in {zones} zone(s), the policy wants copies in {zones_min}")
            }
            Self::TooFewRacks { zone, racks, copies } => {
                write!(f, "zone {zone} has {racks} rack(s) for {copies} copies: some racks hold two of a track")
            }
            Self::Zone { zone, fullness_ppm } => {
                write!(
                    f,
                    "zone {zone} is {} as full as its weight deserves: copies are spread more evenly",
                    Percent(*fullness_ppm)
                )
            }
            Self::TooHeavy { node, rack: None, used_ppm } => {
                write!(
                    f,
                    "node {} can use only {} of its weight: it holds a track once",
                    node.short(),
                    Percent(*used_ppm)
                )
            }
            Self::TooHeavy { rack: Some(rack), used_ppm, .. } => {
                write!(f, "rack {rack} can use only {} of its weight: it holds a track once", Percent(*used_ppm))
            }
            Self::Uneven { volume, fullness_ppm } => {
                write!(f, "volume {volume} has {} of its fair share", Percent(*fullness_ppm))
            }
        }
    }
}

/// All that `map` cannot satisfy, when volumes have these `fair` and actual shares.
pub(super) fn of(map: &Map, fair: &[u64], shares: &[VolumeShare]) -> Vec<Unmet> {
    let mut unmet = Unmet::of_policy(map);
    let volumes = || map.roster().volumes().iter().zip(fair);
    for (zone, name) in map.zones().iter().enumerate() {
        let here = || volumes().filter(|(seat, _)| seat.holder().zone == zone);
        let rule = &map.roster().zones()[zone];
        if rule.racks < rule.most && rule.racks < rule.nodes {
            unmet.push(Unmet::TooFewRacks { zone: name.clone(), racks: rule.racks, copies: rule.most });
        }
        let fullness_ppm = fullness(here(), volumes());
        if fullness_ppm.abs_diff(WHOLE_PPM) > TOLERANCE_PPM {
            unmet.push(Unmet::Zone { zone: name.clone(), fullness_ppm });
        }
        unmet.extend(too_heavy(map, rule.per_rack, &here().collect::<Vec<_>>()));
    }
    let uneven = shares.iter().zip(fair).filter(|(share, fair)| {
        let off = (u64::from(share.copies_after) * COPY).abs_diff(**fair);
        off >= COPY && share.fullness_ppm.abs_diff(WHOLE_PPM) > TOLERANCE_PPM
    });
    unmet.extend(uneven.map(|(share, _)| Unmet::Uneven { volume: share.volume, fullness_ppm: share.fullness_ppm }));
    unmet
}

/// The nodes and racks of a zone, given its volumes with their fair shares, that hold all they may and yet less than
/// their weight's part of the zone's copies.
fn too_heavy(map: &Map, per_rack: usize, zone: &[(&Seat, &u64)]) -> Vec<Unmet> {
    let mut nodes = BTreeMap::<usize, Vec<_>>::new();
    let mut racks = BTreeMap::<&str, Vec<_>>::new();
    for &volume in zone {
        let node = volume.0.holder().node;
        nodes.entry(node).or_default().push(volume);
        if let Some(rack) = &map.nodes()[node].rack {
            racks.entry(rack).or_default().push(volume);
        }
    }
    let is_full = |group: &[(&Seat, &u64)], copies: usize| {
        let share: u64 = group.iter().map(|(_, fair)| **fair).sum();
        share + COPY >= COPY * u64::from(PARTITIONS) * copies as u64
    };
    let mut heavy = Vec::new();
    // Few are full: only for those is the sum of all worked out.
    let used = |group: &[(&Seat, &u64)], copies: usize| {
        let used_ppm = is_full(group, copies).then(|| fullness(group.iter().copied(), zone.iter().copied()));
        used_ppm.filter(|used_ppm| used_ppm + TOLERANCE_PPM < WHOLE_PPM)
    };
    for (node, group) in nodes {
        if let Some(used_ppm) = used(&group, 1) {
            heavy.push(Unmet::TooHeavy { node: map.nodes()[node].id, rack: None, used_ppm });
        }
    }
    for (rack, group) in racks {
        let node = group.iter().max_by_key(|(seat, _)| seat.weight()).expect("a rack has a volume").0.holder().node;
        let node = map.nodes()[node].id;
        let known = heavy.iter().any(|unmet| matches!(unmet, Unmet::TooHeavy { node: other, .. } if *other == node));
        if let Some(used_ppm) = used(&group, per_rack).filter(|_| !known) {
            heavy.push(Unmet::TooHeavy { node, rack: Some(rack.to_owned()), used_ppm });
        }
    }
    heavy
}

/// The fair shares of `some` volumes beside what they would be by weight alone among `all`, in millionths.
fn fullness<'a>(
    some: impl Iterator<Item = (&'a Seat, &'a u64)>,
    all: impl Iterator<Item = (&'a Seat, &'a u64)>,
) -> u64 {
    let sums = |volumes: &mut dyn Iterator<Item = (&'a Seat, &'a u64)>| {
        volumes.fold((0_u128, 0_u128), |(weight, share), (seat, fair)| {
            (weight + u128::from(seat.weight()), share + u128::from(*fair))
        })
    };
    let ((mut some, mut all), one) = ((some, all), u128::from(WHOLE_PPM));
    let ((weight, share), (weight_all, share_all)) = (sums(&mut some), sums(&mut all));
    // Shares are below 2^41, weights below 2^48: the products fit.
    u64::try_from(share * weight_all * one / (share_all * weight).max(1)).unwrap_or(u64::MAX)
}
