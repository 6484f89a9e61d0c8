//! What a change moves, over many clusters and many changes of each.

use std::collections::BTreeMap;

use deadwax_dht::{Map, MapSpec, Node, PartitionBytes, Plan, Volume, VolumeId};
use deadwax_track::Partition;

use super::cluster::{Random, fullness_by_weight, mixed, node};

/// Bytes of a partition: any will do.
const BYTES: u64 = 1 << 30;

/// Copies on volumes that had them not before, counted anew.
fn moved(before: &Map, after: &Map) -> u128 {
    let moved = |partition| {
        let had = before.holders(Partition(partition));
        let has = after.holders(Partition(partition)).iter();
        has.filter(|holder| !had.iter().any(|other| other.volume == holder.volume)).count() as u128
    };
    (0..=u16::MAX).map(moved).sum()
}

/// One change of a cluster, of the `kind`th kind.
fn change(dice: &mut Random, spec: &MapSpec, kind: usize) -> (&'static str, MapSpec) {
    let mut next = spec.clone();
    let at = dice.index(next.nodes.len());
    let zone = |dice: &mut Random| next.nodes[dice.index(next.nodes.len())].zone.clone();
    let name = match kind % 6 {
        0 => {
            let (zone, weight) = (zone(dice), dice.pick(&[1000, 2000, 4000]));
            next.nodes.push(node(dice, &zone, None, &[weight]));
            "a node joins"
        }
        1 => {
            next.nodes.remove(at);
            "a node leaves"
        }
        2 => {
            let volume = &mut next.nodes[at].volumes[0];
            volume.weight = volume.weight * 3 / 2;
            "a volume gets heavier"
        }
        3 => {
            let volume = &mut next.nodes[at].volumes[0];
            volume.weight = volume.weight * 4 / 5;
            "a volume gets lighter"
        }
        4 => {
            let zone = zone(dice);
            let other = next.nodes.iter().map(|node| node.zone.clone()).find(|other| *other != zone);
            next.nodes[at].zone = if next.nodes[at].zone == zone { other.expect("two zones") } else { zone };
            "a node changes zone"
        }
        _ => {
            // Racks of a third of a zone's nodes, more or less.
            next.nodes[at].rack = Some(format!("r{}", dice.index(3)));
            "a node gets a rack"
        }
    };
    (name, next)
}

/// Takes a cluster through `changes` and asserts at each that all is even and that it moved little more than it must.
fn live(seed: u64, volumes: usize, changes: usize) {
    let mut dice = Random(seed);
    let mut map = Map::settled(mixed(&mut dice, volumes, &["a", "b"])).expect("a good map");
    for kind in 0..changes {
        let (name, next) = change(&mut dice, map.spec(), kind);
        let plan = Plan::new(&map, next, PartitionBytes::Uniform(BYTES)).expect("a good map");
        let what = format!("seed {seed}, {volumes} volumes, change {kind}: {name}");
        assert_eq!(plan.bytes_to_move(), moved(&map, plan.map()) * u128::from(BYTES), "{what}");
        let most = if map.nodes().len() < 50 { 110 } else { 105 };
        // What rounding to whole copies may cost: one a zone and a half-moved one.
        let allowed = plan.bytes_unavoidable() * most / 100 + 2 * u128::from(BYTES);
        assert!(plan.bytes_to_move() <= allowed, "{what}: moves {} of {allowed}", plan.bytes_to_move());
        assert_eq!(plan.unmet(), [], "{what}");
        let (emptiest, fullest) = fullness_by_weight(plan.map());
        assert!(emptiest >= 980_000 && fullest <= 1_020_000, "{what}: {emptiest} to {fullest} millionths");
        map = plan.into_map();
    }
}

#[test]
fn a_hundred_volumes_stay_even_and_move_little() {
    (0..6).for_each(|seed| live(seed, 100, 12));
}

#[test]
fn clusters_of_other_sizes_do_too() {
    for (seed, volumes) in (100..).zip([20, 30, 50, 75, 150, 200]) {
        live(seed, volumes, 8);
    }
}

#[test]
fn a_join_takes_the_newcomers_share_and_no_more() {
    // Against the definition: what the shares of all grow by is the newcomer's share alone.
    for seed in 0..6 {
        let mut dice = Random(seed);
        let before = Map::settled(mixed(&mut dice, 100, &["a", "b"])).expect("a good map");
        let mut next = before.spec().clone();
        next.nodes.push(node(&mut dice, "a", None, &[4000]));
        let weight: u128 = next.nodes.iter().map(|node| u128::from(node.volumes[0].weight)).sum();
        let plan = Plan::new(&before, next, PartitionBytes::Uniform(BYTES)).expect("a good map");
        let share = 3 * 65_536 * 4000 * u128::from(BYTES) / weight;
        let unavoidable = plan.bytes_unavoidable();
        assert!(unavoidable.abs_diff(share) * 1000 <= share, "seed {seed}: {unavoidable} is the share, {share}");
        assert!(plan.bytes_to_move() * 100 <= share * 105, "seed {seed}: moves {} of {share}", plan.bytes_to_move());
    }
}

