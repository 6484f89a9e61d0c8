//! Placement: the same everywhere and for ever, fair, and calm when nodes come and go.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use deadwax_dht::{ClusterId, Holder, Map, MapSpec, Node, NodeId, Policy, Volume, VolumeId};
use deadwax_track::{PARTITIONS, Partition};

const ZONES: [&str; 4] = ["a", "b", "c", "d"];

/// A node for each (zone, rack, weight). Its names follow from `first` and its place, so a longer list extends a
/// shorter one.
fn map(copies: u8, nodes: &[(&str, Option<&str>, u32)]) -> Map {
    let node = |(number, (zone, rack, weight)): (u16, &(&str, Option<&str>, u32))| {
        let name = *blake3::hash(&number.to_le_bytes()).as_bytes();
        let id = VolumeId::from_bytes(*name.first_chunk().expect("32 bytes have 16"));
        Node {
            id: NodeId::from_bytes(name),
            zone: (*zone).to_owned(),
            rack: rack.map(str::to_owned),
            address: format!("10.0.0.1:{}", 1000 + number),
            volumes: vec![Volume { id, weight: *weight }],
        }
    };
    let spec = MapSpec {
        version: 1,
        cluster: ClusterId::from_bytes([0; 16]),
        epoch: 1,
        policy: Policy { copies, write_quorum: copies / 2 + 1, ..Policy::default() },
        nodes: (0_u16..).zip(nodes).map(node).collect(),
        overrides: vec![],
    };
    Map::new(spec).expect("a good map")
}

fn partitions() -> impl Iterator<Item = Partition> {
    (0..=u16::MAX).map(Partition)
}

/// Copies by node.
fn counts(map: &Map) -> Vec<u32> {
    let mut counts = vec![0; map.nodes().len()];
    for holder in partitions().flat_map(|partition| map.holders(partition)) {
        counts[holder.node] += 1;
    }
    counts
}

/// Copies on volumes that did not hold them before.
fn moved(before: &Map, after: &Map) -> u32 {
    let mut moved = 0;
    for partition in partitions() {
        let held = |volume: VolumeId| before.holders(partition).iter().any(|holder| holder.volume == volume);
        moved += after.holders(partition).iter().map(|holder| u32::from(!held(holder.volume))).sum::<u32>();
    }
    moved
}

/// 60 nodes with weights {1, 1, 2, 2, 4}, dealt to these zones in turn: zones of equal weight.
fn sixty<'a>(zones: &[&'a str]) -> Vec<(&'a str, Option<&'a str>, u32)> {
    (0..60).map(|n| (zones[n % zones.len()], None, [1, 1, 2, 2, 4][n / zones.len() % 5])).collect()
}

/// The map of such nodes in so many zones; worked out once for all tests.
fn sixty_in(zones: usize) -> &'static Map {
    static MAPS: [LazyLock<Map>; 4] = [
        LazyLock::new(|| map(3, &sixty(&ZONES[..1]))),
        LazyLock::new(|| map(3, &sixty(&ZONES[..2]))),
        LazyLock::new(|| map(3, &sixty(&ZONES[..3]))),
        LazyLock::new(|| map(3, &sixty(&ZONES[..4]))),
    ];
    &MAPS[zones - 1]
}

/// Asserts that `got` is within `percent` of `ideal`.
#[track_caller]
fn near(got: u32, ideal: u64, percent: u64) {
    let off = u64::from(got).abs_diff(ideal) * 100;
    assert!(off <= ideal * percent, "{got} is not within {percent} % of {ideal}");
}

#[test]
fn every_partition_keeps_its_golden_holders() {
    let map = sixty_in(3);
    let nodes = |partition| map.holders(Partition(partition)).iter().map(|holder| holder.node).collect::<Vec<_>>();
    let mut all = blake3::Hasher::new();
    for holder in partitions().flat_map(|partition| map.holders(partition)) {
        all.update(holder.volume.as_bytes());
    }
    let all = all.finalize().to_hex();
    let got = (nodes(0), nodes(1), nodes(0x8000), nodes(0xffff), all.as_str());
    let golden = (
        vec![46, 41, 24],
        vec![44, 22, 21],
        vec![48, 29, 13],
        vec![12, 49, 14],
        "8b74eb626338e9818a6e5b53756920f2029be9bedf455052b254863f9b804d39",
    );
    assert_eq!(got, golden);
}

