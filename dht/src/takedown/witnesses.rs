//! With whom nodes compare in a large cluster.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeId;
use crate::random::mix_all;

/// How many nodes are witnesses where there are more. Even, so that of two equal sites each has half.
pub const WITNESSES_MAX: usize = 16;
/// How many each zone has at least, if it has so many nodes, where there are few zones.
const ZONE_MIN: usize = 3;

/// The witnesses of a map whose nodes, with their zones, are `nodes`, without those `dead` by its log: by name, the
/// same on every node. They are the members that [`Lease::set_members`](super::Lease::set_members) is told.
///
/// All nodes where there are at most [`WITNESSES_MAX`]; else so many: of each zone in proportion to its nodes (by the
/// method of Sainte-Laguë), and at least 3 where there are up to 5 zones. Which of a zone follows from the hash of
/// their names, so that a node that joins or dies changes one or two of them.
#[must_use]
pub fn witnesses<Z: Ord>(nodes: impl Iterator<Item = (NodeId, Z)>, dead: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let mut zones: BTreeMap<Z, Vec<(u64, NodeId)>> = BTreeMap::new();
    for (node, zone) in nodes.filter(|(node, _)| !dead.contains(node)) {
        zones.entry(zone).or_default().push((mix_all(node.as_bytes()), node));
    }
    let mut zones: Vec<(usize, Vec<(u64, NodeId)>)> = zones.into_values().map(|zone| (0, zone)).collect();
    let all: usize = zones.iter().map(|(_, zone)| zone.len()).sum();
    if zones.len() * ZONE_MIN <= WITNESSES_MAX {
        zones.iter_mut().for_each(|(seats, zone)| *seats = zone.len().min(ZONE_MIN));
    }
    let mut left = WITNESSES_MAX.min(all) - zones.iter().map(|(seats, _)| seats).sum::<usize>();
    while left > 0 {
        // The one with the most nodes for each (half-)seat; of equals the first.
        let open = zones.iter_mut().filter(|(seats, zone)| *seats < zone.len());
        let most =
            open.reduce(
                |best, other| {
                    if other.1.len() * (2 * best.0 + 1) > best.1.len() * (2 * other.0 + 1) { other } else { best }
                },
            );
        most.expect("there are more nodes than seats taken").0 += 1;
        left -= 1;
    }
    let mut chosen = Vec::new();
    for (seats, zone) in &mut zones {
        zone.sort_unstable();
        chosen.extend(zone[..*seats].iter().map(|(_, node)| *node));
    }
    chosen.sort_unstable();
    chosen
}
