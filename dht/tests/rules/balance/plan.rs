//! What a plan says.

use deadwax_dht::{BadMap, Map, PartitionBytes, Plan, Unmet};
use deadwax_track::PARTITIONS;

use super::cluster::{Random, counts, mixed, node, spec};

#[test]
fn shares_add_up_before_and_after() {
    let mut dice = Random(1);
    let before = Map::settled(mixed(&mut dice, 30, &["a", "b"])).expect("a good map");
    let mut next = before.spec().clone();
    let gone = next.nodes.remove(4);
    next.nodes.push(node(&mut dice, "b", None, &[1000, 3000]));
    // Partitions of 1 to 65,536 bytes.
    let bytes: Vec<u64> = (1..=u64::from(PARTITIONS)).collect();
    let plan = Plan::new(&before, next, PartitionBytes::Each(&bytes)).expect("a good map");
    assert_eq!(plan.shares().len(), 32, "29 that stay, 2 that come, 1 that goes");
    let sum = |of: fn(&deadwax_dht::VolumeShare) -> u64| plan.shares().iter().map(of).sum::<u64>();
    let all: u64 = 3 * bytes.iter().sum::<u64>();
    assert_eq!((sum(|share| share.bytes_before), sum(|share| share.bytes_after)), (all, all));
    assert_eq!(u128::from(sum(|share| share.bytes_arriving)), plan.bytes_to_move());
    assert!(plan.bytes_to_move() * 100 <= plan.bytes_unavoidable() * 110);
    let find = |id| plan.shares().iter().find(|share| share.volume == id).expect("every volume is listed");
    for (map, after) in [(&before, false), (plan.map(), true)] {
        let volumes = map.nodes().iter().flat_map(|node| node.volumes.iter().map(move |volume| (node.id, volume.id)));
        for ((node, id), count) in volumes.zip(counts(map)) {
            let share = find(id);
            assert_eq!(
                (share.node, u64::from(if after { share.copies_after } else { share.copies_before })),
                (node, count)
            );
        }
    }
    let leaver = find(gone.volumes[0].id);
    assert!(leaver.copies_before > 0 && leaver.copies_after == 0 && leaver.bytes_after == 0);
}

#[test]
fn a_bad_map_is_not_planned() {
    let map = Map::new(mixed(&mut Random(2), 3, &["a"])).expect("a good map");
    let mut next = map.spec().clone();
    next.nodes.clear();
    assert_eq!(Plan::new(&map, next, PartitionBytes::Uniform(1)).expect_err("no nodes"), BadMap::NoNodes);
}

/// What cannot be satisfied where nodes are of these zones, racks and weights.
fn unmet(nodes: &[(&str, Option<&str>, u32)]) -> Vec<Unmet> {
    let mut dice = Random(3);
    let nodes = nodes.iter().map(|(zone, rack, weight)| node(&mut dice, zone, rack.map(str::to_owned), &[*weight]));
    let spec = spec(nodes.collect());
    let map = Map::settled(spec.clone()).expect("a good map");
    Plan::new(&map, spec, PartitionBytes::Uniform(1)).expect("a good map").unmet().to_vec()
}

#[test]
fn what_cannot_be_satisfied_is_named() {
    assert_eq!(unmet(&[("a", None, 5), ("a", None, 5), ("b", None, 5), ("b", None, 5)]), []);
    let two = unmet(&[("a", None, 5), ("b", None, 5)]);
    assert_eq!(two, [Unmet::TooFewNodes { nodes: 2, copies: 3 }]);
    assert_eq!(two[0].to_string(), "2 nodes cannot hold 3 copies of each track");
    let one = unmet(&[("a", None, 5)]);
    assert!(one.contains(&Unmet::NoQuorum { nodes: 1, write_quorum: 2 }), "{one:?}");
    let zone = unmet(&[("a", None, 5), ("a", None, 5), ("a", None, 5)]);
    assert_eq!(zone, [Unmet::TooFewZones { zones: 1, zones_min: 2 }]);
    let racks = unmet(&[("a", Some("r"), 5), ("a", Some("r"), 5), ("b", Some("r"), 5), ("b", Some("r"), 5)]);
    let few = |zone: &str| Unmet::TooFewRacks { zone: zone.to_owned(), racks: 1, copies: 2 };
    assert_eq!(racks, [few("a"), few("b")]);
    assert_eq!(racks[0].to_string(), "zone a has 1 rack(s) for 2 copies: some racks hold two of a track");
}

#[test]
fn weight_that_cannot_be_used_is_named() {
    // Nine tenths of the weight are in zone a, which takes two copies of three.
    let zones = unmet(&[("a", None, 30), ("a", None, 30), ("a", None, 30), ("b", None, 5), ("b", None, 5)]);
    let [Unmet::Zone { zone, fullness_ppm }, Unmet::Zone { zone: other, .. }] = &zones[..] else { panic!("{zones:?}") };
    assert_eq!((zone.as_str(), other.as_str()), ("a", "b"));
    assert!(fullness_ppm.abs_diff(740_740) < 10, "two thirds of the copies by nine tenths: {fullness_ppm}");
    assert_eq!(zones[0].to_string(), "zone a is 74.0 % as full as its weight deserves: copies are spread more evenly");
    // One node weighs as much as the nine others of its zone, which takes up to two copies: it can hold one of them.
    let mut nodes = vec![("a", None, 90)];
    nodes.extend([("a", None, 5); 9]);
    nodes.extend([("b", None, 10); 9]);
    let heavy = unmet(&nodes);
    let used =
        |unmet: &Unmet| if let Unmet::TooHeavy { rack: None, used_ppm, .. } = unmet { Some(*used_ppm) } else { None };
    // Zone a takes 5 copies of 9, and the node 3 of those 5; by weight it would be 2 of 3.
    assert_eq!(heavy.iter().filter_map(used).collect::<Vec<_>>(), [900_000], "{heavy:?}");
    // The same as a rack of two.
    let mut nodes = vec![("a", Some("r"), 45), ("a", Some("r"), 45)];
    nodes.extend([("a", None, 5); 9]);
    nodes.extend([("b", None, 10); 9]);
    let heavy = unmet(&nodes);
    let rack = |unmet: &Unmet| if let Unmet::TooHeavy { rack, .. } = unmet { rack.clone() } else { None };
    assert_eq!(heavy.iter().filter_map(rack).collect::<Vec<_>>(), ["r"], "{heavy:?}");
}
