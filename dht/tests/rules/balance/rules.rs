//! The rules hold for any cluster, before and after any change.

use std::collections::{BTreeMap, BTreeSet};

use deadwax_dht::{Map, MapSpec, Node, PartitionBytes, Plan, Policy};
use deadwax_track::Partition;
use proptest::prelude::*;

use super::cluster::{Random, node, spec};

/// A small cluster, where rules bite: up to four zones, racks named or not, one to three volumes a node.
fn clusters() -> impl Strategy<Value = MapSpec> {
    let nodes = proptest::collection::vec((0..4_usize, 0..4_usize, 1..4_usize, 1..50_u32), 1..14);
    (nodes, 1..5_u8, any::<u64>()).prop_map(|(nodes, copies, seed)| {
        let mut dice = Random(seed);
        let nodes = nodes.into_iter().map(|(zone, rack, volumes, weight)| {
            let rack = (rack > 0).then(|| format!("r{rack}"));
            node(&mut dice, ["a", "b", "c", "d"][zone], rack, &vec![weight * 100; volumes])
        });
        let mut made = spec(nodes.collect());
        made.policy = Policy { copies, write_quorum: copies / 2 + 1, zones_min: 2 };
        made
    })
}

/// What is wrong with the holders of some partitions, by rules counted here and not as the crate does.
fn assert_rules(map: &Map) -> Result<(), TestCaseError> {
    let copies = usize::from(map.policy().copies).min(map.nodes().len());
    let rack = |node: &Node| node.rack.clone().map_or_else(|| node.id.to_string(), |rack| node.zone.clone() + &rack);
    for partition in (0..=u16::MAX).step_by(13).map(Partition) {
        let nodes: Vec<&Node> = map.holders(partition).iter().map(|holder| &map.nodes()[holder.node]).collect();
        prop_assert_eq!(nodes.len(), copies);
        let names: BTreeSet<_> = nodes.iter().map(|node| node.id).collect();
        prop_assert_eq!(names.len(), copies, "no two on a node");
        let mut by_zone = BTreeMap::<&str, Vec<&Node>>::new();
        nodes.iter().for_each(|node| by_zone.entry(&node.zone).or_default().push(node));
        prop_assert!(by_zone.len() >= map.zones().len().min(copies).min(2), "at least two zones where there are two");
        for (zone, held) in &by_zone {
            let here = || map.nodes().iter().filter(|node| node.zone == *zone);
            let racks: BTreeSet<String> = here().map(rack).collect();
            let used: BTreeSet<String> = held.iter().map(|node| rack(node)).collect();
            prop_assert!(used.len() >= held.len().min(racks.len()), "no two on a rack where racks suffice");
            // No zone has two copies more than one that has a node to spare.
            for other in map.zones() {
                let has = by_zone.get(other.as_str()).map_or(0, Vec::len);
                let spare = map.nodes().iter().filter(|node| node.zone == *other).count() > has;
                prop_assert!(!spare || held.len() <= has + 1, "{zone} has {}, {other} has {has}", held.len());
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_cluster_and_any_change_keeps_the_rules(before in clusters(), other in clusters(), keep in 0..14_usize) {
        let plain = Map::new(before.clone()).expect("a good map");
        assert_rules(&plain)?;
        let settled = Map::settled(before.clone()).expect("a good map");
        assert_rules(&settled)?;
        // Some nodes stay, some go, some come, racks and zones of some are others, copies may be more or fewer.
        let mut next = other;
        next.nodes.extend(before.nodes.into_iter().take(keep));
        if let [first, .., last] = &mut next.nodes[..] {
            last.zone.clone_from(&first.zone);
            last.rack.clone_from(&first.rack);
        }
        let plan = Plan::new(&settled, next.clone(), PartitionBytes::Uniform(1)).expect("a good map");
        assert_rules(plan.map())?;
        let again = Map::new(plan.map().spec().clone()).expect("a plan's map is a good one");
        prop_assert_eq!(&again, plan.map());
    }
}

#[test]
fn an_extra_copy_goes_where_a_rack_is_left_for_it() {
    // Zone a has one rack of four nodes, zone b four nodes by themselves: two of three copies lie in b, always.
    let mut dice = Random(1);
    let mut nodes: Vec<Node> = (0..4).map(|_| node(&mut dice, "a", Some("r".to_owned()), &[100])).collect();
    nodes.extend((0..4).map(|_| node(&mut dice, "b", None, &[100])));
    let map = Map::settled(spec(nodes)).expect("a good map");
    for partition in (0..=u16::MAX).map(Partition) {
        let in_b = map.holders(partition).iter().filter(|holder| map.zones()[holder.zone] == "b").count();
        assert_eq!(in_b, 2, "partition {}", partition.0);
    }
}
