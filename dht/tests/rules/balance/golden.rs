//! Placement as committed text: equal on every machine and in every later version, or tracks would be looked for where
//! they are not.

use std::fmt::Write as _;

use deadwax_dht::{Map, PartitionBytes, Plan};
use deadwax_track::Partition;

use super::cluster::{Random, mixed, node};
use crate::golden::assert_golden;

const HEAD: &str = "\
# Holders of some partitions by name (first eight digits), in order of preference, the BLAKE3 of all partitions' holders,
# and what a change moves. tests/balance/golden.rs makes it. Written anew, if placement is ever meant to change, by
# DEADWAX_BLESS=1 cargo test -p deadwax-dht --test rules balance::golden
";

fn describe(text: &mut String, what: &str, map: &Map) {
    let mut all = blake3::Hasher::new();
    for holder in (0..=u16::MAX).flat_map(|partition| map.holders(Partition(partition))) {
        all.update(holder.volume.as_bytes());
    }
    let overrides = map.spec().overrides.len();
    writeln!(text, "\n{what}: {overrides} overrides, all {}", all.finalize().to_hex()).expect("written to memory");
    let first_overridden = map.spec().overrides.first().map(|over| over.partition.0);
    for partition in (0..=u16::MAX).step_by(8191).chain(first_overridden) {
        let names: Vec<String> =
            map.holders(Partition(partition)).iter().map(|holder| holder.volume.to_string()[..8].to_owned()).collect();
        writeln!(text, "{partition:04x} {}", names.join(" ")).expect("written to memory");
    }
}

#[test]
fn placement_is_golden() {
    let mut dice = Random(2026);
    let mut spec = mixed(&mut dice, 24, &["london", "stockholm"]);
    for (number, node) in spec.nodes.iter_mut().enumerate() {
        node.rack = (number % 3 > 0).then(|| format!("r{}", number / 6));
    }
    let mut text = HEAD.to_owned();
    describe(&mut text, "rendezvous alone", &Map::new(spec.clone()).expect("a good map"));
    let settled = Map::settled(spec).expect("a good map");
    describe(&mut text, "settled", &settled);
    let mut next = settled.spec().clone();
    next.nodes.push(node(&mut dice, "london", None, &[1000, 3000]));
    let joined = Plan::new(&settled, next, PartitionBytes::Uniform(1)).expect("a good map");
    describe(&mut text, &format!("a node joins, {} copies move", joined.bytes_to_move()), joined.map());
    let mut next = joined.map().spec().clone();
    next.nodes.remove(3);
    next.nodes[5].volumes[0].weight *= 2;
    next.nodes[8].zone = "oslo".to_owned();
    let moved = Plan::new(joined.map(), next, PartitionBytes::Uniform(1)).expect("a good map");
    describe(&mut text, &format!("all sorts of changes, {} copies move", moved.bytes_to_move()), moved.map());

    assert_golden(&text, "placement_golden.txt");
}