#[test]
fn a_third_zone_takes_a_copy_of_everything_and_nothing_else_moves() {
    let mut dice = Random(5);
    let before = Map::settled(mixed(&mut dice, 60, &["a", "b"])).expect("a good map");
    let mut next = before.spec().clone();
    next.nodes.extend((0..30).map(|_| node(&mut dice, "c", None, &[2000])));
    let plan = Plan::new(&before, next, PartitionBytes::Uniform(1)).expect("a good map");
    assert!((65_536..=68_812).contains(&plan.bytes_unavoidable()), "{}", plan.bytes_unavoidable());
    assert!(plan.bytes_to_move() <= 68_812, "{} copies move, 65,536 must", plan.bytes_to_move());
}

/// The copies that come to each volume of `after` in the place of those of a lost one.
fn arrivals(before: &Map, after: &Map, lost: VolumeId) -> BTreeMap<VolumeId, u64> {
    let mut arrivals = BTreeMap::new();
    for partition in (0..=u16::MAX).map(Partition) {
        let had = before.holders(partition);
        if had.iter().any(|holder| holder.volume == lost) {
            let new = after.holders(partition).iter().map(|holder| holder.volume);
            for volume in new.filter(|volume| had.iter().all(|holder| holder.volume != *volume)) {
                *arrivals.entry(volume).or_default() += 1;
            }
        }
    }
    arrivals
}

#[test]
fn lost_copies_come_to_all_others_by_weight() {
    for (seed, zones) in [(1, &["a"][..]), (2, &["a", "b"]), (3, &["a", "b", "c"])] {
        let mut dice = Random(seed);
        let mut map = Map::settled(mixed(&mut dice, 50, zones)).expect("a good map");
        for round in 0..3 {
            let mut next = map.spec().clone();
            let lost = next.nodes.remove(dice.index(next.nodes.len()));
            let plan = Plan::onward(&map, next, PartitionBytes::Uniform(1)).expect("a good map");
            let (moved, must) = (plan.bytes_to_move(), plan.bytes_unavoidable());
            assert!(moved * 100 <= must * 105, "seed {seed}, round {round}: {moved} of {must}");
            let arrivals = arrivals(&map, plan.map(), lost.volumes[0].id);
            // Of what comes to all, or to its zone, where the rules let fewer copies leave that of the lost one.
            let part = |volume: &VolumeId| {
                let nodes = plan.map().nodes();
                let own = nodes.iter().find(|node| node.volumes[0].id == *volume).expect("a volume of the map");
                let part = |nodes: &[&Node]| {
                    let sum = |of: &dyn Fn(&Volume) -> u64| nodes.iter().map(|node| of(&node.volumes[0])).sum::<u64>();
                    let came = sum(&|volume| arrivals.get(&volume.id).copied().unwrap_or(0));
                    came * u64::from(own.volumes[0].weight) / sum(&|volume| volume.weight.into())
                };
                let zone: Vec<&Node> = nodes.iter().filter(|node| node.zone == own.zone).collect();
                part(&nodes.iter().collect::<Vec<_>>()).max(part(&zone))
            };
            for (volume, count) in &arrivals {
                let part = part(volume);
                assert!(
                    *count <= part * 115 / 100 + 2,
                    "seed {seed}, round {round}: {count} come, {part} are its part"
                );
            }
            map = plan.into_map();
        }
    }
}

#[test]
fn what_was_planned_step_by_step_is_what_the_map_says_by_itself() {
    for seed in 0..3 {
        let mut dice = Random(seed);
        let mut map = Map::settled(mixed(&mut dice, 40, &["a", "b"])).expect("a good map");
        for kind in 0..12 {
            let (name, next) = change(&mut dice, map.spec(), kind);
            map = Plan::new(&map, next, PartitionBytes::Uniform(1)).expect("a good map").into_map();
            // The plan's map knows its holders from the one before; this one draws them all.
            let anew = Map::new(map.spec().clone()).expect("a good map");
            for partition in (0..=u16::MAX).map(Partition) {
                let (planned, drawn) = (map.holders(partition), anew.holders(partition));
                assert_eq!(planned, drawn, "seed {seed}, change {kind} ({name}), partition {}", partition.0);
            }
        }
    }
}

#[test]
fn a_change_of_nothing_moves_nothing() {
    let map = Map::settled(mixed(&mut Random(3), 30, &["a", "b"])).expect("a good map");
    let mut next = map.spec().clone();
    next.epoch += 1;
    next.nodes.reverse();
    let plan = Plan::new(&map, next, PartitionBytes::Uniform(BYTES)).expect("a good map");
    assert_eq!((plan.bytes_to_move(), plan.bytes_unavoidable()), (0, 0));
    assert_eq!(plan.map().spec().overrides, map.spec().overrides, "an override that serves is kept");
}