#[test]
fn weights_are_respected() {
    for zones in 1..=4 {
        let map = sixty_in(zones);
        let counts = counts(map);
        assert_eq!(counts.iter().sum::<u32>(), 3 * PARTITIONS);
        let weight = |node: usize| map.nodes()[node].volumes[0].weight;
        let all: u32 = (0..60).map(weight).sum();
        let mut by_weight = BTreeMap::<u32, (u32, u32)>::new();
        for (node, count) in counts.into_iter().enumerate() {
            // One node's share is a draw: about 1,600 copies have a deviation of 40.
            near(count, u64::from(3 * PARTITIONS * weight(node) / all), 12);
            let (nodes, copies) = by_weight.entry(weight(node)).or_default();
            (*nodes, *copies) = (*nodes + 1, *copies + count);
        }
        for (weight, (nodes, copies)) in by_weight {
            // A zone that gives two or three copies favours small nodes a little: a large one cannot hold a track
            // twice.
            near(copies, u64::from(3 * PARTITIONS * weight * nodes / all), 5);
        }
    }
}

#[test]
fn a_node_that_joins_or_leaves_moves_only_its_own_share() {
    for zones in 1..=4 {
        let mut nodes = sixty(&ZONES[..zones]);
        let before = sixty_in(zones);
        nodes.push((ZONES[0], None, 4));
        let after = map(3, &nodes);
        let share = counts(&after)[60];
        let joined = moved(before, &after);
        assert!(joined * 100 <= share * 106, "joining moved {joined}, its share is {share}");
        let left = moved(&after, before);
        assert!(left * 100 <= share * 106, "leaving moved {left}, it held {share}");
        // And the share is what its weight deserves.
        let all: u64 = nodes.iter().map(|(_, _, weight)| u64::from(*weight)).sum();
        near(share, u64::from(3 * PARTITIONS) * 4 / all, 10);
    }
}

/// How many of these holders are in each zone.
fn by_zone(holders: &[Holder]) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    for holder in holders {
        *counts.entry(holder.zone).or_default() += 1;
    }
    counts
}

#[test]
fn copies_are_spread_over_zones() {
    let [one, two, three, four] = [1, 2, 3, 4].map(sixty_in);
    let mut twice_in_a = 0;
    for partition in partitions() {
        assert_eq!(by_zone(one.holders(partition)), BTreeMap::from([(0, 3)]));
        let zones = by_zone(two.holders(partition));
        assert!(zones.len() == 2 && zones.values().all(|count| *count <= 2), "{zones:?}");
        twice_in_a += u32::from(zones[&0] == 2);
        assert_eq!(by_zone(three.holders(partition)).len(), 3);
        assert_eq!(by_zone(four.holders(partition)).len(), 3);
    }
    near(twice_in_a, u64::from(PARTITIONS / 2), 3);
}

#[test]
fn a_node_and_where_it_can_be_a_rack_holds_one_copy() {
    let racks = [Some("r1"), Some("r1"), Some("r1"), Some("r2"), Some("r2"), Some("r3")].map(|rack| ("a", rack, 1));
    let three_racks = map(3, &racks);
    let two_racks = map(3, &racks[..5]);
    for partition in partitions() {
        let rack = |map: &Map| {
            let holders = map.holders(partition);
            assert_eq!(holders.len(), 3);
            let mut nodes: Vec<usize> = holders.iter().map(|holder| holder.node).collect();
            let mut racks: Vec<_> = nodes.iter().map(|node| map.nodes()[*node].rack.clone()).collect();
            nodes.sort_unstable();
            nodes.dedup();
            racks.sort_unstable();
            racks.dedup();
            (nodes.len(), racks.len())
        };
        assert_eq!(rack(&three_racks), (3, 3));
        assert_eq!(rack(&two_racks), (3, 2));
    }
}

#[test]
fn a_cluster_too_small_for_its_zones_or_copies_does_what_it_can() {
    // One node in zone b: with four copies it cannot have two.
    let lopsided = map(4, &[("a", None, 1), ("a", None, 1), ("a", None, 1), ("b", None, 1)]);
    let small = map(3, &[("a", None, 1), ("b", None, 5)]);
    for partition in partitions() {
        assert_eq!(by_zone(lopsided.holders(partition)), BTreeMap::from([(0, 3), (1, 1)]));
        assert_eq!(small.holders(partition).len(), 2);
    }
}

#[test]
fn the_drives_of_a_node_share_its_copies_by_weight() {
    let mut spec = map(3, &[("a", None, 1), ("a", None, 1), ("a", None, 1)]).spec().clone();
    spec.nodes[0].volumes.push(Volume { id: VolumeId::from_bytes([9; 16]), weight: 3 });
    let map = Map::new(spec).expect("a good map");
    let mut second = 0;
    for partition in partitions() {
        assert_eq!(map.holders(partition).len(), 3);
        second += map
            .holders(partition)
            .iter()
            .map(|holder| u32::from(holder.volume == VolumeId::from_bytes([9; 16])))
            .sum::<u32>();
    }
    near(second, u64::from(PARTITIONS) * 3 / 4, 2);
}
